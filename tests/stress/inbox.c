/* Four threads push into one inbox, one pops. A pusher that finds it full sleeps at a gate and the popper
 * that finds it empty on a bell, as the driver does it, but for ever: a lost wake-up hangs. Each message
 * points to plain memory written by its pusher, which the popper reads and frees. Some messages stay inside
 * to the end of the round.
 */
#include "inbox.h"

#include "bell.h"
#include "driver_inner.h"
#include "stress.h"

#define PUSHERS 4
#define MESSAGES 1200 /* of each pusher in a round */
#define AT_A_TIME 64

typedef struct letter {
    uint64_t pusher;
    uint64_t number;
    uint64_t checksum;
} letter;

static struct {
    mt_inbox *inbox;
    uint64_t capacity;
    uint64_t left_inside;
    _Alignas(64) mt_bell bell;
    _Alignas(64) mt_gate space_gate;
    _Alignas(64) uint64_t expected[PUSHERS]; /* the popper's: number of each pusher's next message */
    uint64_t popped;
} room;

static struct {
    _Atomic uint64_t messages, full, pusher_sleeps, popper_sleeps;
} seen;

/* ---- pushers ---- */

/* As the driver's push. */
static void push(stress_rng *rng, mt_message message) {
    for (;;) {
        int status = mt_inbox_push(room.inbox, message);
        if (status == MT_OK) break;
        DEMAND(status == MT_E_AGAIN, "mt_inbox_push gave %d", status);
        mt_add_relaxed(&seen.full, 1);
        mt_bell_ring(&room.bell);
        if (stress_one_in(rng, 8)) {
            (void)sched_yield();
            continue;
        }
        uint32_t value = mti_gate_enter(&room.space_gate);
        if (!mt_inbox_is_full(room.inbox)) {
            mti_gate_leave(&room.space_gate);
            continue;
        }
        mt_add_relaxed(&seen.pusher_sleeps, 1);
        DEMAND(mti_gate_sleep(&room.space_gate, value, -1) == MT_OK, "the pusher's sleep");
    }
    mt_bell_ring(&room.bell);
}

static uint64_t checksum_of(uint64_t pusher, uint64_t number) {
    return stress_mix(stress.seed ^ (pusher << 56) ^ number);
}

static void *pusher(void *argument) {
    static const char *const names[PUSHERS] = {"pusher 0", "pusher 1", "pusher 2", "pusher 3"};
    uint64_t index = (uint64_t)(uintptr_t)argument;
    stress_thread(1 + (uint32_t)index, names[index]);
    stress_rng rng = stress_rng_of(mt_load_relaxed(&stress.round), index);
    for (uint64_t number = 0; number < MESSAGES; number++) {
        stress_at(number);
        letter *l = malloc(sizeof *l);
        DEMAND(l != NULL, "no memory");
        *l = (letter){index, number, checksum_of(index, number)};
        push(&rng, (mt_message){index << 32 | number, l});
        if (stress_one_in(&rng, 4)) stress_dawdle(&rng);
    }
    return NULL;
}

/* ---- the popper ---- */

static void take(mt_message message) {
    uint64_t index = message.kind >> 32;
    uint64_t number = message.kind & UINT32_MAX;
    DEMAND(index < PUSHERS, "message %llu has kind %llx", ull(room.popped), ull(message.kind));
    DEMAND(number == room.expected[index], "message %llu is pusher %llu's number %llu, not %llu",
           ull(room.popped), ull(index), ull(number), ull(room.expected[index]));
    letter *l = message.pointer;
    DEMAND(l->pusher == index && l->number == number && l->checksum == checksum_of(index, number),
           "message %llu: the letter is another's", ull(room.popped));
    free(l);
    room.expected[index]++;
    room.popped++;
}

static void *popper(void *argument) {
    (void)argument;
    stress_thread(0, "popper");
    stress_rng rng = stress_rng_of(mt_load_relaxed(&stress.round), PUSHERS);
    uint64_t total = PUSHERS * MESSAGES - room.left_inside;
    while (room.popped < total) {
        stress_at(room.popped);
        mt_message messages[AT_A_TIME];
        uint64_t most = 1 + stress_below(&rng, AT_A_TIME);
        if (most > total - room.popped) most = total - room.popped;
        bool some = stress_one_in(&rng, 2) && mt_inbox_has_data(room.inbox);
        uint32_t n = mt_inbox_pop_many(room.inbox, messages, (uint32_t)most);
        DEMAND(n <= most && (n > 0 || !some), "%u popped of at most %llu", n, ull(most));
        if (n > 0) {
            mti_gate_open(&room.space_gate);
            for (uint32_t i = 0; i < n; i++) take(messages[i]);
            if (stress_one_in(&rng, 4)) stress_dawdle(&rng);
            continue;
        }
        if (stress_one_in(&rng, 4)) {
            (void)sched_yield();
            continue;
        }
        uint32_t value = mt_bell_arm(&room.bell, MT_BELL_SLEEPS);
        if (mt_inbox_has_data(room.inbox)) {
            mt_bell_disarm(&room.bell);
            continue;
        }
        mt_add_relaxed(&seen.popper_sleeps, 1);
        DEMAND(mt_bell_sleep(&room.bell, value, -1) == MT_OK, "the popper's sleep");
    }
    return NULL;
}

/* Nobody pushes any more. */
static void take_rest(void) {
    DEMAND(mt_inbox_check(room.inbox) == MT_OK, "the check with %llu inside", ull(room.left_inside));
    DEMAND(mt_inbox_is_full(room.inbox) == (room.left_inside == room.capacity), "full with %llu of %llu",
           ull(room.left_inside), ull(room.capacity));
    mt_message message;
    while (mt_inbox_pop_many(room.inbox, &message, 1) == 1) take(message);
    DEMAND(room.popped == PUSHERS * MESSAGES, "%llu messages came out", ull(room.popped));
    DEMAND(mt_inbox_check(room.inbox) == MT_OK && !mt_inbox_has_data(room.inbox), "not empty at the end");
    mt_add_relaxed(&seen.messages, room.popped);
}

int main(int argc, char **argv) {
    static const uint64_t capacities[] = {2, 64, 4, 1024, 8};
    stress_begin("inbox", argc, argv, 20);
    for (uint64_t round = 0; round < stress.rounds; round++) {
        stress_round(round);
        stress_rng rng = stress_rng_of(round, UINT32_MAX);
        memset(&room, 0, sizeof room);
        room.capacity = capacities[round % (sizeof capacities / sizeof *capacities)];
        room.left_inside = stress_below(&rng, room.capacity + 1);
        mt_alloc *alloc = mt_alloc_test_new(0);
        DEMAND(alloc != NULL, "no memory");
        room.inbox = mt_inbox_new(alloc, room.capacity);
        DEMAND(room.inbox != NULL, "no memory");
        pthread_t pops = stress_start(popper, NULL);
        pthread_t pushes[PUSHERS];
        for (uintptr_t i = 0; i < PUSHERS; i++) pushes[i] = stress_start(pusher, (void *)i);
        for (uint32_t i = 0; i < PUSHERS; i++) stress_join(pushes[i]);
        stress_join(pops);
        take_rest();
        mt_inbox_destroy(room.inbox);
        DEMAND(mt_alloc_test_live(alloc) == 0, "memory is lost");
        mt_alloc_test_destroy(alloc);
    }
    (void)printf("inbox: seed %llu: %llu messages of %d threads in order and complete; %llu pushes found it "
                 "full, pushers slept %llu times, the popper %llu\n",
                 ull(stress.seed), ull(seen.messages), PUSHERS, ull(seen.full), ull(seen.pusher_sleeps),
                 ull(seen.popper_sleeps));
    return 0;
}
