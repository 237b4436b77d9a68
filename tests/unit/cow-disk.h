/* SPDX-License-Identifier: MIT */
/*
 * For unit tests of backing chains: an image format as simple as can be, with
 * a backing, a data file and clusters, that goes by the name of qcow2.
 *
 * A header of one cluster, then one place for each cluster of the image.
 * Including it replaces the table of drivers.
 */
#ifndef TESTS_UNIT_COW_DISK_H
#define TESTS_UNIT_COW_DISK_H

#include "tests/unit/block-test.h"

#define CLUSTER 4096
#define COW_CLUSTERS 1024

enum { COW_NONE, COW_DATA, COW_ZERO, COW_COMPRESSED };

typedef struct CowHeader {
    char magic[4];
    uint8_t version[4];
    int64_t length;
    char backing[1024];
    char format[16];
    char data_file[256];
    uint8_t state[COW_CLUSTERS];
} CowHeader;

G_STATIC_ASSERT(sizeof(CowHeader) <= CLUSTER);

typedef struct CowDisk {
    CowHeader h;
    BdrvChild *data;            /* the data file, or bs->file */
    unsigned part_zeroes;       /* requests for less than a cluster */
} CowDisk;

static inline void cow_create(const char *path, int64_t length,
                              const char *backing, const char *format,
                              const char *data_file)
{
    g_autofree CowHeader *h = g_new0(CowHeader, 1);
    g_autoptr(GError) error = NULL;

    memcpy(h->magic, "QFI\xfb", 4);
    h->version[3] = 3;
    h->length = length;
    g_strlcpy(h->backing, backing ? backing : "", sizeof(h->backing));
    g_strlcpy(h->format, format ? format : "", sizeof(h->format));
    g_strlcpy(h->data_file, data_file ? data_file : "", sizeof(h->data_file));
    g_file_set_contents(path, (char *)h, sizeof(*h), &error);
    g_assert_no_error(error);
}

static bool coroutine_fn cow_co_open(BlockDriverState *bs,
                                     const BlockdevOptions *options,
                                     Error **errp)
{
    const BlockdevOptionsQcow2 *o = &options->u.qcow2;
    bool safe = o->has_safe_image && o->safe_image;
    CowDisk *s = bs->opaque;
    int ret;

    if (!bdrv_co_open_child(bs, o->file, "file", BDRV_CHILD_IMAGE, errp)) {
        return false;
    }
    ret = bdrv_co_pread(bs->file, 0, sizeof(s->h), &s->h, 0);
    if (ret < 0 || memcmp(s->h.magic, "QFI\xfb", 4)) {
        error_setg(errp, "Image is not in qcow2 format");
        return false;
    }
    bs->total_bytes = s->h.length;
    s->data = bs->file;
    if ((s->h.data_file[0] || o->data_file)
        && !bdrv_co_open_data_file(bs, o->data_file, s->h.data_file, safe,
                                   &s->data, errp)) {
        return false;
    }
    return bdrv_co_open_backing(bs, o->backing, s->h.backing, s->h.format,
                                safe, errp);
}

static void cow_refresh_limits(BlockDriverState *bs)
{
    bs->bl.pwrite_zeroes_alignment = CLUSTER;
    bs->bl.pdiscard_alignment = CLUSTER;
}

static inline int64_t cow_place(int64_t offset)
{
    return offset + CLUSTER;
}

static int coroutine_fn cow_co_save(BlockDriverState *bs)
{
    CowDisk *s = bs->opaque;

    return bdrv_co_pwrite(bs->file, 0, sizeof(s->h), &s->h, 0);
}

static int coroutine_fn cow_co_preadv(BlockDriverState *bs, int64_t offset,
                                      int64_t bytes, QEMUIOVector *qiov,
                                      BdrvRequestFlags flags)
{
    CowDisk *s = bs->opaque;
    int64_t done = 0;
    int ret = 0;

    while (ret >= 0 && done < bytes) {
        int64_t pos = offset + done;
        int64_t n = MIN(bytes - done, CLUSTER - pos % CLUSTER);
        g_autofree uint8_t *buf = NULL;

        switch (s->h.state[pos / CLUSTER]) {
        case COW_NONE:
            ret = bdrv_co_read_backing(bs, pos, n, qiov, done);
            break;
        case COW_ZERO:
            qemu_iovec_memset(qiov, done, 0, n);
            break;
        case COW_DATA:
            ret = bdrv_co_preadv_part(s->data, cow_place(pos), n, qiov, done,
                                      0);
            break;
        default:
            buf = g_malloc(n);
            ret = bdrv_co_pread(s->data, cow_place(pos), n, buf, 0);
            for (int64_t i = 0; i < n; i++) {
                buf[i] ^= 0xff;
            }
            qemu_iovec_from_buf(qiov, done, buf, n);
        }
        done += n;
    }
    return ret;
}

/* Give the cluster at @pos data of its own. */
static int coroutine_fn cow_co_fill(BlockDriverState *bs, int64_t pos)
{
    CowDisk *s = bs->opaque;
    uint8_t *buf = g_malloc0(CLUSTER);
    int64_t start = bdrv_align_down(pos, CLUSTER);
    QEMUIOVector qiov;
    int ret;

    qemu_iovec_init_buf(&qiov, buf, CLUSTER);
    ret = cow_co_preadv(bs, start, CLUSTER, &qiov, 0);
    if (ret >= 0) {
        ret = bdrv_co_pwrite(s->data, cow_place(start), CLUSTER, buf, 0);
        s->h.state[pos / CLUSTER] = COW_DATA;
    }
    g_free(buf);
    return ret;
}

static int coroutine_fn cow_co_pwritev(BlockDriverState *bs, int64_t offset,
                                       int64_t bytes, QEMUIOVector *qiov,
                                       BdrvRequestFlags flags)
{
    CowDisk *s = bs->opaque;
    int64_t done = 0;
    int ret = 0;

    while (ret >= 0 && done < bytes) {
        int64_t pos = offset + done;
        int64_t n = MIN(bytes - done, CLUSTER - pos % CLUSTER);

        if (s->h.state[pos / CLUSTER] != COW_DATA) {
            ret = cow_co_fill(bs, pos);
        }
        if (ret >= 0) {
            ret = bdrv_co_pwritev_part(s->data, cow_place(pos), n, qiov, done,
                                       0);
        }
        done += n;
    }
    return ret < 0 ? ret : cow_co_save(bs);
}

static int coroutine_fn cow_co_pwritev_compressed(BlockDriverState *bs,
                                                  int64_t offset,
                                                  int64_t bytes,
                                                  QEMUIOVector *qiov)
{
    CowDisk *s = bs->opaque;
    g_autofree uint8_t *buf = g_malloc(bytes);
    int ret;

    g_assert_cmpint(offset % CLUSTER, ==, 0);
    g_assert_true(bytes % CLUSTER == 0
                  || offset + bytes == bdrv_getlength(bs));
    qemu_iovec_to_buf(qiov, 0, buf, bytes);
    for (int64_t i = 0; i < bytes; i++) {
        buf[i] ^= 0xff;
    }
    ret = bdrv_co_pwrite(s->data, cow_place(offset), bytes, buf, 0);
    if (ret < 0) {
        return ret;
    }
    memset(s->h.state + offset / CLUSTER, COW_COMPRESSED,
           (bytes + CLUSTER - 1) / CLUSTER);
    return cow_co_save(bs);
}

static int coroutine_fn cow_co_pwrite_zeroes(BlockDriverState *bs,
                                             int64_t offset, int64_t bytes,
                                             BdrvRequestFlags flags)
{
    CowDisk *s = bs->opaque;

    if (bytes % CLUSTER) {
        g_assert_cmpint(offset / CLUSTER, ==, (offset + bytes - 1) / CLUSTER);
        s->part_zeroes++;
        return s->h.state[offset / CLUSTER] == COW_ZERO ? 0 : -ENOTSUP;
    }
    g_assert_cmpint(offset % CLUSTER, ==, 0);
    memset(s->h.state + offset / CLUSTER, COW_ZERO, bytes / CLUSTER);
    return cow_co_save(bs);
}

static int coroutine_fn cow_co_truncate(BlockDriverState *bs, int64_t offset,
                                        PreallocMode prealloc,
                                        BdrvRequestFlags flags, Error **errp)
{
    CowDisk *s = bs->opaque;
    int64_t first = bdrv_align_up(s->h.length, CLUSTER) / CLUSTER;
    int64_t end = bdrv_align_up(offset, CLUSTER) / CLUSTER;

    g_assert_cmpint(end, <=, COW_CLUSTERS);
    if ((flags & BDRV_REQ_ZERO_WRITE) && end > first) {
        memset(s->h.state + first, COW_ZERO, end - first);
    }
    s->h.length = offset;
    return cow_co_save(bs);
}

static int coroutine_fn cow_co_block_status(BlockDriverState *bs,
                                            int64_t offset, int64_t bytes,
                                            int64_t *pnum, int64_t *map,
                                            BlockDriverState **file)
{
    CowDisk *s = bs->opaque;
    uint8_t state = s->h.state[offset / CLUSTER];
    int64_t end = offset;

    while (end < offset + bytes && s->h.state[end / CLUSTER] == state) {
        end = bdrv_align_down(end, CLUSTER) + CLUSTER;
    }
    *pnum = MIN(end - offset, bytes);
    *map = cow_place(offset);
    *file = s->data->bs;
    switch (state) {
    case COW_NONE:
        return 0;
    case COW_ZERO:
        return BDRV_BLOCK_ZERO;
    case COW_DATA:
        return BDRV_BLOCK_DATA | BDRV_BLOCK_OFFSET_VALID | BDRV_BLOCK_RECURSE;
    default:
        return BDRV_BLOCK_DATA;
    }
}

static void cow_get_info(BlockDriverState *bs, BlockDriverInfo *bdi)
{
    bdi->cluster_size = CLUSTER;
}

static const BlockDriver bdrv_cow = {
    .format_name = "qcow2",
    .driver = BLOCKDEV_DRIVER_QCOW2,
    .instance_size = sizeof(CowDisk),
    .supports_backing = true,
    .supported_zero_flags = BDRV_REQ_MAY_UNMAP | BDRV_REQ_NO_FALLBACK,
    .supported_truncate_flags = BDRV_REQ_ZERO_WRITE,
    .bdrv_co_open = cow_co_open,
    .bdrv_refresh_limits = cow_refresh_limits,
    .bdrv_co_preadv = cow_co_preadv,
    .bdrv_co_pwritev = cow_co_pwritev,
    .bdrv_co_pwritev_compressed = cow_co_pwritev_compressed,
    .bdrv_co_pwrite_zeroes = cow_co_pwrite_zeroes,
    .bdrv_co_truncate = cow_co_truncate,
    .bdrv_co_block_status = cow_co_block_status,
    .bdrv_get_info = cow_get_info,
};

extern const BlockDriver bdrv_blkdebug, bdrv_compress, bdrv_file;
extern const BlockDriver bdrv_host_device, bdrv_null_co, bdrv_raw;

const BlockDriver *const bdrv_drivers[] = {
    &bdrv_blkdebug, &bdrv_compress, &bdrv_cow, &bdrv_file, &bdrv_host_device,
    &bdrv_null_co, &bdrv_raw, NULL,
};

#endif /* TESTS_UNIT_COW_DISK_H */
