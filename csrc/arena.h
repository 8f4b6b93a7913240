/* arena.h - an allocator for one thread that works with many small pieces all over a large memory: the simulator.
 *
 * Role: an mt_alloc in huge pages, where the system has them, for thousands of engines in one process have a working set that no cache and no
 * table of small pages holds. Pieces of one size class lie in spans of 64 KB; a freed piece is used again by the next of its class.
 * Invariants: every piece is 16-byte aligned; its span, found from its address, knows its class. Memory goes back to the system when the arena goes.
 * Thread rule: one thread, unlike other allocators.
 */
#ifndef MT_ARENA_H
#define MT_ARENA_H

#include "base.h"

/* cffi:begin */

/* NULL: out of memory. */
MT_EXPORT mt_alloc *mt_arena_new(void);
/* Everything made with it must be gone, but for what no one will ever use again. */
MT_EXPORT void mt_arena_destroy(mt_alloc *arena);

/* cffi:end */

#endif
