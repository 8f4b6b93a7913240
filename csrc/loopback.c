#include "loopback.h"

#include <string.h>

#include "draw.h"
#include "loopback_below.h"
#include "engine.h"
#include "segment.h"

/* Sub-tasks may submit, too: without a limit there might be no end. */
#define MOST_SUBMISSIONS 60u

/* ---- the transport ---- */

typedef struct parcel_frame {
    mt_frame frame; /* first: a frame's address is its parcel's */
    struct parcel_frame *next;
    uint32_t from;
    unsigned char data[];
} parcel_frame;

typedef struct loop_transport {
    mt_transport base;
    struct mt_world *world;
    uint32_t rank;
    parcel_frame *arrived, *last_arrived; /* in the order in which the world delivered them */
} loop_transport;

/* Frames from one rank to another that have not been delivered. */
typedef struct wire {
    uint32_t from, to;
    parcel_frame *first, *last;
} wire;

typedef struct virtual_worker {
    mt_ring_link out; /* the engine's side */
    mt_ring *engine_up;
    mt_ring *down, *up; /* the worker's side */
    mt_segment_link memory;
    uint32_t lane;
    uint64_t started;
    bool has_task;
    bool is_closed; /* it has said so */
    mt_below *below; /* NULL: it has submitted nothing */
    uint64_t task_id, number, size, behaviour;
    mt_span span; /* count 0: the task is none */
    uint64_t items, hash; /* items > 0: what a combination gives */
} virtual_worker;

typedef struct rank {
    loop_transport transport;
    mt_engine *engine;
    void *segment;
    virtual_worker *workers;
    uint32_t n_workers;
    mt_frame_link parent_link;
    mt_joiner parent_joiner;
    mt_frame_link *child_links;
    mt_joiner *child_joiners;
    uint32_t *child_lanes;
    uint32_t first_child, n_children;
    uint32_t parent;
    uint32_t said_slots;
} rank;

struct mt_world {
    const mt_alloc *alloc;
    mt_world_options options;
    uint64_t random;
    uint64_t now_ns;
    rank *ranks;
    wire *wires;
    uint32_t n_wires;
    uint64_t kills;
    uint64_t below_done; /* of workers that are gone */
    uint64_t next_below;
    uint64_t submissions;
    bool is_finishing;
    uint32_t functions;
};

static uint64_t draw(mt_world *w, uint64_t below) { return mti_draw(&w->random, below); }

static int loop_get(mt_transport *base, uint32_t peer, mt_frame **out) {
    (void)peer;
    loop_transport *t = (loop_transport *)base;
    uint32_t capacity = t->world->options.frame_bytes;
    if (draw(t->world, 8) == 0) return MT_E_AGAIN; /* as when too many sends are under way */
    parcel_frame *p = mt_get(t->world->alloc, sizeof *p + capacity);
    if (p == NULL) return MT_E_AGAIN;
    *p = (parcel_frame){.frame = {p->data, capacity, 0}};
    *out = &p->frame;
    return MT_OK;
}

static int loop_send(mt_transport *base, uint32_t peer, mt_frame *frame) {
    loop_transport *t = (loop_transport *)base;
    parcel_frame *p = (parcel_frame *)frame;
    p->from = t->rank;
    p->next = NULL;
    for (uint32_t i = 0; i < t->world->n_wires; i++) {
        wire *x = &t->world->wires[i];
        if (x->from != t->rank || x->to != peer) continue;
        if (x->first == NULL) {
            x->first = p;
        } else {
            x->last->next = p;
        }
        x->last = p;
        return MT_OK;
    }
    return MT_E_PEER;
}

static int loop_receive(mt_transport *base, mt_arrival *out) {
    loop_transport *t = (loop_transport *)base;
    parcel_frame *p = t->arrived;
    if (p == NULL) return MT_E_AGAIN;
    t->arrived = p->next;
    *out = (mt_arrival){p->frame.data, p->frame.used, p->from, p};
    return MT_OK;
}

static int loop_release(mt_transport *base, const mt_arrival *arrival) {
    mt_put(((loop_transport *)base)->world->alloc, arrival->token);
    return MT_OK;
}

static uint32_t loop_in_flight(mt_transport *base) {
    (void)base;
    return 0;
}

static void loop_destroy(mt_transport *base) {
    loop_transport *t = (loop_transport *)base;
    while (t->arrived != NULL) {
        parcel_frame *p = t->arrived;
        t->arrived = p->next;
        mt_put(t->world->alloc, p);
    }
}

/* ---- building ---- */

static int open_worker(mt_world *w, rank *r, uint32_t index) {
    virtual_worker *v = &r->workers[index];
    if (v->below != NULL) w->below_done += mti_below_done(v->below);
    mti_below_destroy(v->below);
    v->below = NULL;
    v->is_closed = false;
    mti_link_clean_up(&v->out.base);
    mt_ring *old_down = v->out.ring;
    mt_ring_close(v->engine_up);
    mt_ring_close(v->down);
    mt_ring_close(v->up);
    mt_ring_close(old_down);
    v->memory = mti_segment_link_at(r->segment, index, w->options.ring_bytes);
    mti_segment_format_link(&v->memory, w->options.ring_bytes);
    mt_ring *ring = mt_ring_open(w->alloc, v->memory.down, w->options.ring_bytes);
    v->engine_up = mt_ring_open(w->alloc, v->memory.up, w->options.ring_bytes);
    v->down = mt_ring_open(w->alloc, v->memory.down, w->options.ring_bytes);
    v->up = mt_ring_open(w->alloc, v->memory.up, w->options.ring_bytes);
    mti_ring_link_init(&v->out, w->alloc, ring, &v->memory);
    v->started = 0;
    v->has_task = false;
    if (ring == NULL || v->engine_up == NULL || v->down == NULL || v->up == NULL) return MT_E_NOMEM;
    mt_rec hello = {sizeof hello, 1, MT_KIND_HELLO, 0, 1};
    mt_part part = {&hello, sizeof hello};
    uint64_t progress = 0;
    int status = mt_ring_put(v->up, &part, 1, &progress);
    (void)mt_ring_publish(v->up);
    return status;
}

static int add_workers(mt_world *w, rank *r) {
    for (uint32_t i = 0; i < r->n_workers; i++) {
        int status = mt_engine_add_lane(r->engine, MT_ROLE_WORKER, &r->workers[i].out.base, &r->workers[i].lane);
        if (status == MT_OK) status = open_worker(w, r, i);
        if (status != MT_OK) return status;
    }
    return MT_OK;
}

static int build_rank(mt_world *w, uint32_t index) {
    rank *r = &w->ranks[index];
    const mt_world_options *o = &w->options;
    uint64_t first = (uint64_t)index * o->fanout + 1;
    r->first_child = first < o->ranks ? (uint32_t)first : o->ranks;
    r->n_children = r->first_child + o->fanout <= o->ranks ? o->fanout : o->ranks - r->first_child;
    r->parent = index == 0 ? 0 : (index - 1) / o->fanout;
    r->n_workers = index > 0 || o->ranks == 1 ? o->workers : 0;
    r->transport = (loop_transport){
        {loop_get, loop_send, loop_receive, loop_release, loop_in_flight, loop_destroy}, w, index, NULL, NULL};
    mti_frame_link_init(&r->parent_link, w->alloc, &r->transport.base, r->parent);
    mti_joiner_init(&r->parent_joiner, w->alloc, UINT64_MAX / 4);
    r->engine = mt_engine_new(w->alloc, r->n_workers + r->n_children, index == 0 ? NULL : &r->parent_link.base, "host");
    r->workers = mti_get_zeroed(w->alloc, r->n_workers + 1u, sizeof(virtual_worker));
    r->child_links = mti_get_zeroed(w->alloc, r->n_children + 1u, sizeof(mt_frame_link));
    r->child_joiners = mti_get_zeroed(w->alloc, r->n_children + 1u, sizeof(mt_joiner));
    r->child_lanes = mti_get_zeroed(w->alloc, r->n_children + 1u, sizeof(uint32_t));
    uint64_t segment = mti_segment_size(r->n_workers + 1, o->ring_bytes);
    r->segment = mti_get_zeroed(w->alloc, segment, 1);
    if (r->engine == NULL || r->workers == NULL || r->child_links == NULL || r->child_joiners == NULL ||
        r->child_lanes == NULL || r->segment == NULL) {
        return MT_E_NOMEM;
    }
    for (uint32_t i = 0; i < r->n_children; i++) {
        mti_frame_link_init(&r->child_links[i], w->alloc, &r->transport.base, r->first_child + i);
        mti_joiner_init(&r->child_joiners[i], w->alloc, UINT64_MAX / 4);
        int status = mt_engine_add_lane(r->engine, MT_ROLE_CHILD, &r->child_links[i].base, &r->child_lanes[i]);
        if (status != MT_OK) return status;
        w->wires[w->n_wires++] = (wire){.from = index, .to = r->first_child + i};
        w->wires[w->n_wires++] = (wire){.from = r->first_child + i, .to = index};
    }
    return add_workers(w, r);
}

mt_world *mt_world_new(const mt_alloc *alloc, const mt_world_options *o, uint32_t functions) {
    if (o->ranks == 0 || o->workers == 0 || o->fanout == 0 || o->frame_bytes < 256) return NULL;
    if (mt_ring_footprint(o->ring_bytes) == 0) return NULL;
    mt_world *w = mti_get_zeroed(alloc, 1, sizeof *w);
    if (w == NULL) return NULL;
    w->alloc = alloc;
    w->options = *o;
    w->random = mti_draw_start(o->seed);
    w->functions = functions;
    w->ranks = mti_get_zeroed(alloc, o->ranks, sizeof(rank));
    w->wires = mti_get_zeroed(alloc, 2u * o->ranks, sizeof(wire));
    int status = w->ranks == NULL || w->wires == NULL ? MT_E_NOMEM : MT_OK;
    for (uint32_t i = 0; i < o->ranks && status == MT_OK; i++) status = build_rank(w, i);
    for (uint32_t id = 1; id <= functions && status == MT_OK; id++) {
        mt_part bytes = {"function", 8};
        mt_blob *blob = mt_blob_from_parts(alloc, &bytes, 1);
        status = blob == NULL ? MT_E_NOMEM : mt_engine_add_object(w->ranks[0].engine, id, blob, MT_CODEC_PICKLE);
        mt_blob_unref(blob);
    }
    if (status != MT_OK) {
        mt_world_destroy(w);
        return NULL;
    }
    return w;
}

static void destroy_rank(mt_world *w, rank *r) {
    mt_engine_destroy(r->engine);
    for (uint32_t i = 0; r->workers != NULL && i < r->n_workers; i++) {
        virtual_worker *v = &r->workers[i];
        mti_below_destroy(v->below);
        mti_link_clean_up(&v->out.base);
        mt_ring_close(v->out.ring);
        mt_ring_close(v->engine_up);
        mt_ring_close(v->down);
        mt_ring_close(v->up);
    }
    mti_link_clean_up(&r->parent_link.base);
    mt_put(w->alloc, r->parent_link.frame);
    mti_joiner_clean_up(&r->parent_joiner);
    for (uint32_t i = 0; r->child_links != NULL && i < r->n_children; i++) {
        mti_link_clean_up(&r->child_links[i].base);
        mt_put(w->alloc, r->child_links[i].frame);
        mti_joiner_clean_up(&r->child_joiners[i]);
    }
    if (r->transport.world != NULL) loop_destroy(&r->transport.base);
    mt_put(w->alloc, r->workers);
    mt_put(w->alloc, r->child_links);
    mt_put(w->alloc, r->child_joiners);
    mt_put(w->alloc, r->child_lanes);
    mt_put(w->alloc, r->segment);
}

void mt_world_destroy(mt_world *w) {
    if (w == NULL) return;
    for (uint32_t i = 0; w->ranks != NULL && i < w->options.ranks; i++) destroy_rank(w, &w->ranks[i]);
    for (uint32_t i = 0; i < w->n_wires; i++) {
        while (w->wires[i].first != NULL) {
            parcel_frame *p = w->wires[i].first;
            w->wires[i].first = p->next;
            mt_put(w->alloc, p);
        }
    }
    mt_put(w->alloc, w->ranks);
    mt_put(w->alloc, w->wires);
    mt_put(w->alloc, w);
}

/* ---- what the tests do ---- */

int mt_world_submit(mt_world *w, mt_task *task) {
    mt_task_ref(task);
    return mt_engine_submit(w->ranks[0].engine, task);
}

void mt_world_cancelled(mt_world *w, mt_task *task) {
    mt_task_ref(task);
    mt_engine_cancelled(w->ranks[0].engine, task);
}

int mt_world_fulfil(mt_world *w, mt_task *task, uint64_t number) {
    mt_part bytes = {&number, sizeof number};
    mt_blob *blob = mt_blob_from_parts(w->alloc, &bytes, 1);
    if (blob == NULL) return MT_E_NOMEM;
    mt_task_ref(task);
    mt_engine_fulfil(w->ranks[0].engine, task, MT_OUTCOME_OK, MT_CODEC_MARSHAL, blob);
    mt_blob_unref(blob);
    return MT_OK;
}

void mt_world_cancel_all(mt_world *w) {
    mt_engine_cancel_all(w->ranks[0].engine);
}

void mt_world_drop_functions(mt_world *w) {
    for (uint32_t id = 1; id <= w->functions; id++) mt_engine_drop_object(w->ranks[0].engine, id);
}

/* ---- events ---- */

static int run_engine(mt_world *w, rank *r, uint64_t *moved) {
    w->now_ns += draw(w, 500000);
    int status = mt_engine_dispatch(r->engine, w->now_ns, moved);
    if (status == MT_OK && r != w->ranks) {
        uint32_t slots = mt_engine_stats_now(r->engine).slots;
        if (slots != r->said_slots && draw(w, 4) == 0) {
            r->said_slots = slots;
            status = mt_engine_say_slots(r->engine, slots);
            ++*moved;
        }
    }
    for (uint32_t i = 0; i < r->n_workers && status == MT_OK; i++) status = mti_link_pump(&r->workers[i].out.base, moved);
    for (uint32_t i = 0; i < r->n_children && status == MT_OK; i++) status = mti_link_pump(&r->child_links[i].base, moved);
    if (status == MT_OK && r != w->ranks) status = mti_link_pump(&r->parent_link.base, moved);
    uint32_t flags;
    if (r == w->ranks) {
        for (mt_task *task; (task = mt_engine_take_ended(r->engine, &flags)) != NULL;) mt_task_unref(task);
    }
    return status;
}

static int deliver(mt_world *w, wire *x) {
    parcel_frame *p = x->first;
    x->first = p->next;
    p->next = NULL;
    rank *to = &w->ranks[x->to];
    bool from_parent = x->to != 0 && x->from == to->parent;
    mt_joiner *joiner = from_parent ? &to->parent_joiner : &to->child_joiners[x->from - to->first_child];
    mt_frame_reader reader;
    int status = mti_frame_open(&reader, p->frame.data, p->frame.used);
    mt_incoming incoming;
    while (status == MT_OK && (status = mti_frame_next(&reader, joiner, &incoming)) == MT_OK) {
        status = from_parent
                     ? mt_engine_from_parent(to->engine, &incoming)
                     : mt_engine_from_lane(to->engine, to->child_lanes[x->from - to->first_child], &incoming);
    }
    mt_put(w->alloc, p);
    return status == MT_E_AGAIN ? MT_OK : status;
}

static int read_worker(rank *r, virtual_worker *v, uint64_t *moved) {
    mt_incoming incoming;
    int status = mti_ring_get(v->engine_up, &incoming);
    if (status == MT_E_AGAIN) return MT_OK;
    if (status != MT_OK) return status;
    ++*moved;
    status = mt_engine_from_lane(r->engine, v->lane, &incoming);
    mt_ring_release(v->engine_up);
    return status;
}

static uint64_t power(uint64_t n) {
    uint64_t result = 1;
    for (uint64_t base = MT_WORLD_BASE; n > 0; n >>= 1, base *= base) result *= (n & 1) != 0 ? base : 1;
    return result;
}

/* MT_E_RECORD: these are not pairs of words, one for each part. */
static int worker_combine(virtual_worker *v, const unsigned char *at, uint64_t size) {
    v->items = v->hash = 0;
    while (size > 0) {
        struct {
            mt_parts_head head;
            uint64_t items, hash;
        } part;
        if (size < sizeof part) return MT_E_RECORD;
        memcpy(&part, at, sizeof part);
        if (part.head.size != 16 || part.head.count != part.items || part.head.codec != MT_CODEC_MARSHAL) return MT_E_RECORD;
        v->hash = v->hash * power(part.items) + part.hash;
        v->items += part.items;
        at += sizeof part;
        size -= sizeof part;
    }
    return v->items > 0 ? MT_OK : MT_E_RECORD;
}

/* Takes a record: of a task it works out the answer at once and keeps it for a later step. */
static int worker_take(virtual_worker *v, uint64_t *moved) {
    mt_incoming incoming;
    int status = mti_ring_get(v->down, &incoming);
    if (status != MT_OK) return status == MT_E_AGAIN ? MT_OK : status;
    ++*moved;
    const void *data = incoming.data;
    uint64_t size = incoming.size;
    status = mt_record_check(data, size, MT_ROLE_PARENT);
    const mt_rec_task *task = data;
    if (status == MT_OK && task->rec.kind == MT_KIND_RESUME) mti_resume(v->memory.started);
    bool is_for_below = task->rec.kind == MT_KIND_RESULT || task->rec.kind == MT_KIND_SLOTS || task->rec.kind == MT_KIND_RECALLED;
    if (status == MT_OK && is_for_below) status = v->below == NULL ? MT_E_RECORD : mti_below_take(v->below, &incoming);
    if (status == MT_OK && task->rec.kind == MT_KIND_TASK && mti_begin_job(v->memory.started, &v->started)) {
        uint64_t words[3], sum;
        const unsigned char *at = mti_below_edges(task, &sum);
        v->span.count = v->items = 0;
        v->task_id = task->rec.id;
        v->has_task = true;
        if (task->rec.flags == MT_CODEC_PARTS) {
            status = worker_combine(v, at, size - (uint64_t)(at - (const unsigned char *)data));
            mt_ring_release(v->down);
            return status;
        }
        if ((task->rec.flags & MT_CODEC_SPAN) != 0) {
            memcpy(&v->span, at, sizeof v->span);
            at += sizeof v->span;
            if (v->span.combine != 0) status = MT_E_RECORD; /* it never got the object */
        }
        memcpy(words, at, sizeof words);
        v->number = words[0] + sum;
        v->size = words[1];
        v->behaviour = words[2];
    }
    mt_ring_release(v->down);
    return status;
}

static bool worker_fails(const virtual_worker *v) {
    if (v->items > 0) return false;
    if (v->span.count > 0) return v->size > 0 && v->size - 1 >= v->span.first && v->size - 1 - v->span.first < v->span.count;
    return v->behaviour == MT_WORLD_ERROR;
}

static unsigned char *answer_of(mt_world *w, const virtual_worker *v, uint64_t *out_size) {
    bool reduces = v->items > 0 || (v->behaviour & MT_WORLD_REDUCE) != 0;
    bool is_span = (v->items > 0 || v->span.count > 0) && !worker_fails(v);
    uint64_t size = worker_fails(v) ? sizeof v->number : !is_span ? v->size : reduces ? 16 : 8 * v->span.count;
    unsigned char *body = mti_get_zeroed(w->alloc, size, 1);
    if (body == NULL) return NULL;
    *out_size = size;
    uint64_t pair[2] = {v->items > 0 ? v->items : v->span.count, v->hash};
    for (uint64_t i = 0; is_span && v->items == 0 && i < v->span.count; i++) {
        uint64_t word = v->number + v->span.first + i;
        pair[1] = (i == 0 ? 0 : pair[1] * MT_WORLD_BASE) + word;
        if (!reduces) memcpy(body + 8 * i, &word, sizeof word);
    }
    if (is_span && reduces) memcpy(body, pair, sizeof pair);
    uint64_t first = size > 4096 ? size : v->number; /* see worker_take */
    if (!is_span) memcpy(body, &first, sizeof first);
    return body;
}

static int worker_answer(mt_world *w, virtual_worker *v, uint64_t *moved) {
    uint64_t size = 0, items = v->span.count == 0 ? 1 : v->span.count;
    unsigned char *body = answer_of(w, v, &size);
    if (body == NULL) return MT_E_NOMEM;
    uint64_t each_ns = 1000 + draw(w, items == 1 ? 100000 : 6000000);
    mt_rec_result head = {{sizeof head + size, v->task_id, MT_KIND_RESULT, MT_CODEC_MARSHAL,
                           worker_fails(v) ? MT_OUTCOME_ERROR : MT_OUTCOME_OK},
                          items * each_ns};
    mt_part parts[2] = {{&head, sizeof head}, {body, size}};
    uint64_t progress = 0;
    int status;
    do { /* a full ring: the engine reads in between, as it would beside a real worker */
        status = mt_ring_put(v->up, parts, 2, &progress);
        (void)mt_ring_publish(v->up);
        if (status != MT_E_AGAIN) break;
        uint64_t n = 0;
        rank *r = NULL;
        for (uint32_t i = 0; i < w->options.ranks && r == NULL; i++) {
            rank *candidate = &w->ranks[i];
            if (v >= candidate->workers && v < candidate->workers + candidate->n_workers) r = candidate;
        }
        int read_status = r == NULL ? MT_E_INVAL : read_worker(r, v, &n);
        if (read_status != MT_OK) status = read_status;
    } while (status == MT_E_AGAIN);
    mt_put(w->alloc, body);
    v->has_task = false;
    ++*moved;
    return status;
}

/* Closed, it begins nothing more until the engine has answered. */
static int close_or_open(virtual_worker *v) {
    v->is_closed = !v->is_closed;
    if (v->is_closed) (void)mti_recall(v->memory.started);
    mt_rec rec = {sizeof rec, (uint64_t)(int64_t)INT32_MIN, MT_KIND_SLOTS, 0, v->is_closed ? 0 : 1};
    mt_part part = {&rec, sizeof rec};
    uint64_t progress = 0;
    int status = mt_ring_put(v->up, &part, 1, &progress);
    (void)mt_ring_publish(v->up);
    if (status == MT_E_AGAIN) { /* not now */
        v->is_closed = !v->is_closed;
        if (!v->is_closed) mti_resume(v->memory.started);
        return MT_OK;
    }
    return status;
}

/* What its task may do beside running: submit, close, open. Only a worker that has begun something closes, as a real one: so there is an end. */
static int worker_submit(mt_world *w, virtual_worker *v, uint64_t *moved) {
    /* Not faster than it reads what that makes the engine send again: there would be no end. */
    bool is_writing = v->out.base.backlog_bytes > 0 || (v->below != NULL && mti_below_is_writing(v->below));
    bool submits = !w->is_finishing && w->submissions < MOST_SUBMISSIONS && draw(w, 1000000) < w->options.submits_per_million;
    int status = MT_OK;
    if (v->is_closed ? !is_writing && (w->is_finishing || draw(w, 4) == 0) : !is_writing && v->has_task && submits && draw(w, 4) == 0) {
        ++*moved;
        status = close_or_open(v);
    } else if (submits && v->has_task && v->is_closed) {
        ++*moved;
        w->submissions++;
        if (v->below == NULL) v->below = mti_below_new(w->alloc, v->up, &v->memory, ++w->next_below);
        status = v->below == NULL ? MT_E_NOMEM : mti_below_submit(v->below, &w->random);
    }
    if (v->below == NULL || status != MT_OK) return status;
    if (w->is_finishing) mti_below_finish(v->below);
    w->now_ns += draw(w, 100000);
    return mti_below_step(v->below, w->now_ns, w->kills > 0, moved);
}

static int kill_worker(mt_world *w, rank *r, uint32_t index) {
    virtual_worker *v = &r->workers[index];
    uint64_t n = 1;
    int status = MT_OK;
    while (n > 0 && status == MT_OK) { /* what it published before it died still counts */
        n = 0;
        status = read_worker(r, v, &n);
    }
    mt_lost why = {1, 9, MT_LOST_WORKER};
    if (status == MT_OK) status = mt_engine_lane_lost(r->engine, v->lane, &why, mti_begun(v->memory.started));
    if (status == MT_OK) status = open_worker(w, r, index);
    w->kills++;
    return status;
}

/* `*out_rank`: the one whose engine took part. */
static int random_event(mt_world *w, uint64_t *moved, rank **out_rank) {
    rank *r = *out_rank = &w->ranks[draw(w, w->options.ranks)];
    uint32_t index = r->n_workers == 0 ? 0 : (uint32_t)draw(w, r->n_workers);
    virtual_worker *v = r->n_workers == 0 ? NULL : &r->workers[index];
    if (v != NULL && w->options.kills_per_million > 0 && draw(w, 1000000) < w->options.kills_per_million) {
        ++*moved;
        return kill_worker(w, r, index);
    }
    switch (draw(w, w->options.submits_per_million > 0 ? 5 : 4)) {
        case 4: return v == NULL ? MT_OK : worker_submit(w, v, moved);
        case 0: return run_engine(w, r, moved);
        case 1: {
            if (w->n_wires == 0) return MT_OK;
            wire *x = &w->wires[draw(w, w->n_wires)];
            if (x->first == NULL) return MT_OK;
            ++*moved;
            *out_rank = &w->ranks[x->to];
            return deliver(w, x);
        }
        case 2: return v == NULL ? MT_OK : read_worker(r, v, moved);
        default:
            if (v == NULL) return MT_OK;
            if (!v->has_task || (v->is_closed && draw(w, 2) == 0)) return worker_take(v, moved); /* closed, it gets no task */
            return v->below != NULL && mti_below_is_writing(v->below) ? MT_OK : worker_answer(w, v, moved);
    }
}

int mt_world_step(mt_world *w) {
    const uint64_t rest = 500 + 100ull * w->options.ranks * (1 + w->options.workers);
    uint64_t moved = 0;
    for (uint64_t quiet = 0; moved == 0; quiet++) {
        if (quiet > rest) return 0;
        rank *r;
        int status = random_event(w, &moved, &r);
        if (status == MT_OK && moved > 0) status = mt_engine_check(r->engine);
        if (status != MT_OK) return status;
    }
    return 1;
}

uint64_t mt_world_outstanding(const mt_world *w) { return mt_engine_stats_now(w->ranks[0].engine).outstanding; }

uint64_t mt_world_residue(const mt_world *w) {
    uint64_t residue = 0;
    for (uint32_t i = 0; i < w->options.ranks; i++) {
        const rank *r = &w->ranks[i];
        mt_engine_stats stats = mt_engine_stats_now(r->engine);
        residue += stats.outstanding + stats.objects;
        for (uint32_t k = 0; k < r->n_workers; k++) {
            residue += r->workers[k].has_task + r->workers[k].out.base.backlog_bytes;
            if (r->workers[k].below != NULL) residue += mti_below_residue(r->workers[k].below);
        }
    }
    for (uint32_t i = 0; i < w->n_wires; i++) residue += w->wires[i].first != NULL;
    return residue;
}

void mt_world_stop_killing(mt_world *w) {
    w->options.kills_per_million = 0;
}

void mt_world_stop_submitting(mt_world *w) { w->is_finishing = true; }

uint64_t mt_world_below(const mt_world *w) {
    uint64_t done = w->below_done;
    for (uint32_t i = 0; i < w->options.ranks; i++) {
        const rank *r = &w->ranks[i];
        for (uint32_t k = 0; k < r->n_workers; k++) done += r->workers[k].below == NULL ? 0 : mti_below_done(r->workers[k].below);
    }
    return done;
}

uint64_t mt_world_kills(const mt_world *w) { return w->kills; }

uint64_t mt_world_recalled(const mt_world *w) {
    uint64_t recalled = 0;
    for (uint32_t i = 0; i < w->options.ranks; i++) recalled += mt_engine_stats_now(w->ranks[i].engine).recalled;
    return recalled;
}
