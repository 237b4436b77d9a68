/* SPDX-License-Identifier: MIT */
/*
 * The mounter: a process of its own that alone mounts, looks at mount points,
 * unmounts and aborts, for the daemon whose child it is.
 *
 * Why a process: a thread that waits for a mount of its own process, in
 * whatever system call, cannot be killed meanwhile, and keeps the descriptors
 * open whose closing would end the mount.  The mounter has none of them.  And
 * it outlives the daemon, however that dies, and then ends its connections,
 * removes its mounts, and ends.
 *
 * Requests and replies are datagrams on a socket pair, SOCK_SEQPACKET, in any
 * order; MOUNT's reply brings the connection's fd along (unix(7), SCM_RIGHTS).
 */
#ifndef BLOCK_EXPORT_FUSE_MOUNTER_H
#define BLOCK_EXPORT_FUSE_MOUNTER_H

#include <stdbool.h>
#include <stdint.h>

#include "util/error.h"

typedef enum FuseMounterOp {
    FUSE_MOUNTER_CHECK,         /* fuse_attach_check(path) */
    FUSE_MOUNTER_MOUNT,         /* fuse_attach(path, flags) as @mount */
    FUSE_MOUNTER_PROBE,         /* fuse_attach_probe(@mount) */
    FUSE_MOUNTER_END,           /* detach and abort @mount */
} FuseMounterOp;

/* Bytes of a path, its NUL included, and of an error's text. */
#define FUSE_MOUNTER_MAX_TEXT 4096

typedef struct FuseMounterRequest {
    uint32_t serial;            /* the reply's */
    uint32_t op;                /* FuseMounterOp */
    uint32_t mount;             /* the daemon's number for a mount */
    uint32_t flags;             /* FuseAttachFlags */
    char path[FUSE_MOUNTER_MAX_TEXT];       /* as long as it is */
} FuseMounterRequest;

typedef struct FuseMounterReply {
    uint32_t serial;
    int32_t ret;                /* 0 or -errno */
    uint32_t minor;             /* MOUNT: of the connection */
    uint8_t by_fusermount;      /* MOUNT: fusermount3 did it */
    uint8_t covered;            /* END: another mount is on top, and stays */
    char text[FUSE_MOUNTER_MAX_TEXT];       /* CHECK, MOUNT: the error */
} FuseMounterReply;

/*
 * Start the mounter: once, in the main thread, before there are other threads,
 * rings, FUSE descriptors and secrets.  The daemon's main thread is the one
 * whose end the mounter acts upon.  With @quiet it has no standard streams.
 * In the child, @forget is called, for secrets that it has inherited, and
 * @argv, the program's, gets another text.  Returns false with an error if it
 * cannot be started.
 */
bool fuse_mounter_start(char **argv, bool quiet, void (*forget)(void),
                        Error **errp);

/*
 * [main] The daemon's end of the socket, non-blocking, to receive from; and the
 * same once more, to wait on for sending.  -1: there is none.
 */
int fuse_mounter_socket(void);
int fuse_mounter_send_fd(void);

/* [main] Close the socket, which ends the mounter. */
void fuse_mounter_stop(void);

#endif /* BLOCK_EXPORT_FUSE_MOUNTER_H */
