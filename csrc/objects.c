#include "objects.h"

#include <string.h>

typedef struct object {
    uint64_t id; /* 0: empty place */
    mt_blob *blob;
    uint64_t offset;
    uint64_t refs;
    uint32_t codec;
    uint32_t class_index;
    uint64_t *lanes; /* one bit for each lane that has it, then one for each that has brought it */
    uint64_t next_dead;
} object;

/* Open addressing with linear probing; a removal moves later entries back, so there are no tombstones. */
struct mt_objects {
    const mt_alloc *alloc;
    object *places;
    uint64_t capacity; /* a power of two */
    uint64_t count;
    uint64_t bytes;
    uint64_t first_dead; /* objects whose last reference is to be given up, linked by next_dead */
    uint32_t max_lanes;
};

#define FIRST_CAPACITY 64u

mt_objects *mt_objects_new(const mt_alloc *alloc, uint32_t max_lanes) {
    mt_objects *objects = mti_get_zeroed(alloc, 1, sizeof *objects);
    if (objects == NULL) return NULL;
    objects->alloc = alloc;
    objects->max_lanes = max_lanes;
    objects->places = mti_get_zeroed(alloc, FIRST_CAPACITY, sizeof(object));
    objects->capacity = FIRST_CAPACITY;
    if (objects->places == NULL) {
        mt_put(alloc, objects);
        return NULL;
    }
    return objects;
}

void mt_objects_destroy(mt_objects *objects) {
    if (objects == NULL) return;
    for (uint64_t i = 0; i < objects->capacity; i++) {
        mt_blob_unref(objects->places[i].blob);
        mt_put(objects->alloc, objects->places[i].lanes);
    }
    mt_put(objects->alloc, objects->places);
    mt_put(objects->alloc, objects);
}

static uint64_t home(const mt_objects *objects, uint64_t id) {
    return (id * 0x9E3779B97F4A7C15u >> 20) & (objects->capacity - 1); /* Fibonacci hashing */
}

static object *find(const mt_objects *objects, uint64_t id) {
    if (id == 0) return NULL;
    for (uint64_t i = home(objects, id);; i = (i + 1) & (objects->capacity - 1)) {
        object *o = &objects->places[i];
        if (o->id == id) return o;
        if (o->id == 0) return NULL;
    }
}

static object *first_empty(const mt_objects *objects, uint64_t id) {
    uint64_t i = home(objects, id);
    while (objects->places[i].id != 0) i = (i + 1) & (objects->capacity - 1);
    return &objects->places[i];
}

static int make_room(mt_objects *objects) {
    if (objects->count * 2 < objects->capacity) return MT_OK;
    object *old = objects->places;
    uint64_t old_capacity = objects->capacity;
    object *bigger = mti_get_zeroed(objects->alloc, old_capacity * 2, sizeof(object));
    if (bigger == NULL) return MT_E_NOMEM;
    objects->places = bigger;
    objects->capacity = old_capacity * 2;
    for (uint64_t i = 0; i < old_capacity; i++) {
        if (old[i].id != 0) *first_empty(objects, old[i].id) = old[i];
    }
    mt_put(objects->alloc, old);
    return MT_OK;
}

static uint64_t words(const mt_objects *objects) { return (objects->max_lanes + 63u) / 64u + 1u; }

int mti_objects_add_blob(mt_objects *objects, uint64_t id, mt_blob *blob, uint64_t offset, uint32_t codec) {
    if (id == 0 || find(objects, id) != NULL) return MT_E_INVAL;
    int status = make_room(objects);
    if (status != MT_OK) return status;
    uint64_t *lanes = mti_get_zeroed(objects->alloc, 2u * words(objects), sizeof *lanes);
    if (lanes == NULL) return MT_E_NOMEM;
    *first_empty(objects, id) = (object){id, mt_blob_ref(blob), offset, 1, codec, 0, lanes, 0};
    objects->count++;
    objects->bytes += blob->size - offset;
    return MT_OK;
}

int mt_objects_add(mt_objects *objects, uint64_t id, const mt_part *bytes, uint32_t codec) {
    mt_blob *blob = mt_blob_from_parts(objects->alloc, bytes, 1);
    if (blob == NULL) return MT_E_NOMEM;
    int status = mti_objects_add_blob(objects, id, blob, 0, codec);
    mt_blob_unref(blob);
    return status;
}

int mt_objects_ref(mt_objects *objects, uint64_t id) {
    object *o = find(objects, id);
    if (o == NULL) return MT_E_STALE;
    o->refs++;
    return MT_OK;
}

static void remove_place(mt_objects *objects, object *o) {
    uint64_t hole = (uint64_t)(o - objects->places), mask = objects->capacity - 1;
    for (uint64_t i = (hole + 1) & mask; objects->places[i].id != 0; i = (i + 1) & mask) {
        uint64_t distance = (i - home(objects, objects->places[i].id)) & mask;
        if (distance < ((i - hole) & mask)) continue; /* it would come before its home */
        objects->places[hole] = objects->places[i];
        hole = i;
    }
    objects->places[hole] = (object){0};
}

int mt_objects_unref(mt_objects *objects, uint64_t id, uint32_t *out_lanes, uint32_t *out_n) {
    object *o = find(objects, id);
    if (o == NULL) return MT_E_STALE;
    if (--o->refs > 0) return 0;
    uint32_t n = 0;
    for (uint32_t lane = 0; lane < objects->max_lanes; lane++) {
        if ((o->lanes[lane / 64] >> (lane % 64) & 1) != 0) out_lanes[n++] = lane;
    }
    *out_n = n;
    objects->count--;
    objects->bytes -= o->blob->size - o->offset;
    mt_blob_unref(o->blob);
    mt_put(objects->alloc, o->lanes);
    remove_place(objects, o);
    return 1;
}

void mti_objects_release(mt_objects *objects, uint64_t id) {
    object *o = find(objects, id);
    if (o == NULL) return;
    if (o->refs > 1) {
        o->refs--;
        return;
    }
    o->next_dead = objects->first_dead;
    objects->first_dead = id;
}

uint64_t mti_objects_take_dead(mt_objects *objects) {
    uint64_t id = objects->first_dead;
    if (id != 0) objects->first_dead = find(objects, id)->next_dead;
    return id;
}

int mt_objects_get(const mt_objects *objects, uint64_t id, mt_part *out_bytes, uint32_t *out_codec) {
    const object *o = find(objects, id);
    if (o == NULL) return MT_E_STALE;
    *out_bytes = (mt_part){o->blob->data + o->offset, o->blob->size - o->offset};
    *out_codec = o->codec;
    return MT_OK;
}

int mt_objects_where(mt_objects *objects, uint64_t id, mt_where *out) {
    object *o = find(objects, id);
    if (o == NULL) return MT_E_STALE;
    if (mti_blob_where(o->blob, o->offset, out)) return MT_OK;
    mt_part bytes = {o->blob->data + o->offset, o->blob->size - o->offset};
    mt_blob *mapped = mti_blob_new_mapped(objects->alloc, &bytes, 1);
    if (mapped == NULL) return MT_E_SYS;
    mt_blob_unref(o->blob);
    o->blob = mapped;
    o->offset = 0;
    (void)mti_blob_where(mapped, 0, out);
    return MT_OK;
}

int mt_objects_mark(mt_objects *objects, uint64_t id, uint32_t lane) {
    object *o = find(objects, id);
    if (o == NULL) return MT_E_STALE;
    uint64_t bit = (uint64_t)1 << (lane % 64);
    int is_new = (o->lanes[lane / 64] & bit) == 0;
    o->lanes[lane / 64] |= bit;
    return is_new;
}

bool mti_objects_is_somewhere(const mt_objects *objects, uint64_t id) {
    const object *o = find(objects, id);
    uint64_t any = 0;
    for (uint32_t i = 0; o != NULL && i <= objects->max_lanes / 64; i++) any |= o->lanes[i];
    return any != 0;
}

void mt_objects_forget_lane(mt_objects *objects, uint32_t lane) {
    for (uint64_t i = 0; i < objects->capacity; i++) {
        if (objects->places[i].id != 0) objects->places[i].lanes[lane / 64] &= ~((uint64_t)1 << (lane % 64));
    }
}

bool mti_objects_is(const mt_objects *objects, uint64_t id, const mt_part *bytes, uint32_t codec) {
    const object *o = find(objects, id);
    return o != NULL && o->codec == codec && o->blob->size - o->offset == bytes->size && memcmp(o->blob->data + o->offset, bytes->data, bytes->size) == 0;
}

int mti_objects_bring(mt_objects *objects, uint64_t id, uint32_t lane) {
    object *o = find(objects, id);
    if (o == NULL) return MT_E_STALE;
    uint64_t *word = &o->lanes[words(objects) + lane / 64], bit = (uint64_t)1 << (lane % 64);
    int is_new = (*word & bit) == 0;
    *word |= bit;
    return is_new;
}

bool mti_objects_is_brought(const mt_objects *objects, uint64_t id, uint32_t lane) {
    const object *o = find(objects, id);
    return o != NULL && (o->lanes[words(objects) + lane / 64] >> (lane % 64) & 1) != 0;
}

bool mti_objects_unbring(mt_objects *objects, uint64_t id, uint32_t lane) {
    object *o = find(objects, id);
    if (o == NULL) return false;
    uint64_t *word = &o->lanes[words(objects) + lane / 64], bit = (uint64_t)1 << (lane % 64);
    bool was = (*word & bit) != 0;
    *word &= ~bit;
    return was;
}

uint64_t mti_objects_next_brought(const mt_objects *objects, uint32_t lane, uint64_t *cursor) {
    while (*cursor < objects->capacity) {
        const object *o = &objects->places[(*cursor)++];
        if (o->id != 0 && (o->lanes[words(objects) + lane / 64] >> (lane % 64) & 1) != 0) return o->id;
    }
    return 0;
}

uint64_t mt_objects_count(const mt_objects *objects) { return objects->count; }

uint64_t mt_objects_bytes(const mt_objects *objects) { return objects->bytes; }

mt_blob *mti_objects_blob(const mt_objects *objects, uint64_t id) {
    const object *o = find(objects, id);
    return o == NULL ? NULL : o->blob;
}

uint32_t *mti_objects_class(mt_objects *objects, uint64_t id) {
    object *o = find(objects, id);
    return o == NULL ? NULL : &o->class_index;
}

int mt_objects_check(const mt_objects *objects) {
    uint64_t count = 0, bytes = 0;
    for (uint64_t i = 0; i < objects->capacity; i++) {
        const object *o = &objects->places[i];
        if (o->id == 0) continue;
        if (o->refs == 0 || o->blob == NULL || find(objects, o->id) != o) return MT_E_RECORD;
        count++;
        bytes += o->blob->size - o->offset;
    }
    return count == objects->count && bytes == objects->bytes ? MT_OK : MT_E_RECORD;
}
