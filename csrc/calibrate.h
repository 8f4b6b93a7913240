/* calibrate.h - what the parts of the engine cost on this machine: real calls, with a clock around them.
 *
 * Role: gives the simulator its numbers. A root, an agent below it and that agent's links run in one thread, with real records, frames and rings;
 * what is timed is one kind of work at a time, in batches, so that the clock itself does not count.
 * The library that carries frames between machines is not in it: its share is measured by whoever has two ranks.
 * Thread rule: any thread; it shares nothing.
 */
#ifndef MT_CALIBRATE_H
#define MT_CALIBRATE_H

#include "base.h"

/* cffi:begin */

/* Nanoseconds spent, and for how much. */
typedef struct mt_timings {
    uint64_t submit_ns;  /* tasks into the root's graph */
    uint64_t assign_ns;  /* from there into frames */
    uint64_t take_ns;    /* tasks out of frames into the agent */
    uint64_t forward_ns; /* from there into its workers' rings */
    uint64_t result_ns;  /* results out of rings and into frames */
    uint64_t end_ns;     /* results out of frames, ending their tasks */
    uint64_t tasks;      /* so many of each */
    uint64_t edges;      /* that these tasks had */
    uint64_t frames;     /* that carried them down; as many went up */
    uint64_t bytes_down, bytes_up;
    uint64_t joined_bytes; /* by the agent */
    uint64_t look_ns;    /* looking at lanes that have nothing */
    uint64_t looks;
} mt_timings;

typedef struct mt_calibrate_plan {
    uint32_t tasks;
    uint32_t batch;       /* submitted at a time */
    uint32_t args_bytes;  /* of each, at most 1024 */
    uint32_t pairs;       /* 1: each second task needs the one before it */
    uint32_t span;        /* 1: a batch is one task, a span, and tasks are its items, each a part of its own */
    uint32_t value_bytes; /* of each result, at most 1024 */
    uint64_t duration_ns; /* what the workers say: the shorter, the more tasks go down at a time */
} mt_calibrate_plan;

/* MT_E_INVAL, MT_E_NOMEM, or what an engine said. */
MT_EXPORT MT_MUST_CHECK int mt_calibrate(const mt_alloc *alloc, const mt_calibrate_plan *plan, mt_timings *out);
/* Nanoseconds that so many readings of the clock take. */
MT_EXPORT uint64_t mt_calibrate_clock(uint32_t readings);
/* Wakes a thread that sleeps on its bell, `wakes` times: what each ring took, and how long after it the thread ran (0: not seen). MT_E_SYS. */
MT_EXPORT MT_MUST_CHECK int mt_calibrate_bell(uint32_t wakes, uint64_t *out_ring_ns, uint64_t *out_wake_ns);

/* cffi:end */

#endif
