/* task_room.h - of the program `task`: what its threads share, and what each task must be, which follows from its number. */
#ifndef STRESS_TASK_ROOM_H
#define STRESS_TASK_ROOM_H

#include <limits.h>

#include "bell.h"
#include "driver_inner.h"
#include "graph.h"
#include "inbox.h"
#include "stress.h"
#include "task.h"

#define TASKS 250
#define READERS 3
#define AHEAD 60 /* tasks that have not ended, from which on the maker waits for the engine */
#define MOST_EDGES 4
#define MOST_BYTES 2048
#define MAIL 4

/* What a thread knows of a task besides its address. */
typedef struct plan {
    uint64_t number;
    uint32_t n_edges;
    uint64_t edges[MOST_EDGES];
} plan;

static struct {
    mt_alloc *alloc;
    mt_graph *graph; /* the engine's */
    mt_inbox *inbox;
    mt_driver driver; /* zeroes, and whose it is: all that waiting needs */
    uint64_t salt;
    mt_reaper reaper;
    _Alignas(64) mt_bell bell;
    plan plans[TASKS];
    mt_task *tasks[TASKS]; /* the maker's references and, for each reader, one more */
    _Alignas(64) _Atomic uint32_t made; /* publishes plans and tasks */
    _Atomic(mt_task *) mail[MAIL];      /* a reference each */
    _Atomic uint32_t asked[TASKS];      /* mt_driver_notify said yes */
    _Atomic uint32_t told[TASKS];       /* the engine has seen MT_NOTIFY */
    _Atomic uint64_t submitted, ended, cancelled;
} room;

static struct {
    _Atomic uint64_t tasks, cancelled, failed, reaped, waits, sleeps, values, told;
} seen;

/* ---- what task `number` is ---- */

enum fact { FACT_OUTCOME, FACT_SIZE, FACT_OFFSET, FACT_ARGS };

static uint64_t fact(uint64_t number, enum fact which) {
    return stress_mix(stress_mix(room.salt ^ number) + (uint64_t)which);
}

static uint32_t outcome_of(uint64_t number) {
    return fact(number, FACT_OUTCOME) % 64 == 0 ? MT_OUTCOME_ERROR : MT_OUTCOME_OK;
}

static uint64_t size_of(uint64_t number) {
    uint64_t dice = fact(number, FACT_SIZE);
    return dice % 4 == 0 ? 0 : dice / 4 % (dice % 4 == 1 ? MOST_BYTES : 64);
}

static uint64_t args_size_of(uint64_t number) {
    uint64_t dice = fact(number, FACT_ARGS);
    return dice / 4 % (dice % 4 == 0 ? MOST_BYTES : 64);
}

static uint32_t codec_of(uint64_t number) { return (uint32_t)(number % 13); }

/* `out` has room for MOST_BYTES. */
STRESS_PRIVATE static void fill(unsigned char *out, uint64_t number, uint64_t size, uint64_t salt) {
    uint64_t state = stress_mix(number ^ salt);
    for (uint64_t at = 0; at < size; at += 8) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        __builtin_memcpy(out + at, &state, 8);
    }
}

static void compare(const char *what, const void *data, uint64_t size, uint64_t number, uint64_t salt) {
    unsigned char expected[MOST_BYTES];
    fill(expected, number, size, salt);
    DEMAND(size == 0 || memcmp(data, expected, size) == 0, "%s of task %llx", what, ull(number));
}

/* ---- into the engine ---- */

static void push(uint64_t kind, void *pointer) {
    while (mt_inbox_push(room.inbox, (mt_message){kind, pointer}) != MT_OK) {
        mt_bell_ring(&room.bell);
        (void)sched_yield();
    }
    mt_bell_ring(&room.bell);
}

/* As mt_driver_cancel. */
static bool try_cancel(mt_task *task) {
    if (!mt_task_try_cancel(task)) return false;
    mt_add_relaxed(&room.cancelled, 1);
    mt_task_ref(task);
    push(MT_MSG_CANCEL, task);
    mti_futex_wake(&task->state, INT_MAX, false);
    return true;
}

/* A submitted task; the caller has `refs` references to it. */
static mt_task *submit(const plan *plan, mt_task *const *edges, bool is_promise, uint32_t refs,
                       stress_rng *rng) {
    unsigned char bytes[MOST_BYTES];
    uint64_t size = args_size_of(plan->number);
    fill(bytes, plan->number, size, ~room.salt);
    mt_part args = {bytes, size};
    mt_task_spec spec = {.number = plan->number,
                         .fn = !is_promise,
                         .priority = (int32_t)stress_below(rng, 3),
                         .n_edges = plan->n_edges,
                         .edges = edges,
                         .n_args = 1,
                         .args = &args};
    mt_task *task = mt_task_new(room.alloc, &spec);
    DEMAND(task != NULL, "no memory");
    for (uint32_t i = 0; i < refs; i++) mt_task_ref(task); /* with the first one: theirs and the engine's */
    mt_add_relaxed(&room.submitted, 1);
    push(MT_MSG_SUBMIT, task);
    return task;
}

static mt_blob *value_blob(uint64_t number, uint64_t *out_offset) {
    unsigned char bytes[16 + MOST_BYTES] = {0};
    uint64_t size = size_of(number);
    if (size == 0) return NULL;
    *out_offset = fact(number, FACT_OFFSET) % 3 * 8;
    fill(bytes + *out_offset, number, size, room.salt);
    mt_part part = {bytes, *out_offset + size};
    mt_blob *blob = mt_blob_from_parts(room.alloc, &part, 1);
    DEMAND(blob != NULL, "no memory");
    return blob;
}

#endif
