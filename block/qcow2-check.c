/* SPDX-License-Identifier: MIT */
/*
 * qcow2: check of an image.
 *
 * All uses of clusters are counted (qcow2-check-refs.c) and compared with the
 * refcounts in the file; then COPIED of the active tables is compared with the
 * refcounts.  A refcount that has a block is put right in place.  If one lacks
 * its block, or the refcount structure is broken in itself, it is made anew as
 * a whole (qcow2-repair.c).  Each step leaves an image that is no worse than it
 * was before.
 *
 * Messages are those of QEMU's tool, because scripts match on them.
 *
 * Main thread, node drained.
 */
#include "block/qcow2-check.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>

/* Counts for a longer file than this would take ask for too much memory. */
#define MAX_COUNTS_BYTES (INT64_C(4) << 30)

/* Clusters that are compared between two looks at the clock. */
#define COMPARE_STEP 256

void qcow2_check_say(Qcow2Check *c, const char *fmt, ...)
{
    g_autofree char *line = NULL;
    va_list ap;

    if (!c->hooks->message) {
        return;
    }
    va_start(ap, fmt);
    line = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    c->hooks->message(c->hooks->opaque, line);
}

void qcow2_check_progress(Qcow2Check *c, uint64_t done, uint64_t total)
{
    double now;

    if (!c->hooks->progress) {
        return;
    }
    now = c->done + c->part * done / MAX(total, 1);
    /* Some work is done twice; nobody wants to see that. */
    if (now > c->shown) {
        c->shown = now;
        c->hooks->progress(c->hooks->opaque, now);
    }
}

static void next_part(Qcow2Check *c, double part)
{
    c->done += c->part;
    c->part = part;
    qcow2_check_progress(c, 0, 1);
}

/* ---- counts ---- */

uint64_t qcow2_check_get(const BDRVQcow2State *s, const uint8_t *block,
                         uint64_t i)
{
    unsigned bits = 1u << s->refcount_order, n = bits / 8;
    const uint8_t *p = block + i * n;
    uint64_t value = 0;

    if (bits < 8) {
        return block[i * bits / 8] >> (i * bits % 8) & ((1u << bits) - 1);
    }
    while (n--) {
        value = value << 8 | *p++;
    }
    return value;
}

void qcow2_check_set(const BDRVQcow2State *s, uint8_t *block, uint64_t i,
                     uint64_t value)
{
    unsigned bits = 1u << s->refcount_order, n = bits / 8;
    unsigned shift = i * bits % 8;
    uint8_t *p = block + i * bits / 8;

    if (bits < 8) {
        *p &= ~(((1u << bits) - 1) << shift);
        *p |= value << shift;
        return;
    }
    for (; n; value >>= 8) {
        p[--n] = value;
    }
}

void qcow2_check_use(Qcow2Check *c, uint64_t offset, uint64_t bytes)
{
    BDRVQcow2State *s = c->s;
    uint64_t limit = c->file_bytes + s->cluster_size;
    uint64_t first = offset >> s->cluster_bits, last;

    if (bytes == 0) {
        return;
    }
    if (bytes >= limit || offset >= limit - bytes) {
        qcow2_check_say(c, "ERROR: counting reference for region exceeding "
                        "the end of the file by one cluster or more: offset "
                        "0x%" PRIx64 " size 0x%" PRIx64, offset, bytes);
        c->res->corruptions++;
        return;
    }
    last = (offset + bytes - 1) >> s->cluster_bits;
    for (uint64_t i = first; i <= last; i++) {
        uint64_t count = qcow2_check_get(s, c->counts, i);

        if (count == s->refcount_max) {
            qcow2_check_say(c, "ERROR: overflow cluster offset=0x%" PRIx64,
                            i << s->cluster_bits);
            qcow2_check_say(c, "Use qemu-img amend to increase the refcount "
                            "entry width or qemu-img convert to create a "
                            "clean copy if the image cannot be opened for "
                            "writing");
            c->res->corruptions++;
            continue;
        }
        qcow2_check_set(s, c->counts, i, count + 1);
    }
    c->n_clusters = MAX(c->n_clusters, last + 1);
}

/* Memory for the counts of all clusters, and of those that a repair adds. */
static int map_counts(Qcow2Check *c, Error **errp)
{
    BDRVQcow2State *s = c->s;
    int64_t len = bdrv_getlength(c->bs->file->bs);

    c->file_bytes = len;
    c->n_clusters = (uint64_t)qcow2_cluster_end(s, len) >> s->cluster_bits;
    c->capacity = c->n_clusters + c->n_clusters / 16 + 4096;
    /* Whole blocks, since blocks are copied from it. */
    c->capacity += (UINT64_C(1) << s->refblock_bits) - 1;
    c->capacity &= ~((UINT64_C(1) << s->refblock_bits) - 1);
    if (c->capacity >= (uint64_t)MAX_COUNTS_BYTES
        || (c->capacity << s->refcount_order) / 8 > MAX_COUNTS_BYTES) {
        error_setg(errp, "The file is too long to be checked: %" PRIi64
                   " bytes", len);
        return -EFBIG;
    }
    c->counts_bytes = (c->capacity << s->refcount_order) / 8;
    c->counts = mmap(NULL, c->counts_bytes, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (c->counts == MAP_FAILED) {
        c->counts = NULL;
        error_setg_errno(errp, errno, "Could not allocate memory");
        return -ENOMEM;
    }
    return 0;
}

/* ---- comparing ---- */

static void coroutine_fn co_compare_one(Qcow2Check *c, BdrvCheckResult *res,
                                        int fix, uint64_t i, uint64_t have,
                                        uint64_t want)
{
    bool leak = have > want;

    fix &= leak ? BDRV_FIX_LEAKS : BDRV_FIX_ERRORS;
    if (have == 0) {
        /* There may be no block for it. */
        c->rebuild = true;
        fix = 0;
    }
    qcow2_check_say(c, "%s cluster %" PRIu64 " refcount=%" PRIu64
                    " reference=%" PRIu64,
                    fix ? "Repairing" : leak ? "Leaked" : "ERROR", i, have,
                    want);
    if (fix && qcow2_check_co_set_refcount(c, i, want) >= 0) {
        *(leak ? &res->leaks_fixed : &res->corruptions_fixed) += 1;
    } else {
        *(leak ? &res->leaks : &res->corruptions) += 1;
    }
}

/* Nothing is counted from @cluster on, a block's first, and none is there. */
static bool is_unused_block(const Qcow2Check *c, uint64_t cluster)
{
    uint64_t index = cluster >> c->s->refblock_bits;

    return (index >= c->s->reftable_entries || c->s->reftable[index] == 0)
           && !qcow2_check_any(c, index);
}

/*
 * Compare all refcounts with what has been counted; results are added to @res.
 * Those that have a block are repaired as @fix says.
 */
static int coroutine_fn co_compare(Qcow2Check *c, BdrvCheckResult *res,
                                   int fix)
{
    BDRVQcow2State *s = c->s;
    uint64_t highest = 0, per_block = UINT64_C(1) << s->refblock_bits;

    for (uint64_t i = 0; i < c->n_clusters; i++) {
        uint64_t want, have;
        int ret;

        if (i % COMPARE_STEP == 0) {
            qcow2_check_progress(c, i, c->n_clusters);
            if (aio_co_yield_fair() < 0 && !fix) {
                return -ECANCELED;
            }
        }
        if (i % per_block == 0 && is_unused_block(c, i)) {
            i += per_block - 1;
            continue;
        }
        want = qcow2_check_get(s, c->counts, i);
        ret = qcow2_check_co_refcount(c, i, &have);
        if (ret < 0) {
            qcow2_check_say(c, "Can't get refcount for cluster %" PRIu64
                            ": %s", i, strerror(-ret));
            res->check_errors++;
            continue;
        }
        if (have || want) {
            highest = i;
        }
        if (have != want) {
            co_compare_one(c, res, fix, i, have, want);
        }
    }
    if (qcow2_check_co_write_block(c) < 0) {
        res->check_errors++;
    }
    c->res->image_end_offset = (highest + 1) << s->cluster_bits;
    return 0;
}

/* ---- the table of snapshots ---- */

typedef struct SnapshotFlaws {
    Qcow2Check *c;
    uint64_t n;
} SnapshotFlaws;

static void snapshot_flaw(void *opaque, Qcow2SnapshotFlaw flaw,
                          unsigned index, uint32_t value)
{
    SnapshotFlaws *f = opaque;
    const char *how = f->c->fix & BDRV_FIX_ERRORS ? "Repairing" : "ERROR";

    f->n++;
    switch (flaw) {
    case QCOW2_SNAPSHOT_TOO_MANY:
        qcow2_check_say(f->c, "Discarding %u overhanging snapshots", index);
        f->n += index - 1;
        break;
    case QCOW2_SNAPSHOT_TABLE_TOO_BIG:
        qcow2_check_say(f->c, "Discarding %u overhanging snapshots (snapshot "
                        "table is too big)", index);
        f->n += index - 1;
        break;
    case QCOW2_SNAPSHOT_EXTRA_TOO_BIG:
        qcow2_check_say(f->c, "Discarding too much extra metadata in snapshot "
                        "table entry %u (%u > %u)", index, value,
                        QCOW2_MAX_SNAPSHOT_EXTRA);
        break;
    case QCOW2_SNAPSHOT_INCOMPLETE:
        qcow2_check_say(f->c, "%s snapshot table entry %u is incomplete", how,
                        index);
        break;
    }
}

/* Read the table again, with what can be put right put right in memory. */
static int coroutine_fn co_load_snapshots(Qcow2Check *c, uint64_t *flaws)
{
    BDRVQcow2State *s = c->s;
    SnapshotFlaws f = { .c = c };
    Qcow2SnapshotTable table = {
        .flaw = snapshot_flaw, .opaque = &f,
        .discard = c->fix & BDRV_FIX_ERRORS,
    };
    struct {
        uint32_t nb_snapshots;
        uint64_t snapshots_offset;
    } __attribute__((packed)) part;
    Error *err = NULL;
    uint64_t offset;
    int ret = bdrv_co_pread(c->bs->file, offsetof(Qcow2Header, nb_snapshots),
                            sizeof(part), &part, 0);

    if (ret < 0) {
        qcow2_check_say(c, "ERROR failed to read the snapshot table pointer "
                        "from the image header: %s", strerror(-ret));
        c->res->check_errors++;
        return ret;
    }
    offset = GUINT64_FROM_BE(part.snapshots_offset);
    ret = qcow2_co_parse_snapshots(c->bs, offset,
                                   GUINT32_FROM_BE(part.nb_snapshots), &table,
                                   &err);
    if (ret < 0) {
        qcow2_check_say(c, "ERROR failed to read the snapshot table: %s",
                        error_get_pretty(err));
        if (error_get_hint(err)) {
            g_autofree char *hint = g_strdup(error_get_hint(err));

            qcow2_check_say(c, "%s", g_strchomp(hint));
        }
        error_free(err);
        c->res->check_errors++;
        return ret;
    }
    qcow2_free_snapshots(s);
    s->snapshots = table.list;
    s->nb_snapshots = table.n;
    s->snapshots_size = table.bytes;
    s->snapshots_offset = table.n ? offset : 0;
    c->res->corruptions += f.n;
    *flaws = f.n;
    return 0;
}

static int coroutine_fn co_fix_snapshots(Qcow2Check *c, uint64_t flaws)
{
    BDRVQcow2State *s = c->s;
    Error *err = NULL;
    int ret;

    if (!flaws || !(c->fix & BDRV_FIX_ERRORS)) {
        return 0;
    }
    ret = qcow2_co_write_snapshots(c->bs, s->snapshots, s->nb_snapshots, &err);
    if (ret >= 0) {
        ret = qcow2_co_settle(c->bs);
    }
    if (ret < 0) {
        qcow2_check_say(c, "ERROR failed to update snapshot table: %s",
                        err ? error_get_pretty(err) : strerror(-ret));
        error_free(err);
        c->res->check_errors++;
        return ret;
    }
    c->res->corruptions -= flaws;
    c->res->corruptions_fixed += flaws;
    return 0;
}

/* ---- all of it ---- */

/* How many there were, and are no more. */
static int64_t gone(int64_t before, int64_t after)
{
    return MAX(before - after, 0);
}

/*
 * Make the refcount structure anew from what has been counted, the old one
 * included; then count again, and free that.
 */
static int coroutine_fn co_rebuild(Qcow2Check *c, const BdrvCheckResult *pre)
{
    BdrvCheckResult *res = c->res, after = { 0 };
    int64_t corruptions = res->corruptions + pre->corruptions;
    int64_t leaks = res->leaks + pre->leaks;
    int ret;

    qcow2_check_say(c, "Rebuilding refcount structure");
    ret = qcow2_check_co_rebuild(c);
    if (ret < 0) {
        return ret;
    }
    /* What is given back reads as zeroes. */
    madvise(c->counts, c->counts_bytes, MADV_DONTNEED);
    c->rebuild = false;
    c->table_bytes = 0;
    after.corruptions_fixed = res->corruptions_fixed;
    after.leaks_fixed = res->leaks_fixed;
    after.total_clusters = res->total_clusters;
    *res = after;
    ret = qcow2_check_co_count(c);
    if (ret < 0) {
        return ret;
    }
    after = (BdrvCheckResult) { 0 };
    /* Fixing, it goes on to the end. */
    co_compare(c, &after, c->fix | BDRV_FIX_LEAKS);
    if (c->rebuild || after.check_errors) {
        qcow2_check_say(c, "ERROR rebuilt refcount structure is still "
                        "broken");
        res->check_errors += after.check_errors;
        return -EIO;
    }
    res->corruptions += after.corruptions;
    res->leaks += after.leaks;
    res->corruptions_fixed += gone(corruptions, res->corruptions);
    res->leaks_fixed += gone(leaks, res->leaks);
    return 0;
}

/* Compare, and repair what may be repaired. */
static int coroutine_fn co_refcounts(Qcow2Check *c)
{
    BdrvCheckResult *res = c->res, pre = { 0 };
    int ret = co_compare(c, &pre, 0);

    if (ret < 0) {
        return ret;
    }
    if (c->rebuild && (c->fix & BDRV_FIX_ERRORS)) {
        return co_rebuild(c, &pre);
    }
    if (c->rebuild && c->fix) {
        qcow2_check_say(c, "ERROR need to rebuild refcount structures");
        return -EIO;
    }
    if (c->fix && (pre.leaks || pre.corruptions)) {
        co_compare(c, res, c->fix);
        return 0;
    }
    res->leaks += pre.leaks;
    res->corruptions += pre.corruptions;
    res->check_errors += pre.check_errors;
    return 0;
}

static int coroutine_fn co_check(Qcow2Check *c)
{
    BDRVQcow2State *s = c->s;
    uint64_t flaws = 0;
    int ret = co_load_snapshots(c, &flaws);

    if (ret < 0) {
        return ret;
    }
    c->res->total_clusters = (uint64_t)qcow2_cluster_end(
        s, bdrv_getlength(c->bs)) >> s->cluster_bits;
    next_part(c, 0.5);
    ret = qcow2_check_co_count(c);
    if (ret < 0) {
        return ret == -ECANCELED ? ret : 0;     /* else a check error */
    }
    next_part(c, 0.2);
    ret = co_refcounts(c);
    next_part(c, 0.3);
    if (ret >= 0) {
        ret = qcow2_check_co_copied(c);
    }
    if (ret >= 0) {
        ret = co_fix_snapshots(c, flaws);
    }
    next_part(c, 0);
    return ret;
}

/* What is in memory follows what has been changed in the file. */
static int coroutine_fn co_finish(Qcow2Check *c, int ret)
{
    BDRVQcow2State *s = c->s;
    const BdrvCheckResult *res = c->res;
    int ret2 = bdrv_co_flush(c->bs->file->bs);

    s->free_hint = 0;
    s->free_byte_offset = 0;
    s->virgin_start = UINT64_MAX;
    ret = ret < 0 ? ret : ret2;
    if (ret >= 0 && !res->corruptions && !res->check_errors) {
        if (s->version >= 3 && (c->fix & BDRV_FIX_ERRORS)) {
            ret = qcow2_co_set_incompatible(c->bs, 0, QCOW2_INCOMPAT_DIRTY
                                            | QCOW2_INCOMPAT_CORRUPT);
            s->dirty_bit = false;
        }
    }
    if (ret >= 0) {
        ret = qcow2_co_init_metamap(c->bs);
    }
    return ret;
}

int coroutine_fn qcow2_co_check(BlockDriverState *bs, BdrvCheckResult *res,
                                int fix, const BdrvCheckHooks *hooks,
                                Error **errp)
{
    BDRVQcow2State *s = bs->opaque;
    Qcow2Check c = {
        .bs = bs, .s = s, .res = res, .fix = fix, .hooks = hooks,
        .block.index = UINT64_MAX,
    };
    bool corrupt = s->corrupt;
    int ret = qcow2_co_settle(bs);

    if (ret < 0) {
        error_setg_errno(errp, -ret, "Failed to write the image's metadata");
        return ret;
    }
    ret = map_counts(&c, errp);
    if (ret < 0) {
        return ret;
    }
    if (fix) {
        /* Who repairs may write. */
        __atomic_store_n(&s->corrupt, false, __ATOMIC_RELAXED);
    }
    c.block.data = g_malloc(s->cluster_size);
    ret = co_check(&c);
    if (fix) {
        ret = co_finish(&c, ret);
        if (corrupt && (ret < 0 || res->corruptions || res->check_errors
                        || !(fix & BDRV_FIX_ERRORS))) {
            __atomic_store_n(&s->corrupt, true, __ATOMIC_RELAXED);
        }
    }
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Check failed");
    }
    g_free(c.block.data);
    munmap(c.counts, c.counts_bytes);
    return ret;
}

int coroutine_fn qcow2_co_repair_dirty(BlockDriverState *bs, Error **errp)
{
    static const BdrvCheckHooks silent;
    BdrvCheckResult res = { 0 };
    int ret = qcow2_co_check(bs, &res, BDRV_FIX_LEAKS | BDRV_FIX_ERRORS,
                             &silent, errp);

    if (ret >= 0 && (res.check_errors || res.corruptions)) {
        error_setg(errp, "%" PRIi64 " errors are left",
                   res.check_errors + res.corruptions);
        ret = -EIO;
    }
    if (ret < 0) {
        error_prepend(errp, "Could not repair dirty image: ");
        return ret;
    }
    if (res.corruptions_fixed || res.leaks_fixed) {
        info_report("qcow2: Image '%s' was not closed cleanly: %" PRIi64
                    " errors and %" PRIi64 " leaked clusters were repaired",
                    bs->file->bs->filename ? bs->file->bs->filename
                                           : bs->node_name,
                    res.corruptions_fixed, res.leaks_fixed);
    }
    return 0;
}
