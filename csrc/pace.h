/* pace.h - how many items of a range go into the next span.
 *
 * Role: `map` over a range, and scripts in virtual time that call it. The first spans have an item (or a chunk) for each worker, later ones are
 * a quarter of a second of work of all workers, by how fast spans have ended: results arrive several times a second.
 * Thread rule: one thread at a time.
 */
#ifndef MT_PACE_H
#define MT_PACE_H

#include "base.h"

/* cffi:begin */

/* The next span is submitted while fewer than so many have items that have not been sent: one is cut, the next is there when it ends. */
#define MT_PACE_WAITING 2
/* And fewer than so many have not ended: where some items take long, that is more than are being cut. */
#define MT_PACE_UNDER_WAY 64

typedef struct mt_pace {
    uint64_t left;   /* items that are in no span yet; less than 2^63 */
    uint64_t chunk;  /* a span but the last has whole chunks of so many items; 1 to 2^31 - 1 */
    uint64_t wanted; /* in a span; 0: nothing is known yet */
    double items, seconds; /* what has been done in what time, fading */
    double last_end_s;
} mt_pace;

/* Takes the items of the next span, at least a chunk for each worker, or some would have nothing: 0 when none is left. */
MT_EXPORT uint64_t mt_pace_take(mt_pace *pace, uint64_t workers);
/* A span of `count` items, submitted at `submitted_s`, has ended at `now_s` with a value of `bytes`. */
MT_EXPORT void mt_pace_learn(mt_pace *pace, uint64_t count, double submitted_s, double now_s, uint64_t bytes);

/* cffi:end */

#endif
