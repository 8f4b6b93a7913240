/* bell.h - a doorbell: how a sleeping engine or worker is woken, within a process or across processes of a node.
 *
 * Role: the only place that sleeps on or wakes a futex for an engine or a worker.
 * Protocol: the sleeper arms the bell, looks once more at everything that could hold work, and sleeps if there is none;
 * a ringer makes its work visible first and rings then. The two sequentially consistent fences make sure that either the sleeper
 * sees the work or the ringer sees the armed bell. A ring costs a fence and a load unless somebody sleeps.
 * A nap is a sleep that rings do not end: who naps wants to find a batch, and ringers shall not pay for waking it each time. Who cannot wait for its end says so.
 * Thread rule: any number of ringers, one sleeper. In shared memory (mt_bell is plain words: futex, not process-private).
 */
#ifndef MT_BELL_H
#define MT_BELL_H

#include "base.h"

typedef struct mt_bell {
    _Atomic uint32_t value;   /* futex word: changes with every wake-up */
    _Atomic uint32_t waiting; /* MT_BELL_* */
} mt_bell;

enum { MT_BELL_AWAKE, MT_BELL_SLEEPS, MT_BELL_NAPS };

/* Ringer: wakes a sleeper, not one who naps. Call after the work is visible. */
void mt_bell_ring(mt_bell *bell);
/* Ringer: wakes who naps, not a sleeper, whom nothing escapes that is rung for. */
void mt_bell_end_nap(mt_bell *bell);
/* Ringer: wakes either: who naps would not find a batch. */
void mt_bell_wake(mt_bell *bell);
/* Sleeper: from now on rings are not lost, or with MT_BELL_NAPS calls of mt_bell_end_nap; returns the value to sleep on. */
uint32_t mt_bell_arm(mt_bell *bell, uint32_t how);
/* Sleeper: there was work after all. */
void mt_bell_disarm(mt_bell *bell);
/* Sleeper: sleeps until rung, `timeout_ns` (negative: for ever) or a signal; disarms. MT_OK, MT_E_TIMEOUT, MT_E_INTR. */
MT_MUST_CHECK int mt_bell_sleep(mt_bell *bell, uint32_t value, int64_t timeout_ns);

/* Sleeper: the same, but stays armed when it is not MT_OK. */
MT_MUST_CHECK int mt_bell_doze(mt_bell *bell, uint32_t value, int64_t timeout_ns);
/* Sleeper, armed: whether somebody has rung since. */
bool mt_bell_was_rung(const mt_bell *bell);

/* The bare futex calls, for words that are not bells. `shared`: the word lies in memory of several processes. */
MT_MUST_CHECK int mti_futex_wait(_Atomic uint32_t *word, uint32_t value, int64_t timeout_ns, bool shared);
void mti_futex_wake(_Atomic uint32_t *word, int how_many, bool shared);

#endif
