/* Tasks for somebody else: they come from the parent or from below, and their results go back to where they came from. */
#include "engine_inner.h"

#include <string.h>

static const mt_edge_ref *refs_of(const errand *errand) {
    return (const mt_edge_ref *)(const void *)(errand->record->data + sizeof(mt_rec_task));
}

void mti_engine_free_errand(mt_engine *e, errand *errand) {
    e->n_errands--;
    mt_blob_unref(errand->record);
    mt_put(e->alloc, errand);
}

static void let_go(mt_engine *e, const errand *errand) {
    mt_rec_task head;
    memcpy(&head, errand->record->data, sizeof head);
    const mt_edge_ref *refs = refs_of(errand);
    for (uint32_t i = 0; i < head.rec.n; i++) {
        if (refs[i].object != 0) mti_objects_release(e->objects, refs[i].object);
    }
    mti_objects_release(e->objects, head.fn);
}

int mti_engine_on_task(mt_engine *e, uint32_t origin, const mt_rec *rec, const mt_incoming *incoming) {
    mt_part whole = {incoming->data, incoming->size};
    errand *made = mti_get_zeroed(e->alloc, 1, sizeof *made);
    if (made == NULL) return MT_E_NOMEM;
    e->n_errands++;
    made->record = incoming->blob != NULL ? mt_blob_ref(incoming->blob) : mt_blob_from_parts(e->alloc, &whole, 1);
    if (made->record == NULL) {
        mti_engine_free_errand(e, made);
        return MT_E_NOMEM;
    }
    mt_rec_task head;
    memcpy(&head, made->record->data, sizeof head);
    if (memcmp(&head.rec, rec, sizeof *rec) != 0 || mti_task_check(made->record->data) != MT_OK) {
        mti_engine_free_errand(e, made);
        return MT_E_RECORD;
    }
    made->origin = origin;
    made->origin_id = head.rec.id;
    made->job.kind = JOB_ERRAND;
    made->job.fn = head.fn;
    made->job.priority = head.priority;
    made->job.age = origin == e->up && head.age > 0 ? head.age : 0; /* what is recalled elsewhere and comes here goes before what is younger */
    const mt_edge_ref *refs = refs_of(made);
    int status = mt_objects_ref(e->objects, head.fn);
    for (uint32_t held = 0; held < head.rec.n && status == MT_OK; held++) {
        if (refs[held].object != 0) status = mt_objects_ref(e->objects, refs[held].object);
        for (; status != MT_OK && held > 0; held--) { /* what is held already is let go */
            if (refs[held - 1].object != 0) mti_objects_release(e->objects, refs[held - 1].object);
        }
        if (status != MT_OK) mti_objects_release(e->objects, head.fn);
    }
    if (status != MT_OK) { /* the sender refers to what it never sent */
        mti_engine_free_errand(e, made);
        return MT_E_RECORD;
    }
    lane *from = &e->lanes[origin];
    if (origin != e->up && !from->submits) from->submits = e->has_untold = true;
    uint32_t class_index;
    bool is_span = (head.rec.flags & MT_CODEC_SPAN) != 0;
    status = mti_engine_class_of(e, head.fn, &class_index);
    if (status == MT_OK && head.cost_us > 0) mt_sched_hint(e->sched, class_index, head.cost_us * (is_span ? (uint64_t)1 : 1000));
    if (status == MT_OK && !is_span) return mti_engine_enqueue(e, &made->job, made->record->size);
    uint64_t args_at = mti_args_at(made->record->data);
    if (status == MT_OK) status = mti_engine_open_span(e, &made->job, made->record->data + args_at, made->record->size - args_at, made->record->size);
    if (status != MT_E_STALE) return status;
    let_go(e, made);
    mti_engine_free_errand(e, made);
    return MT_E_RECORD;
}

int mti_engine_tell_origin(mt_engine *e, const errand *errand, const ending *how) {
    if (errand->origin == NO_LANE) return MT_OK;
    mt_rec_result head = how->head;
    head.rec.id = errand->origin_id;
    head.rec.size = sizeof head + how->bytes.size;
    head.rec.kind = MT_KIND_RESULT;
    mt_part parts[2] = {{&head, sizeof head}, how->bytes};
    return mti_link_send(e->lanes[errand->origin].link, parts, 2, how->owner);
}

int mti_engine_end_errand(mt_engine *e, errand *errand, const ending *how) {
    let_go(e, errand);
    int status = mti_engine_tell_origin(e, errand, how);
    mti_engine_free_errand(e, errand);
    return status;
}

int mti_engine_on_object(mt_engine *e, uint32_t origin, const mt_rec *rec, const mt_incoming *incoming) {
    mt_part bytes = {(const unsigned char *)incoming->data + sizeof *rec, incoming->size - sizeof *rec};
    int status;
    if (mt_objects_ref(e->objects, rec->id) == MT_OK) { /* it has gone round: each lane that knows it holds a reference */
        status = mti_objects_is(e->objects, rec->id, &bytes, rec->flags) ? MT_OK : MT_E_RECORD;
        if (status != MT_OK) mti_objects_release(e->objects, rec->id); /* two have given one number: no value rather than a wrong one */
    } else if (incoming->blob != NULL) {
        status = mti_objects_add_blob(e->objects, rec->id, incoming->blob, sizeof *rec, rec->flags);
    } else {
        status = mt_objects_add(e->objects, rec->id, &bytes, rec->flags);
    }
    if (status == MT_OK && mti_objects_bring(e->objects, rec->id, origin) != 1) status = MT_E_RECORD;
    return status == MT_E_INVAL ? MT_E_RECORD : status;
}

void mti_engine_on_drop(mt_engine *e, uint32_t origin, uint64_t id) {
    if (mti_objects_unbring(e->objects, id, origin)) mti_objects_release(e->objects, id);
}

void mti_engine_drop_orphan(mt_engine *e, mt_job *job) {
    let_go(e, errand_of(job));
    mti_engine_forget_job(e, job);
    mti_engine_free_errand(e, errand_of(job));
}

void mti_engine_orphan(mt_engine *e, uint32_t origin) {
    uint64_t cursor = 0;
    if (e->lanes[origin].submits) mti_engine_orphan_spans(e, origin);
    for (mt_job *job; e->lanes[origin].submits && (job = mt_table_next(e->jobs, &cursor)) != NULL;) {
        if (job->kind == JOB_PART || origin_of(job) != origin) continue;
        errand_of(job)->origin = NO_LANE;
        if (job->cost_ns == 0) mti_engine_drop_orphan(e, job);
    }
    uint64_t place = 0;
    for (uint64_t id; (id = mti_objects_next_brought(e->objects, origin, &place)) != 0;) mti_engine_on_drop(e, origin, id);
    e->lanes[origin].submits = false;
    e->lanes[origin].told = 1;
}

/* Small changes are not worth a record. */
static bool differs_much(uint32_t now, uint32_t told) {
    return (now == 0) != (told == 0) || now > told + told / 2 || now + now / 2 < told;
}

int mti_engine_tell_slots_elsewhere(mt_engine *e) {
    uint32_t above = e->up == NO_LANE ? 0 : mt_sched_lane_slots(e->sched, e->up);
    uint32_t total = mt_sched_slots(e->sched) + above;
    if (total == e->told_total && !e->has_untold) return MT_OK;
    int status = MT_OK;
    for (uint32_t i = 0; i < e->n_lanes && status == MT_OK; i++) {
        lane *l = &e->lanes[i];
        if (!l->submits || !l->up) continue;
        uint32_t elsewhere = total - mt_sched_lane_slots(e->sched, i);
        if (e->has_untold ? elsewhere == l->told : !differs_much(elsewhere, l->told)) continue;
        l->told = elsewhere;
        status = mti_engine_send_head(l->link, MT_KIND_SLOTS, 0, elsewhere < MT_MAX_SLOTS ? elsewhere : MT_MAX_SLOTS);
    }
    e->told_total = total;
    e->has_untold = false;
    return status;
}
