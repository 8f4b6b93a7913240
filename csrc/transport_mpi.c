#include "transport_mpi.h"

#include <string.h>

#define FRAME_BYTES (128u * 1024u)
#define RECEIVES 8u
#define SENDS 32u
#define MPI_SUCCESS_CODE 0
#define CANCEL_LOOKS 1000u
#define STATUS_WORDS 8 /* 64 bytes: more than any known MPI_Status */

/* MPI handles are ints in one family of libraries and pointers in the other; so each call has two shapes. */
typedef int (*isend_int)(const void *, int, int, int, int, int, int *);
typedef int (*irecv_int)(void *, int, int, int, int, int, int *);
typedef int (*test_int)(int *, int *, void *);
typedef int (*request_int)(int *);
typedef int (*count_int)(const void *, int, int *);
typedef int (*isend_pointer)(const void *, int, void *, int, int, void *, void **);
typedef int (*irecv_pointer)(void *, int, void *, int, int, void *, void **);
typedef int (*test_pointer)(void **, int *, void *);
typedef int (*request_pointer)(void **);
typedef int (*count_pointer)(const void *, void *, int *);

typedef union request {
    int number;
    void *pointer;
} request;

typedef struct send_slot {
    mt_frame frame; /* first: a frame's address is its slot's */
    request request;
    bool busy;      /* handed to MPI */
    bool taken;     /* being filled */
} send_slot;

typedef struct receive_slot {
    unsigned char *data;
    request request;
    bool posted;
} receive_slot;

typedef struct mpi_transport {
    mt_transport base;
    const mt_alloc *alloc;
    mt_mpi_table table;
    send_slot sends[SENDS];
    receive_slot receives[RECEIVES];
    uint32_t next_receive;
    uint32_t n_busy;
    unsigned char *memory;
} mpi_transport;

static bool is_int(const mpi_transport *t) { return t->table.handle_size == 4; }

static int mpi_isend(mpi_transport *t, send_slot *slot, uint32_t peer) {
    const mt_mpi_table *m = &t->table;
    int size = (int)slot->frame.used, rank = (int)peer;
    if (is_int(t)) {
        return ((isend_int)m->isend)(slot->frame.data, size, (int)m->byte, rank, m->tag, (int)m->comm,
                                     &slot->request.number);
    }
    return ((isend_pointer)m->isend)(slot->frame.data, size, (void *)m->byte, rank, m->tag, (void *)m->comm,
                                     &slot->request.pointer);
}

static int mpi_irecv(mpi_transport *t, receive_slot *slot) {
    const mt_mpi_table *m = &t->table;
    if (is_int(t)) {
        return ((irecv_int)m->irecv)(slot->data, (int)FRAME_BYTES, (int)m->byte, m->any_source, m->tag, (int)m->comm,
                                     &slot->request.number);
    }
    return ((irecv_pointer)m->irecv)(slot->data, (int)FRAME_BYTES, (void *)m->byte, m->any_source, m->tag,
                                     (void *)m->comm, &slot->request.pointer);
}

static int mpi_test(mpi_transport *t, request *r, int *flag, void *status) {
    if (is_int(t)) return ((test_int)t->table.test)(&r->number, flag, status);
    return ((test_pointer)t->table.test)(&r->pointer, flag, status);
}

static int mpi_count(const mpi_transport *t, const void *status, int *count) {
    if (is_int(t)) return ((count_int)t->table.get_count)(status, (int)t->table.byte, count);
    return ((count_pointer)t->table.get_count)(status, (void *)t->table.byte, count);
}

/* A receive that was cancelled is completed by a test; until then the library may write to its buffer. False: it still may. */
static bool mpi_withdraw(mpi_transport *t, receive_slot *slot) {
    int flag = 0;
    uint64_t status[STATUS_WORDS];
    int code = is_int(t) ? ((request_int)t->table.cancel)(&slot->request.number)
                         : ((request_pointer)t->table.cancel)(&slot->request.pointer);
    for (uint32_t i = 0; i < CANCEL_LOOKS && code == MPI_SUCCESS_CODE && flag == 0; i++) {
        code = mpi_test(t, &slot->request, &flag, status);
    }
    slot->posted = flag == 0;
    return flag != 0;
}

static int look_at_sends(mpi_transport *t) {
    if (t->n_busy == 0) return MT_OK;
    for (uint32_t i = 0; i < SENDS; i++) {
        send_slot *slot = &t->sends[i];
        if (!slot->busy) continue;
        int flag = 0;
        uint64_t status[STATUS_WORDS];
        if (mpi_test(t, &slot->request, &flag, status) != MPI_SUCCESS_CODE) return MT_E_PEER;
        if (flag == 0) continue;
        slot->busy = false;
        t->n_busy--;
    }
    return MT_OK;
}

static send_slot *free_slot(mpi_transport *t) {
    for (uint32_t i = 0; i < SENDS; i++) {
        if (!t->sends[i].busy && !t->sends[i].taken) return &t->sends[i];
    }
    return NULL;
}

static int get(mt_transport *base, mt_frame **out_frame) {
    mpi_transport *t = (mpi_transport *)base;
    send_slot *slot = free_slot(t);
    if (slot == NULL) {
        int status = look_at_sends(t);
        if (status != MT_OK) return status;
        slot = free_slot(t);
    }
    if (slot == NULL) return MT_E_AGAIN;
    slot->taken = true;
    slot->frame.used = 0;
    *out_frame = &slot->frame;
    return MT_OK;
}

static int send(mt_transport *base, uint32_t peer, mt_frame *frame) {
    mpi_transport *t = (mpi_transport *)base;
    send_slot *slot = (send_slot *)frame;
    slot->taken = false;
    if (mpi_isend(t, slot, peer) != MPI_SUCCESS_CODE) return MT_E_PEER;
    slot->busy = true;
    t->n_busy++;
    return MT_OK;
}

static int receive(mt_transport *base, mt_arrival *out) {
    mpi_transport *t = (mpi_transport *)base;
    receive_slot *slot = &t->receives[t->next_receive];
    int flag = 0, size = 0;
    uint64_t status[STATUS_WORDS];
    if (!slot->posted) return MT_E_AGAIN;
    if (mpi_test(t, &slot->request, &flag, status) != MPI_SUCCESS_CODE) return MT_E_PEER;
    if (flag == 0) return MT_E_AGAIN;
    slot->posted = false;
    if (mpi_count(t, status, &size) != MPI_SUCCESS_CODE) return MT_E_PEER;
    int32_t source;
    memcpy(&source, (const unsigned char *)status + t->table.source_at, sizeof source);
    *out = (mt_arrival){slot->data, (uint32_t)size, (uint32_t)source, slot};
    t->next_receive = (t->next_receive + 1) % RECEIVES;
    return MT_OK;
}

static void release(mt_transport *base, const mt_arrival *arrival) {
    mpi_transport *t = (mpi_transport *)base;
    receive_slot *slot = arrival->token;
    slot->posted = mpi_irecv(t, slot) == MPI_SUCCESS_CODE;
}

static uint32_t in_flight(mt_transport *base) {
    mpi_transport *t = (mpi_transport *)base;
    (void)look_at_sends(t);
    return t->n_busy;
}

static void destroy(mt_transport *base) {
    mpi_transport *t = (mpi_transport *)base;
    bool quiet = t->n_busy == 0;
    for (uint32_t i = 0; i < RECEIVES; i++) {
        if (t->receives[i].posted && !mpi_withdraw(t, &t->receives[i])) quiet = false;
    }
    if (!quiet) return; /* the library may still use our frames: leave them to the end of the process */
    mt_put(t->alloc, t->memory);
    mt_put(t->alloc, t);
}

mt_transport *mt_transport_mpi_new(const mt_mpi_table *table) {
    const mt_alloc *alloc = mt_alloc_default();
    if (table->handle_size != 4 && table->handle_size != 8) return NULL;
    if (table->source_at > STATUS_WORDS * sizeof(uint64_t) - sizeof(int32_t)) return NULL;
    mpi_transport *t = mti_get_zeroed(alloc, 1, sizeof *t);
    if (t == NULL) return NULL;
    t->alloc = alloc;
    t->table = *table;
    t->base = (mt_transport){get, send, receive, release, in_flight, destroy};
    t->memory = mt_get(alloc, (size_t)FRAME_BYTES * (SENDS + RECEIVES));
    bool good = t->memory != NULL;
    for (uint32_t i = 0; good && i < SENDS; i++) {
        t->sends[i].frame = (mt_frame){t->memory + (size_t)FRAME_BYTES * i, FRAME_BYTES, 0};
    }
    for (uint32_t i = 0; good && i < RECEIVES; i++) {
        t->receives[i].data = t->memory + (size_t)FRAME_BYTES * (SENDS + i);
        good = mpi_irecv(t, &t->receives[i]) == MPI_SUCCESS_CODE;
        t->receives[i].posted = good;
    }
    if (!good) {
        destroy(&t->base);
        return NULL;
    }
    return &t->base;
}
