/* SPDX-License-Identifier: MIT */
/*
 * qcow2: the driver's table; opening and closing an image.
 *
 * Main thread, but for the few functions through which requests pass.
 *
 * A node that may write makes the file its own on opening: feature bits that
 * we do not know and that allow for it are cleared, an image that was not
 * closed cleanly is repaired.  A node that may not write never changes a byte
 * of the file.  Once corruption has been found nothing is written any more, not
 * even on closing; reads go on.
 */
#include "block/qcow2.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "block/check.h"
#include "block/crypto.h"
#include "block/qcow2-bitmap.h"

/* ---- state ---- */

static void init_state(BDRVQcow2State *s)
{
    TAILQ_INIT(&s->unknown_ext);
    TAILQ_INIT(&s->reservations);
    TAILQ_INIT(&s->pending);
    TAILQ_INIT(&s->stable);
    TAILQ_INIT(&s->waiting);
    co_mutex_init(&s->header_lock);
    co_mutex_init(&s->l1_lock);
    co_mutex_init(&s->lock);
    co_mutex_init(&s->wb_lock);
    pthread_mutex_init(&s->reserve_lock, NULL);
    wait_set_init(&s->reports_done);
    wait_set_init(&s->users_idle);
    wait_set_init(&s->reserve_done);
    inflight_init(&s->users[0], &s->users_idle);
    inflight_init(&s->users[1], &s->users_idle);
    s->virgin_start = UINT64_MAX;
    qcow2_compress_init(s);
}

static void free_list(Qcow2FreeList *list)
{
    Qcow2Free *f;

    while ((f = TAILQ_FIRST(list))) {
        TAILQ_REMOVE(list, f, next);
        g_free(f);
    }
}

static void deinit_state(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;

    qcow2_free_bitmaps(bs);
    qcow2_free_snapshots(s);
    qcow2_free_metamap(s);
    qcow2_free_reftable(s);
    qcow2_free_l1(s);
    qcow2_cache_free(s->l2_cache);
    qcow2_cache_free(s->refblock_cache);
    qcow2_compress_deinit(s);
    qcow2_free_header(s);
    g_free(s->header_undo);
    block_crypto_free(s->crypto);
    g_free(s->key_secret);
    free_list(&s->pending);
    free_list(&s->stable);
    free_list(&s->waiting);
    inflight_deinit(&s->users[0]);
    inflight_deinit(&s->users[1]);
    wait_set_deinit(&s->reports_done);
    wait_set_deinit(&s->users_idle);
    wait_set_deinit(&s->reserve_done);
    pthread_mutex_destroy(&s->reserve_lock);
}

static bool is_corrupt(const BDRVQcow2State *s)
{
    return __atomic_load_n(&s->corrupt, __ATOMIC_RELAXED);
}

/* ---- cache-clean-interval ---- */

static void arm_clean_timer(BDRVQcow2State *s)
{
    if (s->cache_clean_ns) {
        aio_timer_mod(&s->cache_clean_timer,
                      clock_now_ns() + s->cache_clean_ns);
    }
}

static void clean_caches(void *opaque)
{
    BDRVQcow2State *s = opaque;

    qcow2_cache_clean_unused(s->l2_cache);
    qcow2_cache_clean_unused(s->refblock_cache);
    qcow2_compress_clean(s);
    arm_clean_timer(s);
}

/* ---- opening ---- */

static bool coroutine_fn co_open_header(BlockDriverState *bs, Error **errp)
{
    BDRVQcow2State *s = bs->opaque;

    if (!qcow2_co_read_header(bs, errp)) {
        return false;
    }
    if ((s->incompatible_features & QCOW2_INCOMPAT_CORRUPT)
        && !bs->read_only && !bdrv_open_for_check) {
        error_setg(errp, "qcow2: Image is corrupt; cannot be opened "
                   "read/write");
        return false;
    }
    return true;
}

static bool coroutine_fn co_open_data_file(BlockDriverState *bs,
                                           const BlockdevOptionsQcow2 *o,
                                           Error **errp)
{
    BDRVQcow2State *s = bs->opaque;

    if (s->external_data_file && !bdrv_open_without_data) {
        return bdrv_co_open_data_file(bs, o->data_file, s->image_data_file,
                                      s->safe_image, &s->data_file, errp);
    }
    if (o->data_file && !s->external_data_file) {
        error_setg(errp, "'data-file' can only be set for images with an "
                   "external data file");
        return false;
    }
    s->data_file = bs->file;
    return true;
}

/* A part of the LUKS header; outside of its place there is nothing. */
static int coroutine_fn co_read_crypto(void *opaque, uint64_t offset,
                                       void *buf, size_t len)
{
    BlockDriverState *bs = opaque;
    BDRVQcow2State *s = bs->opaque;

    if (offset > s->crypto_header_length
        || len > s->crypto_header_length - offset) {
        return -EINVAL;
    }
    return MIN(bdrv_co_pread(bs->file, s->crypto_header_offset + offset, len,
                             buf, 0), 0);
}

static bool coroutine_fn co_open_crypto(BlockDriverState *bs,
                                        const BlockdevOptionsQcow2 *o,
                                        Error **errp)
{
    BDRVQcow2State *s = bs->opaque;
    unsigned flags = BLOCK_CRYPTO_NESTED;

    if (s->crypt_method == QCOW2_CRYPT_NONE) {
        return true;
    }
    if (o->encrypt) {
        s->key_secret = g_strdup(s->crypt_method == QCOW2_CRYPT_LUKS
                                 ? o->encrypt->u.luks.key_secret
                                 : o->encrypt->u.aes.key_secret);
    } else if (bdrv_open_for_check) {
        flags |= BLOCK_CRYPTO_HEADER_ONLY;      /* the tables are plain */
    }
    if (s->crypt_method == QCOW2_CRYPT_LUKS) {
        s->crypto = block_crypto_co_open_luks(co_read_crypto, bs,
                                              s->key_secret, flags, errp);
        return s->crypto;
    }
    if (!bs->read_only && !bdrv_open_for_check) {
        error_setg(errp, "Images with AES encryption can only be opened with "
                   "read-only=on");
        return false;
    }
    s->crypto = block_crypto_open_aes(s->key_secret, flags, errp);
    return s->crypto;
}

/* Where the file ends now, if it is one that grows with zeroes. */
static uint64_t find_virgin_start(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;
    BlockDriverState *file = bs->file->bs;

    while (file->file && (file->drv->is_filter || file->length_follows_file)) {
        file = file->file->bs;
    }
    if (file->drv->driver != BLOCKDEV_DRIVER_FILE) {
        return UINT64_MAX;
    }
    return qcow2_cluster_end(s, bdrv_getlength(bs->file->bs));
}

/* Autoclear bits that we do not know would not be true any more. */
static bool coroutine_fn co_clear_unknown_bits(BlockDriverState *bs,
                                               Error **errp)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t known = s->autoclear_features & QCOW2_AUTOCLEAR_MASK;
    int ret;

    if (s->nb_bitmaps == 0) {
        known &= ~QCOW2_AUTOCLEAR_BITMAPS;
    }
    if (known == s->autoclear_features) {
        return true;
    }
    s->autoclear_features = known;
    ret = qcow2_co_update_header(bs);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not update qcow2 header");
        return false;
    }
    return true;
}

/* The first moment at which the file may be changed. */
static bool coroutine_fn co_become_writable(BlockDriverState *bs, Error **errp)
{
    BDRVQcow2State *s = bs->opaque;

    if (bs->read_only) {
        return true;
    }
    s->virgin_start = find_virgin_start(bs);
    if (bdrv_open_for_check) {
        return true;
    }
    if (!co_clear_unknown_bits(bs, errp)) {
        return false;
    }
    if (s->incompatible_features & QCOW2_INCOMPAT_DIRTY) {
        return qcow2_co_repair_dirty(bs, errp) >= 0;
    }
    return true;
}

static bool coroutine_fn co_open_metamap(BlockDriverState *bs, Error **errp)
{
    int ret = qcow2_co_init_metamap(bs);

    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not read the tables of snapshots");
    }
    return ret >= 0;
}

static bool coroutine_fn co_open_all(BlockDriverState *bs,
                                     const BlockdevOptionsQcow2 *o,
                                     Error **errp)
{
    BDRVQcow2State *s = bs->opaque;

    return bdrv_co_open_child(bs, o->file, "file", BDRV_CHILD_IMAGE, errp)
           && co_open_header(bs, errp)
           && qcow2_apply_options(bs, o, errp)
           && co_open_data_file(bs, o, errp)
           && qcow2_co_read_l1(bs, errp)
           && qcow2_co_read_reftable(bs, errp)
           && qcow2_co_read_snapshots(bs, errp)
           && co_open_crypto(bs, o, errp)
           && bdrv_co_open_backing(bs, o->backing, s->image_backing_file,
                                   s->image_backing_format, s->safe_image,
                                   errp)
           && co_become_writable(bs, errp)
           && co_open_metamap(bs, errp)
           && qcow2_co_load_bitmaps(bs, errp);
}

static bool coroutine_fn qcow2_co_open(BlockDriverState *bs,
                                       const BlockdevOptions *options,
                                       Error **errp)
{
    BDRVQcow2State *s = bs->opaque;

    init_state(s);
    aio_timer_init(&s->cache_clean_timer, aio_context_main(), clean_caches,
                   s);
    if (!co_open_all(bs, &options->u.qcow2, errp)) {
        qcow2_co_wait_reports(s);
        deinit_state(bs);
        return false;
    }
    arm_clean_timer(s);
    return true;
}

/* ---- closing ---- */

/* What fails here is marked as inconsistent; nothing else is lost. */
static void coroutine_fn co_store_bitmaps(BlockDriverState *bs)
{
    Error *err = NULL;

    if (!qcow2_co_store_bitmaps(bs, &err)) {
        error_prepend(&err, "Lost persistent bitmaps of node '%s': ",
                      bs->node_name);
        bdrv_report_loss(bs, err);
    }
}

static void coroutine_fn co_write_everything(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;
    int ret = qcow2_co_settle(bs);

    if (ret >= 0 && s->dirty_bit && !bdrv_open_for_check && !is_corrupt(s)) {
        ret = qcow2_co_set_incompatible(bs, 0, QCOW2_INCOMPAT_DIRTY);
    }
    if (ret < 0) {
        Error *err = NULL;

        error_setg_errno(&err, -ret, "Could not write the metadata of node "
                         "'%s' on closing", bs->node_name);
        bdrv_report_loss(bs, err);
    }
}

static void coroutine_fn qcow2_co_close(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;

    aio_timer_del(&s->cache_clean_timer);
    if (!bs->read_only && !is_corrupt(s)) {
        co_store_bitmaps(bs);
        co_write_everything(bs);
    }
    qcow2_co_wait_reports(s);
    deinit_state(bs);
}

/* ---- writes, which a corrupt image takes no more ---- */

static int coroutine_fn qcow2_co_try_pwritev(BlockDriverState *bs,
                                             int64_t offset, int64_t bytes,
                                             QEMUIOVector *qiov,
                                             BdrvRequestFlags flags)
{
    if (__builtin_expect(is_corrupt(bs->opaque), 0)) {
        return -EIO;
    }
    return qcow2_co_pwritev(bs, offset, bytes, qiov, flags);
}

static int coroutine_fn qcow2_co_try_pwritev_compressed(BlockDriverState *bs,
                                                        int64_t offset,
                                                        int64_t bytes,
                                                        QEMUIOVector *qiov)
{
    if (is_corrupt(bs->opaque)) {
        return -EIO;
    }
    return qcow2_co_pwritev_compressed(bs, offset, bytes, qiov);
}

static int coroutine_fn qcow2_co_try_pwrite_zeroes(BlockDriverState *bs,
                                                   int64_t offset,
                                                   int64_t bytes,
                                                   BdrvRequestFlags flags)
{
    if (is_corrupt(bs->opaque)) {
        return -EIO;
    }
    return qcow2_co_pwrite_zeroes(bs, offset, bytes, flags);
}

static int coroutine_fn qcow2_co_try_pdiscard(BlockDriverState *bs,
                                              int64_t offset, int64_t bytes)
{
    if (is_corrupt(bs->opaque)) {
        return -EIO;
    }
    return qcow2_co_pdiscard(bs, offset, bytes);
}

static int coroutine_fn qcow2_co_try_truncate(BlockDriverState *bs,
                                              int64_t offset,
                                              PreallocMode prealloc,
                                              BdrvRequestFlags flags,
                                              Error **errp)
{
    if (is_corrupt(bs->opaque)) {
        error_setg(errp, "The image is corrupt");
        return -EIO;
    }
    if (!qcow2_bitmaps_check_resize(bs, errp)) {
        return -ENOTSUP;
    }
    return qcow2_co_truncate(bs, offset, prealloc, flags, errp);
}

/* ---- what users ask ---- */

static void qcow2_refresh_limits(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;

    bs->bl.request_alignment = s->crypto ? BLOCK_CRYPTO_SECTOR_SIZE : 1;
    bs->bl.pwrite_zeroes_alignment = bs->bl.request_alignment;
    bs->bl.pdiscard_alignment = s->cluster_size;
    bs->bl.min_mem_alignment = s->data_file->bs->bl.min_mem_alignment;
}

static void qcow2_gather_options(BlockDriverState *bs, QDict *opts)
{
    BDRVQcow2State *s = bs->opaque;
    QDict *encrypt;

    if (s->key_secret) {
        encrypt = qdict_new();
        qdict_put_str(encrypt, "format", s->crypt_method == QCOW2_CRYPT_LUKS
                                         ? "luks" : "aes");
        qdict_put_str(encrypt, "key-secret", s->key_secret);
        qdict_put(opts, "encrypt", encrypt);
    }
}

static void qcow2_get_info(BlockDriverState *bs, BlockDriverInfo *bdi)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t features = __atomic_load_n(&s->incompatible_features,
                                        __ATOMIC_RELAXED);

    bdi->cluster_size = s->cluster_size;
    bdi->is_dirty = features & QCOW2_INCOMPAT_DIRTY;
    bdi->encrypted = s->crypt_method != QCOW2_CRYPT_NONE;
}

static ImageInfoSpecificQCow2Encryption *encryption_info(
    const BDRVQcow2State *s)
{
    ImageInfoSpecificQCow2Encryption *info;
    QCryptoBlockInfoLUKS *luks;

    if (s->crypt_method == QCOW2_CRYPT_NONE) {
        return NULL;
    }
    info = g_new0(ImageInfoSpecificQCow2Encryption, 1);
    info->format = BLOCKDEV_QCOW2_ENCRYPTION_FORMAT_AES;
    if (s->crypt_method == QCOW2_CRYPT_LUKS) {
        info->format = BLOCKDEV_QCOW2_ENCRYPTION_FORMAT_LUKS;
        luks = block_crypto_get_info(s->crypto);
        info->u.luks = *luks;
        g_free(luks);           /* not what it points to */
    }
    return info;
}

static ImageInfoSpecific *qcow2_get_specific_info(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;
    ImageInfoSpecific *info = g_new0(ImageInfoSpecific, 1);
    ImageInfoSpecificQCow2 *q = g_new0(ImageInfoSpecificQCow2, 1);
    uint64_t features = __atomic_load_n(&s->incompatible_features,
                                        __ATOMIC_RELAXED);

    info->type = IMAGE_INFO_SPECIFIC_KIND_QCOW2;
    info->u.qcow2.data = q;
    q->compat = g_strdup(s->version == 2 ? "0.10" : "1.1");
    q->compression_type = s->compression_type;
    q->refcount_bits = INT64_C(1) << s->refcount_order;
    q->encrypt = encryption_info(s);
    if (s->version >= 3) {
        q->has_lazy_refcounts = true;
        q->lazy_refcounts = s->compatible_features
                            & QCOW2_COMPAT_LAZY_REFCOUNTS;
        q->has_corrupt = true;
        q->corrupt = is_corrupt(s) || (features & QCOW2_INCOMPAT_CORRUPT);
        q->has_extended_l2 = true;
        q->extended_l2 = s->extended_l2;
        q->bitmaps = qcow2_bitmaps_info(bs);
    }
    if (s->external_data_file) {
        q->data_file = g_strdup(s->image_data_file);
        q->has_data_file_raw = true;
        q->data_file_raw = s->data_file_raw;
    }
    return info;
}

const BlockDriver bdrv_qcow2 = {
    .format_name = "qcow2",
    .driver = BLOCKDEV_DRIVER_QCOW2,
    .instance_size = sizeof(BDRVQcow2State),
    .supports_backing = true,
    .supported_zero_flags = BDRV_REQ_MAY_UNMAP | BDRV_REQ_NO_FALLBACK,
    .supported_truncate_flags = BDRV_REQ_ZERO_WRITE,
    .bdrv_co_open = qcow2_co_open,
    .bdrv_co_close = qcow2_co_close,
    .bdrv_co_create = qcow2_co_create,
    .bdrv_co_preadv = qcow2_co_preadv,
    .bdrv_co_pwritev = qcow2_co_try_pwritev,
    .bdrv_co_pwritev_compressed = qcow2_co_try_pwritev_compressed,
    .bdrv_co_pwrite_zeroes = qcow2_co_try_pwrite_zeroes,
    .bdrv_co_pdiscard = qcow2_co_try_pdiscard,
    .bdrv_co_flush = qcow2_co_writeback,
    .bdrv_co_truncate = qcow2_co_try_truncate,
    .bdrv_co_block_status = qcow2_co_block_status,
    .bdrv_refresh_limits = qcow2_refresh_limits,
    .bdrv_gather_options = qcow2_gather_options,
    .bdrv_get_specific_info = qcow2_get_specific_info,
    .bdrv_get_info = qcow2_get_info,
    .bdrv_snapshot_list = qcow2_snapshot_list,
    .bdrv_co_snapshot_create = qcow2_co_snapshot_create,
    .bdrv_co_snapshot_delete = qcow2_co_snapshot_delete,
    .bdrv_co_snapshot_apply = qcow2_co_snapshot_apply,
    .bdrv_co_check = qcow2_co_check,
    .bdrv_can_store_bitmap = qcow2_can_store_bitmap,
    .bdrv_has_stored_bitmap = qcow2_has_stored_bitmap,
    .bdrv_co_remove_stored_bitmap = qcow2_co_remove_stored_bitmap,
};
