#include "ring.h"

#include <stdalign.h>
#include <string.h>

#include "atomic.h"

#define MIN_CAPACITY 256u
#define MAX_CAPACITY (1u << 30)
#define LINE 64
#define NO_WISH 1u /* no index: those are multiples of 8 */

/* The two indices live on lines of their own: each is written by one side only. */
typedef struct ring_shared {
    alignas(LINE) _Atomic uint64_t written; /* producer: bytes published */
    _Atomic uint64_t wanted; /* NO_WISH, or producer: it is to be told once `read` is this; the consumer takes it back */
    alignas(LINE) _Atomic uint64_t read;    /* consumer: bytes given back */
    alignas(LINE) unsigned char data[];
} ring_shared;

struct mt_ring {
    const mt_alloc *alloc;
    ring_shared *shared;
    uint64_t capacity;
    uint64_t position; /* own index, ahead of the published one */
    uint64_t other;    /* the other side's index when last looked at */
    uint64_t published;
    uint64_t announced; /* producer: published when mt_ring_publish was last called */
    void (*on_room)(void *context); /* consumer; NULL: the producer never sleeps */
    void *on_room_context;
    mt_joiner joiner;
};

uint64_t mt_ring_footprint(uint64_t capacity_bytes) {
    if (capacity_bytes < MIN_CAPACITY || capacity_bytes > MAX_CAPACITY) return 0;
    if ((capacity_bytes & (capacity_bytes - 1)) != 0) return 0;
    return sizeof(ring_shared) + capacity_bytes;
}

void mt_ring_format(void *memory, uint64_t capacity_bytes) {
    (void)capacity_bytes;
    ring_shared *shared = memory;
    atomic_init(&shared->written, 0);
    atomic_init(&shared->read, 0);
    atomic_init(&shared->wanted, NO_WISH);
}

mt_ring *mt_ring_open(const mt_alloc *alloc, void *memory, uint64_t capacity_bytes) {
    mt_ring *ring = mti_get_zeroed(alloc, 1, sizeof *ring);
    if (ring == NULL) return NULL;
    ring->alloc = alloc;
    ring->shared = memory;
    ring->capacity = capacity_bytes;
    mti_joiner_init(&ring->joiner, alloc, UINT64_MAX / 2);
    return ring;
}

void mt_ring_close(mt_ring *ring) {
    if (ring == NULL) return;
    mti_joiner_clean_up(&ring->joiner);
    mt_put(ring->alloc, ring);
}

/* Free bytes, looking at the consumer's index only when the remembered one does not suffice. */
static uint64_t space(mt_ring *ring, uint64_t wanted) {
    uint64_t room = ring->capacity - (ring->position - ring->other);
    if (room >= wanted) return room;
    uint64_t read = mt_load_acquire(&ring->shared->read); /* pairs with the release in mt_ring_release */
    uint64_t used = ring->position - read;
    if (used > ring->capacity) return 0; /* garbage, now and whenever it is looked at again */
    ring->other = read;
    return ring->capacity - used;
}

/* There is no room for `need` bytes. Has the consumer tell when there is, and half of the ring besides; false: there is by now. */
static bool wait_for_room(mt_ring *ring, uint64_t need) {
    uint64_t room = need > ring->capacity / 2 ? need : ring->capacity / 2;
    uint64_t wanted = ring->position + room - ring->capacity;
    if (mt_load_relaxed(&ring->shared->wanted) == wanted) return true; /* looked at afterwards already */
    mt_store_relaxed(&ring->shared->wanted, wanted);
    mt_fence_seq_cst(); /* orders the wish before the last look; pairs with mt_ring_release */
    return space(ring, need) < need;
}

static uint64_t contiguous(const mt_ring *ring) {
    return ring->capacity - (ring->position & (ring->capacity - 1));
}

static void write_head(mt_ring *ring, uint32_t size, uint32_t flags) {
    uint32_t head[2] = {size, flags};
    memcpy(ring->shared->data + (ring->position & (ring->capacity - 1)), head, sizeof head);
}

static void pad_to_start(mt_ring *ring) {
    uint64_t rest = contiguous(ring);
    write_head(ring, (uint32_t)(rest - MT_PIECE_HEAD), MT_PIECE_PAD);
    ring->position += rest;
}

static void write_piece(mt_ring *ring, const mt_part *parts, uint32_t n_parts, uint64_t from, uint64_t size,
                        uint32_t flags) {
    write_head(ring, (uint32_t)size, flags);
    unsigned char *to = ring->shared->data + (ring->position & (ring->capacity - 1)) + MT_PIECE_HEAD;
    mti_parts_copy(parts, n_parts, from, size, to);
    ring->position += MT_PIECE_HEAD + mti_pad8(size);
}

static void publish(mt_ring *ring) {
    if (ring->published == ring->position) return;
    ring->published = ring->position;
    mt_store_release(&ring->shared->written, ring->position);
}

static int put_whole(mt_ring *ring, const mt_part *parts, uint32_t n_parts, uint64_t total) {
    uint64_t need = MT_PIECE_HEAD + mti_pad8(total);
    uint64_t rest = contiguous(ring);
    if (rest < need) {
        if (space(ring, rest + need) < rest + need && wait_for_room(ring, rest + need)) return MT_E_AGAIN;
        pad_to_start(ring);
    } else if (space(ring, need) < need && wait_for_room(ring, need)) {
        return MT_E_AGAIN;
    }
    write_piece(ring, parts, n_parts, 0, total, MT_PIECE_FIRST | MT_PIECE_LAST);
    return MT_OK;
}

/* Pieces below this size are not worth their headers and wake-ups, unless they end the record. */
static uint64_t piece_floor(const mt_ring *ring) { return ring->capacity / 16; }

static int put_streaming(mt_ring *ring, const mt_part *parts, uint32_t n_parts, uint64_t total,
                         uint64_t *progress) {
    while (*progress < total) {
        uint64_t left = total - *progress;
        uint64_t rest = contiguous(ring);
        uint64_t least = left < piece_floor(ring) ? left : piece_floor(ring);
        if (rest < MT_PIECE_HEAD + mti_pad8(least)) {
            if (space(ring, rest) < rest && wait_for_room(ring, rest)) return MT_E_AGAIN;
            pad_to_start(ring);
            rest = ring->capacity;
        }
        uint64_t need = MT_PIECE_HEAD + mti_pad8(least);
        uint64_t room = space(ring, MT_PIECE_HEAD + ring->capacity / 4);
        if (room < need) {
            if (wait_for_room(ring, need)) return MT_E_AGAIN;
            continue;
        }
        if (room > rest) room = rest;
        uint64_t size = room - MT_PIECE_HEAD;
        if (size > ring->capacity / 4) size = ring->capacity / 4;
        if (size > left) size = left;
        uint32_t flags = (*progress == 0 ? MT_PIECE_FIRST : 0u) | (size == left ? MT_PIECE_LAST : 0u);
        write_piece(ring, parts, n_parts, *progress, size, flags);
        *progress += size;
        publish(ring); /* lets the consumer copy this piece while we copy the next */
    }
    return MT_OK;
}

int mt_ring_put(mt_ring *ring, const mt_part *parts, uint32_t n_parts, uint64_t *progress) {
    uint64_t total = mti_parts_size(parts, n_parts);
    if (total < sizeof(uint64_t) || *progress > total) return MT_E_INVAL;
    if (total > ring->capacity / 4) return put_streaming(ring, parts, n_parts, total, progress);
    int status = put_whole(ring, parts, n_parts, total);
    if (status == MT_OK) *progress = total;
    return status;
}

void mti_ring_set_on_room(mt_ring *ring, void (*on_room)(void *context), void *context) {
    ring->on_room = on_room;
    ring->on_room_context = context;
}

bool mt_ring_publish(mt_ring *ring) {
    publish(ring);
    bool is_news = ring->announced != ring->position;
    ring->announced = ring->position;
    return is_news;
}

int mti_ring_get(mt_ring *ring, mt_incoming *out) {
    for (;;) {
        if (ring->position == ring->other) {
            uint64_t written = mt_load_acquire(&ring->shared->written); /* pairs with the release in mt_ring_publish */
            if (written == ring->position) return MT_E_AGAIN;
            if (written - ring->position > ring->capacity) return MT_E_RECORD;
            ring->other = written;
        }
        const unsigned char *at = ring->shared->data + (ring->position & (ring->capacity - 1));
        uint32_t head[2];
        memcpy(head, at, sizeof head);
        uint64_t step = MT_PIECE_HEAD + mti_pad8(head[0]);
        if (step > ring->other - ring->position || step > contiguous(ring)) return MT_E_RECORD;
        if ((head[1] & MT_PIECE_PAD) != 0) {
            ring->position += step;
            continue;
        }
        int status = mti_join(&ring->joiner, at + MT_PIECE_HEAD, head[0], head[1], out);
        if (status != MT_OK && status != MT_E_AGAIN) return status;
        ring->position += step;
        if (status == MT_OK) return MT_OK;
        mt_ring_release(ring); /* the producer needs the space to go on with this record */
    }
}

int mt_ring_get(mt_ring *ring, const void **out_data, uint64_t *out_size) {
    mt_incoming incoming;
    int status = mti_ring_get(ring, &incoming);
    if (status != MT_OK) return status;
    *out_data = incoming.data;
    *out_size = incoming.size;
    return MT_OK;
}

void mt_ring_release(mt_ring *ring) {
    if (ring->published == ring->position) return;
    ring->published = ring->position;
    mt_store_release(&ring->shared->read, ring->position);
    if (ring->on_room == NULL) return;
    mt_fence_seq_cst(); /* orders the room before the look for a wish; pairs with wait_for_room */
    uint64_t wanted = mt_load_relaxed(&ring->shared->wanted);
    if (wanted == NO_WISH || (int64_t)(ring->position - wanted) < 0) return;
    if (mt_cas_acq_rel(&ring->shared->wanted, &wanted, (uint64_t)NO_WISH)) ring->on_room(ring->on_room_context);
}

bool mt_ring_has_data(const mt_ring *ring) {
    /* acquire: pairs with the release in mt_ring_publish */
    return mt_load_acquire(&ring->shared->written) != ring->position;
}

int mt_ring_check(const mt_ring *ring) {
    uint64_t read = mt_load_acquire(&ring->shared->read);       /* pairs with mt_ring_release */
    uint64_t written = mt_load_acquire(&ring->shared->written); /* pairs with mt_ring_publish */
    if (written - read > ring->capacity) return MT_E_RECORD;
    return ((read | written | ring->position) & 7u) == 0 ? MT_OK : MT_E_RECORD;
}
