#include "link.h"

#include <string.h>

struct mt_parcel {
    mt_parcel *next;
    mt_blob *owner; /* of the last part; NULL: everything is in `head` */
    mt_part tail;   /* the last part, when it has an owner */
    uint64_t head_size;
    uint64_t progress;
    unsigned char head[];
};

static uint64_t parcel_size(const mt_parcel *parcel) { return parcel->head_size + parcel->tail.size; }

static int write_parcel(mt_link *link, mt_parcel *parcel) {
    mt_part parts[2] = {{parcel->head, parcel->head_size}, parcel->tail};
    uint64_t before = parcel->progress;
    int status = link->write(link, parts, parcel->owner == NULL ? 1 : 2, &parcel->progress);
    link->backlog_bytes -= parcel->progress - before;
    return status;
}

static int keep(mt_link *link, const mt_part *parts, uint32_t n_parts, mt_blob *owner, uint64_t progress) {
    uint32_t n_head = owner == NULL ? n_parts : n_parts - 1;
    uint64_t head_size = mti_parts_size(parts, n_head);
    mt_parcel *parcel = mt_get(link->alloc, sizeof *parcel + head_size);
    if (parcel == NULL) return MT_E_NOMEM;
    *parcel = (mt_parcel){.head_size = head_size, .progress = progress};
    mti_parts_copy(parts, n_head, 0, head_size, parcel->head);
    if (owner != NULL) {
        parcel->owner = mt_blob_ref(owner);
        parcel->tail = parts[n_parts - 1];
    }
    if (link->first == NULL) {
        link->first = parcel;
    } else {
        link->last->next = parcel;
    }
    link->last = parcel;
    link->backlog_bytes += parcel_size(parcel) - progress;
    return MT_OK;
}

int mti_link_send(mt_link *link, const mt_part *parts, uint32_t n_parts, mt_blob *owner) {
    uint64_t progress = 0;
    if (link->first == NULL) {
        int status = link->write(link, parts, n_parts, &progress);
        if (status != MT_E_AGAIN) return status;
    }
    return keep(link, parts, n_parts, owner, progress);
}

static void drop_first(mt_link *link) {
    mt_parcel *parcel = link->first;
    link->first = parcel->next;
    mt_blob_unref(parcel->owner);
    mt_put(link->alloc, parcel);
}

int mti_link_pump(mt_link *link, uint64_t *out_moved) {
    uint64_t before = link->backlog_bytes;
    int status = MT_OK;
    while (link->first != NULL && status == MT_OK) {
        status = write_parcel(link, link->first);
        if (status == MT_OK) drop_first(link);
    }
    *out_moved += before - link->backlog_bytes;
    if (status != MT_OK && status != MT_E_AGAIN) return status;
    return link->flush(link);
}

void mti_link_clean_up(mt_link *link) {
    while (link->first != NULL) drop_first(link);
    link->backlog_bytes = 0;
}

static void ring_bells(const mt_ring_link *self) {
    mt_bell_ring(self->memory.bell);
    mt_bell_ring(self->memory.engine_bell);
}

static int ring_write(mt_link *link, const mt_part *parts, uint32_t n_parts, uint64_t *progress) {
    mt_ring_link *self = (mt_ring_link *)link;
    uint64_t before = *progress;
    int status = mt_ring_put(self->ring, parts, n_parts, progress);
    if (status == MT_E_AGAIN && *progress != before) ring_bells(self); /* a streaming record needs its reader awake */
    return status;
}

static int ring_flush(mt_link *link) {
    mt_ring_link *self = (mt_ring_link *)link;
    if (mt_ring_publish(self->ring)) ring_bells(self);
    return MT_OK;
}

static int ring_recall(mt_link *link, bool by_itself, uint64_t *out_begun) {
    _Atomic uint64_t *started = ((mt_ring_link *)link)->memory.started;
    if (by_itself) {
        *out_begun = mti_begun(started);
    } else if (mti_recall(started, out_begun) != MT_OK) {
        *out_begun = UINT64_MAX; /* it reads nothing, or its memory was written over: what it has stays there until it is gone */
        return MT_OK;
    }
    mt_rec resume = {sizeof resume, 0, MT_KIND_RESUME, 0, 0};
    mt_part part = {&resume, sizeof resume};
    return mti_link_send(link, &part, 1, NULL);
}

void mti_ring_link_init(mt_ring_link *link, const mt_alloc *alloc, mt_ring *ring, const mt_segment_link *memory) {
    *link = (mt_ring_link){
        {.alloc = alloc, .write = ring_write, .flush = ring_flush, .recall = ring_recall}, ring, *memory};
}

static int frame_flush(mt_link *link) {
    mt_frame_link *self = (mt_frame_link *)link;
    mt_frame *frame = self->frame;
    if (frame == NULL) return MT_OK;
    mt_frame_head head = {MT_FRAME_MAGIC, self->flags, frame->used};
    memcpy(frame->data, &head, sizeof head);
    self->frame = NULL;
    (void)self->transport->send(self->transport, self->peer, frame); /* if the peer is lost, so is what was sent to it */
    return MT_OK;
}

/* A frame with at least `least` bytes of room for a piece. */
static int frame_with_room(mt_frame_link *self, uint64_t least) {
    if (self->frame != NULL && self->frame->capacity - self->frame->used < MT_PIECE_HEAD + mti_pad8(least)) (void)frame_flush(&self->base);
    if (self->frame != NULL) return MT_OK;
    int status = self->transport->get(self->transport, self->peer, &self->frame);
    if (status == MT_OK) self->frame->used = sizeof(mt_frame_head);
    return status;
}

static int frame_write(mt_link *link, const mt_part *parts, uint32_t n_parts, uint64_t *progress) {
    mt_frame_link *self = (mt_frame_link *)link;
    uint64_t total = mti_parts_size(parts, n_parts);
    while (*progress < total) {
        uint64_t left = total - *progress;
        int status = frame_with_room(self, left < 1024 ? left : 1024);
        if (status == MT_E_PEER) { /* the transport tells of it; the engine need not break off what it is doing */
            *progress = total;
            return MT_OK;
        }
        if (status != MT_OK) return status;
        mt_frame *frame = self->frame;
        uint64_t size = (uint64_t)(frame->capacity - frame->used - MT_PIECE_HEAD) & ~(uint64_t)7;
        if (size > left) size = left;
        uint32_t flags = (*progress == 0 ? MT_PIECE_FIRST : 0u) | (size == left ? MT_PIECE_LAST : 0u);
        uint32_t head[2] = {(uint32_t)size, flags};
        memcpy(frame->data + frame->used, head, sizeof head);
        mti_parts_copy(parts, n_parts, *progress, size, frame->data + frame->used + MT_PIECE_HEAD);
        frame->used += (uint32_t)(MT_PIECE_HEAD + mti_pad8(size));
        *progress += size;
    }
    return MT_OK;
}

void mti_frame_link_init(mt_frame_link *link, const mt_alloc *alloc, mt_transport *transport, uint32_t peer) {
    *link = (mt_frame_link){{.alloc = alloc, .write = frame_write, .flush = frame_flush}, transport, peer, NULL, 0};
}

int mti_frame_open(mt_frame_reader *reader, const void *data, uint64_t size) {
    mt_frame_head head;
    if (size < sizeof head) return MT_E_RECORD;
    memcpy(&head, data, sizeof head);
    if (head.magic != MT_FRAME_MAGIC || head.size != size) return MT_E_RECORD;
    reader->flags = head.flags;
    reader->at = (const unsigned char *)data + sizeof head;
    reader->end = (const unsigned char *)data + size;
    return MT_OK;
}

int mti_frame_next(mt_frame_reader *reader, mt_joiner *joiner, mt_incoming *out) {
    while (reader->at != reader->end) {
        uint32_t head[2];
        uint64_t left = (uint64_t)(reader->end - reader->at);
        if (left < sizeof head) return MT_E_RECORD;
        memcpy(head, reader->at, sizeof head);
        uint64_t step = MT_PIECE_HEAD + mti_pad8(head[0]);
        if (step > left) return MT_E_RECORD;
        int status = mti_join(joiner, reader->at + MT_PIECE_HEAD, head[0], head[1], out);
        reader->at += step;
        if (status != MT_E_AGAIN) return status;
    }
    return MT_E_AGAIN;
}
