#include "driver_inner.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "atomic.h"
#include "naps.h"

/* How long a waiter's hurry lasts after it has gone: it may come back with the next task. */
#define HURRY_NS 500000u
#define TIMER_SLACK_NS 1000ul
/* With only bells to wait for: a guard, and the zygote is looked at this often. The second while this rank has no task, for then
 * nobody is kept waiting, and hundreds of ranks on a node cost what they are woken. */
#define GUARD_NAP_NS 200000000
#define IDLE_GUARD_NAP_NS 1000000000
/* A bell may have been rung before the message-passing library shows the message: the first nap on bells alone. Later ones
 * grow up to the guard, for a machine full of idle ranks must be left in peace. */
#define NEAR_NAP_NS 2000000
/* How long a ring may come after what it is for. */
#define LATE_RING_NS 20000000
#define LATE_RING_LOOKS 20
#define MESSAGES_AT_A_TIME 512u
#define KEEP_BYTES (512 << 20)
#define FRAMES_AT_A_TIME 64u
#define MAX_RECORD (UINT64_MAX / 4)

static uint64_t now_ns(void) {
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static bool is_root(const mt_driver *d) { return d->options.parent < 0; }

mt_driver *mt_driver_new(const mt_driver_options *options) {
    if (options->above == NULL) mt_keep_freed_memory(KEEP_BYTES); /* how much a worker keeps is the worker's business */
    const mt_alloc *alloc = mt_alloc_default();
    mt_driver *d = mti_get_zeroed(alloc, 1, sizeof *d);
    if (d == NULL) return NULL;
    d->alloc = alloc;
    mti_ours_init(&d->ours);
    d->options = *options;
    mt_store_relaxed(&d->losses, options->losses);
    strncpy(d->host, options->host, sizeof d->host - 1);
    (void)pthread_mutex_init(&d->notified_lock, NULL);
    if (options->above != NULL) d->uplink = mti_uplink_new(alloc, options->above);
    mt_bell *bell = d->uplink == NULL ? NULL : mti_uplink_bell(d->uplink);
    mt_local_options local = {options->workers, options->inline_workers, options->ring_bytes, options->zygote_argv, options->zygote_envp, bell};
    d->local = mti_local_new(alloc, &local);
    if (options->above != NULL) {
        mti_ids_join(&d->ids, mti_segment_ids(mti_worker_base(options->above)), options->first_id);
    } else if (d->local != NULL) {
        mti_ids_init(&d->ids, mti_segment_ids(mti_local_base(d->local)), options->first_id);
    }
    d->inbox = mt_inbox_new(alloc, options->inbox_capacity);
    if (options->virtual_slots > 0) d->bank = mti_bank_new(alloc, MT_ROLE_CHILD, options->virtual_slots);
    if (d->local == NULL || d->inbox == NULL || (d->bank == NULL && options->virtual_slots > 0) ||
        (d->uplink == NULL && options->above != NULL)) {
        mt_driver_destroy(d);
        return NULL;
    }
    return d;
}

void mt_driver_destroy(mt_driver *d) {
    if (d == NULL || !mti_is_ours(&d->ours)) return; /* a forked child has neither the thread nor the processes; the kernel takes its copy */
    if (d->has_thread) {
        mt_driver_stop(d, MT_STOP_NOW); /* no effect on one that has ended */
        struct timespec until;
        (void)clock_gettime(CLOCK_REALTIME, &until);
        until.tv_sec += (time_t)(d->options.stop_limit_ns / 1000000000u) + 2; /* it sets the limit when it carries the stop out */
        if (pthread_timedjoin_np(d->thread, NULL, &until) != 0) return;
    }
    mt_message message;
    while (d->inbox != NULL && mt_inbox_pop_many(d->inbox, &message, 1) == 1) mti_driver_refuse_message(d, message);
    while (d->notified_first != NULL) {
        mt_task *task = d->notified_first;
        d->notified_first = task->next;
        mt_task_unref(task);
    }
    for (uint32_t i = 0; i < mt_load_relaxed(&d->n_kept); i++) mt_task_unref(d->failures[i]);
    mt_engine_destroy(d->engine);
    for (uint32_t i = 0; i < d->n_peers; i++) {
        mti_link_clean_up(&d->peers[i].link.base);
        mti_joiner_clean_up(&d->peers[i].joiner);
        if (d->peers[i].bell != NULL) (void)munmap(d->peers[i].bell, 4096);
    }
    if (d->transport != NULL) d->transport->destroy(d->transport);
    mt_put(d->alloc, d->peers);
    mti_uplink_destroy(d->uplink);
    mti_bank_destroy(d->bank);
    mti_local_destroy(d->local);
    mt_inbox_destroy(d->inbox);
    (void)pthread_mutex_destroy(&d->notified_lock);
    mti_ours_clean_up(&d->ours);
    mt_put(d->alloc, d);
}

int mt_driver_bell_fd(const mt_driver *d) { return mti_local_fd(d->local); }

static int by_rank(const void *a, const void *b) {
    uint32_t x = ((const mt_peer *)a)->rank, y = ((const mt_peer *)b)->rank;
    return x < y ? -1 : x > y;
}

static mt_peer *find_peer(const mt_driver *d, uint32_t rank) {
    if (d->n_peers == 0) return NULL;
    mt_peer key = {.rank = rank};
    return bsearch(&key, d->peers, d->n_peers, sizeof key, by_rank);
}

int mt_driver_connect(mt_driver *d, mt_transport *transport, const uint32_t *children, uint32_t n_children) {
    d->transport = transport;
    d->peers = mti_get_zeroed(d->alloc, n_children + 1u, sizeof(mt_peer));
    if (d->peers == NULL) return MT_E_NOMEM;
    for (uint32_t i = 0; i < n_children; i++) d->peers[d->n_peers++].rank = children[i];
    if (!is_root(d)) {
        mt_peer *parent = &d->peers[d->n_peers++];
        parent->rank = (uint32_t)d->options.parent;
        parent->is_parent = true;
    }
    for (uint32_t i = 0; i < d->n_peers; i++) {
        mt_peer *peer = &d->peers[i];
        mti_frame_link_init(&peer->link, d->alloc, transport, peer->rank);
        mti_joiner_init(&peer->joiner, d->alloc, MAX_RECORD);
    }
    qsort(d->peers, d->n_peers, sizeof(mt_peer), by_rank);
    return MT_OK;
}

int mt_driver_share_bell(mt_driver *d, uint32_t rank, const char *path) {
    mt_peer *peer = find_peer(d, rank);
    if (peer == NULL || peer->bell != NULL) return MT_E_INVAL;
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0) return MT_E_SYS;
    void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    (void)close(fd);
    if (page == MAP_FAILED) return MT_E_SYS;
    peer->bell = page;
    return MT_OK;
}

uint64_t mt_driver_stop_limit(const mt_driver *d) { return d->options.stop_limit_ns; }
void mt_driver_set_stop_limit(mt_driver *d, uint64_t limit_ns) { d->options.stop_limit_ns = limit_ns; }
void mt_driver_set_losses(mt_driver *d, uint32_t losses) { mt_store_relaxed(&d->losses, losses); }

mt_worker *mt_driver_inline_worker(mt_driver *d, uint32_t i) {
    uint32_t index = mti_local_inline_index(d->local) + i;
    mt_worker *worker = mti_worker_new(mti_local_base(d->local), index, d->options.ring_bytes, mti_local_bell(d->local));
    /* The first of a worker's engine runs in the thread of the task: what is submitted is submitted within what it runs. */
    if (worker != NULL && d->uplink != NULL && i == 0) mti_worker_set_scope(worker, mti_uplink_scope(d->uplink));
    return worker;
}

/* Whether latency matters more than the cores that looking for work takes from others. */
static bool is_in_hurry(const mt_driver *d, uint64_t now) { return d->options.spin != 0 || now < d->hurry_until_ns; }

/* ---- one step ---- */

static void take_stop(mt_driver *d, uint32_t mode) {
    if (d->phase != PHASE_RUNNING && (d->phase != PHASE_STOPPING || mode <= d->stop_mode)) return;
    d->phase = PHASE_STOPPING;
    d->stop_mode = mode;
    d->stop_deadline_ns = 0; /* the stop is carried out in this step */
}

static int take_some(mt_driver *d, uint32_t *out_n) {
    mt_message messages[MESSAGES_AT_A_TIME];
    uint32_t n = *out_n = mt_inbox_pop_many(d->inbox, messages, MESSAGES_AT_A_TIME);
    if (n == 0) return MT_OK;
    mti_gate_open(&d->space_gate);
    for (uint32_t i = 0; i < n; i++) {
        if (messages[i].kind == MT_MSG_STOP) {
            take_stop(d, (uint32_t)(uintptr_t)messages[i].pointer);
            continue;
        }
        if (d->phase != PHASE_RUNNING) {
            mti_driver_refuse_message(d, messages[i]);
            continue;
        }
        d->has_submitted = d->has_submitted || messages[i].kind == MT_MSG_SUBMIT;
        int status = mti_driver_take_message(d, messages[i]);
        if (status != MT_OK) {
            for (uint32_t k = i + 1; k < n; k++) mti_driver_refuse_message(d, messages[k]);
            return status;
        }
    }
    return MT_OK;
}

static int take_messages(mt_driver *d, uint64_t *moved) {
    uint32_t wanted = mt_load_acquire(&d->stop_wanted); /* pairs with mt_driver_stop: what the same thread has pushed before comes first */
    uint32_t n;
    int status = take_some(d, &n);
    *moved += n;
    if (wanted == 0 || n == MESSAGES_AT_A_TIME || status != MT_OK) return status;
    ++*moved;
    take_stop(d, mt_exchange_acq_rel(&d->stop_wanted, 0) - 1);
    return MT_OK;
}

/* A child is lost, or cannot be understood: that costs what it has. It is told to end, if it can be told. Without a parent this rank is of no use. */
static int give_up(mt_driver *d, mt_peer *peer, int why) {
    if (peer->is_parent) return why;
    if (peer->is_given_up) return MT_OK;
    peer->is_given_up = d->has_given_up = true;
    mti_joiner_clean_up(&peer->joiner);
    mt_lost lost = {0, -1, MT_LOST_RANK};
    int status = mt_engine_lane_lost(d->engine, peer->lane, &lost, UINT64_MAX);
    mt_rec stop = {sizeof stop, 0, MT_KIND_STOP, 0, MT_STOP_NOW};
    mt_part part = {&stop, sizeof stop};
    return status == MT_OK ? mti_link_send(&peer->link.base, &part, 1, NULL) : status;
}

static int give_up_lost(mt_driver *d) {
    int status = MT_OK;
    for (uint32_t rank; status == MT_OK && d->transport->next_lost != NULL && d->transport->next_lost(d->transport, &rank);) {
        mt_peer *peer = find_peer(d, rank);
        if (peer != NULL) status = give_up(d, peer, MT_E_PEER);
    }
    return status;
}

static int take_frame(mt_driver *d, const mt_arrival *arrival) {
    mt_peer *peer = find_peer(d, arrival->peer);
    if (peer == NULL || peer->is_given_up) return MT_OK; /* not a neighbour: nobody may send us anything, so nothing is owed */
    mt_frame_reader reader;
    int status = mti_frame_open(&reader, arrival->data, arrival->size);
    if (status == MT_OK && peer->is_parent && (reader.flags & MT_FRAME_HURRY) != 0) d->hurry_until_ns = now_ns() + HURRY_NS;
    while (status == MT_OK) {
        mt_incoming incoming;
        status = mti_frame_next(&reader, &peer->joiner, &incoming);
        if (status == MT_E_NOMEM) return give_up(d, peer, status); /* it announces more bytes than there is memory */
        if (status != MT_OK) break;
        status = peer->is_parent ? mt_engine_from_parent(d->engine, &incoming)
                                 : mt_engine_from_lane(d->engine, peer->lane, &incoming);
    }
    if (status == MT_E_RECORD) return give_up(d, peer, status);
    return status == MT_E_AGAIN ? MT_OK : status;
}

static int take_frames(mt_driver *d, uint64_t *moved) {
    for (uint32_t i = 0; i < FRAMES_AT_A_TIME; i++) {
        mt_arrival arrival;
        int status = d->transport->receive(d->transport, &arrival);
        if (status == MT_E_AGAIN) return MT_OK;
        if (status != MT_OK) return status;
        mt_add_relaxed(&d->frames_in, 1);
        ++*moved;
        status = take_frame(d, &arrival);
        d->transport->release(d->transport, &arrival);
        if (status != MT_OK) return status;
    }
    return MT_OK;
}

static void ring_peer(mt_driver *d, mt_peer *peer) {
    if (peer->bell == NULL) return;
    mt_bell_ring(peer->bell);
    if (peer->is_parent && mt_engine_least_load_ns(d->engine) == 0) mt_bell_end_nap(peer->bell); /* workers wait for more */
}

/* After a send has completed: those who were sent something since all was quiet. The others sleep on; there may be hundreds. */
static void ring_receivers(mt_driver *d, bool all_have_left) {
    for (uint32_t i = 0; i < d->n_peers; i++) {
        mt_peer *peer = &d->peers[i];
        if (!peer->awaits) continue;
        ring_peer(d, peer);
        peer->awaits = !all_have_left;
    }
}

/* Sends what waits. A neighbour's bell is rung when its frame is sent and again when a send has completed: a large frame needs
 * the receiver to look at both times. */
static int flush_peers(mt_driver *d, uint64_t *moved) {
    uint16_t flags = is_in_hurry(d, now_ns()) ? MT_FRAME_HURRY : 0;
    for (uint32_t i = 0; i < d->n_peers; i++) {
        mt_peer *peer = &d->peers[i];
        if (!peer->is_parent) peer->link.flags = flags;
        bool sends = peer->link.frame != NULL || peer->link.base.first != NULL;
        int status = mti_link_pump(&peer->link.base, moved);
        if (status != MT_OK) return status;
        if (!sends) continue;
        mt_add_relaxed(&d->frames_out, 1);
        peer->awaits = true;
        ring_peer(d, peer);
    }
    uint32_t in_flight = d->transport->in_flight(d->transport);
    if (in_flight < d->sends_in_flight) ring_receivers(d, in_flight == 0);
    d->sends_in_flight = in_flight;
    return MT_OK;
}

/* Tells the parent about workers below; the root has nobody to tell and fails when there will never be one. */
static int tell_slots(mt_driver *d) {
    mt_engine_stats stats = mt_engine_stats_now(d->engine);
    uint32_t slots = stats.slots;
    mt_store_relaxed(&d->slots, slots + (d->uplink != NULL ? stats.slots_above : 0));
    mt_store_relaxed(&d->recalled, stats.recalled);
    mt_store_relaxed(&d->ready, stats.ready);
    mt_store_relaxed(&d->objects, stats.objects);
    mt_store_relaxed(&d->objects_sent, stats.objects_sent);
    mt_store_relaxed(&d->objects_mapped, stats.objects_mapped);
    if (d->uplink != NULL) return MT_OK; /* its worker says when it has a slot */
    uint32_t hoped_for = mti_local_alive(d->local);
    if (is_root(d)) return slots + hoped_for == 0 && mt_engine_is_hopeless(d->engine) ? MT_E_WORKERS : MT_OK;
    if (slots < hoped_for) slots = hoped_for; /* workers that still start: work may wait for them here */
    if (slots == d->said_slots) return MT_OK;
    d->said_slots = slots;
    return mt_engine_say_slots(d->engine, slots);
}

static int step(mt_driver *d, uint64_t *moved) {
    int status = take_messages(d, moved);
    if (status == MT_OK) status = mti_local_step(d->local, now_ns(), moved);
    if (status == MT_OK && d->uplink != NULL) {
        status = mti_uplink_step(d->uplink, d->engine, d->has_submitted, moved);
        if (d->has_submitted) mti_gate_open(&d->submit_gate);
        d->has_submitted = false;
    }
    if (status == MT_OK && d->bank != NULL) status = mti_bank_step(d->bank, d->engine, d->bank_lane, now_ns(), moved);
    if (status == MT_OK && d->transport != NULL) status = take_frames(d, moved);
    if (status == MT_OK && d->transport != NULL) status = give_up_lost(d);
    if (status == MT_OK && d->phase == PHASE_RUNNING) status = mt_engine_dispatch(d->engine, now_ns(), moved);
    if (status == MT_OK && d->phase == PHASE_RUNNING) status = tell_slots(d);
    if (status == MT_OK) status = mti_local_flush(d->local, moved);
    if (status == MT_OK && d->transport != NULL) status = flush_peers(d, moved);
    if (status == MT_OK && d->uplink != NULL) status = mti_link_pump(mti_uplink_link(d->uplink), moved);
    mti_driver_wake_waiters(d);
    mt_add_relaxed(&d->steps, 1);
    return status;
}

/* ---- stopping ---- */

static void order_stop(mt_driver *d, uint32_t mode) {
    d->phase = PHASE_STOPPING;
    d->stop_mode = mode;
    d->stop_deadline_ns = 0;
}

static void note_failure(mt_driver *d, int status) {
    if (status == MT_OK || mt_load_relaxed(&d->failure) != MT_OK) return;
    d->failure_errno = status == MT_E_SYS ? errno : 0;
    mt_store_release(&d->failure, status); /* pairs with mt_driver_failure */
}

static void fail(mt_driver *d, int status) {
    note_failure(d, status);
    if (d->phase == PHASE_RUNNING) {
        order_stop(d, MT_STOP_NOW);
    } else {
        d->phase = PHASE_ENDED; /* it cannot even be stopped in order: the kernel ends what is below us */
    }
}

static void carry_out_stop(mt_driver *d) {
    d->stop_deadline_ns = now_ns() + d->options.stop_limit_ns;
    mt_engine_abandon(d->engine);
    int status = mt_engine_stop_children(d->engine, d->stop_mode);
    if (status == MT_OK) status = mti_local_stop(d->local, d->stop_mode);
    note_failure(d, status);
}

/* Moves the stop on: children and processes first, then our own BYE, then the sends that carry it. */
static void go_on_stopping(mt_driver *d) {
    if (d->stop_deadline_ns == 0) carry_out_stop(d);
    if (d->phase == PHASE_STOPPING && mt_engine_children_left(d->engine) == 0 && mti_local_has_ended(d->local)) {
        d->phase = PHASE_LEAVING;
        if (!is_root(d) && mt_engine_say_bye(d->engine) != MT_OK) d->phase = PHASE_ENDED;
    } else if (d->phase == PHASE_LEAVING) {
        bool sent = d->transport == NULL || d->transport->in_flight(d->transport) == 0;
        for (uint32_t i = 0; i < d->n_peers; i++) sent = sent && d->peers[i].link.base.first == NULL;
        if (sent) {
            if (!d->has_given_up) mt_store_release(&d->is_clean, 1);
            d->phase = PHASE_ENDED;
        }
    }
    if (now_ns() >= d->stop_deadline_ns) d->phase = PHASE_ENDED;
}

static void end_thread(mt_driver *d) {
    if (d->transport != NULL) d->transport->destroy(d->transport); /* by the thread that used it, before the library is finalised */
    d->transport = NULL;
    mt_engine_abandon(d->engine);
    mti_driver_wake_waiters(d);
    mt_store_relaxed(&d->cpu_ns, mti_driver_cpu_ns(CLOCK_THREAD_CPUTIME_ID));
    mt_store_release(&d->ended, 1); /* pairs with mt_driver_stats_now */
    mt_message messages[MESSAGES_AT_A_TIME];
    for (uint32_t n; (n = mt_inbox_pop_many(d->inbox, messages, MESSAGES_AT_A_TIME)) > 0;) {
        for (uint32_t i = 0; i < n; i++) mti_driver_refuse_message(d, messages[i]);
    }
    mti_gate_open(&d->space_gate);
    mti_gate_open(&d->notify_gate);
    mti_gate_open(&d->submit_gate);
    mti_gate_open(&d->ended_gate);
}

/* ---- the loop ---- */

/* Whether this rank only plays a node: then it shares its core with many others, and waits for nobody's sake but sleeps at once. */
static bool is_virtual(const mt_driver *d) { return d->bank != NULL && !is_root(d); }

/* No longer than until a virtual worker is to be woken. */
static int64_t until_due(const mt_driver *d, int64_t nap_ns) {
    uint64_t due_ns = mt_engine_due_ns(d->engine), now = now_ns();
    if (due_ns < now + MTI_FIRST_POLL_NS) due_ns = now + MTI_FIRST_POLL_NS; /* looking all the time would not make it happen sooner */
    if (d->bank != NULL && mti_bank_wake_ns(d->bank) < due_ns) due_ns = mti_bank_wake_ns(d->bank);
    if (due_ns <= now) return 0;
    return due_ns - now < (uint64_t)nap_ns ? (int64_t)(due_ns - now) : nap_ns;
}

/* Whether something may happen for which nobody rings. */
static bool polls(const mt_driver *d) {
    if (d->phase != PHASE_RUNNING) return true;
    return d->transport != NULL && (!d->all_peers_near || d->sends_in_flight > 0);
}

static int64_t nap_length(mt_driver *d) {
    if (d->transport == NULL && d->phase == PHASE_RUNNING) return GUARD_NAP_NS;
    bool is_poll = polls(d);
    int64_t shortest = is_poll ? MTI_FIRST_POLL_NS : NEAR_NAP_NS, longest = is_poll ? MTI_LONGEST_POLL_NS : GUARD_NAP_NS;
    if (!is_poll && mt_engine_stats_now(d->engine).outstanding == 0) longest = IDLE_GUARD_NAP_NS;
    d->nap_ns += d->nap_ns / (is_poll ? MTI_POLL_PARTS : 2);
    if (d->nap_ns < shortest) d->nap_ns = shortest;
    if (d->nap_ns > longest) d->nap_ns = longest;
    return d->nap_ns;
}

/* Whether there was something to do after all: whoever comes later rings. */
static bool last_look(mt_driver *d, mt_bell *bell) {
    uint64_t moved = 0;
    int status = step(d, &moved);
    if (status != MT_OK) fail(d, status);
    if (moved == 0 && status == MT_OK) return false;
    mt_bell_disarm(bell);
    d->idle_since_ns = 0;
    d->nap_ns = 0;
    return true;
}

/* Waits a moment without being to be woken by everybody. False: it has done so for long enough, or must not. */
static bool naps(mt_driver *d, uint64_t idle_ns, bool in_hurry) {
    if (d->phase != PHASE_RUNNING || d->options.spin != 0 || is_virtual(d)) return false;
    uint64_t ahead_ns = mt_engine_least_ahead_ns(d->engine);
    bool are_fed = mti_are_fed(mt_engine_least_load_ns(d->engine), ahead_ns);
    if (in_hurry && !are_fed) return false;
    uint64_t nap_ns = mti_nap_ns(d->sends_in_flight > 0 ? 0 : ahead_ns);
    if (idle_ns >= mti_naps_end_ns(nap_ns)) return false;
    mt_bell *bell = mti_local_bell(d->local);
    uint32_t value = mt_load_relaxed(&bell->value);
    if (are_fed) { /* else who has no work waits for the script's next */
        value = mt_bell_arm(bell, MT_BELL_NAPS);
        if (last_look(d, bell)) return true;
    }
    if (mt_bell_sleep(bell, value, (int64_t)nap_ns) == MT_OK) d->idle_since_ns = 0;
    return true;
}

/* The sleep has ended by itself, and the bell is still armed. Work that is there now is work that nobody has rung for, unless a ringer was stopped
 * between the two: it gets a while. */
static void look_for_missed_rings(mt_driver *d, mt_bell *bell) {
    uint64_t moved = 0;
    uint32_t zygotes = mti_local_zygotes(d->local); /* for their deaths nobody rings */
    int status = step(d, &moved);
    if (status != MT_OK) fail(d, status);
    bool is_missed = moved > 0 && zygotes == mti_local_zygotes(d->local);
    struct timespec a_while = {0, LATE_RING_NS / LATE_RING_LOOKS};
    for (uint32_t i = 0; is_missed && i < LATE_RING_LOOKS; i++) {
        is_missed = !mt_bell_was_rung(bell);
        if (is_missed) (void)nanosleep(&a_while, NULL);
    }
    mt_bell_disarm(bell);
    mt_add_relaxed(&d->guards, is_missed);
    if (moved > 0) d->idle_since_ns = 0;
}

static void sleep_on(mt_driver *d, mt_bell *bell, uint32_t value) {
    mt_add_relaxed(&d->sleeps, 1);
    int64_t nap_ns = nap_length(d), sleep_ns = until_due(d, nap_ns);
    int status = mt_bell_doze(bell, value, sleep_ns);
    if (status == MT_OK) {
        d->idle_since_ns = 0;
        d->nap_ns = 0;
    } else if (status == MT_E_TIMEOUT && !polls(d) && sleep_ns == nap_ns) {
        look_for_missed_rings(d, bell);
    } else {
        mt_bell_disarm(bell);
    }
}

/* Nothing moved: look for a while, then sleep until the bell rings or it is time to look again. */
static void rest(mt_driver *d) {
    uint64_t now = now_ns();
    if (mt_load_relaxed(&d->n_waiting) > 0) d->hurry_until_ns = now + HURRY_NS;
    if (d->idle_since_ns == 0) d->idle_since_ns = now;
    uint64_t idle_ns = now - d->idle_since_ns;
    bool in_hurry = is_in_hurry(d, now);
    if (naps(d, idle_ns, in_hurry)) return;
    bool looks = in_hurry || mti_local_has_backlog(d->local); /* who reads a large record soon has room for more of it */
    if (d->options.spin != 0 || (looks && idle_ns < MTI_SPIN_NS && !is_virtual(d))) {
        (void)sched_yield();
        return;
    }
    mt_bell *bell = mti_local_bell(d->local);
    uint32_t value = mt_bell_arm(bell, MT_BELL_SLEEPS);
    if (last_look(d, bell)) return;
    sleep_on(d, bell, value);
}

static void *run(void *argument) {
    mt_driver *d = argument;
    (void)prctl(PR_SET_TIMERSLACK, TIMER_SLACK_NS, 0, 0, 0); /* naps are short: 50 us of slack would double them */
    (void)pthread_setname_np(pthread_self(), "mt-engine");
    d->phase = PHASE_RUNNING;
    int status = MT_OK;
    for (uint32_t i = 0; i < d->n_peers && status == MT_OK; i++) {
        mt_peer *peer = &d->peers[i];
        if (!peer->is_parent) status = mt_engine_add_lane(d->engine, MT_ROLE_CHILD, &peer->link.base, &peer->lane);
    }
    if (status == MT_OK && d->bank != NULL) {
        status = mt_engine_add_lane(d->engine, MT_ROLE_CHILD, mti_bank_link(d->bank), &d->bank_lane);
    }
    if (status == MT_OK) status = mti_local_start(d->local, d->engine, now_ns());
    if (status != MT_OK) fail(d, status);
    while (d->phase != PHASE_ENDED) {
        uint64_t moved = 0;
        status = step(d, &moved);
        if (status != MT_OK) fail(d, status);
        int order = mt_engine_stop_mode(d->engine);
        if (order >= 0 && d->phase == PHASE_RUNNING) order_stop(d, (uint32_t)order);
        if (d->phase != PHASE_RUNNING) go_on_stopping(d);
        if (moved > 0) {
            d->idle_since_ns = 0;
            d->nap_ns = 0;
        } else if (d->phase != PHASE_ENDED) {
            rest(d);
        }
    }
    end_thread(d);
    return NULL;
}

int mt_driver_start(mt_driver *d) {
    mt_peer *parent = is_root(d) ? NULL : find_peer(d, (uint32_t)d->options.parent);
    uint32_t lanes = d->options.workers + d->options.inline_workers + (d->bank != NULL) + d->n_peers;
    mt_link *up = d->uplink != NULL ? mti_uplink_link(d->uplink) : parent != NULL ? &parent->link.base : NULL;
    d->engine = mt_engine_new(d->alloc, lanes, up, d->host);
    if (d->engine == NULL) return MT_E_NOMEM;
    mt_engine_set_ids(d->engine, &d->ids);
    d->said_slots = UINT32_MAX;
    d->all_peers_near = true;
    for (uint32_t i = 0; i < d->n_peers; i++) d->all_peers_near = d->all_peers_near && d->peers[i].bell != NULL;
    sigset_t all, before;
    sigfillset(&all);
    static const int own_faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT}; /* so that fault handlers see our own bugs */
    for (size_t i = 0; i < sizeof own_faults / sizeof *own_faults; i++) sigdelset(&all, own_faults[i]);
    if (pthread_sigmask(SIG_SETMASK, &all, &before) != 0) return MT_E_SYS; /* signals are the interpreter's */
    int error = pthread_create(&d->thread, NULL, run, d);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error != 0) {
        errno = error;
        return MT_E_SYS;
    }
    d->has_thread = true;
    return MT_OK;
}
