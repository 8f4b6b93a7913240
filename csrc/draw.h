/* draw.h - random numbers from a seed, the same on every machine.
 *
 * Role: what loopback and the simulator draw from. xorshift64*, by Vigna.
 * Thread rule: a generator belongs to one thread.
 */
#ifndef MT_DRAW_H
#define MT_DRAW_H

#include <stdint.h>

/* A generator's first state: never 0. */
static inline uint64_t mti_draw_start(uint64_t seed) { return seed * 2 + 1; }

/* A number below `below`, which is 1 .. 2^31. */
static inline uint64_t mti_draw(uint64_t *state, uint64_t below) {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return (*state * 2685821657736338717u >> 33) % below;
}

#endif
