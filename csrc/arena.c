#include "arena.h"

#include <stdlib.h>
#include <sys/mman.h>

#define SPAN_BYTES 65536u
#define CHUNK_BYTES (32u << 20)
#define HUGE_PAGE (2u << 20)
#define LARGEST 16384u /* of the pieces that share a span */
#define FINE_STEP 16u
#define FINE_CLASSES 16u /* 16, 32 .. 256 */
#define CLASSES (FINE_CLASSES + 4u * 6u) /* then four between each power of two and the next, up to LARGEST */
#define ALONE UINT32_MAX

typedef struct span {
    uint32_t class_index; /* ALONE: one large piece */
    uint32_t unused[15];
} span;

typedef struct free_piece {
    struct free_piece *next;
} free_piece;

typedef struct chunk {
    struct chunk *next;
    void *memory; /* CHUNK_BYTES from the system, and what its alignment costs */
} chunk;

typedef struct arena {
    mt_alloc base;
    chunk *chunks;
    unsigned char *spans, *end; /* of the newest chunk: not yet used */
    unsigned char *rest[CLASSES], *rest_end[CLASSES]; /* of the newest span of each class */
    free_piece *freed[CLASSES];
} arena;

static uint32_t class_of(size_t size) {
    if (size <= FINE_STEP * FINE_CLASSES) return size == 0 ? 0 : (uint32_t)((size - 1) / FINE_STEP);
    uint32_t log = 63u - (uint32_t)__builtin_clzll((unsigned long long)size - 1); /* 2^log < size <= 2^(log + 1) */
    uint32_t quarter = (uint32_t)(((size - 1) >> (log - 2)) & 3u);
    return FINE_CLASSES + 4 * (log - 8) + quarter;
}

static size_t size_of(uint32_t class_index) {
    if (class_index < FINE_CLASSES) return FINE_STEP * (class_index + 1);
    uint32_t k = class_index - FINE_CLASSES;
    return ((size_t)5 + k % 4) << (k / 4 + 6);
}

static bool add_chunk(arena *a) {
    chunk *added = malloc(sizeof *added);
    if (added == NULL) return false;
    void *memory = mmap(NULL, CHUNK_BYTES + HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        free(added);
        return false;
    }
    *added = (chunk){a->chunks, memory};
    a->chunks = added;
    uintptr_t first = ((uintptr_t)memory + HUGE_PAGE - 1) & ~(uintptr_t)(HUGE_PAGE - 1);
    a->spans = (unsigned char *)first;
    a->end = a->spans + CHUNK_BYTES;
    (void)madvise(a->spans, CHUNK_BYTES, MADV_HUGEPAGE); /* a wish */
    return true;
}

static bool add_span(arena *a, uint32_t class_index) {
    if (a->spans == a->end && !add_chunk(a)) return false;
    span *added = (span *)(void *)a->spans;
    added->class_index = class_index;
    a->rest[class_index] = a->spans + sizeof *added;
    a->spans += SPAN_BYTES;
    a->rest_end[class_index] = a->spans;
    return true;
}

static void *get_alone(size_t size) {
    if (size > SIZE_MAX / 2) return NULL;
    size_t whole = (size + sizeof(span) + SPAN_BYTES - 1) / SPAN_BYTES * SPAN_BYTES;
    span *made = aligned_alloc(SPAN_BYTES, whole);
    if (made == NULL) return NULL;
    if (whole >= HUGE_PAGE) (void)madvise(made, whole, MADV_HUGEPAGE);
    made->class_index = ALONE;
    return made + 1;
}

static void *arena_get(void *ctx, size_t size) {
    arena *a = ctx;
    if (size > LARGEST) return get_alone(size);
    uint32_t c = class_of(size);
    free_piece *piece = a->freed[c];
    if (piece != NULL) {
        a->freed[c] = piece->next;
        return piece;
    }
    size_t step = size_of(c);
    if ((size_t)(a->rest_end[c] - a->rest[c]) < step && !add_span(a, c)) return NULL;
    void *fresh = a->rest[c];
    a->rest[c] += step;
    return fresh;
}

static void arena_put(void *ctx, void *memory) {
    arena *a = ctx;
    span *of = (span *)(((uintptr_t)memory) & ~(uintptr_t)(SPAN_BYTES - 1));
    if (of->class_index == ALONE) {
        free(of);
        return;
    }
    free_piece *piece = memory;
    piece->next = a->freed[of->class_index];
    a->freed[of->class_index] = piece;
}

mt_alloc *mt_arena_new(void) {
    arena *a = calloc(1, sizeof *a);
    if (a == NULL) return NULL;
    a->base = (mt_alloc){arena_get, arena_put, a};
    return &a->base;
}

void mt_arena_destroy(mt_alloc *alloc) {
    if (alloc == NULL) return;
    arena *a = alloc->ctx;
    while (a->chunks != NULL) {
        chunk *first = a->chunks;
        a->chunks = first->next;
        (void)munmap(first->memory, CHUNK_BYTES + HUGE_PAGE);
        free(first);
    }
    free(a);
}
