/* What a rank does in one step. */
#include "sim_inner.h"

#include <string.h>

#include "draw.h"

static int start(mt_sim *s, uint64_t now_ns) {
    s->has_started = true;
    s->start_ns = s->script_next_ns = s->running.start_ns = now_ns;
    for (uint32_t i = 0; i < s->n_levels; i++) {
        s->levels[i] = (mt_sim_level){.ranks = s->levels[i].ranks, .workers = s->levels[i].workers};
    }
    for (uint32_t rank = 0; rank < s->n_ranks; rank++) s->nodes[rank].cpu_ns = 0;
    int status = MT_OK;
    for (uint64_t i = 0; i < s->n_deaths && status == MT_OK; i++) {
        const death *d = &s->deaths[i];
        status = mti_sim_post(s, (event){.at_ns = now_ns + d->after_ns, .rank = d->rank, .detail = d->worker, .kind = EVENT_DEATH});
    }
    const mt_sim_options *o = &s->options;
    bool shares = o->cores > 0 && o->submits_range == 0 && o->submit_call_ns > 0 && s->work.total > 0;
    s->script_until_ns = shares ? now_ns : NEVER;
    return shares && status == MT_OK ? mti_cores_want(s, SCRIPT, now_ns) : status;
}

/* ---- one step of a rank ---- */

/* A lane of many slots is looked at as by the driver, which naps until then. */
static uint64_t due_ns(const mt_sim *s, const mt_bank *bank) {
    if (s->options.one_bank == 0) return mti_bank_due_ns(bank);
    uint64_t wake_ns = mti_bank_wake_ns(bank);
    return wake_ns == 0 || wake_ns == NEVER ? wake_ns : wake_ns + s->options.nap_late_ns;
}

static int look_at_banks(mt_sim *s, node *x, uint64_t now_ns) {
    if (x->next_due_ns > now_ns) return MT_OK;
    uint64_t n = 0, next_ns = NEVER;
    int status = MT_OK;
    for (uint32_t i = 0; i < x->n_banks && status == MT_OK; i++) {
        if (x->due_ns[i] <= now_ns) {
            status = mti_bank_step(x->banks[i], x->engine, x->first_bank + i, now_ns, &n);
            x->due_ns[i] = due_ns(s, x->banks[i]);
        }
        if (x->due_ns[i] < next_ns) next_ns = x->due_ns[i];
    }
    x->next_due_ns = next_ns;
    if (s->has_started) s->runs += n;
    return status;
}

static int take_record(mt_sim *s, node *x, child *from, const mt_incoming *incoming, deeds *did) {
    if (from == NULL) {
        mt_rec rec;
        memcpy(&rec, incoming->data, sizeof rec);
        did->tasks_in += rec.kind == MT_KIND_TASK;
        return mt_engine_from_parent(x->engine, incoming);
    }
    if (x == s->nodes) {
        mt_rec_result result;
        memcpy(&result.rec, incoming->data, sizeof result.rec);
        if (s->options.submits_range == 0 && result.rec.kind == MT_KIND_RESULT && result.rec.n == MT_OUTCOME_OK && incoming->size >= sizeof result) {
            memcpy(&result, incoming->data, sizeof result);
            s->useful_ns += result.duration_ns;
        }
    }
    return mt_engine_from_lane(x->engine, from->lane, incoming);
}

static int take_frame(mt_sim *s, node *x, const parcel *p, deeds *did) {
    bool is_from_parent = x != s->nodes && p->from == x->parent;
    child *from = is_from_parent ? NULL : &x->children[p->from - x->first_child];
    if (from != NULL && from->is_lost) return MT_OK;
    mt_frame_reader reader;
    int status = mti_frame_open(&reader, p->data, p->size);
    while (status == MT_OK) {
        mt_incoming incoming;
        status = mti_frame_next(&reader, from == NULL ? &x->joiner : &from->joiner, &incoming);
        if (status == MT_OK) status = take_record(s, x, from, &incoming, did);
    }
    return status == MT_E_AGAIN ? MT_OK : status;
}

static int take_frames(mt_sim *s, node *x, uint64_t now_ns, deeds *did) {
    int status = MT_OK;
    for (uint32_t i = 0; i < FRAMES_AT_A_TIME && x->arrived != NULL && status == MT_OK; i++) {
        parcel *p = x->arrived;
        x->arrived = p->next;
        x->n_arrived--;
        s->levels[x->depth].waited_ns += now_ns - p->arrived_ns;
        did->frames_in++;
        did->bytes_in += p->size;
        status = take_frame(s, x, p, did);
        mt_put(s->alloc, p);
    }
    return status;
}

static int take_loss(node *x, const loss *what) {
    if (what->worker == NO_WORKER) {
        child *c = &x->children[what->child];
        mt_lost why = {0, -1, MT_LOST_RANK};
        c->is_lost = true;
        mti_joiner_clean_up(&c->joiner);
        return mt_engine_lane_lost(x->engine, c->lane, &why, UINT64_MAX);
    }
    uint32_t lane = x->first_bank + what->worker;
    uint64_t at_ns = what->at_ns > x->busy_until_ns ? what->at_ns : x->busy_until_ns, n = 0;
    int status = mti_bank_step(x->banks[what->worker], x->engine, lane, at_ns, &n); /* what it published still counts */
    if (status != MT_OK) return status;
    mt_lost why = {1, 9, MT_LOST_WORKER};
    status = mt_engine_lane_lost(x->engine, lane, &why, mti_bank_kill(x->banks[what->worker], at_ns));
    x->due_ns[what->worker] = x->next_due_ns = 0;
    return status;
}

/* Deaths of workers come before a look at the workers, those of children after their frames. */
static int take_losses(mt_sim *s, node *x, bool of_workers) {
    loss **at = &x->losses;
    int status = MT_OK;
    while (*at != NULL && status == MT_OK) {
        loss *what = *at;
        bool is_due = (what->worker != NO_WORKER) == of_workers && (of_workers || x->arrived == NULL);
        if (!is_due) {
            at = &what->next;
            continue;
        }
        *at = what->next;
        status = take_loss(x, what);
        mt_put(s->alloc, what);
    }
    return status;
}

/* The root without workers gives the rest up, as its driver does. */
static int tell_slots(mt_sim *s, node *x, uint32_t slots, uint64_t now_ns) {
    if (x != s->nodes) {
        if (slots == x->said_slots) return MT_OK;
        x->said_slots = slots;
        return mt_engine_say_slots(x->engine, slots);
    }
    if (s->slots_ns == 0 && slots == s->options.workers) s->slots_ns = now_ns;
    if (!s->has_started && (s->slots_ns != 0 || s->options.start_at_once != 0)) return start(s, now_ns);
    if (!mt_engine_is_hopeless(x->engine)) return MT_OK;
    s->is_hopeless = true;
    mti_script_give_up(s);
    mt_engine_abandon(x->engine);
    return MT_OK;
}

static int pump(node *x, mt_frame_link *link) {
    uint64_t moved = 0;
    if (link->frame == NULL && link->base.first == NULL) return MT_OK;
    int status = mti_link_pump(&link->base, &moved);
    x->has_backlog = x->has_backlog || link->base.first != NULL;
    return status;
}

static int send_frames(mt_sim *s, node *x, deeds *did) {
    x->has_backlog = false;
    int status = MT_OK;
    for (uint32_t i = 0; i < x->n_children && status == MT_OK; i++) status = pump(x, &x->children[i].link);
    if (status == MT_OK && x != s->nodes) status = pump(x, &x->up);
    for (const parcel *p = s->leaving; p != NULL; p = p->next) {
        did->frames_out++;
        did->bytes_out += p->size;
    }
    return status;
}

/* Each task that begins at once wakes its worker. */
static void count_woken(node *x, deeds *did) {
    x->n_got = 0;
    for (uint32_t i; mti_bank_list_take(&x->got_list, &i);) {
        x->got[x->n_got++] = i;
        uint64_t waiting = mti_bank_waiting(x->banks[i]);
        uint64_t idle = x->slots - mti_bank_running(x->banks[i]);
        did->woken += waiting < idle ? waiting : idle;
    }
}

static void begin_tasks(const mt_sim *s, node *x, uint64_t now_ns) {
    for (uint32_t k = 0; k < x->n_got; k++) {
        uint32_t i = x->got[k];
        mti_bank_begin(x->banks[i], now_ns);
        x->due_ns[i] = due_ns(s, x->banks[i]);
        if (x->due_ns[i] < x->next_due_ns) x->next_due_ns = x->due_ns[i];
    }
}

static bool found_nothing(const deeds *d) {
    return d->frames_in + d->frames_out + d->submitted + d->tasks_in + d->tasks_out + d->results_in == 0;
}

static uint64_t price_ns(mt_sim *s, node *x, const deeds *d, bool has_slept) {
    const mt_sim_costs *c = &s->options.costs;
    bool is_root = x == s->nodes;
    uint64_t step = c->step + c->lane * (x->n_children + x->n_banks + (is_root ? 0 : 1));
    uint64_t frames = d->frames_in * c->frame_in + d->bytes_in * c->byte_in + d->frames_out * c->frame_out + d->bytes_out * c->byte_out;
    bool is_range = s->options.submits_range != 0;
    uint64_t out = is_root ? c->assign : is_range ? c->cut : c->forward, in = is_root ? c->end : is_range ? c->collect : c->result;
    uint64_t tasks = d->submitted * c->submit + d->edges * c->edge + d->tasks_in * c->take + d->tasks_out * out + d->results_in * in + d->woken * c->wake;
    tasks += d->joined_bytes * c->byte_join;
    if (has_slept) step = found_nothing(d) ? c->nap : step + c->nap;
    uint64_t cpu_ns = (step + frames + tasks + 999) / 1000;
    mt_sim_level *level = &s->levels[x->depth];
    level->steps++;
    level->frames_in += d->frames_in;
    level->frames_out += d->frames_out;
    level->bytes_in += d->bytes_in;
    level->bytes_out += d->bytes_out;
    level->tasks_in += is_root ? d->submitted : d->tasks_in;
    level->tasks_out += d->tasks_out;
    level->results_in += d->results_in;
    level->cpu_ns += cpu_ns;
    level->cpu_tasks_ns += tasks / 1000;
    level->cpu_frames_ns += frames / 1000;
    x->cpu_ns += cpu_ns;
    return cpu_ns;
}

/* What the step has sent leaves at its end, one frame after the other. */
static int ship(mt_sim *s, node *x, uint64_t now_ns) {
    const mt_sim_options *o = &s->options;
    while (s->leaving != NULL) {
        parcel *p = s->leaving;
        bool is_up = x != s->nodes && p->to == x->parent;
        child *wire = is_up ? &s->nodes[p->to].children[p->from - s->nodes[p->to].first_child] : &x->children[p->to - x->first_child];
        uint64_t *last_ns = is_up ? &wire->last_up_ns : &wire->last_down_ns;
        if (x->line_free_ns < now_ns) x->line_free_ns = now_ns;
        x->line_free_ns += p->size * o->byte_ps / 1000;
        uint64_t latency_ns = o->latency_ns;
        if (o->jitter_ppm > 0) latency_ns += latency_ns * mti_draw(&s->random, o->jitter_ppm + 1) / MILLION;
        uint64_t at_ns = x->line_free_ns + latency_ns;
        if (at_ns < *last_ns) at_ns = *last_ns;
        *last_ns = at_ns;
        s->levels[x->depth].flight_ns += at_ns - now_ns;
        int status = mti_sim_post(s, (event){.at_ns = at_ns, .parcel = p, .rank = p->to, .kind = EVENT_FRAME});
        if (status != MT_OK) return status;
        s->leaving = p->next;
        p->next = NULL;
    }
    return MT_OK;
}

/* As naps() in driver.c: while lanes have work, or the script does not wait yet. */
static uint64_t nap_length(const mt_sim *s, const node *x) {
    uint64_t ahead_ns = mt_engine_least_ahead_ns(x->engine);
    if (!mti_script_is_submitting(s) && !mti_are_fed(mt_engine_least_load_ns(x->engine), ahead_ns)) return 0;
    return mti_nap_ns(x->under_way > 0 ? 0 : ahead_ns);
}

/* When the rank will have something to do, as far as it is known now. */
static int plan(mt_sim *s, node *x) {
    uint32_t rank = x->transport.rank;
    uint64_t done_ns = x->busy_until_ns;
    if (x->arrived != NULL || x->losses != NULL) return mti_sim_wake(s, rank, done_ns);
    if (s->options.naps != 0) x->nap_ns = nap_length(s, x);
    uint64_t due_ns = rank == 0 ? mti_script_due_ns(s) : x->n_banks > 0 ? x->next_due_ns : NEVER;
    int status = due_ns == NEVER ? MT_OK : mti_sim_wake(s, rank, mti_sim_look(s, x, due_ns, true));
    uint64_t behind_ns = mt_engine_due_ns(x->engine);
    if (behind_ns != NEVER && status == MT_OK) status = mti_sim_wake(s, rank, behind_ns > done_ns ? behind_ns : done_ns);
    bool is_full = s->options.sends > 0 && x->under_way >= s->options.sends; /* then the next arrival wakes it */
    if (status == MT_OK && x->has_backlog && !is_full) status = mti_sim_wake(s, rank, done_ns + MTI_FIRST_POLL_NS);
    bool looks = s->options.cores > 0 && s->options.naps != 0 && !s->is_settling; /* in vain, too: that takes a core from others */
    return looks && status == MT_OK ? mti_sim_wake(s, rank, mti_sim_next_look(s, x)) : status;
}

int mti_sim_check_node(const node *x) {
    int status = mt_engine_check(x->engine);
    for (uint32_t i = 0; i < x->n_banks && status == MT_OK; i++) status = mti_bank_check(x->banks[i]);
    return status;
}

/* The engine's own calls of one step, in the order of driver.c. */
static int run_engine(mt_sim *s, node *x, uint64_t now_ns, deeds *did) {
    int status = x == s->nodes ? mti_script_submit(s, x, now_ns, did) : MT_OK;
    if (status == MT_OK) status = take_losses(s, x, true);
    if (status == MT_OK) status = look_at_banks(s, x, now_ns);
    if (status == MT_OK) status = take_frames(s, x, now_ns, did);
    if (status == MT_OK) status = take_losses(s, x, false);
    if (status == MT_OK) status = mt_engine_dispatch(x->engine, now_ns, &did->tasks_out);
    mt_engine_stats stats = mt_engine_stats_now(x->engine);
    did->results_in = stats.results - x->results;
    x->results = stats.results;
    did->joined_bytes = stats.joined_bytes - x->joined_bytes;
    x->joined_bytes = stats.joined_bytes;
    if (status == MT_OK) status = tell_slots(s, x, stats.slots, now_ns);
    return status == MT_OK ? send_frames(s, x, did) : status;
}

int mti_sim_step(mt_sim *s, node *x, uint64_t now_ns) {
    deeds did = {0};
    x->wake_at_ns = NEVER;
    int status = run_engine(s, x, now_ns, &did);
    if (status != MT_OK) return status;
    count_woken(x, &did);
    bool shares = s->options.cores > 0;
    x->busy_until_ns = now_ns + price_ns(s, x, &did, shares && now_ns > x->busy_until_ns);
    if (!shares || !found_nothing(&did)) x->idle_ns = x->busy_until_ns;
    begin_tasks(s, x, x->busy_until_ns);
    status = ship(s, x, x->busy_until_ns);
    if (x == s->nodes) mti_script_look(s, x->busy_until_ns);
    if (status == MT_OK) status = plan(s, x);
    if (status == MT_OK && s->options.check != 0) status = mti_sim_check_node(x);
    return status;
}
