#include "workload.h"

#include <string.h>

#include "draw.h"
#include "frames.h"

#define MILLION 1000000u

bool mti_workload_has_edges(const mt_workload_options *o) { return o->shape == MT_SHAPE_CHAIN || o->shape == MT_SHAPE_STENCIL; }

int mti_workload_init(mt_workload *w, const mt_alloc *alloc, const mt_workload_options *o) {
    bool is_sound = o->shape <= MT_SHAPE_LOGUNIFORM && o->width > 0 && o->args_bytes >= 4 && o->spread_ppm <= MILLION;
    uint32_t longest_us = o->shape == MT_SHAPE_LOGUNIFORM ? UINT32_MAX / 4000 : UINT32_MAX / 4;
    if (!is_sound || o->task_us > longest_us) return MT_E_INVAL;
    *w = (mt_workload){.alloc = alloc, .options = *o, .random = mti_draw_start(o->seed)};
    w->total = (uint64_t)o->width * o->layers;
    w->args = mti_get_zeroed(alloc, o->args_bytes, 1);
    if (mti_workload_has_edges(o)) {
        w->before = mti_get_zeroed(alloc, o->width, sizeof *w->before);
        w->now = mti_get_zeroed(alloc, o->width, sizeof *w->now);
    }
    if (w->args == NULL || (mti_workload_has_edges(o) && (w->before == NULL || w->now == NULL))) {
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

/* A thousand to the power of a number drawn between 0 and 1: the product over its binary digits. */
static double draw_factor(uint64_t *random) {
    static const double powers[] = {31.622776601683793, 5.623413251903491, 2.371373705661655, 1.539926526059492,
                                    1.240937760751720, 1.113973859994802, 1.055449600878603, 1.027350768179303,
                                    1.013583133334066, 1.006768659292722, 1.003378622102705, 1.001687886570814};
    enum { DIGITS = sizeof powers / sizeof *powers };
    uint64_t digits = mti_draw(random, (uint64_t)1 << DIGITS);
    double factor = 1;
    for (uint32_t i = 0; i < DIGITS; i++) {
        if ((digits >> (DIGITS - 1 - i) & 1) != 0) factor *= powers[i];
    }
    return factor;
}

static uint64_t spread_of(const mt_workload_options *o) { return o->shape == MT_SHAPE_IMBALANCE ? MILLION : o->spread_ppm; }

static uint32_t draw_duration_us(const mt_workload_options *o, uint64_t *random) {
    if (o->shape == MT_SHAPE_LOGUNIFORM) return (uint32_t)(o->task_us * draw_factor(random));
    uint64_t spread = spread_of(o);
    if (spread == 0) return o->task_us;
    uint64_t share_ppm = MILLION - spread + mti_draw(random, 2 * spread + 1);
    return (uint32_t)(o->task_us * share_ppm / MILLION);
}

uint64_t mti_workload_items_ns(const mt_workload_options *o, uint64_t first, uint64_t count) {
    if (o->shape != MT_SHAPE_LOGUNIFORM && spread_of(o) == 0) return count * o->task_us * 1000;
    uint64_t sum_us = 0;
    for (uint64_t i = first; i < first + count; i++) {
        uint64_t random = mti_draw_start(o->seed + i * 0x9E3779B97F4A7C15u); /* neighbours far apart: 2^64 over the golden ratio */
        (void)mti_draw(&random, 2);
        sum_us += draw_duration_us(o, &random);
    }
    return sum_us * 1000;
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
    uint32_t us = draw_duration_us(o, &w->random);
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

mt_task *mti_workload_next_span(mt_workload *w, uint64_t fn, uint64_t count, mt_task *begun) {
    const mt_workload_options *o = &w->options;
    mt_span span = {.first = w->made, .count = count, .losses = o->losses};
    memcpy(w->args + o->args_bytes - sizeof o->task_us, &o->task_us, sizeof o->task_us);
    mt_part args[] = {{&span, sizeof span}, {w->args, o->args_bytes}};
    mt_task_spec spec = {.number = w->made, .fn = fn, .codec = MT_CODEC_MARSHAL | MT_CODEC_SPAN, .n_args = 2, .args = args, .begun = begun};
    mt_task *task = mt_task_new(w->alloc, &spec);
    if (task == NULL) return NULL;
    w->work_ns += mti_workload_items_ns(o, w->made, count);
    w->made += count;
    return task;
}

int mt_workload_durations(const mt_alloc *alloc, const mt_workload_options *options, uint32_t *out, uint64_t n) {
    mt_workload w;
    int status = mti_workload_init(&w, alloc, options);
    if (status != MT_OK) return status;
    for (uint64_t i = 0; i < n; i++) out[i] = draw_duration_us(&w.options, &w.random);
    mti_workload_clean_up(&w);
    return MT_OK;
}
