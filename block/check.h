/* SPDX-License-Identifier: MIT */
/*
 * Checking and repairing images.
 *
 * Main thread, in a coroutine.
 */
#ifndef BLOCK_CHECK_H
#define BLOCK_CHECK_H

#include "block/block.h"

typedef enum {
    BDRV_FIX_LEAKS  = 1 << 0,   /* free what nobody uses */
    BDRV_FIX_ERRORS = 1 << 1,   /* everything else */
} BdrvCheckFix;

typedef struct BdrvCheckResult {
    int64_t corruptions, leaks;             /* that are still there */
    int64_t check_errors;                   /* what could not be looked at */
    int64_t corruptions_fixed, leaks_fixed;
    int64_t image_end_offset;               /* bytes into the file */
    /* Clusters of the guest's disk */
    int64_t total_clusters, allocated_clusters;
    int64_t fragmented_clusters, compressed_clusters;
} BdrvCheckResult;

typedef struct BdrvCheckHooks {
    /* What was found, a line without newline.  NULL: nobody wants to know. */
    void (*message)(void *opaque, const char *line);
    /* How much is done, from 0 to 1.  May be NULL. */
    void (*progress)(void *opaque, double part);
    void *opaque;
} BdrvCheckHooks;

/*
 * Set by a program before it opens images that it is going to check: drivers
 * then open what is marked as corrupt, repair nothing by themselves, and let
 * pass what the check will find.
 */
extern bool bdrv_open_for_check;

/*
 * The same for a program that wants to know something of images and does not
 * touch what they hold: data files that they name are not opened.
 */
extern bool bdrv_open_without_data;

/*
 * Check @bs, which is drained for as long (and the graph locked), and repair
 * what @fix (BDRV_FIX_ bits) says; repairing takes a user with the right to
 * write.  What is wrong with the image is no error: it is in @res.  @hooks may
 * be NULL.  0 or -errno.
 */
int coroutine_fn bdrv_co_check(BlockDriverState *bs, BdrvCheckResult *res,
                               int fix, const BdrvCheckHooks *hooks,
                               Error **errp);

#endif /* BLOCK_CHECK_H */
