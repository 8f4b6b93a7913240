#include "loopback_below.h"

#include <string.h>

#include "draw.h"

#define MOST 64u

struct mt_below {
    const mt_alloc *alloc;
    mt_ring_link up;
    mt_link inline_link; /* of a worker beside the engine: a task that waits, and takes only what is deeper */
    uint32_t inline_lane;
    mt_blob *given[MOST]; /* TASK records that it has not run */
    uint32_t n_given;
    mt_engine *engine;
    mt_ids ids;
    _Atomic uint64_t count;
    uint64_t fn;
    bool is_finished;
    mt_task *tasks[MOST]; /* not looked at yet */
    uint64_t words[MOST]; /* what the value begins with */
    bool fails[MOST];
    uint32_t n;
    uint64_t done;
};

const unsigned char *mti_below_edges(const mt_rec_task *task, uint64_t *out_sum) {
    const mt_edge_ref *refs = (const mt_edge_ref *)(const void *)(task + 1);
    const unsigned char *at = (const unsigned char *)(refs + task->rec.n);
    uint64_t word;
    *out_sum = 0;
    for (uint32_t i = 0; i < task->rec.n; i++) {
        if (refs[i].object != 0) { /* sent before; the tests make such a value's first word its size */
            *out_sum += refs[i].size;
            continue;
        }
        memcpy(&word, at, sizeof word);
        *out_sum += word;
        at += mti_pad8(refs[i].size);
    }
    return at;
}

static int inline_write(mt_link *link, const mt_part *parts, uint32_t n_parts, uint64_t *progress) {
    mt_below *b = (mt_below *)(void *)((unsigned char *)link - offsetof(mt_below, inline_link));
    mt_rec rec;
    memcpy(&rec, parts[0].data, sizeof rec);
    *progress = mti_parts_size(parts, n_parts);
    if (rec.kind != MT_KIND_TASK) return MT_OK;
    b->given[b->n_given] = mt_blob_from_parts(b->alloc, parts, n_parts);
    return b->given[b->n_given] == NULL ? MT_E_NOMEM : (b->n_given++, MT_OK);
}

static int inline_flush(mt_link *link) {
    (void)link;
    return MT_OK;
}

/* The inline worker runs what it was given last. */
static int run_inline(mt_below *b, uint64_t *out_n) {
    if (b->n_given == 0) return MT_OK;
    mt_blob *record = b->given[--b->n_given];
    const mt_rec_task *task = (const mt_rec_task *)(const void *)record->data;
    uint64_t work[3], sum;
    memcpy(work, mti_below_edges(task, &sum), sizeof work);
    work[0] += sum;
    uint64_t size = work[2] != 0 ? sizeof(uint64_t) : work[1], first = size > 4096 ? size : work[0];
    mt_rec_result *result = mti_get_zeroed(b->alloc, 1, sizeof *result + size);
    int status = result == NULL ? MT_E_NOMEM : MT_OK;
    if (status == MT_OK) {
        *result = (mt_rec_result){{sizeof *result + size, task->rec.id, MT_KIND_RESULT, MT_CODEC_MARSHAL,
                                   work[2] != 0 ? MT_OUTCOME_ERROR : MT_OUTCOME_OK},
                                  1000};
        memcpy(result + 1, &first, sizeof first);
        mt_incoming incoming = {result, sizeof *result + size, NULL};
        status = mt_engine_from_lane(b->engine, b->inline_lane, &incoming);
        ++*out_n;
    }
    mt_put(b->alloc, result);
    mt_blob_unref(record);
    return status;
}

static int add_inline(mt_below *b) {
    b->inline_link = (mt_link){.alloc = b->alloc, .write = inline_write, .flush = inline_flush};
    int status = mt_engine_add_lane(b->engine, MT_ROLE_WORKER, &b->inline_link, &b->inline_lane);
    mt_rec records[2] = {{sizeof(mt_rec), 0, MT_KIND_HELLO, 0, 1}, {sizeof(mt_rec), MT_BAND, MT_KIND_SLOTS, 0, 1}};
    for (uint32_t i = 0; i < 2 && status == MT_OK; i++) {
        mt_incoming incoming = {&records[i], sizeof(mt_rec), NULL};
        status = mt_engine_from_lane(b->engine, b->inline_lane, &incoming);
    }
    return status;
}

mt_below *mti_below_new(const mt_alloc *alloc, mt_ring *up, const mt_segment_link *memory, uint64_t number) {
    mt_below *b = mti_get_zeroed(alloc, 1, sizeof *b);
    if (b == NULL) return NULL;
    b->alloc = alloc;
    mti_ring_link_init(&b->up, alloc, up, memory);
    b->up.base.recall = NULL; /* the engine above is asked */
    b->engine = mt_engine_new(alloc, 1, &b->up.base, "below");
    b->fn = (number << 23) + 1;
    mt_part code = {"function", 8};
    mt_blob *blob = mt_blob_from_parts(alloc, &code, 1);
    int status = b->engine == NULL || blob == NULL ? MT_E_NOMEM : mt_engine_add_object(b->engine, b->fn, blob, MT_CODEC_PICKLE);
    mt_blob_unref(blob);
    if (status == MT_OK && number % 2 == 0) status = add_inline(b);
    if (status != MT_OK) {
        mti_below_destroy(b);
        return NULL;
    }
    mti_ids_init(&b->ids, &b->count, (uint64_t)1 << 62 | number << 23);
    mt_engine_set_ids(b->engine, &b->ids);
    return b;
}

void mti_below_destroy(mt_below *b) {
    if (b == NULL) return;
    while (b->n > 0) mt_task_unref(b->tasks[--b->n]);
    while (b->n_given > 0) mt_blob_unref(b->given[--b->n_given]);
    mti_link_clean_up(&b->inline_link);
    mt_engine_destroy(b->engine);
    mti_link_clean_up(&b->up.base);
    mt_put(b->alloc, b);
}

int mti_below_submit(mt_below *b, uint64_t *random) {
    static const uint64_t sizes[] = {8, 8, 24, 200, 5000};
    if (b->is_finished) return MT_OK;
    for (uint64_t k = 1 + mti_draw(random, 8); k > 0 && b->n < MOST; k--) {
        uint64_t args[3] = {mti_draw(random, UINT64_MAX), sizes[mti_draw(random, 5)], mti_draw(random, 20) == 0};
        mt_part part = {args, sizeof args};
        mt_task *edge = b->n > 0 && mti_draw(random, 3) == 0 ? b->tasks[mti_draw(random, b->n)] : NULL;
        mt_task_spec spec = {.fn = b->fn,
                             .codec = MT_CODEC_MARSHAL,
                             .priority = (int32_t)mti_draw(random, 3) * MT_BAND,
                             .n_edges = edge != NULL,
                             .edges = &edge,
                             .n_args = 1,
                             .args = &part};
        mt_task *task = mt_task_new(b->alloc, &spec);
        if (task == NULL) return MT_E_NOMEM;
        uint64_t word = 0;
        for (uint32_t i = 0; i < b->n && edge != NULL; i++) word += b->tasks[i] == edge ? b->words[i] : 0;
        b->tasks[b->n] = task;
        b->words[b->n] = args[1] > 4096 ? args[1] : args[0] + word;
        b->fails[b->n++] = args[2] != 0;
        mt_task_ref(task);
        int status = mt_engine_submit(b->engine, task);
        if (status != MT_OK) return status;
    }
    return MT_OK;
}

static int judge(const mt_below *b, uint32_t i, bool kills) {
    const mt_value *value = mt_task_value(b->tasks[i]);
    uint64_t word = 0;
    switch (mt_task_state(b->tasks[i])) {
        case MT_DONE:
            memcpy(&word, value->data, sizeof word);
            return word == b->words[i] && !b->fails[i] ? MT_OK : MT_E_RECORD;
        case MT_FAILED: return b->fails[i] || kills ? MT_OK : MT_E_RECORD;
        case MT_DEPENDENCY_FAILED: return MT_OK;
        case MT_CANCELLED: return b->is_finished ? MT_OK : MT_E_RECORD;
        default: return MT_E_RECORD;
    }
}

int mti_below_step(mt_below *b, uint64_t now_ns, bool kills, uint64_t *out_n) {
    if (b->is_finished) mt_engine_cancel_all(b->engine); /* there may be nobody else to run them */
    int status = mt_engine_dispatch(b->engine, now_ns, out_n);
    if (status == MT_OK) status = mti_link_pump(&b->up.base, out_n);
    if (status == MT_OK) status = run_inline(b, out_n);
    uint32_t flags;
    for (mt_task *task; (task = mt_engine_take_ended(b->engine, &flags)) != NULL;) mt_task_unref(task);
    bool all = true; /* later ones may need earlier ones' words: they are let go together */
    for (uint32_t i = 0; i < b->n; i++) all = all && mt_task_state(b->tasks[i]) >= MT_FIRST_FINAL;
    while (all && b->n > 0 && status == MT_OK) {
        status = judge(b, --b->n, kills);
        b->done += mt_task_state(b->tasks[b->n]) == MT_DONE;
        mt_task_unref(b->tasks[b->n]);
        ++*out_n;
    }
    return status == MT_OK ? mt_engine_check(b->engine) : status;
}

int mti_below_take(mt_below *b, const mt_incoming *incoming) { return mt_engine_from_parent(b->engine, incoming); }

void mti_below_finish(mt_below *b) {
    if (!b->is_finished) mt_engine_drop_object(b->engine, b->fn);
    b->is_finished = true;
}

bool mti_below_is_writing(const mt_below *b) { return b->up.base.first != NULL; }

uint64_t mti_below_residue(const mt_below *b) {
    mt_engine_stats stats = mt_engine_stats_now(b->engine);
    return stats.outstanding + stats.objects + b->n + b->up.base.backlog_bytes;
}

uint64_t mti_below_done(const mt_below *b) { return b->done; }
