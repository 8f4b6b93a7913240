/* base.h - what every room of the core shares: status codes, byte parts, the allocator.
 *
 * Role: the vocabulary. No state, no I/O.
 * Thread rule: an allocator may be used from any thread at any time; blobs count references
 * atomically, their bytes never change once a second thread can see them.
 */
#ifndef MT_BASE_H
#define MT_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MT_MUST_CHECK __attribute__((warn_unused_result))
#define MT_EXPORT __attribute__((visibility("default")))

/* cffi:begin */

/* Status: 0 or a negative code. A function that fails leaves its outputs untouched. */
#define MT_OK 0
#define MT_E_NOMEM -1   /* the allocator had no memory */
#define MT_E_AGAIN -2   /* not now: ring full or empty, nothing arrived; try after other progress */
#define MT_E_CLOSED -3  /* the engine, ring or peer has ended */
#define MT_E_INVAL -4   /* an argument is outside its contract */
#define MT_E_RECORD -5  /* bytes that are no valid record: the sender is broken or dead */
#define MT_E_TIMEOUT -6 /* the time allowed has passed */
#define MT_E_INTR -7    /* a signal arrived while waiting: let the interpreter look at it, call again */
#define MT_E_STALE -8   /* an id whose holder is gone */
#define MT_E_SYS -9     /* a system call failed; errno tells which way */
#define MT_E_PEER -10   /* the transport lost or cannot reach a peer */
#define MT_E_WORKERS -11 /* no worker can be started */
#define MT_E_RANGE -12 /* all numbers of a kind have been used */
#define MT_E_FORKED -13 /* a forked child: what this belongs to is its parent's */

/* A run of bytes, borrowed for the duration of a call. */
typedef struct mt_part {
    const void *data;
    uint64_t size;
} mt_part;

typedef struct mt_alloc mt_alloc;

/* Tells the process's malloc to keep memory that was freed instead of giving it back to the system (glibc; elsewhere it does
 * nothing): touching fresh pages costs more than copying into used ones. Any thread, any number of times. */
MT_EXPORT void mt_keep_freed_memory(int32_t keep_bytes);

/* The process's malloc. Never NULL; never to be destroyed. */
MT_EXPORT const mt_alloc *mt_alloc_default(void);

/* For tests: an allocator that fails its `fail_at`-th request (1 is the first; 0: never) and counts what is
 * live. NULL when malloc fails. Destroy it with mt_alloc_test_destroy once everything made with it is gone. */
MT_EXPORT mt_alloc *mt_alloc_test_new(uint64_t fail_at);
MT_EXPORT uint64_t mt_alloc_test_requests(const mt_alloc *alloc);
MT_EXPORT uint64_t mt_alloc_test_live(const mt_alloc *alloc);
MT_EXPORT void mt_alloc_test_destroy(mt_alloc *alloc);

/* Immutable bytes with counted references, 16-byte aligned. Any thread. */
typedef struct mt_blob mt_blob;
/* A copy of the parts with one reference; NULL: out of memory. */
MT_EXPORT mt_blob *mt_blob_from_parts(const mt_alloc *alloc, const mt_part *parts, uint32_t n_parts);
/* Gives up one reference; the last one frees. NULL is allowed. */
MT_EXPORT void mt_blob_unref(mt_blob *blob);

/* One sentence for a status code, static storage. Any value. */
MT_EXPORT const char *mt_status_text(int status);

/* cffi:end */

struct mt_alloc {
    void *(*get)(void *ctx, size_t size);
    void (*put)(void *ctx, void *memory);
    void *ctx;
};

static inline void *mt_get(const mt_alloc *alloc, size_t size) { return alloc->get(alloc->ctx, size); }
static inline void mt_put(const mt_alloc *alloc, void *memory) {
    if (memory != NULL) alloc->put(alloc->ctx, memory);
}

/* Zeroed memory for `count` items of `size`; NULL on overflow or exhaustion. */
void *mti_get_zeroed(const mt_alloc *alloc, size_t count, size_t size);

/* Makes room for at least `need` items of `item_size` in `*items`, keeping `used` of them; capacity grows by
 * doubling. On MT_E_NOMEM nothing has changed. */
MT_MUST_CHECK int mti_grow(const mt_alloc *alloc, void **items, uint64_t used, uint64_t *capacity, uint64_t need,
                           size_t item_size);

uint64_t mti_parts_size(const mt_part *parts, uint32_t n_parts);

/* Copies bytes [from, from + size) of the concatenated parts to `out`. */
void mti_parts_copy(const mt_part *parts, uint32_t n_parts, uint64_t from, uint64_t size, void *out);

struct mt_blob {
    const mt_alloc *alloc;
    uint64_t size;
    _Atomic uint32_t refs;
    uint32_t unused[3];
    unsigned char data[];
};

_Static_assert(sizeof(struct mt_blob) % 16 == 0, "blob data must stay 16-byte aligned");

/* A blob with one reference and uninitialised bytes; NULL when out of memory. */
mt_blob *mt_blob_new(const mt_alloc *alloc, uint64_t size);
mt_blob *mt_blob_ref(mt_blob *blob);

#endif
