/* local.h - the workers of a rank: their shared memory, their zygote, their deaths.
 *
 * Role: owns the segment, starts the zygote, turns its reports into lane events, replaces dead workers. Inline workers (threads of this process) get links
 * in the same segment and no process.
 * Life of a process worker: SPAWN sent -> HELLO (lane up) -> EXITED (lane lost, link formatted anew) -> SPAWN ... A worker that
 * ends MAX_FAILED_STARTS times in a row before its HELLO is given up; one that could not be forked is tried again after a pause that doubles. A zygote that
 * ends unasked is replaced, after such a pause if it did not live for long; after MAX_FAILED_STARTS in a row without a worker that came up there is none.
 * Thread rule: engine thread, but for mti_local_new, before that thread starts.
 */
#ifndef MT_LOCAL_H
#define MT_LOCAL_H

#include "engine.h"
#include "segment.h"

typedef struct mt_local mt_local;

typedef struct mt_local_options {
    uint32_t workers;        /* processes */
    uint32_t inline_workers; /* links for threads of this process */
    uint64_t ring_bytes;
    char *const *zygote_argv; /* NULL-terminated, used until destroy; its descriptor 3 will be the segment */
    char *const *zygote_envp; /* its environment, of the time when the engine was made; the same */
    mt_bell *bell; /* the engine's, if it is not the segment's own */
} mt_local_options;

/* NULL: out of memory or errno. */
mt_local *mti_local_new(const mt_alloc *alloc, const mt_local_options *options);
/* Kills what is left. */
void mti_local_destroy(mt_local *local);
mt_bell *mti_local_bell(mt_local *local);
int mti_local_fd(const mt_local *local);
void *mti_local_base(const mt_local *local);
/* Has inline workers look: what one of them waits for may have happened. */
void mti_local_ring_inline(mt_local *local);
/* Index in the segment of the first inline worker's link. */
uint32_t mti_local_inline_index(const mt_local *local);

/* Adds the lanes and starts the zygote. */
MT_MUST_CHECK int mti_local_start(mt_local *local, mt_engine *engine, uint64_t now_ns);
/* Takes in what workers and zygote have sent; `*out_n` grows by the records taken. */
MT_MUST_CHECK int mti_local_step(mt_local *local, uint64_t now_ns, uint64_t *out_n);
/* Sends what waits and lets the workers see it; `*out_n` grows by the bytes moved. */
MT_MUST_CHECK int mti_local_flush(mt_local *local, uint64_t *out_n);
/* Whether some of what was sent waits for room. */
bool mti_local_has_backlog(const mt_local *local);
/* How many have been started. */
uint32_t mti_local_zygotes(const mt_local *local);
/* Lets workers and zygote end. MT_STOP_NOW kills workers at once. */
MT_MUST_CHECK int mti_local_stop(mt_local *local, uint32_t mode);
/* Every process has ended (inline workers: have been told). */
bool mti_local_has_ended(const mt_local *local);
/* Workers that have not been given up. */
uint32_t mti_local_alive(const mt_local *local);

#endif
