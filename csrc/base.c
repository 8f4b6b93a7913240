#include "base.h"

#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#include "atomic.h"

static void *default_get(void *ctx, size_t size) {
    (void)ctx;
    return malloc(size);
}

static void default_put(void *ctx, void *memory) {
    (void)ctx;
    free(memory);
}

static const mt_alloc default_alloc = {default_get, default_put, NULL};

const mt_alloc *mt_alloc_default(void) { return &default_alloc; }

#define LARGEST_FROM_HEAP (32 << 20) /* glibc's limit for this threshold */

void mt_keep_freed_memory(int32_t keep_bytes) {
#ifdef __GLIBC__
    (void)mallopt(M_TRIM_THRESHOLD, keep_bytes);
    (void)mallopt(M_MMAP_THRESHOLD, LARGEST_FROM_HEAP);
#endif
}

typedef struct test_alloc {
    mt_alloc base;
    uint64_t fail_at;
    _Atomic uint64_t requests;
    _Atomic uint64_t live;
} test_alloc;

static void *test_get(void *ctx, size_t size) {
    test_alloc *t = ctx;
    if (mt_add_relaxed(&t->requests, 1) + 1 == t->fail_at) return NULL;
    void *memory = malloc(size);
    if (memory != NULL) mt_add_relaxed(&t->live, 1);
    return memory;
}

static void test_put(void *ctx, void *memory) {
    test_alloc *t = ctx;
    (void)mt_sub_acq_rel(&t->live, 1);
    free(memory);
}

mt_alloc *mt_alloc_test_new(uint64_t fail_at) {
    test_alloc *t = calloc(1, sizeof *t);
    if (t == NULL) return NULL;
    t->base = (mt_alloc){test_get, test_put, t};
    t->fail_at = fail_at;
    return &t->base;
}

uint64_t mt_alloc_test_requests(const mt_alloc *alloc) {
    return mt_load_relaxed(&((const test_alloc *)alloc->ctx)->requests);
}

uint64_t mt_alloc_test_live(const mt_alloc *alloc) {
    return mt_load_relaxed(&((const test_alloc *)alloc->ctx)->live);
}

void mt_alloc_test_destroy(mt_alloc *alloc) { free(alloc->ctx); }

const char *mt_status_text(int status) {
    switch (status) {
        case MT_OK: return "success";
        case MT_E_NOMEM: return "out of memory";
        case MT_E_AGAIN: return "not possible right now";
        case MT_E_CLOSED: return "the engine has ended";
        case MT_E_INVAL: return "an argument is out of range";
        case MT_E_RECORD: return "received bytes that are not a valid record";
        case MT_E_TIMEOUT: return "the time allowed has passed";
        case MT_E_INTR: return "interrupted by a signal";
        case MT_E_STALE: return "an id whose holder is gone";
        case MT_E_SYS: return "a system call failed";
        case MT_E_PEER: return "a peer cannot be reached";
        case MT_E_WORKERS: return "no worker can be started";
        case MT_E_RANGE: return "all numbers of a kind have been used: start the job anew";
        case MT_E_FORKED: return "this process was forked from the one that this belongs to";
        default: return "unknown status";
    }
}

void *mti_get_zeroed(const mt_alloc *alloc, size_t count, size_t size) {
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes)) return NULL;
    void *memory = mt_get(alloc, bytes);
    if (memory != NULL) memset(memory, 0, bytes);
    return memory;
}

int mti_grow(const mt_alloc *alloc, void **items, uint64_t used, uint64_t *capacity, uint64_t need,
             size_t item_size) {
    if (need <= *capacity) return MT_OK;
    uint64_t wanted = *capacity == 0 ? 8 : *capacity;
    while (wanted < need) wanted *= 2;
    void *bigger = mti_get_zeroed(alloc, wanted, item_size);
    if (bigger == NULL) return MT_E_NOMEM;
    if (used > 0) memcpy(bigger, *items, used * item_size);
    mt_put(alloc, *items);
    *items = bigger;
    *capacity = wanted;
    return MT_OK;
}

uint64_t mti_parts_size(const mt_part *parts, uint32_t n_parts) {
    uint64_t size = 0;
    for (uint32_t i = 0; i < n_parts; i++) size += parts[i].size;
    return size;
}

void mti_parts_copy(const mt_part *parts, uint32_t n_parts, uint64_t from, uint64_t size, void *out) {
    unsigned char *to = out;
    for (uint32_t i = 0; i < n_parts && size > 0; i++) {
        if (from >= parts[i].size) {
            from -= parts[i].size;
            continue;
        }
        uint64_t n = parts[i].size - from;
        if (n > size) n = size;
        memcpy(to, (const unsigned char *)parts[i].data + from, n);
        to += n;
        size -= n;
        from = 0;
    }
}

mt_blob *mt_blob_new(const mt_alloc *alloc, uint64_t size) {
    if (size > SIZE_MAX - sizeof(mt_blob)) return NULL;
    mt_blob *blob = mt_get(alloc, sizeof *blob + size);
    if (blob == NULL) return NULL;
    blob->alloc = alloc;
    blob->size = size;
    atomic_init(&blob->refs, 1);
    return blob;
}

mt_blob *mt_blob_from_parts(const mt_alloc *alloc, const mt_part *parts, uint32_t n_parts) {
    uint64_t size = mti_parts_size(parts, n_parts);
    mt_blob *blob = mt_blob_new(alloc, size);
    if (blob != NULL) mti_parts_copy(parts, n_parts, 0, size, blob->data);
    return blob;
}

mt_blob *mt_blob_ref(mt_blob *blob) {
    mt_add_relaxed(&blob->refs, 1);
    return blob;
}

void mt_blob_unref(mt_blob *blob) {
    if (blob == NULL) return;
    /* acq_rel: whoever frees must see every use that others made before their unref. */
    if (mt_sub_acq_rel(&blob->refs, 1) == 1) mt_put(blob->alloc, blob);
}
