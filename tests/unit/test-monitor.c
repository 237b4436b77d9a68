/* SPDX-License-Identifier: MIT */
/* QMP sessions on a socket, in one process: bytes in, bytes out. */
#include <errno.h>
#include <glib.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "co-test.h"
#include "qapi/event.h"
#include "qapi/qapi-commands.h"
#include "storage-daemon/chardev.h"
#include "storage-daemon/daemon.h"
#include "storage-daemon/monitor.h"
#include "storage-daemon/object.h"

static bool quit_requested;

/* What main.c has in the daemon. */
void daemon_request_quit(void)
{
    quit_requested = true;
}

bool daemon_quitting(void)
{
    return quit_requested;
}

/* ---- a client ---- */

typedef struct Client {
    char name[8];
    int fd;
    GString *in;
} Client;

static void coroutine_fn co_open(void *opaque)
{
    Client *client = opaque;
    int fds[2];
    g_autofree char *chardev = NULL;
    bool help = false;

    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), ==, 0);
    chardev = g_strdup_printf("socket,id=%s,fd=%d", client->name, fds[1]);
    client->fd = fds[0];
    g_assert_true(chardev_co_add_option(chardev, &help, NULL));
    g_assert_true(monitor_co_add_option(client->name, &help, NULL));
}

static Client *client_new(void)
{
    static unsigned number;
    Client *client = g_new0(Client, 1);

    g_snprintf(client->name, sizeof(client->name), "m%u", number++);
    client->in = g_string_new(NULL);
    co_test_run(co_open, client);
    return client;
}

static void client_send(Client *client, const char *text)
{
    size_t len = strlen(text);

    g_assert_cmpint(send(client->fd, text, len, MSG_NOSIGNAL), ==, len);
}

/* The next line, "\r\n" cut off; NULL at the end. */
static char *client_line(Client *client)
{
    char buf[4096];
    char *end, *line;

    while (!(end = strstr(client->in->str, "\r\n"))) {
        ssize_t n = recv(client->fd, buf, sizeof(buf), MSG_DONTWAIT);

        if (n == 0 || (n < 0 && errno == ECONNRESET)) {
            return NULL;
        }
        if (n > 0) {
            g_string_append_len(client->in, buf, n);
        } else {
            g_assert_cmpint(errno, ==, EAGAIN);
            aio_poll(aio_context_current(), true);
        }
    }
    line = g_strndup(client->in->str, end - client->in->str);
    g_string_erase(client->in, 0, strlen(line) + 2);
    return line;
}

static void client_expect(Client *client, const char *expected)
{
    g_autofree char *line = client_line(client);

    g_assert_cmpstr(line, ==, expected);
}

static void client_expect_pattern(Client *client, const char *pattern)
{
    g_autofree char *line = client_line(client);

    g_assert_nonnull(line);
    if (!g_pattern_match_simple(pattern, line)) {
        g_error("'%s' does not match '%s'", line, pattern);
    }
}

#define GREETING "{\"QMP\": {\"version\": {\"qemu\": {*\"major\": 11*}, " \
    "\"package\": \"*\"}, \"capabilities\": [\"oob\"]}}"
#define ERROR_REPLY(class, desc) \
    "{\"error\": {\"class\": \"" class "\", \"desc\": \"" desc "\"}}"
#define GENERIC(desc) ERROR_REPLY("GenericError", desc)

static void client_negotiate(Client *client, const char *arguments)
{
    g_autofree char *text = g_strdup_printf(
        "{'execute': 'qmp_capabilities'%s}\n", arguments);

    client_expect_pattern(client, GREETING);
    client_send(client, text);
    client_expect(client, "{\"return\": {}}");
}

static void coroutine_fn co_close(void *opaque)
{
    Client *client = opaque;
    g_autofree char *chardev = g_strdup(client->name);
    g_autofree char *object = g_strdup_printf("compat_monitor%s",
                                              client->name + 1);
    QmpChardevRemoveArg arg = { .id = chardev };
    Error *err = NULL;

    g_assert_true(object_co_del(object, &err));
    qmp_chardev_remove(&arg, &err);
    g_assert_null(err);
}

static void client_free(Client *client)
{
    co_test_run(co_close, client);
    if (client->fd >= 0) {
        close(client->fd);
    }
    g_string_free(client->in, TRUE);
    g_free(client);
}

/* ---- tests ---- */

static void test_negotiation(void)
{
    Client *client = client_new();

    client_expect_pattern(client, GREETING);
    client_send(client, "{'execute': 'qmp_capabilities', 'id': 1}"
                "{'execute': 'qmp_capabilities'}"
                "{'execute': 'query-version'}");
    client_expect(client, "{\"return\": {}, \"id\": 1}");
    client_expect(client, ERROR_REPLY("CommandNotFound", "Capabilities "
                  "negotiation is already complete, command ignored"));
    client_expect_pattern(client, "{\"return\": {*");
    client_free(client);
}

/* Before negotiation an error ends a session: what follows is not looked at. */
static void test_error_before(void)
{
    static const char negotiation[] = "{'execute': 'qmp_capabilities'}"
        "{'execute': 'quit'}";
    static const char *const cases[][2] = {
        { "{'execute': 'query-version'}",
          ERROR_REPLY("CommandNotFound", "Expecting capabilities negotiation "
                      "with 'qmp_capabilities'") },
        { "{'execute': 'bogus'}",
          ERROR_REPLY("CommandNotFound", "Expecting capabilities negotiation "
                      "with 'qmp_capabilities'") },
        { "{'execute': 'qmp_capabilities', 'arguments': {'x': 1}}",
          GENERIC("Parameter 'x' is unexpected") },
        { "[]", GENERIC("QMP input must be a JSON object") },
        { "POST / HTTP/1.1\r\nContent-Type: text/plain\r\n\r\n",
          GENERIC("1:1: JSON parse error, stray 'P'") },
        /* Anything goes as the name of a method. */
        { "true / HTTP/1.1\r\n\r\n",
          GENERIC("QMP input must be a JSON object") },
        { "'x / HTTP/1.1\r\n\r\n",
          GENERIC("1:1: JSON parse error, stray ''x / HTTP/1.1\\r'") },
        { "9 / HTTP/1.1\r\n\r\n", GENERIC("QMP input must be a JSON object") },
    };

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        Client *client = client_new();

        client_expect_pattern(client, GREETING);
        client_send(client, cases[i][0]);
        client_send(client, negotiation);
        client_expect(client, cases[i][1]);
        client_expect(client, NULL);
        g_assert_false(quit_requested);
        client_free(client);
    }
}

static void test_bad_input(void)
{
    static const char *const cases[][2] = {
        { "{'execute': 1}",
          GENERIC("QMP input member 'execute' must be a string") },
        { "{'exec': 'x'}", GENERIC("QMP input member 'exec' is unexpected") },
        { "{'exec-oob': 'x'}",
          GENERIC("QMP input member 'exec-oob' is unexpected") },
        { "[]", GENERIC("QMP input must be a JSON object") },
        { "'x'", GENERIC("QMP input must be a JSON object") },
        { "{}", GENERIC("QMP input lacks member 'execute'") },
        { "{'execute': 'quit', 'arguments': []}",
          GENERIC("QMP input member 'arguments' must be an object") },
        { "{'execute': 'bogus', 'id': 'x'}",
          "{\"id\": \"x\", \"error\": {\"class\": \"CommandNotFound\", "
          "\"desc\": \"The command bogus has not been found\"}}" },
        { "{'execute': 'query-chardev', 'id': [1, {'a': 18446744073709551615}],"
          " 'arguments': {'a': 1}}",
          "{\"id\": [1, {\"a\": 18446744073709551615}], \"error\": "
          "{\"class\": \"GenericError\", "
          "\"desc\": \"Parameter 'a' is unexpected\"}}" },
    };
    Client *client = client_new();

    client_negotiate(client, "");
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        client_send(client, cases[i][0]);
        client_send(client, "\n");
        client_expect(client, cases[i][1]);
    }
    client_send(client, "garbage\n{'execute': 'query-commands'}\n");
    client_expect_pattern(client, "*JSON parse error, invalid keyword*");
    client_expect_pattern(client, "{\"return\": [*");
    client_free(client);
}

/* Input may be cut anywhere. */
static void test_portions(void)
{
    static const char text[] = "{'execute': 'qom-get', 'arguments': "
        "{'path': '/', 'property': 'type'}, 'id': 'y'}";
    Client *client = client_new();

    client_negotiate(client, "");
    for (const char *p = text; *p; p++) {
        char portion[2] = { *p };

        client_send(client, portion);
        aio_poll(aio_context_current(), false);
    }
    client_expect(client, "{\"return\": \"container\", \"id\": \"y\"}");
    client_free(client);
}

static void test_oob(void)
{
    Client *client = client_new();

    client_negotiate(client, ", 'arguments': {'enable': ['oob']}");
    client_send(client, "{'exec-oob': 'query-version', 'id': 1}"
                "{'execute': 'query-version', 'exec-oob': 'x'}"
                "{'exec-oob': 2}");
    client_expect(client, "{\"id\": 1, \"error\": {\"class\": "
                  "\"GenericError\", \"desc\": \"The command query-version "
                  "does not support OOB\"}}");
    client_expect(client, GENERIC("QMP input member 'exec-oob' must be a "
                                  "string"));
    client_expect(client, GENERIC("QMP input member 'execute' clashes with "
                                  "'exec-oob'"));
    client_free(client);
}

/* Events reach whoever has negotiated. */
static void test_events(void)
{
    Client *one = client_new(), *two = client_new(), *silent = client_new();

    client_negotiate(one, "");
    client_negotiate(two, "");
    client_expect_pattern(silent, GREETING);
    qapi_event_send(QAPI_EVENT_BLOCK_EXPORT_DELETED,
                    &(QapiEventBlockExportDeleted) { .id = (char *)"e" });
    for (int i = 0; i < 2; i++) {
        client_expect_pattern(i ? two : one, "{\"timestamp\": {\"seconds\": "
                              "*, \"microseconds\": *}, \"event\": "
                              "\"BLOCK_EXPORT_DELETED\", "
                              "\"data\": {\"id\": \"e\"}}");
    }
    client_send(silent, "{'execute': 'qmp_capabilities'}");
    client_expect(silent, "{\"return\": {}}");
    client_free(one);
    client_free(two);
    client_free(silent);
}

/*
 * A client that sends commands and takes no replies: reading pauses, and goes
 * on when it takes them after all.
 */
static void test_backpressure(void)
{
    enum { N = 200 };
    Client *client = client_new();
    static const char command[] = "{'execute': 'query-qmp-schema'}";
    int sent = 0;

    client_negotiate(client, "");
    while (sent < N) {
        ssize_t n = send(client->fd, command, strlen(command),
                         MSG_DONTWAIT | MSG_NOSIGNAL);

        if (n == (ssize_t)strlen(command)) {
            sent++;
        }
        if (n < 0 || sent % 8 == 0) {
            aio_poll(aio_context_current(), false);
        }
    }
    for (int i = 0; i < 200; i++) {
        aio_poll(aio_context_current(), false);
    }
    for (int i = 0; i < N; i++) {
        client_expect_pattern(client, "{\"return\": [*");
    }
    client_free(client);
}

/* A client that vanishes with replies and commands outstanding. */
static void test_vanish(void)
{
    Client *client = client_new(), *other = client_new();

    client_negotiate(client, "");
    client_negotiate(other, "");
    for (int i = 0; i < 50; i++) {
        client_send(client, "{'execute': 'query-qmp-schema'}");
    }
    close(client->fd);
    client->fd = -1;
    for (int i = 0; i < 50; i++) {
        client_send(other, "{'execute': 'qom-list', "
                    "'arguments': {'path': '/'}}");
        client_expect_pattern(other, "{\"return\": [*");
    }
    client_free(other);
    client_free(client);
}

static void coroutine_fn co_stop(void *opaque)
{
    monitor_co_stop_all();
}

/* Nothing is run after quit. */
static void test_quit(void)
{
    Client *client = client_new();

    client_negotiate(client, "");
    client_send(client, "{'execute': 'quit'}{'execute': 'query-version'}");
    client_expect(client, "{\"return\": {}}");
    g_assert_true(quit_requested);
    co_test_run(co_stop, NULL);
    client_free(client);
}

static void coroutine_fn co_cleanup(void *opaque)
{
    object_co_close_all();
    chardev_co_close_all();
    qom_cleanup();
}

int main(int argc, char **argv)
{
    AioContext *ctx;
    int ret;

    g_test_init(&argc, &argv, NULL);
    signal(SIGPIPE, SIG_IGN);
    ctx = aio_context_new(AIO_BACKEND_AUTO, NULL);
    monitor_start_all();
    g_test_add_func("/monitor/negotiation", test_negotiation);
    g_test_add_func("/monitor/error-before", test_error_before);
    g_test_add_func("/monitor/bad-input", test_bad_input);
    g_test_add_func("/monitor/portions", test_portions);
    g_test_add_func("/monitor/oob", test_oob);
    g_test_add_func("/monitor/events", test_events);
    g_test_add_func("/monitor/backpressure", test_backpressure);
    g_test_add_func("/monitor/vanish", test_vanish);
    g_test_add_func("/monitor/quit", test_quit);
    ret = g_test_run();
    co_test_run(co_cleanup, NULL);
    qapi_event_set_emitter(NULL);
    aio_context_free(ctx);
    coroutine_pool_drain();
    return ret;
}
