/* ring.h - a bounded queue of records between one producer and one consumer, in private or shared memory.
 *
 * Role: carries records (frames.h) between an engine and a worker. A record that fits in a quarter of the ring
 * is one piece and is read in place; a larger one streams through in pieces while the consumer empties.
 * Invariants: read <= written <= read + capacity; both only grow; both are multiples of 8; capacity is a power of two.
 * Room: a producer whose put has given MT_E_AGAIN may sleep: what it waits for is noted in the ring, and the consumer that makes so much room calls
 * its on_room, which has to wake it. The producer notes it before its last look, the consumer gives back before it looks for the note, with a
 * sequentially consistent fence on either side: one of them sees the other. It is told when half of the ring is free, not for each record.
 * Thread rule: one thread puts, one thread gets; they may be in different processes. Wait-free: no call loops on
 * the other side. A side may die at any moment: the other sees whole records that were published, or MT_E_AGAIN.
 * The consumer trusts nothing it reads: impossible values give MT_E_RECORD.
 * Rejected: a ring mapped twice in a row (no wrap handling, but two mappings for each ring and page-sized capacities only).
 */
#ifndef MT_RING_H
#define MT_RING_H

#include "base.h"
#include "frames.h"

/* cffi:begin */

typedef struct mt_ring mt_ring; /* one side's handle; private to its process */

/* Bytes of memory that a ring of `capacity_bytes` (a power of two, 256 .. 2^30) needs; 0 when capacity is not allowed. */
MT_EXPORT uint64_t mt_ring_footprint(uint64_t capacity_bytes);

/* Makes `memory` (64-byte aligned, mt_ring_footprint bytes, the caller's) an empty ring. Neither side may be using it. */
MT_EXPORT void mt_ring_format(void *memory, uint64_t capacity_bytes);

/* A handle on a formatted ring for one side. NULL: out of memory. The memory must outlive the handle. */
MT_EXPORT mt_ring *mt_ring_open(const mt_alloc *alloc, void *memory, uint64_t capacity_bytes);
MT_EXPORT void mt_ring_close(mt_ring *ring);

/* Producer: writes the record made of `parts` (its first 8 bytes are its total size), starting at byte `*progress`
 * (0 at first). MT_OK: all of it is in. MT_E_AGAIN: the ring is full; `*progress` says how much is in (all or
 * nothing for a record of one piece): call again with it, before any other record; the consumer's on_room says when. Nothing is visible to the
 * consumer before mt_ring_publish, which is due before waiting for room, too. */
MT_EXPORT MT_MUST_CHECK int mt_ring_put(mt_ring *ring, const mt_part *parts, uint32_t n_parts, uint64_t *progress);

/* Producer: shows everything put so far. Returns whether there is anything that the consumer may not have been told of: something was
 * put since the last call (parts of streaming records become visible before it). */
MT_EXPORT bool mt_ring_publish(mt_ring *ring);

/* Consumer: the next whole record. Its bytes stay valid until the next mt_ring_get. MT_E_AGAIN: none yet;
 * MT_E_RECORD: the ring holds garbage, give it up; MT_E_NOMEM: try again later. */
MT_EXPORT MT_MUST_CHECK int mt_ring_get(mt_ring *ring, const void **out_data, uint64_t *out_size);

/* Consumer: gives the space of all records got so far back to the producer; ends the validity of the last one. */
MT_EXPORT void mt_ring_release(mt_ring *ring);

/* Consumer: whether pieces wait that it has not got yet. */
MT_EXPORT bool mt_ring_has_data(const mt_ring *ring);

/* Recomputes what must hold; MT_OK or MT_E_RECORD. Callable by either side. */
MT_EXPORT MT_MUST_CHECK int mt_ring_check(const mt_ring *ring);

/* cffi:end */

/* Consumer, before the first mt_ring_get: `on_room(context)` is called, within mt_ring_get or mt_ring_release, when the producer may sleep for room and
 * has it. NULL: it never sleeps. */
void mti_ring_set_on_room(mt_ring *ring, void (*on_room)(void *context), void *context);

/* mt_ring_get with the owner of the bytes: a caller that wants to keep a large record takes a reference to its blob. */
MT_MUST_CHECK int mti_ring_get(mt_ring *ring, mt_incoming *out);

#endif
