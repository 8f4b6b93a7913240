#include "bank.h"

#include <string.h>

#define HEAD_SIZE sizeof(mt_rec_task)
#define MAX_DURATION_NS ((uint64_t)1 << 60)

typedef struct slip {
    uint64_t id;
    uint64_t duration_ns;
    uint64_t items; /* of a part; 0: another task */
} slip;

typedef struct running {
    uint64_t end_ns;
    uint64_t order; /* of beginning: those due at the same time end in this order */
    slip what;
} running;

struct mt_bank {
    mt_link link; /* first: a link's address is its bank's */
    const mt_alloc *alloc;
    uint32_t role;
    uint32_t slots;
    slip *waiting; /* a ring */
    uint64_t capacity, first, n_waiting;
    uint64_t n_seen;    /* of those that wait: there at the last look */
    uint64_t looked_ns; /* the last look */
    running *heap; /* by end; room for `slots` */
    uint64_t n_running;
    uint64_t begun;
    uint64_t overhead_ns;
    uint32_t part_bytes;
    uint64_t (*items_ns)(const void *ctx, uint64_t first, uint64_t count); /* may be NULL */
    const void *items_ctx;
    void (*changed)(void *ctx, uint64_t at_ns, int64_t change); /* may be NULL */
    void *ctx;
    mt_bank_list *list; /* may be NULL */
    mt_bank *next;      /* in it */
    uint32_t number;
    bool is_listed;
    bool said_hello;
    bool told_to_stop;
    bool said_bye;
};

static void put_on_list(mt_bank *bank) {
    if (bank->list == NULL || bank->is_listed) return;
    bank->is_listed = true;
    bank->next = bank->list->first;
    bank->list->first = bank;
}

/* Of any other task: no items. */
static mt_span span_of(const mt_rec *rec, const mt_part *parts, uint32_t n_parts) {
    mt_span span = {0};
    if ((rec->flags & MT_CODEC_SPAN) == 0) return span;
    uint64_t at = HEAD_SIZE + rec->n * sizeof(mt_edge_ref);
    for (uint32_t i = 0; i < rec->n; i++) {
        mt_edge_ref ref;
        mti_parts_copy(parts, n_parts, HEAD_SIZE + i * sizeof ref, sizeof ref, &ref);
        if (ref.object == 0) at += mti_pad8(ref.size);
    }
    mti_parts_copy(parts, n_parts, at, sizeof span, &span);
    return span;
}

static uint64_t duration_of(const mt_bank *bank, const mt_span *span, uint32_t microseconds) {
    if (span->count > 0 && bank->items_ns != NULL) return bank->items_ns(bank->items_ctx, span->first, span->count);
    uint64_t each_ns = (uint64_t)microseconds * 1000, times = span->count == 0 ? 1 : span->count;
    return each_ns == 0 || times < MAX_DURATION_NS / each_ns ? times * each_ns : MAX_DURATION_NS;
}

static int bank_write(mt_link *link, const mt_part *parts, uint32_t n_parts, uint64_t *progress) {
    mt_bank *bank = (mt_bank *)link;
    mt_rec rec;
    uint64_t size = mti_parts_size(parts, n_parts);
    mti_parts_copy(parts, n_parts, 0, sizeof rec, &rec);
    if (rec.kind == MT_KIND_TASK) {
        put_on_list(bank);
        if (bank->n_waiting == bank->capacity) {
            uint64_t capacity = bank->capacity == 0 ? 4 : 2 * bank->capacity;
            slip *grown = mt_get(bank->alloc, capacity * sizeof *grown);
            if (grown == NULL) return MT_E_NOMEM;
            for (uint64_t i = 0; i < bank->n_waiting; i++) grown[i] = bank->waiting[(bank->first + i) % bank->capacity];
            mt_put(bank->alloc, bank->waiting);
            bank->waiting = grown;
            bank->capacity = capacity;
            bank->first = 0;
        }
        uint32_t microseconds = 0;
        mt_span span = span_of(&rec, parts, n_parts);
        uint64_t least = HEAD_SIZE + ((rec.flags & MT_CODEC_SPAN) != 0 ? sizeof(mt_span) : 0);
        uint32_t kind = rec.flags & MT_CODEC_KIND;
        if ((kind == MT_CODEC_MARSHAL || kind == MT_CODEC_FLAT) && size >= least + sizeof microseconds) {
            mti_parts_copy(parts, n_parts, size - sizeof microseconds, sizeof microseconds, &microseconds);
        }
        bank->waiting[(bank->first + bank->n_waiting++) % bank->capacity] = (slip){rec.id, duration_of(bank, &span, microseconds), span.count};
    } else if (rec.kind == MT_KIND_STOP) {
        bank->told_to_stop = true;
        bank->n_waiting = bank->n_seen = bank->n_running = 0;
    } /* objects are of no use here */
    *progress = size;
    return MT_OK;
}

static int bank_flush(mt_link *link) {
    (void)link;
    return MT_OK;
}

static int bank_recall(mt_link *link, bool by_itself, uint64_t *out_begun) {
    (void)by_itself;
    mt_bank *bank = (mt_bank *)link;
    *out_begun = bank->begun;
    bank->n_waiting = bank->n_seen = 0;
    return MT_OK;
}

mt_bank *mti_bank_new(const mt_alloc *alloc, uint32_t role, uint32_t slots) {
    mt_bank *bank = mti_get_zeroed(alloc, 1, sizeof *bank);
    if (bank == NULL) return NULL;
    bank->link = (mt_link){.alloc = alloc, .write = bank_write, .flush = bank_flush, .recall = bank_recall};
    bank->alloc = alloc;
    bank->role = role;
    bank->slots = role == MT_ROLE_WORKER ? 1 : slots;
    bank->heap = mti_get_zeroed(alloc, bank->slots + 1u, sizeof *bank->heap);
    if (bank->heap == NULL) {
        mt_put(alloc, bank);
        return NULL;
    }
    return bank;
}

void mti_bank_destroy(mt_bank *bank) {
    if (bank == NULL) return;
    mti_link_clean_up(&bank->link);
    mt_put(bank->alloc, bank->waiting);
    mt_put(bank->alloc, bank->heap);
    mt_put(bank->alloc, bank);
}

void mti_bank_set_overhead(mt_bank *bank, uint64_t overhead_ns) { bank->overhead_ns = overhead_ns; }

void mti_bank_set_part_bytes(mt_bank *bank, uint32_t bytes) { bank->part_bytes = bytes; }

void mti_bank_set_items(mt_bank *bank, uint64_t (*duration_ns)(const void *ctx, uint64_t first, uint64_t count), const void *ctx) {
    bank->items_ns = duration_ns;
    bank->items_ctx = ctx;
}

void mti_bank_watch(mt_bank *bank, void (*changed)(void *ctx, uint64_t at_ns, int64_t change), void *ctx) {
    bank->changed = changed;
    bank->ctx = ctx;
}

void mti_bank_report(mt_bank *bank, mt_bank_list *list, uint32_t number) {
    bank->list = list;
    bank->number = number;
}

bool mti_bank_list_take(mt_bank_list *list, uint32_t *out_number) {
    mt_bank *bank = list->first;
    if (bank == NULL) return false;
    list->first = bank->next;
    bank->is_listed = false;
    *out_number = bank->number;
    return true;
}

mt_link *mti_bank_link(mt_bank *bank) { return &bank->link; }

/* ---- the heap ---- */

static bool before(const running *a, const running *b) {
    return a->end_ns != b->end_ns ? a->end_ns < b->end_ns : a->order < b->order;
}

static void heap_add(mt_bank *bank, running added) {
    uint64_t at = bank->n_running++;
    for (; at > 0 && before(&added, &bank->heap[(at - 1) / 2]); at = (at - 1) / 2) bank->heap[at] = bank->heap[(at - 1) / 2];
    bank->heap[at] = added;
}

static running heap_take(mt_bank *bank) {
    running first = bank->heap[0], moving = bank->heap[--bank->n_running];
    uint64_t at = 0;
    for (uint64_t child = 1; child < bank->n_running; child = 2 * at + 1) {
        if (child + 1 < bank->n_running && before(&bank->heap[child + 1], &bank->heap[child])) child++;
        if (!before(&bank->heap[child], &moving)) break;
        bank->heap[at] = bank->heap[child];
        at = child;
    }
    bank->heap[at] = moving;
    return first;
}

/* ---- time ---- */

static int tell(mt_engine *engine, uint32_t lane, const void *record, uint64_t size, uint64_t *out_n) {
    mt_incoming incoming = {record, size, NULL};
    ++*out_n;
    return mt_engine_from_lane(engine, lane, &incoming);
}

static int answer_part(const mt_bank *bank, mt_engine *engine, uint32_t lane, const slip *what, uint64_t *out_n) {
    mt_rec_result head = {{0, what->id, MT_KIND_RESULT, MT_CODEC_PICKLE, MT_OUTCOME_OK}, what->duration_ns == 0 ? 1 : what->duration_ns};
    head.rec.size = sizeof head + bank->part_bytes + what->items;
    mt_blob *blob = mt_blob_new(bank->alloc, head.rec.size);
    if (blob == NULL) return MT_E_NOMEM;
    memcpy(blob->data, &head, sizeof head);
    memset(blob->data + sizeof head, 0, bank->part_bytes + what->items);
    mt_incoming incoming = {blob->data, head.rec.size, blob};
    ++*out_n;
    int status = mt_engine_from_lane(engine, lane, &incoming);
    mt_blob_unref(blob);
    return status;
}

static int answer(const mt_bank *bank, mt_engine *engine, uint32_t lane, const slip *what, uint64_t *out_n) {
    if (what->items > 0 && bank->part_bytes > 0) return answer_part(bank, engine, lane, what, out_n);
    struct {
        mt_rec_result head;
        char none[8];
    } record = {.none = "N"}; /* as Python marshals None */
    uint64_t size = sizeof record.head + 1;
    record.head = (mt_rec_result){{size, what->id, MT_KIND_RESULT, MT_CODEC_MARSHAL, MT_OUTCOME_OK},
                                  what->duration_ns == 0 ? 1 : what->duration_ns};
    return tell(engine, lane, &record, size, out_n);
}

/* A slot has been free since `free_ns`. What came after the last look begins now, what was there before as soon as it could. */
static void begin(mt_bank *bank, uint64_t free_ns, uint64_t now_ns) {
    uint64_t could_ns = free_ns > bank->looked_ns ? free_ns : bank->looked_ns;
    while (bank->n_running < bank->slots && bank->n_waiting > 0) {
        slip what = bank->waiting[bank->first];
        bank->first = (bank->first + 1) % bank->capacity;
        bank->n_waiting--;
        uint64_t start_ns = bank->n_seen > 0 ? could_ns : now_ns;
        bank->n_seen -= bank->n_seen > 0;
        uint64_t end_ns = start_ns + bank->overhead_ns + what.duration_ns;
        heap_add(bank, (running){end_ns, bank->begun++, what});
        if (bank->changed == NULL) continue;
        bank->changed(bank->ctx, start_ns, 1);
        bank->changed(bank->ctx, end_ns, -1);
    }
}

static void has_looked(mt_bank *bank, uint64_t now_ns) {
    bank->n_seen = bank->n_waiting;
    bank->looked_ns = now_ns;
}

void mti_bank_begin(mt_bank *bank, uint64_t now_ns) {
    begin(bank, now_ns, now_ns);
    has_looked(bank, now_ns);
}

int mti_bank_step(mt_bank *bank, mt_engine *engine, uint32_t lane, uint64_t now_ns, uint64_t *out_n) {
    int status = MT_OK;
    if (!bank->said_hello) {
        bank->said_hello = true;
        mt_rec hello = {sizeof hello, 0, MT_KIND_HELLO, 0, bank->slots};
        status = tell(engine, lane, &hello, sizeof hello, out_n);
    }
    if (bank->told_to_stop && !bank->said_bye && bank->role == MT_ROLE_CHILD && status == MT_OK) {
        bank->said_bye = true;
        mt_rec bye = {sizeof bye, 0, MT_KIND_BYE, 0, 0};
        status = tell(engine, lane, &bye, sizeof bye, out_n);
    }
    begin(bank, now_ns, now_ns);
    while (status == MT_OK && bank->n_running > 0 && bank->heap[0].end_ns <= now_ns) {
        running ended = heap_take(bank);
        status = answer(bank, engine, lane, &ended.what, out_n);
        begin(bank, ended.end_ns, now_ns);
    }
    has_looked(bank, now_ns);
    return status;
}

uint64_t mti_bank_due_ns(const mt_bank *bank) {
    bool has_news = !bank->said_hello || (bank->told_to_stop && !bank->said_bye && bank->role == MT_ROLE_CHILD);
    if (has_news || (bank->n_waiting > 0 && bank->n_running < bank->slots)) return 0;
    return bank->n_running > 0 ? bank->heap[0].end_ns : UINT64_MAX;
}

uint64_t mti_bank_wake_ns(const mt_bank *bank) {
    uint64_t due_ns = mti_bank_due_ns(bank);
    return due_ns == 0 || due_ns == UINT64_MAX ? due_ns : due_ns + bank->heap[0].what.duration_ns / 512;
}

uint64_t mti_bank_kill(mt_bank *bank, uint64_t now_ns) {
    for (uint64_t i = 0; bank->changed != NULL && i < bank->n_running; i++) {
        bank->changed(bank->ctx, now_ns, -1);
        bank->changed(bank->ctx, bank->heap[i].end_ns, 1);
    }
    uint64_t begun = bank->begun;
    bank->begun = bank->n_waiting = bank->n_seen = bank->n_running = 0;
    bank->said_hello = false;
    return begun;
}

uint64_t mti_bank_running(const mt_bank *bank) { return bank->n_running; }
uint64_t mti_bank_waiting(const mt_bank *bank) { return bank->n_waiting; }

int mti_bank_check(const mt_bank *bank) {
    if (bank->n_running > bank->slots || bank->n_waiting > bank->capacity) return MT_E_RECORD;
    for (uint64_t i = 1; i < bank->n_running; i++) {
        if (before(&bank->heap[i], &bank->heap[(i - 1) / 2])) return MT_E_RECORD;
    }
    return MT_OK;
}

/* ---- for tests ---- */

struct mt_bank_stand {
    const mt_alloc *alloc;
    mt_bank *bank;
    mt_engine *engine;
    uint32_t lane;
};

mt_bank_stand *mt_bank_stand_new(const mt_alloc *alloc, uint32_t role, uint32_t slots) {
    mt_bank_stand *stand = mti_get_zeroed(alloc, 1, sizeof *stand);
    if (stand == NULL) return NULL;
    stand->alloc = alloc;
    stand->bank = mti_bank_new(alloc, role, slots);
    stand->engine = mt_engine_new(alloc, 1, NULL, "stand");
    mt_part code = {"function", 8};
    mt_blob *blob = mt_blob_from_parts(alloc, &code, 1);
    int status = stand->bank == NULL || stand->engine == NULL || blob == NULL ? MT_E_NOMEM : MT_OK;
    if (status == MT_OK) status = mt_engine_add_object(stand->engine, 1, blob, MT_CODEC_PICKLE);
    if (status == MT_OK) status = mt_engine_add_lane(stand->engine, role, mti_bank_link(stand->bank), &stand->lane);
    mt_blob_unref(blob);
    if (status == MT_OK) return stand;
    mt_bank_stand_destroy(stand);
    return NULL;
}

void mt_bank_stand_destroy(mt_bank_stand *stand) {
    if (stand == NULL) return;
    mt_engine_destroy(stand->engine);
    mti_bank_destroy(stand->bank);
    mt_put(stand->alloc, stand);
}

int mt_bank_stand_submit(mt_bank_stand *stand, mt_task *task) {
    mt_task_ref(task);
    return mt_engine_submit(stand->engine, task);
}

int mt_bank_stand_dispatch(mt_bank_stand *stand) {
    uint64_t n = 0;
    return mt_engine_dispatch(stand->engine, 0, &n);
}

int mt_bank_stand_step(mt_bank_stand *stand, uint64_t now_ns) {
    uint64_t n = 0;
    int status = mti_bank_step(stand->bank, stand->engine, stand->lane, now_ns, &n);
    return status == MT_OK ? (int)n : status;
}

int64_t mt_bank_stand_kill(mt_bank_stand *stand) {
    uint64_t begun = mti_bank_kill(stand->bank, 0);
    mt_lost why = {0, -1, MT_LOST_WORKER};
    int status = mt_engine_lane_lost(stand->engine, stand->lane, &why, begun);
    return status == MT_OK ? (int64_t)begun : status;
}

int mt_bank_stand_stop(mt_bank_stand *stand) { return mt_engine_stop_children(stand->engine, MT_STOP_DRAIN); }

bool mt_bank_stand_has_left(const mt_bank_stand *stand) { return mt_engine_children_left(stand->engine) == 0; }

uint64_t mt_bank_stand_due_ns(const mt_bank_stand *stand) { return mti_bank_due_ns(stand->bank); }
uint64_t mt_bank_stand_wake_ns(const mt_bank_stand *stand) { return mti_bank_wake_ns(stand->bank); }
uint64_t mt_bank_stand_running(const mt_bank_stand *stand) { return mti_bank_running(stand->bank); }
uint64_t mt_bank_stand_waiting(const mt_bank_stand *stand) { return mti_bank_waiting(stand->bank); }

uint64_t mt_bank_stand_outstanding(const mt_bank_stand *stand) {
    return mt_engine_stats_now(stand->engine).outstanding;
}

uint32_t mt_bank_stand_slots(const mt_bank_stand *stand) { return mt_engine_stats_now(stand->engine).slots; }

int mt_bank_stand_check(const mt_bank_stand *stand) {
    int status = mti_bank_check(stand->bank);
    return status == MT_OK ? mt_engine_check(stand->engine) : status;
}
