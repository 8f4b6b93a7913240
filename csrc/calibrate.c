#include "calibrate.h"

#include <pthread.h>
#include <string.h>
#include <time.h>

#include "atomic.h"
#include "engine.h"
#include "segment.h"

#define LANES 32u
#define RING_BYTES 65536u
#define FRAME_BYTES (128u * 1024u)
#define FUNCTION 1u
#define EMPTY_LOOKS 64u
#define MOST_BYTES 1024u /* of arguments and values */
#define NAP_BEFORE_RING_NS 300000

typedef struct letter {
    mt_frame frame; /* first: a frame's address is its letter's */
    struct letter *next;
    _Alignas(16) unsigned char data[FRAME_BYTES];
} letter;

typedef struct post_office {
    mt_transport base;
    const mt_alloc *alloc;
    letter *empty;
    letter *sent[2], *last[2]; /* to rank 0, to rank 1 */
} post_office;

typedef struct ring_lane {
    mt_ring_link out;
    mt_ring *up;                  /* the engine's side */
    mt_ring *worker_down, *worker_up; /* the worker's */
    uint32_t lane;
} ring_lane;

typedef struct pair {
    const mt_alloc *alloc;
    post_office office;
    mt_engine *root, *agent;
    mt_frame_link down, up;
    mt_joiner root_joiner, agent_joiner;
    uint32_t child_lane;
    void *segment;
    ring_lane lanes[LANES];
    mt_calibrate_plan plan;
    mt_task **tasks; /* a batch */
    mt_timings *out;
} pair;

static uint64_t read_clock(clockid_t clock) {
    struct timespec t;
    (void)clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t now_ns(void) { return read_clock(CLOCK_MONOTONIC); }

/* This thread's own time: others may want the core, too. */
static uint64_t cpu_ns(void) { return read_clock(CLOCK_THREAD_CPUTIME_ID); }

/* What has passed since `*since`, which becomes now. */
static uint64_t lap(uint64_t *since) {
    uint64_t before = *since;
    *since = cpu_ns();
    return *since - before;
}

static int office_get(mt_transport *base, uint32_t peer, mt_frame **out) {
    (void)peer;
    post_office *o = (post_office *)base;
    letter *l = o->empty;
    if (l == NULL) {
        l = mt_get(o->alloc, sizeof *l);
        if (l == NULL) return MT_E_NOMEM;
    } else {
        o->empty = l->next;
    }
    l->frame = (mt_frame){l->data, FRAME_BYTES, 0};
    l->next = NULL;
    *out = &l->frame;
    return MT_OK;
}

static int office_send(mt_transport *base, uint32_t peer, mt_frame *frame) {
    post_office *o = (post_office *)base;
    letter *l = (letter *)frame;
    if (o->sent[peer] == NULL) {
        o->sent[peer] = l;
    } else {
        o->last[peer]->next = l;
    }
    o->last[peer] = l;
    return MT_OK;
}

static int open_lane(pair *p, uint32_t i) {
    ring_lane *x = &p->lanes[i];
    mt_segment_link memory = mti_segment_link_at(p->segment, i, RING_BYTES);
    mti_segment_format_link(&memory, RING_BYTES);
    mt_ring *down = mt_ring_open(p->alloc, memory.down, RING_BYTES);
    mti_ring_link_init(&x->out, p->alloc, down, &memory);
    x->up = mt_ring_open(p->alloc, memory.up, RING_BYTES);
    x->worker_down = mt_ring_open(p->alloc, memory.down, RING_BYTES);
    x->worker_up = mt_ring_open(p->alloc, memory.up, RING_BYTES);
    if (down == NULL || x->up == NULL || x->worker_down == NULL || x->worker_up == NULL) return MT_E_NOMEM;
    int status = mt_engine_add_lane(p->agent, MT_ROLE_WORKER, &x->out.base, &x->lane);
    mt_rec hello = {sizeof hello, 1, MT_KIND_HELLO, 0, 1};
    mt_incoming incoming = {&hello, sizeof hello, NULL};
    return status == MT_OK ? mt_engine_from_lane(p->agent, x->lane, &incoming) : status;
}

static int build(pair *p) {
    const mt_alloc *alloc = p->alloc;
    p->office = (post_office){.base = {.get = office_get, .send = office_send}, .alloc = alloc};
    mti_frame_link_init(&p->down, alloc, &p->office.base, 1);
    mti_frame_link_init(&p->up, alloc, &p->office.base, 0);
    mti_joiner_init(&p->root_joiner, alloc, UINT64_MAX / 4);
    mti_joiner_init(&p->agent_joiner, alloc, UINT64_MAX / 4);
    p->root = mt_engine_new(alloc, 1, NULL, "here");
    p->agent = mt_engine_new(alloc, LANES, &p->up.base, "here");
    p->segment = mti_get_zeroed(alloc, mti_segment_size(LANES + 1, RING_BYTES), 1);
    mt_blob *function = mt_blob_new(alloc, 512);
    if (p->root == NULL || p->agent == NULL || p->segment == NULL || function == NULL) {
        mt_blob_unref(function);
        return MT_E_NOMEM;
    }
    memset(function->data, 0, 512);
    int status = mt_engine_add_object(p->root, FUNCTION, function, MT_CODEC_PICKLE);
    mt_blob_unref(function);
    if (status == MT_OK) status = mt_engine_add_lane(p->root, MT_ROLE_CHILD, &p->down.base, &p->child_lane);
    for (uint32_t i = 0; i < LANES && status == MT_OK; i++) status = open_lane(p, i);
    return status == MT_OK ? mt_engine_say_slots(p->agent, LANES) : status;
}

static void drop_letters(pair *p, letter *l) {
    while (l != NULL) {
        letter *next = l->next;
        mt_put(p->alloc, l);
        l = next;
    }
}

static void clear(pair *p) {
    mt_engine_destroy(p->root);
    mt_engine_destroy(p->agent);
    for (uint32_t i = 0; i < LANES; i++) {
        ring_lane *x = &p->lanes[i];
        if (x->out.base.alloc != NULL) mti_link_clean_up(&x->out.base);
        mt_ring_close(x->out.ring);
        mt_ring_close(x->up);
        mt_ring_close(x->worker_down);
        mt_ring_close(x->worker_up);
    }
    mti_link_clean_up(&p->down.base);
    mti_link_clean_up(&p->up.base);
    mt_put(p->alloc, p->down.frame);
    mt_put(p->alloc, p->up.frame);
    mti_joiner_clean_up(&p->root_joiner);
    mti_joiner_clean_up(&p->agent_joiner);
    drop_letters(p, p->office.empty);
    drop_letters(p, p->office.sent[0]);
    drop_letters(p, p->office.sent[1]);
    mt_put(p->alloc, p->segment);
}

/* ---- the kinds of work ---- */

static int assign(pair *p) {
    uint64_t moved = 0;
    int status = mt_engine_dispatch(p->root, 0, &moved);
    return status == MT_OK ? mti_link_pump(&p->down.base, &moved) : status;
}

/* All frames to `rank`, into its engine. */
static int receive(pair *p, uint32_t rank, uint64_t *frames, uint64_t *bytes) {
    int status = MT_OK;
    while (p->office.sent[rank] != NULL && status == MT_OK) {
        letter *l = p->office.sent[rank];
        p->office.sent[rank] = l->next;
        ++*frames;
        *bytes += l->frame.used;
        mt_frame_reader reader;
        mt_incoming incoming;
        status = mti_frame_open(&reader, l->frame.data, l->frame.used);
        while (status == MT_OK) {
            status = mti_frame_next(&reader, rank == 0 ? &p->root_joiner : &p->agent_joiner, &incoming);
            if (status != MT_OK) break;
            status = rank == 0 ? mt_engine_from_lane(p->root, p->child_lane, &incoming) : mt_engine_from_parent(p->agent, &incoming);
        }
        if (status == MT_E_AGAIN) status = MT_OK;
        l->next = p->office.empty;
        p->office.empty = l;
    }
    return status;
}

static int pump_lanes(pair *p) {
    uint64_t moved = 0;
    int status = MT_OK;
    for (uint32_t i = 0; i < LANES && status == MT_OK; i++) status = mti_link_pump(&p->lanes[i].out.base, &moved);
    return status;
}

static int forward(pair *p) {
    uint64_t moved = 0;
    int status = mt_engine_dispatch(p->agent, 0, &moved);
    return status == MT_OK ? pump_lanes(p) : status;
}

/* The workers: every task ends at once. */
static int work(ring_lane *x, const mt_calibrate_plan *plan) {
    static const unsigned char value[MOST_BYTES];
    const void *data;
    uint64_t size;
    int status;
    while ((status = mt_ring_get(x->worker_down, &data, &size)) == MT_OK) {
        mt_rec rec;
        memcpy(&rec, data, sizeof rec);
        if (rec.kind == MT_KIND_TASK) {
            mt_rec_result head = {{sizeof head + plan->value_bytes, rec.id, MT_KIND_RESULT, MT_CODEC_MARSHAL, MT_OUTCOME_OK},
                                  plan->duration_ns};
            mt_part parts[2] = {{&head, sizeof head}, {value, plan->value_bytes}};
            uint64_t progress = 0;
            status = mt_ring_put(x->worker_up, parts, 2, &progress);
        }
        mt_ring_release(x->worker_down);
        if (status != MT_OK) return status;
    }
    (void)mt_ring_publish(x->worker_up);
    return status == MT_E_AGAIN ? MT_OK : status;
}

static int look(pair *p) {
    int status = MT_OK;
    for (uint32_t i = 0; i < LANES && status == MT_OK; i++) {
        mt_incoming incoming;
        while ((status = mti_ring_get(p->lanes[i].up, &incoming)) == MT_OK) {
            status = mt_engine_from_lane(p->agent, p->lanes[i].lane, &incoming);
            mt_ring_release(p->lanes[i].up);
            if (status != MT_OK) return status;
        }
        if (status == MT_E_AGAIN) status = MT_OK;
    }
    return status;
}

static int answer(pair *p) {
    uint64_t moved = 0;
    int status = look(p);
    return status == MT_OK ? mti_link_pump(&p->up.base, &moved) : status;
}

/* Down the tree and up again, once. */
static int turn(pair *p) {
    mt_timings *t = p->out;
    uint64_t none = 0, since = cpu_ns();
    int status = assign(p);
    t->assign_ns += lap(&since);
    if (status == MT_OK) status = receive(p, 1, &t->frames, &t->bytes_down);
    t->take_ns += lap(&since);
    if (status == MT_OK) status = forward(p);
    t->forward_ns += lap(&since);
    for (uint32_t i = 0; i < LANES && status == MT_OK; i++) status = work(&p->lanes[i], &p->plan);
    since = cpu_ns();
    if (status == MT_OK) status = answer(p);
    t->result_ns += lap(&since);
    if (status == MT_OK) status = receive(p, 0, &none, &t->bytes_up);
    t->end_ns += lap(&since);
    return status;
}

static int look_at_nothing(pair *p) {
    uint64_t since = cpu_ns();
    int status = MT_OK;
    for (uint32_t i = 0; i < EMPTY_LOOKS && status == MT_OK; i++) {
        status = look(p);
        if (status == MT_OK) status = pump_lanes(p);
    }
    p->out->look_ns += lap(&since);
    p->out->looks += EMPTY_LOOKS * LANES;
    return status;
}

static int make(pair *p, uint32_t n, const mt_part *args) {
    for (uint32_t i = 0; i < n; i++) {
        mt_task_spec spec = {.fn = FUNCTION, .codec = MT_CODEC_FLAT, .n_args = 1, .args = args};
        if (p->plan.pairs != 0 && i % 2 == 1) {
            spec.n_edges = 1;
            spec.edges = &p->tasks[i - 1];
        }
        p->tasks[i] = mt_task_new(p->alloc, &spec);
        if (p->tasks[i] == NULL) {
            while (i > 0) mt_task_unref(p->tasks[--i]);
            return MT_E_NOMEM;
        }
        p->out->edges += spec.n_edges;
    }
    p->out->tasks += n;
    return MT_OK;
}

/* `n` items as the only task of the batch. */
static int make_span(pair *p, uint32_t n, const mt_part *args) {
    mt_span span = {.count = n, .chunk = 1};
    mt_part parts[2] = {{&span, sizeof span}, *args};
    mt_task_spec spec = {.fn = FUNCTION, .codec = MT_CODEC_FLAT | MT_CODEC_SPAN, .n_args = 2, .args = parts};
    p->tasks[0] = mt_task_new(p->alloc, &spec);
    p->out->tasks += n;
    return p->tasks[0] == NULL ? MT_E_NOMEM : MT_OK;
}

static int submit(pair *p, uint32_t n) {
    int status = MT_OK;
    for (uint32_t i = 0; i < n && status == MT_OK; i++) status = mt_engine_submit(p->root, p->tasks[i]);
    return status;
}

static int round_of(pair *p, uint32_t n, const mt_part *args) {
    bool is_span = p->plan.span != 0;
    int status = is_span ? make_span(p, n, args) : make(p, n, args);
    if (status != MT_OK) return status;
    uint64_t since = cpu_ns();
    status = submit(p, is_span ? 1 : n);
    p->out->submit_ns += lap(&since);
    while (status == MT_OK && mt_engine_stats_now(p->root).outstanding > 0) status = turn(p);
    return status;
}

static int run(pair *p, const mt_part *args) {
    mt_timings warm_up = {0}, *out = p->out;
    p->out = &warm_up;
    int status = build(p);
    for (uint32_t i = 0; i < 8 && status == MT_OK; i++) status = round_of(p, p->plan.batch < LANES ? p->plan.batch : LANES, args);
    p->out = out;
    uint64_t joined = mt_engine_stats_now(p->agent).joined_bytes;
    for (uint32_t done = 0; done < p->plan.tasks && status == MT_OK; done += p->plan.batch) status = round_of(p, p->plan.batch, args);
    out->joined_bytes = mt_engine_stats_now(p->agent).joined_bytes - joined;
    return status == MT_OK ? look_at_nothing(p) : status;
}

int mt_calibrate(const mt_alloc *alloc, const mt_calibrate_plan *plan, mt_timings *out) {
    if (plan->tasks == 0 || plan->batch == 0 || plan->args_bytes > MOST_BYTES || plan->value_bytes > MOST_BYTES || plan->duration_ns == 0) return MT_E_INVAL;
    pair *p = mti_get_zeroed(alloc, 1, sizeof *p);
    unsigned char *bytes = mti_get_zeroed(alloc, plan->args_bytes + 1u, 1);
    mt_task **tasks = mti_get_zeroed(alloc, plan->batch, sizeof *tasks);
    mt_timings timings = {0};
    int status = p == NULL || bytes == NULL || tasks == NULL ? MT_E_NOMEM : MT_OK;
    if (status == MT_OK) {
        p->alloc = alloc;
        p->plan = *plan;
        p->tasks = tasks;
        p->out = &timings;
        mt_part args = {bytes, plan->args_bytes};
        status = run(p, &args);
        clear(p);
    }
    mt_put(alloc, tasks);
    mt_put(alloc, bytes);
    mt_put(alloc, p);
    if (status == MT_OK) *out = timings;
    return status;
}

uint64_t mt_calibrate_clock(uint32_t readings) {
    uint64_t start_ns = cpu_ns();
    for (uint32_t i = 0; i < readings; i++) (void)cpu_ns();
    return cpu_ns() - start_ns;
}

/* ---- the bell ---- */

typedef struct sleeper {
    mt_bell bell;
    _Atomic uint32_t rounds; /* it was woken so often */
    _Atomic uint64_t woken_ns;
    _Atomic uint32_t stop;
} sleeper;

static void *sleep_on(void *argument) {
    sleeper *s = argument;
    while (mt_load_acquire(&s->stop) == 0) {
        uint32_t value = mt_bell_arm(&s->bell, MT_BELL_SLEEPS);
        if (mt_bell_sleep(&s->bell, value, 1000000000) != MT_OK) continue;
        mt_store_relaxed(&s->woken_ns, now_ns());
        mt_add_relaxed(&s->rounds, 1);
    }
    return NULL;
}

static void nap(int64_t ns) {
    struct timespec t = {0, ns};
    (void)nanosleep(&t, NULL);
}

int mt_calibrate_bell(uint32_t wakes, uint64_t *out_ring_ns, uint64_t *out_wake_ns) {
    sleeper s = {0};
    pthread_t thread;
    if (pthread_create(&thread, NULL, sleep_on, &s) != 0) return MT_E_SYS;
    for (uint32_t i = 0; i < wakes; i++) {
        nap(NAP_BEFORE_RING_NS); /* until it sleeps */
        uint32_t rounds = mt_load_acquire(&s.rounds);
        uint64_t rung_ns = now_ns();
        mt_bell_ring(&s.bell);
        out_ring_ns[i] = now_ns() - rung_ns;
        for (uint32_t looks = 0; mt_load_acquire(&s.rounds) == rounds && looks < 1000; looks++) nap(NAP_BEFORE_RING_NS / 3);
        uint64_t woken_ns = mt_load_relaxed(&s.woken_ns);
        out_wake_ns[i] = woken_ns > rung_ns ? woken_ns - rung_ns : 0;
    }
    mt_store_release(&s.stop, 1);
    mt_bell_ring(&s.bell);
    (void)pthread_join(thread, NULL);
    return MT_OK;
}
