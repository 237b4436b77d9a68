/* SPDX-License-Identifier: MIT */
/*
 * Space in files and devices: length, holes, discard, zeroes, truncate.
 *
 * These calls may block for long, so all but fstat() go to the thread pool.
 * What a file turns out not to support is remembered and not tried again.
 *
 * What takes space looks first whether there can be enough, and gives back what
 * it has taken if it fails: others use the same file system.
 *
 * Lengths change in truncate (main thread) and by growing writes (any thread).
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "block/file-posix.h"
#include "util/named-file.h"

#define FULL_CHUNK (1024 * 1024)

/* Requests for less than this need not ask whether there is room. */
#define ROOM_BYTES (16 * 1024 * 1024)

/* ---- length ---- */

int64_t file_length(const FileState *s)
{
    if (S_ISBLK(s->type)) {
        uint64_t size;

        return ioctl(s->fd, BLKGETSIZE64, &size) < 0 ? -errno
                                                     : (int64_t)size;
    } else {
        int64_t end = lseek(s->fd, 0, SEEK_END);

        return end < 0 ? -errno : end;
    }
}

typedef struct SizeCall {
    const FileState *s;
    int64_t length;
    int64_t allocated;          /* or free */
} SizeCall;

static int length_call(void *opaque)
{
    SizeCall *call = opaque;

    call->length = file_length(call->s);
    return 0;
}

static int stat_call(void *opaque)
{
    SizeCall *call = opaque;
    struct stat st;

    if (fstat(call->s->fd, &st) < 0) {
        return -errno;
    }
    call->length = st.st_size;
    call->allocated = (int64_t)st.st_blocks * 512;
    return 0;
}

int64_t coroutine_fn file_co_getlength(BlockDriverState *bs)
{
    FileState *s = bs->opaque;
    SizeCall call = { .s = s };
    int ret = file_co_io(s, s->local_fs, length_call, &call);

    return ret < 0 ? ret : call.length;
}

int64_t coroutine_fn file_co_get_allocated_file_size(BlockDriverState *bs)
{
    FileState *s = bs->opaque;
    SizeCall call = { .s = s };
    int ret = file_co_io(s, s->local_fs, stat_call, &call);

    return ret < 0 ? ret : call.allocated;
}

/*
 * What the file system has left for us, as far as it says.  It may be less: a
 * quota, and what the file system itself needs, are seen only when trying.
 */
static int64_t file_free_bytes(int fd)
{
    struct statvfs st;
    uint64_t blocks;

    if (fstatvfs(fd, &st) < 0 || st.f_blocks == 0 || st.f_frsize == 0) {
        return INT64_MAX;
    }
    blocks = geteuid() == 0 ? st.f_bfree : st.f_bavail;
    return blocks > INT64_MAX / st.f_frsize ? INT64_MAX
                                            : (int64_t)(blocks * st.f_frsize);
}

static int free_call(void *opaque)
{
    SizeCall *call = opaque;

    call->allocated = file_free_bytes(call->s->fd);
    return 0;
}

int64_t coroutine_fn file_co_get_free_bytes(BlockDriverState *bs)
{
    FileState *s = bs->opaque;
    SizeCall call = { .s = s, .allocated = INT64_MAX };

    if (S_ISREG(s->type)) {
        file_co_io(s, s->local_fs, free_call, &call);
    }
    return call.allocated;
}

/* ---- holes ---- */

typedef struct SeekCall {
    int fd;
    int64_t offset;
    int64_t data;               /* where data begins; INT64_MAX: nowhere */
    int64_t hole;               /* where it ends, valid if data == offset */
} SeekCall;

static int seek_call(void *opaque)
{
    SeekCall *call = opaque;

    call->data = lseek(call->fd, call->offset, SEEK_DATA);
    if (call->data < 0) {
        if (errno != ENXIO) {
            return -errno;
        }
        call->data = INT64_MAX;
        return 0;
    }
    if (call->data == call->offset) {
        call->hole = lseek(call->fd, call->offset, SEEK_HOLE);
        if (call->hole < 0) {
            return -errno;
        }
    }
    return 0;
}

/*
 * Regions end on multiples of the alignment, so that requests can follow them:
 * a block that is a hole in part counts as data.
 */
static int region_from_seek(const FileState *s, const SeekCall *call,
                            int64_t bytes, int64_t *pnum)
{
    int64_t len;

    if (call->data == INT64_MAX) {
        *pnum = bytes;
        return BDRV_BLOCK_ZERO;
    }
    if (call->data > call->offset) {
        len = call->data - call->offset;
        len -= len % s->align;
        if (len > 0) {
            *pnum = MIN(len, bytes);
            return BDRV_BLOCK_ZERO;
        }
        len = s->align;
    } else {
        len = MAX(call->hole - call->offset, 1);
        len = MIN(len, bytes);
        len += (s->align - len % s->align) % s->align;
    }
    *pnum = MIN(len, bytes);
    return BDRV_BLOCK_DATA;
}

int coroutine_fn file_co_block_status(BlockDriverState *bs, int64_t offset,
                                      int64_t bytes, int64_t *pnum,
                                      int64_t *map, BlockDriverState **file)
{
    FileState *s = bs->opaque;
    SeekCall call = { .fd = s->fd, .offset = offset };
    int64_t length = bdrv_getlength(bs);
    int ret = BDRV_BLOCK_DATA;

    *pnum = bytes;
    *map = offset;
    *file = bs;
    if (offset >= length) {
        *pnum = 0;
        return BDRV_BLOCK_EOF;
    }
    if (file_can(&s->can_seek_hole)) {
        if (file_co_io(s, false, seek_call, &call) < 0) {
            file_cannot(&s->can_seek_hole);
        } else {
            ret = region_from_seek(s, &call, bytes, pnum);
        }
    }
    if (offset + *pnum >= length) {
        ret |= BDRV_BLOCK_EOF;
    }
    return ret | BDRV_BLOCK_ALLOCATED | BDRV_BLOCK_OFFSET_VALID;
}

/* ---- discard and zeroes ---- */

typedef struct DiscardCall {
    int fd;
    uint64_t range[2];          /* offset, length */
} DiscardCall;

static int discard_call(void *opaque)
{
    DiscardCall *call = opaque;

    return ioctl(call->fd, BLKDISCARD, call->range) < 0 ? -errno : 0;
}

static bool on_blocks(const FileState *s, int64_t offset, int64_t bytes)
{
    return offset % s->block_size == 0 && bytes % s->block_size == 0;
}

/* Note a lacking capability. */
static int learn(bool *capability, int ret)
{
    if (ret == -ENOTSUP || ret == -ENOTTY) {
        file_cannot(capability);
        return -ENOTSUP;
    }
    return ret;
}

static int coroutine_fn co_punch_hole(FileState *s, int64_t offset,
                                      int64_t bytes)
{
    if (!file_can(&s->can_punch_hole)) {
        return -ENOTSUP;
    }
    return learn(&s->can_punch_hole,
                 file_co_fallocate(s, FALLOC_FL_PUNCH_HOLE
                                      | FALLOC_FL_KEEP_SIZE, offset, bytes));
}

static int coroutine_fn co_zero_range(FileState *s, int mode, int64_t offset,
                                      int64_t bytes)
{
    if (!file_can(&s->can_zero_range)) {
        return -ENOTSUP;
    }
    return learn(&s->can_zero_range,
                 file_co_fallocate(s, FALLOC_FL_ZERO_RANGE | mode, offset,
                                   bytes));
}

static int coroutine_fn co_allocate(FileState *s, int64_t offset,
                                    int64_t bytes)
{
    if (!file_can(&s->can_fallocate)) {
        return -ENOTSUP;
    }
    return learn(&s->can_fallocate, file_co_fallocate(s, 0, offset, bytes));
}

static int coroutine_fn co_discard(FileState *s, int64_t offset,
                                   int64_t bytes)
{
    DiscardCall call = { .fd = s->fd, .range = { offset, bytes } };

    if (S_ISREG(s->type)) {
        return co_punch_hole(s, offset, bytes);
    }
    if (!file_can(&s->can_discard) || !on_blocks(s, offset, bytes)) {
        return -ENOTSUP;
    }
    return learn(&s->can_discard, file_co_io(s, false, discard_call, &call));
}

int coroutine_fn file_co_pdiscard(BlockDriverState *bs, int64_t offset,
                                  int64_t bytes)
{
    FileState *s = bs->opaque;
    int ret;

    if (!bs->discard_unmap) {
        return -ENOTSUP;
    }
    ret = co_discard(s, offset, bytes);
    if (ret < 0) {
        __atomic_fetch_add(&s->discards_failed, 1, __ATOMIC_RELAXED);
    } else {
        __atomic_fetch_add(&s->discards_ok, 1, __ATOMIC_RELAXED);
        __atomic_fetch_add(&s->discarded_bytes, bytes, __ATOMIC_RELAXED);
    }
    return ret;
}

static int coroutine_fn co_zero_device(FileState *s, int64_t offset,
                                       int64_t bytes, BdrvRequestFlags flags)
{
    int ret = -ENOTSUP;

    if (!S_ISBLK(s->type) || !on_blocks(s, offset, bytes)) {
        return -ENOTSUP;
    }
    if (flags & BDRV_REQ_MAY_UNMAP) {
        ret = co_punch_hole(s, offset, bytes);
    }
    /* A device that lacks the command is written to by the kernel. */
    if (ret == -ENOTSUP && !(flags & BDRV_REQ_NO_FALLBACK)) {
        ret = co_zero_range(s, FALLOC_FL_KEEP_SIZE, offset, bytes);
    }
    /* The device is in use elsewhere (mounted): plain writes still work. */
    return ret == -EBUSY || ret == -EINVAL ? -ENOTSUP : ret;
}

typedef struct RangeCall {
    int fd;
    int64_t offset, end;
} RangeCall;

/* Of [offset, end), what has space but no data becomes holes. */
static int punch_zeroes_call(void *opaque)
{
    RangeCall *call = opaque;
    int64_t hole = call->offset, data;

    while (hole < call->end) {
        hole = lseek(call->fd, hole, SEEK_HOLE);
        if (hole < 0 || hole >= call->end) {
            break;
        }
        data = lseek(call->fd, hole, SEEK_DATA);
        data = data < 0 ? call->end : MIN(data, call->end);
        if (fallocate(call->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                      hole, data - hole) < 0) {
            break;
        }
        hole = data;
    }
    return 0;
}

/*
 * Zeroes with space behind them.  If there is not enough, holes stay holes, and
 * the parts that had space and no data become some.
 */
static int coroutine_fn co_zero_and_allocate(FileState *s, int64_t offset,
                                             int64_t bytes,
                                             const SizeCall *size)
{
    RangeCall range = { .fd = s->fd, .offset = offset, .end = offset + bytes };
    SizeCall room = { .s = s };
    bool inside = offset + bytes <= size->length;
    int ret;

    if (bytes - size->allocated > ROOM_BYTES
        && file_co_io(s, s->local_fs, free_call, &room) >= 0
        && bytes - size->allocated > room.allocated) {
        return -ENOSPC;
    }
    ret = co_zero_range(s, 0, offset, bytes);
    if (ret == -ENOTSUP && inside) {
        ret = co_punch_hole(s, offset, bytes);
        if (ret >= 0) {
            ret = co_allocate(s, offset, bytes);
        }
    } else if (ret == -ENOTSUP && offset >= size->length) {
        ret = co_allocate(s, offset, bytes);
    }
    if (ret == -ENOSPC || ret == -EDQUOT) {
        file_co_io(s, false, punch_zeroes_call, &range);
    }
    return ret;
}

int coroutine_fn file_co_pwrite_zeroes(BlockDriverState *bs, int64_t offset,
                                       int64_t bytes, BdrvRequestFlags flags)
{
    FileState *s = bs->opaque;
    SizeCall size = { .s = s };
    int ret;

    if (!S_ISREG(s->type)) {
        return co_zero_device(s, offset, bytes, flags);
    }
    ret = file_co_io(s, s->local_fs, stat_call, &size);
    if (ret < 0) {
        return ret;
    }
    /* A hole punched past the end would not lengthen the file. */
    if (offset + bytes <= size.length && (flags & BDRV_REQ_MAY_UNMAP)) {
        ret = co_punch_hole(s, offset, bytes);
        if (ret != -ENOTSUP) {
            return ret;
        }
    }
    return co_zero_and_allocate(s, offset, bytes, &size);
}

/* ---- truncate ---- */

static int resize(int fd, int64_t offset)
{
    int ret;

    do {
        ret = ftruncate(fd, offset);
    } while (ret < 0 && errno == EINTR);
    return ret < 0 ? -errno : 0;
}

/*
 * Ends that are cut off in the middle (kill -9) leave the length as it was: at
 * first only the space is taken.  0 also where that cannot be done.
 */
static int fallocate_behind_end(int fd, int64_t old, int64_t offset)
{
    int ret;

    if (offset - old > file_free_bytes(fd)) {
        return -ENOSPC;
    }
    do {
        ret = fallocate(fd, FALLOC_FL_KEEP_SIZE, old, offset - old);
    } while (ret < 0 && errno == EINTR);
    return ret < 0 && errno != EOPNOTSUPP && errno != ENOSYS ? -errno : 0;
}

static int preallocate_falloc(int fd, int64_t old, int64_t offset,
                              Error **errp)
{
    int ret = fallocate_behind_end(fd, old, offset);

    /* posix_fallocate() writes where the file system lacks fallocate(). */
    while (ret == 0 || ret == -EINTR) {
        ret = -posix_fallocate(fd, old, offset - old);
        if (ret == 0) {
            return 0;
        }
    }

    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not preallocate new data");
    }
    return ret;
}

static int write_zeroes_buffered(int fd, int64_t offset, int64_t end)
{
    g_autofree void *buf = g_malloc0(FULL_CHUNK);

    if (end - offset > file_free_bytes(fd)) {
        return -ENOSPC;
    }
    while (offset < end) {
        ssize_t n = pwrite(fd, buf, MIN(end - offset, FULL_CHUNK), offset);

        if (n == 0) {
            return -ENOSPC;
        }
        if (n < 0 && errno != EINTR) {
            return -errno;
        }
        offset += MAX(n, 0);
    }
    return fsync(fd) < 0 ? -errno : 0;
}

/* Through an fd of its own: neither end need suit O_DIRECT. */
static int preallocate_full(int file_fd, int64_t old, int64_t offset,
                            Error **errp)
{
    int fd = named_file_reopen(file_fd, NULL, O_WRONLY, errp);
    int ret;

    if (fd < 0) {
        error_prepend(errp, "Could not reopen file: ");
        return fd;
    }
    ret = write_zeroes_buffered(fd, old, offset);
    close(fd);
    if (ret < 0) {
        error_setg_errno(errp, -ret,
                         "Could not write zeros for preallocation");
    }
    return ret;
}

int file_truncate(FileState *s, int64_t offset, PreallocMode prealloc,
                  Error **errp)
{
    int64_t old = file_length(s);
    int ret;

    if (prealloc == PREALLOC_MODE_METADATA) {
        error_setg(errp, "Unsupported preallocation mode: %s",
                   PreallocMode_str(prealloc));
        return -ENOTSUP;
    }
    if (old < 0) {
        error_setg_errno(errp, -old, "Could not get file length");
        return old;
    }
    if (prealloc != PREALLOC_MODE_OFF && offset < old) {
        error_setg(errp, "Cannot use preallocation for shrinking files");
        return -ENOTSUP;
    }
    if (prealloc == PREALLOC_MODE_OFF || offset == old) {
        ret = resize(s->fd, offset);
        if (ret < 0) {
            error_setg_errno(errp, -ret, "Could not resize file");
        }
        return ret;
    }
    ret = prealloc == PREALLOC_MODE_FALLOC
        ? preallocate_falloc(s->fd, old, offset, errp)
        : preallocate_full(s->fd, old, offset, errp);
    if (ret < 0) {
        /* Also what was taken behind an end that has not moved. */
        resize(s->fd, old);
    }
    return ret;
}

typedef struct TruncateCall {
    FileState *s;
    int64_t offset;
    PreallocMode prealloc;
    Error **errp;
} TruncateCall;

static int truncate_call(void *opaque)
{
    TruncateCall *call = opaque;

    return file_truncate(call->s, call->offset, call->prealloc, call->errp);
}

static int coroutine_fn co_truncate_device(BlockDriverState *bs,
                                           int64_t offset,
                                           PreallocMode prealloc,
                                           Error **errp)
{
    int64_t length;

    if (prealloc != PREALLOC_MODE_OFF) {
        error_setg(errp, "Preallocation mode '%s' unsupported for this "
                   "non-regular file", PreallocMode_str(prealloc));
        return -ENOTSUP;
    }
    length = file_co_getlength(bs);
    if (length < 0) {
        error_setg_errno(errp, -length, "Could not get device length");
        return length;
    }
    if (length != offset) {
        error_setg(errp, "Cannot resize device files");
        return -ENOTSUP;
    }
    return 0;
}

int coroutine_fn file_co_truncate(BlockDriverState *bs, int64_t offset,
                                  PreallocMode prealloc,
                                  BdrvRequestFlags flags, Error **errp)
{
    FileState *s = bs->opaque;
    TruncateCall call = {
        .s = s, .offset = offset, .prealloc = prealloc, .errp = errp,
    };

    if (!S_ISREG(s->type)) {
        return co_truncate_device(bs, offset, prealloc, errp);
    }
    return file_co_io(s, false, truncate_call, &call);
}
