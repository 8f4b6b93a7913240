/* flat.h - the arguments of most calls: plain scalars, and values of other tasks that are plain scalars, too.
 *
 * Role: puts such values where the ellipses stand, so that a worker unmarshals all arguments of a call at once. Reads what Python's marshal writes in
 * version 2 (CPython's Python/marshal.c; unchanged since 2.5), in which nothing refers to what stood before it.
 * Thread rule: none; it keeps nothing.
 */
#ifndef MT_FLAT_H
#define MT_FLAT_H

#include "base.h"

/* cffi:begin */

/* Writes the tuple `args`, its ellipses replaced by `values` in order, each a marshalled object. Returns the size of what it has written.
 * MT_E_AGAIN: it has no room in `capacity` bytes. MT_E_RECORD: there is something in it that is not a scalar, or not an ellipsis for each value. */
MT_EXPORT MT_MUST_CHECK int64_t mt_flat_fill(const mt_part *args, const mt_part *values, uint32_t n_values, uint8_t *out, uint64_t capacity);

/* cffi:end */

#endif
