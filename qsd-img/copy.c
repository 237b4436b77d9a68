/* SPDX-License-Identifier: MIT */
/*
 * qsd-img convert: copying the data.
 *
 * Several coroutines take pieces of the disk, in order, each alike within
 * itself (data, zeroes, nothing), read what is data, and write it: also in
 * order, unless it is to be otherwise, so that images come out the same every
 * time.  All of them run in one thread and only share what is in Copy.
 */
#include "qsd-img/copy.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>
#include "block/image.h"
#include "util/co-event.h"

#define COPY_CHUNK (2 * 1024 * 1024)    /* bytes read at once */
#define COPY_ZERO_MAX (INT64_C(1) << 30)
#define COPY_SECTOR 512

typedef enum PieceKind {
    PIECE_DATA,
    PIECE_ZERO,
    PIECE_BACKING,              /* the target's backing file has it as well */
} PieceKind;

typedef struct Piece {
    PieceKind kind;
    int64_t start, bytes;
} Piece;

typedef struct Copy {
    CopyJob *job;
    CoMutex lock;               /* over taking a piece, which may wait */
    Piece area;                 /* what is known of the part at hand */
    int64_t taken;              /* all before this offset */
    int64_t chunk;              /* longest piece of data */
    int64_t turn;               /* in order: whose turn to write it is */
    CoQueue turns;
    int ret;                    /* the first error */
    unsigned running;
    CoEvent done;
} Copy;

static void fail(Copy *c, int ret)
{
    if (c->ret >= 0) {
        c->ret = ret;
    }
    co_queue_wake_all(&c->turns);
}

/* ---- what is there ---- */

static CopySource *source_at(const Copy *c, int64_t offset)
{
    CopySource *s = c->job->sources;

    while (offset >= s->start + s->length) {
        s++;
    }
    return s;
}

/* Look at the part of the disk that begins at @offset. */
static int coroutine_fn co_look(Copy *c, int64_t offset)
{
    const CopySource *s = source_at(c, offset);
    BlockDriverState *bs = blk_bs(s->blk);
    BlockDriverState *base = c->job->keep_backing ? image_backing(bs) : NULL;
    int64_t pos = offset - s->start, n;
    int ret = image_co_status(bs, base, pos, s->length - pos, &n, NULL, NULL);

    if (ret >= 0 && n == 0) {
        ret = -EIO;                 /* it has become shorter */
    }
    if (ret < 0) {
        if (!c->job->salvage) {
            error_report("error while reading block status at offset %" PRIi64
                         ": %s", offset, strerror(-ret));
            return ret;
        }
        ret = BDRV_BLOCK_DATA;
        n = MIN(s->length - pos, COPY_CHUNK);
    }
    c->area = (Piece) { PIECE_DATA, offset, n };
    if (ret & BDRV_BLOCK_ZERO) {
        c->area.kind = PIECE_ZERO;
    } else if (base && !(ret & (BDRV_BLOCK_DATA | BDRV_BLOCK_ALLOCATED))) {
        c->area.kind = PIECE_BACKING;
    }
    return 0;
}

/*
 * Compressed clusters are written whole: where the kind changes inside of one
 * it is data.
 */
static void round_to_clusters(Copy *c, Piece *p)
{
    int64_t cluster = c->job->cluster_size;

    if (p->start + p->bytes == c->job->total) {
        return;
    }
    p->bytes -= p->bytes % cluster;
    if (!p->bytes) {
        p->kind = PIECE_DATA;
        p->bytes = MIN(cluster, c->job->total - p->start);
    }
}

/* The next piece; false if there is none, or an error. */
static bool coroutine_fn co_take(Copy *c, Piece *p)
{
    bool more = false;

    co_mutex_lock(&c->lock);
    while (c->ret >= 0 && c->taken < c->job->total) {
        int64_t end = c->area.start + c->area.bytes;

        if (c->taken >= end) {
            int ret = co_look(c, c->taken);

            if (ret < 0) {
                fail(c, ret);
                break;
            }
            end = c->area.start + c->area.bytes;
        }
        *p = (Piece) { c->area.kind, c->taken, end - c->taken };
        if (p->kind == PIECE_DATA) {
            p->bytes = MIN(p->bytes, c->chunk);
        }
        if (c->job->compress) {
            round_to_clusters(c, p);
        }
        c->taken = p->start + p->bytes;
        more = true;
        break;
    }
    co_mutex_unlock(&c->lock);
    return more;
}

/* ---- reading ---- */

static int coroutine_fn co_read_from(const CopySource *s, int64_t pos,
                                     int64_t bytes, uint8_t *buf)
{
    QEMUIOVector qiov;

    qemu_iovec_init_buf(&qiov, buf, bytes);
    return blk_co_preadv(s->blk, pos, &qiov, 0);
}

/* Sector by sector, with zeroes where there is no more to be had. */
static void coroutine_fn co_salvage(const CopySource *s, int64_t pos,
                                    int64_t bytes, uint8_t *buf)
{
    for (int64_t i = 0; i < bytes; i += COPY_SECTOR) {
        int64_t n = MIN(bytes - i, COPY_SECTOR);
        int ret = co_read_from(s, pos + i, n, buf + i);

        if (ret < 0) {
            warn_report("error while reading offset %" PRIi64 ": %s",
                        s->start + pos + i, strerror(-ret));
            memset(buf + i, 0, n);
        }
    }
}

static int coroutine_fn co_read(Copy *c, const Piece *p, uint8_t *buf)
{
    int64_t done = 0;

    while (done < p->bytes) {
        const CopySource *s = source_at(c, p->start + done);
        int64_t pos = p->start + done - s->start;
        int64_t n = MIN(p->bytes - done, s->length - pos);
        int ret = co_read_from(s, pos, n, buf + done);

        if (ret < 0 && c->job->salvage) {
            co_salvage(s, pos, n, buf + done);
        } else if (ret < 0) {
            error_report("error while reading at byte %" PRIi64 ": %s",
                         p->start + done, strerror(-ret));
            return ret;
        }
        done += n;
    }
    return 0;
}

/* ---- writing ---- */

static int coroutine_fn co_write_zeroes(Copy *c, int64_t offset, int64_t bytes)
{
    int ret = 0;

    while (bytes > 0 && ret >= 0 && !c->job->target_is_zero) {
        int64_t n = MIN(bytes, COPY_ZERO_MAX);

        ret = blk_co_pwrite_zeroes(c->job->target, offset, n,
                                   BDRV_REQ_MAY_UNMAP);
        offset += n;
        bytes -= n;
    }
    return ret;
}

static int coroutine_fn co_write_data(Copy *c, int64_t offset, int64_t bytes,
                                      uint8_t *buf, BdrvRequestFlags flags)
{
    QEMUIOVector qiov;

    qemu_iovec_init_buf(&qiov, buf, bytes);
    return blk_co_pwritev(c->job->target, offset, &qiov, flags);
}

/* How long the run of zeroes, or of none, is that @buf begins with. */
static int64_t run_length(const uint8_t *buf, int64_t bytes, int64_t unit,
                          bool *zero)
{
    int64_t n = 0;

    do {
        int64_t part = MIN(bytes - n, unit);
        bool z = buffer_is_zero(buf + n, part);

        if (n == 0) {
            *zero = z;
        } else if (z != *zero) {
            break;
        }
        n += part;
    } while (n < bytes);
    return n;
}

static int coroutine_fn co_write_piece(Copy *c, const Piece *p, uint8_t *buf)
{
    const CopyJob *job = c->job;
    int64_t unit = job->compress ? job->cluster_size : job->min_sparse;
    BdrvRequestFlags flags = job->compress ? BDRV_REQ_WRITE_COMPRESSED : 0;
    int64_t done = 0;
    int ret = 0;

    if (p->kind == PIECE_BACKING) {
        return 0;
    }
    if (p->kind == PIECE_ZERO) {
        return co_write_zeroes(c, p->start, p->bytes);
    }
    while (done < p->bytes && ret >= 0) {
        int64_t n = p->bytes - done;
        bool zero = false;

        if (unit) {
            n = run_length(buf + done, n, unit, &zero);
        }
        ret = zero ? co_write_zeroes(c, p->start + done, n)
                   : co_write_data(c, p->start + done, n, buf + done, flags);
        done += n;
    }
    return ret;
}

static void coroutine_fn co_wait_turn(Copy *c, const Piece *p)
{
    while (!c->job->out_of_order && c->turn != p->start && c->ret >= 0) {
        co_queue_wait(&c->turns, NULL);
    }
}

static void end_turn(Copy *c, const Piece *p)
{
    c->turn = p->start + p->bytes;
    co_queue_wake_all(&c->turns);
    img_progress(&c->job->progress, (double)c->turn / c->job->total);
}

static int coroutine_fn co_copy_piece(Copy *c, const Piece *p, uint8_t *buf)
{
    int ret = p->kind == PIECE_DATA ? co_read(c, p, buf) : 0;

    if (ret < 0) {
        return ret;
    }
    co_wait_turn(c, p);
    if (c->ret < 0) {
        return c->ret;
    }
    ret = co_write_piece(c, p, buf);
    if (ret < 0) {
        error_report("error while writing at byte %" PRIi64 ": %s", p->start,
                     strerror(-ret));
        return ret;
    }
    end_turn(c, p);
    return 0;
}

static void coroutine_fn co_worker(void *opaque)
{
    Copy *c = opaque;
    uint8_t *buf = g_aligned_alloc(1, c->chunk, sysconf(_SC_PAGESIZE));
    Piece p;

    while (co_take(c, &p)) {
        int ret = co_copy_piece(c, &p, buf);

        if (ret < 0) {
            fail(c, ret);
        }
    }
    g_aligned_free(buf);
    if (--c->running == 0) {
        co_event_set(&c->done);
    }
}

int coroutine_fn img_co_copy(CopyJob *job)
{
    Copy c = { .job = job, .chunk = COPY_CHUNK };

    if (job->compress) {
        c.chunk = MAX(c.chunk - c.chunk % job->cluster_size,
                      job->cluster_size);
    }
    co_mutex_init(&c.lock);
    co_queue_init(&c.turns);
    c.running = job->n_coroutines;
    for (unsigned i = 0; i < job->n_coroutines; i++) {
        coroutine_enter(coroutine_create(co_worker, &c));
    }
    co_event_wait(&c.done, -1);
    return c.ret;
}
