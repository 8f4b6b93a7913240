/* pace.h - how many items of a range go into the next span.
 *
 * Role: what mpitask/bulk.py decides for `map` over a range, for simulated scripts: the first spans have an item for each worker, later ones a
 * quarter of a second of work of all workers, by how fast spans have ended. A test holds it to the Python class.
 * Thread rule: one owner thread.
 */
#ifndef MT_PACE_H
#define MT_PACE_H

#include "base.h"

/* cffi:begin */

#define MT_PACE_AHEAD 3 /* spans that are under way at a time */

typedef struct mt_pace {
    uint64_t left;   /* items that are in no span yet */
    uint64_t wanted; /* in a span; 0: nothing is known yet */
    double items, seconds; /* what has been done in what time, fading */
    double last_end_s;
} mt_pace;

/* Takes the items of the next span: 0 when none is left. */
MT_EXPORT uint64_t mt_pace_take(mt_pace *pace, uint64_t workers);
/* A span of `count` items, submitted at `submitted_s`, has ended at `now_s` with a value of `bytes`. */
MT_EXPORT void mt_pace_learn(mt_pace *pace, uint64_t count, double submitted_s, double now_s, uint64_t bytes);

/* cffi:end */

#endif
