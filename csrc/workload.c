#include "workload.h"

#include <string.h>

#include "draw.h"
#include "frames.h"

#define MILLION 1000000u

static bool has_edges(const mt_workload_options *o) { return o->shape == MT_SHAPE_CHAIN || o->shape == MT_SHAPE_STENCIL; }

int mti_workload_init(mt_workload *w, const mt_alloc *alloc, const mt_workload_options *o) {
    bool is_sound = o->shape <= MT_SHAPE_IMBALANCE && o->width > 0 && o->args_bytes >= 4 && o->spread_ppm <= MILLION;
    if (!is_sound || o->task_us > UINT32_MAX / 4) return MT_E_INVAL;
    *w = (mt_workload){.alloc = alloc, .options = *o, .random = mti_draw_start(o->seed)};
    w->total = (uint64_t)o->width * o->layers;
    w->args = mti_get_zeroed(alloc, o->args_bytes, 1);
    if (has_edges(o)) {
        w->before = mti_get_zeroed(alloc, o->width, sizeof *w->before);
        w->now = mti_get_zeroed(alloc, o->width, sizeof *w->now);
    }
    if (w->args == NULL || (has_edges(o) && (w->before == NULL || w->now == NULL))) {
        mti_workload_clean_up(w);
        return MT_E_NOMEM;
    }
    return MT_OK;
}

static void drop_layer(mt_task **layer, uint32_t width) {
    for (uint32_t i = 0; layer != NULL && i < width; i++) {
        if (layer[i] != NULL) mt_task_unref(layer[i]);
        layer[i] = NULL;
    }
}

void mti_workload_clean_up(mt_workload *w) {
    drop_layer(w->before, w->options.width);
    drop_layer(w->now, w->options.width);
    mt_put(w->alloc, w->before);
    mt_put(w->alloc, w->now);
    mt_put(w->alloc, w->args);
    w->before = w->now = NULL;
    w->args = NULL;
}

static uint32_t duration_us(mt_workload *w) {
    const mt_workload_options *o = &w->options;
    uint64_t spread = o->shape == MT_SHAPE_IMBALANCE ? MILLION : o->spread_ppm;
    if (spread == 0) return o->task_us;
    uint64_t share_ppm = MILLION - spread + mti_draw(&w->random, 2 * spread + 1);
    return (uint32_t)(o->task_us * share_ppm / MILLION);
}

/* Those of the layer before that task `i` takes the values of. */
static uint32_t edges_of(const mt_workload *w, uint32_t i, mt_task **out) {
    if (w->before == NULL || w->made < w->options.width) return 0;
    bool is_chain = w->options.shape == MT_SHAPE_CHAIN;
    uint32_t first = is_chain || i == 0 ? i : i - 1, last = is_chain || i + 1 == w->options.width ? i : i + 1, n = 0;
    for (uint32_t k = first; k <= last; k++) out[n++] = w->before[k];
    return n;
}

mt_task *mti_workload_next(mt_workload *w, uint64_t fn) {
    const mt_workload_options *o = &w->options;
    uint32_t i = (uint32_t)(w->made % o->width);
    if (i == 0 && w->made > 0 && w->before != NULL) {
        drop_layer(w->before, o->width);
        mt_task **empty = w->before;
        w->before = w->now;
        w->now = empty;
    }
    uint32_t us = duration_us(w);
    memcpy(w->args + o->args_bytes - sizeof us, &us, sizeof us);
    mt_part args = {w->args, o->args_bytes};
    mt_task *edges[3];
    mt_task_spec spec = {.number = w->made,
                         .fn = fn,
                         .codec = MT_CODEC_FLAT,
                         .retries = o->retries,
                         .losses = o->losses,
                         .n_edges = edges_of(w, i, edges),
                         .edges = edges,
                         .n_args = 1,
                         .args = &args};
    mt_task *task = mt_task_new(w->alloc, &spec);
    if (task == NULL) return NULL;
    w->made++;
    w->work_ns += (uint64_t)us * 1000;
    if (w->now != NULL) {
        mt_task_ref(task);
        w->now[i] = task;
    }
    return task;
}
