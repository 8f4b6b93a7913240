#include "sim.h"

#include <string.h>

#include "bank.h"
#include "draw.h"
#include "link.h"

#define NEVER UINT64_MAX
#define FUNCTION 1u          /* the script's only function */
#define FUNCTION_BYTES 512u  /* a small pickled function */
#define MILLION 1000000u
#define NO_WORKER UINT32_MAX
/* As in driver.c, whose waiting is modelled by `look`. */
#define SPIN_NS 50000u
#define BATCH_NAP_NS 50000u
#define CALM_NS 1000000u
#define FIRST_NAP_NS 20000u
#define LONGEST_NAP_NS 2000000u
#define MESSAGES_AT_A_TIME 512u
#define FRAMES_AT_A_TIME 64u

/* A frame being filled: of full size, used again and again. */
typedef struct blank {
    mt_frame frame; /* first: a frame's address is its blank's */
    struct blank *next;
    _Alignas(16) unsigned char data[];
} blank;

/* A frame that has been sent, in memory of just its size. */
typedef struct parcel {
    struct parcel *next;
    uint64_t arrived_ns;
    uint32_t from, to;
    uint32_t size;
    _Alignas(16) unsigned char data[];
} parcel;

typedef struct sim_transport {
    mt_transport base;
    mt_sim *sim;
    uint32_t rank;
} sim_transport;

typedef struct child {
    mt_frame_link link;
    mt_joiner joiner;
    uint32_t lane;
    bool is_lost;
    uint64_t last_down_ns, last_up_ns; /* when the last frame arrives: frames do not overtake */
} child;

/* News of a death for the engine above. */
typedef struct loss {
    struct loss *next;
    uint64_t at_ns;
    uint32_t worker; /* NO_WORKER: the child */
    uint32_t child;
} loss;

typedef struct node {
    sim_transport transport;
    mt_engine *engine; /* NULL: dead */
    mt_frame_link up;
    mt_joiner joiner;
    child *children;
    uint32_t first_child, n_children, parent, depth;
    mt_bank **banks;
    uint64_t *due_ns;      /* of each bank */
    uint32_t *got;         /* numbers of the banks that got tasks in this step */
    uint32_t n_got;
    mt_bank_list got_list; /* the same, before they are counted */
    uint64_t next_due_ns;  /* the least of due_ns */
    uint32_t n_banks, slots; /* of each bank */
    uint32_t first_bank;     /* its lane */
    uint32_t workers;
    parcel *arrived, *last_arrived;
    uint64_t n_arrived;
    loss *losses;
    uint64_t busy_until_ns, wake_at_ns, line_free_ns;
    uint32_t under_way, said_slots;
    bool is_calm; /* naps are short ones for a while */
    bool has_backlog;
    uint64_t cpu_ns;
    uint64_t results; /* taken in by its engine until the last step */
} node;

enum event_kind { EVENT_STEP, EVENT_FRAME, EVENT_DEATH, EVENT_LOSS };

typedef struct event {
    uint64_t at_ns;
    uint64_t sequence;
    parcel *parcel;  /* EVENT_FRAME */
    uint32_t rank;
    uint32_t detail; /* EVENT_DEATH: worker; EVENT_LOSS: child */
    uint32_t kind;
} event;

typedef struct death {
    uint32_t rank, worker;
    uint64_t after_ns;
} death;

/* Workers that run a task, over time. */
typedef struct histogram {
    uint64_t start_ns, width_ns;
    double within[MT_SIM_BUCKETS]; /* what a change adds to the average of its own bucket */
    double after[MT_SIM_BUCKETS];  /* and to all later ones */
} histogram;

struct mt_sim {
    const mt_alloc *alloc;
    mt_sim_options options;
    mt_workload work;
    uint64_t random;
    node *nodes;
    uint32_t n_ranks, n_levels;
    mt_sim_level *levels;
    event *heap;
    uint64_t heap_size, heap_capacity, next_sequence, n_events;
    blank *blanks;
    parcel *leaving, *last_leaving; /* sent in the step that runs */
    death *deaths;
    uint64_t n_deaths, death_capacity;
    bool has_started, has_ended, is_settling, is_hopeless;
    uint64_t start_ns, end_ns, slots_ns, put, queued, script_next_ns, script_blocked_ns;
    uint64_t useful_ns, nodes_killed, workers_killed, most_outstanding;
    uint64_t lost; /* tasks with their lane, in engines that are dead themselves */
    histogram running;
};

_Static_assert(sizeof((mt_sim_result *)0)->running / sizeof(double) == MT_SIM_BUCKETS, "as sim.h says");

uint32_t mt_sim_depth(uint32_t rank, uint32_t fanout) {
    uint32_t depth = 0;
    for (; rank > 0; rank = (rank - 1) / fanout) depth++;
    return depth;
}

/* ---- events ---- */

static bool earlier(const event *a, const event *b) {
    return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->sequence < b->sequence;
}

static int post(mt_sim *s, event e) {
    int status = mti_grow(s->alloc, (void **)&s->heap, s->heap_size, &s->heap_capacity, s->heap_size + 1, sizeof e);
    if (status != MT_OK) return status;
    e.sequence = s->next_sequence++;
    uint64_t at = s->heap_size++;
    for (; at > 0 && earlier(&e, &s->heap[(at - 1) / 2]); at = (at - 1) / 2) s->heap[at] = s->heap[(at - 1) / 2];
    s->heap[at] = e;
    return MT_OK;
}

static event next_event(mt_sim *s) {
    event first = s->heap[0], moving = s->heap[--s->heap_size];
    uint64_t at = 0;
    for (uint64_t below = 1; below < s->heap_size; below = 2 * at + 1) {
        if (below + 1 < s->heap_size && earlier(&s->heap[below + 1], &s->heap[below])) below++;
        if (!earlier(&s->heap[below], &moving)) break;
        s->heap[at] = s->heap[below];
        at = below;
    }
    s->heap[at] = moving;
    return first;
}

static int wake(mt_sim *s, uint32_t rank, uint64_t at_ns) {
    node *x = &s->nodes[rank];
    if (at_ns >= x->wake_at_ns) return MT_OK;
    x->wake_at_ns = at_ns; /* the event posted before is out of date */
    return post(s, (event){.at_ns = at_ns, .rank = rank, .kind = EVENT_STEP});
}

/* When rank `x` sees what happens at `at_ns`; `is_local`: it rings the bell. */
static uint64_t look(const mt_sim *s, const node *x, uint64_t at_ns, bool is_local) {
    uint64_t idle_ns = x->busy_until_ns;
    if (at_ns <= idle_ns) return idle_ns;
    if (s->options.naps == 0) return at_ns;
    uint64_t passed = at_ns - idle_ns;
    if (x->is_calm && passed <= CALM_NS) return idle_ns + (passed + BATCH_NAP_NS - 1) / BATCH_NAP_NS * BATCH_NAP_NS;
    if (!x->is_calm && passed <= SPIN_NS) return at_ns;
    uint64_t seen_ns = idle_ns + (x->is_calm ? CALM_NS : SPIN_NS), nap_ns = FIRST_NAP_NS;
    while (seen_ns < at_ns && nap_ns < LONGEST_NAP_NS) {
        seen_ns += nap_ns;
        nap_ns += nap_ns / 2;
    }
    if (seen_ns < at_ns) seen_ns += (at_ns - seen_ns + LONGEST_NAP_NS - 1) / LONGEST_NAP_NS * LONGEST_NAP_NS;
    return is_local && at_ns + s->options.bell_ns < seen_ns ? at_ns + s->options.bell_ns : seen_ns;
}

static void halve(histogram *h) {
    for (uint32_t i = 0; i < MT_SIM_BUCKETS / 2; i++) {
        h->within[i] = (h->within[2 * i] + h->after[2 * i] + h->within[2 * i + 1]) / 2;
        h->after[i] = h->after[2 * i] + h->after[2 * i + 1];
    }
    memset(h->within + MT_SIM_BUCKETS / 2, 0, sizeof h->within / 2);
    memset(h->after + MT_SIM_BUCKETS / 2, 0, sizeof h->after / 2);
    h->width_ns *= 2;
}

static void running_changed(void *ctx, uint64_t at_ns, int64_t change) {
    histogram *h = ctx;
    uint64_t since = at_ns > h->start_ns ? at_ns - h->start_ns : 0;
    while (since / h->width_ns >= MT_SIM_BUCKETS) halve(h);
    uint64_t i = since / h->width_ns;
    h->within[i] += (double)change * (1 - (double)(since % h->width_ns) / (double)h->width_ns);
    h->after[i] += (double)change;
}

/* ---- the transport ---- */

static int sim_get(mt_transport *base, uint32_t peer, mt_frame **out) {
    (void)peer;
    sim_transport *t = (sim_transport *)base;
    mt_sim *s = t->sim;
    const mt_sim_options *o = &s->options;
    if (o->sends > 0 && s->nodes[t->rank].under_way >= o->sends) return MT_E_AGAIN;
    if (o->refusals_ppm > 0 && mti_draw(&s->random, MILLION) < o->refusals_ppm) return MT_E_AGAIN;
    blank *b = s->blanks;
    if (b == NULL) {
        b = mt_get(s->alloc, sizeof *b + o->frame_bytes);
        if (b == NULL) return MT_E_NOMEM;
    } else {
        s->blanks = b->next;
    }
    b->frame = (mt_frame){b->data, o->frame_bytes, 0};
    *out = &b->frame;
    return MT_OK;
}

static int sim_send(mt_transport *base, uint32_t peer, mt_frame *frame) {
    sim_transport *t = (sim_transport *)base;
    mt_sim *s = t->sim;
    parcel *p = mt_get(s->alloc, sizeof *p + frame->used);
    if (p != NULL) {
        *p = (parcel){.from = t->rank, .to = peer, .size = frame->used};
        memcpy(p->data, frame->data, frame->used);
        if (s->leaving == NULL) {
            s->leaving = p;
        } else {
            s->last_leaving->next = p;
        }
        s->last_leaving = p;
        s->nodes[t->rank].under_way++;
    }
    blank *b = (blank *)frame;
    b->next = s->blanks;
    s->blanks = b;
    return p == NULL ? MT_E_NOMEM : MT_OK;
}

/* ---- building ---- */

static int build_banks(mt_sim *s, node *x) {
    const mt_sim_options *o = &s->options;
    uint32_t role = o->one_bank != 0 ? MT_ROLE_CHILD : MT_ROLE_WORKER;
    for (uint32_t i = 0; i < x->n_banks; i++) {
        x->banks[i] = mti_bank_new(s->alloc, role, x->slots);
        if (x->banks[i] == NULL) return MT_E_NOMEM;
        mti_bank_set_overhead(x->banks[i], o->worker_overhead_ns);
        mti_bank_watch(x->banks[i], running_changed, &s->running);
        mti_bank_report(x->banks[i], &x->got_list, i);
        uint32_t lane;
        int status = mt_engine_add_lane(x->engine, role, mti_bank_link(x->banks[i]), &lane);
        if (status != MT_OK) return status;
        if (i == 0) x->first_bank = lane;
    }
    return MT_OK;
}

static int build_node(mt_sim *s, uint32_t rank) {
    const mt_sim_options *o = &s->options;
    node *x = &s->nodes[rank];
    uint64_t first = (uint64_t)rank * o->fanout + 1;
    x->first_child = first < s->n_ranks ? (uint32_t)first : s->n_ranks;
    x->n_children = s->n_ranks - x->first_child < o->fanout ? s->n_ranks - x->first_child : o->fanout;
    x->parent = rank == 0 ? 0 : (rank - 1) / o->fanout;
    x->depth = rank == 0 ? 0 : s->nodes[x->parent].depth + 1;
    uint64_t before = (uint64_t)(rank - 1) * o->per_node, left = rank == 0 ? 0 : o->workers - before;
    x->workers = left < o->per_node ? (uint32_t)left : o->per_node;
    x->n_banks = x->workers > 0 && o->one_bank != 0 ? 1 : x->workers;
    x->slots = o->one_bank != 0 ? x->workers : 1;
    x->said_slots = UINT32_MAX;
    x->wake_at_ns = NEVER;
    x->transport = (sim_transport){{.get = sim_get, .send = sim_send}, s, rank}; /* links need no more of it */
    mti_frame_link_init(&x->up, s->alloc, &x->transport.base, x->parent);
    mti_joiner_init(&x->joiner, s->alloc, UINT64_MAX / 4);
    x->children = mti_get_zeroed(s->alloc, x->n_children + 1u, sizeof(child));
    x->banks = mti_get_zeroed(s->alloc, x->n_banks + 1u, sizeof(mt_bank *));
    x->due_ns = mti_get_zeroed(s->alloc, x->n_banks + 1u, sizeof(uint64_t));
    x->got = mti_get_zeroed(s->alloc, x->n_banks + 1u, sizeof(uint32_t));
    x->engine = mt_engine_new(s->alloc, x->n_children + x->n_banks, rank == 0 ? NULL : &x->up.base, "simulated");
    if (x->children == NULL || x->banks == NULL || x->due_ns == NULL || x->got == NULL || x->engine == NULL) return MT_E_NOMEM;
    for (uint32_t i = 0; i < x->n_children; i++) {
        child *c = &x->children[i];
        mti_frame_link_init(&c->link, s->alloc, &x->transport.base, x->first_child + i);
        mti_joiner_init(&c->joiner, s->alloc, UINT64_MAX / 4);
        int status = mt_engine_add_lane(x->engine, MT_ROLE_CHILD, &c->link.base, &c->lane);
        if (status != MT_OK) return status;
    }
    mt_sim_level *level = &s->levels[x->depth];
    level->ranks++;
    level->workers += x->workers;
    int status = build_banks(s, x);
    return status == MT_OK ? wake(s, rank, 0) : status;
}

static int build(mt_sim *s) {
    const mt_sim_options *o = &s->options;
    int status = mti_workload_init(&s->work, s->alloc, &o->work);
    if (status != MT_OK) return status;
    s->nodes = mti_get_zeroed(s->alloc, s->n_ranks, sizeof(node));
    s->levels = mti_get_zeroed(s->alloc, s->n_levels, sizeof(mt_sim_level));
    if (s->nodes == NULL || s->levels == NULL) return MT_E_NOMEM;
    for (uint32_t rank = 0; rank < s->n_ranks && status == MT_OK; rank++) status = build_node(s, rank);
    if (status != MT_OK) return status;
    mt_blob *function = mt_blob_new(s->alloc, FUNCTION_BYTES);
    if (function == NULL) return MT_E_NOMEM;
    memset(function->data, 0, FUNCTION_BYTES);
    status = mt_engine_add_object(s->nodes[0].engine, FUNCTION, function, MT_CODEC_PICKLE);
    mt_blob_unref(function);
    return status;
}

static bool is_sound(const mt_sim_options *o) {
    bool tree = o->nodes > 0 && o->nodes < UINT32_MAX / 2 && o->per_node > 0 && o->fanout > 0;
    bool workers = tree && o->workers > (uint64_t)(o->nodes - 1) * o->per_node && o->workers <= (uint64_t)o->nodes * o->per_node;
    return workers && o->frame_bytes >= 256 && o->frame_bytes <= 1u << 30 && o->inbox > 0 && o->jitter_ppm < (uint64_t)1 << 31;
}

int mt_sim_new(const mt_alloc *alloc, const mt_sim_options *options, mt_sim **out_sim) {
    if (!is_sound(options)) return MT_E_INVAL;
    mt_sim *s = mti_get_zeroed(alloc, 1, sizeof *s);
    if (s == NULL) return MT_E_NOMEM;
    s->alloc = alloc;
    s->options = *options;
    s->random = mti_draw_start(options->seed);
    s->n_ranks = options->nodes + 1;
    s->n_levels = mt_sim_depth(options->nodes, options->fanout) + 1;
    s->running.width_ns = 1;
    int status = build(s);
    if (status != MT_OK) {
        mt_sim_destroy(s);
        return status;
    }
    *out_sim = s;
    return MT_OK;
}

static void drop_arrived(mt_sim *s, node *x) {
    while (x->arrived != NULL) {
        parcel *p = x->arrived;
        x->arrived = p->next;
        mt_put(s->alloc, p);
    }
    x->n_arrived = 0;
}

/* What a rank that dies leaves to nobody. */
static void clear_node(mt_sim *s, node *x) {
    mt_engine_destroy(x->engine);
    x->engine = NULL;
    for (uint32_t i = 0; x->banks != NULL && i < x->n_banks; i++) mti_bank_destroy(x->banks[i]);
    for (uint32_t i = 0; x->children != NULL && i < x->n_children; i++) {
        mti_link_clean_up(&x->children[i].link.base);
        mt_put(s->alloc, x->children[i].link.frame);
        mti_joiner_clean_up(&x->children[i].joiner);
    }
    mti_link_clean_up(&x->up.base);
    mt_put(s->alloc, x->up.frame);
    mti_joiner_clean_up(&x->joiner);
    drop_arrived(s, x);
    while (x->losses != NULL) {
        loss *first = x->losses;
        x->losses = first->next;
        mt_put(s->alloc, first);
    }
    mt_put(s->alloc, x->banks);
    mt_put(s->alloc, x->due_ns);
    mt_put(s->alloc, x->got);
    mt_put(s->alloc, x->children);
    x->banks = NULL;
    x->due_ns = NULL;
    x->got = NULL;
    x->children = NULL;
    x->up.frame = NULL;
    x->n_banks = x->n_children = 0;
}

void mt_sim_destroy(mt_sim *s) {
    if (s == NULL) return;
    for (uint32_t i = 0; s->nodes != NULL && i < s->n_ranks; i++) {
        if (s->nodes[i].transport.sim != NULL) clear_node(s, &s->nodes[i]);
    }
    mti_workload_clean_up(&s->work);
    for (uint64_t i = 0; i < s->heap_size; i++) mt_put(s->alloc, s->heap[i].parcel);
    while (s->leaving != NULL) {
        parcel *p = s->leaving;
        s->leaving = p->next;
        mt_put(s->alloc, p);
    }
    while (s->blanks != NULL) {
        blank *b = s->blanks;
        s->blanks = b->next;
        mt_put(s->alloc, b);
    }
    mt_put(s->alloc, s->heap);
    mt_put(s->alloc, s->deaths);
    mt_put(s->alloc, s->levels);
    mt_put(s->alloc, s->nodes);
    mt_put(s->alloc, s);
}

/* ---- the script ---- */

/* The script has put what it could by `now_ns`; the root takes a batch of it. */
static uint32_t take_from_script(mt_sim *s, uint64_t now_ns) {
    if (!s->has_started) return 0;
    const mt_sim_options *o = &s->options;
    while (s->put < s->work.total && s->queued < o->inbox && s->script_next_ns <= now_ns) {
        s->put++;
        s->queued++;
        s->script_next_ns += o->submit_call_ns;
    }
    uint32_t n = s->queued < MESSAGES_AT_A_TIME ? (uint32_t)s->queued : MESSAGES_AT_A_TIME;
    bool was_blocked = s->put < s->work.total && s->script_next_ns < now_ns;
    if (was_blocked) {
        s->script_blocked_ns += now_ns - s->script_next_ns;
        s->script_next_ns = now_ns;
    }
    s->queued -= n;
    return n;
}

static uint64_t script_due_ns(const mt_sim *s) {
    if (!s->has_started) return NEVER;
    return s->queued > 0 ? 0 : s->put < s->work.total ? s->script_next_ns : NEVER;
}

static int start(mt_sim *s, uint64_t now_ns) {
    s->has_started = true;
    s->start_ns = s->script_next_ns = s->running.start_ns = now_ns;
    for (uint32_t i = 0; i < s->n_levels; i++) {
        s->levels[i] = (mt_sim_level){.ranks = s->levels[i].ranks, .workers = s->levels[i].workers};
    }
    for (uint32_t rank = 0; rank < s->n_ranks; rank++) s->nodes[rank].cpu_ns = 0;
    int status = MT_OK;
    for (uint64_t i = 0; i < s->n_deaths && status == MT_OK; i++) {
        const death *d = &s->deaths[i];
        status = post(s, (event){.at_ns = now_ns + d->after_ns, .rank = d->rank, .detail = d->worker, .kind = EVENT_DEATH});
    }
    return status;
}

/* ---- one step of a rank ---- */

/* What a step did, for its price. */
typedef struct deeds {
    uint64_t submitted, edges, frames_in, bytes_in, frames_out, bytes_out, tasks_in, tasks_out, results_in, woken;
} deeds;

static int submit(mt_sim *s, node *root, uint64_t now_ns, deeds *did) {
    uint32_t n = take_from_script(s, now_ns);
    int status = MT_OK;
    for (uint32_t i = 0; i < n && status == MT_OK; i++) {
        mt_task *task = mti_workload_next(&s->work, FUNCTION);
        if (task == NULL) return MT_E_NOMEM;
        did->edges += task->n_edges;
        status = mt_engine_submit(root->engine, task);
    }
    did->submitted += n;
    return status;
}

static int look_at_banks(node *x, uint64_t now_ns) {
    if (x->next_due_ns > now_ns) return MT_OK;
    uint64_t n = 0, next_ns = NEVER;
    int status = MT_OK;
    for (uint32_t i = 0; i < x->n_banks && status == MT_OK; i++) {
        if (x->due_ns[i] <= now_ns) {
            status = mti_bank_step(x->banks[i], x->engine, x->first_bank + i, now_ns, &n);
            x->due_ns[i] = mti_bank_due_ns(x->banks[i]);
        }
        if (x->due_ns[i] < next_ns) next_ns = x->due_ns[i];
    }
    x->next_due_ns = next_ns;
    return status;
}

static int take_record(mt_sim *s, node *x, child *from, const mt_incoming *incoming, deeds *did) {
    if (from == NULL) {
        mt_rec rec;
        memcpy(&rec, incoming->data, sizeof rec);
        did->tasks_in += rec.kind == MT_KIND_TASK;
        return mt_engine_from_parent(x->engine, incoming);
    }
    if (x == s->nodes) {
        mt_rec_result result;
        memcpy(&result.rec, incoming->data, sizeof result.rec);
        if (result.rec.kind == MT_KIND_RESULT && result.rec.n == MT_OUTCOME_OK && incoming->size >= sizeof result) {
            memcpy(&result, incoming->data, sizeof result);
            s->useful_ns += result.duration_ns;
        }
    }
    return mt_engine_from_lane(x->engine, from->lane, incoming);
}

static int take_frame(mt_sim *s, node *x, const parcel *p, deeds *did) {
    bool is_from_parent = x != s->nodes && p->from == x->parent;
    child *from = is_from_parent ? NULL : &x->children[p->from - x->first_child];
    if (from != NULL && from->is_lost) return MT_OK;
    mt_frame_reader reader;
    int status = mti_frame_open(&reader, p->data, p->size);
    while (status == MT_OK) {
        mt_incoming incoming;
        status = mti_frame_next(&reader, from == NULL ? &x->joiner : &from->joiner, &incoming);
        if (status == MT_OK) status = take_record(s, x, from, &incoming, did);
    }
    return status == MT_E_AGAIN ? MT_OK : status;
}

static int take_frames(mt_sim *s, node *x, uint64_t now_ns, deeds *did) {
    int status = MT_OK;
    for (uint32_t i = 0; i < FRAMES_AT_A_TIME && x->arrived != NULL && status == MT_OK; i++) {
        parcel *p = x->arrived;
        x->arrived = p->next;
        x->n_arrived--;
        s->levels[x->depth].waited_ns += now_ns - p->arrived_ns;
        did->frames_in++;
        did->bytes_in += p->size;
        status = take_frame(s, x, p, did);
        mt_put(s->alloc, p);
    }
    return status;
}

static int take_loss(node *x, const loss *what) {
    if (what->worker == NO_WORKER) {
        child *c = &x->children[what->child];
        mt_lost why = {0, -1, MT_LOST_RANK};
        c->is_lost = true;
        mti_joiner_clean_up(&c->joiner);
        return mt_engine_lane_lost(x->engine, c->lane, &why, UINT64_MAX);
    }
    uint32_t lane = x->first_bank + what->worker;
    uint64_t at_ns = what->at_ns > x->busy_until_ns ? what->at_ns : x->busy_until_ns, n = 0;
    int status = mti_bank_step(x->banks[what->worker], x->engine, lane, at_ns, &n); /* what it published still counts */
    if (status != MT_OK) return status;
    mt_lost why = {1, 9, MT_LOST_WORKER};
    status = mt_engine_lane_lost(x->engine, lane, &why, mti_bank_kill(x->banks[what->worker], at_ns));
    x->due_ns[what->worker] = x->next_due_ns = 0;
    return status;
}

/* Deaths of workers come before a look at the workers, those of children after their frames. */
static int take_losses(mt_sim *s, node *x, bool of_workers) {
    loss **at = &x->losses;
    int status = MT_OK;
    while (*at != NULL && status == MT_OK) {
        loss *what = *at;
        bool is_due = (what->worker != NO_WORKER) == of_workers && (of_workers || x->arrived == NULL);
        if (!is_due) {
            at = &what->next;
            continue;
        }
        *at = what->next;
        status = take_loss(x, what);
        mt_put(s->alloc, what);
    }
    return status;
}

/* The root without workers gives the rest up, as its driver does. */
static int tell_slots(mt_sim *s, node *x, uint32_t slots, uint64_t now_ns) {
    if (x != s->nodes) {
        if (slots == x->said_slots) return MT_OK;
        x->said_slots = slots;
        return mt_engine_say_slots(x->engine, slots);
    }
    if (s->slots_ns == 0 && slots == s->options.workers) s->slots_ns = now_ns;
    if (!s->has_started && (s->slots_ns != 0 || s->options.start_at_once != 0)) return start(s, now_ns);
    uint32_t lost = 0;
    for (uint32_t i = 0; i < x->n_children; i++) lost += x->children[i].is_lost;
    if (slots > 0 || lost < x->n_children) return MT_OK;
    s->is_hopeless = true;
    s->put = s->work.total;
    s->queued = 0;
    mt_engine_abandon(x->engine);
    return MT_OK;
}

static int pump(node *x, mt_frame_link *link) {
    uint64_t moved = 0;
    if (link->frame == NULL && link->base.first == NULL) return MT_OK;
    int status = mti_link_pump(&link->base, &moved);
    x->has_backlog = x->has_backlog || link->base.first != NULL;
    return status;
}

static int send_frames(mt_sim *s, node *x, deeds *did) {
    x->has_backlog = false;
    int status = MT_OK;
    for (uint32_t i = 0; i < x->n_children && status == MT_OK; i++) status = pump(x, &x->children[i].link);
    if (status == MT_OK && x != s->nodes) status = pump(x, &x->up);
    for (const parcel *p = s->leaving; p != NULL; p = p->next) {
        did->frames_out++;
        did->bytes_out += p->size;
    }
    return status;
}

/* Each task that begins at once wakes its worker. */
static void count_woken(node *x, deeds *did) {
    x->n_got = 0;
    for (uint32_t i; mti_bank_list_take(&x->got_list, &i);) {
        x->got[x->n_got++] = i;
        uint64_t waiting = mti_bank_waiting(x->banks[i]);
        uint64_t idle = x->slots - mti_bank_running(x->banks[i]);
        did->woken += waiting < idle ? waiting : idle;
    }
}

static void begin_tasks(node *x, uint64_t now_ns) {
    for (uint32_t k = 0; k < x->n_got; k++) {
        uint32_t i = x->got[k];
        mti_bank_begin(x->banks[i], now_ns);
        x->due_ns[i] = mti_bank_due_ns(x->banks[i]);
        if (x->due_ns[i] < x->next_due_ns) x->next_due_ns = x->due_ns[i];
    }
}

static uint64_t price_ns(mt_sim *s, node *x, const deeds *d) {
    const mt_sim_costs *c = &s->options.costs;
    bool is_root = x == s->nodes;
    uint64_t step = c->step + c->lane * (x->n_children + x->n_banks + (is_root ? 0 : 1));
    uint64_t frames = d->frames_in * c->frame_in + d->bytes_in * c->byte_in + d->frames_out * c->frame_out + d->bytes_out * c->byte_out;
    uint64_t tasks = is_root ? d->submitted * c->submit + d->edges * c->edge + d->tasks_out * c->assign + d->results_in * c->end
                             : d->tasks_in * c->take + d->tasks_out * c->forward + d->results_in * c->result + d->woken * c->wake;
    uint64_t cpu_ns = (step + frames + tasks + 999) / 1000;
    mt_sim_level *level = &s->levels[x->depth];
    level->steps++;
    level->frames_in += d->frames_in;
    level->frames_out += d->frames_out;
    level->bytes_in += d->bytes_in;
    level->bytes_out += d->bytes_out;
    level->tasks_in += is_root ? d->submitted : d->tasks_in;
    level->tasks_out += d->tasks_out;
    level->results_in += d->results_in;
    level->cpu_ns += cpu_ns;
    level->cpu_tasks_ns += tasks / 1000;
    level->cpu_frames_ns += frames / 1000;
    x->cpu_ns += cpu_ns;
    return cpu_ns;
}

/* What the step has sent leaves at its end, one frame after the other. */
static int ship(mt_sim *s, node *x, uint64_t now_ns) {
    const mt_sim_options *o = &s->options;
    while (s->leaving != NULL) {
        parcel *p = s->leaving;
        bool is_up = x != s->nodes && p->to == x->parent;
        child *wire = is_up ? &s->nodes[p->to].children[p->from - s->nodes[p->to].first_child] : &x->children[p->to - x->first_child];
        uint64_t *last_ns = is_up ? &wire->last_up_ns : &wire->last_down_ns;
        if (x->line_free_ns < now_ns) x->line_free_ns = now_ns;
        x->line_free_ns += p->size * o->byte_ps / 1000;
        uint64_t latency_ns = o->latency_ns;
        if (o->jitter_ppm > 0) latency_ns += latency_ns * mti_draw(&s->random, o->jitter_ppm + 1) / MILLION;
        uint64_t at_ns = x->line_free_ns + latency_ns;
        if (at_ns < *last_ns) at_ns = *last_ns;
        *last_ns = at_ns;
        s->levels[x->depth].flight_ns += at_ns - now_ns;
        int status = post(s, (event){.at_ns = at_ns, .parcel = p, .rank = p->to, .kind = EVENT_FRAME});
        if (status != MT_OK) return status;
        s->leaving = p->next;
        p->next = NULL;
    }
    return MT_OK;
}

/* Whether short naps come before long ones: while lanes have work ahead, or the script does not wait yet. */
static bool is_calm(const mt_sim *s, const node *x) {
    if (s->put < s->work.total) return true;
    return mt_engine_work_ahead_ns(x->engine) > 2 * BATCH_NAP_NS;
}

/* When the rank will have something to do, as far as it is known now. */
static int plan(mt_sim *s, node *x) {
    uint32_t rank = x->transport.rank;
    uint64_t done_ns = x->busy_until_ns;
    if (x->arrived != NULL || x->losses != NULL) return wake(s, rank, done_ns);
    if (s->options.naps != 0) x->is_calm = is_calm(s, x);
    uint64_t due_ns = rank == 0 ? script_due_ns(s) : x->n_banks > 0 ? x->next_due_ns : NEVER;
    int status = due_ns == NEVER ? MT_OK : wake(s, rank, look(s, x, due_ns, true));
    uint64_t behind_ns = mt_engine_due_ns(x->engine);
    if (behind_ns != NEVER && status == MT_OK) status = wake(s, rank, behind_ns > done_ns ? behind_ns : done_ns);
    bool is_full = s->options.sends > 0 && x->under_way >= s->options.sends; /* then the next arrival wakes it */
    if (status == MT_OK && x->has_backlog && !is_full) status = wake(s, rank, done_ns + FIRST_NAP_NS);
    return status;
}

static void see_end(mt_sim *s, uint64_t now_ns) {
    if (!s->has_started || s->has_ended) return;
    uint64_t outstanding = mt_engine_stats_now(s->nodes[0].engine).outstanding;
    if (outstanding > s->most_outstanding) s->most_outstanding = outstanding;
    if (outstanding > 0 || s->queued > 0 || s->put < s->work.total) return;
    s->has_ended = true;
    s->end_ns = now_ns;
}

static int check_node(const node *x) {
    int status = mt_engine_check(x->engine);
    for (uint32_t i = 0; i < x->n_banks && status == MT_OK; i++) status = mti_bank_check(x->banks[i]);
    return status;
}

/* The engine's own calls of one step, in the order of driver.c. */
static int run_engine(mt_sim *s, node *x, uint64_t now_ns, deeds *did) {
    int status = x == s->nodes ? submit(s, x, now_ns, did) : MT_OK;
    if (status == MT_OK) status = take_losses(s, x, true);
    if (status == MT_OK) status = look_at_banks(x, now_ns);
    if (status == MT_OK) status = take_frames(s, x, now_ns, did);
    if (status == MT_OK) status = take_losses(s, x, false);
    if (status == MT_OK) status = mt_engine_dispatch(x->engine, now_ns, &did->tasks_out);
    mt_engine_stats stats = mt_engine_stats_now(x->engine);
    did->results_in = stats.results - x->results;
    x->results = stats.results;
    if (status == MT_OK) status = tell_slots(s, x, stats.slots, now_ns);
    return status == MT_OK ? send_frames(s, x, did) : status;
}

static int step(mt_sim *s, node *x, uint64_t now_ns) {
    deeds did = {0};
    x->wake_at_ns = NEVER;
    int status = run_engine(s, x, now_ns, &did);
    if (status != MT_OK) return status;
    count_woken(x, &did);
    x->busy_until_ns = now_ns + price_ns(s, x, &did);
    begin_tasks(x, x->busy_until_ns);
    status = ship(s, x, x->busy_until_ns);
    if (x == s->nodes) see_end(s, x->busy_until_ns);
    if (status == MT_OK) status = plan(s, x);
    if (status == MT_OK && s->options.check != 0) status = check_node(x);
    return status;
}

/* ---- what happens ---- */

static int on_frame(mt_sim *s, parcel *p, uint64_t now_ns) {
    node *from = &s->nodes[p->from], *x = &s->nodes[p->to];
    from->under_way--;
    int status = MT_OK;
    if (from->engine != NULL && from->has_backlog && s->options.sends > 0) status = wake(s, p->from, look(s, from, now_ns, false));
    if (x->engine == NULL) {
        mt_put(s->alloc, p);
        return status;
    }
    p->arrived_ns = now_ns;
    if (x->arrived == NULL) {
        x->arrived = p;
    } else {
        x->last_arrived->next = p;
    }
    x->last_arrived = p;
    x->n_arrived++;
    mt_sim_level *level = &s->levels[x->depth];
    if (x->n_arrived > level->max_queue) level->max_queue = x->n_arrived;
    return status == MT_OK ? wake(s, p->to, look(s, x, now_ns, false)) : status;
}

static int tell_loss(mt_sim *s, uint32_t rank, loss what) {
    node *x = &s->nodes[rank];
    if (x->engine == NULL) return MT_OK;
    loss *kept = mt_get(s->alloc, sizeof *kept);
    if (kept == NULL) return MT_E_NOMEM;
    *kept = what;
    loss **end = &x->losses;
    while (*end != NULL) end = &(*end)->next;
    *end = kept;
    return wake(s, rank, look(s, x, what.at_ns, true));
}

static int on_death(mt_sim *s, uint32_t rank, uint32_t worker, uint64_t now_ns) {
    node *x = &s->nodes[rank];
    if (x->engine == NULL) return MT_OK;
    if (worker != NO_WORKER) {
        s->workers_killed++;
        return tell_loss(s, rank, (loss){.at_ns = now_ns, .worker = worker});
    }
    for (uint32_t r = rank; r < s->n_ranks; r++) { /* parents come before their children */
        node *below = &s->nodes[r];
        if (below->engine == NULL || (r != rank && s->nodes[below->parent].engine != NULL)) continue;
        for (uint32_t i = 0; i < below->n_banks; i++) (void)mti_bank_kill(below->banks[i], now_ns);
        s->lost += mt_engine_stats_now(below->engine).lost;
        clear_node(s, below);
        s->nodes_killed++;
    }
    uint32_t place = rank - s->nodes[x->parent].first_child;
    return post(s, (event){.at_ns = now_ns + s->options.detect_ns, .rank = x->parent, .detail = place, .kind = EVENT_LOSS});
}

static int happen(mt_sim *s, const event *e) {
    node *x = &s->nodes[e->rank];
    switch ((enum event_kind)e->kind) {
        case EVENT_STEP:
            if (x->engine == NULL || x->wake_at_ns != e->at_ns) return MT_OK; /* out of date */
            return step(s, x, e->at_ns);
        case EVENT_FRAME: return on_frame(s, e->parcel, e->at_ns);
        case EVENT_DEATH: return on_death(s, e->rank, e->detail, e->at_ns);
        case EVENT_LOSS: return tell_loss(s, e->rank, (loss){.at_ns = e->at_ns, .worker = NO_WORKER, .child = e->detail});
    }
    return MT_E_INVAL;
}

int mt_sim_run(mt_sim *s, uint64_t events) {
    for (uint64_t i = 0; i < events; i++) {
        if (s->has_ended && !s->is_settling) return 0;
        if (s->heap_size == 0) return s->has_ended ? 0 : MT_E_STALE;
        event e = next_event(s);
        s->n_events++;
        int status = happen(s, &e);
        if (status != MT_OK) return status;
    }
    return 1;
}

int mt_sim_settle(mt_sim *s) {
    if (!s->has_ended) return MT_E_INVAL;
    s->is_settling = true;
    mti_workload_clean_up(&s->work);
    mt_engine_drop_object(s->nodes[0].engine, FUNCTION);
    int status = wake(s, 0, s->nodes[0].busy_until_ns);
    return status == MT_OK ? mt_sim_run(s, NEVER) : status;
}

static int add_death(mt_sim *s, death d) {
    if (s->has_started || d.rank == 0 || d.rank >= s->n_ranks) return MT_E_INVAL;
    int status = mti_grow(s->alloc, (void **)&s->deaths, s->n_deaths, &s->death_capacity, s->n_deaths + 1, sizeof d);
    if (status != MT_OK) return status;
    s->deaths[s->n_deaths++] = d;
    return MT_OK;
}

int mt_sim_kill_node(mt_sim *s, uint32_t rank, uint64_t after_ns) { return add_death(s, (death){rank, NO_WORKER, after_ns}); }

int mt_sim_kill_worker(mt_sim *s, uint32_t rank, uint32_t worker, uint64_t after_ns) {
    if (s->options.one_bank != 0 || rank >= s->n_ranks || worker >= s->nodes[rank].workers) return MT_E_INVAL;
    return add_death(s, (death){rank, worker, after_ns});
}

/* ---- answers ---- */

uint64_t mt_sim_residue(const mt_sim *s) {
    uint64_t residue = s->heap_size;
    for (uint32_t rank = 0; rank < s->n_ranks; rank++) {
        const node *x = &s->nodes[rank];
        if (x->engine == NULL) continue;
        mt_engine_stats stats = mt_engine_stats_now(x->engine);
        residue += stats.outstanding + stats.objects + x->n_arrived + x->up.base.backlog_bytes;
        for (uint32_t i = 0; i < x->n_banks; i++) residue += mti_bank_waiting(x->banks[i]) + mti_bank_running(x->banks[i]);
        for (uint32_t i = 0; i < x->n_children; i++) residue += x->children[i].link.base.backlog_bytes;
    }
    return residue;
}

int mt_sim_check(const mt_sim *s) {
    int status = MT_OK;
    for (uint32_t rank = 0; rank < s->n_ranks && status == MT_OK; rank++) {
        if (s->nodes[rank].engine != NULL) status = check_node(&s->nodes[rank]);
    }
    return status;
}

void mt_sim_result_now(const mt_sim *s, mt_sim_result *out) {
    mt_engine_stats stats = mt_engine_stats_now(s->nodes[0].engine);
    *out = (mt_sim_result){.start_ns = s->start_ns,
                           .end_ns = s->end_ns,
                           .slots_ns = s->slots_ns,
                           .submitted = s->work.made,
                           .done = stats.graph.done,
                           .failed = stats.graph.failed,
                           .dependency_failed = stats.graph.dependency_failed,
                           .cancelled = stats.graph.cancelled,
                           .outstanding = stats.outstanding,
                           .work_ns = s->work.work_ns,
                           .useful_ns = s->useful_ns,
                           .lost = s->lost,
                           .stale_results = stats.stale_results,
                           .nodes_killed = s->nodes_killed,
                           .workers_killed = s->workers_killed,
                           .slots = stats.slots,
                           .events = s->n_events,
                           .script_blocked_ns = s->script_blocked_ns,
                           .most_outstanding = s->most_outstanding,
                           .levels = s->n_levels,
                           .is_hopeless = s->is_hopeless,
                           .bucket_ns = s->running.width_ns};
    for (uint32_t rank = 0; rank < s->n_ranks; rank++) {
        if (s->nodes[rank].engine != NULL) out->lost += mt_engine_stats_now(s->nodes[rank].engine).lost;
    }
    double sum = 0;
    for (uint32_t i = 0; i < MT_SIM_BUCKETS; i++) {
        out->running[i] = sum + s->running.within[i];
        sum += s->running.after[i];
    }
}

mt_sim_level mt_sim_level_now(const mt_sim *s, uint32_t level) {
    if (level >= s->n_levels) return (mt_sim_level){0};
    mt_sim_level found = s->levels[level];
    for (uint32_t rank = 0; rank < s->n_ranks; rank++) {
        const node *x = &s->nodes[rank];
        if (x->depth == level && x->cpu_ns > found.busiest_ns) found.busiest_ns = x->cpu_ns;
    }
    return found;
}
