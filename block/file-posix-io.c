/* SPDX-License-Identifier: MIT */
/*
 * Reads, writes and flush of files and devices.
 *
 * What may have to wait is done by the node's engine: the calling thread's
 * io_uring, its thread pool, or Linux AIO.  What does not have to wait is done
 * at once, by a plain system call in the calling thread: buffered reads that
 * the page cache can answer, and buffered writes into it.
 *
 * Buffered writes deserve a word.  On file systems that cannot write without
 * the chance of blocking (ext4 among them) io_uring hands each one to a kernel
 * worker, which costs more than the copy itself: measured on ext4 in the page
 * cache, 4 KiB, writing at once is 3.4 times faster at depth 1 and 1.1 to 2
 * times at depth 64.  But then a write that does block (dirty throttling, a
 * full journal, a page that has to be read first) stalls its whole thread.  So
 * each thread watches how long its writes take, and after two stalls, or one
 * long one, leaves writes to the engine for some seconds (struct InlineWrites).
 * Large writes are worth spreading over CPUs if several are waiting.
 *
 * Any thread; no allocation, and no lock but a flush's, which is held for a few
 * instructions.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/resource.h>
#include <unistd.h>

#include "block/file-posix.h"

/* Requests up to this many bytes are small: copied within ~30 us. */
#define INLINE_SMALL    (128 * 1024)
#define INLINE_MAX      (1024 * 1024)

/* Writes that take longer than this, plus 1 ns a byte, have stalled. */
#define STALL_NS        1000000
#define LONG_STALL_NS   20000000
#define STALL_LIMIT     2
#define QUICK_RUN       16          /* quick writes that clear old stalls */
#define PAUSE_NS        5000000000

/* For so long after a slow write the next ones are looked at closely. */
#define WATCH_NS        1000000000

/* A large write that begins this soon after another one had to wait for it. */
#define QUEUED_NS       10000

/* Attempts without any progress. */
#define MAX_TRIES       16

typedef struct FileRw {
    int fd;
    bool is_write;
    int64_t offset;
    struct iovec *iov;
    int niov;
} FileRw;

typedef struct PoolCall {
    ThreadPoolFunc *func;
    void *opaque;
    bool ran;
} PoolCall;

static int pool_call(void *opaque)
{
    PoolCall *call = opaque;

    call->ran = true;
    return call->func(call->opaque);
}

static int coroutine_fn co_call(const void *cause, bool quick,
                                ThreadPoolFunc *func, void *opaque)
{
    PoolCall call = { .func = func, .opaque = opaque };
    int ret;

    if (quick) {
        return func(opaque);
    }
    ret = thread_pool_co_submit_for(cause, pool_call, &call);
    /* Without a single thread to be had, slow is better than failed. */
    return call.ran ? ret : func(opaque);
}

int coroutine_fn file_co_call(bool quick, ThreadPoolFunc *func, void *opaque)
{
    /* All that is opened and closed has one share. */
    static const char opening;

    return co_call(&opening, quick, func, opaque);
}

int coroutine_fn file_co_io(const FileState *s, bool quick,
                            ThreadPoolFunc *func, void *opaque)
{
    return co_call(s, quick, func, opaque);
}

/*
 * What may wait for another process or machine goes to the thread pool, which
 * has shares.  The ring's workers in the kernel are few, and the same for all
 * files; and submitting may wait: a file on FUSE is asked whether it can be
 * polled.
 */
static bool use_ring(const FileState *s)
{
    return s->local_fs && s->aio == BLOCKDEV_AIO_OPTIONS_IO_URING
           && aio_context_has_ring(aio_context_current());
}

/* ---- engines ---- */

/* -EAGAIN as well if the kernel had no thread to do it in. */
static int coroutine_fn co_ring(void (*prep_sqe)(struct io_uring_sqe *sqe,
                                                 void *opaque),
                                void *opaque)
{
    int ret = aio_co_sqe(prep_sqe, opaque);

    return ret == -ECANCELED ? -EAGAIN : ret;
}

/*
 * What is no read or write: by the ring if that can and there is a @prep_sqe,
 * else in the pool.
 */
static int coroutine_fn co_engine_call(const FileState *s,
                                       void (*prep_sqe)(
                                           struct io_uring_sqe *sqe,
                                           void *opaque),
                                       ThreadPoolFunc *func, void *opaque)
{
    int ret = prep_sqe && use_ring(s) ? co_ring(prep_sqe, opaque) : -EAGAIN;

    for (unsigned tries = 0;
         (ret == -EINTR || ret == -EAGAIN) && tries < MAX_TRIES; tries++) {
        ret = file_co_io(s, false, func, opaque);
    }
    return ret;
}

static void prep_rw(struct io_uring_sqe *sqe, void *opaque)
{
    FileRw *rw = opaque;

    /* A single buffer spares the kernel the import of a vector. */
    if (rw->niov == 1) {
        if (rw->is_write) {
            io_uring_prep_write(sqe, rw->fd, rw->iov->iov_base,
                                rw->iov->iov_len, rw->offset);
        } else {
            io_uring_prep_read(sqe, rw->fd, rw->iov->iov_base,
                               rw->iov->iov_len, rw->offset);
        }
    } else if (rw->is_write) {
        io_uring_prep_writev(sqe, rw->fd, rw->iov, rw->niov, rw->offset);
    } else {
        io_uring_prep_readv(sqe, rw->fd, rw->iov, rw->niov, rw->offset);
    }
}

static int rw_call(void *opaque)
{
    FileRw *rw = opaque;
    ssize_t n = rw->is_write
        ? pwritev(rw->fd, rw->iov, rw->niov, rw->offset)
        : preadv(rw->fd, rw->iov, rw->niov, rw->offset);

    return n < 0 ? -errno : n;      /* the kernel stops below 2 GiB */
}

/* Bytes done, 0 at the end of the file, or -errno. */
static ssize_t coroutine_fn co_engine_rw(FileState *s, FileRw *rw)
{
    ssize_t n = -EAGAIN;

    if (s->aio == BLOCKDEV_AIO_OPTIONS_NATIVE) {
        n = native_aio_co_rw(rw->fd, rw->is_write, rw->offset, rw->iov,
                             rw->niov, s->max_batch);
    } else if (use_ring(s)) {
        n = co_ring(prep_rw, rw);
    }
    return n == -EAGAIN ? file_co_io(s, false, rw_call, rw) : n;
}

static ssize_t coroutine_fn co_attempt(FileState *s, bool is_write,
                                       int64_t offset, QEMUIOVector *qiov,
                                       int64_t done)
{
    FileRw rw = {
        .fd = s->fd,
        .is_write = is_write,
        .offset = offset + done,
        .iov = qiov->iov,
        .niov = qiov->niov,
    };
    QEMUIOVector rest;
    ssize_t n;

    if (done == 0) {
        return co_engine_rw(s, &rw);
    }
    qemu_iovec_init_slice(&rest, qiov, done, qiov->size - done);
    rw.iov = rest.iov;
    rw.niov = rest.niov;
    n = co_engine_rw(s, &rw);
    qemu_iovec_destroy(&rest);
    return n;
}

/*
 * Finish a request whose first attempt had the result @n (-EAGAIN: there was
 * none).  What lies past the end of the file reads as zeroes: the last, partial
 * block with O_DIRECT, or a file that someone else has made shorter.
 */
static int coroutine_fn co_finish_rw(FileState *s, bool is_write,
                                     int64_t offset, int64_t bytes,
                                     QEMUIOVector *qiov, ssize_t n)
{
    int64_t done = 0;
    unsigned tries = 0;

    for (;;) {
        if (n > 0) {
            int64_t reached = done + n;

            if (reached % s->align) {
                if (!is_write) {
                    done = reached;
                    break;
                }
                reached -= reached % s->align;
            }
            if (reached > done) {
                tries = 0;
            }
            done = reached;
            if (done == bytes) {
                return 0;
            }
        } else if (n == 0) {
            if (is_write) {
                return -ENOSPC;
            }
            break;
        } else if (n != -EAGAIN && n != -EINTR) {
            return n;
        }
        if (tries++ == MAX_TRIES) {
            return n < 0 ? n : -EIO;
        }
        n = co_attempt(s, is_write, offset, qiov, done);
    }
    qemu_iovec_memset(qiov, done, 0, bytes - done);
    return 0;
}

/* ---- reads ---- */

static ssize_t read_cached(FileState *s, int64_t offset, QEMUIOVector *qiov)
{
    ssize_t n = preadv2(s->fd, qiov->iov, qiov->niov, offset, RWF_NOWAIT);

    if (n >= 0) {
        return n;
    }
    if (errno == EOPNOTSUPP || errno == ENOSYS) {
        file_cannot(&s->can_read_nowait);
        return -EAGAIN;
    }
    return -errno;
}

int coroutine_fn file_co_preadv(BlockDriverState *bs, int64_t offset,
                                int64_t bytes, QEMUIOVector *qiov,
                                BdrvRequestFlags flags)
{
    FileState *s = bs->opaque;
    ssize_t n = -EAGAIN;

    if (bytes <= INLINE_SMALL && file_can(&s->can_read_nowait)) {
        n = read_cached(s, offset, qiov);
        if (n == bytes) {
            return 0;
        }
    }
    return co_finish_rw(s, false, offset, bytes, qiov, n);
}

/* ---- writes ---- */

/* How writes of this thread that were made at once have fared. */
static __thread struct InlineWrites {
    int64_t paused_until_ns;
    int64_t watched_until_ns;
    int64_t large_end_ns;           /* the last large write, however made */
    unsigned stalls;
    unsigned quick;                 /* in a row */
} inline_writes;

/* How often this thread went to sleep; not how often it was preempted. */
static long voluntary_switches(void)
{
    struct rusage usage = { 0 };

    getrusage(RUSAGE_THREAD, &usage);
    return usage.ru_nvcsw;
}

/*
 * @switches: voluntary_switches() before the write, or -1.  On a busy CPU a
 * write may be slow because its thread was preempted, which is no fault of
 * writing here.  To tell, the count from before it is needed; so a slow write
 * only makes the ones that follow be watched.
 */
static void note_inline_write(int64_t start_ns, int64_t end_ns, int64_t bytes,
                              long switches)
{
    struct InlineWrites *w = &inline_writes;
    int64_t took = end_ns - start_ns - bytes;

    if (took <= STALL_NS) {
        if (w->stalls && ++w->quick == QUICK_RUN) {
            w->stalls = 0;
        }
        return;
    }
    w->watched_until_ns = end_ns + WATCH_NS;
    if (switches < 0 || voluntary_switches() == switches) {
        return;
    }
    w->quick = 0;
    w->stalls += took > LONG_STALL_NS ? STALL_LIMIT : 1;
    if (w->stalls >= STALL_LIMIT) {
        w->paused_until_ns = end_ns + PAUSE_NS;
        w->stalls = STALL_LIMIT - 1;    /* the next one ends the trial */
    }
}

/* Write at once, if this is a good idea; else -EAGAIN. */
static ssize_t write_inline(FileState *s, int64_t offset, int64_t bytes,
                            QEMUIOVector *qiov)
{
    struct InlineWrites *w = &inline_writes;
    bool large = bytes > INLINE_SMALL;
    int64_t start = clock_now_ns(), end;
    long switches = -1;
    ssize_t n;

    if (start < w->paused_until_ns || bytes > INLINE_MAX) {
        return -EAGAIN;
    }
    if (large && start - w->large_end_ns < QUEUED_NS) {
        w->large_end_ns = start;
        return -EAGAIN;
    }

    if (G_UNLIKELY(start < w->watched_until_ns)) {
        switches = voluntary_switches();
    }
    n = pwritev(s->fd, qiov->iov, qiov->niov, offset);
    n = n < 0 ? -errno : n;
    end = clock_now_ns();
    note_inline_write(start, end, bytes, switches);
    if (large) {
        w->large_end_ns = end;
    }
    return n;
}

int coroutine_fn file_co_pwritev(BlockDriverState *bs, int64_t offset,
                                 int64_t bytes, QEMUIOVector *qiov,
                                 BdrvRequestFlags flags)
{
    FileState *s = bs->opaque;
    ssize_t n = -EAGAIN;

    if (s->inline_writes) {
        n = write_inline(s, offset, bytes, qiov);
        if (n == bytes) {
            return 0;
        }
    }
    return co_finish_rw(s, true, offset, bytes, qiov, n);
}

/* ---- flush ---- */

/* One that came while another one was under way; on its coroutine's stack. */
struct FileFlush {
    Coroutine *co;
    int ret;
    STAILQ_ENTRY(FileFlush) next;
};

static void prep_fdatasync(struct io_uring_sqe *sqe, void *opaque)
{
    FileState *s = opaque;

    io_uring_prep_fsync(sqe, s->fd, IORING_FSYNC_DATASYNC);
}

static int fdatasync_call(void *opaque)
{
    FileState *s = opaque;

    return fdatasync(s->fd) < 0 ? -errno : 0;
}

static int coroutine_fn co_fdatasync(FileState *s)
{
    int ret = co_engine_call(s, prep_fdatasync, fdatasync_call, s);

    if (ret == -EINVAL && S_ISCHR(s->type)) {
        return 0;               /* nothing there to be flushed */
    }
    return ret;
}

static void coroutine_fn co_next_flush(void *opaque);

/*
 * Sync for all who wait now, and for the caller.  For those who come meanwhile
 * the next begins at once and here: a turn of another thread would be lost time
 * for everybody.  Only they keep the node alive then.
 */
static int coroutine_fn co_sync(FileState *s)
{
    FileFlushList sharers = STAILQ_HEAD_INITIALIZER(sharers);
    FileFlush *flush;
    int ret;

    pthread_mutex_lock(&s->flush_lock);
    STAILQ_CONCAT(&sharers, &s->flushes);
    pthread_mutex_unlock(&s->flush_lock);

    ret = co_fdatasync(s);

    pthread_mutex_lock(&s->flush_lock);
    if (ret < 0) {
        s->flush_error = ret;
        STAILQ_CONCAT(&sharers, &s->flushes);
    }
    s->flushing = !STAILQ_EMPTY(&s->flushes);
    if (s->flushing) {
        pthread_mutex_unlock(&s->flush_lock);
        coroutine_enter(coroutine_create(co_next_flush, s));
    } else {
        pthread_mutex_unlock(&s->flush_lock);
    }

    while ((flush = STAILQ_FIRST(&sharers))) {
        STAILQ_REMOVE_HEAD(&sharers, next);
        flush->ret = ret;
        aio_co_wake(flush->co);
    }
    return ret;
}

static void coroutine_fn co_next_flush(void *opaque)
{
    co_sync(opaque);
}

/*
 * The kernel tells of data that it could not write out once for each open
 * file, to whoever asks first, and marks it clean; so only one asks at a time.
 * Who comes while a sync is under way may have written too late for that one:
 * all of these share the next.  After an error no flush can succeed any more,
 * whatever the kernel would say: what is lost stays lost.
 */
int coroutine_fn file_co_flush(BlockDriverState *bs)
{
    FileState *s = bs->opaque;
    FileFlush self = { .co = coroutine_self() };

    pthread_mutex_lock(&s->flush_lock);
    self.ret = s->flush_error;
    if (self.ret == 0 && s->flushing) {
        STAILQ_INSERT_TAIL(&s->flushes, &self, next);
        pthread_mutex_unlock(&s->flush_lock);
        coroutine_yield();
        return self.ret;
    }
    s->flushing = s->flushing || self.ret == 0;
    pthread_mutex_unlock(&s->flush_lock);
    return self.ret < 0 ? self.ret : co_sync(s);
}

/* ---- fallocate ---- */

typedef struct FallocateCall {
    int fd;
    int mode;
    int64_t offset, bytes;
} FallocateCall;

static int fallocate_call(void *opaque)
{
    FallocateCall *call = opaque;

    return fallocate(call->fd, call->mode, call->offset, call->bytes) < 0
           ? -errno : 0;
}

int coroutine_fn file_co_fallocate(FileState *s, int mode, int64_t offset,
                                   int64_t bytes)
{
    FallocateCall call = {
        .fd = s->fd, .mode = mode, .offset = offset, .bytes = bytes,
    };
    int ret = co_engine_call(s, NULL, fallocate_call, &call);

    return ret == -ENOSYS || ret == -ENODEV ? -ENOTSUP : ret;
}
