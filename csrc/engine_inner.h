/* engine_inner.h - what the parts of the engine share: engine.c (events), errands.c (tasks for others), span.c (tasks of many
 * items), send.c (what goes out), recall.c (what comes back unrun). */
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
    bool is_gone; /* children: it said goodbye or was lost */
    bool maps;     /* a worker that can map objects */
    uint64_t finished; /* jobs answered since HELLO */
    uint32_t first_job, last_job; /* what is booked, in order of assignment */
    int32_t lowest;               /* no booked job that may not have begun has a priority below this */
    bool is_changed;              /* a job has come or gone since the last look */
    uint64_t overdue_ns;          /* when it should have answered by; UINT64_MAX: it has nothing to answer */
    uint64_t wanted_since_ns;     /* no job has come or gone since this, when others had nothing to do; 0: not yet */
    uint64_t recalled_ns;         /* the time of the last recall */
    int64_t overtaking;           /* a job of this priority was sent behind lower ones; NOBODY: none was */
    int64_t recall_below;         /* while `recalling`: the priority of the RECALL */
    bool recalling;               /* a RECALL is not answered yet */
    uint32_t recalling_for;       /* the lane that wants them; NO_LANE: this engine itself */
    uint64_t patience_ns;         /* how long after a RECALL in vain the next one may follow, if it is for idle slots */
    uint64_t owed;                /* jobs that the lane has recalled and not got yet */
    uint32_t given;               /* those that it got since its last RECALL */
    uint32_t asked;               /* lanes that were asked on its behalf */
    int64_t owed_floor, owed_below;
    bool closed;                  /* workers: begins nothing */
    bool submits;                 /* tasks come from it: it is told how many slots there are elsewhere */
    uint32_t told;                /* what it was told last */
} lane;

/* How a job ended: a RESULT's header, its bytes, and their owner if they have one. */
typedef struct ending {
    mt_rec_result head;
    mt_part bytes;
    mt_blob *owner;
    bool is_ours; /* a loss: of one of our own lanes, so that nobody has tried again */
} ending;

/* A task for somebody else: from the parent, or from below. */
typedef struct errand {
    mt_job job;      /* first: an errand's address is its job's */
    uint32_t origin; /* lane; NO_LANE: it is gone, and nobody wants the result */
    uint64_t origin_id;
    mt_blob *record; /* the TASK record */
} errand;

typedef struct span span;

/* Some of a span's items, or the combination of values of some: on a lane or ready, like a task. */
typedef struct span_part {
    mt_job job; /* first: a part's address is its job's */
    span *of;
    struct span_part *before, *next; /* in the span's list of parts that have not ended */
    uint64_t first, count;
    mt_blob *values; /* of which codec is MT_CODEC_PARTS: what is to be combined; NULL: items */
    uint32_t losses_left;
} span_part;

/* The value of a part that has ended. */
typedef struct piece {
    uint64_t first, count;
    mt_part bytes;
    mt_blob *owner; /* of the bytes, with a reference; may be NULL when there are none */
    uint32_t codec;
} piece;

/* A task that stands for many items, from when it is ready until its last part has ended. While it is one, the task's or errand's own job is in no
 * table, no queue and on no lane. */
struct span {
    mt_node place; /* in the engine's ring of spans */
    mt_job *whole;
    mt_span head;
    uint64_t bytes;   /* of its record */
    uint64_t args_at; /* errands: where the arguments begin in the record */
    span_part *parts; /* that have not ended; there is at least one */
    piece *pieces;
    uint64_t n_pieces, capacity;
    uint64_t duration_ns; /* of all parts */
    ending failure;       /* of the first part that failed; its bytes have an owner with a reference */
    bool failed;
    bool is_cleared; /* nobody wants more of it, and nothing of it is ready */
};

struct mt_engine {
    const mt_alloc *alloc;
    mt_graph *graph; /* of the tasks that were submitted here */
    mt_sched *sched;
    mt_objects *objects;
    mt_table *jobs; /* of mt_job: tasks', errands' and parts' */
    uint64_t n_errands;
    mt_node spans; /* that are open */
    lane *lanes;
    uint32_t n_lanes, max_lanes;
    uint32_t up; /* the lane of the way up; NO_LANE: this is the root */
    uint32_t *scratch_lanes; /* for mt_objects_unref */
    uint32_t *changed;       /* lanes that are */
    uint32_t n_changed;
    uint64_t look_ns;        /* no lane that is not changed is overdue or stuck before this */
    int64_t lowest;          /* no lane has a `lowest` below this */
    bool has_overtaken;      /* some lane may have an `overtaking` */
    mt_reaper reaper;
    mt_ids ids; /* for values that become objects */
    _Atomic uint64_t own_count;
    uint64_t results, stale_results, lost, recalled;
    uint64_t objects_sent, objects_mapped;
    uint64_t joined_bytes;
    uint64_t now_ns; /* of the last dispatch */
    uint64_t due_ns;
    uint32_t told_total; /* the slots that lanes were last told of */
    bool has_untold;     /* a lane has begun to submit */
    bool said_hello;
    uint32_t said_idle; /* since the last task from above */
    uint64_t idle_since_ns; /* slots that were not said to be idle have nothing to do; 0: there are none */
    int stop_mode;
    char host[HOST_SIZE];
};

static inline mt_job *job_at(const mt_engine *e, uint32_t index) { return mti_table_at(e->jobs, index); }

static inline mt_task *task_of(mt_job *job) { return (mt_task *)(void *)((unsigned char *)job - offsetof(mt_task, job)); }

static inline errand *errand_of(mt_job *job) { return (errand *)(void *)job; }

static inline span_part *part_of(mt_job *job) { return (span_part *)(void *)job; }

/* The task or errand that a job belongs to, for the engine that gave it. */
static inline const mt_job *whole_of(const mt_job *job) {
    return job->kind == JOB_PART ? ((const span_part *)(const void *)job)->of->whole : job;
}

static inline uint32_t origin_of(const mt_job *job) {
    const mt_job *whole = whole_of(job);
    return whole->kind == JOB_ERRAND ? ((const errand *)(const void *)whole)->origin : NO_LANE;
}

/* Whether the job is all that there is of its task: so its origin can have it back. */
static inline bool is_undivided(const mt_job *job) {
    if (job->kind != JOB_PART) return true;
    const span_part *p = (const span_part *)(const void *)job;
    return p->values == NULL && p->count == p->of->head.count;
}

/* Whether the job, or its last items, can go back to its origin: a span can only lose its end. */
static inline bool is_returnable(const mt_job *job) {
    if (job->kind != JOB_PART) return true;
    const span_part *p = (const span_part *)(const void *)job;
    return p->values == NULL && p->first + p->count == p->of->head.first + p->of->head.count;
}

/* engine.c */
void mti_engine_lane_append(mt_engine *engine, lane *l, mt_job *job);
/* The job is on no lane from now on. */
void mti_engine_lane_remove(mt_engine *engine, lane *l, mt_job *job);
/* Jobs have come to the lane, or gone. */
void mti_engine_lane_changed(mt_engine *engine, lane *l);
/* The lane's booking for a job, in the scheduler's words. */
mt_assignment mti_engine_booking_of(const mt_job *job);
/* The job has left its lane, which was told about before; it is gone afterwards. */
MT_MUST_CHECK int mti_engine_end_job(mt_engine *engine, mt_job *job, const ending *how);
/* Whether a job is lost to what may go better the next time; a worker that has ended by SIGXCPU has come to a limit of time (process.h): so it would again. */
bool mti_engine_is_loss(const ending *how);
/* The class of jobs of a function; MT_E_STALE: it is unknown. */
MT_MUST_CHECK int mti_engine_class_of(mt_engine *engine, uint64_t fn, uint32_t *out_class);
/* A new job is ready. */
MT_MUST_CHECK int mti_engine_enqueue(mt_engine *engine, mt_job *job, uint64_t bytes);
/* A job of the table is ready, for the first time or again. */
MT_MUST_CHECK int mti_engine_push(mt_engine *engine, mt_job *job, uint64_t bytes);
/* The job is in no table any more. */
void mti_engine_forget_job(mt_engine *engine, mt_job *job);

/* span.c */
/* The job of a task or errand whose codec says MT_CODEC_SPAN is ready. MT_E_STALE: what combines is unknown, or there is no span in the arguments. */
MT_MUST_CHECK int mti_engine_open_span(mt_engine *engine, mt_job *whole, const void *args, uint64_t size, uint64_t bytes);
/* A part is about to be sent. False: its task was cancelled; the part is gone. */
bool mti_engine_begin_part(mt_engine *engine, span_part *part);
/* The first `items` of a part that is ready become a part of their own; the rest is ready again. */
MT_MUST_CHECK int mti_engine_cut_part(mt_engine *engine, span_part *rest, uint64_t items, span_part **out_front);
/* A part has been sent whole: if no item of its span is left here, whoever submitted it is told. */
void mti_engine_left_queue(mt_engine *engine, const span_part *part);
/* A part that is on no lane is ready again, before others. */
MT_MUST_CHECK int mti_engine_put_back_part(mt_engine *engine, span_part *part);
/* The last items of a part that is on no lane and not ready, but returnable, go back to where it came from: so many units at most. `*out_units`: how many it were. */
MT_MUST_CHECK int mti_engine_give_up_part(mt_engine *engine, span_part *part, uint64_t units, uint64_t *out_units);
/* A lane has given back the last items of a part; the others go on there. MT_E_RECORD: it has not so many. */
MT_MUST_CHECK int mti_engine_shorten_part(mt_engine *engine, span_part *part, uint64_t items);
/* As mti_engine_end_job. */
MT_MUST_CHECK int mti_engine_end_part(mt_engine *engine, span_part *part, const ending *how);
/* As mti_engine_orphan, for the spans of that lane. */
void mti_engine_orphan_spans(mt_engine *engine, uint32_t origin);
/* Forgets all spans; their tasks are told by others. */
void mti_engine_abandon_spans(mt_engine *engine);
MT_MUST_CHECK int mti_engine_check_spans(const mt_engine *engine, uint64_t *out_errands);

/* errands.c */
MT_MUST_CHECK int mti_engine_on_task(mt_engine *engine, uint32_t origin, const mt_rec *rec, const mt_incoming *incoming);
MT_MUST_CHECK int mti_engine_on_object(mt_engine *engine, uint32_t origin, const mt_rec *rec, const mt_incoming *incoming);
void mti_engine_on_drop(mt_engine *engine, uint32_t origin, uint64_t id);
/* Sends a RESULT to where it came from, if somebody is left there. */
MT_MUST_CHECK int mti_engine_tell_origin(mt_engine *engine, const errand *errand, const ending *how);
/* The same, and frees it. */
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
/* No lane is missed that is worth a look. */
MT_MUST_CHECK int mti_engine_check_looks(const mt_engine *engine);
/* A lane wants some of its jobs back. */
MT_MUST_CHECK int mti_engine_on_recall(mt_engine *engine, uint32_t origin, const mt_incoming *incoming);
/* A lane has given all back that it could, `n` jobs. */
MT_MUST_CHECK int mti_engine_on_recalled(mt_engine *engine, lane *l, uint32_t n);
/* A worker says how many tasks it runs at a time now, from which priority on. */
MT_MUST_CHECK int mti_engine_on_worker_slots(mt_engine *engine, uint32_t lane_index, const mt_rec *rec);
/* Tells the parent of slots that it cannot know to be idle. */
MT_MUST_CHECK int mti_engine_say_idle(mt_engine *engine);
/* A lane is lost: it neither gives back nor wants anything. */
MT_MUST_CHECK int mti_engine_end_recalls(mt_engine *engine, uint32_t lane_index);
/* A lane has given this job back, or, of a part, so many of its last items. */
MT_MUST_CHECK int mti_engine_come_back(mt_engine *engine, mt_job *job, const mt_part *value);

#endif
