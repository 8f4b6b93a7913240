/* process.h - what a worker needs of the kernel: commands that die with it, and an end to itself when a task will not stop.
 *
 * Role: thin calls; nothing is kept.
 * Thread rule: any thread. Errors: MT_E_SYS, with errno.
 */
#ifndef MT_PROCESS_H
#define MT_PROCESS_H

#include "base.h"

/* cffi:begin */

/* Starts `argv[0]` (a path; no search) with this environment in a process group of its own, with default signal handling.
 * `fds`: its standard input, output and error; negative: as ours. It gets no other descriptor of ours. The kernel kills it when the calling thread ends. */
MT_EXPORT MT_MUST_CHECK int mt_spawn(char *const *argv, char *const *envp, const int32_t *fds, int32_t *out_pid);

/* What is left of children's children when their parents have died becomes a child of this process. */
MT_EXPORT MT_MUST_CHECK int mt_adopt_orphans(void);

/* Ends this process by SIGXCPU after `ns` nanoseconds, whatever it does then. Engines do not count that as a loss to be tried again. */
MT_EXPORT MT_MUST_CHECK int mt_deadline_set(uint64_t ns, uint64_t *out_timer);
MT_EXPORT void mt_deadline_cancel(uint64_t timer);

/* cffi:end */

#endif
