/* worker_inner.h - what the parts of a worker's lower end share: worker.c and uplink.c (its link as the way up of an engine in the same process). */
#ifndef MT_WORKER_INNER_H
#define MT_WORKER_INNER_H

#include "frames.h"
#include "objects.h"
#include "ours.h"
#include "segment.h"
#include "uplink.h"
#include "worker.h"

struct mt_worker {
    mt_ours ours;
    void *base;
    uint64_t mapped; /* 0: the memory is not ours */
    uint64_t device, inode; /* of the memory's file */
    uint64_t ring_bytes;
    mt_segment_link link;
    mt_bell *engine_bell; /* of the engine that this is a worker of */
    mt_ring *down;
    mt_ring *up;
    mt_objects *objects;
    mt_uplink *uplink; /* NULL: no engine uses this link; then it is this thread's alone */
    int32_t within; /* the priority of what the task that runs submits */
    int32_t floor;  /* said last */
    mt_scope *scope; /* what the engine is told of the task that runs; NULL: nobody asks */
    _Atomic uint32_t poked;
    uint32_t slots;
    bool has_run; /* a task, since freed memory was given back */
    mt_call call;
    const mt_edge_ref *edges;
    uint32_t edge_next; /* arguments are asked for in order: where the next one's inline bytes lie */
    const unsigned char *edge_bytes;
    mt_blob *record; /* that the task lies in, if it is the owner; else a task that is not plain lies in `kept` */
    unsigned char *kept;
    uint64_t kept_capacity;
    uint64_t begun_ns;
    uint64_t started;
    uint8_t window[MT_WINDOW_BYTES];
};

/* As mt_worker_next; also ends, with MT_OK, when the task whose state word this is has ended (NULL: not asked for). */
MT_MUST_CHECK int mti_worker_next(mt_worker *worker, const _Atomic uint32_t *state, int64_t timeout_ns, mt_call *out);
/* A record from the engine: what mt_worker_next gives for it, or MT_E_AGAIN when there is nothing to give. */
MT_MUST_CHECK int mti_worker_take(mt_worker *worker, const mt_incoming *incoming, mt_call *out);

#endif
