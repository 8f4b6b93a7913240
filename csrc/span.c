/* Tasks of many items: cut into parts for the lanes, and their values put together again. */
#include "engine_inner.h"

#include <string.h>

/* So many values in a row are combined while others are still being computed: an engine keeps few of them, and their combination is shared among
 * workers. */
#define COMBINE_AT_A_TIME 16u

static bool is_task(const span *s) { return s->whole->kind == JOB_TASK; }

/* Whether anybody is left to get the value. */
static bool is_wanted(const span *s) {
    return is_task(s) ? task_of(s->whole)->place == PLACE_TAKEN : origin_of(s->whole) != NO_LANE;
}

/* ---- parts ---- */

static span_part *new_part(mt_engine *e, span *s, uint64_t first, uint64_t count) {
    span_part *p = mti_get_zeroed(e->alloc, 1, sizeof *p);
    if (p == NULL) return NULL;
    p->of = s;
    p->first = first;
    p->count = count;
    p->losses_left = s->head.losses;
    p->job.kind = JOB_PART;
    p->job.priority = s->whole->priority;
    p->next = s->parts;
    if (s->parts != NULL) s->parts->before = p;
    s->parts = p;
    return p;
}

static void free_part(mt_engine *e, span_part *p) {
    mti_engine_forget_job(e, &p->job);
    *(p->before == NULL ? &p->of->parts : &p->before->next) = p->next;
    if (p->next != NULL) p->next->before = p->before;
    mt_blob_unref(p->values);
    mt_put(e->alloc, p);
}

static int push_part(mt_engine *e, const span_part *p) {
    bool is_items = p->values == NULL;
    mt_ready ready = {.key = p->job.id,
                      .items = is_items ? p->count : 0,
                      .bytes = is_items ? p->of->bytes : p->values->size,
                      .age = p->of->whole->age,
                      .class_index = p->job.class_index,
                      .priority = p->job.priority,
                      .origin = origin_of(&p->job),
                      .chunk = p->of->head.chunk,
                      .stays = !is_returnable(&p->job)};
    int status = mt_sched_push(e->sched, &ready);
    p->of->whole->age = ready.age;
    return status;
}

/* A new part is ready. */
static int add_part(mt_engine *e, span_part *p, uint64_t fn) {
    p->job.fn = fn;
    int status = mti_engine_class_of(e, fn, &p->job.class_index);
    if (status == MT_OK) status = mt_table_add(e->jobs, &p->job, &p->job.id);
    return status == MT_OK ? push_part(e, p) : status;
}

/* Once: nothing of it gets ready afterwards, and there may be very many parts. */
static void drop_ready_parts(mt_engine *e, span *s) {
    if (s->is_cleared) return;
    s->is_cleared = true;
    for (span_part *p = s->parts, *next; p != NULL; p = next) {
        next = p->next;
        if (p->job.cost_ns == 0) free_part(e, p);
    }
}

/* ---- spans ---- */

int mti_engine_open_span(mt_engine *e, mt_job *whole, const void *args, uint64_t size, uint64_t bytes) {
    mt_span head;
    if (!mti_span_read(args, size, &head)) return MT_E_STALE;
    if (head.combine != 0 && mt_objects_ref(e->objects, head.combine) != MT_OK) return MT_E_STALE;
    span *s = mti_get_zeroed(e->alloc, 1, sizeof *s);
    if (s == NULL) {
        mti_objects_release(e->objects, head.combine);
        if (whole->kind == JOB_ERRAND) mti_engine_free_errand(e, errand_of(whole)); /* nobody else knows of it */
        return MT_E_NOMEM;
    }
    s->whole = whole;
    s->head = head;
    s->bytes = bytes;
    s->place = (mt_node){&e->spans, e->spans.before};
    s->place.before->next = s->place.next->before = &s->place;
    if (is_task(s)) {
        mt_task_ref(task_of(whole));
        task_of(whole)->losses_left = 0; /* parts are tried again, not the whole */
    } else {
        s->args_at = mti_args_at(errand_of(whole)->record->data);
    }
    span_part *p = new_part(e, s, head.first, head.count);
    return p == NULL ? MT_E_NOMEM : add_part(e, p, whole->fn);
}

static void free_span(mt_engine *e, span *s) {
    s->place.before->next = s->place.next;
    s->place.next->before = s->place.before;
    for (uint64_t i = 0; i < s->n_pieces; i++) mt_blob_unref(s->pieces[i].owner);
    mt_blob_unref(s->failure.owner);
    mti_objects_release(e->objects, s->head.combine);
    mt_put(e->alloc, s->pieces);
    mt_put(e->alloc, s);
}

/* No part is left. `how` may refer to what the span owns. */
static int end_span(mt_engine *e, span *s, const ending *how) {
    mt_task *task = is_task(s) ? task_of(s->whole) : NULL;
    int status = mti_engine_end_job(e, s->whole, how);
    free_span(e, s);
    if (task != NULL) mt_task_unref(task);
    return status;
}

void mti_engine_abandon_spans(mt_engine *e) {
    while (e->spans.next != &e->spans) {
        span *s = (span *)(void *)e->spans.next;
        while (s->parts != NULL) free_part(e, s->parts);
        if (is_task(s)) {
            mt_task_unref(task_of(s->whole));
        } else {
            mti_engine_free_errand(e, errand_of(s->whole));
        }
        free_span(e, s);
    }
}

/* ---- values ---- */

static uint64_t joined_size(const piece *p) {
    return p->codec == MT_CODEC_PARTS ? mti_pad8(p->bytes.size) : sizeof(mt_parts_head) + mti_pad8(p->bytes.size);
}

/* The values of pieces as one; those that are such values themselves are taken apart. */
static mt_blob *join(mt_engine *e, const piece *pieces, uint64_t n) {
    uint64_t size = 0;
    for (uint64_t i = 0; i < n; i++) size += joined_size(&pieces[i]);
    mt_blob *blob = mt_blob_new(e->alloc, size);
    unsigned char *to = blob == NULL ? NULL : blob->data;
    e->joined_bytes += size;
    for (uint64_t i = 0; to != NULL && i < n; i++) {
        const piece *p = &pieces[i];
        if (p->codec != MT_CODEC_PARTS) {
            mt_parts_head head = {p->count, p->bytes.size, p->codec, 0};
            memcpy(to, &head, sizeof head);
            to += sizeof head;
        }
        if (p->bytes.size > 0) memcpy(to, p->bytes.data, p->bytes.size);
        memset(to + p->bytes.size, 0, mti_pad8(p->bytes.size) - p->bytes.size);
        to += mti_pad8(p->bytes.size);
    }
    return blob;
}

/* The bytes of an ending with an owner of their own, and a reference to it. */
static int own_bytes(mt_engine *e, const ending *how, mt_part *out_bytes, mt_blob **out_owner) {
    *out_bytes = how->bytes;
    *out_owner = NULL;
    if (how->bytes.size == 0) return MT_OK;
    if (how->owner != NULL) {
        *out_owner = mt_blob_ref(how->owner);
        return MT_OK;
    }
    *out_owner = mt_blob_from_parts(e->alloc, &how->bytes, 1);
    if (*out_owner == NULL) return MT_E_NOMEM;
    out_bytes->data = (*out_owner)->data;
    return MT_OK;
}

/* Pieces [from, from + n) become a part that combines them. */
static int combine(mt_engine *e, span *s, uint64_t from, uint64_t n) {
    piece *taken = s->pieces + from;
    uint64_t first = taken->first, count = 0;
    mt_blob *values = join(e, taken, n);
    if (values == NULL) return MT_E_NOMEM;
    for (uint64_t i = 0; i < n; i++) {
        count += taken[i].count;
        mt_blob_unref(taken[i].owner);
    }
    s->n_pieces -= n;
    memmove(taken, taken + n, (s->n_pieces - from) * sizeof *taken);
    span_part *p = new_part(e, s, first, count);
    if (p == NULL) {
        mt_blob_unref(values);
        return MT_E_NOMEM;
    }
    p->values = values;
    return add_part(e, p, s->head.combine);
}

/* A part has given a value. Parts end nearly in order, so its place is near the end. */
static int keep(mt_engine *e, span *s, const span_part *p, const ending *how) {
    int status = mti_grow(e->alloc, (void **)&s->pieces, s->n_pieces, &s->capacity, s->n_pieces + 1, sizeof *s->pieces);
    piece kept = {.first = p->first, .count = p->count, .codec = how->head.rec.flags};
    if (status == MT_OK) status = own_bytes(e, how, &kept.bytes, &kept.owner);
    if (status != MT_OK) return status;
    uint64_t at = s->n_pieces++;
    for (; at > 0 && s->pieces[at - 1].first > p->first; at--) s->pieces[at] = s->pieces[at - 1];
    s->pieces[at] = kept;
    if (p->values == NULL) s->duration_ns += how->head.duration_ns;
    if (s->head.combine == 0) return MT_OK;
    uint64_t from = at, to = at + 1;
    while (from > 0 && s->pieces[from - 1].first + s->pieces[from - 1].count == s->pieces[from].first) from--;
    while (to < s->n_pieces && s->pieces[to - 1].first + s->pieces[to - 1].count == s->pieces[to].first) to++;
    return to - from >= COMBINE_AT_A_TIME ? combine(e, s, from, to - from) : MT_OK;
}

/* The span fails with its earliest part that has; nothing more of it is begun. */
static int fail(mt_engine *e, span *s, const span_part *p, const ending *how) {
    if (s->failed && s->failure.head.rec.id < p->first) return MT_OK;
    mt_blob_unref(s->failure.owner);
    s->failure = *how;
    s->failure.head.rec.id = p->first;
    s->failed = true;
    return own_bytes(e, how, &s->failure.bytes, &s->failure.owner);
}

/* Something has come to an end. */
static int go_on(mt_engine *e, span *s) {
    if (s->failed || !is_wanted(s)) drop_ready_parts(e, s);
    if (s->parts != NULL) return MT_OK;
    if (s->failed) return end_span(e, s, &s->failure);
    ending how = {.head = {.rec = {.n = MT_OUTCOME_CANCELLED}}};
    if (!is_wanted(s)) return end_span(e, s, &how);
    if (s->head.combine != 0 && s->n_pieces > 1) return combine(e, s, 0, s->n_pieces);
    how.head = (mt_rec_result){{.n = MT_OUTCOME_OK, .flags = MT_CODEC_PARTS}, s->duration_ns};
    if (s->head.combine != 0) {
        how.head.rec.flags = (uint16_t)s->pieces->codec;
        how.bytes = s->pieces->bytes;
        how.owner = s->pieces->owner;
        return end_span(e, s, &how);
    }
    how.owner = join(e, s->pieces, s->n_pieces);
    if (how.owner == NULL) return MT_E_NOMEM;
    how.bytes = (mt_part){how.owner->data, how.owner->size};
    int status = end_span(e, s, &how);
    mt_blob_unref(how.owner);
    return status;
}

/* ---- what happens to parts ---- */

void mti_engine_left_queue(mt_engine *e, const span_part *p) {
    const span *s = p->of;
    mt_task *begun = is_task(s) ? task_of(s->whole)->begun : NULL;
    if (begun == NULL) return;
    for (const span_part *other = s->parts; other != NULL; other = other->next) {
        if (other->job.cost_ns == 0 && other->values == NULL) return;
    }
    task_of(s->whole)->begun = NULL;
    mt_engine_fulfil(e, begun, MT_OUTCOME_OK, 0, NULL);
}

bool mti_engine_begin_part(mt_engine *e, span_part *p) {
    span *s = p->of;
    if (!is_task(s) || mt_graph_assign(e->graph, task_of(s->whole))) return true;
    ending how = {.head = {.rec = {.n = MT_OUTCOME_CANCELLED}}};
    (void)fail(e, s, p, &how); /* no bytes, so no memory is needed */
    (void)go_on(e, s);
    return false;
}

int mti_engine_cut_part(mt_engine *e, span_part *rest, uint64_t items, span_part **out_front) {
    span_part *front = new_part(e, rest->of, rest->first, items);
    if (front == NULL) return MT_E_NOMEM;
    front->losses_left = rest->losses_left;
    front->job.fn = rest->job.fn;
    front->job.class_index = rest->job.class_index;
    rest->first += items;
    rest->count -= items;
    *out_front = front;
    int status = mt_table_add(e->jobs, &front->job, &front->job.id);
    return status == MT_OK ? push_part(e, rest) : status;
}

int mti_engine_put_back_part(mt_engine *e, span_part *p) {
    span *s = p->of;
    if (s->failed || !is_wanted(s)) {
        free_part(e, p); /* its job is on no lane any more */
        return go_on(e, s);
    }
    if (is_task(s) && is_undivided(&p->job)) mt_graph_unassign(e->graph, task_of(s->whole));
    return push_part(e, p);
}

int mti_engine_give_up_part(mt_engine *e, span_part *p, uint64_t units, uint64_t *out_units) {
    span *s = p->of;
    uint64_t each = mt_sched_unit_items(e->sched, p->job.class_index, s->head.chunk);
    uint64_t items = p->count / each < units ? p->count : units * each;
    *out_units = (items - 1) / each + 1;
    ending how = {.head = {.rec = {.n = MT_OUTCOME_RETURNED}}};
    if (items == s->head.count) {
        free_part(e, p);
        return end_span(e, s, &how);
    }
    how.bytes = (mt_part){&items, sizeof items};
    int status = mti_engine_tell_origin(e, errand_of(s->whole), &how);
    s->head.count -= items;
    p->count -= items;
    if (p->count > 0) return status == MT_OK ? push_part(e, p) : status;
    free_part(e, p);
    for (const span_part *last = s->parts; last != NULL; last = last->next) {
        if (last->job.cost_ns == 0 && is_returnable(&last->job)) mt_sched_let_go(e->sched, last->job.priority, last->job.id);
    }
    return status == MT_OK ? go_on(e, s) : status;
}

int mti_engine_shorten_part(mt_engine *e, span_part *p, uint64_t items) {
    span *s = p->of;
    if (p->values != NULL || items == 0 || items >= p->count) return MT_E_RECORD;
    mt_job *job = &p->job;
    mt_assignment some = mti_engine_booking_of(job);
    some.items = items;
    some.units = (uint32_t)(items / ((p->count - 1) / job->units + 1)); /* fewer than it has */
    some.cost_ns = job->cost_ns / p->count * items; /* less than all of it: what is on a lane costs something */
    job->units -= some.units;
    job->cost_ns -= some.cost_ns;
    p->count -= items;
    mt_sched_return_some(e->sched, &some);
    span_part *back = new_part(e, s, p->first + p->count, items);
    if (back == NULL) return MT_E_NOMEM;
    back->losses_left = p->losses_left;
    if (s->failed || !is_wanted(s)) {
        free_part(e, back);
        return MT_OK;
    }
    return add_part(e, back, job->fn);
}

int mti_engine_end_part(mt_engine *e, span_part *p, const ending *how) {
    span *s = p->of;
    uint32_t outcome = how->head.rec.n;
    int status = MT_OK;
    if (mti_engine_is_loss(how) && how->is_ours && p->losses_left > 0 && !s->failed && is_wanted(s)) {
        p->losses_left--;
        status = mt_table_add(e->jobs, &p->job, &p->job.id);
        return status == MT_OK ? push_part(e, p) : status;
    }
    if (outcome != MT_OUTCOME_OK) {
        status = fail(e, s, p, how);
    } else if (!s->failed && is_wanted(s)) {
        status = keep(e, s, p, how);
    }
    free_part(e, p);
    return status == MT_OK ? go_on(e, s) : status;
}

void mti_engine_orphan_spans(mt_engine *e, uint32_t origin) {
    for (mt_node *node = e->spans.next, *next; node != &e->spans; node = next) {
        next = node->next;
        span *s = (span *)(void *)node;
        if (is_task(s) || origin_of(s->whole) != origin) continue;
        errand_of(s->whole)->origin = NO_LANE;
        (void)go_on(e, s); /* there is nobody to send anything to */
    }
}

/* ---- checking ---- */

static int check_span(const mt_engine *e, const span *s) {
    uint64_t items = 0, at = s->head.first;
    const span_part *before = NULL;
    for (const span_part *p = s->parts; p != NULL; before = p, p = p->next) {
        if (p->of != s || p->before != before || mt_table_find(e->jobs, p->job.id) != &p->job) return MT_E_RECORD;
        if (p->count == 0 || p->first < s->head.first || p->count > s->head.count) return MT_E_RECORD;
        if (p->job.cost_ns == 0 && (s->failed || (!is_task(s) && !is_wanted(s)))) return MT_E_RECORD;
        items += p->count;
    }
    for (uint64_t i = 0; i < s->n_pieces; i++) {
        if (s->pieces[i].first < at) return MT_E_RECORD;
        at = s->pieces[i].first + s->pieces[i].count;
        items += s->pieces[i].count;
    }
    if (s->parts == NULL || s->whole->id != 0 || s->whole->cost_ns != 0) return MT_E_RECORD;
    return items == s->head.count || s->failed || !is_wanted(s) ? MT_OK : MT_E_RECORD;
}

int mti_engine_check_spans(const mt_engine *e, uint64_t *out_errands) {
    for (const mt_node *node = e->spans.next; node != &e->spans; node = node->next) {
        const span *s = (const span *)(const void *)node;
        int status = check_span(e, s);
        if (status != MT_OK) return status;
        *out_errands += !is_task(s);
    }
    return MT_OK;
}
