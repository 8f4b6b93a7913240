/* A whole engine with inline workers: threads submit tasks whose arguments, values and dependencies are mostly larger than the rings, so that both sides
 * wait for room all the time. What is missing is a wake-up if the engine's guard ever ends a sleep with work to do (that is counted), or if nothing goes
 * on (the sleeps of workers have no guard). Every byte of arguments and values is compared.
 */
#include "driver.h"

#include "bell.h"
#include "frames.h"
#include "stress.h"

#define WORKERS 2
#define SUBMITTERS 2
#define TASKS 150 /* of each submitter in a round */
#define MOST_EDGES 4
#define FN 77

static struct {
    mt_driver *driver;
    uint64_t ring_bytes;
    uint64_t salt;
} room;

static struct {
    _Atomic uint64_t tasks, edges, bytes, sleeps;
} seen;

typedef struct order {
    uint64_t number;
    uint64_t size;       /* of the arguments */
    uint64_t value_size; /* of the value that is wanted */
} order;

static uint64_t some_size(stress_rng *rng) {
    uint64_t most = stress_one_in(rng, 4) ? 6 * room.ring_bytes : stress_one_in(rng, 2) ? room.ring_bytes / 2 : 64;
    return sizeof(order) + 8 * stress_below(rng, most / 8);
}

/* Words that follow from a number. */
STRESS_PRIVATE static void fill(unsigned char *out, uint64_t number, uint64_t size) {
    for (uint64_t at = 0; at < size; at += 8) {
        uint64_t word = (room.salt + number) * 6364136223846793005u + at;
        __builtin_memcpy(out + at, &word, 8);
    }
}

STRESS_PRIVATE static bool is_filled(const unsigned char *bytes, uint64_t number, uint64_t size) {
    for (uint64_t at = 0; at < size; at += 8) {
        uint64_t word = (room.salt + number) * 6364136223846793005u + at, found;
        __builtin_memcpy(&found, bytes + at, 8);
        if (found != word) return false;
    }
    return true;
}

/* ---- the workers ---- */

static void run_task(mt_worker *worker, const mt_call *call, stress_rng *rng) {
    order o;
    DEMAND(call->args_size >= sizeof o, "arguments of %llu bytes", ull(call->args_size));
    memcpy(&o, call->args, sizeof o);
    stress_at(o.number);
    DEMAND(o.size == call->args_size, "%llu bytes, not %llu", ull(call->args_size), ull(o.size));
    DEMAND(is_filled((const unsigned char *)call->args + sizeof o, o.number, o.size - sizeof o), "arguments of %llu", ull(o.number));
    for (uint32_t i = 0; i < call->n; i++) {
        mt_call value;
        order from;
        DEMAND(mt_worker_edge(worker, i, &value) == MT_OK, "no dependency %u", i);
        memcpy(&from, value.args, sizeof from);
        DEMAND(from.size == value.args_size, "a dependency of %llu bytes", ull(value.args_size));
        DEMAND(is_filled((const unsigned char *)value.args + sizeof from, from.number, from.size - sizeof from), "dependency %u", i);
        mt_add_relaxed(&seen.edges, 1);
    }
    stress_dawdle(rng);
    unsigned char *out = malloc(o.value_size);
    DEMAND(out != NULL, "no memory");
    order head = {o.number + 1, o.value_size, 0};
    memcpy(out, &head, sizeof head);
    fill(out + sizeof head, head.number, o.value_size - sizeof head);
    DEMAND(mt_worker_answer(worker, MT_OUTCOME_OK, MT_CODEC_PICKLE, out, o.value_size) == MT_OK, "no answer");
    free(out);
}

static void *work(void *argument) {
    static const char *const names[WORKERS] = {"worker 0", "worker 1"};
    uint32_t index = (uint32_t)(uintptr_t)argument;
    stress_thread(index, names[index]);
    stress_rng rng = stress_rng_of(mt_load_relaxed(&stress.round), index);
    mt_worker *worker = mt_driver_inline_worker(room.driver, index);
    DEMAND(worker != NULL && mt_worker_hello(worker, 1) == MT_OK, "no worker");
    mt_call call;
    for (int kind; (kind = mt_worker_next(worker, -1, &call)) != MT_KIND_STOP;) {
        DEMAND(kind == MT_KIND_TASK || kind == MT_KIND_DROP, "mt_worker_next gave %d", kind);
        if (kind == MT_KIND_TASK) run_task(worker, &call, &rng);
    }
    mt_worker_close(worker);
    return NULL;
}

/* ---- the submitters ---- */

static void expect(uint64_t handle, uint64_t number) {
    int state;
    do {
        state = mt_driver_wait(room.driver, handle, -1);
    } while (state == MT_E_INTR);
    DEMAND(state == MT_DONE, "task %llu ended as %d", ull(number), state);
    const mt_value *value = mt_driver_value(handle);
    order head;
    memcpy(&head, value->data, sizeof head);
    DEMAND(head.number == number + 1 && head.size == value->size, "a value of %llu bytes", ull(value->size));
    DEMAND(is_filled((const unsigned char *)value->data + sizeof head, head.number, head.size - sizeof head), "value of %llu", ull(number));
    mt_add_relaxed(&seen.bytes, value->size);
}

static void *submit(void *argument) {
    static const char *const names[SUBMITTERS] = {"submitter 0", "submitter 1"};
    uint32_t index = (uint32_t)(uintptr_t)argument;
    stress_thread(WORKERS + index, names[index]);
    stress_rng rng = stress_rng_of(mt_load_relaxed(&stress.round), WORKERS + index);
    unsigned char *bytes = malloc(sizeof(order) + 6 * room.ring_bytes + 8);
    uint64_t handles[TASKS], numbers[TASKS];
    bool waited[TASKS] = {false};
    DEMAND(bytes != NULL, "no memory");
    for (uint32_t i = 0; i < TASKS; i++) {
        stress_at(i);
        order o = {2 * ((uint64_t)index * TASKS + i), some_size(&rng), some_size(&rng)};
        memcpy(bytes, &o, sizeof o);
        fill(bytes + sizeof o, o.number, o.size - sizeof o);
        uint64_t edges[MOST_EDGES];
        uint32_t n_edges = i == 0 || stress_one_in(&rng, 3) ? 0 : (uint32_t)stress_below(&rng, MOST_EDGES + 1);
        for (uint32_t k = 0; k < n_edges; k++) edges[k] = handles[stress_below(&rng, i)];
        handles[i] = mt_driver_submit_edges(room.driver, FN, MT_CODEC_PICKLE, bytes, o.size, edges, n_edges, 0, 0);
        numbers[i] = o.number;
        DEMAND((int64_t)handles[i] > 0, "submitting gave %lld", (long long)handles[i]);
        if (stress_one_in(&rng, 8)) {
            expect(handles[i], o.number);
            waited[i] = true;
        }
    }
    for (uint32_t i = 0; i < TASKS; i++) {
        if (!waited[i]) expect(handles[i], numbers[i]);
    }
    for (uint32_t i = 0; i < TASKS; i++) mt_driver_release(room.driver, handles[i]);
    mt_add_relaxed(&seen.tasks, TASKS);
    free(bytes);
    return NULL;
}

int main(int argc, char **argv) {
    static const uint64_t rings[] = {4096, 65536, 16384};
    stress_begin("driver", argc, argv, 6);
    for (uint64_t round = 0; round < stress.rounds; round++) {
        stress_round(round);
        room.ring_bytes = rings[round % (sizeof rings / sizeof *rings)];
        room.salt = stress_mix(stress.seed ^ round);
        mt_driver_options options = {.inline_workers = WORKERS,
                                     .ring_bytes = room.ring_bytes,
                                     .inbox_capacity = 16,
                                     .parent = -1,
                                     .first_id = 1000,
                                     .stop_limit_ns = 30000000000u,
                                     .host = "here"};
        room.driver = mt_driver_new(&options);
        DEMAND(room.driver != NULL && mt_driver_start(room.driver) == MT_OK, "no engine");
        DEMAND(mt_driver_add_object(room.driver, FN, MT_CODEC_PICKLE, (const uint8_t *)"f", 1) == MT_OK, "no function");
        pthread_t workers[WORKERS], submitters[SUBMITTERS];
        for (uintptr_t i = 0; i < WORKERS; i++) workers[i] = stress_start(work, (void *)i);
        for (uintptr_t i = 0; i < SUBMITTERS; i++) submitters[i] = stress_start(submit, (void *)i);
        for (uint32_t i = 0; i < SUBMITTERS; i++) stress_join(submitters[i]);
        mt_driver_stats stats = mt_driver_stats_now(room.driver);
        DEMAND(stats.guards == 0, "%llu sleeps of the engine were ended by its guard", ull(stats.guards));
        mt_add_relaxed(&seen.sleeps, stats.sleeps);
        mt_driver_stop(room.driver, MT_STOP_DRAIN);
        for (uint32_t i = 0; i < WORKERS; i++) stress_join(workers[i]);
        mt_driver_destroy(room.driver);
    }
    (void)printf("driver: seed %llu: %llu tasks with %llu dependencies, %llu bytes of values compared; the engine slept %llu times\n",
                 ull(stress.seed), ull(seen.tasks), ull(seen.edges), ull(seen.bytes), ull(seen.sleeps));
    return 0;
}
