/* segment.h - the memory that an engine shares with the processes below it, and where everything lies in it.
 *
 *   segment = engine's bell (one line) | link 0 | link 1 | ...        link 0: the zygote, link 1 + w: worker w
 *   link    = the bell of the one below, its count of begun jobs | ring down | ring up
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
    _Atomic uint64_t *started; /* jobs that the worker has begun since the link was formatted */
    void *down;                /* ring: engine -> worker */
    void *up;                  /* ring: worker -> engine */
} mt_segment_link;

/* 0 when ring_bytes is no ring capacity. */
uint64_t mti_segment_size(uint32_t n_links, uint64_t ring_bytes);
mt_bell *mti_segment_bell(void *base);
mt_segment_link mti_segment_link_at(void *base, uint32_t index, uint64_t ring_bytes);
/* Makes a link's rings empty and its count 0. Nobody else may be using it. */
void mti_segment_format_link(const mt_segment_link *link, uint64_t ring_bytes);

#endif
