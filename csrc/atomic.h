/* atomic.h - all memory orders of the core, in one place and with the order in the name.
 *
 * Rule: every acquire names, in a comment where it stands, the release that it pairs with.
 */
#ifndef MT_ATOMIC_H
#define MT_ATOMIC_H

#include <stdatomic.h>
#include <stdint.h>

#define mt_load_relaxed(p) atomic_load_explicit((p), memory_order_relaxed)
#define mt_load_acquire(p) atomic_load_explicit((p), memory_order_acquire)
#define mt_store_relaxed(p, v) atomic_store_explicit((p), (v), memory_order_relaxed)
#define mt_store_release(p, v) atomic_store_explicit((p), (v), memory_order_release)
#define mt_add_relaxed(p, v) atomic_fetch_add_explicit((p), (v), memory_order_relaxed)
#define mt_add_acq_rel(p, v) atomic_fetch_add_explicit((p), (v), memory_order_acq_rel)
#define mt_sub_acq_rel(p, v) atomic_fetch_sub_explicit((p), (v), memory_order_acq_rel)
#define mt_or_acq_rel(p, v) atomic_fetch_or_explicit((p), (v), memory_order_acq_rel)
#define mt_exchange_acq_rel(p, v) atomic_exchange_explicit((p), (v), memory_order_acq_rel)
#define mt_cas_acq_rel(p, expected, v) \
    atomic_compare_exchange_strong_explicit((p), (expected), (v), memory_order_acq_rel, memory_order_acquire)
#define mt_cas_weak_relaxed(p, expected, v) \
    atomic_compare_exchange_weak_explicit((p), (expected), (v), memory_order_relaxed, memory_order_relaxed)
#define mt_cas_weak_release(p, expected, v) \
    atomic_compare_exchange_weak_explicit((p), (expected), (v), memory_order_release, memory_order_relaxed)

/* Orders an earlier store before a later load: the two halves of every sleep/wake handshake. */
#define mt_fence_seq_cst() atomic_thread_fence(memory_order_seq_cst)

#endif
