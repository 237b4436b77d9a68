/* SPDX-License-Identifier: MIT */
/*
 * fd handlers: who wants to know about which fd.  The backend (FDMonOps)
 * watches; handlers may add, change and remove any handler, their own
 * included.
 */
#include <poll.h>
#include "util/aio-int.h"

unsigned aio_fd_events(const AioFd *node)
{
    return (node->io_read ? POLLIN : 0) | (node->io_write ? POLLOUT : 0);
}

void aio_fd_dispatch(AioFd *node, unsigned revents)
{
    node->busy = true;
    if (node->io_read && (revents & (POLLIN | POLLRDHUP | POLLHUP | POLLERR))) {
        node->io_read(node->read_opaque);
    }
    /* A removed node has no handlers. */
    if (node->io_write && (revents & (POLLOUT | POLLHUP | POLLERR))) {
        node->io_write(node->write_opaque);
    }
    node->busy = false;
}

static AioFd *fd_lookup(AioContext *ctx, int fd)
{
    g_assert(ctx == aio_context_current());
    g_assert(fd >= 0);
    return g_hash_table_lookup(ctx->fds, GINT_TO_POINTER(fd));
}

static void fd_update(AioContext *ctx, int fd, AioFd *node,
                      IOHandler *io_read, void *read_opaque,
                      IOHandler *io_write, void *write_opaque)
{
    bool is_new = !node;
    unsigned old_events;

    if (is_new) {
        if (!io_read && !io_write) {
            return;
        }
        node = g_new0(AioFd, 1);
        node->ctx = ctx;
        node->fd = fd;
        g_hash_table_insert(ctx->fds, GINT_TO_POINTER(fd), node);
    }
    old_events = aio_fd_events(node);
    node->io_read = io_read;
    node->read_opaque = read_opaque;
    node->io_write = io_write;
    node->write_opaque = write_opaque;

    if (is_new) {
        ctx->fdmon->fd_added(ctx, node);
    } else if (!io_read && !io_write) {
        g_hash_table_remove(ctx->fds, GINT_TO_POINTER(fd));
        node->removed = true;
        ctx->fdmon->fd_removed(ctx, node);
    } else if (aio_fd_events(node) != old_events) {
        ctx->fdmon->fd_changed(ctx, node);
    }
}

void aio_set_fd_handler(AioContext *ctx, int fd, IOHandler *io_read,
                        IOHandler *io_write, void *opaque)
{
    fd_update(ctx, fd, fd_lookup(ctx, fd), io_read, opaque, io_write, opaque);
}

void aio_fd_set_reader(AioContext *ctx, int fd, IOHandler *cb, void *opaque)
{
    AioFd *node = fd_lookup(ctx, fd);

    g_assert(!cb || !node || !node->io_read);
    fd_update(ctx, fd, node, cb, opaque, node ? node->io_write : NULL,
              node ? node->write_opaque : NULL);
}

void aio_fd_set_writer(AioContext *ctx, int fd, IOHandler *cb, void *opaque)
{
    AioFd *node = fd_lookup(ctx, fd);

    g_assert(!cb || !node || !node->io_write);
    fd_update(ctx, fd, node, node ? node->io_read : NULL,
              node ? node->read_opaque : NULL, cb, opaque);
}
