/* SPDX-License-Identifier: MIT */
/*
 * Snapshots inside of images.
 *
 * Main thread, in a coroutine.  From beginning to end the functions hold the
 * graph lock (those called _locked: the caller does) and keep the node drained,
 * so nothing else changes the image.
 */
#ifndef BLOCK_SNAPSHOT_H
#define BLOCK_SNAPSHOT_H

#include "block/block.h"

/* Oldest first.  NULL if there are none; *@supported (may be NULL) says why. */
SnapshotInfoList *bdrv_snapshot_list(BlockDriverState *bs, bool *supported);

/*
 * Make snapshot @name.  @id: its number, or NULL for the next free one, which
 * must not be taken.
 */
bool coroutine_fn bdrv_co_snapshot_create_locked(BlockDriverState *bs,
                                                 const char *name,
                                                 const char *id, Error **errp);
bool coroutine_fn bdrv_co_snapshot_create(BlockDriverState *bs,
                                          const char *name, const char *id,
                                          Error **errp);

/* Delete the first one with both @id and @name; one of them may be NULL. */
bool coroutine_fn bdrv_co_snapshot_delete_locked(BlockDriverState *bs,
                                                 const char *id,
                                                 const char *name,
                                                 Error **errp);
bool coroutine_fn bdrv_co_snapshot_delete(BlockDriverState *bs,
                                          const char *id, const char *name,
                                          Error **errp);

/* Let the disk be what it was; the length may change. */
bool coroutine_fn bdrv_co_snapshot_apply(BlockDriverState *bs,
                                         const char *id_or_name, Error **errp);

#endif /* BLOCK_SNAPSHOT_H */
