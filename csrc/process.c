#include "process.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* The kernel's record of a directory entry; the libraries' own reading allocates, which is not allowed between vfork and exec. */
typedef struct entry {
    uint64_t inode;
    int64_t next;
    uint16_t size;
    uint8_t type;
    char name[];
} entry;

static int number_of(const char *name) {
    int number = 0;
    for (; *name >= '0' && *name <= '9' && number < INT_MAX / 10; name++) number = number * 10 + (*name - '0');
    return *name == 0 ? number : -1;
}

/* Closes what /proc lists from `first` on, but for the listing itself; the number of those. */
static int close_listed(int listing, int first) {
    _Alignas(entry) char buffer[4096];
    int n = 0;
    for (long got; (got = syscall(SYS_getdents64, listing, buffer, sizeof buffer)) > 0;) {
        for (long at = 0; at < got;) {
            const entry *e = (const entry *)(const void *)(buffer + at);
            at += e->size;
            const int fd = number_of(e->name);
            if (fd < first || fd == listing) continue;
            (void)close(fd);
            n++;
        }
    }
    return n;
}

/* Only system calls. Every descriptor from `first` on. */
static void close_from(int first) {
#ifdef SYS_close_range
    if (syscall(SYS_close_range, (unsigned)first, ~0u, 0) == 0) return;
#endif
    const int listing = open("/proc/self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (listing >= 0) { /* an older kernel (before 5.9) */
        while (close_listed(listing, first) > 0 && lseek(listing, 0, SEEK_SET) == 0) {
        }
        (void)close(listing);
        return;
    }
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
    for (rlim_t fd = (rlim_t)first; fd < limit.rlim_cur && fd < 65536; fd++) (void)close((int)fd);
}

/* The child's descriptors are those of `fds` (negative: as the parent's) and no others. The three that every program takes for open are. */
static bool arrange(const int32_t *fds, int n_fds) {
    int from[MTI_SPAWN_FDS];
    for (int i = 0; i < n_fds; i++) { /* out of the way first: one may stand where another one goes */
        from[i] = fds[i];
        if (fds[i] >= 0 && fds[i] < n_fds && fds[i] != i) from[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, n_fds);
        if (fds[i] >= 0 && from[i] < 0) return false;
    }
    for (int i = 0; i < n_fds; i++) {
        if (from[i] >= 0 && (from[i] == i ? fcntl(i, F_SETFD, 0) : dup2(from[i], i)) < 0) return false;
    }
    close_from(n_fds);
    for (int i = 0; i < 3; i++) {
        const int flags = fcntl(i, F_GETFD);
        if (flags >= 0 && (flags & FD_CLOEXEC) == 0) continue; /* else it is closed, or some file that has its number for that reason */
        const int null = open("/dev/null", O_RDWR);
        if (null < 0 || (null != i && dup2(null, i) < 0)) return false;
        if (null != i) (void)close(null);
    }
    return true;
}

/* Between vfork and exec: only system calls, and nothing of the parent's memory is changed but `failure`. */
static void become(char *const *argv, char *const *envp, const int32_t *fds, int n_fds, pid_t parent, volatile int *failure) {
    const struct sigaction standard = {.sa_handler = SIG_DFL};
    (void)setpgid(0, 0);
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (int number = 1; number < NSIG; number++) (void)sigaction(number, &standard, NULL); /* SIGKILL and the like cannot be set and need not be */
    errno = 0;
    const bool ok = getppid() == parent && arrange(fds, n_fds);
    sigset_t none;
    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    if (ok) (void)execve(argv[0], argv, envp);
    *failure = errno == 0 ? ESRCH : errno;
    _exit(127);
}

int mti_spawn(char *const *argv, char *const *envp, const int32_t *fds, int n_fds, int32_t *out_pid) {
    volatile int failure = 0;
    const pid_t parent = getpid();
    sigset_t all, before;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before); /* a handler must not run in the child on our stack */
    const pid_t pid = vfork();
    if (pid == 0) become(argv, envp, fds, n_fds, parent, &failure);
    const int error = errno;
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    errno = error;
    if (pid < 0) return MT_E_SYS;
    if (failure != 0) {
        (void)waitpid(pid, NULL, 0);
        errno = failure;
        return MT_E_SYS;
    }
    *out_pid = pid;
    return MT_OK;
}

int mt_spawn(char *const *argv, char *const *envp, const int32_t *fds, int32_t *out_pid) {
    return mti_spawn(argv, envp, fds, 3, out_pid);
}

int mt_adopt_orphans(void) { return prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0 ? MT_OK : MT_E_SYS; }

int mt_deadline_set(uint64_t ns, uint64_t *out_timer) {
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGXCPU};
    const struct itimerspec at = {.it_value = {(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)}};
    timer_t timer;
    if (signal(SIGXCPU, SIG_DFL) == SIG_ERR || timer_create(CLOCK_MONOTONIC, &event, &timer) != 0) return MT_E_SYS;
    if (timer_settime(timer, 0, &at, NULL) != 0) {
        (void)timer_delete(timer);
        return MT_E_SYS;
    }
    *out_timer = (uint64_t)(uintptr_t)timer;
    return MT_OK;
}

void mt_deadline_cancel(uint64_t timer) { (void)timer_delete((timer_t)(uintptr_t)timer); }
