#include "engine.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "atomic.h"
#include "engine_inner.h"

#define BATCH 256u

/* How far ahead lanes are fed: a worker must bridge the time until the engine runs again on a busy machine (a scheduler slice of a few
 * milliseconds), a child also its round trip and its own workers' needs. */
static const mt_lane_limits worker_limits = {0, 1024, 4000000, 64u << 20, false};
static const mt_lane_limits child_limits = {0, 2048, 10000000, 256u << 20, true};
/* Until the engine above says more: enough to tell it that there is work. */
static const mt_lane_limits up_limits = {1, 2048, 10000000, 256u << 20, true};

mt_engine *mt_engine_new(const mt_alloc *alloc, uint32_t max_lanes, mt_link *parent, const char *host) {
    mt_engine *e = mti_get_zeroed(alloc, 1, sizeof *e);
    if (e == NULL) return NULL;
    e->alloc = alloc;
    if (parent != NULL) max_lanes++;
    e->max_lanes = max_lanes;
    e->up = NO_LANE;
    e->stop_mode = -1;
    e->look_ns = UINT64_MAX;
    e->lowest = ANY_PRIORITY;
    e->spans = (mt_node){&e->spans, &e->spans};
    mti_ids_init(&e->ids, &e->own_count, (uint64_t)1 << 63); /* ids below are the submitters' */
    strncpy(e->host, host, HOST_SIZE - 1);
    e->sched = mt_sched_new(alloc);
    e->objects = mt_objects_new(alloc, max_lanes);
    e->jobs = mt_table_new(alloc);
    e->lanes = mti_get_zeroed(alloc, max_lanes + 1u, sizeof(lane));
    e->scratch_lanes = mti_get_zeroed(alloc, max_lanes + 1u, sizeof(uint32_t));
    e->changed = mti_get_zeroed(alloc, max_lanes + 1u, sizeof(uint32_t));
    e->graph = mt_graph_new(alloc);
    if (e->sched == NULL || e->objects == NULL || e->jobs == NULL || e->lanes == NULL ||
        e->scratch_lanes == NULL || e->changed == NULL || e->graph == NULL ||
        (parent != NULL && mt_engine_add_lane(e, MT_ROLE_PARENT, parent, &e->up) != MT_OK)) {
        mt_engine_destroy(e);
        return NULL;
    }
    mti_graph_set_objects(e->graph, e->objects);
    return e;
}

void mt_engine_set_ids(mt_engine *e, const mt_ids *ids) {
    if (ids != NULL) e->ids = *ids;
}

static void reap(mt_engine *e) {
    mt_task *task = mti_reaper_take(&e->reaper);
    while (task != NULL) {
        mt_task *next = task->next;
        mti_objects_release(e->objects, task->value_object);
        task->value_object = 0;
        mti_task_free(task);
        task = next;
    }
}

void mt_engine_destroy(mt_engine *e) {
    if (e == NULL) return;
    if (e->graph != NULL) {
        if (e->sched != NULL && e->objects != NULL && e->jobs != NULL) mt_engine_abandon(e);
        mt_graph_destroy(e->graph);
        while (mt_load_relaxed(&e->reaper.head) != NULL) reap(e);
    }
    mt_table_destroy(e->jobs);
    mt_objects_destroy(e->objects);
    mt_sched_destroy(e->sched);
    mt_put(e->alloc, e->lanes);
    mt_put(e->alloc, e->scratch_lanes);
    mt_put(e->alloc, e->changed);
    mt_put(e->alloc, e);
}

int mt_engine_add_lane(mt_engine *e, uint32_t role, mt_link *link, uint32_t *out_lane) {
    if (e->n_lanes == e->max_lanes) return MT_E_INVAL;
    bool is_up = role == MT_ROLE_PARENT;
    mt_lane_limits limits = is_up ? up_limits : role == MT_ROLE_WORKER ? worker_limits : child_limits;
    if (link->recall != NULL) limits.cuts = false; /* no engine is behind it */
    int status = mt_sched_add_lane(e->sched, &limits, out_lane);
    if (status != MT_OK) return status;
    e->lanes[e->n_lanes++] = (lane){.link = link,
                                    .role = role,
                                    .up = is_up,
                                    .first_job = NO_JOB,
                                    .last_job = NO_JOB,
                                    .overdue_ns = UINT64_MAX,
                                    .overtaking = NOBODY,
                                    .recalling_for = NO_LANE,
                                    .told = up_limits.slots};
    if (is_up) mt_sched_set_up(e->sched, *out_lane);
    return MT_OK;
}

/* ---- jobs ---- */

void mti_engine_lane_changed(mt_engine *e, lane *l) {
    l->wanted_since_ns = 0;
    if (l->is_changed) return;
    l->is_changed = true;
    e->changed[e->n_changed++] = (uint32_t)(l - e->lanes);
}

void mti_engine_lane_append(mt_engine *e, lane *l, mt_job *job) {
    bool is_first = l->first_job == NO_JOB;
    job->before = l->last_job;
    job->next = NO_JOB;
    *(is_first ? &l->first_job : &job_at(e, l->last_job)->next) = (uint32_t)job->id;
    l->last_job = (uint32_t)job->id;
    if (is_first) {
        mti_engine_lane_changed(e, l);
        l->overtaking = NOBODY;
    } else if (job->priority > l->lowest && job->priority > l->overtaking) {
        l->overtaking = job->priority;
        e->has_overtaken |= l->link->recall != NULL;
    }
    if (is_first || job->priority < l->lowest) l->lowest = job->priority;
    if (job->priority < e->lowest) e->lowest = job->priority;
}

void mti_engine_lane_remove(mt_engine *e, lane *l, mt_job *job) {
    *(job->before == NO_JOB ? &l->first_job : &job_at(e, job->before)->next) = job->next;
    *(job->next == NO_JOB ? &l->last_job : &job_at(e, job->next)->before) = job->before;
    job->cost_ns = 0;
    mti_engine_lane_changed(e, l);
}

int mti_engine_class_of(mt_engine *e, uint64_t fn, uint32_t *out_class) {
    uint32_t *word = mti_objects_class(e->objects, fn);
    if (word == NULL) return MT_E_STALE;
    if (*word == 0) {
        int status = mt_sched_add_class(e->sched, out_class);
        if (status != MT_OK) return status;
        *word = *out_class + 1;
    }
    *out_class = *word - 1;
    return MT_OK;
}

int mti_engine_enqueue(mt_engine *e, mt_job *job, uint64_t bytes) {
    int status = mti_engine_class_of(e, job->fn, &job->class_index);
    if (status == MT_OK) status = mt_table_add(e->jobs, job, &job->id);
    return status == MT_OK ? mti_engine_push(e, job, bytes) : status;
}

int mti_engine_push(mt_engine *e, mt_job *job, uint64_t bytes) {
    mt_ready ready = {.key = job->id,
                      .bytes = bytes,
                      .age = job->age,
                      .class_index = job->class_index,
                      .priority = job->priority,
                      .origin = origin_of(job)};
    int status = mt_sched_push(e->sched, &ready);
    job->age = ready.age;
    return status;
}

static uint64_t bytes_of_task(const mt_task *task) {
    uint64_t bytes = task->args_size;
    for (uint32_t i = 0; i < task->n_edges; i++) {
        const mt_value *value = &task->edges[i].from->value;
        if (!mti_goes_as_object(value->size, value->codec)) bytes += value->size;
    }
    return bytes;
}

static int enqueue_task(mt_engine *e, mt_task *task) {
    uint64_t bytes = bytes_of_task(task);
    task->job.age = 0; /* its turn comes after that of all others, even if it is to be tried again */
    if ((task->codec & MT_CODEC_SPAN) == 0) return mti_engine_enqueue(e, &task->job, bytes);
    int status = mti_engine_open_span(e, &task->job, task->args, task->args_size, bytes);
    if (status != MT_E_STALE) return status;
    mt_graph_finish(e->graph, task, MT_OUTCOME_CANCELLED, 0, NULL, 0);
    return MT_OK;
}

static int take_ready(mt_engine *e) {
    mt_task *batch[BATCH];
    for (uint32_t n; (n = mt_graph_take_ready(e->graph, batch, BATCH)) > 0;) {
        for (uint32_t i = 0; i < n; i++) {
            int status = enqueue_task(e, batch[i]);
            if (status != MT_OK) return status;
        }
    }
    return MT_OK;
}

int mt_engine_submit(mt_engine *e, mt_task *task) {
    if (task->job.fn != 0 && mt_objects_ref(e->objects, task->job.fn) != MT_OK) {
        mt_graph_add(e->graph, task);
        mt_graph_finish(e->graph, task, MT_OUTCOME_CANCELLED, 0, NULL, 0);
        return MT_OK;
    }
    mt_graph_add(e->graph, task);
    return MT_OK;
}

mt_assignment mti_engine_booking_of(const mt_job *job) {
    bool is_items = job->kind == JOB_PART && ((const span_part *)(const void *)job)->values == NULL;
    uint64_t items = is_items ? ((const span_part *)(const void *)job)->count : 0;
    return (mt_assignment){job->id, job->cost_ns, items, job->units, job->bytes_booked, job->lane, job->class_index};
}

void mti_engine_forget_job(mt_engine *e, mt_job *job) {
    if (job->id != 0) (void)mt_table_remove(e->jobs, job->id);
    job->id = 0;
    job->cost_ns = 0;
}

void mt_engine_cancelled(mt_engine *e, mt_task *task) {
    if (task->place == PLACE_READY || task->place == PLACE_TAKEN) mti_engine_forget_job(e, &task->job);
    mt_graph_cancelled(e->graph, task);
    mt_task_unref(task);
}

void mt_engine_cancel_all(mt_engine *e) {
    mt_graph_cancel_begin(e->graph);
    for (mt_task *task; (task = mt_graph_cancel_next(e->graph)) != NULL;) mt_engine_cancelled(e, task);
}

void mt_engine_fulfil(mt_engine *e, mt_task *task, uint32_t outcome, uint32_t codec, mt_blob *blob) {
    mt_graph_finish(e->graph, task, outcome, codec, blob, 0);
    mt_task_unref(task);
}

mt_reaper *mt_engine_reaper(mt_engine *e) { return &e->reaper; }

mt_task *mt_engine_take_ended(mt_engine *e, uint32_t *out_flags) { return mt_graph_take_ended(e->graph, out_flags); }

void mt_engine_abandon(mt_engine *e) {
    mt_sched_forget_ready(e->sched);
    mti_engine_abandon_spans(e);
    uint64_t cursor = 0;
    for (mt_job *job; (job = mt_table_next(e->jobs, &cursor)) != NULL;) {
        mti_engine_forget_job(e, job);
        if (job->kind == JOB_ERRAND) mti_engine_free_errand(e, errand_of(job));
    }
    for (uint32_t i = 0; i < e->n_lanes; i++) {
        mt_sched_clear_lane(e->sched, i);
        e->lanes[i].first_job = e->lanes[i].last_job = NO_JOB;
        mti_engine_lane_changed(e, &e->lanes[i]);
    }
    mt_graph_abandon(e->graph);
}

/* ---- up: results ---- */

bool mti_engine_is_loss(const ending *how) {
    mt_lost lost = {.wait_status = 0};
    if (how->head.rec.flags == MT_CODEC_LOST && how->bytes.size >= sizeof lost) memcpy(&lost, how->bytes.data, sizeof lost);
    return how->head.rec.n == MT_OUTCOME_LOST && !(WIFSIGNALED(lost.wait_status) && WTERMSIG(lost.wait_status) == SIGXCPU);
}

static int end_task(mt_engine *e, mt_task *task, const ending *how) {
    uint32_t outcome = how->head.rec.n;
    bool failed = outcome == MT_OUTCOME_ERROR || outcome == MT_OUTCOME_LOST;
    uint8_t *budget = mti_engine_is_loss(how) && task->losses_left > 0 ? &task->losses_left : &task->retries_left;
    if (failed && *budget > 0) {
        --*budget;
        mt_graph_return(e->graph, task);
        return MT_OK;
    }
    mt_blob *blob = NULL;
    uint64_t offset = 0;
    if (how->owner != NULL) {
        blob = mt_blob_ref(how->owner);
        offset = (uint64_t)((const unsigned char *)how->bytes.data - blob->data);
    } else if (how->bytes.size > 0) {
        blob = mt_blob_from_parts(e->alloc, &how->bytes, 1);
        if (blob == NULL) return MT_E_NOMEM;
    }
    mt_graph_finish(e->graph, task, outcome, how->head.rec.flags, blob, offset);
    mt_blob_unref(blob);
    return MT_OK;
}

int mti_engine_end_job(mt_engine *e, mt_job *job, const ending *how) {
    mti_engine_forget_job(e, job);
    if (job->kind == JOB_PART) return mti_engine_end_part(e, part_of(job), how);
    return job->kind == JOB_ERRAND ? mti_engine_end_errand(e, errand_of(job), how) : end_task(e, task_of(job), how);
}

int mt_engine_dispatch(mt_engine *e, uint64_t now_ns, uint64_t *out_n) {
    e->now_ns = now_ns;
    e->due_ns = UINT64_MAX;
    reap(e);
    int status = mti_engine_retire_dead_objects(e);
    if (status == MT_OK) status = take_ready(e);
    if (status == MT_OK) status = mti_engine_tell_slots_elsewhere(e);
    if (status == MT_OK) status = mti_engine_send_ready(e, out_n);
    uint64_t recalls = 0;
    if (status == MT_OK) status = mti_engine_recall(e, &recalls);
    *out_n += recalls;
    if (status == MT_OK && recalls > 0) status = mti_engine_send_ready(e, out_n);
    return status == MT_OK ? mti_engine_say_idle(e) : status;
}

uint64_t mt_engine_due_ns(const mt_engine *e) { return e->due_ns; }

/* ---- what lanes and the parent say ---- */

static int on_result(mt_engine *e, uint32_t lane_index, const mt_rec *rec, const mt_incoming *incoming) {
    ending how = {.is_ours = false};
    memcpy(&how.head, incoming->data, sizeof how.head);
    how.head.rec = *rec;
    e->results++;
    mt_job *job = mt_table_find(e->jobs, how.head.rec.id);
    if (job == NULL || job->lane != lane_index || job->cost_ns == 0) {
        e->stale_results++;
        return MT_OK;
    }
    lane *from = &e->lanes[lane_index];
    how.bytes = (mt_part){(const unsigned char *)incoming->data + sizeof how.head, incoming->size - sizeof how.head};
    how.owner = incoming->blob;
    if (how.head.rec.n == MT_OUTCOME_RETURNED) return mti_engine_come_back(e, job, &how.bytes);
    from->finished++;
    from->patience_ns = 0;
    mt_assignment booking = mti_engine_booking_of(job);
    mti_engine_lane_remove(e, from, job);
    bool teaches = booking.items == 0 || how.head.rec.n == MT_OUTCOME_OK; /* else it has not come to all its items */
    mt_sched_done(e->sched, &booking, teaches ? how.head.duration_ns : 0);
    return mti_engine_end_job(e, job, &how);
}

/* Whether all slots can be counted if the lane has so many. */
static bool fits(const mt_engine *e, uint32_t lane_index, uint32_t slots) {
    return lane_index == e->up || mt_sched_slots(e->sched) - mt_sched_lane_slots(e->sched, lane_index) <= UINT32_MAX - slots;
}

int mt_engine_from_lane(mt_engine *e, uint32_t lane_index, const mt_incoming *incoming) {
    lane *from = &e->lanes[lane_index];
    mt_rec rec; /* what is checked is what is used: the sender may be able to write there still */
    if (incoming->size < sizeof rec) return MT_E_RECORD;
    memcpy(&rec, incoming->data, sizeof rec);
    int status = mti_head_check(&rec, incoming->size, from->role);
    if (status != MT_OK) return status;
    if (!from->up && rec.kind != MT_KIND_HELLO && rec.kind != MT_KIND_BYE) return MT_E_RECORD; /* before it has greeted, or after its end */
    switch (rec.kind) {
        case MT_KIND_RESULT: return on_result(e, lane_index, &rec, incoming);
        case MT_KIND_TASK:
            if (lane_index == e->up) e->said_idle = 0, e->idle_since_ns = 0;
            return mti_engine_on_task(e, lane_index, &rec, incoming);
        case MT_KIND_OBJECT: return mti_engine_on_object(e, lane_index, &rec, incoming);
        case MT_KIND_DROP: mti_engine_on_drop(e, lane_index, rec.id); return MT_OK;
        case MT_KIND_HELLO:
            if (from->up || !fits(e, lane_index, rec.n)) return MT_E_RECORD;
            from->up = true;
            from->is_gone = false;
            from->maps = (rec.flags & MT_HELLO_MAPS) != 0;
            from->finished = 0;
            from->closed = rec.n == 0;
            mt_sched_set_floor(e->sched, lane_index, INT32_MIN);
            mt_sched_set_slots(e->sched, lane_index, rec.n);
            return MT_OK;
        case MT_KIND_SLOTS:
            if (!fits(e, lane_index, rec.n)) return MT_E_RECORD;
            if (from->role == MT_ROLE_WORKER) return mti_engine_on_worker_slots(e, lane_index, &rec);
            mt_sched_set_slots(e->sched, lane_index, rec.n);
            return MT_OK;
        case MT_KIND_IDLE: mt_sched_set_hungry(e->sched, lane_index, rec.n); return MT_OK;
        case MT_KIND_RECALL: return mti_engine_on_recall(e, lane_index, incoming);
        case MT_KIND_RECALLED: return mti_engine_on_recalled(e, from, rec.n);
        case MT_KIND_STOP: e->stop_mode = (int)rec.n; return MT_OK;
        case MT_KIND_BYE: { /* after a STOP it has nothing of ours; a rank that fails says it, too, and takes what it has with it */
            mt_lost why = {0, -1, MT_LOST_RANK};
            return mt_engine_lane_lost(e, lane_index, &why, UINT64_MAX);
        }
        default: return MT_E_RECORD;
    }
}

/* ---- a lane is lost ---- */

static int end_lost(mt_engine *e, mt_job *job, const mt_lost *why) {
    unsigned char body[sizeof(mt_lost) + HOST_SIZE];
    size_t host_size = strlen(e->host);
    memcpy(body, why, sizeof *why);
    memcpy(body + sizeof *why, e->host, host_size);
    ending how = {.head = {.rec = {.flags = MT_CODEC_LOST, .n = MT_OUTCOME_LOST}},
                  .bytes = {body, sizeof *why + host_size},
                  .is_ours = true};
    e->lost++;
    return mti_engine_end_job(e, job, &how);
}

int mt_engine_lane_lost(mt_engine *e, uint32_t lane_index, const mt_lost *why, uint64_t started) {
    lane *l = &e->lanes[lane_index];
    l->up = false;
    l->is_gone = l->role == MT_ROLE_CHILD;
    mt_objects_forget_lane(e->objects, lane_index);
    mt_sched_set_slots(e->sched, lane_index, 0);
    mti_link_clean_up(l->link);
    mti_engine_orphan(e, lane_index);
    int status = mti_engine_put_back_after(e, lane_index, started);
    if (status == MT_OK) status = mti_engine_end_recalls(e, lane_index);
    while (status == MT_OK && l->first_job != NO_JOB) {
        mt_job *job = job_at(e, l->first_job);
        mt_assignment booking = mti_engine_booking_of(job);
        mti_engine_lane_remove(e, l, job);
        mt_sched_return(e->sched, &booking);
        status = end_lost(e, job, why);
    }
    mt_sched_clear_lane(e->sched, lane_index);
    return status;
}

/* ---- the agent's side ---- */

int mt_engine_from_parent(mt_engine *e, const mt_incoming *incoming) {
    return mt_engine_from_lane(e, e->up, incoming);
}

int mt_engine_say_slots(mt_engine *e, uint32_t slots) {
    uint16_t kind = e->said_hello ? MT_KIND_SLOTS : MT_KIND_HELLO;
    e->said_hello = true;
    return mti_engine_send_head(e->lanes[e->up].link, kind, (uint64_t)getpid(), slots < MT_MAX_SLOTS ? slots : MT_MAX_SLOTS);
}

int mt_engine_say_bye(mt_engine *e) { return mti_engine_send_head(e->lanes[e->up].link, MT_KIND_BYE, 0, 0); }

int mt_engine_stop_children(mt_engine *e, uint32_t mode) {
    for (uint32_t i = 0; i < e->n_lanes; i++) {
        if (e->lanes[i].role != MT_ROLE_CHILD || e->lanes[i].is_gone) continue;
        int status = mti_engine_send_head(e->lanes[i].link, MT_KIND_STOP, 0, mode);
        if (status != MT_OK) return status;
    }
    return MT_OK;
}

uint32_t mt_engine_children_left(const mt_engine *e) {
    uint32_t left = 0;
    for (uint32_t i = 0; i < e->n_lanes; i++) left += e->lanes[i].role == MT_ROLE_CHILD && !e->lanes[i].is_gone;
    return left;
}

bool mt_engine_is_hopeless(const mt_engine *e) {
    for (uint32_t i = 0; i < e->n_lanes; i++) {
        if (e->lanes[i].role == MT_ROLE_CHILD && !e->lanes[i].up && !e->lanes[i].is_gone) return false;
    }
    return mt_sched_slots(e->sched) == 0;
}

int mt_engine_stop_mode(const mt_engine *e) { return e->stop_mode; }

uint64_t mt_engine_least_load_ns(const mt_engine *e) { return mt_sched_least_load(e->sched); }
uint64_t mt_engine_least_ahead_ns(const mt_engine *e) { return mt_sched_least_ahead(e->sched); }

mt_engine_stats mt_engine_stats_now(const mt_engine *e) {
    mt_engine_stats stats = {.graph = mt_graph_count(e->graph),
                             .objects = mt_objects_count(e->objects),
                             .object_bytes = mt_objects_bytes(e->objects),
                             .objects_sent = e->objects_sent,
                             .objects_mapped = e->objects_mapped,
                             .joined_bytes = e->joined_bytes,
                             .results = e->results,
                             .stale_results = e->stale_results,
                             .lost = e->lost,
                             .recalled = e->recalled,
                             .ready = mt_sched_ready(e->sched),
                             .slots = mt_sched_slots(e->sched),
                             .slots_above = e->up == NO_LANE ? 0 : mt_sched_lane_slots(e->sched, e->up),
                             .lanes = e->n_lanes - (e->up != NO_LANE)};
    stats.outstanding = stats.graph.waiting + stats.graph.ready + stats.graph.taken + e->n_errands;
    return stats;
}

int mt_engine_check(const mt_engine *e) {
    int status = mt_table_check(e->jobs);
    if (status == MT_OK) status = mt_objects_check(e->objects);
    if (status == MT_OK) status = mt_sched_check(e->sched);
    if (status == MT_OK) status = mt_graph_check(e->graph);
    if (status == MT_OK) status = mti_engine_check_looks(e);
    uint64_t booked = 0, on_lanes = 0, cursor = 0, errands = 0;
    for (uint32_t i = 0; i < e->n_lanes; i++) booked += mt_sched_booked(e->sched, i);
    for (const mt_job *job; (job = mt_table_next(e->jobs, &cursor)) != NULL;) {
        on_lanes += job->cost_ns != 0;
        errands += job->kind == JOB_ERRAND;
        uint32_t origin = origin_of(job);
        if (origin != NO_LANE && (origin >= e->n_lanes || !e->lanes[origin].up)) return MT_E_RECORD;
        if (origin != NO_LANE && origin == e->up && job->cost_ns != 0 && job->lane == e->up) return MT_E_RECORD;
        if (job->kind == JOB_ERRAND && origin == NO_LANE && job->cost_ns == 0) return MT_E_RECORD; /* an orphan that still wants to run */
    }
    if (status == MT_OK) status = mti_engine_check_spans(e, &errands);
    if (errands != e->n_errands) return MT_E_RECORD;
    uint64_t listed = 0;
    for (uint32_t i = 0; i < e->n_lanes; i++) {
        uint32_t before = NO_JOB;
        for (uint32_t at = e->lanes[i].first_job; at != NO_JOB; before = at, at = job_at(e, at)->next, listed++) {
            const mt_job *job = job_at(e, at);
            if (job->lane != i || job->cost_ns == 0 || job->before != before) return MT_E_RECORD;
        }
        if (before != e->lanes[i].last_job) return MT_E_RECORD;
    }
    return status == MT_OK && (booked != on_lanes || booked != listed) ? MT_E_RECORD : status;
}
