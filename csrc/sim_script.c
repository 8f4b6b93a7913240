/* The script of a simulated job: what it submits, and when. */
#include "sim_inner.h"

#include <string.h>

#include "frames.h"

static double seconds(const mt_sim *s, uint64_t at_ns) { return (double)(at_ns - s->start_ns) / 1e9; }

/* ---- a call for each task ---- */

void mti_script_put(mt_sim *s, uint64_t now_ns) {
    const mt_sim_options *o = &s->options;
    while (s->put < s->work.total && s->queued < o->inbox && s->script_next_ns <= now_ns && s->script_next_ns < s->script_until_ns) {
        s->put++;
        s->queued++;
        s->script_next_ns += o->submit_call_ns;
    }
}

/* The root takes a batch. */
static uint32_t take_calls(mt_sim *s, uint64_t now_ns) {
    mti_script_put(s, now_ns);
    uint32_t n = s->queued < MESSAGES_AT_A_TIME ? (uint32_t)s->queued : MESSAGES_AT_A_TIME;
    bool was_blocked = s->put < s->work.total && s->queued == s->options.inbox && s->script_next_ns < now_ns;
    if (was_blocked) {
        s->script_blocked_ns += now_ns - s->script_next_ns;
        s->script_next_ns = now_ns;
    }
    s->queued -= n;
    return n;
}

static int submit_calls(mt_sim *s, node *root, uint64_t now_ns, deeds *did) {
    uint32_t n = take_calls(s, now_ns);
    int status = MT_OK;
    for (uint32_t i = 0; i < n && status == MT_OK; i++) {
        mt_task *task = mti_workload_next(&s->work, FUNCTION);
        if (task == NULL) return MT_E_NOMEM;
        did->edges += task->n_edges;
        status = mt_engine_submit(root->engine, task);
    }
    did->submitted += n;
    if (status != MT_OK || !s->script_waits || n == 0) return status;
    s->script_waits = false;
    return mti_cores_want(s, SCRIPT, now_ns);
}

/* ---- spans of a range ---- */

/* A span can be submitted when a place has been free for so long that the thread that submits has woken. Places get free in the order of time. */
static uint64_t next_span_ns(const mt_sim *s) {
    uint64_t free_ns = s->place_free_ns[s->first_place];
    return free_ns > s->script_next_ns ? free_ns : s->script_next_ns;
}

static int submit_spans(mt_sim *s, node *root, uint64_t now_ns, deeds *did) {
    int status = MT_OK;
    while (s->n_spans < MT_PACE_AHEAD && s->pace.left > 0 && next_span_ns(s) <= now_ns && status == MT_OK) {
        uint64_t at_ns = next_span_ns(s);
        uint64_t count = mt_pace_take(&s->pace, mt_engine_stats_now(root->engine).slots);
        mt_task *task = mti_workload_next_span(&s->work, FUNCTION, count);
        if (task == NULL) return MT_E_NOMEM;
        mt_task_ref(task);
        s->spans[s->n_spans++] = (sent_span){task, count, at_ns};
        s->first_place = (s->first_place + 1) % MT_PACE_AHEAD;
        s->put += count;
        s->script_next_ns = at_ns + s->options.submit_span_ns;
        did->submitted++;
        status = mt_engine_submit(root->engine, task);
    }
    return status;
}

static void count_span(mt_sim *s, const sent_span *span) {
    switch (mt_task_state(span->task)) {
        case MT_DONE:
            s->items.done += span->count;
            s->useful_ns += span->count * s->work.options.task_us * 1000;
            break;
        case MT_CANCELLED: s->items.cancelled += span->count; break;
        default: s->items.failed += span->count; break;
    }
}

/* A thread of the script is woken for what has ended, and wakes the one that submits. */
static void see_spans_end(mt_sim *s, uint64_t now_ns) {
    uint64_t told_ns = now_ns + s->options.bell_ns, left = 0;
    for (uint32_t i = 0; i < s->n_spans; i++) {
        sent_span *span = &s->spans[i];
        uint32_t state = mt_task_state(span->task);
        if (state < MT_FIRST_FINAL) {
            s->spans[left++] = *span;
            continue;
        }
        count_span(s, span);
        const mt_value *value = mt_task_value(span->task);
        if (state == MT_DONE) mt_pace_learn(&s->pace, span->count, seconds(s, span->submitted_ns), seconds(s, told_ns), value->size);
        mt_task_unref(span->task);
        s->place_free_ns[s->last_place] = told_ns + s->options.bell_ns;
        s->last_place = (s->last_place + 1) % MT_PACE_AHEAD;
    }
    s->n_spans = (uint32_t)left;
}

/* ---- both ---- */

int mti_script_submit(mt_sim *s, node *root, uint64_t now_ns, deeds *did) {
    if (!s->has_started) return MT_OK;
    return s->options.submits_range != 0 ? submit_spans(s, root, now_ns, did) : submit_calls(s, root, now_ns, did);
}

uint64_t mti_script_due_ns(const mt_sim *s) {
    if (!s->has_started) return NEVER;
    if (s->queued > 0) return 0;
    if (s->put == s->work.total) return NEVER;
    if (s->options.submits_range == 0) return s->script_next_ns < s->script_until_ns ? s->script_next_ns : NEVER;
    return s->n_spans < MT_PACE_AHEAD ? next_span_ns(s) : NEVER;
}

bool mti_script_is_submitting(const mt_sim *s) { return s->options.submits_range == 0 && s->put < s->work.total; }

void mti_script_give_up(mt_sim *s) {
    s->put = s->work.total;
    s->pace.left = 0;
    s->queued = 0;
}

void mti_script_look(mt_sim *s, uint64_t now_ns) {
    if (!s->has_started || s->has_ended) return;
    see_spans_end(s, now_ns);
    uint64_t outstanding = mt_engine_stats_now(s->nodes[0].engine).outstanding;
    if (outstanding > s->most_outstanding) s->most_outstanding = outstanding;
    if (outstanding > 0 || s->queued > 0 || s->put < s->work.total) return;
    s->has_ended = true;
    s->end_ns = now_ns;
}

void mti_script_clean_up(mt_sim *s) {
    while (s->n_spans > 0) mt_task_unref(s->spans[--s->n_spans].task);
    mti_workload_clean_up(&s->work);
}
