#include "process.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef SYS_close_range
#define SYS_close_range 436
#endif
#define MOST_OLD_FDS 4096

/* Between vfork and exec: only system calls, and nothing of the parent's memory is changed but `failure`. */
static void become(char *const *argv, char *const *envp, const int32_t *fds, pid_t parent, volatile int *failure) {
    static const int handled[] = {SIGINT, SIGTERM, SIGALRM, SIGXCPU, SIGPIPE, SIGXFSZ, SIGHUP, SIGUSR1, SIGUSR2};
    const struct sigaction standard = {.sa_handler = SIG_DFL};
    (void)setpgid(0, 0);
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (size_t i = 0; i < sizeof handled / sizeof *handled; i++) (void)sigaction(handled[i], &standard, NULL);
    bool ok = getppid() == parent;
    for (int i = 0; i < 3 && ok; i++) {
        if (fds[i] < 0) continue;
        ok = fds[i] == i ? fcntl(i, F_SETFD, 0) == 0 : dup2(fds[i], i) >= 0;
    }
    if (ok && syscall(SYS_close_range, 3u, ~0u, 0u) != 0) { /* an older kernel */
        for (int fd = 3; fd < MOST_OLD_FDS; fd++) (void)close(fd);
    }
    sigset_t none;
    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    if (ok) (void)execve(argv[0], argv, envp);
    *failure = errno == 0 ? ESRCH : errno;
    _exit(127);
}

int mt_spawn(char *const *argv, char *const *envp, const int32_t *fds, int32_t *out_pid) {
    volatile int failure = 0;
    const pid_t parent = getpid();
    sigset_t all, before;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before); /* a handler must not run in the child on our stack */
    const pid_t pid = vfork();
    if (pid == 0) become(argv, envp, fds, parent, &failure);
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

int mt_adopt_orphans(void) { return prctl(PR_SET_CHILD_SUBREAPER, 1ul, 0ul, 0ul, 0ul) == 0 ? MT_OK : MT_E_SYS; }

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
