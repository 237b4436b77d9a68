/* SPDX-License-Identifier: MIT */
/*
 * qemu-storage-daemon: start, main loop, end.
 *
 * One coroutine carries out the command line, one other the end; in between the
 * main thread does nothing but run its event loop.  Signals arrive through a
 * signalfd, so that they are events like any other.
 */
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/signalfd.h>
#include <unistd.h>
#include "block/block.h"
#include "block/export/export.h"
#include "block/export/fuse-mounter.h"
#include "block/export/fuse.h"
#include "block/job.h"
#include "storage-daemon/chardev.h"
#include "storage-daemon/daemon.h"
#include "storage-daemon/monitor.h"
#include "storage-daemon/object.h"
#include "storage-daemon/options.h"
#include "util/aio.h"
#include "util/co-event.h"
#include "util/timed-call.h"
#include "util/trace.h"

/* After a second signal the end may take so long. */
#define DAEMON_FORCED_END_SECONDS 10

/*
 * How long the command line, commands that still run, and then the nodes may
 * take to end.
 * Writing out what nodes cache is worth some patience, but not for ever; and
 * little, if storage has not answered before.
 */
#define DAEMON_START_END_NS (10 * 1000000000LL)
#define DAEMON_COMMANDS_END_NS (10 * 1000000000LL)
#define DAEMON_NODES_END_NS (60 * 1000000000LL)
#define DAEMON_NODES_IMPATIENT_END_NS (5 * 1000000000LL)

static struct {
    ProcessOptions process;
    BottomHalf *shutdown_bh;
    int signal_fd;
    bool starting;              /* the command line is being carried out */
    bool quit_requested;
    bool start_limited;         /* somebody waits for start_ended */
    CoEvent start_ended;
    bool shutting_down;
    bool ended;
    int status;
} state;

bool daemon_quitting(void)
{
    return state.quit_requested;
}

void daemon_request_quit(void)
{
    state.quit_requested = true;
    aio_bh_schedule(state.shutdown_bh);
}

/* ---- the end ---- */

typedef struct EndStep {
    void coroutine_fn (*co_run)(void);
    CoEvent done;
} EndStep;

static void coroutine_fn daemon_co_run_step(void *opaque)
{
    EndStep *step = opaque;

    step->co_run();
    co_event_set(&step->done);
}

/*
 * Carry out @co_run.  False if it has not returned within @limit_ns: it is left
 * where it is, for this process to exit.
 */
static bool coroutine_fn daemon_co_step(void coroutine_fn (*co_run)(void),
                                        int64_t limit_ns)
{
    EndStep *step = g_new0(EndStep, 1);

    step->co_run = co_run;
    coroutine_enter(coroutine_create(daemon_co_run_step, step));
    if (!co_event_wait(&step->done, limit_ns)) {
        return false;
    }
    g_free(step);
    return true;
}

static void coroutine_fn daemon_co_shutdown(void *opaque)
{
    bool answered = !state.starting;

    trace(daemon_shutdown, "status=%d", state.status);
    notify_co_service_manager("STOPPING=1");
    chardev_cancel_waits();
    answered = daemon_co_step(monitor_co_stop_all, DAEMON_COMMANDS_END_NS)
               && answered;
    answered = job_co_end_all() && answered;
    answered = blk_exp_co_close_all() && answered;
    chardev_co_flush_all();             /* the last replies and events */
    /* Also if one node is stuck: the others' data is to be written out. */
    answered = daemon_co_step(bdrv_co_close_all,
                              answered ? DAEMON_NODES_END_NS
                                       : DAEMON_NODES_IMPATIENT_END_NS)
               && answered;
    if (!answered) {
        /* What requests that are stuck in storage use cannot be freed. */
        error_report("storage does not answer, giving up");
        fuse_mount_cleanup();           /* exports that hang go here */
        pidfile_co_remove();
        _exit(EXIT_FAILURE);
    }
    object_co_close_all();
    chardev_co_close_all();
    qom_cleanup();
    fuse_mount_cleanup();
    pidfile_co_remove();
    state.ended = true;
}

/* An option waits for storage that does not answer: end without it. */
static void coroutine_fn daemon_co_limit_start(void *opaque)
{
    if (!co_event_wait(&state.start_ended, DAEMON_START_END_NS)) {
        state.shutting_down = true;
        daemon_co_shutdown(NULL);
    }
}

static void daemon_shutdown_bh(void *opaque)
{
    if (state.shutting_down) {
        return;
    }
    if (!state.starting) {
        state.shutting_down = true;
        coroutine_enter(coroutine_create(daemon_co_shutdown, NULL));
        return;
    }
    chardev_cancel_waits();             /* daemon_co_start() comes back here */
    if (!state.start_limited) {
        state.start_limited = true;
        coroutine_enter(coroutine_create(daemon_co_limit_start, NULL));
    }
}

/* ---- signals ---- */

static void daemon_forced_end(int sig)
{
    pidfile_remove();
    _exit(EXIT_FAILURE);
}

static void daemon_signal_ready(void *opaque)
{
    struct signalfd_siginfo info;

    while (read(state.signal_fd, &info, sizeof(info)) == sizeof(info)) {
        if (state.quit_requested) {
            alarm(DAEMON_FORCED_END_SECONDS);
        } else {
            daemon_request_quit();
        }
    }
}

static void daemon_signal_set(sigset_t *set)
{
    sigemptyset(set);
    sigaddset(set, SIGINT);
    sigaddset(set, SIGTERM);
    sigaddset(set, SIGHUP);
}

/* Before any thread starts: all inherit the mask. */
static void daemon_block_signals(void)
{
    struct sigaction forced = { .sa_handler = daemon_forced_end };
    sigset_t set;

    daemon_signal_set(&set);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    sigaction(SIGALRM, &forced, NULL);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);           /* a write past RLIMIT_FSIZE: EFBIG */
}

static bool daemon_watch_signals(AioContext *ctx)
{
    sigset_t set;

    daemon_signal_set(&set);
    state.signal_fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    if (state.signal_fd < 0) {
        error_report("Failed to create a signalfd: %s", g_strerror(errno));
        return false;
    }
    aio_set_fd_handler(ctx, state.signal_fd, daemon_signal_ready, NULL, NULL);
    return true;
}

/* ---- the start ---- */

/* All options have been carried out: say so. */
static bool coroutine_fn daemon_co_announce(void)
{
    const char *pidfile = state.process.pidfile;
    Error *err = NULL;

    if (pidfile && !pidfile_co_create(pidfile, &err)) {
        error_prepend(&err, "cannot create PID file: ");
        error_report_err(err);
        return false;
    }
    notify_co_service_manager("READY=1");
    daemonize_ready();
    monitor_start_all();
    trace(daemon_up, "pid=%d", (int)getpid());
    return true;
}

static void coroutine_fn daemon_co_start(void *opaque)
{
    OptionsResult result = options_co_run();

    if (result == OPTIONS_DONE && !state.quit_requested &&
        !daemon_co_announce()) {
        result = OPTIONS_FAILED;
    }
    state.starting = false;
    co_event_set(&state.start_ended);
    if (result == OPTIONS_FAILED ||
        (state.quit_requested && state.process.daemonize)) {
        state.status = EXIT_FAILURE;    /* the parent must not claim success */
    }
    if (result != OPTIONS_DONE || state.quit_requested) {
        daemon_request_quit();
    }
}

/* No descriptor of ours may be taken for a standard stream. */
static void daemon_open_standard_fds(void)
{
    int fd;

    do {
        fd = open("/dev/null", O_RDWR);
    } while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd >= 0) {
        close(fd);
    }
}

static int daemon_run(void)
{
    Error *err = NULL;
    AioContext *ctx = aio_context_new(AIO_BACKEND_AUTO, &err);

    if (!ctx) {
        error_report_err(err);
        return EXIT_FAILURE;
    }
    state.shutdown_bh = aio_bh_new(ctx, daemon_shutdown_bh, NULL);
    if (!daemon_watch_signals(ctx)) {
        return EXIT_FAILURE;
    }
    state.starting = true;
    coroutine_enter(coroutine_create(daemon_co_start, NULL));
    while (!state.ended) {
        aio_poll(ctx, true);
    }
    if (bdrv_close_failed) {
        state.status = EXIT_FAILURE;
    }
    if (timed_call_any_left()) {
        return state.status;            /* their threads use all this */
    }
    aio_set_fd_handler(ctx, state.signal_fd, NULL, NULL, NULL);
    close(state.signal_fd);
    aio_bh_delete(state.shutdown_bh);
    aio_context_free(ctx);
    coroutine_pool_drain();
    return state.status;
}

int main(int argc, char **argv)
{
    char *name = argv[0];
    Error *err = NULL;
    int status;

    g_set_prgname("qemu-storage-daemon");
    argv[0] = (char *)g_get_prgname();          /* for getopt's messages */
    daemon_open_standard_fds();
    daemon_block_signals();
    /* Small blocks are joined as they are freed, not by the million later. */
    mallopt(M_MXFAST, 0);
    state.process = options_parse(argc, argv);
    if (state.process.daemonize) {
        chardev_forbid_stdio();
        daemonize_fork();
    }
    argv[0] = name;
    /* As early as can be: the child must have nothing that is the daemon's. */
    if (!fuse_mounter_start(argv, state.process.daemonize, options_forget,
                            &err)) {
        error_prepend(&err, "No exports of type fuse: ");
        warn_report_err(err);
    }
    status = daemon_run();
    options_cleanup();
    return status;
}
