#include "sim.h"

#include <string.h>

#include "draw.h"
#include "sim_inner.h"

_Static_assert(sizeof((mt_sim_result *)0)->running / sizeof(double) == MT_SIM_BUCKETS, "as sim.h says");

uint32_t mt_sim_depth(uint32_t rank, uint32_t fanout) {
    uint32_t depth = 0;
    for (; rank > 0; rank = (rank - 1) / fanout) depth++;
    return depth;
}

/* ---- events ---- */

static bool earlier(const event *a, const event *b) {
    return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->sequence < b->sequence;
}

int mti_sim_post(mt_sim *s, event e) {
    int status = mti_grow(s->alloc, (void **)&s->heap, s->heap_size, &s->heap_capacity, s->heap_size + 1, sizeof e);
    if (status != MT_OK) return status;
    e.sequence = s->next_sequence++;
    uint64_t at = s->heap_size++;
    for (; at > 0 && earlier(&e, &s->heap[(at - 1) / 2]); at = (at - 1) / 2) s->heap[at] = s->heap[(at - 1) / 2];
    s->heap[at] = e;
    return MT_OK;
}

static event next_event(mt_sim *s) {
    event first = s->heap[0], moving = s->heap[--s->heap_size];
    uint64_t at = 0;
    for (uint64_t below = 1; below < s->heap_size; below = 2 * at + 1) {
        if (below + 1 < s->heap_size && earlier(&s->heap[below + 1], &s->heap[below])) below++;
        if (!earlier(&s->heap[below], &moving)) break;
        s->heap[at] = s->heap[below];
        at = below;
    }
    s->heap[at] = moving;
    return first;
}

int mti_sim_wake(mt_sim *s, uint32_t rank, uint64_t at_ns) {
    node *x = &s->nodes[rank];
    if (at_ns >= x->wake_at_ns) return MT_OK;
    x->wake_at_ns = at_ns; /* the event posted before is out of date */
    return mti_sim_post(s, (event){.at_ns = at_ns, .rank = rank, .kind = EVENT_STEP});
}

/* A rank that only plays a node sleeps at once. */
static bool is_virtual(const mt_sim *s, const node *x) { return s->options.one_bank != 0 && x != s->nodes; }

static bool naps(const mt_sim *s, const node *x, uint64_t idle_ns) {
    return x->nap_ns > 0 && !is_virtual(s, x) && idle_ns <= mti_naps_end_ns(x->nap_ns);
}

static bool spins(const mt_sim *s, const node *x) { return x->nap_ns == 0 && !is_virtual(s, x); }

/* The first look of a rank from `at_ns` on that ends a nap. */
static uint64_t end_of_nap(const mt_sim *s, const node *x, uint64_t at_ns) {
    uint64_t passed = at_ns - x->idle_ns;
    uint64_t late_ns = s->options.nap_late_ns, whole_ns = x->nap_ns + late_ns, longest_ns = MTI_LONGEST_POLL_NS + late_ns;
    if (naps(s, x, passed)) return x->idle_ns + (passed + whole_ns - 1) / whole_ns * whole_ns;
    uint64_t before_ns = is_virtual(s, x) ? 0 : x->nap_ns > 0 ? mti_naps_end_ns(x->nap_ns) : MTI_SPIN_NS;
    uint64_t seen_ns = x->idle_ns + before_ns, nap_ns = MTI_FIRST_POLL_NS;
    while (seen_ns < at_ns && nap_ns < MTI_LONGEST_POLL_NS) {
        seen_ns += nap_ns + late_ns;
        nap_ns += nap_ns / MTI_POLL_PARTS;
    }
    if (seen_ns < at_ns) seen_ns += (at_ns - seen_ns + longest_ns - 1) / longest_ns * longest_ns;
    return seen_ns;
}

/* When rank `x` sees what happens at `at_ns`; `is_local`: it rings the bell. */
uint64_t mti_sim_look(const mt_sim *s, const node *x, uint64_t at_ns, bool is_local) {
    if (at_ns <= x->busy_until_ns) return x->busy_until_ns;
    if (s->options.naps == 0 || (spins(s, x) && at_ns - x->idle_ns <= MTI_SPIN_NS)) return at_ns;
    uint64_t seen_ns = end_of_nap(s, x, at_ns);
    return is_local && !naps(s, x, at_ns - x->idle_ns) && at_ns + s->options.bell_ns < seen_ns ? at_ns + s->options.bell_ns : seen_ns;
}

uint64_t mti_sim_next_look(const mt_sim *s, const node *x) {
    uint64_t from_ns = x->busy_until_ns + 1, spun_ns = x->idle_ns + MTI_SPIN_NS + 1;
    return end_of_nap(s, x, spins(s, x) && from_ns < spun_ns ? spun_ns : from_ns);
}

static void halve(histogram *h) {
    for (uint32_t i = 0; i < MT_SIM_BUCKETS / 2; i++) {
        h->within[i] = (h->within[2 * i] + h->after[2 * i] + h->within[2 * i + 1]) / 2;
        h->after[i] = h->after[2 * i] + h->after[2 * i + 1];
    }
    memset(h->within + MT_SIM_BUCKETS / 2, 0, sizeof h->within / 2);
    memset(h->after + MT_SIM_BUCKETS / 2, 0, sizeof h->after / 2);
    h->width_ns *= 2;
}

static void running_changed(void *ctx, uint64_t at_ns, int64_t change) {
    histogram *h = ctx;
    uint64_t since = at_ns > h->start_ns ? at_ns - h->start_ns : 0;
    while (since / h->width_ns >= MT_SIM_BUCKETS) halve(h);
    uint64_t i = since / h->width_ns;
    h->within[i] += (double)change * (1 - (double)(since % h->width_ns) / (double)h->width_ns);
    h->after[i] += (double)change;
}

/* ---- the transport ---- */

static int sim_get(mt_transport *base, uint32_t peer, mt_frame **out) {
    (void)peer;
    sim_transport *t = (sim_transport *)base;
    mt_sim *s = t->sim;
    const mt_sim_options *o = &s->options;
    if (o->sends > 0 && s->nodes[t->rank].under_way >= o->sends) return MT_E_AGAIN;
    if (o->refusals_ppm > 0 && mti_draw(&s->random, MILLION) < o->refusals_ppm) return MT_E_AGAIN;
    blank *b = s->blanks;
    if (b == NULL) {
        b = mt_get(s->alloc, sizeof *b + o->frame_bytes);
        if (b == NULL) return MT_E_NOMEM;
    } else {
        s->blanks = b->next;
    }
    b->frame = (mt_frame){b->data, o->frame_bytes, 0};
    *out = &b->frame;
    return MT_OK;
}

static int sim_send(mt_transport *base, uint32_t peer, mt_frame *frame) {
    sim_transport *t = (sim_transport *)base;
    mt_sim *s = t->sim;
    parcel *p = mt_get(s->alloc, sizeof *p + frame->used);
    if (p != NULL) {
        *p = (parcel){.from = t->rank, .to = peer, .size = frame->used};
        memcpy(p->data, frame->data, frame->used);
        if (s->leaving == NULL) {
            s->leaving = p;
        } else {
            s->last_leaving->next = p;
        }
        s->last_leaving = p;
        s->nodes[t->rank].under_way++;
    }
    blank *b = (blank *)frame;
    b->next = s->blanks;
    s->blanks = b;
    return p == NULL ? MT_E_NOMEM : MT_OK;
}

/* ---- building ---- */

static uint64_t items_ns(const void *ctx, uint64_t first, uint64_t count) { return mti_workload_items_ns(ctx, first, count); }

static int build_banks(mt_sim *s, node *x) {
    const mt_sim_options *o = &s->options;
    uint32_t role = o->one_bank != 0 ? MT_ROLE_CHILD : MT_ROLE_WORKER;
    for (uint32_t i = 0; i < x->n_banks; i++) {
        x->banks[i] = mti_bank_new(s->alloc, role, x->slots);
        if (x->banks[i] == NULL) return MT_E_NOMEM;
        mti_bank_set_overhead(x->banks[i], o->worker_overhead_ns);
        mti_bank_set_part_bytes(x->banks[i], o->part_bytes);
        if (o->submits_range != 0) mti_bank_set_items(x->banks[i], items_ns, &s->options.work);
        mti_bank_watch(x->banks[i], running_changed, &s->running);
        mti_bank_report(x->banks[i], &x->got_list, i);
        uint32_t lane;
        int status = mt_engine_add_lane(x->engine, role, mti_bank_link(x->banks[i]), &lane);
        if (status != MT_OK) return status;
        if (i == 0) x->first_bank = lane;
    }
    return MT_OK;
}

static int build_node(mt_sim *s, uint32_t rank) {
    const mt_sim_options *o = &s->options;
    node *x = &s->nodes[rank];
    uint64_t first = (uint64_t)rank * o->fanout + 1;
    x->first_child = first < s->n_ranks ? (uint32_t)first : s->n_ranks;
    x->n_children = s->n_ranks - x->first_child < o->fanout ? s->n_ranks - x->first_child : o->fanout;
    x->parent = rank == 0 ? 0 : (rank - 1) / o->fanout;
    x->depth = rank == 0 ? 0 : s->nodes[x->parent].depth + 1;
    uint64_t before = (uint64_t)(rank - 1) * o->per_node, left = rank == 0 ? 0 : o->workers - before;
    x->workers = left < o->per_node ? (uint32_t)left : o->per_node;
    x->n_banks = x->workers > 0 && o->one_bank != 0 ? 1 : x->workers;
    x->slots = o->one_bank != 0 ? x->workers : 1;
    x->said_slots = UINT32_MAX;
    x->wake_at_ns = NEVER;
    x->transport = (sim_transport){{.get = sim_get, .send = sim_send}, s, rank}; /* links need no more of it */
    mti_frame_link_init(&x->up, s->alloc, &x->transport.base, x->parent);
    mti_joiner_init(&x->joiner, s->alloc, UINT64_MAX / 4);
    x->children = mti_get_zeroed(s->alloc, x->n_children + 1u, sizeof(child));
    x->banks = mti_get_zeroed(s->alloc, x->n_banks + 1u, sizeof(mt_bank *));
    x->due_ns = mti_get_zeroed(s->alloc, x->n_banks + 1u, sizeof(uint64_t));
    x->got = mti_get_zeroed(s->alloc, x->n_banks + 1u, sizeof(uint32_t));
    x->engine = mt_engine_new(s->alloc, x->n_children + x->n_banks, rank == 0 ? NULL : &x->up.base, "simulated");
    if (x->children == NULL || x->banks == NULL || x->due_ns == NULL || x->got == NULL || x->engine == NULL) return MT_E_NOMEM;
    for (uint32_t i = 0; i < x->n_children; i++) {
        child *c = &x->children[i];
        mti_frame_link_init(&c->link, s->alloc, &x->transport.base, x->first_child + i);
        mti_joiner_init(&c->joiner, s->alloc, UINT64_MAX / 4);
        int status = mt_engine_add_lane(x->engine, MT_ROLE_CHILD, &c->link.base, &c->lane);
        if (status != MT_OK) return status;
    }
    mt_sim_level *level = &s->levels[x->depth];
    level->ranks++;
    level->workers += x->workers;
    int status = build_banks(s, x);
    return status == MT_OK ? mti_sim_wake(s, rank, 0) : status;
}

static int build(mt_sim *s) {
    const mt_sim_options *o = &s->options;
    int status = mti_workload_init(&s->work, s->alloc, &o->work);
    if (status != MT_OK) return status;
    s->pace = (mt_pace){.left = s->work.total, .chunk = 1};
    s->nodes = mti_get_zeroed(s->alloc, s->n_ranks, sizeof(node));
    s->levels = mti_get_zeroed(s->alloc, s->n_levels, sizeof(mt_sim_level));
    s->line = mti_get_zeroed(s->alloc, s->n_ranks + 1u, sizeof *s->line);
    if (s->line == NULL || s->nodes == NULL || s->levels == NULL) return MT_E_NOMEM;
    for (uint32_t rank = 0; rank < s->n_ranks && status == MT_OK; rank++) status = build_node(s, rank);
    if (status != MT_OK) return status;
    mt_blob *function = mt_blob_new(s->alloc, FUNCTION_BYTES);
    if (function == NULL) return MT_E_NOMEM;
    memset(function->data, 0, FUNCTION_BYTES);
    status = mt_engine_add_object(s->nodes[0].engine, FUNCTION, function, MT_CODEC_PICKLE);
    mt_blob_unref(function);
    return status;
}

static bool is_sound(const mt_sim_options *o) {
    bool tree = o->nodes > 0 && o->nodes < UINT32_MAX / 2 && o->per_node > 0 && o->fanout > 0;
    bool workers = tree && o->workers > (uint64_t)(o->nodes - 1) * o->per_node && o->workers <= (uint64_t)o->nodes * o->per_node;
    bool script = o->submits_range == 0 || !mti_workload_has_edges(&o->work);
    return workers && script && o->frame_bytes >= 256 && o->frame_bytes <= 1u << 30 && o->inbox > 0 && o->jitter_ppm < (uint64_t)1 << 31;
}

int mt_sim_new(const mt_alloc *alloc, const mt_sim_options *options, mt_sim **out_sim) {
    if (!is_sound(options)) return MT_E_INVAL;
    mt_sim *s = mti_get_zeroed(alloc, 1, sizeof *s);
    if (s == NULL) return MT_E_NOMEM;
    s->alloc = alloc;
    s->options = *options;
    s->random = mti_draw_start(options->seed);
    s->n_ranks = options->nodes + 1;
    s->n_levels = mt_sim_depth(options->nodes, options->fanout) + 1;
    s->running.width_ns = 1;
    int status = build(s);
    if (status != MT_OK) {
        mt_sim_destroy(s);
        return status;
    }
    *out_sim = s;
    return MT_OK;
}

static void drop_arrived(mt_sim *s, node *x) {
    while (x->arrived != NULL) {
        parcel *p = x->arrived;
        x->arrived = p->next;
        mt_put(s->alloc, p);
    }
    x->n_arrived = 0;
}

/* What a rank that dies leaves to nobody. */
static void clear_node(mt_sim *s, node *x) {
    mt_engine_destroy(x->engine);
    x->engine = NULL;
    for (uint32_t i = 0; x->banks != NULL && i < x->n_banks; i++) mti_bank_destroy(x->banks[i]);
    for (uint32_t i = 0; x->children != NULL && i < x->n_children; i++) {
        mti_link_clean_up(&x->children[i].link.base);
        mt_put(s->alloc, x->children[i].link.frame);
        mti_joiner_clean_up(&x->children[i].joiner);
    }
    mti_link_clean_up(&x->up.base);
    mt_put(s->alloc, x->up.frame);
    mti_joiner_clean_up(&x->joiner);
    drop_arrived(s, x);
    while (x->losses != NULL) {
        loss *first = x->losses;
        x->losses = first->next;
        mt_put(s->alloc, first);
    }
    mt_put(s->alloc, x->banks);
    mt_put(s->alloc, x->due_ns);
    mt_put(s->alloc, x->got);
    mt_put(s->alloc, x->children);
    x->banks = NULL;
    x->due_ns = NULL;
    x->got = NULL;
    x->children = NULL;
    x->up.frame = NULL;
    x->n_banks = x->n_children = 0;
}

void mt_sim_destroy(mt_sim *s) {
    if (s == NULL) return;
    for (uint32_t i = 0; s->nodes != NULL && i < s->n_ranks; i++) {
        if (s->nodes[i].transport.sim != NULL) clear_node(s, &s->nodes[i]);
    }
    mti_script_clean_up(s);
    for (uint64_t i = 0; i < s->heap_size; i++) mt_put(s->alloc, s->heap[i].parcel);
    while (s->leaving != NULL) {
        parcel *p = s->leaving;
        s->leaving = p->next;
        mt_put(s->alloc, p);
    }
    while (s->blanks != NULL) {
        blank *b = s->blanks;
        s->blanks = b->next;
        mt_put(s->alloc, b);
    }
    mt_put(s->alloc, s->heap);
    mt_put(s->alloc, s->line);
    mt_put(s->alloc, s->deaths);
    mt_put(s->alloc, s->levels);
    mt_put(s->alloc, s->nodes);
    mt_put(s->alloc, s);
}

/* ---- what happens ---- */

static int on_frame(mt_sim *s, parcel *p, uint64_t now_ns) {
    node *from = &s->nodes[p->from], *x = &s->nodes[p->to];
    from->under_way--;
    int status = MT_OK;
    if (from->engine != NULL && from->has_backlog && s->options.sends > 0) status = mti_sim_wake(s, p->from, mti_sim_look(s, from, now_ns, false));
    if (x->engine == NULL) {
        mt_put(s->alloc, p);
        return status;
    }
    p->arrived_ns = now_ns;
    if (x->arrived == NULL) {
        x->arrived = p;
    } else {
        x->last_arrived->next = p;
    }
    x->last_arrived = p;
    x->n_arrived++;
    mt_sim_level *level = &s->levels[x->depth];
    if (x->n_arrived > level->max_queue) level->max_queue = x->n_arrived;
    return status == MT_OK ? mti_sim_wake(s, p->to, mti_sim_look(s, x, now_ns, false)) : status;
}

static int tell_loss(mt_sim *s, uint32_t rank, loss what) {
    node *x = &s->nodes[rank];
    if (x->engine == NULL) return MT_OK;
    loss *kept = mt_get(s->alloc, sizeof *kept);
    if (kept == NULL) return MT_E_NOMEM;
    *kept = what;
    loss **end = &x->losses;
    while (*end != NULL) end = &(*end)->next;
    *end = kept;
    return mti_sim_wake(s, rank, mti_sim_look(s, x, what.at_ns, true));
}

static int on_death(mt_sim *s, uint32_t rank, uint32_t worker, uint64_t now_ns) {
    node *x = &s->nodes[rank];
    if (x->engine == NULL) return MT_OK;
    if (worker != NO_WORKER) {
        s->workers_killed++;
        return tell_loss(s, rank, (loss){.at_ns = now_ns, .worker = worker});
    }
    for (uint32_t r = rank; r < s->n_ranks; r++) { /* parents come before their children */
        node *below = &s->nodes[r];
        if (below->engine == NULL || (r != rank && s->nodes[below->parent].engine != NULL)) continue;
        for (uint32_t i = 0; i < below->n_banks; i++) (void)mti_bank_kill(below->banks[i], now_ns);
        s->lost += mt_engine_stats_now(below->engine).lost;
        clear_node(s, below);
        s->nodes_killed++;
    }
    uint32_t place = rank - s->nodes[x->parent].first_child;
    return mti_sim_post(s, (event){.at_ns = now_ns + s->options.detect_ns, .rank = x->parent, .detail = place, .kind = EVENT_LOSS});
}

static int happen(mt_sim *s, const event *e) {
    if (e->kind == EVENT_CORE) return mti_cores_on_free(s, e->rank, e->at_ns);
    node *x = &s->nodes[e->rank];
    switch ((enum event_kind)e->kind) {
        case EVENT_STEP:
            if (x->engine == NULL || x->wake_at_ns != e->at_ns) return MT_OK; /* out of date */
            return s->options.cores > 0 ? mti_cores_want(s, e->rank, e->at_ns) : mti_sim_step(s, x, e->at_ns);
        case EVENT_FRAME: return on_frame(s, e->parcel, e->at_ns);
        case EVENT_DEATH: return on_death(s, e->rank, e->detail, e->at_ns);
        case EVENT_LOSS: return tell_loss(s, e->rank, (loss){.at_ns = e->at_ns, .worker = NO_WORKER, .child = e->detail});
        case EVENT_CORE: break;
    }
    return MT_E_INVAL;
}

int mt_sim_run(mt_sim *s, uint64_t events) {
    for (uint64_t i = 0; i < events; i++) {
        if (s->has_ended && !s->is_settling) return 0;
        if (s->heap_size == 0) return s->has_ended ? 0 : MT_E_STALE;
        event e = next_event(s);
        s->n_events++;
        int status = happen(s, &e);
        if (status != MT_OK) return status;
    }
    return 1;
}

int mt_sim_settle(mt_sim *s) {
    if (!s->has_ended) return MT_E_INVAL;
    s->is_settling = true;
    mti_script_clean_up(s);
    mt_engine_drop_object(s->nodes[0].engine, FUNCTION);
    int status = mti_sim_wake(s, 0, s->nodes[0].busy_until_ns);
    return status == MT_OK ? mt_sim_run(s, NEVER) : status;
}

static int add_death(mt_sim *s, death d) {
    if (s->has_started || d.rank == 0 || d.rank >= s->n_ranks) return MT_E_INVAL;
    int status = mti_grow(s->alloc, (void **)&s->deaths, s->n_deaths, &s->death_capacity, s->n_deaths + 1, sizeof d);
    if (status != MT_OK) return status;
    s->deaths[s->n_deaths++] = d;
    return MT_OK;
}

int mt_sim_kill_node(mt_sim *s, uint32_t rank, uint64_t after_ns) { return add_death(s, (death){rank, NO_WORKER, after_ns}); }

int mt_sim_kill_worker(mt_sim *s, uint32_t rank, uint32_t worker, uint64_t after_ns) {
    if (s->options.one_bank != 0 || rank >= s->n_ranks || worker >= s->nodes[rank].workers) return MT_E_INVAL;
    return add_death(s, (death){rank, worker, after_ns});
}

/* ---- answers ---- */

uint64_t mt_sim_residue(const mt_sim *s) {
    uint64_t residue = s->heap_size;
    for (uint32_t rank = 0; rank < s->n_ranks; rank++) {
        const node *x = &s->nodes[rank];
        if (x->engine == NULL) continue;
        mt_engine_stats stats = mt_engine_stats_now(x->engine);
        residue += stats.outstanding + stats.objects + x->n_arrived + x->up.base.backlog_bytes;
        for (uint32_t i = 0; i < x->n_banks; i++) residue += mti_bank_waiting(x->banks[i]) + mti_bank_running(x->banks[i]);
        for (uint32_t i = 0; i < x->n_children; i++) residue += x->children[i].link.base.backlog_bytes;
    }
    return residue;
}

int mt_sim_check(const mt_sim *s) {
    int status = MT_OK;
    for (uint32_t rank = 0; rank < s->n_ranks && status == MT_OK; rank++) {
        if (s->nodes[rank].engine != NULL) status = mti_sim_check_node(&s->nodes[rank]);
    }
    return status;
}

void mt_sim_result_now(const mt_sim *s, mt_sim_result *out) {
    mt_engine_stats stats = mt_engine_stats_now(s->nodes[0].engine);
    mt_graph_counts ended = stats.graph;
    if (s->options.submits_range != 0) ended = (mt_graph_counts){.done = s->items.done, .failed = s->items.failed, .cancelled = s->items.cancelled};
    *out = (mt_sim_result){.start_ns = s->start_ns,
                           .end_ns = s->end_ns,
                           .slots_ns = s->slots_ns,
                           .submitted = s->work.made,
                           .done = ended.done,
                           .failed = ended.failed,
                           .dependency_failed = ended.dependency_failed,
                           .cancelled = ended.cancelled,
                           .outstanding = stats.outstanding,
                           .work_ns = s->work.work_ns,
                           .useful_ns = s->useful_ns,
                           .runs = s->runs,
                           .lost = s->lost,
                           .stale_results = stats.stale_results,
                           .nodes_killed = s->nodes_killed,
                           .workers_killed = s->workers_killed,
                           .slots = stats.slots,
                           .events = s->n_events,
                           .script_blocked_ns = s->script_blocked_ns,
                           .most_outstanding = s->most_outstanding,
                           .levels = s->n_levels,
                           .is_hopeless = s->is_hopeless,
                           .bucket_ns = s->running.width_ns};
    for (uint32_t rank = 0; rank < s->n_ranks; rank++) {
        if (s->nodes[rank].engine != NULL) out->lost += mt_engine_stats_now(s->nodes[rank].engine).lost;
    }
    double sum = 0;
    for (uint32_t i = 0; i < MT_SIM_BUCKETS; i++) {
        out->running[i] = sum + s->running.within[i];
        sum += s->running.after[i];
    }
}

mt_sim_level mt_sim_level_now(const mt_sim *s, uint32_t level) {
    if (level >= s->n_levels) return (mt_sim_level){0};
    mt_sim_level found = s->levels[level];
    for (uint32_t rank = 0; rank < s->n_ranks; rank++) {
        const node *x = &s->nodes[rank];
        if (x->depth == level && x->cpu_ns > found.busiest_ns) found.busiest_ns = x->cpu_ns;
    }
    return found;
}
