/* stress.h - what the stress programs share: seeds, positions for messages, a watchdog, random numbers.
 *
 * Each program: `program [rounds [seed]]`. It prints one line of what it checked, or says what broke, with
 * which seed and where, and aborts. How the threads interleave is not in the seed: run a failing one again
 * for many rounds.
 */
#ifndef STRESS_H
#define STRESS_H

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "atomic.h"
#include "base.h"

#define STRESS_HANG_S 60 /* longest time for one round */
#define STRESS_THREADS 12

/* Without ThreadSanitizer's checks, which cost much: for memory that no other thread touches. */
#if defined(__GNUC__)
#define STRESS_PRIVATE __attribute__((no_sanitize("thread")))
#else
#define STRESS_PRIVATE
#endif

typedef struct stress_place {
    _Atomic(const char *) who; /* static text */
    _Atomic uint64_t at;
} stress_place;

static struct {
    const char *program;
    uint64_t seed;
    uint64_t rounds;
    _Atomic uint64_t round;
    stress_place places[STRESS_THREADS];
} stress;

static _Thread_local stress_place *stress_mine;

/* For printf. */
static inline unsigned long long ull(uint64_t n) { return n; }

static inline void stress_describe(void) {
    (void)fprintf(stderr, "%s: seed %llu, round %llu of %llu", stress.program, ull(stress.seed),
                  ull(mt_load_relaxed(&stress.round)), ull(stress.rounds));
    for (uint32_t i = 0; i < STRESS_THREADS; i++) {
        const stress_place *place = &stress.places[i];
        const char *who = mt_load_relaxed(&place->who);
        if (who == NULL) continue;
        (void)fprintf(stderr, ", %s%s at %llu", place == stress_mine ? "here: " : "", who,
                      ull(mt_load_relaxed(&place->at)));
    }
    (void)fprintf(stderr, "\n");
}

/* Ends the program unless `what` holds; the rest is for printf. */
#define DEMAND(what, ...)                                                                       \
    do {                                                                                        \
        if (!(what)) {                                                                          \
            (void)fprintf(stderr, "%s:%d: not so: %s: ", __FILE__, __LINE__, #what);            \
            (void)fprintf(stderr, __VA_ARGS__);                                                 \
            (void)fprintf(stderr, "\n");                                                        \
            stress_describe();                                                                  \
            abort();                                                                            \
        }                                                                                       \
    } while (0)

/* This thread's name and place in messages; `index` is its own among the threads that run now. */
static inline void stress_thread(uint32_t index, const char *who) {
    stress_mine = &stress.places[index];
    mt_store_relaxed(&stress_mine->at, 0);
    mt_store_relaxed(&stress_mine->who, who);
}

static inline void stress_at(uint64_t at) { mt_store_relaxed(&stress_mine->at, at); }

static void *stress_watchdog(void *argument) {
    (void)argument;
    sigset_t alarms;
    (void)sigemptyset(&alarms);
    (void)sigaddset(&alarms, SIGALRM);
    int number;
    if (sigwait(&alarms, &number) == 0) {
        (void)fprintf(stderr, "no end of the round after %d s: a wake-up is lost, or nothing runs\n",
                      STRESS_HANG_S);
        stress_describe();
        abort();
    }
    return NULL;
}

/* First of all, while there is one thread. ThreadSanitizer holds handlers of signals back while a thread sits
 * in a bare system call, so the alarm goes to a thread that waits for it. */
static inline void stress_begin(const char *program, int argc, char **argv, uint64_t rounds) {
    struct timespec now;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    stress.program = program;
    stress.rounds = argc > 1 ? strtoull(argv[1], NULL, 10) : rounds;
    stress.seed = argc > 2 ? strtoull(argv[2], NULL, 10)
                           : ((uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec) % 1000000007u;
    sigset_t alarms;
    (void)sigemptyset(&alarms);
    (void)sigaddset(&alarms, SIGALRM);
    pthread_t thread;
    DEMAND(pthread_sigmask(SIG_BLOCK, &alarms, NULL) == 0, "no signal mask");
    DEMAND(pthread_create(&thread, NULL, stress_watchdog, NULL) == 0, "no watchdog");
    (void)pthread_detach(thread);
}

/* At the start of each round: the watchdog's time begins anew. */
static inline void stress_round(uint64_t round) {
    mt_store_relaxed(&stress.round, round);
    (void)alarm(STRESS_HANG_S);
}

static inline pthread_t stress_start(void *(*run)(void *), void *argument) {
    pthread_t thread;
    DEMAND(pthread_create(&thread, NULL, run, argument) == 0, "no thread");
    return thread;
}

static inline void stress_join(pthread_t thread) { DEMAND(pthread_join(thread, NULL) == 0, "cannot join"); }

/* ---- random numbers (splitmix64) ---- */

typedef struct stress_rng {
    uint64_t state;
} stress_rng;

static inline uint64_t stress_mix(uint64_t x) {
    x += 0x9E3779B97F4A7C15u;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
}

/* A stream of its own for each round and thread. */
static inline stress_rng stress_rng_of(uint64_t round, uint64_t thread) {
    return (stress_rng){stress_mix(stress_mix(stress_mix(stress.seed) ^ round) ^ thread)};
}

static inline uint64_t stress_next(stress_rng *rng) { return stress_mix(rng->state++); }

/* 0 .. n - 1. */
static inline uint64_t stress_below(stress_rng *rng, uint64_t n) { return stress_next(rng) % n; }

static inline bool stress_one_in(stress_rng *rng, uint64_t n) { return stress_below(rng, n) == 0; }

static inline void stress_nap(long ns) {
    struct timespec nap = {0, ns};
    (void)nanosleep(&nap, NULL);
}

/* Mostly nothing, sometimes a few turns, rarely a nap: shifts the threads against each other. */
static inline void stress_dawdle(stress_rng *rng) {
    uint64_t dice = stress_below(rng, 256);
    if (dice < 160) return;
    if (dice < 240) {
        for (uint64_t n = stress_below(rng, 200); n > 0; n--) atomic_signal_fence(memory_order_seq_cst);
    } else if (dice < 254) {
        (void)sched_yield();
    } else {
        stress_nap((long)stress_below(rng, 100000));
    }
}

#endif
