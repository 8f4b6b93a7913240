/* uplink.h - the link of a worker process as the way up of an engine in the same process.
 *
 * Role: a task that submits sub-tasks makes its worker an engine of its own, and the rank's engine is that one's parent. Both use the same two
 * rings. Up: a record is written by one of them at a time (the pen). Down: while a task runs that has submitted, the engine reads, for its results
 * come then; what is meant for the worker is kept until it looks. At all other times the worker reads, and passes on what is the engine's.
 * Invariants: before the engine reads it tells the rank that the worker has no slot (so that no task is sent to where nobody would run it), and gives
 * up what has been sent ahead; when the worker reads again, it has its slot again.
 * Thread rule: mti_uplink_step and the link belong to the engine's thread, the rest to the worker's.
 */
#ifndef MT_UPLINK_H
#define MT_UPLINK_H

#include "engine.h"
#include "worker.h"

typedef struct mt_uplink mt_uplink;

/* Worker's thread, while a task runs. From now on the worker shares its link. NULL: no memory. */
mt_uplink *mti_uplink_new(const mt_alloc *alloc, mt_worker *worker);
/* Neither side may be using it. */
void mti_uplink_destroy(mt_uplink *uplink);

/* ---- the engine's side ---- */

mt_link *mti_uplink_link(mt_uplink *uplink);
/* Rung for whatever comes down. */
mt_bell *mti_uplink_bell(mt_uplink *uplink);
/* What is known of the task that runs. */
mt_scope *mti_uplink_scope(mt_uplink *uplink);
/* Takes in what is the engine's; `submits`: a task has submitted since the last step. `*out_n` grows by the records taken. */
MT_MUST_CHECK int mti_uplink_step(mt_uplink *uplink, mt_engine *engine, bool submits, uint64_t *out_n);

/* ---- the worker's side ---- */

/* Around every writing of a record. */
void mti_uplink_take_pen(mt_uplink *uplink);
void mti_uplink_give_pen(mt_uplink *uplink);
/* The task has ended: the worker reads again. */
void mti_uplink_end_task(mt_uplink *uplink);
/* The next record for the worker: as mt_worker_next without waiting. */
MT_MUST_CHECK int mti_uplink_poll(mt_uplink *uplink, mt_call *out);
/* A record for the engine has come while the worker reads. */
MT_MUST_CHECK int mti_uplink_pass_on(mt_uplink *uplink, const mt_incoming *incoming);

#endif
