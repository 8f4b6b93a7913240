#include "engine.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "atomic.h"
#include "table.h"

/* Values up to this size travel inside each task that needs them; larger ones become objects, once for each lane. */
#define INLINE_VALUE 4096u
#define HOST_SIZE 64u
#define BATCH 256u

/* How far ahead lanes are fed: a worker must bridge the time until the engine runs again on a busy machine (a scheduler slice of a few
 * milliseconds), a child also its round trip and its own workers' needs. */
static const mt_lane_limits worker_limits = {0, 1024, 4000000, 64u << 20};
static const mt_lane_limits child_limits = {0, 2048, 10000000, 256u << 20};

/* Jobs are taken back from a lane that has this much work for each slot, or has not answered for so long, while others starve. Less would not
 * pay: taking a job back costs as much as sending it. */
#define RECALL_LOAD_NS 1000000u
#define OVERDUE_NS 2000000u
#define ANY_PRIORITY ((int64_t)1 << 32)
#define NOBODY (-ANY_PRIORITY)
#define NO_JOB UINT32_MAX

typedef struct lane {
    mt_link *link;
    uint32_t role;
    bool up;       /* HELLO has come */
    bool said_bye; /* children */
    uint64_t finished; /* jobs answered since HELLO */
    uint32_t first_job, last_job; /* what is booked, in order of assignment */
    int32_t lowest;               /* no booked job that may not have begun has a priority below this */
    uint64_t quiet_since_ns;      /* no job has come or gone since; 0: not looked at yet */
    uint64_t recalled_ns;         /* the time of the last recall */
    int64_t overtaking;           /* a job of this priority was sent behind lower ones; NOBODY: none was */
    int64_t recall_below;         /* while `recalling`: the priority of the RECALL */
    bool recalling;               /* a RECALL is not answered yet */
    bool recalling_for_parent;
} lane;

/* What an agent keeps of a task. */
typedef struct errand {
    mt_job job;
    uint64_t parent_id;
    mt_blob *record; /* the TASK record */
} errand;

struct mt_engine {
    const mt_alloc *alloc;
    mt_link *parent;
    mt_graph *graph; /* root only */
    mt_sched *sched;
    mt_objects *objects;
    mt_table *jobs;
    lane *lanes;
    uint32_t n_lanes, max_lanes;
    uint32_t *scratch_lanes; /* for mt_objects_unref */
    mt_reaper reaper;
    uint64_t next_value_object;
    uint64_t results, stale_results, lost, recalled;
    uint64_t now_ns; /* of the last dispatch */
    uint64_t due_ns;
    uint64_t owed;   /* jobs that the parent has recalled and not got yet */
    uint32_t given;  /* those that it got since its last RECALL */
    int64_t owed_below;
    uint32_t asked;  /* children that were asked on the parent's behalf */
    bool said_hello;
    int stop_mode;
    char host[HOST_SIZE];
};

mt_engine *mt_engine_new(const mt_alloc *alloc, uint32_t max_lanes, mt_link *parent, const char *host) {
    mt_engine *e = mti_get_zeroed(alloc, 1, sizeof *e);
    if (e == NULL) return NULL;
    e->alloc = alloc;
    e->parent = parent;
    e->max_lanes = max_lanes;
    e->stop_mode = -1;
    e->next_value_object = (uint64_t)1 << 63; /* ids below are the submitters' */
    strncpy(e->host, host, HOST_SIZE - 1);
    e->sched = mt_sched_new(alloc);
    e->objects = mt_objects_new(alloc, max_lanes);
    e->jobs = mt_table_new(alloc);
    e->lanes = mti_get_zeroed(alloc, max_lanes + 1u, sizeof(lane));
    e->scratch_lanes = mti_get_zeroed(alloc, max_lanes + 1u, sizeof(uint32_t));
    if (parent == NULL) e->graph = mt_graph_new(alloc);
    if (e->sched == NULL || e->objects == NULL || e->jobs == NULL || e->lanes == NULL ||
        e->scratch_lanes == NULL || (parent == NULL && e->graph == NULL)) {
        mt_engine_destroy(e);
        return NULL;
    }
    if (e->graph != NULL) mti_graph_set_objects(e->graph, e->objects);
    return e;
}

static void free_errand(mt_engine *e, errand *errand) {
    mt_blob_unref(errand->record);
    mt_put(e->alloc, errand);
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
    } else if (e->jobs != NULL) {
        uint64_t cursor = 0;
        for (errand *job; (job = mt_table_next(e->jobs, &cursor)) != NULL;) free_errand(e, job);
    }
    mt_table_destroy(e->jobs);
    mt_objects_destroy(e->objects);
    mt_sched_destroy(e->sched);
    mt_put(e->alloc, e->lanes);
    mt_put(e->alloc, e->scratch_lanes);
    mt_put(e->alloc, e);
}

int mt_engine_add_lane(mt_engine *e, uint32_t role, mt_link *link, uint32_t *out_lane) {
    if (e->n_lanes == e->max_lanes) return MT_E_INVAL;
    int status = mt_sched_add_lane(e->sched, role == MT_ROLE_WORKER ? &worker_limits : &child_limits, out_lane);
    if (status != MT_OK) return status;
    e->lanes[e->n_lanes++] = (lane){.link = link, .role = role, .first_job = NO_JOB, .last_job = NO_JOB, .overtaking = NOBODY};
    return MT_OK;
}

/* ---- objects ---- */

static int send_head(mt_link *link, uint16_t kind, uint64_t id, uint32_t n) {
    mt_rec rec = {sizeof rec, id, kind, 0, n};
    mt_part part = {&rec, sizeof rec};
    return mti_link_send(link, &part, 1, NULL);
}

static int unref_object(mt_engine *e, uint64_t id) {
    uint32_t n = 0;
    if (mt_objects_unref(e->objects, id, e->scratch_lanes, &n) != 1) return MT_OK;
    for (uint32_t i = 0; i < n; i++) {
        lane *to = &e->lanes[e->scratch_lanes[i]];
        int status = to->up ? send_head(to->link, MT_KIND_DROP, id, 0) : MT_OK;
        if (status != MT_OK) return status;
    }
    return MT_OK;
}

/* A function's object is about to go: its scheduling class too. */
static int retire_object(mt_engine *e, uint64_t id) {
    const uint32_t *class_word = mti_objects_class(e->objects, id);
    uint32_t class_index = class_word == NULL ? 0 : *class_word;
    uint64_t before = mt_objects_count(e->objects);
    int status = unref_object(e, id);
    if (class_index != 0 && mt_objects_count(e->objects) < before) mt_sched_drop_class(e->sched, class_index - 1);
    return status;
}

static int retire_dead_objects(mt_engine *e) {
    for (uint64_t id; (id = mti_objects_take_dead(e->objects)) != 0;) {
        int status = retire_object(e, id);
        if (status != MT_OK) return status;
    }
    return MT_OK;
}

int mt_engine_add_object(mt_engine *e, uint64_t id, mt_blob *blob, uint32_t codec) {
    return mti_objects_add_blob(e->objects, id, blob, 0, codec);
}

void mt_engine_drop_object(mt_engine *e, uint64_t id) { mti_objects_release(e->objects, id); }

static int send_object(mt_engine *e, uint32_t lane_index, uint64_t id) {
    int is_new = mt_objects_mark(e->objects, id, lane_index);
    if (is_new != 1) return is_new;
    mt_part parts[2];
    uint32_t codec;
    int status = mt_objects_get(e->objects, id, &parts[1], &codec);
    if (status != MT_OK) return status;
    mt_rec rec = {sizeof rec + parts[1].size, id, MT_KIND_OBJECT, (uint16_t)codec, 0};
    parts[0] = (mt_part){&rec, sizeof rec};
    return mti_link_send(e->lanes[lane_index].link, parts, 2, mti_objects_blob(e->objects, id));
}

static int class_of(mt_engine *e, uint64_t fn, uint32_t *out_class) {
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

/* ---- jobs ---- */

static mt_job *job_of(const mt_engine *e, void *entry) {
    return e->graph != NULL ? &((mt_task *)entry)->job : &((errand *)entry)->job;
}

static mt_job *job_at(const mt_engine *e, uint32_t index) { return job_of(e, mti_table_at(e->jobs, index)); }

static void lane_append(mt_engine *e, lane *l, mt_job *job) {
    bool is_first = l->first_job == NO_JOB;
    job->before = l->last_job;
    job->next = NO_JOB;
    *(is_first ? &l->first_job : &job_at(e, l->last_job)->next) = (uint32_t)job->id;
    l->last_job = (uint32_t)job->id;
    if (is_first) {
        l->quiet_since_ns = 0;
        l->overtaking = NOBODY;
    } else if (job->priority > l->lowest && job->priority > l->overtaking) {
        l->overtaking = job->priority;
    }
    if (is_first || job->priority < l->lowest) l->lowest = job->priority;
}

/* The job is on no lane from now on. */
static void lane_remove(mt_engine *e, lane *l, mt_job *job) {
    *(job->before == NO_JOB ? &l->first_job : &job_at(e, job->before)->next) = job->next;
    *(job->next == NO_JOB ? &l->last_job : &job_at(e, job->next)->before) = job->before;
    job->cost_ns = 0;
    l->quiet_since_ns = 0;
}

static int enqueue(mt_engine *e, void *entry, uint64_t bytes) {
    mt_job *job = job_of(e, entry);
    int status = class_of(e, job->fn, &job->class_index);
    if (status == MT_OK) status = mt_table_add(e->jobs, entry, &job->id);
    if (status == MT_OK) status = mt_sched_push(e->sched, job->id, job->class_index, job->priority, bytes, false);
    return status;
}

static uint64_t bytes_of_task(const mt_task *task) {
    uint64_t bytes = task->args_size;
    for (uint32_t i = 0; i < task->n_edges; i++) {
        uint64_t size = task->edges[i].from->value.size;
        if (size <= INLINE_VALUE) bytes += size;
    }
    return bytes;
}

static int take_ready(mt_engine *e) {
    mt_task *batch[BATCH];
    for (uint32_t n; (n = mt_graph_take_ready(e->graph, batch, BATCH)) > 0;) {
        for (uint32_t i = 0; i < n; i++) {
            int status = enqueue(e, batch[i], bytes_of_task(batch[i]));
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

/* The lane's booking for a job, in the scheduler's words. */
static mt_assignment booking_of(const mt_job *job) {
    return (mt_assignment){job->id, job->cost_ns, job->bytes_booked, job->lane, job->class_index};
}

static void forget_job(mt_engine *e, mt_job *job) {
    if (job->id != 0) (void)mt_table_remove(e->jobs, job->id);
    job->id = 0;
    job->cost_ns = 0;
}

void mt_engine_cancelled(mt_engine *e, mt_task *task) {
    if (task->place == PLACE_READY || task->place == PLACE_TAKEN) forget_job(e, &task->job);
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
    uint64_t cursor = 0;
    for (void *entry; (entry = mt_table_next(e->jobs, &cursor)) != NULL;) {
        mt_job *job = job_of(e, entry);
        forget_job(e, job);
        if (e->graph == NULL) free_errand(e, entry);
    }
    for (uint32_t i = 0; i < e->n_lanes; i++) {
        mt_sched_clear_lane(e->sched, i);
        e->lanes[i].first_job = e->lanes[i].last_job = NO_JOB;
    }
    if (e->graph != NULL) mt_graph_abandon(e->graph);
}

/* ---- down: sending jobs ---- */

/* Makes the value of `from` an object, if it is not one yet. */
static int value_as_object(mt_engine *e, mt_task *from) {
    if (from->value_object != 0) return MT_OK;
    uint64_t offset = (uint64_t)((const unsigned char *)from->value.data - from->value_blob->data);
    uint64_t id = e->next_value_object++;
    int status = mti_objects_add_blob(e->objects, id, from->value_blob, offset, from->value.codec);
    if (status != MT_OK) return status;
    from->reaper = &e->reaper;
    from->value_object = id;
    return MT_OK;
}

#define STACK_EDGES 16u

/* head, references, inline values with padding, arguments */
static int send_task(mt_engine *e, mt_task *task, uint32_t lane_index) {
    static const unsigned char zeros[8];
    mt_edge_ref stack_refs[STACK_EDGES], *refs = stack_refs;
    mt_part stack_parts[2 * STACK_EDGES + 3], *parts = stack_parts;
    uint32_t n = task->n_edges;
    if (n > STACK_EDGES) {
        refs = mti_get_zeroed(e->alloc, n, sizeof *refs);
        parts = mti_get_zeroed(e->alloc, 2u * (size_t)n + 3, sizeof *parts);
    }
    int status = refs == NULL || parts == NULL ? MT_E_NOMEM : MT_OK;
    uint32_t n_parts = 2;
    uint64_t size = sizeof(mt_rec_task) + n * sizeof(mt_edge_ref);
    for (uint32_t i = 0; i < n && status == MT_OK; i++) {
        mt_task *from = task->edges[i].from;
        refs[i] = (mt_edge_ref){0, from->value.size, from->value.codec};
        if (from->value.size > INLINE_VALUE) {
            status = value_as_object(e, from);
            if (status == MT_OK) status = send_object(e, lane_index, from->value_object);
            refs[i].object = from->value_object;
        } else if (from->value.size > 0) {
            parts[n_parts++] = (mt_part){from->value.data, from->value.size};
            parts[n_parts++] = (mt_part){zeros, mti_pad8(from->value.size) - from->value.size};
            size += mti_pad8(from->value.size);
        }
    }
    if (status == MT_OK) {
        parts[n_parts++] = (mt_part){task->args, task->args_size};
        uint64_t cost_us = mt_sched_expect(e->sched, task->job.class_index) / 1000;
        mt_rec_task head = {{size + task->args_size, task->job.id, MT_KIND_TASK, (uint16_t)task->codec, n},
                            task->job.fn,
                            task->job.priority,
                            cost_us < UINT32_MAX ? (uint32_t)cost_us : UINT32_MAX};
        parts[0] = (mt_part){&head, sizeof head};
        parts[1] = (mt_part){refs, n * sizeof *refs};
        status = mti_link_send(e->lanes[lane_index].link, parts, n_parts, task->args_blob);
    }
    if (refs != stack_refs) mt_put(e->alloc, refs);
    if (parts != stack_parts) mt_put(e->alloc, parts);
    return status;
}

static int send_errand(mt_engine *e, errand *errand, uint32_t lane_index) {
    mt_rec_task head;
    memcpy(&head, errand->record->data, sizeof head);
    const mt_edge_ref *refs = (const mt_edge_ref *)(const void *)(errand->record->data + sizeof head);
    for (uint32_t i = 0; i < head.rec.n; i++) {
        if (refs[i].object == 0) continue;
        int status = send_object(e, lane_index, refs[i].object);
        if (status != MT_OK) return status;
    }
    head.rec.id = errand->job.id;
    mt_part parts[2] = {{&head, sizeof head}, {errand->record->data + sizeof head, errand->record->size - sizeof head}};
    return mti_link_send(e->lanes[lane_index].link, parts, 2, errand->record);
}

static int send_job(mt_engine *e, void *entry, const mt_assignment *a) {
    mt_job *job = job_of(e, entry);
    job->lane = a->lane;
    job->cost_ns = a->cost_ns;
    job->bytes_booked = a->bytes;
    lane_append(e, &e->lanes[a->lane], job);
    int status = send_object(e, a->lane, job->fn);
    if (status != MT_OK) return status;
    return e->graph != NULL ? send_task(e, entry, a->lane) : send_errand(e, entry, a->lane);
}

static int send_ready(mt_engine *e, uint64_t *out_n) {
    int status = MT_OK;
    mt_assignment a;
    while (status == MT_OK && mt_sched_next(e->sched, &a) == MT_OK) {
        void *entry = mt_table_find(e->jobs, a.key);
        if (entry == NULL || (e->graph != NULL && !mt_graph_assign(e->graph, entry))) {
            mt_sched_return(e->sched, &a); /* cancelled while it was queued */
            continue;
        }
        status = send_job(e, entry, &a);
        ++*out_n;
    }
    return status;
}

/* ---- up: results ---- */

static int unref_errand_objects(mt_engine *e, const errand *errand) {
    mt_rec_task head;
    memcpy(&head, errand->record->data, sizeof head);
    const mt_edge_ref *refs = (const mt_edge_ref *)(const void *)(errand->record->data + sizeof head);
    for (uint32_t i = 0; i < head.rec.n; i++) {
        if (refs[i].object != 0) mti_objects_release(e->objects, refs[i].object);
    }
    mti_objects_release(e->objects, head.fn);
    return MT_OK;
}

/* How a job ended: a RESULT's header, its bytes, and their owner if they have one. */
typedef struct ending {
    mt_rec_result head;
    mt_part bytes;
    mt_blob *owner;
} ending;

static int end_errand(mt_engine *e, errand *errand, const ending *how) {
    int status = unref_errand_objects(e, errand);
    mt_rec_result head = how->head;
    head.rec.id = errand->parent_id;
    head.rec.size = sizeof head + how->bytes.size;
    head.rec.kind = MT_KIND_RESULT;
    mt_part parts[2] = {{&head, sizeof head}, how->bytes};
    if (status == MT_OK) status = mti_link_send(e->parent, parts, 2, how->owner);
    free_errand(e, errand);
    return status;
}

static int end_task(mt_engine *e, mt_task *task, const ending *how) {
    uint32_t outcome = how->head.rec.n;
    bool failed = outcome == MT_OUTCOME_ERROR || outcome == MT_OUTCOME_LOST;
    uint8_t *budget = outcome == MT_OUTCOME_LOST && task->losses_left > 0 ? &task->losses_left : &task->retries_left;
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

/* The job has left its lane, which was told about before; `entry` is gone afterwards. */
static int end_job(mt_engine *e, void *entry, const ending *how) {
    mt_job *job = job_of(e, entry);
    forget_job(e, job);
    return e->graph != NULL ? end_task(e, entry, how) : end_errand(e, entry, how);
}

/* ---- recall: jobs that have not begun come back from a lane that is behind ---- */

/* To the front of the queue. */
static int put_back(mt_engine *e, mt_job *job) {
    mt_assignment booking = booking_of(job);
    lane_remove(e, &e->lanes[job->lane], job);
    mt_sched_return(e->sched, &booking);
    if (e->graph != NULL) mt_graph_unassign(e->graph, mt_table_find(e->jobs, job->id));
    return mt_sched_push(e->sched, job->id, job->class_index, job->priority, job->bytes_booked, true);
}

/* All but those that are begun: the first `started` since HELLO, of which some have ended. */
static int put_back_after(mt_engine *e, uint32_t lane_index, uint64_t started) {
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
        if (status == MT_OK) status = put_back_after(e, lane_index, started);
        e->recalled += before - mt_sched_booked(e->sched, lane_index);
        return status;
    }
    l->recalling = true;
    l->recall_below = below;
    return send_head(l->link, MT_KIND_RECALL, (uint64_t)below, n < UINT32_MAX ? (uint32_t)n : UINT32_MAX);
}

static bool may_recall(const mt_engine *e, uint32_t lane_index, int64_t below) {
    const lane *l = &e->lanes[lane_index];
    return l->up && !l->recalling && l->lowest < below && mt_sched_excess(e->sched, lane_index) > 0;
}

static int give_up(mt_engine *e, void *entry) {
    ending how = {.head = {.rec = {.n = MT_OUTCOME_RETURNED}}};
    e->owed--;
    e->given++;
    return end_job(e, entry, &how);
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
    return send_head(e->parent, MT_KIND_RECALLED, 0, e->given);
}

/* The parent wants jobs back: first those that are queued here, then those that workers have not begun, then the children's. */
static int on_recall(mt_engine *e, uint32_t n, int64_t below) {
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

/* A child has given a job back. */
static int come_back(mt_engine *e, mt_job *job) {
    void *entry = mt_table_find(e->jobs, job->id);
    e->recalled++;
    if (e->owed == 0 || job->priority >= e->owed_below) return put_back(e, job);
    mt_assignment booking = booking_of(job);
    lane_remove(e, &e->lanes[job->lane], job);
    mt_sched_return(e->sched, &booking);
    return give_up(e, entry);
}

static int on_recalled(mt_engine *e, lane *l, uint32_t n) {
    if (!l->recalling) return MT_E_RECORD;
    l->recalling = false;
    if (n == 0 && l->recall_below < ANY_PRIORITY && l->lowest < l->recall_below) l->lowest = (int32_t)l->recall_below;
    if (!l->recalling_for_parent) return MT_OK;
    l->recalling_for_parent = false;
    return --e->asked == 0 ? say_recalled(e) : MT_OK;
}

/* Finds lanes that are behind while others have nothing to do, or while jobs that are more urgent wait here or behind others in the lane (a
 * child sorts what it gets by itself). */
static int recall(mt_engine *e, uint64_t *out_n) {
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

int mt_engine_dispatch(mt_engine *e, uint64_t now_ns, uint64_t *out_n) {
    e->now_ns = now_ns;
    e->due_ns = UINT64_MAX;
    reap(e);
    int status = retire_dead_objects(e);
    if (status == MT_OK && e->graph != NULL) status = take_ready(e);
    if (status == MT_OK) status = send_ready(e, out_n);
    uint64_t recalls = 0;
    if (status == MT_OK) status = recall(e, &recalls);
    *out_n += recalls;
    return status == MT_OK && recalls > 0 ? send_ready(e, out_n) : status;
}

uint64_t mt_engine_due_ns(const mt_engine *e) { return e->due_ns; }

/* ---- what lanes say ---- */

static int on_result(mt_engine *e, uint32_t lane_index, const mt_incoming *incoming) {
    ending how;
    memcpy(&how.head, incoming->data, sizeof how.head);
    e->results++;
    void *entry = mt_table_find(e->jobs, how.head.rec.id);
    mt_job *job = entry == NULL ? NULL : job_of(e, entry);
    if (job == NULL || job->lane != lane_index || job->cost_ns == 0) {
        e->stale_results++;
        return MT_OK;
    }
    lane *from = &e->lanes[lane_index];
    if (how.head.rec.n == MT_OUTCOME_RETURNED) return come_back(e, job);
    from->finished++;
    mt_assignment booking = booking_of(job);
    lane_remove(e, from, job);
    mt_sched_done(e->sched, &booking, how.head.duration_ns);
    how.bytes = (mt_part){(const unsigned char *)incoming->data + sizeof how.head, incoming->size - sizeof how.head};
    how.owner = incoming->blob;
    return end_job(e, entry, &how);
}

int mt_engine_from_lane(mt_engine *e, uint32_t lane_index, const mt_incoming *incoming) {
    lane *from = &e->lanes[lane_index];
    int status = mt_record_check(incoming->data, incoming->size, from->role);
    if (status != MT_OK) return status;
    mt_rec rec;
    memcpy(&rec, incoming->data, sizeof rec);
    switch (rec.kind) {
        case MT_KIND_RESULT: return on_result(e, lane_index, incoming);
        case MT_KIND_HELLO:
            from->up = true;
            from->finished = 0;
            mt_sched_set_slots(e->sched, lane_index, from->role == MT_ROLE_WORKER ? 1 : rec.n);
            return MT_OK;
        case MT_KIND_SLOTS: mt_sched_set_slots(e->sched, lane_index, rec.n); return MT_OK;
        case MT_KIND_RECALLED: return on_recalled(e, from, rec.n);
        case MT_KIND_BYE:
            from->said_bye = true;
            from->up = false;
            mt_sched_set_slots(e->sched, lane_index, 0);
            return MT_OK;
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
                  .bytes = {body, sizeof *why + host_size}};
    e->lost++;
    return end_job(e, mt_table_find(e->jobs, job->id), &how);
}

int mt_engine_lane_lost(mt_engine *e, uint32_t lane_index, const mt_lost *why, uint64_t started) {
    lane *l = &e->lanes[lane_index];
    l->up = false;
    mt_objects_forget_lane(e->objects, lane_index);
    mt_sched_set_slots(e->sched, lane_index, 0);
    mti_link_clean_up(l->link);
    int status = put_back_after(e, lane_index, started);
    if (status == MT_OK && l->recalling) status = on_recalled(e, l, 0);
    while (status == MT_OK && l->first_job != NO_JOB) {
        mt_job *job = job_at(e, l->first_job);
        mt_assignment booking = booking_of(job);
        lane_remove(e, l, job);
        mt_sched_return(e->sched, &booking);
        status = end_lost(e, job, why);
    }
    mt_sched_clear_lane(e->sched, lane_index);
    return status;
}

/* ---- the agent's side ---- */

static int on_task(mt_engine *e, const mt_incoming *incoming) {
    mt_part whole = {incoming->data, incoming->size};
    errand *job = mti_get_zeroed(e->alloc, 1, sizeof *job);
    if (job == NULL) return MT_E_NOMEM;
    job->record = incoming->blob != NULL ? mt_blob_ref(incoming->blob) : mt_blob_from_parts(e->alloc, &whole, 1);
    if (job->record == NULL) {
        mt_put(e->alloc, job);
        return MT_E_NOMEM;
    }
    mt_rec_task head;
    memcpy(&head, job->record->data, sizeof head);
    job->parent_id = head.rec.id;
    job->job.fn = head.fn;
    job->job.priority = head.priority;
    const mt_edge_ref *refs = (const mt_edge_ref *)(const void *)(job->record->data + sizeof head);
    int status = mt_objects_ref(e->objects, head.fn);
    uint32_t held = 0;
    for (; held < head.rec.n && status == MT_OK; held++) {
        if (refs[held].object != 0) status = mt_objects_ref(e->objects, refs[held].object);
    }
    if (status != MT_OK) { /* the parent refers to what it never sent */
        free_errand(e, job);
        return MT_E_RECORD;
    }
    status = enqueue(e, job, job->record->size);
    if (status == MT_OK && head.cost_us > 0) mt_sched_hint(e->sched, job->job.class_index, head.cost_us * (uint64_t)1000);
    return status;
}

static int on_object(mt_engine *e, const mt_rec *rec, const mt_incoming *incoming) {
    mt_part bytes = {(const unsigned char *)incoming->data + sizeof *rec, incoming->size - sizeof *rec};
    int status = incoming->blob != NULL
                     ? mti_objects_add_blob(e->objects, rec->id, incoming->blob, sizeof *rec, rec->flags)
                     : mt_objects_add(e->objects, rec->id, &bytes, rec->flags);
    return status == MT_E_INVAL ? MT_E_RECORD : status;
}

int mt_engine_from_parent(mt_engine *e, const mt_incoming *incoming) {
    int status = mt_record_check(incoming->data, incoming->size, MT_ROLE_PARENT);
    if (status != MT_OK) return status;
    mt_rec rec;
    memcpy(&rec, incoming->data, sizeof rec);
    switch (rec.kind) {
        case MT_KIND_TASK: return on_task(e, incoming);
        case MT_KIND_OBJECT: return on_object(e, &rec, incoming);
        case MT_KIND_DROP: mti_objects_release(e->objects, rec.id); return MT_OK;
        case MT_KIND_RECALL: return on_recall(e, rec.n, (int64_t)rec.id);
        case MT_KIND_STOP: e->stop_mode = (int)rec.n; return MT_OK;
        default: return MT_E_RECORD;
    }
}

int mt_engine_say_slots(mt_engine *e, uint32_t slots) {
    uint16_t kind = e->said_hello ? MT_KIND_SLOTS : MT_KIND_HELLO;
    e->said_hello = true;
    return send_head(e->parent, kind, (uint64_t)getpid(), slots);
}

int mt_engine_say_bye(mt_engine *e) { return send_head(e->parent, MT_KIND_BYE, 0, 0); }

int mt_engine_stop_children(mt_engine *e, uint32_t mode) {
    for (uint32_t i = 0; i < e->n_lanes; i++) {
        if (e->lanes[i].role != MT_ROLE_CHILD) continue;
        int status = send_head(e->lanes[i].link, MT_KIND_STOP, 0, mode);
        if (status != MT_OK) return status;
    }
    return MT_OK;
}

uint32_t mt_engine_children_left(const mt_engine *e) {
    uint32_t left = 0;
    for (uint32_t i = 0; i < e->n_lanes; i++) left += e->lanes[i].role == MT_ROLE_CHILD && !e->lanes[i].said_bye;
    return left;
}

bool mt_engine_is_hopeless(const mt_engine *e) {
    for (uint32_t i = 0; i < e->n_lanes; i++) {
        if (e->lanes[i].role == MT_ROLE_CHILD && !e->lanes[i].up && !e->lanes[i].said_bye) return false;
    }
    return mt_sched_slots(e->sched) == 0;
}

int mt_engine_stop_mode(const mt_engine *e) { return e->stop_mode; }

uint64_t mt_engine_work_ahead_ns(const mt_engine *e) { return mt_sched_least_load(e->sched); }

mt_engine_stats mt_engine_stats_now(const mt_engine *e) {
    mt_engine_stats stats = {.outstanding = mt_table_count(e->jobs),
                             .objects = mt_objects_count(e->objects),
                             .object_bytes = mt_objects_bytes(e->objects),
                             .results = e->results,
                             .stale_results = e->stale_results,
                             .lost = e->lost,
                             .recalled = e->recalled,
                             .slots = mt_sched_slots(e->sched),
                             .lanes = e->n_lanes};
    if (e->graph != NULL) {
        stats.graph = mt_graph_count(e->graph);
        stats.outstanding = stats.graph.waiting + stats.graph.ready + stats.graph.taken;
    }
    return stats;
}

int mt_engine_check(const mt_engine *e) {
    int status = mt_table_check(e->jobs);
    if (status == MT_OK) status = mt_objects_check(e->objects);
    if (status == MT_OK) status = mt_sched_check(e->sched);
    if (status == MT_OK && e->graph != NULL) status = mt_graph_check(e->graph);
    uint64_t booked = 0, on_lanes = 0, cursor = 0;
    for (uint32_t i = 0; i < e->n_lanes; i++) booked += mt_sched_booked(e->sched, i);
    for (void *entry; (entry = mt_table_next(e->jobs, &cursor)) != NULL;) on_lanes += job_of(e, entry)->cost_ns != 0;
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
