/* SPDX-License-Identifier: MIT */
/*
 * Drivers "file" and "host_device": what their source files share.
 *
 *   file-posix.c         open, close, limits, reopening when permissions change
 *   file-posix-io.c      reads, writes, flush: which engine does them
 *   file-posix-native.c  aio=native (Linux AIO through libaio)
 *   file-posix-lock.c    byte-range locks against other programs
 *   file-posix-alloc.c   length, holes, discard, zeroes, truncate
 *   file-posix-create.c  making a file
 *
 * Threads: requests run in the thread that submits them; only flushes take a
 * lock.  fd and the open parameters change in the main thread only, with the
 * node drained; what requests themselves learn of missing capabilities is
 * atomic.
 */
#ifndef BLOCK_FILE_POSIX_H
#define BLOCK_FILE_POSIX_H

#include <sys/types.h>
#include "block/block-int.h"
#include "config-host.h"
#include "util/thread-pool.h"

/* Locks held on an open file, as bits like BLK_PERM_*. */
typedef struct FileLocks {
    uint64_t perm;              /* done by us */
    uint64_t unshared;          /* forbidden to others */
} FileLocks;

typedef struct FileFlush FileFlush;
typedef STAILQ_HEAD(FileFlushList, FileFlush) FileFlushList;

typedef struct FileState {
    int fd;
    int open_flags;             /* of fd */
    mode_t type;                /* S_IFREG, S_IFBLK or S_IFCHR */
    bool local_fs;              /* fstat and page cache writes don't wait for
                                   another process or machine */
    bool inline_writes;
    BlockdevAioOptions aio;
    uint64_t max_batch;         /* of aio=native */
    uint32_t align;             /* of requests, bytes */
    uint32_t block_size;        /* of a block device, bytes */
    size_t mem_align;

    /* Atomic; cleared when the file turns out to lack it. */
    bool can_read_nowait;
    bool can_zero_range;
    bool can_punch_hole;
    bool can_fallocate;
    bool can_discard;           /* block device */
    bool can_seek_hole;

    uint32_t extent_size_hint;  /* of the file system, bytes; 0: none */

    /* Atomic, for queries. */
    uint64_t discards_ok, discards_failed, discarded_bytes;

    pthread_mutex_t flush_lock; /* leaf, over the three below */
    bool flushing;              /* one flush at a time */
    FileFlushList flushes;      /* others, which wait for the next one */
    int flush_error;            /* -errno of one that failed: for ever */

    bool locking;
    FileLocks locks;            /* held on fd */

    /* A permission update between check and set or abort. */
    FileLocks added;            /* taken on fd by check */
    int new_fd;                 /* takes fd's place, or -1 */
    int new_flags;
} FileState;

/* ---- file-posix-io.c ---- */

/*
 * Run a blocking call that opens or closes: in the thread pool, or at once if
 * @quick says that it cannot take long here.
 */
int coroutine_fn file_co_call(bool quick, ThreadPoolFunc *func, void *opaque);

/* The same for a call that waits for what @s is stored on. */
int coroutine_fn file_co_io(const FileState *s, bool quick,
                            ThreadPoolFunc *func, void *opaque);

/*
 * fallocate(2), which may take long: never by the ring, whose workers all files
 * share.  -errno; -ENOTSUP if unsupported.
 */
int coroutine_fn file_co_fallocate(FileState *s, int mode, int64_t offset,
                                   int64_t bytes);

int coroutine_fn file_co_preadv(BlockDriverState *bs, int64_t offset,
                                int64_t bytes, QEMUIOVector *qiov,
                                BdrvRequestFlags flags);
int coroutine_fn file_co_pwritev(BlockDriverState *bs, int64_t offset,
                                 int64_t bytes, QEMUIOVector *qiov,
                                 BdrvRequestFlags flags);
int coroutine_fn file_co_flush(BlockDriverState *bs);

/* ---- file-posix-native.c ---- */

#ifdef CONFIG_LINUX_AIO
/* NULL error if this system can do aio=native. */
bool native_aio_probe(Error **errp);

/*
 * One read or write in the calling thread; at most @max_batch of these are
 * submitted at once (0: a built-in number).  Bytes done or -errno.
 */
ssize_t coroutine_fn native_aio_co_rw(int fd, bool is_write, int64_t offset,
                                      struct iovec *iov, int niov,
                                      uint64_t max_batch);
#else
static inline bool native_aio_probe(Error **errp)
{
    error_setg(errp, "aio=native was specified, but is not supported in this "
               "build.");
    return false;
}

static inline ssize_t coroutine_fn native_aio_co_rw(int fd, bool is_write,
                                                    int64_t offset,
                                                    struct iovec *iov,
                                                    int niov,
                                                    uint64_t max_batch)
{
    return -ENOSYS;
}
#endif /* CONFIG_LINUX_AIO */

/* ---- file-posix-lock.c ---- */

/* True if the kernel has locks that belong to an open file description. */
bool file_locks_available(int fd);

/*
 * Take on @fd the locks that @locks names, leave others alone.  0 or -errno
 * with an error; then some may have been taken.
 */
int file_locks_take(int fd, FileLocks locks, Error **errp);

/* Drop the locks that @locks names, or all that there may be; cannot fail. */
void file_locks_drop(int fd, FileLocks locks);
void file_locks_drop_all(int fd);

/*
 * Fail if another open file description forbids something in @locks.perm, or
 * does something in @locks.unshared.  @filename goes into the hint.
 */
int file_locks_check(int fd, FileLocks locks, const char *filename,
                     Error **errp);

/* ---- file-posix-alloc.c ---- */

/* Length in bytes or -errno.  May block. */
int64_t file_length(const FileState *s);

/*
 * Change the length of regular file @s->fd to @offset.  0 or -errno with an
 * error.  May block.
 */
int file_truncate(FileState *s, int64_t offset, PreallocMode prealloc,
                  Error **errp);

int64_t coroutine_fn file_co_getlength(BlockDriverState *bs);
int64_t coroutine_fn file_co_get_allocated_file_size(BlockDriverState *bs);
int64_t coroutine_fn file_co_get_free_bytes(BlockDriverState *bs);
int coroutine_fn file_co_block_status(BlockDriverState *bs, int64_t offset,
                                      int64_t bytes, int64_t *pnum,
                                      int64_t *map, BlockDriverState **file);
int coroutine_fn file_co_pdiscard(BlockDriverState *bs, int64_t offset,
                                  int64_t bytes);
int coroutine_fn file_co_pwrite_zeroes(BlockDriverState *bs, int64_t offset,
                                       int64_t bytes, BdrvRequestFlags flags);
int coroutine_fn file_co_truncate(BlockDriverState *bs, int64_t offset,
                                  PreallocMode prealloc,
                                  BdrvRequestFlags flags, Error **errp);

/* ---- file-posix-create.c ---- */

bool coroutine_fn file_co_create(const BlockdevCreateOptions *options,
                                 Error **errp);

static inline bool file_can(const bool *capability)
{
    return __atomic_load_n(capability, __ATOMIC_RELAXED);
}

static inline void file_cannot(bool *capability)
{
    __atomic_store_n(capability, false, __ATOMIC_RELAXED);
}

#endif /* BLOCK_FILE_POSIX_H */
