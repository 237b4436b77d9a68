/* SPDX-License-Identifier: MIT */
/*
 * The command line: one table of options, from which come the parser and the
 * help text.
 *
 * Options about the process (and --trace) take effect while the command line is
 * read, because the process may fork before there is an event loop.  All others
 * run later in a coroutine, in the order given.
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include "qapi/qapi-commands.h"
#include "qapi/visit.h"
#include "storage-daemon/chardev.h"
#include "storage-daemon/daemon.h"
#include "storage-daemon/monitor.h"
#include "storage-daemon/object.h"
#include "storage-daemon/options.h"
#include "storage-daemon/optstr.h"
#include "storage-daemon/version.h"
#include "util/secmem.h"
#include "util/trace.h"

typedef struct Option {
    const char *name;
    char letter;                /* or 0 */
    bool has_arg;

    /* Exactly one of them: now, or later in a coroutine. */
    bool (*handle)(const char *arg, ProcessOptions *process, Error **errp);
    bool coroutine_fn (*co_handle)(const char *arg, bool *help, Error **errp);

    const char *help;
} Option;

/* One that waits for its turn. */
typedef struct OptionUse {
    const Option *option;
    const char *arg;
    char *location;             /* as it stands on the command line */
} OptionUse;

static GArray *options_pending;         /* of OptionUse */

/* ---- handled at once ---- */

static void options_print_help(void);

static bool option_help(const char *arg, ProcessOptions *process, Error **errp)
{
    options_print_help();
    exit(EXIT_SUCCESS);
}

static bool option_version(const char *arg, ProcessOptions *process,
                           Error **errp)
{
    printf("%s\n%s\n", VERSION_TEXT, VERSION_COPYRIGHT);
    exit(EXIT_SUCCESS);
}

static bool option_daemonize(const char *arg, ProcessOptions *process,
                             Error **errp)
{
    process->daemonize = true;
    return true;
}

static bool option_pidfile(const char *arg, ProcessOptions *process,
                           Error **errp)
{
    process->pidfile = arg;
    return true;
}

static const OptStrDesc trace_opts[] = {
    { "enable", OPTSTR_STR },
    { "events", OPTSTR_STR },
    { "file", OPTSTR_STR },
    { NULL }
};

static bool option_trace(const char *arg, ProcessOptions *process,
                         Error **errp)
{
    bool help = false;
    g_autoptr(OptStr) opts = optstr_parse(arg, "enable", trace_opts, &help,
                                          errp);
    const char *enable, *events, *file;

    if (!opts) {
        return false;
    }
    if (help) {
        trace_list(stdout);
        exit(EXIT_SUCCESS);
    }
    enable = optstr_get(opts, "enable");
    events = optstr_get(opts, "events");
    file = optstr_get(opts, "file");
    if (enable && !trace_enable(enable)) {
        warn_report("trace event '%s' does not exist", enable);
    }
    return (!events || trace_enable_from_file(events, errp)) &&
           (!file || trace_set_file(file, errp));
}

/* ---- handled in a coroutine ---- */

static bool coroutine_fn option_co_blockdev(const char *arg, bool *help,
                                            Error **errp)
{
    g_autoptr(BlockdevOptions) options =
        qapi_from_option(&qapi_type_BlockdevOptions, arg, "driver", NULL,
                         errp);
    Error *err = NULL;

    if (!options) {
        return false;
    }
    qmp_blockdev_add(options, &err);
    error_propagate(errp, err);
    return !err;
}

static bool coroutine_fn option_co_export(const char *arg, bool *help,
                                          Error **errp)
{
    g_autoptr(BlockExportOptions) options =
        qapi_from_option(&qapi_type_BlockExportOptions, arg, "type", NULL,
                         errp);
    Error *err = NULL;

    if (!options) {
        return false;
    }
    qmp_block_export_add(options, &err);
    error_propagate(errp, err);
    return !err;
}

/* ---- the table ---- */

static const Option options_table[] = {
    { "help", 'h', false, option_help, NULL,
      "  -h, --help             show this help\n" },
    { "trace", 'T', true, option_trace, NULL,
      "  -T, --trace [[enable=]<pattern>][,events=<file>][,file=<file>]\n"
      "                         trace the events that match <pattern> or are\n"
      "                         listed in a file, on stderr or into a file;\n"
      "                         \"-T help\" lists all events\n" },
    { "version", 'V', false, option_version, NULL,
      "  -V, --version          show the version\n\n" },
    { "blockdev", 0, true, NULL, option_co_blockdev,
      "  --blockdev [driver=]<driver>[,node-name=<N>][,discard=ignore|unmap]\n"
      "             [,cache.direct=on|off][,cache.no-flush=on|off]\n"
      "             [,read-only=on|off][,auto-read-only=on|off]\n"
      "             [,force-share=on|off][,detect-zeroes=on|off|unmap]\n"
      "             [,<options of the driver>...]\n"
      "                         add a block node\n\n" },
    { "chardev", 0, true, NULL, chardev_co_add_option,
      "  --chardev socket,id=<id>,path=<path>[,server=on|off][,wait=on|off]\n"
      "            [,reconnect-ms=<ms>][,abstract=on|off][,tight=on|off]\n"
      "  --chardev socket,id=<id>,host=<host>,port=<port>[,to=<port>]\n"
      "            [,ipv4=on|off][,ipv6=on|off][,server=on|off][,wait=on|off]\n"
      "            [,reconnect-ms=<ms>][,nodelay=on|off]\n"
      "  --chardev socket,id=<id>,fd=<fd>[,server=on|off][,wait=on|off]\n"
      "  --chardev stdio,id=<id>[,signal=on|off]\n"
      "  --chardev file,id=<id>,path=<path>[,input-path=<path>]\n"
      "            [,append=on|off]\n"
      "  --chardev pipe,id=<id>,path=<path>\n"
      "  --chardev null,id=<id>\n"
      "                         add a character device; all take\n"
      "                         [,logfile=<path>][,logappend=on|off]\n"
      "                         [,logtimestamp=on|off]\n\n" },
    { "daemonize", 0, false, option_daemonize, NULL,
      "  --daemonize            go into the background; the command returns\n"
      "                         once everything is up\n\n" },
    { "export", 0, true, NULL, option_co_export,
      "  --export [type=]fuse,id=<id>,node-name=<node-name>,mountpoint=<file>\n"
      "           [,growable=on|off][,writable=on|off]\n"
      "           [,allow-other=on|off|auto]\n"
      "           [,io-uring=on|off|auto][,queue-depth=<n>]\n"
      "           [,placement=adaptive|none][,writethrough=on|off]\n"
      "           [,iothread=<id> | ,iothread.0=<id>,iothread.1=<id>...]\n"
      "                         show a block node as the file <file>\n\n" },
    { "monitor", 0, true, NULL, monitor_co_add_option,
      "  --monitor [chardev=]<id>[,mode=control][,pretty=on|off]\n"
      "                         offer QMP on a character device\n\n" },
    { "object", 0, true, NULL, object_co_add_option,
      "  --object help          list the types of objects\n"
      "  --object <type>,help   list the properties of a type\n"
      "  --object <type>,id=<id>[,<property>=<value>...]\n"
      "                         make an object\n\n" },
    { "pidfile", 0, true, option_pidfile, NULL,
      "  --pidfile <path>       write the process id to a file that is locked\n"
      "                         and removed at the end\n\n" },
};

static void options_print_help(void)
{
    printf("Usage: %s [options]\n"
           "Serve disk images without a virtual machine.\n\n",
           g_get_prgname());
    for (size_t i = 0; i < G_N_ELEMENTS(options_table); i++) {
        fputs(options_table[i].help, stdout);
    }
    printf("Options take effect in the order given.  Where an option takes\n"
           "<key>=<value>,... it also takes a JSON object.  "
           "See %s(1).\n", g_get_prgname());
}

/* ---- reading the command line ---- */

static void option_use_clear(void *opaque)
{
    OptionUse *use = opaque;

    g_free(use->location);
}

static void options_handle(const Option *option, const char *arg,
                           char *location, ProcessOptions *process)
{
    OptionUse use = { .option = option, .arg = arg, .location = location };
    Error *err = NULL;

    g_array_append_val(options_pending, use);
    if (!option->handle) {
        return;
    }
    error_set_location(location);
    if (!option->handle(arg, process, &err)) {
        error_report_err(err);
        exit(EXIT_FAILURE);
    }
    error_set_location(NULL);
}

/*
 * The words argv[first..end - 1] as one string, made at once: a string that
 * grows leaves copies behind, and there may be a secret in it.
 */
static char *options_location(char **argv, int first, int end)
{
    char *after = argv[end], *text;

    argv[end] = NULL;
    text = g_strjoinv(" ", &argv[first]);
    argv[end] = after;
    return text;
}

static void G_GNUC_NORETURN options_unexpected(const char *word)
{
    error_set_location(word);
    error_report("Unexpected argument");
    error_set_location(NULL);
    exit(EXIT_FAILURE);
}

/* What getopt_long() returns for option @i. */
#define OPTION_CODE(i) (256 + (int)(i))

ProcessOptions options_parse(int argc, char **argv)
{
    /* A leading '-': other words are not moved but reported, as code 1. */
    g_autoptr(GString) letters = g_string_new("-");
    struct option longs[G_N_ELEMENTS(options_table) + 1] = { 0 };
    ProcessOptions process = { 0 };
    int first = 1, code;

    options_pending = g_array_new(FALSE, TRUE, sizeof(OptionUse));
    g_array_set_clear_func(options_pending, option_use_clear);
    for (size_t i = 0; i < G_N_ELEMENTS(options_table); i++) {
        const Option *option = &options_table[i];

        longs[i].name = option->name;
        longs[i].has_arg = option->has_arg ? required_argument : no_argument;
        longs[i].val = option->letter ? option->letter : OPTION_CODE(i);
        if (option->letter) {
            g_string_append_printf(letters, "%c%s", option->letter,
                                   option->has_arg ? ":" : "");
        }
    }
    while ((code = getopt_long(argc, argv, letters->str, longs,
                               NULL)) != -1) {
        if (code == '?') {
            exit(EXIT_FAILURE);         /* getopt_long() has said why */
        }
        if (code == 1) {
            options_unexpected(optarg);
        }
        for (size_t i = 0; i < G_N_ELEMENTS(options_table); i++) {
            if (longs[i].val == code) {
                options_handle(&options_table[i], optarg,
                               options_location(argv, first, optind),
                               &process);
            }
        }
        first = optind;
    }
    if (optind < argc) {
        options_unexpected(argv[optind]);
    }
    return process;
}

/* Everybody may read the command line of a process, and crash dumps have it. */
static void option_use_wipe(OptionUse *use)
{
    if (!strcmp(use->option->name, "object") && strstr(use->arg, "secret")
        && (strstr(use->arg, "data") || strchr(use->arg, '\\'))) {
        memset((char *)use->arg, 'x', strlen(use->arg));
        secmem_wipe_string(g_steal_pointer(&use->location));
    }
}

static bool options_are_unwanted(const CoCancel *cancel)
{
    return daemon_quitting();
}

OptionsResult coroutine_fn options_co_run(void)
{
    static const CoCancel cancel = { options_are_unwanted };

    coroutine_set_cancel(&cancel);
    for (unsigned i = 0; i < options_pending->len && !daemon_quitting(); i++) {
        OptionUse *use = &g_array_index(options_pending, OptionUse, i);
        Error *err = NULL;
        bool help = false, ok;

        if (!use->option->co_handle) {
            continue;
        }
        trace(option_handle, "option=%s", use->option->name);
        error_set_location(use->location);
        ok = use->option->co_handle(use->arg, &help, &err);
        if (help) {
            error_set_location(NULL);
            return OPTIONS_EXIT;
        }
        if (!ok && daemon_quitting()) {
            error_free(err);            /* a signal has cut it short */
        } else if (!ok) {
            error_report_err(err);
            error_set_location(NULL);
            return OPTIONS_FAILED;
        }
        error_set_location(NULL);
        option_use_wipe(use);
    }
    return OPTIONS_DONE;
}

void options_forget(void)
{
    for (unsigned i = 0; i < options_pending->len; i++) {
        option_use_wipe(&g_array_index(options_pending, OptionUse, i));
    }
}

void options_cleanup(void)
{
    g_array_unref(options_pending);
    options_pending = NULL;
}
