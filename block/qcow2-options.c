/* SPDX-License-Identifier: MIT */
/*
 * qcow2: what the options of a node mean for its image.
 *
 * Main thread, after the header has been read.  Nothing here waits.
 *
 * Caches are mapped, and memory is there when it is used.  So a node that may
 * be resized gets the cache that its options allow for, even if the disk is
 * small now.
 */
#include "block/qcow2.h"

#include <inttypes.h>

#define DEFAULT_L2_CACHE            (INT64_C(32) << 20)
#define DEFAULT_L2_CACHE_ENTRY      4096
#define MIN_L2_CACHE_ENTRY          512
#define MIN_L2_CACHE_ENTRIES        4
#define MIN_REFCOUNT_CACHE_ENTRIES  4       /* of a cluster each */
#define DEFAULT_CACHE_CLEAN_S       600

typedef struct CacheSizes {
    int64_t l2, refcount;       /* bytes */
    int64_t l2_entry;           /* bytes, a power of 2 */
} CacheSizes;

/* ---- caches ---- */

/* The memory that L2 tables of the whole disk take. */
static int64_t l2_bytes_of_disk(const BlockDriverState *bs,
                                const BDRVQcow2State *s)
{
    int64_t clusters = bdrv_getlength(bs) >> s->cluster_bits;

    return (clusters + 1) * s->l2_entry_words * sizeof(uint64_t);
}

static bool check_not_negative(bool given, int64_t value, const char *name,
                               Error **errp)
{
    if (given && value < 0) {
        error_setg(errp, "Value '%" PRId64 "' is out of range for parameter "
                   "'%s'", value, name);
        return false;
    }
    return true;
}

/* What is asked for; a part that is not mentioned is -1. */
static bool read_sizes(const BlockdevOptionsQcow2 *o, int64_t *all,
                       CacheSizes *sizes, Error **errp)
{
    *all = o->has_cache_size ? o->cache_size : -1;
    sizes->l2 = o->has_l2_cache_size ? o->l2_cache_size : -1;
    sizes->refcount = o->has_refcount_cache_size ? o->refcount_cache_size : -1;
    if (!check_not_negative(o->has_cache_size, *all, "cache-size", errp)
        || !check_not_negative(o->has_l2_cache_size, sizes->l2,
                               "l2-cache-size", errp)
        || !check_not_negative(o->has_refcount_cache_size, sizes->refcount,
                               "refcount-cache-size", errp)) {
        return false;
    }
    if (*all < 0) {
        return true;
    }
    if (sizes->l2 >= 0 && sizes->refcount >= 0) {
        error_setg(errp, "cache-size, l2-cache-size and refcount-cache-size "
                   "may not be set at the same time");
        return false;
    }
    if (sizes->l2 > *all) {
        error_setg(errp, "l2-cache-size may not exceed cache-size");
        return false;
    }
    if (sizes->refcount > *all) {
        error_setg(errp, "refcount-cache-size may not exceed cache-size");
        return false;
    }
    return true;
}

/* Refcounts get their minimum, then L2 tables what they can use. */
static void share_cache(int64_t all, int64_t l2_useful, int64_t refcount_min,
                        CacheSizes *sizes)
{
    if (all < 0) {
        if (sizes->l2 < 0) {
            sizes->l2 = MIN(DEFAULT_L2_CACHE, l2_useful);
        }
        if (sizes->refcount < 0) {
            sizes->refcount = refcount_min;
        }
    } else if (sizes->l2 >= 0) {
        sizes->refcount = all - sizes->l2;
    } else if (sizes->refcount >= 0) {
        sizes->l2 = all - sizes->refcount;
    } else if (all - MIN(all, refcount_min) >= l2_useful) {
        sizes->l2 = l2_useful;
        sizes->refcount = all - sizes->l2;
    } else {
        sizes->refcount = MIN(all, refcount_min);
        sizes->l2 = all - sizes->refcount;
    }
}

static bool check_entry_size(const BDRVQcow2State *s,
                             const BlockdevOptionsQcow2 *o, CacheSizes *sizes,
                             Error **errp)
{
    int64_t n = o->has_l2_cache_entry_size
                ? o->l2_cache_entry_size
                : MIN(DEFAULT_L2_CACHE_ENTRY, (int64_t)s->cluster_size);

    if (n < MIN_L2_CACHE_ENTRY || n > (int64_t)s->cluster_size
        || (n & (n - 1))) {
        error_setg(errp, "L2 cache entry size must be a power of two between "
                   "%d and the cluster size (%" PRIu64 ")",
                   MIN_L2_CACHE_ENTRY, s->cluster_size);
        return false;
    }
    sizes->l2_entry = n;
    return true;
}

static int64_t div_up(int64_t a, int64_t b)
{
    return a / b + !!(a % b);
}

static bool make_caches(BlockDriverState *bs, const BlockdevOptionsQcow2 *o,
                        Error **errp)
{
    BDRVQcow2State *s = bs->opaque;
    int64_t refcount_min = MIN_REFCOUNT_CACHE_ENTRIES * s->cluster_size;
    int64_t l2_useful = l2_bytes_of_disk(bs, s);
    int64_t all, l2_entries, refcount_entries;
    CacheSizes sizes;

    if (!read_sizes(o, &all, &sizes, errp)
        || !check_entry_size(s, o, &sizes, errp)) {
        return false;
    }
    if (!bs->read_only) {
        l2_useful = MAX(l2_useful, DEFAULT_L2_CACHE);
    }
    share_cache(all, l2_useful, refcount_min, &sizes);

    l2_entries = div_up(MIN(sizes.l2, l2_useful), sizes.l2_entry);
    l2_entries = MAX(l2_entries, MIN_L2_CACHE_ENTRIES);
    refcount_entries = MAX(sizes.refcount >> s->cluster_bits,
                           MIN_REFCOUNT_CACHE_ENTRIES);
    if (l2_entries > INT32_MAX) {
        error_setg(errp, "L2 cache size too big");
        return false;
    }
    if (refcount_entries > INT32_MAX) {
        error_setg(errp, "Refcount cache size too big");
        return false;
    }
    /* More than every block that the table has room for is of no use. */
    refcount_entries = MIN(refcount_entries,
                           QCOW2_MAX_REFTABLE_BYTES / sizeof(uint64_t));

    s->slice_bytes = sizes.l2_entry;
    s->slice_bits = __builtin_ctzll(sizes.l2_entry)
                    - (s->l2_entry_words == 2 ? 4 : 3);
    s->l2_cache = qcow2_cache_new(l2_entries, sizes.l2_entry, BLKDBG_L2_LOAD,
                                  errp);
    if (!s->l2_cache) {
        return false;
    }
    s->refblock_cache = qcow2_cache_new(refcount_entries, s->cluster_size,
                                        BLKDBG_REFBLOCK_LOAD, errp);
    return s->refblock_cache;
}

static bool set_clean_interval(BDRVQcow2State *s,
                               const BlockdevOptionsQcow2 *o, Error **errp)
{
    int64_t seconds = o->has_cache_clean_interval ? o->cache_clean_interval
                                                  : DEFAULT_CACHE_CLEAN_S;

    if (seconds < 0 || seconds > UINT32_MAX) {
        error_setg(errp, "Cache clean interval too big");
        return false;
    }
    s->cache_clean_ns = seconds * INT64_C(1000000000);
    return true;
}

/* ---- overlap checks ---- */

static unsigned overlap_mode(Qcow2OverlapCheckMode mode)
{
    switch (mode) {
    case QCOW2_OVERLAP_CHECK_MODE_NONE:
        return QCOW2_OL_NONE;
    case QCOW2_OVERLAP_CHECK_MODE_CONSTANT:
        return QCOW2_OL_CONSTANT;
    case QCOW2_OVERLAP_CHECK_MODE_ALL:
        return QCOW2_OL_ALL;
    default:
        return QCOW2_OL_CACHED;
    }
}

static unsigned overlap_checks(const Qcow2OverlapChecks *o)
{
    const Qcow2OverlapCheckFlags *f;
    unsigned mask;

    if (!o) {
        return QCOW2_OL_CACHED;
    }
    if (o->type != QTYPE_QDICT) {
        return overlap_mode(o->u.mode);
    }
    f = &o->u.flags;
    mask = overlap_mode(f->has_template ? f->template
                                        : QCOW2_OVERLAP_CHECK_MODE_CACHED);
#define APPLY(name, bit)                                        \
    if (f->has_##name) {                                        \
        mask = f->name ? mask | (bit) : mask & ~(bit);          \
    }
    APPLY(main_header, QCOW2_OL_MAIN_HEADER);
    APPLY(active_l1, QCOW2_OL_ACTIVE_L1);
    APPLY(active_l2, QCOW2_OL_ACTIVE_L2);
    APPLY(refcount_table, QCOW2_OL_REFCOUNT_TABLE);
    APPLY(refcount_block, QCOW2_OL_REFCOUNT_BLOCK);
    APPLY(snapshot_table, QCOW2_OL_SNAPSHOT_TABLE);
    APPLY(inactive_l1, QCOW2_OL_INACTIVE_L1);
    APPLY(inactive_l2, QCOW2_OL_INACTIVE_L2);
    APPLY(bitmap_directory, QCOW2_OL_BITMAP_DIRECTORY);
#undef APPLY
    return mask;
}

/* ---- features ---- */

static bool set_lazy_refcounts(BDRVQcow2State *s,
                               const BlockdevOptionsQcow2 *o, Error **errp)
{
    s->use_lazy_refcounts = o->has_lazy_refcounts
                            ? o->lazy_refcounts
                            : s->compatible_features
                              & QCOW2_COMPAT_LAZY_REFCOUNTS;
    if (s->use_lazy_refcounts && s->version < 3) {
        error_setg(errp, "Lazy refcounts require a qcow2 image with at least "
                   "qemu 1.1 compatibility level");
        return false;
    }
    return true;
}

static bool set_discard(BlockDriverState *bs, BDRVQcow2State *s,
                        const BlockdevOptionsQcow2 *o, Error **errp)
{
    s->pass_discard[QCOW2_DISCARD_NEVER] = false;
    s->pass_discard[QCOW2_DISCARD_ALWAYS] = true;
    s->pass_discard[QCOW2_DISCARD_REQUEST] = o->has_pass_discard_request
                                             ? o->pass_discard_request
                                             : bs->discard_unmap;
    s->pass_discard[QCOW2_DISCARD_SNAPSHOT] = o->has_pass_discard_snapshot
                                              ? o->pass_discard_snapshot
                                              : true;
    s->pass_discard[QCOW2_DISCARD_OTHER] = o->has_pass_discard_other
                                           && o->pass_discard_other;
    s->discard_no_unref = o->has_discard_no_unref && o->discard_no_unref;
    if (s->discard_no_unref && s->version < 3) {
        error_setg(errp, "discard-no-unref is only supported since qcow2 "
                   "version 3");
        return false;
    }
    if (s->discard_no_unref && !bs->discard_unmap) {
        error_setg(errp, "discard-no-unref is only valid with "
                   "discard=unmap/on");
        return false;
    }
    return true;
}

static bool check_encrypt(const BDRVQcow2State *s,
                          const BlockdevQcow2Encryption *o, Error **errp)
{
    static const char *const in_header[] = {
        [QCOW2_CRYPT_AES] = "aes", [QCOW2_CRYPT_LUKS] = "luks",
    };
    const char *in_options;

    if (!o) {
        return true;
    }
    in_options = BlockdevQcow2EncryptionFormat_str(o->format);
    if (s->crypt_method == QCOW2_CRYPT_NONE) {
        error_setg(errp, "No encryption in image header, but options "
                   "specified format '%s'", in_options);
        return false;
    }
    if (g_strcmp0(in_options, in_header[s->crypt_method])) {
        error_setg(errp, "Header reported '%s' encryption format but options "
                   "specify '%s'", in_header[s->crypt_method], in_options);
        return false;
    }
    return true;
}

bool qcow2_apply_options(BlockDriverState *bs, const BlockdevOptionsQcow2 *o,
                         Error **errp)
{
    BDRVQcow2State *s = bs->opaque;

    s->safe_image = o->has_safe_image && o->safe_image;
    s->overlap_check = overlap_checks(o->overlap_check);
    return set_clean_interval(s, o, errp)
           && set_lazy_refcounts(s, o, errp)
           && set_discard(bs, s, o, errp)
           && check_encrypt(s, o->encrypt, errp)
           && make_caches(bs, o, errp);
}
