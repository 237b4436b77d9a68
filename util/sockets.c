/* SPDX-License-Identifier: MIT */
/*
 * Stream sockets: see util/sockets.h.
 */
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "util/aio.h"
#include "util/sockets-int.h"
#include "util/thread-pool.h"

#ifndef IPPROTO_MPTCP
#define IPPROTO_MPTCP 262
#endif

SocketAddr *socket_addr_new(SocketKind kind)
{
    SocketAddr *addr = g_new0(SocketAddr, 1);

    addr->kind = kind;
    addr->tight = true;
    addr->fd = -1;
    return addr;
}

void socket_addr_free(SocketAddr *addr)
{
    if (!addr) {
        return;
    }
    g_free(addr->path);
    g_free(addr->host);
    g_free(addr->port);
    g_free(addr);
}

char *socket_addr_text(const SocketAddr *addr)
{
    switch (addr->kind) {
    case SOCKET_KIND_UNIX:
        return g_strdup_printf("unix:%s%s%s", addr->path,
                               addr->abstract ? ",abstract=on" : "",
                               addr->abstract && addr->tight
                               ? ",tight=on" : "");
    case SOCKET_KIND_INET:
        return g_strdup_printf("tcp:%s:%s", addr->host, addr->port);
    case SOCKET_KIND_FD:
        return g_strdup_printf("fd:%d", addr->fd);
    }
    g_assert_not_reached();
}

/* Not TCP, or TCP that does not leave this host. */
static bool socket_is_loopback(const struct sockaddr *sa)
{
    if (sa->sa_family == AF_INET6) {
        const struct in6_addr *in6 =
            &((const struct sockaddr_in6 *)sa)->sin6_addr;

        return IN6_IS_ADDR_LOOPBACK(in6) ||
               (IN6_IS_ADDR_V4MAPPED(in6) && in6->s6_addr[12] == 127);
    }
    return sa->sa_family != AF_INET ||
           ntohl(((const struct sockaddr_in *)sa)->sin_addr.s_addr) >> 24
           == 127;
}

static void socket_error_remote(const char *what, Error **errp)
{
    error_setg(errp, "'%s' is not a loopback address: TCP with other hosts "
               "needs allow-remote=on", what);
}

/* ---- TCP ---- */

/* Wait for connect() on @fd; 0 or -errno. */
static int coroutine_fn socket_co_finish_connect(int fd, SocketCancel *cancel)
{
    socklen_t len = sizeof(int);
    int err = 0;

    cancel->fd = fd;
    aio_co_wait_writable(fd);
    cancel->fd = -1;
    if (cancel->cancelled) {
        return -ECANCELED;
    }
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len) < 0) {
        err = errno;
    }
    return -err;
}

static int coroutine_fn socket_co_connect_one(int fd,
                                              const struct sockaddr *sa,
                                              socklen_t len,
                                              SocketCancel *cancel)
{
    if (connect(fd, sa, len) == 0) {
        return 0;
    }
    return errno == EINPROGRESS || errno == EINTR
           ? socket_co_finish_connect(fd, cancel) : -errno;
}

typedef struct SocketResolve {
    const char *host, *port;
    struct addrinfo hints;
    struct addrinfo *result;
    int status;                 /* 0 or EAI_x */
} SocketResolve;

static int socket_resolve_worker(void *opaque)
{
    SocketResolve *res = opaque;

    res->status = getaddrinfo(res->host[0] ? res->host : NULL, res->port,
                              &res->hints, &res->result);
    return 0;
}

static int socket_inet_family(const SocketAddr *addr, Error **errp)
{
    if (addr->ipv4 == SOCKET_CHOICE_OFF && addr->ipv6 == SOCKET_CHOICE_OFF) {
        error_setg(errp, "Cannot disable IPv4 and IPv6 at same time");
        return -1;
    }
    if (addr->ipv4 == SOCKET_CHOICE_OFF ||
        (addr->ipv6 == SOCKET_CHOICE_ON && addr->ipv4 != SOCKET_CHOICE_ON)) {
        return PF_INET6;
    }
    if (addr->ipv6 == SOCKET_CHOICE_OFF ||
        (addr->ipv4 == SOCKET_CHOICE_ON && addr->ipv6 != SOCKET_CHOICE_ON)) {
        return PF_INET;
    }
    return PF_UNSPEC;
}

/* May we use all of these addresses, which are @addr's? */
static bool socket_check_reach(const SocketAddr *addr,
                               const struct addrinfo *ai, Error **errp)
{
    for (; ai && addr->loopback_only; ai = ai->ai_next) {
        if (!socket_is_loopback(ai->ai_addr)) {
            g_autofree char *text = g_strdup_printf("%s:%s", addr->host,
                                                    addr->port);

            socket_error_remote(text, errp);
            return false;
        }
    }
    return true;
}

/* Free the result with freeaddrinfo(). */
static struct addrinfo *coroutine_fn socket_co_resolve(const SocketAddr *addr,
                                                       bool listening,
                                                       Error **errp)
{
    int family = socket_inet_family(addr, errp);
    SocketResolve res = {
        .host = addr->host,
        .port = addr->port,
        .hints = {
            .ai_family = family,
            .ai_socktype = SOCK_STREAM,
            .ai_flags = (listening ? AI_PASSIVE : 0) | AI_NUMERICHOST,
        },
    };
    guint64 number;

    if (family < 0) {
        return NULL;
    }
    if (g_ascii_string_to_unsigned(addr->port, 10, 0, UINT64_MAX, &number,
                                   NULL) && number > 65535) {
        error_setg(errp, "Invalid port number '%s'", addr->port);
        return NULL;
    }
    /* An address and a port number need no thread that may block. */
    socket_resolve_worker(&res);
    if (res.status == EAI_NONAME && !addr->numeric) {
        res.hints.ai_flags &= ~AI_NUMERICHOST;
        if (thread_pool_co_submit(socket_resolve_worker, &res) < 0) {
            error_setg_errno(errp, EAGAIN, "Could not start a thread");
            return NULL;
        }
    }
    if (res.status) {
        error_setg(errp, "address resolution failed for %s:%s: %s",
                   addr->host, addr->port, gai_strerror(res.status));
        return NULL;
    }
    if (!socket_check_reach(addr, res.result, errp)) {
        freeaddrinfo(res.result);
        return NULL;
    }
    return res.result;
}

static void socket_set_port(struct sockaddr *sa, unsigned port)
{
    if (sa->sa_family == AF_INET6) {
        ((struct sockaddr_in6 *)sa)->sin6_port = htons(port);
    } else {
        ((struct sockaddr_in *)sa)->sin_port = htons(port);
    }
}

static unsigned socket_get_port(const struct sockaddr *sa)
{
    return ntohs(sa->sa_family == AF_INET6
                 ? ((const struct sockaddr_in6 *)sa)->sin6_port
                 : ((const struct sockaddr_in *)sa)->sin_port);
}

static int socket_open_inet(const SocketAddr *addr, const struct addrinfo *ai)
{
    int fd = socket(ai->ai_family,
                    ai->ai_socktype | SOCK_NONBLOCK | SOCK_CLOEXEC,
                    addr->mptcp ? IPPROTO_MPTCP : ai->ai_protocol);
    int on = 1;

    if (fd < 0) {
        return -errno;
    }
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (ai->ai_family == AF_INET6) {
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
    }
    return fd;
}

/* One address, on @port or a later one; a descriptor or -errno. */
static int socket_inet_listen_one(const SocketAddr *addr, struct addrinfo *ai,
                                  unsigned port, int backlog)
{
    unsigned last = addr->port_to > port ? addr->port_to : port;
    int err = EADDRINUSE;

    for (; port <= last; port++) {
        int fd = socket_open_inet(addr, ai);

        if (fd < 0) {
            return fd;
        }
        socket_set_port(ai->ai_addr, port);
        if (bind(fd, ai->ai_addr, ai->ai_addrlen) == 0 &&
            listen(fd, backlog) == 0) {
            return fd;
        }
        err = errno;
        close(fd);
        if (err != EADDRINUSE) {
            break;
        }
    }
    return -err;
}

static unsigned socket_bound_port(int fd)
{
    struct sockaddr_storage ss;
    socklen_t len = sizeof(ss);

    if (getsockname(fd, (struct sockaddr *)&ss, &len) < 0) {
        return 0;
    }
    return socket_get_port((struct sockaddr *)&ss);
}

static bool coroutine_fn socket_co_inet_listen(const SocketAddr *addr,
                                               int backlog, GArray *fds,
                                               Error **errp)
{
    struct addrinfo *list = socket_co_resolve(addr, true, errp);
    int err = EADDRNOTAVAIL;
    unsigned port;

    if (!list) {
        return false;
    }
    port = socket_get_port(list->ai_addr);
    for (struct addrinfo *ai = list; ai; ai = ai->ai_next) {
        int fd = socket_inet_listen_one(addr, ai, port, backlog);

        if (fd < 0) {
            err = -fd;
            continue;
        }
        /* All addresses get the port that the first one got. */
        port = socket_bound_port(fd);
        g_array_append_val(fds, fd);
    }
    freeaddrinfo(list);
    if (!fds->len) {
        error_setg_errno(errp, err, "%s",
                         err == EADDRINUSE ? "Failed to find an available port"
                                           : "Failed to bind socket");
    }
    return fds->len > 0;
}

static void socket_set_keep_alive(const SocketAddr *addr, int fd)
{
    const struct {
        int opt;
        uint32_t value;
    } opts[] = {
        { TCP_KEEPCNT, addr->keep_alive_count },
        { TCP_KEEPIDLE, addr->keep_alive_idle },
        { TCP_KEEPINTVL, addr->keep_alive_interval },
    };
    int on = 1;

    if (!addr->keep_alive) {
        return;
    }
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
    for (size_t i = 0; i < G_N_ELEMENTS(opts); i++) {
        int value = MIN(opts[i].value, INT32_MAX);

        if (value) {
            setsockopt(fd, IPPROTO_TCP, opts[i].opt, &value, sizeof(value));
        }
    }
}

static int coroutine_fn socket_co_inet_connect(const SocketAddr *addr,
                                               SocketCancel *cancel,
                                               Error **errp)
{
    struct addrinfo *list = socket_co_resolve(addr, false, errp);
    int fd = -1, ret = -ECANCELED;

    if (!list) {
        return -1;
    }
    for (struct addrinfo *ai = list; ai && !cancel->cancelled;
         ai = ai->ai_next) {
        ret = fd = socket_open_inet(addr, ai);
        if (fd < 0) {
            continue;
        }
        ret = socket_co_connect_one(fd, ai->ai_addr, ai->ai_addrlen, cancel);
        if (ret == 0) {
            break;
        }
        close(fd);
        fd = -1;
    }
    freeaddrinfo(list);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Failed to connect to '%s:%s'",
                         addr->host, addr->port);
        return -1;
    }
    socket_set_keep_alive(addr, fd);
    return fd;
}

/* ---- inherited descriptors ---- */

static char *socket_text(const struct sockaddr_storage *ss, socklen_t len)
{
    char host[NI_MAXHOST], port[NI_MAXSERV];

    if (ss->ss_family == AF_UNIX) {
        const struct sockaddr_un *un = (const struct sockaddr_un *)ss;

        if (len <= offsetof(struct sockaddr_un, sun_path)) {
            return g_strdup("");
        }
        return g_strndup(un->sun_path,
                         len - offsetof(struct sockaddr_un, sun_path));
    }
    if ((ss->ss_family != AF_INET && ss->ss_family != AF_INET6) ||
        getnameinfo((const struct sockaddr *)ss, len, host, sizeof(host),
                    port, sizeof(port), NI_NUMERICHOST | NI_NUMERICSERV)) {
        return NULL;
    }
    return g_strdup_printf(ss->ss_family == AF_INET6 ? "[%s]:%s" : "%s:%s",
                           host, port);
}

/* The address of the peer, or of a listening socket, as the sender's text. */
static bool socket_fd_check_reach(const SocketAddr *addr, Error **errp)
{
    struct sockaddr_storage ss = { 0 };
    socklen_t len = sizeof(ss);
    g_autofree char *text = NULL;

    if (!addr->loopback_only ||
        (getpeername(addr->fd, (struct sockaddr *)&ss, &len) < 0 &&
         (len = sizeof(ss),
          getsockname(addr->fd, (struct sockaddr *)&ss, &len) < 0)) ||
        socket_is_loopback((struct sockaddr *)&ss)) {
        return true;
    }
    text = socket_text(&ss, len);
    socket_error_remote(text, errp);
    return false;
}

/* ---- all kinds ---- */

GArray *coroutine_fn socket_co_listen(const SocketAddr *addr, int backlog,
                                      NamedEntry *made, Error **errp)
{
    g_autoptr(GArray) fds = g_array_new(FALSE, FALSE, sizeof(int));
    int fd = -1;

    switch (addr->kind) {
    case SOCKET_KIND_UNIX:
        fd = socket_unix_co_listen(addr, backlog, made, errp);
        break;
    case SOCKET_KIND_INET:
        if (!socket_co_inet_listen(addr, backlog, fds, errp)) {
            return NULL;
        }
        return g_steal_pointer(&fds);
    case SOCKET_KIND_FD:
        if (!socket_fd_check(addr->fd, errp) ||
            !socket_fd_check_reach(addr, errp)) {
            return NULL;
        }
        if (!socket_is_listening(addr->fd) && listen(addr->fd, backlog) < 0) {
            error_setg_errno(errp, errno, "Failed to listen on fd socket");
            return NULL;
        }
        fd = addr->fd;
        break;
    }
    if (fd < 0) {
        return NULL;
    }
    g_array_append_val(fds, fd);
    return g_steal_pointer(&fds);
}

int coroutine_fn socket_co_connect(const SocketAddr *addr,
                                   SocketCancel *cancel, Error **errp)
{
    switch (addr->kind) {
    case SOCKET_KIND_UNIX:
        return socket_unix_co_connect(addr, cancel, errp);
    case SOCKET_KIND_INET:
        return socket_co_inet_connect(addr, cancel, errp);
    case SOCKET_KIND_FD:
        return socket_fd_check(addr->fd, errp) &&
               socket_fd_check_reach(addr, errp) ? addr->fd : -1;
    }
    g_assert_not_reached();
}

void socket_cancel(SocketCancel *cancel)
{
    cancel->cancelled = true;
    if (cancel->fd > 0) {
        shutdown(cancel->fd, SHUT_RDWR);        /* ends the wait */
    }
}

/* ---- what a descriptor is ---- */

char *socket_local_text(int fd)
{
    struct sockaddr_storage ss = { 0 };
    socklen_t len = sizeof(ss);

    if (getsockname(fd, (struct sockaddr *)&ss, &len) < 0) {
        return NULL;
    }
    return socket_text(&ss, len);
}

char *socket_peer_text(int fd)
{
    struct sockaddr_storage ss = { 0 };
    socklen_t len = sizeof(ss);

    if (getpeername(fd, (struct sockaddr *)&ss, &len) < 0) {
        return NULL;
    }
    return socket_text(&ss, len);
}

static int socket_getsockopt_int(int fd, int opt)
{
    int value = 0;
    socklen_t len = sizeof(value);

    return getsockopt(fd, SOL_SOCKET, opt, &value, &len) < 0 ? -errno : value;
}

bool socket_is_unix(int fd)
{
    return socket_getsockopt_int(fd, SO_DOMAIN) == AF_UNIX;
}

bool socket_is_listening(int fd)
{
    return socket_getsockopt_int(fd, SO_ACCEPTCONN) > 0;
}

void socket_set_nodelay(int fd)
{
    int on = 1;

    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

bool socket_fd_check(int fd, Error **errp)
{
    int flags;

    if (fd < 0 || socket_getsockopt_int(fd, SO_TYPE) < 0) {
        error_setg(errp, "File descriptor '%d' is not a socket", fd);
        return false;
    }
    flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 ||
        fcntl(fd, F_SETFD, FD_CLOEXEC) < 0) {
        error_setg_errno(errp, errno, "Could not set up file descriptor '%d'",
                         fd);
        return false;
    }
    return true;
}
