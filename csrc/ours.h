/* ours.h - whether this is still the process that made something.
 *
 * Role: a child that was forked has a copy of everything: rings in shared memory, queues that nobody empties, a thread that only its parent has. Whatever talks
 * to another process or waits for a thread asks here first.
 *
 * How: a page that the kernel gives to a forked child empty (MADV_WIPEONFORK, Linux 4.14): one load, whoever forked, by whichever call. Where the
 * kernel cannot do it, the process number is compared. Rejected: pthread_atfork, which needs a global list; asking for the process number at each call,
 * a system call a task.
 * Thread rule: mti_is_ours any thread; the others before and after all use.
 */
#ifndef MT_OURS_H
#define MT_OURS_H

#include "base.h"

typedef struct mt_ours {
    _Atomic uint32_t *word; /* NULL: the kernel cannot empty it */
    int32_t pid;
} mt_ours;

void mti_ours_init(mt_ours *ours);
/* In a child that takes over what its parent made for it. */
void mti_ours_take(mt_ours *ours);
bool mti_is_ours(const mt_ours *ours);
void mti_ours_clean_up(mt_ours *ours);

#endif
