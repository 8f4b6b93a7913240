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

/* When the next span can be submitted, by what the script knows so far. */
static uint64_t next_span_ns(const mt_sim *s) {
    uint64_t latest_ns[MT_PACE_WAITING] = {0}, free_ns = s->n_spans < MT_PACE_UNDER_WAY ? 0 : NEVER;
    for (uint32_t i = 0; i < s->n_spans; i++) {
        uint64_t begun_ns = s->spans[i].begun_ns;
        for (uint32_t k = 0; k < MT_PACE_WAITING; k++) { /* falling */
            if (begun_ns <= latest_ns[k]) continue;
            uint64_t pushed_ns = latest_ns[k];
            latest_ns[k] = begun_ns;
            begun_ns = pushed_ns;
        }
        if (s->spans[i].free_ns < free_ns) free_ns = s->spans[i].free_ns;
    }
    if (latest_ns[MT_PACE_WAITING - 1] > free_ns) free_ns = latest_ns[MT_PACE_WAITING - 1];
    return free_ns > s->script_next_ns ? free_ns : s->script_next_ns;
}

static void drop_span(const sent_span *span) {
    mt_task_unref(span->task);
    mt_task_unref(span->begun);
}

/* Gives up the places of spans that the script knows to have ended. */
static void free_places(mt_sim *s, uint64_t now_ns) {
    uint32_t left = 0;
    for (uint32_t i = 0; i < s->n_spans; i++) {
        if (s->spans[i].free_ns > now_ns) {
            s->spans[left++] = s->spans[i];
        } else {
            drop_span(&s->spans[i]);
        }
    }
    s->n_spans = left;
}

static int submit_spans(mt_sim *s, node *root, uint64_t now_ns, deeds *did) {
    while (s->pace.left > 0 && next_span_ns(s) <= now_ns) {
        uint64_t at_ns = next_span_ns(s), first = s->work.made;
        free_places(s, now_ns);
        uint64_t count = mt_pace_take(&s->pace, mt_engine_stats_now(root->engine).slots);
        mt_task_spec promise = {.number = s->work.made};
        mt_task *begun = mt_task_new(s->alloc, &promise);
        mt_task *task = begun == NULL ? NULL : mti_workload_next_span(&s->work, FUNCTION, count, begun);
        if (task == NULL) {
            if (begun != NULL) mt_task_unref(begun);
            return MT_E_NOMEM;
        }
        mt_task_ref(begun);
        mt_task_ref(task);
        s->spans[s->n_spans++] = (sent_span){task, begun, first, count, at_ns, NEVER, NEVER};
        s->put += count;
        s->script_next_ns = at_ns + s->options.submit_span_ns;
        did->submitted++;
        int status = mt_engine_submit(root->engine, begun);
        if (status == MT_OK) status = mt_engine_submit(root->engine, task);
        if (status != MT_OK) return status;
    }
    return MT_OK;
}

static void count_span(mt_sim *s, const sent_span *span) {
    switch (mt_task_state(span->task)) {
        case MT_DONE:
            s->items.done += span->count;
            s->useful_ns += mti_workload_items_ns(&s->work.options, span->first, span->count);
            break;
        case MT_CANCELLED: s->items.cancelled += span->count; break;
        default: s->items.failed += span->count; break;
    }
}

/* A thread of the script is woken for what has begun or ended, and wakes the one that submits. */
static void see_spans(mt_sim *s, mt_engine *root, uint64_t now_ns) {
    uint64_t told_ns = now_ns + s->options.bell_ns, submitter_ns = told_ns + s->options.bell_ns;
    for (uint32_t i = 0; i < s->n_spans; i++) {
        sent_span *span = &s->spans[i];
        uint32_t state = mt_task_state(span->task);
        bool has_ended = state >= MT_FIRST_FINAL && span->free_ns == NEVER;
        if (has_ended && mt_task_state(span->begun) < MT_FIRST_FINAL) {
            mt_task_ref(span->begun);
            mt_engine_fulfil(root, span->begun, MT_OUTCOME_OK, 0, NULL);
        }
        if (span->begun_ns == NEVER && mt_task_state(span->begun) >= MT_FIRST_FINAL) span->begun_ns = submitter_ns;
        if (!has_ended) continue;
        count_span(s, span);
        const mt_value *value = mt_task_value(span->task);
        if (state == MT_DONE) mt_pace_learn(&s->pace, span->count, seconds(s, span->submitted_ns), seconds(s, told_ns), value->size);
        span->free_ns = submitter_ns;
    }
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
    return next_span_ns(s);
}

bool mti_script_is_submitting(const mt_sim *s) { return s->options.submits_range == 0 && s->put < s->work.total; }

void mti_script_give_up(mt_sim *s) {
    s->put = s->work.total;
    s->pace.left = 0;
    s->queued = 0;
}

void mti_script_look(mt_sim *s, uint64_t now_ns) {
    if (!s->has_started || s->has_ended) return;
    see_spans(s, s->nodes[0].engine, now_ns);
    uint64_t outstanding = mt_engine_stats_now(s->nodes[0].engine).outstanding;
    if (outstanding > s->most_outstanding) s->most_outstanding = outstanding;
    if (outstanding > 0 || s->queued > 0 || s->put < s->work.total) return;
    s->has_ended = true;
    s->end_ns = now_ns;
}

void mti_script_clean_up(mt_sim *s) {
    while (s->n_spans > 0) drop_span(&s->spans[--s->n_spans]);
    mti_workload_clean_up(&s->work);
}
