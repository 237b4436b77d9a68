/* SPDX-License-Identifier: MIT */
/*
 * Drivers "file" (regular files) and "host_device" (block and character
 * devices): open, close, limits, permissions.
 *
 * A file is opened as the options say and no further: read-only=on reads,
 * read-only=off needs the right to write.  With auto-read-only it is opened for
 * reading first; when the first user comes who writes, it is opened once more
 * for writing, and given back when the last one leaves.  The second open is of
 * the same file, even if the path has been renamed, or hidden by an export
 * mounted over it.
 *
 * Everything here runs in the main thread with the node drained.  System calls
 * on the file are made in the thread pool: the file may lie on a slow file
 * system.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "block/file-posix.h"
#include "util/named-file.h"

/* Not in <linux/magic.h>. */
#define BCACHEFS_SUPER_MAGIC    0xca451a4e
#define ZFS_SUPER_MAGIC         0x2fc12fc1

#define MAX_ALIGN 4096u

/* ---- the blocking parts, in a thread of the pool ---- */

typedef struct OpenCall {
    BlockDriverState *bs;
    const char *path;
    int flags;
    int fd;                     /* result */
    Error **errp;
} OpenCall;

static bool check_type(const BlockDriverState *bs, mode_t mode, Error **errp)
{
    if (bs->drv->driver == BLOCKDEV_DRIVER_FILE) {
        if (!S_ISREG(mode)) {
            error_setg(errp, "'%s' driver requires '%s' to be a regular file",
                       bs->drv->format_name, bs->filename);
            return false;
        }
    } else if (!S_ISBLK(mode) && !S_ISCHR(mode)) {
        error_setg(errp, "'%s' driver requires '%s' to be either a character "
                   "or block device", bs->drv->format_name, bs->filename);
        return false;
    }
    return true;
}

static int open_failed(const OpenCall *call, int ret, Error *why)
{
    if (ret == -EINVAL && (call->flags & O_DIRECT)) {
        error_free(why);
        error_setg(call->errp, "Could not open '%s': filesystem does not "
                   "support O_DIRECT", call->bs->filename);
        return ret;
    }
    error_prepend(&why, "Could not open '%s': ", call->bs->filename);
    error_propagate(call->errp, why);
    return ret;
}

/* Opening devices has effects, a socket gives an odd errno. */
static int open_path(OpenCall *call)
{
    NamedFile file;
    Error *err = NULL;
    int ret = named_file_find(&file, call->path, &err);

    if (ret < 0) {
        return open_failed(call, ret, err);
    }
    if (!S_ISDIR(file.mode) && !check_type(call->bs, file.mode, call->errp)) {
        ret = -EINVAL;
    } else {
        call->fd = named_file_open_found(&file, call->flags, &err);
        ret = call->fd < 0 ? open_failed(call, call->fd, err) : 0;
    }
    named_file_release(&file);
    return ret;
}

/* open(2) lets one open a write-protected block device for writing. */
static int check_writable(const OpenCall *call, mode_t mode)
{
    int readonly = 0;

    if (S_ISBLK(mode) && (call->flags & O_ACCMODE) == O_RDWR
        && ioctl(call->fd, BLKROGET, &readonly) == 0 && readonly) {
        error_setg_errno(call->errp, EACCES, "The device is not writable");
        return -EACCES;
    }
    return 0;
}

static bool is_local_fs(int fd)
{
    struct statfs fs;

    if (fstatfs(fd, &fs) < 0) {
        return false;
    }
    switch ((uint32_t)fs.f_type) {
    case BCACHEFS_SUPER_MAGIC:
    case BTRFS_SUPER_MAGIC:
    case EXT4_SUPER_MAGIC:
    case F2FS_SUPER_MAGIC:
    case OVERLAYFS_SUPER_MAGIC:
    case TMPFS_MAGIC:
    case XFS_SUPER_MAGIC:
    case ZFS_SUPER_MAGIC:
        return true;
    default:
        return false;
    }
}

/* Ask the kernel how O_DIRECT requests must be aligned. */
static bool ask_alignment(FileState *s)
{
    int size;
#ifdef STATX_DIOALIGN
    struct statx stx;

    if (statx(s->fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &stx) == 0
        && (stx.stx_mask & STATX_DIOALIGN) && stx.stx_dio_offset_align) {
        s->align = stx.stx_dio_offset_align;
        s->mem_align = MAX(stx.stx_dio_mem_align, 1);
        return true;
    }
#endif
    if (S_ISBLK(s->type) && ioctl(s->fd, BLKSSZGET, &size) == 0 && size > 0) {
        s->align = size;
        s->mem_align = size;
        return true;
    }
    return false;
}

/* Find the alignment out by reading; in doubt it is the largest. */
static void try_alignment(FileState *s)
{
    void *buf = g_aligned_alloc0(1, 2 * MAX_ALIGN, MAX_ALIGN);

    for (s->align = 512; s->align < MAX_ALIGN; s->align *= 2) {
        if (pread(s->fd, buf, s->align, 0) == (ssize_t)s->align) {
            break;
        }
    }
    for (s->mem_align = 512; s->mem_align < MAX_ALIGN; s->mem_align *= 2) {
        if (pread(s->fd, (char *)buf + s->mem_align, s->align, 0)
            == (ssize_t)s->align) {
            break;
        }
    }
    g_aligned_free(buf);
}

static void find_alignment(FileState *s)
{
    s->align = 1;
    s->mem_align = 1;
    if (s->open_flags & O_DIRECT) {
        if (!ask_alignment(s) || (s->align & (s->align - 1))
            || (s->mem_align & (s->mem_align - 1))) {
            try_alignment(s);
        }
    }
    if (S_ISBLK(s->type)) {
        int size = 0;

        s->block_size = ioctl(s->fd, BLKSSZGET, &size) == 0 && size > 0
            ? size : 512;
    }
}

/* Bytes, or 0 if the file system has been given none for the file. */
static uint32_t ask_extent_size(int fd)
{
    struct fsxattr attr;

    return ioctl(fd, FS_IOC_FSGETXATTR, &attr) == 0
           && (attr.fsx_xflags & FS_XFLAG_EXTSIZE) ? attr.fsx_extsize : 0;
}

static int first_open_call(void *opaque)
{
    OpenCall *call = opaque;
    FileState *s = call->bs->opaque;
    struct stat st;
    int64_t len;
    int ret = open_path(call);

    if (ret < 0) {
        return ret;
    }
    if (fstat(call->fd, &st) < 0) {
        ret = -errno;
        error_setg_errno(call->errp, -ret, "Could not stat file");
        goto fail;
    }
    if (!check_type(call->bs, st.st_mode, call->errp)) {
        ret = -EINVAL;
        goto fail;
    }
    ret = check_writable(call, st.st_mode);
    if (ret < 0) {
        goto fail;
    }

    s->fd = call->fd;
    s->open_flags = call->flags;
    s->type = st.st_mode & S_IFMT;
    len = file_length(s);
    if (len < 0) {
        ret = len;
        error_setg_errno(call->errp, -ret,
                         "Could not refresh total sector count");
        goto fail;
    }
    call->bs->total_bytes = len;
    s->local_fs = is_local_fs(s->fd);
    s->extent_size_hint = ask_extent_size(s->fd);
    find_alignment(s);
    return 0;

fail:
    close(call->fd);
    s->fd = -1;
    return ret;
}

static int reopen_call(void *opaque)
{
    OpenCall *call = opaque;
    FileState *s = call->bs->opaque;
    Error *err = NULL;
    int ret;

    call->fd = named_file_reopen(s->fd, call->bs->filename, call->flags, &err);
    if (call->fd < 0) {
        return open_failed(call, call->fd, err);
    }
    ret = check_writable(call, s->type);
    if (ret < 0) {
        close(call->fd);
    }
    return ret;
}

static int close_call(void *opaque)
{
    int fd = *(int *)opaque;

    /*
     * A ring's worker may hold the file for a moment longer than its last
     * request: whoever looks after us is not to find locks any more.
     */
    file_locks_drop_all(fd);
    return close(fd) < 0 && errno != EINTR ? -errno : 0;
}

/* ---- open and close ---- */

static bool choose_aio(BlockDriverState *bs, const BlockdevOptionsFile *opts,
                       Error **errp)
{
    FileState *s = bs->opaque;

    /*
     * The reference's default is a thread pool.  Results are the same, and
     * io_uring is faster; where a thread has no ring its requests go to the
     * thread pool.
     */
    s->aio = opts->has_aio ? opts->aio : BLOCKDEV_AIO_OPTIONS_IO_URING;
    s->max_batch = opts->has_aio_max_batch ? MAX(opts->aio_max_batch, 0) : 0;

    if (s->aio == BLOCKDEV_AIO_OPTIONS_NATIVE) {
        if (!bs->cache_direct) {
            error_setg(errp, "aio=native was specified, but it requires "
                       "cache.direct=on, which was not specified.");
            return false;
        }
        return native_aio_probe(errp);
    }
    if (opts->has_aio && s->aio == BLOCKDEV_AIO_OPTIONS_IO_URING
        && !aio_context_has_ring(aio_context_current())) {
        error_setg(errp, "aio=io_uring was specified, but io_uring is not "
                   "available on this system.");
        return false;
    }
    return true;
}

static bool choose_locking(FileState *s, const BlockdevOptionsFile *opts,
                           Error **errp)
{
    OnOffAuto want = opts->has_locking ? opts->locking : ON_OFF_AUTO_AUTO;

    s->locking = want != ON_OFF_AUTO_OFF && file_locks_available(s->fd);
    if (want == ON_OFF_AUTO_ON && !s->locking) {
        error_setg(errp, "File lock requested but OFD locking syscall is "
                   "unavailable");
        return false;
    }
    return true;
}

static bool coroutine_fn file_co_open(BlockDriverState *bs,
                                      const BlockdevOptions *options,
                                      Error **errp)
{
    const BlockdevOptionsFile *opts =
        options->driver == BLOCKDEV_DRIVER_HOST_DEVICE
        ? &options->u.host_device : &options->u.file;
    FileState *s = bs->opaque;
    OpenCall call = { .bs = bs, .path = opts->filename, .errp = errp };

    /*
     * drop-cache matters to a program that takes an image over from another
     * machine (migration); the daemon never does that, so it is accepted and
     * has nothing to act on.
     */
    s->fd = -1;
    s->new_fd = -1;
    if (!opts->filename[0]) {
        error_setg(errp, "The '%s' block driver requires a file name",
                   bs->drv->format_name);
        return false;
    }
    if (!choose_aio(bs, opts, errp)) {
        return false;
    }

    g_free(bs->filename);
    bs->filename = g_strdup(opts->filename);
    call.flags = bs->read_only || bs->auto_read_only ? O_RDONLY : O_RDWR;
    if (bs->cache_direct) {
        call.flags |= O_DIRECT;
    }
    if (file_co_call(false, first_open_call, &call) < 0) {
        return false;
    }
    if (!choose_locking(s, opts, errp)) {
        file_co_call(s->local_fs, close_call, &s->fd);
        return false;
    }

    s->inline_writes = S_ISREG(s->type) && s->local_fs && !bs->cache_direct;
    s->can_read_nowait = !bs->cache_direct;
    s->can_zero_range = !S_ISCHR(s->type);
    s->can_punch_hole = !S_ISCHR(s->type);
    s->can_fallocate = S_ISREG(s->type);
    s->can_discard = S_ISBLK(s->type);
    s->can_seek_hole = S_ISREG(s->type);
    pthread_mutex_init(&s->flush_lock, NULL);
    STAILQ_INIT(&s->flushes);
    return true;
}

static void coroutine_fn file_co_close(BlockDriverState *bs)
{
    FileState *s = bs->opaque;
    int ret = file_co_call(s->local_fs, close_call, &s->fd);

    /* The first to notice that data was lost, on network file systems. */
    if (ret < 0 && !bs->read_only) {
        Error *err = NULL;

        error_setg_errno(&err, -ret, "Could not close '%s' of node '%s'",
                         bs->filename, bs->node_name);
        bdrv_report_loss(bs, err);
    }
    s->fd = -1;
    pthread_mutex_destroy(&s->flush_lock);
}

static void file_refresh_limits(BlockDriverState *bs)
{
    FileState *s = bs->opaque;

    bs->bl.request_alignment = s->align;
    bs->bl.min_mem_alignment = s->mem_align;
    bs->bl.max_iov = IOV_MAX;
    if (S_ISREG(s->type)) {
        /* Whole: only who sees all of it can tell whether there is room. */
        bs->bl.max_pwrite_zeroes = BDRV_MAX_LENGTH;
    }
    if (S_ISBLK(s->type)) {
        bs->bl.pdiscard_alignment = MAX(s->block_size, s->align);
        bs->bl.pwrite_zeroes_alignment = MAX(s->block_size, s->align);
    }
}

/* ---- permissions ---- */

/* With auto-read-only: have a new fd ready if access must change. */
static bool coroutine_fn file_co_prepare_fd(BlockDriverState *bs, bool writer,
                                            Error **errp)
{
    FileState *s = bs->opaque;
    int access = writer ? O_RDWR : O_RDONLY;
    OpenCall call = {
        .bs = bs,
        .flags = (s->open_flags & ~O_ACCMODE) | access,
        .errp = writer ? errp : NULL,
    };

    if (!bs->auto_read_only || bs->read_only
        || (s->open_flags & O_ACCMODE) == access) {
        return true;
    }
    if (file_co_call(false, reopen_call, &call) < 0) {
        return !writer;         /* too much right does no harm */
    }
    s->new_fd = call.fd;
    s->new_flags = call.flags;
    return true;
}

static void coroutine_fn file_co_abort_perm_update(BlockDriverState *bs)
{
    FileState *s = bs->opaque;

    file_locks_drop(s->fd, s->added);
    s->added = (FileLocks) { 0 };
    if (s->new_fd >= 0) {
        file_co_call(s->local_fs, close_call, &s->new_fd);
        s->new_fd = -1;
    }
}

static FileLocks wanted_locks(const FileState *s, uint64_t perm,
                              uint64_t shared)
{
    if (!s->locking) {
        return (FileLocks) { 0 };
    }
    return (FileLocks) {
        .perm = perm & BLK_PERM_ALL,
        .unshared = ~shared & BLK_PERM_ALL,
    };
}

/* New locks are taken on both fds, so that there is no gap in between. */
static bool lock_for_update(BlockDriverState *bs, FileLocks want, Error **errp)
{
    FileState *s = bs->opaque;

    s->added.perm = want.perm & ~s->locks.perm;
    s->added.unshared = want.unshared & ~s->locks.unshared;
    if (s->added.perm || s->added.unshared) {
        if (file_locks_take(s->fd, s->added, errp) < 0
            || file_locks_check(s->fd, want, bs->filename, errp) < 0) {
            return false;
        }
    }
    return s->new_fd < 0 || file_locks_take(s->new_fd, want, errp) == 0;
}

static bool coroutine_fn file_co_check_perm(BlockDriverState *bs,
                                            uint64_t perm, uint64_t shared,
                                            Error **errp)
{
    FileState *s = bs->opaque;
    bool writer = perm & (BLK_PERM_WRITE | BLK_PERM_WRITE_UNCHANGED
                          | BLK_PERM_RESIZE);

    if (!file_co_prepare_fd(bs, writer, errp)) {
        return false;
    }
    if (!lock_for_update(bs, wanted_locks(s, perm, shared), errp)) {
        file_co_abort_perm_update(bs);
        return false;
    }
    return true;
}

static void coroutine_fn file_co_set_perm(BlockDriverState *bs, uint64_t perm,
                                          uint64_t shared)
{
    FileState *s = bs->opaque;
    FileLocks want = wanted_locks(s, perm, shared);

    if (s->new_fd >= 0) {
        int old_fd = s->fd;

        /* What it would tell of data not written out, the new one may not. */
        if ((s->open_flags & O_ACCMODE) != O_RDONLY && !bs->cache_no_flush) {
            file_co_flush(bs);
        }
        s->fd = s->new_fd;
        s->open_flags = s->new_flags;
        s->new_fd = -1;
        s->locks = want;
        file_co_call(s->local_fs, close_call, &old_fd);
    } else {
        FileLocks held = {
            .perm = s->locks.perm | s->added.perm,
            .unshared = s->locks.unshared | s->added.unshared,
        };

        file_locks_drop(s->fd, (FileLocks) {
            .perm = held.perm & ~want.perm,
            .unshared = held.unshared & ~want.unshared,
        });
        s->locks = (FileLocks) {
            .perm = held.perm & want.perm,
            .unshared = held.unshared & want.unshared,
        };
    }
    s->added = (FileLocks) { 0 };
}

/* ---- queries ---- */

static ImageInfoSpecific *file_get_specific_info(BlockDriverState *bs)
{
    FileState *s = bs->opaque;
    ImageInfoSpecific *info = g_new0(ImageInfoSpecific, 1);
    ImageInfoSpecificFile *file = g_new0(ImageInfoSpecificFile, 1);

    info->type = IMAGE_INFO_SPECIFIC_KIND_FILE;
    info->u.file.data = file;
    file->has_extent_size_hint = s->extent_size_hint > 0;
    file->extent_size_hint = s->extent_size_hint;
    return info;
}

static BlockStatsSpecific *file_get_specific_stats(BlockDriverState *bs)
{
    FileState *s = bs->opaque;
    BlockStatsSpecific *stats = g_new0(BlockStatsSpecific, 1);
    BlockStatsSpecificFile *file = bs->drv->driver == BLOCKDEV_DRIVER_FILE
                                   ? &stats->u.file : &stats->u.host_device;

    stats->driver = bs->drv->driver;
    file->discard_nb_ok = __atomic_load_n(&s->discards_ok, __ATOMIC_RELAXED);
    file->discard_nb_failed = __atomic_load_n(&s->discards_failed,
                                              __ATOMIC_RELAXED);
    file->discard_bytes_ok = __atomic_load_n(&s->discarded_bytes,
                                             __ATOMIC_RELAXED);
    return stats;
}

/* ---- tables ---- */

/* What files and devices have in common */
#define FILE_COMMON                                                     \
    .instance_size = sizeof(FileState),                                 \
    .is_protocol = true,                                                \
    .supported_zero_flags = BDRV_REQ_MAY_UNMAP | BDRV_REQ_NO_FALLBACK,  \
    .supported_truncate_flags = BDRV_REQ_ZERO_WRITE,                    \
    .bdrv_co_open = file_co_open,                                       \
    .bdrv_co_close = file_co_close,                                     \
    .bdrv_co_preadv = file_co_preadv,                                   \
    .bdrv_co_pwritev = file_co_pwritev,                                 \
    .bdrv_co_pwrite_zeroes = file_co_pwrite_zeroes,                     \
    .bdrv_co_pdiscard = file_co_pdiscard,                               \
    .bdrv_co_flush = file_co_flush,                                     \
    .bdrv_co_truncate = file_co_truncate,                               \
    .bdrv_co_block_status = file_co_block_status,                       \
    .bdrv_co_getlength = file_co_getlength,                             \
    .bdrv_co_get_allocated_file_size = file_co_get_allocated_file_size, \
    .bdrv_co_get_free_bytes = file_co_get_free_bytes,                   \
    .bdrv_refresh_limits = file_refresh_limits,                         \
    .bdrv_co_check_perm = file_co_check_perm,                           \
    .bdrv_co_set_perm = file_co_set_perm,                               \
    .bdrv_co_abort_perm_update = file_co_abort_perm_update,             \
    .bdrv_get_specific_info = file_get_specific_info,                   \
    .bdrv_get_specific_stats = file_get_specific_stats

const BlockDriver bdrv_file = {
    .format_name = "file",
    .driver = BLOCKDEV_DRIVER_FILE,
    .can_grow = true,
    .bdrv_co_create = file_co_create,
    FILE_COMMON,
};

const BlockDriver bdrv_host_device = {
    .format_name = "host_device",
    .driver = BLOCKDEV_DRIVER_HOST_DEVICE,
    FILE_COMMON,
};
