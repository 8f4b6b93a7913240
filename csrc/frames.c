#include "frames.h"

#include <string.h>

#define DOWN_RECEIVERS (MT_ROLE_CHILD | MT_ROLE_WORKER)
#define UP_SENDERS (MT_ROLE_CHILD | MT_ROLE_WORKER)
#define ALL (MT_ROLE_PARENT | MT_ROLE_CHILD | MT_ROLE_WORKER) /* tasks go down to where they run, and up from where there are too many */

static const mt_kind_row kinds[MT_KIND_COUNT] = {
    [MT_KIND_TASK] = {"TASK", ALL, ALL, MT_KIND_RESULT, sizeof(mt_rec_task)},
    [MT_KIND_RESULT] = {"RESULT", ALL, ALL, 0, sizeof(mt_rec_result)},
    [MT_KIND_OBJECT] = {"OBJECT", ALL, ALL, 0, sizeof(mt_rec)},
    [MT_KIND_DROP] = {"DROP", ALL, ALL, 0, sizeof(mt_rec)},
    [MT_KIND_HELLO] = {"HELLO", UP_SENDERS | MT_ROLE_ZYGOTE, MT_ROLE_PARENT, 0, sizeof(mt_rec)},
    [MT_KIND_STOP] = {"STOP", MT_ROLE_PARENT, DOWN_RECEIVERS | MT_ROLE_ZYGOTE, MT_KIND_BYE, sizeof(mt_rec)},
    [MT_KIND_BYE] = {"BYE", MT_ROLE_CHILD, MT_ROLE_PARENT, 0, sizeof(mt_rec)},
    [MT_KIND_SPAWN] = {"SPAWN", MT_ROLE_PARENT, MT_ROLE_ZYGOTE, MT_KIND_EXITED, sizeof(mt_rec)},
    [MT_KIND_KILL] = {"KILL", MT_ROLE_PARENT, MT_ROLE_ZYGOTE, MT_KIND_EXITED, sizeof(mt_rec)},
    [MT_KIND_EXITED] = {"EXITED", MT_ROLE_ZYGOTE, MT_ROLE_PARENT, 0, sizeof(mt_rec) + sizeof(mt_lost)},
    [MT_KIND_SLOTS] = {"SLOTS", ALL, ALL, 0, sizeof(mt_rec)},
    [MT_KIND_RESUME] = {"RESUME", MT_ROLE_PARENT, MT_ROLE_WORKER, 0, sizeof(mt_rec)},
    [MT_KIND_RECALL] = {"RECALL", ALL, MT_ROLE_PARENT | MT_ROLE_CHILD, MT_KIND_RECALLED, sizeof(mt_rec_recall)},
    [MT_KIND_RECALLED] = {"RECALLED", MT_ROLE_PARENT | MT_ROLE_CHILD, ALL, 0, sizeof(mt_rec)},
    [MT_KIND_IDLE] = {"IDLE", MT_ROLE_CHILD, MT_ROLE_PARENT, 0, sizeof(mt_rec)},
};

const mt_kind_row *mt_kind(uint32_t kind) {
    return kind < MT_KIND_COUNT && kinds[kind].name != NULL ? &kinds[kind] : NULL;
}

int mti_task_check(const void *record) {
    const unsigned char *bytes = record;
    mt_rec whole;
    memcpy(&whole, bytes, sizeof whole);
    const mt_rec *rec = &whole;
    uint64_t left = rec->size - sizeof(mt_rec_task);
    if (rec->n > left / sizeof(mt_edge_ref)) return MT_E_RECORD;
    left -= rec->n * sizeof(mt_edge_ref);
    const unsigned char *at = bytes + sizeof(mt_rec_task);
    for (uint32_t i = 0; i < rec->n; i++, at += sizeof(mt_edge_ref)) {
        mt_edge_ref ref;
        memcpy(&ref, at, sizeof ref);
        if (ref.object != 0) continue;
        if (ref.size > left || mti_pad8(ref.size) > left) return MT_E_RECORD;
        left -= mti_pad8(ref.size);
    }
    mt_span span;
    return (rec->flags & MT_CODEC_SPAN) == 0 || mti_span_read(bytes + rec->size - left, left, &span) ? MT_OK : MT_E_RECORD;
}

bool mti_span_read(const void *args, uint64_t size, mt_span *out) {
    if (size < sizeof *out) return false;
    memcpy(out, args, sizeof *out);
    return out->count > 0 && out->first + out->count >= out->first;
}

uint64_t mti_args_at(const void *record) {
    const unsigned char *bytes = record;
    mt_rec rec;
    memcpy(&rec, bytes, sizeof rec);
    uint64_t at = sizeof(mt_rec_task) + rec.n * sizeof(mt_edge_ref);
    for (uint32_t i = 0; i < rec.n; i++) {
        mt_edge_ref ref;
        memcpy(&ref, bytes + sizeof(mt_rec_task) + i * sizeof ref, sizeof ref);
        if (ref.object == 0) at += mti_pad8(ref.size);
    }
    return at;
}

static bool says_slots(uint16_t kind) { return kind == MT_KIND_HELLO || kind == MT_KIND_SLOTS || kind == MT_KIND_IDLE; }

int mti_head_check(const mt_rec *rec, uint64_t size, uint32_t sender) {
    if (rec->size != size) return MT_E_RECORD;
    const mt_kind_row *row = mt_kind(rec->kind);
    if (row == NULL || (row->sender & sender) == 0 || size < row->min_size) return MT_E_RECORD;
    bool is_mapped = rec->kind == MT_KIND_OBJECT && (rec->flags & MT_CODEC_MAPPED) != 0;
    if (is_mapped && size != sizeof *rec + sizeof(mt_where)) return MT_E_RECORD;
    uint32_t last_outcome = sender == MT_ROLE_WORKER ? MT_OUTCOME_CANCELLED : MT_OUTCOME_RETURNED;
    if (rec->kind == MT_KIND_RESULT && rec->n > last_outcome) return MT_E_RECORD;
    bool is_returned = rec->kind == MT_KIND_RESULT && rec->n == MT_OUTCOME_RETURNED && size > sizeof(mt_rec_result);
    if (is_returned && size != sizeof(mt_rec_result) + sizeof(uint64_t)) return MT_E_RECORD;
    return says_slots(rec->kind) && rec->n > MT_MAX_SLOTS ? MT_E_RECORD : MT_OK;
}

int mt_record_check(const void *record, uint64_t size, uint32_t sender) {
    mt_rec rec;
    if (size < sizeof rec) return MT_E_RECORD;
    memcpy(&rec, record, sizeof rec);
    int status = mti_head_check(&rec, size, sender);
    return status == MT_OK && rec.kind == MT_KIND_TASK ? mti_task_check(record) : status;
}

void mti_joiner_init(mt_joiner *joiner, const mt_alloc *alloc, uint64_t max_size) {
    *joiner = (mt_joiner){.alloc = alloc, .max_size = max_size};
}

void mti_joiner_clean_up(mt_joiner *joiner) {
    mt_blob_unref(joiner->partial);
    joiner->partial = NULL;
    joiner->filled = 0;
}

static int join_first(mt_joiner *joiner, const void *data, uint32_t size) {
    uint64_t total;
    if (size < sizeof total) return MT_E_RECORD;
    memcpy(&total, data, sizeof total);
    if (total <= size || total > joiner->max_size) return MT_E_RECORD;
    joiner->partial = mt_blob_new(joiner->alloc, total);
    return joiner->partial == NULL ? MT_E_NOMEM : MT_OK;
}

int mti_join(mt_joiner *joiner, const void *data, uint32_t size, uint32_t flags, mt_incoming *out) {
    bool collecting = joiner->partial != NULL;
    if (collecting && joiner->filled == joiner->partial->size) { /* the last whole record has been used */
        mti_joiner_clean_up(joiner);
        collecting = false;
    }
    if (collecting == ((flags & MT_PIECE_FIRST) != 0)) return MT_E_RECORD;
    if ((flags & (MT_PIECE_FIRST | MT_PIECE_LAST)) == (MT_PIECE_FIRST | MT_PIECE_LAST)) {
        *out = (mt_incoming){data, size, NULL};
        return MT_OK;
    }
    if (!collecting) {
        int status = join_first(joiner, data, size);
        if (status != MT_OK) return status;
    }
    mt_blob *blob = joiner->partial;
    if (size > blob->size - joiner->filled) return MT_E_RECORD;
    memcpy(blob->data + joiner->filled, data, size);
    joiner->filled += size;
    bool whole = joiner->filled == blob->size;
    if (whole != ((flags & MT_PIECE_LAST) != 0)) return MT_E_RECORD;
    if (!whole) return MT_E_AGAIN;
    *out = (mt_incoming){blob->data, blob->size, blob};
    return MT_OK;
}
