/* SPDX-License-Identifier: MIT */
/*
 * qcow2: counting who uses the clusters of an image.
 *
 * Everything that the header leads to is read from the file, one table at a
 * time.  What is wrong is reported and counted, and the walk goes on with what
 * can be made of it.
 *
 * Main thread, node drained, nothing cached.
 */
#include "block/qcow2-check.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

/* A walk through one L1 table. */
typedef struct L1Walk {
    Qcow2Check *c;
    bool active;                /* the guest's disk: counts for statistics */
    uint64_t next_data;         /* where unfragmented data would go on */
    uint64_t *l2;               /* a cluster */
    unsigned l2_changed;        /* entries put right */
} L1Walk;

static bool may_fix(const Qcow2Check *c)
{
    return c->fix & BDRV_FIX_ERRORS;
}

/* ---- L2 tables ---- */

static void use_compressed(L1Walk *w, uint64_t entry, uint64_t bitmap,
                           unsigned i)
{
    Qcow2Check *c = w->c;
    uint64_t offset, bytes;

    if (entry & QCOW2_OFLAG_COPIED) {
        qcow2_check_say(c, "ERROR: coffset=0x%" PRIx64 ": copied flag must "
                        "never be set for compressed clusters",
                        entry & c->s->coffset_mask);
        c->res->corruptions++;
        entry &= ~QCOW2_OFLAG_COPIED;
    }
    if (c->s->external_data_file) {
        qcow2_check_say(c, "ERROR compressed cluster %u with data file, "
                        "entry=0x%" PRIx64, i, entry);
        c->res->corruptions++;
        return;
    }
    if (bitmap) {
        qcow2_check_say(c, "ERROR compressed cluster %u with non-zero "
                        "subcluster allocation bitmap, entry=0x%" PRIx64, i,
                        entry);
        c->res->corruptions++;
        return;
    }
    qcow2_compressed_range(c->s, entry, &offset, &bytes);
    qcow2_check_use(c, offset, bytes);
    if (w->active) {
        c->res->allocated_clusters++;
        c->res->compressed_clusters++;
        c->res->fragmented_clusters++;
    }
}

static void use_data(L1Walk *w, uint64_t entry, uint64_t bitmap, unsigned i)
{
    Qcow2Check *c = w->c;
    BDRVQcow2State *s = c->s;
    uint64_t offset = entry & QCOW2_L2E_OFFSET_MASK;
    bool zero = !s->extended_l2 && (entry & QCOW2_OFLAG_ZERO);

    if (s->extended_l2 && (bitmap & QCOW2_EXTL2_ALL_ALLOC & (bitmap >> 32))) {
        qcow2_check_say(c, "ERROR offset=%" PRIx64 ": Allocated cluster has "
                        "corrupted subcluster allocation bitmap", offset);
        c->res->corruptions++;
    }
    if (qcow2_in_cluster(s, offset)) {
        bool fix = zero && may_fix(c);

        qcow2_check_say(c, "%s offset=%" PRIx64 ": %s cluster is not properly "
                        "aligned; L2 entry corrupted.",
                        fix ? "Repairing" : "ERROR", offset,
                        zero ? "Preallocated" : "Data");
        c->res->corruptions++;
        if (fix) {
            w->l2[i * s->l2_entry_words] = GUINT64_TO_BE(QCOW2_OFLAG_ZERO);
            w->l2_changed++;
            return;
        }
    }
    if (w->active) {
        c->res->allocated_clusters++;
        if (w->next_data && offset != w->next_data) {
            c->res->fragmented_clusters++;
        }
        w->next_data = offset + s->cluster_size;
    }
    if (!s->external_data_file) {
        qcow2_check_use(c, offset, s->cluster_size);
    }
}

static void use_entry(L1Walk *w, unsigned i)
{
    Qcow2Check *c = w->c;
    BDRVQcow2State *s = c->s;
    uint64_t entry = GUINT64_FROM_BE(w->l2[i * s->l2_entry_words]);
    uint64_t bitmap = s->extended_l2
                      ? GUINT64_FROM_BE(w->l2[i * s->l2_entry_words + 1]) : 0;
    bool host;

    if (entry & QCOW2_OFLAG_COMPRESSED) {
        use_compressed(w, entry, bitmap, i);
        return;
    }
    if (entry & QCOW2_L2E_STD_RESERVED_MASK) {
        qcow2_check_say(c, "ERROR found l2 entry with reserved bits set: "
                        "%" PRIx64, entry);
        c->res->corruptions++;
    }
    host = (entry & QCOW2_L2E_OFFSET_MASK)
           || (s->external_data_file && (entry & QCOW2_OFLAG_COPIED)
               && (s->extended_l2 || !(entry & QCOW2_OFLAG_ZERO)));
    if (host) {
        use_data(w, entry, bitmap, i);
    } else if (bitmap & QCOW2_EXTL2_ALL_ALLOC) {
        qcow2_check_say(c, "ERROR: Unallocated cluster has non-zero "
                        "subcluster allocation map");
        c->res->corruptions++;
    }
}

static int coroutine_fn co_use_l2(L1Walk *w, uint64_t offset)
{
    Qcow2Check *c = w->c;
    BDRVQcow2State *s = c->s;
    int ret = bdrv_co_pread(c->bs->file, offset, s->cluster_size, w->l2, 0);

    if (ret < 0) {
        qcow2_check_say(c, "ERROR: I/O error in check_refcounts_l2");
        c->res->check_errors++;
        return ret;
    }
    w->l2_changed = 0;
    w->next_data = 0;
    for (unsigned i = 0; i < 1u << s->l2_bits; i++) {
        use_entry(w, i);
    }
    if (w->l2_changed) {
        ret = qcow2_check_co_rewrite(c, w->active ? QCOW2_OL_ACTIVE_L2
                                                  : QCOW2_OL_INACTIVE_L2,
                                     offset, w->l2, s->cluster_size);
        if (ret < 0) {
            qcow2_check_say(c, "ERROR: Could not write L2 table: %s",
                            strerror(-ret));
            c->res->check_errors++;
        } else {
            c->res->corruptions -= w->l2_changed;
            c->res->corruptions_fixed += w->l2_changed;
        }
    }
    return ret;
}

/* ---- L1 tables ---- */

/*
 * Tables of which none lies in another have no more bytes than the file, and
 * one refers to no more tables than there are clusters.  So the time for a
 * check follows from the length of the file, whatever is in it.
 */
static int claim_table(Qcow2Check *c, uint64_t offset, uint64_t bytes)
{
    if (offset < c->file_bytes) {
        bytes = MIN(bytes, c->file_bytes - offset);
        c->table_bytes += qcow2_cluster_end(c->s, bytes);
    }
    if (c->table_bytes > (uint64_t)qcow2_cluster_end(c->s, c->file_bytes)) {
        qcow2_check_say(c, "ERROR: more tables than the file has room for; "
                        "the one at offset 0x%" PRIx64 " lies in another",
                        offset);
        c->res->check_errors++;
        return -EINVAL;
    }
    return 0;
}

static int coroutine_fn co_use_l1(Qcow2Check *c, uint64_t offset, uint32_t n,
                                  bool active)
{
    BDRVQcow2State *s = c->s;
    g_autofree uint64_t *l1 = NULL, *l2 = NULL;
    L1Walk w = { .c = c, .active = active };
    uint64_t n_tables = 0;
    int ret, result = 0;

    if (n == 0) {
        return 0;
    }
    qcow2_check_use(c, offset, (uint64_t)n * 8);
    ret = claim_table(c, offset, (uint64_t)n * 8);
    if (ret < 0) {
        return ret;
    }
    l1 = g_try_new(uint64_t, n);
    w.l2 = l2 = g_try_malloc(s->cluster_size);
    ret = l1 && l2 ? bdrv_co_pread(c->bs->file, offset, (uint64_t)n * 8, l1,
                                   0) : -ENOMEM;
    if (ret < 0) {
        qcow2_check_say(c, "ERROR: I/O error in check_refcounts_l1");
        c->res->check_errors++;
        return ret;
    }
    for (uint32_t i = 0; i < n; i++) {
        uint64_t entry = GUINT64_FROM_BE(l1[i]);
        uint64_t table = entry & QCOW2_L1E_OFFSET_MASK;

        if (!entry) {
            continue;           /* of which a large table may be full */
        }
        qcow2_check_progress(c, i, n);
        if (entry & QCOW2_L1E_RESERVED_MASK) {
            qcow2_check_say(c, "ERROR found L1 entry with reserved bits set: "
                            "%" PRIx64, entry);
            c->res->corruptions++;
        }
        if (!table) {
            continue;
        }
        qcow2_check_use(c, table, s->cluster_size);
        if (qcow2_in_cluster(s, table)) {
            qcow2_check_say(c, "ERROR l2_offset=%" PRIx64 ": Table is not "
                            "cluster aligned; L1 entry corrupted", table);
            c->res->corruptions++;
        }
        if (table >= c->file_bytes) {
            continue;           /* reads as zeroes */
        }
        if (++n_tables > c->n_clusters) {
            qcow2_check_say(c, "ERROR: the L1 table at offset 0x%" PRIx64
                            " refers to L2 tables again and again", offset);
            c->res->check_errors++;
            return -EINVAL;
        }
        ret = co_use_l2(&w, table);
        if (ret < 0) {
            result = ret;
        }
        ret = aio_co_yield_fair();
        if (ret < 0) {
            return ret;
        }
    }
    return result;
}

/* ---- snapshots ---- */

static int coroutine_fn co_use_snapshots(Qcow2Check *c)
{
    BDRVQcow2State *s = c->s;
    int result = 0;

    if (s->external_data_file && s->nb_snapshots) {
        qcow2_check_say(c, "ERROR %u snapshots in image with data file",
                        s->nb_snapshots);
        c->res->corruptions++;
    }
    for (unsigned i = 0; i < s->nb_snapshots; i++) {
        const Qcow2Snapshot *sn = &s->snapshots[i];
        int ret;

        if (qcow2_in_cluster(s, sn->l1_table_offset)) {
            qcow2_check_say(c, "ERROR snapshot %s (%s) l1_offset=%#" PRIx64
                            ": L1 table is not cluster aligned; snapshot "
                            "table entry corrupted", sn->id_str, sn->name,
                            sn->l1_table_offset);
            c->res->corruptions++;
            continue;
        }
        if (sn->l1_size > QCOW2_MAX_L1_BYTES / 8) {
            qcow2_check_say(c, "ERROR snapshot %s (%s) l1_size=%#" PRIx32
                            ": L1 table is too large; snapshot table entry "
                            "corrupted", sn->id_str, sn->name, sn->l1_size);
            c->res->corruptions++;
            continue;
        }
        ret = co_use_l1(c, sn->l1_table_offset, sn->l1_size, false);
        if (ret < 0) {
            result = ret;
        }
    }
    qcow2_check_use(c, s->snapshots_offset, s->snapshots_size);
    return result;
}

/* ---- bitmaps ---- */

static int coroutine_fn co_use_bitmap_table(Qcow2Check *c, uint64_t offset,
                                            uint32_t n)
{
    BDRVQcow2State *s = c->s;
    g_autofree uint64_t *table = NULL;
    int ret;

    qcow2_check_use(c, offset, (uint64_t)n * 8);
    ret = claim_table(c, offset, (uint64_t)n * 8);
    if (ret < 0) {
        return ret;
    }
    table = g_try_new(uint64_t, n);
    ret = table ? bdrv_co_pread(c->bs->file, offset, (uint64_t)n * 8, table,
                                0) : -ENOMEM;
    if (ret < 0) {
        qcow2_check_say(c, "ERROR: Could not read bitmap table: %s",
                        strerror(-ret));
        c->res->check_errors++;
        return ret;
    }
    for (uint32_t i = 0; i < n; i++) {
        uint64_t entry = GUINT64_FROM_BE(table[i]);
        uint64_t data = entry & QCOW2_BME_OFFSET_MASK;

        if ((entry & QCOW2_BME_RESERVED_MASK)
            || (data && ((entry & QCOW2_BME_ALL_ONES)
                         || qcow2_in_cluster(s, data)))) {
            qcow2_check_say(c, "ERROR bitmap table entry %" PRIu32 " is "
                            "broken: %" PRIx64, i, entry);
            c->res->corruptions++;
            continue;
        }
        if (data) {
            qcow2_check_use(c, data, s->cluster_size);
            aio_co_yield_fair();
        }
    }
    return 0;
}

/* The entry at @pos of the directory, or NULL if it does not fit there. */
static const Qcow2BitmapDirEntry *dir_entry(const uint8_t *dir, uint64_t size,
                                            uint64_t pos, uint64_t *next)
{
    const Qcow2BitmapDirEntry *e = (const void *)(dir + pos);
    uint64_t len;

    if (size - pos < sizeof(*e)) {
        return NULL;
    }
    len = sizeof(*e) + (uint64_t)GUINT32_FROM_BE(e->extra_data_size)
          + GUINT16_FROM_BE(e->name_size);
    len = (len + 7) & ~UINT64_C(7);
    *next = pos + len;
    return len <= size - pos ? e : NULL;
}

static int coroutine_fn co_use_bitmaps(Qcow2Check *c)
{
    BDRVQcow2State *s = c->s;
    g_autofree uint8_t *dir = NULL;
    uint64_t pos = 0, next;
    int ret, result = 0;

    if (s->nb_bitmaps == 0) {
        return 0;
    }
    qcow2_check_use(c, s->bitmap_directory_offset, s->bitmap_directory_size);
    dir = s->bitmap_directory_size > QCOW2_MAX_BITMAP_DIRECTORY
          ? NULL : g_try_malloc(s->bitmap_directory_size);
    ret = dir ? bdrv_co_pread(c->bs->file, s->bitmap_directory_offset,
                              s->bitmap_directory_size, dir, 0) : -ENOMEM;
    if (ret < 0) {
        qcow2_check_say(c, "ERROR: Could not read bitmap directory: %s",
                        strerror(-ret));
        c->res->check_errors++;
        return ret;
    }
    for (uint32_t i = 0; i < s->nb_bitmaps; i++, pos = next) {
        const Qcow2BitmapDirEntry *e = dir_entry(dir, s->bitmap_directory_size,
                                                 pos, &next);
        uint64_t offset;
        uint32_t n;

        if (!e) {
            qcow2_check_say(c, "ERROR bitmap directory ends within entry "
                            "%" PRIu32, i);
            c->res->corruptions++;
            c->res->check_errors++;     /* others may be behind it */
            return -EINVAL;
        }
        offset = GUINT64_FROM_BE(e->bitmap_table_offset);
        n = GUINT32_FROM_BE(e->bitmap_table_size);
        if (n == 0) {
            continue;
        }
        if (n > QCOW2_MAX_L1_BYTES / 8 || qcow2_in_cluster(s, offset)) {
            qcow2_check_say(c, "ERROR bitmap %" PRIu32 " has a broken table: "
                            "offset=%" PRIx64 " size=%" PRIx32, i, offset, n);
            c->res->corruptions++;
            continue;
        }
        ret = co_use_bitmap_table(c, offset, n);
        if (ret < 0) {
            result = ret;
        }
    }
    return result;
}

/* ---- refcount structure ---- */

/* A block past the end of the file: its clusters exist, unwritten. */
static int coroutine_fn co_extend_file(Qcow2Check *c, uint64_t offset)
{
    Error *err = NULL;
    int ret;

    if (offset > INT64_MAX - c->s->cluster_size
        || offset / c->s->cluster_size >= c->capacity) {
        ret = -EINVAL;
        error_setg(&err, "it is too far out");
    } else {
        ret = bdrv_co_truncate(c->bs->file, offset + c->s->cluster_size,
                               PREALLOC_MODE_OFF, 0, &err);
    }
    if (ret < 0) {
        qcow2_check_say(c, "ERROR could not resize image: %s",
                        error_get_pretty(err));
        error_free(err);
        c->rebuild = true;
        return ret;
    }
    c->res->corruptions_fixed++;
    c->file_bytes = offset + c->s->cluster_size;
    c->n_clusters = MAX(c->n_clusters, c->file_bytes >> c->s->cluster_bits);
    return 0;
}

static void coroutine_fn co_use_refblock(Qcow2Check *c, uint64_t i)
{
    BDRVQcow2State *s = c->s;
    uint64_t entry = s->reftable[i];
    uint64_t offset = entry & QCOW2_REFT_OFFSET_MASK;
    uint64_t cluster = offset >> s->cluster_bits, count;

    if (entry & QCOW2_REFT_RESERVED_MASK) {
        qcow2_check_say(c, "ERROR refcount table entry %" PRIu64
                        " has reserved bits set", i);
        c->res->corruptions++;
        c->rebuild = true;
        return;
    }
    if (qcow2_in_cluster(s, offset)) {
        qcow2_check_say(c, "ERROR refcount block %" PRIu64 " is not cluster "
                        "aligned; refcount table entry corrupted", i);
        c->res->corruptions++;
        c->rebuild = true;
        return;
    }
    if (cluster >= c->n_clusters) {
        qcow2_check_say(c, "%s refcount block %" PRIu64 " is outside image",
                        may_fix(c) ? "Repairing" : "ERROR", i);
        if (!may_fix(c)) {
            c->res->corruptions++;
            return;
        }
        if (co_extend_file(c, offset) < 0) {
            c->res->corruptions++;
            return;
        }
    }
    if (offset == 0) {
        return;
    }
    qcow2_check_use(c, offset, s->cluster_size);
    count = qcow2_check_get(s, c->counts, cluster);
    if (count != 1) {
        qcow2_check_say(c, "ERROR refcount block %" PRIu64 " refcount=%"
                        PRIu64, i, count);
        c->res->corruptions++;
        c->rebuild = true;
    }
}

int coroutine_fn qcow2_check_co_count(Qcow2Check *c)
{
    BDRVQcow2State *s = c->s;
    int ret, result;

    qcow2_check_use(c, 0, s->cluster_size);
    result = co_use_l1(c, s->l1_table_offset, s->l1_size, true);
    ret = co_use_snapshots(c);
    result = ret < 0 ? ret : result;
    if (s->crypto_header_length) {
        qcow2_check_use(c, s->crypto_header_offset, s->crypto_header_length);
    }
    ret = co_use_bitmaps(c);
    result = ret < 0 ? ret : result;
    qcow2_check_use(c, s->reftable_offset, s->reftable_entries * 8);
    for (uint64_t i = 0; i < s->reftable_entries; i++) {
        if (s->reftable[i]) {
            co_use_refblock(c, i);
            aio_co_yield_fair();
        }
    }
    return result;
}

/* ---- COPIED ---- */

static bool flag_differs(uint64_t entry, uint64_t refcount)
{
    return (refcount == 1) != !!(entry & QCOW2_OFLAG_COPIED);
}

/* Returns how many entries were put right in @l2. */
static unsigned coroutine_fn co_check_l2_flags(Qcow2Check *c, uint64_t *l2,
                                               bool fix)
{
    BDRVQcow2State *s = c->s;
    unsigned changed = 0;

    for (unsigned i = 0; i < s->cluster_size / 8; i += s->l2_entry_words) {
        uint64_t entry = GUINT64_FROM_BE(l2[i]);
        uint64_t offset = entry & QCOW2_L2E_OFFSET_MASK, refcount = 1;

        if ((entry & QCOW2_OFLAG_COMPRESSED)
            || (!offset && !(s->external_data_file
                             && (entry & QCOW2_OFLAG_COPIED)))
            || qcow2_in_cluster(s, offset)) {
            continue;
        }
        aio_co_yield_fair();
        if (!s->external_data_file
            && qcow2_check_co_refcount(c, offset >> s->cluster_bits,
                                       &refcount) < 0) {
            continue;
        }
        if (flag_differs(entry, refcount)) {
            qcow2_check_say(c, "%s OFLAG_COPIED data cluster: l2_entry=%"
                            PRIx64 " refcount=%" PRIu64,
                            fix ? "Repairing" : "ERROR", entry,
                            refcount);
            c->res->corruptions++;
            if (fix) {
                l2[i] = GUINT64_TO_BE(entry ^ QCOW2_OFLAG_COPIED);
                changed++;
            }
        }
    }
    return changed;
}

static int coroutine_fn co_check_l2_of(Qcow2Check *c, uint64_t table,
                                       uint64_t *l2, bool fix)
{
    unsigned changed;
    int ret = bdrv_co_pread(c->bs->file, table, c->s->cluster_size, l2, 0);

    if (ret < 0) {
        qcow2_check_say(c, "ERROR: I/O error in check_oflag_copied: %s",
                        strerror(-ret));
        c->res->check_errors++;
        return 0;
    }
    changed = co_check_l2_flags(c, l2, fix);
    if (changed == 0) {
        return 0;
    }
    ret = qcow2_check_co_rewrite(c, QCOW2_OL_ACTIVE_L2, table, l2,
                                 c->s->cluster_size);
    if (ret < 0) {
        qcow2_check_say(c, "ERROR: Could not write L2 table: %s",
                        strerror(-ret));
        c->res->check_errors++;
        return ret;
    }
    c->res->corruptions -= changed;
    c->res->corruptions_fixed += changed;
    return 0;
}

/* Write the active L1 table as it is in memory. */
static int coroutine_fn co_write_active_l1(Qcow2Check *c)
{
    BDRVQcow2State *s = c->s;
    g_autofree uint64_t *buf = g_new(uint64_t, s->l1_size);

    for (uint32_t i = 0; i < s->l1_size; i++) {
        buf[i] = GUINT64_TO_BE(s->l1_table[i]);
    }
    return qcow2_check_co_rewrite(c, QCOW2_OL_ACTIVE_L1, s->l1_table_offset,
                                  buf, (uint64_t)s->l1_size * 8);
}

int coroutine_fn qcow2_check_co_copied(Qcow2Check *c)
{
    BDRVQcow2State *s = c->s;
    g_autofree uint64_t *l2 = g_malloc(s->cluster_size);
    /* Flags are repaired with the leaks if nothing else is wrong. */
    bool fix = may_fix(c) || (c->fix && !c->res->corruptions
                              && !c->res->check_errors);
    unsigned changed = 0;
    int ret = 0;

    for (uint32_t i = 0; ret >= 0 && i < s->l1_size; i++) {
        uint64_t table = s->l1_table[i] & QCOW2_L1E_OFFSET_MASK, refcount;

        if (!table) {
            continue;
        }
        aio_co_yield_fair();
        qcow2_check_progress(c, i, s->l1_size);
        if (qcow2_in_cluster(s, table)
            || qcow2_check_co_refcount(c, table >> s->cluster_bits,
                                       &refcount) < 0) {
            continue;
        }
        if (flag_differs(s->l1_table[i], refcount)) {
            qcow2_check_say(c, "%s OFLAG_COPIED L2 cluster: l1_index=%" PRIu32
                            " l1_entry=%" PRIx64 " refcount=%" PRIu64,
                            fix ? "Repairing" : "ERROR", i,
                            s->l1_table[i], refcount);
            c->res->corruptions++;
            if (fix) {
                __atomic_store_n(&s->l1_table[i],
                                 s->l1_table[i] ^ QCOW2_OFLAG_COPIED,
                                 __ATOMIC_RELEASE);
                changed++;
            }
        }
        if (table < c->file_bytes) {
            ret = co_check_l2_of(c, table, l2, fix);
        }
    }
    if (ret >= 0 && changed) {
        ret = co_write_active_l1(c);
        if (ret < 0) {
            c->res->check_errors++;
        } else {
            c->res->corruptions -= changed;
            c->res->corruptions_fixed += changed;
        }
    }
    return ret;
}
