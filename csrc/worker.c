#include "worker.h"

#include <errno.h>
#include <malloc.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "atomic.h"
#include "flat.h"
#include "mapping.h"
#include "sched.h"
#include "task.h"
#include "worker_inner.h"

#define SPIN_NS 50000
#define ANSWER_PARTS 64u
#define PLAIN_EDGES 16u
#define KEEP_BYTES (256 << 20) /* of what tasks have freed, while others follow: large values must not pay for their pages again */
#define TRIM_NS 1000000000    /* a worker that has had nothing to do for so long gives all of it back */

static uint64_t now_ns(void) {
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* The engine waits to go on with a record. */
static void tell_of_room(void *context) { mt_bell_wake(((mt_worker *)context)->engine_bell); }

static int open_link(mt_worker *w, uint32_t index) {
    mt_ring_close(w->down);
    mt_ring_close(w->up);
    w->link = mti_segment_link_at(w->base, index, w->ring_bytes);
    w->down = mt_ring_open(mt_alloc_default(), w->link.down, w->ring_bytes);
    w->up = mt_ring_open(mt_alloc_default(), w->link.up, w->ring_bytes);
    if (w->down == NULL || w->up == NULL) return MT_E_NOMEM;
    mti_ring_set_on_room(w->down, tell_of_room, w);
    return MT_OK;
}

mt_worker *mti_worker_new(void *base, uint32_t index, uint64_t ring_bytes, mt_bell *engine_bell) {
    mt_worker *w = mti_get_zeroed(mt_alloc_default(), 1, sizeof *w);
    if (w == NULL) return NULL;
    mti_ours_init(&w->ours);
    w->base = base;
    w->ring_bytes = ring_bytes;
    w->engine_bell = engine_bell;
    w->floor = INT32_MIN;
    w->objects = mt_objects_new(mt_alloc_default(), 0);
    if (w->objects == NULL || open_link(w, index) != MT_OK) {
        mt_worker_close(w);
        return NULL;
    }
    return w;
}

void *mti_worker_base(const mt_worker *w) { return w->base; }
void mti_worker_set_scope(mt_worker *w, mt_scope *scope) { w->scope = scope; }

mt_worker *mt_worker_open(int fd, uint32_t index, uint64_t ring_bytes) {
    struct stat status;
    mt_keep_freed_memory(KEEP_BYTES);
    if (fstat(fd, &status) != 0) return NULL;
    if ((uint64_t)status.st_size < mti_segment_size(index + 1, ring_bytes)) {
        errno = EINVAL;
        return NULL;
    }
    size_t size = (size_t)status.st_size;
    void *base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (base == MAP_FAILED) return NULL;
    mt_worker *w = mti_worker_new(base, index, ring_bytes, mti_segment_bell(base));
    if (w == NULL) {
        (void)munmap(base, size);
        errno = ENOMEM;
        return NULL;
    }
    w->mapped = size;
    w->device = status.st_dev;
    w->inode = status.st_ino;
    return w;
}

int mt_worker_become(mt_worker *w, uint32_t index) {
    mti_ours_take(&w->ours);
    (void)madvise(w->base, w->mapped, MADV_DONTFORK); /* two processes on one ring would spoil it for all */
    return open_link(w, index);
}

bool mt_worker_is_ours(const mt_worker *w) { return mti_is_ours(&w->ours); }

void mt_worker_close(mt_worker *w) {
    if (w == NULL) return;
    mt_ring_close(w->down);
    mt_ring_close(w->up);
    mt_objects_destroy(w->objects);
    mt_blob_unref(w->record);
    mt_put(mt_alloc_default(), w->kept);
    mti_ours_clean_up(&w->ours);
    if (w->mapped != 0) (void)munmap(w->base, w->mapped);
    mt_put(mt_alloc_default(), w);
}

/* One try, of which the engine is told. */
static int try_up(mt_worker *w, const mt_part *parts, uint32_t n_parts, uint64_t *progress) {
    int status = mt_ring_put(w->up, parts, n_parts, progress);
    (void)mt_ring_publish(w->up);
    if (status == MT_E_AGAIN) {
        mt_bell_wake(w->engine_bell); /* it shall make room */
    } else {
        mt_bell_ring(w->engine_bell);
    }
    return status;
}

/* While the ring is full it looks for room for a while, then sleeps until the engine has made some. */
static int write_up(mt_worker *w, const mt_part *parts, uint32_t n_parts) {
    uint64_t progress = 0, last = 0, looked_since_ns = 0;
    for (;;) {
        int status = try_up(w, parts, n_parts, &progress);
        if (status != MT_E_AGAIN) return status;
        if (progress != last || looked_since_ns == 0) looked_since_ns = now_ns();
        last = progress;
        if (now_ns() - looked_since_ns < SPIN_NS) {
            (void)sched_yield();
            continue;
        }
        uint32_t value = mt_bell_arm(w->link.bell, MT_BELL_SLEEPS);
        status = try_up(w, parts, n_parts, &progress);
        if (status != MT_E_AGAIN || progress != last) {
            mt_bell_disarm(w->link.bell);
            if (status != MT_E_AGAIN) return status;
            continue;
        }
        status = mt_bell_sleep(w->link.bell, value, -1); /* a signal, or a ring for something else, only makes it look again */
    }
}

static int send_up(mt_worker *w, const mt_part *parts, uint32_t n_parts) {
    if (!mti_is_ours(&w->ours)) return MT_E_FORKED;
    if (w->uplink == NULL) return write_up(w, parts, n_parts);
    mti_uplink_take_pen(w->uplink);
    int status = write_up(w, parts, n_parts);
    mti_uplink_give_pen(w->uplink);
    return status;
}

/* Whether objects can be mapped from the engine's descriptors: by trying it with this memory. */
static bool can_map(const mt_worker *w) {
    if (w->mapped == 0) return false;
    const mt_segment_owner *owner = mti_segment_owner(w->base);
    mt_where where = {owner->pid, owner->fd, w->device, w->inode, 0, 0};
    int fd = mti_open_theirs(&where);
    if (fd >= 0) (void)close(fd);
    return fd >= 0;
}

static int send_head(mt_worker *w, uint16_t kind, uint16_t flags, uint64_t id, uint32_t n) {
    mt_rec rec = {sizeof rec, id, kind, flags, n};
    mt_part part = {&rec, sizeof rec};
    return send_up(w, &part, 1);
}

int mt_worker_hello(mt_worker *w, uint32_t slots) {
    w->slots = slots;
    return send_head(w, MT_KIND_HELLO, can_map(w) ? MT_HELLO_MAPS : 0, (uint64_t)getpid(), slots);
}

/* ---- waiting within a task ---- */

static void set_within(mt_worker *w, int32_t priority, uint32_t is_fresh) {
    w->within = priority;
    if (w->scope == NULL) return;
    mt_store_relaxed(&w->scope->priority, priority);
    mt_store_relaxed(&w->scope->is_fresh, is_fresh);
}

void mt_worker_follow(mt_worker *w, const mt_worker *other) { set_within(w, mt_priority_within(other->call.priority), 0); }
int32_t mt_worker_within(const mt_worker *w) { return w->within; }

int mt_worker_block(mt_worker *w, bool is_strict, mt_pause *out) {
    if (!mti_is_ours(&w->ours)) return MT_E_FORKED;
    *out = (mt_pause){w->call.id, w->begun_ns, w->within, w->floor};
    w->slots++;
    w->floor = is_strict ? w->within : INT32_MIN;
    return send_head(w, MT_KIND_SLOTS, 0, (uint64_t)(int64_t)w->floor, w->slots);
}

int mt_worker_loosen(mt_worker *w) {
    w->floor = INT32_MIN;
    return send_head(w, MT_KIND_SLOTS, 0, (uint64_t)(int64_t)w->floor, w->slots);
}

void mt_worker_go_on(mt_worker *w, const mt_pause *pause) {
    w->call.id = pause->id;
    w->begun_ns = pause->begun_ns;
    set_within(w, pause->within, 0);
}

int mt_worker_unblock(mt_worker *w, const mt_pause *pause) {
    if (!mti_is_ours(&w->ours)) return MT_E_FORKED;
    mt_worker_go_on(w, pause);
    w->floor = pause->floor;
    w->slots--;
    uint64_t begun;
    int status = mti_recall(w->link.started, &begun);
    return status != MT_OK ? status : send_head(w, MT_KIND_SLOTS, 0, (uint64_t)(int64_t)w->floor, w->slots);
}

void mt_worker_poke(mt_worker *w) {
    if (!mti_is_ours(&w->ours)) return;
    mt_store_release(&w->poked, 1); /* pairs with the look in mti_worker_next */
    mt_bell_ring(w->link.bell);
}

int32_t mt_priority_within(int32_t priority) {
    int64_t next = ((int64_t)priority + MT_BAND / 2) / MT_BAND + 1;
    if (next < 1) next = 1;
    return next > INT32_MAX / MT_BAND ? INT32_MAX / MT_BAND * MT_BAND : (int32_t)next * MT_BAND;
}

int mt_worker_exited(mt_worker *w, uint32_t n, int32_t pid, int32_t wait_status, uint32_t what) {
    struct {
        mt_rec rec;
        mt_lost lost;
    } record = {{sizeof record, (uint64_t)pid, MT_KIND_EXITED, 0, n}, {pid, wait_status, what}};
    mt_part part = {&record, sizeof record};
    return send_up(w, &part, 1);
}

const uint8_t *mt_worker_window(const mt_worker *w) { return w->window; }

/* Puts the arguments of a call into the window, if they are plain. */
static bool fill_window(mt_worker *w) {
    const mt_call *call = &w->call;
    mt_part args = {call->args, call->args_size}, values[PLAIN_EDGES];
    if (call->codec == MT_CODEC_MARSHAL && args.size <= MT_WINDOW_BYTES) {
        memcpy(w->window, args.data, args.size);
        return true;
    }
    if (call->codec != MT_CODEC_FLAT || call->n > PLAIN_EDGES) return false;
    for (uint32_t i = 0; i < call->n; i++) {
        mt_call value;
        if (mt_worker_edge(w, i, &value) != MT_OK || value.codec != MT_CODEC_MARSHAL) return false;
        values[i] = (mt_part){value.args, value.args_size};
    }
    return mt_flat_fill(&args, values, call->n, w->window, MT_WINDOW_BYTES) > 0;
}

/* Where the parts of a TASK record lie. */
static void locate(mt_worker *w, const unsigned char *data) {
    mt_rec_task task;
    memcpy(&task, data, sizeof task);
    uint64_t args_at = mti_args_at(data);
    w->edges = (const mt_edge_ref *)(const void *)(data + sizeof task);
    w->edge_next = 0;
    w->edge_bytes = (const unsigned char *)(w->edges + task.rec.n);
    w->call = (mt_call){task.rec.id, task.fn, data + args_at, task.rec.size - args_at, task.rec.flags, task.rec.n, task.priority, false};
}

/* The record is the worker's until the next one: in the ring it is so only until somebody reads on, and others can write there. */
static int own(mt_worker *w, const mt_incoming *incoming, const unsigned char **out) {
    if (incoming->blob != NULL) {
        w->record = mt_blob_ref(incoming->blob);
        *out = incoming->data;
        return MT_OK;
    }
    int status = mti_grow(mt_alloc_default(), (void **)&w->kept, 0, &w->kept_capacity, incoming->size, 1);
    if (status != MT_OK) return status;
    memcpy(w->kept, incoming->data, incoming->size);
    *out = w->kept;
    return MT_OK;
}

/* `rec`: its header, which has been checked. */
static int take_task(mt_worker *w, const mt_rec *rec, const mt_incoming *incoming, mt_call *out) {
    mt_rec_task task;
    uint64_t args_size = rec->size - sizeof task;
    bool is_plain = rec->flags == MT_CODEC_MARSHAL && rec->n == 0 && args_size <= MT_WINDOW_BYTES;
    if (is_plain) {
        memcpy(&task, incoming->data, sizeof task);
        memcpy(w->window, (const unsigned char *)incoming->data + sizeof task, args_size);
        w->call = (mt_call){rec->id, task.fn, w->window, args_size, MT_CODEC_MARSHAL, 0, task.priority, false};
    } else {
        const unsigned char *data;
        int status = own(w, incoming, &data);
        if (status != MT_OK) return status;
        if (memcmp(data, rec, sizeof *rec) != 0 || mti_task_check(data) != MT_OK) return MT_E_RECORD;
        locate(w, data);
        is_plain = fill_window(w);
    }
    set_within(w, mt_priority_within(w->call.priority), 1);
    *out = w->call;
    out->is_plain = is_plain;
    w->has_run = true;
    w->begun_ns = now_ns();
    return MT_KIND_TASK;
}

/* A record has come: what the caller gets of it, or MT_E_AGAIN when it was for the object table. */
int mti_worker_take(mt_worker *w, const mt_incoming *incoming, mt_call *out) {
    const unsigned char *data = incoming->data;
    uint64_t size = incoming->size;
    mt_rec rec;
    if (size < sizeof rec) return MT_E_RECORD;
    memcpy(&rec, data, sizeof rec);
    int status = mti_head_check(&rec, size, MT_ROLE_PARENT);
    if (status != MT_OK) return status;
    switch (rec.kind) {
        case MT_KIND_TASK:
            status = mti_begin_job(w->link.started, &w->started);
            return status == MT_OK ? take_task(w, &rec, incoming, out) : status;
        case MT_KIND_OBJECT: {
            mt_part bytes = {data + sizeof rec, size - sizeof rec};
            status = incoming->blob != NULL
                         ? mti_objects_add_blob(w->objects, rec.id, incoming->blob, sizeof rec, rec.flags)
                         : mt_objects_add(w->objects, rec.id, &bytes, rec.flags);
            return status == MT_OK ? MT_E_AGAIN : status;
        }
        case MT_KIND_RESUME: status = mti_resume(w->link.started); return status == MT_OK ? MT_E_AGAIN : status;
        case MT_KIND_DROP: {
            uint32_t none;
            if (mt_objects_unref(w->objects, rec.id, NULL, &none) < 0) return MT_E_RECORD;
            *out = (mt_call){.id = rec.id};
            return MT_KIND_DROP;
        }
        case MT_KIND_RESULT:
        case MT_KIND_SLOTS:
        case MT_KIND_RECALL:
        case MT_KIND_RECALLED:
            if (w->uplink == NULL) return MT_E_RECORD;
            status = mti_uplink_pass_on(w->uplink, incoming);
            return status == MT_OK ? MT_E_AGAIN : status;
        default: *out = (mt_call){.id = rec.id, .n = rec.n}; return rec.kind;
    }
}

static int poll_once(mt_worker *w, mt_call *out) {
    if (w->uplink != NULL) return mti_uplink_poll(w->uplink, out);
    for (;;) {
        mt_incoming incoming;
        int status = mti_ring_get(w->down, &incoming);
        if (status != MT_OK) return status;
        status = mti_worker_take(w, &incoming, out);
        if (status != MT_E_AGAIN) return status;
        mt_ring_release(w->down);
    }
}

/* As poll_once; MT_OK and MT_E_INTR as in mti_worker_next. */
static int look(mt_worker *w, const _Atomic uint32_t *state, mt_call *out) {
    if (state != NULL && (mt_load_acquire(state) & MT_STATE_MASK) >= MT_FIRST_FINAL) return MT_OK; /* pairs with mti_task_publish */
    if (mt_load_relaxed(&w->poked) != 0 && mt_exchange_acq_rel(&w->poked, 0) != 0) return MT_E_INTR;
    return poll_once(w, out);
}

/* Looks for a while without sleeping; MT_E_AGAIN: nothing has come. */
static int spin(mt_worker *w, const _Atomic uint32_t *state, mt_call *out, uint64_t until_ns) {
    int status;
    do {
        (void)sched_yield();
        status = look(w, state, out);
    } while (status == MT_E_AGAIN && now_ns() < until_ns);
    return status;
}

static void give_memory_back(mt_worker *w) {
    w->has_run = false;
#ifdef __GLIBC__
    (void)malloc_trim(0);
#endif
}

int mti_worker_next(mt_worker *w, const _Atomic uint32_t *state, int64_t timeout_ns, mt_call *out) {
    if (!mti_is_ours(&w->ours)) return MT_E_FORKED;
    if (w->uplink != NULL) mti_uplink_end_task(w->uplink);
    mt_ring_release(w->down);
    mt_blob_unref(w->record);
    w->record = NULL;
    int status = look(w, state, out);
    if (status != MT_E_AGAIN) return status;
    mt_bell_end_nap(w->engine_bell); /* it may nap in the belief that there is work left here */
    uint64_t start = now_ns();
    status = spin(w, state, out, start + SPIN_NS);
    while (status == MT_E_AGAIN) {
        uint32_t value = mt_bell_arm(w->link.bell, MT_BELL_SLEEPS);
        status = look(w, state, out);
        if (status != MT_E_AGAIN) {
            mt_bell_disarm(w->link.bell);
            break;
        }
        int64_t left = -1;
        if (timeout_ns >= 0) {
            left = timeout_ns - (int64_t)(now_ns() - start);
            if (left <= 0) {
                mt_bell_disarm(w->link.bell);
                return MT_E_TIMEOUT;
            }
        }
        bool trims = w->has_run && w->mapped != 0 && (left < 0 || left > TRIM_NS);
        int slept = mt_bell_sleep(w->link.bell, value, trims ? TRIM_NS : left);
        if (slept == MT_E_INTR) return MT_E_INTR;
        if (slept == MT_E_TIMEOUT && trims) give_memory_back(w);
        status = look(w, state, out);
    }
    return status;
}

int mt_worker_next(mt_worker *w, int64_t timeout_ns, mt_call *out) { return mti_worker_next(w, NULL, timeout_ns, out); }

int mt_worker_edge(mt_worker *w, uint32_t i, mt_call *out) {
    if (i >= w->call.n) return MT_E_INVAL;
    if (w->edges[i].object != 0) return mt_worker_object(w, w->edges[i].object, out);
    if (i < w->edge_next) {
        w->edge_next = 0;
        w->edge_bytes = (const unsigned char *)(w->edges + w->call.n);
    }
    for (; w->edge_next < i; w->edge_next++) {
        const mt_edge_ref *passed = &w->edges[w->edge_next];
        if (passed->object == 0) w->edge_bytes += mti_pad8(passed->size);
    }
    *out = (mt_call){.args = w->edge_bytes, .args_size = w->edges[i].size, .codec = (uint32_t)w->edges[i].flags};
    return MT_OK;
}

int mt_worker_object(mt_worker *w, uint64_t id, mt_call *out) {
    mt_part bytes;
    uint32_t codec;
    int status = mt_objects_get(w->objects, id, &bytes, &codec);
    if (status != MT_OK) return status;
    *out = (mt_call){.id = id, .args = bytes.data, .args_size = bytes.size, .codec = codec};
    return MT_OK;
}

mt_blob *mt_worker_hold(mt_worker *w, uint64_t id) {
    mt_blob *blob = mti_objects_blob(w->objects, id);
    return blob == NULL ? NULL : mt_blob_ref(blob);
}

int mt_worker_answer_parts(mt_worker *w, uint32_t outcome, uint32_t codec, const mt_part *parts, uint32_t n_parts) {
    if (n_parts >= ANSWER_PARTS) return MT_E_INVAL;
    uint64_t size = sizeof(mt_rec_result) + mti_parts_size(parts, n_parts);
    uint64_t duration_ns = now_ns() - w->begun_ns;
    mt_rec_result head = {{size, w->call.id, MT_KIND_RESULT, (uint16_t)codec, outcome},
                          duration_ns == 0 ? 1 : duration_ns};
    mt_part all[ANSWER_PARTS] = {{&head, sizeof head}};
    if (n_parts > 0) memcpy(all + 1, parts, n_parts * sizeof *parts);
    return send_up(w, all, n_parts + 1);
}

int mt_worker_answer(mt_worker *w, uint32_t outcome, uint32_t codec, const uint8_t *data, uint64_t size) {
    mt_part part = {data, size};
    return mt_worker_answer_parts(w, outcome, codec, &part, 1);
}

int mt_die_with_parent(int parent, int signal_number) {
    if (prctl(PR_SET_PDEATHSIG, (unsigned long)signal_number, 0, 0, 0) != 0) return MT_E_SYS;
    return getppid() == parent ? MT_OK : MT_E_CLOSED;
}
