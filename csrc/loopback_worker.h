/* loopback_worker.h - for tests: the worker of a simulated job.
 *
 * Role: the lower end of a real link in shared memory. What it computes is said in loopback.h; it submits sub-tasks, closes for a while and dies.
 * Whatever it draws comes from the job's generator.
 * Thread rule: one thread.
 */
#ifndef MT_LOOPBACK_WORKER_H
#define MT_LOOPBACK_WORKER_H

#include "draw.h"
#include "engine.h"
#include "loopback_below.h"
#include "segment.h"

/* What the workers of a job have in common. */
typedef struct mt_loop_job {
    const mt_alloc *alloc;
    uint64_t random;
    uint64_t now_ns;
    uint32_t ring_bytes;
    uint32_t submits_per_million;
    uint64_t kills;
    uint64_t below_done; /* of workers that are gone */
    uint64_t next_below;
    uint64_t submissions;
    bool is_finishing;
} mt_loop_job;

typedef struct mt_loop_worker {
    mt_engine *engine; /* its rank's */
    mt_ring_link out;  /* the engine's side */
    mt_ring *engine_up;
    mt_ring *down, *up; /* the worker's side */
    mt_segment_link memory;
    uint32_t lane;
    uint64_t started;
    bool has_task;
    bool is_closed; /* it has said so */
    mt_below *below; /* NULL: it has submitted nothing */
    uint64_t task_id, number, size, behaviour;
    mt_span span; /* count 0: the task is none */
    uint64_t items, hash; /* items > 0: what a combination gives */
} mt_loop_worker;

/* Below `below`. */
static inline uint64_t mti_loop_draw(mt_loop_job *job, uint64_t below) { return mti_draw(&job->random, below); }

/* Begins, or begins anew, with `memory`; it says HELLO. What it was goes. */
MT_MUST_CHECK int mti_loop_worker_open(mt_loop_job *job, mt_loop_worker *worker);
/* After its engine. */
void mti_loop_worker_clean_up(mt_loop_worker *worker);
/* The engine takes one record from it. */
MT_MUST_CHECK int mti_loop_worker_read(mt_loop_worker *worker, uint64_t *moved);
/* Takes a record, or gives the answer to the task that it has. */
MT_MUST_CHECK int mti_loop_worker_work(mt_loop_job *job, mt_loop_worker *worker, uint64_t *moved);
/* What its task may do beside running: submit, close, open. */
MT_MUST_CHECK int mti_loop_worker_submit(mt_loop_job *job, mt_loop_worker *worker, uint64_t *moved);
/* It dies, its engine hears of it, and another one begins. */
MT_MUST_CHECK int mti_loop_worker_kill(mt_loop_job *job, mt_loop_worker *worker);
/* Tasks and bytes that it still has, and its sub-tasks that have ended well. */
uint64_t mti_loop_worker_residue(const mt_loop_worker *worker);
uint64_t mti_loop_worker_below(const mt_loop_worker *worker);

#endif
