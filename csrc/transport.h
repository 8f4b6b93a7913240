/* transport.h - frames between ranks, whoever carries them: mpi, loopback, sim.
 *
 * Role: a table of calls. Frames between a pair of ranks arrive whole and in order, until one of them is lost: then next_lost says so, once, and what is
 * under way to or from it is forgotten. MT_E_PEER without a rank means all of them.
 * Thread rule: all calls come from the engine thread. None blocks.
 */
#ifndef MT_TRANSPORT_H
#define MT_TRANSPORT_H

#include "base.h"

/* cffi:begin */

/* A frame to be filled and sent. The first bytes of `data` are the mt_frame_head, which the sender of the frame writes. */
typedef struct mt_frame {
    unsigned char *data; /* 16-byte aligned */
    uint32_t capacity;
    uint32_t used;
} mt_frame;

/* A frame that has arrived. */
typedef struct mt_arrival {
    const unsigned char *data; /* valid until release */
    uint32_t size;
    uint32_t peer;
    void *token; /* the transport's */
} mt_arrival;

typedef struct mt_transport mt_transport;
struct mt_transport {
    /* An empty frame for `peer`; MT_E_AGAIN: too many are under way; MT_E_PEER: it is lost. */
    int (*get)(mt_transport *transport, uint32_t peer, mt_frame **out_frame);
    /* Takes the frame over. MT_OK, MT_E_PEER: the peer is lost. */
    int (*send)(mt_transport *transport, uint32_t peer, mt_frame *frame);
    /* The next frame that has arrived; MT_E_AGAIN: none; MT_E_PEER: there will be none from anybody. */
    int (*receive)(mt_transport *transport, mt_arrival *out_arrival);
    /* Frames are released in the order in which they came. */
    void (*release)(mt_transport *transport, const mt_arrival *arrival);
    /* Frames that have not left yet; also moves them on. While it is not 0 the rank must not sleep long. */
    uint32_t (*in_flight)(mt_transport *transport);
    /* A peer that cannot be reached any more; each is given once. False: no further one is. NULL: none ever is. */
    bool (*next_lost)(mt_transport *transport, uint32_t *out_peer);
    /* Ends all traffic; frees everything, the transport itself included. */
    void (*destroy)(mt_transport *transport);
};

/* cffi:end */

#endif
