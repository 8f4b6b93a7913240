/* worker.h - the lower end of a link: what a worker or a zygote uses to get records and to answer.
 *
 * Role: takes records from the ring, keeps objects, waits on the bell, sends results.
 * Thread rule: one thread. Only mt_worker_next and the sending calls wait; the engine's death ends the process from outside (parent-death signal).
 * Process rule: a child that was forked shares the rings, too; whatever takes, sends or waits gives MT_E_FORKED there and does nothing.
 */
#ifndef MT_WORKER_H
#define MT_WORKER_H

#include "base.h"

/* cffi:begin */

typedef struct mt_worker mt_worker;

#define MT_WINDOW_BYTES 4096

/* What mt_worker_next has got. For a TASK everything borrowed stays valid until the next mt_worker_next of this worker, whoever reads its ring
 * meanwhile: to decode a call can mean to run user code, and that may submit tasks (uplink.h). */
typedef struct mt_call {
    uint64_t id;
    uint64_t fn;
    const void *args;
    uint64_t args_size;
    uint32_t codec;
    uint32_t n; /* TASK: edges; others: the record's n */
    int32_t priority;
    bool is_plain; /* TASK: all arguments, marshalled, lie in mt_worker_window */
} mt_call;

/* What is kept of a task that waits while others run in its thread. */
typedef struct mt_pause {
    uint64_t id;
    uint64_t begun_ns;
    int32_t within;
    int32_t floor;
} mt_pause;

/* Maps the segment behind descriptor `fd` and takes its link `index`. NULL: errno tells why. */
MT_EXPORT mt_worker *mt_worker_open(int fd, uint32_t index, uint64_t ring_bytes);
/* After a fork by the zygote: the same segment, another link, this process's own. Children that this one forks do not get the segment. The old link must
 * not be used in this process any more. */
MT_EXPORT MT_MUST_CHECK int mt_worker_become(mt_worker *worker, uint32_t index);
MT_EXPORT void mt_worker_close(mt_worker *worker);
/* False in a child that was forked from the process that the worker belongs to. */
MT_EXPORT bool mt_worker_is_ours(const mt_worker *worker);
/* Tells the engine that this end is ready and takes so many tasks at a time: one, or none outside mt_worker_block. */
MT_EXPORT MT_MUST_CHECK int mt_worker_hello(mt_worker *worker, uint32_t slots);
/* The task that runs waits: this end takes one task more at a time; `is_strict`: only such as were submitted within tasks like it, or deeper, so that
 * tasks that wait are piled up no higher than they are nested. */
MT_EXPORT MT_MUST_CHECK int mt_worker_block(mt_worker *worker, bool is_strict, mt_pause *out);
/* From now on any task will do. */
MT_EXPORT MT_MUST_CHECK int mt_worker_loosen(mt_worker *worker);
/* It goes on, and may wait again. Every task that was begun meanwhile has been answered. */
MT_EXPORT void mt_worker_go_on(mt_worker *worker, const mt_pause *pause);
/* It has ended: one task less at a time. What has been sent ahead goes back. */
MT_EXPORT MT_MUST_CHECK int mt_worker_unblock(mt_worker *worker, const mt_pause *pause);
/* The task that runs in this thread came over the link `other`. */
MT_EXPORT void mt_worker_follow(mt_worker *worker, const mt_worker *other);
/* The priority of what the task that runs submits, unless the user wants another one. */
MT_EXPORT int32_t mt_worker_within(const mt_worker *worker);
/* The lowest priority of what a task of this priority submits: the middle of the next band. */
MT_EXPORT int32_t mt_priority_within(int32_t priority);
/* Any thread. The next or present mt_worker_next ends with MT_E_INTR. */
MT_EXPORT void mt_worker_poke(mt_worker *worker);

/* The next record as MT_KIND_*; objects are kept and not reported, except that a dropped one gives MT_KIND_DROP with its id.
 * Waits up to `timeout_ns` (negative: for ever). MT_E_TIMEOUT, MT_E_INTR, MT_E_RECORD, MT_E_NOMEM. A TASK counts as begun. */
MT_EXPORT MT_MUST_CHECK int mt_worker_next(mt_worker *worker, int64_t timeout_ns, mt_call *out);
/* Where the arguments of a call lie that is plain: MT_WINDOW_BYTES, always the same, until the next mt_worker_next. Most calls of short tasks are plain, and nothing else is asked for them. */
MT_EXPORT const uint8_t *mt_worker_window(const mt_worker *worker);
/* Argument `i` of the task that mt_worker_next gave, a value of another task. MT_E_INVAL, MT_E_STALE. `out->args`, `args_size`, `codec`
 * are set; `out->id` is the object whose bytes they are and which other tasks may use too, or 0. With MT_CODEC_MAPPED the bytes are an mt_where, good for
 * mt_mapping_open while the task runs. */
MT_EXPORT MT_MUST_CHECK int mt_worker_edge(mt_worker *worker, uint32_t i, mt_call *out);
/* An object's bytes, valid until MT_KIND_DROP for it was returned. MT_E_STALE. */
MT_EXPORT MT_MUST_CHECK int mt_worker_object(mt_worker *worker, uint64_t id, mt_call *out);
/* Makes an object's bytes stay beyond MT_KIND_DROP, until mt_blob_unref (any thread). NULL: no such object. */
MT_EXPORT mt_blob *mt_worker_hold(mt_worker *worker, uint64_t id);

/* Answers the task that mt_worker_next gave last. Waits while the ring is full. The duration sent is the time since then. */
MT_EXPORT MT_MUST_CHECK int mt_worker_answer(mt_worker *worker, uint32_t outcome, uint32_t codec, const uint8_t *data,
                                             uint64_t size);
MT_EXPORT MT_MUST_CHECK int mt_worker_answer_parts(mt_worker *worker, uint32_t outcome, uint32_t codec,
                                                   const mt_part *parts, uint32_t n_parts);
/* Zygote: worker `n`, process `pid`, ended with `wait_status`; `what`: MT_LOST_WORKER, _MEMORY or _UNMADE. */
MT_EXPORT MT_MUST_CHECK int mt_worker_exited(mt_worker *worker, uint32_t n, int32_t pid, int32_t wait_status, uint32_t what);

/* This process gets `signal_number` when the thread that forked it ends; MT_E_CLOSED when `parent` has ended already. */
MT_EXPORT MT_MUST_CHECK int mt_die_with_parent(int parent, int signal_number);

/* cffi:end */

/* What an engine that tasks submit to knows of the task that runs. */
typedef struct mt_scope {
    _Atomic int32_t priority;  /* of what it submits */
    _Atomic uint32_t is_fresh; /* it has submitted nothing */
} mt_scope;

/* The memory that it shares with its rank. */
void *mti_worker_base(const mt_worker *worker);
/* Where the worker notes that. */
void mti_worker_set_scope(mt_worker *worker, mt_scope *scope);
struct mt_bell;
/* A worker on a link in this process's memory (an inline worker); `engine_bell` is rung for what it sends. */
mt_worker *mti_worker_new(void *base, uint32_t index, uint64_t ring_bytes, struct mt_bell *engine_bell);

#endif
