/* SPDX-License-Identifier: MIT */
/*
 * Throttle groups: I/O limits shared by the nodes that are their members.
 *
 * Groups are made, changed and deleted in the main thread by the object layer.
 * Members pass their requests through throttle_group_co_io_limits() in any
 * thread; within a group those who have to wait are served in turn, one request
 * of each member after the other, reads and writes apart.
 */
#ifndef BLOCK_THROTTLE_GROUPS_H
#define BLOCK_THROTTLE_GROUPS_H

#include "qapi/qapi-types.h"
#include "util/coroutine.h"
#include "util/error.h"

typedef struct ThrottleGroup ThrottleGroup;
typedef struct ThrottleMember ThrottleMember;

/* ---- groups (main thread) ---- */

/*
 * A new group known as @id.  NULL with an error if its limits contradict each
 * other or the id is taken.  @props may be NULL: no limits.
 */
ThrottleGroup *throttle_group_new(const char *id,
                                  const ThrottleGroupProperties *props,
                                  Error **errp);

/* Delete a group that throttle_group_in_use() says nobody uses. */
void throttle_group_free(ThrottleGroup *group);

ThrottleGroup *throttle_group_by_id(const char *id);        /* or NULL */
const char *throttle_group_id(const ThrottleGroup *group);

/* True while nodes are members, or others hold a reference. */
bool throttle_group_in_use(const ThrottleGroup *group);
void throttle_group_ref(ThrottleGroup *group);
void throttle_group_unref(ThrottleGroup *group);

/* The limits in force, every member set.  The caller frees them. */
ThrottleLimits *throttle_group_get_limits(const ThrottleGroup *group);

/*
 * Change the limits that @limits has, keep the others, at once for all members.
 * An error changes nothing.
 */
bool throttle_group_set_limits(ThrottleGroup *group,
                               const ThrottleLimits *limits, Error **errp);

/* ---- members ---- */

/*
 * Join the group called @id, which stays in use until throttle_member_free().
 * "Throttle group 'ID' does not exist" if there is none.  [main thread]
 */
ThrottleMember *throttle_member_new(const char *id, Error **errp);

/* Leave.  The member has no request waiting.  [main thread] */
void throttle_member_free(ThrottleMember *member);

ThrottleGroup *throttle_member_group(const ThrottleMember *member);

/*
 * Wait until a request of @bytes may run, and account for it.  [any thread]
 */
void coroutine_fn throttle_group_co_io_limits(ThrottleMember *member,
                                              int64_t bytes, bool is_write);

/*
 * While restricted limits are lifted (the node is being drained), waiting
 * requests go on at once.  Nests.  [any thread]
 */
void throttle_member_lift_begin(ThrottleMember *member);
void throttle_member_lift_end(ThrottleMember *member);

#endif /* BLOCK_THROTTLE_GROUPS_H */
