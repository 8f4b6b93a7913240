/* process.h - what ranks and workers need of the kernel: processes that die with them, and an end to a worker when a task will not stop.
 *
 * Role: thin calls; nothing is kept.
 * Thread rule: any thread. Errors: MT_E_SYS, with errno.
 */
#ifndef MT_PROCESS_H
#define MT_PROCESS_H

#include "base.h"

/* cffi:begin */

/* Starts `argv[0]` (a path; no search) with this environment in a process group of its own, so that a terminal's Ctrl-C does not reach it, with default
 * signal handling and none blocked. `fds`: its standard input, output and error; negative: as ours, /dev/null where ours is closed. It inherits no other
 * descriptor, whatever flags they have: what a rank holds (the memory of all its workers, MPI's sockets, the launcher's pipes) is nobody else's
 * business. The kernel kills it when the calling thread ends. */
MT_EXPORT MT_MUST_CHECK int mt_spawn(char *const *argv, char *const *envp, const int32_t *fds, int32_t *out_pid);

/* From now on processes whose parents have ended, of those that descend from this one, become its children. */
MT_EXPORT MT_MUST_CHECK int mt_adopt_orphans(void);

/* Ends this process by SIGXCPU after `ns` nanoseconds, whatever it does then. Engines do not count that as a loss to be tried again. */
MT_EXPORT MT_MUST_CHECK int mt_deadline_set(uint64_t ns, uint64_t *out_timer);
MT_EXPORT void mt_deadline_cancel(uint64_t timer);

/* cffi:end */

#define MTI_SPAWN_FDS 4
/* As mt_spawn, with more descriptors: 0 to n_fds - 1, up to MTI_SPAWN_FDS. */
MT_MUST_CHECK int mti_spawn(char *const *argv, char *const *envp, const int32_t *fds, int n_fds, int32_t *out_pid);

#endif
