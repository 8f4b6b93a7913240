/* What a driver tells of itself, to any thread. */
#include "driver_inner.h"

#include "atomic.h"

uint64_t mti_driver_cpu_ns(clockid_t clock) {
    struct timespec t;
    if (clock_gettime(clock, &t) != 0) return 0;
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

mt_driver_stats mt_driver_stats_now(mt_driver *d) {
    mt_driver_stats stats = {.submitted = mt_load_relaxed(&d->n_submitted),
                             .ended = mt_load_relaxed(&d->n_ended),
                             .slots = mt_load_relaxed(&d->slots),
                             .steps = mt_load_relaxed(&d->steps),
                             .sleeps = mt_load_relaxed(&d->sleeps),
                             .guards = mt_load_relaxed(&d->guards),
                             .frames_in = mt_load_relaxed(&d->frames_in), .frames_out = mt_load_relaxed(&d->frames_out),
                             .ready = mt_load_relaxed(&d->ready),
                             .recalled = mt_load_relaxed(&d->recalled),
                             .objects = mt_load_relaxed(&d->objects),
                             .objects_sent = mt_load_relaxed(&d->objects_sent),
                             .objects_mapped = mt_load_relaxed(&d->objects_mapped),
                             .failed = mt_load_relaxed(&d->n_failed),
                             .neighbours = d->n_peers};
    for (uint32_t i = 0; i < d->n_peers; i++) stats.bells += d->peers[i].bell != NULL;
    clockid_t clock;
    if (d->has_thread && mti_is_ours(&d->ours) && mt_load_acquire(&d->ended) == 0 && pthread_getcpuclockid(d->thread, &clock) == 0) {
        stats.cpu_ns = mti_driver_cpu_ns(clock);
    }
    uint64_t whole_ns = mt_load_relaxed(&d->cpu_ns);
    if (whole_ns > 0) stats.cpu_ns = whole_ns; /* it has ended */
    return stats;
}
