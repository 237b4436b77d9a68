/* SPDX-License-Identifier: MIT */
/*
 * qcow2: writing the header, its feature bits, and saying that an image is
 * corrupt.
 *
 * Whoever writes to the first cluster holds header_lock.  The header is written
 * whole only where its extensions change; what leads to a table, the length and
 * the feature bits are one write of a few bytes each.
 *
 * Storage that reports an error may have written nothing, a part, or all.  What
 * the header says decides which tables the image has, so memory and file must
 * not part there: after an error the old bytes are written again, and while
 * that fails as well no other metadata are (header_undo).
 *
 * Corruption is noticed in any thread, in the middle of a request: the flag
 * that stops writes is set there and then, the event and the bit in the file
 * follow in the main thread.  Closing waits for these.
 */
#include "block/qcow2.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "qapi/event.h"

/* ---- changes, all or nothing ---- */

/* Let the file say what memory does.  header_lock held. */
static int coroutine_fn co_undo(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;
    int ret;

    if (!s->header_undo) {
        return 0;
    }
    ret = bdrv_co_pwrite(bs->file, s->header_undo_at, s->header_undo_bytes,
                         s->header_undo, 0);
    if (ret >= 0) {
        ret = bdrv_co_flush(bs->file->bs);
    }
    if (ret >= 0) {
        g_free(s->header_undo);
        __atomic_store_n(&s->header_undo, NULL, __ATOMIC_RELEASE);
    }
    return MIN(ret, 0);
}

int coroutine_fn qcow2_co_header_sure(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;
    int ret;

    if (!qcow2_header_unsure(s)) {
        return 0;
    }
    if (__atomic_load_n(&s->corrupt, __ATOMIC_RELAXED)) {
        return -EIO;
    }
    co_mutex_lock(&s->header_lock);
    ret = co_undo(bs);
    co_mutex_unlock(&s->header_lock);
    return ret;
}

int coroutine_fn qcow2_co_change_header(BlockDriverState *bs,
                                        BlkdebugEvent event, unsigned at,
                                        const void *data, size_t bytes)
{
    BDRVQcow2State *s = bs->opaque;
    g_autofree void *old = g_malloc(bytes);
    int ret = co_undo(bs);

    if (ret >= 0) {
        ret = bdrv_co_pread(bs->file, at, bytes, old, 0);
    }
    if (ret >= 0) {
        ret = bdrv_co_flush(bs->file->bs);
    }
    if (ret < 0) {
        return ret;
    }
    BLKDBG_EVENT(bs->file, event);
    ret = bdrv_co_pwrite(bs->file, at, bytes, data, 0);
    if (ret >= 0) {
        ret = bdrv_co_flush(bs->file->bs);
    }
    if (ret < 0) {
        s->header_undo_at = at;
        s->header_undo_bytes = bytes;
        __atomic_store_n(&s->header_undo, g_steal_pointer(&old),
                         __ATOMIC_RELEASE);
        co_undo(bs);
    }
    return MIN(ret, 0);
}

/* ---- the first cluster ---- */

typedef struct HeaderWriter {
    uint8_t *buf;               /* one cluster */
    uint64_t size;              /* of it, bytes */
    uint64_t used;
} HeaderWriter;

/* Zeroed room for @len bytes, padded to a multiple of 8; NULL: full. */
static uint8_t *room(HeaderWriter *w, uint64_t len)
{
    uint8_t *p = w->buf + w->used;

    len = bdrv_align_up(len, 8);
    if (len > w->size - w->used) {
        return NULL;
    }
    w->used += len;
    return p;
}

static bool put_extension(HeaderWriter *w, uint32_t type, const void *data,
                          uint32_t len)
{
    Qcow2ExtHeader head = {
        .type = GUINT32_TO_BE(type),
        .length = GUINT32_TO_BE(len),
    };
    uint8_t *p = room(w, sizeof(head) + len);

    if (!p) {
        return false;
    }
    memcpy(p, &head, sizeof(head));
    if (len) {
        memcpy(p + sizeof(head), data, len);
    }
    return true;
}

static bool put_string(HeaderWriter *w, uint32_t type, const char *str)
{
    return !str || !str[0] || put_extension(w, type, str, strlen(str));
}

static bool put_fields(HeaderWriter *w, const BlockDriverState *bs,
                       const BDRVQcow2State *s)
{
    uint64_t len = s->version >= 3 ? sizeof(Qcow2Header)
                                   : QCOW2_HEADER_V2_SIZE;
    Qcow2Header h = {
        .magic = GUINT32_TO_BE(QCOW2_MAGIC),
        .version = GUINT32_TO_BE(s->version),
        .cluster_bits = GUINT32_TO_BE(s->cluster_bits),
        .size = GUINT64_TO_BE(bdrv_getlength(bs)),
        .crypt_method = GUINT32_TO_BE(s->crypt_method),
        .l1_size = GUINT32_TO_BE(s->l1_size),
        .l1_table_offset = GUINT64_TO_BE(s->l1_table_offset),
        .refcount_table_offset = GUINT64_TO_BE(s->reftable_offset),
        .refcount_table_clusters =
            GUINT32_TO_BE(s->reftable_entries >> (s->cluster_bits - 3)),
        .nb_snapshots = GUINT32_TO_BE(s->nb_snapshots),
        .snapshots_offset = GUINT64_TO_BE(s->snapshots_offset),
        .incompatible_features = GUINT64_TO_BE(s->incompatible_features),
        .compatible_features = GUINT64_TO_BE(s->compatible_features),
        .autoclear_features = GUINT64_TO_BE(s->autoclear_features),
        .refcount_order = GUINT32_TO_BE(s->refcount_order),
        .header_length = GUINT32_TO_BE(len + s->unknown_header_fields_size),
        .compression_type = s->compression_type,
    };
    uint8_t *p = room(w, len);

    if (!p) {
        return false;
    }
    memcpy(p, &h, len);
    if (s->unknown_header_fields_size) {
        p = room(w, s->unknown_header_fields_size);
        if (!p) {
            return false;
        }
        memcpy(p, s->unknown_header_fields, s->unknown_header_fields_size);
    }
    return true;
}

static bool put_crypto_header(HeaderWriter *w, const BDRVQcow2State *s)
{
    Qcow2CryptoHeaderExt c = {
        .offset = GUINT64_TO_BE(s->crypto_header_offset),
        .length = GUINT64_TO_BE(s->crypto_header_length),
    };

    return !s->crypto_header_offset
           || put_extension(w, QCOW2_EXT_CRYPTO_HEADER, &c, sizeof(c));
}

static bool put_bitmaps(HeaderWriter *w, const BDRVQcow2State *s)
{
    Qcow2BitmapHeaderExt b = {
        .nb_bitmaps = GUINT32_TO_BE(s->nb_bitmaps),
        .bitmap_directory_size = GUINT64_TO_BE(s->bitmap_directory_size),
        .bitmap_directory_offset = GUINT64_TO_BE(s->bitmap_directory_offset),
    };

    return !s->nb_bitmaps
           || put_extension(w, QCOW2_EXT_BITMAPS, &b, sizeof(b));
}

static bool put_unknown(HeaderWriter *w, const BDRVQcow2State *s)
{
    const Qcow2UnknownExt *u;

    TAILQ_FOREACH(u, &s->unknown_ext, next) {
        if (!put_extension(w, u->type, u->data, u->len)) {
            return false;
        }
    }
    return true;
}

const Qcow2Feature qcow2_feature_names[QCOW2_N_FEATURES] = {
    { QCOW2_FEAT_TYPE_INCOMPATIBLE, 0, "dirty bit" },
    { QCOW2_FEAT_TYPE_INCOMPATIBLE, 1, "corrupt bit" },
    { QCOW2_FEAT_TYPE_INCOMPATIBLE, 2, "external data file" },
    { QCOW2_FEAT_TYPE_INCOMPATIBLE, 3, "compression type" },
    { QCOW2_FEAT_TYPE_INCOMPATIBLE, 4, "extended L2 entries" },
    { QCOW2_FEAT_TYPE_COMPATIBLE, 0, "lazy refcounts" },
    { QCOW2_FEAT_TYPE_AUTOCLEAR, 0, "bitmaps" },
    { QCOW2_FEAT_TYPE_AUTOCLEAR, 1, "raw external data" },
};

/* Names of our features, for programs that lack them, if there is room. */
static void put_feature_names(HeaderWriter *w)
{
    put_extension(w, QCOW2_EXT_FEATURE_TABLE, qcow2_feature_names,
                  sizeof(qcow2_feature_names));
}

static uint64_t optional_size(const BDRVQcow2State *s)
{
    uint64_t bytes = sizeof(Qcow2ExtHeader);            /* the end */
    const Qcow2UnknownExt *u;

    TAILQ_FOREACH(u, &s->unknown_ext, next) {
        bytes += sizeof(Qcow2ExtHeader) + bdrv_align_up(u->len, 8);
    }
    if (s->nb_bitmaps) {
        bytes += sizeof(Qcow2ExtHeader) + sizeof(Qcow2BitmapHeaderExt);
    }
    if (s->image_backing_file) {
        bytes += bdrv_align_up(strlen(s->image_backing_file), 8);
    }
    return bytes;
}

/* Header, extensions, backing file name; false if they do not fit. */
static bool fill(HeaderWriter *w, const BlockDriverState *bs,
                 const BDRVQcow2State *s)
{
    const char *backing = s->image_backing_file;
    uint64_t rest = optional_size(s);
    HeaderWriter before_end;
    uint32_t name_len;
    uint64_t name_at;
    uint8_t *p;

    if (!put_fields(w, bs, s)
        || !put_string(w, QCOW2_EXT_BACKING_FORMAT, s->image_backing_format)
        || (s->external_data_file
            && !put_string(w, QCOW2_EXT_DATA_FILE, s->image_data_file))
        || !put_crypto_header(w, s) || rest > w->size - w->used) {
        return false;
    }
    before_end = *w;
    before_end.size = w->size - rest;
    if (s->version >= 3) {
        put_feature_names(&before_end);
        w->used = before_end.used;
    }
    if (!put_bitmaps(w, s) || !put_unknown(w, s)
        || !put_extension(w, QCOW2_EXT_END, NULL, 0)) {
        return false;
    }
    if (!backing) {
        return true;
    }

    name_at = w->used;
    name_len = strlen(backing);
    p = name_len <= QCOW2_MAX_BACKING_NAME ? room(w, name_len) : NULL;
    if (!p) {
        return false;
    }
    memcpy(p, backing, name_len);
    name_at = GUINT64_TO_BE(name_at);
    name_len = GUINT32_TO_BE(name_len);
    memcpy(w->buf + offsetof(Qcow2Header, backing_file_offset), &name_at,
           sizeof(name_at));
    memcpy(w->buf + offsetof(Qcow2Header, backing_file_size), &name_len,
           sizeof(name_len));
    return true;
}

int coroutine_fn qcow2_co_update_header(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;
    HeaderWriter w = { .size = s->cluster_size };
    int ret = -ENOSPC;

    if (__atomic_load_n(&s->corrupt, __ATOMIC_RELAXED)) {
        return -EIO;
    }
    w.buf = g_malloc0(w.size);
    co_mutex_lock(&s->header_lock);
    if (fill(&w, bs, s)) {
        ret = qcow2_co_change_header(bs, BLKDBG_NONE, 0, w.buf, w.used);
    }
    co_mutex_unlock(&s->header_lock);
    g_free(w.buf);
    return ret;
}

/* ---- features ---- */

int coroutine_fn qcow2_co_set_incompatible(BlockDriverState *bs,
                                           uint64_t set, uint64_t clear)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t features, word;
    int ret = 0;

    if (s->version < 3) {
        return 0;
    }
    co_mutex_lock(&s->header_lock);
    features = (s->incompatible_features | set) & ~clear;
    word = GUINT64_TO_BE(features);
    if (features != s->incompatible_features) {
        ret = qcow2_co_change_header(bs, BLKDBG_NONE,
                                     offsetof(Qcow2Header,
                                              incompatible_features),
                                     &word, sizeof(word));
        if (ret >= 0) {
            __atomic_store_n(&s->incompatible_features, features,
                             __ATOMIC_RELAXED);
        }
    }
    co_mutex_unlock(&s->header_lock);
    return ret;
}

int coroutine_fn qcow2_co_mark_dirty(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;
    int ret;

    if (__atomic_load_n(&s->dirty_bit, __ATOMIC_ACQUIRE)) {
        return 0;
    }
    ret = qcow2_co_set_incompatible(bs, QCOW2_INCOMPAT_DIRTY, 0);
    if (ret >= 0) {
        __atomic_store_n(&s->dirty_bit, true, __ATOMIC_RELEASE);
    }
    return ret;
}

/* ---- corruption ---- */

typedef struct CorruptionReport {
    BlockDriverState *bs;
    bool fatal;
    int64_t offset, size;       /* or -1 */
    char *msg;
} CorruptionReport;

static void send_event(const CorruptionReport *r)
{
    qapi_event_send(QAPI_EVENT_BLOCK_IMAGE_CORRUPTED,
                    &(QapiEventBlockImageCorrupted) {
        .device = (char *)"",
        .node_name = r->bs->implicit ? NULL : r->bs->node_name,
        .msg = r->msg,
        .has_offset = r->offset >= 0,
        .offset = r->offset,
        .has_size = r->size >= 0,
        .size = r->size,
        .fatal = r->fatal,
    });
}

static void coroutine_fn report_co_entry(void *opaque)
{
    CorruptionReport *r = opaque;
    BlockDriverState *bs = r->bs;
    BDRVQcow2State *s = bs->opaque;

    send_event(r);
    if (r->fatal) {
        int ret = qcow2_co_set_incompatible(bs, QCOW2_INCOMPAT_CORRUPT, 0);

        if (ret < 0) {
            error_report("Could not mark node '%s' as corrupt: %s",
                         bs->node_name, strerror(-ret));
        }
    }
    g_free(r->msg);
    g_free(r);
    /* Who waits in this thread goes on only after this coroutine's end. */
    __atomic_fetch_sub(&s->reports, 1, __ATOMIC_SEQ_CST);
    wait_set_wake(&s->reports_done);
}

static void report_bh(void *opaque)
{
    coroutine_enter(coroutine_create(report_co_entry, opaque));
}

void qcow2_signal_corruption(BlockDriverState *bs, bool fatal, int64_t offset,
                             int64_t size, const char *fmt, ...)
{
    BDRVQcow2State *s = bs->opaque;
    CorruptionReport *r;
    bool told_before;
    va_list ap;

    fatal = fatal && !bs->read_only;
    if (fatal && __atomic_exchange_n(&s->corrupt, true, __ATOMIC_SEQ_CST)) {
        return;
    }
    told_before = __atomic_exchange_n(&s->corruption_told, true,
                                      __ATOMIC_SEQ_CST);
    if (told_before && !fatal) {
        return;
    }

    r = g_new(CorruptionReport, 1);
    *r = (CorruptionReport) {
        .bs = bs,
        .fatal = fatal,
        .offset = offset,
        .size = size,
    };
    va_start(ap, fmt);
    r->msg = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    if (fatal) {
        fprintf(stderr, "qcow2: Marking image as corrupt: %s; further "
                "corruption events will be suppressed\n", r->msg);
    } else {
        fprintf(stderr, "qcow2: Image is corrupt: %s; further non-fatal "
                "corruption events will be suppressed\n", r->msg);
    }
    __atomic_fetch_add(&s->reports, 1, __ATOMIC_SEQ_CST);
    aio_bh_schedule_oneshot(aio_context_main(), report_bh, r);
}

static bool no_reports(void *opaque)
{
    BDRVQcow2State *s = opaque;

    return __atomic_load_n(&s->reports, __ATOMIC_SEQ_CST) == 0;
}

void coroutine_fn qcow2_co_wait_reports(BDRVQcow2State *s)
{
    wait_set_co_wait(&s->reports_done, no_reports, s);
}
