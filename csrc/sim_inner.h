/* sim_inner.h - what the parts of the simulator share: sim.c (events, network, building, answers), sim_script.c (the script) and sim_step.c (a
 * rank's steps). */
#ifndef MT_SIM_INNER_H
#define MT_SIM_INNER_H

#include "bank.h"
#include "link.h"
#include "naps.h"
#include "pace.h"
#include "sim.h"

#define NEVER UINT64_MAX
#define FUNCTION 1u          /* the script's only function */
#define FUNCTION_BYTES 512u  /* a small pickled function */
#define MILLION 1000000u
#define NO_WORKER UINT32_MAX
#define SCRIPT UINT32_MAX /* among ranks */
/* As in driver.c, whose waiting is modelled by `look`. */
#define MESSAGES_AT_A_TIME 512u
#define FRAMES_AT_A_TIME 64u

/* A frame being filled: of full size, used again and again. */
typedef struct blank {
    mt_frame frame; /* first: a frame's address is its blank's */
    struct blank *next;
    _Alignas(16) unsigned char data[];
} blank;

/* A frame that has been sent, in memory of just its size. */
typedef struct parcel {
    struct parcel *next;
    uint64_t arrived_ns;
    uint32_t from, to;
    uint32_t size;
    _Alignas(16) unsigned char data[];
} parcel;

typedef struct sim_transport {
    mt_transport base;
    mt_sim *sim;
    uint32_t rank;
} sim_transport;

typedef struct child {
    mt_frame_link link;
    mt_joiner joiner;
    uint32_t lane;
    bool is_lost;
    uint64_t last_down_ns, last_up_ns; /* when the last frame arrives: frames do not overtake */
} child;

/* News of a death for the engine above. */
typedef struct loss {
    struct loss *next;
    uint64_t at_ns;
    uint32_t worker; /* NO_WORKER: the child */
    uint32_t child;
} loss;

typedef struct node {
    sim_transport transport;
    mt_engine *engine; /* NULL: dead */
    mt_frame_link up;
    mt_joiner joiner;
    child *children;
    uint32_t first_child, n_children, parent, depth;
    mt_bank **banks;
    uint64_t *due_ns;      /* of each bank */
    uint32_t *got;         /* numbers of the banks that got tasks in this step */
    uint32_t n_got;
    mt_bank_list got_list; /* the same, before they are counted */
    uint64_t next_due_ns;  /* the least of due_ns */
    uint32_t n_banks, slots; /* of each bank */
    uint32_t first_bank;     /* its lane */
    uint32_t workers;
    parcel *arrived, *last_arrived;
    uint64_t n_arrived;
    loss *losses;
    uint64_t busy_until_ns, wake_at_ns, line_free_ns;
    uint64_t idle_ns; /* the end of the last step that had something to do: naps grow since */
    uint32_t under_way, said_slots;
    uint64_t nap_ns; /* of naps before it polls or sleeps; 0: it looks instead */
    bool has_backlog;
    uint64_t cpu_ns;
    uint64_t results, joined_bytes; /* of its engine until the last step */
} node;

/* What a step did, for its price. */
typedef struct deeds {
    uint64_t submitted, edges, frames_in, bytes_in, frames_out, bytes_out, tasks_in, tasks_out, results_in, joined_bytes, woken;
} deeds;

/* A part of the range that has been submitted and has not ended. */
typedef struct sent_span {
    mt_task *task; /* with a reference */
    mt_task *begun; /* its promise, with a reference */
    uint64_t first, count, submitted_ns;
    uint64_t begun_ns, free_ns; /* when the script knows that all items were sent, and that it has ended; NEVER: not yet */
} sent_span;

enum event_kind { EVENT_STEP, EVENT_FRAME, EVENT_DEATH, EVENT_LOSS, EVENT_CORE };

typedef struct event {
    uint64_t at_ns;
    uint64_t sequence;
    parcel *parcel;  /* EVENT_FRAME */
    uint32_t rank;
    uint32_t detail; /* EVENT_DEATH: worker; EVENT_LOSS: child */
    uint32_t kind;
} event;

typedef struct death {
    uint32_t rank, worker;
    uint64_t after_ns;
} death;

/* Workers that run a task, over time. */
typedef struct histogram {
    uint64_t start_ns, width_ns;
    double within[MT_SIM_BUCKETS]; /* what a change adds to the average of its own bucket */
    double after[MT_SIM_BUCKETS];  /* and to all later ones */
} histogram;

struct mt_sim {
    const mt_alloc *alloc;
    mt_sim_options options;
    mt_workload work;
    mt_pace pace;
    sent_span spans[MT_PACE_UNDER_WAY];
    uint32_t n_spans;
    struct {
        uint64_t done, failed, cancelled;
    } items; /* of spans */
    uint64_t random;
    node *nodes;
    uint32_t n_ranks, n_levels;
    mt_sim_level *levels;
    event *heap;
    uint64_t heap_size, heap_capacity, next_sequence, n_events;
    blank *blanks;
    parcel *leaving, *last_leaving; /* sent in the step that runs */
    death *deaths;
    uint64_t n_deaths, death_capacity;
    bool has_started, has_ended, is_settling, is_hopeless;
    uint64_t start_ns, end_ns, slots_ns, put, queued, script_next_ns, script_blocked_ns;
    uint64_t runs, useful_ns, nodes_killed, workers_killed, most_outstanding;
    uint64_t lost; /* tasks with their lane, in engines that are dead themselves */
    histogram running;
    uint32_t *line; /* ranks, and the script, that want a core: a ring of n_ranks + 1 */
    uint32_t line_first, line_length, cores_busy;
    uint64_t script_until_ns; /* it has or had a core until then; NEVER: it has one of its own */
    bool script_waits;        /* for room, without a core */
};

/* sim_step.c */
/* Something that the rank must look at has happened, or its time has come: what arrived is taken, and what is sent leaves at the step's end. */
MT_MUST_CHECK int mti_sim_step(mt_sim *sim, node *x, uint64_t now_ns);
MT_MUST_CHECK int mti_sim_check_node(const node *x);

/* sim_script.c */
/* What the script has submitted by now goes into the root's engine. */
MT_MUST_CHECK int mti_script_submit(mt_sim *sim, node *root, uint64_t now_ns, deeds *did);
/* When there is more of it; 0: now. */
uint64_t mti_script_due_ns(const mt_sim *sim);
/* Whether nobody waits for a result yet. */
bool mti_script_is_submitting(const mt_sim *sim);
/* Nothing more is submitted. */
void mti_script_give_up(mt_sim *sim);
/* After a step of the root: sees what has ended. */
void mti_script_look(mt_sim *sim, uint64_t now_ns);
void mti_script_clean_up(mt_sim *sim);

/* The script puts what it can by now. */
void mti_script_put(mt_sim *sim, uint64_t now_ns);

/* sim_cores.c: only with shared cores */
/* A rank has to step, or the script (SCRIPT) goes on: now, or when a core is free. */
MT_MUST_CHECK int mti_cores_want(mt_sim *sim, uint32_t who, uint64_t now_ns);
/* Who had a core until now gives it up. */
MT_MUST_CHECK int mti_cores_on_free(mt_sim *sim, uint32_t who, uint64_t now_ns);

/* sim.c */
MT_MUST_CHECK int mti_sim_post(mt_sim *sim, event e);
/* Has a rank's next step be at `at_ns` at the latest. */
MT_MUST_CHECK int mti_sim_wake(mt_sim *sim, uint32_t rank, uint64_t at_ns);
/* When a rank that waits sees what happens at `at_ns`. */
uint64_t mti_sim_look(const mt_sim *sim, const node *x, uint64_t at_ns, bool is_local);
/* When a rank that waits looks next, whether something has happened or not. */
uint64_t mti_sim_next_look(const mt_sim *sim, const node *x);

#endif
