/* How much of what is ready a lane may have. */
#include "sched_inner.h"

/* Booked for a job of unknown duration: enough to spread such jobs evenly. */
#define UNKNOWN_NS 1000000u
/* What a slot gets of a job of many items at a time: what a job costs vanishes in it, and the last one does not hold the others up for long. */
#define CHUNK_NS 30000000u
/* But only after so many times as many items have ended lately: where they differ, the first ones to end are the short ones. */
#define KNOWN_FOR_ONE 2u
/* Towards the end it gets less, but not less than this. */
#define LEAST_CHUNK_NS 4000000u
/* Of a lane's slots; in a row of many lanes differences below that do not count. */
#define SHARES 1024u
/* The longer items, or jobs that are one thing, take, the fewer of them have to lie ahead of the workers, for messages and looks take no longer. */
#define LONG_AHEAD (SHARES / 8)
/* Of shorter jobs that are one thing the horizon of a rank lets through another for each slot. */
#define LONG_CALL_NS 5000000u

static inline bool is_long(uint64_t unit_ns) { return unit_ns > CHUNK_NS; }

/* Units of a job's items that a lane may have. A worker gets no long item ahead: it would wait for longer than a message takes. */
static inline uint64_t most_units(const lane *l, const demand *d) {
    uint64_t ahead = (uint64_t)l->limits.slots * d->ahead + (l->limits.cuts || !is_long(d->cost_ns) ? SHARES - 1 : 0);
    return l->limits.slots + ahead / SHARES;
}

/* How many more it may have. */
static inline uint64_t room_of(const lane *l, const demand *d) {
    uint64_t most = most_units(l, d);
    return most > l->units + l->hungry ? most - l->units : l->hungry;
}

bool mti_sched_has_credit(const lane *l, const demand *d) {
    if (d->priority < l->floor) return false;
    if (l->booked > 0 && l->booked_bytes + d->bytes > l->limits.max_bytes) return false;
    if (l->units < l->limits.slots || l->hungry > 0) return true;
    if (d->mean_ns == 0 || l->overdue) return false;
    if (d->what == ITEMS) return l->units < most_units(l, d);
    if (l->units >= (uint64_t)l->limits.slots * l->limits.max_ahead) return false;
    if (l->booked_ns + d->cost_ns <= l->limits.horizon_ns * l->limits.slots) return true;
    if (!l->limits.cuts || l->is_up || l->units >= l->limits.slots + (uint64_t)l->limits.slots * d->ahead / SHARES) return false;
    return l->booked_ns / l->limits.slots / 2 <= d->cost_ns; /* else it would wait for ones that are much longer */
}

bool mti_sched_asks_as_much(const demand *a, const demand *b) {
    if (b->what == NOTHING_AT_ALL) return true;
    bool may_wait_longer = a->what == ONE_THING && a->ahead > 0 && a->cost_ns != b->cost_ns;
    return a->what == b->what && !may_wait_longer && a->cost_ns >= b->cost_ns && a->bytes >= b->bytes && a->priority <= b->priority && a->ahead <= b->ahead &&
           (a->mean_ns == 0 || b->mean_ns != 0);
}

static uint64_t times(uint64_t n, uint64_t each_ns) {
    if (each_ns != 0 && n > MT_MAX_COST_NS / each_ns) return MT_MAX_COST_NS;
    return n * each_ns;
}

/* How long a worker is busy with what it gets of a job's items at a time; at least. */
static uint64_t unit_of(const mt_ready_job *job, uint64_t mean_ns) { return times(job->chunk == 0 ? 1 : job->chunk, mean_ns); }

static uint64_t enough(const mt_sched *sched) { return ((uint64_t)sched->slots * LONG_AHEAD + SHARES - 1) / SHARES; }

/* Long items go ahead while there is another for every slot. The last ones stay here until a slot is free, wherever that is. */
static uint32_t items_ahead(const mt_sched *sched) {
    uint64_t more = sched->ready.units > sched->slots ? sched->ready.units - sched->slots : 0;
    return more >= enough(sched) ? LONG_AHEAD : (uint32_t)(more * SHARES / sched->slots);
}

/* So do long jobs that are one thing, of their own priority: a more urgent one waits for the first slot that is free, not behind one that runs. */
static uint32_t calls_ahead(const mt_sched *sched, const mt_ready_level *level, uint64_t mean_ns) {
    return mean_ns > LONG_CALL_NS && level->count >= sched->slots + enough(sched) ? LONG_AHEAD : 0;
}

demand mti_sched_demand(const mt_sched *sched, const mt_ready_level *level, const mt_ready_job *job) {
    int32_t priority = level->priority;
    uint64_t mean_ns = sched->classes.rows[job->class_index].mean_ns;
    if (job->items == 0) return (demand){ONE_THING, mean_ns, mean_ns == 0 ? UNKNOWN_NS : mean_ns, job->bytes, priority, calls_ahead(sched, level, mean_ns)};
    uint64_t unit_ns = unit_of(job, mean_ns);
    return (demand){ITEMS, mean_ns, unit_ns, job->bytes, priority, is_long(unit_ns) ? items_ahead(sched) : SHARES};
}

static uint64_t share_of(uint64_t items, uint64_t part, uint64_t whole) {
    uint64_t share = items / whole * part + (items % whole * part + whole - 1) / whole;
    return share == 0 ? 1 : share;
}

uint64_t mti_sched_unit_items(const mt_class_row *row, uint32_t chunk) {
    if (chunk != 0 || row->mean_ns == 0) return chunk != 0 ? chunk : 1;
    uint64_t items = CHUNK_NS / row->mean_ns, most = mti_class_items(row) / KNOWN_FOR_ONE;
    if (items > most) items = most;
    return items == 0 ? 1 : items;
}

void mti_sched_fit(const mt_sched *sched, const lane *l, const mt_ready_job *job, const demand *d, mt_assignment *out) {
    uint64_t all = (uint64_t)sched->slots + (l->is_up ? l->limits.slots : 0);
    uint64_t slots = l->limits.cuts ? l->limits.slots : 1, mean_ns = d->mean_ns, chunk = mti_sched_unit_items(&sched->classes.rows[job->class_index], job->chunk);
    uint64_t units = slots / (is_long(d->cost_ns) ? 16 : 2);
    if (is_long(d->cost_ns) && d->ahead < LONG_AHEAD && units > room_of(l, d)) units = room_of(l, d);
    if (units == 0) units = 1;
    uint64_t items = job->items / units < chunk ? job->items : units * chunk;
    if (sched->ready.count == 1 && all > slots) {
        uint64_t step = job->chunk != 0 ? chunk : mean_ns == 0 ? 1 : LEAST_CHUNK_NS / mean_ns;
        uint64_t share = share_of(job->items, slots, 2 * all);
        if (job->chunk != 0) {
            share = share_of(share, 1, step) * step;
        } else if (share < step * units) {
            share = step * units;
        }
        if (share < items) items = share;
    }
    out->items = items;
    out->units = (uint32_t)share_of(items, 1, chunk);
    out->cost_ns = mean_ns == 0 ? times(out->units, UNKNOWN_NS) : times(items, mean_ns);
}
