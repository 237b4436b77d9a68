/* SPDX-License-Identifier: MIT */
/*
 * Socket chardevs: a server takes one client at a time, a client connects and,
 * if asked to, connects again whenever the peer has gone.
 *
 * Connecting runs in a coroutine that holds a reference, because the chardev
 * may be closed meanwhile.
 */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "storage-daemon/chardev-int.h"
#include "util/named-file.h"
#include "util/sockets.h"
#include "util/trace.h"

#define CHARDEV_SOCKET_BACKLOG 1

/* When a client cannot be accepted, for want of a descriptor: not again yet. */
#define CHARDEV_ACCEPT_PAUSE_NS (100 * 1000000LL)

typedef struct ChardevSocketDev {
    Chardev chr;
    SocketAddr *addr;
    bool server, nodelay;
    int64_t reconnect_ns;               /* 0: never */

    /* server */
    GArray *listen_fds;                 /* of int */
    AioTimer listen_timer;              /* listens again */
    NamedEntry made;                    /* the socket that we made, if any */
    Coroutine *waiter;                  /* co_open, wait=on */
    bool wait_cancelled;
    TAILQ_ENTRY(ChardevSocketDev) next_wait;

    /* client */
    AioTimer reconnect_timer;
    SocketCancel cancel;
    bool connecting;
    bool failure_reported;
} ChardevSocketDev;

/* Those whose co_open waits: for a client or for the connection. */
static TAILQ_HEAD(, ChardevSocketDev) chardev_waiting =
    TAILQ_HEAD_INITIALIZER(chardev_waiting);

/* Coroutines that connect, also for chardevs already closed. */
static unsigned chardev_connecting;
static Coroutine *chardev_idle_waiter;

static ChardevSocketDev *chardev_socket(const Chardev *chr)
{
    return (ChardevSocketDev *)chr;
}

/* ---- server ---- */

static void chardev_socket_accept(void *opaque);

static void chardev_socket_listen(ChardevSocketDev *s, bool enable)
{
    if (s->listen_fds) {
        aio_timer_del(&s->listen_timer);
    }
    for (unsigned i = 0; s->listen_fds && i < s->listen_fds->len; i++) {
        aio_set_fd_handler(aio_context_main(),
                           g_array_index(s->listen_fds, int, i),
                           enable ? chardev_socket_accept : NULL, NULL, s);
    }
}

static void chardev_socket_connected(ChardevSocketDev *s, int fd)
{
    if (s->nodelay) {
        socket_set_nodelay(fd);
    }
    chardev_set_fds(&s->chr, fd, fd);
}

static void chardev_socket_listen_again(void *opaque)
{
    chardev_socket_listen(opaque, true);
}

/* The client stays, and the listening socket is readable: look away. */
static void chardev_socket_accept_failed(ChardevSocketDev *s, int err)
{
    trace(chardev_accept_error, "id=%s errno=%d", s->chr.label, err);
    chardev_socket_listen(s, false);
    aio_timer_mod(&s->listen_timer, clock_now_ns() + CHARDEV_ACCEPT_PAUSE_NS);
}

static void chardev_socket_accept(void *opaque)
{
    ChardevSocketDev *s = opaque;

    for (unsigned i = 0; i < s->listen_fds->len; i++) {
        int fd = accept4(g_array_index(s->listen_fds, int, i), NULL, NULL,
                         SOCK_NONBLOCK | SOCK_CLOEXEC);

        if (fd < 0) {
            if (errno != EAGAIN && errno != EINTR) {
                chardev_socket_accept_failed(s, errno);
            }
            continue;
        }
        chardev_socket_listen(s, false);
        chardev_socket_connected(s, fd);
        if (s->waiter) {
            Coroutine *co = s->waiter;

            s->waiter = NULL;
            aio_co_wake(co);
        }
        return;
    }
}

static bool coroutine_fn chardev_socket_co_wait(ChardevSocketDev *s,
                                                Error **errp)
{
    g_autofree char *name = s->chr.drv->filename(&s->chr);

    /* The reference daemon's words: scripts wait for them. */
    info_report("QEMU waiting for connection on: %s", name);
    TAILQ_INSERT_TAIL(&chardev_waiting, s, next_wait);
    s->waiter = coroutine_self();
    coroutine_yield();
    TAILQ_REMOVE(&chardev_waiting, s, next_wait);
    if (s->wait_cancelled) {
        error_setg(errp, "Interrupted while waiting for a connection");
        return false;
    }
    return true;
}

/* The port that the kernel chose. */
static void chardev_socket_note_port(ChardevSocketDev *s)
{
    g_autofree char *text =
        socket_local_text(g_array_index(s->listen_fds, int, 0));
    char *colon = text ? strrchr(text, ':') : NULL;

    if (s->addr->kind == SOCKET_KIND_INET && colon) {
        g_free(s->addr->port);
        s->addr->port = g_strdup(colon + 1);
    }
}

static bool coroutine_fn chardev_socket_co_open_server(ChardevSocketDev *s,
                                                       bool wait, Error **errp)
{
    s->listen_fds = socket_co_listen(s->addr, CHARDEV_SOCKET_BACKLOG,
                                     &s->made, errp);
    if (!s->listen_fds) {
        return false;
    }
    aio_timer_init(&s->listen_timer, aio_context_main(),
                   chardev_socket_listen_again, s);
    chardev_socket_note_port(s);
    chardev_socket_listen(s, true);
    return !wait || chardev_socket_co_wait(s, errp);
}

/* ---- client ---- */

static bool coroutine_fn chardev_socket_co_connect(ChardevSocketDev *s,
                                                   Error **errp)
{
    Error *err = NULL;
    int fd;

    chardev_ref(&s->chr);
    chardev_connecting++;
    s->connecting = true;
    TAILQ_INSERT_TAIL(&chardev_waiting, s, next_wait);
    fd = socket_co_connect(s->addr, &s->cancel, &err);
    TAILQ_REMOVE(&chardev_waiting, s, next_wait);
    s->connecting = false;
    if (s->cancel.cancelled) {
        if (fd >= 0) {
            close(fd);
        } else {
            error_free(err);
            err = NULL;
        }
        error_setg(&err, "Interrupted while connecting");
    } else if (fd >= 0) {
        chardev_socket_connected(s, fd);
    }
    chardev_unref(&s->chr);
    if (--chardev_connecting == 0 && chardev_idle_waiter) {
        aio_co_wake(g_steal_pointer(&chardev_idle_waiter));
    }
    if (err) {
        error_propagate(errp, err);
        return false;
    }
    return true;
}

static void coroutine_fn chardev_socket_co_reconnect(void *opaque)
{
    ChardevSocketDev *s = opaque;
    Error *err = NULL;

    chardev_ref(&s->chr);
    if (chardev_socket_co_connect(s, &err)) {
        s->failure_reported = false;
    } else if (s->chr.closed || s->cancel.cancelled) {
        error_free(err);
    } else {
        if (!s->failure_reported) {
            error_prepend(&err, "Unable to connect character device %s: ",
                          s->chr.label);
            error_report_err(err);
            s->failure_reported = true;
        } else {
            error_free(err);
        }
        aio_timer_mod(&s->reconnect_timer, clock_now_ns() + s->reconnect_ns);
    }
    chardev_unref(&s->chr);
}

static void chardev_socket_reconnect(void *opaque)
{
    coroutine_enter(coroutine_create(chardev_socket_co_reconnect, opaque));
}

void coroutine_fn chardev_socket_co_wait_idle(void)
{
    while (chardev_connecting) {
        chardev_idle_waiter = coroutine_self();
        coroutine_yield();
    }
}

void chardev_cancel_waits(void)
{
    ChardevSocketDev *s, *next;

    TAILQ_FOREACH_SAFE(s, &chardev_waiting, next_wait, next) {
        socket_cancel(&s->cancel);
        if (s->waiter) {
            s->wait_cancelled = true;
            aio_co_wake(g_steal_pointer(&s->waiter));
        }
    }
}

/* ---- the driver ---- */

static SocketChoice chardev_choice(bool has, bool value)
{
    return !has ? SOCKET_CHOICE_UNSET
                : value ? SOCKET_CHOICE_ON : SOCKET_CHOICE_OFF;
}

static SocketAddr *chardev_socket_inet(const InetSocketAddress *inet)
{
    SocketAddr *addr = socket_addr_new(SOCKET_KIND_INET);

    addr->host = g_strdup(inet->host);
    addr->port = g_strdup(inet->port);
    addr->port_to = inet->has_to ? inet->to : 0;
    addr->numeric = inet->has_numeric && inet->numeric;
    addr->ipv4 = chardev_choice(inet->has_ipv4, inet->ipv4);
    addr->ipv6 = chardev_choice(inet->has_ipv6, inet->ipv6);
    addr->keep_alive = inet->has_keep_alive && inet->keep_alive;
    addr->keep_alive_count = inet->keep_alive_count;
    addr->keep_alive_idle = inet->keep_alive_idle;
    addr->keep_alive_interval = inet->keep_alive_interval;
    addr->mptcp = inet->has_mptcp && inet->mptcp;
    return addr;
}

static SocketAddr *chardev_socket_addr(const SocketAddressLegacy *from,
                                       bool from_qmp, Error **errp)
{
    SocketAddr *addr = NULL;
    gint64 fd;

    switch (from->type) {
    case SOCKET_ADDRESS_TYPE_INET:
        return chardev_socket_inet(from->u.inet.data);
    case SOCKET_ADDRESS_TYPE_UNIX: {
        const UnixSocketAddress *un = from->u.q_unix.data;

        addr = socket_addr_new(SOCKET_KIND_UNIX);
        addr->path = g_strdup(un->path);
        addr->abstract = un->has_abstract && un->abstract;
        addr->tight = !un->has_tight || un->tight;
        return addr;
    }
    case SOCKET_ADDRESS_TYPE_FD:
        if (from_qmp) {
            error_setg(errp, "only QEMU supports file descriptor passing");
            return NULL;
        }
        if (!g_ascii_string_to_signed(from->u.fd.data->str, 10, 0, INT32_MAX,
                                      &fd, NULL)) {
            error_setg(errp, "Unable to parse FD number %s",
                       from->u.fd.data->str);
            return NULL;
        }
        addr = socket_addr_new(SOCKET_KIND_FD);
        addr->fd = fd;
        return addr;
    default:
        g_assert_not_reached();
    }
}

static bool chardev_socket_check(const ChardevSocket *sock, bool server,
                                 Error **errp)
{
    if (server && sock->has_reconnect_ms) {
        error_setg(errp, "'reconnect-ms' option is incompatible with socket "
                   "in server listen mode");
        return false;
    }
    if (!server && sock->has_wait) {
        error_setg(errp, "'wait' option is incompatible with socket in client "
                   "connect mode");
        return false;
    }
    if (sock->has_reconnect_ms && (sock->reconnect_ms < 0 ||
                                   sock->reconnect_ms > INT32_MAX)) {
        error_setg(errp, "'reconnect-ms' value must be in range [0, %d]",
                   INT32_MAX);
        return false;
    }
    return true;
}

static bool coroutine_fn chardev_socket_co_open(Chardev *chr,
                                                const ChardevBackend *backend,
                                                bool from_qmp, Error **errp)
{
    ChardevSocketDev *s = chardev_socket(chr);
    const ChardevSocket *sock = backend->u.socket.data;

    aio_timer_init(&s->reconnect_timer, aio_context_main(),
                   chardev_socket_reconnect, s);
    s->server = !sock->has_server || sock->server;
    s->nodelay = sock->has_nodelay && sock->nodelay;
    if (!chardev_socket_check(sock, s->server, errp)) {
        return false;
    }
    s->addr = chardev_socket_addr(sock->addr, from_qmp, errp);
    if (!s->addr) {
        return false;
    }
    s->addr->loopback_only = !sock->has_allow_remote || !sock->allow_remote;
    if (s->server) {
        return chardev_socket_co_open_server(s, sock->has_wait && sock->wait,
                                             errp);
    }
    if (sock->has_reconnect_ms && sock->reconnect_ms > 0 &&
        s->addr->kind != SOCKET_KIND_FD) {
        s->reconnect_ns = sock->reconnect_ms * 1000000;
        chardev_socket_reconnect(s);
        return true;
    }
    return chardev_socket_co_connect(s, errp);
}

static void chardev_socket_disconnected(Chardev *chr)
{
    ChardevSocketDev *s = chardev_socket(chr);

    if (chr->closed) {
        return;
    }
    if (s->server) {
        chardev_socket_listen(s, true);
    } else if (s->reconnect_ns) {
        aio_timer_mod(&s->reconnect_timer, clock_now_ns() + s->reconnect_ns);
    }
}

static void chardev_socket_close(Chardev *chr)
{
    ChardevSocketDev *s = chardev_socket(chr);

    if (s->reconnect_timer.ctx) {
        aio_timer_del(&s->reconnect_timer);
    }
    if (s->connecting) {
        socket_cancel(&s->cancel);
    }
    chardev_socket_listen(s, false);
    named_entry_remove(&s->made);
    named_entry_deinit(&s->made);
    for (unsigned i = 0; s->listen_fds && i < s->listen_fds->len; i++) {
        close(g_array_index(s->listen_fds, int, i));
    }
    if (s->listen_fds) {
        g_array_unref(s->listen_fds);
    }
}

static void chardev_socket_finalize(Chardev *chr)
{
    socket_addr_free(chardev_socket(chr)->addr);
}

static char *chardev_socket_filename(const Chardev *chr)
{
    const ChardevSocketDev *s = chardev_socket(chr);
    const char *server = s->server ? ",server=on" : "";
    g_autofree char *local = NULL;
    g_autofree char *peer = NULL;

    if (chr->read_fd < 0) {
        g_autofree char *text = s->addr ? socket_addr_text(s->addr)
                                        : g_strdup("socket");

        return g_strdup_printf("disconnected:%s%s", text, server);
    }
    local = socket_local_text(chr->read_fd);
    if (socket_is_unix(chr->read_fd)) {
        return g_strdup_printf("unix:%s%s", local ? local : "", server);
    }
    peer = socket_peer_text(chr->read_fd);
    return g_strdup_printf("tcp:%s%s <-> %s", local ? local : "unknown",
                           server, peer ? peer : "unknown");
}

static void chardev_socket_parse_inet(const OptStr *opts, const char *host,
                                      const char *port,
                                      SocketAddressLegacy *addr)
{
    InetSocketAddress *inet = g_new0(InetSocketAddress, 1);

    addr->type = SOCKET_ADDRESS_TYPE_INET;
    addr->u.inet.data = inet;
    inet->host = g_strdup(host);
    inet->port = g_strdup(port);
    inet->has_to = optstr_get(opts, "to") != NULL;
    inet->to = CLAMP(optstr_get_num(opts, "to", 0), 0, UINT16_MAX);
    inet->has_ipv4 = optstr_get(opts, "ipv4") != NULL;
    inet->ipv4 = optstr_get_bool(opts, "ipv4", false);
    inet->has_ipv6 = optstr_get(opts, "ipv6") != NULL;
    inet->ipv6 = optstr_get_bool(opts, "ipv6", false);
}

/* Exactly one of path, fd and host says where. */
static bool chardev_socket_parse_addr(const OptStr *opts,
                                      SocketAddressLegacy *addr, Error **errp)
{
    const char *path = optstr_get(opts, "path");
    const char *host = optstr_get(opts, "host");
    const char *port = optstr_get(opts, "port");
    const char *fd = optstr_get(opts, "fd");

    if (!!path + !!host + !!fd > 1) {
        error_setg(errp, "None or one of 'path', 'fd' or 'host' option "
                   "required.");
        return false;
    }
    if (path) {
        addr->type = SOCKET_ADDRESS_TYPE_UNIX;
        addr->u.q_unix.data = g_new0(UnixSocketAddress, 1);
        addr->u.q_unix.data->path = g_strdup(path);
        addr->u.q_unix.data->has_abstract = true;
        addr->u.q_unix.data->abstract =
            optstr_get_bool(opts, "abstract", false);
        addr->u.q_unix.data->has_tight = true;
        addr->u.q_unix.data->tight = optstr_get_bool(opts, "tight", true);
    } else if (host) {
        if (!port) {
            error_setg(errp, "chardev: socket: no port given");
            return false;
        }
        chardev_socket_parse_inet(opts, host, port, addr);
    } else {
        addr->type = SOCKET_ADDRESS_TYPE_FD;
        addr->u.fd.data = g_new0(FdSocketAddress, 1);
        addr->u.fd.data->str = g_strdup(fd ? fd : "");
    }
    return true;
}

static bool chardev_socket_parse(const OptStr *opts, ChardevBackend *backend,
                                 Error **errp)
{
    ChardevSocket *sock = g_new0(ChardevSocket, 1);
    bool seconds = optstr_get(opts, "reconnect") != NULL;
    bool ms = optstr_get(opts, "reconnect-ms") != NULL;

    backend->u.socket.data = sock;
    sock->addr = g_new0(SocketAddressLegacy, 1);
    sock->addr->type = SOCKET_ADDRESS_TYPE_FD;
    sock->has_server = true;
    sock->server = optstr_get_bool(opts, "server", false);
    sock->has_wait = sock->server || optstr_get(opts, "wait");
    sock->wait = optstr_get_bool(opts, "wait", true);
    sock->has_nodelay = true;
    sock->nodelay = !optstr_get_bool(opts, "delay", true) ||
                    optstr_get_bool(opts, "nodelay", false);
    sock->has_allow_remote = true;
    sock->allow_remote = optstr_get_bool(opts, "allow-remote", false);
    if (seconds && ms) {
        error_setg(errp, "'reconnect' and 'reconnect-ms' are mutually "
                   "exclusive");
        return false;
    }
    if (sock->server && (seconds || ms)) {
        error_setg(errp, "'%s' option is incompatible with socket in server "
                   "listen mode", ms ? "reconnect-ms" : "reconnect");
        return false;
    }
    sock->has_reconnect_ms = seconds || ms;
    sock->reconnect_ms = ms ? optstr_get_num(opts, "reconnect-ms", 0)
        : CLAMP(optstr_get_num(opts, "reconnect", 0), 0, INT32_MAX / 1000)
          * 1000;
    return chardev_socket_parse_addr(opts, sock->addr, errp);
}

const ChardevDriver chardev_socket_driver = {
    .kind = CHARDEV_BACKEND_KIND_SOCKET,
    .qom_type = "chardev-socket",
    .instance_size = sizeof(ChardevSocketDev),
    .parse = chardev_socket_parse,
    .co_open = chardev_socket_co_open,
    .close = chardev_socket_close,
    .finalize = chardev_socket_finalize,
    .disconnected = chardev_socket_disconnected,
    .filename = chardev_socket_filename,
};
