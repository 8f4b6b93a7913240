/* frames.h - every message between engines, workers and zygotes, in one table.
 *
 * Role: a record is one message; pieces carry records (a record that is too large for one piece travels in
 * several); a frame is one transport message full of pieces. A shared-memory ring carries the same pieces.
 *
 *   frame  = mt_frame_head  piece*            ring = piece*
 *   piece  = u32 size, u32 flags, `size` bytes, padding to 8
 *   record = mt_rec (24 bytes), body          rec.size counts both
 *
 * All numbers are in the byte order of the machine: the start-up handshake refuses a mixed job.
 * Thread rule: pure functions; a joiner belongs to one thread.
 */
#ifndef MT_FRAMES_H
#define MT_FRAMES_H

#include "base.h"

/* cffi:begin */

/* Who may send a kind, and to whom: bits. */
#define MT_ROLE_PARENT 1 /* the engine above: root or relay */
#define MT_ROLE_CHILD 2  /* the engine below */
#define MT_ROLE_WORKER 4 /* runs tasks */
#define MT_ROLE_ZYGOTE 8 /* forks and reaps workers */

/* How the bytes of arguments and values are encoded. The core only carries this number; codec.py owns it. */
#define MT_CODEC_NONE 0
#define MT_CODEC_MARSHAL 1
#define MT_CODEC_PICKLE 2
#define MT_CODEC_BUFFERS 3 /* a pickle with out-of-band buffers behind it */
#define MT_CODEC_LOST 4    /* an mt_lost, then the host's name */
#define MT_CODEC_FLAT 5    /* arguments: marshalled scalars, with an ellipsis for each value of another task */
#define MT_CODEC_PARTS 6   /* values in a row, each an mt_parts_head, its bytes, padding to 8: of a span's parts, in order */
#define MT_CODEC_KIND 15   /* mask: one of the above, without the bits below */
#define MT_CODEC_KWARGS 16 /* bit: (args, kwargs) rather than args alone */
#define MT_CODEC_SHARED 32 /* bit of a value: it always travels as an object, and a worker decodes it once for all tasks */
#define MT_CODEC_MAPPED 64 /* bit of an OBJECT to a worker: instead of the bytes comes an mt_where */
#define MT_CODEC_SPAN 128  /* bit, arguments: an mt_span, then bytes of the encoding that the other bits say */

/* How a task ended: `n` of a RESULT record. */
#define MT_OUTCOME_OK 0
#define MT_OUTCOME_ERROR 1     /* the function raised; the value is the pickled exception */
#define MT_OUTCOME_LOST 2      /* its worker or rank died; codec MT_CODEC_LOST */
#define MT_OUTCOME_CANCELLED 3 /* dropped before it ran */
#define MT_OUTCOME_RETURNED 4  /* not begun and given back after a RECALL. Value of a span: a uint64_t, how many of its last items; the others go on */

/* Kinds of records. Each row of mt_kind_table says who sends it to whom and which kind answers it. */
#define MT_KIND_TASK 1   /* both ways: run this. n: number of edges. Upwards: a sub-task, or one that there is no slot for here */
#define MT_KIND_RESULT 2 /* to where the task came from: it ended. n: MT_OUTCOME_*. Gives the credit back */
#define MT_KIND_OBJECT 3 /* both ways: bytes that later tasks refer to by id */
#define MT_KIND_DROP 4   /* by the sender of the object: it will not refer to it again */
#define MT_KIND_HELLO 5  /* upwards, first of all: ready. id: process id, n: number of worker slots */
#define MT_KIND_STOP 6   /* downwards: n = MT_STOP_* */
#define MT_KIND_BYE 7    /* upwards, last of all: everything below me has ended, and what is booked here is lost */
#define MT_KIND_SPAWN 8  /* engine -> zygote: fork worker n */
#define MT_KIND_KILL 9   /* engine -> zygote: SIGKILL worker n */
#define MT_KIND_EXITED 10 /* zygote -> engine: worker n, process `id`, has ended; body mt_lost */
#define MT_KIND_SLOTS 11 /* n worker slots: child: below me now; engine, to whoever sends tasks up: elsewhere than at you. Worker: n tasks at a
                          * time, of priorities from `id` (as an int64_t) on; fewer than before: what I have not begun I will not begin */
#define MT_KIND_RESUME 12 /* engine -> worker: tasks from here on were sent after the recall */
#define MT_KIND_RECALL 13 /* by the sender of tasks: give back up to n that have not begun. Body: mt_rec_recall */
#define MT_KIND_RECALLED 14 /* what could be given back has been, as RESULTs; n of them */
#define MT_KIND_IDLE 15 /* upwards: n worker slots have nothing to do, though the parts sent to me would fill them: some have not ended that are nearly done */
#define MT_KIND_COUNT 16

#define MT_HELLO_MAPS 1 /* flags of a worker's HELLO: it can map its engine's memory */

#define MT_MAX_SLOTS 16777216 /* more are not behind one lane */

#define MT_STOP_DRAIN 0 /* finish what you have, then end */
#define MT_STOP_NOW 1   /* drop what you have, kill workers, end */

#define MT_PIECE_FIRST 1
#define MT_PIECE_LAST 2
#define MT_PIECE_PAD 4 /* filler up to the end of a ring; carries nothing */

#define MT_FRAME_MAGIC 0x4D54 /* "MT" */

typedef struct mt_rec {
    uint64_t size; /* of the whole record, this header included */
    uint64_t id;   /* task, object or process */
    uint16_t kind;
    uint16_t flags; /* MT_CODEC_* of the bytes at the end */
    uint32_t n;
} mt_rec;

/* One argument of a task that is another task's value. */
typedef struct mt_edge_ref {
    uint64_t object; /* id of an object sent before; 0: the bytes are inline */
    uint64_t size;
    uint64_t flags; /* MT_CODEC_* */
} mt_edge_ref;

/* TASK: mt_rec_task, n mt_edge_ref, the inline values each padded to 8, the arguments. */
typedef struct mt_rec_task {
    mt_rec rec;
    uint64_t fn; /* object id of the function */
    int32_t priority;
    uint32_t cost_us; /* expected duration, 0: unknown; of a span: that of an item, in nanoseconds */
    int64_t age;      /* as in mt_ready, of use to children only; 0, as of parts of a span: behind all that is there */
} mt_rec_task;

/* A span: one task that stands for many items, which each engine cuts for its lanes. Its function takes `first` and `count`; its value has codec
 * MT_CODEC_PARTS, or is one value that `combine` has made of such a value. */
typedef struct mt_span {
    uint64_t first;
    uint64_t count;   /* at least 1; first + count is a uint64_t too */
    uint64_t combine; /* object id of a function of an MT_CODEC_PARTS value; 0: none */
    uint32_t losses;  /* how often a part is tried again after the loss of what ran it */
    uint32_t chunk;   /* items that a worker gets at a time; 0: by their duration */
} mt_span;

typedef struct mt_parts_head {
    uint64_t count; /* items behind this value */
    uint64_t size;
    uint32_t codec;
    uint32_t zero;
} mt_parts_head;

/* RESULT: mt_rec_result, the value's bytes. */
typedef struct mt_rec_result {
    mt_rec rec;
    uint64_t duration_ns; /* of the user's function */
} mt_rec_result;

/* Where the bytes of an object lie: in a file that only the engine has open, as /proc/PID/fd/FD. */
typedef struct mt_where {
    int32_t pid;
    int32_t fd;
    uint64_t device, inode; /* of the file: descriptors are used again */
    uint64_t offset;
    uint64_t size;
} mt_where;

/* RECALL: of which priorities. */
typedef struct mt_rec_recall {
    mt_rec rec;
    int64_t floor; /* from this on */
    int64_t below;
} mt_rec_recall;

/* Why a task was lost. */
typedef struct mt_lost {
    int32_t pid;
    int32_t wait_status; /* as waitpid gives it; -1: unknown */
    uint64_t what;       /* MT_LOST_* */
} mt_lost;

#define MT_LOST_WORKER 0
#define MT_LOST_RANK 1
#define MT_LOST_LINK 2   /* the worker sent bytes that are no record */
#define MT_LOST_ZYGOTE 3 /* the zygote has ended, and its workers with it */
#define MT_LOST_MEMORY 4 /* the kernel has killed the worker, and counted that among what it killed for lack of memory */
#define MT_LOST_UNMADE 5 /* zygote -> engine only: the worker could not be forked, `wait_status` is -errno */

#define MT_FRAME_HURRY 1 /* somebody waits for what this starts: look out for answers */

typedef struct mt_frame_head {
    uint16_t magic;
    uint16_t flags; /* MT_FRAME_* */
    uint32_t size; /* of the frame, this header included */
} mt_frame_head;

typedef struct mt_kind_row {
    const char *name;
    uint32_t sender;   /* MT_ROLE_* bits */
    uint32_t receiver; /* MT_ROLE_* bits */
    uint32_t answer;   /* kind, 0: none */
    uint64_t min_size;
} mt_kind_row;

/* The table's row for a kind; NULL when there is no such kind. */
MT_EXPORT const mt_kind_row *mt_kind(uint32_t kind);

/* Checks everything about a record that can be known from its bytes: size against `size`, kind, sender allowed
 * (MT_ROLE_* bit of whoever sent it), body long enough for its counts, slots that there can be. MT_OK or MT_E_RECORD. Nobody may write to the record
 * afterwards: of one that lies in memory which others can write to, check the copy that is used (mti_head_check, mti_task_check). */
MT_EXPORT MT_MUST_CHECK int mt_record_check(const void *record, uint64_t size, uint32_t sender);

/* cffi:end */

/* The two halves of mt_record_check: what the header says, and what a TASK record, whose header has been checked, says. */
MT_MUST_CHECK int mti_head_check(const mt_rec *rec, uint64_t size, uint32_t sender);
MT_MUST_CHECK int mti_task_check(const void *record);

#define MT_PIECE_HEAD 8u

static inline uint64_t mti_pad8(uint64_t size) { return (size + 7u) & ~(uint64_t)7u; }

/* Reads the span at the beginning of arguments; false: there is none that makes sense. */
bool mti_span_read(const void *args, uint64_t size, mt_span *out);
/* Where the arguments of a TASK record begin that has been checked. */
uint64_t mti_args_at(const void *record);

/* Joins pieces into records. Whole records are passed through in place; others are collected in a blob. */
typedef struct mt_joiner {
    const mt_alloc *alloc;
    uint64_t max_size; /* a record that claims more is refused */
    mt_blob *partial;
    uint64_t filled;
} mt_joiner;

/* A record as it came out of a ring or frame. */
typedef struct mt_incoming {
    const void *data;
    uint64_t size;
    mt_blob *blob; /* owns `data`; NULL: `data` lies in the ring or frame and must be used up at once */
} mt_incoming;

void mti_joiner_init(mt_joiner *joiner, const mt_alloc *alloc, uint64_t max_size);
void mti_joiner_clean_up(mt_joiner *joiner);
/* MT_OK: `out` is a whole record (a blob in it is the joiner's until the next call; take a reference to keep
 * it). MT_E_AGAIN: more pieces are needed. MT_E_RECORD, MT_E_NOMEM. */
MT_MUST_CHECK int mti_join(mt_joiner *joiner, const void *data, uint32_t size, uint32_t flags, mt_incoming *out);

#endif
