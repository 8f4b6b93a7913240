/* segment.h - the memory that an engine shares with the processes below it, and where everything lies in it.
 *
 *   segment = engine's bell (one line), its owner, a count of numbers | link 0 | link 1 | ...        link 0: the zygote, link 1 + w: worker w
 *   link    = the bell of the one below, its count of begun jobs, the bell of an engine of its own | ring down | ring up
 *
 * The count of begun jobs also settles who has a job that is sent but not begun: while the engine's recalls, in the upper bits, are more than the
 * RESUME records that the worker has come to, it begins nothing. So a recall needs no answer.
 *
 * Role: one memfd for each rank; the zygote inherits its descriptor, workers inherit the mapping. The engine's bell comes first so that other
 * ranks of the node need to map only the first page to ring it.
 * Thread rule: pure functions of addresses.
 */
#ifndef MT_SEGMENT_H
#define MT_SEGMENT_H

#include "bell.h"
#include "ring.h"

/* What one link's memory holds. */
typedef struct mt_segment_link {
    mt_bell *bell;             /* wakes the worker or zygote */
    mt_bell *engine_bell;      /* wakes the engine that a worker has for its sub-tasks; nobody arms it if there is none */
    _Atomic uint64_t *started; /* see mti_begin_job */
    void *down;                /* ring: engine -> worker */
    void *up;                  /* ring: worker -> engine */
} mt_segment_link;

/* The engine's process and its descriptor of the segment: workers see by it whether they can map what it has. */
typedef struct mt_segment_owner {
    int32_t pid;
    int32_t fd;
} mt_segment_owner;

/* 0 when ring_bytes is no ring capacity. */
uint64_t mti_segment_size(uint32_t n_links, uint64_t ring_bytes);
mt_bell *mti_segment_bell(void *base);
mt_segment_owner *mti_segment_owner(void *base);
/* The rank's count of object numbers, see ids.h. */
_Atomic uint64_t *mti_segment_ids(void *base);
mt_segment_link mti_segment_link_at(void *base, uint32_t index, uint64_t ring_bytes);
/* Makes a link's rings empty and its count 0. Nobody else may be using it. */
void mti_segment_format_link(const mt_segment_link *link, uint64_t ring_bytes);

/* Worker: its job number `*begun` is about to begin. MT_E_AGAIN: it was recalled, forget it. MT_E_RECORD: somebody else has written there. MT_E_RANGE: it
 * was the last one (2^48: 30 years at 300,000 a second). */
MT_MUST_CHECK int mti_begin_job(_Atomic uint64_t *started, uint64_t *begun);
/* Worker: it has come to the RESUME that follows a recall. MT_E_RECORD: there was none, so somebody else has written there. */
MT_MUST_CHECK int mti_resume(_Atomic uint64_t *started);
/* What has not begun now will not begin. How many jobs have. A RESUME must follow what was sent. MT_E_RANGE: 2^15 recalls are open, nothing is done. */
MT_MUST_CHECK int mti_recall(_Atomic uint64_t *started, uint64_t *out_begun);
/* Engine, once the worker is gone; whatever has been written there. */
uint64_t mti_begun(const _Atomic uint64_t *started);

#endif
