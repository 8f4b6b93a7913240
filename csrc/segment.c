#include "segment.h"

#include <string.h>

#include "atomic.h"

#define HEAD 4096u /* a page, so that neighbours map the bell and nothing else */
#define OWNER_AT 128u
#define IDS_AT 192u
#define LINK_HEAD 192u

static uint64_t link_size(uint64_t ring_bytes) { return LINK_HEAD + 2 * mt_ring_footprint(ring_bytes); }

uint64_t mti_segment_size(uint32_t n_links, uint64_t ring_bytes) {
    if (mt_ring_footprint(ring_bytes) == 0) return 0;
    return HEAD + n_links * link_size(ring_bytes);
}

mt_bell *mti_segment_bell(void *base) { return base; }

mt_segment_owner *mti_segment_owner(void *base) { return (mt_segment_owner *)(void *)((unsigned char *)base + OWNER_AT); }

_Atomic uint64_t *mti_segment_ids(void *base) { return (_Atomic uint64_t *)(void *)((unsigned char *)base + IDS_AT); }

mt_segment_link mti_segment_link_at(void *base, uint32_t index, uint64_t ring_bytes) {
    unsigned char *at = (unsigned char *)base + HEAD + index * link_size(ring_bytes);
    return (mt_segment_link){.bell = (mt_bell *)(void *)at,
                             .engine_bell = (mt_bell *)(void *)(at + 128),
                             .started = (_Atomic uint64_t *)(void *)(at + 64),
                             .down = at + LINK_HEAD,
                             .up = at + LINK_HEAD + mt_ring_footprint(ring_bytes)};
}

void mti_segment_format_link(const mt_segment_link *link, uint64_t ring_bytes) {
    memset(link->bell, 0, sizeof *link->bell);
    memset(link->engine_bell, 0, sizeof *link->engine_bell);
    mt_store_relaxed(link->started, 0);
    mt_ring_format(link->down, ring_bytes);
    mt_ring_format(link->up, ring_bytes);
}

/* The lower bits count begun jobs, the upper ones recalls that the worker has not come to. */
#define ONE_RECALL ((uint64_t)1 << 48)

/* Half of what fits, so that what two sides add at the same time does. */
#define MOST_RECALLS (1u << 15)

int mti_begin_job(_Atomic uint64_t *started, uint64_t *begun) {
    uint64_t expected = *begun;
    if (expected == ONE_RECALL - 1) return MT_E_RANGE;
    if (mt_cas_acq_rel(started, &expected, *begun + 1)) {
        ++*begun;
        return MT_OK;
    }
    return expected % ONE_RECALL == *begun && expected / ONE_RECALL <= MOST_RECALLS + 1 ? MT_E_AGAIN : MT_E_RECORD;
}

int mti_resume(_Atomic uint64_t *started) { return mt_sub_acq_rel(started, ONE_RECALL) < ONE_RECALL ? MT_E_RECORD : MT_OK; }

int mti_recall(_Atomic uint64_t *started, uint64_t *out_begun) {
    if (mt_load_relaxed(started) / ONE_RECALL >= MOST_RECALLS) return MT_E_RANGE;
    *out_begun = mt_add_acq_rel(started, ONE_RECALL) % ONE_RECALL;
    return MT_OK;
}

uint64_t mti_begun(const _Atomic uint64_t *started) { return mt_load_acquire(started) % ONE_RECALL; }
