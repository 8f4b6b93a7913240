/* ready.h - the jobs that are ready, in the order in which they are to go.
 *
 * Role: the higher priority first, the older one first within it: a deque for each priority. Where a job may go is the scheduler's matter.
 * Jobs that come back go where they were. They come back by the hundred, so they are sorted in all at once, when somebody looks (mti_ready_settle).
 * Invariants: `count` is the sum over the levels, whose priorities fall; `units` is that of all jobs; ages do not fall within a level.
 * Thread rule: one owner thread.
 */
#ifndef MT_READY_H
#define MT_READY_H

#include "base.h"

typedef struct mt_ready_job {
    uint64_t key;
    uint64_t items;
    int64_t age; /* the lower goes first */
    uint32_t class_index;
    uint32_t bytes; /* capped: only compared with limits */
    uint32_t origin;
    uint32_t chunk : 31;
    uint32_t stays : 1;
} mt_ready_job;

/* How many slots the job could fill at a time; at least. */
static inline uint64_t mti_ready_units(const mt_ready_job *job) {
    return job->items == 0 ? 1 : job->items / (job->chunk == 0 ? 1 : job->chunk) + (job->chunk > 1 && job->items % job->chunk != 0);
}

/* One that waits to be sorted in. */
typedef struct mt_late_job {
    mt_ready_job job;
    uint64_t order; /* in which they came */
} mt_late_job;

/* Jobs of one priority. */
typedef struct mt_ready_level {
    int32_t priority;
    mt_ready_job *jobs;
    uint64_t capacity; /* a power of two, or 0 */
    uint64_t first;
    uint64_t count;
    mt_late_job *late; /* not among the others yet; there is room for them */
    uint64_t n_late, late_capacity;
} mt_ready_level;

typedef struct mt_ready_jobs {
    const mt_alloc *alloc;
    mt_ready_level *levels; /* empty ones stay, there are few */
    uint64_t n_levels, level_capacity;
    uint64_t count;
    uint64_t units; /* wraps when there are more than 2^64 */
    uint64_t n_late; /* of all levels, and counted in `count` and `units` */
} mt_ready_jobs;

void mti_ready_init(mt_ready_jobs *ready, const mt_alloc *alloc);
void mti_ready_clean_up(mt_ready_jobs *ready);
/* It goes before those of its priority that are as old. MT_E_NOMEM. */
MT_MUST_CHECK int mti_ready_push(mt_ready_jobs *ready, int32_t priority, const mt_ready_job *job);
void mti_ready_sort_in(mt_ready_jobs *ready);
/* Takes one out of the middle of a level; those that remain keep their order. */
void mti_ready_close_gap(mt_ready_level *level, uint64_t at);
void mti_ready_forget(mt_ready_jobs *ready);
MT_MUST_CHECK int mti_ready_check(const mt_ready_jobs *ready);

/* To be called before anybody looks at the levels. */
static inline void mti_ready_settle(mt_ready_jobs *ready) {
    if (ready->n_late > 0) mti_ready_sort_in(ready);
}

/* The level of the job that is next; there must be one. */
static inline mt_ready_level *mti_ready_next(const mt_ready_jobs *ready) {
    mt_ready_level *level = ready->levels;
    while (level->count == 0) level++;
    return level;
}

/* A level's jobs are numbered from 0, the next one. */
static inline mt_ready_job *mti_ready_at(const mt_ready_level *level, uint64_t at) {
    return &level->jobs[(level->first + at) & (level->capacity - 1)];
}

/* Takes a job out. */
static inline void mti_ready_take(mt_ready_jobs *ready, mt_ready_level *level, uint64_t at) {
    ready->units -= mti_ready_units(mti_ready_at(level, at));
    if (at == 0) {
        level->first = (level->first + 1) & (level->capacity - 1);
    } else {
        mti_ready_close_gap(level, at);
    }
    level->count--;
    ready->count--;
}

#endif
