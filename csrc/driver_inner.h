/* driver_inner.h - what the halves of the driver share: driver.c (the engine thread) and handles.c (everybody else's calls). */
#ifndef MT_DRIVER_INNER_H
#define MT_DRIVER_INNER_H

#include <pthread.h>
#include <time.h>

#include "bank.h"
#include "driver.h"
#include "inbox.h"
#include "local.h"
#include "ours.h"
#include "uplink.h"

/* Kinds of messages in the inbox; each says what its pointer is and that the receiver owns it. */
enum mt_message_kind {
    MT_MSG_SUBMIT,  /* mt_task, one reference */
    MT_MSG_CANCEL,  /* mt_task, one reference */
    MT_MSG_CANCEL_ALL,
    MT_MSG_FULFIL,  /* mt_fulfilment */
    MT_MSG_OBJECT,  /* mt_new_object */
    MT_MSG_DROP,    /* the object's id as a number */
    MT_MSG_STOP     /* MT_STOP_* as a number */
};

typedef struct mt_fulfilment {
    mt_task *task; /* one reference */
    mt_blob *blob;
    uint32_t outcome;
    uint32_t codec;
} mt_fulfilment;

typedef struct mt_new_object {
    uint64_t id;
    mt_blob *blob;
    uint32_t codec;
} mt_new_object;

/* A word that threads sleep on until something has happened. */
typedef struct mt_gate {
    _Atomic uint32_t value;
    _Atomic uint32_t sleepers;
} mt_gate;

/* Waker: after the happening is visible. */
void mti_gate_open(mt_gate *gate);
/* Sleeper: announce, then look, then sleep or leave. */
uint32_t mti_gate_enter(mt_gate *gate);
MT_MUST_CHECK int mti_gate_sleep(mt_gate *gate, uint32_t value, int64_t timeout_ns);
void mti_gate_leave(mt_gate *gate);

typedef struct mt_peer {
    uint32_t rank;
    uint32_t lane; /* children */
    bool is_parent;
    mt_frame_link link;
    mt_joiner joiner;
    mt_bell *bell; /* NULL: on another node */
    bool is_given_up; /* children: it is lost, or sent what is no record; what it still sends does not count */
    bool awaits;   /* a frame to it may not have left: it is rung when sends complete */
} mt_peer;

enum mt_phase { PHASE_NEW, PHASE_RUNNING, PHASE_STOPPING, PHASE_LEAVING, PHASE_ENDED };

#define MT_FAILURES_KEPT 256

struct mt_driver {
    mt_ours ours; /* in a forked child there is no engine thread: everything is as after its end */
    const mt_alloc *alloc;
    mt_driver_options options;
    char host[64];
    mt_local *local;
    mt_bank *bank; /* NULL: no virtual slots */
    uint32_t bank_lane;
    mt_uplink *uplink; /* NULL: this is no worker's engine */
    mt_engine *engine;
    mt_inbox *inbox;
    mt_transport *transport; /* NULL: alone */
    mt_peer *peers;          /* sorted by rank */
    uint32_t n_peers;
    bool all_peers_near; /* all have bells */
    pthread_t thread;
    bool has_thread;

    /* written by the engine thread, read by any */
    _Atomic uint32_t ended; /* 1: the engine thread is gone */
    _Atomic int failure;
    int failure_errno; /* of a failed system call; written before `failure` */
    _Atomic uint32_t is_clean;
    _Atomic uint64_t n_ended;
    _Atomic uint64_t slots;
    _Atomic uint64_t recalled;
    _Atomic uint64_t ready, objects, objects_sent, objects_mapped;
    _Atomic uint64_t cpu_ns; /* of the engine thread, once it has ended */
    mt_gate ended_gate;   /* n_ended or `ended` has changed */
    mt_gate space_gate;   /* the inbox has room again */
    mt_gate submit_gate;  /* a worker's engine: something was submitted, or the engine has ended */
    mt_gate notify_gate;  /* the notified list is not empty, or the engine has ended */

    /* written by any */
    _Atomic uint32_t stop_wanted; /* 1 + MT_STOP_*, of who found the inbox full; 0: nobody did */
    _Atomic uint32_t n_waiting; /* threads that wait for a task now */
    _Atomic uint32_t n_helping; /* of them, those that run tasks meanwhile */
    _Atomic uint64_t n_submitted;
    _Atomic uint64_t next_number;
    _Atomic uint32_t losses; /* as in the options, or set since */
    mt_ids ids; /* of objects */
    pthread_mutex_t notified_lock;
    mt_task *notified_first, *notified_last; /* a reference each */

    /* the first tasks that failed, a reference each; written by the engine thread, `n_kept` last, read by any */
    mt_task *failures[MT_FAILURES_KEPT];
    _Atomic uint32_t n_kept;
    _Atomic uint64_t n_failed;

    /* the engine thread's own */
    enum mt_phase phase;
    uint32_t stop_mode;
    uint64_t stop_deadline_ns;
    uint64_t idle_since_ns; /* 0: busy */
    uint64_t hurry_until_ns; /* somebody waits for an answer, or did a moment ago */
    int64_t nap_ns;
    uint32_t sends_in_flight;
    uint32_t said_slots;
    bool has_submitted; /* since the last step */
    bool has_given_up;  /* some peer */
    _Atomic uint64_t steps, sleeps, guards, frames_in, frames_out;
};

/* Looks at the inbox's messages for the engine: MT_OK or what is final for the engine. */
MT_MUST_CHECK int mti_driver_take_message(mt_driver *driver, mt_message message);
/* Gives up what a message owns when no engine will see it any more; tasks become CANCELLED. */
void mti_driver_refuse_message(mt_driver *driver, mt_message message);
/* Processor time by a clock of a thread; 0: the clock is gone. */
uint64_t mti_driver_cpu_ns(clockid_t clock);
/* Wakes whoever waits for tasks that have ended. */
void mti_driver_wake_waiters(mt_driver *driver);

#endif
