/* Records into an engine that are no good, or not in their turn: from workers, from a child, from a parent; and one that changes while it is read. The
 * engine checks itself after each. records [WORLDS [SEED]] */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "atomic.h"
#include "engine.h"

#define WORLDS 3000u
#define STEPS 300
#define LANES 3u /* two workers and a child */
#define TASKS 64u
#define IDS 64u
#define LIMIT_S 20u /* for one world, which takes a millisecond: a hang */
#define FLIPS 20000u
#define PARTS 200000u

static uint64_t state, world;
static int step;
static const char *doing = "";

static uint64_t draw(void) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}
static uint64_t below(uint64_t n) { return draw() % n; }

static void fail(const char *what, int status) {
    printf("seed %llu step %d: %s: %s\n", (unsigned long long)world, step, what, mt_status_text(status));
    exit(1);
}

static void hang(int signal_number) {
    (void)signal_number;
    static const char text[] = "a world does not end; seed, step and place:";
    (void)!write(STDOUT_FILENO, text, sizeof text - 1);
    printf(" %llu %d %s\n", (unsigned long long)world, step, doing);
    (void)fflush(stdout);
    abort();
}

/* ---- the other ends of links ---- */

static uint64_t ids[IDS]; /* that were seen */
static uint64_t begun;    /* what a worker says next */

static uint64_t some_id(void) {
    switch (below(8)) {
        case 0: return draw();
        case 1: return below(8);
        case 2: return ((uint64_t)1 << 63) + below(64);
        default: return ids[below(IDS)];
    }
}

static int take(mt_link *link, const mt_part *parts, uint32_t n, uint64_t *progress) {
    (void)link;
    (void)progress;
    mt_rec rec;
    if (n > 0 && parts[0].size >= sizeof rec) {
        memcpy(&rec, parts[0].data, sizeof rec);
        ids[below(IDS)] = rec.id;
    }
    return below(40) == 0 ? MT_E_AGAIN : MT_OK;
}
static int show(mt_link *link) {
    (void)link;
    return MT_OK;
}
static int recall(mt_link *link, bool by_itself, uint64_t *out_begun) {
    (void)link;
    (void)by_itself;
    *out_begun = begun;
    return MT_OK;
}

/* ---- records ---- */

static unsigned char record[8192];

static void put(uint64_t *at, const void *data, uint64_t size) {
    memcpy(record + *at, data, size);
    *at += size;
}

static void make_task(mt_rec *rec, uint64_t *at) {
    rec->n = (uint32_t)below(4);
    rec->flags = below(3) > 0 ? MT_CODEC_MARSHAL : MT_CODEC_SPAN | MT_CODEC_MARSHAL;
    mt_rec_task task = {*rec, some_id(), (int32_t)below(5) - 2, below(3) > 0 ? 0 : (uint32_t)draw(), (int64_t)below(100)};
    *at = 0;
    put(at, &task, sizeof task);
    uint64_t values = 0;
    for (uint32_t i = 0; i < rec->n; i++) {
        bool is_inline = below(2) == 0;
        mt_edge_ref ref = {is_inline ? 0 : some_id(), is_inline ? below(100) : below(9000), below(200)};
        if (is_inline) values += mti_pad8(ref.size);
        put(at, &ref, sizeof ref);
    }
    *at += values;
    mt_span span = {below(3) > 0 ? below(100) : draw(), below(4) > 0 ? 1 + below(1000) : draw(), below(3) > 0 ? 0 : some_id(), (uint32_t)below(4), (uint32_t)below(5)};
    if ((rec->flags & MT_CODEC_SPAN) != 0) put(at, &span, sizeof span);
    *at += below(64);
}

static void make_result(mt_rec *rec, uint64_t *at) {
    static const uint16_t codecs[] = {1, 2, 3, 4, MT_CODEC_PARTS, MT_CODEC_PARTS, 5, MT_CODEC_SHARED, MT_CODEC_MAPPED, 0};
    mt_rec_result result = {*rec, below(3) > 0 ? below(100000000) : draw()};
    rec->flags = codecs[below(sizeof codecs / sizeof *codecs)];
    *at = 0;
    put(at, &result, sizeof result);
    uint64_t word = below(50);
    for (uint64_t n = rec->flags == MT_CODEC_PARTS ? below(4) : 0; n > 0; n--) {
        mt_parts_head head = {below(5) > 0 ? below(50) : draw(), below(5) > 0 ? below(40) : draw(), 1, 0};
        put(at, &head, sizeof head);
        *at += head.size < 64 ? mti_pad8(head.size) : 0;
    }
    if (rec->flags != MT_CODEC_PARTS && below(3) == 0) {
        put(at, &word, sizeof word);
    } else if (rec->flags != MT_CODEC_PARTS) {
        *at += below(5) > 0 ? below(64) : below(6000);
    }
}

/* One that could come; its size. */
static uint64_t make_plausible(void) {
    static const uint16_t kinds[] = {MT_KIND_TASK,     MT_KIND_RESULT, MT_KIND_RESULT, MT_KIND_RESULT, MT_KIND_RESULT,   MT_KIND_OBJECT, MT_KIND_OBJECT,
                                     MT_KIND_DROP,     MT_KIND_HELLO,  MT_KIND_BYE,    MT_KIND_SLOTS,  MT_KIND_SLOTS,    MT_KIND_RECALL, MT_KIND_RECALLED,
                                     MT_KIND_RECALLED, MT_KIND_IDLE,   MT_KIND_STOP,   MT_KIND_RESUME, MT_KIND_EXITED, MT_KIND_SPAWN};
    mt_rec rec = {.id = some_id(), .kind = kinds[below(sizeof kinds / sizeof *kinds)], .n = (uint32_t)below(5)};
    mt_rec_recall recalled = {rec, below(2) > 0 ? INT64_MIN : (int64_t)draw(), below(2) > 0 ? INT64_MAX : (int64_t)draw()};
    uint64_t at = sizeof rec;
    memset(record, 0, sizeof record);
    if (rec.kind == MT_KIND_TASK) make_task(&rec, &at);
    if (rec.kind == MT_KIND_RESULT) make_result(&rec, &at);
    if (rec.kind == MT_KIND_OBJECT) at += below(3) > 0 ? below(64) : below(6000), rec.flags = (uint16_t)below(130);
    if (rec.kind == MT_KIND_EXITED) at += sizeof(mt_lost);
    if (rec.kind == MT_KIND_RECALL) at = 0, put(&at, &recalled, sizeof recalled);
    if (rec.kind == MT_KIND_SLOTS || rec.kind == MT_KIND_HELLO) rec.n = below(10) > 0 ? rec.n : (uint32_t)draw(), rec.id = below(2) > 0 ? 0 : draw();
    rec.size = at;
    memcpy(record, &rec, sizeof rec);
    return at;
}

/* Of every three one is changed in some places, now and then in all or cut short. */
static uint64_t make_record(void) {
    uint64_t size = make_plausible(), word;
    for (uint64_t n = below(3) == 0 ? 1 + below(4) : 0; n > 0; n--) {
        uint64_t i = below(size);
        word = below(2) > 0 ? some_id() : draw();
        switch (below(4)) {
            case 0: record[i] ^= (unsigned char)(1u << below(8)); break;
            case 1: record[i] = (unsigned char)draw(); break;
            case 2: record[i] = 255; break;
            default: memcpy(record + (i & ~(uint64_t)7), &word, (i & ~(uint64_t)7) + sizeof word <= size ? sizeof word : 0);
        }
    }
    for (uint64_t i = 0, all = below(20) == 0 ? size : 0; i < all; i++) record[i] = (unsigned char)draw();
    return below(20) == 0 ? below(size + 1) : size;
}

/* ---- a world ---- */

typedef struct engine_world {
    mt_alloc *alloc;
    mt_engine *engine;
    mt_link links[LANES], up;
    uint32_t lanes[LANES];
    bool is_agent;
    mt_task *tasks[TASKS];
    uint32_t n_tasks;
    uint64_t now_ns, refused;
} engine_world;

static void greet(engine_world *w, uint32_t lane) {
    mt_rec hello = {sizeof hello, 77, MT_KIND_HELLO, 0, 1};
    mt_incoming incoming = {&hello, sizeof hello, NULL};
    int status = mt_engine_from_lane(w->engine, lane, &incoming);
    if (status != MT_OK) fail("HELLO", status);
}

static void open_world(engine_world *w) {
    *w = (engine_world){.alloc = mt_alloc_test_new(0), .is_agent = below(2) > 0, .now_ns = 1};
    w->up = (mt_link){.alloc = w->alloc, .write = take, .flush = show};
    for (uint32_t i = 0; i < LANES; i++) w->links[i] = (mt_link){.alloc = w->alloc, .write = take, .flush = show, .recall = i < LANES - 1 ? recall : NULL};
    w->engine = mt_engine_new(w->alloc, LANES, w->is_agent ? &w->up : NULL, "host");
    int status = MT_OK;
    for (uint32_t i = 0; i < LANES && status == MT_OK; i++) {
        status = mt_engine_add_lane(w->engine, i < LANES - 1 ? MT_ROLE_WORKER : MT_ROLE_CHILD, &w->links[i], &w->lanes[i]);
        if (status == MT_OK) greet(w, w->lanes[i]);
    }
    mt_blob *blob = mt_blob_new(w->alloc, 8);
    for (uint64_t i = 1; i < 4 && status == MT_OK; i++) status = mt_engine_add_object(w->engine, ids[i] = i, blob, MT_CODEC_PICKLE);
    mt_blob_unref(blob);
    if (status == MT_OK && w->is_agent) status = mt_engine_say_slots(w->engine, 2);
    if (status != MT_OK) fail("beginning", status);
}

static void submit(engine_world *w) {
    unsigned char bytes[64] = {0};
    mt_span span = {0, 1 + below(500), below(2) > 0 ? 0 : 2, 1, 0};
    bool is_span = below(4) == 0;
    if (is_span) memcpy(bytes, &span, sizeof span);
    mt_part args = {bytes, is_span ? sizeof span + 8 : 8};
    mt_task *edges[3];
    uint32_t n_edges = 0;
    for (uint32_t i = 0; i < 3 && w->n_tasks > 0; i++) {
        if (below(3) == 0) edges[n_edges++] = w->tasks[below(w->n_tasks)];
    }
    mt_task_spec spec = {.number = w->n_tasks,
                         .fn = 1 + below(3),
                         .codec = is_span ? MT_CODEC_SPAN | MT_CODEC_MARSHAL : MT_CODEC_MARSHAL,
                         .priority = (int32_t)below(3),
                         .retries = (uint32_t)below(3),
                         .losses = (uint32_t)below(3),
                         .edges = edges,
                         .n_edges = n_edges,
                         .args = &args,
                         .n_args = 1};
    mt_task *task = mt_task_new(w->alloc, &spec);
    mt_task_ref(task);
    w->tasks[w->n_tasks++] = task;
    int status = mt_engine_submit(w->engine, task);
    if (status != MT_OK) fail("submitting", status);
}

static void lose(engine_world *w, uint32_t lane) {
    mt_lost why = {1, 9, below(3)};
    doing = "the loss of a lane";
    begun = below(3) > 0 ? below(6) : below(2) > 0 ? draw() : UINT64_MAX;
    int status = mt_engine_lane_lost(w->engine, lane, &why, begun);
    if (status != MT_OK) fail("losing a lane", status);
    greet(w, lane);
}

/* A record of its exact size, in memory of its own: reading on is noticed. */
static int send(engine_world *w) {
    uint64_t size = make_record();
    unsigned char *copy = malloc(size > 0 ? size : 1);
    memcpy(copy, record, size);
    mt_blob *owner = below(3) == 0 ? mt_blob_new(w->alloc, size) : NULL;
    if (owner != NULL) memcpy(owner->data, record, size);
    mt_incoming incoming = {owner != NULL ? owner->data : copy, size, owner};
    doing = "a record";
    int status;
    if (w->is_agent && below(2) > 0) {
        status = mt_engine_from_parent(w->engine, &incoming);
    } else {
        uint32_t lane = w->lanes[below(LANES)];
        status = mt_engine_from_lane(w->engine, lane, &incoming);
        if (status == MT_E_RECORD || below(60) == 0) lose(w, lane);
    }
    w->refused += status == MT_E_RECORD;
    mt_blob_unref(owner);
    free(copy);
    return status == MT_E_RECORD ? MT_OK : status;
}

static int go_on(engine_world *w) {
    uint64_t n = 0;
    begun = below(4);
    w->now_ns += below(4) > 0 ? below(1000000) : below(1000000000);
    doing = "dispatch";
    int status = mt_engine_dispatch(w->engine, w->now_ns, &n);
    for (uint32_t i = 0; i < LANES && status == MT_OK; i++) status = mti_link_pump(&w->links[i], &n);
    return status == MT_OK ? mti_link_pump(&w->up, &n) : status;
}

static void take_ended(mt_engine *engine) {
    uint32_t flags;
    for (mt_task *task; (task = mt_engine_take_ended(engine, &flags)) != NULL;) mt_task_unref(task);
}

static void close_world(engine_world *w) {
    mt_engine_abandon(w->engine);
    take_ended(w->engine);
    while (w->n_tasks > 0) mt_task_unref(w->tasks[--w->n_tasks]);
    mt_engine_destroy(w->engine);
    for (uint32_t i = 0; i < LANES; i++) mti_link_clean_up(&w->links[i]);
    mti_link_clean_up(&w->up);
    if (mt_alloc_test_live(w->alloc) != 0) fail("memory that nobody has", MT_OK);
    mt_alloc_test_destroy(w->alloc);
}

static uint64_t run_world(uint64_t seed) {
    world = seed;
    state = seed * 0x9E3779B97F4A7C15u | 1;
    for (int i = 0; i < 8; i++) (void)draw();
    memset(ids, 0, sizeof ids);
    (void)alarm(LIMIT_S);
    engine_world w;
    open_world(&w);
    int status = MT_OK;
    for (step = 0; step < STEPS && status == MT_OK; step++) {
        if (!w.is_agent && w.n_tasks < TASKS && below(4) == 0) submit(&w);
        status = send(&w);
        if (status == MT_OK && below(2) > 0) status = go_on(&w);
        mt_task *task = w.n_tasks > 0 ? w.tasks[below(w.n_tasks)] : NULL;
        if (task != NULL && below(30) == 0 && mt_task_try_cancel(task)) {
            mt_task_ref(task);
            mt_engine_cancelled(w.engine, task);
        }
        take_ended(w.engine);
        doing = "its check";
        if (status == MT_OK) status = mt_engine_check(w.engine);
        if (status != MT_OK) fail(doing, status);
    }
    close_world(&w);
    (void)alarm(0);
    return w.refused;
}

/* ---- a record that changes ---- */

typedef struct flipped {
    _Atomic uint32_t *n;
    _Atomic uint32_t is_over;
} flipped;

static void *flip(void *argument) {
    flipped *f = argument;
    while (mt_load_relaxed(&f->is_over) == 0) {
        mt_store_relaxed(f->n, 60000);
        mt_store_relaxed(f->n, 2);
    }
    return NULL;
}

/* A worker whose memory somebody writes to while the engine looks at a task that it submits. */
static void run_flips(void) {
    engine_world w;
    state = 1;
    step = 0;
    (void)alarm(120);
    open_world(&w);
    struct {
        mt_rec_task head;
        mt_edge_ref refs[2];
    } *task = calloc(1, sizeof *task);
    *task = (typeof(*task)){{{sizeof *task, 5, MT_KIND_TASK, MT_CODEC_MARSHAL, 2}, 1, 0, 0, 0}, {{2, 0, 0}, {3, 0, 0}}};
    flipped f = {.n = (_Atomic uint32_t *)(void *)&task->head.rec.n};
    pthread_t thread;
    if (pthread_create(&thread, NULL, flip, &f) != 0) fail("a thread", MT_E_SYS);
    uint32_t taken = 0;
    for (uint32_t i = 0; i < FLIPS; i++, step++) {
        mt_incoming incoming = {task, sizeof *task, NULL};
        int status = mt_engine_from_lane(w.engine, w.lanes[0], &incoming);
        if (status != MT_OK && status != MT_E_RECORD) fail("a task that changes", status);
        taken += status == MT_OK;
        if (status != MT_OK || i % 64 == 0) lose(&w, w.lanes[0]);
    }
    mt_store_relaxed(&f.is_over, 1);
    (void)pthread_join(thread, NULL);
    free(task);
    int status = mt_engine_check(w.engine);
    if (status != MT_OK) fail("tasks that change", status);
    close_world(&w);
    printf("; %u of %u tasks that changed were taken\n", taken, FLIPS);
}

/* ---- a span of very many parts that nobody wants any more ---- */

static void run_parts(void) {
    engine_world w;
    state = 1;
    (void)alarm(LIMIT_S);
    open_world(&w);
    mt_rec slots = {sizeof slots, (uint64_t)(int64_t)INT32_MIN, MT_KIND_SLOTS, 0, PARTS};
    mt_incoming incoming = {&slots, sizeof slots, NULL};
    int status = mt_engine_from_lane(w.engine, w.lanes[1], &incoming);
    struct {
        mt_rec_task head;
        mt_span span;
    } task = {{{sizeof task, 5, MT_KIND_TASK, MT_CODEC_MARSHAL | MT_CODEC_SPAN, 0}, 1, 0, 0, 0}, {0, 4 * PARTS, 0, 0, 1}};
    incoming = (mt_incoming){&task, sizeof task, NULL};
    if (status == MT_OK) status = mt_engine_from_lane(w.engine, w.lanes[0], &incoming);
    uint64_t n = 0;
    if (status == MT_OK) status = mt_engine_dispatch(w.engine, 1, &n);
    mt_lost why = {1, 9, MT_LOST_WORKER};
    for (uint32_t i = 0; i < 2 && status == MT_OK; i++) { /* first who wants it, then who runs it */
        doing = "a lane with many parts";
        status = mt_engine_lane_lost(w.engine, w.lanes[i], &why, 0);
    }
    if (status == MT_OK) status = mt_engine_check(w.engine);
    if (status != MT_OK || n < PARTS) fail("a span of many parts", status);
    close_world(&w);
    (void)alarm(0);
}

int main(int argc, char **argv) {
    uint64_t n = argc > 1 ? strtoull(argv[1], NULL, 10) : WORLDS, first = argc > 2 ? strtoull(argv[2], NULL, 10) : 1, refused = 0;
    (void)signal(SIGALRM, hang);
    for (uint64_t i = 0; i < n; i++) refused += run_world(first + i);
    printf("records: %llu worlds, %llu records refused", (unsigned long long)n, (unsigned long long)refused);
    run_parts();
    run_flips();
    return 0;
}
