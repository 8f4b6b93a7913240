/* task_engine.h - of the program `task`: the engine thread, which moves, publishes and drops through the real graph. */
#ifndef STRESS_TASK_ENGINE_H
#define STRESS_TASK_ENGINE_H

#include "task_room.h"

#define RUNNING 48
#define SLOWNESS 24 /* tasks that are made before one that is ready runs, at most: time to wait and cancel */

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
        uint32_t value = mt_bell_arm(&room.bell, MT_BELL_SLEEPS);
        if (mt_inbox_has_data(room.inbox)) {
            mt_bell_disarm(&room.bell);
        } else {
            DEMAND(mt_bell_sleep(&room.bell, value, -1) == MT_OK, "the engine's sleep");
        }
    }
    return NULL;
}

#endif
