#include "loopback_worker.h"

#include <string.h>

#include "loopback.h"

/* Sub-tasks may submit, too: without a limit there might be no end. */
#define MOST_SUBMISSIONS 60u

int mti_loop_worker_open(mt_loop_job *job, mt_loop_worker *v) {
    if (v->below != NULL) job->below_done += mti_below_done(v->below);
    mti_below_destroy(v->below);
    v->below = NULL;
    v->is_closed = false;
    mti_link_clean_up(&v->out.base);
    mt_ring *old_down = v->out.ring;
    mt_ring_close(v->engine_up);
    mt_ring_close(v->down);
    mt_ring_close(v->up);
    mt_ring_close(old_down);
    mti_segment_format_link(&v->memory, job->ring_bytes);
    mt_ring *ring = mt_ring_open(job->alloc, v->memory.down, job->ring_bytes);
    v->engine_up = mt_ring_open(job->alloc, v->memory.up, job->ring_bytes);
    v->down = mt_ring_open(job->alloc, v->memory.down, job->ring_bytes);
    v->up = mt_ring_open(job->alloc, v->memory.up, job->ring_bytes);
    mti_ring_link_init(&v->out, job->alloc, ring, &v->memory);
    v->started = 0;
    v->has_task = false;
    if (ring == NULL || v->engine_up == NULL || v->down == NULL || v->up == NULL) return MT_E_NOMEM;
    mt_rec hello = {sizeof hello, 1, MT_KIND_HELLO, 0, 1};
    mt_part part = {&hello, sizeof hello};
    uint64_t progress = 0;
    int status = mt_ring_put(v->up, &part, 1, &progress);
    (void)mt_ring_publish(v->up);
    return status;
}

void mti_loop_worker_clean_up(mt_loop_worker *v) {
    mti_below_destroy(v->below);
    mti_link_clean_up(&v->out.base);
    mt_ring_close(v->out.ring);
    mt_ring_close(v->engine_up);
    mt_ring_close(v->down);
    mt_ring_close(v->up);
}

int mti_loop_worker_read(mt_loop_worker *v, uint64_t *moved) {
    mt_incoming incoming;
    int status = mti_ring_get(v->engine_up, &incoming);
    if (status == MT_E_AGAIN) return MT_OK;
    if (status != MT_OK) return status;
    ++*moved;
    status = mt_engine_from_lane(v->engine, v->lane, &incoming);
    mt_ring_release(v->engine_up);
    return status;
}

/* ---- what tasks compute ---- */

static uint64_t power(uint64_t n) {
    uint64_t result = 1;
    for (uint64_t base = MT_WORLD_BASE; n > 0; n >>= 1, base *= base) result *= (n & 1) != 0 ? base : 1;
    return result;
}

/* MT_E_RECORD: these are not pairs of words, one for each part. */
static int worker_combine(mt_loop_worker *v, const unsigned char *at, uint64_t size) {
    v->items = v->hash = 0;
    while (size > 0) {
        struct {
            mt_parts_head head;
            uint64_t items, hash;
        } part;
        if (size < sizeof part) return MT_E_RECORD;
        memcpy(&part, at, sizeof part);
        if (part.head.size != 16 || part.head.count != part.items || part.head.codec != MT_CODEC_MARSHAL) return MT_E_RECORD;
        v->hash = v->hash * power(part.items) + part.hash;
        v->items += part.items;
        at += sizeof part;
        size -= sizeof part;
    }
    return v->items > 0 ? MT_OK : MT_E_RECORD;
}

/* Takes a record: of a task it works out the answer at once and keeps it for a later step. */
static int worker_take(mt_loop_worker *v, uint64_t *moved) {
    mt_incoming incoming;
    int status = mti_ring_get(v->down, &incoming);
    if (status != MT_OK) return status == MT_E_AGAIN ? MT_OK : status;
    ++*moved;
    const void *data = incoming.data;
    uint64_t size = incoming.size;
    status = mt_record_check(data, size, MT_ROLE_PARENT);
    const mt_rec_task *task = data;
    if (status == MT_OK && task->rec.kind == MT_KIND_RESUME) status = mti_resume(v->memory.started);
    bool is_for_below = task->rec.kind == MT_KIND_RESULT || task->rec.kind == MT_KIND_SLOTS || task->rec.kind == MT_KIND_RECALLED;
    if (status == MT_OK && is_for_below) status = v->below == NULL ? MT_E_RECORD : mti_below_take(v->below, &incoming);
    if (status == MT_OK && task->rec.kind == MT_KIND_TASK && mti_begin_job(v->memory.started, &v->started) == MT_OK) {
        uint64_t words[3], sum;
        const unsigned char *at = mti_below_edges(task, &sum);
        v->span.count = v->items = 0;
        v->task_id = task->rec.id;
        v->has_task = true;
        if (task->rec.flags == MT_CODEC_PARTS) {
            status = worker_combine(v, at, size - (uint64_t)(at - (const unsigned char *)data));
            mt_ring_release(v->down);
            return status;
        }
        if ((task->rec.flags & MT_CODEC_SPAN) != 0) {
            memcpy(&v->span, at, sizeof v->span);
            at += sizeof v->span;
            if (v->span.combine != 0) status = MT_E_RECORD; /* it never got the object */
        }
        memcpy(words, at, sizeof words);
        v->number = words[0] + sum;
        v->size = words[1];
        v->behaviour = words[2];
    }
    mt_ring_release(v->down);
    return status;
}

static bool worker_fails(const mt_loop_worker *v) {
    if (v->items > 0) return false;
    if (v->span.count > 0) return v->size > 0 && v->size - 1 >= v->span.first && v->size - 1 - v->span.first < v->span.count;
    return v->behaviour == MT_WORLD_ERROR;
}

static unsigned char *answer_of(mt_loop_job *job, const mt_loop_worker *v, uint64_t *out_size) {
    bool reduces = v->items > 0 || (v->behaviour & MT_WORLD_REDUCE) != 0;
    bool is_span = (v->items > 0 || v->span.count > 0) && !worker_fails(v);
    uint64_t size = worker_fails(v) ? sizeof v->number : !is_span ? v->size : reduces ? 16 : 8 * v->span.count;
    unsigned char *body = mti_get_zeroed(job->alloc, size, 1);
    if (body == NULL) return NULL;
    *out_size = size;
    uint64_t pair[2] = {v->items > 0 ? v->items : v->span.count, v->hash};
    for (uint64_t i = 0; is_span && v->items == 0 && i < v->span.count; i++) {
        uint64_t word = v->number + v->span.first + i;
        pair[1] = (i == 0 ? 0 : pair[1] * MT_WORLD_BASE) + word;
        if (!reduces) memcpy(body + 8 * i, &word, sizeof word);
    }
    if (is_span && reduces) memcpy(body, pair, sizeof pair);
    uint64_t first = size > 4096 ? size : v->number; /* see mti_below_edges */
    if (!is_span) memcpy(body, &first, sizeof first);
    return body;
}

static int worker_answer(mt_loop_job *job, mt_loop_worker *v, uint64_t *moved) {
    uint64_t size = 0, items = v->span.count == 0 ? 1 : v->span.count;
    unsigned char *body = answer_of(job, v, &size);
    if (body == NULL) return MT_E_NOMEM;
    uint64_t each_ns = 1000 + mti_loop_draw(job, items == 1 ? 100000 : 6000000);
    mt_rec_result head = {{sizeof head + size, v->task_id, MT_KIND_RESULT, MT_CODEC_MARSHAL,
                           worker_fails(v) ? MT_OUTCOME_ERROR : MT_OUTCOME_OK},
                          items * each_ns};
    mt_part parts[2] = {{&head, sizeof head}, {body, size}};
    uint64_t progress = 0;
    int status;
    do { /* a full ring: the engine reads in between, as it would beside a real worker */
        status = mt_ring_put(v->up, parts, 2, &progress);
        (void)mt_ring_publish(v->up);
        if (status != MT_E_AGAIN) break;
        uint64_t n = 0;
        int read_status = mti_loop_worker_read(v, &n);
        if (read_status != MT_OK) status = read_status;
    } while (status == MT_E_AGAIN);
    mt_put(job->alloc, body);
    v->has_task = false;
    ++*moved;
    return status;
}

int mti_loop_worker_work(mt_loop_job *job, mt_loop_worker *v, uint64_t *moved) {
    if (!v->has_task || (v->is_closed && mti_loop_draw(job, 2) == 0)) return worker_take(v, moved); /* closed, it gets no task */
    return v->below != NULL && mti_below_is_writing(v->below) ? MT_OK : worker_answer(job, v, moved);
}

/* ---- what they do besides ---- */

/* Closed, it begins nothing more until the engine has answered. */
static int close_or_open(mt_loop_worker *v) {
    v->is_closed = !v->is_closed;
    uint64_t begun;
    if (v->is_closed && mti_recall(v->memory.started, &begun) != MT_OK) return MT_E_RECORD;
    mt_rec rec = {sizeof rec, (uint64_t)(int64_t)INT32_MIN, MT_KIND_SLOTS, 0, v->is_closed ? 0 : 1};
    mt_part part = {&rec, sizeof rec};
    uint64_t progress = 0;
    int status = mt_ring_put(v->up, &part, 1, &progress);
    (void)mt_ring_publish(v->up);
    if (status == MT_E_AGAIN) { /* not now */
        v->is_closed = !v->is_closed;
        return v->is_closed ? MT_OK : mti_resume(v->memory.started);
    }
    return status;
}

/* Only a worker that has begun something closes, as a real one: so there is an end. */
int mti_loop_worker_submit(mt_loop_job *job, mt_loop_worker *v, uint64_t *moved) {
    /* Not faster than it reads what that makes the engine send again: there would be no end. */
    bool is_writing = v->out.base.backlog_bytes > 0 || (v->below != NULL && mti_below_is_writing(v->below));
    bool submits = !job->is_finishing && job->submissions < MOST_SUBMISSIONS && mti_loop_draw(job, 1000000) < job->submits_per_million;
    int status = MT_OK;
    if (v->is_closed ? !is_writing && (job->is_finishing || mti_loop_draw(job, 4) == 0) : !is_writing && v->has_task && submits && mti_loop_draw(job, 4) == 0) {
        ++*moved;
        status = close_or_open(v);
    } else if (submits && v->has_task && v->is_closed) {
        ++*moved;
        job->submissions++;
        if (v->below == NULL) v->below = mti_below_new(job->alloc, v->up, &v->memory, ++job->next_below);
        status = v->below == NULL ? MT_E_NOMEM : mti_below_submit(v->below, &job->random);
    }
    if (v->below == NULL || status != MT_OK) return status;
    if (job->is_finishing) mti_below_finish(v->below);
    job->now_ns += mti_loop_draw(job, 100000);
    return mti_below_step(v->below, job->now_ns, job->kills > 0, moved);
}

int mti_loop_worker_kill(mt_loop_job *job, mt_loop_worker *v) {
    uint64_t n = 1;
    int status = MT_OK;
    while (n > 0 && status == MT_OK) { /* what it published before it died still counts */
        n = 0;
        status = mti_loop_worker_read(v, &n);
    }
    mt_lost why = {1, 9, MT_LOST_WORKER};
    if (status == MT_OK) status = mt_engine_lane_lost(v->engine, v->lane, &why, mti_begun(v->memory.started));
    if (status == MT_OK) status = mti_loop_worker_open(job, v);
    job->kills++;
    return status;
}

uint64_t mti_loop_worker_residue(const mt_loop_worker *v) {
    return v->has_task + v->out.base.backlog_bytes + (v->below == NULL ? 0 : mti_below_residue(v->below));
}

uint64_t mti_loop_worker_below(const mt_loop_worker *v) { return v->below == NULL ? 0 : mti_below_done(v->below); }
