/* mapping.h - bytes that processes of this node map instead of copying them.
 *
 * Role: a blob in a memfd of its own, and the way to it for every process that may look into /proc/PID/fd of this one.
 * Invariants: the bytes are written before the blob is given out and never again; nobody can shorten the file. The blob owns the descriptor.
 * Thread rule: as for blobs: any thread. Errors: none is fatal, whoever gets one sends the bytes themselves.
 */
#ifndef MT_MAPPING_H
#define MT_MAPPING_H

#include "frames.h"

/* cffi:begin */

typedef struct mt_mapping {
    void *data;
    uint64_t size;
    void *base;
    uint64_t mapped;
} mt_mapping;

/* Maps what the mt_where at `where` says: read-only and shared, or, `is_private`, writable with changes that nobody else sees. It stays when
 * the owner drops the bytes or dies. NULL: errno tells why (ESTALE: something else lies there by now). */
MT_EXPORT mt_mapping *mt_mapping_open(const void *where, uint64_t where_size, bool is_private);
MT_EXPORT void mt_mapping_close(mt_mapping *mapping);

/* cffi:end */

/* Objects from this size on may be mapped by process workers. Below, a file and its page faults cost more than two copies. */
#define MAPPED_OBJECT (1u << 20)

/* A descriptor, above the standard ones, of so many zeros in memory that nobody can make more or fewer: to map, and to be mapped by others. -1: errno. */
int mti_memory_file(const char *name, uint64_t size);
/* A copy of the parts in a memfd. NULL where there is none to be had: no memory, or half of the descriptors that this process may have are
 * in use (the others are the script's). */
mt_blob *mti_blob_new_mapped(const mt_alloc *alloc, const mt_part *parts, uint32_t n_parts);
/* Where the blob's bytes from `offset` on lie. False: they lie in no memfd. */
bool mti_blob_where(const mt_blob *blob, uint64_t offset, mt_where *out);
/* Another process's descriptor, opened for reading if it is the file that `where` says; -1: errno. */
int mti_open_theirs(const mt_where *where);

#endif
