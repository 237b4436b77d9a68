/* SPDX-License-Identifier: MIT */
/*
 * Chardevs on plain descriptors: file, pipe, stdio, null.
 *
 * stdin and stdout share their file description with other processes (the
 * shell), so that their flags and the terminal's modes are put back at exit.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <termios.h>
#include <unistd.h>
#include "storage-daemon/chardev-int.h"
#include "util/named-file.h"

/* ---- file ---- */

static bool chardev_file_parse(const OptStr *opts, ChardevBackend *backend,
                               Error **errp)
{
    ChardevFile *file = g_new0(ChardevFile, 1);
    const char *path = optstr_get(opts, "path");

    backend->u.file.data = file;
    if (!path) {
        error_setg(errp, "chardev: file: no filename given");
        return false;
    }
    file->out = g_strdup(path);
    file->in = g_strdup(optstr_get(opts, "input-path"));
    file->has_append = true;
    file->append = optstr_get_bool(opts, "append", false);
    return true;
}

static int coroutine_fn chardev_co_open_path(const char *path, int flags,
                                             Error **errp)
{
    int fd = named_file_co_open(path, flags | O_NONBLOCK, errp);

    if (fd < 0) {
        error_prepend(errp, "Could not open '%s': ", path);
    }
    return fd;
}

/* On storage, rather than a FIFO or terminal; storage is not asked. */
static bool is_stored(int fd)
{
    return lseek(fd, 0, SEEK_CUR) >= 0;
}

static bool coroutine_fn chardev_file_co_open(Chardev *chr,
                                              const ChardevBackend *backend,
                                              bool from_qmp, Error **errp)
{
    const ChardevFile *file = backend->u.file.data;
    bool append = file->has_append && file->append;
    int in = -1, out;

    out = named_file_co_create(file->out, O_WRONLY | O_NONBLOCK |
                               (append ? O_APPEND : O_TRUNC), 0666, errp);
    if (out < 0) {
        error_prepend(errp, "Could not open '%s': ", file->out);
        return false;
    }
    if (file->in) {
        in = chardev_co_open_path(file->in, O_RDONLY, errp);
        if (in < 0) {
            close(out);
            return false;
        }
    }
    if (is_stored(out)) {
        chr->file = chardev_log_new(chr->label, out, false);
        out = -1;
    }
    chardev_set_fds(chr, in, out);
    return true;
}

static char *chardev_file_filename(const Chardev *chr)
{
    return g_strdup("file");
}

static void chardev_fd_close(Chardev *chr)
{
    /* The descriptors are closed by the core. */
}

const ChardevDriver chardev_file_driver = {
    .kind = CHARDEV_BACKEND_KIND_FILE,
    .qom_type = "chardev-file",
    .instance_size = sizeof(Chardev),
    .parse = chardev_file_parse,
    .co_open = chardev_file_co_open,
    .close = chardev_fd_close,
    .filename = chardev_file_filename,
};

/* ---- pipe ---- */

static bool chardev_pipe_parse(const OptStr *opts, ChardevBackend *backend,
                               Error **errp)
{
    ChardevHostdev *pipe = g_new0(ChardevHostdev, 1);
    const char *path = optstr_get(opts, "path");

    backend->u.pipe.data = pipe;
    if (!path) {
        error_setg(errp, "chardev: pipe: no device path given");
        return false;
    }
    pipe->device = g_strdup(path);
    return true;
}

/* DEVICE.in and DEVICE.out, else DEVICE both ways. */
static bool coroutine_fn chardev_pipe_co_open(Chardev *chr,
                                              const ChardevBackend *backend,
                                              bool from_qmp, Error **errp)
{
    const char *device = backend->u.pipe.data->device;
    g_autofree char *path_in = g_strdup_printf("%s.in", device);
    g_autofree char *path_out = g_strdup_printf("%s.out", device);
    int in = named_file_co_open(path_in, O_RDWR | O_NONBLOCK, NULL);
    int out = named_file_co_open(path_out, O_RDWR | O_NONBLOCK, NULL);

    if (in < 0 || out < 0) {
        if (in >= 0) {
            close(in);
        }
        if (out >= 0) {
            close(out);
        }
        in = out = chardev_co_open_path(device, O_RDWR, errp);
        if (in < 0) {
            return false;
        }
    }
    chardev_set_fds(chr, in, out);
    return true;
}

static char *chardev_pipe_filename(const Chardev *chr)
{
    return g_strdup("pipe");
}

const ChardevDriver chardev_pipe_driver = {
    .kind = CHARDEV_BACKEND_KIND_PIPE,
    .qom_type = "chardev-pipe",
    .instance_size = sizeof(Chardev),
    .parse = chardev_pipe_parse,
    .co_open = chardev_pipe_co_open,
    .close = chardev_fd_close,
    .filename = chardev_pipe_filename,
};

/* ---- stdio ---- */

static struct {
    bool forbidden;
    bool in_use;
    int flags_in, flags_out;
    bool is_tty;
    struct termios termios;
} chardev_stdio;

void chardev_forbid_stdio(void)
{
    chardev_stdio.forbidden = true;
}

static void chardev_stdio_restore(void)
{
    if (!chardev_stdio.in_use) {
        return;
    }
    chardev_stdio.in_use = false;
    fcntl(STDIN_FILENO, F_SETFL, chardev_stdio.flags_in);
    fcntl(STDOUT_FILENO, F_SETFL, chardev_stdio.flags_out);
    if (chardev_stdio.is_tty) {
        tcsetattr(STDIN_FILENO, TCSANOW, &chardev_stdio.termios);
    }
}

/* Bytes as they are typed, without echo; @signal: ^C still interrupts. */
static void chardev_stdio_raw(bool signal)
{
    struct termios tio;

    chardev_stdio.is_tty = tcgetattr(STDIN_FILENO,
                                     &chardev_stdio.termios) == 0;
    if (!chardev_stdio.is_tty) {
        return;
    }
    tio = chardev_stdio.termios;
    tio.c_iflag &= ~(IGNBRK | BRKINT | PARMRK | ISTRIP | INLCR | IGNCR |
                     ICRNL | IXON);
    tio.c_oflag |= OPOST;
    tio.c_lflag &= ~(ECHO | ECHONL | ICANON | IEXTEN);
    if (!signal) {
        tio.c_lflag &= ~ISIG;
    }
    tio.c_cflag &= ~(CSIZE | PARENB);
    tio.c_cflag |= CS8;
    tio.c_cc[VMIN] = 1;
    tio.c_cc[VTIME] = 0;
    tcsetattr(STDIN_FILENO, TCSANOW, &tio);
}

static bool chardev_stdio_parse(const OptStr *opts, ChardevBackend *backend,
                                Error **errp)
{
    ChardevStdio *stdio = g_new0(ChardevStdio, 1);

    backend->u.stdio.data = stdio;
    stdio->has_signal = true;
    stdio->signal = optstr_get_bool(opts, "signal", true);
    return true;
}

static bool coroutine_fn chardev_stdio_co_open(Chardev *chr,
                                               const ChardevBackend *backend,
                                               bool from_qmp, Error **errp)
{
    const ChardevStdio *stdio = backend->u.stdio.data;
    static bool registered;

    if (chardev_stdio.forbidden) {
        error_setg(errp, "cannot use stdio with -daemonize");
        return false;
    }
    if (chardev_stdio.in_use) {
        error_setg(errp, "cannot use stdio by multiple character devices");
        return false;
    }
    chardev_stdio.flags_in = fcntl(STDIN_FILENO, F_GETFL);
    chardev_stdio.flags_out = fcntl(STDOUT_FILENO, F_GETFL);
    if (chardev_stdio.flags_in < 0 || chardev_stdio.flags_out < 0) {
        error_setg_errno(errp, errno, "Could not use stdio");
        return false;
    }
    chardev_stdio.in_use = true;
    if (!registered) {
        registered = true;
        atexit(chardev_stdio_restore);
    }
    fcntl(STDIN_FILENO, F_SETFL, chardev_stdio.flags_in | O_NONBLOCK);
    fcntl(STDOUT_FILENO, F_SETFL, chardev_stdio.flags_out | O_NONBLOCK);
    chardev_stdio_raw(!stdio->has_signal || stdio->signal);
    chr->keep_fds = true;
    chardev_set_fds(chr, STDIN_FILENO, STDOUT_FILENO);
    return true;
}

static void chardev_stdio_close(Chardev *chr)
{
    if (chr->keep_fds) {
        chardev_stdio_restore();
    }
}

static char *chardev_stdio_filename(const Chardev *chr)
{
    return g_strdup("stdio");
}

const ChardevDriver chardev_stdio_driver = {
    .kind = CHARDEV_BACKEND_KIND_STDIO,
    .qom_type = "chardev-stdio",
    .instance_size = sizeof(Chardev),
    .parse = chardev_stdio_parse,
    .co_open = chardev_stdio_co_open,
    .close = chardev_stdio_close,
    .filename = chardev_stdio_filename,
};

/* ---- null ---- */

static bool chardev_null_parse(const OptStr *opts, ChardevBackend *backend,
                               Error **errp)
{
    backend->u.null.data = g_new0(ChardevCommon, 1);
    return true;
}

static bool coroutine_fn chardev_null_co_open(Chardev *chr,
                                              const ChardevBackend *backend,
                                              bool from_qmp, Error **errp)
{
    return true;
}

static char *chardev_null_filename(const Chardev *chr)
{
    return g_strdup("null");
}

const ChardevDriver chardev_null_driver = {
    .kind = CHARDEV_BACKEND_KIND_NULL,
    .qom_type = "chardev-null",
    .instance_size = sizeof(Chardev),
    .parse = chardev_null_parse,
    .co_open = chardev_null_co_open,
    .close = chardev_fd_close,
    .filename = chardev_null_filename,
};
