/* ids.h - numbers for objects: no two engines of a job give the same.
 *
 *   id = 1 + rank (20 bits), a count of the rank (43 bits)
 *
 * Role: the engine of a rank and those that its workers have for sub-tasks take their numbers from one count, which lies in the memory that they share: so
 * nothing depends on process numbers, which come again, and nobody has a share that could run out while others have plenty.
 * Invariants: a number is given once. At the end of the count, and if somebody has written over it, there is MT_E_RANGE, never a number of another rank.
 * Thread rule: any thread of any process that has the count.
 */
#ifndef MT_IDS_H
#define MT_IDS_H

#include "base.h"

/* cffi:begin */

#define MT_ID_COUNT_BITS 43 /* 339 days at 300,000 a second */
#define MT_ID_RANK_BITS 20  /* so that no number is above 2^63 */

/* cffi:end */

typedef struct mt_ids {
    _Atomic uint64_t *count;
    uint64_t owner; /* the bits above the count */
} mt_ids;

/* The count begins with `first`. */
void mti_ids_init(mt_ids *ids, _Atomic uint64_t *count, uint64_t first);
/* The same count, for another engine of the rank that `first` belongs to. */
void mti_ids_join(mt_ids *ids, _Atomic uint64_t *count, uint64_t first);
/* MT_OK or MT_E_RANGE. */
MT_MUST_CHECK int mti_ids_take(const mt_ids *ids, uint64_t *out);

#endif
