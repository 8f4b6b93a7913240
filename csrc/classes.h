/* classes.h - how long jobs of a class take, as far as it is known.
 *
 * Role: learns each class's duration from jobs that have ended, and gives numbers of dropped classes to new ones. Jobs of one thing: an exponential average,
 * weight 1/8. Jobs of items: that of an item, where each job counts as much as it has items, for a short one says little about them.
 * Thread rule: one owner thread.
 */
#ifndef MT_CLASSES_H
#define MT_CLASSES_H

#include "base.h"

/* More than any job takes; sums of it do not overflow. */
#define MT_MAX_COST_NS ((uint64_t)1 << 53)

typedef struct mt_class_row {
    uint64_t mean_ns;         /* 0: unknown */
    uint64_t items, items_ns; /* what was measured of jobs of items, fading; `items` in fractions */
    bool measured;
    bool used;
} mt_class_row;

typedef struct mt_classes {
    const mt_alloc *alloc;
    mt_class_row *rows;
    uint64_t n, capacity;
} mt_classes;

/* How many items have ended lately. */
uint64_t mti_class_items(const mt_class_row *row);
/* A class of unknown duration. MT_E_NOMEM. */
MT_MUST_CHECK int mti_classes_add(mt_classes *classes, uint32_t *out_class);
/* What is known from elsewhere; no effect once there are measurements. */
void mti_classes_hint(mt_classes *classes, uint32_t class_index, uint64_t duration_ns);
/* A job of so many items (0: one thing) has taken `cost_ns`. */
void mti_classes_learn(mt_classes *classes, uint32_t class_index, uint64_t items, uint64_t cost_ns);

#endif
