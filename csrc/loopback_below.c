#include "loopback_below.h"

#include <string.h>

#include "draw.h"

#define MOST 64u

struct mt_below {
    const mt_alloc *alloc;
    mt_ring_link up;
    mt_link idle; /* a worker that has nothing to do and takes nothing: so what was sent up is called back */
    mt_engine *engine;
    uint64_t fn;
    bool is_finished;
    mt_task *tasks[MOST]; /* not looked at yet */
    uint64_t words[MOST]; /* what the value begins with */
    bool fails[MOST];
    uint32_t n;
    uint64_t done;
};

static int add_idle(mt_below *b) {
    uint32_t index;
    int status = mt_engine_add_lane(b->engine, MT_ROLE_WORKER, &b->idle, &index);
    mt_rec records[2] = {{sizeof(mt_rec), 0, MT_KIND_HELLO, 0, 1}, {sizeof(mt_rec), INT32_MAX, MT_KIND_SLOTS, 0, 1}};
    for (uint32_t i = 0; i < 2 && status == MT_OK; i++) {
        mt_incoming incoming = {&records[i], sizeof(mt_rec), NULL};
        status = mt_engine_from_lane(b->engine, index, &incoming);
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
    if (status == MT_OK && number % 2 == 0) status = add_idle(b);
    if (status != MT_OK) {
        mti_below_destroy(b);
        return NULL;
    }
    mt_engine_set_ids(b->engine, number << 23);
    return b;
}

void mti_below_destroy(mt_below *b) {
    if (b == NULL) return;
    while (b->n > 0) mt_task_unref(b->tasks[--b->n]);
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
