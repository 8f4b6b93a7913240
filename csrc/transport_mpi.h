/* transport_mpi.h - frames over MPI, through a table of function addresses.
 *
 * Role: the only C file that speaks MPI, without any mpi.h: Python takes the addresses of the calls from the library that mpi4py has loaded and
 * the handles from mpi4py (4 bytes in the MPICH family, pointers in Open MPI), so that one build works with every MPI.
 * Receives: RECEIVES Irecvs of FRAME_BYTES from any rank are always posted and looked at in the order of posting, which is the order in
 * which MPI matches them: frames of one sender stay in order, and an arrived message is seen by the first look.
 * Sends: Isend from pooled frames; their completion is looked for in in_flight and in get.
 * Thread rule: after mt_transport_mpi_new only the engine thread may call MPI on this communicator.
 */
#ifndef MT_TRANSPORT_MPI_H
#define MT_TRANSPORT_MPI_H

#include "transport.h"

/* cffi:begin */

/* What the core needs of an MPI library. Addresses of functions and constants as numbers. */
typedef struct mt_mpi_table {
    uint32_t handle_size; /* of MPI_Comm, MPI_Request, MPI_Datatype: 4 or 8 */
    uint32_t source_at;   /* offset of MPI_SOURCE in MPI_Status */
    int32_t any_source;
    int32_t tag;
    uint64_t comm;
    uint64_t byte;         /* MPI_BYTE */
    uint64_t isend, irecv, test, cancel, get_count; /* addresses of the MPI_ calls */
} mt_mpi_table;

/* The table is copied. NULL: out of memory, a bad table, or MPI refuses the first receives. */
MT_EXPORT mt_transport *mt_transport_mpi_new(const mt_mpi_table *table);

/* cffi:end */

#endif
