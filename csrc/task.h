/* task.h - one task: what a future points to and what the graph links together.
 *
 * Role: the record that lives from submit until nobody needs it. References are held by: the Python future (1), the
 * graph while the task is not finished (1), each edge of a dependent that is not finished (1), each list it waits in (1),
 * each of its own edges in another task's list of dependents (1).
 * Thread rule: `state` and `refs` are atomic; `number` and `job.fn` never change; `value` and `blame` are written once, before the final state is published; all else
 * belongs to the thread that made the task until it is submitted, and to the engine thread from then on.
 * State word: low 8 bits mt_state, above them flags set by waiting threads. Waiters sleep on the word itself.
 *
 *   WAITING -> READY -> ASSIGNED -> DONE | FAILED | DEPENDENCY_FAILED | CANCELLED       ASSIGNED -> READY: another attempt
 *
 * WAITING and READY may go to CANCELLED by any thread (compare and swap); every other move is the graph's.
 */
#ifndef MT_TASK_H
#define MT_TASK_H

#include "base.h"

/* cffi:begin */

#define MT_WAITING 0           /* some argument is not there yet, or the engine has not seen the task yet */
#define MT_READY 1             /* can run, has no lane yet */
#define MT_ASSIGNED 2          /* sent to a lane; may be running */
#define MT_DONE 4              /* final: the function returned */
#define MT_FAILED 5            /* final: the function raised, or its worker was lost */
#define MT_DEPENDENCY_FAILED 6 /* final: never run, because a task it needs failed */
#define MT_CANCELLED 7         /* final: never run */
#define MT_STATE_MASK 255
#define MT_FIRST_FINAL 4

typedef struct mt_task mt_task;

/* How a task ended. Immutable once the state is final; lives as long as the task. */
typedef struct mt_value {
    const void *data;
    uint64_t size;
    uint32_t codec;   /* MT_CODEC_* */
    uint32_t outcome; /* MT_OUTCOME_* ; for DEPENDENCY_FAILED that of the root cause */
    uint64_t cause;   /* DEPENDENCY_FAILED: number of the task that failed first */
    uint64_t via;     /* DEPENDENCY_FAILED: number of the argument's task */
} mt_value;

/* Which functions were to blame for a task of state DEPENDENCY_FAILED; 0: a promise. */
typedef struct mt_blame {
    uint64_t cause_fn; /* object id of the function of `cause` */
    uint64_t via_fn;   /* of that of `via` */
} mt_blame;

/* What a new task is made of; all borrowed for the call. */
typedef struct mt_task_spec {
    uint64_t number; /* for people: counts from 0 in order of submission */
    uint64_t fn;     /* object id of the function; 0: a promise, fulfilled from outside */
    uint32_t codec;  /* of the arguments */
    int32_t priority; /* higher runs first */
    uint32_t retries; /* attempts after the first, whatever went wrong; at most 255 */
    uint32_t losses;  /* further ones after the loss of a worker or rank; at most 255 */
    uint32_t n_edges;
    mt_task *const *edges;
    uint32_t n_args;
    const mt_part *args;
    mt_task *begun; /* of a span: a promise that the engine fulfils when it has sent all items; NULL: none. Whoever gave it ends it if the span ends before */
} mt_task_spec;

/* Any thread. One reference, the caller's; takes a reference to every edge and to `begun`. NULL: out of memory. */
MT_EXPORT mt_task *mt_task_new(const mt_alloc *alloc, const mt_task_spec *spec);
MT_EXPORT void mt_task_ref(mt_task *task);
/* Any thread. Gives up one reference; the last one frees, and with it every task that only it kept alive (no recursion). */
MT_EXPORT void mt_task_unref(mt_task *task);
/* Any thread. MT_WAITING ... MT_CANCELLED. */
MT_EXPORT uint32_t mt_task_state(const mt_task *task);
MT_EXPORT uint64_t mt_task_number(const mt_task *task);
/* Any thread. Object id of the function; 0: a promise. */
MT_EXPORT uint64_t mt_task_function(const mt_task *task);
/* Any thread. NULL while the state is not final, and for a cancelled task. */
MT_EXPORT const mt_value *mt_task_value(const mt_task *task);
/* Any thread. NULL in all states but DEPENDENCY_FAILED. */
MT_EXPORT const mt_blame *mt_task_blame(const mt_task *task);
/* Any thread. True when this call made it CANCELLED: the caller must then tell the engine. */
MT_EXPORT bool mt_task_try_cancel(mt_task *task);

/* cffi:end */

#define MT_WAITED 256u /* flag: a thread sleeps on the word */
#define MT_NOTIFY 512u /* flag: the notified list wants it */
#define MT_FLAGS (MT_WAITED | MT_NOTIFY)

/* What the scheduler's side keeps of something that can be run: part of a task, or of an errand. */
typedef struct mt_job {
    uint64_t id; /* in the engine's table; 0: not there */
    uint64_t fn;
    uint64_t cost_ns;  /* what the scheduler booked for it; 0: it is on no lane */
    int64_t age;       /* as in mt_ready */
    uint32_t before;   /* neighbours in the lane's list, as the lower half of their ids; UINT32_MAX: none */
    uint32_t next;
    uint32_t lane;
    uint32_t class_index;
    uint32_t bytes_booked;
    int32_t priority;
    uint32_t units; /* slots that it takes of its lane */
    uint32_t kind;  /* enum mt_job_kind: what it is part of */
} mt_job;

enum mt_job_kind { JOB_TASK, JOB_ERRAND, JOB_PART };

/* Tasks that must be freed by the engine thread: a stack that any thread pushes to. Outlives all tasks. */
typedef struct mt_reaper {
    _Atomic(mt_task *) head;
} mt_reaper;

/* Where the graph has a task. */
enum mt_place { PLACE_NONE, PLACE_WAITING, PLACE_READY, PLACE_TAKEN, PLACE_SETTLED };

/* A place in a doubly linked ring. */
typedef struct mt_node {
    struct mt_node *next;
    struct mt_node *before;
} mt_node;

typedef struct mt_edge {
    mt_task *from;  /* referenced */
    mt_task *owner; /* the task whose argument this is */
    struct mt_edge *next; /* in from's list of dependents */
} mt_edge;

struct mt_task {
    _Atomic uint32_t state;
    _Atomic uint32_t refs;
    const mt_alloc *alloc;
    uint64_t number;
    mt_job job;
    union {
        struct { /* until it has ended */
            const void *args;
            uint64_t args_size;
            mt_blob *args_blob; /* owns `args` when they are large; else they lie behind the edges */
            mt_task *begun;     /* spans: a promise, with a reference; NULL: none, or it is fulfilled */
            uint32_t codec;
            uint32_t open_edges;
        };
        mt_value value; /* from then on */
    };
    mt_blob *value_blob;   /* owns value.data */
    uint64_t value_object; /* id under which the value travelled; 0: never */
    mt_reaper *reaper;     /* set together with value_object */
    mt_edge *dependents;   /* tasks that wait for this one; each edge in the list holds a reference to its owner */
    mt_task *next;         /* in the ended list or a reaper */
    mt_task *ready_next;   /* in the ready list, which holds a reference of its own */
    union {
        mt_node live;   /* until it has ended: in the graph's ring of such tasks */
        mt_blame blame; /* from then on */
    };
    uint32_t n_edges;
    uint8_t retries_left;
    uint8_t losses_left;
    uint8_t place; /* enum mt_place */
    uint8_t ended_flags;
    mt_edge edges[];
};

_Static_assert(sizeof(mt_task) <= 200, "a waiting task may cost 200 bytes");

/* Frees a task whose last reference has gone. One whose value lies in an object table goes to its reaper instead: the
 * engine thread drops the object first and then calls this again. */
void mti_task_free(mt_task *task);
/* Moves the state, keeping the flags. False when the task has been cancelled meanwhile. */
bool mti_task_move(mt_task *task, uint32_t to);
/* Publishes a final state, unless the task has been cancelled meanwhile; returns the state it has now and the flags that
 * waiters had set. */
uint32_t mti_task_publish(mt_task *task, uint32_t final_state, uint32_t *out_flags);
/* Lets go of the arguments' bytes, and of the promise. */
void mti_task_drop_args(mt_task *task);
/* Engine thread: takes all tasks off the reaper, linked by `next`. */
mt_task *mti_reaper_take(mt_reaper *reaper);
/* Gives up the references to the edges. */
void mti_task_drop_edges(mt_task *task);

#endif
