/* Ringers post and ring; a sleeper arms, looks and sleeps, and answers each over that ringer's bell; nobody
 * posts again before the answer, so a lost wake-up hangs. In half of the rounds the posts carry plain data.
 * In the others they are relaxed stores and nothing but the bell's fences orders them; some of those are
 * duels: one ringer, and so few instructions and so little sleep between posts that a missing fence shows
 * where there are two processors.
 */
#include "bell.h"
#include "segment.h"
#include "worker.h"

#include "stress.h"

#define RINGERS 4
#define POSTS 600 /* of each ringer in a round */
#define DUEL_POSTS 12000
#define BALLAST 16 /* cache lines that duellists write at times: their next store is then slow to be seen */
#define DUEL_SPIN 600 /* turns between looks at whether the other has got a core at all */
#define SLEEPER_PLACE 0
#define LAST UINT64_MAX
#define RING_BYTES 4096

typedef struct post {
    _Alignas(64) mt_bell bell; /* the ringer's own, rung with the answer */
    _Atomic uint64_t asked;
    _Atomic uint64_t answered;
    uint64_t question; /* plain: published by `asked`, read by the sleeper */
    uint64_t answer;   /* plain: published by `answered` */
} post;

static struct {
    _Alignas(64) mt_bell bell; /* the sleeper's */
    post posts[RINGERS];
    uint32_t n_ringers;
    bool relaxed; /* posts carry nothing but their number */
    bool naps;    /* instead of sleeps, which the ringers end */
    pthread_t sleeper;
} room;

static struct {
    _Atomic uint64_t posts, sleeps, timeouts, signals;
} seen;

static void on_signal(int number) { (void)number; }

/* Rings do not end naps; a worker that has nothing left to do does, and leaves an engine that sleeps alone. */
static void check_naps(void) {
    mt_bell bell = {0};
    uint32_t value = mt_bell_arm(&bell, MT_BELL_NAPS);
    mt_bell_ring(&bell);
    DEMAND(mt_bell_sleep(&bell, value, 1) == MT_E_TIMEOUT, "a ring has ended a nap");
    value = mt_bell_arm(&bell, MT_BELL_NAPS);
    mt_bell_end_nap(&bell);
    DEMAND(mt_bell_sleep(&bell, value, -1) == MT_OK, "a nap has not been ended");
    void *base = aligned_alloc(4096, (mti_segment_size(1, RING_BYTES) + 4095) / 4096 * 4096);
    DEMAND(base != NULL, "no memory");
    mt_segment_link link = mti_segment_link_at(base, 0, RING_BYTES);
    mti_segment_format_link(&link, RING_BYTES);
    mt_worker *worker = mti_worker_new(base, 0, RING_BYTES, &bell);
    DEMAND(worker != NULL, "no worker");
    value = mt_bell_arm(&bell, MT_BELL_NAPS);
    mt_call call;
    DEMAND(mt_worker_next(worker, 0, &call) == MT_E_TIMEOUT, "work from nowhere");
    DEMAND(mt_bell_sleep(&bell, value, -1) == MT_OK, "a worker without work has not ended the engine's nap");
    value = mt_bell_arm(&bell, MT_BELL_SLEEPS);
    DEMAND(mt_worker_next(worker, 0, &call) == MT_E_TIMEOUT, "work from nowhere");
    DEMAND(mt_bell_sleep(&bell, value, 1) == MT_E_TIMEOUT, "a worker without work has woken an idle engine");
    mt_worker_close(worker);
    free(base);
}

static void ring(mt_bell *bell) {
    if (room.naps) {
        mt_bell_end_nap(bell);
    } else {
        mt_bell_ring(bell);
    }
}

/* One sleep of either side. `look` says whether there is work. */
static void rest(mt_bell *bell, stress_rng *rng, bool (*look)(const void *), const void *argument) {
    if (stress_one_in(rng, 8)) {
        (void)sched_yield();
        return;
    }
    uint32_t value = mt_bell_arm(bell, room.naps ? MT_BELL_NAPS : MT_BELL_SLEEPS);
    stress_dawdle(rng);
    if (look(argument)) {
        mt_bell_disarm(bell);
        return;
    }
    int64_t timeout_ns = stress_one_in(rng, 16) ? (int64_t)stress_below(rng, 30000) : -1;
    mt_add_relaxed(&seen.sleeps, 1);
    int status = mt_bell_sleep(bell, value, timeout_ns);
    DEMAND(status == MT_OK || status == MT_E_INTR || (status == MT_E_TIMEOUT && timeout_ns >= 0),
           "mt_bell_sleep gave %d", status);
    if (status == MT_E_TIMEOUT) mt_add_relaxed(&seen.timeouts, 1);
    if (status == MT_E_INTR) mt_add_relaxed(&seen.signals, 1);
    DEMAND(mt_load_relaxed(&bell->waiting) == 0, "still armed after the sleep");
}

static bool was_answered(const void *argument) {
    const post *p = argument;
    return mt_load_relaxed(&p->answered) == mt_load_relaxed(&p->asked);
}

static void *ringer(void *argument) {
    static const char *const names[RINGERS] = {"ringer 0", "ringer 1", "ringer 2", "ringer 3"};
    post *p = argument;
    uint32_t index = (uint32_t)(p - room.posts);
    stress_thread(1 + index, names[index]);
    stress_rng rng = stress_rng_of(mt_load_relaxed(&stress.round), index);
    for (uint64_t i = 1; i <= POSTS; i++) {
        stress_at(i);
        stress_dawdle(&rng);
        uint64_t number = i == POSTS ? LAST : i;
        if (room.relaxed) {
            mt_store_relaxed(&p->asked, number);
        } else {
            p->question = stress_mix(number ^ index);
            mt_store_release(&p->asked, number);
        }
        ring(&room.bell);
        if (stress_one_in(&rng, 64)) (void)pthread_kill(room.sleeper, SIGUSR1);
        while (!was_answered(p)) rest(&p->bell, &rng, was_answered, p);
        if (!room.relaxed) {
            DEMAND(mt_load_acquire(&p->answered) == number, "another answer"); /* pairs with the sleeper's */
            DEMAND(p->answer == ~stress_mix(number ^ index), "answer %llx", ull(p->answer));
        }
    }
    mt_add_relaxed(&seen.posts, POSTS);
    return NULL;
}

static bool has_posts(const void *argument) {
    (void)argument;
    for (uint32_t i = 0; i < room.n_ringers; i++) {
        if (!was_answered(&room.posts[i])) return true;
    }
    return false;
}

static void *sleeper(void *argument) {
    (void)argument;
    stress_thread(SLEEPER_PLACE, "sleeper");
    room.sleeper = pthread_self();
    stress_rng rng = stress_rng_of(mt_load_relaxed(&stress.round), RINGERS);
    pthread_t ringers[RINGERS];
    for (uint32_t i = 0; i < room.n_ringers; i++) ringers[i] = stress_start(ringer, &room.posts[i]);
    uint64_t answers = 0;
    for (uint32_t ended = 0; ended < room.n_ringers;) {
        bool idle = true;
        for (uint32_t i = 0; i < room.n_ringers; i++) {
            post *p = &room.posts[i];
            uint64_t number = mt_load_acquire(&p->asked); /* pairs with the ringer's release */
            if (number == mt_load_relaxed(&p->answered)) continue;
            idle = false;
            stress_at(++answers);
            if (!room.relaxed) {
                DEMAND(p->question == stress_mix(number ^ i), "question %llx", ull(p->question));
                p->answer = ~p->question;
            }
            stress_dawdle(&rng);
            mt_store_release(&p->answered, number);
            ring(&p->bell);
            ended += number == LAST;
        }
        if (idle) rest(&room.bell, &rng, has_posts, NULL);
    }
    DEMAND(answers == (uint64_t)room.n_ringers * POSTS, "%llu answers", ull(answers));
    for (uint32_t i = 0; i < room.n_ringers; i++) stress_join(ringers[i]);
    return NULL;
}

/* ---- duels ---- */

static struct {
    _Alignas(64) _Atomic uint64_t word;
} ballast[BALLAST];

static void load_ballast(uint64_t n) {
    for (uint32_t i = 0; i < BALLAST; i++) mt_store_relaxed(&ballast[i].word, n);
}

static void turns(stress_rng *rng) {
    uint64_t most = (uint64_t)1 << stress_below(rng, 11);
    for (uint64_t n = stress_below(rng, most); n > 0; n--) atomic_signal_fence(memory_order_seq_cst);
}

static void *duel_ringer(void *argument) {
    post *p = argument;
    stress_thread(1, "duelling ringer");
    stress_rng rng = stress_rng_of(mt_load_relaxed(&stress.round), 0);
    for (uint64_t i = 1; i <= DUEL_POSTS; i++) {
        stress_at(i);
        turns(&rng);
        if (stress_one_in(&rng, 2)) load_ballast(i);
        mt_store_relaxed(&p->asked, i);
        ring(&room.bell);
        for (uint64_t n = 1; mt_load_relaxed(&p->answered) != i; n++) {
            if (n % DUEL_SPIN == 0) (void)sched_yield();
        }
    }
    mt_add_relaxed(&seen.posts, DUEL_POSTS);
    return NULL;
}

/* Armed and without work, the sleeper first waits to be disarmed, as if it were slow on its way to sleep: a
 * wake-up that is not lost comes then, and costs little. */
static void duel_rest(void) {
    uint32_t value = mt_bell_arm(&room.bell, room.naps ? MT_BELL_NAPS : MT_BELL_SLEEPS);
    if (has_posts(NULL)) {
        mt_bell_disarm(&room.bell);
        return;
    }
    for (uint32_t n = 0; n < DUEL_SPIN; n++) {
        if (mt_load_relaxed(&room.bell.waiting) == 0) return;
    }
    mt_add_relaxed(&seen.sleeps, 1);
    int status = mt_bell_sleep(&room.bell, value, -1);
    DEMAND(status == MT_OK, "mt_bell_sleep gave %d", status);
}

static void *duel_sleeper(void *argument) {
    (void)argument;
    stress_thread(SLEEPER_PLACE, "duelling sleeper");
    stress_rng rng = stress_rng_of(mt_load_relaxed(&stress.round), 1);
    post *p = &room.posts[0];
    pthread_t ringer_thread = stress_start(duel_ringer, p);
    for (uint64_t i = 1; i <= DUEL_POSTS; i++) {
        stress_at(i);
        turns(&rng);
        while (mt_load_relaxed(&p->asked) != i) {
            if (stress_one_in(&rng, 2)) load_ballast(i);
            duel_rest();
        }
        mt_store_relaxed(&p->answered, i);
    }
    stress_join(ringer_thread);
    return NULL;
}

int main(int argc, char **argv) {
    stress_begin("bell", argc, argv, 24);
    struct sigaction action = {.sa_handler = on_signal}; /* without SA_RESTART: sleeps end */
    check_naps();
    DEMAND(sigaction(SIGUSR1, &action, NULL) == 0, "no handler");
    for (uint64_t round = 0; round < stress.rounds; round++) {
        stress_round(round);
        memset(&room, 0, sizeof room);
        /* Mostly one: the rings of others hide that one is lost. */
        room.n_ringers = round % 2 == 0 ? 1 : 2 + (uint32_t)(round / 2 % (RINGERS - 1));
        room.relaxed = round % 4 < 2;
        room.naps = round % 8 >= 4;
        stress_join(stress_start(round % 4 == 0 ? duel_sleeper : sleeper, NULL));
    }
    (void)printf("bell: seed %llu: %llu posts answered; %llu sleeps, %llu timed out, %llu interrupted\n",
                 ull(stress.seed), ull(seen.posts), ull(seen.sleeps), ull(seen.timeouts), ull(seen.signals));
    return 0;
}
