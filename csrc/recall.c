/* Jobs that have not begun come back from a lane that is behind. */
#include "engine_inner.h"

/* Jobs are taken back from a lane that has this much work for each slot, or has not answered for so long, while others starve. Less would not
 * pay: taking a job back costs as much as sending it. */
#define RECALL_LOAD_NS 1000000u
#define OVERDUE_NS 2000000u

/* To the front of the queue. */
static int put_back(mt_engine *e, mt_job *job) {
    mt_assignment booking = mti_engine_booking_of(job);
    mti_engine_lane_remove(e, &e->lanes[job->lane], job);
    mt_sched_return(e->sched, &booking);
    if (e->graph != NULL) mt_graph_unassign(e->graph, mt_table_find(e->jobs, job->id));
    return mt_sched_push(e->sched, job->id, job->class_index, job->priority, job->bytes_booked, true);
}

int mti_engine_put_back_after(mt_engine *e, uint32_t lane_index, uint64_t started) {
    lane *l = &e->lanes[lane_index];
    uint64_t begun = started > l->finished ? started - l->finished : 0;
    int status = MT_OK;
    for (uint64_t n = mt_sched_booked(e->sched, lane_index); n > begun && status == MT_OK; n--) {
        status = put_back(e, job_at(e, l->last_job)); /* the oldest is put in front last */
    }
    l->lowest = INT32_MAX;
    l->overtaking = NOBODY;
    return status;
}

/* Asks a child, or takes at once what has not begun. */
static int recall_from(mt_engine *e, uint32_t lane_index, uint64_t n, int64_t below) {
    lane *l = &e->lanes[lane_index];
    l->recalled_ns = e->now_ns;
    if (l->link->recall != NULL) {
        uint64_t started;
        uint64_t before = mt_sched_booked(e->sched, lane_index);
        int status = l->link->recall(l->link, &started);
        if (status == MT_OK) status = mti_engine_put_back_after(e, lane_index, started);
        e->recalled += before - mt_sched_booked(e->sched, lane_index);
        return status;
    }
    l->recalling = true;
    l->recall_below = below;
    return mti_engine_send_head(l->link, MT_KIND_RECALL, (uint64_t)below, n < UINT32_MAX ? (uint32_t)n : UINT32_MAX);
}

static bool may_recall(const mt_engine *e, uint32_t lane_index, int64_t below) {
    const lane *l = &e->lanes[lane_index];
    return l->up && !l->recalling && l->lowest < below && mt_sched_excess(e->sched, lane_index) > 0;
}

static int give_up(mt_engine *e, void *entry) {
    ending how = {.head = {.rec = {.n = MT_OUTCOME_RETURNED}}};
    e->owed--;
    e->given++;
    return mti_engine_end_job(e, entry, &how);
}

static int give_up_ready(mt_engine *e) {
    int status = MT_OK;
    uint64_t key;
    while (e->owed > 0 && status == MT_OK && mt_sched_take_last(e->sched, e->owed_below, &key) == MT_OK) {
        void *entry = mt_table_find(e->jobs, key);
        if (entry != NULL) status = give_up(e, entry);
    }
    return status;
}

static int say_recalled(mt_engine *e) {
    e->owed = 0;
    return mti_engine_send_head(e->parent, MT_KIND_RECALLED, 0, e->given);
}

/* The parent wants jobs back: first those that are queued here, then those that workers have not begun, then the children's. */
int mti_engine_on_recall(mt_engine *e, uint32_t n, int64_t below) {
    e->owed = n;
    e->given = 0;
    e->owed_below = below;
    int status = give_up_ready(e);
    for (uint32_t i = 0; i < e->n_lanes && e->owed > 0 && status == MT_OK; i++) {
        if (e->lanes[i].link->recall == NULL || !may_recall(e, i, below)) continue;
        status = recall_from(e, i, UINT64_MAX, below);
        if (status == MT_OK) status = give_up_ready(e);
    }
    for (uint32_t i = 0, left = n; i < e->n_lanes && e->owed > 0 && left > 0 && status == MT_OK; i++) {
        if (!may_recall(e, i, below)) continue;
        uint64_t wanted = mt_sched_excess(e->sched, i);
        if (wanted > e->owed) wanted = e->owed;
        left = wanted < left ? left - (uint32_t)wanted : 0;
        status = recall_from(e, i, wanted, below);
        e->lanes[i].recalling_for_parent = true;
        e->asked++;
    }
    return status == MT_OK && e->asked == 0 ? say_recalled(e) : status;
}

int mti_engine_come_back(mt_engine *e, mt_job *job) {
    void *entry = mt_table_find(e->jobs, job->id);
    e->recalled++;
    if (e->owed == 0 || job->priority >= e->owed_below) return put_back(e, job);
    mt_assignment booking = mti_engine_booking_of(job);
    mti_engine_lane_remove(e, &e->lanes[job->lane], job);
    mt_sched_return(e->sched, &booking);
    return give_up(e, entry);
}

int mti_engine_on_recalled(mt_engine *e, lane *l, uint32_t n) {
    if (!l->recalling) return MT_E_RECORD;
    l->recalling = false;
    if (n == 0 && l->recall_below < ANY_PRIORITY && l->lowest < l->recall_below) l->lowest = (int32_t)l->recall_below;
    if (!l->recalling_for_parent) return MT_OK;
    l->recalling_for_parent = false;
    return --e->asked == 0 ? say_recalled(e) : MT_OK;
}

/* Finds lanes that are behind while others have nothing to do, or while jobs that are more urgent wait here or behind others in the lane (a
 * child sorts what it gets by itself). */
int mti_engine_recall(mt_engine *e, uint64_t *out_n) {
    int32_t priority = 0;
    uint64_t urgent = 0, idle = 0;
    int64_t wanted = NOBODY;
    if (mt_sched_first_priority(e->sched, &priority, &urgent) == MT_OK) {
        wanted = priority;
    } else {
        for (uint32_t i = 0; i < e->n_lanes; i++) idle += mt_sched_idle(e->sched, i);
        if (idle > 0) wanted = ANY_PRIORITY;
    }
    int status = MT_OK;
    for (uint32_t i = 0; i < e->n_lanes && status == MT_OK; i++) {
        lane *l = &e->lanes[i];
        int64_t below = l->link->recall != NULL && l->overtaking > wanted ? l->overtaking : wanted;
        if (!may_recall(e, i, below)) continue;
        if (l->quiet_since_ns == 0) l->quiet_since_ns = e->now_ns;
        bool overdue = e->now_ns - l->quiet_since_ns >= OVERDUE_NS;
        if (overdue) mt_sched_set_overdue(e->sched, i);
        bool pays = e->now_ns - l->recalled_ns >= OVERDUE_NS && mt_sched_load(e->sched, i) >= RECALL_LOAD_NS;
        if (!overdue && !pays) {
            if (l->quiet_since_ns + OVERDUE_NS < e->due_ns) e->due_ns = l->quiet_since_ns + OVERDUE_NS;
            continue;
        }
        uint64_t excess = mt_sched_excess(e->sched, i), share = idle * excess / (idle + excess) + 1;
        status = recall_from(e, i, urgent > 0 ? (urgent < excess ? urgent : excess) : share, below);
        ++*out_n;
    }
    return status;
}
