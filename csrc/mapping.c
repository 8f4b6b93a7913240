#include "mapping.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "atomic.h"

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif
#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008u
#endif

/* The memory of one blob: an allocator that has given its only piece. */
typedef struct memory {
    mt_alloc alloc;
    const mt_alloc *from;
    uint64_t size;
    uint64_t device, inode;
    int fd;
} memory;

static void *memory_get(void *ctx, size_t size) {
    (void)ctx;
    (void)size;
    return NULL;
}

static void memory_put(void *ctx, void *at) {
    memory *m = ctx;
    if (at != MAP_FAILED) (void)munmap(at, m->size);
    if (m->fd >= 0) (void)close(m->fd);
    mt_put(m->from, m);
}

static int create(const char *name) {
    int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);
    if (fd < 0 && errno == EINVAL) fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING); /* before Linux 6.3 */
    if (fd < 0 || fd > 2) return fd;
    int above = fcntl(fd, F_DUPFD_CLOEXEC, 3); /* the standard ones may be closed here, and mean something in every other program */
    (void)close(fd);
    return above;
}

int mti_memory_file(const char *name, uint64_t size) {
    int fd = create(name);
    if (fd < 0) return -1;
    if (size <= INT64_MAX && ftruncate(fd, (off_t)size) == 0 && fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) == 0) return fd;
    int error = errno;
    (void)close(fd);
    errno = error;
    return -1;
}

static int make_file(uint64_t size) {
    int fd = mti_memory_file("mpitask-object", size);
    struct rlimit limit;
    if (fd < 0 || getrlimit(RLIMIT_NOFILE, &limit) != 0 || (rlim_t)fd < limit.rlim_cur / 2) return fd;
    (void)close(fd); /* the script needs some, too */
    return -1;
}

/* By writing rather than through the mapping: fresh pages are neither zeroed nor faulted in, and a lack of memory is an error and no signal. */
static bool write_all(int fd, const mt_part *parts, uint32_t n_parts, uint64_t at) {
    for (uint32_t i = 0; i < n_parts; i++) {
        for (uint64_t done = 0; done < parts[i].size;) {
            ssize_t n = pwrite(fd, (const unsigned char *)parts[i].data + done, parts[i].size - done, (off_t)(at + done));
            if (n < 0 && errno == EINTR) continue;
            if (n <= 0) return false;
            done += (uint64_t)n;
        }
        at += parts[i].size;
    }
    return true;
}

mt_blob *mti_blob_new_mapped(const mt_alloc *alloc, const mt_part *parts, uint32_t n_parts) {
    uint64_t size = mti_parts_size(parts, n_parts);
    memory *m = mti_get_zeroed(alloc, 1, sizeof *m);
    if (m == NULL) return NULL;
    *m = (memory){.alloc = {memory_get, memory_put, m}, .from = alloc, .size = sizeof(mt_blob) + size};
    struct stat status;
    void *at = MAP_FAILED;
    m->fd = make_file(m->size);
    if (m->fd >= 0 && fstat(m->fd, &status) == 0 && write_all(m->fd, parts, n_parts, sizeof(mt_blob))) {
        at = mmap(NULL, m->size, PROT_READ | PROT_WRITE, MAP_SHARED, m->fd, 0);
    }
    if (at == MAP_FAILED) {
        memory_put(m, at);
        return NULL;
    }
    (void)fcntl(m->fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE); /* not before Linux 5.1 */
    m->device = status.st_dev;
    m->inode = status.st_ino;
    mt_blob *blob = at;
    blob->alloc = &m->alloc;
    blob->size = size;
    atomic_init(&blob->refs, 1);
    return blob;
}

bool mti_blob_where(const mt_blob *blob, uint64_t offset, mt_where *out) {
    if (blob->alloc->put != memory_put) return false;
    const memory *m = blob->alloc->ctx;
    *out = (mt_where){(int32_t)getpid(), m->fd, m->device, m->inode, sizeof *blob + offset, blob->size - offset};
    return true;
}

static int open_path(const char *path) {
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct rlimit limit;
    if (fd >= 0 || errno != EMFILE || getrlimit(RLIMIT_NOFILE, &limit) != 0) return fd;
    struct rlimit more = {limit.rlim_cur + 16, limit.rlim_max}; /* the script's code holds them all; this one is for a moment */
    if (more.rlim_cur > more.rlim_max || setrlimit(RLIMIT_NOFILE, &more) != 0) {
        errno = EMFILE;
        return -1;
    }
    fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    int error = errno;
    (void)setrlimit(RLIMIT_NOFILE, &limit);
    errno = error;
    return fd;
}

static bool is_it(const struct stat *status, const mt_where *where) {
    return status->st_dev == where->device && status->st_ino == where->inode;
}

int mti_open_theirs(const mt_where *where) {
    char path[64];
    (void)snprintf(path, sizeof path, "/proc/%d/fd/%d", (int)where->pid, (int)where->fd);
    struct stat status;
    if (stat(path, &status) != 0) return -1; /* before opening: what lies there now may be a device */
    bool is_there = is_it(&status, where);
    int opened = is_there ? open_path(path) : -1;
    if (is_there && opened < 0) return -1;
    if (opened >= 0 && fstat(opened, &status) == 0 && is_it(&status, where)) return opened;
    if (opened >= 0) (void)close(opened);
    errno = ESTALE;
    return -1;
}

mt_mapping *mt_mapping_open(const void *where_bytes, uint64_t where_size, bool is_private) {
    mt_where where;
    if (where_size != sizeof where) {
        errno = EINVAL;
        return NULL;
    }
    memcpy(&where, where_bytes, sizeof where);
    mt_mapping *mapping = mti_get_zeroed(mt_alloc_default(), 1, sizeof *mapping);
    if (mapping == NULL) {
        errno = ENOMEM;
        return NULL;
    }
    int fd = mti_open_theirs(&where);
    void *base = MAP_FAILED;
    uint64_t size = where.offset + where.size;
    if (fd >= 0) {
        base = is_private ? mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0)
                          : mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
    }
    int error = errno;
    if (fd >= 0) (void)close(fd);
    if (base == MAP_FAILED) {
        mt_put(mt_alloc_default(), mapping);
        errno = error;
        return NULL;
    }
    *mapping = (mt_mapping){(unsigned char *)base + where.offset, where.size, base, size};
    return mapping;
}

void mt_mapping_close(mt_mapping *mapping) {
    if (mapping == NULL) return;
    (void)munmap(mapping->base, mapping->mapped);
    mt_put(mt_alloc_default(), mapping);
}
