/* engine.h - the state machine of a rank: events in, records out.
 *
 * Role: joins graph (root only), scheduler, objects and lanes. A lane is a local worker or a child rank; both get the same records.
 * Tasks are submitted here, or given by the parent or by lanes (sub-tasks of workers; what is too much for the ranks below): of those it keeps an
 * errand, the record and the id that the sender knows it by. The parent is a lane too: it gets tasks that did not come from it and that no
 * other lane has credit for.
 * Deterministic: the same events in the same order give the same records; it has no clock and does no I/O of its own.
 * Invariants: each job in the table is ready in the scheduler or booked on exactly one lane; each record of a task that was sent is answered by one
 * RESULT that goes back, whatever happens to the lane. When a lane is lost, nobody is left to want what came from it: that is dropped.
 * Thread rule: one owner thread. Errors: MT_E_NOMEM and MT_E_RANGE are final for the engine; MT_E_RECORD blames the sender only.
 */
#ifndef MT_ENGINE_H
#define MT_ENGINE_H

#include "frames.h"
#include "graph.h"
#include "ids.h"
#include "link.h"
#include "objects.h"
#include "sched.h"

/* cffi:begin */

typedef struct mt_engine_stats {
    mt_graph_counts graph;   /* tasks that were submitted here */
    uint64_t outstanding;    /* tasks or errands that have not ended */
    uint64_t ready;          /* jobs that no lane has credit for yet */
    uint64_t objects;
    uint64_t object_bytes;
    uint64_t objects_sent;   /* OBJECT records sent down */
    uint64_t objects_mapped; /* of which only told where the bytes lie */
    uint64_t joined_bytes;   /* of values of parts, each time they were put together */
    uint64_t results;        /* RESULT records taken in */
    uint64_t stale_results;  /* of which nobody knew the task any more */
    uint64_t lost;           /* tasks that died with their lane */
    uint64_t recalled;       /* jobs that came back unrun from lanes that were behind */
    uint32_t slots;          /* workers that are up, below this rank */
    uint32_t slots_above;    /* those that tasks sent up may find; an agent without sub-tasks is not told */
    uint32_t lanes;
} mt_engine_stats;

/* cffi:end */

typedef struct mt_engine mt_engine;

/* An engine without lanes but the way up, `parent` (borrowed); NULL: the root. `host`: for messages about lost tasks, copied. */
mt_engine *mt_engine_new(const mt_alloc *alloc, uint32_t max_lanes, mt_link *parent, const char *host);
/* Its own objects get their numbers there. NULL, and before: from a count of its own that begins at 2^63. */
void mt_engine_set_ids(mt_engine *engine, const mt_ids *ids);
/* Ends all tasks first. Links are the caller's. */
void mt_engine_destroy(mt_engine *engine);

/* A lane over `link` (borrowed); it gets jobs once its HELLO has come. `role`: MT_ROLE_WORKER or MT_ROLE_CHILD. */
MT_MUST_CHECK int mt_engine_add_lane(mt_engine *engine, uint32_t role, mt_link *link, uint32_t *out_lane);

/* Takes over one reference. A task whose function is unknown fails. */
MT_MUST_CHECK int mt_engine_submit(mt_engine *engine, mt_task *task);
/* After mt_task_try_cancel; takes over one reference. */
void mt_engine_cancelled(mt_engine *engine, mt_task *task);
/* Cancels every task that has no lane yet. */
void mt_engine_cancel_all(mt_engine *engine);
/* Ends a promise; takes over one reference to the task; `blob` is borrowed. */
void mt_engine_fulfil(mt_engine *engine, mt_task *task, uint32_t outcome, uint32_t codec, mt_blob *blob);
/* Object `id` with one reference; `blob` is borrowed. */
MT_MUST_CHECK int mt_engine_add_object(mt_engine *engine, uint64_t id, mt_blob *blob, uint32_t codec);
void mt_engine_drop_object(mt_engine *engine, uint64_t id);
/* Where tasks go whose values lie in the object table. */
mt_reaper *mt_engine_reaper(mt_engine *engine);
/* Ends every task as cancelled and forgets every job; running ones are not told. */
void mt_engine_abandon(mt_engine *engine);
/* As mt_graph_take_ended. */
mt_task *mt_engine_take_ended(mt_engine *engine, uint32_t *out_flags);

/* A record from the parent. MT_E_RECORD: nothing was done. */
MT_MUST_CHECK int mt_engine_from_parent(mt_engine *engine, const mt_incoming *incoming);
/* A record from a lane. MT_E_RECORD: give the lane up with mt_engine_lane_lost. */
MT_MUST_CHECK int mt_engine_from_lane(mt_engine *engine, uint32_t lane, const mt_incoming *incoming);

/* The lane's other end is gone, after `started` jobs had been begun there in order since its HELLO (UINT64_MAX: unknown, all of them).
 * Jobs that were begun are lost (or tried again, if they have retries); the others go back to the front of the queue. The lane gets
 * jobs again after another HELLO. */
MT_MUST_CHECK int mt_engine_lane_lost(mt_engine *engine, uint32_t lane, const mt_lost *why, uint64_t started);

/* Sends ready jobs to lanes with credit; `*out_n` grows by how many. Takes jobs that have not begun back from lanes that are behind, when others
 * have nothing to do or more urgent jobs wait, and from lanes that are stuck. Frees reaped tasks and dropped objects. */
MT_MUST_CHECK int mt_engine_dispatch(mt_engine *engine, uint64_t now_ns, uint64_t *out_n);
/* When mt_engine_dispatch should be called again even if nothing happens; UINT64_MAX: never. */
uint64_t mt_engine_due_ns(const mt_engine *engine);

/* Agent: tells the parent that `slots` workers are below this rank (the first call is the HELLO). */
MT_MUST_CHECK int mt_engine_say_slots(mt_engine *engine, uint32_t slots);
/* Agent: everything below has ended. */
MT_MUST_CHECK int mt_engine_say_bye(mt_engine *engine);
/* Tells all child lanes that are not gone to stop. `mode`: MT_STOP_*. */
MT_MUST_CHECK int mt_engine_stop_children(mt_engine *engine, uint32_t mode);
/* Child lanes that have neither said BYE nor been lost. */
uint32_t mt_engine_children_left(const mt_engine *engine);
/* No lane has workers, and none is a child that has yet to say how many it has. */
bool mt_engine_is_hopeless(const mt_engine *engine);
/* Agent: -1, or the mode of the STOP that the parent has sent. */
int mt_engine_stop_mode(const mt_engine *engine);

/* As mt_sched_least_load, and mt_sched_least_ahead: what lanes can go on with. */
uint64_t mt_engine_least_load_ns(const mt_engine *engine);
uint64_t mt_engine_least_ahead_ns(const mt_engine *engine);

mt_engine_stats mt_engine_stats_now(const mt_engine *engine);
/* Checks itself and everything in it. */
MT_MUST_CHECK int mt_engine_check(const mt_engine *engine);

#endif
