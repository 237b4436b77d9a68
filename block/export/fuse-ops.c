/* SPDX-License-Identifier: MIT */
/*
 * FUSE operations on one regular file: argument checks, then the node.
 *
 * Sources: include/uapi/linux/fuse.h for messages and flags; fuse(4).  A table
 * at the end names every operation that is answered; anything else is ENOSYS,
 * which also tells the kernel not to ask again (GETXATTR, POLL, ...).
 *
 * Lengths that peers send are checked here, against what the transport
 * received, before they are used: fuse_op_co_run() checks arg_len for all,
 * each operation its payload.
 */
#include "config-host.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "block/export/fuse-ops.h"

/* Seconds for which the kernel may trust an attribute it has seen. */
#define FUSE_ATTR_VALID_SECONDS 1

typedef int coroutine_fn FuseOpFunc(FuseFile *file, FuseRequest *req);

static int64_t coroutine_fn fuse_op_co_length(FuseFile *file)
{
    return blk_co_getlength(file->blk);
}

void fuse_file_init(FuseFile *file, BlockBackend *blk, bool writable,
                    bool growable, bool allow_other)
{
    *file = (FuseFile) {
        .blk = blk,
        .writable = writable,
        .growable = growable,
        .resizable = true,
        .allow_other = allow_other,
        .mode = S_IFREG | S_IRUSR | (writable ? S_IWUSR : 0),
        .uid = getuid(),
        .gid = getgid(),
    };
    co_mutex_init(&file->attr_lock);
    clock_gettime(CLOCK_REALTIME, &file->mtime);
    file->atime = file->ctime = file->mtime;
}

/* ---- attributes ---- */

/*
 * Writes only mark the file as modified, which costs them a load; the time is
 * taken when somebody asks.  Called with attr_lock held.
 */
static void fuse_op_update_mtime(FuseFile *file)
{
    if (__atomic_exchange_n(&file->modified, false, __ATOMIC_RELAXED)) {
        clock_gettime(CLOCK_REALTIME, &file->mtime);
        file->ctime = file->mtime;
    }
}

static void fuse_op_mark_modified(FuseFile *file)
{
    if (!__atomic_load_n(&file->modified, __ATOMIC_RELAXED)) {
        __atomic_store_n(&file->modified, true, __ATOMIC_RELAXED);
    }
}

/*
 * The modification, or change of owner, after which the file must not lend its
 * owner's rights.  set-gid without the group's x means something else.  Called
 * with attr_lock held.
 */
static void fuse_op_kill_suidgid(FuseFile *file)
{
    uint32_t bits = S_ISUID | (file->mode & S_IXGRP ? S_ISGID : 0);

    if (file->mode & bits) {
        __atomic_store_n(&file->mode, file->mode & ~bits, __ATOMIC_RELAXED);
        clock_gettime(CLOCK_REALTIME, &file->ctime);
    }
}

/* The same without the lock: nearly always there is nothing to do. */
static void coroutine_fn fuse_op_co_kill_suidgid(FuseFile *file)
{
    uint32_t mode = __atomic_load_n(&file->mode, __ATOMIC_RELAXED);

    if (mode & (S_ISUID | S_ISGID)) {
        co_mutex_lock(&file->attr_lock);
        fuse_op_kill_suidgid(file);
        co_mutex_unlock(&file->attr_lock);
    }
}

/* Reply with the file's attributes.  Called with attr_lock held. */
static int coroutine_fn fuse_op_co_reply_attr(FuseFile *file,
                                              FuseRequest *req)
{
    int64_t length = fuse_op_co_length(file);
    int64_t allocated;

    if (length < 0) {
        return length;
    }
    allocated = blk_co_get_allocated_file_size(file->blk);
    if (allocated < 0) {
        allocated = length;
    }
    fuse_op_update_mtime(file);
    *(struct fuse_attr_out *)req->payload = (struct fuse_attr_out) {
        .attr_valid = FUSE_ATTR_VALID_SECONDS,
        .attr = {
            .ino = FUSE_ROOT_ID,
            .size = length,
            .blocks = allocated / 512,
            .atime = file->atime.tv_sec,
            .mtime = file->mtime.tv_sec,
            .ctime = file->ctime.tv_sec,
            .atimensec = file->atime.tv_nsec,
            .mtimensec = file->mtime.tv_nsec,
            .ctimensec = file->ctime.tv_nsec,
            .mode = file->mode,
            .nlink = 1,
            .uid = file->uid,
            .gid = file->gid,
            .blksize = blk_get_request_alignment(file->blk),
        },
    };
    return sizeof(struct fuse_attr_out);
}

static int coroutine_fn fuse_op_co_getattr(FuseFile *file, FuseRequest *req)
{
    int ret;

    co_mutex_lock(&file->attr_lock);
    ret = fuse_op_co_reply_attr(file, req);
    co_mutex_unlock(&file->attr_lock);
    return ret;
}

/* What of a SETATTR is not to be done at all, or 0. */
static int fuse_op_check_setattr(FuseFile *file,
                                 const struct fuse_setattr_in *in)
{
    const uint32_t hints = FATTR_FH | FATTR_LOCKOWNER | FATTR_KILL_SUIDGID
                           | FATTR_CTIME | FATTR_ATIME_NOW | FATTR_MTIME_NOW;
    uint32_t supported = FATTR_SIZE | FATTR_MODE | FATTR_ATIME | FATTR_MTIME;

    if (file->allow_other) {
        supported |= FATTR_UID | FATTR_GID;
    }
    if (in->valid & ~(supported | hints)) {
        return -ENOTSUP;
    }
    if (in->valid & FATTR_MODE) {
        /* Nobody else gets in, so that a mode which says so would lie. */
        if (!file->allow_other && (in->mode & (S_IRWXG | S_IRWXO))) {
            return -EPERM;
        }
        if (!file->writable
            && (in->mode & (S_IWUSR | S_IWGRP | S_IWOTH))) {
            return -EROFS;
        }
    }
    if (in->valid & FATTR_SIZE) {
        if (!file->writable) {
            return -EACCES;
        }
        if (in->size > BDRV_MAX_LENGTH) {
            return -EFBIG;
        }
    }
    if (((in->valid & FATTR_ATIME) && in->atimensec >= 1000000000)
        || ((in->valid & FATTR_MTIME) && in->mtimensec >= 1000000000)) {
        return -EINVAL;
    }
    return 0;
}

static void fuse_op_set_times(FuseFile *file, const struct fuse_setattr_in *in)
{
    struct timespec now;

    fuse_op_update_mtime(file);
    clock_gettime(CLOCK_REALTIME, &now);
    if (in->valid & FATTR_ATIME_NOW) {
        file->atime = now;
    } else if (in->valid & FATTR_ATIME) {
        file->atime = (struct timespec) { in->atime, in->atimensec };
    }
    if (in->valid & FATTR_MTIME_NOW) {
        file->mtime = now;
    } else if (in->valid & FATTR_MTIME) {
        file->mtime = (struct timespec) { in->mtime, in->mtimensec };
    }
    file->ctime = now;
}

/* Both directions work; what is new reads as zeroes.  attr_lock held. */
static int coroutine_fn fuse_op_co_truncate(FuseFile *file, int64_t size)
{
    if (!file->resizable) {
        int64_t length = fuse_op_co_length(file);

        return length < 0 ? length : length == size ? 0 : -EPERM;
    }
    return blk_co_truncate(file->blk, size, PREALLOC_MODE_OFF,
                           BDRV_REQ_ZERO_WRITE, NULL);
}

static int coroutine_fn fuse_op_co_setattr(FuseFile *file, FuseRequest *req)
{
    const struct fuse_setattr_in *in = req->arg;
    int ret = fuse_op_check_setattr(file, in);

    if (ret < 0) {
        return ret;
    }
    co_mutex_lock(&file->attr_lock);
    if (in->valid & FATTR_SIZE) {
        ret = fuse_op_co_truncate(file, in->size);
        if (ret < 0) {
            goto out;
        }
        fuse_op_mark_modified(file);
    }
    if (in->valid & (FATTR_KILL_SUIDGID | FATTR_UID | FATTR_GID)) {
        fuse_op_kill_suidgid(file);
    }
    if (in->valid & FATTR_MODE) {
        __atomic_store_n(&file->mode, S_IFREG | (in->mode & 07777),
                         __ATOMIC_RELAXED);
    }
    if (in->valid & FATTR_UID) {
        file->uid = in->uid;
    }
    if (in->valid & FATTR_GID) {
        file->gid = in->gid;
    }
    fuse_op_set_times(file, in);
    ret = fuse_op_co_reply_attr(file, req);
out:
    co_mutex_unlock(&file->attr_lock);
    return ret;
}

static int coroutine_fn fuse_op_co_statfs(FuseFile *file, FuseRequest *req)
{
    uint32_t bsize = MAX(512u, blk_get_request_alignment(file->blk));
    int64_t length = fuse_op_co_length(file);

    if (length < 0) {
        return length;
    }
    *(struct fuse_statfs_out *)req->payload = (struct fuse_statfs_out) {
        .st = {
            .blocks = length / bsize + (length % bsize != 0),
            .files = 1,
            .bsize = bsize,
            .frsize = bsize,
            .namelen = 255,
        },
    };
    return sizeof(struct fuse_statfs_out);
}

/* ---- open files ---- */

static int coroutine_fn fuse_op_co_open(FuseFile *file, FuseRequest *req)
{
    const struct fuse_open_in *in = req->arg;

    if (in->open_flags & FUSE_OPEN_KILL_SUIDGID) {
        fuse_op_co_kill_suidgid(file);
    }
    __atomic_add_fetch(&file->open_count, 1, __ATOMIC_RELAXED);
    *(struct fuse_open_out *)req->payload = (struct fuse_open_out) {
        .open_flags = FOPEN_DIRECT_IO | FOPEN_PARALLEL_DIRECT_WRITES,
    };
    return sizeof(struct fuse_open_out);
}

static int coroutine_fn fuse_op_co_release(FuseFile *file, FuseRequest *req)
{
    unsigned n = __atomic_load_n(&file->open_count, __ATOMIC_RELAXED);

    /* A peer that releases more than it opened must not wrap the count. */
    while (n > 0
           && !__atomic_compare_exchange_n(&file->open_count, &n, n - 1, true,
                                           __ATOMIC_RELAXED,
                                           __ATOMIC_RELAXED)) {
    }
    return 0;
}

static int coroutine_fn fuse_op_co_lookup(FuseFile *file, FuseRequest *req)
{
    return -ENOENT;             /* a regular file has no entries */
}

static int coroutine_fn fuse_op_co_nothing(FuseFile *file, FuseRequest *req)
{
    return 0;
}

/* ---- signals to clients ---- */

static unsigned fuse_op_interrupted_slot(uint64_t unique)
{
    return unique / 2 % FUSE_INTERRUPTED;       /* the lowest bit is not used */
}

/* Most requests have ended before anybody looks at this: see fuse.c. */
static int coroutine_fn fuse_op_co_interrupt(FuseFile *file, FuseRequest *req)
{
    const struct fuse_interrupt_in *in = req->arg;

    __atomic_store_n(&file->interrupted[fuse_op_interrupted_slot(in->unique)],
                     in->unique, __ATOMIC_RELAXED);
    return 0;
}

/* The mask @name of a thread's status in /proc. */
static uint64_t fuse_op_signal_mask(const char *status, const char *name)
{
    const char *at = strstr(status, name);

    return at ? strtoull(at + strlen(name), NULL, 16) : 0;
}

/*
 * Any signal interrupts, a timer's too, after which the client would only begin
 * again.  Whoever is to die has SIGKILL pending, whatever the signal was.
 */
bool fuse_op_client_killed(const FuseFile *file, const FuseRequest *req)
{
    unsigned slot = fuse_op_interrupted_slot(req->in->unique);
    g_autofree char *path = NULL;
    g_autofree char *status = NULL;

    if (__atomic_load_n(&file->interrupted[slot], __ATOMIC_RELAXED)
        != req->in->unique) {
        return false;
    }
    path = g_strdup_printf("/proc/%u/status", req->in->pid);
    return g_file_get_contents(path, &status, NULL, NULL)
           && ((fuse_op_signal_mask(status, "\nSigPnd:")
                | fuse_op_signal_mask(status, "\nShdPnd:"))
               & (UINT64_C(1) << (SIGKILL - 1)));
}

/* ---- data ---- */

static int coroutine_fn fuse_op_co_read(FuseFile *file, FuseRequest *req)
{
    const struct fuse_read_in *in = req->arg;
    QEMUIOVector qiov;
    int64_t length;
    int ret;

    if (in->offset > BDRV_MAX_LENGTH || in->size > req->payload_size) {
        return -EINVAL;
    }
    length = blk_getlength(file->blk);
    if (length < 0) {
        return length;
    }
    if (in->offset >= length) {
        return 0;
    }
    qemu_iovec_init_buf(&qiov, req->payload,
                        MIN(in->size, length - (int64_t)in->offset));
    if (qiov.size == 0) {
        return 0;
    }
    ret = blk_co_preadv(file->blk, in->offset, &qiov, 0);
    return ret < 0 ? ret : qiov.size;
}

/* ---- growing ---- */

/*
 * Make a file of @length bytes at least @end bytes long, and return how long it
 * is then (which some formats round up); what is new reads as zeroes.
 * attr_lock is held until all is done that needs the length: undoing it must
 * take nothing from other clients.
 */
static int64_t coroutine_fn fuse_op_co_grow(FuseFile *file, int64_t length,
                                            int64_t end, PreallocMode prealloc)
{
    int ret;

    if (length < 0 || length >= end) {
        return length;
    }
    if (!file->resizable) {
        return -EPERM;
    }
    if (end > BDRV_MAX_LENGTH) {
        return -EFBIG;
    }
    ret = blk_co_truncate(file->blk, end, prealloc, BDRV_REQ_ZERO_WRITE,
                          NULL);
    return ret < 0 ? ret : fuse_op_co_length(file);
}

/*
 * What the file grew for, from @length to @grown bytes, has failed: clients
 * must find it as it was.
 */
static void coroutine_fn fuse_op_co_shrink_back(FuseFile *file, int64_t length,
                                                int64_t grown)
{
    const CoCancel *cancel = coroutine_set_cancel(NULL);

    if (grown > length && fuse_op_co_length(file) == grown) {
        blk_co_truncate(file->blk, length, PREALLOC_MODE_OFF, 0, NULL);
    }
    coroutine_set_cancel(cancel);
}

/* ---- writing ---- */

static int coroutine_fn fuse_op_co_append(FuseFile *file, int64_t offset,
                                          QEMUIOVector *qiov,
                                          BdrvRequestFlags flags)
{
    int64_t length, grown, ret;

    co_mutex_lock(&file->attr_lock);
    length = fuse_op_co_length(file);
    ret = grown = fuse_op_co_grow(file, length, offset + qiov->size,
                                  PREALLOC_MODE_OFF);
    if (grown >= 0) {
        ret = blk_co_pwritev(file->blk, offset, qiov, flags);
        if (ret < 0) {
            fuse_op_co_shrink_back(file, length, grown);
        }
    }
    co_mutex_unlock(&file->attr_lock);
    return MIN(ret, 0);
}

static int coroutine_fn fuse_op_co_write(FuseFile *file, FuseRequest *req)
{
    const struct fuse_write_in *in = req->arg;
    /* O_SYNC contains it.  The kernel sends no FSYNC after such a write. */
    BdrvRequestFlags flags = in->flags & O_DSYNC ? BDRV_REQ_FUA : 0;
    QEMUIOVector qiov;
    int64_t length, room;
    size_t size = in->size;
    int ret = 0;

    if (!file->writable) {
        return -EACCES;
    }
    if (in->offset > BDRV_MAX_LENGTH || size > req->payload_len) {
        return -EINVAL;
    }
    length = blk_getlength(file->blk);
    if (length < 0) {
        return length;
    }
    room = length - (int64_t)in->offset;
    if (room <= 0 && size > 0 && !file->growable) {
        return -ENOSPC;         /* as a block device says at its end */
    }
    if ((int64_t)size > room && !file->growable) {
        size = MAX(room, 0);
    }
    /* Writing nothing does nothing, wherever it is. */
    if (size > 0) {
        if (in->write_flags & FUSE_WRITE_KILL_SUIDGID) {
            fuse_op_co_kill_suidgid(file);
        }
        qemu_iovec_init_buf(&qiov, req->payload, size);
        ret = (int64_t)size > room
              ? fuse_op_co_append(file, in->offset, &qiov, flags)
              : blk_co_pwritev(file->blk, in->offset, &qiov, flags);
        if (ret < 0) {
            return ret;
        }
        fuse_op_mark_modified(file);
    }
    /* The data is consumed: its buffer may take the reply. */
    *(struct fuse_write_out *)req->payload = (struct fuse_write_out) {
        .size = size,
    };
    return sizeof(struct fuse_write_out);
}

static int coroutine_fn fuse_op_co_flush(FuseFile *file, FuseRequest *req)
{
    return blk_co_flush(file->blk);
}

/* ---- space ---- */

/* Zeroes in [@offset, @end), of which what lies past the file's end is cut. */
static int coroutine_fn fuse_op_co_zero(FuseFile *file, int64_t offset,
                                        int64_t end, BdrvRequestFlags flags)
{
    int64_t length = fuse_op_co_length(file);

    if (length < 0) {
        return length;
    }
    end = MIN(end, length);
    if (offset >= end) {
        return 0;
    }
    fuse_op_mark_modified(file);
    return blk_co_pwrite_zeroes(file->blk, offset, end - offset, flags);
}

/* Space for [@offset, @end), all of it past the end; attr_lock held. */
static int coroutine_fn fuse_op_co_allocate(FuseFile *file, int64_t offset,
                                            int64_t end)
{
    int64_t length = fuse_op_co_length(file);
    int64_t gap, ret;

    /* Inside the file, callers emulate it by writing: posix_fallocate. */
    if (length >= 0 && offset < length && (end <= length || file->resizable)) {
        return -EOPNOTSUPP;
    }
    /* The gap before the range stays a hole. */
    gap = fuse_op_co_grow(file, length, offset, PREALLOC_MODE_OFF);
    if (gap < 0) {
        return gap;
    }
    ret = fuse_op_co_grow(file, gap, end, PREALLOC_MODE_FALLOC);
    if (ret < 0) {
        fuse_op_co_shrink_back(file, length, gap);
    }
    return MIN(ret, 0);
}

/* Zeroes in [@offset, @end), and the file as long as that; attr_lock held. */
static int coroutine_fn fuse_op_co_zero_growing(FuseFile *file, int64_t offset,
                                                int64_t end)
{
    int64_t length = fuse_op_co_length(file);
    int64_t grown = fuse_op_co_grow(file, length, end, PREALLOC_MODE_OFF);
    int ret;

    if (grown < 0) {
        return grown;
    }
    ret = fuse_op_co_zero(file, offset, end, 0);
    if (ret < 0) {
        fuse_op_co_shrink_back(file, length, grown);
    }
    return ret;
}

static int coroutine_fn fuse_op_co_fallocate(FuseFile *file, FuseRequest *req)
{
    const struct fuse_fallocate_in *in = req->arg;
    int64_t end;
    int ret;

    if (!file->writable) {
        return -EACCES;
    }
    if (in->offset > BDRV_MAX_LENGTH
        || in->length > BDRV_MAX_LENGTH - in->offset) {
        return -EFBIG;
    }
    if (in->length == 0) {
        return -EINVAL;
    }
    end = in->offset + in->length;
    /* Nothing in the request says it. */
    if (req->in->uid != 0) {
        fuse_op_co_kill_suidgid(file);
    }

    switch (in->mode) {
    case 0:
    case FALLOC_FL_ZERO_RANGE:
        co_mutex_lock(&file->attr_lock);
        ret = in->mode == 0
              ? fuse_op_co_allocate(file, in->offset, end)
              : fuse_op_co_zero_growing(file, in->offset, end);
        fuse_op_mark_modified(file);
        co_mutex_unlock(&file->attr_lock);
        return ret;

    case FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE:
        /* A hole reads as zeroes, whatever a discard would have left. */
        return fuse_op_co_zero(file, in->offset, end, BDRV_REQ_MAY_UNMAP);

    case FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE:
        return fuse_op_co_zero(file, in->offset, end, 0);

    default:
        return -EOPNOTSUPP;
    }
}

/*
 * SEEK_DATA, SEEK_HOLE: walk the block status from @offset on.  What reads as
 * zeroes without storage is a hole; the end of the file is one, too.
 */
static int coroutine_fn fuse_op_co_lseek(FuseFile *file, FuseRequest *req)
{
    const struct fuse_lseek_in *in = req->arg;
    int64_t offset = in->offset;
    int64_t length;

    if (in->whence != SEEK_DATA && in->whence != SEEK_HOLE) {
        return -EINVAL;
    }
    length = fuse_op_co_length(file);
    if (length < 0) {
        return length;
    }
    if (in->offset >= length) {
        return -ENXIO;
    }
    while (offset < length) {
        int64_t pnum = 0;
        int status = blk_co_block_status(file->blk, offset, length - offset,
                                         &pnum);
        bool hole;

        if (status < 0) {
            return status;
        }
        hole = (status & BDRV_BLOCK_ZERO) && !(status & BDRV_BLOCK_DATA);
        if (hole == (in->whence == SEEK_HOLE)) {
            break;
        }
        if (pnum <= 0) {        /* shrunk meanwhile: this is the end */
            offset = length;
            break;
        }
        offset += pnum;
    }
    if (offset >= length) {
        if (in->whence == SEEK_DATA) {
            return -ENXIO;
        }
        offset = length;
    }
    *(struct fuse_lseek_out *)req->payload = (struct fuse_lseek_out) {
        .offset = offset,
    };
    return sizeof(struct fuse_lseek_out);
}

/* ---- the table ---- */

typedef struct FuseOp {
    FuseOpFunc *co_run;         /* NULL: ENOSYS */
    uint16_t arg_size;          /* bytes of the fixed argument */
    bool no_reply;
} FuseOp;

static const FuseOp fuse_ops[] = {
    [FUSE_LOOKUP] = { fuse_op_co_lookup, 0 },
    [FUSE_FORGET] = { fuse_op_co_nothing, sizeof(struct fuse_forget_in),
                      .no_reply = true },
    [FUSE_BATCH_FORGET] = { fuse_op_co_nothing,
                            sizeof(struct fuse_batch_forget_in),
                            .no_reply = true },
    [FUSE_INTERRUPT] = { fuse_op_co_interrupt,
                         sizeof(struct fuse_interrupt_in), .no_reply = true },
    [FUSE_GETATTR] = { fuse_op_co_getattr, sizeof(struct fuse_getattr_in) },
    [FUSE_SETATTR] = { fuse_op_co_setattr, sizeof(struct fuse_setattr_in) },
    [FUSE_OPEN] = { fuse_op_co_open, sizeof(struct fuse_open_in) },
    [FUSE_READ] = { fuse_op_co_read, sizeof(struct fuse_read_in) },
    [FUSE_WRITE] = { fuse_op_co_write, sizeof(struct fuse_write_in) },
    [FUSE_STATFS] = { fuse_op_co_statfs, 0 },
    [FUSE_RELEASE] = { fuse_op_co_release, sizeof(struct fuse_release_in) },
    [FUSE_FSYNC] = { fuse_op_co_flush, sizeof(struct fuse_fsync_in) },
    [FUSE_FLUSH] = { fuse_op_co_flush, sizeof(struct fuse_flush_in) },
    [FUSE_DESTROY] = { fuse_op_co_nothing, 0 },
    [FUSE_FALLOCATE] = { fuse_op_co_fallocate,
                         sizeof(struct fuse_fallocate_in) },
    [FUSE_LSEEK] = { fuse_op_co_lseek, sizeof(struct fuse_lseek_in) },
    [FUSE_INIT] = { NULL, sizeof(struct fuse_init_in) },
};

static const FuseOp *fuse_op_find(uint32_t opcode)
{
    static const FuseOp unknown = { NULL };

    return opcode < G_N_ELEMENTS(fuse_ops) ? &fuse_ops[opcode] : &unknown;
}

size_t fuse_op_arg_size(uint32_t opcode)
{
    return fuse_op_find(opcode)->arg_size;
}

bool fuse_op_has_reply(uint32_t opcode)
{
    return !fuse_op_find(opcode)->no_reply;
}

int coroutine_fn fuse_op_co_run(FuseFile *file, FuseRequest *req)
{
    const FuseOp *op = fuse_op_find(req->in->opcode);

    if (!op->co_run) {
        return -ENOSYS;
    }
    if (req->arg_len < op->arg_size) {
        return -EINVAL;
    }
    return op->co_run(file, req);
}
