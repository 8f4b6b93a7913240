#include "classes.h"

/* Few items fade too. */
#define FRACTION 64u

int mti_classes_add(mt_classes *classes, uint32_t *out_class) {
    uint64_t index = 0;
    while (index < classes->n && classes->rows[index].used) index++;
    if (index == classes->n) {
        int status = mti_grow(classes->alloc, (void **)&classes->rows, classes->n, &classes->capacity, classes->n + 1, sizeof *classes->rows);
        if (status != MT_OK) return status;
        classes->n++;
    }
    classes->rows[index] = (mt_class_row){.used = true};
    *out_class = (uint32_t)index;
    return MT_OK;
}

uint64_t mti_class_items(const mt_class_row *row) { return row->items / FRACTION; }

static uint64_t at_most(uint64_t n) { return n < MT_MAX_COST_NS ? n : MT_MAX_COST_NS; }

void mti_classes_hint(mt_classes *classes, uint32_t class_index, uint64_t duration_ns) {
    mt_class_row *c = &classes->rows[class_index];
    if (!c->measured) c->mean_ns = at_most(duration_ns);
}

void mti_classes_learn(mt_classes *classes, uint32_t class_index, uint64_t items, uint64_t cost_ns) {
    mt_class_row *c = &classes->rows[class_index];
    cost_ns = at_most(cost_ns); /* whatever a worker says: sums of them do not wrap */
    if (items > 0) {
        c->items += at_most(items) * FRACTION - c->items / 8;
        c->items_ns += cost_ns - c->items_ns / 8;
        c->mean_ns = c->items_ns * FRACTION / c->items;
        if (c->mean_ns == 0) c->mean_ns = 1;
    } else if (!c->measured) {
        c->mean_ns = cost_ns;
    } else {
        c->mean_ns += cost_ns / 8;
        c->mean_ns -= (c->mean_ns - cost_ns / 8) / 8;
    }
    c->measured = true;
}
