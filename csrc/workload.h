/* workload.h - the script of a simulated job: real tasks, one after the other, in a shape.
 *
 * Role: stands in for the user's script. Tasks are made when they are asked for, so that a job of millions needs memory only for those that have not
 * ended. Their arguments are what a bank of virtual workers reads: padding, then the duration in microseconds.
 *
 *   bag        tasks without edges
 *   imbalance  the same; each lasts between 0 and twice the time given, evenly drawn
 *   loguniform the same; between the time given and a thousand times that, its logarithm evenly drawn
 *   chain      `width` chains side by side: task i of a layer takes the value of task i of the layer before
 *   stencil    task i takes the values of tasks i - 1, i and i + 1 of the layer before, at the borders of those that exist
 *
 * Thread rule: one owner thread.
 */
#ifndef MT_WORKLOAD_H
#define MT_WORKLOAD_H

#include "task.h"

/* cffi:begin */

#define MT_SHAPE_BAG 0
#define MT_SHAPE_CHAIN 1
#define MT_SHAPE_STENCIL 2
#define MT_SHAPE_IMBALANCE 3
#define MT_SHAPE_LOGUNIFORM 4

typedef struct mt_workload_options {
    uint64_t seed;
    uint32_t shape;      /* MT_SHAPE_* */
    uint32_t width;      /* tasks of a layer */
    uint32_t layers;
    uint32_t task_us;    /* duration; for an imbalance its mean, for loguniform the least */
    uint32_t spread_ppm; /* further: each duration is drawn from so many millionths below and above, at most 1000000 */
    uint32_t args_bytes; /* of each task, at least 4 */
    uint32_t retries;
    uint32_t losses;
} mt_workload_options;

/* Durations of the first `n` tasks of such a job, in microseconds. MT_E_INVAL, MT_E_NOMEM. */
MT_EXPORT MT_MUST_CHECK int mt_workload_durations(const mt_alloc *alloc, const mt_workload_options *options, uint32_t *out,
                                                  uint64_t n);

/* cffi:end */

/* Whether tasks take the values of others. */
bool mti_workload_has_edges(const mt_workload_options *options);

typedef struct mt_workload {
    const mt_alloc *alloc;
    mt_workload_options options;
    uint64_t random;
    uint64_t total;   /* tasks */
    uint64_t made;
    uint64_t work_ns; /* of the tasks made */
    mt_task **before, **now; /* layers with a reference to each task; NULL in shapes without edges */
    unsigned char *args;
} mt_workload;

/* MT_E_INVAL, MT_E_NOMEM: nothing is held. */
MT_MUST_CHECK int mti_workload_init(mt_workload *workload, const mt_alloc *alloc, const mt_workload_options *options);
void mti_workload_clean_up(mt_workload *workload);
/* The next of `total` tasks, of function `fn`, with one reference for the caller; NULL: out of memory. */
mt_task *mti_workload_next(mt_workload *workload, uint64_t fn);
/* Of items of a range, in nanoseconds: each item's depends on the seed and its number only. */
uint64_t mti_workload_items_ns(const mt_workload_options *options, uint64_t first, uint64_t count);
/* The next `count` tasks, of a shape without edges, as one span; `begun`: its promise, see mt_task_spec. */
mt_task *mti_workload_next_span(mt_workload *workload, uint64_t fn, uint64_t count, mt_task *begun);

#endif
