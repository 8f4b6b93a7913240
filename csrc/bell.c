#include "bell.h"

#include <errno.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "atomic.h"

int mti_futex_wait(_Atomic uint32_t *word, uint32_t value, int64_t timeout_ns, bool shared) {
    struct timespec limit, *limit_pointer = NULL;
    if (timeout_ns >= 0) {
        limit.tv_sec = (time_t)(timeout_ns / 1000000000);
        limit.tv_nsec = (long)(timeout_ns % 1000000000);
        limit_pointer = &limit;
    }
    int operation = FUTEX_WAIT | (shared ? 0 : FUTEX_PRIVATE_FLAG);
    if (syscall(SYS_futex, word, operation, value, limit_pointer, NULL, 0) == 0) return MT_OK;
    if (errno == ETIMEDOUT) return MT_E_TIMEOUT;
    return errno == EINTR ? MT_E_INTR : MT_OK; /* EAGAIN: the word has changed already */
}

void mti_futex_wake(_Atomic uint32_t *word, int how_many, bool shared) {
    int operation = FUTEX_WAKE | (shared ? 0 : FUTEX_PRIVATE_FLAG);
    (void)syscall(SYS_futex, word, operation, how_many, NULL, NULL, 0);
}

static void wake(mt_bell *bell) {
    if (mt_exchange_acq_rel(&bell->waiting, MT_BELL_AWAKE) == MT_BELL_AWAKE) return; /* another ringer does it */
    mt_add_relaxed(&bell->value, 1);
    mti_futex_wake(&bell->value, 1, true);
}

void mt_bell_ring(mt_bell *bell) {
    mt_fence_seq_cst(); /* orders the ringer's work before the look at `waiting`; pairs with mt_bell_arm */
    if (mt_load_relaxed(&bell->waiting) == MT_BELL_SLEEPS) wake(bell);
}

void mt_bell_end_nap(mt_bell *bell) {
    mt_fence_seq_cst(); /* as in mt_bell_ring */
    if (mt_load_relaxed(&bell->waiting) == MT_BELL_NAPS) wake(bell);
}

void mt_bell_wake(mt_bell *bell) {
    mt_fence_seq_cst(); /* as in mt_bell_ring */
    if (mt_load_relaxed(&bell->waiting) != MT_BELL_AWAKE) wake(bell);
}

uint32_t mt_bell_arm(mt_bell *bell, uint32_t how) {
    uint32_t value = mt_load_relaxed(&bell->value);
    mt_store_relaxed(&bell->waiting, how);
    mt_fence_seq_cst(); /* orders `waiting` before the sleeper's last look; pairs with mt_bell_ring */
    return value;
}

void mt_bell_disarm(mt_bell *bell) { mt_store_relaxed(&bell->waiting, MT_BELL_AWAKE); }

int mt_bell_doze(mt_bell *bell, uint32_t value, int64_t timeout_ns) {
    int status = mti_futex_wait(&bell->value, value, timeout_ns, true);
    if (status == MT_OK) mt_bell_disarm(bell);
    return status;
}

int mt_bell_sleep(mt_bell *bell, uint32_t value, int64_t timeout_ns) {
    int status = mt_bell_doze(bell, value, timeout_ns);
    mt_bell_disarm(bell);
    return status;
}

bool mt_bell_was_rung(const mt_bell *bell) { return mt_load_relaxed(&bell->waiting) == MT_BELL_AWAKE; }
