/* SPDX-License-Identifier: MIT */
/*
 * Making a file: blockdev-create for the driver "file".
 *
 * The file is locked like one that is written to and resized, so that nobody's
 * image is emptied while it is in use.  All of it runs in a pool thread.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "block/file-posix.h"
#include "util/named-file.h"

#define DEFAULT_EXTENT_SIZE_HINT (1024 * 1024)

typedef struct CreateCall {
    const BlockdevCreateOptionsFile *opts;
    FileState s;                /* as far as these functions need it */
    Error **errp;
} CreateCall;

static int lock_file(CreateCall *call)
{
    const FileLocks locks = {
        .perm = BLK_PERM_WRITE | BLK_PERM_RESIZE,
        .unshared = BLK_PERM_RESIZE,
    };
    int fd = call->s.fd;
    int ret;

    if (!file_locks_available(fd)) {
        return 0;
    }
    ret = file_locks_take(fd, locks, call->errp);
    return ret < 0 ? ret : file_locks_check(fd, locks, call->opts->filename,
                                            call->errp);
}

/* Wishes that not every file system knows of; it is no error if it doesn't. */
static void set_attributes(const CreateCall *call)
{
    const BlockdevCreateOptionsFile *opts = call->opts;
    uint64_t hint = opts->has_extent_size_hint ? opts->extent_size_hint
                                               : DEFAULT_EXTENT_SIZE_HINT;
    struct fsxattr xattr;
    int flags;

    if (opts->has_nocow && opts->nocow
        && ioctl(call->s.fd, FS_IOC_GETFLAGS, &flags) == 0) {
        flags |= FS_NOCOW_FL;
        ioctl(call->s.fd, FS_IOC_SETFLAGS, &flags);
    }
    if (hint && ioctl(call->s.fd, FS_IOC_FSGETXATTR, &xattr) == 0) {
        xattr.fsx_xflags |= FS_XFLAG_EXTSIZE;
        xattr.fsx_extsize = hint;
        ioctl(call->s.fd, FS_IOC_FSSETXATTR, &xattr);
    }
}

/* Both attributes can only be set while the file is empty. */
static int fill_file(CreateCall *call)
{
    const BlockdevCreateOptionsFile *opts = call->opts;
    PreallocMode prealloc = opts->has_preallocation ? opts->preallocation
                                                    : PREALLOC_MODE_OFF;
    int ret = lock_file(call);

    if (ret < 0) {
        return ret;
    }
    ret = file_truncate(&call->s, 0, PREALLOC_MODE_OFF, call->errp);
    if (ret < 0) {
        return ret;
    }
    set_attributes(call);
    return file_truncate(&call->s, opts->size, prealloc, call->errp);
}

static int create_call(void *opaque)
{
    CreateCall *call = opaque;
    const char *filename = call->opts->filename;
    struct stat st;
    int ret;

    /* What is no regular file fails further down. */
    call->s.fd = named_file_create(filename, O_RDWR, 0644, false, NULL,
                                   call->errp);
    if (call->s.fd < 0) {
        error_prepend(call->errp, "Could not create '%s': ", filename);
        return call->s.fd;
    }
    call->s.type = fstat(call->s.fd, &st) == 0 ? st.st_mode & S_IFMT : 0;
    ret = fill_file(call);

    /* The first close to notice that data was lost, on network file systems. */
    if (close(call->s.fd) < 0 && ret >= 0 && errno != EINTR) {
        ret = -errno;
        error_setg_errno(call->errp, -ret,
                         "Could not close the new file '%s'", filename);
    }
    return ret;
}

bool coroutine_fn file_co_create(const BlockdevCreateOptions *options,
                                 Error **errp)
{
    CreateCall call = { .opts = &options->u.file, .errp = errp };

    if (call.opts->has_extent_size_hint
        && call.opts->extent_size_hint > UINT32_MAX) {
        error_setg(errp, "Extent size hint is too large");
        return false;
    }
    return file_co_call(false, create_call, &call) >= 0;
}
