#include "graph.h"

#include <stddef.h>

#include "frames.h"
#include "objects.h"

typedef struct list {
    mt_task *first;
    mt_task *last;
} list;

struct mt_graph {
    const mt_alloc *alloc;
    list ready;    /* linked by ready_next */
    list ended;    /* linked by next */
    mt_node live;  /* every task that has not ended */
    mt_node sweep; /* those of them that mt_graph_cancel_next has not looked at; empty otherwise */
    mt_graph_counts counts;
    mt_objects *objects; /* may be NULL */
};

mt_graph *mt_graph_new(const mt_alloc *alloc) {
    mt_graph *graph = mti_get_zeroed(alloc, 1, sizeof *graph);
    if (graph == NULL) return NULL;
    graph->alloc = alloc;
    graph->live = (mt_node){&graph->live, &graph->live};
    graph->sweep = (mt_node){&graph->sweep, &graph->sweep};
    return graph;
}

void mt_graph_destroy(mt_graph *graph) {
    if (graph == NULL) return;
    mt_task *none;
    while (mt_graph_take_ready(graph, &none, 1) != 0) continue;
    uint32_t flags;
    for (mt_task *task; (task = mt_graph_take_ended(graph, &flags)) != NULL;) mt_task_unref(task);
    mt_put(graph->alloc, graph);
}

static uint64_t *count_of_place(mt_graph *graph, uint8_t place) {
    switch (place) {
        case PLACE_WAITING: return &graph->counts.waiting;
        case PLACE_READY: return &graph->counts.ready;
        default: return &graph->counts.taken;
    }
}

static uint64_t *count_of_state(mt_graph *graph, uint32_t state) {
    switch (state) {
        case MT_DONE: return &graph->counts.done;
        case MT_FAILED: return &graph->counts.failed;
        case MT_DEPENDENCY_FAILED: return &graph->counts.dependency_failed;
        default: return &graph->counts.cancelled;
    }
}

static void move_place(mt_graph *graph, mt_task *task, uint8_t place) {
    --*count_of_place(graph, task->place);
    task->place = place;
    ++*count_of_place(graph, place);
}

static mt_task *task_at(mt_node *node) {
    return (mt_task *)(void *)((unsigned char *)node - offsetof(mt_task, live));
}

static void live_add(mt_graph *graph, mt_task *task) {
    task->live = (mt_node){&graph->live, graph->live.before};
    task->live.before->next = &task->live;
    graph->live.before = &task->live;
}

static void live_remove(mt_task *task) {
    task->live.before->next = task->live.next;
    task->live.next->before = task->live.before;
}

static void make_ready(mt_graph *graph, mt_task *task) {
    move_place(graph, task, PLACE_READY);
    (void)mti_task_move(task, MT_READY); /* when cancelled: mt_graph_cancelled is on its way */
    mt_task_ref(task);
    task->ready_next = NULL;
    if (graph->ready.first == NULL) {
        graph->ready.first = task;
    } else {
        graph->ready.last->ready_next = task;
    }
    graph->ready.last = task;
}

/* Whose functions they are that `value_behind` names. */
static mt_blame blame_of(const mt_task *from) {
    const mt_blame *first = mt_task_blame(from);
    return (mt_blame){first == NULL ? from->job.fn : first->cause_fn, from->job.fn};
}

/* Ends a task; `value` is copied, `blob` referenced; `behind` is why it cannot run, NULL: it has run, or was cancelled. Gives the graph's reference up, or
 * hands it to the ended list. */
static void settle(mt_graph *graph, mt_task *task, uint32_t state, const mt_value *value, mt_blob *blob, const mt_task *behind) {
    mt_blob *kept = blob == NULL ? NULL : mt_blob_ref(blob); /* first: it may belong to an edge that is dropped below */
    --*count_of_place(graph, task->place);
    task->place = PLACE_SETTLED;
    live_remove(task);
    task->blame = behind == NULL ? (mt_blame){0, 0} : blame_of(behind); /* the same of `behind` */
    mti_task_drop_args(task);
    mti_task_drop_edges(task);
    if (graph->objects != NULL) mti_objects_release(graph->objects, task->job.fn);
    task->value = *value;
    task->value_blob = kept;
    uint32_t flags;
    uint32_t wanted = state;
    state = mti_task_publish(task, state, &flags);
    if (state != wanted) { /* cancelled meanwhile: nobody else looks at the value of such a task */
        mt_blob_unref(kept);
        task->value = (mt_value){.outcome = MT_OUTCOME_CANCELLED};
        task->value_blob = NULL;
    }
    ++*count_of_state(graph, state);
    if (flags == 0 && state != MT_FAILED) {
        mt_task_unref(task);
        return;
    }
    task->ended_flags = (uint8_t)(flags >> 8);
    task->next = NULL;
    if (graph->ended.first == NULL) {
        graph->ended.first = task;
    } else {
        graph->ended.last->next = task;
    }
    graph->ended.last = task;
}

/* Why tasks that need `from` cannot run: the first failure, and the argument through which it came. */
static mt_value value_behind(const mt_task *from) {
    mt_value value = from->value;
    if (mt_task_state(from) != MT_DEPENDENCY_FAILED) value.cause = from->number;
    value.via = from->number;
    return value;
}

/* Tells everybody who waits for `from`. The tasks that fail are chained onto `*failed` by ready_next (a task with open edges
 * is not in the ready list) with a reference each. */
static void tell_dependents(mt_graph *graph, mt_task *from, mt_task **failed) {
    bool success = mt_task_state(from) == MT_DONE;
    mt_edge *edge = from->dependents;
    from->dependents = NULL;
    while (edge != NULL) {
        mt_edge *next = edge->next;
        mt_task *owner = edge->owner;
        if (owner->place == PLACE_WAITING) {
            if (success) {
                if (--owner->open_edges == 0) make_ready(graph, owner);
            } else {
                mt_task_ref(owner);
                owner->ready_next = *failed;
                *failed = owner;
                mt_value value = value_behind(from);
                settle(graph, owner, MT_DEPENDENCY_FAILED, &value, from->value_blob, from);
            }
        }
        mt_task_unref(owner);
        edge = next;
    }
}

static void tell_everyone(mt_graph *graph, mt_task *ended) {
    mt_task *failed = NULL;
    tell_dependents(graph, ended, &failed);
    while (failed != NULL) {
        mt_task *task = failed;
        failed = task->ready_next;
        tell_dependents(graph, task, &failed);
        mt_task_unref(task);
    }
}

static void end(mt_graph *graph, mt_task *task, uint32_t state, const mt_value *value, mt_blob *blob, const mt_task *behind) {
    mt_task_ref(task);
    settle(graph, task, state, value, blob, behind);
    tell_everyone(graph, task);
    mt_task_unref(task);
}

static void end_cancelled(mt_graph *graph, mt_task *task) {
    mt_value value = {.outcome = MT_OUTCOME_CANCELLED};
    end(graph, task, MT_CANCELLED, &value, NULL, NULL);
}

void mt_graph_add(mt_graph *graph, mt_task *task) {
    task->place = PLACE_WAITING;
    graph->counts.waiting++;
    live_add(graph, task);
    if (mt_task_state(task) == MT_CANCELLED) {
        end_cancelled(graph, task);
        return;
    }
    for (uint32_t i = 0; i < task->n_edges; i++) {
        mt_task *from = task->edges[i].from;
        uint32_t state = mt_task_state(from);
        if (from->place != PLACE_SETTLED) {
            task->open_edges++;
            task->edges[i].next = from->dependents;
            from->dependents = &task->edges[i];
            mt_task_ref(task);
        } else if (state != MT_DONE) {
            mt_value value = value_behind(from);
            end(graph, task, MT_DEPENDENCY_FAILED, &value, from->value_blob, from);
            return;
        }
    }
    if (task->open_edges == 0 && task->job.fn != 0) make_ready(graph, task);
}

uint32_t mt_graph_take_ready(mt_graph *graph, mt_task **out, uint32_t n) {
    uint32_t got = 0;
    while (got < n && graph->ready.first != NULL) {
        mt_task *task = graph->ready.first;
        graph->ready.first = task->ready_next;
        if (task->place == PLACE_READY) {
            move_place(graph, task, PLACE_TAKEN);
            out[got++] = task;
        }
        mt_task_unref(task); /* the list's; the graph has its own while the task has not ended */
    }
    return got;
}

bool mt_graph_assign(mt_graph *graph, mt_task *task) {
    (void)graph;
    return task->place == PLACE_TAKEN && mti_task_move(task, MT_ASSIGNED);
}

void mt_graph_finish(mt_graph *graph, mt_task *task, uint32_t outcome, uint32_t codec, mt_blob *blob,
                     uint64_t offset) {
    if (task->place == PLACE_SETTLED) return;
    mt_value value = {.codec = codec, .outcome = outcome};
    if (blob != NULL) {
        value.data = blob->data + offset;
        value.size = blob->size - offset;
    }
    uint32_t state = outcome == MT_OUTCOME_OK          ? MT_DONE
                     : outcome == MT_OUTCOME_CANCELLED ? MT_CANCELLED
                                                       : MT_FAILED;
    end(graph, task, state, &value, blob, NULL);
}

void mt_graph_unassign(mt_graph *graph, mt_task *task) {
    (void)graph;
    if (task->place == PLACE_TAKEN) (void)mti_task_move(task, MT_READY);
}

void mti_graph_set_objects(mt_graph *graph, mt_objects *objects) { graph->objects = objects; }

void mt_graph_return(mt_graph *graph, mt_task *task) {
    if (task->place == PLACE_TAKEN) make_ready(graph, task);
}

void mt_graph_cancelled(mt_graph *graph, mt_task *task) {
    if (task->place != PLACE_NONE && task->place != PLACE_SETTLED) end_cancelled(graph, task);
}

void mt_graph_cancel_begin(mt_graph *graph) {
    for (mt_node *node = graph->live.next; node != &graph->live; node = node->next) {
        (void)mt_task_try_cancel(task_at(node));
    }
    if (graph->live.next == &graph->live) return;
    graph->sweep = graph->live;
    graph->sweep.next->before = graph->sweep.before->next = &graph->sweep;
    graph->live = (mt_node){&graph->live, &graph->live};
}

mt_task *mt_graph_cancel_next(mt_graph *graph) {
    while (graph->sweep.next != &graph->sweep) {
        mt_task *task = task_at(graph->sweep.next);
        live_remove(task);
        live_add(graph, task);
        if (mt_task_state(task) != MT_CANCELLED) continue;
        mt_task_ref(task);
        return task;
    }
    return NULL;
}

void mt_graph_abandon(mt_graph *graph) {
    mt_value value = {.outcome = MT_OUTCOME_CANCELLED};
    while (graph->live.next != &graph->live) {
        mt_task *task = task_at(graph->live.next);
        mt_task_ref(task);
        settle(graph, task, MT_CANCELLED, &value, NULL, NULL);
        mt_edge *edge = task->dependents; /* their owners are live too: their turn comes */
        task->dependents = NULL;
        while (edge != NULL) {
            mt_edge *next = edge->next;
            mt_task_unref(edge->owner);
            edge = next;
        }
        mt_task_unref(task);
    }
}

mt_task *mt_graph_take_ended(mt_graph *graph, uint32_t *out_flags) {
    mt_task *task = graph->ended.first;
    if (task == NULL) return NULL;
    graph->ended.first = task->next;
    *out_flags = (uint32_t)task->ended_flags << 8;
    return task;
}

mt_graph_counts mt_graph_count(const mt_graph *graph) { return graph->counts; }

int mt_graph_check(const mt_graph *graph) {
    mt_graph_counts seen = {0};
    for (mt_node *node = graph->live.next; node != &graph->live; node = node->next) {
        const mt_task *task = task_at(node);
        if (node->next->before != node) return MT_E_RECORD;
        uint32_t open = 0;
        for (uint32_t i = 0; i < task->n_edges; i++) {
            if (task->edges[i].from == NULL) return MT_E_RECORD;
            open += task->edges[i].from->place != PLACE_SETTLED;
        }
        bool promise = task->job.fn == 0;
        switch (task->place) {
            case PLACE_WAITING:
                if (open != task->open_edges || (open == 0 && !promise)) return MT_E_RECORD;
                seen.waiting++;
                break;
            case PLACE_READY:
            case PLACE_TAKEN:
                if (open != 0) return MT_E_RECORD;
                task->place == PLACE_READY ? seen.ready++ : seen.taken++;
                break;
            default: return MT_E_RECORD;
        }
    }
    uint64_t in_list = 0;
    for (const mt_task *task = graph->ready.first; task != NULL; task = task->ready_next) {
        in_list += task->place == PLACE_READY;
    }
    if (in_list != seen.ready) return MT_E_RECORD;
    return seen.waiting == graph->counts.waiting && seen.ready == graph->counts.ready &&
                   seen.taken == graph->counts.taken
               ? MT_OK
               : MT_E_RECORD;
}
