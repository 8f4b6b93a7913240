/* engine_inner.h - what the parts of the engine share: engine.c (events), errands.c (tasks for others), send.c (what goes
 * out), recall.c (what comes back unrun). */
#ifndef MT_ENGINE_INNER_H
#define MT_ENGINE_INNER_H

#include "engine.h"
#include "table.h"

/* Values up to this size travel inside each task that needs them; larger ones become objects, once for each lane. */
#define INLINE_VALUE 4096u
#define HOST_SIZE 64u
#define ANY_PRIORITY ((int64_t)1 << 32)
#define NOBODY (-ANY_PRIORITY)
#define NO_JOB UINT32_MAX
#define NO_LANE MT_NO_LANE

typedef struct lane {
    mt_link *link;
    uint32_t role;
    bool up;       /* HELLO has come */
    bool said_bye; /* children */
    bool maps;     /* a worker that can map objects */
    uint64_t finished; /* jobs answered since HELLO */
    uint32_t first_job, last_job; /* what is booked, in order of assignment */
    int32_t lowest;               /* no booked job that may not have begun has a priority below this */
    uint64_t quiet_since_ns;      /* no job has come or gone since; 0: not looked at yet */
    uint64_t recalled_ns;         /* the time of the last recall */
    int64_t overtaking;           /* a job of this priority was sent behind lower ones; NOBODY: none was */
    int64_t recall_below;         /* while `recalling`: the priority of the RECALL */
    bool recalling;               /* a RECALL is not answered yet */
    uint32_t recalling_for;       /* the lane that wants them; NO_LANE: this engine itself */
    uint64_t patience_ns;         /* the way up: how long after a RECALL in vain the next one may follow */
    uint64_t owed;                /* jobs that the lane has recalled and not got yet */
    uint32_t given;               /* those that it got since its last RECALL */
    uint32_t asked;               /* lanes that were asked on its behalf */
    int64_t owed_floor, owed_below;
    bool closed;                  /* workers: begins nothing */
    bool submits;                 /* tasks come from it: it is told how many slots there are elsewhere */
    uint32_t told;                /* what it was told last */
} lane;

/* A task for somebody else: from the parent, or from below. */
typedef struct errand {
    mt_job job;      /* first: an errand's address is its job's */
    uint32_t origin; /* lane; NO_LANE: it is gone, and nobody wants the result */
    uint64_t origin_id;
    mt_blob *record; /* the TASK record */
} errand;

struct mt_engine {
    const mt_alloc *alloc;
    mt_graph *graph; /* of the tasks that were submitted here */
    mt_sched *sched;
    mt_objects *objects;
    mt_table *jobs; /* of mt_job: tasks' and errands' */
    uint64_t n_errands;
    lane *lanes;
    uint32_t n_lanes, max_lanes;
    uint32_t up; /* the lane of the way up; NO_LANE: this is the root */
    uint32_t *scratch_lanes; /* for mt_objects_unref */
    mt_reaper reaper;
    uint64_t next_value_object;
    uint64_t results, stale_results, lost, recalled;
    uint64_t objects_sent, objects_mapped;
    uint64_t now_ns; /* of the last dispatch */
    uint64_t due_ns;
    uint32_t told_total; /* the slots that lanes were last told of */
    bool has_untold;     /* a lane has begun to submit */
    bool said_hello;
    int stop_mode;
    char host[HOST_SIZE];
};

/* How a job ended: a RESULT's header, its bytes, and their owner if they have one. */
typedef struct ending {
    mt_rec_result head;
    mt_part bytes;
    mt_blob *owner;
} ending;

static inline mt_job *job_at(const mt_engine *e, uint32_t index) { return mti_table_at(e->jobs, index); }

static inline mt_task *task_of(mt_job *job) { return (mt_task *)(void *)((unsigned char *)job - offsetof(mt_task, job)); }

static inline errand *errand_of(mt_job *job) { return (errand *)(void *)job; }

static inline uint32_t origin_of(const mt_job *job) {
    return job->is_errand != 0 ? ((const errand *)(const void *)job)->origin : NO_LANE;
}

/* engine.c */
void mti_engine_lane_append(mt_engine *engine, lane *l, mt_job *job);
/* The job is on no lane from now on. */
void mti_engine_lane_remove(mt_engine *engine, lane *l, mt_job *job);
/* The lane's booking for a job, in the scheduler's words. */
mt_assignment mti_engine_booking_of(const mt_job *job);
/* The job has left its lane, which was told about before; it is gone afterwards. */
MT_MUST_CHECK int mti_engine_end_job(mt_engine *engine, mt_job *job, const ending *how);
/* A new job is ready. */
MT_MUST_CHECK int mti_engine_enqueue(mt_engine *engine, mt_job *job, uint64_t bytes);
/* The job is in no table any more. */
void mti_engine_forget_job(mt_engine *engine, mt_job *job);

/* errands.c */
MT_MUST_CHECK int mti_engine_on_task(mt_engine *engine, uint32_t origin, const mt_incoming *incoming);
MT_MUST_CHECK int mti_engine_on_object(mt_engine *engine, uint32_t origin, const mt_incoming *incoming);
void mti_engine_on_drop(mt_engine *engine, uint32_t origin, uint64_t id);
/* Tells where it came from; frees it. */
MT_MUST_CHECK int mti_engine_end_errand(mt_engine *engine, errand *errand, const ending *how);
void mti_engine_free_errand(mt_engine *engine, errand *errand);
/* Nobody is left to want what came from this lane: what is not on a lane is dropped, of the rest the results; objects are let go. */
void mti_engine_orphan(mt_engine *engine, uint32_t origin);
/* An orphan that is on no lane. */
void mti_engine_drop_orphan(mt_engine *engine, mt_job *job);
/* Tells lanes that submit how many slots there are elsewhere, when that has changed much. */
MT_MUST_CHECK int mti_engine_tell_slots_elsewhere(mt_engine *engine);

/* send.c */
/* Whether a value of this size and codec goes as an object, not inside each task. */
static inline bool mti_goes_as_object(uint64_t size, uint32_t codec) { return size > INLINE_VALUE || (codec & MT_CODEC_SHARED) != 0; }
MT_MUST_CHECK int mti_engine_send_head(mt_link *link, uint16_t kind, uint64_t id, uint32_t n);
/* Tells lanes to drop the objects that nobody refers to any more. */
MT_MUST_CHECK int mti_engine_retire_dead_objects(mt_engine *engine);
/* Ready jobs to lanes with credit, then up; `*out_n` grows by how many. */
MT_MUST_CHECK int mti_engine_send_ready(mt_engine *engine, uint64_t *out_n);

/* recall.c */
/* Puts back all of a lane's jobs but those that are begun: the first `started` since HELLO, of which some have ended. */
MT_MUST_CHECK int mti_engine_put_back_after(mt_engine *engine, uint32_t lane_index, uint64_t started);
/* Takes jobs back from lanes that are behind; `*out_n`: how many lanes were asked. */
MT_MUST_CHECK int mti_engine_recall(mt_engine *engine, uint64_t *out_n);
/* A lane wants some of its jobs back. */
MT_MUST_CHECK int mti_engine_on_recall(mt_engine *engine, uint32_t origin, const mt_incoming *incoming);
/* A lane has given all back that it could, `n` jobs. */
MT_MUST_CHECK int mti_engine_on_recalled(mt_engine *engine, lane *l, uint32_t n);
/* A worker says how many tasks it runs at a time now, from which priority on. */
MT_MUST_CHECK int mti_engine_on_worker_slots(mt_engine *engine, uint32_t lane_index, const mt_rec *rec);
/* A lane is lost: it neither gives back nor wants anything. */
MT_MUST_CHECK int mti_engine_end_recalls(mt_engine *engine, uint32_t lane_index);
/* A lane has given this job back. */
MT_MUST_CHECK int mti_engine_come_back(mt_engine *engine, mt_job *job);

#endif
