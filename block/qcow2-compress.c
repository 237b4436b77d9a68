/* SPDX-License-Identifier: MIT */
/*
 * qcow2: compressed clusters.
 *
 * Reads inflate a whole cluster even for a few bytes, so a few inflated ones
 * are kept, found by their L2 entry.  An entry stands for the same bytes as
 * long as anybody can have looked it up; when its clusters are freed, it is
 * forgotten (qcow2_compress_forget) before they get a new use.
 *
 * A slot is LOADING while one coroutine fills it, without the lock; others who
 * want the same cluster wait for it.  The lock is held for a look or a copy.
 *
 * What is in the file is input from whoever made it: whatever it inflates to,
 * no more than a cluster is written, and anything else than exactly one cluster
 * is -EIO.  Compressed data are always in the image's own file, never
 * encrypted.
 */
#include "block/qcow2.h"

#include <errno.h>
#include <string.h>
#include <zlib.h>

#include "config-host.h"
#include "util/thread-pool.h"

#ifdef CONFIG_ZSTD
#include <zstd.h>
#include <zstd_errors.h>
#endif

#define SLOTS_MAX 16
#define SLOTS_BYTES (4 << 20)

/* Clusters from this size on are (de)compressed in the thread pool, bytes. */
#define POOL_MIN (16 * 1024)

/* Clusters of one request that are compressed side by side. */
#define PARALLEL_WRITES 4

/* What the format says: raw deflate with a window of 4 KiB. */
#define ZLIB_WINDOW (-12)

typedef enum { EMPTY, LOADING, READY } SlotState;

typedef struct Slot {
    SlotState state;
    uint64_t entry;             /* L2 entry */
    uint8_t *data;              /* a cluster, or NULL */
    uint64_t used;              /* when, by Qcow2Inflated.clock */
    bool forget;                /* while LOADING: it is not to be found again */
} Slot;

typedef struct Qcow2Inflated {
    pthread_mutex_t lock;
    Slot slots[SLOTS_MAX];
    uint64_t clock;
    uint64_t clean_clock;       /* when qcow2_compress_clean() came by */
    WaitSet loaded;
} Qcow2Inflated;

/* ---- the two ways, in any thread ---- */

typedef struct Codec {
    Qcow2CompressionType type;
    const uint8_t *src;
    size_t src_len;
    uint8_t *dst;
    size_t dst_len;
    size_t used;                /* of dst; result of deflating */
} Codec;

static int zlib_inflate(Codec *c)
{
    z_stream z = {
        .next_in = (uint8_t *)c->src, .avail_in = c->src_len,
        .next_out = c->dst, .avail_out = c->dst_len,
    };
    int ret;

    if (inflateInit2(&z, ZLIB_WINDOW) != Z_OK) {
        return -EIO;
    }
    ret = inflate(&z, Z_FINISH);
    inflateEnd(&z);
    /* The sector's rest may hold other data, which the stream doesn't end. */
    return (ret == Z_STREAM_END || ret == Z_BUF_ERROR) && z.avail_out == 0
           ? 0 : -EIO;
}

/* -ENOMEM: the result is larger than dst. */
static int zlib_deflate(Codec *c)
{
    z_stream z = {
        .next_in = (uint8_t *)c->src, .avail_in = c->src_len,
        .next_out = c->dst, .avail_out = c->dst_len,
    };
    int ret;

    if (deflateInit2(&z, Z_DEFAULT_COMPRESSION, Z_DEFLATED, ZLIB_WINDOW, 9,
                     Z_DEFAULT_STRATEGY) != Z_OK) {
        return -EIO;
    }
    ret = deflate(&z, Z_FINISH);
    c->used = c->dst_len - z.avail_out;
    deflateEnd(&z);
    return ret == Z_STREAM_END ? 0 : ret == Z_OK ? -ENOMEM : -EIO;
}

#ifdef CONFIG_ZSTD

/*
 * Frame by frame, each whole: that needs no window in memory, whatever size a
 * frame asks for.
 */
static int zstd_inflate(Codec *c)
{
    const uint8_t *src = c->src;
    size_t left = c->src_len, done = 0;

    while (done < c->dst_len) {
        size_t frame = ZSTD_findFrameCompressedSize(src, left);
        size_t n;

        if (ZSTD_isError(frame) || frame == 0) {
            return -EIO;
        }
        n = ZSTD_decompress(c->dst + done, c->dst_len - done, src, frame);
        if (ZSTD_isError(n)) {
            return -EIO;
        }
        done += n;
        src += frame;
        left -= frame;
    }
    return 0;
}

static int zstd_deflate(Codec *c)
{
    size_t n = ZSTD_compress(c->dst, c->dst_len, c->src, c->src_len,
                             ZSTD_CLEVEL_DEFAULT);

    if (ZSTD_isError(n)) {
        return ZSTD_getErrorCode(n) == ZSTD_error_dstSize_tooSmall ? -ENOMEM
                                                                   : -EIO;
    }
    c->used = n;
    return 0;
}

#else

static int zstd_inflate(Codec *c)
{
    return -ENOTSUP;
}

static int zstd_deflate(Codec *c)
{
    return -ENOTSUP;
}

#endif

bool qcow2_compression_supported(Qcow2CompressionType type)
{
#ifdef CONFIG_ZSTD
    return type == QCOW2_COMPRESSION_TYPE_ZLIB
           || type == QCOW2_COMPRESSION_TYPE_ZSTD;
#else
    return type == QCOW2_COMPRESSION_TYPE_ZLIB;
#endif
}

static int run_inflate(void *opaque)
{
    Codec *c = opaque;

    return c->type == QCOW2_COMPRESSION_TYPE_ZSTD ? zstd_inflate(c)
                                                  : zlib_inflate(c);
}

static int run_deflate(void *opaque)
{
    Codec *c = opaque;

    return c->type == QCOW2_COMPRESSION_TYPE_ZSTD ? zstd_deflate(c)
                                                  : zlib_deflate(c);
}

static int coroutine_fn co_run(ThreadPoolFunc *func, Codec *c, size_t size)
{
    static const char compression;
    int ret = -EAGAIN;

    if (size >= POOL_MIN) {
        ret = thread_pool_co_submit_for(&compression, func, c);
    }
    return ret == -EAGAIN ? func(c) : ret;
}

/* ---- inflated clusters ---- */

void qcow2_compress_init(BDRVQcow2State *s)
{
    s->inflated = g_new0(Qcow2Inflated, 1);
    pthread_mutex_init(&s->inflated->lock, NULL);
    wait_set_init(&s->inflated->loaded);
}

void qcow2_compress_deinit(BDRVQcow2State *s)
{
    Qcow2Inflated *in = s->inflated;

    for (unsigned i = 0; i < SLOTS_MAX; i++) {
        g_free(in->slots[i].data);
    }
    pthread_mutex_destroy(&in->lock);
    wait_set_deinit(&in->loaded);
    g_free(in);
    s->inflated = NULL;
}

static unsigned n_slots(const BDRVQcow2State *s)
{
    return MIN(SLOTS_MAX, SLOTS_BYTES >> s->cluster_bits);
}

static Slot *find_slot(BDRVQcow2State *s, uint64_t entry)
{
    for (unsigned i = 0; i < n_slots(s); i++) {
        Slot *slot = &s->inflated->slots[i];

        if (slot->state != EMPTY && slot->entry == entry && !slot->forget) {
            return slot;
        }
    }
    return NULL;
}

/* The slot that is longest out of use; NULL: all are being loaded. */
static Slot *take_slot(BDRVQcow2State *s, uint64_t entry)
{
    Slot *best = NULL;

    for (unsigned i = 0; i < n_slots(s); i++) {
        Slot *slot = &s->inflated->slots[i];

        if (slot->state != LOADING && (!best || slot->used < best->used)) {
            best = slot;
        }
    }
    if (best) {
        best->state = LOADING;
        best->entry = entry;
        best->forget = false;
    }
    return best;
}

typedef struct Wanted {
    BDRVQcow2State *s;
    uint64_t entry;
    int64_t in_cluster, bytes;
    QEMUIOVector *qiov;
    size_t qoff;
    Slot *slot;                 /* result: ours to load */
    bool copied;                /* result: nothing is left to be done */
} Wanted;

/*
 * Copy what is there, or take a slot.  False: somebody is loading it.  Reads of
 * whole clusters come in sequence, and need not be kept.
 */
static bool look_up(void *opaque)
{
    Wanted *w = opaque;
    Qcow2Inflated *in = w->s->inflated;
    Slot *slot;
    bool decided = true;

    pthread_mutex_lock(&in->lock);
    slot = find_slot(w->s, w->entry);
    if (slot && slot->state == READY) {
        qemu_iovec_from_buf(w->qiov, w->qoff, slot->data + w->in_cluster,
                            w->bytes);
        slot->used = ++in->clock;
        w->copied = true;
    } else if (slot) {
        decided = false;
    } else if (w->bytes < w->s->cluster_size) {
        w->slot = take_slot(w->s, w->entry);
    }
    pthread_mutex_unlock(&in->lock);
    return decided;
}

static void end_loading(BDRVQcow2State *s, Slot *slot, bool ok)
{
    Qcow2Inflated *in = s->inflated;

    pthread_mutex_lock(&in->lock);
    slot->state = ok && !slot->forget ? READY : EMPTY;
    slot->used = slot->state == READY ? ++in->clock : 0;
    slot->forget = false;
    pthread_mutex_unlock(&in->lock);
    wait_set_wake(&in->loaded);
}

void qcow2_compress_forget(BDRVQcow2State *s, uint64_t offset, uint64_t bytes)
{
    Qcow2Inflated *in = s->inflated;

    pthread_mutex_lock(&in->lock);
    for (unsigned i = 0; i < SLOTS_MAX; i++) {
        Slot *slot = &in->slots[i];
        uint64_t from, len;

        if (slot->state == EMPTY) {
            continue;
        }
        qcow2_compressed_range(s, slot->entry, &from, &len);
        if (from < offset + bytes && offset < from + len) {
            slot->forget = slot->state == LOADING;
            slot->state = slot->forget ? LOADING : EMPTY;
            slot->used = 0;
        }
    }
    pthread_mutex_unlock(&in->lock);
}

void qcow2_compress_clean(BDRVQcow2State *s)
{
    Qcow2Inflated *in = s->inflated;

    pthread_mutex_lock(&in->lock);
    for (unsigned i = 0; i < SLOTS_MAX; i++) {
        Slot *slot = &in->slots[i];

        if (slot->state != LOADING && slot->used <= in->clean_clock) {
            g_clear_pointer(&slot->data, g_free);
            slot->state = EMPTY;
            slot->used = 0;
        }
    }
    in->clean_clock = in->clock;
    pthread_mutex_unlock(&in->lock);
}

/* ---- reads ---- */

/* Read and inflate a cluster to @dst. */
static int coroutine_fn co_load(BlockDriverState *bs, uint64_t entry,
                                uint8_t *dst)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t offset, bytes;
    g_autofree uint8_t *src = NULL;
    Codec c;
    int ret;

    qcow2_compressed_range(s, entry, &offset, &bytes);
    src = g_try_malloc(bytes);
    if (!src) {
        return -ENOMEM;
    }
    BLKDBG_EVENT(bs->file, BLKDBG_READ_COMPRESSED);
    ret = bdrv_co_pread(bs->file, offset, bytes, src, 0);
    if (ret < 0) {
        return ret;
    }
    c = (Codec) {
        .type = s->compression_type,
        .src = src, .src_len = bytes,
        .dst = dst, .dst_len = s->cluster_size,
    };
    return co_run(run_inflate, &c, s->cluster_size);
}

static int coroutine_fn co_load_slot(BlockDriverState *bs, Wanted *w)
{
    BDRVQcow2State *s = bs->opaque;
    Slot *slot = w->slot;
    int ret = -ENOMEM;

    if (!slot->data) {
        slot->data = g_try_malloc(s->cluster_size);
    }
    if (slot->data) {
        ret = co_load(bs, w->entry, slot->data);
    }
    if (ret >= 0) {
        qemu_iovec_from_buf(w->qiov, w->qoff, slot->data + w->in_cluster,
                            w->bytes);
    }
    end_loading(s, slot, ret >= 0);
    return ret;
}

int coroutine_fn qcow2_co_read_compressed(BlockDriverState *bs,
                                          uint64_t entry, int64_t in_cluster,
                                          int64_t bytes, QEMUIOVector *qiov,
                                          size_t qiov_offset)
{
    BDRVQcow2State *s = bs->opaque;
    g_autofree uint8_t *own = NULL;
    Wanted w = {
        .s = s, .entry = entry, .in_cluster = in_cluster, .bytes = bytes,
        .qiov = qiov, .qoff = qiov_offset,
    };
    int ret;

    if (!look_up(&w)) {
        wait_set_co_wait(&s->inflated->loaded, look_up, &w);
    }
    if (w.copied) {
        return 0;
    }
    if (w.slot) {
        return co_load_slot(bs, &w);
    }
    own = g_try_malloc(s->cluster_size);
    if (!own) {
        return -ENOMEM;
    }
    ret = co_load(bs, entry, own);
    if (ret >= 0) {
        qemu_iovec_from_buf(qiov, qiov_offset, own + in_cluster, bytes);
    }
    return ret;
}

/* ---- writes ---- */

/* The entry for @len bytes at @host. */
static uint64_t compressed_entry(const BDRVQcow2State *s, uint64_t host,
                                 uint64_t len)
{
    uint64_t more_sectors = ((host + len - 1) >> 9) - (host >> 9);

    return QCOW2_OFLAG_COMPRESSED | more_sectors << s->csize_shift | host;
}

/* Take room in the file and write the compressed data there. */
static int64_t coroutine_fn co_store(BlockDriverState *bs,
                                     const uint8_t *data, uint64_t len)
{
    BDRVQcow2State *s = bs->opaque;
    int64_t host;
    int ret = -EIO;

    co_mutex_lock(&s->lock);
    host = qcow2_co_alloc_bytes(bs, len);
    co_mutex_unlock(&s->lock);
    if (host < 0) {
        return host;
    }
    if ((uint64_t)host > s->coffset_mask - s->cluster_size) {
        ret = -EFBIG;
    } else if (!qcow2_overlaps(bs, 0, host, len)) {
        BLKDBG_EVENT(bs->file, BLKDBG_WRITE_COMPRESSED);
        ret = bdrv_co_pwrite(bs->file, host, len, data, 0);
    }
    if (ret < 0) {
        co_mutex_lock(&s->lock);
        qcow2_co_unalloc(bs, host, len);
        co_mutex_unlock(&s->lock);
        return ret;
    }
    return host;
}

/* The cluster is reserved. */
static int coroutine_fn co_replace(BlockDriverState *bs, int64_t offset,
                                   const uint8_t *data, uint64_t len)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t entry[2] = { 0 };
    int64_t host;
    int ret = qcow2_co_own_l2(bs, offset);

    if (ret < 0) {
        return ret;
    }
    host = co_store(bs, data, len);
    if (host < 0) {
        return host;
    }
    entry[0] = compressed_entry(s, host, len);
    BLKDBG_EVENT(bs->file, BLKDBG_L2_UPDATE_COMPRESSED);
    ret = qcow2_co_link(bs, offset, 1, entry);
    if (ret < 0) {
        co_mutex_lock(&s->lock);
        qcow2_co_unalloc(bs, host, len);
        co_mutex_unlock(&s->lock);
    }
    return ret;
}

/* One cluster, @bytes of which are in @qiov. */
static int coroutine_fn co_write_cluster(BlockDriverState *bs, int64_t offset,
                                         int64_t bytes, QEMUIOVector *qiov,
                                         size_t qoff, uint8_t *plain,
                                         uint8_t *packed)
{
    BDRVQcow2State *s = bs->opaque;
    Qcow2Reservation r;
    QEMUIOVector part;
    Codec c = {
        .type = s->compression_type,
        .src = plain, .src_len = s->cluster_size,
        .dst = packed, .dst_len = s->cluster_size - 1,
    };
    unsigned epoch;
    int ret;

    qemu_iovec_to_buf(qiov, qoff, plain, bytes);
    memset(plain + bytes, 0, s->cluster_size - bytes);
    if (buffer_is_zero(plain, s->cluster_size)) {
        ret = qcow2_co_pwrite_zeroes(bs, offset, bytes, BDRV_REQ_MAY_UNMAP);
        if (ret != -ENOTSUP) {
            return ret;
        }
    }
    ret = co_run(run_deflate, &c, s->cluster_size);
    if (ret == -ENOMEM) {
        qemu_iovec_init_buf(&part, plain, bytes);
        return qcow2_co_pwritev(bs, offset, bytes, &part, 0);
    }
    if (ret < 0) {
        return ret;
    }
    epoch = qcow2_enter(s);
    qcow2_co_reserve(s, &r, offset, offset + bytes);
    ret = co_replace(bs, offset, packed, c.used);
    qcow2_unreserve(&r);
    qcow2_leave(s, epoch);
    return ret;
}

/* A request: some coroutines of one thread take cluster by cluster. */
typedef struct PackedWrite {
    BlockDriverState *bs;
    int64_t offset, bytes;
    QEMUIOVector *qiov;
    int64_t taken;              /* bytes that somebody has taken on */
    unsigned running;
    Coroutine *waiter;          /* or NULL */
    int ret;
} PackedWrite;

static void coroutine_fn co_write_clusters(PackedWrite *w)
{
    int64_t size = ((BDRVQcow2State *)w->bs->opaque)->cluster_size;
    g_autofree uint8_t *plain = g_try_malloc(size);
    g_autofree uint8_t *packed = g_try_malloc(size);

    if (!plain || !packed) {
        w->ret = -ENOMEM;
    }
    while (w->ret >= 0 && w->taken < w->bytes) {
        int64_t at = w->taken;
        int64_t n = MIN(w->bytes - at, size);
        int ret;

        w->taken += n;
        ret = co_write_cluster(w->bs, w->offset + at, n, w->qiov, at, plain,
                               packed);
        if (ret < 0) {
            w->ret = ret;
        }
    }
}

static void coroutine_fn write_clusters_co_entry(void *opaque)
{
    PackedWrite *w = opaque;

    co_write_clusters(w);
    if (--w->running == 0 && w->waiter) {
        aio_co_wake(w->waiter);
    }
}

int coroutine_fn qcow2_co_pwritev_compressed(BlockDriverState *bs,
                                             int64_t offset, int64_t bytes,
                                             QEMUIOVector *qiov)
{
    BDRVQcow2State *s = bs->opaque;
    unsigned clusters = qcow2_cluster_end(s, bytes) >> s->cluster_bits;
    PackedWrite w = {
        .bs = bs, .offset = offset, .bytes = bytes, .qiov = qiov,
    };

    if (s->external_data_file || s->crypt_method) {
        return -ENOTSUP;
    }
    if (qcow2_in_cluster(s, offset)
        || (qcow2_in_cluster(s, bytes)
            && offset + bytes != bdrv_getlength(bs))) {
        return -EINVAL;
    }
    w.running = MIN(clusters, PARALLEL_WRITES) - 1;
    for (unsigned n = w.running; n > 0; n--) {
        coroutine_enter(coroutine_create(write_clusters_co_entry, &w));
    }
    co_write_clusters(&w);
    if (w.running > 0) {
        w.waiter = coroutine_self();
        coroutine_yield();
    }
    return w.ret;
}
