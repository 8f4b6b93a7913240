/* What an engine sends to its lanes: objects, then the tasks that refer to them. */
#include "engine_inner.h"

#include <string.h>

int mti_engine_send_head(mt_link *link, uint16_t kind, uint64_t id, uint32_t n) {
    mt_rec rec = {sizeof rec, id, kind, 0, n};
    mt_part part = {&rec, sizeof rec};
    return mti_link_send(link, &part, 1, NULL);
}

static int unref_object(mt_engine *e, uint64_t id) {
    uint32_t n = 0;
    if (mt_objects_unref(e->objects, id, e->scratch_lanes, &n) != 1) return MT_OK;
    for (uint32_t i = 0; i < n; i++) {
        lane *to = &e->lanes[e->scratch_lanes[i]];
        int status = to->up ? mti_engine_send_head(to->link, MT_KIND_DROP, id, 0) : MT_OK;
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

int mti_engine_retire_dead_objects(mt_engine *e) {
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

/* Shared values are read in place. Other objects are bytes for their first lane: most values are used once, and putting them into a file and
 * faulting it in takes longer than the ring. That another lane wants them shows that they are used more often. */
static bool is_to_be_mapped(const lane *to, uint64_t size, uint32_t codec, bool is_elsewhere) {
    return to->maps && size >= MAPPED_OBJECT && (is_elsewhere || (codec & MT_CODEC_SHARED) != 0);
}

static int send_object(mt_engine *e, uint32_t lane_index, uint64_t id) {
    /* A rank that brought an object has it for as long as a task that refers to it is not answered; were it sent back, each side would keep it for
     * the other. (A worker's engine and the worker itself have tables of their own.) */
    if (e->lanes[lane_index].role == MT_ROLE_CHILD && mti_objects_is_brought(e->objects, id, lane_index)) return MT_OK;
    bool is_elsewhere = e->lanes[lane_index].maps && mti_objects_is_somewhere(e->objects, id);
    int is_new = mt_objects_mark(e->objects, id, lane_index);
    if (is_new != 1) return is_new;
    lane *to = &e->lanes[lane_index];
    mt_part parts[2];
    uint32_t codec;
    int status = mt_objects_get(e->objects, id, &parts[1], &codec);
    if (status != MT_OK) return status;
    e->objects_sent++;
    mt_where where;
    if (is_to_be_mapped(to, parts[1].size, codec, is_elsewhere) && mt_objects_where(e->objects, id, &where) == MT_OK) {
        mt_rec rec = {sizeof rec + sizeof where, id, MT_KIND_OBJECT, (uint16_t)(codec | MT_CODEC_MAPPED), 0};
        parts[0] = (mt_part){&rec, sizeof rec};
        parts[1] = (mt_part){&where, sizeof where};
        e->objects_mapped++;
        return mti_link_send(to->link, parts, 2, NULL);
    }
    mt_rec rec = {sizeof rec + parts[1].size, id, MT_KIND_OBJECT, (uint16_t)codec, 0};
    parts[0] = (mt_part){&rec, sizeof rec};
    return mti_link_send(to->link, parts, 2, mti_objects_blob(e->objects, id));
}

/* ---- down: sending jobs ---- */

/* Makes the value of `from` an object, if it is not one yet. */
static int value_as_object(mt_engine *e, mt_task *from) {
    if (from->value_object != 0) return MT_OK;
    uint64_t offset = (uint64_t)((const unsigned char *)from->value.data - from->value_blob->data);
    uint64_t id;
    int status = mti_ids_take(&e->ids, &id);
    if (status == MT_OK) status = mti_objects_add_blob(e->objects, id, from->value_blob, offset, from->value.codec);
    if (status != MT_OK) return status;
    from->reaper = &e->reaper;
    from->value_object = id;
    return MT_OK;
}

#define STACK_EDGES 16u

/* What goes out for a job: its arguments in two parts, of which `owner` (may be NULL) owns the second. */
typedef struct outgoing {
    const mt_job *job;
    uint32_t lane;
    uint32_t codec;
    mt_part args[2];
    mt_blob *owner;
} outgoing;

static mt_rec_task head_of(const mt_engine *e, const outgoing *out, uint64_t size, uint32_t n_edges) {
    uint64_t cost = mt_sched_expect(e->sched, out->job->class_index);
    if ((out->codec & MT_CODEC_SPAN) == 0) cost /= 1000;
    return (mt_rec_task){{size, out->job->id, MT_KIND_TASK, (uint16_t)out->codec, n_edges},
                         out->job->fn,
                         out->job->priority,
                         cost < UINT32_MAX ? (uint32_t)cost : UINT32_MAX,
                         out->job->age};
}

/* head, references, inline values with padding, arguments */
static int send_task(mt_engine *e, mt_task *task, const outgoing *out) {
    static const unsigned char zeros[8];
    mt_edge_ref stack_refs[STACK_EDGES], *refs = stack_refs;
    mt_part stack_parts[2 * STACK_EDGES + 4], *parts = stack_parts;
    uint32_t n = task->n_edges;
    if (n > STACK_EDGES) {
        refs = mti_get_zeroed(e->alloc, n, sizeof *refs);
        parts = mti_get_zeroed(e->alloc, 2u * (size_t)n + 4, sizeof *parts);
    }
    int status = refs == NULL || parts == NULL ? MT_E_NOMEM : MT_OK;
    uint32_t n_parts = 2;
    uint64_t size = sizeof(mt_rec_task) + n * sizeof(mt_edge_ref);
    for (uint32_t i = 0; i < n && status == MT_OK; i++) {
        mt_task *from = task->edges[i].from;
        refs[i] = (mt_edge_ref){0, from->value.size, from->value.codec};
        if (mti_goes_as_object(from->value.size, from->value.codec)) {
            status = value_as_object(e, from);
            if (status == MT_OK) status = send_object(e, out->lane, from->value_object);
            refs[i].object = from->value_object;
        } else if (from->value.size > 0) {
            parts[n_parts++] = (mt_part){from->value.data, from->value.size};
            parts[n_parts++] = (mt_part){zeros, mti_pad8(from->value.size) - from->value.size};
            size += mti_pad8(from->value.size);
        }
    }
    if (status == MT_OK) {
        if (out->args[0].size > 0) parts[n_parts++] = out->args[0];
        parts[n_parts++] = out->args[1];
        mt_rec_task head = head_of(e, out, size + out->args[0].size + out->args[1].size, n);
        parts[0] = (mt_part){&head, sizeof head};
        parts[1] = (mt_part){refs, n * sizeof *refs};
        status = mti_link_send(e->lanes[out->lane].link, parts, n_parts, out->owner);
    }
    if (refs != stack_refs) mt_put(e->alloc, refs);
    if (parts != stack_parts) mt_put(e->alloc, parts);
    return status;
}

static int send_objects_of(mt_engine *e, const errand *errand, uint32_t lane_index) {
    mt_rec_task head;
    memcpy(&head, errand->record->data, sizeof head);
    const mt_edge_ref *refs = (const mt_edge_ref *)(const void *)(errand->record->data + sizeof head);
    for (uint32_t i = 0; i < head.rec.n; i++) {
        if (refs[i].object == 0) continue;
        int status = send_object(e, lane_index, refs[i].object);
        if (status != MT_OK) return status;
    }
    return MT_OK;
}

static int send_errand(mt_engine *e, errand *errand, uint32_t lane_index) {
    int status = send_objects_of(e, errand, lane_index);
    if (status != MT_OK) return status;
    mt_rec_task head;
    memcpy(&head, errand->record->data, sizeof head);
    head.rec.id = errand->job.id;
    mt_part parts[2] = {{&head, sizeof head}, {errand->record->data + sizeof head, errand->record->size - sizeof head}};
    return mti_link_send(e->lanes[lane_index].link, parts, 2, errand->record);
}

/* As the record of its span, with its own items. */
static int send_items(mt_engine *e, const span_part *p, uint32_t lane_index) {
    const span *s = p->of;
    bool runs_there = e->lanes[lane_index].link->recall != NULL; /* no engine that might have to combine */
    mt_span head = {p->first, p->count, runs_there ? 0 : s->head.combine, p->losses_left, s->head.chunk};
    int status = head.combine == 0 ? MT_OK : send_object(e, lane_index, head.combine);
    if (status != MT_OK) return status;
    outgoing out = {.job = &p->job, .lane = lane_index, .args = {{&head, sizeof head}}};
    if (s->whole->kind == JOB_TASK) {
        mt_task *task = task_of(s->whole);
        out.codec = task->codec;
        out.owner = task->args_blob;
        out.args[1] = (mt_part){(const unsigned char *)task->args + sizeof head, task->args_size - sizeof head};
        return send_task(e, task, &out);
    }
    const errand *errand = errand_of(s->whole);
    status = send_objects_of(e, errand, lane_index);
    if (status != MT_OK) return status;
    const unsigned char *record = errand->record->data;
    mt_rec rec;
    memcpy(&rec, record, sizeof rec);
    out.codec = rec.flags;
    mt_rec_task top = head_of(e, &out, errand->record->size, rec.n);
    mt_part parts[4] = {{&top, sizeof top},
                        {record + sizeof top, s->args_at - sizeof top},
                        {&head, sizeof head},
                        {record + s->args_at + sizeof head, errand->record->size - s->args_at - sizeof head}};
    return mti_link_send(e->lanes[lane_index].link, parts, 4, errand->record);
}

static int send_part(mt_engine *e, const span_part *p, uint32_t lane_index) {
    if (p->values == NULL) return send_items(e, p, lane_index);
    outgoing out = {.job = &p->job, .lane = lane_index, .codec = MT_CODEC_PARTS};
    mt_rec_task head = head_of(e, &out, sizeof head + p->values->size, 0);
    mt_part parts[2] = {{&head, sizeof head}, {p->values->data, p->values->size}};
    return mti_link_send(e->lanes[lane_index].link, parts, 2, p->values);
}

static int send_job(mt_engine *e, mt_job *job, const mt_assignment *a) {
    job->lane = a->lane;
    job->cost_ns = a->cost_ns;
    job->units = a->units;
    job->bytes_booked = a->bytes;
    mti_engine_lane_append(e, &e->lanes[a->lane], job);
    int status = send_object(e, a->lane, job->fn);
    if (status != MT_OK) return status;
    if (job->kind == JOB_PART) return send_part(e, part_of(job), a->lane);
    if (job->kind == JOB_ERRAND) return send_errand(e, errand_of(job), a->lane);
    mt_task *task = task_of(job);
    outgoing out = {.job = job, .lane = a->lane, .codec = task->codec, .args = {{0}, {task->args, task->args_size}}, .owner = task->args_blob};
    return send_task(e, task, &out);
}

static int next(mt_engine *e, mt_assignment *a) {
    int status = mt_sched_next(e->sched, a);
    if (status != MT_E_AGAIN || e->up == NO_LANE || e->lanes[e->up].recalling) return status;
    return mt_sched_next_up(e->sched, e->up, a);
}

/* False: it was cancelled. */
static bool begin(mt_engine *e, mt_job *job) {
    if (job->kind == JOB_PART) return mti_engine_begin_part(e, part_of(job));
    return job->kind == JOB_ERRAND || mt_graph_assign(e->graph, task_of(job));
}

int mti_engine_send_ready(mt_engine *e, uint64_t *out_n) {
    int status = MT_OK;
    mt_assignment a;
    while (status == MT_OK && next(e, &a) == MT_OK) {
        mt_job *job = mt_table_find(e->jobs, a.key);
        if (job == NULL || !begin(e, job)) {
            mt_sched_return(e->sched, &a); /* cancelled while it was queued */
            continue;
        }
        bool is_cut = job->kind == JOB_PART && a.items < part_of(job)->count && part_of(job)->values == NULL;
        if (is_cut) {
            span_part *front = NULL;
            status = mti_engine_cut_part(e, part_of(job), a.items, &front);
            if (status != MT_OK) return status;
            job = &front->job;
        }
        status = send_job(e, job, &a);
        if (job->kind == JOB_PART && !is_cut) mti_engine_left_queue(e, part_of(job));
        ++*out_n;
    }
    return status;
}
