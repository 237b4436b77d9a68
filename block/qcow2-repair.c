/* SPDX-License-Identifier: MIT */
/*
 * qcow2: the refcount structure as a check sees and repairs it.
 *
 * One block at a time is in memory; it is read from and written to the file
 * directly.  A structure that can't be used is made anew behind the end of the
 * file, where nothing is that anybody could still need, and one write of the
 * header switches to it.
 *
 * Main thread, node drained, nothing cached.
 */
#include "block/qcow2-check.h"

#include <errno.h>
#include <string.h>

static uint64_t per_block(const BDRVQcow2State *s)
{
    return UINT64_C(1) << s->refblock_bits;
}

int coroutine_fn qcow2_check_co_write_block(Qcow2Check *c)
{
    Qcow2CheckBlock *b = &c->block;
    int ret;

    if (!b->dirty) {
        return 0;
    }
    b->dirty = false;
    ret = qcow2_check_co_rewrite(c, QCOW2_OL_REFCOUNT_BLOCK, b->offset,
                                 b->data, c->s->cluster_size);
    if (ret < 0) {
        b->index = UINT64_MAX;
    }
    return ret;
}

/* Have the block with the refcount of @cluster. */
static int coroutine_fn co_load_block(Qcow2Check *c, uint64_t cluster)
{
    BDRVQcow2State *s = c->s;
    Qcow2CheckBlock *b = &c->block;
    uint64_t index = cluster >> s->refblock_bits;
    int ret = 0;

    if (b->index == index) {
        return b->error;
    }
    ret = qcow2_check_co_write_block(c);
    if (ret < 0) {
        return ret;
    }
    b->index = index;
    b->offset = index < s->reftable_entries
                ? s->reftable[index] & QCOW2_REFT_OFFSET_MASK : 0;
    b->error = 0;
    if (b->offset == 0) {
        memset(b->data, 0, s->cluster_size);
    } else if (qcow2_in_cluster(s, b->offset)) {
        b->error = -EIO;
    } else if (b->offset >= c->file_bytes) {
        memset(b->data, 0, s->cluster_size);
    } else {
        b->error = bdrv_co_pread(c->bs->file, b->offset, s->cluster_size,
                                 b->data, 0);
    }
    return b->error;
}

int coroutine_fn qcow2_check_co_refcount(Qcow2Check *c, uint64_t cluster,
                                         uint64_t *refcount)
{
    BDRVQcow2State *s = c->s;
    int ret = co_load_block(c, cluster);

    if (ret >= 0) {
        *refcount = qcow2_check_get(s, c->block.data,
                                    cluster & (per_block(s) - 1));
    }
    return ret;
}

int coroutine_fn qcow2_check_co_set_refcount(Qcow2Check *c, uint64_t cluster,
                                             uint64_t refcount)
{
    BDRVQcow2State *s = c->s;
    int ret = co_load_block(c, cluster);

    if (ret < 0) {
        return ret;
    }
    if (c->block.offset == 0 || c->block.offset >= c->file_bytes) {
        return -EINVAL;
    }
    qcow2_check_set(s, c->block.data, cluster & (per_block(s) - 1), refcount);
    c->block.dirty = true;
    return 0;
}

static bool meets(uint64_t a, uint64_t a_bytes, uint64_t b, uint64_t b_bytes)
{
    return a < b + b_bytes && b < a + a_bytes;
}

/*
 * What one table says of its place, another may say of the same: a broken image
 * must not make a repair break more.
 */
static bool is_other_metadata(const Qcow2Check *c, unsigned kind,
                              uint64_t offset, uint64_t bytes)
{
    const BDRVQcow2State *s = c->s;

    if (meets(offset, bytes, 0, s->cluster_size)
        || (kind != QCOW2_OL_ACTIVE_L1
            && meets(offset, bytes, s->l1_table_offset,
                     (uint64_t)s->l1_size * 8))
        || meets(offset, bytes, s->reftable_offset, s->reftable_entries * 8)
        || meets(offset, bytes, s->snapshots_offset, s->snapshots_size)) {
        return true;
    }
    for (uint64_t i = 0; kind != QCOW2_OL_REFCOUNT_BLOCK
                         && i < s->reftable_entries; i++) {
        uint64_t block = s->reftable[i] & QCOW2_REFT_OFFSET_MASK;

        if (block && meets(offset, bytes, block, s->cluster_size)) {
            return true;
        }
    }
    return false;
}

int coroutine_fn qcow2_check_co_rewrite(Qcow2Check *c, unsigned kind,
                                        uint64_t offset, const void *data,
                                        uint64_t bytes)
{
    if (is_other_metadata(c, kind, offset, bytes)
        || qcow2_overlaps(c->bs, kind, offset, bytes)) {
        return -EIO;
    }
    return bdrv_co_pwrite(c->bs->file, offset, bytes, data, 0);
}

/* ---- rebuilding ---- */

/* Where new blocks and the new table go. */
typedef struct Layout {
    uint64_t start;             /* cluster; first the blocks, then the table */
    uint64_t n_blocks, n_table; /* clusters */
    uint64_t n_indices;         /* entries of the table that are looked at */
} Layout;

static bool is_zero(const uint8_t *p, size_t n)
{
    return n == 0 || (p[0] == 0 && memcmp(p, p + 1, n - 1) == 0);
}

bool qcow2_check_any(const Qcow2Check *c, uint64_t index)
{
    size_t size = c->s->cluster_size;

    return !is_zero(c->counts + index * size, size);
}

/* Blocks with counts, of the first @n. */
static uint64_t coroutine_fn co_blocks_in_use(Qcow2Check *c, uint64_t n)
{
    uint64_t used = 0;

    for (uint64_t i = 0; i < n; i++) {
        used += qcow2_check_any(c, i);
        aio_co_yield_fair();
    }
    return used;
}

/* How many clusters it takes, those that they need themselves included. */
static int coroutine_fn co_plan(Qcow2Check *c, Layout *l)
{
    BDRVQcow2State *s = c->s;
    uint64_t old = c->n_clusters >> s->refblock_bits;
    uint64_t old_blocks = co_blocks_in_use(c, old), blocks, table, last;

    *l = (Layout) { .start = c->n_clusters };
    for (;;) {
        last = l->start + l->n_blocks + l->n_table - 1;
        if (last >= c->capacity) {
            return -EFBIG;
        }
        l->n_indices = (last >> s->refblock_bits) + 1;
        /* All from the first new cluster's on are. */
        blocks = old_blocks + (l->n_indices - MIN(l->n_indices, old));
        table = (uint64_t)qcow2_cluster_end(s, l->n_indices * 8)
                >> s->cluster_bits;
        if (blocks == l->n_blocks && table == l->n_table) {
            break;
        }
        l->n_blocks = blocks;
        l->n_table = table;
    }
    return table << s->cluster_bits > QCOW2_MAX_REFTABLE_BYTES ? -EFBIG : 0;
}

/* Write the new blocks and @table (host order), which gets their offsets. */
static int coroutine_fn co_write_structure(Qcow2Check *c, const Layout *l,
                                           uint64_t *table)
{
    BDRVQcow2State *s = c->s;
    uint64_t at = l->start, entries = (l->n_table << s->cluster_bits) / 8;
    g_autofree uint64_t *buf = g_new0(uint64_t, entries);
    int ret;

    for (uint64_t i = 0; i < l->n_blocks + l->n_table; i++) {
        qcow2_check_set(s, c->counts, l->start + i, 1);
    }
    for (uint64_t i = 0; i < l->n_indices; i++) {
        aio_co_yield_fair();
        if (!qcow2_check_any(c, i)) {
            continue;
        }
        table[i] = at++ << s->cluster_bits;
        ret = bdrv_co_pwrite(c->bs->file, table[i], s->cluster_size,
                             c->counts + i * s->cluster_size, 0);
        if (ret < 0) {
            qcow2_check_say(c, "ERROR writing refblock");
            return ret;
        }
    }
    for (uint64_t i = 0; i < entries; i++) {
        buf[i] = GUINT64_TO_BE(table[i]);
    }
    ret = bdrv_co_pwrite(c->bs->file,
                         (l->start + l->n_blocks) << s->cluster_bits,
                         entries * 8, buf, 0);
    if (ret < 0) {
        qcow2_check_say(c, "ERROR writing reftable");
    }
    return ret;
}

static int coroutine_fn co_switch(Qcow2Check *c, uint64_t offset,
                                  uint32_t clusters)
{
    struct {
        uint64_t offset;
        uint32_t clusters;
    } __attribute__((packed)) part = {
        .offset = GUINT64_TO_BE(offset),
        .clusters = GUINT32_TO_BE(clusters),
    };
    int ret;

    co_mutex_lock(&c->s->header_lock);
    ret = qcow2_co_change_header(c->bs, BLKDBG_NONE,
                                 offsetof(Qcow2Header, refcount_table_offset),
                                 &part, sizeof(part));
    co_mutex_unlock(&c->s->header_lock);
    if (ret < 0) {
        qcow2_check_say(c, "ERROR setting reftable");
    }
    return ret;
}

int coroutine_fn qcow2_check_co_rebuild(Qcow2Check *c)
{
    BDRVQcow2State *s = c->s;
    g_autofree uint64_t *table = NULL;
    Layout l;
    int ret = co_plan(c, &l);

    if (ret < 0) {
        qcow2_check_say(c, "ERROR allocating refblock");
        return ret;
    }
    table = g_new0(uint64_t, MAX((l.n_table << s->cluster_bits) / 8, 1));
    ret = co_write_structure(c, &l, table);
    if (ret >= 0) {
        ret = co_switch(c, (l.start + l.n_blocks) << s->cluster_bits,
                        l.n_table);
    }
    if (ret < 0) {
        return ret;
    }

    g_free(s->reftable);
    s->reftable = g_steal_pointer(&table);
    s->reftable_entries = (l.n_table << s->cluster_bits) / 8;
    s->reftable_offset = (l.start + l.n_blocks) << s->cluster_bits;
    s->reftable_dirty_start = s->reftable_dirty_end = 0;
    c->block.index = UINT64_MAX;
    c->n_clusters = l.start + l.n_blocks + l.n_table;
    c->file_bytes = c->n_clusters << s->cluster_bits;
    /* Where the old structure was, there may be tables that need repair. */
    return qcow2_co_init_metamap(c->bs);
}
