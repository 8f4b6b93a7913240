#include "sched_inner.h"

/* What a job costs its lane beyond the function itself; keeps the booked work of empty functions above zero. */
#define OVERHEAD_NS 1000u
#define NOT_IN_HEAP UINT32_MAX

static const demand NOTHING = {NOTHING_AT_ALL, 1, 0, 0, INT32_MAX, 0};

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

static uint32_t idle_of(const lane *l) {
    return l->units < l->limits.slots ? l->limits.slots - (uint32_t)l->units : l->hungry;
}

static void count_idle(mt_sched *sched, lane *l) {
    uint32_t idle = l->is_up ? 0 : idle_of(l);
    sched->idle = sched->idle - l->idle + idle;
    l->idle = idle;
}

/* The lane's load or limits have changed: it may have credit again. */
static void refresh(mt_sched *sched, uint32_t lane_index) {
    lane *l = &sched->lanes[lane_index];
    count_idle(sched, l);
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
    refresh(sched, index);
    *out_lane = index;
    return MT_OK;
}

void mt_sched_set_up(mt_sched *sched, uint32_t lane_index) {
    lane *l = &sched->lanes[lane_index];
    sched->slots -= l->limits.slots;
    l->is_up = true;
    refresh(sched, lane_index);
}

void mt_sched_set_floor(mt_sched *sched, uint32_t lane_index, int32_t floor) {
    sched->lanes[lane_index].floor = floor;
    refresh(sched, lane_index);
}

void mt_sched_set_slots(mt_sched *sched, uint32_t lane_index, uint32_t slots) {
    lane *l = &sched->lanes[lane_index];
    if (!l->is_up) sched->slots = sched->slots - l->limits.slots + slots;
    l->limits.slots = slots;
    l->hungry = 0;
    refresh(sched, lane_index);
}

void mt_sched_clear_lane(mt_sched *sched, uint32_t lane_index) {
    lane *l = &sched->lanes[lane_index];
    l->booked = l->units = l->booked_ns = l->booked_bytes = 0;
    l->hungry = 0;
    l->overdue = false;
    refresh(sched, lane_index);
}

int mt_sched_add_class(mt_sched *sched, uint32_t *out_class) { return mti_classes_add(&sched->classes, out_class); }

void mt_sched_drop_class(mt_sched *sched, uint32_t class_index) { sched->classes.rows[class_index].used = false; }

uint64_t mt_sched_expect(const mt_sched *sched, uint32_t class_index) { return sched->classes.rows[class_index].mean_ns; }

void mt_sched_hint(mt_sched *sched, uint32_t class_index, uint64_t duration_ns) {
    mti_classes_hint(&sched->classes, class_index, duration_ns);
}

/* ---- ready jobs ---- */

int mt_sched_push(mt_sched *sched, mt_ready *ready) {
    mt_ready_job job = {.key = ready->key,
                        .items = ready->items,
                        .age = ready->age != 0 ? ready->age : sched->last_age + 1,
                        .class_index = ready->class_index,
                        .bytes = ready->bytes < UINT32_MAX ? (uint32_t)ready->bytes : UINT32_MAX,
                        .origin = ready->origin,
                        .chunk = (ready->chunk < INT32_MAX ? ready->chunk : INT32_MAX) & INT32_MAX,
                        .stays = ready->stays};
    int status = mti_ready_push(&sched->ready, ready->priority, &job);
    if (status != MT_OK) return status;
    ready->age = job.age;
    if (job.age > sched->last_age && job.age <= MT_MAX_AGE) sched->last_age = job.age;
    if (job.origin != MT_NO_LANE) sched->lanes[job.origin].queued++;
    return MT_OK;
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
    if (job->items > 0) mti_sched_fit(sched, chosen, job, d, out);
    if (chosen->units >= chosen->limits.slots) chosen->hungry -= chosen->hungry < out->units ? chosen->hungry : out->units;
    chosen->booked++;
    chosen->units += out->units;
    chosen->booked_ns += out->cost_ns;
    chosen->booked_bytes += job->bytes;
    count_idle(sched, chosen);
}

int mt_sched_next(mt_sched *sched, mt_assignment *out) {
    if (sched->ready.count == 0) return MT_E_AGAIN;
    mti_ready_settle(&sched->ready);
    mt_ready_level *l = mti_ready_next(&sched->ready);
    const mt_ready_job *job = mti_ready_at(l, 0);
    demand wanted = mti_sched_demand(sched, l, job);
    if (!mti_sched_asks_as_much(&wanted, &sched->refused)) { /* happens when a job of higher priority, or news of its class, has come */
        for (uint32_t i = 0; i < sched->n_lanes; i++) {
            if (sched->lanes[i].heap_at == NOT_IN_HEAP) refresh(sched, i);
        }
        sched->refused = NOTHING;
    }
    while (sched->heap_size > 0) {
        uint32_t index = sched->heap[0];
        lane *chosen = &sched->lanes[index];
        if (!mti_sched_has_credit(chosen, &wanted)) {
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
    mti_ready_settle(&sched->ready);
    mt_ready_level *found = NULL;
    uint64_t at = 0;
    for (mt_ready_level *l = sched->ready.levels + sched->ready.n_levels; l-- > sched->ready.levels;) {
        if (found != NULL && band(l->priority) != band(found->priority)) break;
        uint64_t i = first_not_from(l, up);
        if (i == l->count) continue;
        found = l;
        at = i;
    }
    if (found == NULL) return MT_E_AGAIN;
    const mt_ready_job *job = mti_ready_at(found, at);
    demand wanted = mti_sched_demand(sched, found, job);
    if (!mti_sched_has_credit(&sched->lanes[up], &wanted)) return MT_E_AGAIN;
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
    return mti_sched_unit_items(&sched->classes.rows[class_index], chunk);
}

void mt_sched_return_some(mt_sched *sched, const mt_assignment *what) {
    give_back_units(sched, what);
    refresh(sched, what->lane);
}

void mt_sched_set_hungry(mt_sched *sched, uint32_t lane_index, uint32_t slots) {
    lane *l = &sched->lanes[lane_index];
    if (l->units < l->limits.slots) return; /* known */
    l->hungry = slots < l->limits.slots ? slots : l->limits.slots;
    refresh(sched, lane_index);
}

void mt_sched_set_overdue(mt_sched *sched, uint32_t lane_index) { sched->lanes[lane_index].overdue = true; }

void mt_sched_return(mt_sched *sched, const mt_assignment *what) {
    give_back(sched, what);
    refresh(sched, what->lane);
}

void mt_sched_done(mt_sched *sched, const mt_assignment *what, uint64_t duration_ns) {
    give_back(sched, what);
    sched->lanes[what->lane].overdue = false;
    if (duration_ns > 0) mti_classes_learn(&sched->classes, what->class_index, what->items, (duration_ns < MT_MAX_COST_NS ? duration_ns : MT_MAX_COST_NS) + OVERHEAD_NS);
    refresh(sched, what->lane);
}

int mt_sched_first_priority(mt_sched *sched, int32_t *out_priority, uint64_t *out_n) {
    if (sched->ready.count == 0) return MT_E_AGAIN;
    mti_ready_settle(&sched->ready);
    const mt_ready_level *l = mti_ready_next(&sched->ready);
    *out_priority = l->priority;
    *out_n = l->count;
    return MT_OK;
}

void mt_sched_let_go(mt_sched *sched, int32_t priority, uint64_t key) {
    const mt_ready_jobs *ready = &sched->ready;
    mti_ready_settle(&sched->ready);
    for (uint64_t i = 0; i < ready->n_levels; i++) {
        const mt_ready_level *l = &ready->levels[i];
        for (uint64_t k = 0; l->priority == priority && k < l->count; k++) {
            if (mti_ready_at(l, k)->key == key) mti_ready_at(l, k)->stays = 0;
        }
    }
}

int mt_sched_take(mt_sched *sched, uint32_t origin, int64_t floor, int64_t below, uint64_t *out_key) {
    if (sched->ready.count == 0 || (origin != MT_NO_LANE && sched->lanes[origin].queued == 0)) return MT_E_AGAIN;
    mti_ready_settle(&sched->ready);
    mt_ready_level *found = NULL;
    uint64_t at = 0;
    const mt_ready_jobs *ready = &sched->ready;
    for (mt_ready_level *l = ready->levels + ready->n_levels; l-- > ready->levels && l->priority < below;) {
        if (l->priority < floor) continue;
        if (found != NULL && band(l->priority) != band(found->priority)) break;
        uint64_t i = 0;
        while (i < l->count && (mti_ready_at(l, i)->origin != origin || mti_ready_at(l, i)->stays != 0)) i++;
        if (i == l->count) continue;
        found = l;
        at = i;
    }
    if (found == NULL) return MT_E_AGAIN;
    *out_key = mti_ready_at(found, at)->key;
    leave(sched, found, at);
    return MT_OK;
}

uint32_t mt_sched_lane_slots(const mt_sched *sched, uint32_t lane_index) { return sched->lanes[lane_index].limits.slots; }

int32_t mt_sched_floor(const mt_sched *sched, uint32_t lane_index) { return sched->lanes[lane_index].floor; }

uint32_t mt_sched_lane_idle(const mt_sched *sched, uint32_t lane_index) { return idle_of(&sched->lanes[lane_index]); }

uint64_t mt_sched_idle(const mt_sched *sched) { return sched->idle; }

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

uint64_t mt_sched_least_ahead(const mt_sched *sched) {
    uint64_t least = UINT64_MAX;
    for (uint32_t i = 0; i < sched->n_lanes && least > 0; i++) {
        const lane *l = &sched->lanes[i];
        if (l->limits.slots == 0 || l->is_up) continue;
        uint64_t excess = mt_sched_excess(sched, i), ahead = excess == 0 ? 0 : load_of(l) / l->units * excess;
        if (ahead < least) least = ahead;
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
    uint64_t in_heap = 0, queued = 0, with_origin = 0, idle = 0;
    for (uint64_t i = 0; i < sched->ready.n_levels; i++) {
        const mt_ready_level *at = &sched->ready.levels[i];
        for (uint64_t k = 0; k < at->count; k++) with_origin += mti_ready_at(at, k)->origin != MT_NO_LANE;
        for (uint64_t k = 0; k < at->n_late; k++) with_origin += at->late[k].job.origin != MT_NO_LANE;
    }
    uint32_t slots = 0;
    for (uint32_t i = 0; i < sched->n_lanes; i++) {
        const lane *l = &sched->lanes[i];
        slots += l->is_up ? 0 : l->limits.slots;
        idle += l->is_up ? 0 : idle_of(l);
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
    if (queued != with_origin || in_heap != sched->heap_size || slots != sched->slots || idle != sched->idle) return MT_E_RECORD;
    return mti_ready_check(&sched->ready);
}
