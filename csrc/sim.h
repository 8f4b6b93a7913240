/* sim.h - a whole job in virtual time: real engines, virtual workers, a modelled network, a seed.
 *
 * Role: says how a job of hundreds of thousands of workers would run, with the engine, graph, scheduler, links and records that ship. Modelled are only
 * what a machine does: how long the engine thread of a rank computes (mt_sim_costs), how long frames travel (LogGP), when an idle rank
 * looks (as driver.c), how long tasks last (bank.h). docs/simulator.md tells more.
 * A rank is a server: a step takes everything that has arrived, costs time, and what it sends leaves at its end. What arrives meanwhile waits for the
 * next step. Rank 0 runs the script; each other rank is a node with workers; rank r has the children r * fanout + 1 ...
 * Deterministic: the same options give the same events, whatever the machine.
 * With small frames, few sends at a time, refusals, wild delays, deaths and `check` it is an explorer of faults.
 * Thread rule: one thread.
 */
#ifndef MT_SIM_H
#define MT_SIM_H

#include "transport.h"
#include "workload.h"

/* cffi:begin */

/* Time of the engine thread, in picoseconds. */
typedef struct mt_sim_costs {
    uint64_t step;      /* each step that finds something */
    uint64_t lane;      /* looking at one lane, in each step */
    uint64_t frame_in;  /* a frame received, whatever is in it; the library's share included */
    uint64_t frame_out; /* a frame sent */
    uint64_t byte_in;   /* a byte of a received frame */
    uint64_t byte_out;  /* a byte of a sent frame */
    uint64_t submit;    /* root: a task goes into the graph */
    uint64_t edge;      /* root: each edge of a task, from submission to its end */
    uint64_t assign;    /* root: a ready task goes to a lane */
    uint64_t end;       /* root: a result ends its task */
    uint64_t take;      /* agent: a task comes in */
    uint64_t forward;   /* agent: a task goes to a lane */
    uint64_t result;    /* agent: a result comes in and goes up */
    uint64_t cut;       /* agent: a part of a span goes to a lane */
    uint64_t collect;   /* agent: a part's value comes in */
    uint64_t byte_join; /* a byte of the values of a span's parts, each time they are put together */
    uint64_t nap;       /* with shared cores: a sleep, and a look that finds nothing */
    uint64_t wake;      /* agent: a worker that sleeps gets a task */
} mt_sim_costs;

typedef struct mt_sim_options {
    uint64_t seed;
    uint32_t nodes;       /* ranks with workers: 1 .. ranks - 1 */
    uint32_t per_node;    /* workers of each, at most */
    uint64_t workers;     /* altogether: the last node may have fewer */
    uint32_t one_bank;    /* 1: one lane with many slots for each node, instead of a lane for each worker */
    uint32_t fanout;
    uint32_t frame_bytes; /* of a frame, at most; 256 at least */
    uint32_t sends;       /* frames that a rank may have under way; 0: any number */
    uint32_t cores;       /* that ranks and script share; 0: each has one of its own */
    uint32_t naps;        /* 0: idle ranks look all the time; 1: as driver.c does */
    uint64_t nap_late_ns; /* by which a nap is longer than it was meant to be */
    uint64_t bell_ns;     /* from a local event to the look of a sleeping rank */
    uint64_t latency_ns;  /* LogGP: L; o is in the costs of a frame */
    uint64_t byte_ps;     /* G: picoseconds for each byte */
    uint64_t jitter_ppm;  /* each latency grows by an evenly drawn share of at most this many millionths */
    uint32_t submits_range;      /* 0: a call for each task; 1: map over a range. Only shapes without edges */
    uint32_t part_bytes;         /* of a range: the value of a part of n items is so many bytes and n */
    uint64_t submit_call_ns;     /* what the script's thread needs for each task */
    uint64_t submit_span_ns;     /* the same for each span */
    uint32_t inbox;              /* tasks that wait for the root; then the script does */
    uint64_t worker_overhead_ns; /* of each task */
    uint64_t detect_ns;          /* from a node's death to the news at its parent */
    uint32_t start_at_once;      /* 1: the script does not wait for the workers */
    uint32_t refusals_ppm;       /* exploring: how often the transport has no frame */
    uint32_t check;              /* exploring: 1: every engine checks itself after each step */
    mt_sim_costs costs;
    mt_workload_options work;
} mt_sim_options;

/* Ranks of one depth; counted from the submission of the first task. */
typedef struct mt_sim_level {
    uint64_t ranks;
    uint64_t workers;
    uint64_t steps;
    uint64_t frames_in, frames_out;
    uint64_t bytes_in, bytes_out;
    uint64_t tasks_in, tasks_out, results_in;
    uint64_t cpu_ns;        /* of the engine threads */
    uint64_t cpu_tasks_ns;  /* of that: graph, scheduler, records, wake-ups of workers */
    uint64_t cpu_frames_ns; /* of that: frames and their bytes */
    uint64_t busiest_ns;    /* of the rank with most */
    uint64_t max_queue;     /* frames that waited for a rank, at most */
    uint64_t waited_ns;     /* by frames that had arrived, until they were taken */
    uint64_t flight_ns;     /* by frames sent, until they arrived */
} mt_sim_level;

#define MT_SIM_BUCKETS 512

typedef struct mt_sim_result {
    uint64_t start_ns; /* submission of the first task */
    uint64_t end_ns;   /* the last task has ended; 0: not yet */
    uint64_t slots_ns; /* all workers were up */
    uint64_t submitted, done, failed, dependency_failed, cancelled; /* of a range: items */
    uint64_t outstanding;
    uint64_t work_ns;   /* durations of all tasks */
    uint64_t useful_ns; /* of the results that came */
    uint64_t runs;      /* tasks, or parts of a range, that workers have run */
    uint64_t lost;          /* tasks or parts that died with a lane, of all engines */
    uint64_t stale_results; /* of the root */
    uint64_t nodes_killed, workers_killed;
    uint64_t slots;     /* at the end */
    uint64_t events;
    uint64_t script_blocked_ns; /* the script waited for room */
    uint64_t most_outstanding; /* tasks or spans that the root held, at most */
    uint32_t levels;
    uint32_t is_hopeless; /* 1: no worker was left, and the rest was given up */
    uint64_t bucket_ns;   /* of `running` */
    double running[512]; /* MT_SIM_BUCKETS: workers that run a task, averages over consecutive times from start_ns on */
} mt_sim_result;

typedef struct mt_sim mt_sim;

/* MT_E_INVAL, MT_E_NOMEM. */
MT_EXPORT MT_MUST_CHECK int mt_sim_new(const mt_alloc *alloc, const mt_sim_options *options, mt_sim **out_sim);
MT_EXPORT void mt_sim_destroy(mt_sim *sim);
/* Before the first run: rank `rank`, and everything below it, dies `after_ns` after the first submission. Ranks are 1 .. nodes. */
MT_EXPORT MT_MUST_CHECK int mt_sim_kill_node(mt_sim *sim, uint32_t rank, uint64_t after_ns);
/* The same for one worker, which starts again at once. */
MT_EXPORT MT_MUST_CHECK int mt_sim_kill_worker(mt_sim *sim, uint32_t rank, uint32_t worker, uint64_t after_ns);
/* At most `events` events. 1: there are more; 0: every task has ended; MT_E_STALE: nothing can happen any more, but tasks have not ended;
 * otherwise what an engine or its check said. */
MT_EXPORT MT_MUST_CHECK int mt_sim_run(mt_sim *sim, uint64_t events);
/* After the end: lets everything under way arrive and gives the function up. As mt_sim_run. */
MT_EXPORT MT_MUST_CHECK int mt_sim_settle(mt_sim *sim);
/* After mt_sim_settle: jobs, objects, frames and records that are left; 0 is right. */
MT_EXPORT uint64_t mt_sim_residue(const mt_sim *sim);
/* Every engine and every bank checks itself. */
MT_EXPORT MT_MUST_CHECK int mt_sim_check(const mt_sim *sim);
MT_EXPORT void mt_sim_result_now(const mt_sim *sim, mt_sim_result *out);
MT_EXPORT mt_sim_level mt_sim_level_now(const mt_sim *sim, uint32_t level);
/* The depth of a rank in the tree: 0 for the root. */
MT_EXPORT uint32_t mt_sim_depth(uint32_t rank, uint32_t fanout);

/* cffi:end */

#endif
