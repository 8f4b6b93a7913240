#include "task.h"

#include <string.h>

#include "atomic.h"
#include "frames.h"

/* Arguments up to this size lie in the task's own memory; larger ones are freed as soon as the task has ended. */
#define INLINE_ARGS 1024u

mt_task *mt_task_new(const mt_alloc *alloc, const mt_task_spec *spec) {
    uint64_t size = mti_parts_size(spec->args, spec->n_args);
    size_t head = sizeof(mt_task) + (size_t)spec->n_edges * sizeof(mt_edge);
    bool is_inline = size <= INLINE_ARGS;
    mt_task *task = mt_get(alloc, head + (is_inline ? size : 0));
    if (task == NULL) return NULL;
    memset(task, 0, sizeof *task);
    if (is_inline) {
        task->args = (unsigned char *)task + head;
        mti_parts_copy(spec->args, spec->n_args, 0, size, (unsigned char *)task + head);
    } else {
        task->args_blob = mt_blob_from_parts(alloc, spec->args, spec->n_args);
        if (task->args_blob == NULL) {
            mt_put(alloc, task);
            return NULL;
        }
        task->args = task->args_blob->data;
    }
    task->begun = spec->begun;
    if (spec->begun != NULL) mt_task_ref(spec->begun);
    atomic_init(&task->state, MT_WAITING);
    atomic_init(&task->refs, 1);
    task->alloc = alloc;
    task->number = spec->number;
    task->job.fn = spec->fn;
    task->job.priority = spec->priority;
    task->args_size = size;
    task->codec = spec->codec;
    task->retries_left = (uint8_t)(spec->retries < UINT8_MAX ? spec->retries : UINT8_MAX);
    task->losses_left = (uint8_t)(spec->losses < UINT8_MAX ? spec->losses : UINT8_MAX);
    task->n_edges = spec->n_edges;
    for (uint32_t i = 0; i < spec->n_edges; i++) {
        task->edges[i] = (mt_edge){spec->edges[i], task, NULL};
        mt_task_ref(spec->edges[i]);
    }
    return task;
}

void mt_task_ref(mt_task *task) { mt_add_relaxed(&task->refs, 1); }

static bool last_ref_gone(mt_task *task) {
    /* acq_rel: whoever frees must see every use that others made before their unref. */
    return mt_sub_acq_rel(&task->refs, 1) == 1;
}

static void reaper_push(mt_reaper *reaper, mt_task *task) {
    mt_task *head = mt_load_relaxed(&reaper->head);
    do {
        task->next = head;
    } while (!mt_cas_weak_release(&reaper->head, &head, task));
}

mt_task *mti_reaper_take(mt_reaper *reaper) {
    if (mt_load_relaxed(&reaper->head) == NULL) return NULL;
    return mt_exchange_acq_rel(&reaper->head, NULL); /* pairs with the release in reaper_push */
}

/* Frees `task` and, without recursion, the tasks whose last reference it held: they are chained through `next`. */
void mti_task_free(mt_task *task) {
    task->next = NULL;
    while (task != NULL) {
        mt_task *rest = task->next;
        if (task->value_object != 0) {
            reaper_push(task->reaper, task);
            task = rest;
            continue;
        }
        for (uint32_t i = 0; i < task->n_edges; i++) {
            mt_task *from = task->edges[i].from;
            if (from == NULL || !last_ref_gone(from)) continue;
            from->next = rest;
            rest = from;
        }
        if (task->place != PLACE_SETTLED) mti_task_drop_args(task);
        mt_blob_unref(task->value_blob);
        mt_put(task->alloc, task);
        task = rest;
    }
}

void mti_task_drop_edges(mt_task *task) {
    for (uint32_t i = 0; i < task->n_edges; i++) {
        mt_task *from = task->edges[i].from;
        task->edges[i].from = NULL;
        if (from != NULL) mt_task_unref(from);
    }
}

void mt_task_unref(mt_task *task) {
    if (last_ref_gone(task)) mti_task_free(task);
}

uint32_t mt_task_state(const mt_task *task) {
    return mt_load_acquire(&task->state) & MT_STATE_MASK; /* pairs with mti_task_publish */
}

uint64_t mt_task_number(const mt_task *task) { return task->number; }

uint64_t mt_task_function(const mt_task *task) { return task->job.fn; }

const mt_blame *mt_task_blame(const mt_task *task) { return mt_task_state(task) == MT_DEPENDENCY_FAILED ? &task->blame : NULL; }

const mt_value *mt_task_value(const mt_task *task) {
    uint32_t state = mt_task_state(task);
    return state >= MT_FIRST_FINAL && state != MT_CANCELLED ? &task->value : NULL;
}

bool mti_task_move(mt_task *task, uint32_t to) {
    uint32_t old = mt_load_acquire(&task->state); /* pairs with mt_task_try_cancel of another thread */
    do {
        if ((old & MT_STATE_MASK) == MT_CANCELLED) return false;
    } while (!mt_cas_acq_rel(&task->state, &old, (old & MT_FLAGS) | to));
    return true;
}

bool mt_task_try_cancel(mt_task *task) {
    uint32_t old = mt_load_acquire(&task->state); /* pairs with mti_task_move and mti_task_publish */
    do {
        uint32_t state = old & MT_STATE_MASK;
        if (state != MT_WAITING && state != MT_READY) return false;
    } while (!mt_cas_acq_rel(&task->state, &old, (old & MT_FLAGS) | MT_CANCELLED));
    return true;
}

uint32_t mti_task_publish(mt_task *task, uint32_t final_state, uint32_t *out_flags) {
    uint32_t old = mt_load_acquire(&task->state); /* pairs with mt_task_try_cancel of another thread */
    uint32_t to;
    do {
        to = (old & MT_STATE_MASK) == MT_CANCELLED ? (uint32_t)MT_CANCELLED : final_state;
    } while (!mt_cas_acq_rel(&task->state, &old, to));
    *out_flags = old & MT_FLAGS;
    return to;
}

void mti_task_drop_args(mt_task *task) {
    mt_blob_unref(task->args_blob);
    if (task->begun != NULL) mt_task_unref(task->begun);
    task->args_blob = NULL;
    task->begun = NULL;
    task->args_size = 0;
}
