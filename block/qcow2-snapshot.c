/* SPDX-License-Identifier: MIT */
/*
 * qcow2: the table of snapshots in memory and in the file.
 *
 * Main thread, node drained.  The table is replaced as a whole: it is written
 * to clusters of its own, and one write of the header then says where it is
 * and how long, so that after a crash there is the old table or the new one.
 */
#include "block/qcow2-snapshot.h"

#include <errno.h>
#include <string.h>

#include "block/check.h"

enum {
    READ_AHEAD = 64 * 1024,
    EXTRA_KNOWN = sizeof(Qcow2SnapshotExtra),
    EXTRA_V3 = 16,                      /* what version 3 asks for */
};

/* ---- reading ---- */

typedef struct Reader {
    BlockDriverState *bs;
    uint64_t start, pos, end;           /* of the file; no entry beyond end */
    uint64_t buf_start, buf_len;
    uint8_t buf[READ_AHEAD];
} Reader;

/* The next @bytes (NULL @to: skip them).  -EFBIG past the end. */
static int coroutine_fn reader_co_get(Reader *r, void *to, uint64_t bytes)
{
    uint8_t *out = to;

    if (bytes > r->end - r->pos) {
        return -EFBIG;
    }
    if (!out) {
        r->pos += bytes;
        return 0;
    }
    while (bytes) {
        uint64_t skip = r->pos - r->buf_start, n;

        if (r->pos < r->buf_start || skip >= r->buf_len) {
            int ret;

            n = MIN(READ_AHEAD, r->end - r->pos);
            ret = bdrv_co_pread(r->bs->file, r->pos, n, r->buf, 0);
            if (ret < 0) {
                r->buf_len = 0;
                return ret;
            }
            r->buf_start = r->pos;
            r->buf_len = n;
            skip = 0;
        }
        n = MIN(bytes, r->buf_len - skip);
        memcpy(out, r->buf + skip, n);
        out += n;
        r->pos += n;
        bytes -= n;
    }
    return 0;
}

static int coroutine_fn reader_co_string(Reader *r, char **text, size_t len)
{
    *text = g_malloc0(len + 1);
    return reader_co_get(r, *text, len);
}

static int coroutine_fn co_read_extra(Reader *r, Qcow2Snapshot *sn,
                                      uint32_t size, uint32_t skip)
{
    Qcow2SnapshotExtra extra = { 0 };
    uint32_t known = MIN(size, EXTRA_KNOWN);
    int ret = reader_co_get(r, &extra, known);

    if (ret < 0) {
        return ret;
    }
    if (size >= 8) {
        sn->vm_state_size = GUINT64_FROM_BE(extra.vm_state_size_large);
    }
    sn->disk_size = size >= 16 ? GUINT64_FROM_BE(extra.disk_size)
                               : (uint64_t)bdrv_getlength(r->bs);
    sn->icount = size >= 24 ? GUINT64_FROM_BE(extra.icount) : UINT64_MAX;
    if (size > EXTRA_KNOWN) {
        sn->unknown_extra_data = g_malloc(size - EXTRA_KNOWN);
        ret = reader_co_get(r, sn->unknown_extra_data, size - EXTRA_KNOWN);
    }
    return ret < 0 ? ret : reader_co_get(r, NULL, skip);
}

static int coroutine_fn co_read_entry(Reader *r, Qcow2SnapshotTable *t,
                                      Qcow2Snapshot *sn, Error **errp)
{
    const BDRVQcow2State *s = r->bs->opaque;
    Qcow2SnapshotHeader h;
    uint32_t extra, too_much = 0;
    int ret = reader_co_get(r, &h, sizeof(h));

    if (ret < 0) {
        return ret;
    }
    *sn = (Qcow2Snapshot) {
        .l1_table_offset = GUINT64_FROM_BE(h.l1_table_offset),
        .l1_size = GUINT32_FROM_BE(h.l1_size),
        .date_sec = GUINT32_FROM_BE(h.date_sec),
        .date_nsec = GUINT32_FROM_BE(h.date_nsec),
        .vm_clock_nsec = GUINT64_FROM_BE(h.vm_clock_nsec),
        .vm_state_size = GUINT32_FROM_BE(h.vm_state_size),
    };
    extra = GUINT32_FROM_BE(h.extra_data_size);
    if (extra > QCOW2_MAX_SNAPSHOT_EXTRA) {
        if (!t->discard) {
            error_setg(errp, "Too much extra metadata in snapshot table entry "
                       "%u", t->n);
            error_append_hint(errp, "You can force-remove this extra metadata "
                              "with qemu-img check -r all\n");
            return -EFBIG;
        }
        t->flaw(t->opaque, QCOW2_SNAPSHOT_EXTRA_TOO_BIG, t->n, extra);
        too_much = extra - QCOW2_MAX_SNAPSHOT_EXTRA;
        extra = QCOW2_MAX_SNAPSHOT_EXTRA;
    }
    if (t->flaw && s->version >= 3 && extra < EXTRA_V3) {
        t->flaw(t->opaque, QCOW2_SNAPSHOT_INCOMPLETE, t->n, extra);
    }
    sn->extra_data_size = extra;
    ret = co_read_extra(r, sn, extra, too_much);
    if (ret >= 0) {
        ret = reader_co_string(r, &sn->id_str, GUINT16_FROM_BE(h.id_str_size));
    }
    if (ret >= 0) {
        ret = reader_co_string(r, &sn->name, GUINT16_FROM_BE(h.name_size));
    }
    return ret;
}

static void free_entry(Qcow2Snapshot *sn)
{
    g_free(sn->id_str);
    g_free(sn->name);
    g_free(sn->unknown_extra_data);
}

void qcow2_free_snapshot_list(Qcow2Snapshot *list, unsigned n)
{
    for (unsigned i = 0; list && i < n; i++) {
        free_entry(&list[i]);
    }
    g_free(list);
}

/* Where the table must lie, and how many entries it may have. */
static int co_check_place(BlockDriverState *bs, Reader *r, uint64_t offset,
                          uint64_t *n, Qcow2SnapshotTable *t, Error **errp)
{
    const BDRVQcow2State *s = bs->opaque;
    int64_t len = bdrv_getlength(bs->file->bs);

    if (*n > QCOW2_MAX_SNAPSHOTS) {
        if (!t->discard) {
            error_setg(errp, "Snapshot table too large");
            error_append_hint(errp, "You can force-remove all %u overhanging "
                              "snapshots with qemu-img check -r all\n",
                              (unsigned)*n - QCOW2_MAX_SNAPSHOTS);
            return -EFBIG;
        }
        t->flaw(t->opaque, QCOW2_SNAPSHOT_TOO_MANY, *n - QCOW2_MAX_SNAPSHOTS,
                0);
        *n = QCOW2_MAX_SNAPSHOTS;
    }
    if (offset == 0 || qcow2_in_cluster(s, offset) || offset >= INT64_MAX
        || ((int64_t)offset >= len && !t->discard)) {
        error_setg(errp, "Snapshot table offset invalid");
        return -EINVAL;
    }
    r->bs = bs;
    r->start = r->pos = offset;
    r->end = MAX(offset, MIN((uint64_t)qcow2_cluster_end(s, len),
                             offset + QCOW2_MAX_SNAPSHOT_TABLE));
    return 0;
}

int coroutine_fn qcow2_co_parse_snapshots(BlockDriverState *bs,
                                          uint64_t offset, uint64_t n,
                                          Qcow2SnapshotTable *t, Error **errp)
{
    g_autofree Reader *r = g_new0(Reader, 1);
    int ret;

    t->list = NULL;
    t->n = 0;
    t->bytes = 0;
    if (n == 0) {
        return 0;
    }
    ret = co_check_place(bs, r, offset, &n, t, errp);
    if (ret < 0) {
        return ret;
    }
    while (t->n < n) {
        Qcow2Snapshot sn = { 0 };

        aio_co_yield_fair();
        r->pos = r->start + ((r->pos - r->start + 7) & ~UINT64_C(7));
        ret = r->pos > r->end ? -EFBIG : co_read_entry(r, t, &sn, errp);
        if (ret < 0) {
            free_entry(&sn);
            break;
        }
        if ((t->n & (t->n - 1)) == 0) {         /* room for twice as many */
            t->list = g_renew(Qcow2Snapshot, t->list, MAX(t->n * 2, 1));
        }
        t->list[t->n++] = sn;
        t->bytes = r->pos - r->start;
    }
    if (ret == -EFBIG && t->discard) {
        t->flaw(t->opaque, QCOW2_SNAPSHOT_TABLE_TOO_BIG, n - t->n, 0);
        return 0;
    }
    if (ret < 0) {
        if (ret == -EFBIG && errp && !*errp) {
            error_setg(errp, "Snapshot table is too big");
            error_append_hint(errp, "You can force-remove all %u overhanging "
                              "snapshots with qemu-img check -r all\n",
                              (unsigned)n - t->n);
        } else if (errp && !*errp) {
            error_setg_errno(errp, -ret, "Failed to read snapshot table");
        }
        qcow2_free_snapshot_list(g_steal_pointer(&t->list), t->n);
        t->n = 0;
    }
    return ret;
}

bool coroutine_fn qcow2_co_read_snapshots(BlockDriverState *bs, Error **errp)
{
    BDRVQcow2State *s = bs->opaque;
    Qcow2SnapshotTable table = { 0 };
    Error *err = NULL;
    int ret = qcow2_co_parse_snapshots(bs, s->snapshots_offset,
                                       s->nb_snapshots, &table, &err);

    if (ret < 0 && !bdrv_open_for_check) {
        error_propagate(errp, err);
        return false;
    }
    error_free(err);
    s->snapshots = table.list;
    s->nb_snapshots = table.n;
    s->snapshots_size = table.bytes;
    return true;
}

void qcow2_free_snapshots(BDRVQcow2State *s)
{
    /* Between reading the header and the table there is only a number. */
    qcow2_free_snapshot_list(g_steal_pointer(&s->snapshots), s->nb_snapshots);
    s->nb_snapshots = 0;
}

/* ---- writing ---- */

static void append_entry(GByteArray *out, const Qcow2Snapshot *sn)
{
    static const uint8_t zeroes[8];
    uint32_t extra_size = MAX(sn->extra_data_size, EXTRA_KNOWN);
    size_t id_size = strlen(sn->id_str), name_size = strlen(sn->name);
    Qcow2SnapshotHeader h = {
        .l1_table_offset = GUINT64_TO_BE(sn->l1_table_offset),
        .l1_size = GUINT32_TO_BE(sn->l1_size),
        .id_str_size = GUINT16_TO_BE(id_size),
        .name_size = GUINT16_TO_BE(name_size),
        .date_sec = GUINT32_TO_BE(sn->date_sec),
        .date_nsec = GUINT32_TO_BE(sn->date_nsec),
        .vm_clock_nsec = GUINT64_TO_BE(sn->vm_clock_nsec),
        .vm_state_size = GUINT32_TO_BE(sn->vm_state_size > UINT32_MAX
                                       ? 0 : sn->vm_state_size),
        .extra_data_size = GUINT32_TO_BE(extra_size),
    };
    Qcow2SnapshotExtra extra = {
        .vm_state_size_large = GUINT64_TO_BE(sn->vm_state_size),
        .disk_size = GUINT64_TO_BE(sn->disk_size),
        .icount = GUINT64_TO_BE(sn->icount),
    };

    g_byte_array_append(out, (const guint8 *)&h, sizeof(h));
    g_byte_array_append(out, (const guint8 *)&extra, sizeof(extra));
    if (extra_size > EXTRA_KNOWN) {
        g_byte_array_append(out, sn->unknown_extra_data,
                            extra_size - EXTRA_KNOWN);
    }
    g_byte_array_append(out, (const guint8 *)sn->id_str, id_size);
    g_byte_array_append(out, (const guint8 *)sn->name, name_size);
    g_byte_array_append(out, zeroes, -out->len & 7);
}

GByteArray *qcow2_snapshots_to_bytes(const Qcow2Snapshot *list, unsigned n)
{
    GByteArray *out = g_byte_array_new();

    for (unsigned i = 0; i < n && out->len <= QCOW2_MAX_SNAPSHOT_TABLE; i++) {
        append_entry(out, &list[i]);
    }
    return out;
}

int64_t coroutine_fn qcow2_co_write_new(BlockDriverState *bs,
                                        const void *data, uint64_t bytes)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t whole = qcow2_cluster_end(s, bytes), got;
    g_autofree uint8_t *buf = g_try_malloc0(whole);
    int64_t offset;
    int ret = -EIO;

    if (!buf) {
        return -ENOMEM;
    }
    memcpy(buf, data, bytes);
    co_mutex_lock(&s->lock);
    offset = qcow2_co_alloc(bs, whole, whole, &got, NULL);
    co_mutex_unlock(&s->lock);
    if (offset < 0) {
        return offset;
    }
    if (!qcow2_overlaps(bs, 0, offset, whole)) {
        ret = bdrv_co_pwrite(bs->file, offset, whole, buf, 0);
    }
    if (ret < 0) {
        qcow2_co_free_old(bs, offset, whole);
        return ret;
    }
    return offset;
}

void coroutine_fn qcow2_co_free_old(BlockDriverState *bs, uint64_t offset,
                                    uint64_t bytes)
{
    BDRVQcow2State *s = bs->opaque;

    if (bytes) {
        co_mutex_lock(&s->lock);
        qcow2_co_unalloc(bs, offset, qcow2_cluster_end(s, bytes));
        co_mutex_unlock(&s->lock);
    }
}

static int coroutine_fn co_point_header(BlockDriverState *bs, unsigned n,
                                        uint64_t offset)
{
    struct {
        uint32_t nb_snapshots;
        uint64_t snapshots_offset;
    } __attribute__((packed)) part = {
        .nb_snapshots = GUINT32_TO_BE(n),
        .snapshots_offset = GUINT64_TO_BE(offset),
    };
    BDRVQcow2State *s = bs->opaque;
    int ret;

    co_mutex_lock(&s->header_lock);
    ret = qcow2_co_change_header(bs, BLKDBG_NONE,
                                 offsetof(Qcow2Header, nb_snapshots), &part,
                                 sizeof(part));
    co_mutex_unlock(&s->header_lock);
    return ret;
}

int coroutine_fn qcow2_co_write_snapshots(BlockDriverState *bs,
                                          const Qcow2Snapshot *list,
                                          unsigned n, Error **errp)
{
    BDRVQcow2State *s = bs->opaque;
    g_autoptr(GByteArray) bytes = qcow2_snapshots_to_bytes(list, n);
    int64_t offset = 0;
    int ret = -EFBIG;

    if (n > QCOW2_MAX_SNAPSHOTS || bytes->len > QCOW2_MAX_SNAPSHOT_TABLE) {
        error_setg(errp, "Snapshot table is too big");
        return ret;
    }
    if (bytes->len) {
        offset = qcow2_co_write_new(bs, bytes->data, bytes->len);
        if (offset < 0) {
            error_setg_errno(errp, -offset, "Failed to write the snapshot "
                             "table");
            return offset;
        }
    }
    /* Refcounts first, then who needs them. */
    ret = qcow2_co_writeback(bs);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Failed to write the snapshot table");
        qcow2_co_free_old(bs, offset, bytes->len);
        return ret;
    }
    ret = co_point_header(bs, n, offset);
    if (ret < 0) {
        if (!qcow2_header_unsure(s)) {
            qcow2_co_free_old(bs, offset, bytes->len);
        }
        error_setg_errno(errp, -ret, "Failed to update the snapshot count in "
                         "the image header");
        return ret;
    }
    qcow2_co_free_old(bs, s->snapshots_offset, s->snapshots_size);
    s->snapshots_offset = offset;
    s->snapshots_size = bytes->len;
    return 0;
}

/* ---- looking ---- */

bool qcow2_snapshot_l1_ok(const BDRVQcow2State *s, const Qcow2Snapshot *sn,
                          Error **errp)
{
    if (sn->l1_size > QCOW2_MAX_L1_BYTES / 8) {
        error_setg(errp, "Snapshot L1 table too large");
        return false;
    }
    if (sn->l1_size && (qcow2_in_cluster(s, sn->l1_table_offset)
                        || sn->l1_table_offset == 0
                        || sn->l1_table_offset > INT64_MAX
                                                 - QCOW2_MAX_L1_BYTES)) {
        error_setg(errp, "Snapshot L1 table offset invalid");
        return false;
    }
    return true;
}

SnapshotInfoList *qcow2_snapshot_list(BlockDriverState *bs)
{
    const BDRVQcow2State *s = bs->opaque;
    SnapshotInfoList *list = NULL, **tail = &list;

    for (unsigned i = 0; i < s->nb_snapshots; i++) {
        const Qcow2Snapshot *sn = &s->snapshots[i];
        SnapshotInfo *info = g_new0(SnapshotInfo, 1);

        info->id = g_strdup(sn->id_str);
        info->name = g_strdup(sn->name);
        info->vm_state_size = sn->vm_state_size;
        info->date_sec = sn->date_sec;
        info->date_nsec = sn->date_nsec;
        info->vm_clock_sec = sn->vm_clock_nsec / 1000000000;
        info->vm_clock_nsec = sn->vm_clock_nsec % 1000000000;
        info->has_icount = sn->icount != UINT64_MAX;
        info->icount = info->has_icount ? sn->icount : 0;
        *tail = g_new0(SnapshotInfoList, 1);
        (*tail)->value = info;
        tail = &(*tail)->next;
    }
    return list;
}
