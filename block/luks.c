/* SPDX-License-Identifier: MIT */
/*
 * luks: an encrypted image, as LUKS version 1 has it.
 *
 * The data follows the header, or is all there is in the file if the header is
 * on a node of its own.  The image ends where its file ends, at the last whole
 * sector.  Nothing changes after opening, so that requests of all threads run
 * side by side: a read is decrypted where it was read to, a write goes through
 * a buffer, as its data must stay what it is.
 */
#include "block/block-int.h"

#include <string.h>
#include "block/check.h"
#include "block/create.h"
#include "block/crypto.h"

#define SECTOR BLOCK_CRYPTO_SECTOR_SIZE
#define LUKS_BUFFER_MAX (1 << 20)

typedef struct BDRVLuksState {
    BlockCrypto *crypto;
    char *key_secret;                   /* id of the secret */
    int64_t payload;                    /* where the data begins, bytes */
} BDRVLuksState;

/* ---- open ---- */

/* For the header: what lies behind the end of the file is zero. */
static int coroutine_fn luks_co_read_header(void *opaque, uint64_t offset,
                                            void *buf, size_t len)
{
    BdrvChild *child = opaque;
    uint64_t end = bdrv_getlength(child->bs);
    size_t n = offset < end ? MIN(len, end - offset) : 0;
    QEMUIOVector qiov;

    memset((char *)buf + n, 0, len - n);
    if (!n) {
        return 0;
    }
    qemu_iovec_init_buf(&qiov, buf, n);
    return MIN(bdrv_co_preadv(child, offset, &qiov, 0), 0);
}

static bool coroutine_fn luks_co_open(BlockDriverState *bs,
                                      const BlockdevOptions *options,
                                      Error **errp)
{
    const BlockdevOptionsLUKS *o = &options->u.luks;
    BDRVLuksState *s = bs->opaque;
    unsigned flags = o->header ? BLOCK_CRYPTO_DETACHED : 0;
    BdrvChild *header;
    int64_t len;

    header = bdrv_co_open_child(bs, o->file, "file", o->header
                                ? BDRV_CHILD_DATA | BDRV_CHILD_PRIMARY
                                : BDRV_CHILD_IMAGE, errp);
    if (header && o->header) {
        header = bdrv_co_open_child(bs, o->header, "header",
                                    BDRV_CHILD_METADATA, errp);
    }
    if (!header) {
        return false;
    }
    if (!o->key_secret && bdrv_open_for_check) {
        flags |= BLOCK_CRYPTO_HEADER_ONLY;      /* nobody will read data */
    }
    s->crypto = block_crypto_co_open_luks(luks_co_read_header, header,
                                          o->key_secret, flags, errp);
    if (!s->crypto) {
        return false;
    }
    s->payload = block_crypto_payload_offset(s->crypto);
    len = bdrv_getlength(bs->file->bs);
    if (len < s->payload) {
        error_setg(errp, "LUKS payload begins at offset %" G_GINT64_FORMAT
                   ", behind the end of the file (%" G_GINT64_FORMAT " bytes)",
                   s->payload, len);
        block_crypto_free(s->crypto);
        return false;
    }
    s->key_secret = g_strdup(o->key_secret);
    bs->total_bytes = bdrv_align_down(len - s->payload, SECTOR);
    return true;
}

static void coroutine_fn luks_co_close(BlockDriverState *bs)
{
    BDRVLuksState *s = bs->opaque;

    block_crypto_free(s->crypto);
    g_free(s->key_secret);
}

static void luks_refresh_limits(BlockDriverState *bs)
{
    bs->bl.request_alignment = MAX(SECTOR,
                                   bs->file->bs->bl.request_alignment);
}

/* ---- requests ---- */

static void *luks_buffer_new(BlockDriverState *bs, size_t size)
{
    return g_aligned_alloc(1, size, MAX(bs->file->bs->bl.min_mem_alignment,
                                        sizeof(void *)));
}

/* Can each element be decrypted by itself? */
static bool luks_whole_sectors(const QEMUIOVector *qiov)
{
    for (int i = 0; i < qiov->niov; i++) {
        if (qiov->iov[i].iov_len % SECTOR) {
            return false;
        }
    }
    return true;
}

static int coroutine_fn luks_co_read_in_place(BlockDriverState *bs,
                                              int64_t offset,
                                              QEMUIOVector *qiov)
{
    BDRVLuksState *s = bs->opaque;
    int ret = bdrv_co_preadv(bs->file, s->payload + offset, qiov, 0);

    for (int i = 0; i < qiov->niov && ret >= 0; i++) {
        ret = block_crypto_decrypt(s->crypto, offset, qiov->iov[i].iov_base,
                                   qiov->iov[i].iov_len);
        offset += qiov->iov[i].iov_len;
    }
    return MIN(ret, 0);
}

static int coroutine_fn luks_co_preadv(BlockDriverState *bs, int64_t offset,
                                       int64_t bytes, QEMUIOVector *qiov,
                                       BdrvRequestFlags flags)
{
    size_t max = MIN(bytes, LUKS_BUFFER_MAX);
    void *buf;
    int ret = 0;

    if (luks_whole_sectors(qiov)) {
        return luks_co_read_in_place(bs, offset, qiov);
    }
    buf = luks_buffer_new(bs, max);
    for (int64_t done = 0; done < bytes && ret >= 0; done += max) {
        size_t n = MIN(bytes - done, max);
        QEMUIOVector piece;

        qemu_iovec_init_buf(&piece, buf, n);
        ret = luks_co_read_in_place(bs, offset + done, &piece);
        if (ret >= 0) {
            qemu_iovec_from_buf(qiov, done, buf, n);
        }
        if (ret >= 0 && done + (int64_t)n < bytes) {
            ret = aio_co_yield_fair();
        }
    }
    g_aligned_free(buf);
    return ret;
}

static int coroutine_fn luks_co_pwritev(BlockDriverState *bs, int64_t offset,
                                        int64_t bytes, QEMUIOVector *qiov,
                                        BdrvRequestFlags flags)
{
    BDRVLuksState *s = bs->opaque;
    size_t max = MIN(bytes, LUKS_BUFFER_MAX);
    void *buf = luks_buffer_new(bs, max);
    int ret = 0;

    for (int64_t done = 0; done < bytes && ret >= 0; done += max) {
        size_t n = MIN(bytes - done, max);
        QEMUIOVector piece;

        qemu_iovec_to_buf(qiov, done, buf, n);
        ret = block_crypto_encrypt(s->crypto, offset + done, buf, n);
        if (ret >= 0) {
            qemu_iovec_init_buf(&piece, buf, n);
            ret = bdrv_co_pwritev(bs->file, s->payload + offset + done,
                                  &piece, flags);
        }
        if (ret >= 0 && done + (int64_t)n < bytes) {
            ret = aio_co_yield_fair();
        }
    }
    g_aligned_free(buf);
    return MIN(ret, 0);
}

/* ---- length ---- */

static int64_t coroutine_fn luks_co_getlength(BlockDriverState *bs)
{
    BDRVLuksState *s = bs->opaque;
    int64_t len = bdrv_co_getlength(bs->file->bs);

    return len < 0 ? len
                   : bdrv_align_down(MAX(len - s->payload, 0), SECTOR);
}

/* A length that ends inside a sector becomes the next one that does not. */
static int coroutine_fn luks_co_truncate(BlockDriverState *bs, int64_t offset,
                                         PreallocMode prealloc,
                                         BdrvRequestFlags flags, Error **errp)
{
    BDRVLuksState *s = bs->opaque;
    int64_t end = s->payload + bdrv_getlength(bs);
    int ret;

    if (offset > BDRV_MAX_LENGTH - s->payload - SECTOR) {
        error_setg(errp, "The requested file size is too large");
        return -EFBIG;
    }
    if (bdrv_getlength(bs->file->bs) > end) {
        /* Less than a sector, which must not come to light. */
        ret = bdrv_co_truncate(bs->file, end, PREALLOC_MODE_OFF, 0, errp);
        if (ret < 0) {
            return ret;
        }
    }
    return bdrv_co_truncate(bs->file, s->payload
                            + bdrv_align_up(offset, SECTOR), prealloc, flags,
                            errp);
}

/* ---- queries ---- */

static void luks_gather_options(BlockDriverState *bs, QDict *opts)
{
    BDRVLuksState *s = bs->opaque;

    if (s->key_secret) {
        qdict_put_str(opts, "key-secret", s->key_secret);
    }
}

static void luks_get_info(BlockDriverState *bs, BlockDriverInfo *bdi)
{
    bdi->encrypted = true;
}

static ImageInfoSpecific *luks_get_specific_info(BlockDriverState *bs)
{
    BDRVLuksState *s = bs->opaque;
    ImageInfoSpecific *info = g_new0(ImageInfoSpecific, 1);

    info->type = IMAGE_INFO_SPECIFIC_KIND_LUKS;
    info->u.luks.data = block_crypto_get_info(s->crypto);
    return info;
}

/* ---- create ---- */

static int coroutine_fn luks_co_write_header(void *opaque, uint64_t offset,
                                             const void *buf, size_t len)
{
    BlockBackend *blk = opaque;
    QEMUIOVector qiov;

    qemu_iovec_init_buf(&qiov, (void *)buf, len);
    return MIN(blk_co_pwritev(blk, offset, &qiov, 0), 0);
}

/* A user of the node that @ref says. */
static BlockBackend *coroutine_fn luks_co_open_user(const BlockdevRef *ref,
                                                    Error **errp)
{
    BlockDriverState *bs = bdrv_co_open_ref(ref, errp);
    BlockBackend *blk;
    bool ok;

    if (!bs) {
        return NULL;
    }
    blk = blk_new("luks create", BLK_PERM_WRITE | BLK_PERM_RESIZE,
                  BLK_PERM_ALL);
    ok = blk_co_attach(blk, bs, errp);
    bdrv_co_unref(bs);
    if (!ok) {
        blk_co_free(blk);
        return NULL;
    }
    return blk;
}

/* Lengths of the file with the header and of that with the data. */
static bool coroutine_fn luks_co_set_lengths(
    const BlockdevCreateOptionsLUKS *o, int64_t area, BlockBackend *header,
    BlockBackend *data, Error **errp)
{
    PreallocMode prealloc = o->has_preallocation ? o->preallocation
                                                 : PREALLOC_MODE_OFF;
    int64_t size;

    if (prealloc == PREALLOC_MODE_METADATA) {
        prealloc = PREALLOC_MODE_OFF;       /* the header is all there is */
    }
    if (o->size > BDRV_MAX_LENGTH - area - SECTOR) {
        error_setg(errp, "The requested file size is too large");
        return false;
    }
    size = bdrv_align_up(o->size, SECTOR) + (header == data ? area : 0);
    if (header != data
        && blk_co_truncate(header, area, PREALLOC_MODE_OFF, 0, errp) < 0) {
        return false;
    }
    return !data || blk_co_truncate(data, size, prealloc, 0, errp) >= 0;
}

/* What failed keeps no space that it has taken. */
static void coroutine_fn luks_co_shrink_back(BlockBackend *blk, int64_t length)
{
    const CoCancel *cancel = coroutine_set_cancel(NULL);

    if (blk && length >= 0 && blk_co_getlength(blk) > length) {
        blk_co_truncate(blk, length, PREALLOC_MODE_OFF, 0, NULL);
    }
    coroutine_set_cancel(cancel);
}

/* @header and @data may be the same; @data may be NULL. */
static bool coroutine_fn luks_co_format(
    const BlockdevCreateOptionsLUKS *o,
    const QCryptoBlockCreateOptionsLUKS *crypto, BlockBackend *header,
    BlockBackend *data, Error **errp)
{
    unsigned flags = header == data ? 0 : BLOCK_CRYPTO_DETACHED;
    int64_t area = block_crypto_luks_header_size(crypto, flags, errp);
    int64_t header_length = blk_co_getlength(header);
    int64_t data_length = data ? blk_co_getlength(data) : 0;
    g_autoptr(BlockCrypto) c = NULL;
    int ret = -1;

    if (area >= 0 && luks_co_set_lengths(o, area, header, data, errp)) {
        c = block_crypto_co_create_luks(crypto, flags, luks_co_write_header,
                                        header, errp);
    }
    if (c) {
        ret = blk_co_flush(header);
        if (ret < 0) {
            error_setg_errno(errp, -ret, "Unable to write LUKS header");
        }
    }
    if (ret < 0) {
        luks_co_shrink_back(header, header_length);
        luks_co_shrink_back(data, data_length);
    }
    return ret >= 0;
}

/* The same with NULL for @header where it is not apart from the data. */
static bool coroutine_fn luks_co_format_request(
    const BlockdevCreateOptionsLUKS *o,
    const QCryptoBlockCreateOptionsLUKS *crypto, BlockBackend *header,
    BlockBackend *data, Error **errp)
{
    bool ok;

    /* Whoever drains both nodes comes before both requests, or after them. */
    bdrv_graph_co_lock();
    if (data) {
        blk_co_begin_request(data);
    }
    if (header) {
        blk_co_begin_request(header);
    }
    bdrv_graph_unlock();
    ok = luks_co_format(o, crypto, header ? header : data, data, errp);
    if (header) {
        blk_end_request(header);
    }
    if (data) {
        blk_end_request(data);
    }
    return ok;
}

static bool coroutine_fn luks_co_create(const BlockdevCreateOptions *options,
                                        Error **errp)
{
    const BlockdevCreateOptionsLUKS *o = &options->u.luks;
    const QCryptoBlockCreateOptionsLUKS crypto = {
        .key_secret = o->key_secret,
        .has_cipher_alg = o->has_cipher_alg,
        .cipher_alg = o->cipher_alg,
        .has_cipher_mode = o->has_cipher_mode,
        .cipher_mode = o->cipher_mode,
        .has_ivgen_alg = o->has_ivgen_alg,
        .ivgen_alg = o->ivgen_alg,
        .has_ivgen_hash_alg = o->has_ivgen_hash_alg,
        .ivgen_hash_alg = o->ivgen_hash_alg,
        .has_hash_alg = o->has_hash_alg,
        .hash_alg = o->hash_alg,
        .has_iter_time = o->has_iter_time,
        .iter_time = o->iter_time,
    };
    BlockBackend *data = NULL, *header = NULL;
    bool ok;

    if (!o->file && !o->header) {
        error_setg(errp, "Either the parameter 'header' or 'file' must be "
                   "specified");
        return false;
    }
    ok = (!o->file || (data = luks_co_open_user(o->file, errp)))
         && (!o->header || (header = luks_co_open_user(o->header, errp)))
         && luks_co_format_request(o, &crypto, header, data, errp);
    blk_co_free(header);
    blk_co_free(data);
    return ok;
}

const BlockDriver bdrv_luks = {
    .format_name = "luks",
    .driver = BLOCKDEV_DRIVER_LUKS,
    .instance_size = sizeof(BDRVLuksState),
    .supported_write_flags = BDRV_REQ_FUA,
    .bdrv_co_open = luks_co_open,
    .bdrv_co_close = luks_co_close,
    .bdrv_co_create = luks_co_create,
    .bdrv_refresh_limits = luks_refresh_limits,
    .bdrv_co_preadv = luks_co_preadv,
    .bdrv_co_pwritev = luks_co_pwritev,
    .bdrv_co_truncate = luks_co_truncate,
    .bdrv_co_getlength = luks_co_getlength,
    .bdrv_gather_options = luks_gather_options,
    .bdrv_get_info = luks_get_info,
    .bdrv_get_specific_info = luks_get_specific_info,
};
