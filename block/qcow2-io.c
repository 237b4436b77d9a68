/* SPDX-License-Identifier: MIT */
/*
 * qcow2: reading and writing guest data.
 *
 * Reads, and writes to clusters that are the guest's own, look up the mapping
 * and go to the data file; nothing is shared with other requests but counters
 * of their own thread.  Other writes reserve their clusters, take host
 * clusters, write the data together with what copy-on-write needs, and only
 * then change the mapping.
 */
#include "block/qcow2.h"

#include <errno.h>
#include <string.h>
#include "block/crypto.h"

/* Clusters that one allocating write maps at most. */
#define ALLOC_CLUSTERS 64

/* Largest piece that is encrypted or decrypted at a time, bytes. */
#define CRYPT_MAX (1 << 20)

/* ---- data file ---- */

/* What the key is tweaked with: LUKS goes by host offset, AES by guest's. */
static uint64_t tweak(const BDRVQcow2State *s, int64_t offset, uint64_t host)
{
    return s->crypt_method == QCOW2_CRYPT_LUKS ? host : (uint64_t)offset;
}

static int coroutine_fn co_read_crypted(BlockDriverState *bs, int64_t offset,
                                        uint64_t host, int64_t bytes,
                                        QEMUIOVector *qiov, size_t qoff)
{
    BDRVQcow2State *s = bs->opaque;
    uint8_t *buf = g_aligned_alloc(1, MIN(bytes, CRYPT_MAX), 4096);
    int ret = 0;

    while (ret >= 0 && bytes > 0) {
        int64_t n = MIN(bytes, CRYPT_MAX);

        ret = bdrv_co_pread(s->data_file, host, n, buf, 0);
        if (ret >= 0) {
            ret = block_crypto_decrypt(s->crypto, tweak(s, offset, host), buf,
                                       n);
        }
        if (ret >= 0) {
            qemu_iovec_from_buf(qiov, qoff, buf, n);
        }
        offset += n;
        host += n;
        qoff += n;
        bytes -= n;
    }
    g_aligned_free(buf);
    return ret;
}

static int coroutine_fn co_write_crypted(BlockDriverState *bs, int64_t offset,
                                         uint64_t host, int64_t bytes,
                                         QEMUIOVector *qiov, size_t qoff)
{
    BDRVQcow2State *s = bs->opaque;
    uint8_t *buf = g_aligned_alloc(1, MIN(bytes, CRYPT_MAX), 4096);
    int ret = 0;

    while (ret >= 0 && bytes > 0) {
        int64_t n = MIN(bytes, CRYPT_MAX);

        qemu_iovec_to_buf(qiov, qoff, buf, n);
        ret = block_crypto_encrypt(s->crypto, tweak(s, offset, host), buf, n);
        if (ret >= 0) {
            ret = bdrv_co_pwrite(s->data_file, host, n, buf, 0);
        }
        offset += n;
        host += n;
        qoff += n;
        bytes -= n;
    }
    g_aligned_free(buf);
    return ret;
}

/* Write guest data to their host clusters. */
static int coroutine_fn co_write_data(BlockDriverState *bs, int64_t offset,
                                      uint64_t host, int64_t bytes,
                                      QEMUIOVector *qiov, size_t qoff)
{
    BDRVQcow2State *s = bs->opaque;

    if (!s->external_data_file && qcow2_overlaps(bs, 0, host, bytes)) {
        return -EIO;
    }
    BLKDBG_EVENT(s->data_file, BLKDBG_WRITE_AIO);
    if (s->crypto) {
        return co_write_crypted(bs, offset, host, bytes, qiov, qoff);
    }
    return bdrv_co_pwritev_part(s->data_file, host, bytes, qiov, qoff, 0);
}

/* ---- reads ---- */

static int coroutine_fn co_read_extent(BlockDriverState *bs, int64_t offset,
                                       const Qcow2Extent *ext,
                                       QEMUIOVector *qiov, size_t qoff)
{
    BDRVQcow2State *s = bs->opaque;

    switch (ext->type) {
    case QCOW2_NORMAL:
        BLKDBG_EVENT(s->data_file, BLKDBG_READ_AIO);
        if (s->crypto) {
            return co_read_crypted(bs, offset, ext->host, ext->bytes, qiov,
                                   qoff);
        }
        return bdrv_co_preadv_part(s->data_file, ext->host, ext->bytes, qiov,
                                   qoff, 0);
    case QCOW2_ZERO_PLAIN:
    case QCOW2_ZERO_ALLOC:
        qemu_iovec_memset(qiov, qoff, 0, ext->bytes);
        return 0;
    case QCOW2_COMPRESSED:
        return qcow2_co_read_compressed(bs, ext->host,
                                        qcow2_in_cluster(s, offset),
                                        ext->bytes, qiov, qoff);
    default:
        BLKDBG_EVENT(bs->backing, BLKDBG_READ_BACKING_AIO);
        return bdrv_co_read_backing(bs, offset, ext->bytes, qiov, qoff);
    }
}

int coroutine_fn qcow2_co_preadv(BlockDriverState *bs, int64_t offset,
                                 int64_t bytes, QEMUIOVector *qiov,
                                 BdrvRequestFlags flags)
{
    BDRVQcow2State *s = bs->opaque;
    unsigned epoch = qcow2_enter(s);
    size_t qoff = 0;
    int ret = 0;

    while (ret >= 0 && bytes > 0) {
        Qcow2Extent ext;

        ret = qcow2_co_extent(bs, offset, bytes, &ext);
        if (ret >= 0) {
            ret = co_read_extent(bs, offset, &ext, qiov, qoff);
            offset += ext.bytes;
            qoff += ext.bytes;
            bytes -= ext.bytes;
        }
        if (ret >= 0 && __builtin_expect(bytes > 0, 0)) {
            ret = aio_co_yield_fair();
        }
    }
    qcow2_leave(s, epoch);
    return MIN(ret, 0);
}

int coroutine_fn qcow2_co_block_status(BlockDriverState *bs, int64_t offset,
                                       int64_t bytes, int64_t *pnum,
                                       int64_t *map, BlockDriverState **file)
{
    BDRVQcow2State *s = bs->opaque;
    Qcow2Extent ext;
    unsigned epoch = qcow2_enter(s);
    int ret = qcow2_co_run(bs, offset, bytes, &ext);

    qcow2_leave(s, epoch);
    if (ret < 0) {
        return ret;
    }
    *pnum = ext.bytes;
    *map = ext.host;
    *file = s->data_file->bs;
    switch (ext.type) {
    case QCOW2_NORMAL:
        /* Preallocated clusters may be holes of the file. */
        return s->crypto ? BDRV_BLOCK_DATA
                         : BDRV_BLOCK_DATA | BDRV_BLOCK_OFFSET_VALID
                           | BDRV_BLOCK_RECURSE;
    case QCOW2_COMPRESSED:
        return BDRV_BLOCK_DATA;
    case QCOW2_ZERO_PLAIN:
        return BDRV_BLOCK_ZERO;
    case QCOW2_ZERO_ALLOC:
        return BDRV_BLOCK_ZERO | BDRV_BLOCK_OFFSET_VALID;
    default:
        return 0;
    }
}

/* ---- allocating writes ---- */

typedef enum { NOTHING, IN_PLACE, NEW } Need;

/*
 * A write to clusters whose mapping must change: guest bytes [offset, end) in
 * @n clusters from @first on, which get the host clusters from @host on.
 */
typedef struct Alloc {
    int64_t offset, end;
    int64_t cow_start, cow_end;     /* what gets written, with copies */
    int64_t first;
    unsigned n;
    Need need;
    uint64_t host;
    bool virgin;                    /* the host clusters read as zeroes */
    uint64_t old[2 * ALLOC_CLUSTERS];
} Alloc;

static uint64_t *old_entry(const BDRVQcow2State *s, Alloc *a, unsigned i)
{
    return a->old + i * s->l2_entry_words;
}

static bool holds_data(const BDRVQcow2State *s, const uint64_t *entry)
{
    return (entry[0] & (QCOW2_L2E_OFFSET_MASK | QCOW2_OFLAG_COMPRESSED))
           || (s->external_data_file && (entry[0] & QCOW2_OFLAG_COPIED));
}

/* Subclusters of cluster @i of @a that [@start, @end) touches: [*lo, *hi). */
static void touched(const BDRVQcow2State *s, const Alloc *a, unsigned i,
                    int64_t start, int64_t end, unsigned *lo, unsigned *hi)
{
    int64_t cluster = a->first + (int64_t)i * s->cluster_size;
    int64_t from = MAX(start - cluster, 0);
    int64_t to = MIN(end - cluster, (int64_t)s->cluster_size);

    *lo = from >> s->subcluster_bits;
    *hi = (to + s->subcluster_size - 1) >> s->subcluster_bits;
}

/* What a write to [offset, end) has to do in cluster @i; or -EIO. */
static int need_of(const BDRVQcow2State *s, Alloc *a, unsigned i)
{
    const uint64_t *entry = old_entry(s, a, i);
    bool all_there = true;
    unsigned lo, hi;

    touched(s, a, i, a->offset, a->end, &lo, &hi);
    for (unsigned sc = lo; sc < hi; sc++) {
        int type = qcow2_entry_type(s, entry, sc);

        if (type < 0) {
            return type;
        }
        all_there = all_there && type == QCOW2_NORMAL;
    }
    if (!holds_data(s, entry) || (entry[0] & QCOW2_OFLAG_COMPRESSED)
        || !(entry[0] & QCOW2_OFLAG_COPIED)) {
        return NEW;
    }
    return all_there ? NOTHING : IN_PLACE;
}

/* Find out how many clusters need the same; cuts the write to these. */
static int find_run(BlockDriverState *bs, Alloc *a)
{
    BDRVQcow2State *s = bs->opaque;
    int first = need_of(s, a, 0);
    unsigned i;

    if (first < 0) {
        return qcow2_entry_is_broken(bs, a->first, a->old);
    }
    a->need = first;
    for (i = 1; i < a->n; i++) {
        if (need_of(s, a, i) != first
            || (first == IN_PLACE
                && (old_entry(s, a, i)[0] & QCOW2_L2E_OFFSET_MASK)
                   != (a->old[0] & QCOW2_L2E_OFFSET_MASK)
                      + i * s->cluster_size)) {
            break;
        }
    }
    a->n = i;
    a->end = MIN(a->end, a->first + (int64_t)(i * s->cluster_size));
    return 0;
}

/* Take host clusters, as many in a row as there are. */
static int coroutine_fn co_take_clusters(BlockDriverState *bs, Alloc *a)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t got = 0;
    int64_t host;

    a->virgin = false;
    if (a->need == IN_PLACE) {
        a->host = a->old[0] & QCOW2_L2E_OFFSET_MASK;
        return 0;
    }
    if (s->external_data_file) {
        a->host = a->first;
        return 0;
    }
    co_mutex_lock(&s->lock);
    host = qcow2_co_alloc(bs, s->cluster_size, a->n * s->cluster_size, &got,
                          &a->virgin);
    co_mutex_unlock(&s->lock);
    if (host < 0) {
        return host;
    }
    a->host = host;
    a->n = got >> s->cluster_bits;
    a->end = MIN(a->end, a->first + (int64_t)got);
    return 0;
}

/* Does copy-on-write take all of cluster @i, or a subcluster at each end? */
static bool copies_cluster(const BDRVQcow2State *s, Alloc *a, unsigned i)
{
    return !s->extended_l2
           || (a->need == NEW && holds_data(s, old_entry(s, a, i)));
}

static bool is_allocated(const BDRVQcow2State *s, Alloc *a, unsigned i,
                         int64_t offset)
{
    unsigned sc = qcow2_in_cluster(s, offset) >> s->subcluster_bits;

    return s->extended_l2 && a->need == IN_PLACE
           && (old_entry(s, a, i)[1] & QCOW2_EXTL2_ALLOC(sc));
}

static void find_cow(const BDRVQcow2State *s, Alloc *a)
{
    int64_t mask = s->subcluster_size - 1;
    unsigned last = a->n - 1;

    if (copies_cluster(s, a, 0)) {
        a->cow_start = a->first;
    } else {
        a->cow_start = is_allocated(s, a, 0, a->offset) ? a->offset
                                                        : a->offset & ~mask;
    }
    if (copies_cluster(s, a, last)) {
        a->cow_end = a->first + (int64_t)(a->n * s->cluster_size);
    } else {
        a->cow_end = is_allocated(s, a, last, a->end - 1)
                     ? a->end : (a->end + mask) & ~mask;
    }
}

static int coroutine_fn co_read_cow(BlockDriverState *bs, int64_t start,
                                    int64_t end, uint8_t *buf)
{
    BDRVQcow2State *s = bs->opaque;
    QEMUIOVector qiov;

    if (start == end) {
        return 0;
    }
    BLKDBG_EVENT(s->data_file, BLKDBG_COW_READ);
    qemu_iovec_init_buf(&qiov, buf, end - start);
    return qcow2_co_preadv(bs, start, end - start, &qiov, 0);
}

/* Write the data between copies of what is around them, in one request. */
static int coroutine_fn co_write_with_cow(BlockDriverState *bs, Alloc *a,
                                          QEMUIOVector *qiov, size_t qoff)
{
    BDRVQcow2State *s = bs->opaque;
    size_t head = a->offset - a->cow_start, tail = a->cow_end - a->end;
    uint8_t *buf = g_try_malloc(head + tail);
    QEMUIOVector whole;
    int ret;

    if (!buf) {
        return -ENOMEM;
    }
    ret = co_read_cow(bs, a->cow_start, a->offset, buf);
    if (ret >= 0) {
        ret = co_read_cow(bs, a->end, a->cow_end, buf + head);
    }
    if (ret >= 0) {
        BLKDBG_EVENT(s->data_file, BLKDBG_COW_WRITE);
        qemu_iovec_init(&whole, qiov->niov + 2);
        if (head) {
            qemu_iovec_add(&whole, buf, head);
        }
        qemu_iovec_concat(&whole, qiov, qoff, a->end - a->offset);
        if (tail) {
            qemu_iovec_add(&whole, buf + head, tail);
        }
        ret = co_write_data(bs, a->cow_start,
                            a->host + (a->cow_start - a->first),
                            whole.size, &whole, 0);
        qemu_iovec_destroy(&whole);
    }
    g_free(buf);
    return ret;
}

static int coroutine_fn co_write_alloc(BlockDriverState *bs, Alloc *a,
                                       QEMUIOVector *qiov, size_t qoff)
{
    BDRVQcow2State *s = bs->opaque;

    find_cow(s, a);
    /* In clusters never written to, zeroes are there already. */
    if ((a->cow_start == a->offset && a->cow_end == a->end)
        || (a->virgin && !s->crypto
            && qcow2_co_is_zero(bs, a->cow_start, a->offset, false) > 0
            && qcow2_co_is_zero(bs, a->end, a->cow_end, false) > 0)) {
        return co_write_data(bs, a->offset, a->host + (a->offset - a->first),
                             a->end - a->offset, qiov, qoff);
    }
    return co_write_with_cow(bs, a, qiov, qoff);
}

static void new_entry(const BDRVQcow2State *s, Alloc *a, unsigned i,
                      uint64_t *entry)
{
    const uint64_t *old = old_entry(s, a, i);
    uint64_t bits;
    unsigned lo, hi;

    entry[0] = (a->host + i * s->cluster_size) | QCOW2_OFLAG_COPIED;
    if (!s->extended_l2) {
        return;
    }
    touched(s, a, i, a->cow_start, a->cow_end, &lo, &hi);
    bits = (UINT64_C(1) << hi) - (UINT64_C(1) << lo);
    entry[1] = old[0] & QCOW2_OFLAG_COMPRESSED ? 0 : old[1];
    entry[1] = (entry[1] | bits) & ~(bits << 32);
}

static int coroutine_fn co_link(BlockDriverState *bs, Alloc *a)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t entries[2 * ALLOC_CLUSTERS];

    for (unsigned i = 0; i < a->n; i++) {
        new_entry(s, a, i, entries + i * s->l2_entry_words);
    }
    return qcow2_co_link(bs, a->first, a->n, entries);
}

/* The clusters are reserved and have an L2 table of their own. */
static int coroutine_fn co_alloc_reserved(BlockDriverState *bs, Alloc *a,
                                          QEMUIOVector *qiov, size_t qoff)
{
    BDRVQcow2State *s = bs->opaque;
    int ret = qcow2_co_read_entries(bs, a->first, a->n, a->old);

    if (ret >= 0) {
        ret = find_run(bs, a);
    }
    if (ret < 0 || a->need == NOTHING) {
        a->end = a->offset;
        return ret;
    }
    ret = co_take_clusters(bs, a);
    if (ret < 0) {
        return ret;
    }
    ret = co_write_alloc(bs, a, qiov, qoff);
    if (ret >= 0) {
        ret = co_link(bs, a);
    }
    if (ret < 0 && a->need == NEW && !s->external_data_file) {
        co_mutex_lock(&s->lock);
        qcow2_co_unalloc(bs, a->host, a->n * s->cluster_size);
        co_mutex_unlock(&s->lock);
    }
    return ret;
}

/*
 * Write what lies from @offset on in clusters that need a new mapping; *@done
 * is how much that was: 0 if somebody else has mapped them meanwhile.
 */
static int coroutine_fn co_write_new(BlockDriverState *bs, int64_t offset,
                                     int64_t bytes, QEMUIOVector *qiov,
                                     size_t qoff, int64_t *done)
{
    BDRVQcow2State *s = bs->opaque;
    unsigned left = (1u << s->slice_bits) - qcow2_slice_index(s, offset);
    Qcow2Reservation reservation;
    Alloc a = {
        .offset = offset,
        .first = qcow2_cluster_start(s, offset),
    };
    int ret;

    a.end = MIN(offset + bytes,
                a.first + (int64_t)(MIN(left, ALLOC_CLUSTERS)
                                    * s->cluster_size));
    a.n = (qcow2_cluster_end(s, a.end) - a.first) >> s->cluster_bits;
    qcow2_co_reserve(s, &reservation, a.offset, a.end);
    ret = qcow2_co_own_l2(bs, offset);
    if (ret >= 0) {
        ret = co_alloc_reserved(bs, &a, qiov, qoff);
    }
    qcow2_unreserve(&reservation);
    *done = a.end - a.offset;
    return ret;
}

int coroutine_fn qcow2_co_pwritev(BlockDriverState *bs, int64_t offset,
                                  int64_t bytes, QEMUIOVector *qiov,
                                  BdrvRequestFlags flags)
{
    BDRVQcow2State *s = bs->opaque;
    unsigned epoch = qcow2_enter(s);
    size_t qoff = 0;
    int ret = 0;

    while (ret >= 0 && bytes > 0) {
        Qcow2Extent ext;
        int64_t done = 0;

        if (__builtin_expect(__atomic_load_n(&s->corrupt, __ATOMIC_RELAXED),
                             0)) {
            ret = -EIO;
            break;
        }
        ret = qcow2_co_extent(bs, offset, bytes, &ext);
        if (ret < 0) {
            break;
        }
        if (ext.type == QCOW2_NORMAL && ext.copied) {
            done = ext.bytes;
            ret = co_write_data(bs, offset, ext.host, done, qiov, qoff);
        } else {
            ret = co_write_new(bs, offset, bytes, qiov, qoff, &done);
        }
        offset += done;
        qoff += done;
        bytes -= done;
    }
    qcow2_leave(s, epoch);
    return MIN(ret, 0);
}
