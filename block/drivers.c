/* SPDX-License-Identifier: MIT */
/*
 * Every block driver.
 */
#include "block/block-int.h"

#include "config-host.h"

extern const BlockDriver bdrv_blkdebug, bdrv_blklogwrites;
extern const BlockDriver bdrv_compress;
extern const BlockDriver bdrv_file, bdrv_host_device;
extern const BlockDriver bdrv_luks;
extern const BlockDriver bdrv_null_co, bdrv_null_aio;
extern const BlockDriver bdrv_qcow2;
extern const BlockDriver bdrv_raw;
extern const BlockDriver bdrv_throttle;

const BlockDriver *const bdrv_drivers[] = {
    &bdrv_blkdebug,
    &bdrv_blklogwrites,
    &bdrv_compress,
    &bdrv_file,
    &bdrv_host_device,
#ifdef CONFIG_NETTLE
    &bdrv_luks,
#endif
    &bdrv_null_aio,
    &bdrv_null_co,
    &bdrv_qcow2,
    &bdrv_raw,
    &bdrv_throttle,
    NULL,
};
