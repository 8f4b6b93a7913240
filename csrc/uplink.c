#include "uplink.h"

#include <pthread.h>
#include <string.h>

#include "atomic.h"
#include "worker_inner.h"

/* A record that the other side of this process is to look at. */
typedef struct note {
    struct note *next;
    mt_blob *record;
} note;

typedef struct queue {
    note *first, *last;
} queue;

struct mt_uplink {
    mt_link link; /* first: a link's address is its uplink's */
    const mt_alloc *alloc;
    mt_worker *worker;
    pthread_mutex_t pen;
    _Atomic uint32_t wants_pen; /* the engine, which the worker wakes when it gives the pen */
    bool has_pen;  /* the engine, in the middle of a record */
    bool has_news; /* for the rank, whose bell has not been rung */
    mt_scope scope;
    uint32_t said_slots;

    pthread_mutex_t desk; /* over the ring down and all that follows */
    bool in_task;
    bool engine_reads;
    queue for_worker, for_engine;
};

static int put_note(mt_uplink *u, queue *q, const mt_incoming *incoming) {
    note *n = mti_get_zeroed(u->alloc, 1, sizeof *n);
    if (n == NULL) return MT_E_NOMEM;
    mt_part whole = {incoming->data, incoming->size};
    n->record = incoming->blob != NULL ? mt_blob_ref(incoming->blob) : mt_blob_from_parts(u->alloc, &whole, 1);
    if (n->record == NULL) {
        mt_put(u->alloc, n);
        return MT_E_NOMEM;
    }
    *(q->first == NULL ? &q->first : &q->last->next) = n;
    q->last = n;
    return MT_OK;
}

/* The first record, with a reference; NULL: none. */
static mt_blob *take_note(mt_uplink *u, queue *q) {
    note *n = q->first;
    if (n == NULL) return NULL;
    mt_blob *record = n->record;
    q->first = n->next;
    mt_put(u->alloc, n);
    return record;
}

/* ---- the link ---- */

/* The rank shall not nap on either: the task that waits for what is asked for keeps its worker from others. */
static void ring(mt_uplink *u) { mt_bell_wake(u->worker->engine_bell); }

static int write_up(mt_link *link, const mt_part *parts, uint32_t n_parts, uint64_t *progress) {
    mt_uplink *u = (mt_uplink *)link;
    if (!u->has_pen && pthread_mutex_trylock(&u->pen) != 0) {
        mt_store_relaxed(&u->wants_pen, 1);
        mt_fence_seq_cst(); /* orders the wish before the last look; pairs with mti_uplink_give_pen */
        if (pthread_mutex_trylock(&u->pen) != 0) return MT_E_AGAIN;
    }
    u->has_pen = true;
    int status = mt_ring_put(u->worker->up, parts, n_parts, progress);
    bool is_between = status != MT_E_AGAIN || *progress == 0;
    if (is_between) {
        u->has_news = mt_ring_publish(u->worker->up) || u->has_news;
        u->has_pen = false;
        (void)pthread_mutex_unlock(&u->pen);
    } else {
        ring(u); /* a streaming record needs its reader awake */
    }
    return status;
}

static int flush_up(mt_link *link) {
    mt_uplink *u = (mt_uplink *)link;
    if (u->has_news) ring(u);
    u->has_news = false;
    return MT_OK;
}

mt_uplink *mti_uplink_new(const mt_alloc *alloc, mt_worker *worker) {
    mt_uplink *u = mti_get_zeroed(alloc, 1, sizeof *u);
    if (u == NULL) return NULL;
    u->link = (mt_link){.alloc = alloc, .write = write_up, .flush = flush_up};
    u->alloc = alloc;
    u->worker = worker;
    u->said_slots = 1;
    u->in_task = true;
    (void)pthread_mutex_init(&u->pen, NULL);
    (void)pthread_mutex_init(&u->desk, NULL);
    worker->uplink = u;
    mti_worker_set_scope(worker, &u->scope);
    mt_worker_follow(worker, worker);
    return u;
}

void mti_uplink_destroy(mt_uplink *u) {
    if (u == NULL) return;
    u->worker->uplink = NULL;
    u->worker->scope = NULL;
    mti_link_clean_up(&u->link);
    for (mt_blob *record; (record = take_note(u, &u->for_worker)) != NULL;) mt_blob_unref(record);
    for (mt_blob *record; (record = take_note(u, &u->for_engine)) != NULL;) mt_blob_unref(record);
    if (u->has_pen) (void)pthread_mutex_unlock(&u->pen);
    (void)pthread_mutex_destroy(&u->pen);
    (void)pthread_mutex_destroy(&u->desk);
    mt_put(u->alloc, u);
}

mt_link *mti_uplink_link(mt_uplink *u) { return &u->link; }
mt_bell *mti_uplink_bell(mt_uplink *u) { return u->worker->link.engine_bell; }
mt_scope *mti_uplink_scope(mt_uplink *u) { return &u->scope; }

/* ---- the engine's side ---- */

static bool is_for_engine(uint16_t kind) {
    return kind == MT_KIND_RESULT || kind == MT_KIND_SLOTS || kind == MT_KIND_RECALL || kind == MT_KIND_RECALLED;
}

static int take_notes(mt_uplink *u, mt_engine *engine, uint64_t *out_n) {
    int status = MT_OK;
    for (mt_blob *record; status == MT_OK && (record = take_note(u, &u->for_engine)) != NULL;) {
        mt_incoming incoming = {record->data, record->size, record};
        ++*out_n;
        status = mt_engine_from_parent(engine, &incoming);
        mt_blob_unref(record);
    }
    return status;
}

static int read_down(mt_uplink *u, mt_engine *engine, uint64_t *out_n) {
    mt_incoming incoming;
    int status;
    while ((status = mti_ring_get(u->worker->down, &incoming)) == MT_OK) {
        mt_rec rec;
        if (incoming.size < sizeof rec) return MT_E_RECORD;
        memcpy(&rec, incoming.data, sizeof rec);
        ++*out_n;
        if (is_for_engine(rec.kind)) {
            status = mt_engine_from_parent(engine, &incoming);
        } else if (rec.kind == MT_KIND_RESUME) {
            status = mti_resume(u->worker->link.started);
        } else if (rec.kind != MT_KIND_TASK) { /* tasks were sent before the rank knew: it has them back */
            status = put_note(u, &u->for_worker, &incoming);
        }
        if (status != MT_OK) return status;
    }
    mt_ring_release(u->worker->down);
    return status == MT_E_AGAIN ? MT_OK : status;
}

int mti_uplink_step(mt_uplink *u, mt_engine *engine, bool submits, uint64_t *out_n) {
    (void)pthread_mutex_lock(&u->desk);
    int status = MT_OK;
    if (submits && u->in_task && !u->engine_reads && u->said_slots == 1) {
        uint64_t begun;
        u->engine_reads = true;
        status = mti_recall(u->worker->link.started, &begun);
    }
    if (status == MT_OK) status = take_notes(u, engine, out_n);
    if (status == MT_OK && u->engine_reads) status = read_down(u, engine, out_n);
    uint32_t slots = u->engine_reads ? 0 : 1;
    (void)pthread_mutex_unlock(&u->desk);
    if (status != MT_OK || slots == u->said_slots) return status;
    u->said_slots = slots;
    ++*out_n;
    mt_rec rec = {sizeof rec, (uint64_t)(int64_t)INT32_MIN, MT_KIND_SLOTS, 0, slots};
    mt_part part = {&rec, sizeof rec};
    return mti_link_send(&u->link, &part, 1, NULL);
}

/* ---- the worker's side ---- */

void mti_uplink_take_pen(mt_uplink *u) { (void)pthread_mutex_lock(&u->pen); }

void mti_uplink_give_pen(mt_uplink *u) {
    (void)pthread_mutex_unlock(&u->pen);
    mt_fence_seq_cst(); /* orders the free pen before the look for a wish; pairs with write_up */
    if (mt_load_relaxed(&u->wants_pen) != 0 && mt_exchange_acq_rel(&u->wants_pen, 0) != 0) mt_bell_ring(mti_uplink_bell(u));
}

void mti_uplink_end_task(mt_uplink *u) {
    (void)pthread_mutex_lock(&u->desk);
    bool takes_back = u->engine_reads;
    u->in_task = u->engine_reads = false;
    (void)pthread_mutex_unlock(&u->desk);
    if (takes_back) mt_bell_ring(mti_uplink_bell(u)); /* it says that there is a slot again */
}

int mti_uplink_poll(mt_uplink *u, mt_call *out) {
    (void)pthread_mutex_lock(&u->desk);
    int status = MT_E_AGAIN;
    for (mt_blob *record; status == MT_E_AGAIN && (record = take_note(u, &u->for_worker)) != NULL;) {
        mt_incoming incoming = {record->data, record->size, record};
        status = mti_worker_take(u->worker, &incoming, out);
        mt_blob_unref(record);
    }
    while (status == MT_E_AGAIN) {
        mt_incoming incoming;
        status = mti_ring_get(u->worker->down, &incoming);
        if (status != MT_OK) break;
        status = mti_worker_take(u->worker, &incoming, out);
        if (status == MT_E_AGAIN) mt_ring_release(u->worker->down);
    }
    u->in_task = status == MT_KIND_TASK;
    (void)pthread_mutex_unlock(&u->desk);
    return status;
}

int mti_uplink_pass_on(mt_uplink *u, const mt_incoming *incoming) {
    int status = put_note(u, &u->for_engine, incoming);
    mt_bell_ring(mti_uplink_bell(u));
    return status;
}
