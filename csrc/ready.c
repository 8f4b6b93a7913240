#include "ready.h"

#include <stdlib.h>
#include <string.h>

void mti_ready_init(mt_ready_jobs *ready, const mt_alloc *alloc) { *ready = (mt_ready_jobs){.alloc = alloc}; }

void mti_ready_clean_up(mt_ready_jobs *ready) {
    for (uint64_t i = 0; i < ready->n_levels; i++) {
        mt_put(ready->alloc, ready->levels[i].jobs);
        mt_put(ready->alloc, ready->levels[i].late);
    }
    mt_put(ready->alloc, ready->levels);
}

/* Where the level of this priority is, or would have to be. */
static uint64_t level_at(const mt_ready_jobs *ready, int32_t priority) {
    uint64_t low = 0, high = ready->n_levels;
    while (low < high) {
        uint64_t middle = (low + high) / 2;
        if (ready->levels[middle].priority > priority) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static int find_or_make_level(mt_ready_jobs *ready, int32_t priority, mt_ready_level **out) {
    uint64_t at = level_at(ready, priority);
    if (at < ready->n_levels && ready->levels[at].priority == priority) {
        *out = &ready->levels[at];
        return MT_OK;
    }
    /* An empty level is reused for the new priority: their number stays that of priorities in use at a time. */
    for (uint64_t i = 0; i < ready->n_levels; i++) {
        if (ready->levels[i].count + ready->levels[i].n_late > 0) continue;
        mt_ready_level reused = ready->levels[i];
        memmove(&ready->levels[i], &ready->levels[i + 1], (ready->n_levels - i - 1) * sizeof(mt_ready_level));
        ready->n_levels--;
        at = level_at(ready, priority);
        memmove(&ready->levels[at + 1], &ready->levels[at], (ready->n_levels - at) * sizeof(mt_ready_level));
        ready->n_levels++;
        reused.priority = priority;
        ready->levels[at] = reused;
        *out = &ready->levels[at];
        return MT_OK;
    }
    int status = mti_grow(ready->alloc, (void **)&ready->levels, ready->n_levels, &ready->level_capacity,
                          ready->n_levels + 1, sizeof(mt_ready_level));
    if (status != MT_OK) return status;
    memmove(&ready->levels[at + 1], &ready->levels[at], (ready->n_levels - at) * sizeof(mt_ready_level));
    ready->n_levels++;
    ready->levels[at] = (mt_ready_level){.priority = priority};
    *out = &ready->levels[at];
    return MT_OK;
}

static int level_grow(mt_ready_jobs *ready, mt_ready_level *l) {
    if (l->count + l->n_late < l->capacity) return MT_OK;
    uint64_t capacity = l->capacity == 0 ? 64 : l->capacity * 2;
    mt_ready_job *jobs = mti_get_zeroed(ready->alloc, capacity, sizeof *jobs);
    if (jobs == NULL) return MT_E_NOMEM;
    for (uint64_t i = 0; i < l->count; i++) jobs[i] = l->jobs[(l->first + i) & (l->capacity - 1)];
    mt_put(ready->alloc, l->jobs);
    l->jobs = jobs;
    l->capacity = capacity;
    l->first = 0;
    return MT_OK;
}

int mti_ready_push(mt_ready_jobs *ready, int32_t priority, const mt_ready_job *job) {
    mt_ready_level *l;
    int status = find_or_make_level(ready, priority, &l);
    if (status == MT_OK) status = level_grow(ready, l);
    if (status != MT_OK) return status;
    uint64_t mask = l->capacity - 1;
    if (l->count == 0 || mti_ready_at(l, l->count - 1)->age < job->age) {
        l->jobs[(l->first + l->count++) & mask] = *job;
    } else if (l->n_late == 0 && job->age <= mti_ready_at(l, 0)->age) {
        l->first = (l->first - 1) & mask;
        l->jobs[l->first] = *job;
        l->count++;
    } else {
        status = mti_grow(ready->alloc, (void **)&l->late, l->n_late, &l->late_capacity, l->n_late + 1, sizeof *l->late);
        if (status != MT_OK) return status;
        l->late[l->n_late] = (mt_late_job){*job, l->n_late};
        l->n_late++;
        ready->n_late++;
    }
    ready->count++;
    ready->units += mti_ready_units(job);
    return MT_OK;
}

/* Of equal ages the one that came last is first. */
static int by_age(const void *a, const void *b) {
    const mt_late_job *one = a, *other = b;
    if (one->job.age != other->job.age) return one->job.age < other->job.age ? -1 : 1;
    return one->order > other->order ? -1 : 1;
}

void mti_ready_sort_in(mt_ready_jobs *ready) {
    for (mt_ready_level *l = ready->levels; l < ready->levels + ready->n_levels; l++) {
        uint64_t n = l->n_late;
        if (n == 0) continue;
        qsort(l->late, n, sizeof *l->late, by_age);
        l->first = (l->first - n) & (l->capacity - 1);
        l->count += n;
        l->n_late = 0;
        for (uint64_t to = 0, from = n, i = 0; i < n; to++) { /* the gap, which `from` is the end of, gets smaller with each of them */
            bool is_late = from == l->count || l->late[i].job.age <= mti_ready_at(l, from)->age;
            *mti_ready_at(l, to) = is_late ? l->late[i++].job : *mti_ready_at(l, from++);
        }
    }
    ready->n_late = 0;
}

void mti_ready_close_gap(mt_ready_level *l, uint64_t at) {
    if (at < l->count - at) {
        for (; at > 0; at--) *mti_ready_at(l, at) = *mti_ready_at(l, at - 1);
        l->first = (l->first + 1) & (l->capacity - 1);
    } else {
        for (; at + 1 < l->count; at++) *mti_ready_at(l, at) = *mti_ready_at(l, at + 1);
    }
}

void mti_ready_forget(mt_ready_jobs *ready) {
    for (uint64_t i = 0; i < ready->n_levels; i++) ready->levels[i].count = ready->levels[i].n_late = 0;
    ready->count = ready->units = ready->n_late = 0;
}

int mti_ready_check(const mt_ready_jobs *ready) {
    uint64_t count = 0, units = 0, n_late = 0;
    for (uint64_t i = 0; i < ready->n_levels; i++) {
        const mt_ready_level *l = &ready->levels[i];
        count += l->count + l->n_late;
        n_late += l->n_late;
        for (uint64_t k = 0; k < l->count; k++) {
            units += mti_ready_units(mti_ready_at(l, k));
            if (k > 0 && mti_ready_at(l, k - 1)->age > mti_ready_at(l, k)->age) return MT_E_RECORD;
        }
        for (uint64_t k = 0; k < l->n_late; k++) units += mti_ready_units(&l->late[k].job);
        if (l->count + l->n_late > l->capacity) return MT_E_RECORD;
        if (i > 0 && ready->levels[i - 1].priority <= l->priority) return MT_E_RECORD;
    }
    return count == ready->count && units == ready->units && n_late == ready->n_late ? MT_OK : MT_E_RECORD;
}
