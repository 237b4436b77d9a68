/* SPDX-License-Identifier: MIT */
/*
 * throttle: a filter whose requests obey the limits of a throttle group.
 */
#include "block/filter.h"

#include "block/throttle-groups.h"

typedef struct BDRVThrottleState {
    ThrottleMember *member;
} BDRVThrottleState;

static bool coroutine_fn throttle_co_open(BlockDriverState *bs,
                                          const BlockdevOptions *options,
                                          Error **errp)
{
    const BlockdevOptionsThrottle *o = &options->u.throttle;
    BDRVThrottleState *s = bs->opaque;

    if (!bdrv_co_open_child(bs, o->file, "file", BDRV_CHILD_FILTERED
                            | BDRV_CHILD_PRIMARY, errp)) {
        return false;
    }
    s->member = throttle_member_new(o->throttle_group, errp);
    if (!s->member) {
        return false;
    }
    bs->length_follows_file = true;
    return true;
}

static void coroutine_fn throttle_co_close(BlockDriverState *bs)
{
    BDRVThrottleState *s = bs->opaque;

    throttle_member_free(s->member);
}

static void throttle_gather_options(BlockDriverState *bs, QDict *opts)
{
    BDRVThrottleState *s = bs->opaque;

    qdict_put_str(opts, "throttle-group",
                  throttle_group_id(throttle_member_group(s->member)));
}

static inline void coroutine_fn co_limit(BlockDriverState *bs, int64_t bytes,
                                         bool is_write)
{
    BDRVThrottleState *s = bs->opaque;

    throttle_group_co_io_limits(s->member, bytes, is_write);
}

static int coroutine_fn throttle_co_preadv(BlockDriverState *bs,
                                           int64_t offset, int64_t bytes,
                                           QEMUIOVector *qiov,
                                           BdrvRequestFlags flags)
{
    co_limit(bs, bytes, false);
    return bdrv_co_preadv(bs->file, offset, qiov, flags);
}

static int coroutine_fn throttle_co_pwritev(BlockDriverState *bs,
                                            int64_t offset, int64_t bytes,
                                            QEMUIOVector *qiov,
                                            BdrvRequestFlags flags)
{
    co_limit(bs, bytes, true);
    return bdrv_co_pwritev(bs->file, offset, qiov, flags);
}

static int coroutine_fn throttle_co_pwrite_zeroes(BlockDriverState *bs,
                                                  int64_t offset,
                                                  int64_t bytes,
                                                  BdrvRequestFlags flags)
{
    co_limit(bs, bytes, true);
    return bdrv_co_pwrite_zeroes(bs->file, offset, bytes, flags);
}

static int coroutine_fn throttle_co_pdiscard(BlockDriverState *bs,
                                             int64_t offset, int64_t bytes)
{
    co_limit(bs, bytes, true);
    return bdrv_co_pdiscard(bs->file, offset, bytes);
}

static void throttle_drain_begin(BlockDriverState *bs)
{
    BDRVThrottleState *s = bs->opaque;

    throttle_member_lift_begin(s->member);
}

static void throttle_drain_end(BlockDriverState *bs)
{
    BDRVThrottleState *s = bs->opaque;

    throttle_member_lift_end(s->member);
}

const BlockDriver bdrv_throttle = {
    .format_name = "throttle",
    .driver = BLOCKDEV_DRIVER_THROTTLE,
    .instance_size = sizeof(BDRVThrottleState),
    .is_filter = true,
    .can_grow = true,
    .passthrough = true,
    .supported_write_flags = BDRV_REQ_FUA,
    .supported_zero_flags = BDRV_REQ_FUA | BDRV_REQ_MAY_UNMAP
                            | BDRV_REQ_NO_FALLBACK,
    .supported_truncate_flags = BDRV_REQ_ZERO_WRITE,
    .bdrv_co_open = throttle_co_open,
    .bdrv_co_close = throttle_co_close,
    .bdrv_co_preadv = throttle_co_preadv,
    .bdrv_co_pwritev = throttle_co_pwritev,
    .bdrv_co_pwrite_zeroes = throttle_co_pwrite_zeroes,
    .bdrv_co_pdiscard = throttle_co_pdiscard,
    .bdrv_co_truncate = bdrv_filter_co_truncate,
    .bdrv_co_block_status = bdrv_filter_co_block_status,
    .bdrv_drain_begin = throttle_drain_begin,
    .bdrv_drain_end = throttle_drain_end,
    .bdrv_gather_options = throttle_gather_options,
};
