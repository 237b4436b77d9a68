/* SPDX-License-Identifier: MIT */
/*
 * qcow2: reading the header and its extensions.
 *
 * Everything in them is input from whoever made the image.  What is accepted
 * here, the other files rely on: geometry within limits, tables that lie at
 * cluster boundaries and end below 2^63, an L1 table as large as the disk
 * needs.  Whether there is anything at these places is for their readers.
 *
 * A message is the one that users of other programs know; its hint says in
 * which field of the header the fault lies.
 *
 * Main thread, while the node is being opened.
 */
#include "block/qcow2.h"

#include <inttypes.h>
#include <string.h>

#include "block/check.h"

/* Most of the first cluster that is read before anything needs more. */
#define FIRST_READ (64 * 1024)

typedef struct HeaderReader {
    BlockDriverState *bs;
    Qcow2Header h;              /* host order */
    uint8_t *buf;               /* the first cluster */
    uint64_t have;              /* bytes of it that have been read */
    uint64_t ext_end;           /* where extensions end at the latest */
    /* What is only needed until it has been checked */
    const uint8_t *features;    /* the feature name table, in buf */
    uint32_t features_len;
} HeaderReader;

#define FIELD(name) #name, (unsigned)offsetof(Qcow2Header, name)

/* Say where in the header @errp's fault lies. */
static void hint(Error **errp, const char *field, unsigned at, uint64_t value)
{
    error_append_hint(errp, "Header field %s (byte %u) is 0x%" PRIx64 ".\n",
                      field, at, value);
}

/* ---- reading ---- */

static void header_from_disk(Qcow2Header *h)
{
#define BE32(f) h->f = GUINT32_FROM_BE(h->f)
#define BE64(f) h->f = GUINT64_FROM_BE(h->f)
    BE32(magic);
    BE32(version);
    BE64(backing_file_offset);
    BE32(backing_file_size);
    BE32(cluster_bits);
    BE64(size);
    BE32(crypt_method);
    BE32(l1_size);
    BE64(l1_table_offset);
    BE64(refcount_table_offset);
    BE32(refcount_table_clusters);
    BE32(nb_snapshots);
    BE64(snapshots_offset);
    BE64(incompatible_features);
    BE64(compatible_features);
    BE64(autoclear_features);
    BE32(refcount_order);
    BE32(header_length);
#undef BE32
#undef BE64
}

/* Have bytes [0, @end) of the first cluster in the buffer. */
static bool coroutine_fn co_need(HeaderReader *r, uint64_t end, Error **errp)
{
    uint64_t cluster_size = UINT64_C(1) << r->h.cluster_bits;
    uint64_t want = r->have ? cluster_size : MIN(cluster_size, FIRST_READ);
    int ret;

    if (end <= r->have) {
        return true;
    }
    want = MAX(want, end);
    ret = bdrv_co_pread(r->bs->file, r->have, want - r->have,
                        r->buf + r->have, 0);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not read qcow2 header");
        return false;
    }
    r->have = want;
    return true;
}

/* What a version 2 image does not say. */
static void set_v2_defaults(Qcow2Header *h)
{
    h->incompatible_features = 0;
    h->compatible_features = 0;
    h->autoclear_features = 0;
    h->refcount_order = 4;
    h->header_length = QCOW2_HEADER_V2_SIZE;
}

static bool check_header_length(const Qcow2Header *h, Error **errp)
{
    uint32_t len = h->header_length;

    if (h->version >= 3 && len < QCOW2_HEADER_V3_SIZE) {
        error_setg(errp, "qcow2 header too short");
    } else if (len > UINT64_C(1) << h->cluster_bits) {
        error_setg(errp, "qcow2 header exceeds cluster size");
    } else if (len % 8) {
        error_setg(errp, "qcow2 header length is not a multiple of 8");
    } else {
        return true;
    }
    hint(errp, FIELD(header_length), len);
    return false;
}

/* Magic, version, cluster size: how the rest is to be read. */
static bool coroutine_fn co_read_start(HeaderReader *r, Error **errp)
{
    Qcow2Header *h = &r->h;
    int ret = bdrv_co_pread(r->bs->file, 0, sizeof(*h), h, 0);

    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not read qcow2 header");
        return false;
    }
    header_from_disk(h);
    if (h->magic != QCOW2_MAGIC) {
        error_setg(errp, "Image is not in qcow2 format");
        return false;
    }
    if (h->version < 2 || h->version > 3) {
        error_setg(errp, "Unsupported qcow2 version %" PRIu32, h->version);
        return false;
    }
    if (h->cluster_bits < QCOW2_MIN_CLUSTER_BITS
        || h->cluster_bits > QCOW2_MAX_CLUSTER_BITS) {
        error_setg(errp, "Unsupported cluster size: 2^%" PRIu32,
                   h->cluster_bits);
        hint(errp, FIELD(cluster_bits), h->cluster_bits);
        return false;
    }
    if (h->version == 2) {
        set_v2_defaults(h);
    }
    if (!check_header_length(h, errp)) {
        return false;
    }
    r->buf = g_malloc0(UINT64_C(1) << h->cluster_bits);
    return co_need(r, MAX(h->header_length, QCOW2_HEADER_V2_SIZE), errp);
}

/* ---- backing file name ---- */

static bool coroutine_fn co_read_backing_name(HeaderReader *r,
                                              BDRVQcow2State *s, Error **errp)
{
    const Qcow2Header *h = &r->h;
    uint64_t at = h->backing_file_offset;
    uint32_t len = h->backing_file_size;

    r->ext_end = s->cluster_size;
    if (!at) {
        return true;
    }
    if (at > s->cluster_size || (len && at < h->header_length)) {
        error_setg(errp, "Invalid backing file offset");
        hint(errp, FIELD(backing_file_offset), at);
        return false;
    }
    if (len > MIN(QCOW2_MAX_BACKING_NAME, s->cluster_size - at)) {
        error_setg(errp, "Backing file name too long");
        hint(errp, FIELD(backing_file_size), len);
        return false;
    }
    if (!len) {
        return true;
    }
    if (!co_need(r, at + len, errp)) {
        return false;
    }
    r->ext_end = at;
    s->image_backing_file = g_strndup((char *)r->buf + at, len);
    return true;
}

/* ---- extensions ---- */

typedef struct Extension {
    uint32_t type, len;
    uint64_t at;                /* of its data, bytes */
    const uint8_t *data;
} Extension;

static bool ext_backing_format(BDRVQcow2State *s, const Extension *ext,
                               Error **errp)
{
    if (ext->len >= 16) {
        error_setg(errp, "ERROR: ext_backing_format: len=%" PRIu32
                   " too large (>=16)", ext->len);
        return false;
    }
    s->image_backing_format = g_strndup((char *)ext->data, ext->len);
    return true;
}

static bool ext_data_file(BDRVQcow2State *s, const Extension *ext,
                          Error **errp)
{
    if (ext->len > QCOW2_MAX_BACKING_NAME) {
        error_setg(errp, "Data file name too long");
        return false;
    }
    s->image_data_file = g_strndup((char *)ext->data, ext->len);
    return true;
}

static bool ext_crypto_header(BDRVQcow2State *s, const Extension *ext,
                              Error **errp)
{
    Qcow2CryptoHeaderExt c;

    if (s->crypt_method != QCOW2_CRYPT_LUKS) {
        error_setg(errp, "CRYPTO header extension only expected with LUKS "
                   "encryption method");
        return false;
    }
    if (ext->len != sizeof(c)) {
        error_setg(errp, "CRYPTO header extension size %" PRIu32
                   ", but expected size %zu", ext->len, sizeof(c));
        return false;
    }
    memcpy(&c, ext->data, sizeof(c));
    s->crypto_header_offset = GUINT64_FROM_BE(c.offset);
    s->crypto_header_length = GUINT64_FROM_BE(c.length);
    if (qcow2_in_cluster(s, s->crypto_header_offset)) {
        error_setg(errp, "Encryption header offset '%" PRIu64 "' is not a "
                   "multiple of cluster size '%" PRIu64 "'",
                   s->crypto_header_offset, s->cluster_size);
        return false;
    }
    if (s->crypto_header_offset == 0
        || s->crypto_header_length > QCOW2_MAX_CRYPTO_HEADER
        || s->crypto_header_offset > INT64_MAX - QCOW2_MAX_CRYPTO_HEADER) {
        error_setg(errp, "Encryption header at offset '%" PRIu64 "' with "
                   "length '%" PRIu64 "' is out of bounds",
                   s->crypto_header_offset, s->crypto_header_length);
        return false;
    }
    return true;
}

static void warn_bitmaps_lost(void)
{
    Error *err = NULL;

    error_setg(&err, "a program lacking bitmap support modified this file, so "
               "all bitmaps are now considered inconsistent");
    error_append_hint(&err, "Some clusters may be leaked, run 'qemu-img check "
                      "-r' on the image file to fix.\n");
    warn_report_err(err);
}

static bool ext_bitmaps(BDRVQcow2State *s, const Extension *ext, Error **errp)
{
    Qcow2BitmapHeaderExt b;

    if (!(s->autoclear_features & QCOW2_AUTOCLEAR_BITMAPS)) {
        warn_bitmaps_lost();
        return true;
    }
    if (ext->len != sizeof(b)) {
        error_setg(errp, "bitmaps_ext: Invalid extension length");
        return false;
    }
    memcpy(&b, ext->data, sizeof(b));
    s->nb_bitmaps = GUINT32_FROM_BE(b.nb_bitmaps);
    s->bitmap_directory_size = GUINT64_FROM_BE(b.bitmap_directory_size);
    s->bitmap_directory_offset = GUINT64_FROM_BE(b.bitmap_directory_offset);
    if (b.reserved32) {
        error_setg(errp, "bitmaps_ext: Reserved field is not zero");
        return false;
    }
    if (s->nb_bitmaps > QCOW2_MAX_BITMAPS) {
        error_setg(errp, "bitmaps_ext: Image has %" PRIu32 " bitmaps, "
                   "exceeding the QEMU supported maximum of %d",
                   s->nb_bitmaps, QCOW2_MAX_BITMAPS);
        return false;
    }
    if (s->nb_bitmaps == 0) {
        error_setg(errp, "found bitmaps extension with zero bitmaps");
        return false;
    }
    if (qcow2_in_cluster(s, s->bitmap_directory_offset)
        || s->bitmap_directory_offset == 0
        || s->bitmap_directory_offset > INT64_MAX
                                        - QCOW2_MAX_BITMAP_DIRECTORY) {
        error_setg(errp, "bitmaps_ext: invalid bitmap directory offset");
        return false;
    }
    if (s->bitmap_directory_size > QCOW2_MAX_BITMAP_DIRECTORY) {
        error_setg(errp, "bitmaps_ext: bitmap directory size (%" PRIu64
                   ") exceeds the maximum supported size (%d)",
                   s->bitmap_directory_size, QCOW2_MAX_BITMAP_DIRECTORY);
        return false;
    }
    return true;
}

static bool keep_extension(BDRVQcow2State *s, const Extension *ext)
{
    Qcow2UnknownExt *u = g_new(Qcow2UnknownExt, 1);

    *u = (Qcow2UnknownExt) {
        .type = ext->type,
        .len = ext->len,
        .data = g_memdup2(ext->data, ext->len),
    };
    TAILQ_INSERT_TAIL(&s->unknown_ext, u, next);
    return true;
}

static bool read_extension(HeaderReader *r, BDRVQcow2State *s,
                           const Extension *ext, Error **errp)
{
    switch (ext->type) {
    case QCOW2_EXT_BACKING_FORMAT:
        return ext_backing_format(s, ext, errp);
    case QCOW2_EXT_FEATURE_TABLE:
        r->features = ext->data;
        r->features_len = ext->len;
        return true;
    case QCOW2_EXT_CRYPTO_HEADER:
        return ext_crypto_header(s, ext, errp);
    case QCOW2_EXT_DATA_FILE:
        return ext_data_file(s, ext, errp);
    case QCOW2_EXT_BITMAPS:
        return ext_bitmaps(s, ext, errp);
    default:
        return keep_extension(s, ext);
    }
}

/* True once for each type that we know. */
static bool first_of_its_type(uint32_t type, unsigned *seen)
{
    static const uint32_t known[] = {
        QCOW2_EXT_BACKING_FORMAT, QCOW2_EXT_FEATURE_TABLE, QCOW2_EXT_BITMAPS,
        QCOW2_EXT_CRYPTO_HEADER, QCOW2_EXT_DATA_FILE,
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(known); i++) {
        if (type == known[i]) {
            bool first = !(*seen & (1u << i));

            *seen |= 1u << i;
            return first;
        }
    }
    return true;
}

/* @features_only: only look for the feature name table. */
static bool coroutine_fn co_read_extensions(HeaderReader *r,
                                            BDRVQcow2State *s,
                                            bool features_only, Error **errp)
{
    uint64_t at = r->h.header_length;
    unsigned seen = 0;

    while (at + sizeof(Qcow2ExtHeader) <= r->ext_end) {
        Qcow2ExtHeader head;
        Extension ext;

        if (!co_need(r, at + sizeof(head), errp)) {
            return false;
        }
        memcpy(&head, r->buf + at, sizeof(head));
        ext.type = GUINT32_FROM_BE(head.type);
        ext.len = GUINT32_FROM_BE(head.length);
        ext.at = at + sizeof(head);
        ext.data = r->buf + ext.at;
        if (ext.type == QCOW2_EXT_END) {
            return true;
        }
        if (ext.len > r->ext_end - ext.at) {
            error_setg(errp, "Header extension too large");
            error_append_hint(errp, "The header extension of type 0x%" PRIx32
                              " at byte %" PRIu64 " says it has %" PRIu32
                              " bytes.\n", ext.type, at, ext.len);
            return false;
        }
        if (!co_need(r, ext.at + ext.len, errp)) {
            return false;
        }
        if (!first_of_its_type(ext.type, &seen)) {
            error_setg(errp, "Header extension of type 0x%" PRIx32
                       " at byte %" PRIu64 " is the second of its type",
                       ext.type, at);
            return false;
        }
        if (features_only) {
            if (ext.type == QCOW2_EXT_FEATURE_TABLE) {
                return read_extension(r, s, &ext, errp);
            }
        } else if (!read_extension(r, s, &ext, errp)) {
            error_append_hint(errp, "The header extension of type 0x%" PRIx32
                              " is at byte %" PRIu64 ".\n", ext.type, at);
            return false;
        }
        at = ext.at + bdrv_align_up(ext.len, 8);
    }
    return true;
}

/* ---- features ---- */

/* A feature's name, fit for a message. */
static char *feature_name(const Qcow2Feature *f)
{
    char *name = g_strndup(f->name, sizeof(f->name));

    for (char *p = name; *p; p++) {
        if (!g_ascii_isprint(*p)) {
            *p = '?';
        }
    }
    return name;
}

static void coroutine_fn co_report_unknown_features(HeaderReader *r,
                                                    BDRVQcow2State *s,
                                                    uint64_t mask,
                                                    Error **errp)
{
    g_autoptr(GString) names = g_string_new(NULL);

    /* A broken extension is the smaller trouble. */
    co_read_extensions(r, s, true, NULL);
    for (uint32_t at = 0; at + sizeof(Qcow2Feature) <= r->features_len;
         at += sizeof(Qcow2Feature)) {
        Qcow2Feature f;

        memcpy(&f, r->features + at, sizeof(f));
        if (f.type == QCOW2_FEAT_TYPE_INCOMPATIBLE && f.bit < 64
            && (mask & (UINT64_C(1) << f.bit))) {
            g_autofree char *name = feature_name(&f);

            g_string_append_printf(names, "%s%s", names->len ? ", " : "",
                                   name);
            mask &= ~(UINT64_C(1) << f.bit);
        }
    }
    if (mask) {
        g_string_append_printf(names, "%sUnknown incompatible feature: %"
                               PRIx64, names->len ? ", " : "", mask);
    }
    error_setg(errp, "Unsupported qcow2 feature(s): %s", names->str);
}

static bool coroutine_fn co_check_features(HeaderReader *r, BDRVQcow2State *s,
                                           Error **errp)
{
    uint64_t unknown = r->h.incompatible_features & ~QCOW2_INCOMPAT_MASK;

    if (unknown) {
        co_report_unknown_features(r, s, unknown, errp);
        return false;
    }
    s->incompatible_features = r->h.incompatible_features;
    s->compatible_features = r->h.compatible_features;
    s->autoclear_features = r->h.autoclear_features;
    s->extended_l2 = s->incompatible_features & QCOW2_INCOMPAT_EXTL2;
    s->external_data_file = s->incompatible_features
                            & QCOW2_INCOMPAT_DATA_FILE;
    s->data_file_raw = s->autoclear_features & QCOW2_AUTOCLEAR_DATA_FILE_RAW;
    s->dirty_bit = s->incompatible_features & QCOW2_INCOMPAT_DIRTY;
    if (s->data_file_raw && !s->external_data_file) {
        error_setg(errp, "data-file-raw requires a data file");
        return false;
    }
    return true;
}

static bool check_compression(HeaderReader *r, BDRVQcow2State *s, Error **errp)
{
    bool bit = s->incompatible_features & QCOW2_INCOMPAT_COMPRESSION;
    uint8_t type = 0;

    if (r->h.header_length > offsetof(Qcow2Header, compression_type)) {
        type = r->h.compression_type;
    }
    if (!qcow2_compression_supported(type)) {
        error_setg(errp, "qcow2: unknown compression type: %u", type);
        hint(errp, FIELD(compression_type), type);
        return false;
    }
    s->compression_type = type;
    if (bit != (type != QCOW2_COMPRESSION_TYPE_ZLIB)) {
        error_setg(errp, "qcow2: Compression type incompatible feature bit "
                   "must %sbe set", bit ? "not " : "");
        return false;
    }
    return true;
}

/* Fields of a newer version of the format that lie behind ours. */
static void keep_unknown_fields(HeaderReader *r, BDRVQcow2State *s)
{
    s->header_length = r->h.header_length;
    if (s->header_length > sizeof(Qcow2Header)) {
        s->unknown_header_fields_size = s->header_length - sizeof(Qcow2Header);
        s->unknown_header_fields = g_memdup2(r->buf + sizeof(Qcow2Header),
                                             s->unknown_header_fields_size);
    }
}

/* ---- geometry ---- */

static bool check_entry_sizes(HeaderReader *r, BDRVQcow2State *s, Error **errp)
{
    const Qcow2Header *h = &r->h;

    if (s->extended_l2
        && s->cluster_bits < QCOW2_EXTL2_MIN_CLUSTER_BITS) {
        error_setg(errp, "Unsupported subcluster size: %" PRIu64,
                   s->cluster_size / QCOW2_EXTL2_SUBCLUSTERS);
        hint(errp, FIELD(cluster_bits), s->cluster_bits);
        return false;
    }
    if (h->refcount_order > 6) {
        error_setg(errp, "Reference count entry width too large; may not "
                   "exceed 64 bits");
        hint(errp, FIELD(refcount_order), h->refcount_order);
        return false;
    }
    return true;
}

static void set_geometry(HeaderReader *r, BDRVQcow2State *s)
{
    unsigned bits = 1u << r->h.refcount_order;

    s->l2_entry_words = s->extended_l2 ? 2 : 1;
    s->l2_bits = s->cluster_bits - (s->extended_l2 ? 4 : 3);
    s->subclusters = s->extended_l2 ? QCOW2_EXTL2_SUBCLUSTERS : 1;
    s->subcluster_bits = s->cluster_bits - (s->extended_l2 ? 5 : 0);
    s->subcluster_size = UINT64_C(1) << s->subcluster_bits;
    s->refcount_order = r->h.refcount_order;
    s->refcount_max = UINT64_MAX >> (64 - bits);
    s->refblock_bits = s->cluster_bits + 3 - s->refcount_order;
    s->csize_shift = 62 - (s->cluster_bits - 8);
    s->csize_mask = (UINT64_C(1) << (s->cluster_bits - 8)) - 1;
    s->coffset_mask = (UINT64_C(1) << s->csize_shift) - 1;
}

static bool check_crypt_method(HeaderReader *r, BDRVQcow2State *s,
                               Error **errp)
{
    if (r->h.crypt_method > QCOW2_CRYPT_LUKS) {
        error_setg(errp, "Unsupported encryption method %" PRIu32,
                   r->h.crypt_method);
        hint(errp, FIELD(crypt_method), r->h.crypt_method);
        return false;
    }
    s->crypt_method = r->h.crypt_method;
    return true;
}

/* ---- tables ---- */

/* Does a table fit somewhere: whole clusters from @offset on? */
static bool table_place_ok(const BDRVQcow2State *s, uint64_t offset,
                           uint64_t bytes)
{
    return offset > 0 && qcow2_in_cluster(s, offset) == 0
           && offset <= INT64_MAX - bytes;
}

static bool check_refcount_table(HeaderReader *r, BDRVQcow2State *s,
                                 Error **errp)
{
    const Qcow2Header *h = &r->h;
    uint64_t clusters = h->refcount_table_clusters;

    if (clusters > QCOW2_MAX_REFTABLE_BYTES >> s->cluster_bits) {
        error_setg(errp, "Reference count table too large");
        hint(errp, FIELD(refcount_table_clusters), clusters);
        return false;
    }
    if (bdrv_open_for_check
        && (clusters == 0
            || !table_place_ok(s, h->refcount_table_offset,
                               clusters << s->cluster_bits))) {
        return true;            /* the check says so, and can make one */
    }
    if (clusters == 0) {
        error_setg(errp, "Image does not contain a reference count table");
        hint(errp, FIELD(refcount_table_clusters), 0);
        return false;
    }
    if (!table_place_ok(s, h->refcount_table_offset,
                        clusters << s->cluster_bits)) {
        error_setg(errp, "Reference count table offset invalid");
        hint(errp, FIELD(refcount_table_offset), h->refcount_table_offset);
        return false;
    }
    s->reftable_offset = h->refcount_table_offset;
    s->reftable_entries = clusters << (s->cluster_bits - 3);
    return true;
}

static bool check_snapshot_table(HeaderReader *r, BDRVQcow2State *s,
                                 Error **errp)
{
    const Qcow2Header *h = &r->h;
    uint64_t offset = h->snapshots_offset;

    if (h->nb_snapshots > QCOW2_MAX_SNAPSHOTS && !bdrv_open_for_check) {
        error_setg(errp, "Snapshot table too large");
        hint(errp, FIELD(nb_snapshots), h->nb_snapshots);
        return false;
    }
    if ((offset || h->nb_snapshots)
        && !table_place_ok(s, offset, QCOW2_MAX_SNAPSHOT_TABLE)) {
        error_setg(errp, "Snapshot table offset invalid");
        hint(errp, FIELD(snapshots_offset), offset);
        return false;
    }
    s->nb_snapshots = h->nb_snapshots;
    s->snapshots_offset = offset;
    return true;
}

static bool check_l1_table(HeaderReader *r, BDRVQcow2State *s, Error **errp)
{
    const Qcow2Header *h = &r->h;
    uint64_t needed = qcow2_size_to_l1(s, h->size);

    if (needed > INT32_MAX || h->size > BDRV_MAX_LENGTH) {
        error_setg(errp, "Image is too big");
        hint(errp, FIELD(size), h->size);
        return false;
    }
    if (h->l1_size > QCOW2_MAX_L1_BYTES / sizeof(uint64_t)) {
        error_setg(errp, "Active L1 table too large");
        hint(errp, FIELD(l1_size), h->l1_size);
        return false;
    }
    if (h->l1_size < needed) {
        error_setg(errp, "L1 table is too small");
        hint(errp, FIELD(l1_size), h->l1_size);
        return false;
    }
    if ((h->l1_size || h->l1_table_offset)
        && !table_place_ok(s, h->l1_table_offset, QCOW2_MAX_L1_BYTES)) {
        error_setg(errp, "Active L1 table offset invalid");
        hint(errp, FIELD(l1_table_offset), h->l1_table_offset);
        return false;
    }
    s->l1_size = h->l1_size;
    s->l1_table_offset = h->l1_table_offset;
    return true;
}

/* ---- all of it ---- */

static bool coroutine_fn co_read_all(HeaderReader *r, Error **errp)
{
    BDRVQcow2State *s = r->bs->opaque;

    if (!co_read_start(r, errp)) {
        return false;
    }
    s->version = r->h.version;
    s->cluster_bits = r->h.cluster_bits;
    s->cluster_size = UINT64_C(1) << s->cluster_bits;
    if (!co_read_backing_name(r, s, errp)
        || !co_check_features(r, s, errp)
        || !check_compression(r, s, errp)
        || !check_entry_sizes(r, s, errp)
        || !check_crypt_method(r, s, errp)) {
        return false;
    }
    keep_unknown_fields(r, s);
    set_geometry(r, s);
    if (!check_refcount_table(r, s, errp)
        || !check_snapshot_table(r, s, errp)
        || !check_l1_table(r, s, errp)
        || !co_read_extensions(r, s, false, errp)) {
        return false;
    }
    if (s->crypt_method == QCOW2_CRYPT_LUKS && !s->crypto_header_offset) {
        error_setg(errp, "Missing CRYPTO header for crypt method %u",
                   s->crypt_method);
        return false;
    }
    r->bs->total_bytes = r->h.size;
    return true;
}

bool coroutine_fn qcow2_co_read_header(BlockDriverState *bs, Error **errp)
{
    BDRVQcow2State *s = bs->opaque;
    HeaderReader r = { .bs = bs };
    bool ok;

    TAILQ_INIT(&s->unknown_ext);
    ok = co_read_all(&r, errp);
    g_free(r.buf);
    if (!ok) {
        qcow2_free_header(s);
    }
    return ok;
}

void qcow2_free_header(BDRVQcow2State *s)
{
    Qcow2UnknownExt *u;

    g_clear_pointer(&s->image_backing_file, g_free);
    g_clear_pointer(&s->image_backing_format, g_free);
    g_clear_pointer(&s->image_data_file, g_free);
    g_clear_pointer(&s->unknown_header_fields, g_free);
    s->unknown_header_fields_size = 0;
    while ((u = TAILQ_FIRST(&s->unknown_ext))) {
        TAILQ_REMOVE(&s->unknown_ext, u, next);
        g_free(u->data);
        g_free(u);
    }
}
