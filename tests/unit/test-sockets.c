/* SPDX-License-Identifier: MIT */
/* Listening and connecting: unix, abstract, TCP, passed descriptors. */
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <glib/gstdio.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "co-test.h"
#include "util/sockets.h"

static char *dir;

typedef struct Pair {
    SocketAddr *listen_addr, *connect_addr;
    GArray *listen_fds;
    int server, client;
} Pair;

/* Listen, connect and accept; all three descriptors are kept. */
static void coroutine_fn co_connect(void *opaque)
{
    Pair *pair = opaque;
    SocketCancel cancel = { 0 };
    Error *err = NULL;
    int fd;

    pair->listen_fds = socket_co_listen(pair->listen_addr, 1, NULL, &err);
    g_assert_null(err);
    g_assert_nonnull(pair->listen_fds);
    fd = g_array_index(pair->listen_fds, int, 0);
    g_assert_true(socket_is_listening(fd));

    if (pair->connect_addr->kind == SOCKET_KIND_INET) {
        g_autofree char *text = socket_local_text(fd);

        g_free(pair->connect_addr->port);
        pair->connect_addr->port = g_strdup(strrchr(text, ':') + 1);
    }
    pair->client = socket_co_connect(pair->connect_addr, &cancel, &err);
    g_assert_null(err);
    g_assert_cmpint(pair->client, >=, 0);
    aio_co_wait_readable(fd);
    pair->server = accept(fd, NULL, NULL);
    g_assert_cmpint(pair->server, >=, 0);
    g_assert_false(socket_is_listening(pair->server));
}

static void check_transfer(const Pair *pair)
{
    char c = 0;

    g_assert_cmpint(write(pair->client, "x", 1), ==, 1);
    g_assert_cmpint(read(pair->server, &c, 1), ==, 1);
    g_assert_cmpint(c, ==, 'x');
    /* Descriptors do not block. */
    g_assert_cmpint(read(pair->client, &c, 1), ==, -1);
    g_assert_cmpint(errno, ==, EAGAIN);
}

static void pair_close(Pair *pair)
{
    close(pair->client);
    close(pair->server);
    for (unsigned i = 0; i < pair->listen_fds->len; i++) {
        close(g_array_index(pair->listen_fds, int, i));
    }
    g_array_unref(pair->listen_fds);
    socket_addr_free(pair->listen_addr);
    socket_addr_free(pair->connect_addr);
}

static SocketAddr *unix_addr(const char *path, bool abstract)
{
    SocketAddr *addr = socket_addr_new(SOCKET_KIND_UNIX);

    addr->path = g_strdup(path);
    addr->abstract = abstract;
    return addr;
}

static SocketAddr *inet_addr(const char *host, const char *port)
{
    SocketAddr *addr = socket_addr_new(SOCKET_KIND_INET);

    addr->host = g_strdup(host);
    addr->port = g_strdup(port);
    return addr;
}

static void test_unix(void)
{
    g_autofree char *path = g_build_filename(dir, "sock", NULL);

    /* The second time it replaces the socket that the first left. */
    for (int i = 0; i < 2; i++) {
        Pair pair = { .listen_addr = unix_addr(path, false),
                      .connect_addr = unix_addr(path, false) };
        g_autofree char *local = NULL;

        co_test_run(co_connect, &pair);
        check_transfer(&pair);
        local = socket_local_text(pair.server);
        g_assert_cmpstr(local, ==, path);
        g_assert_true(socket_is_unix(pair.server));
        pair_close(&pair);
    }
    g_unlink(path);
}

static void test_abstract(void)
{
    g_autofree char *name = g_strdup_printf("test-sockets-%d", (int)getpid());

    for (int tight = 0; tight < 2; tight++) {
        Pair pair = { .listen_addr = unix_addr(name, true),
                      .connect_addr = unix_addr(name, true) };

        pair.listen_addr->tight = pair.connect_addr->tight = tight;
        co_test_run(co_connect, &pair);
        check_transfer(&pair);
        pair_close(&pair);
    }
}

static void test_inet(void)
{
    static const char *const hosts[][2] = {
        { "127.0.0.1", "127.0.0.1" },
        { "", "127.0.0.1" },
        { "localhost", "localhost" },
    };

    for (size_t i = 0; i < G_N_ELEMENTS(hosts); i++) {
        Pair pair = { .listen_addr = inet_addr(hosts[i][0], "0"),
                      .connect_addr = inet_addr(hosts[i][1], "0") };

        if (i == 1) {
            pair.listen_addr->ipv4 = SOCKET_CHOICE_ON;
        }
        co_test_run(co_connect, &pair);
        check_transfer(&pair);
        socket_set_nodelay(pair.client);
        g_assert_false(socket_is_unix(pair.server));
        if (i == 0) {
            g_autofree char *peer = socket_peer_text(pair.client);
            g_autofree char *local = socket_local_text(pair.server);

            g_assert_cmpstr(peer, ==, local);
            g_assert_true(g_str_has_prefix(peer, "127.0.0.1:"));
        }
        pair_close(&pair);
    }
}

/* With `to`, the next free port is taken. */
static void coroutine_fn co_port_range(void *opaque)
{
    g_autoptr(SocketAddr) addr = inet_addr("127.0.0.1", "0");
    g_autoptr(GArray) first = NULL;
    g_autoptr(GArray) second = NULL;
    g_autofree char *text = NULL;
    Error *err = NULL;
    unsigned port;

    first = socket_co_listen(addr, 1, NULL, NULL);
    g_assert_nonnull(first);
    text = socket_local_text(g_array_index(first, int, 0));
    port = g_ascii_strtoull(strrchr(text, ':') + 1, NULL, 10);
    g_free(addr->port);
    addr->port = g_strdup_printf("%u", port);
    g_assert_null(socket_co_listen(addr, 1, NULL, &err));
    g_assert_cmpstr(error_get_pretty(err), ==,
                    "Failed to find an available port: Address already in "
                    "use");
    error_free(err);

    addr->port_to = MIN(port + 100, UINT16_MAX);
    if (addr->port_to > port) {
        second = socket_co_listen(addr, 1, NULL, NULL);
        g_assert_nonnull(second);
        close(g_array_index(second, int, 0));
    }
    close(g_array_index(first, int, 0));
}

static void test_port_range(void)
{
    co_test_run(co_port_range, NULL);
}

/* What goes wrong, and the words for it. */
typedef struct Failure {
    SocketAddr *addr;
    bool listening;
    const char *message;
} Failure;

static void coroutine_fn co_failure(void *opaque)
{
    Failure *failure = opaque;
    SocketCancel cancel = { 0 };
    Error *err = NULL;

    if (failure->listening) {
        g_assert_null(socket_co_listen(failure->addr, 1, NULL, &err));
    } else {
        g_assert_cmpint(socket_co_connect(failure->addr, &cancel, &err), ==,
                        -1);
    }
    g_assert_cmpstr(error_get_pretty(err), ==, failure->message);
    error_free(err);
    socket_addr_free(failure->addr);
}

/* Whether it works or not: not because it is far away. */
static void coroutine_fn co_reachable(void *opaque)
{
    Failure *r = opaque;
    SocketCancel cancel = { 0 };
    Error *err = NULL;
    GArray *fds;
    int fd;

    if (r->listening) {
        fds = socket_co_listen(r->addr, 1, NULL, &err);
        for (unsigned i = 0; fds && i < fds->len; i++) {
            close(g_array_index(fds, int, i));
        }
        g_clear_pointer(&fds, g_array_unref);
    } else {
        fd = socket_co_connect(r->addr, &cancel, &err);
        if (fd >= 0) {
            close(fd);
        }
    }
    g_assert_true(!err || !strstr(error_get_pretty(err), "loopback"));
    error_free(err);
    socket_addr_free(r->addr);
}

static void test_failures(void)
{
    g_autofree char *long_path = g_strnfill(200, 'x');
    g_autofree char *too_long = g_strdup_printf(
        "UNIX socket path '%s' is too long", long_path);
    SocketAddr *no_family = inet_addr("127.0.0.1", "1");
    SocketAddr *no_socket = socket_addr_new(SOCKET_KIND_FD);
    int file = g_open("/dev/null", O_RDONLY);
    g_autofree char *not_socket = g_strdup_printf(
        "File descriptor '%d' is not a socket", file);
    Failure failures[] = {
        { unix_addr("/nonexistent/x", false), false,
          "Failed to connect to '/nonexistent/x': No such file or "
          "directory" },
        { unix_addr("/nonexistent/x", false), true,
          "Failed to bind socket to /nonexistent/x: No such file or "
          "directory" },
        { unix_addr(long_path, false), true, too_long },
        { unix_addr(long_path, true), false, too_long },
        { inet_addr("127.0.0.1", "1"), false,
          "Failed to connect to '127.0.0.1:1': Connection refused" },
        { inet_addr("192.0.2.1", "0"), true,
          "Failed to bind socket: Cannot assign requested address" },
        { inet_addr("127.0.0.1", "70000"), true,
          "Invalid port number '70000'" },
        { no_family, false, "Cannot disable IPv4 and IPv6 at same time" },
        { no_socket, false, not_socket },
    };

    no_family->ipv4 = no_family->ipv6 = SOCKET_CHOICE_OFF;
    no_socket->fd = file;
    for (size_t i = 0; i < G_N_ELEMENTS(failures); i++) {
        co_test_run(co_failure, &failures[i]);
    }
    close(file);
}

/* What is not this host is not used unless that was asked for. */
static void test_loopback_only(void)
{
    static const struct {
        const char *host;
        bool fine;
    } cases[] = {
        { "127.0.0.1", true }, { "127.255.0.9", true }, { "localhost", true },
        { "::1", true }, { "::ffff:127.0.0.1", true },
        { "", false }, { "0.0.0.0", false }, { "::", false },
        { "192.0.2.1", false }, { "::ffff:192.0.2.1", false },
        { "128.0.0.1", false }, { "fe80::1", false },
    };

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autofree char *message = g_strdup_printf(
            "'%s:1' is not a loopback address: TCP with other hosts needs "
            "allow-remote=on", cases[i].host);

        for (int listening = 0; listening < 2; listening++) {
            Failure failure = { inet_addr(cases[i].host, "1"), listening,
                                message };
            /* To connect to "" is to connect to this host. */
            bool fine = cases[i].fine || (!cases[i].host[0] && !listening);

            failure.addr->loopback_only = true;
            co_test_run(fine ? co_reachable : co_failure, &failure);
        }
    }
}

static void test_loopback_only_fd(void)
{
    struct sockaddr_in any = { .sin_family = AF_INET };
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    socklen_t len = sizeof(any);
    g_autofree char *message = NULL;
    Failure failure = { socket_addr_new(SOCKET_KIND_FD), true, NULL };

    g_assert_cmpint(bind(fd, (struct sockaddr *)&any, len), ==, 0);
    g_assert_cmpint(getsockname(fd, (struct sockaddr *)&any, &len), ==, 0);
    message = g_strdup_printf("'0.0.0.0:%u' is not a loopback address: TCP "
                              "with other hosts needs allow-remote=on",
                              ntohs(any.sin_port));
    failure.message = message;
    failure.addr->fd = fd;
    failure.addr->loopback_only = true;
    co_test_run(co_failure, &failure);
    close(fd);
}

/* A file that is no socket stays. */
static void test_no_clobber(void)
{
    g_autofree char *path = g_build_filename(dir, "file", NULL);
    g_autofree char *text = NULL;
    g_autofree char *message = g_strdup_printf(
        "Failed to bind socket to %s: Address already in use", path);
    Failure failure = { unix_addr(path, false), true, message };

    g_assert_true(g_file_set_contents(path, "data", -1, NULL));
    co_test_run(co_failure, &failure);
    g_assert_true(g_file_get_contents(path, &text, NULL, NULL));
    g_assert_cmpstr(text, ==, "data");
    g_unlink(path);
}

/* ---- a connection that does not come about is given up ---- */

typedef struct Attempt {
    SocketAddr *addr;
    SocketCancel cancel;
    Error *err;
    int fd;
    bool done;
} Attempt;

static void coroutine_fn co_attempt(void *opaque)
{
    Attempt *attempt = opaque;

    attempt->fd = socket_co_connect(attempt->addr, &attempt->cancel,
                                    &attempt->err);
    attempt->done = true;
}

static void coroutine_fn co_listen(void *opaque)
{
    Pair *pair = opaque;

    pair->listen_fds = socket_co_listen(pair->listen_addr, 1, NULL, NULL);
}

static void test_cancel(void)
{
    g_autofree char *path = g_build_filename(dir, "full", NULL);
    g_autoptr(SocketAddr) addr = unix_addr(path, false);
    Pair pair = { .listen_addr = addr };
    Attempt attempts[3];        /* a backlog of 1 takes two */
    int n = G_N_ELEMENTS(attempts), fd;

    co_test_run(co_listen, &pair);
    for (int i = 0; i < n; i++) {
        attempts[i] = (Attempt) { .addr = addr };
        coroutine_enter(coroutine_create(co_attempt, &attempts[i]));
        while (i < n - 1 && !attempts[i].done) {
            aio_poll(aio_context_current(), true);
        }
    }
    /* Nobody accepts. */
    g_assert_false(attempts[n - 1].done);
    socket_cancel(&attempts[n - 1].cancel);
    while (!attempts[n - 1].done) {
        aio_poll(aio_context_current(), true);
    }
    g_assert_cmpint(attempts[n - 1].fd, ==, -1);
    g_assert_nonnull(attempts[n - 1].err);
    error_free(attempts[n - 1].err);
    for (int i = 0; i < n - 1; i++) {
        g_assert_cmpint(attempts[i].fd, >=, 0);
        close(attempts[i].fd);
    }
    fd = g_array_index(pair.listen_fds, int, 0);
    close(fd);
    g_array_unref(pair.listen_fds);
    g_unlink(path);
}

int main(int argc, char **argv)
{
    AioContext *ctx;
    int ret;

    g_test_init(&argc, &argv, NULL);
    dir = g_dir_make_tmp("test-sockets-XXXXXX", NULL);
    ctx = aio_context_new(AIO_BACKEND_AUTO, NULL);
    g_test_add_func("/sockets/unix", test_unix);
    g_test_add_func("/sockets/abstract", test_abstract);
    g_test_add_func("/sockets/inet", test_inet);
    g_test_add_func("/sockets/port-range", test_port_range);
    g_test_add_func("/sockets/failures", test_failures);
    g_test_add_func("/sockets/loopback-only", test_loopback_only);
    g_test_add_func("/sockets/loopback-only-fd", test_loopback_only_fd);
    g_test_add_func("/sockets/no-clobber", test_no_clobber);
    g_test_add_func("/sockets/cancel", test_cancel);
    ret = g_test_run();
    aio_context_free(ctx);
    coroutine_pool_drain();
    g_rmdir(dir);
    g_free(dir);
    return ret;
}
