#include "inbox.h"

#include "atomic.h"

#define MAX_CAPACITY (1u << 24)

typedef struct cell {
    _Atomic uint64_t sequence;
    mt_message message;
} cell;

struct mt_inbox {
    const mt_alloc *alloc;
    cell *cells;
    uint64_t mask;
    char apart_1[64]; /* the pushers' line and the popper's line must differ */
    _Atomic uint64_t push_ticket;
    char apart_2[64];
    uint64_t pop_ticket;
};

mt_inbox *mt_inbox_new(const mt_alloc *alloc, uint64_t capacity) {
    if (capacity < 2 || capacity > MAX_CAPACITY || (capacity & (capacity - 1)) != 0) return NULL;
    mt_inbox *inbox = mti_get_zeroed(alloc, 1, sizeof *inbox);
    if (inbox == NULL) return NULL;
    inbox->alloc = alloc;
    inbox->mask = capacity - 1;
    inbox->cells = mti_get_zeroed(alloc, capacity, sizeof(cell));
    if (inbox->cells == NULL) {
        mt_put(alloc, inbox);
        return NULL;
    }
    for (uint64_t i = 0; i < capacity; i++) atomic_init(&inbox->cells[i].sequence, i);
    return inbox;
}

void mt_inbox_destroy(mt_inbox *inbox) {
    if (inbox == NULL) return;
    mt_put(inbox->alloc, inbox->cells);
    mt_put(inbox->alloc, inbox);
}

int mt_inbox_push(mt_inbox *inbox, mt_message message) {
    uint64_t ticket = mt_load_relaxed(&inbox->push_ticket);
    for (;;) {
        cell *c = &inbox->cells[ticket & inbox->mask];
        uint64_t sequence = mt_load_acquire(&c->sequence); /* pairs with the release of the popper: the cell is empty */
        if (sequence == ticket) {
            if (!mt_cas_weak_relaxed(&inbox->push_ticket, &ticket, ticket + 1)) continue;
            c->message = message;
            mt_store_release(&c->sequence, ticket + 1);
            return MT_OK;
        }
        if ((int64_t)(sequence - ticket) < 0) return MT_E_AGAIN;
        ticket = mt_load_relaxed(&inbox->push_ticket);
    }
}

uint32_t mt_inbox_pop_many(mt_inbox *inbox, mt_message *out, uint32_t n) {
    uint32_t got = 0;
    while (got < n) {
        cell *c = &inbox->cells[inbox->pop_ticket & inbox->mask];
        /* acquire: pairs with the release of the pusher that filled the cell */
        if (mt_load_acquire(&c->sequence) != inbox->pop_ticket + 1) break;
        out[got++] = c->message;
        mt_store_release(&c->sequence, inbox->pop_ticket + inbox->mask + 1);
        inbox->pop_ticket++;
    }
    return got;
}

bool mt_inbox_has_data(const mt_inbox *inbox) {
    const cell *c = &inbox->cells[inbox->pop_ticket & inbox->mask];
    return mt_load_acquire(&c->sequence) == inbox->pop_ticket + 1; /* pairs with the pusher's release */
}

bool mt_inbox_is_full(const mt_inbox *inbox) {
    uint64_t ticket = mt_load_relaxed(&inbox->push_ticket);
    /* acquire: pairs with the popper's release */
    return (int64_t)(mt_load_acquire(&inbox->cells[ticket & inbox->mask].sequence) - ticket) < 0;
}

int mt_inbox_check(const mt_inbox *inbox) {
    uint64_t pushed = mt_load_relaxed(&inbox->push_ticket);
    if (pushed - inbox->pop_ticket > inbox->mask + 1) return MT_E_RECORD;
    for (uint64_t t = inbox->pop_ticket; t != inbox->pop_ticket + inbox->mask + 1; t++) {
        uint64_t expected = t < pushed ? t + 1 : t;
        if (mt_load_relaxed(&inbox->cells[t & inbox->mask].sequence) != expected) return MT_E_RECORD;
    }
    return MT_OK;
}
