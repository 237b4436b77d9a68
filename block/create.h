/* SPDX-License-Identifier: MIT */
/*
 * Making images: blockdev-create.  Main thread.
 */
#ifndef BLOCK_CREATE_H
#define BLOCK_CREATE_H

#include "block/block.h"

/* Make an image and return when it is there.  False with an error. */
bool coroutine_fn bdrv_co_create(const BlockdevCreateOptions *options,
                                 Error **errp);

/*
 * For drivers that make an image on a node: the node that @ref names, or a new
 * one, with a reference that bdrv_co_unref() drops.  NULL with an error.
 */
BlockDriverState *coroutine_fn bdrv_co_open_ref(const BlockdevRef *ref,
                                                Error **errp);

#endif /* BLOCK_CREATE_H */
