/* Ranks that share cores: who wants one and finds none waits in a line. */
#include "sim_inner.h"

/* A script that submits gives its core to whoever waits after so long: a thread that has slept soon gets a core from one that never does. */
#define SLICE_NS 100000u

static int take_core(mt_sim *s, uint32_t who, uint64_t until_ns) {
    return mti_sim_post(s, (event){.at_ns = until_ns, .rank = who, .kind = EVENT_CORE});
}

static int run_script(mt_sim *s, uint64_t now_ns) {
    s->script_next_ns += now_ns - s->script_until_ns; /* it has stood still meanwhile */
    if (s->script_next_ns < now_ns) s->script_next_ns = now_ns;
    uint64_t end_ns = s->script_next_ns + (s->work.total - s->put) * s->options.submit_call_ns;
    s->script_until_ns = end_ns < now_ns + SLICE_NS ? end_ns : now_ns + SLICE_NS;
    int status = take_core(s, SCRIPT, s->script_until_ns);
    return status == MT_OK ? mti_sim_wake(s, 0, mti_sim_look(s, s->nodes, s->script_next_ns, true)) : status;
}

/* A core is free: for the first in the line. */
static int go_on(mt_sim *s, uint64_t now_ns) {
    while (s->line_length > 0) {
        uint32_t who = s->line[s->line_first];
        s->line_first = (s->line_first + 1) % (s->n_ranks + 1u);
        s->line_length--;
        if (who == SCRIPT) return run_script(s, now_ns);
        node *x = &s->nodes[who];
        if (x->engine == NULL) continue;
        int status = mti_sim_step(s, x, now_ns);
        return status == MT_OK ? take_core(s, who, x->busy_until_ns) : status;
    }
    s->cores_busy--;
    return MT_OK;
}

int mti_cores_want(mt_sim *s, uint32_t who, uint64_t now_ns) {
    if (who != SCRIPT) s->nodes[who].wake_at_ns = 0; /* nothing wakes it until it has stepped: it stands in the line once */
    s->line[(s->line_first + s->line_length++) % (s->n_ranks + 1u)] = who;
    if (s->cores_busy == s->options.cores) return MT_OK;
    s->cores_busy++; /* so nobody else was in the line */
    return go_on(s, now_ns);
}

int mti_cores_on_free(mt_sim *s, uint32_t who, uint64_t now_ns) {
    if (who == SCRIPT) {
        mti_script_put(s, now_ns);
        s->script_waits = s->put < s->work.total && s->queued == s->options.inbox;
        if (s->put < s->work.total && !s->script_waits) s->line[(s->line_first + s->line_length++) % (s->n_ranks + 1u)] = SCRIPT;
    }
    return go_on(s, now_ns);
}
