/* SPDX-License-Identifier: MIT */
/*
 * QMP sessions: a real monitor on a socket.  Arguments of all commands are
 * read into C values and written back; carried out are only those that change
 * nothing outside of the session.
 *
 * Input: size of the portions that the peer sends (0: all at once), then what
 * it sends.
 */
#include <errno.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include "qapi/command.h"
#include "qapi/event.h"
#include "qapi/json.h"
#include "qapi/qapi-commands.h"
#include "qapi/visit.h"
#include "storage-daemon/chardev.h"
#include "storage-daemon/daemon.h"
#include "storage-daemon/monitor.h"
#include "storage-daemon/object.h"
#include "tests/fuzz/fuzz.h"

#define SESSION_MAX (64 * 1024)

/* The linker puts the first in place of qapi_co_command_run(). */
QObject *coroutine_fn __wrap_qapi_co_command_run(const QapiCommand *cmd,
                                                 const QDict *args,
                                                 Error **errp);
QObject *coroutine_fn __real_qapi_co_command_run(const QapiCommand *cmd,
                                                 const QDict *args,
                                                 Error **errp);

typedef struct Session {
    int fd;
    int monitor_fd;
    char *id;                   /* of chardev and monitor */
    bool negotiated;
} Session;

/* What main.c has in the daemon. */
void daemon_request_quit(void)
{
}

bool daemon_quitting(void)
{
    return false;
}

/* To be carried out, not only read. */
static bool is_harmless(const char *name)
{
    if (!strcmp(name, "query-qmp-schema")) {
        return false;           /* always the same, and much of it */
    }
    return g_str_has_prefix(name, "query-") || !strcmp(name, "qom-list")
           || !strcmp(name, "qom-list-types") || !strcmp(name, "qom-get")
           || !strcmp(name, "qmp_capabilities")
           || !strcmp(name, "block-export-del")
           || !strcmp(name, "blockdev-del");
}

/* Read the arguments as the command would, and see them come back. */
static void check_arguments(const QapiCommand *cmd, void *arg)
{
    g_autoptr(QObject) obj = qapi_to_qobject(cmd->arg, arg);
    void *clone = qapi_clone(cmd->arg, arg);
    Error *err = NULL;
    void *again = qapi_from_qobject(cmd->arg, obj, false, &err);

    g_assert_null(err);
    g_assert_nonnull(again);
    qapi_free(cmd->arg, clone);
    qapi_free(cmd->arg, again);
}

QObject *coroutine_fn __wrap_qapi_co_command_run(const QapiCommand *cmd,
                                                 const QDict *args,
                                                 Error **errp)
{
    g_autoptr(QDict) none = qdict_new();
    void *arg = qapi_from_qobject(cmd->arg, QOBJECT(args ? args : none),
                                  false, errp);

    if (!arg) {
        return NULL;
    }
    check_arguments(cmd, arg);
    qapi_free(cmd->arg, arg);
    if (is_harmless(cmd->name)) {
        return __real_qapi_co_command_run(cmd, args, errp);
    }
    return QOBJECT(qdict_new());
}

static void coroutine_fn open_co(void *opaque)
{
    Session *s = opaque;
    g_autofree char *chardev = g_strdup_printf("socket,id=%s,fd=%d", s->id,
                                               s->monitor_fd);
    g_autofree char *monitor = g_strdup_printf("%s,id=%s", s->id, s->id);
    bool help = false;

    g_assert_true(chardev_co_add_option(chardev, &help, NULL));
    g_assert_true(monitor_co_add_option(monitor, &help, NULL));
}

static void coroutine_fn close_co(void *opaque)
{
    Session *s = opaque;
    QmpChardevRemoveArg arg = { .id = s->id };
    Error *err = NULL;

    g_assert_true(object_co_del(s->id, &err));
    qmp_chardev_remove(&arg, &err);
    g_assert_null(err);
}

/* What the monitor says is JSON, an object for each line. */
static void check_reply(void *opaque, QObject *value, Error *err)
{
    Session *s = opaque;

    g_assert_null(err);
    g_assert_nonnull(qobject_to_qdict(value));
    s->negotiated |= qdict_haskey(qobject_to_qdict(value), "return");
    qobject_unref(value);
}

/* Take what the monitor said; false once it has closed the connection. */
static bool receive(Session *s, JSONParser *replies)
{
    char buf[65536];
    ssize_t n;

    while ((n = recv(s->fd, buf, sizeof(buf), MSG_DONTWAIT)) > 0) {
        json_parser_feed(replies, buf, n);
    }
    return n < 0 && errno == EAGAIN;
}

static void run_session(Session *s, FuzzInput *in, size_t portion)
{
    JSONParser *replies = json_parser_new(check_reply, s);

    while (in->size) {
        ssize_t n = send(s->fd, in->data, MIN(in->size, portion),
                         MSG_DONTWAIT | MSG_NOSIGNAL);

        if (n > 0) {
            in->data += n;
            in->size -= n;
        } else if (errno != EAGAIN) {
            break;
        }
        aio_poll(fuzz_context(), n <= 0);
        receive(s, replies);
    }
    shutdown(s->fd, SHUT_WR);
    while (receive(s, replies)) {
        aio_poll(fuzz_context(), true);
    }
    /* Who is not let in may be cut off in the middle of the reason. */
    if (s->negotiated) {
        json_parser_flush(replies);
    }
    json_parser_free(replies);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static bool started;
    FuzzInput in = { data, MIN(size, SESSION_MAX) };
    size_t portion = fuzz_take_u8(&in);
    Session s = { .id = (char *)"m" };
    int fds[2];

    fuzz_context();
    if (!started) {
        monitor_start_all();
        started = true;
    }
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), ==, 0);
    s.fd = fds[0];
    s.monitor_fd = fds[1];
    co_test_run(open_co, &s);
    run_session(&s, &in, portion ? portion : SESSION_MAX);
    co_test_run(close_co, &s);
    close(s.fd);
    return 0;
}
