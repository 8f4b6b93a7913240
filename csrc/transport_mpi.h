/* transport_mpi.h - frames over MPI, through a table of function addresses.
 *
 * Role: the only C file that speaks MPI, without any mpi.h: Python takes the addresses of the calls from the library that mpi4py has loaded and
 * the handles from mpi4py (4 bytes in the MPICH family, pointers in Open MPI), so that one build works with every MPI.
 * Receives: two Irecvs of FRAME_BYTES are posted for each neighbour, by its name: no library has to take a receive back that it has offered to shared
 * memory and to a network at once, and frames of a neighbour that is slow to deliver hold nobody else's up. Frames of one neighbour come out in
 * the order in which they were sent, whatever order the library completes them in.
 * Sends: Isend from pooled frames, a share of the pool for each neighbour; their completion is looked for in in_flight and in get.
 * Errors: a call that fails for a neighbour makes that one lost; its requests are abandoned, not cancelled (that can block), and their frames stay with the library.
 * Thread rule: after mt_transport_mpi_new only the engine thread may call MPI on this communicator.
 */
#ifndef MT_TRANSPORT_MPI_H
#define MT_TRANSPORT_MPI_H

#include "transport.h"

/* cffi:begin */

/* What the core needs of an MPI library. Addresses of functions and constants as numbers. */
typedef struct mt_mpi_table {
    uint32_t handle_size; /* of MPI_Comm, MPI_Request, MPI_Datatype: 4 or 8 */
    uint32_t status_size; /* of MPI_Status */
    uint32_t looks;       /* calls of MPI_Testsome until an arrived message shows */
    int32_t tag;
    uint64_t comm;
    uint64_t byte;         /* MPI_BYTE */
    uint64_t request_null; /* MPI_REQUEST_NULL */
    int32_t error_in_status; /* MPI_ERR_IN_STATUS: what MPI_Testsome gives when statuses tell */
    uint32_t error_at;       /* where in a status its MPI_ERROR is */
    uint64_t isend, irecv, test, testsome, cancel, get_count; /* addresses of the MPI_ calls */
} mt_mpi_table;

/* For traffic with `peers` and nobody else. All is copied. NULL: out of memory, a bad table, or MPI refuses the first receives. */
MT_EXPORT mt_transport *mt_transport_mpi_new(const mt_mpi_table *table, const uint32_t *peers, uint32_t n_peers);

/* cffi:end */

#endif
