#include "transport_mpi.h"

#include <string.h>
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/lsan_interface.h>
#endif

#define FRAME_BYTES (64u * 1024u)
#define RECEIVES 2u    /* for each neighbour: one may be filled while the other is read */
#define SENDS_AT_LEAST 4u /* for each neighbour */
#define SENDS_IN_ALL 32u  /* in the pool, if neighbours are few */
#define MPI_SUCCESS_CODE 0
#define CANCEL_LOOKS 1000u
#define MOST_STATUS_BYTES 256u

/* MPI handles are ints in one family of libraries and pointers in the other; so each call has two shapes. */
typedef int (*isend_int)(const void *, int, int, int, int, int, int *);
typedef int (*irecv_int)(void *, int, int, int, int, int, int *);
typedef int (*test_int)(int *, int *, void *);
typedef int (*testsome_int)(int, int *, int *, int *, void *);
typedef int (*request_int)(int *);
typedef int (*count_int)(const void *, int, int *);
typedef int (*isend_pointer)(const void *, int, void *, int, int, void *, void **);
typedef int (*irecv_pointer)(void *, int, void *, int, int, void *, void **);
typedef int (*test_pointer)(void **, int *, void *);
typedef int (*testsome_pointer)(int, void **, int *, int *, void *);
typedef int (*request_pointer)(void **);
typedef int (*count_pointer)(const void *, void *, int *);

typedef struct send_slot {
    mt_frame frame; /* first: a frame's address is its slot's */
    uint32_t peer;  /* its place in `peers` */
    uint32_t next;  /* in the list of free slots; NO_SLOT: the last */
} send_slot;
#define NO_SLOT UINT32_MAX

/* Slot i belongs to peer i / RECEIVES. */
typedef struct receive_slot {
    unsigned char *data;
    uint32_t size;
    bool arrived; /* and not given out */
} receive_slot;

typedef struct neighbour {
    uint32_t rank;
    uint32_t next;  /* which of its receives is the oldest */
    uint32_t sends; /* frames that are being filled or under way */
    bool is_lost, is_told_of;
} neighbour;

/* Requests of the library in a row, as it wants them. */
typedef struct requests {
    unsigned char *handles;
    uint32_t n;
    uint32_t active;
} requests;

typedef struct mpi_transport {
    mt_transport base;
    const mt_alloc *alloc;
    mt_mpi_table table;
    unsigned char null_request[8]; /* as the library writes it */
    neighbour *peers;
    uint32_t n_peers;
    send_slot *sends;
    uint32_t n_sends, first_free, sends_each;
    receive_slot *receives;
    uint32_t *ready; /* receive slots to be given out: a ring of n_receives places */
    uint32_t n_receives, ready_at, n_ready;
    requests sending, receiving;
    uint32_t n_untold; /* lost neighbours that next_lost has not given */
    bool has_failed;   /* the library, and for nobody in particular */
    bool has_left_behind; /* requests of lost neighbours: the library may still use their frames */
    int *indices;
    unsigned char *statuses;
    unsigned char *memory;
} mpi_transport;

static bool is_int(const mpi_transport *t) { return t->table.handle_size == 4; }

static void *handle_at(const mpi_transport *t, const requests *r, uint32_t i) {
    return r->handles + (size_t)i * t->table.handle_size;
}

static int mpi_isend(mpi_transport *t, uint32_t slot) {
    const mt_mpi_table *m = &t->table;
    const mt_frame *frame = &t->sends[slot].frame;
    int size = (int)frame->used, rank = (int)t->peers[t->sends[slot].peer].rank;
    void *handle = handle_at(t, &t->sending, slot);
    if (is_int(t)) {
        return ((isend_int)m->isend)(frame->data, size, (int)m->byte, rank, m->tag, (int)m->comm, handle);
    }
    return ((isend_pointer)m->isend)(frame->data, size, (void *)m->byte, rank, m->tag, (void *)m->comm, handle);
}

static int mpi_irecv(mpi_transport *t, uint32_t slot) {
    const mt_mpi_table *m = &t->table;
    unsigned char *data = t->receives[slot].data;
    int rank = (int)t->peers[slot / RECEIVES].rank;
    void *handle = handle_at(t, &t->receiving, slot);
    int code = is_int(t)
                   ? ((irecv_int)m->irecv)(data, (int)FRAME_BYTES, (int)m->byte, rank, m->tag, (int)m->comm, handle)
                   : ((irecv_pointer)m->irecv)(data, (int)FRAME_BYTES, (void *)m->byte, rank, m->tag, (void *)m->comm,
                                               handle);
    if (code == MPI_SUCCESS_CODE) t->receiving.active++;
    return code;
}

static int mpi_test(mpi_transport *t, void *handle, int *flag) {
    return is_int(t) ? ((test_int)t->table.test)(handle, flag, t->statuses) : ((test_pointer)t->table.test)(handle, flag, t->statuses);
}

static bool is_null(const mpi_transport *t, const void *handle) { return memcmp(handle, t->null_request, t->table.handle_size) == 0; }

/* ---- lost neighbours ---- */

static void abandon(mpi_transport *t, requests *r, uint32_t i) {
    void *handle = handle_at(t, r, i);
    if (is_null(t, handle)) return;
    memcpy(handle, t->null_request, t->table.handle_size);
    r->active--;
    t->has_left_behind = true;
}

static void lose(mpi_transport *t, uint32_t place) {
    neighbour *peer = &t->peers[place];
    if (peer->is_lost) return;
    peer->is_lost = true;
    t->n_untold++;
    for (uint32_t i = 0; i < t->n_sends; i++) {
        if (t->sends[i].peer == place) abandon(t, &t->sending, i); /* its slot is not used again */
    }
    for (uint32_t i = 0; i < RECEIVES; i++) abandon(t, &t->receiving, place * RECEIVES + i);
}

static uint32_t place_of_request(const mpi_transport *t, const requests *r, uint32_t i) {
    return r == &t->sending ? t->sends[i].peer : i / RECEIVES;
}

static int status_error(const mpi_transport *t, int i) {
    int code;
    memcpy(&code, t->statuses + (size_t)i * t->table.status_size + t->table.error_at, sizeof code);
    return code;
}

/* The library has completed requests, some of them with an error, which their statuses tell: those that are well stay in `indices`. */
static uint32_t sort_out(mpi_transport *t, requests *r, int n) {
    uint32_t well = 0;
    for (int i = 0; i < n; i++) { /* those that the library has taken out; others are counted when they are abandoned */
        r->active -= status_error(t, i) != MPI_SUCCESS_CODE && is_null(t, handle_at(t, r, (uint32_t)t->indices[i]));
    }
    for (int i = 0; i < n; i++) {
        uint32_t which = (uint32_t)t->indices[i];
        if (status_error(t, i) == MPI_SUCCESS_CODE) {
            memmove(t->statuses + (size_t)well * t->table.status_size, t->statuses + (size_t)i * t->table.status_size, t->table.status_size);
            t->indices[well++] = (int)which;
            continue;
        }
        lose(t, place_of_request(t, r, which));
    }
    return well;
}

static void free_send(mpi_transport *t, uint32_t slot) {
    t->peers[t->sends[slot].peer].sends--;
    t->sends[slot].next = t->first_free;
    t->first_free = slot;
}

static void note_arrival(mpi_transport *t, uint32_t which, const void *status);

/* An error, and the library does not tell of which request: each is asked for by itself. */
static void find_lost(mpi_transport *t, requests *r) {
    bool found = false;
    for (uint32_t i = 0; i < r->n; i++) {
        void *handle = handle_at(t, r, i);
        int flag = 0;
        if (is_null(t, handle)) continue;
        int code = mpi_test(t, handle, &flag);
        r->active -= is_null(t, handle);
        if (code != MPI_SUCCESS_CODE) {
            found = true;
            lose(t, place_of_request(t, r, i));
        } else if (flag != 0 && r == &t->sending) {
            free_send(t, i);
        } else if (flag != 0) {
            note_arrival(t, i, t->statuses);
        }
    }
    t->has_failed = t->has_failed || !found;
}

/* Completed ones are in `indices` and `statuses` then; the library has taken their handles out. What failed has made its neighbour lost. */
static uint32_t mpi_testsome(mpi_transport *t, requests *r) {
    int n = 0, code = MPI_SUCCESS_CODE;
    if (t->has_failed) return 0;
    for (uint32_t look = 0; look < t->table.looks && n <= 0 && code == MPI_SUCCESS_CODE; look++) {
        code = is_int(t) ? ((testsome_int)t->table.testsome)((int)r->n, (int *)(void *)r->handles, &n, t->indices, t->statuses)
                         : ((testsome_pointer)t->table.testsome)((int)r->n, (void **)(void *)r->handles, &n, t->indices, t->statuses);
    }
    if (code != MPI_SUCCESS_CODE && code != t->table.error_in_status) {
        find_lost(t, r);
        return 0;
    }
    if (n <= 0) return 0; /* MPI_UNDEFINED, when nothing is active, is negative */
    uint32_t well = code == MPI_SUCCESS_CODE ? (uint32_t)n : sort_out(t, r, n);
    r->active -= well;
    return well;
}

static int mpi_count(const mpi_transport *t, const void *status, int *count) {
    if (is_int(t)) return ((count_int)t->table.get_count)(status, (int)t->table.byte, count);
    return ((count_pointer)t->table.get_count)(status, (void *)t->table.byte, count);
}

/* A receive that was cancelled is completed by a test; until then the library may write to its buffer. False: it still may. */
static bool mpi_withdraw(mpi_transport *t, uint32_t slot) {
    int flag = 0;
    void *handle = handle_at(t, &t->receiving, slot);
    if (is_null(t, handle)) return true;
    int code = is_int(t) ? ((request_int)t->table.cancel)(handle) : ((request_pointer)t->table.cancel)(handle);
    for (uint32_t i = 0; i < CANCEL_LOOKS && code == MPI_SUCCESS_CODE && flag == 0; i++) {
        code = mpi_test(t, handle, &flag);
    }
    return flag != 0;
}

/* ---- sends ---- */

static void look_at_sends(mpi_transport *t) {
    if (t->sending.active == 0) return;
    uint32_t n = mpi_testsome(t, &t->sending);
    for (uint32_t i = 0; i < n; i++) free_send(t, (uint32_t)t->indices[i]);
}

static uint32_t place_of(const mpi_transport *t, uint32_t rank) {
    uint32_t low = 0, high = t->n_peers;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (t->peers[middle].rank < rank) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static int get(mt_transport *base, uint32_t rank, mt_frame **out_frame) {
    mpi_transport *t = (mpi_transport *)base;
    uint32_t place = place_of(t, rank);
    neighbour *peer = &t->peers[place];
    if (peer->sends == t->sends_each) look_at_sends(t);
    if (peer->is_lost) return MT_E_PEER;
    if (peer->sends == t->sends_each) return MT_E_AGAIN;
    send_slot *slot = &t->sends[t->first_free];
    t->first_free = slot->next;
    peer->sends++;
    slot->peer = place;
    slot->frame.used = 0;
    *out_frame = &slot->frame;
    return MT_OK;
}

static int send(mt_transport *base, uint32_t rank, mt_frame *frame) {
    mpi_transport *t = (mpi_transport *)base;
    (void)rank; /* the frame was taken for it */
    send_slot *slot = (send_slot *)frame;
    uint32_t index = (uint32_t)(slot - t->sends);
    if (t->peers[slot->peer].is_lost) return MT_E_PEER;
    int code = mpi_isend(t, index);
    t->sending.active++;
    if (code == MPI_SUCCESS_CODE) return MT_OK;
    if (is_null(t, handle_at(t, &t->sending, index))) t->sending.active--;
    lose(t, slot->peer);
    return MT_E_PEER;
}

static uint32_t in_flight(mt_transport *base) {
    mpi_transport *t = (mpi_transport *)base;
    look_at_sends(t);
    return t->has_failed ? 0 : t->sending.active;
}

static bool next_lost(mt_transport *base, uint32_t *out_peer) {
    mpi_transport *t = (mpi_transport *)base;
    for (uint32_t i = 0; i < t->n_peers && t->n_untold > 0; i++) {
        neighbour *peer = &t->peers[i];
        if (!peer->is_lost || peer->is_told_of) continue;
        peer->is_told_of = true;
        t->n_untold--;
        *out_peer = peer->rank;
        return true;
    }
    return false;
}

/* ---- receives ---- */

/* The oldest receives of a peer that have arrived. */
static void make_ready(mpi_transport *t, uint32_t place) {
    neighbour *peer = &t->peers[place];
    for (;;) {
        uint32_t slot = place * RECEIVES + peer->next;
        if (!t->receives[slot].arrived) return;
        t->receives[slot].arrived = false;
        t->ready[(t->ready_at + t->n_ready++) % t->n_receives] = slot;
        peer->next = (peer->next + 1) % RECEIVES;
    }
}

static void note_arrival(mpi_transport *t, uint32_t which, const void *status) {
    int size = 0;
    uint32_t place = which / RECEIVES;
    if (mpi_count(t, status, &size) != MPI_SUCCESS_CODE || size < 0) lose(t, place);
    if (t->peers[place].is_lost) return; /* what came before it may be missing */
    t->receives[which].size = (uint32_t)size;
    t->receives[which].arrived = true;
    make_ready(t, place);
}

static void look_at_receives(mpi_transport *t) {
    uint32_t n = mpi_testsome(t, &t->receiving);
    for (uint32_t i = 0; i < n; i++) note_arrival(t, (uint32_t)t->indices[i], t->statuses + (size_t)i * t->table.status_size);
}

static int receive(mt_transport *base, mt_arrival *out) {
    mpi_transport *t = (mpi_transport *)base;
    if (t->n_ready == 0) {
        look_at_receives(t);
        if (t->n_ready == 0) return t->has_failed ? MT_E_PEER : MT_E_AGAIN;
    }
    uint32_t slot = t->ready[t->ready_at];
    t->ready_at = (t->ready_at + 1) % t->n_receives;
    t->n_ready--;
    receive_slot *from = &t->receives[slot];
    *out = (mt_arrival){from->data, from->size, t->peers[slot / RECEIVES].rank, from};
    return MT_OK;
}

/* Frames are released in the order in which they were given out, so a peer's receives stay in turn. */
static void release(mt_transport *base, const mt_arrival *arrival) {
    mpi_transport *t = (mpi_transport *)base;
    uint32_t slot = (uint32_t)((receive_slot *)arrival->token - t->receives);
    if (!t->peers[slot / RECEIVES].is_lost && mpi_irecv(t, slot) != MPI_SUCCESS_CODE) lose(t, slot / RECEIVES);
}

/* ---- the whole ---- */

static void free_all(mpi_transport *t) {
    void *parts[] = {t->memory,    t->peers,           t->sends,             t->receives, t->ready,
                     t->indices, t->sending.handles, t->receiving.handles, t->statuses};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) mt_put(t->alloc, parts[i]);
    mt_put(t->alloc, t);
}

static void destroy(mt_transport *base) {
    mpi_transport *t = (mpi_transport *)base;
    bool quiet = t->sending.active == 0 && !t->has_left_behind;
    for (uint32_t i = 0; i < t->n_receives; i++) quiet = mpi_withdraw(t, i) && quiet;
    if (quiet) {
        free_all(t);
        return;
    }
#ifdef __SANITIZE_ADDRESS__
    __lsan_ignore_object(t); /* the library may still use our frames: they stay to the end of the process, on purpose */
#endif
}

static bool get_memory(mpi_transport *t) {
    uint32_t most = t->n_sends > t->n_receives ? t->n_sends : t->n_receives;
    t->peers = mti_get_zeroed(t->alloc, t->n_peers, sizeof *t->peers);
    t->sends = mti_get_zeroed(t->alloc, t->n_sends, sizeof *t->sends);
    t->receives = mti_get_zeroed(t->alloc, t->n_receives, sizeof *t->receives);
    t->ready = mti_get_zeroed(t->alloc, t->n_receives, sizeof *t->ready);
    t->indices = mti_get_zeroed(t->alloc, most, sizeof *t->indices);
    t->statuses = mti_get_zeroed(t->alloc, most, t->table.status_size);
    t->sending.handles = mti_get_zeroed(t->alloc, t->n_sends, t->table.handle_size);
    t->receiving.handles = mti_get_zeroed(t->alloc, t->n_receives, t->table.handle_size);
    t->memory = mt_get(t->alloc, (size_t)FRAME_BYTES * (t->n_sends + t->n_receives));
    return t->peers != NULL && t->sends != NULL && t->receives != NULL && t->ready != NULL && t->indices != NULL &&
           t->statuses != NULL && t->sending.handles != NULL && t->receiving.handles != NULL && t->memory != NULL;
}

static void forget_handles(const mpi_transport *t, requests *r, uint32_t n) {
    r->n = n;
    for (uint32_t i = 0; i < n; i++) memcpy(handle_at(t, r, i), t->null_request, t->table.handle_size);
}

mt_transport *mt_transport_mpi_new(const mt_mpi_table *table, const uint32_t *peers, uint32_t n_peers) {
    const mt_alloc *alloc = mt_alloc_default();
    bool fits = (table->handle_size == 4 || table->handle_size == 8) && table->status_size <= MOST_STATUS_BYTES;
    if (!fits || n_peers == 0 || n_peers > INT32_MAX / RECEIVES / SENDS_IN_ALL) return NULL;
    mpi_transport *t = mti_get_zeroed(alloc, 1, sizeof *t);
    if (t == NULL) return NULL;
    t->alloc = alloc;
    t->table = *table;
    t->base = (mt_transport){get, send, receive, release, in_flight, next_lost, destroy};
    t->n_peers = n_peers;
    t->n_receives = RECEIVES * n_peers;
    t->sends_each = SENDS_IN_ALL / n_peers > SENDS_AT_LEAST ? SENDS_IN_ALL / n_peers : SENDS_AT_LEAST;
    t->n_sends = t->sends_each * n_peers;
    t->first_free = NO_SLOT;
    if (!get_memory(t)) {
        free_all(t);
        return NULL;
    }
    int null_int = (int)table->request_null;
    if (is_int(t)) {
        memcpy(t->null_request, &null_int, sizeof null_int);
    } else {
        memcpy(t->null_request, &table->request_null, sizeof table->request_null);
    }
    forget_handles(t, &t->sending, t->n_sends);
    forget_handles(t, &t->receiving, t->n_receives);
    for (uint32_t i = 0; i < n_peers; i++) t->peers[i].rank = peers[i];
    for (uint32_t i = t->n_sends; i-- > 0;) {
        t->sends[i].frame = (mt_frame){t->memory + (size_t)FRAME_BYTES * i, FRAME_BYTES, 0};
        t->sends[i].next = t->first_free;
        t->first_free = i;
    }
    for (uint32_t i = 0; i < t->n_receives; i++) {
        t->receives[i].data = t->memory + (size_t)FRAME_BYTES * (t->n_sends + i);
        if (mpi_irecv(t, i) != MPI_SUCCESS_CODE) {
            destroy(&t->base);
            return NULL;
        }
    }
    return &t->base;
}
