#include "table.h"

#define NO_SLOT UINT32_MAX

typedef struct slot {
    void *pointer; /* NULL: free */
    uint32_t generation;
    uint32_t next_free;
} slot;

struct mt_table {
    const mt_alloc *alloc;
    slot *slots;
    uint64_t capacity;
    uint64_t used; /* slots ever taken */
    uint64_t count;
    uint64_t used_up; /* slots that have had every generation */
    uint32_t first_free;
};

mt_table *mt_table_new(const mt_alloc *alloc) {
    mt_table *table = mti_get_zeroed(alloc, 1, sizeof *table);
    if (table == NULL) return NULL;
    table->alloc = alloc;
    table->first_free = NO_SLOT;
    return table;
}

void mt_table_destroy(mt_table *table) {
    if (table == NULL) return;
    mt_put(table->alloc, table->slots);
    mt_put(table->alloc, table);
}

int mt_table_add(mt_table *table, void *pointer, uint64_t *out_id) {
    uint32_t index = table->first_free;
    if (index == NO_SLOT) {
        if (table->used == NO_SLOT) return MT_E_RANGE;
        int status = mti_grow(table->alloc, (void **)&table->slots, table->used, &table->capacity,
                              table->used + 1, sizeof(slot));
        if (status != MT_OK) return status;
        index = (uint32_t)table->used++;
        table->slots[index].generation = 1;
    } else {
        table->first_free = table->slots[index].next_free;
    }
    table->slots[index].pointer = pointer;
    table->count++;
    *out_id = (uint64_t)table->slots[index].generation << 32 | index;
    return MT_OK;
}

static slot *find_slot(const mt_table *table, uint64_t id) {
    uint32_t index = (uint32_t)id;
    if (index >= table->used) return NULL;
    slot *s = &table->slots[index];
    return s->pointer != NULL && s->generation == (uint32_t)(id >> 32) ? s : NULL;
}

void *mti_table_at(const mt_table *table, uint32_t index) { return table->slots[index].pointer; }

void *mt_table_find(const mt_table *table, uint64_t id) {
    const slot *s = find_slot(table, id);
    return s == NULL ? NULL : s->pointer;
}

void *mt_table_remove(mt_table *table, uint64_t id) {
    slot *s = find_slot(table, id);
    if (s == NULL) return NULL;
    void *pointer = s->pointer;
    s->pointer = NULL;
    table->count--;
    if (s->generation == UINT32_MAX) {
        table->used_up++;
        return pointer;
    }
    s->generation++;
    s->next_free = table->first_free;
    table->first_free = (uint32_t)id;
    return pointer;
}

uint64_t mt_table_count(const mt_table *table) { return table->count; }

void *mt_table_next(const mt_table *table, uint64_t *cursor) {
    while (*cursor < table->used) {
        void *pointer = table->slots[(*cursor)++].pointer;
        if (pointer != NULL) return pointer;
    }
    return NULL;
}

void mt_table_test_age(mt_table *table, uint32_t generation) {
    if (table->first_free != NO_SLOT) table->slots[table->first_free].generation = generation;
}

int mt_table_check(const mt_table *table) {
    uint64_t live = 0, free_slots = 0;
    for (uint64_t i = 0; i < table->used; i++) {
        live += table->slots[i].pointer != NULL;
        if (table->slots[i].generation == 0) return MT_E_RECORD;
    }
    for (uint32_t i = table->first_free; i != NO_SLOT; i = table->slots[i].next_free) {
        if (i >= table->used || table->slots[i].pointer != NULL || free_slots++ > table->used) return MT_E_RECORD;
    }
    return live == table->count && live + free_slots + table->used_up == table->used ? MT_OK : MT_E_RECORD;
}
