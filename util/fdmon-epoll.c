/* SPDX-License-Identifier: MIT */
/*
 * Waiting without io_uring: epoll.  There is no busy polling here, since each
 * look would be a system call.
 */
#include <errno.h>
#include <poll.h>
#include <unistd.h>
#include "util/aio-int.h"

#define NS_PER_MS G_GINT64_CONSTANT(1000000)
#define NS_PER_S  G_GINT64_CONSTANT(1000000000)

/* ---- fds ---- */

static void node_set_always_ready(AioContext *ctx, AioFd *node, bool ready)
{
    ctx->n_always_ready += ready - node->always_ready;
    node->always_ready = ready;
}

static void watch(AioContext *ctx, AioFd *node, int op)
{
    struct epoll_event event = {
        .events = aio_fd_events(node), .data.ptr = node,
    };

    /* Regular files (EPERM) are always ready, as poll(2) has it. */
    node_set_always_ready(ctx, node,
                          epoll_ctl(ctx->epoll_fd, op, node->fd, &event) < 0);
}

static void epoll_fd_added(AioContext *ctx, AioFd *node)
{
    watch(ctx, node, EPOLL_CTL_ADD);
}

static void epoll_fd_changed(AioContext *ctx, AioFd *node)
{
    if (!node->always_ready) {
        watch(ctx, node, EPOLL_CTL_MOD);
    }
}

static void epoll_fd_removed(AioContext *ctx, AioFd *node)
{
    if (!node->always_ready) {
        epoll_ctl(ctx->epoll_fd, EPOLL_CTL_DEL, node->fd, NULL);
    }
    node_set_always_ready(ctx, node, false);
    /* epoll_events[] may name it still */
    LIST_INSERT_HEAD(&ctx->epoll_removed, node, next);
}

/* ---- turns ---- */

static int wait_ns(AioContext *ctx, int64_t timeout_ns)
{
    struct timespec ts = {
        .tv_sec = timeout_ns / NS_PER_S, .tv_nsec = timeout_ns % NS_PER_S,
    };
    int max = G_N_ELEMENTS(ctx->epoll_events);
    int64_t ms = -1;

    if (timeout_ns > 0 && !ctx->no_epoll_pwait2) {
        int n = epoll_pwait2(ctx->epoll_fd, ctx->epoll_events, max, &ts, NULL);

        if (n >= 0 || (errno != ENOSYS && errno != EPERM)) {
            return n;
        }
        ctx->no_epoll_pwait2 = true;
    }
    if (timeout_ns >= 0) {      /* rounded up: never early */
        ms = timeout_ns / NS_PER_MS + (timeout_ns % NS_PER_MS != 0);
    }
    return epoll_wait(ctx->epoll_fd, ctx->epoll_events, max,
                      MIN(ms, G_MAXINT));
}

static void epoll_wait_for(AioContext *ctx, int64_t timeout_ns)
{
    int n = wait_ns(ctx, ctx->n_always_ready ? 0 : timeout_ns);

    ctx->n_epoll_events = MAX(n, 0);    /* EINTR: as if nothing happened */
}

static void dispatch_always_ready(AioContext *ctx)
{
    g_autoptr(GList) nodes = g_hash_table_get_values(ctx->fds);

    for (GList *l = nodes; l; l = l->next) {
        AioFd *node = l->data;

        if (node->always_ready) {
            aio_fd_dispatch(node, POLLIN | POLLOUT);
        }
    }
}

static bool epoll_dispatch(AioContext *ctx)
{
    bool progress = ctx->n_epoll_events || ctx->n_always_ready;
    AioFd *node;

    for (int i = 0; i < ctx->n_epoll_events; i++) {
        uint64_t count;

        node = ctx->epoll_events[i].data.ptr;
        if (node) {
            aio_fd_dispatch(node, ctx->epoll_events[i].events);
        } else if (read(ctx->notify_fd, &count, sizeof(count)) < 0) {
            g_warn_if_fail(errno == EINTR);
        }
    }
    ctx->n_epoll_events = 0;
    if (ctx->n_always_ready) {
        dispatch_always_ready(ctx);
    }

    while ((node = LIST_FIRST(&ctx->epoll_removed))) {
        LIST_REMOVE(node, next);
        g_free(node);
    }
    return progress;
}

/* ---- life ---- */

static bool epoll_init(AioContext *ctx, Error **errp)
{
    struct epoll_event event = { .events = EPOLLIN, .data.ptr = NULL };

    ctx->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (ctx->epoll_fd < 0) {
        error_setg_errno(errp, errno, "Failed to create an epoll instance");
        return false;
    }
    if (epoll_ctl(ctx->epoll_fd, EPOLL_CTL_ADD, ctx->notify_fd, &event) < 0) {
        error_setg_errno(errp, errno, "Failed to watch an eventfd");
        close(ctx->epoll_fd);
        return false;
    }
    return true;
}

static void epoll_destroy(AioContext *ctx)
{
    epoll_dispatch(ctx);        /* frees the removed ones */
    close(ctx->epoll_fd);
}

const FDMonOps fdmon_epoll = {
    .init = epoll_init,
    .destroy = epoll_destroy,
    .fd_added = epoll_fd_added,
    .fd_changed = epoll_fd_changed,
    .fd_removed = epoll_fd_removed,
    .wait = epoll_wait_for,
    .dispatch = epoll_dispatch,
};
