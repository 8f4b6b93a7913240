/* graph.h - the dependency graph of the root: which tasks can run, what a result sets free, how failure spreads.
 *
 * Role: decides; moves no bytes. Tasks that become ready and tasks whose waiters must be woken come out as lists.
 * Invariants: open_edges of a task = number of its edges whose task has not ended (0 once settled); a task is in the
 * ready list exactly while READY and not yet taken. The counts of mt_graph_counts add up to all tasks ever added.
 * Thread rule: one owner thread. No call allocates, so none can fail half way.
 */
#ifndef MT_GRAPH_H
#define MT_GRAPH_H

#include "task.h"

/* cffi:begin */

typedef struct mt_graph mt_graph;

typedef struct mt_graph_counts {
    uint64_t waiting;
    uint64_t ready; /* and not yet taken */
    uint64_t taken; /* taken as ready and not finished */
    uint64_t done;
    uint64_t failed;
    uint64_t dependency_failed;
    uint64_t cancelled;
} mt_graph_counts;

MT_EXPORT mt_graph *mt_graph_new(const mt_alloc *alloc);
/* The graph must be settled: every task added has ended (mt_graph_abandon sees to it). */
MT_EXPORT void mt_graph_destroy(mt_graph *graph);

/* Takes over one reference of the task. Cost: O(edges). A task cancelled before it came here ends at once. */
MT_EXPORT void mt_graph_add(mt_graph *graph, mt_task *task);

/* Up to `n` ready tasks, in the order in which they became ready; they are the caller's to run (references stay
 * the graph's) until mt_graph_finish or mt_graph_return. A task cancelled meanwhile is left out. */
MT_EXPORT uint32_t mt_graph_take_ready(mt_graph *graph, mt_task **out, uint32_t n);

/* A taken task is sent to a lane: READY -> ASSIGNED. False: it was cancelled, forget it (the graph has ended it). */
MT_EXPORT bool mt_graph_assign(mt_graph *graph, mt_task *task);

/* A taken task has ended, or a promise is fulfilled. `outcome`: MT_OUTCOME_*. `blob` (may be NULL: no bytes) owns the value's bytes, which start at
 * `offset`; the graph takes its own reference. Dependents become ready, or fail without running. No effect on a task that has ended. */
MT_EXPORT void mt_graph_finish(mt_graph *graph, mt_task *task, uint32_t outcome, uint32_t codec, mt_blob *blob,
                               uint64_t offset);

/* An assigned task will be tried again: ASSIGNED -> READY; it stays taken. */
MT_EXPORT void mt_graph_unassign(mt_graph *graph, mt_task *task);

/* A taken or assigned task comes back unrun: READY again, at the end of the ready list. */
MT_EXPORT void mt_graph_return(mt_graph *graph, mt_task *task);

/* After mt_task_try_cancel said yes: dependents fail. No effect when the task has been settled already or was never added. */
MT_EXPORT void mt_graph_cancelled(mt_graph *graph, mt_task *task);

/* Cancels every task that is not assigned, one by one: begin, then next until NULL, and nothing else in between but
 * mt_graph_cancelled for the task given. That task comes with a reference for the caller. */
MT_EXPORT void mt_graph_cancel_begin(mt_graph *graph);
MT_EXPORT mt_task *mt_graph_cancel_next(mt_graph *graph);

/* Ends every task that has not ended, as cancelled. */
MT_EXPORT void mt_graph_abandon(mt_graph *graph);

/* The next task that failed, or ended while somebody waited for it; NULL: none. One reference to it becomes the caller's; `*out_flags`
 * are the flags that were set (MT_WAITED, MT_NOTIFY). */
MT_EXPORT mt_task *mt_graph_take_ended(mt_graph *graph, uint32_t *out_flags);

MT_EXPORT mt_graph_counts mt_graph_count(const mt_graph *graph);
MT_EXPORT MT_MUST_CHECK int mt_graph_check(const mt_graph *graph);

/* cffi:end */

struct mt_objects;
/* From now on each task added holds a reference to its function's object, which the graph releases when the task ends. */
void mti_graph_set_objects(mt_graph *graph, struct mt_objects *objects);

#endif
