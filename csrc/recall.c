/* Jobs that have not begun come back from a lane that is behind. */
#include "engine_inner.h"

#include <string.h>

/* Jobs are taken back from a lane that has this much work for each slot, or has not answered for so long, while others starve. Less would not
 * pay: taking a job back costs as much as sending it. */
#define RECALL_LOAD_NS 1000000u
#define OVERDUE_NS 2000000u
/* A lane that has not answered for so long, and for so many times what its oldest job should take, is stuck: what lies behind that job comes
 * back although nobody starves, for who is free next would begin something younger. */
#define STUCK_NS 20000000u
#define STUCK_TIMES 2u
/* A child is silent about idle slots for so long, and for so much of the time of an item: when all slots end at about the same time, tasks for them are
 * under way, and what was sent in addition would wait. */
#define HUNGRY_NS 2000000u
#define HUNGRY_SHARE 64u
/* Who can give nothing back is asked less and less often: else a child that has cut all it has is asked again with each of its answers. */
#define SHORT_PATIENCE_NS 100000u
#define LONG_PATIENCE_NS 50000000u

/* To where it was in the queue. */
static int put_back(mt_engine *e, mt_job *job) {
    mt_assignment booking = mti_engine_booking_of(job);
    mti_engine_lane_remove(e, &e->lanes[job->lane], job);
    mt_sched_return(e->sched, &booking);
    if (job->kind == JOB_PART) return mti_engine_put_back_part(e, part_of(job));
    uint32_t origin = origin_of(job);
    if (job->kind == JOB_TASK) {
        mt_graph_unassign(e->graph, task_of(job));
    } else if (origin == NO_LANE) {
        mti_engine_drop_orphan(e, job);
        return MT_OK;
    }
    return mti_engine_push(e, job, job->bytes_booked);
}

int mti_engine_put_back_after(mt_engine *e, uint32_t lane_index, uint64_t started) {
    lane *l = &e->lanes[lane_index];
    /* Fewer than have been answered: the count was written over, and all may have begun. */
    uint64_t begun = started >= l->finished ? started - l->finished : UINT64_MAX;
    int status = MT_OK;
    for (uint64_t n = mt_sched_booked(e->sched, lane_index); n > begun && status == MT_OK; n--) {
        status = put_back(e, job_at(e, l->last_job)); /* the oldest is put in front last */
    }
    l->lowest = INT32_MAX;
    l->overtaking = NOBODY;
    return status;
}

/* Asks a child, or takes at once what has not begun. */
static int recall_from(mt_engine *e, uint32_t lane_index, uint64_t n, int64_t floor, int64_t below, uint32_t on_behalf) {
    lane *l = &e->lanes[lane_index];
    l->recalled_ns = e->now_ns;
    if (l->link->recall != NULL) {
        uint64_t started;
        uint64_t before = mt_sched_booked(e->sched, lane_index);
        int status = l->link->recall(l->link, false, &started);
        if (status == MT_OK) status = mti_engine_put_back_after(e, lane_index, started);
        e->recalled += before - mt_sched_booked(e->sched, lane_index);
        return status;
    }
    l->recalling = true;
    l->recalling_for = on_behalf;
    l->recall_below = below;
    if (on_behalf != NO_LANE) e->lanes[on_behalf].asked++;
    mt_rec_recall rec = {{sizeof rec, 0, MT_KIND_RECALL, 0, n < UINT32_MAX ? (uint32_t)n : UINT32_MAX}, floor, below};
    mt_part part = {&rec, sizeof rec};
    return mti_link_send(l->link, &part, 1, NULL);
}

/* Jobs of a lane that may not have begun. */
static uint64_t excess(const mt_engine *e, uint32_t lane_index) {
    return lane_index == e->up ? mt_sched_booked(e->sched, lane_index) : mt_sched_excess(e->sched, lane_index);
}

static bool may_recall(const mt_engine *e, uint32_t lane_index, int64_t below) {
    const lane *l = &e->lanes[lane_index];
    return l->up && !l->closed && !l->recalling && l->lowest < below && excess(e, lane_index) > 0;
}

/* Whether jobs that `origin` can have back are among those of a lane. Without sub-tasks the only origin is the parent. */
static bool has_jobs_from(const mt_engine *e, uint32_t lane_index, uint32_t origin) {
    for (uint32_t at = e->lanes[lane_index].last_job; at != NO_JOB; at = job_at(e, at)->before) {
        if (origin_of(job_at(e, at)) == origin && is_returnable(job_at(e, at))) return true;
    }
    return false;
}

static int give_up(mt_engine *e, mt_job *job, lane *to) {
    uint64_t units = 1;
    ending how = {.head = {.rec = {.n = MT_OUTCOME_RETURNED}}};
    int status = job->kind == JOB_PART ? mti_engine_give_up_part(e, part_of(job), to->owed, &units) : mti_engine_end_job(e, job, &how);
    to->owed -= units;
    to->given += (uint32_t)units;
    return status;
}

/* The oldest: who asks has slots for them, and what is younger may take long. */
static int give_up_ready(mt_engine *e, uint32_t origin) {
    lane *to = &e->lanes[origin];
    int status = MT_OK;
    uint64_t key;
    while (to->owed > 0 && status == MT_OK &&
           mt_sched_take(e->sched, origin, to->owed_floor, to->owed_below, &key) == MT_OK) {
        mt_job *job = mt_table_find(e->jobs, key);
        if (job != NULL) status = give_up(e, job, to);
    }
    return status;
}

static int say_recalled(lane *to) {
    to->owed = 0;
    return to->up ? mti_engine_send_head(to->link, MT_KIND_RECALLED, 0, to->given) : MT_OK;
}

/* A lane wants jobs back: first those that are queued here, then those that workers have not begun, then those that ranks may have. */
int mti_engine_on_recall(mt_engine *e, uint32_t origin, const mt_incoming *incoming) {
    mt_rec_recall rec;
    memcpy(&rec, incoming->data, sizeof rec);
    uint32_t n = rec.rec.n;
    int64_t below = rec.below;
    lane *to = &e->lanes[origin];
    if (to->asked > 0) return MT_E_RECORD; /* it has not been answered yet */
    to->owed = n;
    to->given = 0;
    to->owed_floor = rec.floor;
    to->owed_below = below;
    int status = give_up_ready(e, origin);
    for (uint32_t i = 0; i < e->n_lanes && to->owed > 0 && status == MT_OK; i++) {
        if (e->lanes[i].link->recall == NULL || !may_recall(e, i, below) || !has_jobs_from(e, i, origin)) continue;
        status = recall_from(e, i, UINT64_MAX, rec.floor, below, origin);
        if (status == MT_OK) status = give_up_ready(e, origin);
    }
    for (uint32_t i = 0, left = n; i < e->n_lanes && to->owed > 0 && left > 0 && status == MT_OK; i++) {
        if (e->lanes[i].link->recall != NULL || !may_recall(e, i, below) || !has_jobs_from(e, i, origin)) continue;
        uint64_t wanted = excess(e, i);
        if (origin == e->up) { /* all that may come back are its: no more than it wants */
            if (wanted > to->owed) wanted = to->owed;
            left = wanted < left ? left - (uint32_t)wanted : 0;
        }
        status = recall_from(e, i, wanted, rec.floor, below, origin);
    }
    return status == MT_OK && to->asked == 0 ? say_recalled(to) : status;
}

int mti_engine_come_back(mt_engine *e, mt_job *job, const mt_part *value) {
    e->recalled++;
    uint32_t origin = origin_of(job);
    int status;
    if (value->size == 0) {
        status = put_back(e, job);
    } else {
        uint64_t items;
        if (job->kind != JOB_PART) return MT_E_RECORD;
        memcpy(&items, value->data, sizeof items);
        status = mti_engine_shorten_part(e, part_of(job), items);
    }
    return status == MT_OK && origin != NO_LANE ? give_up_ready(e, origin) : status;
}

int mti_engine_on_recalled(mt_engine *e, lane *l, uint32_t n) {
    if (!l->recalling) return MT_E_RECORD;
    l->recalling = false;
    l->patience_ns = n > 0 ? 0 : l->patience_ns == 0 ? SHORT_PATIENCE_NS : 2 * l->patience_ns;
    if (l->patience_ns > LONG_PATIENCE_NS) l->patience_ns = LONG_PATIENCE_NS;
    if (l->role != MT_ROLE_PARENT && n == 0 && l->recall_below < ANY_PRIORITY && l->lowest < l->recall_below) {
        l->lowest = (int32_t)l->recall_below;
    }
    if (l->recalling_for == NO_LANE) return MT_OK;
    lane *wanted_by = &e->lanes[l->recalling_for];
    l->recalling_for = NO_LANE;
    return --wanted_by->asked == 0 ? say_recalled(wanted_by) : MT_OK;
}

int mti_engine_end_recalls(mt_engine *e, uint32_t lane_index) {
    lane *l = &e->lanes[lane_index];
    l->owed = l->asked = 0;
    for (uint32_t i = 0; i < e->n_lanes; i++) {
        if (e->lanes[i].recalling_for == lane_index) e->lanes[i].recalling_for = NO_LANE;
    }
    return l->recalling ? mti_engine_on_recalled(e, l, 0) : MT_OK;
}

int mti_engine_on_worker_slots(mt_engine *e, uint32_t lane_index, const mt_rec *rec) {
    lane *l = &e->lanes[lane_index];
    int64_t floor = (int64_t)rec->id;
    if (floor < INT32_MIN || floor > INT32_MAX) return MT_E_RECORD;
    int status = MT_OK;
    if (rec->n < mt_sched_lane_slots(e->sched, lane_index) && l->link->recall != NULL) {
        uint64_t begun;
        status = l->link->recall(l->link, true, &begun);
        if (status == MT_OK) status = mti_engine_put_back_after(e, lane_index, begun);
    }
    l->closed = rec->n == 0;
    mt_sched_set_floor(e->sched, lane_index, (int32_t)floor);
    mt_sched_set_slots(e->sched, lane_index, rec->n);
    return status;
}

static void be_called_at(mt_engine *e, uint64_t at_ns) {
    if (at_ns < e->due_ns) e->due_ns = at_ns;
}

/* How long to be silent; 0: for ever. */
static uint64_t hungry_after_ns(const mt_engine *e) {
    uint64_t after_ns = 0;
    for (const mt_node *node = e->spans.next; node != &e->spans; node = node->next) {
        const span *s = (const span *)(const void *)node;
        if (s->whole->kind != JOB_ERRAND || origin_of(s->whole) != e->up) continue;
        uint64_t share_ns = mt_sched_expect(e->sched, s->parts->job.class_index) / HUNGRY_SHARE;
        if (after_ns < HUNGRY_NS) after_ns = HUNGRY_NS;
        if (after_ns < share_ns) after_ns = share_ns;
    }
    return after_ns;
}

int mti_engine_say_idle(mt_engine *e) {
    if (e->up == NO_LANE) return MT_OK;
    bool may_starve = e->spans.next != &e->spans && mt_sched_ready(e->sched) == 0;
    uint64_t idle = may_starve ? mt_sched_idle(e->sched) : 0;
    uint64_t after_ns = idle > e->said_idle ? hungry_after_ns(e) : 0;
    if (after_ns == 0) {
        e->idle_since_ns = 0;
        return MT_OK;
    }
    if (e->idle_since_ns == 0) e->idle_since_ns = e->now_ns;
    uint64_t at_ns = e->idle_since_ns + after_ns;
    if (e->now_ns < at_ns) {
        be_called_at(e, at_ns);
        return MT_OK;
    }
    e->said_idle = idle < UINT32_MAX ? (uint32_t)idle : UINT32_MAX;
    return mti_engine_send_head(e->lanes[e->up].link, MT_KIND_IDLE, 0, e->said_idle);
}

/* Slots here that have nothing to do take back what was sent up, if it is something that they may run. */
static int recall_from_above(mt_engine *e, uint64_t idle, uint64_t *out_n) {
    if (e->up == NO_LANE || idle == 0 || !may_recall(e, e->up, ANY_PRIORITY)) return MT_OK;
    int64_t floor = ANY_PRIORITY;
    for (uint32_t i = 0; i < e->n_lanes; i++) {
        bool is_idle = i != e->up && mt_sched_lane_idle(e->sched, i) > 0;
        if (is_idle && mt_sched_floor(e->sched, i) < floor) floor = mt_sched_floor(e->sched, i);
    }
    uint64_t fitting = 0;
    for (uint32_t at = e->lanes[e->up].first_job; at != NO_JOB && fitting < idle; at = job_at(e, at)->next) {
        fitting += job_at(e, at)->priority >= floor;
    }
    if (fitting == 0) return MT_OK;
    lane *l = &e->lanes[e->up];
    if (l->wanted_since_ns == 0) l->wanted_since_ns = e->now_ns;
    uint64_t last_ns = l->wanted_since_ns > l->recalled_ns ? l->wanted_since_ns : l->recalled_ns;
    uint64_t at_ns = last_ns + (l->patience_ns > SHORT_PATIENCE_NS ? l->patience_ns : SHORT_PATIENCE_NS);
    if (e->now_ns < at_ns) {
        be_called_at(e, at_ns);
        return MT_OK;
    }
    ++*out_n;
    return recall_from(e, e->up, idle + excess(e, e->up) / 2, floor, ANY_PRIORITY, NO_LANE);
}

/* The oldest job is read once, when it has become that: most lanes have answered long before they are looked at again, and its memory is
 * in no cache. */
static void note_changes(mt_engine *e) {
    while (e->n_changed > 0) {
        lane *l = &e->lanes[e->changed[--e->n_changed]];
        l->is_changed = false;
        l->overdue_ns = UINT64_MAX;
        if (l->first_job == NO_JOB || l->role == MT_ROLE_PARENT) continue;
        mt_assignment oldest = mti_engine_booking_of(job_at(e, l->first_job));
        l->overdue_ns = e->now_ns + OVERDUE_NS + STUCK_TIMES * (oldest.cost_ns / oldest.units);
        if (l->overdue_ns < e->look_ns) e->look_ns = l->overdue_ns;
    }
}

/* A lane that should have answered by now gets nothing ahead. True: it is stuck. */
static bool note_silence(mt_engine *e, uint32_t lane_index) {
    const lane *l = &e->lanes[lane_index];
    uint64_t at_ns = l->overdue_ns;
    if (e->now_ns >= at_ns) {
        mt_sched_set_overdue(e->sched, lane_index);
        at_ns += STUCK_NS - OVERDUE_NS;
    }
    if (at_ns < e->look_ns) e->look_ns = at_ns;
    if (at_ns <= e->now_ns) return true;
    if (excess(e, lane_index) > 0) be_called_at(e, at_ns);
    return false;
}

static bool may_have_overtaken(const lane *l) { return l->overtaking != NOBODY && l->link->recall != NULL; }

/* What jobs could be taken back for. */
typedef struct wish {
    int64_t below;   /* only those of priorities below this; NOBODY: nobody wants any */
    uint64_t urgent; /* ready jobs that are more urgent than those */
    uint64_t idle;   /* slots that have nothing to do, if it is for these */
} wish;

static int recall_if_behind(mt_engine *e, uint32_t lane_index, const wish *w, uint64_t *out_n) {
    lane *l = &e->lanes[lane_index];
    int64_t below = l->link->recall != NULL && l->overtaking > w->below ? l->overtaking : w->below;
    bool stuck = note_silence(e, lane_index);
    if (stuck) below = ANY_PRIORITY;
    if (!may_recall(e, lane_index, below)) return MT_OK;
    if (l->wanted_since_ns == 0) l->wanted_since_ns = e->now_ns;
    if (below == ANY_PRIORITY && e->now_ns < l->recalled_ns + l->patience_ns) { /* what is urgent does not wait for that */
        be_called_at(e, l->recalled_ns + l->patience_ns);
        return MT_OK;
    }
    bool overdue = stuck || e->now_ns - l->wanted_since_ns >= OVERDUE_NS;
    if (overdue) mt_sched_set_overdue(e->sched, lane_index);
    bool pays = e->now_ns - l->recalled_ns >= OVERDUE_NS && mt_sched_load(e->sched, lane_index) >= RECALL_LOAD_NS;
    if (!overdue && !pays) {
        be_called_at(e, l->wanted_since_ns + OVERDUE_NS);
        return MT_OK;
    }
    uint64_t behind = excess(e, lane_index), n = UINT64_MAX; /* of a lane that is stuck all: it would keep the youngest, and begin those */
    if (!stuck) n = w->urgent == 0 ? w->idle * behind / (w->idle + behind) + 1 : w->urgent < behind ? w->urgent : behind;
    ++*out_n;
    return recall_from(e, lane_index, n, INT32_MIN, below, NO_LANE);
}

/* Finds lanes that are behind while others have nothing to do, or while jobs that are more urgent wait here or behind others in the lane (a
 * child sorts what it gets by itself); and lanes that are stuck. */
int mti_engine_recall(mt_engine *e, uint64_t *out_n) {
    int32_t priority = 0;
    wish w = {.below = NOBODY, .idle = mt_sched_idle(e->sched)};
    note_changes(e);
    int status = recall_from_above(e, w.idle, out_n);
    if (mt_sched_first_priority(e->sched, &priority, &w.urgent) == MT_OK) {
        w.below = priority;
        w.idle = 0;
    } else if (w.idle > 0) {
        w.below = ANY_PRIORITY;
    }
    if (w.below <= e->lowest && !e->has_overtaken && e->now_ns < e->look_ns) { /* no lane has anything for anybody */
        be_called_at(e, e->look_ns);
        return status;
    }
    e->look_ns = UINT64_MAX;
    e->lowest = ANY_PRIORITY;
    e->has_overtaken = false;
    for (uint32_t i = 0; i < e->n_lanes && status == MT_OK; i++) {
        const lane *l = &e->lanes[i];
        if (i == e->up) continue;
        status = recall_if_behind(e, i, &w, out_n);
        if (l->first_job != NO_JOB && l->lowest < e->lowest) e->lowest = l->lowest;
        e->has_overtaken |= may_have_overtaken(l);
    }
    return status;
}

int mti_engine_check_looks(const mt_engine *e) {
    for (uint32_t i = 0; i < e->n_lanes; i++) {
        const lane *l = &e->lanes[i];
        if (i == e->up || l->first_job == NO_JOB) continue;
        if (l->lowest < e->lowest || (may_have_overtaken(l) && !e->has_overtaken)) return MT_E_RECORD;
        uint64_t at_ns = l->overdue_ns <= e->now_ns ? l->overdue_ns + STUCK_NS - OVERDUE_NS : l->overdue_ns;
        if (!l->is_changed && (l->overdue_ns == UINT64_MAX || e->look_ns > at_ns)) return MT_E_RECORD;
    }
    return MT_OK;
}
