/* loopback_below.h - for tests: the engine that a worker of a simulated job has for sub-tasks, and what must come of them.
 *
 * Role: a real engine, in every other worker with an inline worker that runs what is deep enough, whose way up is the worker's ring. It submits at random, and looks at how every sub-task ends.
 * Thread rule: one thread.
 */
#ifndef MT_LOOPBACK_BELOW_H
#define MT_LOOPBACK_BELOW_H

#include "engine.h"

typedef struct mt_below mt_below;

/* The arguments of a task of such a job, and the sum of its edges' first words. */
const unsigned char *mti_below_edges(const mt_rec_task *task, uint64_t *out_sum);

/* Records go to `up`, a ring of the caller's, who tells nobody; `number`: no two of a job have the same. NULL: no memory. */
mt_below *mti_below_new(const mt_alloc *alloc, mt_ring *up, const mt_segment_link *memory, uint64_t number);
/* The worker is gone, and with it all that it waited for. */
void mti_below_destroy(mt_below *below);
/* Submits some sub-tasks. */
MT_MUST_CHECK int mti_below_submit(mt_below *below, uint64_t *random);
/* Steps the engine, looks at what has ended and checks itself: MT_E_RECORD when a sub-task has ended as it must not. `kills`: it may be lost. */
MT_MUST_CHECK int mti_below_step(mt_below *below, uint64_t now_ns, bool kills, uint64_t *out_n);
/* A record that came down. */
MT_MUST_CHECK int mti_below_take(mt_below *below, const mt_incoming *incoming);
/* Gives up what is kept for later sub-tasks. */
void mti_below_finish(mt_below *below);
/* Whether a record is half in the ring: nobody else may write then. */
bool mti_below_is_writing(const mt_below *below);
uint64_t mti_below_residue(const mt_below *below);
/* Sub-tasks that have ended well, each once. */
uint64_t mti_below_done(const mt_below *below);

#endif
