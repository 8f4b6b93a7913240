/* bank.h - a lane of virtual workers: slots whose tasks only wait.
 *
 * Role: lets the root, the tree and the frames that ship be loaded with more workers than a machine has cores: with real time behind a rank
 * (driver), with virtual time in the simulator. A bank takes TASK records like a worker, runs them in order of arrival, `slots` at a time, and
 * answers each with a RESULT when its time has passed. The time is the last four bytes of a task's marshalled arguments: microseconds, as a
 * little-endian number; that is what a call f(..., n) with a plain integer ends with. Arguments in another encoding say nothing: such a task
 * takes no time. The value is None. A span's part takes its time for each of its items.
 * A worker is not the engine: it begins the next task when the one before has ended, however late the engine looks.
 * Invariants: running <= slots; tasks that a look has seen wait only while all slots run.
 * Thread rule: one owner thread. Time comes in; it has no clock.
 */
#ifndef MT_BANK_H
#define MT_BANK_H

#include "engine.h"

typedef struct mt_bank mt_bank;

/* `role`: that of its lane; a MT_ROLE_WORKER has one slot. NULL: out of memory. */
mt_bank *mti_bank_new(const mt_alloc *alloc, uint32_t role, uint32_t slots);
void mti_bank_destroy(mt_bank *bank);
/* What each task takes of its slot beyond its own time; 0 at first. */
void mti_bank_set_overhead(mt_bank *bank, uint64_t overhead_ns);
/* The value of a part of n items is `bytes` + n bytes long instead of None; 0 at first. */
void mti_bank_set_part_bytes(mt_bank *bank, uint32_t bytes);
/* How long a part of these items takes, in nanoseconds, instead of what the arguments say for each of them. */
void mti_bank_set_items(mt_bank *bank, uint64_t (*duration_ns)(const void *ctx, uint64_t first, uint64_t count), const void *ctx);
/* `changed` hears when tasks begin and end: +1 and -1 at a time that may lie ahead; a death takes back what it said. */
void mti_bank_watch(mt_bank *bank, void (*changed)(void *ctx, uint64_t at_ns, int64_t change), void *ctx);
/* A list of banks that have got tasks: the bank, which its owner calls `number`, puts itself there once. */
typedef struct mt_bank_list {
    mt_bank *first;
} mt_bank_list;
void mti_bank_report(mt_bank *bank, mt_bank_list *list, uint32_t number);
/* Takes a bank off the list: true, and its number; false: none is left. */
bool mti_bank_list_take(mt_bank_list *list, uint32_t *out_number);
/* The way to it, for mt_engine_add_lane. */
mt_link *mti_bank_link(mt_bank *bank);
/* Ends what is due, tells the engine, and begins what waits; the first call says HELLO. `*out_n` grows by the records sent. */
MT_MUST_CHECK int mti_bank_step(mt_bank *bank, mt_engine *engine, uint32_t lane, uint64_t now_ns, uint64_t *out_n);
/* Begins what waits, where slots are free. */
void mti_bank_begin(mt_bank *bank, uint64_t now_ns);
/* When a step would do something; UINT64_MAX: nothing runs, 0: at once. */
uint64_t mti_bank_due_ns(const mt_bank *bank);
/* When to wake for it: as mti_bank_due_ns, later by 1/512 of the task's duration, so that with many slots one wake-up ends many tasks. */
uint64_t mti_bank_wake_ns(const mt_bank *bank);
/* Forgets everything, as a worker that dies; tasks begun since it was new. It says HELLO again at its next step. */
uint64_t mti_bank_kill(mt_bank *bank, uint64_t now_ns);
uint64_t mti_bank_running(const mt_bank *bank);
uint64_t mti_bank_waiting(const mt_bank *bank);
MT_MUST_CHECK int mti_bank_check(const mt_bank *bank);

/* cffi:begin */

/* For tests: a bank as the only lane of a root. Object 1 is a function. */
typedef struct mt_bank_stand mt_bank_stand;

/* NULL: out of memory. `role`: MT_ROLE_WORKER or MT_ROLE_CHILD. */
MT_EXPORT mt_bank_stand *mt_bank_stand_new(const mt_alloc *alloc, uint32_t role, uint32_t slots);
MT_EXPORT void mt_bank_stand_destroy(mt_bank_stand *stand);
/* Takes a reference of its own. */
MT_EXPORT MT_MUST_CHECK int mt_bank_stand_submit(mt_bank_stand *stand, mt_task *task);
/* Sends what the bank may have. */
MT_EXPORT MT_MUST_CHECK int mt_bank_stand_dispatch(mt_bank_stand *stand);
/* As mti_bank_step. How many records came up, or a status. */
MT_EXPORT MT_MUST_CHECK int mt_bank_stand_step(mt_bank_stand *stand, uint64_t now_ns);
/* The bank dies: what it had begun is lost, what waited goes back. How many it had begun, or a status. */
MT_EXPORT MT_MUST_CHECK int64_t mt_bank_stand_kill(mt_bank_stand *stand);
/* Sends STOP. */
MT_EXPORT MT_MUST_CHECK int mt_bank_stand_stop(mt_bank_stand *stand);
/* Whether the bank's BYE has come. */
MT_EXPORT bool mt_bank_stand_has_left(const mt_bank_stand *stand);
MT_EXPORT uint64_t mt_bank_stand_due_ns(const mt_bank_stand *stand);
MT_EXPORT uint64_t mt_bank_stand_wake_ns(const mt_bank_stand *stand);
MT_EXPORT uint64_t mt_bank_stand_running(const mt_bank_stand *stand);
MT_EXPORT uint64_t mt_bank_stand_waiting(const mt_bank_stand *stand);
/* The root's: tasks that have not ended, and worker slots. */
MT_EXPORT uint64_t mt_bank_stand_outstanding(const mt_bank_stand *stand);
MT_EXPORT uint32_t mt_bank_stand_slots(const mt_bank_stand *stand);
MT_EXPORT MT_MUST_CHECK int mt_bank_stand_check(const mt_bank_stand *stand);

/* cffi:end */

#endif
