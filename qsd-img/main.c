/* SPDX-License-Identifier: MIT */
/*
 * qsd-img: looks at, checks, makes, converts and compares images.
 *
 * Options, output and exit statuses are those of qemu-img, as far as the
 * commands go.  The command runs as a coroutine on the event loop of the main
 * thread.
 */
#include "qsd-img/qsd-img.h"

#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "block/secret.h"
#include "config-host.h"
#include "qapi/visit.h"
#include "util/aio.h"
#include "util/coroutine-pool.h"

typedef struct ImgCommand {
    const char *name;
    const char *letters;            /* as getopt() has them */
    ImgCommandFunc *co_run;
    const char *usage;
    int failed;                     /* exit status if it can't begin */
} ImgCommand;

static const ImgCommand commands[] = {
    { "check", ":hf:r:T:pqU", img_co_check,
      "check [-f FMT] [-r leaks|all] [-T CACHE] [-p] [-q] [-U] "
      "[--output=human|json]\n      FILE", 1 },
    { "compare", ":hf:F:T:pqsU", img_co_compare,
      "compare [-f FMT1] [-F FMT2] [-T CACHE] [-p] [-q] [-s] [-U] FILE1 FILE2",
      2 },
    { "convert", ":hf:O:B:b:F:o:S:m:t:T:cnpqUWC", img_co_convert,
      "convert [-f FMT] [-O OUTPUT_FMT] [-B BACKING [-F FMT]] [-o OPTIONS] "
      "[-c]\n      [-n] [-S SPARSE_SIZE] [-m COROUTINES] [-W] [-t CACHE] "
      "[-T CACHE] [-p] [-q]\n      [-U] [--salvage] [--target-is-zero] "
      "[--target-image-opts] FILE... OUTPUT", 1 },
    { "create", ":hf:b:F:o:qu", img_co_create,
      "create [-f FMT] [-b BACKING [-F FMT]] [-u] [-o OPTIONS] [-q] FILE "
      "[SIZE]", 1 },
    { "info", ":hf:U", img_co_info,
      "info [-f FMT] [-U] [--backing-chain] [--output=human|json] FILE", 1 },
    { "map", ":hf:s:l:U", img_co_map,
      "map [-f FMT] [-U] [-s START] [-l LENGTH] [--output=human|json] FILE",
      1 },
    { "snapshot", ":hf:la:c:d:qU", img_co_snapshot,
      "snapshot [-f FMT] [-l | -a SNAPSHOT | -c SNAPSHOT | -d SNAPSHOT] [-q] "
      "[-U]\n      [--output=human|json] FILE", 1 },
};

static const struct option long_options[] = {
    { "help", no_argument, NULL, IMG_HELP },
    { "object", required_argument, NULL, IMG_OBJECT },
    { "image-opts", no_argument, NULL, IMG_IMAGE_OPTS },
    { "target-image-opts", no_argument, NULL, IMG_TARGET_IMAGE_OPTS },
    { "target-is-zero", no_argument, NULL, IMG_TARGET_IS_ZERO },
    { "backing-chain", no_argument, NULL, IMG_BACKING_CHAIN },
    { "output", required_argument, NULL, IMG_OUTPUT },
    { "salvage", no_argument, NULL, IMG_SALVAGE },
    { "format", required_argument, NULL, 'f' },
    { "force-share", no_argument, NULL, 'U' },
    { "start-offset", required_argument, NULL, 's' },
    { "max-length", required_argument, NULL, 'l' },
    { "repair", required_argument, NULL, 'r' },
    { "quiet", no_argument, NULL, 'q' },
    { "progress", no_argument, NULL, 'p' },
    { NULL },
};

static struct {
    const ImgCommand *command;
    ImgArgs args;
    GPtrArray *objects;             /* of --object, in order */
    bool ended;
    int status;
} state;

/* ---- the command line ---- */

int img_usage_error(const char *fmt, ...)
{
    g_autofree char *message = NULL;
    va_list ap;

    va_start(ap, fmt);
    message = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    error_report("%s", message);
    fputs("Try 'qsd-img --help' for more information\n", stderr);
    return EXIT_FAILURE;
}

static G_NORETURN void print_help(void)
{
    printf("usage: qsd-img [--help] [--version] COMMAND [OPTION...] ...\n"
           "Disk images: look at, check, make, convert and compare them\n\n"
           "Commands, each with [--object OBJECT] and [--image-opts]:\n");
    for (size_t i = 0; i < G_N_ELEMENTS(commands); i++) {
        printf("  %s\n", commands[i].usage);
    }
    exit(EXIT_SUCCESS);
}

static const ImgCommand *find_command(const char *name)
{
    for (size_t i = 0; i < G_N_ELEMENTS(commands); i++) {
        if (!strcmp(commands[i].name, name)) {
            return &commands[i];
        }
    }
    return NULL;
}

static G_NORETURN void refuse(const char *problem, const char *option)
{
    exit(img_usage_error("%s '%s'", problem, option));
}

/* Long options that stand for a letter are of those commands that have it. */
static bool accepts(int opt)
{
    return opt >= IMG_HELP || strchr(state.command->letters, opt);
}

static void add_creation_options(const char *text)
{
    ImgArgs *args = &state.args;
    char *both = args->o ? g_strconcat(args->o, ",", text, NULL)
                         : g_strdup(text);

    g_free(args->o);
    args->o = both;
}

static void parse_output(const char *format)
{
    if (strcmp(format, "human") && strcmp(format, "json")) {
        error_report("--output must be used with human or json as argument.");
        exit(EXIT_FAILURE);
    }
    state.args.json = !strcmp(format, "json");
}

static void parse_options(int argc, char **argv)
{
    ImgArgs *args = &state.args;
    int opt;

    state.objects = g_ptr_array_new();
    opterr = 0;
    while ((opt = getopt_long(argc, argv, state.command->letters,
                              long_options, NULL)) != -1) {
        if (opt == 'h' || opt == IMG_HELP) {
            print_help();
        }
        if (opt == ':') {
            refuse("missing argument for option", argv[optind - 1]);
        }
        if (opt == '?' || !accepts(opt)) {
            refuse("unrecognized option", argv[optind - 1]);
        }
        args->given[opt] = true;
        args->value[opt] = optarg;
        if (opt == IMG_OBJECT) {
            g_ptr_array_add(state.objects, optarg);
        } else if (opt == IMG_OUTPUT) {
            parse_output(optarg);
        } else if (opt == 'o') {
            add_creation_options(optarg);
        }
    }
    args->command = state.command->name;
    args->names = argv + optind;
    args->n_names = argc - optind;
    if (args->given[IMG_IMAGE_OPTS] && args->given['f']) {
        error_report("--image-opts and --format are mutually exclusive");
        exit(EXIT_FAILURE);
    }
}

/* ---- objects ---- */

bool coroutine_fn img_co_add_object(const char *arg, Error **errp)
{
    g_autoptr(ObjectOptions) options =
        qapi_from_option(&qapi_type_ObjectOptions, arg, "qom-type", NULL,
                         errp);

    if (!options) {
        return false;
    }
    if (options->qom_type != OBJECT_TYPE_SECRET) {
        error_setg(errp, "Only objects of type 'secret' are of use here");
        return false;
    }
    return secret_co_new(options->id, &options->u.secret, errp) != NULL;
}

static bool coroutine_fn co_add_objects(void)
{
    for (guint i = 0; i < state.objects->len; i++) {
        Error *err = NULL;

        if (!img_co_add_object(state.objects->pdata[i], &err)) {
            error_report_err(err);
            return false;
        }
    }
    return true;
}

/* ---- the loop ---- */

static void coroutine_fn co_main(void *opaque)
{
    state.status = co_add_objects() ? state.command->co_run(&state.args)
                                    : state.command->failed;
    bdrv_co_close_all();
    if (bdrv_close_failed) {
        state.status = state.command->failed;
    }
    state.ended = true;
}

static int run(void)
{
    Error *err = NULL;
    AioContext *ctx = aio_context_new(AIO_BACKEND_AUTO, &err);

    if (!ctx) {
        error_report_err(err);
        return state.command->failed;
    }
    coroutine_enter(coroutine_create(co_main, NULL));
    while (!state.ended) {
        aio_poll(ctx, true);
    }
    aio_context_free(ctx);
    coroutine_pool_drain();
    if (fflush(stdout) != 0 || ferror(stdout)) {
        error_report("Could not write the output");
        return state.command->failed;
    }
    return state.status;
}

int main(int argc, char **argv)
{
    int status;

    g_set_prgname("qsd-img");
    signal(SIGPIPE, SIG_IGN);
    if (argc < 2) {
        return img_usage_error("Not enough arguments");
    }
    if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h")) {
        print_help();
    }
    if (!strcmp(argv[1], "--version") || !strcmp(argv[1], "-V")) {
        printf("qsd-img version %s\n", QSD_VERSION);
        return EXIT_SUCCESS;
    }
    state.command = find_command(argv[1]);
    if (!state.command) {
        return img_usage_error("Command not found: %s", argv[1]);
    }
    parse_options(argc - 1, argv + 1);
    status = run();
    g_ptr_array_unref(state.objects);
    g_free(state.args.o);
    return status;
}
