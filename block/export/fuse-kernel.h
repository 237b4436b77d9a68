/* SPDX-License-Identifier: MIT */
/*
 * The FUSE kernel ABI: <linux/fuse.h>, and what Debian 12's copy (7.38) does
 * not have yet.  Names and values are the kernel's (include/uapi/linux/fuse.h,
 * Linux 6.14 and later; Documentation/filesystems/fuse/fuse-io-uring.rst).
 */
#ifndef BLOCK_EXPORT_FUSE_KERNEL_H
#define BLOCK_EXPORT_FUSE_KERNEL_H

#include <stdint.h>
#include <sys/ioctl.h>
#include <linux/fuse.h>

#ifndef FUSE_DEV_IOC_CLONE
#define FUSE_DEV_IOC_CLONE _IOR(229, 0, uint32_t)
#endif

#ifndef FUSE_DIRECT_IO_ALLOW_MMAP
#define FUSE_DIRECT_IO_ALLOW_MMAP (1ULL << 36)
#endif

#ifndef FUSE_OVER_IO_URING
#define FUSE_OVER_IO_URING (1ULL << 41)

/* How requests lie in a ring entry's header buffer. */
#define FUSE_URING_IN_OUT_HEADER_SZ 128
#define FUSE_URING_OP_IN_OUT_SZ 128

struct fuse_uring_ent_in_out {
    uint64_t flags;
    uint64_t commit_id;         /* opaque; handed back at commit */
    uint32_t payload_sz;        /* bytes in the payload buffer */
    uint32_t padding;
    uint64_t reserved;
};

struct fuse_uring_req_header {
    char in_out[FUSE_URING_IN_OUT_HEADER_SZ];
    char op_in[FUSE_URING_OP_IN_OUT_SZ];
    struct fuse_uring_ent_in_out ring_ent_in_out;
};

enum fuse_uring_cmd {
    FUSE_IO_URING_CMD_INVALID = 0,
    FUSE_IO_URING_CMD_REGISTER = 1,
    FUSE_IO_URING_CMD_COMMIT_AND_FETCH = 2,
};

/* The command area of a 128-byte SQE. */
struct fuse_uring_cmd_req {
    uint64_t flags;
    uint64_t commit_id;
    uint16_t qid;
    uint8_t padding[6];
};
#endif /* FUSE_OVER_IO_URING */

_Static_assert(sizeof(struct fuse_uring_req_header) == 288,
               "the kernel refuses a smaller header buffer");
_Static_assert(sizeof(struct fuse_uring_cmd_req) == 24, "SQE command area");

#endif /* BLOCK_EXPORT_FUSE_KERNEL_H */
