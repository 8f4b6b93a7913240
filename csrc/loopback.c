#include "loopback.h"

#include "loopback_worker.h"

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

typedef struct rank {
    loop_transport transport;
    mt_engine *engine;
    void *segment;
    mt_loop_worker *workers;
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
    mt_loop_job job; /* what workers know of it */
    mt_world_options options;
    rank *ranks;
    wire *wires;
    uint32_t n_wires;
    uint32_t functions;
};

static uint64_t draw(mt_world *w, uint64_t below) { return mti_loop_draw(&w->job, below); }

static int loop_get(mt_transport *base, uint32_t peer, mt_frame **out) {
    (void)peer;
    loop_transport *t = (loop_transport *)base;
    uint32_t capacity = t->world->options.frame_bytes;
    if (draw(t->world, 8) == 0) return MT_E_AGAIN; /* as when too many sends are under way */
    parcel_frame *p = mt_get(t->world->job.alloc, sizeof *p + capacity);
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

static void loop_release(mt_transport *base, const mt_arrival *arrival) { mt_put(((loop_transport *)base)->world->job.alloc, arrival->token); }

static uint32_t loop_in_flight(mt_transport *base) {
    (void)base;
    return 0;
}

static void loop_destroy(mt_transport *base) {
    loop_transport *t = (loop_transport *)base;
    while (t->arrived != NULL) {
        parcel_frame *p = t->arrived;
        t->arrived = p->next;
        mt_put(t->world->job.alloc, p);
    }
}

/* ---- building ---- */

static int add_workers(mt_world *w, rank *r) {
    for (uint32_t i = 0; i < r->n_workers; i++) {
        r->workers[i].engine = r->engine;
        r->workers[i].memory = mti_segment_link_at(r->segment, i, w->options.ring_bytes);
        int status = mt_engine_add_lane(r->engine, MT_ROLE_WORKER, &r->workers[i].out.base, &r->workers[i].lane);
        if (status == MT_OK) status = mti_loop_worker_open(&w->job, &r->workers[i]);
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
        {loop_get, loop_send, loop_receive, loop_release, loop_in_flight, NULL, loop_destroy}, w, index, NULL, NULL};
    mti_frame_link_init(&r->parent_link, w->job.alloc, &r->transport.base, r->parent);
    mti_joiner_init(&r->parent_joiner, w->job.alloc, UINT64_MAX / 4);
    r->engine = mt_engine_new(w->job.alloc, r->n_workers + r->n_children, index == 0 ? NULL : &r->parent_link.base, "host");
    r->workers = mti_get_zeroed(w->job.alloc, r->n_workers + 1u, sizeof(mt_loop_worker));
    r->child_links = mti_get_zeroed(w->job.alloc, r->n_children + 1u, sizeof(mt_frame_link));
    r->child_joiners = mti_get_zeroed(w->job.alloc, r->n_children + 1u, sizeof(mt_joiner));
    r->child_lanes = mti_get_zeroed(w->job.alloc, r->n_children + 1u, sizeof(uint32_t));
    uint64_t segment = mti_segment_size(r->n_workers + 1, o->ring_bytes);
    r->segment = mti_get_zeroed(w->job.alloc, segment, 1);
    if (r->engine == NULL || r->workers == NULL || r->child_links == NULL || r->child_joiners == NULL ||
        r->child_lanes == NULL || r->segment == NULL) {
        return MT_E_NOMEM;
    }
    for (uint32_t i = 0; i < r->n_children; i++) {
        mti_frame_link_init(&r->child_links[i], w->job.alloc, &r->transport.base, r->first_child + i);
        mti_joiner_init(&r->child_joiners[i], w->job.alloc, UINT64_MAX / 4);
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
    w->job = (mt_loop_job){.alloc = alloc,
                           .random = mti_draw_start(o->seed),
                           .ring_bytes = o->ring_bytes,
                           .submits_per_million = o->submits_per_million};
    w->options = *o;
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
    for (uint32_t i = 0; r->workers != NULL && i < r->n_workers; i++) mti_loop_worker_clean_up(&r->workers[i]);
    mti_link_clean_up(&r->parent_link.base);
    mt_put(w->job.alloc, r->parent_link.frame);
    mti_joiner_clean_up(&r->parent_joiner);
    for (uint32_t i = 0; r->child_links != NULL && i < r->n_children; i++) {
        mti_link_clean_up(&r->child_links[i].base);
        mt_put(w->job.alloc, r->child_links[i].frame);
        mti_joiner_clean_up(&r->child_joiners[i]);
    }
    if (r->transport.world != NULL) loop_destroy(&r->transport.base);
    mt_put(w->job.alloc, r->workers);
    mt_put(w->job.alloc, r->child_links);
    mt_put(w->job.alloc, r->child_joiners);
    mt_put(w->job.alloc, r->child_lanes);
    mt_put(w->job.alloc, r->segment);
}

void mt_world_destroy(mt_world *w) {
    if (w == NULL) return;
    for (uint32_t i = 0; w->ranks != NULL && i < w->options.ranks; i++) destroy_rank(w, &w->ranks[i]);
    for (uint32_t i = 0; i < w->n_wires; i++) {
        while (w->wires[i].first != NULL) {
            parcel_frame *p = w->wires[i].first;
            w->wires[i].first = p->next;
            mt_put(w->job.alloc, p);
        }
    }
    mt_put(w->job.alloc, w->ranks);
    mt_put(w->job.alloc, w->wires);
    mt_put(w->job.alloc, w);
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
    mt_blob *blob = mt_blob_from_parts(w->job.alloc, &bytes, 1);
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
    w->job.now_ns += draw(w, 500000);
    int status = mt_engine_dispatch(r->engine, w->job.now_ns, moved);
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
    mt_put(w->job.alloc, p);
    return status == MT_E_AGAIN ? MT_OK : status;
}

/* `*out_rank`: the one whose engine took part. */
static int random_event(mt_world *w, uint64_t *moved, rank **out_rank) {
    rank *r = *out_rank = &w->ranks[draw(w, w->options.ranks)];
    mt_loop_worker *v = r->n_workers == 0 ? NULL : &r->workers[draw(w, r->n_workers)];
    if (v != NULL && w->options.kills_per_million > 0 && draw(w, 1000000) < w->options.kills_per_million) {
        ++*moved;
        return mti_loop_worker_kill(&w->job, v);
    }
    switch (draw(w, w->options.submits_per_million > 0 ? 5 : 4)) {
        case 4: return v == NULL ? MT_OK : mti_loop_worker_submit(&w->job, v, moved);
        case 0: return run_engine(w, r, moved);
        case 1: {
            if (w->n_wires == 0) return MT_OK;
            wire *x = &w->wires[draw(w, w->n_wires)];
            if (x->first == NULL) return MT_OK;
            ++*moved;
            *out_rank = &w->ranks[x->to];
            return deliver(w, x);
        }
        case 2: return v == NULL ? MT_OK : mti_loop_worker_read(v, moved);
        default: return v == NULL ? MT_OK : mti_loop_worker_work(&w->job, v, moved);
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
        for (uint32_t k = 0; k < r->n_workers; k++) residue += mti_loop_worker_residue(&r->workers[k]);
    }
    for (uint32_t i = 0; i < w->n_wires; i++) residue += w->wires[i].first != NULL;
    return residue;
}

void mt_world_stop_killing(mt_world *w) {
    w->options.kills_per_million = 0;
}

void mt_world_stop_submitting(mt_world *w) { w->job.is_finishing = true; }

uint64_t mt_world_below(const mt_world *w) {
    uint64_t done = w->job.below_done;
    for (uint32_t i = 0; i < w->options.ranks; i++) {
        const rank *r = &w->ranks[i];
        for (uint32_t k = 0; k < r->n_workers; k++) done += mti_loop_worker_below(&r->workers[k]);
    }
    return done;
}

uint64_t mt_world_kills(const mt_world *w) { return w->job.kills; }

uint64_t mt_world_recalled(const mt_world *w) {
    uint64_t recalled = 0;
    for (uint32_t i = 0; i < w->options.ranks; i++) recalled += mt_engine_stats_now(w->ranks[i].engine).recalled;
    return recalled;
}
