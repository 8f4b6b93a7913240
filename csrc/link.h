/* link.h - a way out for records: to one worker through a ring, or to one rank through frames.
 *
 * Role: takes any record at any time; what does not fit now waits here, in order. So an engine never has to handle "full".
 * Invariants: while records wait, nothing overtakes them; backlog_bytes is the sum of what waits.
 * Thread rule: belongs to its engine's thread.
 */
#ifndef MT_LINK_H
#define MT_LINK_H

#include "bell.h"
#include "ring.h"
#include "segment.h"
#include "transport.h"

typedef struct mt_parcel mt_parcel; /* a record that waits */

typedef struct mt_link mt_link;
struct mt_link {
    const mt_alloc *alloc;
    /* As mt_ring_put. */
    int (*write)(mt_link *link, const mt_part *parts, uint32_t n_parts, uint64_t *progress);
    /* Lets the other side see what was written. */
    int (*flush)(mt_link *link);
    /* What has been sent and not begun will not begin; jobs begun since HELLO. `by_itself`: the other side has seen to that, and only waits to be
     * told what is sent afterwards. NULL: the other side must be asked with a RECALL. */
    int (*recall)(mt_link *link, bool by_itself, uint64_t *out_begun);
    mt_parcel *first;
    mt_parcel *last;
    uint64_t backlog_bytes;
};

/* Sends the record made of `parts`. `owner` (may be NULL) owns the bytes of the last part: a reference is taken instead of a copy
 * if the record has to wait. MT_OK: taken; what is sent to a peer that is lost is dropped. MT_E_NOMEM, MT_E_CLOSED. */
MT_MUST_CHECK int mti_link_send(mt_link *link, const mt_part *parts, uint32_t n_parts, mt_blob *owner);
/* Moves waiting records on, then flushes. `*out_moved` grows by the bytes moved. */
MT_MUST_CHECK int mti_link_pump(mt_link *link, uint64_t *out_moved);
/* Forgets what waits. */
void mti_link_clean_up(mt_link *link);

typedef struct mt_ring_link {
    mt_link base;
    mt_ring *ring;
    mt_segment_link memory;
} mt_ring_link;

void mti_ring_link_init(mt_ring_link *link, const mt_alloc *alloc, mt_ring *ring, const mt_segment_link *memory);

typedef struct mt_frame_link {
    mt_link base;
    mt_transport *transport;
    uint32_t peer;
    mt_frame *frame; /* being filled; NULL: none */
    uint16_t flags;  /* MT_FRAME_* for the frames sent from now on */
} mt_frame_link;

void mti_frame_link_init(mt_frame_link *link, const mt_alloc *alloc, mt_transport *transport, uint32_t peer);

/* Walks the records of a received frame. */
typedef struct mt_frame_reader {
    const unsigned char *at;
    const unsigned char *end;
    uint16_t flags;
} mt_frame_reader;

/* MT_E_RECORD: not a frame. */
MT_MUST_CHECK int mti_frame_open(mt_frame_reader *reader, const void *data, uint64_t size);
/* The next whole record; MT_E_AGAIN at the end of the frame; MT_E_RECORD, MT_E_NOMEM. The joiner is the peer's. */
MT_MUST_CHECK int mti_frame_next(mt_frame_reader *reader, mt_joiner *joiner, mt_incoming *out);

#endif
