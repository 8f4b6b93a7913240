/* objects.h - immutable bytes with an id, and which lane has them already.
 *
 * Role: makes functions and shared values travel down each lane once. The engine asks, before it sends a task, whether the lane
 * has what the task refers to; when the last reference goes, it tells every lane that has the object to drop it.
 * Invariants: an object is in the table while it has references. Ids are never 0.
 * Thread rule: one owner thread.
 */
#ifndef MT_OBJECTS_H
#define MT_OBJECTS_H

#include "mapping.h"

/* cffi:begin */

typedef struct mt_objects mt_objects;

/* `max_lanes`: lanes are numbered below it. NULL: out of memory. */
MT_EXPORT mt_objects *mt_objects_new(const mt_alloc *alloc, uint32_t max_lanes);
MT_EXPORT void mt_objects_destroy(mt_objects *objects);
/* One reference to the object; 0 or MT_E_NOMEM, MT_E_INVAL (id 0 or already there). */
MT_EXPORT MT_MUST_CHECK int mt_objects_add(mt_objects *objects, uint64_t id, const mt_part *bytes, uint32_t codec);
/* MT_E_STALE: no such object. */
MT_EXPORT MT_MUST_CHECK int mt_objects_ref(mt_objects *objects, uint64_t id);
/* Gives a reference up. Returns 1 when it was the last: the object is gone, and `out_lanes` (room for max_lanes) holds the
 * `*out_n` lanes that have it. 0: others remain. MT_E_STALE. */
MT_EXPORT MT_MUST_CHECK int mt_objects_unref(mt_objects *objects, uint64_t id, uint32_t *out_lanes, uint32_t *out_n);
/* The bytes, valid while the object has references, and until mt_objects_where; MT_E_STALE. */
MT_EXPORT MT_MUST_CHECK int mt_objects_get(const mt_objects *objects, uint64_t id, mt_part *out_bytes,
                                           uint32_t *out_codec);
/* Notes that `lane` gets the object now. Returns 1 when it did not have it (send it), 0 when it had, MT_E_STALE. */
MT_EXPORT MT_MUST_CHECK int mt_objects_mark(mt_objects *objects, uint64_t id, uint32_t lane);
/* Where other processes of this node can map the bytes; they move there if they lie elsewhere yet (what mt_objects_get gave is then stale).
 * MT_E_STALE; MT_E_SYS: that is not possible now. */
MT_EXPORT MT_MUST_CHECK int mt_objects_where(mt_objects *objects, uint64_t id, mt_where *out);
/* The lane's other end has been replaced: it has nothing any more. */
MT_EXPORT void mt_objects_forget_lane(mt_objects *objects, uint32_t lane);
MT_EXPORT uint64_t mt_objects_count(const mt_objects *objects);
MT_EXPORT uint64_t mt_objects_bytes(const mt_objects *objects);
MT_EXPORT MT_MUST_CHECK int mt_objects_check(const mt_objects *objects);

/* cffi:end */

/* As mt_objects_add, for bytes [offset, end) of a blob, of which the object takes a reference. */
MT_MUST_CHECK int mti_objects_add_blob(mt_objects *objects, uint64_t id, mt_blob *blob, uint64_t offset,
                                       uint32_t codec);
/* Gives a reference up without ending the object at once: when it is the last, the object waits for
 * mti_objects_take_dead. For callers that cannot send the DROP themselves. */
void mti_objects_release(mt_objects *objects, uint64_t id);
/* The next object that waits so (as mt_objects_unref, which the caller must do next); 0: none. */
uint64_t mti_objects_take_dead(mt_objects *objects);
/* The blob that owns an object's bytes (borrowed); NULL: no such object. */
mt_blob *mti_objects_blob(const mt_objects *objects, uint64_t id);
/* Whether any lane has the object. */
bool mti_objects_is_somewhere(const mt_objects *objects, uint64_t id);
/* Whether the object has this codec and these bytes. */
bool mti_objects_is(const mt_objects *objects, uint64_t id, const mt_part *bytes, uint32_t codec);
/* A lane has sent this object and may refer to it: it holds one reference. 1: from now on; 0: it does already; MT_E_STALE. */
MT_MUST_CHECK int mti_objects_bring(mt_objects *objects, uint64_t id, uint32_t lane);
/* Whether it may refer to it. */
bool mti_objects_is_brought(const mt_objects *objects, uint64_t id, uint32_t lane);
/* It will not refer to it any more. Whether it could. */
bool mti_objects_unbring(mt_objects *objects, uint64_t id, uint32_t lane);
/* The next object, from place `*cursor` on (0 at first), that the lane may refer to; 0: none. */
uint64_t mti_objects_next_brought(const mt_objects *objects, uint32_t lane, uint64_t *cursor);
/* The scheduling class of the tasks that have this object as their function: one word for the engine to keep there. */
uint32_t *mti_objects_class(mt_objects *objects, uint64_t id);

#endif
