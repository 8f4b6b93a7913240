/* engine_inner.h - what the parts of the engine share: engine.c (events), send.c (what goes down), recall.c (what comes back unrun). */
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
    bool recalling_for_parent;
} lane;

/* What an agent keeps of a task. */
typedef struct errand {
    mt_job job;
    uint64_t parent_id;
    mt_blob *record; /* the TASK record */
} errand;

struct mt_engine {
    const mt_alloc *alloc;
    mt_link *parent;
    mt_graph *graph; /* root only */
    mt_sched *sched;
    mt_objects *objects;
    mt_table *jobs;
    lane *lanes;
    uint32_t n_lanes, max_lanes;
    uint32_t *scratch_lanes; /* for mt_objects_unref */
    mt_reaper reaper;
    uint64_t next_value_object;
    uint64_t results, stale_results, lost, recalled;
    uint64_t objects_sent, objects_mapped;
    uint64_t now_ns; /* of the last dispatch */
    uint64_t due_ns;
    uint64_t owed;   /* jobs that the parent has recalled and not got yet */
    uint32_t given;  /* those that it got since its last RECALL */
    int64_t owed_below;
    uint32_t asked;  /* children that were asked on the parent's behalf */
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

static inline mt_job *job_of(const mt_engine *e, void *entry) {
    return e->graph != NULL ? &((mt_task *)entry)->job : &((errand *)entry)->job;
}

static inline mt_job *job_at(const mt_engine *e, uint32_t index) { return job_of(e, mti_table_at(e->jobs, index)); }

/* engine.c */
void mti_engine_lane_append(mt_engine *engine, lane *l, mt_job *job);
/* The job is on no lane from now on. */
void mti_engine_lane_remove(mt_engine *engine, lane *l, mt_job *job);
/* The lane's booking for a job, in the scheduler's words. */
mt_assignment mti_engine_booking_of(const mt_job *job);
/* The job has left its lane, which was told about before; `entry` is gone afterwards. */
MT_MUST_CHECK int mti_engine_end_job(mt_engine *engine, void *entry, const ending *how);

/* send.c */
/* Whether a value of this size and codec goes as an object, not inside each task. */
static inline bool mti_goes_as_object(uint64_t size, uint32_t codec) { return size > INLINE_VALUE || (codec & MT_CODEC_SHARED) != 0; }
MT_MUST_CHECK int mti_engine_send_head(mt_link *link, uint16_t kind, uint64_t id, uint32_t n);
/* Tells lanes to drop the objects that nobody refers to any more. */
MT_MUST_CHECK int mti_engine_retire_dead_objects(mt_engine *engine);
/* Ready jobs to lanes with credit; `*out_n` grows by how many. */
MT_MUST_CHECK int mti_engine_send_ready(mt_engine *engine, uint64_t *out_n);

/* recall.c */
/* Puts back all of a lane's jobs but those that are begun: the first `started` since HELLO, of which some have ended. */
MT_MUST_CHECK int mti_engine_put_back_after(mt_engine *engine, uint32_t lane_index, uint64_t started);
/* Takes jobs back from lanes that are behind; `*out_n`: how many lanes were asked. */
MT_MUST_CHECK int mti_engine_recall(mt_engine *engine, uint64_t *out_n);
/* The parent wants up to `n` jobs of a priority below `below` back. */
MT_MUST_CHECK int mti_engine_on_recall(mt_engine *engine, uint32_t n, int64_t below);
/* A child has given all back that it could, `n` jobs. */
MT_MUST_CHECK int mti_engine_on_recalled(mt_engine *engine, lane *l, uint32_t n);
/* A child has given this job back. */
MT_MUST_CHECK int mti_engine_come_back(mt_engine *engine, mt_job *job);

#endif
