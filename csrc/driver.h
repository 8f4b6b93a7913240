/* driver.h - the engine of a rank and the one thread that steps it.
 *
 * Role: loops only move things: inbox -> engine, rings and frames -> engine, engine -> rings and frames; it owns waiting and waking. All decisions are the engine's.
 * Handles: a task is known outside by a uint64_t handle. mt_driver_submit and mt_driver_promise give one with a reference; mt_driver_release gives it up. A
 * handle stays good, and must be released, after the engine has ended; the driver is destroyed last.
 * Waiting calls return MT_E_INTR after a signal, and every second, so that the caller's interpreter can look at signals: call again.
 * Thread rule: calls marked "any thread" may run beside each other and beside the engine thread; none needs an interpreter lock.
 */
#ifndef MT_DRIVER_H
#define MT_DRIVER_H

#include "engine.h"
#include "transport.h"
#include "worker.h"

/* cffi:begin */

typedef struct mt_driver mt_driver;

typedef struct mt_driver_options {
    uint32_t workers;         /* worker processes of this rank */
    uint32_t inline_workers;  /* links to be served by threads of this process, see mt_driver_inline_worker */
    uint32_t virtual_slots;   /* slots whose tasks only wait, see bank.h; for measuring */
    uint64_t ring_bytes;      /* of each ring of a worker; a power of two */
    uint64_t inbox_capacity;  /* messages; a power of two */
    uint32_t spin;            /* 1: never sleep (dedicated cores) */
    uint32_t losses;          /* how often each task may be lost and tried again, if it was submitted here */
    int32_t parent;           /* rank, -1: this is the root, or a worker's engine */
    mt_worker *above;         /* the worker whose tasks submit here: its link is the way up; NULL: this is a rank's engine */
    uint64_t first_id;        /* of the objects made at this rank, as in ids.h; of a worker's engine: some number of its rank */
    uint64_t stop_limit_ns;   /* from the order to stop until the engine ends whatever happens */
    const char *host;         /* name for messages; copied */
    char *const *zygote_argv; /* NULL-terminated; must stay until destroy. Needed when workers > 0 */
    char *const *zygote_envp; /* the same */
} mt_driver_options;

typedef struct mt_driver_stats {
    uint64_t submitted; /* tasks and promises handed in */
    uint64_t ended;     /* of them in a final state */
    uint64_t ready;     /* could run, and wait here for a worker */
    uint64_t slots;     /* workers that are up; a worker's engine: so many as it knows of */
    uint64_t steps;
    uint64_t sleeps;
    uint64_t guards; /* of them those that ended by themselves though there was work: a wake-up was missing */
    uint64_t frames_in;
    uint64_t frames_out;
    uint64_t recalled; /* tasks that came back unrun from a worker or rank that was behind */
    uint64_t objects;    /* functions, shared values and large ones that this rank holds now */
    uint64_t objects_sent; /* how often one was sent to a worker or rank */
    uint64_t objects_mapped; /* of which the worker maps it */
    uint64_t neighbours; /* ranks above and below */
    uint64_t bells;      /* of them those on this node whose bells are rung; the others poll */
    uint64_t cpu_ns; /* of the engine thread; stays when it has ended */
    uint64_t failed;  /* of those that ended: they ran and failed, or were lost */
} mt_driver_stats;

/* An engine that does not run yet. NULL: out of memory, a bad option, or errno. */
MT_EXPORT mt_driver *mt_driver_new(const mt_driver_options *options);
/* Ends the engine first if it still runs. Should it not end within the stop limit (a call of MPI that does not return), all stays as it is. No handle may
 * be used any more. */
MT_EXPORT void mt_driver_destroy(mt_driver *driver);
/* Descriptor of the memory that begins with this engine's bell: neighbours on the node map it as /proc/PID/fd/N. */
MT_EXPORT int mt_driver_bell_fd(const mt_driver *driver);
/* Before start: frames go over `transport`, which the driver takes over even on failure; `children` are ranks. */
MT_EXPORT MT_MUST_CHECK int mt_driver_connect(mt_driver *driver, mt_transport *transport, const uint32_t *children,
                                              uint32_t n_children);
/* Before start, after connect: rank `peer` (parent or child) is on this node and its bell lies in the file `path`. MT_E_SYS: it cannot be
 * opened (not fatal: the peer is then treated as being on another node). */
MT_EXPORT MT_MUST_CHECK int mt_driver_share_bell(mt_driver *driver, uint32_t peer, const char *path);
/* The limit of the options, or another one, set before start. */
MT_EXPORT uint64_t mt_driver_stop_limit(const mt_driver *driver);
MT_EXPORT void mt_driver_set_stop_limit(mt_driver *driver, uint64_t limit_ns);
/* Another number of `losses` for the tasks that are submitted from now on. Any thread. */
MT_EXPORT void mt_driver_set_losses(mt_driver *driver, uint32_t losses);
/* The lower end of inline worker `i`'s link, for one thread of this process; close it before the driver is destroyed. NULL: no memory. */
MT_EXPORT mt_worker *mt_driver_inline_worker(mt_driver *driver, uint32_t i);
/* Starts the engine thread; workers come up by themselves. MT_E_SYS, MT_E_NOMEM. */
MT_EXPORT MT_MUST_CHECK int mt_driver_start(mt_driver *driver);

/* Any thread. Asks the engine to end: MT_STOP_DRAIN after what it has, MT_STOP_NOW at once (tasks not finished become CANCELLED). Does not wait. */
MT_EXPORT void mt_driver_stop(mt_driver *driver, uint32_t mode);
/* Any thread. Waits until the engine thread has ended. MT_OK, MT_E_TIMEOUT, MT_E_INTR. */
MT_EXPORT MT_MUST_CHECK int mt_driver_join(mt_driver *driver, int64_t timeout_ns);
/* Any thread. Why the engine ended by itself: MT_OK if it did not. `mt_driver_is_clean` false: some process below may still be there. */
MT_EXPORT int mt_driver_failure(const mt_driver *driver);
/* Any thread, after mt_driver_failure has given MT_E_SYS: errno of the call, which was to start the process that forks this rank's workers. */
MT_EXPORT int mt_driver_failure_errno(const mt_driver *driver);
MT_EXPORT bool mt_driver_is_clean(const mt_driver *driver);
/* Any thread. False in a child that was forked from the process that has the engine: there it is as if the engine had ended. */
MT_EXPORT bool mt_driver_is_ours(const mt_driver *driver);

/* Any thread; waits without the interpreter lock while the inbox is full. `data` is copied. MT_E_CLOSED, MT_E_NOMEM. */
MT_EXPORT MT_MUST_CHECK int mt_driver_add_object(mt_driver *driver, uint64_t id, uint32_t codec, const uint8_t *data,
                                                 uint64_t size);
MT_EXPORT void mt_driver_drop_object(mt_driver *driver, uint64_t id);
/* A number for mt_driver_add_object that was not given before, or a status as mt_driver_submit gives it: MT_E_RANGE, MT_E_CLOSED. */
MT_EXPORT uint64_t mt_driver_new_object_id(mt_driver *driver);

/* Any thread. A handle, or a status as 2^64 + code (any value above 2^63): MT_E_CLOSED, MT_E_NOMEM, MT_E_INTR (full inbox and a signal). All bytes
 * are copied. */
MT_EXPORT uint64_t mt_driver_submit(mt_driver *driver, uint64_t fn, uint32_t codec, const uint8_t *data, uint64_t size);
/* The same with edges (handles), priority and retries. */
MT_EXPORT uint64_t mt_driver_submit_edges(mt_driver *driver, uint64_t fn, uint32_t codec, const uint8_t *data,
                                          uint64_t size, const uint64_t *edges, uint32_t n_edges, int32_t priority,
                                          uint32_t retries);
/* The same with everything: the arguments in parts, edges (handles), priority, retries, and of a span the handle of a promise (see mt_task_spec) or 0. */
MT_EXPORT uint64_t mt_driver_submit_with(mt_driver *driver, uint64_t fn, uint32_t codec, const mt_part *parts,
                                         uint32_t n_parts, const uint64_t *edges, uint32_t n_edges, int32_t priority,
                                         uint32_t retries, uint64_t begun);
/* A task without a function, to be ended by mt_driver_fulfil. */
MT_EXPORT uint64_t mt_driver_promise(mt_driver *driver);
MT_EXPORT MT_MUST_CHECK int mt_driver_fulfil(mt_driver *driver, uint64_t handle, uint32_t outcome, uint32_t codec,
                                             const uint8_t *data, uint64_t size);
/* A promise that is fulfilled: its value travels as an object, whatever its size, and workers decode it once (MT_CODEC_SHARED is added to `codec`). Large
 * bytes are put where this node's processes can map them. MT_E_CLOSED, MT_E_NOMEM. */
MT_EXPORT uint64_t mt_driver_share(mt_driver *driver, uint32_t codec, const mt_part *parts, uint32_t n_parts);
/* Any thread. */
MT_EXPORT void mt_driver_release(mt_driver *driver, uint64_t handle);
/* As mt_driver_release; the engine is woken, so that a shared value is dropped at once if this was the last reference. */
MT_EXPORT void mt_driver_release_shared(mt_driver *driver, uint64_t handle);
MT_EXPORT uint32_t mt_driver_state(uint64_t handle);
MT_EXPORT uint64_t mt_driver_number(uint64_t handle);
/* Object id of its function; 0: a promise. */
MT_EXPORT uint64_t mt_driver_function(uint64_t handle);
/* The value of a task in a final state; NULL before, and when it was cancelled. Valid until release. */
MT_EXPORT const mt_value *mt_driver_value(uint64_t handle);
/* Of a task that was not run because one that it needs failed; NULL in all other states. Valid until release. */
MT_EXPORT const mt_blame *mt_driver_blame(uint64_t handle);
/* Waits for a final state: its value (MT_DONE ...), or MT_E_TIMEOUT, MT_E_INTR, MT_E_CLOSED. `timeout_ns` negative: for ever. */
MT_EXPORT int mt_driver_wait(mt_driver *driver, uint64_t handle, int64_t timeout_ns);
/* As mt_driver_wait by the thread of an inline worker of this driver, between mt_worker_block and mt_worker_unblock: ends with MT_OK when the task is
 * final, and otherwise as mt_worker_next. `handle` 0: no task, but whatever mt_worker_poke is called for. */
MT_EXPORT MT_MUST_CHECK int mt_driver_help(mt_driver *driver, uint64_t handle, mt_worker *worker, int64_t timeout_ns, mt_call *out);
/* A worker's engine, any thread; waits until tasks have been submitted and none has ended for `patience_ns`, while no thread helps or runs a task that
 * has submitted nothing, and thread `tid` sleeps; or, even if it does not sleep, for 20 times as long. MT_OK, MT_E_INTR (look at signals, call again), MT_E_CLOSED. */
MT_EXPORT MT_MUST_CHECK int mt_driver_wait_stalled(mt_driver *driver, int32_t tid, uint64_t patience_ns);
/* Whether a thread is in mt_driver_help. */
MT_EXPORT bool mt_driver_is_helped(const mt_driver *driver);
/* True: the task is CANCELLED. False: it was already assigned or final. */
MT_EXPORT bool mt_driver_cancel(mt_driver *driver, uint64_t handle);
/* Any thread. Cancels every task that has been submitted and is not assigned when the engine comes to it. */
MT_EXPORT void mt_driver_cancel_all(mt_driver *driver);
/* True: mt_driver_next_notified will give this handle. False: it is final already. */
MT_EXPORT bool mt_driver_notify(mt_driver *driver, uint64_t handle);
/* Up to `n` handles that have become final; waits for the first. How many, or MT_E_TIMEOUT, MT_E_INTR, MT_E_CLOSED (ended and empty). */
MT_EXPORT int mt_driver_next_notified(mt_driver *driver, uint64_t *out, uint32_t n, int64_t timeout_ns);
/* Waits until every task submitted so far and meanwhile is final. MT_OK, MT_E_TIMEOUT, MT_E_INTR, MT_E_CLOSED. */
MT_EXPORT MT_MUST_CHECK int mt_driver_wait_all(mt_driver *driver, int64_t timeout_ns);

MT_EXPORT mt_driver_stats mt_driver_stats_now(mt_driver *driver);
/* Any thread. Task `i` of the first 256 that have failed, with a reference for the caller; 0: there is none, or this is a worker's engine. */
MT_EXPORT uint64_t mt_driver_failed_task(mt_driver *driver, uint32_t i);

/* cffi:end */

#endif
