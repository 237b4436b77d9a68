/* SPDX-License-Identifier: MIT */
/*
 * FUSE: INIT, in which kernel and export agree on a version and on features.
 *
 * The first request of a connection, and the only one outside of the graph:
 * main thread, and no waiting.  Source: include/uapi/linux/fuse.h.
 */
#include "config-host.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "block/export/fuse-ops.h"

/* The oldest protocol spoken: the first with fuse_attr's blksize. */
#define FUSE_MIN_MINOR 9

/* fuse_init_in grew with 7.36; older kernels send the first four members. */
#define FUSE_INIT_IN_MIN offsetof(struct fuse_init_in, flags2)

/*
 * What is agreed on, if the kernel offers it, and what each obliges us to.
 * Whoever adds one says here what is done about it.
 *
 *   ASYNC_READ          Several READs of one file come at once, in any order:
 *                       requests do not depend on each other.
 *   ASYNC_DIO           The same for direct I/O, reading and writing.
 *   BIG_WRITES          WRITEs of up to max_write bytes: payload buffers have
 *                       FUSE_MAX_IO_BYTES.
 *   MAX_PAGES           max_pages of the reply counts: the same number, in
 *                       pages.
 *   INIT_EXT            flags2 counts, in both directions.
 *   HANDLE_KILLPRIV_V2  The kernel does not clear set-uid and set-gid any more:
 *                       chown does, and WRITE, SETATTR of the size and OPEN if
 *                       they say so, fallocate for all but root
 *                       (fuse_op_kill_suidgid()).  There are no xattrs, and so
 *                       no capabilities of the file to be removed.
 *   DIRECT_IO_ALLOW_MMAP  Shared mappings of a file that is open for direct
 *                       I/O: pages come as READs and WRITEs like all others.
 *   OVER_IO_URING       Register each queue's entries after the reply
 *                       (fuse-uring.c); only if the export is to have a ring.
 *
 * Not wanted, among others: WRITEBACK_CACHE, AUTO_INVAL_DATA, since data are
 * not cached; POSIX_LOCKS, FLOCK_LOCKS, as the kernel does these alone;
 * ATOMIC_O_TRUNC, so that O_TRUNC is a SETATTR like other truncations;
 * NO_OPEN_SUPPORT, as OPENs are counted.
 */
static uint64_t fuse_init_wanted_flags(const FuseFile *file)
{
    uint64_t flags = FUSE_ASYNC_READ | FUSE_ASYNC_DIO | FUSE_BIG_WRITES
                     | FUSE_MAX_PAGES | FUSE_INIT_EXT | FUSE_HANDLE_KILLPRIV_V2
                     | FUSE_DIRECT_IO_ALLOW_MMAP;

    return flags | (file->offer_uring ? FUSE_OVER_IO_URING : 0);
}

int fuse_init(FuseFile *file, FuseRequest *req)
{
    const struct fuse_init_in *in = req->arg;
    struct fuse_init_out *out = req->payload;
    uint64_t offered;

    if (req->arg_len < FUSE_INIT_IN_MIN || file->init_done) {
        return -EINVAL;
    }
    memset(out, 0, sizeof(*out));
    out->major = FUSE_KERNEL_VERSION;
    out->minor = FUSE_KERNEL_MINOR_VERSION;
    if (in->major > FUSE_KERNEL_VERSION) {
        /* The kernel answers with an INIT of our major version. */
        return sizeof(*out);
    }
    if (in->major < FUSE_KERNEL_VERSION || in->minor < FUSE_MIN_MINOR) {
        return -EPROTO;
    }
    offered = in->flags;
    if ((in->flags & FUSE_INIT_EXT) && req->arg_len >= sizeof(*in)) {
        offered |= (uint64_t)in->flags2 << 32;
    }
    file->init_flags = offered & fuse_init_wanted_flags(file);
    file->init_done = true;

    out->max_readahead = in->max_readahead;
    out->flags = file->init_flags;
    out->flags2 = file->init_flags >> 32;
    out->max_background = FUSE_MAX_BACKGROUND;
    out->congestion_threshold = FUSE_MAX_BACKGROUND / 4 * 3;
    out->max_write = FUSE_MAX_IO_BYTES;
    out->time_gran = 1;
    out->max_pages = FUSE_MAX_IO_BYTES / sysconf(_SC_PAGESIZE);
    return in->minor < 23 ? FUSE_COMPAT_22_INIT_OUT_SIZE : sizeof(*out);
}
