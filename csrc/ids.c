#include "ids.h"

#include "atomic.h"

void mti_ids_init(mt_ids *ids, _Atomic uint64_t *count, uint64_t first) {
    mt_store_relaxed(count, first);
    mti_ids_join(ids, count, first);
}

void mti_ids_join(mt_ids *ids, _Atomic uint64_t *count, uint64_t first) { *ids = (mt_ids){count, first >> MT_ID_COUNT_BITS}; }

int mti_ids_take(const mt_ids *ids, uint64_t *out) {
    uint64_t id = mt_add_relaxed(ids->count, 1);
    if (id >> MT_ID_COUNT_BITS != ids->owner) return MT_E_RANGE;
    *out = id;
    return MT_OK;
}
