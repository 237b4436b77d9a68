/* SPDX-License-Identifier: MIT */
/*
 * qcow2: which host clusters hold metadata, so that nothing is written over
 * them by an image (or a bug) that maps data there.
 *
 * Four bits for each cluster say what it holds, in a radix tree of which only
 * the parts exist where metadata is.  Asking takes no lock: three loads, mostly
 * of an absent branch.  Only what overlap-check guards is in it.
 */
#include "block/check.h"
#include "block/qcow2-snapshot.h"

#include <errno.h>
#include <string.h>

/* Cluster number: 16 bits, 16 bits, LEAF_BITS bits. */
#define LEAF_BITS 15
#define LEVEL_BITS 16
#define LEAF_BYTES ((1 << LEAF_BITS) / 2)

/*
 * What an image says to lie farther behind the end of its file is not noted, in
 * clusters: its memory shall follow from the length of the file.
 */
#define MAX_BEHIND_END (1 << 22)

typedef struct Qcow2MetaMap {
    uint8_t **level[1 << LEVEL_BITS];       /* atomic pointers */
    uint64_t limit;                         /* clusters; while filling */
} Qcow2MetaMap;

/* A cluster that holds more than one kind: must not be written at all. */
#define KIND_SEVERAL 15

static const char *const part_names[] = {
    "qcow2_header", "active L1 table", "active L2 table", "refcount table",
    "refcount block", "snapshot table", "inactive L1 table",
    "inactive L2 table", "bitmap directory",
};

static const uint8_t *find_leaf(const Qcow2MetaMap *map, uint64_t cluster)
{
    uint64_t high = cluster >> LEAF_BITS;
    uint8_t **level;

    if (high >> LEVEL_BITS >> LEVEL_BITS) {
        return NULL;
    }
    level = __atomic_load_n(&map->level[high >> LEVEL_BITS],
                            __ATOMIC_ACQUIRE);
    return level ? __atomic_load_n(&level[high & ((1 << LEVEL_BITS) - 1)],
                                   __ATOMIC_ACQUIRE) : NULL;
}

static uint8_t *make_leaf(Qcow2MetaMap *map, uint64_t cluster)
{
    uint64_t high = cluster >> LEAF_BITS;
    uint8_t **level, *leaf;

    if (high >> LEVEL_BITS >> LEVEL_BITS) {
        return NULL;
    }
    level = map->level[high >> LEVEL_BITS];
    if (!level) {
        level = g_new0(uint8_t *, 1 << LEVEL_BITS);
        __atomic_store_n(&map->level[high >> LEVEL_BITS], level,
                         __ATOMIC_RELEASE);
    }
    leaf = level[high & ((1 << LEVEL_BITS) - 1)];
    if (!leaf) {
        leaf = g_malloc0(LEAF_BYTES);
        __atomic_store_n(&level[high & ((1 << LEVEL_BITS) - 1)], leaf,
                         __ATOMIC_RELEASE);
    }
    return leaf;
}

/* What @cluster holds: 0, or 1 + the number of Qcow2Overlap's bit. */
static unsigned kind_of(const Qcow2MetaMap *map, uint64_t cluster)
{
    const uint8_t *leaf = find_leaf(map, cluster);
    unsigned i = cluster & ((1 << LEAF_BITS) - 1);

    if (!leaf) {
        return 0;
    }
    return (__atomic_load_n(&leaf[i / 2], __ATOMIC_RELAXED)
            >> (i % 2 * 4)) & 15;
}

/*
 * Two parts of the metadata claim one cluster.  Only an L2 table may have two
 * users, the active L1 table and a snapshot's; it is not written to then.
 */
static unsigned merge_kinds(unsigned old, unsigned kind)
{
    const unsigned l2 = QCOW2_OL_ACTIVE_L2 | QCOW2_OL_INACTIVE_L2;

    if (!old || !kind || old == kind) {
        return kind;
    }
    if (old != KIND_SEVERAL && (1u << (old - 1) & l2)
        && (1u << (kind - 1) & l2)) {
        return __builtin_ctz(QCOW2_OL_ACTIVE_L2) + 1;
    }
    return KIND_SEVERAL;
}

void qcow2_metamap_set(BDRVQcow2State *s, uint64_t offset, uint64_t bytes,
                       Qcow2Overlap what)
{
    uint64_t end = (offset + bytes + s->cluster_size - 1) >> s->cluster_bits;
    unsigned kind = what ? __builtin_ctz(what) + 1 : 0;

    if (!s->metamap || bytes == 0 || (what && !(what & s->overlap_check))) {
        return;
    }
    end = MIN(end, s->metamap->limit);
    for (uint64_t c = offset >> s->cluster_bits; c < end; c++) {
        unsigned shift = c % 2 * 4, merged;
        uint8_t *leaf;

        if (!kind && !find_leaf(s->metamap, c)) {
            continue;
        }
        leaf = make_leaf(s->metamap, c);
        merged = merge_kinds(kind_of(s->metamap, c), kind);
        if (leaf) {
            leaf += (c & ((1 << LEAF_BITS) - 1)) / 2;
            __atomic_store_n(leaf, (*leaf & ~(15 << shift)) | merged << shift,
                             __ATOMIC_RELAXED);
        }
    }
}

bool qcow2_overlaps(BlockDriverState *bs, unsigned ignore, uint64_t offset,
                    uint64_t bytes)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t end = (offset + bytes + s->cluster_size - 1) >> s->cluster_bits;

    if (!s->metamap) {
        return false;
    }
    for (uint64_t c = offset >> s->cluster_bits; c < end; c++) {
        unsigned kind = kind_of(s->metamap, c);

        if (__builtin_expect(kind && (kind == KIND_SEVERAL
                                      || !(ignore & 1u << (kind - 1))), 0)) {
            qcow2_signal_corruption(bs, true, offset, bytes, "Preventing "
                                    "invalid write on metadata (overlaps with "
                                    "%s)", kind == KIND_SEVERAL
                                    ? "several parts of it"
                                    : part_names[kind - 1]);
            return true;
        }
    }
    return false;
}

/* ---- filling ---- */

/*
 * The L1 table of a snapshot and, read from there, its L2 tables.  *@room:
 * bytes of the file that can still be such tables.
 */
static int coroutine_fn co_add_inactive(BlockDriverState *bs,
                                        const Qcow2Snapshot *sn,
                                        uint64_t *room)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t bytes = sn->l1_size * sizeof(uint64_t);
    uint64_t used = qcow2_cluster_end(s, bytes);
    g_autofree uint64_t *l1 = NULL;
    int ret;

    if (!qcow2_snapshot_l1_ok(s, sn, NULL)) {
        return 0;               /* cannot be used; a check says so */
    }
    if (used > *room && !bdrv_open_for_check) {
        return -EFBIG;          /* tables lie in each other */
    }
    *room -= MIN(used, *room);
    qcow2_metamap_set(s, sn->l1_table_offset, bytes, QCOW2_OL_INACTIVE_L1);
    if (!(s->overlap_check & QCOW2_OL_INACTIVE_L2) || !bytes) {
        return 0;
    }
    l1 = g_try_malloc(bytes);
    if (!l1) {
        return -ENOMEM;
    }
    ret = bdrv_co_pread(bs->file, sn->l1_table_offset, bytes, l1, 0);
    for (uint32_t i = 0; ret >= 0 && i < sn->l1_size; i++) {
        uint64_t table = GUINT64_FROM_BE(l1[i]) & QCOW2_L1E_OFFSET_MASK;

        if (table) {
            aio_co_yield_fair();
            qcow2_metamap_set(s, table, s->cluster_size,
                              QCOW2_OL_INACTIVE_L2);
        }
    }
    return ret;
}

int coroutine_fn qcow2_co_init_metamap(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t len = bdrv_getlength(bs->file->bs), room;

    qcow2_free_metamap(s);
    if (bs->read_only || !s->overlap_check) {
        return 0;
    }
    s->metamap = g_new0(Qcow2MetaMap, 1);
    s->metamap->limit = (len >> s->cluster_bits) + MAX_BEHIND_END;
    room = len + QCOW2_MAX_L1_BYTES;    /* the last may end behind the file */
    for (unsigned i = 0; i < s->nb_snapshots; i++) {
        int ret = co_add_inactive(bs, &s->snapshots[i], &room);

        if (ret < 0) {
            return ret;
        }
    }
    qcow2_metamap_set(s, 0, s->cluster_size, QCOW2_OL_MAIN_HEADER);
    qcow2_metamap_set(s, s->l1_table_offset, s->l1_size * sizeof(uint64_t),
                      QCOW2_OL_ACTIVE_L1);
    qcow2_metamap_set(s, s->reftable_offset,
                      s->reftable_entries * sizeof(uint64_t),
                      QCOW2_OL_REFCOUNT_TABLE);
    qcow2_metamap_set(s, s->snapshots_offset, s->snapshots_size,
                      QCOW2_OL_SNAPSHOT_TABLE);
    qcow2_metamap_set(s, s->bitmap_directory_offset,
                      s->bitmap_directory_size, QCOW2_OL_BITMAP_DIRECTORY);
    for (uint64_t i = 0; i < s->reftable_entries; i++) {
        uint64_t block = s->reftable[i] & QCOW2_REFT_OFFSET_MASK;

        if (block) {
            aio_co_yield_fair();
            qcow2_metamap_set(s, block, s->cluster_size,
                              QCOW2_OL_REFCOUNT_BLOCK);
        }
    }
    for (uint32_t i = 0; i < s->l1_size; i++) {
        uint64_t table = s->l1_table[i] & QCOW2_L1E_OFFSET_MASK;

        if (table) {
            aio_co_yield_fair();
            qcow2_metamap_set(s, table, s->cluster_size, QCOW2_OL_ACTIVE_L2);
        }
    }
    s->metamap->limit = UINT64_MAX;     /* from now on it is what we make */
    return 0;
}

void qcow2_free_metamap(BDRVQcow2State *s)
{
    if (!s->metamap) {
        return;
    }
    for (unsigned i = 0; i < 1 << LEVEL_BITS; i++) {
        uint8_t **level = s->metamap->level[i];

        for (unsigned j = 0; level && j < 1 << LEVEL_BITS; j++) {
            g_free(level[j]);
        }
        g_free(level);
    }
    g_free(s->metamap);
    s->metamap = NULL;
}
