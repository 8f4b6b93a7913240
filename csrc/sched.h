/* sched.h - which job goes to which lane, and when.
 *
 * Role: ready jobs by priority, lanes with slots and credit. It knows neither graph nor MPI: a job is a key, a class (jobs of
 * one class are expected to take equally long) and a size. A job of several items can be cut: a lane gets as many as fit it, and the caller pushes the rest.
 * Policy: the ready job of highest priority, oldest first, goes to the lane with the least booked work for each slot. A lane takes
 * jobs ahead of free slots only while the work booked on it stays below its horizon: so short jobs are sent ahead by the
 * hundred and long ones, or ones of unknown duration, not at all; but behind a lane that cuts there may be many slots, and an eighth more long ones than
 * these (rounded down) lie ahead there while as many more of that priority than there are slots in all are ready, unless the lane's work is for twice as long as they take. A lane that is overdue gets
 * nothing ahead. Durations are learnt for each class (exponential average, weight 1/8).
 * Jobs have an origin, the lane that they came from (or none). One lane may be the way up: it gets what no other lane has credit for, never a job that
 * came from there, and of the rest one of the lowest band of priorities: jobs of a band were submitted at the same depth of tasks within tasks, and
 * the ones at the top have most below them.
 * Jobs of items: the class's durations are those of an item. A slot gets 30 ms of them at a time (and at most half as many items as have ended lately), a lane
 * that cuts further itself half as many times that as it has slots: its units. It gets more while it has fewer units than twice its slots. Where an item alone takes more than
 * 30 ms, it is a sixteenth of its slots at a time, and an eighth more than its slots, while the ready jobs have another unit for every slot; else none. A lane that says
 * that slots have nothing to do gets as many units more. The last job that is ready is cut smaller and smaller, so that all lanes end together.
 * Invariants: a lane's booked jobs, units, nanoseconds and bytes are the sums over what was assigned and not given back.
 * Thread rule: one owner thread.
 */
#ifndef MT_SCHED_H
#define MT_SCHED_H

#include "base.h"

/* cffi:begin */

typedef struct mt_sched mt_sched;

#define MT_BAND 1048576 /* width of a band of priorities; the middle of the first is 0 */
#define MT_NO_LANE 4294967295u
#define MT_MAX_AGE 4611686018427387904 /* larger ones, which nobody gives, are not counted on from */

/* A lane's limits. */
typedef struct mt_lane_limits {
    uint32_t slots;      /* jobs it can run at a time; 0: none now */
    uint32_t max_ahead;  /* jobs booked for each slot, at most */
    uint64_t horizon_ns; /* work booked ahead for each slot, at most */
    uint64_t max_bytes;  /* booked at a time; a single larger job goes alone */
    bool cuts;           /* behind it jobs of several items are cut for its slots */
} mt_lane_limits;

/* A job that is ready. */
typedef struct mt_ready {
    uint64_t key;
    uint64_t items; /* that it can be cut into; 0: it is one thing */
    uint64_t bytes;
    int64_t age; /* which is its turn among those of its priority: the lower goes first, of equal ones the one that came last; 0: it is new, and gets one more than the highest so far */
    uint32_t class_index;
    int32_t priority;
    uint32_t origin; /* a lane, or MT_NO_LANE as above */
    uint32_t chunk;  /* items that a slot gets at a time; 0: by their duration */
    bool stays;      /* mt_sched_take passes it over */
} mt_ready;

typedef struct mt_assignment {
    uint64_t key;
    uint64_t cost_ns; /* booked: give it back with mt_sched_done */
    uint64_t items;   /* how many of the job's; the caller pushes the rest as a job */
    uint32_t units;   /* slots that it takes */
    uint32_t bytes;
    uint32_t lane;
    uint32_t class_index;
} mt_assignment;

MT_EXPORT mt_sched *mt_sched_new(const mt_alloc *alloc);
MT_EXPORT void mt_sched_destroy(mt_sched *sched);
/* Lanes are numbered from 0 in the order in which they are added. Starts with `limits`. MT_E_NOMEM. */
MT_EXPORT MT_MUST_CHECK int mt_sched_add_lane(mt_sched *sched, const mt_lane_limits *limits, uint32_t *out_lane);
/* This lane is the way up: mt_sched_next does not use it, and its slots count with no others. */
MT_EXPORT void mt_sched_set_up(mt_sched *sched, uint32_t lane);
/* The lane gets no job of a priority below this. */
MT_EXPORT void mt_sched_set_floor(mt_sched *sched, uint32_t lane, int32_t floor);
MT_EXPORT void mt_sched_set_slots(mt_sched *sched, uint32_t lane, uint32_t slots);
/* The lane's jobs are gone: nothing is booked on it any more. */
MT_EXPORT void mt_sched_clear_lane(mt_sched *sched, uint32_t lane);
/* A class of jobs, of unknown duration; mt_sched_drop_class lets its number be used again. MT_E_NOMEM. */
MT_EXPORT MT_MUST_CHECK int mt_sched_add_class(mt_sched *sched, uint32_t *out_class);
MT_EXPORT void mt_sched_drop_class(mt_sched *sched, uint32_t class_index);
/* Expected duration in nanoseconds; 0: unknown. */
MT_EXPORT uint64_t mt_sched_expect(const mt_sched *sched, uint32_t class_index);
/* Tells what is known from elsewhere; no effect once the class has measurements of its own. */
MT_EXPORT void mt_sched_hint(mt_sched *sched, uint32_t class_index, uint64_t duration_ns);
/* A job is ready. Sets its age if it is new; who has waited already comes back with what it got. MT_E_NOMEM. */
MT_EXPORT MT_MUST_CHECK int mt_sched_push(mt_sched *sched, mt_ready *job);
/* The next job for the way up, booked. MT_E_AGAIN: none may go there, or it has no credit. */
MT_EXPORT MT_MUST_CHECK int mt_sched_next_up(mt_sched *sched, uint32_t up, mt_assignment *out);
/* The next job and its lane, booked. MT_E_AGAIN: nothing ready or no lane has credit. O(log lanes). */
MT_EXPORT MT_MUST_CHECK int mt_sched_next(mt_sched *sched, mt_assignment *out);
/* An assigned job has ended, or was not sent after all (`duration_ns` 0: nothing is learnt). */
MT_EXPORT void mt_sched_done(mt_sched *sched, const mt_assignment *what, uint64_t duration_ns);
/* The lane has not answered for longer than was expected: nothing is sent ahead to it, until mt_sched_done for one of its jobs. */
MT_EXPORT void mt_sched_set_overdue(mt_sched *sched, uint32_t lane);
/* So many of the lane's slots have nothing to do, though its booked units would fill them: parts are booked until their last item has ended. It may have
 * as many units more. */
MT_EXPORT void mt_sched_set_hungry(mt_sched *sched, uint32_t lane, uint32_t slots);
/* An assigned job comes back unrun. As mt_sched_done, but the lane stays overdue. */
MT_EXPORT void mt_sched_return(mt_sched *sched, const mt_assignment *what);
/* Units and nanoseconds of an assigned job of items come back unrun; the job stays, with what is left of them. */
MT_EXPORT void mt_sched_return_some(mt_sched *sched, const mt_assignment *what);
/* Items of a class that are a unit, of jobs with this `chunk`. */
MT_EXPORT uint64_t mt_sched_unit_items(const mt_sched *sched, uint32_t class_index, uint32_t chunk);
/* Priority of the job that is next, and how many of that priority are ready; MT_E_AGAIN: none is ready. */
MT_EXPORT MT_MUST_CHECK int mt_sched_first_priority(mt_sched *sched, int32_t *out_priority, uint64_t *out_n);
/* Takes the job that would be next out of the ready ones with this origin that do not stay and have a priority from `floor` on and below `below`; of several bands
 * the lowest. MT_E_AGAIN: there is none. */
MT_EXPORT MT_MUST_CHECK int mt_sched_take(mt_sched *sched, uint32_t origin, int64_t floor, int64_t below, uint64_t *out_key);
/* A ready job stays no more. */
MT_EXPORT void mt_sched_let_go(mt_sched *sched, int32_t priority, uint64_t key);
/* Slots of a lane. */
MT_EXPORT uint32_t mt_sched_lane_slots(const mt_sched *sched, uint32_t lane);
/* As it was set. */
MT_EXPORT int32_t mt_sched_floor(const mt_sched *sched, uint32_t lane);
/* Slots of a lane that have nothing to do, as far as is known here. */
MT_EXPORT uint32_t mt_sched_lane_idle(const mt_sched *sched, uint32_t lane);
/* Those of all lanes but the way up. O(1). */
MT_EXPORT uint64_t mt_sched_idle(const mt_sched *sched);
/* Units booked on a lane beyond its slots: at least so many have not begun. 0 while some of its slots have nothing to do. */
MT_EXPORT uint64_t mt_sched_excess(const mt_sched *sched, uint32_t lane);
/* Nanoseconds of work booked on a lane for each of its slots. */
MT_EXPORT uint64_t mt_sched_load(const mt_sched *sched, uint32_t lane);
/* Nanoseconds of work booked for each slot of the lane that has least; 0 when some lane with slots has none. */
MT_EXPORT uint64_t mt_sched_least_load(const mt_sched *sched);
/* The same of work beyond what its slots can have begun; 0 when some lane with slots has no more jobs than these. */
MT_EXPORT uint64_t mt_sched_least_ahead(const mt_sched *sched);
MT_EXPORT uint64_t mt_sched_ready(const mt_sched *sched);
MT_EXPORT uint64_t mt_sched_booked(const mt_sched *sched, uint32_t lane); /* jobs */
MT_EXPORT uint32_t mt_sched_slots(const mt_sched *sched); /* of all lanes but the way up */
/* Forgets all ready jobs. */
MT_EXPORT void mt_sched_forget_ready(mt_sched *sched);
MT_EXPORT MT_MUST_CHECK int mt_sched_check(const mt_sched *sched);

/* cffi:end */

#endif
