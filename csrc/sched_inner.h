/* sched_inner.h - what the parts of the scheduler share: sched.c (which job goes where), credit.c (how much a lane may have). */
#ifndef MT_SCHED_INNER_H
#define MT_SCHED_INNER_H

#include "classes.h"
#include "ready.h"
#include "sched.h"

typedef struct lane {
    mt_lane_limits limits;
    uint64_t booked; /* jobs */
    uint64_t units;
    uint64_t booked_ns;
    uint64_t booked_bytes;
    uint64_t queued; /* ready jobs that came from here */
    uint32_t idle;   /* what it adds to the sum of idle slots */
    uint32_t hungry; /* slots that have nothing to do though the units booked would fill them */
    int32_t floor;
    bool is_up;
    uint32_t heap_at; /* NOT_IN_HEAP: no slots, or no credit for what was last refused */
    bool overdue;
} lane;

/* What a job asks of a lane. */
typedef struct demand {
    enum { NOTHING_AT_ALL, ONE_THING, ITEMS } what;
    uint64_t mean_ns; /* 0: unknown, which is more than any number */
    uint64_t cost_ns; /* of one thing */
    uint64_t bytes;
    int32_t priority;
    uint32_t ahead; /* units that a lane may have beyond its slots, of one thing by its horizon or so many: so many SHARES of these */
} demand;

struct mt_sched {
    const mt_alloc *alloc;
    mt_ready_jobs ready;
    int64_t last_age;
    lane *lanes;
    uint64_t n_lanes, lane_capacity;
    uint32_t *heap; /* lanes that may have credit, by booked work for each slot */
    uint64_t heap_size, heap_capacity;
    mt_classes classes;
    demand refused; /* lanes with slots that are not in the heap have no credit for it */
    uint32_t slots; /* of all lanes but the way up */
    uint64_t idle;  /* of these, those that have nothing to do */
};

/* What a ready job asks of a lane. */
demand mti_sched_demand(const mt_sched *sched, const mt_ready_level *level, const mt_ready_job *job);
bool mti_sched_has_credit(const lane *l, const demand *d);
/* Whether a lane that has no credit for `b` has none for `a` either. */
bool mti_sched_asks_as_much(const demand *a, const demand *b);
/* How many of a job's items a lane with credit gets, while the job is still among the ready ones: items, units and cost of `out`. */
void mti_sched_fit(const mt_sched *sched, const lane *l, const mt_ready_job *job, const demand *d, mt_assignment *out);
/* Items that keep a slot busy for long enough. */
uint64_t mti_sched_unit_items(const mt_class_row *row, uint32_t chunk);

#endif
