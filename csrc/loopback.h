/* loopback.h - a transport inside one process, and a whole job on it: real engines, virtual workers, a seed.
 *
 * Role: for tests. The engines, links, rings and records are the ones that ship; only the carrier of frames and what workers compute are replaced.
 * Every step is chosen by a generator from the seed, so that a failing seed replays exactly.
 *
 * What a task's arguments mean to a virtual worker (three uint64_t): number, size of the value in bytes (at least 8), behaviour. The value begins with
 * number + the first words of all edges' values, modulo 2^64; the rest is zero.
 * Of a span these three follow the mt_span, and the second is 1 + the item that fails (0: none). Item i gives the word number + edges + i. With MT_WORLD_REDUCE
 * a part gives two words: how many items, and the hash h * MT_WORLD_BASE + word over them in order. Combining joins such pairs.
 * Thread rule: one thread.
 */
#ifndef MT_LOOPBACK_H
#define MT_LOOPBACK_H

#include "base.h"
#include "task.h"
#include "transport.h"

/* cffi:begin */

#define MT_WORLD_OK 0     /* behaviour: return the value */
#define MT_WORLD_ERROR 1  /* behaviour: fail; the value's bytes are the number alone */
#define MT_WORLD_REDUCE 2 /* behaviour of a span: see above */
#define MT_WORLD_BASE 1000003

typedef struct mt_world mt_world;

typedef struct mt_world_options {
    uint64_t seed;
    uint32_t ranks;
    uint32_t workers;       /* of each rank that runs tasks */
    uint32_t fanout;
    uint32_t ring_bytes;
    uint32_t frame_bytes;
    uint32_t kills_per_million; /* chance that a step kills a worker */
    uint32_t submits_per_million; /* chance that a worker with a task submits sub-tasks in a step, or closes for a while */
} mt_world_options;

/* NULL: out of memory or a bad option. Objects 1 .. `functions` exist as functions. */
MT_EXPORT mt_world *mt_world_new(const mt_alloc *alloc, const mt_world_options *options, uint32_t functions);
/* Tasks outlive it only until their references go. */
MT_EXPORT void mt_world_destroy(mt_world *world);
/* Submits a task; takes a reference of its own. */
MT_EXPORT MT_MUST_CHECK int mt_world_submit(mt_world *world, mt_task *task);
/* After mt_task_try_cancel said yes. */
MT_EXPORT void mt_world_cancelled(mt_world *world, mt_task *task);
/* Ends a promise with an 8-byte value. */
MT_EXPORT MT_MUST_CHECK int mt_world_fulfil(mt_world *world, mt_task *task, uint64_t number);
/* Cancels all that is not assigned. */
MT_EXPORT void mt_world_cancel_all(mt_world *world);
/* Gives up the functions' references. */
MT_EXPORT void mt_world_drop_functions(mt_world *world);
/* Random events until one has an effect. 1: it had; 0: nothing can happen any more; negative: an engine refused or failed its check. */
MT_EXPORT MT_MUST_CHECK int mt_world_step(mt_world *world);
/* Tasks that have not ended; jobs in all tables, records and frames under way, objects in all engines: 0 after everything is done and dropped. */
MT_EXPORT uint64_t mt_world_outstanding(const mt_world *world);
MT_EXPORT uint64_t mt_world_residue(const mt_world *world);
MT_EXPORT void mt_world_stop_killing(mt_world *world);
MT_EXPORT uint64_t mt_world_kills(const mt_world *world);
/* Workers submit no more, and give up what they keep for it. */
MT_EXPORT void mt_world_stop_submitting(mt_world *world);
/* Sub-tasks that have ended well. */
MT_EXPORT uint64_t mt_world_below(const mt_world *world);
/* Jobs that any engine took back from a lane. */
MT_EXPORT uint64_t mt_world_recalled(const mt_world *world);

/* cffi:end */

#endif
