/* SPDX-License-Identifier: MIT */
/*
 * qcow2: making an image (blockdev-create).
 *
 * Written is an image whose guest sees zeroes, or its backing file: header,
 * refcount table and blocks, encryption header if any, and an empty L1 table,
 * one after the other.  The header comes last, so that what is left of an
 * interrupted creation is no image.  Preallocation is resizing from 0, by the
 * driver itself.  Source: the published qcow2 specification.
 */
#include "block/block-int.h"

#include <errno.h>
#include <inttypes.h>
#include "block/create.h"
#include "block/crypto.h"
#include "block/qcow2.h"

#define DEFAULT_CLUSTER_SIZE 65536

/* Nobody writes to a file that is made an image. */
#define SHARED_PERMS (BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE_UNCHANGED)

typedef struct Create {
    const BlockdevCreateOptionsQcow2 *o;
    bool v3;
    unsigned cluster_bits, refcount_order;
    int64_t cluster_size;
    bool extended_l2, data_file_raw;
    int64_t crypto_length;          /* of the encryption header, bytes */
    const char *backing;            /* NULL: none */
    PreallocMode prealloc;
    int64_t size;                   /* in the header that is written first */

    BlockDriverState *file, *data_file;
    BlockBackend *blk, *data_blk;   /* on each of these */

    /* Where what lies, in clusters; the header is cluster 0. */
    int64_t reftable_clusters, refblocks, crypto_clusters, l1_clusters;
    int64_t clusters;               /* of all */
    int64_t l1_entries;
} Create;

/* ---- options ---- */

static bool check_geometry(Create *c, Error **errp)
{
    const BlockdevCreateOptionsQcow2 *o = c->o;
    uint64_t cluster = o->has_cluster_size ? o->cluster_size
                                           : DEFAULT_CLUSTER_SIZE;

    if (o->size % 512) {
        error_setg(errp, "Image size must be a multiple of 512 bytes");
        return false;
    }
    c->v3 = !o->has_version || o->version == BLOCKDEV_QCOW2_VERSION_V3;
    c->extended_l2 = o->has_extended_l2 && o->extended_l2;
    if (c->extended_l2 && !c->v3) {
        error_setg(errp, "Extended L2 entries are only supported with "
                   "compatibility level 1.1 and above (use version=v3 or "
                   "greater)");
        return false;
    }
    if (cluster < 1 << QCOW2_MIN_CLUSTER_BITS
        || cluster > 1 << QCOW2_MAX_CLUSTER_BITS || (cluster & (cluster - 1))) {
        error_setg(errp, "Cluster size must be a power of two between %d and "
                   "%dk", 1 << QCOW2_MIN_CLUSTER_BITS,
                   1 << (QCOW2_MAX_CLUSTER_BITS - 10));
        return false;
    }
    c->cluster_size = cluster;
    c->cluster_bits = __builtin_ctzll(cluster);
    if (c->extended_l2 && c->cluster_bits < QCOW2_EXTL2_MIN_CLUSTER_BITS) {
        error_setg(errp, "Extended L2 entries are only supported with cluster "
                   "sizes of at least %d bytes",
                   1 << QCOW2_EXTL2_MIN_CLUSTER_BITS);
        return false;
    }
    return true;
}

static bool check_backing(Create *c, Error **errp)
{
    const BlockdevCreateOptionsQcow2 *o = c->o;

    c->prealloc = o->has_preallocation ? o->preallocation : PREALLOC_MODE_OFF;
    c->backing = o->backing_file && o->backing_file[0] ? o->backing_file
                                                       : NULL;
    if (o->backing_file && c->prealloc != PREALLOC_MODE_OFF
        && !c->extended_l2) {
        error_setg(errp, "Backing file and preallocation can only be used at "
                   "the same time if extended_l2 is on");
        return false;
    }
    if (o->has_backing_fmt && !o->backing_file) {
        error_setg(errp, "Backing format cannot be used without backing file");
        return false;
    }
    return true;
}

static bool check_refcounts(Create *c, Error **errp)
{
    const BlockdevCreateOptionsQcow2 *o = c->o;
    int64_t bits = o->has_refcount_bits ? o->refcount_bits : 16;

    if (o->has_lazy_refcounts && o->lazy_refcounts && !c->v3) {
        error_setg(errp, "Lazy refcounts only supported with compatibility "
                   "level 1.1 and above (use version=v3 or greater)");
        return false;
    }
    if (bits < 1 || bits > 64 || (bits & (bits - 1))) {
        error_setg(errp, "Refcount width must be a power of two and may not "
                   "exceed 64 bits");
        return false;
    }
    if (bits != 16 && !c->v3) {
        error_setg(errp, "Different refcount widths than 16 bits require "
                   "compatibility level 1.1 or above (use version=v3 or "
                   "greater)");
        return false;
    }
    c->refcount_order = __builtin_ctz(bits);
    return true;
}

static bool check_data_file(Create *c, Error **errp)
{
    const BlockdevCreateOptionsQcow2 *o = c->o;

    c->data_file_raw = o->has_data_file_raw && o->data_file_raw;
    if (c->data_file_raw && !o->data_file) {
        error_setg(errp, "data-file-raw requires data-file");
        return false;
    }
    if (c->data_file_raw && o->backing_file) {
        error_setg(errp, "Backing file and data-file-raw cannot be used at "
                   "the same time");
        return false;
    }
    if (o->data_file && !c->v3) {
        error_setg(errp, "External data files are only supported with "
                   "compatibility level 1.1 and above (use version=v3 or "
                   "greater)");
        return false;
    }
    if (c->data_file_raw && c->prealloc == PREALLOC_MODE_OFF) {
        /* Who reads the data file alone must find each byte in its place. */
        c->prealloc = PREALLOC_MODE_METADATA;
    }
    return true;
}

static bool check_compression(const Create *c, Error **errp)
{
    const BlockdevCreateOptionsQcow2 *o = c->o;

    if (!c->v3 && o->has_compression_type
        && o->compression_type != QCOW2_COMPRESSION_TYPE_ZLIB) {
        error_setg(errp, "Non-zlib compression type is only supported with "
                   "compatibility level 1.1 and above (use version=v3 or "
                   "greater)");
        return false;
    }
    return true;
}

static bool check_encryption(Create *c, Error **errp)
{
    const QCryptoBlockCreateOptions *encrypt = c->o->encrypt;

    if (!encrypt) {
        return true;
    }
    if (encrypt->format == Q_CRYPTO_BLOCK_FORMAT_QCOW) {
        error_setg(errp, "Images with AES encryption can only be read; use "
                   "format 'luks' to make new ones");
        return false;
    }
    c->crypto_length = block_crypto_luks_header_size(
        &encrypt->u.luks, BLOCK_CRYPTO_NESTED, errp);
    return c->crypto_length >= 0;
}

static bool check_size(const Create *c, Error **errp)
{
    int64_t size = c->o->size;
    int l2_bits = c->cluster_bits - (c->extended_l2 ? 4 : 3);

    if (size < 0) {
        error_setg(errp, "Could not resize image: Image size cannot be "
                   "negative");
        return false;
    }
    if (size > BDRV_MAX_LENGTH) {
        error_setg(errp, "Could not resize image: offset(%" PRIi64 ") exceeds "
                   "maximum(%" PRIi64 ")", size, (int64_t)BDRV_MAX_LENGTH);
        return false;
    }
    if ((size - 1) >> (c->cluster_bits + l2_bits) >= QCOW2_MAX_L1_BYTES / 8) {
        error_setg(errp, "Could not resize image: Failed to grow the L1 "
                   "table: File too large");
        return false;
    }
    return true;
}

static bool check_options(Create *c, Error **errp)
{
    return check_geometry(c, errp) && check_backing(c, errp)
        && check_refcounts(c, errp) && check_data_file(c, errp)
        && check_compression(c, errp) && check_encryption(c, errp);
}

/* ---- the header cluster ---- */

static int64_t crypto_offset(const Create *c)
{
    return (1 + c->reftable_clusters + c->refblocks) * c->cluster_size;
}

static void append_be32(GByteArray *out, uint32_t value)
{
    value = GUINT32_TO_BE(value);
    g_byte_array_append(out, (const uint8_t *)&value, sizeof(value));
}

static void append_extension(GByteArray *out, uint32_t type, const void *data,
                             size_t len)
{
    static const uint8_t zeroes[8];

    append_be32(out, type);
    append_be32(out, len);
    g_byte_array_append(out, data, len);
    g_byte_array_append(out, zeroes, -len & 7);
}

static void append_extensions(const Create *c, GByteArray *out)
{
    const BlockdevCreateOptionsQcow2 *o = c->o;
    size_t name_len = c->backing ? strlen(c->backing) : 0;

    if (c->backing && o->has_backing_fmt) {
        const char *format = BlockdevDriver_str(o->backing_fmt);

        append_extension(out, QCOW2_EXT_BACKING_FORMAT, format,
                         strlen(format));
    }
    if (c->data_file) {
        const char *name = c->data_file->filename;

        append_extension(out, QCOW2_EXT_DATA_FILE, name, strlen(name));
    }
    if (c->crypto_clusters) {
        Qcow2CryptoHeaderExt ext = {
            .offset = GUINT64_TO_BE(crypto_offset(c)),
            .length = GUINT64_TO_BE(c->crypto_length),
        };

        append_extension(out, QCOW2_EXT_CRYPTO_HEADER, &ext, sizeof(ext));
    }
    /* Only a comfort: left out where a small cluster has no room for it. */
    if (c->v3 && out->len + sizeof(qcow2_feature_names) + 16 + name_len
                 <= c->cluster_size) {
        append_extension(out, QCOW2_EXT_FEATURE_TABLE, qcow2_feature_names,
                         sizeof(qcow2_feature_names));
    }
    append_extension(out, QCOW2_EXT_END, NULL, 0);
}

static void fill_header(const Create *c, Qcow2Header *h)
{
    const BlockdevCreateOptionsQcow2 *o = c->o;
    bool zstd = o->has_compression_type
                && o->compression_type != QCOW2_COMPRESSION_TYPE_ZLIB;
    int64_t l1_cluster = c->clusters - c->l1_clusters;

    *h = (Qcow2Header) {
        .magic = GUINT32_TO_BE(QCOW2_MAGIC),
        .version = GUINT32_TO_BE(c->v3 ? 3 : 2),
        .cluster_bits = GUINT32_TO_BE(c->cluster_bits),
        .size = GUINT64_TO_BE(c->size),
        .crypt_method = GUINT32_TO_BE(o->encrypt ? QCOW2_CRYPT_LUKS
                                                 : QCOW2_CRYPT_NONE),
        .l1_size = GUINT32_TO_BE(c->l1_entries),
        .l1_table_offset = GUINT64_TO_BE(
            c->l1_entries ? l1_cluster * c->cluster_size : 0),
        .refcount_table_offset = GUINT64_TO_BE(c->cluster_size),
        .refcount_table_clusters = GUINT32_TO_BE(c->reftable_clusters),
        .incompatible_features = GUINT64_TO_BE(
            (c->data_file ? QCOW2_INCOMPAT_DATA_FILE : 0)
            | (zstd ? QCOW2_INCOMPAT_COMPRESSION : 0)
            | (c->extended_l2 ? QCOW2_INCOMPAT_EXTL2 : 0)),
        .compatible_features = GUINT64_TO_BE(
            o->has_lazy_refcounts && o->lazy_refcounts
            ? QCOW2_COMPAT_LAZY_REFCOUNTS : 0),
        .autoclear_features = GUINT64_TO_BE(
            c->data_file_raw ? QCOW2_AUTOCLEAR_DATA_FILE_RAW : 0),
        .refcount_order = GUINT32_TO_BE(c->refcount_order),
        .header_length = GUINT32_TO_BE(sizeof(Qcow2Header)),
        .compression_type = zstd ? QCOW2_COMPRESSION_TYPE_ZSTD
                                 : QCOW2_COMPRESSION_TYPE_ZLIB,
    };
}

/* The header cluster up to the end of what is in it; NULL: no room. */
static GByteArray *build_header(const Create *c, Error **errp)
{
    GByteArray *out = g_byte_array_new();
    const char *format = c->o->has_backing_fmt
                         ? BlockdevDriver_str(c->o->backing_fmt) : "(null)";
    size_t name_len = c->backing ? strlen(c->backing) : 0;
    Qcow2Header h;

    fill_header(c, &h);
    g_byte_array_append(out, (const uint8_t *)&h,
                        c->v3 ? sizeof(h) : QCOW2_HEADER_V2_SIZE);
    append_extensions(c, out);
    if (out->len + name_len <= c->cluster_size
        && name_len <= QCOW2_MAX_BACKING_NAME) {
        if (c->backing) {
            ((Qcow2Header *)out->data)->backing_file_offset =
                GUINT64_TO_BE(out->len);
            ((Qcow2Header *)out->data)->backing_file_size =
                GUINT32_TO_BE(name_len);
            g_byte_array_append(out, (const uint8_t *)c->backing, name_len);
        }
        return out;
    }
    g_byte_array_unref(out);
    if (c->backing) {
        error_setg_errno(errp, name_len > QCOW2_MAX_BACKING_NAME
                         ? EINVAL : ENOSPC, "Could not assign backing file "
                         "'%s' with format '%s'", c->backing, format);
    } else {
        error_setg_errno(errp, ENOSPC, "Could not write qcow2 header");
    }
    return NULL;
}

/* ---- writing ---- */

static int64_t div_up(int64_t n, int64_t d)
{
    return n / d + (n % d != 0);
}

/* Find room for everything; the refcount blocks cover themselves as well. */
static void lay_out(Create *c)
{
    unsigned l2_bits = c->cluster_bits - (c->extended_l2 ? 4 : 3);
    int64_t per_block = (c->cluster_size * 8) >> c->refcount_order;
    int64_t before;

    c->l1_entries = div_up(c->size, INT64_C(1) << (c->cluster_bits + l2_bits));
    c->l1_clusters = div_up(c->l1_entries * 8, c->cluster_size);
    c->crypto_clusters = div_up(c->crypto_length, c->cluster_size);
    c->reftable_clusters = c->refblocks = 1;
    do {
        before = c->clusters;
        c->clusters = 1 + c->reftable_clusters + c->refblocks
                      + c->crypto_clusters + c->l1_clusters;
        c->refblocks = div_up(c->clusters, per_block);
        c->reftable_clusters = div_up(c->refblocks * 8, c->cluster_size);
    } while (c->clusters != before);
}

static int coroutine_fn co_write(Create *c, int64_t offset, void *buf,
                                 size_t len)
{
    QEMUIOVector qiov;

    qemu_iovec_init_buf(&qiov, buf, len);
    return blk_co_pwritev(c->blk, offset, &qiov, 0);
}

static int coroutine_fn co_write_reftable(Create *c)
{
    size_t len = c->reftable_clusters * c->cluster_size;
    g_autofree uint64_t *table = g_malloc0(len);

    for (int64_t i = 0; i < c->refblocks; i++) {
        int64_t cluster = 1 + c->reftable_clusters + i;

        table[i] = GUINT64_TO_BE(cluster * c->cluster_size);
    }
    return co_write(c, c->cluster_size, table, len);
}

/* The first @n refcounts are 1. */
static void fill_refblock(const Create *c, uint8_t *block, int64_t n)
{
    unsigned bits = 1u << c->refcount_order;

    for (int64_t i = 0; i < n; i++) {
        if (bits < 8) {
            block[i * bits / 8] |= 1 << (i * bits % 8);
        } else {
            block[(i + 1) * (bits / 8) - 1] = 1;
        }
    }
}

static int coroutine_fn co_write_refblocks(Create *c)
{
    int64_t per_block = (c->cluster_size * 8) >> c->refcount_order;
    g_autofree uint8_t *block = g_malloc(c->cluster_size);
    int ret = 0;

    for (int64_t i = 0; i < c->refblocks && ret >= 0; i++) {
        int64_t cluster = 1 + c->reftable_clusters + i;
        int64_t left = c->clusters - i * per_block;

        memset(block, 0, c->cluster_size);
        fill_refblock(c, block, MIN(left, per_block));
        ret = co_write(c, cluster * c->cluster_size, block, c->cluster_size);
    }
    return ret;
}

/* The file is long enough for all, and what was an image is none any more. */
static bool coroutine_fn co_prepare_file(Create *c, Error **errp)
{
    int64_t need = c->clusters * c->cluster_size;
    int64_t length;
    int ret;

    if (c->prealloc != PREALLOC_MODE_OFF) {
        /*
         * Preallocated clusters show the guest what is in the file.  What
         * can't be emptied (a device) is taken as it is.
         */
        blk_co_truncate(c->blk, 0, PREALLOC_MODE_OFF, 0, NULL);
    }
    length = blk_co_getlength(c->blk);
    if (length < 0) {
        error_setg_errno(errp, -length, "Could not get the file's length");
        return false;
    }
    if (length < need
        && blk_co_truncate(c->blk, need, PREALLOC_MODE_OFF, 0, errp) < 0) {
        return false;
    }
    ret = blk_co_pwrite_zeroes(c->blk, 0, c->cluster_size, 0);
    if (ret >= 0 && c->l1_clusters) {
        ret = blk_co_pwrite_zeroes(c->blk, need - c->l1_clusters
                                           * c->cluster_size,
                                   c->l1_clusters * c->cluster_size,
                                   BDRV_REQ_MAY_UNMAP);
    }
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not write qcow2 header");
        return false;
    }
    return true;
}

static int coroutine_fn co_write_crypto_part(void *opaque, uint64_t offset,
                                             const void *buf, size_t len)
{
    Create *c = opaque;

    if (offset > c->crypto_length || len > c->crypto_length - offset) {
        return -EINVAL;
    }
    return co_write(c, crypto_offset(c) + offset, (void *)buf, len);
}

static bool coroutine_fn co_write_crypto(Create *c, Error **errp)
{
    g_autoptr(BlockCrypto) crypto = NULL;
    int ret;

    if (!c->crypto_length) {
        return true;
    }
    ret = blk_co_pwrite_zeroes(c->blk, crypto_offset(c),
                               c->crypto_clusters * c->cluster_size, 0);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not write encryption header");
        return false;
    }
    crypto = block_crypto_co_create_luks(&c->o->encrypt->u.luks,
                                         BLOCK_CRYPTO_NESTED,
                                         co_write_crypto_part, c, errp);
    return crypto != NULL;
}

static bool coroutine_fn co_write_image(Create *c, Error **errp)
{
    g_autoptr(GByteArray) header = NULL;
    int ret;

    lay_out(c);
    header = build_header(c, errp);
    if (!header || !co_prepare_file(c, errp) || !co_write_crypto(c, errp)) {
        return false;
    }
    ret = co_write_reftable(c);
    if (ret >= 0) {
        ret = co_write_refblocks(c);
    }
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not write refcount table");
        return false;
    }
    ret = blk_co_flush(c->blk);
    if (ret >= 0) {
        ret = co_write(c, 0, header->data, header->len);
    }
    if (ret >= 0) {
        ret = blk_co_flush(c->blk);
    }
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not write qcow2 header");
        return false;
    }
    return true;
}

/* ---- preallocation ---- */

static BlockDriverState *coroutine_fn co_open_image(const Create *c,
                                                    Error **errp)
{
    BlockdevRef file = {
        .type = QTYPE_QSTRING, .u.reference = c->file->node_name,
    };
    BlockdevRef data_file = { .type = QTYPE_QSTRING };
    BlockdevRefOrNull no_backing = { .type = QTYPE_QNULL };
    BlockdevQcow2Encryption encrypt = {
        .format = BLOCKDEV_QCOW2_ENCRYPTION_FORMAT_LUKS,
    };
    BlockdevOptions options = {
        .driver = BLOCKDEV_DRIVER_QCOW2,
        .u.qcow2 = { .file = &file, .backing = &no_backing },
    };
    BlockdevRef ref = { .type = QTYPE_QDICT };

    if (c->data_file) {
        data_file.u.reference = c->data_file->node_name;
        options.u.qcow2.data_file = &data_file;
    }
    if (c->o->encrypt) {
        encrypt.u.luks.key_secret = c->o->encrypt->u.luks.key_secret;
        options.u.qcow2.encrypt = &encrypt;
    }
    ref.u.definition = options;
    return bdrv_co_open_ref(&ref, errp);
}

/* Open the image, which is of length 0, and grow it. */
static bool coroutine_fn co_preallocate(const Create *c, Error **errp)
{
    BlockDriverState *bs = co_open_image(c, errp);
    BlockBackend *blk;
    Error *err = NULL;
    int ret;

    if (!bs) {
        return false;
    }
    blk = blk_new(NULL, BLK_PERM_RESIZE | BLK_PERM_WRITE, BLK_PERM_ALL);
    if (blk_co_attach(blk, bs, &err)) {
        blk_co_begin_request(blk);
        ret = blk_co_truncate(blk, c->o->size, c->prealloc, 0, &err);
        if (ret < 0) {
            error_prepend(&err, "Could not resize image: ");
        } else {
            ret = blk_co_flush(blk);
            if (ret < 0) {
                error_setg_errno(&err, -ret, "Could not flush the new image");
            }
        }
        blk_end_request(blk);
    }
    blk_co_free(blk);
    bdrv_co_unref(bs);
    error_propagate(errp, err);
    return !err;
}

/* Without preallocation the data file only gets its length. */
static bool coroutine_fn co_resize_data_file(const Create *c, Error **errp)
{
    bool ok;

    blk_co_begin_request(c->data_blk);
    ok = blk_co_truncate(c->data_blk, c->o->size, PREALLOC_MODE_OFF, 0,
                         errp) >= 0;
    blk_end_request(c->data_blk);
    return ok;
}

/* ---- blockdev-create ---- */

static bool coroutine_fn co_open_data_file(Create *c, Error **errp)
{
    if (!c->o->data_file) {
        return true;
    }
    c->data_file = bdrv_co_open_ref(c->o->data_file, errp);
    if (c->data_file && c->data_file == c->file) {
        error_setg(errp, "Node '%s' cannot be both the image and its data "
                   "file", c->file->node_name);
        return false;
    }
    return c->data_file != NULL;
}

static BlockBackend *coroutine_fn co_attach(BlockDriverState *bs, Error **errp)
{
    BlockBackend *blk = blk_new(NULL, BLK_PERM_WRITE | BLK_PERM_RESIZE,
                                SHARED_PERMS);

    if (!blk_co_attach(blk, bs, errp)) {
        blk_co_free(blk);
        return NULL;
    }
    return blk;
}

/* Both at once: their locks show if they are the same file. */
static bool coroutine_fn co_attach_both(Create *c, Error **errp)
{
    c->blk = co_attach(c->file, errp);
    if (c->blk && c->data_file) {
        c->data_blk = co_attach(c->data_file, errp);
    }
    return c->blk && (c->data_blk || !c->data_file);
}

static bool coroutine_fn co_create_on_file(Create *c, Error **errp)
{
    bool ok = check_options(c, errp) && co_open_data_file(c, errp)
              && co_attach_both(c, errp);

    if (ok) {
        c->size = c->prealloc == PREALLOC_MODE_OFF ? c->o->size : 0;
        ok = check_size(c, errp);
    }
    if (ok) {
        blk_co_begin_request(c->blk);
        ok = co_write_image(c, errp);
        blk_end_request(c->blk);
    }
    if (ok && c->data_blk && c->prealloc == PREALLOC_MODE_OFF) {
        ok = co_resize_data_file(c, errp);
    }
    /* The driver wants the files for itself. */
    blk_co_free(c->data_blk);
    blk_co_free(c->blk);
    return ok && (c->prealloc == PREALLOC_MODE_OFF || co_preallocate(c, errp));
}

bool coroutine_fn qcow2_co_create(const BlockdevCreateOptions *options,
                                  Error **errp)
{
    Create c = { .o = &options->u.qcow2 };
    bool ok;

    c.file = bdrv_co_open_ref(c.o->file, errp);
    ok = c.file && co_create_on_file(&c, errp);
    bdrv_co_unref(c.data_file);
    bdrv_co_unref(c.file);
    return ok;
}
