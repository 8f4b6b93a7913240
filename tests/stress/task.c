/* Tasks in the hands of many threads. A maker submits tasks with edges, and promises that it fulfils;
 * readers hold references of their own to all of them and look at states, wait, ask to be notified, cancel,
 * pass references on, submit tasks of their own behind them and let go; an engine thread moves, publishes
 * and drops through the real graph. Readers see only moves that task.h allows and, with a final state, the
 * whole value; who waits is woken and who asked is told; nothing is lost or freed twice.
 */
#include "task_engine.h"

#define STEPS_PER_TASK 4 /* of each reader; then it waits for the maker */
#define STEPS (TASKS * STEPS_PER_TASK) /* in a round, before it lets go of what it has left */
#define CHILDREN 16 /* tasks of its own that a reader holds at a time */

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
        mti_ours_init(&room.driver.ours);
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
        mti_ours_clean_up(&room.driver.ours);
    }
    (void)printf("task: seed %llu: %llu tasks (%llu failed, %llu cancelled, %llu reaped); %llu values "
                 "compared, %llu waits, %llu sleeps, %llu notified\n",
                 ull(stress.seed), ull(seen.tasks), ull(seen.failed), ull(seen.cancelled), ull(seen.reaped),
                 ull(seen.values), ull(seen.waits), ull(seen.sleeps), ull(seen.told));
    return 0;
}
