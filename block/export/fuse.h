/* SPDX-License-Identifier: MIT */
/* The FUSE export's entry in the table of export types. */
#ifndef BLOCK_EXPORT_FUSE_H
#define BLOCK_EXPORT_FUSE_H

#include "block/export/export.h"

/* A FuseExport (block/export/fuse-int.h) embeds its BlockExport. */
extern const BlockExportDriver blk_exp_fuse;

/* [main] No export is left, nor will be: let the process that mounts go. */
void fuse_mount_cleanup(void);

#endif /* BLOCK_EXPORT_FUSE_H */
