#include "flat.h"

#include <string.h>

#define TUPLE_HEAD 5u

typedef struct reader {
    const unsigned char *at, *end;
} reader;

static uint64_t left(const reader *r) { return (uint64_t)(r->end - r->at); }

static uint32_t word(const unsigned char *bytes) {
    return (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
}

/* Bytes of the object that the reader stands at, its type included; 0: it is none of those, or not whole. */
static uint64_t size_of(const reader *r) {
    uint64_t size = 1, digits;
    switch (*r->at) {
        case 'N':
        case 'T':
        case 'F':
        case '.': break;
        case 'i': size = 1 + 4; break;
        case 'g': size = 1 + 8; break;
        case 'y': size = 1 + 16; break;
        case 's':
        case 'u':
            if (left(r) < 5) return 0;
            size = 5 + (uint64_t)word(r->at + 1);
            break;
        case 'l': /* so many digits of 15 bits, negative for a negative number */
            if (left(r) < 5) return 0;
            digits = word(r->at + 1);
            size = 5 + 2 * (digits >> 31 == 0 ? digits : ((uint64_t)1 << 32) - digits);
            break;
        default: return 0;
    }
    return size <= left(r) ? size : 0;
}

int64_t mt_flat_fill(const mt_part *args, const mt_part *values, uint32_t n_values, uint8_t *out, uint64_t capacity) {
    if (args->size < TUPLE_HEAD) return MT_E_RECORD;
    reader r = {args->data, (const unsigned char *)args->data + args->size};
    if (*r.at != '(') return MT_E_RECORD;
    uint32_t items = word(r.at + 1), n = 0;
    uint64_t written = TUPLE_HEAD;
    if (written > capacity) return MT_E_AGAIN;
    memcpy(out, r.at, TUPLE_HEAD);
    r.at += TUPLE_HEAD;
    for (; items > 0; items--) {
        mt_part next = {r.at, left(&r) == 0 ? 0 : size_of(&r)};
        if (next.size == 0) return MT_E_RECORD;
        r.at += next.size;
        if (*(const unsigned char *)next.data == '.') {
            if (n == n_values) return MT_E_RECORD;
            next = values[n++];
        }
        if (next.size > capacity - written) return MT_E_AGAIN;
        memcpy(out + written, next.data, next.size);
        written += next.size;
    }
    return n == n_values && left(&r) == 0 ? (int64_t)written : MT_E_RECORD;
}
