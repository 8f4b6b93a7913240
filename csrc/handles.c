#include "driver_inner.h"

#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "atomic.h"
#include "worker_inner.h"

/* Waiters look for this long before they sleep: a short task answers within it. */
#define SPIN_NS 40000
/* No sleep is longer: a signal that came just before it, or an engine that ended then, is noticed after this. */
#define SLICE_NS 1000000000

static uint64_t now_ns(void) {
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static mt_task *task_of(uint64_t handle) { return (mt_task *)(uintptr_t)handle; }

static bool has_ended(const mt_driver *d) { return mt_load_acquire(&d->ended) != 0 || !mti_is_ours(&d->ours); } /* pairs with end_thread */

/* ---- gates ---- */

void mti_gate_open(mt_gate *gate) {
    mt_fence_seq_cst(); /* orders the happening before the look at `sleepers`; pairs with mti_gate_enter */
    if (mt_load_relaxed(&gate->sleepers) == 0) return;
    mt_add_relaxed(&gate->value, 1);
    mti_futex_wake(&gate->value, INT_MAX, false);
}

uint32_t mti_gate_enter(mt_gate *gate) {
    mt_add_relaxed(&gate->sleepers, 1);
    uint32_t value = mt_load_relaxed(&gate->value);
    mt_fence_seq_cst(); /* orders the announcement before the last look; pairs with mti_gate_open */
    return value;
}

int mti_gate_sleep(mt_gate *gate, uint32_t value, int64_t timeout_ns) {
    int status = mti_futex_wait(&gate->value, value, timeout_ns, false);
    mti_gate_leave(gate);
    return status;
}

void mti_gate_leave(mt_gate *gate) { (void)mt_sub_acq_rel(&gate->sleepers, 1); }

/* What is left of a timeout, cut into slices; 0: it has passed. */
static int64_t slice(int64_t timeout_ns, uint64_t start_ns) {
    if (timeout_ns < 0) return SLICE_NS;
    int64_t left = timeout_ns - (int64_t)(now_ns() - start_ns);
    return left <= 0 ? 0 : left < SLICE_NS ? left : SLICE_NS;
}

/* ---- the way in ---- */

static int push(mt_driver *d, uint64_t kind, void *pointer) {
    for (;;) {
        if (has_ended(d)) return MT_E_CLOSED;
        if (mt_inbox_push(d->inbox, (mt_message){kind, pointer}) == MT_OK) break;
        mt_bell_ring(mti_local_bell(d->local));
        uint32_t value = mti_gate_enter(&d->space_gate);
        if (!mt_inbox_is_full(d->inbox) || has_ended(d)) {
            mti_gate_leave(&d->space_gate);
            continue;
        }
        if (mti_gate_sleep(&d->space_gate, value, SLICE_NS) != MT_OK) return MT_E_INTR;
    }
    mt_bell_ring(mti_local_bell(d->local));
    return MT_OK;
}

/* For messages that must not be lost to a signal: they are pushed from finalisers too. */
static int push_always(mt_driver *d, uint64_t kind, void *pointer) {
    int status;
    do {
        status = push(d, kind, pointer);
    } while (status == MT_E_INTR);
    return status;
}

static uint64_t as_result(int status) { return (uint64_t)(int64_t)status; }

/* A priority of the user's in the band of a depth; it does not leave it, unless it is of another band already. */
static int32_t within(int32_t base, int32_t priority) {
    int32_t most = MT_BAND / 2 - 1;
    if (priority > most) return priority;
    int64_t found = (int64_t)base + (priority < -most ? -most : priority);
    return found < INT32_MAX ? (int32_t)found : INT32_MAX;
}

static uint64_t submit(mt_driver *d, mt_task_spec *spec) {
    spec->number = mt_add_relaxed(&d->next_number, 1);
    spec->losses = mt_load_relaxed(&d->losses);
    if (d->uplink != NULL) {
        mt_scope *scope = mti_uplink_scope(d->uplink);
        spec->priority = within(mt_load_relaxed(&scope->priority), spec->priority);
        mt_store_relaxed(&scope->is_fresh, 0);
    }
    mt_task *task = mt_task_new(d->alloc, spec);
    if (task == NULL) return as_result(MT_E_NOMEM);
    mt_task_ref(task); /* the engine's */
    mt_add_relaxed(&d->n_submitted, 1);
    int status = push(d, MT_MSG_SUBMIT, task);
    if (status != MT_OK) {
        (void)mt_sub_acq_rel(&d->n_submitted, 1);
        mt_task_unref(task);
        mt_task_unref(task);
        return as_result(status);
    }
    return (uint64_t)(uintptr_t)task;
}

uint64_t mt_driver_submit(mt_driver *d, uint64_t fn, uint32_t codec, const uint8_t *data, uint64_t size) {
    mt_part args = {data, size};
    mt_task_spec spec = {.fn = fn, .codec = codec, .n_args = 1, .args = &args};
    return submit(d, &spec);
}

uint64_t mt_driver_submit_with(mt_driver *d, uint64_t fn, uint32_t codec, const mt_part *parts, uint32_t n_parts,
                               const uint64_t *edges, uint32_t n_edges, int32_t priority, uint32_t retries, uint64_t begun) {
    _Static_assert(sizeof(uint64_t) == sizeof(mt_task *), "handles are pointers");
    mt_task_spec spec = {.fn = fn,
                         .codec = codec,
                         .n_args = n_parts,
                         .args = parts,
                         .edges = (mt_task *const *)(const void *)edges,
                         .n_edges = n_edges,
                         .priority = priority,
                         .retries = retries,
                         .begun = (mt_task *)(uintptr_t)begun};
    return submit(d, &spec);
}

uint64_t mt_driver_submit_edges(mt_driver *d, uint64_t fn, uint32_t codec, const uint8_t *data, uint64_t size,
                                const uint64_t *edges, uint32_t n_edges, int32_t priority, uint32_t retries) {
    mt_part args = {data, size};
    return mt_driver_submit_with(d, fn, codec, &args, 1, edges, n_edges, priority, retries, 0);
}

uint64_t mt_driver_promise(mt_driver *d) {
    mt_task_spec spec = {0};
    return submit(d, &spec);
}

/* Takes over the blob, which may be NULL. */
static int fulfil(mt_driver *d, uint64_t handle, uint32_t outcome, uint32_t codec, mt_blob *blob) {
    mt_fulfilment *f = mti_get_zeroed(d->alloc, 1, sizeof *f);
    if (f == NULL || blob == NULL) {
        mt_put(d->alloc, f);
        mt_blob_unref(blob);
        return MT_E_NOMEM;
    }
    *f = (mt_fulfilment){task_of(handle), blob, outcome, codec};
    mt_task_ref(f->task);
    int status = push_always(d, MT_MSG_FULFIL, f);
    if (status != MT_OK) mti_driver_refuse_message(d, (mt_message){MT_MSG_FULFIL, f});
    return status;
}

int mt_driver_fulfil(mt_driver *d, uint64_t handle, uint32_t outcome, uint32_t codec, const uint8_t *data,
                     uint64_t size) {
    mt_part bytes = {data, size};
    return fulfil(d, handle, outcome, codec, mt_blob_from_parts(d->alloc, &bytes, 1));
}

uint64_t mt_driver_share(mt_driver *d, uint32_t codec, const mt_part *parts, uint32_t n_parts) {
    mt_blob *blob = NULL;
    if (mti_parts_size(parts, n_parts) >= MAPPED_OBJECT) blob = mti_blob_new_mapped(d->alloc, parts, n_parts);
    if (blob == NULL) blob = mt_blob_from_parts(d->alloc, parts, n_parts);
    if (blob == NULL) return as_result(MT_E_NOMEM);
    uint64_t handle;
    do {
        handle = mt_driver_promise(d);
    } while (handle == as_result(MT_E_INTR));
    if ((int64_t)handle < 0) {
        mt_blob_unref(blob);
        return handle;
    }
    int status = fulfil(d, handle, MT_OUTCOME_OK, codec | MT_CODEC_SHARED, blob);
    if (status == MT_OK) return handle;
    (void)mt_driver_cancel(d, handle);
    mt_driver_release(d, handle);
    return as_result(status);
}

uint64_t mt_driver_new_object_id(mt_driver *d) {
    uint64_t id;
    if (has_ended(d)) return as_result(MT_E_CLOSED); /* a forked child of a worker does not even have the memory that the count lies in */
    int status = mti_ids_take(&d->ids, &id);
    return status == MT_OK ? id : as_result(status);
}

int mt_driver_add_object(mt_driver *d, uint64_t id, uint32_t codec, const uint8_t *data, uint64_t size) {
    mt_new_object *o = mti_get_zeroed(d->alloc, 1, sizeof *o);
    mt_part bytes = {data, size};
    mt_blob *blob = mt_blob_from_parts(d->alloc, &bytes, 1);
    if (o == NULL || blob == NULL) {
        mt_put(d->alloc, o);
        mt_blob_unref(blob);
        return MT_E_NOMEM;
    }
    *o = (mt_new_object){id, blob, codec};
    int status = push_always(d, MT_MSG_OBJECT, o);
    if (status != MT_OK) mti_driver_refuse_message(d, (mt_message){MT_MSG_OBJECT, o});
    return status;
}

void mt_driver_drop_object(mt_driver *d, uint64_t id) { (void)push_always(d, MT_MSG_DROP, (void *)(uintptr_t)id); }

void mt_driver_stop(mt_driver *d, uint32_t mode) {
    if (has_ended(d)) return;
    if (mt_inbox_push(d->inbox, (mt_message){MT_MSG_STOP, (void *)(uintptr_t)mode}) != MT_OK) { /* it may never be emptied again */
        uint32_t old = mt_load_relaxed(&d->stop_wanted);
        while (old <= mode && !mt_cas_acq_rel(&d->stop_wanted, &old, mode + 1)) {
        }
    }
    mt_bell_ring(mti_local_bell(d->local));
}

/* ---- handles ---- */

void mt_driver_release(mt_driver *d, uint64_t handle) {
    (void)d; /* named so that its owner stays alive: the task may go to the engine's reaper */
    mt_task_unref(task_of(handle));
}

void mt_driver_release_shared(mt_driver *d, uint64_t handle) {
    mt_task_unref(task_of(handle));
    if (!has_ended(d)) mt_bell_ring(mti_local_bell(d->local));
}

uint32_t mt_driver_state(uint64_t handle) { return mt_task_state(task_of(handle)); }

uint64_t mt_driver_number(uint64_t handle) { return mt_task_number(task_of(handle)); }

uint64_t mt_driver_function(uint64_t handle) { return mt_task_function(task_of(handle)); }

const mt_blame *mt_driver_blame(uint64_t handle) { return mt_task_blame(task_of(handle)); }

const mt_value *mt_driver_value(uint64_t handle) { return mt_task_value(task_of(handle)); }

bool mt_driver_cancel(mt_driver *d, uint64_t handle) {
    mt_task *task = task_of(handle);
    if (!mt_task_try_cancel(task)) return false;
    mt_task_ref(task);
    if (push_always(d, MT_MSG_CANCEL, task) != MT_OK) mt_task_unref(task);
    mti_futex_wake(&task->state, INT_MAX, false);
    return true;
}

void mt_driver_cancel_all(mt_driver *d) { (void)push_always(d, MT_MSG_CANCEL_ALL, NULL); }

/* Sets a flag in the state word; the state before it. */
static uint32_t flag(mt_task *task, uint32_t bit) {
    uint32_t old = mt_load_acquire(&task->state); /* pairs with mti_task_publish */
    while ((old & MT_STATE_MASK) < MT_FIRST_FINAL) {
        if (mt_cas_acq_rel(&task->state, &old, old | bit)) break;
    }
    return old & MT_STATE_MASK;
}

static int wait_for(mt_driver *d, mt_task *task, int64_t timeout_ns) {
    uint64_t start = now_ns();
    do {
        (void)sched_yield();
        uint32_t state = mt_task_state(task);
        if (state >= MT_FIRST_FINAL) return (int)state;
    } while (now_ns() - start < SPIN_NS);
    for (;;) {
        int64_t left = slice(timeout_ns, start);
        if (left == 0) return MT_E_TIMEOUT;
        if (flag(task, MT_WAITED) >= MT_FIRST_FINAL) break;
        if (has_ended(d)) return mt_task_state(task) >= MT_FIRST_FINAL ? (int)mt_task_state(task) : MT_E_CLOSED;
        uint32_t word = mt_load_relaxed(&task->state);
        if ((word & MT_STATE_MASK) >= MT_FIRST_FINAL) break;
        if (mti_futex_wait(&task->state, word, left, false) != MT_OK) return MT_E_INTR;
    }
    return (int)mt_task_state(task);
}

int mt_driver_wait(mt_driver *d, uint64_t handle, int64_t timeout_ns) {
    mt_task *task = task_of(handle);
    uint32_t state = mt_task_state(task);
    if (state >= MT_FIRST_FINAL) return (int)state;
    if (timeout_ns == 0) return MT_E_TIMEOUT;
    mt_add_relaxed(&d->n_waiting, 1);
    int status = wait_for(d, task, timeout_ns);
    (void)mt_sub_acq_rel(&d->n_waiting, 1);
    return status;
}

int mt_driver_help(mt_driver *d, uint64_t handle, mt_worker *worker, int64_t timeout_ns, mt_call *out) {
    mt_task *task = task_of(handle);
    if (task != NULL && flag(task, MT_WAITED) >= MT_FIRST_FINAL) return MT_OK;
    if (has_ended(d)) return MT_E_CLOSED;
    mt_add_relaxed(&d->n_waiting, 1);
    mt_add_relaxed(&d->n_helping, 1);
    int status = mti_worker_next(worker, task == NULL ? NULL : &task->state, timeout_ns, out);
    (void)mt_sub_acq_rel(&d->n_waiting, 1);
    (void)mt_sub_acq_rel(&d->n_helping, 1);
    return status;
}

/* Whether a thread of this process waits for something; one that merely gets no core does not. */
static bool sleeps(int32_t tid) {
    char path[64], line[512];
    (void)snprintf(path, sizeof path, "/proc/self/task/%d/stat", tid);
    FILE *file = fopen(path, "re");
    if (file == NULL) return false;
    const char *got = fgets(line, sizeof line, file);
    (void)fclose(file);
    const char *state = got == NULL ? NULL : strrchr(line, ')'); /* behind the name, which may hold anything */
    return state != NULL && state[1] != 0 && (state[2] == 'S' || state[2] == 'D');
}

bool mt_driver_is_helped(const mt_driver *d) { return mt_load_relaxed(&d->n_helping) > 0; }

static bool is_through(const mt_driver *d) {
    return mt_load_acquire(&d->n_ended) >= mt_load_relaxed(&d->n_submitted); /* acquire: pairs with the release in mti_driver_wake_waiters */
}

int mt_driver_wait_stalled(mt_driver *d, int32_t tid, uint64_t patience_ns) {
    for (uint64_t stalled_ns = 0;;) {
        if (has_ended(d)) return MT_E_CLOSED;
        if (is_through(d)) {
            uint32_t value = mti_gate_enter(&d->submit_gate);
            if (is_through(d) && !has_ended(d)) {
                int status = mti_gate_sleep(&d->submit_gate, value, SLICE_NS);
                return status == MT_OK || status == MT_E_TIMEOUT ? MT_E_INTR : status;
            }
            mti_gate_leave(&d->submit_gate);
        }
        uint64_t ended = mt_load_relaxed(&d->n_ended);
        bool slept = sleeps(tid);
        struct timespec t = {0, (long)patience_ns};
        (void)nanosleep(&t, NULL);
        bool is_fresh = mt_load_relaxed(&mti_uplink_scope(d->uplink)->is_fresh) != 0;
        if (is_fresh || mt_load_relaxed(&d->n_helping) > 0 || mt_load_relaxed(&d->n_ended) != ended || is_through(d)) {
            stalled_ns = 0;
            continue;
        }
        stalled_ns += patience_ns;
        if ((slept && sleeps(tid)) || stalled_ns >= 20 * patience_ns) return MT_OK;
    }
}

bool mt_driver_notify(mt_driver *d, uint64_t handle) {
    if (!mti_is_ours(&d->ours)) return false;
    return flag(task_of(handle), MT_NOTIFY) < MT_FIRST_FINAL;
}

static int pop_notified(mt_driver *d, uint64_t *out, uint32_t n) {
    uint32_t got = 0;
    mt_task *taken = NULL;
    (void)pthread_mutex_lock(&d->notified_lock);
    while (got < n && d->notified_first != NULL) {
        mt_task *task = d->notified_first;
        d->notified_first = task->next;
        out[got++] = (uint64_t)(uintptr_t)task;
        task->next = taken;
        taken = task;
    }
    (void)pthread_mutex_unlock(&d->notified_lock);
    while (taken != NULL) {
        mt_task *next = taken->next;
        mt_task_unref(taken);
        taken = next;
    }
    return (int)got;
}

/* Who has just been told of tasks' ends, or what it has called, may have submitted the next ones: their ends are looked for, by the engine too. */
static int look_for_notified(mt_driver *d, uint64_t *out, uint32_t n) {
    uint64_t start = now_ns();
    int got;
    mt_add_relaxed(&d->n_waiting, 1);
    while ((got = pop_notified(d, out, n)) == 0 && !has_ended(d) && now_ns() - start < SPIN_NS) (void)sched_yield();
    (void)mt_sub_acq_rel(&d->n_waiting, 1);
    return got;
}

int mt_driver_next_notified(mt_driver *d, uint64_t *out, uint32_t n, int64_t timeout_ns) {
    uint64_t start = now_ns();
    int found = timeout_ns == 0 ? 0 : look_for_notified(d, out, n);
    if (found > 0) return found;
    for (;;) {
        uint32_t value = mti_gate_enter(&d->notify_gate);
        bool last_look = has_ended(d);
        int got = pop_notified(d, out, n);
        int64_t left = slice(timeout_ns, start);
        if (got > 0 || last_look || left == 0) {
            mti_gate_leave(&d->notify_gate);
            return got > 0 ? got : last_look ? MT_E_CLOSED : MT_E_TIMEOUT;
        }
        if (mti_gate_sleep(&d->notify_gate, value, left) != MT_OK) return MT_E_INTR; /* a signal, or the slice is over: the caller looks and calls again */
    }
}

int mt_driver_wait_all(mt_driver *d, int64_t timeout_ns) {
    uint64_t start = now_ns();
    for (;;) {
        uint32_t value = mti_gate_enter(&d->ended_gate);
        bool closed = has_ended(d);
        /* acquire: pairs with the release in mti_driver_wake_waiters */
        bool all = mt_load_acquire(&d->n_ended) >= mt_load_relaxed(&d->n_submitted);
        int64_t left = slice(timeout_ns, start);
        if (all || closed || left == 0) {
            mti_gate_leave(&d->ended_gate);
            return all ? MT_OK : closed ? MT_E_CLOSED : MT_E_TIMEOUT;
        }
        if (mti_gate_sleep(&d->ended_gate, value, left) != MT_OK) return MT_E_INTR; /* a signal, or the slice is over: the caller looks and calls again */
    }
}

int mt_driver_join(mt_driver *d, int64_t timeout_ns) {
    uint64_t start = now_ns();
    while (!has_ended(d)) {
        uint32_t value = mti_gate_enter(&d->ended_gate);
        int64_t left = slice(timeout_ns, start);
        if (has_ended(d) || left == 0) {
            mti_gate_leave(&d->ended_gate);
            if (left == 0 && !has_ended(d)) return MT_E_TIMEOUT;
            break;
        }
        if (mti_gate_sleep(&d->ended_gate, value, left) != MT_OK) return MT_E_INTR; /* a signal, or the slice is over: the caller looks and calls again */
    }
    return MT_OK;
}

int mt_driver_failure(const mt_driver *d) { return mt_load_acquire(&d->failure); } /* pairs with fail() */

int mt_driver_failure_errno(const mt_driver *d) { return d->failure_errno; }

bool mt_driver_is_ours(const mt_driver *d) { return mti_is_ours(&d->ours); }

bool mt_driver_is_clean(const mt_driver *d) { return mt_load_acquire(&d->is_clean) != 0; } /* pairs with end_thread */

/* ---- the engine thread's side of handles ---- */

int mti_driver_take_message(mt_driver *d, mt_message message) {
    switch (message.kind) {
        case MT_MSG_SUBMIT: return mt_engine_submit(d->engine, message.pointer);
        case MT_MSG_CANCEL: mt_engine_cancelled(d->engine, message.pointer); return MT_OK;
        case MT_MSG_CANCEL_ALL: mt_engine_cancel_all(d->engine); return MT_OK;
        case MT_MSG_FULFIL: {
            mt_fulfilment f = *(mt_fulfilment *)message.pointer;
            mt_put(d->alloc, message.pointer);
            mt_engine_fulfil(d->engine, f.task, f.outcome, f.codec, f.blob);
            mt_blob_unref(f.blob);
            return MT_OK;
        }
        case MT_MSG_OBJECT: {
            mt_new_object o = *(mt_new_object *)message.pointer;
            mt_put(d->alloc, message.pointer);
            int status = mt_engine_add_object(d->engine, o.id, o.blob, o.codec);
            mt_blob_unref(o.blob);
            return status;
        }
        case MT_MSG_DROP: mt_engine_drop_object(d->engine, (uint64_t)(uintptr_t)message.pointer); return MT_OK;
        default: return MT_OK;
    }
}

void mti_driver_refuse_message(mt_driver *d, mt_message message) {
    switch (message.kind) {
        case MT_MSG_SUBMIT: {
            mt_task *task = message.pointer;
            (void)mt_task_try_cancel(task);
            mti_futex_wake(&task->state, INT_MAX, false);
            mt_task_unref(task);
            break;
        }
        case MT_MSG_CANCEL: mt_task_unref(message.pointer); break;
        case MT_MSG_FULFIL: {
            mt_fulfilment *f = message.pointer;
            mt_task_unref(f->task);
            mt_blob_unref(f->blob);
            mt_put(d->alloc, f);
            break;
        }
        case MT_MSG_OBJECT: {
            mt_new_object *o = message.pointer;
            mt_blob_unref(o->blob);
            mt_put(d->alloc, o);
            break;
        }
        default: break;
    }
}

/* For whoever asks at the end which failures nobody has looked at. */
static void keep_failure(mt_driver *d, mt_task *task) {
    uint32_t n = mt_load_relaxed(&d->n_kept);
    if (n == MT_FAILURES_KEPT || d->uplink != NULL) return;
    mt_task_ref(task);
    d->failures[n] = task;
    mt_store_release(&d->n_kept, n + 1); /* pairs with mt_driver_failed_task */
}

uint64_t mt_driver_failed_task(mt_driver *d, uint32_t i) {
    if (i >= mt_load_acquire(&d->n_kept)) return 0; /* pairs with keep_failure */
    mt_task_ref(d->failures[i]);
    return (uint64_t)(uintptr_t)d->failures[i];
}

void mti_driver_wake_waiters(mt_driver *d) {
    bool notify = false, waited = false;
    uint32_t flags;
    mt_graph_counts counts = mt_engine_stats_now(d->engine).graph;
    bool has_failures = counts.failed != mt_load_relaxed(&d->n_failed);
    for (mt_task *task; (task = mt_engine_take_ended(d->engine, &flags)) != NULL;) {
        if (has_failures && mt_task_state(task) == MT_FAILED) keep_failure(d, task);
        if ((flags & MT_WAITED) != 0) {
            mti_futex_wake(&task->state, INT_MAX, false);
            waited = true;
        }
        if ((flags & MT_NOTIFY) == 0) {
            mt_task_unref(task);
            continue;
        }
        notify = true;
        task->next = NULL;
        (void)pthread_mutex_lock(&d->notified_lock);
        if (d->notified_first == NULL) {
            d->notified_first = task;
        } else {
            d->notified_last->next = task;
        }
        d->notified_last = task;
        (void)pthread_mutex_unlock(&d->notified_lock);
    }
    if (waited) mti_local_ring_inline(d->local);
    if (notify) mti_gate_open(&d->notify_gate);
    if (has_failures) mt_store_relaxed(&d->n_failed, counts.failed);
    uint64_t ended = counts.done + counts.failed + counts.dependency_failed + counts.cancelled;
    if (ended == mt_load_relaxed(&d->n_ended)) return;
    mt_store_release(&d->n_ended, ended);
    if (ended >= mt_load_relaxed(&d->n_submitted)) mti_gate_open(&d->ended_gate);
}
