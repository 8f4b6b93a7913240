#include "sched.h"

#include "classes.h"
#include "ready.h"

/* What a job costs its lane beyond the function itself; keeps the booked work of empty functions above zero. */
#define OVERHEAD_NS 1000u
/* Booked for a job of unknown duration: enough to spread such jobs evenly. */
#define UNKNOWN_NS 1000000u
#define NOT_IN_HEAP UINT32_MAX
/* What a slot gets of a job of many items at a time: what a job costs vanishes in it, and the last one does not hold the others up for long. */
#define CHUNK_NS 30000000u
/* But only after so many times as many items have ended lately: where they differ, the first ones to end are the short ones. */
#define KNOWN_FOR_ONE 2u
/* Towards the end it gets less, but not less than this. */
#define LEAST_CHUNK_NS 4000000u
/* Of a lane's slots; in a row of many lanes differences below that do not count. */
#define SHARES 1024u
/* What goes ahead of the workers cannot be given back once it is cut; the longer it takes, the less of it has to lie there, for messages and looks take
 * no longer. */
#define LONG_AHEAD (SHARES / 8)

typedef struct lane {
    mt_lane_limits limits;
    uint64_t booked; /* jobs */
    uint64_t units;
    uint64_t booked_ns;
    uint64_t booked_bytes;
    uint64_t queued; /* ready jobs that came from here */
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
    uint32_t ahead; /* of items, units that a lane may have beyond its slots: so many SHARES of these */
} demand;

static const demand NOTHING = {NOTHING_AT_ALL, 1, 0, 0, INT32_MAX, 0};

struct mt_sched {
    const mt_alloc *alloc;
    mt_ready_jobs ready;
    lane *lanes;
    uint64_t n_lanes, lane_capacity;
    uint32_t *heap; /* lanes that may have credit, by booked work for each slot */
    uint64_t heap_size, heap_capacity;
    mt_classes classes;
    demand refused; /* lanes with slots that are not in the heap have no credit for it */
    uint32_t slots; /* of all lanes but the way up */
};

mt_sched *mt_sched_new(const mt_alloc *alloc) {
    mt_sched *sched = mti_get_zeroed(alloc, 1, sizeof *sched);
    if (sched == NULL) return NULL;
    sched->alloc = alloc;
    mti_ready_init(&sched->ready, alloc);
    sched->classes.alloc = alloc;
    sched->refused = NOTHING;
    return sched;
}

void mt_sched_destroy(mt_sched *sched) {
    if (sched == NULL) return;
    mti_ready_clean_up(&sched->ready);
    mt_put(sched->alloc, sched->lanes);
    mt_put(sched->alloc, sched->heap);
    mt_put(sched->alloc, sched->classes.rows);
    mt_put(sched->alloc, sched);
}

/* ---- the heap of lanes ---- */

static uint64_t load_of(const lane *l) { return l->booked_ns / (l->limits.slots == 0 ? 1 : l->limits.slots); }

static bool before(const mt_sched *sched, uint32_t a, uint32_t b) {
    uint64_t load_a = load_of(&sched->lanes[a]), load_b = load_of(&sched->lanes[b]);
    return load_a != load_b ? load_a < load_b : a < b;
}

static void heap_set(mt_sched *sched, uint64_t at, uint32_t lane_index) {
    sched->heap[at] = lane_index;
    sched->lanes[lane_index].heap_at = (uint32_t)at;
}

static void heap_up(mt_sched *sched, uint64_t at) {
    uint32_t moving = sched->heap[at];
    while (at > 0 && before(sched, moving, sched->heap[(at - 1) / 2])) {
        heap_set(sched, at, sched->heap[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
    heap_set(sched, at, moving);
}

static void heap_down(mt_sched *sched, uint64_t at) {
    uint32_t moving = sched->heap[at];
    for (uint64_t child = 2 * at + 1; child < sched->heap_size; child = 2 * at + 1) {
        if (child + 1 < sched->heap_size && before(sched, sched->heap[child + 1], sched->heap[child])) child++;
        if (!before(sched, sched->heap[child], moving)) break;
        heap_set(sched, at, sched->heap[child]);
        at = child;
    }
    heap_set(sched, at, moving);
}

static void heap_remove(mt_sched *sched, uint32_t lane_index) {
    uint64_t at = sched->lanes[lane_index].heap_at;
    if (at == NOT_IN_HEAP) return;
    sched->lanes[lane_index].heap_at = NOT_IN_HEAP;
    uint32_t last = sched->heap[--sched->heap_size];
    if (last == lane_index) return;
    heap_set(sched, at, last);
    heap_up(sched, at);
    heap_down(sched, sched->lanes[last].heap_at);
}

/* The lane's load or limits have changed: it may have credit again. */
static void heap_refresh(mt_sched *sched, uint32_t lane_index) {
    lane *l = &sched->lanes[lane_index];
    if (l->limits.slots == 0 || l->is_up) {
        heap_remove(sched, lane_index);
        return;
    }
    if (l->heap_at == NOT_IN_HEAP) heap_set(sched, sched->heap_size++, lane_index);
    heap_up(sched, l->heap_at);
    heap_down(sched, l->heap_at);
}

/* ---- lanes and classes ---- */

int mt_sched_add_lane(mt_sched *sched, const mt_lane_limits *limits, uint32_t *out_lane) {
    int status = mti_grow(sched->alloc, (void **)&sched->heap, sched->heap_size, &sched->heap_capacity,
                          sched->n_lanes + 1, sizeof *sched->heap);
    if (status != MT_OK) return status;
    status = mti_grow(sched->alloc, (void **)&sched->lanes, sched->n_lanes, &sched->lane_capacity,
                      sched->n_lanes + 1, sizeof *sched->lanes);
    if (status != MT_OK) return status;
    uint32_t index = (uint32_t)sched->n_lanes++;
    sched->lanes[index] = (lane){.limits = *limits, .floor = INT32_MIN, .heap_at = NOT_IN_HEAP};
    sched->slots += limits->slots;
    heap_refresh(sched, index);
    *out_lane = index;
    return MT_OK;
}

void mt_sched_set_up(mt_sched *sched, uint32_t lane_index) {
    lane *l = &sched->lanes[lane_index];
    sched->slots -= l->limits.slots;
    l->is_up = true;
    heap_refresh(sched, lane_index);
}

void mt_sched_set_floor(mt_sched *sched, uint32_t lane_index, int32_t floor) {
    sched->lanes[lane_index].floor = floor;
    heap_refresh(sched, lane_index);
}

void mt_sched_set_slots(mt_sched *sched, uint32_t lane_index, uint32_t slots) {
    lane *l = &sched->lanes[lane_index];
    if (!l->is_up) sched->slots = sched->slots - l->limits.slots + slots;
    l->limits.slots = slots;
    l->hungry = 0;
    heap_refresh(sched, lane_index);
}

void mt_sched_clear_lane(mt_sched *sched, uint32_t lane_index) {
    lane *l = &sched->lanes[lane_index];
    l->booked = l->units = l->booked_ns = l->booked_bytes = 0;
    l->hungry = 0;
    l->overdue = false;
    heap_refresh(sched, lane_index);
}

int mt_sched_add_class(mt_sched *sched, uint32_t *out_class) { return mti_classes_add(&sched->classes, out_class); }

void mt_sched_drop_class(mt_sched *sched, uint32_t class_index) { sched->classes.rows[class_index].used = false; }

uint64_t mt_sched_expect(const mt_sched *sched, uint32_t class_index) { return sched->classes.rows[class_index].mean_ns; }

void mt_sched_hint(mt_sched *sched, uint32_t class_index, uint64_t duration_ns) {
    mti_classes_hint(&sched->classes, class_index, duration_ns);
}

/* ---- ready jobs ---- */

int mt_sched_push(mt_sched *sched, uint64_t key, uint32_t class_index, int32_t priority, uint64_t bytes, bool first) {
    mt_ready job = {.key = key, .bytes = bytes, .class_index = class_index, .priority = priority, .origin = MT_NO_LANE};
    return mt_sched_push_job(sched, &job, first);
}

int mt_sched_push_job(mt_sched *sched, const mt_ready *ready, bool first) {
    mt_ready_job job = {.key = ready->key,
                        .items = ready->items,
                        .class_index = ready->class_index,
                        .bytes = ready->bytes < UINT32_MAX ? (uint32_t)ready->bytes : UINT32_MAX,
                        .origin = ready->origin,
                        .chunk = (ready->chunk < INT32_MAX ? ready->chunk : INT32_MAX) & INT32_MAX,
                        .stays = ready->stays};
    int status = mti_ready_push(&sched->ready, ready->priority, &job, first);
    if (status == MT_OK && job.origin != MT_NO_LANE) sched->lanes[job.origin].queued++;
    return status;
}

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

static inline bool has_credit(const lane *l, const demand *d) {
    if (d->priority < l->floor) return false;
    if (l->booked > 0 && l->booked_bytes + d->bytes > l->limits.max_bytes) return false;
    if (l->units < l->limits.slots || l->hungry > 0) return true;
    if (d->mean_ns == 0 || l->overdue) return false;
    if (d->what == ITEMS) return l->units < most_units(l, d);
    if (l->units >= (uint64_t)l->limits.slots * l->limits.max_ahead) return false;
    return l->booked_ns + d->cost_ns <= l->limits.horizon_ns * l->limits.slots;
}

/* Whether a lane that has no credit for `b` has none for `a` either. */
static bool asks_as_much(const demand *a, const demand *b) {
    if (b->what == NOTHING_AT_ALL) return true;
    return a->what == b->what && a->cost_ns >= b->cost_ns && a->bytes >= b->bytes && a->priority <= b->priority && a->ahead <= b->ahead &&
           (a->mean_ns == 0 || b->mean_ns != 0);
}

static uint64_t times(uint64_t n, uint64_t each_ns) {
    if (each_ns != 0 && n > MT_MAX_COST_NS / each_ns) return MT_MAX_COST_NS;
    return n * each_ns;
}

/* How long a worker is busy with what it gets of a job's items at a time; at least. */
static uint64_t unit_of(const mt_ready_job *job, uint64_t mean_ns) { return times(job->chunk == 0 ? 1 : job->chunk, mean_ns); }

/* Long items go ahead while there is another for every slot. The last ones stay here until a slot is free, wherever that is. */
static uint32_t long_ahead(const mt_sched *sched) {
    uint64_t more = sched->ready.units > sched->slots ? sched->ready.units - sched->slots : 0;
    uint64_t enough = ((uint64_t)sched->slots * LONG_AHEAD + SHARES - 1) / SHARES;
    return more >= enough ? LONG_AHEAD : (uint32_t)(more * SHARES / sched->slots);
}

static demand demand_of(const mt_sched *sched, const mt_ready_job *job, int32_t priority) {
    uint64_t mean_ns = sched->classes.rows[job->class_index].mean_ns;
    if (job->items == 0) return (demand){ONE_THING, mean_ns, mean_ns == 0 ? UNKNOWN_NS : mean_ns, job->bytes, priority, 0};
    uint64_t unit_ns = unit_of(job, mean_ns);
    return (demand){ITEMS, mean_ns, unit_ns, job->bytes, priority, is_long(unit_ns) ? long_ahead(sched) : SHARES};
}

static uint64_t share_of(uint64_t items, uint64_t part, uint64_t whole) {
    uint64_t share = items / whole * part + (items % whole * part + whole - 1) / whole;
    return share == 0 ? 1 : share;
}

/* Items that keep a slot busy for long enough. */
static uint64_t unit_items(const mt_class_row *row, uint32_t chunk) {
    if (chunk != 0 || row->mean_ns == 0) return chunk != 0 ? chunk : 1;
    uint64_t items = CHUNK_NS / row->mean_ns, most = mti_class_items(row) / KNOWN_FOR_ONE;
    if (items > most) items = most;
    return items == 0 ? 1 : items;
}

/* How many of a job's items a lane gets, before it leaves the ready ones. */
static void fit(const mt_sched *sched, const lane *l, const mt_ready_job *job, const demand *d, mt_assignment *out) {
    uint64_t all = (uint64_t)sched->slots + (l->is_up ? l->limits.slots : 0);
    uint64_t slots = l->limits.cuts ? l->limits.slots : 1, mean_ns = d->mean_ns, chunk = unit_items(&sched->classes.rows[job->class_index], job->chunk);
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

/* The job is ready no more. */
static inline void leave(mt_sched *sched, mt_ready_level *l, uint64_t at) {
    uint32_t origin = mti_ready_at(l, at)->origin;
    if (origin != MT_NO_LANE) sched->lanes[origin].queued--;
    mti_ready_take(&sched->ready, l, at);
}

static void book(mt_sched *sched, uint32_t lane_index, const mt_ready_job *job, const demand *d, mt_assignment *out) {
    lane *chosen = &sched->lanes[lane_index];
    *out = (mt_assignment){job->key, d->cost_ns, 0, 1, job->bytes, lane_index, job->class_index};
    if (job->items > 0) fit(sched, chosen, job, d, out);
    if (chosen->units >= chosen->limits.slots) chosen->hungry -= chosen->hungry < out->units ? chosen->hungry : out->units;
    chosen->booked++;
    chosen->units += out->units;
    chosen->booked_ns += out->cost_ns;
    chosen->booked_bytes += job->bytes;
}

int mt_sched_next(mt_sched *sched, mt_assignment *out) {
    if (sched->ready.count == 0) return MT_E_AGAIN;
    mt_ready_level *l = mti_ready_next(&sched->ready);
    const mt_ready_job *job = mti_ready_at(l, 0);
    demand wanted = demand_of(sched, job, l->priority);
    if (!asks_as_much(&wanted, &sched->refused)) { /* happens when a job of higher priority, or news of its class, has come */
        for (uint32_t i = 0; i < sched->n_lanes; i++) {
            if (sched->lanes[i].heap_at == NOT_IN_HEAP) heap_refresh(sched, i);
        }
        sched->refused = NOTHING;
    }
    while (sched->heap_size > 0) {
        uint32_t index = sched->heap[0];
        lane *chosen = &sched->lanes[index];
        if (!has_credit(chosen, &wanted)) {
            heap_remove(sched, index); /* until something of it is given back, or a job asks for less */
            sched->refused = wanted;
            continue;
        }
        book(sched, index, job, &wanted, out);
        leave(sched, l, 0);
        heap_down(sched, 0);
        return MT_OK;
    }
    return MT_E_AGAIN;
}

static int64_t band(int32_t priority) {
    int64_t shifted = (int64_t)priority + MT_BAND / 2;
    return shifted / MT_BAND - (shifted % MT_BAND < 0);
}

/* Where in the level the first job is that did not come from `origin`; `count`: there is none. */
static uint64_t first_not_from(const mt_ready_level *l, uint32_t origin) {
    uint64_t i = 0;
    while (i < l->count && mti_ready_at(l, i)->origin == origin) i++;
    return i;
}

int mt_sched_next_up(mt_sched *sched, uint32_t up, mt_assignment *out) {
    if (sched->ready.count == sched->lanes[up].queued) return MT_E_AGAIN;
    mt_ready_level *found = NULL;
    uint64_t at = 0;
    for (mt_ready_level *l = sched->ready.levels + sched->ready.n_levels; l-- > sched->ready.levels;) {
        if (found != NULL && band(l->priority) != band(found->priority)) break;
        uint64_t i = first_not_from(l, up);
        if (i == l->count) continue;
        found = l;
        at = i;
    }
    const mt_ready_job *job = mti_ready_at(found, at);
    demand wanted = demand_of(sched, job, found->priority);
    if (!has_credit(&sched->lanes[up], &wanted)) return MT_E_AGAIN;
    book(sched, up, job, &wanted, out);
    leave(sched, found, at);
    return MT_OK;
}

static void give_back_units(mt_sched *sched, const mt_assignment *what) {
    lane *l = &sched->lanes[what->lane];
    l->units -= what->units;
    l->booked_ns -= what->cost_ns;
    if (l->units < l->limits.slots) l->hungry = 0; /* it shows without */
}

static void give_back(mt_sched *sched, const mt_assignment *what) {
    sched->lanes[what->lane].booked--;
    sched->lanes[what->lane].booked_bytes -= what->bytes;
    give_back_units(sched, what);
}

uint64_t mt_sched_unit_items(const mt_sched *sched, uint32_t class_index, uint32_t chunk) {
    return unit_items(&sched->classes.rows[class_index], chunk);
}

void mt_sched_return_some(mt_sched *sched, const mt_assignment *what) {
    give_back_units(sched, what);
    heap_refresh(sched, what->lane);
}

void mt_sched_set_hungry(mt_sched *sched, uint32_t lane_index, uint32_t slots) {
    lane *l = &sched->lanes[lane_index];
    if (l->units < l->limits.slots) return; /* known */
    l->hungry = slots < l->limits.slots ? slots : l->limits.slots;
    heap_refresh(sched, lane_index);
}

void mt_sched_set_overdue(mt_sched *sched, uint32_t lane_index) { sched->lanes[lane_index].overdue = true; }

void mt_sched_return(mt_sched *sched, const mt_assignment *what) {
    give_back(sched, what);
    heap_refresh(sched, what->lane);
}

void mt_sched_done(mt_sched *sched, const mt_assignment *what, uint64_t duration_ns) {
    give_back(sched, what);
    sched->lanes[what->lane].overdue = false;
    if (duration_ns > 0) mti_classes_learn(&sched->classes, what->class_index, what->items, duration_ns + OVERHEAD_NS);
    heap_refresh(sched, what->lane);
}

int mt_sched_first_priority(const mt_sched *sched, int32_t *out_priority, uint64_t *out_n) {
    if (sched->ready.count == 0) return MT_E_AGAIN;
    const mt_ready_level *l = mti_ready_next(&sched->ready);
    *out_priority = l->priority;
    *out_n = l->count;
    return MT_OK;
}

void mt_sched_let_go(mt_sched *sched, int32_t priority, uint64_t key) {
    const mt_ready_jobs *ready = &sched->ready;
    for (uint64_t i = 0; i < ready->n_levels; i++) {
        const mt_ready_level *l = &ready->levels[i];
        for (uint64_t k = 0; l->priority == priority && k < l->count; k++) {
            if (mti_ready_at(l, k)->key == key) mti_ready_at(l, k)->stays = 0;
        }
    }
}

int mt_sched_take_last(mt_sched *sched, uint32_t origin, int64_t floor, int64_t below, uint64_t *out_key) {
    if (sched->ready.count == 0 || (origin != MT_NO_LANE && sched->lanes[origin].queued == 0)) return MT_E_AGAIN;
    const mt_ready_jobs *ready = &sched->ready;
    for (mt_ready_level *l = ready->levels + ready->n_levels; l-- > ready->levels && l->priority < below;) {
        uint64_t i = l->priority < floor ? 0 : l->count;
        for (; i > 0; i--) {
            const mt_ready_job *at = mti_ready_at(l, i - 1);
            if (at->origin == origin && at->stays == 0) break;
        }
        if (i == 0) continue;
        *out_key = mti_ready_at(l, i - 1)->key;
        leave(sched, l, i - 1);
        return MT_OK;
    }
    return MT_E_AGAIN;
}

uint32_t mt_sched_lane_slots(const mt_sched *sched, uint32_t lane_index) { return sched->lanes[lane_index].limits.slots; }

int32_t mt_sched_floor(const mt_sched *sched, uint32_t lane_index) { return sched->lanes[lane_index].floor; }

uint32_t mt_sched_idle(const mt_sched *sched, uint32_t lane_index) {
    const lane *l = &sched->lanes[lane_index];
    return l->units < l->limits.slots ? l->limits.slots - (uint32_t)l->units : l->hungry;
}

uint64_t mt_sched_excess(const mt_sched *sched, uint32_t lane_index) {
    const lane *l = &sched->lanes[lane_index];
    return l->units > l->limits.slots && l->hungry == 0 ? l->units - l->limits.slots : 0;
}

uint64_t mt_sched_load(const mt_sched *sched, uint32_t lane_index) { return load_of(&sched->lanes[lane_index]); }

uint64_t mt_sched_least_load(const mt_sched *sched) {
    uint64_t least = UINT64_MAX; /* of all lanes: the heap holds only those with credit */
    for (uint64_t i = 0; i < sched->n_lanes && least > 0; i++) {
        const lane *l = &sched->lanes[i];
        if (l->limits.slots > 0 && !l->is_up && load_of(l) < least) least = load_of(l);
    }
    return least == UINT64_MAX ? 0 : least;
}

uint64_t mt_sched_ready(const mt_sched *sched) { return sched->ready.count; }

uint64_t mt_sched_booked(const mt_sched *sched, uint32_t lane_index) { return sched->lanes[lane_index].booked; }

uint32_t mt_sched_slots(const mt_sched *sched) { return sched->slots; }

void mt_sched_forget_ready(mt_sched *sched) {
    mti_ready_forget(&sched->ready);
    for (uint64_t i = 0; i < sched->n_lanes; i++) sched->lanes[i].queued = 0;
}

int mt_sched_check(const mt_sched *sched) {
    uint64_t in_heap = 0, queued = 0, with_origin = 0;
    for (uint64_t i = 0; i < sched->ready.n_levels; i++) {
        const mt_ready_level *at = &sched->ready.levels[i];
        for (uint64_t k = 0; k < at->count; k++) with_origin += mti_ready_at(at, k)->origin != MT_NO_LANE;
    }
    uint32_t slots = 0;
    for (uint32_t i = 0; i < sched->n_lanes; i++) {
        const lane *l = &sched->lanes[i];
        slots += l->is_up ? 0 : l->limits.slots;
        queued += l->queued;
        if (l->booked == 0 && (l->booked_ns != 0 || l->booked_bytes != 0)) return MT_E_RECORD;
        if (l->units < l->booked || (l->booked == 0 && l->units != 0)) return MT_E_RECORD;
        if (l->heap_at == NOT_IN_HEAP) continue;
        if (l->heap_at >= sched->heap_size || sched->heap[l->heap_at] != i) return MT_E_RECORD;
        in_heap++;
    }
    for (uint64_t i = 1; i < sched->heap_size; i++) {
        if (before(sched, sched->heap[i], sched->heap[(i - 1) / 2])) return MT_E_RECORD;
    }
    if (queued != with_origin || in_heap != sched->heap_size || slots != sched->slots) return MT_E_RECORD;
    return mti_ready_check(&sched->ready);
}
