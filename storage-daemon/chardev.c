/* SPDX-License-Identifier: MIT */
/*
 * Character devices, what all have in common: names, input, buffered output,
 * the frontend.
 *
 * Descriptors are non-blocking and served by the event loop.  A write error is
 * noticed inside chardev_write(), whose caller does not expect its callbacks to
 * run; therefore hanging up then happens in a bottom half.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "qapi/qapi-commands.h"
#include "storage-daemon/chardev-int.h"
#include "storage-daemon/ident.h"
#include "storage-daemon/monitor.h"
#include "util/named-file.h"
#include "util/trace.h"

#define CHARDEV_READ_SIZE 4096
#define CHARDEV_OUT_KEEP (64 * 1024)    /* memory of a buffer without content */
#define CHARDEV_WRITE_STEP (1024 * 1024)        /* bytes, in one turn */
#define CHARDEV_FLUSH_NS (2 * 1000 * 1000 * 1000LL)
#define CHARDEV_FLUSH_STEP_NS (2 * 1000 * 1000LL)

static const ChardevDriver *const chardev_drivers[] = {
    &chardev_file_driver,
    &chardev_pipe_driver,
    &chardev_socket_driver,
    &chardev_null_driver,
    &chardev_stdio_driver,
};

static QomObject *chardev_container(void)
{
    return qom_container("/chardevs");
}

static const ChardevDriver *chardev_driver_by_kind(ChardevBackendKind kind)
{
    for (size_t i = 0; i < G_N_ELEMENTS(chardev_drivers); i++) {
        if (chardev_drivers[i]->kind == kind) {
            return chardev_drivers[i];
        }
    }
    return NULL;
}

const ChardevDriver *chardev_driver_by_name(const char *name)
{
    for (size_t i = 0; i < G_N_ELEMENTS(chardev_drivers); i++) {
        if (!strcmp(ChardevBackendKind_str(chardev_drivers[i]->kind), name)) {
            return chardev_drivers[i];
        }
    }
    return NULL;
}

void chardev_print_kinds(void)
{
    printf("Available chardev backend types: \n");
    for (size_t i = 0; i < G_N_ELEMENTS(chardev_drivers); i++) {
        printf("  %s\n", ChardevBackendKind_str(chardev_drivers[i]->kind));
    }
}

/* Not while it is still waiting for a peer to come up. */
static Chardev *chardev_lookup(const char *id)
{
    QomObject *obj = qom_child(chardev_container(), id);
    Chardev *chr = obj ? qom_opaque(obj) : NULL;

    return chr && !chr->opening ? chr : NULL;
}

Chardev *chardev_find(const char *id, Error **errp)
{
    Chardev *chr = chardev_lookup(id);

    if (!chr) {
        error_setg(errp, "chardev \"%s\" not found", id);
    }
    return chr;
}

const char *chardev_label(const Chardev *chr)
{
    return chr->label;
}

/* ---- input and output ---- */

static void chardev_read_ready(void *opaque);
static void chardev_write_ready(void *opaque);

static void chardev_update_handlers(Chardev *chr)
{
    AioContext *ctx = aio_context_main();
    IOHandler *io_read = chr->receiving && chr->fe ? chardev_read_ready : NULL;
    IOHandler *io_write = chr->flushing ? chardev_write_ready : NULL;

    if (chr->read_fd >= 0 && chr->read_fd == chr->write_fd) {
        aio_set_fd_handler(ctx, chr->read_fd, io_read, io_write, chr);
        return;
    }
    if (chr->read_fd >= 0) {
        aio_set_fd_handler(ctx, chr->read_fd, io_read, NULL, chr);
    }
    if (chr->write_fd >= 0) {
        aio_set_fd_handler(ctx, chr->write_fd, NULL, io_write, chr);
    }
}

static void chardev_drop_output(Chardev *chr)
{
    if (chr->out->allocated_len > CHARDEV_OUT_KEEP) {
        g_string_free(chr->out, TRUE);
        chr->out = g_string_new(NULL);
    }
    g_string_truncate(chr->out, 0);
    chr->out_pos = 0;
    chr->flushing = false;
}

static void chardev_close_fd(Chardev *chr, int fd)
{
    if (fd >= 0) {
        aio_set_fd_handler(aio_context_main(), fd, NULL, NULL, NULL);
        if (!chr->keep_fds) {
            close(fd);
        }
    }
}

static void chardev_close_fds(Chardev *chr)
{
    chardev_close_fd(chr, chr->read_fd);
    if (chr->write_fd != chr->read_fd) {
        chardev_close_fd(chr, chr->write_fd);
    }
    chr->read_fd = chr->write_fd = -1;
    chardev_drop_output(chr);
}

void chardev_set_fds(Chardev *chr, int read_fd, int write_fd)
{
    chr->read_fd = read_fd;
    chr->write_fd = write_fd;
    trace(chardev_open, "id=%s read_fd=%d write_fd=%d", chr->label, read_fd,
          write_fd);
    chardev_update_handlers(chr);
    if (chr->fe && chr->fe->opened) {
        chr->fe->opened(chr->fe_opaque);
    }
}

void chardev_hangup(Chardev *chr)
{
    trace(chardev_close, "id=%s", chr->label);
    if (chr->read_fd >= 0 && chr->write_fd >= 0 &&
        chr->read_fd != chr->write_fd) {
        /* No more input; output may still be taken. */
        chardev_close_fd(chr, chr->read_fd);
        chr->read_fd = -1;
    } else {
        chardev_close_fds(chr);
        if (chr->drv->disconnected) {
            chr->drv->disconnected(chr);
        }
    }
    if (chr->fe && chr->fe->closed) {
        chr->fe->closed(chr->fe_opaque);
    }
}

void chardev_end_session(Chardev *chr)
{
    if (chr->drv == &chardev_socket_driver && chr->read_fd >= 0) {
        chardev_hangup(chr);
    }
}

static void chardev_drained(Chardev *chr)
{
    if (chr->fe && chr->fe->drained) {
        chr->fe->drained(chr->fe_opaque);
    }
}

static void chardev_hangup_bh(void *opaque)
{
    Chardev *chr = opaque;

    if (chr->read_fd >= 0 && chr->read_fd != chr->write_fd) {
        /* The end that takes output broke; input goes on. */
        chardev_close_fd(chr, chr->write_fd);
        chr->write_fd = -1;
        chardev_drop_output(chr);
        chardev_drained(chr);
    } else if (chr->write_fd >= 0) {
        chardev_hangup(chr);
    }
}

static void chardev_read_ready(void *opaque)
{
    Chardev *chr = opaque;
    char buf[CHARDEV_READ_SIZE];
    ssize_t n = read(chr->read_fd, buf, sizeof(buf));

    if (n > 0) {
        chr->fe->received(chr->fe_opaque, buf, n);
        explicit_bzero(buf, n);         /* there may have been a secret */
    } else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
        chardev_hangup(chr);
    }
}

/* Write what the descriptor takes now. */
static void chardev_flush(Chardev *chr)
{
    size_t end = chr->out_pos + CHARDEV_WRITE_STEP;

    while (chr->out_pos < chr->out->len) {
        ssize_t n;

        if (chr->out_pos >= end) {      /* who reads fast waits for others */
            chr->flushing = true;
            return;
        }
        n = write(chr->write_fd, chr->out->str + chr->out_pos,
                  MIN(chr->out->len, end) - chr->out_pos);

        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0 && errno == EAGAIN) {
            chr->flushing = true;
            return;
        }
        if (n < 0) {
            trace(chardev_write_error, "id=%s errno=%d", chr->label, errno);
            chardev_drop_output(chr);
            aio_bh_schedule(chr->hangup_bh);
            return;
        }
        chr->out_pos += n;
    }
    chardev_drop_output(chr);
}

static void chardev_write_ready(void *opaque)
{
    Chardev *chr = opaque;

    chardev_flush(chr);
    if (!chr->flushing) {
        chardev_update_handlers(chr);
        chardev_drained(chr);
    }
}

void chardev_write(Chardev *chr, GString *text)
{
    g_autoptr(GString) owned = text;

    if (chr->log) {
        chardev_log_write(chr->log, text);
    }
    if (chr->file) {
        chardev_log_write(chr->file, text);
    }
    if (chr->write_fd < 0) {
        return;
    }
    if (chardev_pending(chr) > CHARDEV_OUT_MAX) {
        trace(chardev_write_error, "id=%s reader too slow", chr->label);
        chardev_drop_output(chr);
        chardev_update_handlers(chr);
        aio_bh_schedule(chr->hangup_bh);
        return;
    }
    if (chr->out_pos > CHARDEV_READ_SIZE && chr->out_pos > chr->out->len / 2) {
        g_string_erase(chr->out, 0, chr->out_pos);
        chr->out_pos = 0;
    }
    if (chr->out->len) {
        g_string_append_len(chr->out, text->str, text->len);
    } else {                            /* it may be large */
        owned = chr->out;
        chr->out = text;
    }
    if (!chr->flushing) {
        chardev_flush(chr);
        if (chr->flushing) {
            chardev_update_handlers(chr);
        }
    }
}

size_t chardev_pending(const Chardev *chr)
{
    return chr->out->len - chr->out_pos;
}

void chardev_set_receiving(Chardev *chr, bool enable)
{
    if (chr->receiving != enable) {
        chr->receiving = enable;
        chardev_update_handlers(chr);
    }
}

/* ---- frontend ---- */

bool chardev_attach(Chardev *chr, const ChardevFrontend *fe, void *opaque,
                    Error **errp)
{
    if (chr->fe) {
        error_setg(errp, "chardev '%s' is already in use", chr->label);
        return false;
    }
    chr->fe = fe;
    chr->fe_opaque = opaque;
    chr->receiving = true;
    chardev_update_handlers(chr);
    if (chr->read_fd >= 0 || chr->write_fd >= 0 || chr->file) {
        fe->opened(opaque);
    }
    return true;
}

void chardev_detach(Chardev *chr)
{
    chr->fe = NULL;
    chr->receiving = false;
    chardev_update_handlers(chr);
}

/* ---- life ---- */

void chardev_ref(Chardev *chr)
{
    chr->refcnt++;
}

void chardev_unref(Chardev *chr)
{
    if (--chr->refcnt) {
        return;
    }
    if (chr->drv->finalize) {
        chr->drv->finalize(chr);
    }
    aio_bh_delete(chr->hangup_bh);
    g_string_free(chr->out, TRUE);
    g_free(chr->label);
    g_free(chr);
}

static void chardev_close(Chardev *chr)
{
    chr->closed = true;
    qom_remove_child(chr->object);
    chr->drv->close(chr);
    chardev_close_fds(chr);
    chardev_log_close(chr->log);
    chardev_log_close(chr->file);
    chardev_unref(chr);
}

void chardev_remove(Chardev *chr)
{
    chardev_close(chr);
}

ChardevCommon *chardev_common(const ChardevBackend *backend)
{
    switch (backend->type) {
    case CHARDEV_BACKEND_KIND_FILE:
        return (ChardevCommon *)backend->u.file.data;
    case CHARDEV_BACKEND_KIND_PIPE:
        return (ChardevCommon *)backend->u.pipe.data;
    case CHARDEV_BACKEND_KIND_SOCKET:
        return (ChardevCommon *)backend->u.socket.data;
    case CHARDEV_BACKEND_KIND_NULL:
        return backend->u.null.data;
    case CHARDEV_BACKEND_KIND_STDIO:
        return (ChardevCommon *)backend->u.stdio.data;
    default:
        g_assert_not_reached();
    }
}

static bool coroutine_fn chardev_co_open_log(Chardev *chr,
                                             const ChardevBackend *backend,
                                             Error **errp)
{
    const ChardevCommon *common = chardev_common(backend);
    int fd, flags = O_WRONLY | O_APPEND | O_NONBLOCK;

    if (!common->logfile) {
        return true;
    }
    if (!common->has_logappend || !common->logappend) {
        flags |= O_TRUNC;
    }
    fd = named_file_co_create(common->logfile, flags, 0666, errp);
    if (fd < 0) {
        error_prepend(errp, "Could not %s '%s': ",
                      flags & O_TRUNC ? "create" : "open", common->logfile);
        return false;
    }
    chr->log = chardev_log_new(chr->label, fd, common->has_logtimestamp &&
                                               common->logtimestamp);
    return true;
}

bool coroutine_fn chardev_co_add(const char *id,
                                 const ChardevBackend *backend, bool from_qmp,
                                 Error **errp)
{
    const ChardevDriver *drv = chardev_driver_by_kind(backend->type);
    Chardev *chr = g_malloc0(drv->instance_size);
    bool ok;

    chr->drv = drv;
    chr->label = g_strdup(id);
    chr->refcnt = 1;
    chr->read_fd = chr->write_fd = -1;
    chr->out = g_string_new(NULL);
    chr->hangup_bh = aio_bh_new(aio_context_main(), chardev_hangup_bh, chr);
    chr->object = qom_add_child(chardev_container(), id, drv->qom_type, chr,
                                errp);
    if (!chr->object) {
        chardev_unref(chr);
        return false;
    }
    chr->opening = true;
    ok = chardev_co_open_log(chr, backend, errp) &&
         drv->co_open(chr, backend, from_qmp, errp);
    chr->opening = false;
    if (!ok) {
        chardev_close(chr);
    }
    return ok;
}

static bool chardev_co_add_json(const char *optarg, Error **errp)
{
    QmpChardevAddArg *arg =
        qapi_from_option(&qapi_type_QmpChardevAddArg, optarg, NULL, NULL, errp);
    bool ok;

    if (!arg) {
        return false;
    }
    ok = ident_check(arg->id, errp) &&
         chardev_co_add(arg->id, arg->backend, false, errp);
    qapi_free_QmpChardevAddArg(arg);
    return ok;
}

bool coroutine_fn chardev_co_add_option(const char *optarg, bool *help,
                                        Error **errp)
{
    g_autoptr(ChardevBackend) backend = NULL;
    g_autofree char *id = NULL;

    if (optarg[0] == '{') {
        return chardev_co_add_json(optarg, errp);
    }
    backend = chardev_parse_option(optarg, &id, help, errp);
    return backend && chardev_co_add(id, backend, false, errp);
}

static void chardev_flush_check(QomObject *obj, void *opaque)
{
    Chardev *chr = qom_opaque(obj);
    bool *pending = opaque;

    *pending |= chr->flushing || chardev_log_busy(chr->log)
                || chardev_log_busy(chr->file);
}

void coroutine_fn chardev_co_flush_all(void)
{
    int64_t deadline = clock_now_ns() + CHARDEV_FLUSH_NS;

    while (clock_now_ns() < deadline) {
        bool pending = false;

        qom_foreach_child(chardev_container(), chardev_flush_check, &pending);
        if (!pending) {
            break;
        }
        aio_co_sleep_ns(CHARDEV_FLUSH_STEP_NS);
    }
}

static void chardev_close_one(QomObject *obj, void *opaque)
{
    chardev_close(qom_opaque(obj));
}

void coroutine_fn chardev_co_close_all(void)
{
    chardev_cancel_waits();
    qom_foreach_child(chardev_container(), chardev_close_one, NULL);
    chardev_socket_co_wait_idle();
    chardev_log_co_wait_closed(CHARDEV_FLUSH_NS);
}

/* ---- QMP ---- */

static void chardev_query_one(QomObject *obj, void *opaque)
{
    ChardevInfoList ***tail = opaque;
    Chardev *chr = qom_opaque(obj);
    ChardevInfo *info = g_new0(ChardevInfo, 1);

    info->label = g_strdup(chr->label);
    info->filename = chr->drv->filename(chr);
    info->frontend_open = chr->fe != NULL;
    QAPI_LIST_APPEND(*tail, info);
}

ChardevInfoList *coroutine_fn qmp_query_chardev(Error **errp)
{
    ChardevInfoList *list = NULL, **tail = &list;

    qom_foreach_child(chardev_container(), chardev_query_one, &tail);
    return list;
}

ChardevBackendInfoList *coroutine_fn qmp_query_chardev_backends(Error **errp)
{
    ChardevBackendInfoList *list = NULL, **tail = &list;

    for (size_t i = 0; i < G_N_ELEMENTS(chardev_drivers); i++) {
        ChardevBackendInfo *info = g_new0(ChardevBackendInfo, 1);

        info->name =
            g_strdup(ChardevBackendKind_str(chardev_drivers[i]->kind));
        QAPI_LIST_APPEND(tail, info);
    }
    return list;
}

ChardevReturn *coroutine_fn qmp_chardev_add(const QmpChardevAddArg *arg,
                                            Error **errp)
{
    Error *err = NULL;

    if (qom_child(chardev_container(), arg->id)) {
        error_setg(errp, "Chardev with id '%s' already exists", arg->id);
        return NULL;
    }
    if (!chardev_co_add(arg->id, arg->backend, true, &err)) {
        error_prepend(&err, "Failed to add chardev '%s': ", arg->id);
        error_propagate(errp, err);
        return NULL;
    }
    return g_new0(ChardevReturn, 1);
}

void coroutine_fn qmp_chardev_remove(const QmpChardevRemoveArg *arg,
                                     Error **errp)
{
    Chardev *chr = chardev_lookup(arg->id);

    if (!chr) {
        error_setg(errp, "Chardev '%s' not found", arg->id);
    } else if (chr->fe) {
        error_setg(errp, "Chardev '%s' is busy", arg->id);
    } else {
        chardev_remove(chr);
    }
}
