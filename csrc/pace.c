#include "pace.h"

#define SPAN_S 0.25
#define SPAN_BYTES ((double)(64u << 20)) /* of results in a span, at most */
#define GROWTH 16.0                      /* a span has so many times the items of the one before, at most */
#define LEAST_S 1e-6
#define MOST_ITEMS 0x1p62

uint64_t mt_pace_take(mt_pace *p, uint64_t workers) {
    uint64_t least = (workers > 0 ? workers : 1) * p->chunk;
    uint64_t count = p->wanted > least ? p->wanted : least;
    count = (count + p->chunk - 1) / p->chunk * p->chunk;
    if (count > p->left) count = p->left;
    p->left -= count;
    return count;
}

void mt_pace_learn(mt_pace *p, uint64_t count, double submitted_s, double now_s, uint64_t bytes) {
    double took_s = now_s - (p->last_end_s > submitted_s ? p->last_end_s : submitted_s);
    p->seconds = p->seconds / 2 + (took_s > LEAST_S ? took_s : LEAST_S);
    p->items = p->items / 2 + (double)count;
    p->last_end_s = now_s;
    double wanted = p->items / p->seconds * SPAN_S;
    double most = (double)count * GROWTH, fitting = SPAN_BYTES * (double)count / (double)(bytes > 0 ? bytes : 1);
    if (wanted > most) wanted = most;
    if (wanted > fitting) wanted = fitting;
    p->wanted = (uint64_t)(wanted < MOST_ITEMS ? wanted : MOST_ITEMS);
}
