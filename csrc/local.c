#include "local.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "atomic.h"
#include "mapping.h"
#include "process.h"

/* In a row: a worker that does not come to its HELLO, a zygote none of whose workers does. */
#define MAX_FAILED_STARTS 3u
/* What is to be started again waits longer each time: for a zygote that has lived for less than LIVED_NS, for a fork that failed. */
#define FIRST_PAUSE_NS 50000000u
#define LONGEST_PAUSE_NS 6400000000u
#define LIVED_NS 1000000000u
/* The zygote's own death is noticed by asking for it this often; deaths of workers it reports at once. */
#define ZYGOTE_LOOK_NS 50000000u
/* Records taken from one worker before the others get their turn. */
#define TURN 256u

typedef struct worker {
    mt_segment_link memory;
    mt_ring_link out;
    mt_ring *down, *up;
    uint32_t lane;
    uint32_t failed_starts;
    bool is_process;
    bool said_hello;
    bool running; /* SPAWN sent, no EXITED yet */
    bool broken;  /* it sent garbage */
    uint64_t start_at_ns; /* 0: it is not to be started later */
    uint64_t pause_ns;    /* before the next try to fork it */
} worker;

struct mt_local {
    const mt_alloc *alloc;
    mt_engine *engine;
    mt_local_options options;
    int fd;
    void *base;
    uint64_t size;
    worker zygote;
    worker *workers;
    uint32_t n_workers;
    pid_t zygote_pid; /* 0: none */
    uint32_t zygotes_started;
    uint32_t failed_zygotes; /* in a row */
    bool zygote_has_worked;  /* some worker of this one has come up */
    uint64_t zygote_born_ns;
    uint64_t zygote_start_at_ns; /* 0: it is not to be started later */
    uint64_t zygote_pause_ns;
    uint64_t now_ns;
    uint64_t last_look_ns, last_later_ns;
    bool stopping;
};

static uint32_t n_links(const mt_local *local) { return 1 + local->n_workers; }

static void close_link(worker *w) {
    mti_link_clean_up(&w->out.base);
    mt_ring_close(w->down);
    mt_ring_close(w->up);
    w->down = w->up = NULL;
}

/* The one below, or an engine that it has, waits to go on with a record. */
static void tell_of_room(void *context) {
    const worker *w = context;
    mt_bell_wake(w->memory.bell);
    mt_bell_wake(w->memory.engine_bell);
}

/* Formats the link's memory and opens our ends. The lane keeps pointing at `out`. */
static int open_link(mt_local *local, worker *w, uint32_t index) {
    close_link(w);
    w->memory = mti_segment_link_at(local->base, index, local->options.ring_bytes);
    mti_segment_format_link(&w->memory, local->options.ring_bytes);
    w->down = mt_ring_open(local->alloc, w->memory.down, local->options.ring_bytes);
    w->up = mt_ring_open(local->alloc, w->memory.up, local->options.ring_bytes);
    if (w->down == NULL || w->up == NULL) return MT_E_NOMEM;
    mti_ring_set_on_room(w->up, tell_of_room, w);
    mti_ring_link_init(&w->out, local->alloc, w->down, &w->memory);
    w->said_hello = w->broken = false;
    return MT_OK;
}

static int map_segment(mt_local *local) {
    local->size = mti_segment_size(n_links(local), local->options.ring_bytes);
    if (local->size == 0) {
        errno = EINVAL;
        return MT_E_INVAL;
    }
    local->fd = mti_memory_file("mpitask", local->size);
    if (local->fd < 0) return MT_E_SYS;
    local->base = mmap(NULL, local->size, PROT_READ | PROT_WRITE, MAP_SHARED, local->fd, 0);
    if (local->base == MAP_FAILED) return MT_E_SYS;
    *mti_segment_owner(local->base) = (mt_segment_owner){(int32_t)getpid(), local->fd};
    return MT_OK;
}

mt_local *mti_local_new(const mt_alloc *alloc, const mt_local_options *options) {
    mt_local *local = mti_get_zeroed(alloc, 1, sizeof *local);
    if (local == NULL) return NULL;
    local->alloc = alloc;
    local->options = *options;
    local->fd = -1;
    local->base = MAP_FAILED;
    local->n_workers = options->workers + options->inline_workers;
    local->workers = mti_get_zeroed(alloc, local->n_workers + 1u, sizeof(worker));
    int status = local->workers == NULL ? MT_E_NOMEM : map_segment(local);
    if (status == MT_OK) status = open_link(local, &local->zygote, 0);
    for (uint32_t i = 0; i < local->n_workers && status == MT_OK; i++) {
        local->workers[i].is_process = i < options->workers;
        status = open_link(local, &local->workers[i], 1 + i);
    }
    if (status != MT_OK) {
        mti_local_destroy(local);
        return NULL;
    }
    return local;
}

void mti_local_destroy(mt_local *local) {
    if (local == NULL) return;
    if (local->zygote_pid > 0) { /* its workers die with it */
        (void)kill(local->zygote_pid, SIGKILL);
        (void)waitpid(local->zygote_pid, NULL, 0);
    }
    if (local->workers != NULL) {
        for (uint32_t i = 0; i < local->n_workers; i++) close_link(&local->workers[i]);
    }
    close_link(&local->zygote);
    if (local->base != MAP_FAILED) (void)munmap(local->base, local->size);
    if (local->fd >= 0) (void)close(local->fd);
    mt_put(local->alloc, local->workers);
    mt_put(local->alloc, local);
}

mt_bell *mti_local_bell(mt_local *local) {
    return local->options.bell != NULL ? local->options.bell : mti_segment_bell(local->base);
}

void mti_local_ring_inline(mt_local *local) {
    for (uint32_t i = local->options.workers; i < local->n_workers; i++) mt_bell_ring(local->workers[i].memory.bell);
}
int mti_local_fd(const mt_local *local) { return local->fd; }
void *mti_local_base(const mt_local *local) { return local->base; }
uint32_t mti_local_inline_index(const mt_local *local) { return 1 + local->options.workers; }

/* ---- the zygote ---- */

static int tell_zygote(mt_local *local, uint16_t kind, uint32_t n) {
    mt_rec rec = {sizeof rec, 0, kind, 0, n};
    mt_part part = {&rec, sizeof rec};
    return mti_link_send(&local->zygote.out.base, &part, 1, NULL);
}

/* The kernel ties its parent-death signal to the thread that calls this: the engine thread, which lives as long as the workers may. */
static int exec_zygote(mt_local *local) {
    const int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (null < 0) return MT_E_SYS;
    const int32_t fds[] = {null, -1, -1, local->fd};
    int32_t pid;
    int status = mti_spawn(local->options.zygote_argv, local->options.zygote_envp, fds, 4, &pid);
    const int error = errno;
    (void)close(null);
    errno = error;
    if (status != MT_OK) return status;
    local->zygote_pid = pid;
    local->zygotes_started++;
    local->zygote_has_worked = false;
    local->zygote_born_ns = local->now_ns;
    return MT_OK;
}

/* How long to wait before the next try. */
static uint64_t lengthen(uint64_t *pause_ns) {
    *pause_ns = *pause_ns == 0 ? FIRST_PAUSE_NS : *pause_ns * 2;
    if (*pause_ns > LONGEST_PAUSE_NS) *pause_ns = LONGEST_PAUSE_NS;
    return *pause_ns;
}

static int spawn_worker(mt_local *local, uint32_t index) {
    local->workers[index].running = true;
    local->workers[index].start_at_ns = 0;
    return tell_zygote(local, MT_KIND_SPAWN, index);
}

static int start_zygote(mt_local *local) {
    if (local->options.workers == 0) return MT_OK;
    local->zygote_start_at_ns = 0;
    int status = exec_zygote(local);
    for (uint32_t i = 0; i < local->n_workers && status == MT_OK; i++) {
        worker *w = &local->workers[i];
        if (w->is_process && w->failed_starts < MAX_FAILED_STARTS) status = spawn_worker(local, i);
    }
    return status;
}

int mti_local_start(mt_local *local, mt_engine *engine, uint64_t now_ns) {
    local->now_ns = now_ns;
    local->engine = engine;
    for (uint32_t i = 0; i < local->n_workers; i++) {
        worker *w = &local->workers[i];
        int status = mt_engine_add_lane(engine, MT_ROLE_WORKER, &w->out.base, &w->lane);
        if (status != MT_OK) return status;
    }
    return start_zygote(local);
}

/* ---- workers ---- */

/* Takes in up to TURN records. A worker that sends garbage is killed; its EXITED does the rest. */
static int read_worker(mt_local *local, uint32_t index, uint32_t limit, uint64_t *out_n) {
    worker *w = &local->workers[index];
    if (w->broken) return MT_OK;
    mt_incoming incoming;
    int status = MT_OK;
    uint32_t n = 0;
    while (n < limit) {
        status = mti_ring_get(w->up, &incoming);
        if (status == MT_E_NOMEM) status = MT_E_RECORD; /* it announces more bytes than there is memory: that ends it, not us */
        if (status != MT_OK) break;
        n++;
        if (incoming.size >= sizeof(mt_rec) && ((const mt_rec *)incoming.data)->kind == MT_KIND_HELLO) {
            w->said_hello = true;
            w->failed_starts = 0;
            w->pause_ns = 0;
            local->zygote_has_worked = local->zygote_has_worked || w->is_process;
            if (w->is_process) local->failed_zygotes = 0;
        }
        status = mt_engine_from_lane(local->engine, w->lane, &incoming);
        if (status != MT_OK) break;
    }
    mt_ring_release(w->up);
    *out_n += n;
    if (status == MT_E_RECORD) {
        w->broken = true;
        return w->is_process ? tell_zygote(local, MT_KIND_KILL, index) : MT_E_RECORD;
    }
    return status == MT_E_AGAIN ? MT_OK : status;
}

static bool is_any_up(const mt_local *local) {
    for (uint32_t i = 0; i < local->options.workers; i++) {
        if (local->workers[i].running && local->workers[i].said_hello) return true;
    }
    return false;
}

/* There is no process for it: too many of them, or no memory. That passes, as a rule; if not, and there is no other worker either, it is given up. */
static void on_unmade(mt_local *local, worker *w, int error) {
    w->running = false;
    bool is_first = w->pause_ns == 0, is_hopeless = w->pause_ns >= LONGEST_PAUSE_NS && !is_any_up(local);
    w->start_at_ns = local->now_ns + lengthen(&w->pause_ns);
    if (is_hopeless) w->failed_starts = MAX_FAILED_STARTS;
    if (!is_first && !is_hopeless) return;
    (void)dprintf(STDERR_FILENO, "mpitask: a worker process cannot be forked: %s (see ulimit -u, the pids limit of the cgroup, and free memory); %s\n",
                  strerror(error), is_hopeless ? "given up" : "it is tried again");
}

static int on_exited(mt_local *local, uint32_t index, const mt_lost *how) {
    if (index >= local->options.workers || !local->workers[index].running) return MT_E_RECORD;
    worker *w = &local->workers[index];
    if (how->what == MT_LOST_UNMADE) {
        on_unmade(local, w, -how->wait_status);
        return MT_OK;
    }
    uint64_t n = 0;
    int status = read_worker(local, index, UINT32_MAX, &n); /* what it finished before it died */
    if (status != MT_OK) return status;
    w->running = false;
    mt_lost why = *how;
    if (w->broken) why.what = MT_LOST_LINK;
    status = mt_engine_lane_lost(local->engine, w->lane, &why, mti_begun(w->memory.started));
    if (status != MT_OK) return status;
    if (!w->said_hello) w->failed_starts++;
    if (local->stopping || w->failed_starts >= MAX_FAILED_STARTS) return MT_OK;
    status = open_link(local, w, 1 + index);
    return status == MT_OK ? spawn_worker(local, index) : status;
}

/* One record of the zygote. MT_E_RECORD: it is none, or makes no sense. */
static int take_from_zygote(mt_local *local, const mt_incoming *incoming) {
    struct {
        mt_rec rec;
        mt_lost how;
    } record = {.rec = {0}};
    if (incoming->size < sizeof record.rec) return MT_E_RECORD;
    memcpy(&record, incoming->data, incoming->size < sizeof record ? incoming->size : sizeof record);
    int status = mti_head_check(&record.rec, incoming->size, MT_ROLE_ZYGOTE);
    return status == MT_OK && record.rec.kind == MT_KIND_EXITED ? on_exited(local, record.rec.n, &record.how) : status;
}

/* A zygote that sends garbage is killed, and its workers die with it: its end does the rest. */
static int read_zygote(mt_local *local, uint64_t *out_n) {
    mt_incoming incoming;
    int status = MT_OK;
    while (!local->zygote.broken && status == MT_OK) {
        status = mti_ring_get(local->zygote.up, &incoming);
        if (status == MT_E_NOMEM) status = MT_E_RECORD; /* it announces more bytes than there is memory */
        if (status != MT_OK) break;
        ++*out_n;
        status = take_from_zygote(local, &incoming);
    }
    mt_ring_release(local->zygote.up);
    if (status == MT_E_RECORD) {
        local->zygote.broken = true;
        if (local->zygote_pid > 0) (void)kill(local->zygote_pid, SIGKILL);
        return MT_OK;
    }
    return status == MT_E_AGAIN ? MT_OK : status;
}

/* A zygote that is due. It may fail for want of processes or memory, which passes as a rule. */
static int restart_zygote(mt_local *local) {
    if (local->now_ns < local->zygote_start_at_ns) return MT_OK;
    int status = start_zygote(local);
    if (status != MT_E_SYS || local->zygote_pause_ns >= LONGEST_PAUSE_NS) return status;
    local->zygote_start_at_ns = local->now_ns + lengthen(&local->zygote_pause_ns);
    return MT_OK;
}

/* Starts what is to be started again and is due. */
static int start_later(mt_local *local) {
    if (local->stopping) return MT_OK;
    if (local->zygote_start_at_ns != 0) return restart_zygote(local);
    int status = MT_OK;
    for (uint32_t i = 0; i < local->options.workers && status == MT_OK; i++) {
        worker *w = &local->workers[i];
        bool is_due = w->start_at_ns != 0 && w->start_at_ns <= local->now_ns && w->failed_starts < MAX_FAILED_STARTS;
        if (is_due) status = spawn_worker(local, i);
    }
    return status;
}

static void tell_of_zygote(const mt_local *local, int wait_status) {
    char how[64];
    if (wait_status >= 0 && WIFSIGNALED(wait_status)) {
        (void)snprintf(how, sizeof how, "was killed by signal %d", WTERMSIG(wait_status));
    } else if (wait_status >= 0) {
        (void)snprintf(how, sizeof how, "ended with status %d", WEXITSTATUS(wait_status));
    } else {
        (void)snprintf(how, sizeof how, "has ended");
    }
    (void)dprintf(STDERR_FILENO, "mpitask: the process that forks the workers %s, and they with it; %s\n", how,
                  local->failed_zygotes < MAX_FAILED_STARTS ? "all are started again" : "they are given up, for no worker of the last ones came up");
}

/* The zygote has died unasked: the kernel has killed its workers with it (each has been sent SIGKILL; that they are reaped is not waited for). */
static int replace_zygote(mt_local *local, int wait_status) {
    uint64_t n = 0;
    local->zygote_pid = 0;
    int status = read_zygote(local, &n);
    bool was_stopping = local->stopping;
    local->stopping = true; /* no SPAWN to the dead one */
    for (uint32_t i = 0; i < local->options.workers && status == MT_OK; i++) {
        mt_lost how = {0, wait_status, local->zygote.broken ? MT_LOST_LINK : MT_LOST_ZYGOTE};
        if (local->workers[i].running) status = on_exited(local, i, &how);
        if (status == MT_OK) status = open_link(local, &local->workers[i], 1 + i);
        local->workers[i].start_at_ns = 0;
    }
    local->stopping = was_stopping;
    if (status != MT_OK || local->stopping) return status;
    if (!local->zygote_has_worked) local->failed_zygotes++;
    tell_of_zygote(local, wait_status);
    bool is_hopeless = local->failed_zygotes >= MAX_FAILED_STARTS;
    for (uint32_t i = 0; i < local->options.workers; i++) local->workers[i].failed_starts = is_hopeless ? MAX_FAILED_STARTS : 0;
    if (is_hopeless) return MT_OK;
    status = open_link(local, &local->zygote, 0);
    if (status != MT_OK) return status;
    bool has_lived = local->now_ns - local->zygote_born_ns >= LIVED_NS;
    if (has_lived) local->zygote_pause_ns = 0;
    local->zygote_start_at_ns = local->now_ns + (has_lived ? 0 : lengthen(&local->zygote_pause_ns));
    return start_later(local);
}

static int look_at_zygote(mt_local *local, uint64_t now_ns) {
    if (local->zygote_pid == 0) return MT_OK;
    if (!local->stopping && now_ns - local->last_look_ns < ZYGOTE_LOOK_NS) return MT_OK;
    local->last_look_ns = now_ns;
    int wait_status = 0;
    pid_t pid = waitpid(local->zygote_pid, &wait_status, WNOHANG);
    if (pid == 0) return MT_OK;
    if (pid < 0) wait_status = -1; /* somebody else reaped it */
    return replace_zygote(local, wait_status);
}

int mti_local_step(mt_local *local, uint64_t now_ns, uint64_t *out_n) {
    local->now_ns = now_ns;
    int status = look_at_zygote(local, now_ns);
    if (status == MT_OK && now_ns - local->last_later_ns >= FIRST_PAUSE_NS) {
        local->last_later_ns = now_ns;
        status = start_later(local);
    }
    if (status == MT_OK && local->options.workers > 0) status = read_zygote(local, out_n);
    for (uint32_t i = 0; i < local->n_workers && status == MT_OK; i++) status = read_worker(local, i, TURN, out_n);
    return status;
}

int mti_local_flush(mt_local *local, uint64_t *out_n) {
    int status = mti_link_pump(&local->zygote.out.base, out_n);
    for (uint32_t i = 0; i < local->n_workers && status == MT_OK; i++) {
        status = mti_link_pump(&local->workers[i].out.base, out_n);
    }
    return status;
}

bool mti_local_has_backlog(const mt_local *local) {
    bool found = local->zygote.out.base.first != NULL;
    for (uint32_t i = 0; i < local->n_workers; i++) found = found || local->workers[i].out.base.first != NULL;
    return found;
}

uint32_t mti_local_zygotes(const mt_local *local) { return local->zygotes_started; }

/* Whether some worker process has come up, so that there may be user code to be ended in order. */
static bool has_worked(const mt_local *local) {
    for (uint32_t i = 0; i < local->options.workers; i++) {
        if (local->workers[i].said_hello) return true;
    }
    return false;
}

int mti_local_stop(mt_local *local, uint32_t mode) {
    local->stopping = true;
    if (local->zygote_pid != 0 && !has_worked(local)) {
        /* Still starting, which takes long where many processes share a core. Its workers die with it. */
        (void)kill(local->zygote_pid, SIGKILL);
    }
    mt_rec rec = {sizeof rec, 0, MT_KIND_STOP, 0, mode};
    mt_part part = {&rec, sizeof rec};
    for (uint32_t i = 0; i < local->n_workers; i++) {
        int status = mti_link_send(&local->workers[i].out.base, &part, 1, NULL);
        if (status != MT_OK) return status;
    }
    return local->zygote_pid == 0 ? MT_OK : tell_zygote(local, MT_KIND_STOP, mode);
}

bool mti_local_has_ended(const mt_local *local) { return local->zygote_pid == 0; }

uint32_t mti_local_alive(const mt_local *local) {
    uint32_t alive = 0;
    for (uint32_t i = 0; i < local->n_workers; i++) {
        const worker *w = &local->workers[i];
        alive += !w->is_process || w->failed_starts < MAX_FAILED_STARTS;
    }
    return alive;
}
