/* SPDX-License-Identifier: MIT */
/*
 * qcow2: bitmaps that an image keeps.
 *
 * The header leads to a directory, an entry of that to a table, an entry of
 * that to a cluster with bits.  Opening an image for writing sets IN_USE in the
 * directory before anything else is written; closing it stores the bitmaps anew
 * in clusters of their own and clears the flag in a new directory, to which one
 * write of the header switches.  So whatever happens in between, the file has
 * bitmaps that say all or that say they do not.
 *
 * What we can't use (unknown flags, types, extra data) is kept as it is, but if
 * it claims to reflect all writes (AUTO) it is marked as well.
 *
 * Main thread, no request in flight.
 */
#include "block/qcow2-bitmap.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "block/qcow2-snapshot.h"

/* ---- the list ---- */

void qcow2_bitmap_free(Qcow2Bitmap *b)
{
    g_free(b->name);
    g_free(b->extra);
    g_free(b);
}

static void free_list(Qcow2BitmapList *list)
{
    Qcow2Bitmap *b;

    while ((b = TAILQ_FIRST(list))) {
        TAILQ_REMOVE(list, b, next);
        qcow2_bitmap_free(b);
    }
}

void qcow2_free_bitmaps(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;

    if (s->bitmaps) {
        g_tree_destroy(s->bitmaps->by_name);
        free_list(&s->bitmaps->list);
        g_free(s->bitmaps);
        s->bitmaps = NULL;
    }
}

Qcow2Bitmap *qcow2_bitmap_find(const BDRVQcow2State *s, const char *name)
{
    return s->bitmaps ? g_tree_lookup(s->bitmaps->by_name, name) : NULL;
}

Qcow2BitmapInfoList *qcow2_bitmaps_info(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;
    Qcow2BitmapInfoList *list = NULL, **tail = &list;
    Qcow2Bitmap *b;

    if (!s->bitmaps) {
        return NULL;
    }
    TAILQ_FOREACH(b, &s->bitmaps->list, next) {
        Qcow2BitmapInfo *info = g_new0(Qcow2BitmapInfo, 1);
        Qcow2BitmapInfoFlagsList **flag = &info->flags;
        static const Qcow2BitmapInfoFlags names[] = {
            QCOW2_BITMAP_INFO_FLAGS_IN_USE, QCOW2_BITMAP_INFO_FLAGS_AUTO,
        };

        info->name = g_strdup(b->name);
        info->granularity = b->granularity_bits < 32
                            ? UINT32_C(1) << b->granularity_bits : 0;
        for (unsigned i = 0; i < G_N_ELEMENTS(names); i++) {
            if (b->flags & (1u << i)) {
                QAPI_LIST_APPEND(flag, names[i]);
            }
        }
        QAPI_LIST_APPEND(tail, info);
    }
    return list;
}

/* ---- arithmetic ---- */

/* Bytes that the bits of a disk of @len bytes take. */
uint64_t qcow2_bitmap_bytes(unsigned granularity_bits, int64_t len)
{
    uint64_t bits = (uint64_t)len >> granularity_bits;

    bits += !!(len & ((INT64_C(1) << granularity_bits) - 1));
    return (bits + 7) / 8;
}

/* ---- writing the directory ---- */

GByteArray *qcow2_bitmap_directory(const Qcow2BitmapList *list,
                                   uint32_t *n)
{
    static const uint8_t zeroes[8];
    GByteArray *out = g_byte_array_new();
    const Qcow2Bitmap *b;

    *n = 0;
    TAILQ_FOREACH(b, list, next) {
        Qcow2BitmapDirEntry e = {
            .bitmap_table_offset = GUINT64_TO_BE(b->table_offset),
            .bitmap_table_size = GUINT32_TO_BE(b->table_size),
            .flags = GUINT32_TO_BE(b->flags),
            .type = b->type,
            .granularity_bits = b->granularity_bits,
            .name_size = GUINT16_TO_BE(b->name_size),
            .extra_data_size = GUINT32_TO_BE(b->extra_size),
        };

        g_byte_array_append(out, (const guint8 *)&e, sizeof(e));
        if (b->extra_size) {
            g_byte_array_append(out, b->extra, b->extra_size);
        }
        g_byte_array_append(out, (const guint8 *)b->name, b->name_size);
        g_byte_array_append(out, zeroes, -out->len & 7);
        (*n)++;
    }
    return out;
}

/* What the header says of bitmaps. */
typedef struct HeaderPart {
    uint32_t n;
    uint64_t offset, size;
    uint64_t autoclear;
} HeaderPart;

static HeaderPart get_header_part(const BDRVQcow2State *s)
{
    return (HeaderPart) { s->nb_bitmaps, s->bitmap_directory_offset,
                          s->bitmap_directory_size, s->autoclear_features };
}

static void set_header_part(BDRVQcow2State *s, HeaderPart part)
{
    s->nb_bitmaps = part.n;
    s->bitmap_directory_offset = part.offset;
    s->bitmap_directory_size = part.size;
    s->autoclear_features = part.autoclear;
}

/*
 * Write a directory of @list and let the header lead to it.  An error leaves
 * the old one.
 */
static int coroutine_fn co_switch_directory(BlockDriverState *bs,
                                            const Qcow2BitmapList *list)
{
    BDRVQcow2State *s = bs->opaque;
    HeaderPart old = get_header_part(s), new = { 0 };
    g_autoptr(GByteArray) dir = qcow2_bitmap_directory(list, &new.n);
    int64_t offset = 0;
    int ret;

    if (new.n > QCOW2_MAX_BITMAPS || dir->len > QCOW2_MAX_BITMAP_DIRECTORY) {
        return -EFBIG;
    }
    if (new.n) {
        offset = qcow2_co_write_new(bs, dir->data, dir->len);
        if (offset < 0) {
            return offset;
        }
    }
    new.offset = offset;
    new.size = dir->len;
    new.autoclear = old.autoclear & ~QCOW2_AUTOCLEAR_BITMAPS;
    new.autoclear |= new.n ? QCOW2_AUTOCLEAR_BITMAPS : 0;

    /* Bits, tables, directory and their refcounts, then who needs them. */
    ret = qcow2_co_writeback(bs);
    if (ret >= 0) {
        set_header_part(s, new);
        ret = qcow2_co_update_header(bs);
    }
    if (ret < 0) {
        set_header_part(s, old);
        if (!qcow2_header_unsure(s)) {
            qcow2_co_free_old(bs, offset, dir->len);
        }
        return ret;
    }
    qcow2_metamap_set(s, old.offset, old.size, 0);
    qcow2_metamap_set(s, new.offset, new.size, QCOW2_OL_BITMAP_DIRECTORY);
    qcow2_co_free_old(bs, old.offset, old.size);
    return 0;
}

/* ---- storing ---- */

/*
 * Free clusters of a bitmap that nothing leads to any more, if they look like
 * ones: what is not in the file, or used otherwise, at worst leaks.
 */
static void coroutine_fn co_free_clusters(BlockDriverState *bs,
                                          uint64_t offset, uint64_t bytes)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t end = qcow2_cluster_end(s, bdrv_getlength(bs->file->bs));

    if (qcow2_in_cluster(s, offset) || bytes > end || offset > end - bytes) {
        return;
    }
    for (end = offset + bytes; offset < end; offset += s->cluster_size) {
        uint64_t refcount;
        int ret;

        aio_co_yield_fair();
        co_mutex_lock(&s->lock);
        ret = qcow2_co_get_refcount(bs, offset >> s->cluster_bits, &refcount);
        if (ret >= 0 && refcount == 1
            && !qcow2_overlaps(bs, 0, offset, s->cluster_size)) {
            qcow2_co_unalloc(bs, offset, s->cluster_size);
        }
        co_mutex_unlock(&s->lock);
    }
}

static void coroutine_fn co_free_bits(BlockDriverState *bs,
                                      const Qcow2Bitmap *b)
{
    const BDRVQcow2State *s = bs->opaque;
    uint64_t bytes = (uint64_t)b->table_size * 8;
    g_autofree uint64_t *table = NULL;

    if (!bytes || bytes > QCOW2_BITMAP_MAX_BYTES
        || b->type != QCOW2_BITMAP_TYPE_DIRTY_TRACKING
        || (b->flags & ~QCOW2_BITMAP_KNOWN_FLAGS)) {
        return;                 /* nothing, or who knows what: it leaks */
    }
    table = g_try_malloc(bytes);
    if (!table || bdrv_co_pread(bs->file, b->table_offset, bytes, table,
                                0) < 0) {
        return;
    }
    for (uint32_t i = 0; i < b->table_size; i++) {
        uint64_t offset = GUINT64_FROM_BE(table[i]);

        if (offset && !(offset & ~QCOW2_BME_OFFSET_MASK)) {
            co_free_clusters(bs, offset, s->cluster_size);
        }
    }
    co_free_clusters(bs, b->table_offset, bytes);
}

/* All bits of cluster @i of the bits are set. */
static bool is_all_ones(const uint64_t *words, int64_t n, int64_t bits)
{
    for (int64_t w = 0; w < n && w * 64 < bits; w++) {
        int64_t rest = bits - w * 64;
        uint64_t full = rest >= 64 ? UINT64_MAX : (UINT64_C(1) << rest) - 1;

        if (words[w] != full) {
            return false;
        }
    }
    return true;
}

/* Write the clusters; @table (big-endian) says where they are. */
static int coroutine_fn co_write_clusters(BlockDriverState *bs,
                                          const BdrvDirtyBitmap *bm,
                                          uint64_t *table, uint32_t n)
{
    BDRVQcow2State *s = bs->opaque;
    int64_t bits = bdrv_dirty_bitmap_bits(bm, bdrv_getlength(bs));
    int64_t words = s->cluster_size / 8;
    g_autofree uint64_t *buf = g_malloc(s->cluster_size);

    for (uint32_t i = 0; i < n; i++) {
        int64_t first = i * words, offset;

        aio_co_yield_fair();
        if (bdrv_dirty_bitmap_get_words(bm, bits, first, words, buf)) {
            continue;
        }
        if (is_all_ones(buf, words, bits - first * 64)) {
            table[i] = GUINT64_TO_BE(QCOW2_BME_ALL_ONES);
            continue;
        }
        for (int64_t w = 0; w < words; w++) {
            buf[w] = GUINT64_TO_LE(buf[w]);
        }
        offset = qcow2_co_write_new(bs, buf, s->cluster_size);
        if (offset < 0) {
            return offset;
        }
        table[i] = GUINT64_TO_BE(offset);
    }
    return 0;
}

static int coroutine_fn co_write_bits(BlockDriverState *bs,
                                      const BdrvDirtyBitmap *bm,
                                      Qcow2Bitmap *b)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t need = qcow2_bitmap_bytes(bm->granularity_bits,
                                       bdrv_getlength(bs));
    uint32_t n = qcow2_cluster_end(s, need) / s->cluster_size;
    g_autofree uint64_t *table = g_new0(uint64_t, n + 1);
    int64_t offset = 0;
    int ret = co_write_clusters(bs, bm, table, n);

    if (ret >= 0 && n) {
        offset = qcow2_co_write_new(bs, table, (uint64_t)n * 8);
        ret = MIN(offset, 0);
    }
    for (uint32_t i = 0; ret < 0 && i < n; i++) {
        uint64_t at = GUINT64_FROM_BE(table[i]) & QCOW2_BME_OFFSET_MASK;

        if (at) {
            qcow2_co_free_old(bs, at, s->cluster_size);
        }
    }
    b->table_offset = offset;
    b->table_size = ret < 0 ? 0 : n;
    return ret;
}

static void add_copy(Qcow2BitmapList *list, const Qcow2Bitmap *b)
{
    Qcow2Bitmap *copy = g_new(Qcow2Bitmap, 1);

    *copy = *b;
    copy->old = b;
    copy->name = g_strdup(b->name);
    copy->extra = g_memdup2(b->extra, b->extra_size);
    TAILQ_INSERT_TAIL(list, copy, next);
}

static void add_new(Qcow2BitmapList *list, BdrvDirtyBitmap *bm)
{
    Qcow2Bitmap *b = g_new0(Qcow2Bitmap, 1);

    b->name = g_strdup(bm->name);
    b->name_size = strlen(bm->name);
    b->type = QCOW2_BITMAP_TYPE_DIRTY_TRACKING;
    b->granularity_bits = bm->granularity_bits;
    b->dirty = bm;
    TAILQ_INSERT_TAIL(list, b, next);
}

/* What the image shall have: those it has, and new ones. */
static void collect(BlockDriverState *bs, Qcow2BitmapList *list)
{
    BDRVQcow2State *s = bs->opaque;
    Qcow2Bitmap *b;

    if (s->bitmaps) {
        TAILQ_FOREACH(b, &s->bitmaps->list, next) {
            add_copy(list, b);
        }
    }
    for (BdrvDirtyBitmap *bm = bs->dirty_bitmaps; bm; bm = bm->next) {
        if (bm->persistent && !bm->inconsistent
            && !qcow2_bitmap_find(s, bm->name)) {
            add_new(list, bm);
        }
    }
}

static int coroutine_fn co_write_all(BlockDriverState *bs,
                                     Qcow2BitmapList *list,
                                     const char **name)
{
    Qcow2Bitmap *b;

    TAILQ_FOREACH(b, list, next) {
        const BdrvDirtyBitmap *bm = b->dirty;
        int ret;

        if (!bm || bm->inconsistent) {
            continue;
        }
        *name = b->name;
        ret = co_write_bits(bs, bm, b);
        b->written = true;
        if (ret < 0) {
            return ret;
        }
        b->flags &= ~(QCOW2_BITMAP_IN_USE | QCOW2_BITMAP_AUTO);
        b->flags |= bm->recording ? QCOW2_BITMAP_AUTO : 0;
    }
    return 0;
}

/* Free what was written (@undo), or else what that replaces. */
static void coroutine_fn co_free_bits_of(BlockDriverState *bs,
                                         const Qcow2BitmapList *list,
                                         bool undo)
{
    const Qcow2Bitmap *b;

    TAILQ_FOREACH(b, list, next) {
        if (b->written && (undo || b->old)) {
            co_free_bits(bs, undo ? b : b->old);
        }
    }
}

static bool has_something_to_store(BlockDriverState *bs)
{
    const BdrvDirtyBitmap *bm = bs->dirty_bitmaps;

    while (bm && (!bm->persistent || bm->inconsistent)) {
        bm = bm->next;
    }
    return bm;
}

bool coroutine_fn qcow2_co_store_bitmaps(BlockDriverState *bs, Error **errp)
{
    Qcow2BitmapList list = TAILQ_HEAD_INITIALIZER(list);
    const char *name = NULL;
    int ret;

    if (!has_something_to_store(bs)) {
        return true;
    }
    collect(bs, &list);
    ret = qcow2_co_settle(bs);
    if (ret >= 0) {
        ret = co_write_all(bs, &list, &name);
    }
    if (ret >= 0) {
        name = NULL;
        ret = co_switch_directory(bs, &list);
    }
    if (ret < 0) {
        error_setg_errno(errp, -ret, name ? "Bitmap '%s' could not be written"
                                          : "%sBitmaps could not be written",
                         name ? name : "");
    }
    if (ret >= 0 || !qcow2_header_unsure(bs->opaque)) {
        co_free_bits_of(bs, &list, ret < 0);
    }
    free_list(&list);
    return ret >= 0;
}

/* ---- what QMP asks ---- */

bool qcow2_can_store_bitmap(BlockDriverState *bs, const char *name,
                            uint64_t granularity, Error **errp)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t n = s->nb_bitmaps, bytes = s->bitmap_directory_size;

    for (BdrvDirtyBitmap *bm = bs->dirty_bitmaps; bm; bm = bm->next) {
        if (bm->persistent && !qcow2_bitmap_find(s, bm->name)) {
            n++;
            bytes += sizeof(Qcow2BitmapDirEntry) + strlen(bm->name) + 7;
        }
    }
    bytes += sizeof(Qcow2BitmapDirEntry) + strlen(name) + 7;
    if (__atomic_load_n(&s->corrupt, __ATOMIC_RELAXED)) {
        error_setg(errp, "The image is corrupt");
    } else if (s->version < 3) {
        error_setg(errp, "Cannot store dirty bitmaps in qcow2 v2 files");
    } else if (bs->read_only) {
        error_setg(errp, "The image is read-only");
    } else if (qcow2_bitmap_find(s, name)) {
        error_setg(errp, "Bitmap with the same name is already stored");
    } else if (n >= QCOW2_MAX_BITMAPS) {
        error_setg(errp, "Maximum number of persistent bitmaps is already "
                   "reached");
    } else if (bytes > QCOW2_MAX_BITMAP_DIRECTORY) {
        error_setg(errp, "Not enough space in the bitmap directory");
    } else if (qcow2_bitmap_bytes(__builtin_ctzll(granularity),
                                  bdrv_getlength(bs))
               > QCOW2_BITMAP_MAX_BYTES) {
        error_setg(errp, "Too much space will be occupied by the bitmap. Use "
                   "larger granularity");
    } else {
        return true;
    }
    return false;
}

bool qcow2_has_stored_bitmap(BlockDriverState *bs, const char *name)
{
    return qcow2_bitmap_find(bs->opaque, name);
}

bool coroutine_fn qcow2_co_remove_stored_bitmap(BlockDriverState *bs,
                                                const char *name,
                                                Error **errp)
{
    BDRVQcow2State *s = bs->opaque;
    Qcow2Bitmap *b = qcow2_bitmap_find(s, name), *after;
    int ret;

    after = TAILQ_NEXT(b, next);
    TAILQ_REMOVE(&s->bitmaps->list, b, next);
    ret = __atomic_load_n(&s->corrupt, __ATOMIC_RELAXED) ? -EIO
          : co_switch_directory(bs, &s->bitmaps->list);
    if (ret < 0) {
        if (after) {
            TAILQ_INSERT_BEFORE(after, b, next);
        } else {
            TAILQ_INSERT_TAIL(&s->bitmaps->list, b, next);
        }
        error_setg_errno(errp, -ret, "Failed to remove bitmap '%s' from the "
                         "image", name);
        return false;
    }
    g_tree_remove(s->bitmaps->by_name, b->name);
    co_free_bits(bs, b);
    qcow2_bitmap_free(b);
    return true;
}

bool qcow2_bitmaps_check_resize(BlockDriverState *bs, Error **errp)
{
    BDRVQcow2State *s = bs->opaque;
    Qcow2Bitmap *b;

    if (!s->bitmaps) {
        return true;
    }
    TAILQ_FOREACH(b, &s->bitmaps->list, next) {
        if (!b->dirty && !(b->flags & QCOW2_BITMAP_IN_USE)) {
            error_setg(errp, "Cannot resize an image with bitmap '%s', which "
                       "can't be used", b->name);
            return false;
        }
    }
    return true;
}
