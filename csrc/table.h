/* table.h - 64-bit ids for things that others may name: id -> pointer, checked by generation.
 *
 * Role: what comes back in a record as an id is looked up here, so that a wrong or late id is an error and never a wrong pointer.
 * Invariants: id = generation << 32 | slot, never 0; a slot's generation grows by one each time it is freed, and a slot that has had the last one
 * is used no more: no id comes twice, and there are 2^64 of them.
 * Thread rule: one owner thread.
 */
#ifndef MT_TABLE_H
#define MT_TABLE_H

#include "base.h"

/* cffi:begin */

typedef struct mt_table mt_table;

MT_EXPORT mt_table *mt_table_new(const mt_alloc *alloc);
/* Does not touch what the entries point to. */
MT_EXPORT void mt_table_destroy(mt_table *table);
/* Amortised O(1). `pointer` is not NULL. MT_E_NOMEM, MT_E_RANGE. */
MT_EXPORT MT_MUST_CHECK int mt_table_add(mt_table *table, void *pointer, uint64_t *out_id);
/* O(1). NULL for an id that is not (or no longer) in the table. */
MT_EXPORT void *mt_table_find(const mt_table *table, uint64_t id);
/* O(1). What the id pointed to; NULL as above. The id is never given out again. */
MT_EXPORT void *mt_table_remove(mt_table *table, uint64_t id);
MT_EXPORT uint64_t mt_table_count(const mt_table *table);
/* Walks all entries: `*cursor` starts at 0; NULL at the end. Entries may be removed on the way, not added. */
MT_EXPORT void *mt_table_next(const mt_table *table, uint64_t *cursor);
/* For tests: the free slot that is taken next has been used until this generation. */
MT_EXPORT void mt_table_test_age(mt_table *table, uint32_t generation);
MT_EXPORT MT_MUST_CHECK int mt_table_check(const mt_table *table);

/* cffi:end */

/* O(1). What the entry whose id has these lower 32 bits points to; it must be in the table. */
void *mti_table_at(const mt_table *table, uint32_t index);

#endif
