/* Records of every size, many larger than the ring, go from one thread to another. Each side has a handle of
 * its own and sleeps on a bell when it can do nothing; the producer rings exactly when link.c does, so a
 * mt_ring_publish that keeps news to itself hangs; the consumer rings when the ring says that the producer
 * wants room, and at no other time, so a wish that is not seen hangs, too. What a record holds follows from
 * the round and its number: the consumer compares every byte.
 */
#include "ring.h"

#include "bell.h"
#include "stress.h"

#define RECORDS 1500
#define BYTES (6u << 20) /* in a round, about: fewer records when they are large */
#define MOST_PARTS 6
#define KEPT 4 /* large records that the consumer holds on to */

static struct {
    void *memory;
    uint64_t capacity;
    uint64_t records;
    uint64_t salt;
    mt_alloc *alloc;
    _Alignas(64) mt_bell filled;  /* the consumer sleeps here */
    _Alignas(64) mt_bell emptied; /* the producer sleeps here */
} room;

static struct {
    _Atomic uint64_t records, streamed, bytes, producer_sleeps, consumer_sleeps, told;
} seen;

static uint64_t largest(void) { return 5 * room.capacity; }

/* ---- what record `number` is ---- */

static uint64_t size_of(uint64_t number) {
    stress_rng rng = {stress_mix(room.salt ^ number)};
    uint64_t quarter = room.capacity / 4;
    switch (stress_below(&rng, 8)) {
        case 0: return 8;
        case 1: return quarter - 8 + stress_below(&rng, 17); /* about the limit of one piece */
        case 2: return quarter + 1 + stress_below(&rng, room.capacity);
        case 3:
            if (!stress_one_in(&rng, 4)) return 24;
            return room.capacity + 1 + stress_below(&rng, largest() - room.capacity);
        case 4: return 8 + stress_below(&rng, quarter);
        default: return 8 + stress_below(&rng, 100);
    }
}

/* Words: size, number, checksum of the rest, the rest. All of them are cut to the size. */
STRESS_PRIVATE static void fill(unsigned char *out, uint64_t number, uint64_t size) {
    uint64_t checksum = number;
    uint64_t state = room.salt + number;
    for (uint64_t at = 24; at < size; at += 8) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        uint64_t word = state ^ (state >> 29);
        checksum = (checksum ^ word) * 0x100000001B3u;
        __builtin_memcpy(out + at, &word, 8); /* the buffers have room for a whole last word */
    }
    uint64_t head[3] = {size, number, checksum};
    __builtin_memcpy(out, head, sizeof head);
}

STRESS_PRIVATE static uint64_t same_bytes(const unsigned char *a, const unsigned char *b, uint64_t size) {
    for (uint64_t i = 0; i < size; i++) {
        if (a[i] != b[i]) return i;
    }
    return size;
}

/* ---- the producer ---- */

static uint32_t cut(stress_rng *rng, const unsigned char *bytes, uint64_t size, mt_part *parts) {
    uint32_t n = 1 + (uint32_t)stress_below(rng, MOST_PARTS);
    for (uint32_t i = 0; i < n; i++) {
        uint64_t part = i + 1 == n ? size : stress_below(rng, size + 1); /* a part may be empty */
        parts[i] = (mt_part){bytes, part};
        bytes += part;
        size -= part;
    }
    return n;
}

static void show(mt_ring *ring) {
    if (mt_ring_publish(ring)) mt_bell_ring(&room.filled);
}

/* As link.c: a streaming record needs its reader awake. */
static int put(mt_ring *ring, const mt_part *parts, uint32_t n_parts, uint64_t size, uint64_t *progress) {
    uint64_t before = *progress;
    int status = mt_ring_put(ring, parts, n_parts, progress);
    DEMAND(status == MT_OK || status == MT_E_AGAIN, "mt_ring_put gave %d", status);
    DEMAND(*progress >= before && (status == MT_OK) == (*progress == size), "progress %llu of %llu",
           ull(*progress), ull(size));
    DEMAND(status == MT_OK || *progress == 0 || size > room.capacity / 4, "a small record went in by half");
    if (status == MT_E_AGAIN && *progress != before) mt_bell_ring(&room.filled);
    return status;
}

static void put_all(mt_ring *ring, stress_rng *rng, const mt_part *parts, uint32_t n_parts, uint64_t size) {
    uint64_t progress = 0;
    while (put(ring, parts, n_parts, size, &progress) == MT_E_AGAIN) {
        show(ring);
        if (stress_one_in(rng, 4)) {
            (void)sched_yield();
            continue;
        }
        uint32_t value = mt_bell_arm(&room.emptied, MT_BELL_SLEEPS);
        uint64_t before = progress;
        int status = put(ring, parts, n_parts, size, &progress);
        if (status == MT_OK || progress != before) {
            mt_bell_disarm(&room.emptied);
            if (status == MT_OK) break;
            continue;
        }
        mt_add_relaxed(&seen.producer_sleeps, 1);
        DEMAND(mt_bell_sleep(&room.emptied, value, -1) == MT_OK, "the producer's sleep");
    }
}

static void *producer(void *argument) {
    (void)argument;
    stress_thread(0, "producer");
    stress_rng rng = stress_rng_of(mt_load_relaxed(&stress.round), 0);
    mt_ring *ring = mt_ring_open(room.alloc, room.memory, room.capacity);
    unsigned char *bytes = malloc(largest() + 8);
    DEMAND(ring != NULL && bytes != NULL, "no memory");
    for (uint64_t number = 0; number < room.records; number++) {
        stress_at(number);
        uint64_t size = size_of(number);
        fill(bytes, number, size);
        mt_part parts[MOST_PARTS];
        put_all(ring, &rng, parts, cut(&rng, bytes, size, parts), size);
        mt_add_relaxed(&seen.bytes, size);
        if (size > room.capacity / 4) mt_add_relaxed(&seen.streamed, 1);
        if (stress_one_in(&rng, 3)) show(ring);
        if (stress_one_in(&rng, 16)) {
            show(ring);
            stress_dawdle(&rng);
        }
        if (stress_one_in(&rng, 32)) DEMAND(mt_ring_check(ring) == MT_OK, "the producer's check");
    }
    show(ring);
    mt_ring_close(ring);
    free(bytes);
    return NULL;
}

/* ---- the consumer ---- */

typedef struct keeper {
    mt_blob *blob;
    uint64_t number;
} keeper;

static void compare(const void *data, uint64_t size, uint64_t number, unsigned char *copy,
                    unsigned char *expected) {
    uint64_t wanted = size_of(number);
    DEMAND(size == wanted, "record %llu has %llu bytes, not %llu", ull(number), ull(size), ull(wanted));
    memcpy(copy, data, size); /* ThreadSanitizer looks at this; what follows is private */
    fill(expected, number, size);
    uint64_t same = same_bytes(copy, expected, size);
    DEMAND(same == size, "record %llu of %llu bytes differs at byte %llu", ull(number), ull(size), ull(same));
}

static void on_room(void *context) {
    (void)context;
    mt_add_relaxed(&seen.told, 1);
    mt_bell_ring(&room.emptied);
}

/* The next record, with sleep where there is none. */
static void get(mt_ring *ring, stress_rng *rng, mt_incoming *out) {
    for (;;) {
        int status = mti_ring_get(ring, out);
        DEMAND(status == MT_OK || status == MT_E_AGAIN, "mti_ring_get gave %d", status);
        if (status == MT_OK) return;
        DEMAND(mt_ring_check(ring) == MT_OK, "the consumer's check");
        mt_ring_release(ring);
        if (stress_one_in(rng, 4)) {
            (void)sched_yield();
            continue;
        }
        uint32_t value = mt_bell_arm(&room.filled, MT_BELL_SLEEPS);
        if (mt_ring_has_data(ring)) {
            mt_bell_disarm(&room.filled);
            continue;
        }
        mt_add_relaxed(&seen.consumer_sleeps, 1);
        DEMAND(mt_bell_sleep(&room.filled, value, -1) == MT_OK, "the consumer's sleep");
    }
}

static void *consumer(void *argument) {
    (void)argument;
    stress_thread(1, "consumer");
    stress_rng rng = stress_rng_of(mt_load_relaxed(&stress.round), 1);
    mt_ring *ring = mt_ring_open(room.alloc, room.memory, room.capacity);
    unsigned char *copy = malloc(largest() + 8);
    unsigned char *expected = malloc(largest() + 8);
    DEMAND(ring != NULL && copy != NULL && expected != NULL, "no memory");
    mti_ring_set_on_room(ring, on_room, NULL);
    keeper kept[KEPT] = {{NULL, 0}};
    for (uint64_t number = 0; number < room.records; number++) {
        stress_at(number);
        mt_incoming record;
        get(ring, &rng, &record);
        if (stress_one_in(&rng, 16)) stress_dawdle(&rng); /* the bytes stay valid */
        compare(record.data, record.size, number, copy, expected);
        if (record.blob != NULL && stress_one_in(&rng, 2)) {
            keeper *place = &kept[stress_below(&rng, KEPT)];
            mt_blob *old = place->blob;
            if (old != NULL) compare(old->data, old->size, place->number, copy, expected);
            mt_blob_unref(old);
            *place = (keeper){mt_blob_ref(record.blob), number};
        }
        if (stress_one_in(&rng, 4)) mt_ring_release(ring);
        if (stress_one_in(&rng, 32)) DEMAND(mt_ring_check(ring) == MT_OK, "the consumer's check");
    }
    mt_ring_release(ring);
    DEMAND(!mt_ring_has_data(ring), "more than was sent");
    mt_add_relaxed(&seen.records, room.records);
    for (uint32_t i = 0; i < KEPT; i++) mt_blob_unref(kept[i].blob);
    mt_ring_close(ring);
    free(copy);
    free(expected);
    return NULL;
}

int main(int argc, char **argv) {
    static const uint64_t capacities[] = {256, 4096, 512, 65536, 1024};
    stress_begin("ring", argc, argv, 20);
    for (uint64_t round = 0; round < stress.rounds; round++) {
        stress_round(round);
        memset(&room, 0, sizeof room);
        room.capacity = capacities[round % (sizeof capacities / sizeof *capacities)];
        room.salt = stress_mix(stress.seed ^ round);
        uint64_t bytes = 0;
        while (room.records < RECORDS && bytes < BYTES) bytes += size_of(room.records++);
        uint64_t footprint = mt_ring_footprint(room.capacity);
        room.memory = aligned_alloc(64, (footprint + 63) / 64 * 64);
        room.alloc = mt_alloc_test_new(0);
        DEMAND(room.memory != NULL && room.alloc != NULL, "no memory");
        mt_ring_format(room.memory, room.capacity);
        pthread_t consumes = stress_start(consumer, NULL);
        pthread_t produces = stress_start(producer, NULL);
        stress_join(produces);
        stress_join(consumes);
        DEMAND(mt_alloc_test_live(room.alloc) == 0, "memory is lost");
        mt_alloc_test_destroy(room.alloc);
        free(room.memory);
    }
    (void)printf("ring: seed %llu: %llu records, %llu of them streamed, %llu bytes compared; the producer "
                 "slept %llu times and was told of room %llu times, the consumer slept %llu times\n",
                 ull(stress.seed), ull(seen.records), ull(seen.streamed), ull(seen.bytes),
                 ull(seen.producer_sleeps), ull(seen.told), ull(seen.consumer_sleeps));
    return 0;
}
