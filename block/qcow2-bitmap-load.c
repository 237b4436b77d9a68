/* SPDX-License-Identifier: MIT */
/*
 * qcow2: reading the bitmaps of an image on opening it.
 *
 * Directory, tables and bits are a stranger's.  A directory that makes no sense
 * or clusters with two uses are errors, as what we wrote would make things
 * worse; a single bitmap that is broken or that we can't use is left alone.
 * How much is read and kept in memory is limited for all bitmaps together.
 *
 * Main thread, no request in flight.
 */
#include "block/qcow2-bitmap.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "block/check.h"

enum {
    MIN_GRANULARITY_BITS = 9,
    MAX_GRANULARITY_BITS = 31,
};

/* Bits of all bitmaps (bytes): memory and time to read them. */
#define MAX_ALL_BYTES (UINT64_C(4) << 30)

/* ---- reading the directory ---- */

static bool check_entry(const BDRVQcow2State *s, const Qcow2Bitmap *b,
                        uint64_t at, Error **errp)
{
    if (!*b->name || strlen(b->name) != b->name_size
        || b->name_size > QCOW2_MAX_BITMAP_NAME
        || !g_utf8_validate(b->name, -1, NULL)) {
        error_setg(errp, "Bitmap directory entry at offset %#" PRIx64
                   " has an invalid name", at);
    } else if (b->table_size
               && (qcow2_in_cluster(s, b->table_offset) || !b->table_offset
                   || b->table_offset > BDRV_MAX_LENGTH)) {
        error_setg(errp, "Bitmap '%s' (directory entry at offset %#" PRIx64
                   ") has an invalid table offset %#" PRIx64, b->name, at,
                   b->table_offset);
    } else if (qcow2_bitmap_find(s, b->name)) {
        error_setg(errp, "Bitmap directory entry at offset %#" PRIx64
                   " has the name '%s' of another one", at, b->name);
    } else {
        return true;
    }
    return false;
}

/* The entry at *@pos; *@pos moves on to the next. */
static bool read_entry(BDRVQcow2State *s, const uint8_t *dir, uint64_t *pos,
                       Error **errp)
{
    uint64_t at = s->bitmap_directory_offset + *pos, len, extra;
    uint64_t left = s->bitmap_directory_size - *pos;
    Qcow2BitmapDirEntry e;
    Qcow2Bitmap *b;

    if (left < sizeof(e)) {
        error_setg(errp, "Bitmap directory is too small for its %" PRIu32
                   " entries", s->nb_bitmaps);
        return false;
    }
    memcpy(&e, dir + *pos, sizeof(e));
    extra = GUINT32_FROM_BE(e.extra_data_size);
    len = sizeof(e) + extra + GUINT16_FROM_BE(e.name_size);
    len = (len + 7) & ~UINT64_C(7);
    if (len > left) {
        error_setg(errp, "Bitmap directory entry at offset %#" PRIx64
                   " goes beyond the directory's end", at);
        return false;
    }
    b = g_new0(Qcow2Bitmap, 1);
    b->table_offset = GUINT64_FROM_BE(e.bitmap_table_offset);
    b->table_size = GUINT32_FROM_BE(e.bitmap_table_size);
    b->flags = GUINT32_FROM_BE(e.flags);
    b->type = e.type;
    b->granularity_bits = e.granularity_bits;
    b->name_size = GUINT16_FROM_BE(e.name_size);
    b->extra_size = extra;
    b->extra = g_memdup2(dir + *pos + sizeof(e), extra);
    b->name = g_strndup((const char *)dir + *pos + sizeof(e) + extra,
                        b->name_size);
    if (!check_entry(s, b, at, errp)) {
        qcow2_bitmap_free(b);
        return false;
    }
    TAILQ_INSERT_TAIL(&s->bitmaps->list, b, next);
    g_tree_insert(s->bitmaps->by_name, b->name, b);
    *pos += len;
    return true;
}

static bool coroutine_fn co_read_directory(BlockDriverState *bs, Error **errp)
{
    BDRVQcow2State *s = bs->opaque;
    g_autofree uint8_t *dir = NULL;
    uint64_t pos = 0;
    int ret = -EINVAL;

    s->bitmaps = g_new0(Qcow2Bitmaps, 1);
    TAILQ_INIT(&s->bitmaps->list);
    s->bitmaps->by_name = g_tree_new((GCompareFunc)strcmp);
    if (s->bitmap_directory_offset + s->bitmap_directory_size
        > (uint64_t)bdrv_getlength(bs->file->bs)) {
        error_setg(errp, "Bitmap directory goes beyond the end of the file");
        return false;
    }
    dir = g_try_malloc(s->bitmap_directory_size);
    ret = dir ? bdrv_co_pread(bs->file, s->bitmap_directory_offset,
                              s->bitmap_directory_size, dir, 0) : -ENOMEM;
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Failed to read bitmap directory");
        return false;
    }
    for (uint32_t i = 0; i < s->nb_bitmaps; i++) {
        aio_co_yield_fair();
        if (!read_entry(s, dir, &pos, errp)) {
            return false;
        }
    }
    if (pos != s->bitmap_directory_size) {
        error_setg(errp, "Bitmap directory has %" PRIu64 " bytes more than "
                   "its entries", s->bitmap_directory_size - pos);
        return false;
    }
    return true;
}

/* ---- reading bits ---- */

typedef struct Loader {
    BlockDriverState *bs;
    BDRVQcow2State *s;
    GArray *clusters;           /* uint64_t: all that has been used */
    uint64_t all_bytes;         /* of bits */
} Loader;

/* A part of the file that nothing else may use.  NULL: it is fine. */
static const char *claim(Loader *l, uint64_t offset, uint64_t bytes)
{
    uint64_t len = qcow2_cluster_end(l->s, bdrv_getlength(l->bs->file->bs));

    if (qcow2_in_cluster(l->s, offset)) {
        return "one of its offsets is not that of a cluster";
    }
    if (offset == 0 || bytes > len || offset > len - bytes) {
        return "one of its clusters lies outside of the file";
    }
    for (uint64_t end = offset + bytes; offset < end;
         offset += l->s->cluster_size) {
        g_array_append_val(l->clusters, offset);
    }
    return NULL;
}

/* NULL: its bits can be read; else why not. */
static const char *why_unusable(Loader *l, const Qcow2Bitmap *b)
{
    uint64_t need;

    if (b->granularity_bits < MIN_GRANULARITY_BITS
        || b->granularity_bits > MAX_GRANULARITY_BITS) {
        return "its granularity is not supported";
    }
    if (b->type != QCOW2_BITMAP_TYPE_DIRTY_TRACKING) {
        return "its type is not known";
    }
    if (b->flags & ~QCOW2_BITMAP_KNOWN_FLAGS) {
        return "it has flags that are not known";
    }
    if (b->extra_size && !(b->flags & QCOW2_BITMAP_EXTRA_COMPATIBLE)) {
        return "it has extra data that are not known";
    }
    need = qcow2_bitmap_bytes(b->granularity_bits, bdrv_getlength(l->bs));
    if (need > QCOW2_BITMAP_MAX_BYTES || l->all_bytes + need > MAX_ALL_BYTES) {
        return "it is too large";
    }
    return NULL;
}

/* Cluster @i of the bits; *@why is what is wrong with the image. */
static int coroutine_fn co_load_cluster(Loader *l, Qcow2Bitmap *b,
                                        BdrvDirtyBitmap *bm, uint64_t i,
                                        uint64_t entry, uint64_t *buf,
                                        const char **why)
{
    int64_t len = bdrv_getlength(l->bs), words = l->s->cluster_size / 8;
    uint64_t offset = entry & QCOW2_BME_OFFSET_MASK;
    int64_t bits = bdrv_dirty_bitmap_bits(bm, len), first = i * words;
    unsigned shift = b->granularity_bits;
    int ret;

    if ((entry & QCOW2_BME_RESERVED_MASK)
        || (offset && (entry & QCOW2_BME_ALL_ONES))) {
        *why = "an entry of its table is invalid";
        return -EINVAL;
    }
    if (!offset) {
        if (entry & QCOW2_BME_ALL_ONES) {
            int64_t from = (first * 64) << shift;

            bdrv_co_dirty_bitmap_set(bm, from,
                                     MIN(len - from, (words * 64) << shift));
        }
        return 0;
    }
    *why = claim(l, offset, l->s->cluster_size);
    if (*why) {
        return -EINVAL;
    }
    ret = bdrv_co_pread(l->bs->file, offset, l->s->cluster_size, buf, 0);
    if (ret < 0) {
        return ret;
    }
    for (int64_t w = 0; w < words; w++) {
        buf[w] = GUINT64_FROM_LE(buf[w]);
    }
    bdrv_dirty_bitmap_or_words(bm, bits, first, words, buf);
    return 0;
}

static int coroutine_fn co_load_bits(Loader *l, Qcow2Bitmap *b,
                                     BdrvDirtyBitmap *bm, const char **why)
{
    uint64_t bytes = (uint64_t)b->table_size * 8;
    uint64_t need = qcow2_bitmap_bytes(b->granularity_bits,
                                       bdrv_getlength(l->bs));
    g_autofree uint64_t *table = NULL, *buf = NULL;
    int ret;

    if (b->table_size != qcow2_cluster_end(l->s, need) / l->s->cluster_size) {
        *why = "the size of its table does not fit the image";
        return -EINVAL;
    }
    *why = bytes ? claim(l, b->table_offset, bytes) : NULL;
    if (*why) {
        return -EINVAL;
    }
    table = g_try_malloc(bytes + 1);
    buf = g_malloc(l->s->cluster_size);
    if (!table) {
        return -ENOMEM;
    }
    ret = bytes ? bdrv_co_pread(l->bs->file, b->table_offset, bytes, table, 0)
                : 0;
    for (uint32_t i = 0; ret >= 0 && i < b->table_size; i++) {
        ret = co_load_cluster(l, b, bm, i, GUINT64_FROM_BE(table[i]), buf,
                              why);
        if (ret >= 0) {
            ret = aio_co_yield_fair();
        }
    }
    return ret;
}

static bool coroutine_fn co_load(Loader *l, Qcow2Bitmap *b, Error **errp)
{
    BdrvDirtyBitmap *bm;
    const char *why = why_unusable(l, b);
    int ret = 0;

    if (why) {
        warn_report("Bitmap '%s' of node '%s' is not used: %s", b->name,
                    l->bs->node_name, why);
        return true;
    }
    bm = bdrv_dirty_bitmap_new(l->bs, b->name, b->granularity_bits, true,
                               errp);
    if (!bm) {
        error_prepend(errp, "Could not load bitmap '%s': ", b->name);
        return false;
    }
    bm->recording = false;
    if (!(b->flags & QCOW2_BITMAP_IN_USE)) {
        ret = co_load_bits(l, b, bm, &why);
        l->all_bytes += qcow2_bitmap_bytes(b->granularity_bits,
                                     bdrv_getlength(l->bs));
    }
    if (ret < 0 && !why) {
        error_setg_errno(errp, -ret, "Could not read bitmap '%s' from image",
                         b->name);
        bdrv_dirty_bitmap_free(bm);
        return false;
    }
    if (ret < 0) {
        warn_report("Bitmap '%s' of node '%s' is broken: %s", b->name,
                    l->bs->node_name, why);
        bdrv_dirty_bitmap_clear(bm);
    }
    bm->inconsistent = ret < 0 || (b->flags & QCOW2_BITMAP_IN_USE);
    if (!bm->inconsistent) {
        bm->recording = b->flags & QCOW2_BITMAP_AUTO;
        b->dirty = bm;
    }
    bdrv_dirty_bitmap_insert(l->bs, bm);
    return true;
}

/* No cluster may have two uses, or one for something else. */
static bool coroutine_fn co_check_overlaps(Loader *l, Error **errp)
{
    uint64_t *offsets;

    if (claim(l, l->s->bitmap_directory_offset,
              l->s->bitmap_directory_size)) {
        error_setg(errp, "Bitmap directory lies outside of the file");
        return false;
    }
    offsets = (uint64_t *)(void *)l->clusters->data;
    qcow2_co_sort_offsets(offsets, l->clusters->len);
    for (guint i = 0; i < l->clusters->len; i++) {
        aio_co_yield_fair();
        if (i && offsets[i] == offsets[i - 1]) {
            error_setg(errp, "The cluster at offset %#" PRIx64 " is used by "
                       "bitmaps more than once", offsets[i]);
            return false;
        }
        if (qcow2_overlaps(l->bs, QCOW2_OL_BITMAP_DIRECTORY, offsets[i],
                           l->s->cluster_size)) {
            error_setg(errp, "The cluster at offset %#" PRIx64 " is used by a "
                       "bitmap and for other metadata", offsets[i]);
            return false;
        }
    }
    return true;
}

/* ---- loading ---- */

/* Set IN_USE of all that writes may make wrong: flags alone change. */
static bool coroutine_fn co_mark_in_use(BlockDriverState *bs, Error **errp)
{
    BDRVQcow2State *s = bs->opaque;
    g_autoptr(GByteArray) dir = NULL;
    bool change = false;
    Qcow2Bitmap *b;
    uint32_t n;
    int ret;

    TAILQ_FOREACH(b, &s->bitmaps->list, next) {
        if ((b->dirty || (b->flags & QCOW2_BITMAP_AUTO))
            && !(b->flags & QCOW2_BITMAP_IN_USE)) {
            b->flags |= QCOW2_BITMAP_IN_USE;
            change = true;
        }
    }
    if (!change) {
        return true;
    }
    dir = qcow2_bitmap_directory(&s->bitmaps->list, &n);
    ret = bdrv_co_pwrite(bs->file, s->bitmap_directory_offset, dir->len,
                         dir->data, 0);
    if (ret >= 0) {
        ret = bdrv_co_flush(bs->file->bs);
    }
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not mark bitmaps as in use");
    }
    return ret >= 0;
}

bool coroutine_fn qcow2_co_load_bitmaps(BlockDriverState *bs, Error **errp)
{
    BDRVQcow2State *s = bs->opaque;
    Loader l = { .bs = bs, .s = s };
    Qcow2Bitmap *b;
    bool ok = true;

    if (s->nb_bitmaps == 0) {
        return true;
    }
    if (bdrv_open_for_check) {
        co_read_directory(bs, NULL);    /* the check says what is wrong */
        return true;
    }
    if (!co_read_directory(bs, errp)) {
        return false;
    }
    l.clusters = g_array_new(false, false, sizeof(uint64_t));
    TAILQ_FOREACH(b, &s->bitmaps->list, next) {
        ok = ok && co_load(&l, b, errp);
    }
    ok = ok && co_check_overlaps(&l, errp);
    g_array_free(l.clusters, true);
    return ok && (bs->read_only || co_mark_in_use(bs, errp));
}
