/* inbox.h - many threads hand messages to one engine thread: a bounded queue of (kind, pointer) pairs.
 *
 * Role: the only way into an engine from outside its thread. What a pointer means is a matter of its kind; the inbox owns nothing.
 * Invariants: cell i is free for ticket t when its sequence is t, full when it is t + 1 (Vyukov's bounded queue with one consumer).
 * Thread rule: any thread may push; one thread pops. Neither blocks: full and empty are MT_E_AGAIN.
 */
#ifndef MT_INBOX_H
#define MT_INBOX_H

#include "base.h"

/* cffi:begin */

typedef struct mt_inbox mt_inbox;

typedef struct mt_message {
    uint64_t kind;
    void *pointer;
} mt_message;

/* `capacity`: a power of two, 2 .. 2^24. NULL: out of memory or a bad capacity. */
MT_EXPORT mt_inbox *mt_inbox_new(const mt_alloc *alloc, uint64_t capacity);
/* Messages still inside are forgotten: their owner pops them first. */
MT_EXPORT void mt_inbox_destroy(mt_inbox *inbox);
/* Any thread. MT_E_AGAIN: full. What the pusher wrote before is visible to the popper. */
MT_EXPORT MT_MUST_CHECK int mt_inbox_push(mt_inbox *inbox, mt_message message);
/* The consumer. Up to `n` messages, each thread's in the order in which it pushed them; returns how many. */
MT_EXPORT uint32_t mt_inbox_pop_many(mt_inbox *inbox, mt_message *out, uint32_t n);
/* The consumer. Whether mt_inbox_pop_many would give something. */
MT_EXPORT bool mt_inbox_has_data(const mt_inbox *inbox);
/* Any thread. False only when there is room for a push at some moment during the call. */
MT_EXPORT bool mt_inbox_is_full(const mt_inbox *inbox);
/* The consumer, while nobody pushes. MT_OK or MT_E_RECORD. */
MT_EXPORT MT_MUST_CHECK int mt_inbox_check(const mt_inbox *inbox);

/* cffi:end */

#endif
