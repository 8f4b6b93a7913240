#include "pace.h"

#define SPAN_S 0.25
#define SPAN_BYTES ((double)(64u << 20))
#define GROWTH 16u
#define LEAST_S 1e-6

uint64_t mt_pace_take(mt_pace *p, uint64_t workers) {
    uint64_t least = workers > 0 ? workers : 1;
    uint64_t count = p->wanted > least ? p->wanted : least;
    if (count > p->left) count = p->left;
    p->left -= count;
    return count;
}

void mt_pace_learn(mt_pace *p, uint64_t count, double submitted_s, double now_s, uint64_t bytes) {
    double took_s = now_s - (p->last_end_s > submitted_s ? p->last_end_s : submitted_s);
    p->seconds = p->seconds / 2 + (took_s > LEAST_S ? took_s : LEAST_S);
    p->items = p->items / 2 + (double)count;
    p->last_end_s = now_s;
    double wanted = p->items / p->seconds * SPAN_S, most = (double)count * GROWTH;
    uint64_t by_time = (uint64_t)(wanted < most ? wanted : most);
    uint64_t by_bytes = (uint64_t)(SPAN_BYTES * (double)count / (double)(bytes > 0 ? bytes : 1));
    p->wanted = by_time < by_bytes ? by_time : by_bytes;
}
