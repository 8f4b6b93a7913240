/* naps.h - how an engine that finds nothing to do waits.
 *
 * Role: the numbers of one policy, for the driver and for its model in the simulator. While lanes have work to go on with, an engine naps: results come in batches, and the
 * core is the workers'. A nap is half of the work that lies ahead on the lane that has least of it, within limits: what becomes ready meanwhile would not begin
 * sooner. A worker that has nothing left after all ends the nap. When two naps have found nothing, or some short ones, the engine sleeps on its bell, for
 * then tasks are long, and each may ring.
 * Thread rule: none, pure functions.
 */
#ifndef MT_NAPS_H
#define MT_NAPS_H

#include <stdbool.h>
#include <stdint.h>

/* How long an idle engine that somebody waits for looks before it sleeps. */
#define MTI_SPIN_NS 50000u
/* With less work than this on a lane, what runs included, and less than that ahead, nobody naps who is waited for. */
#define MTI_FED_NS 100000u
#define MTI_FED_AHEAD_NS 25000u
#define MTI_SHORT_NAP_NS 50000u
#define MTI_LONG_NAP_NS 500000u
/* Naps while frames may come from a rank that cannot ring our bell, or while a send is under way (the library needs both sides to
 * look): they grow from the first to the second by one of so many parts each time. So none is longer than that part of the time that all was
 * quiet, and a task that ran for as long waits for its successor no longer. */
#define MTI_FIRST_POLL_NS 20000u
#define MTI_LONGEST_POLL_NS 2000000u
#define MTI_POLL_PARTS 16u

/* Whether every lane has something to go on with: of the lane with least, what is booked and what lies ahead. */
static inline bool mti_are_fed(uint64_t load_ns, uint64_t ahead_ns) { return load_ns > MTI_FED_NS || ahead_ns > MTI_FED_AHEAD_NS; }

static inline uint64_t mti_nap_ns(uint64_t ahead_ns) {
    uint64_t nap_ns = ahead_ns / 2;
    return nap_ns < MTI_SHORT_NAP_NS ? MTI_SHORT_NAP_NS : nap_ns > MTI_LONG_NAP_NS ? MTI_LONG_NAP_NS : nap_ns;
}

/* Idle for so long, an engine naps no more. */
static inline uint64_t mti_naps_end_ns(uint64_t nap_ns) {
    return 2 * nap_ns < 4 * MTI_SHORT_NAP_NS ? 4 * MTI_SHORT_NAP_NS : 2 * nap_ns;
}

#endif
