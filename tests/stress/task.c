/* Tasks in the hands of many threads. A maker submits tasks with edges, and promises that it fulfils;
 * readers hold references of their own to all of them and look at states, wait, ask to be notified, cancel,
 * pass references on, submit tasks of their own behind them and let go; an engine thread moves, publishes
 * and drops through the real graph. Readers see only moves that task.h allows and, with a final state, the
 * whole value; who waits is woken and who asked is told; nothing is lost or freed twice.
 */
#include "task.h"

#include <limits.h>

#include "bell.h"
#include "driver_inner.h"
#include "frames.h"
#include "graph.h"
#include "inbox.h"
#include "stress.h"

#define TASKS 250
#define READERS 3
#define STEPS_PER_TASK 4 /* of each reader; then it waits for the maker */
#define STEPS (TASKS * STEPS_PER_TASK) /* in a round, before it lets go of what it has left */
#define AHEAD 60 /* tasks that have not ended, from which on the maker waits for the engine */
#define CHILDREN 16 /* tasks of its own that a reader holds at a time */
#define MOST_EDGES 4
#define MOST_BYTES 2048
#define RUNNING 48
#define SLOWNESS 24 /* tasks that are made before one that is ready runs, at most: time to wait and cancel */
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
    mt_driver driver; /* zeroes: all that waiting needs */
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

/* ---- the engine thread ---- */

typedef struct runner {
    stress_rng rng;
    mt_task *running[RUNNING]; /* a reference each */
    bool assigned[RUNNING];
    uint32_t due[RUNNING]; /* runs when the maker has made so many */
    uint32_t n_running;
    uint32_t threads_done;
} runner;

static void finish(mt_task *task) {
    uint64_t offset = 0;
    mt_blob *blob = value_blob(task->number, &offset);
    mt_graph_finish(room.graph, task, outcome_of(task->number), codec_of(task->number), blob, offset);
    mt_blob_unref(blob);
}

/* As engine.c does for large values: from now on the task may be freed by this thread only. */
static void value_as_object(mt_task *from) {
    if (from->value_object != 0) return;
    from->reaper = &room.reaper;
    from->value_object = 1 + from->number;
}

static void reap(void) {
    mt_task *task = mti_reaper_take(&room.reaper);
    while (task != NULL) {
        mt_task *next = task->next;
        DEMAND(task->value_object == 1 + task->number, "a task in the reaper without an object");
        task->value_object = 0;
        mti_task_free(task);
        mt_add_relaxed(&seen.reaped, 1);
        task = next;
    }
}

static void take_message(runner *r, mt_message message) {
    switch (message.kind) {
        case MT_MSG_SUBMIT: mt_graph_add(room.graph, message.pointer); break;
        case MT_MSG_CANCEL:
            mt_graph_cancelled(room.graph, message.pointer);
            mt_task_unref(message.pointer);
            break;
        case MT_MSG_FULFIL:
            finish(message.pointer);
            mt_task_unref(message.pointer);
            break;
        default: r->threads_done++; break;
    }
}

/* Moves one of the running tasks on. True: it runs no more. */
static bool run_one(runner *r, uint32_t i) {
    mt_task *task = r->running[i];
    if (!r->assigned[i]) {
        if (!mt_graph_assign(room.graph, task)) return true;
        r->assigned[i] = true;
        uint64_t number = task->number;
        DEMAND(task->args_size == args_size_of(number), "the arguments' size of task %llx", ull(number));
        compare("arguments", task->args, task->args_size, number, ~room.salt);
        for (uint32_t k = 0; k < task->n_edges; k++) {
            mt_task *from = task->edges[k].from;
            bool is_there = mt_task_state(from) == MT_DONE;
            DEMAND(is_there, "task %llx runs before %llx", ull(number), ull(from->number));
            if (from->value.size > 32) value_as_object(from);
        }
        return false;
    }
    DEMAND(mt_task_state(task) == MT_ASSIGNED, "task %llx is not assigned", ull(task->number));
    switch (stress_below(&r->rng, 8)) {
        case 0:
            mt_graph_unassign(room.graph, task);
            r->assigned[i] = false;
            return false;
        case 1: mt_graph_return(room.graph, task); return true;
        case 2: return false;
        default: finish(task); return true;
    }
}

static void run_some(runner *r) {
    mt_task *ready[RUNNING];
    uint32_t room_left = RUNNING - r->n_running;
    uint32_t n = mt_graph_take_ready(room.graph, ready, (uint32_t)stress_below(&r->rng, room_left + 1));
    for (uint32_t i = 0; i < n; i++) {
        mt_task_ref(ready[i]);
        r->running[r->n_running] = ready[i];
        r->due[r->n_running] = mt_load_relaxed(&room.made) + (uint32_t)stress_below(&r->rng, SLOWNESS);
        r->assigned[r->n_running++] = false;
    }
    uint32_t made = mt_load_relaxed(&room.made);
    bool is_full = mt_load_relaxed(&room.submitted) - mt_load_relaxed(&room.ended) > AHEAD;
    for (uint32_t i = 0; i < r->n_running;) {
        mt_task *task = r->running[i];
        bool may_run = is_full || made == TASKS || made >= r->due[i];
        if (!may_run || stress_one_in(&r->rng, 4) || !run_one(r, i)) {
            i++;
            continue;
        }
        r->running[i] = r->running[--r->n_running];
        r->assigned[i] = r->assigned[r->n_running];
        r->due[i] = r->due[r->n_running];
        mt_task_unref(task);
    }
}

/* As mti_driver_wake_waiters. */
static void wake_waiters(void) {
    uint32_t flags;
    for (mt_task *task; (task = mt_graph_take_ended(room.graph, &flags)) != NULL;) {
        DEMAND(mt_task_state(task) >= MT_FIRST_FINAL, "task %llx ended without an end", ull(task->number));
        if ((flags & MT_WAITED) != 0) mti_futex_wake(&task->state, INT_MAX, false);
        if ((flags & MT_NOTIFY) != 0 && task->number < TASKS) {
            uint32_t times = mt_add_relaxed(&room.told[task->number], 1);
            DEMAND(times == 0, "task %llx is notified twice", ull(task->number));
        }
        mt_task_unref(task);
    }
}

static uint64_t ended(const mt_graph_counts *counts) {
    return counts->done + counts->failed + counts->dependency_failed + counts->cancelled;
}

static void *engine(void *argument) {
    (void)argument;
    stress_thread(0, "engine");
    runner r = {.rng = stress_rng_of(mt_load_relaxed(&stress.round), 0)};
    for (uint64_t step = 0;; step++) {
        stress_at(step);
        mt_message messages[32];
        uint32_t n = mt_inbox_pop_many(room.inbox, messages, 1 + (uint32_t)stress_below(&r.rng, 32));
        for (uint32_t i = 0; i < n; i++) take_message(&r, messages[i]);
        run_some(&r);
        wake_waiters();
        reap();
        if (stress_one_in(&r.rng, 64)) DEMAND(mt_graph_check(room.graph) == MT_OK, "the graph's check");
        if (n == 0) (void)sched_yield();
        mt_graph_counts counts = mt_graph_count(room.graph);
        mt_store_relaxed(&room.ended, ended(&counts));
        if (n > 0 || r.n_running > 0 || counts.ready > 0) continue;
        if (r.threads_done == READERS + 1 && counts.waiting == 0) break;
        uint32_t value = mt_bell_arm(&room.bell);
        if (mt_inbox_has_data(room.inbox)) {
            mt_bell_disarm(&room.bell);
        } else {
            DEMAND(mt_bell_sleep(&room.bell, value, -1) == MT_OK, "the engine's sleep");
        }
    }
    return NULL;
}

/* ---- readers ---- */

typedef struct holding {
    mt_task *task; /* NULL: let go, or not there yet */
    plan plan;
    uint32_t state; /* as last seen */
} holding;

typedef struct reader {
    stress_rng rng;
    uint32_t index;
    uint32_t known; /* of the maker's tasks */
    uint64_t n_children;
    holding held[TASKS + CHILDREN];
} reader;

static void check_value(const plan *plan, uint64_t number, uint32_t state, const mt_value *value) {
    uint64_t whose = number;
    if (state == MT_DEPENDENCY_FAILED) {
        whose = value->cause;
        DEMAND(value->outcome == MT_OUTCOME_ERROR || value->outcome == MT_OUTCOME_CANCELLED,
               "task %llx failed because %llx had outcome %u", ull(number), ull(whose), value->outcome);
        bool found = plan == NULL;
        for (uint32_t i = 0; !found && i < plan->n_edges; i++) found = plan->edges[i] == value->via;
        DEMAND(found, "task %llx failed via %llx, which is none of its edges", ull(number), ull(value->via));
        if (value->outcome == MT_OUTCOME_CANCELLED) return;
    } else {
        uint32_t planned = outcome_of(number) == MT_OUTCOME_OK ? MT_DONE : MT_FAILED;
        DEMAND(state == planned, "task %llx in state %u", ull(number), state);
    }
    DEMAND(value->outcome == outcome_of(whose), "task %llx has outcome %u", ull(number), value->outcome);
    DEMAND(value->codec == codec_of(whose), "task %llx has codec %u", ull(number), value->codec);
    DEMAND(value->size == size_of(whose), "task %llx has %llu bytes", ull(number), ull(value->size));
    compare("value", value->data, value->size, whose, room.salt);
    mt_add_relaxed(&seen.values, 1);
}

static void look(holding *h) {
    uint32_t state = mt_task_state(h->task);
    const mt_value *value = mt_task_value(h->task);
    uint32_t later = mt_task_state(h->task);
    bool was_final = h->state >= MT_FIRST_FINAL;
    DEMAND(was_final ? state == h->state : state != MT_WAITING || h->state == MT_WAITING,
           "task %llx went from %u to %u", ull(h->plan.number), h->state, state);
    DEMAND(state <= MT_ASSIGNED || (state >= MT_FIRST_FINAL && state <= MT_CANCELLED), "state %u", state);
    DEMAND(mt_task_number(h->task) == h->plan.number, "another task");
    bool is_told = state < MT_FIRST_FINAL || (value == NULL) == (state == MT_CANCELLED);
    DEMAND(is_told, "task %llx in state %u: value %p", ull(h->plan.number), state, (const void *)value);
    if (value != NULL) DEMAND(later >= MT_FIRST_FINAL && later != MT_CANCELLED, "a value in state %u", later);
    h->state = later;
    if (value != NULL) check_value(&h->plan, h->plan.number, later, value);
}

/* As the driver's wait, but without a limit: a lost wake-up hangs. */
static void wait_for_ever(mt_task *task) {
    for (;;) {
        uint32_t old = mt_load_acquire(&task->state); /* pairs with mti_task_publish */
        while ((old & MT_STATE_MASK) < MT_FIRST_FINAL) {
            if (mt_cas_acq_rel(&task->state, &old, old | MT_WAITED)) break;
        }
        uint32_t word = mt_load_relaxed(&task->state);
        if ((word & MT_STATE_MASK) >= MT_FIRST_FINAL) return;
        if ((word & MT_WAITED) == 0) continue;
        mt_add_relaxed(&seen.sleeps, 1);
        DEMAND(mti_futex_wait(&task->state, word, -1, false) == MT_OK, "the waiter's sleep");
    }
}

static void wait(reader *r, holding *h) {
    mt_add_relaxed(&seen.waits, 1);
    if (stress_one_in(&r->rng, 2)) {
        wait_for_ever(h->task);
    } else {
        int64_t limit_ns = stress_one_in(&r->rng, 2) ? (int64_t)stress_below(&r->rng, 100000) : -1;
        int status;
        do {
            status = mt_driver_wait(&room.driver, (uint64_t)(uintptr_t)h->task, limit_ns);
        } while (status == MT_E_INTR);
        if (status == MT_E_TIMEOUT && limit_ns >= 0) return;
        DEMAND(status >= MT_FIRST_FINAL, "mt_driver_wait gave %d", status);
    }
    look(h);
    DEMAND(h->state >= MT_FIRST_FINAL, "task %llx in state %u after the wait", ull(h->plan.number), h->state);
}

static void cancel(holding *h) {
    if (!try_cancel(h->task)) return;
    look(h);
    DEMAND(h->state == MT_CANCELLED, "task %llx, cancelled, in state %u", ull(h->plan.number), h->state);
}

static void notify(holding *h) {
    if (!mt_driver_notify(&room.driver, (uint64_t)(uintptr_t)h->task)) return;
    if (h->plan.number < TASKS) mt_store_relaxed(&room.asked[h->plan.number], 1);
}

static void let_go(holding *h) {
    mt_task_unref(h->task);
    h->task = NULL;
}

/* Puts a reference into the mail and takes out another's. */
static void post(reader *r, holding *h) {
    mt_task_ref(h->task);
    _Atomic(mt_task *) *slot = &room.mail[stress_below(&r->rng, MAIL)];
    mt_task *got = mt_exchange_acq_rel(slot, h->task); /* pairs with itself */
    if (got == NULL) return;
    const mt_value *value = mt_task_value(got);
    if (value != NULL) check_value(NULL, mt_task_number(got), mt_task_state(got), value);
    mt_task_unref(got);
}

/* Submits a task behind some that are held. */
static void add_child(reader *r) {
    holding *place = NULL;
    for (uint32_t i = 0; i < CHILDREN && place == NULL; i++) {
        if (r->held[TASKS + i].task == NULL) place = &r->held[TASKS + i];
    }
    if (place == NULL) return;
    *place = (holding){.plan.number = (uint64_t)(r->index + 1) << 32 | r->n_children++};
    mt_task *edges[MOST_EDGES];
    for (uint64_t n = stress_below(&r->rng, MOST_EDGES + 1); n > 0; n--) {
        holding *from = &r->held[stress_below(&r->rng, r->known + CHILDREN)];
        if (from->task == NULL) continue;
        edges[place->plan.n_edges] = from->task;
        place->plan.edges[place->plan.n_edges++] = from->plan.number;
    }
    place->task = submit(&place->plan, edges, false, 1, &r->rng);
}

/* Learns of what the maker has made meanwhile. */
static void learn(reader *r) {
    uint32_t made = mt_load_acquire(&room.made); /* pairs with the maker's release */
    for (; r->known < made; r->known++) {
        r->held[r->known] = (holding){room.tasks[r->known], room.plans[r->known], MT_WAITING};
    }
}

/* Any of those known, with a liking for what has not ended. */
static holding *pick(reader *r) {
    holding *h;
    uint32_t tries = stress_one_in(&r->rng, 2) ? 1 : 12;
    do {
        uint64_t dice = stress_below(&r->rng, r->known + CHILDREN);
        h = &r->held[dice < r->known ? dice : TASKS + dice - r->known];
    } while (--tries > 0 && (h->task == NULL || mt_task_state(h->task) >= MT_FIRST_FINAL));
    return h;
}

static void do_something(reader *r) {
    learn(r);
    if (stress_one_in(&r->rng, 8)) add_child(r);
    holding *h = pick(r);
    if (h->task == NULL) return;
    switch (stress_below(&r->rng, 32)) {
        case 0:
        case 1: wait(r, h); break;
        case 2:
        case 3:
        case 4: notify(h); break;
        case 5:
        case 6:
        case 7: post(r, h); break;
        case 8: cancel(h); break;
        case 9:
        case 10:
            if (h->state >= MT_FIRST_FINAL || stress_one_in(&r->rng, 8)) let_go(h);
            break;
        default: look(h); break;
    }
}

static void *read_tasks(void *argument) {
    static const char *const names[READERS] = {"reader 0", "reader 1", "reader 2"};
    reader *r = argument;
    stress_thread(1 + r->index, names[r->index]);
    r->rng = stress_rng_of(mt_load_relaxed(&stress.round), 1 + r->index);
    for (uint64_t step = 0; step < STEPS || r->known < TASKS; step++) {
        stress_at(step);
        do_something(r);
        while (r->known < TASKS && step >= (uint64_t)r->known * STEPS_PER_TASK) {
            (void)sched_yield();
            learn(r);
        }
        stress_dawdle(&r->rng);
    }
    for (uint32_t i = 0; i < TASKS + CHILDREN; i++) {
        stress_at(STEPS + i);
        holding *h = &r->held[i];
        if (h->task == NULL) continue;
        if (stress_one_in(&r->rng, 2)) wait(r, h);
        let_go(h);
    }
    push(MT_MSG_STOP, NULL);
    return NULL;
}

/* ---- the maker ---- */

static void fulfil(uint32_t i) {
    mt_task_ref(room.tasks[i]);
    push(MT_MSG_FULFIL, room.tasks[i]);
}

static void make_tasks(void) {
    stress_thread(READERS + 1, "maker");
    stress_rng rng = stress_rng_of(mt_load_relaxed(&stress.round), UINT32_MAX);
    bool is_open[TASKS] = {false};
    for (uint32_t i = 0; i < TASKS; i++) {
        stress_at(i);
        plan *p = &room.plans[i];
        mt_task *edges[MOST_EDGES];
        bool is_promise = stress_one_in(&rng, 4);
        p->number = i;
        bool is_alone = i == 0 || is_promise || stress_one_in(&rng, 2);
        p->n_edges = is_alone ? 0 : (uint32_t)stress_below(&rng, MOST_EDGES + 1);
        for (uint32_t k = 0; k < p->n_edges; k++) {
            uint64_t back = stress_below(&rng, i < 40 ? i : 40);
            p->edges[k] = i - 1 - back;
            edges[k] = room.tasks[p->edges[k]];
        }
        room.tasks[i] = submit(p, edges, is_promise, 1 + READERS, &rng);
        is_open[i] = is_promise;
        mt_store_release(&room.made, i + 1);
        do {
            uint64_t other = stress_below(&rng, i + 1);
            if (is_open[other]) {
                fulfil((uint32_t)other);
                if (stress_one_in(&rng, 8)) (void)try_cancel(room.tasks[other]); /* before the value */
            }
            is_open[other] = false;
            (void)sched_yield();
        } while (mt_load_relaxed(&room.submitted) - mt_load_relaxed(&room.ended) > AHEAD);
    }
    for (uint32_t i = 0; i < TASKS; i++) {
        if (is_open[i]) fulfil(i);
        mt_task_unref(room.tasks[i]);
    }
    push(MT_MSG_STOP, NULL);
}

static void check_round(void) {
    mt_graph_counts counts = mt_graph_count(room.graph);
    uint64_t submitted = mt_load_relaxed(&room.submitted);
    DEMAND(mt_graph_check(room.graph) == MT_OK, "the graph's check");
    DEMAND(ended(&counts) == submitted, "%llu tasks ended of %llu", ull(ended(&counts)), ull(submitted));
    DEMAND(counts.cancelled == mt_load_relaxed(&room.cancelled), "%llu cancelled, but %llu calls said so",
           ull(counts.cancelled), ull(mt_load_relaxed(&room.cancelled)));
    for (uint32_t i = 0; i < TASKS; i++) {
        uint32_t asked = mt_load_relaxed(&room.asked[i]);
        DEMAND(asked == mt_load_relaxed(&room.told[i]), "task %x: asked to notify: %u", i, asked);
        mt_add_relaxed(&seen.told, asked);
    }
    mt_add_relaxed(&seen.tasks, submitted);
    mt_add_relaxed(&seen.cancelled, counts.cancelled);
    mt_add_relaxed(&seen.failed, counts.failed + counts.dependency_failed);
}

int main(int argc, char **argv) {
    static reader readers[READERS];
    stress_begin("task", argc, argv, 24);
    for (uint64_t round = 0; round < stress.rounds; round++) {
        stress_round(round);
        memset(&room, 0, sizeof room);
        memset(readers, 0, sizeof readers);
        room.salt = stress_mix(stress.seed ^ round);
        room.alloc = mt_alloc_test_new(0);
        DEMAND(room.alloc != NULL, "no memory");
        room.graph = mt_graph_new(room.alloc);
        room.inbox = mt_inbox_new(room.alloc, round % 2 == 0 ? 8 : 1024);
        DEMAND(room.graph != NULL && room.inbox != NULL, "no memory");
        pthread_t engine_thread = stress_start(engine, NULL);
        pthread_t threads[READERS];
        for (uint32_t i = 0; i < READERS; i++) {
            readers[i].index = i;
            threads[i] = stress_start(read_tasks, &readers[i]);
        }
        make_tasks();
        for (uint32_t i = 0; i < READERS; i++) stress_join(threads[i]);
        stress_join(engine_thread);
        check_round();
        for (uint32_t i = 0; i < MAIL; i++) {
            mt_task *left = mt_load_relaxed(&room.mail[i]);
            if (left != NULL) mt_task_unref(left);
        }
        mt_graph_destroy(room.graph);
        while (mt_load_relaxed(&room.reaper.head) != NULL) reap();
        mt_inbox_destroy(room.inbox);
        uint64_t live = mt_alloc_test_live(room.alloc);
        DEMAND(live == 0, "%llu pieces of memory are lost", ull(live));
        mt_alloc_test_destroy(room.alloc);
    }
    (void)printf("task: seed %llu: %llu tasks (%llu failed, %llu cancelled, %llu reaped); %llu values "
                 "compared, %llu waits, %llu sleeps, %llu notified\n",
                 ull(stress.seed), ull(seen.tasks), ull(seen.failed), ull(seen.cancelled), ull(seen.reaped),
                 ull(seen.values), ull(seen.waits), ull(seen.sleeps), ull(seen.told));
    return 0;
}
