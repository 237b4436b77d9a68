/* SPDX-License-Identifier: MIT */
/*
 * Image locks: the bytes taken for each set of permissions, two users of one
 * file in this process, and both directions against the installed qemu-io and
 * qemu-img.
 */
#include <stdio.h>
#include <sys/wait.h>

#include "tests/unit/node-test.h"

#define READ    BLK_PERM_CONSISTENT_READ
#define WRITE   BLK_PERM_WRITE
#define RESIZE  BLK_PERM_RESIZE
#define ALL     ((uint64_t)BLK_PERM_ALL)

static char *image;

static void run(CoroutineEntry *entry, const void *opaque)
{
    Error *err = NULL;
    AioContext *ctx = aio_context_new(AIO_BACKEND_AUTO, &err);

    node_test_no_error(err);
    image = node_test_scratch(g_get_tmp_dir(), 1024 * 1024);
    co_test_run(entry, (void *)opaque);
    unlink(image);
    g_free(image);
    aio_context_free(ctx);
}

static BlockDriverState *coroutine_fn co_open(const char *name,
                                              const char *more)
{
    Error *err = NULL;
    g_autofree char *json = g_strdup_printf(
        "{'driver': 'file', 'node-name': '%s', 'filename': '%s'%s%s}",
        name, image, *more ? ", " : "", more);
    BlockDriverState *bs = node_test_co_try_open(&err, json);

    node_test_no_error(err);
    return bs;
}

/*
 * Locked bytes of the image, as bits: bit i for byte 100 + i, bit 8 + i for
 * byte 200 + i.  -1 if any lock is not a shared lock of an open file.
 */
static int locked_bytes(void)
{
    FILE *f = fopen("/proc/locks", "r");
    g_autofree char *inode = NULL;
    struct stat st;
    char line[256];
    int bits = 0;

    g_assert_nonnull(f);
    g_assert_cmpint(stat(image, &st), ==, 0);
    inode = g_strdup_printf(":%lu ", (unsigned long)st.st_ino);
    while (fgets(line, sizeof(line), f)) {
        const char *rest = strstr(line, inode);
        int from, to;

        if (!rest) {
            continue;
        }
        if (!strstr(line, "OFDLCK") || !strstr(line, "READ")
            || sscanf(rest + strlen(inode), "%d %d", &from, &to) != 2) {
            bits = -1;
            break;
        }
        for (int byte = from; byte <= to; byte++) {
            bits |= byte < 200 ? 1 << (byte - 100) : 1 << (byte - 200 + 8);
        }
    }
    fclose(f);
    return bits;
}

/* ---- within this process ---- */

static void coroutine_fn test_bytes_co(void *opaque)
{
    static const struct {
        uint64_t perm, shared;
        int bytes;
    } cases[] = {
        { 0, ALL, 0 },
        { READ, ALL, 0x001 },
        { READ | WRITE, ALL, 0x003 },
        { READ | WRITE | RESIZE, ALL, 0x00b },
        { READ, ALL & ~WRITE, 0x201 },
        { READ | WRITE, READ, 0xe03 },
        { ALL, 0, 0xf0f },
    };
    BlockDriverState *bs = co_open("a", "");
    Error *err = NULL;

    g_assert_cmpint(locked_bytes(), ==, 0);
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        BlockBackend *blk = node_test_co_try_attach(&err, bs, cases[i].perm,
                                                    cases[i].shared);

        node_test_no_error(err);
        g_assert_cmphex(locked_bytes(), ==, cases[i].bytes);
        for (unsigned j = 0; j < G_N_ELEMENTS(cases); j++) {
            g_assert_true(blk_co_set_perm(blk, cases[j].perm,
                                          cases[j].shared, &err));
            g_assert_cmphex(locked_bytes(), ==, cases[j].bytes);
        }
        blk_co_free(blk);
        g_assert_cmphex(locked_bytes(), ==, 0);
    }
    bdrv_co_unref(bs);
}

/* Reopening for the first writer keeps the locks. */
static void coroutine_fn test_reopen_co(void *opaque)
{
    BlockDriverState *bs = co_open("a", "'auto-read-only': true");
    Error *err = NULL;
    BlockBackend *blk = node_test_co_try_attach(&err, bs, READ,
                                                ALL & ~RESIZE);

    node_test_no_error(err);
    g_assert_cmphex(locked_bytes(), ==, 0x801);
    g_assert_true(blk_co_set_perm(blk, READ | WRITE, READ | WRITE, &err));
    g_assert_cmphex(locked_bytes(), ==, 0xc03);
    g_assert_true(blk_co_set_perm(blk, READ, ALL, &err));
    g_assert_cmphex(locked_bytes(), ==, 0x001);
    blk_co_free(blk);
    bdrv_co_unref(bs);
}

static void coroutine_fn test_options_co(void *opaque)
{
    static const struct {
        const char *opts;
        int bytes;
    } cases[] = {
        { "'locking': 'off'", 0 },
        { "'locking': 'on'", 0x201 },
        { "'locking': 'auto'", 0x201 },
        { "'read-only': true, 'force-share': true", 0x001 },
    };
    Error *err = NULL;

    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        BlockDriverState *bs = co_open("a", cases[i].opts);
        BlockBackend *blk = node_test_co_try_attach(&err, bs, READ,
                                                    ALL & ~WRITE);

        node_test_no_error(err);
        g_assert_cmphex(locked_bytes(), ==, cases[i].bytes);
        blk_co_free(blk);
        bdrv_co_unref(bs);
    }
}

static void assert_conflict(Error **err, const char *text)
{
    g_autofree char *hint = g_strdup_printf(
        "Is another process using the image [%s]?\n", image);

    g_assert_nonnull(*err);
    g_assert_cmpstr(error_get_hint(*err), ==, hint);
    node_test_assert_error(*err, text);
}

/* Two nodes with the same file are like two processes. */
static void coroutine_fn test_two_nodes_co(void *opaque)
{
    BlockDriverState *a = co_open("a", "");
    BlockDriverState *b = co_open("b", "'auto-read-only': true");
    Error *err = NULL;
    BlockBackend *user_a, *user_b;

    user_a = node_test_co_try_attach(&err, a, READ | WRITE, READ);
    node_test_no_error(err);
    g_assert_cmphex(locked_bytes(), ==, 0xe03);

    g_assert_null(node_test_co_try_attach(&err, b, READ | WRITE, ALL));
    assert_conflict(&err, "Failed to get \"write\" lock");
    g_assert_cmphex(locked_bytes(), ==, 0xe03);
    g_assert_null(node_test_co_try_attach(&err, b, READ, READ));
    assert_conflict(&err, "Failed to get shared \"write\" lock");
    g_assert_null(node_test_co_try_attach(&err, b, RESIZE, ALL));
    assert_conflict(&err, "Failed to get \"resize\" lock");
    g_assert_cmphex(locked_bytes(), ==, 0xe03);

    user_b = node_test_co_try_attach(&err, b, READ, READ | WRITE);
    node_test_no_error(err);
    g_assert_false(blk_co_set_perm(user_b, READ | WRITE, ALL, &err));
    assert_conflict(&err, "Failed to get \"write\" lock");
    g_assert_true(blk_co_set_perm(user_a, READ, ALL, &err));
    g_assert_true(blk_co_set_perm(user_b, READ | WRITE, ALL, &err));
    g_assert_cmphex(locked_bytes(), ==, 0x003);

    blk_co_free(user_a);
    blk_co_free(user_b);
    bdrv_co_unref(a);
    bdrv_co_unref(b);
    g_assert_cmphex(locked_bytes(), ==, 0);
}

/* A foreign exclusive lock. */
static void coroutine_fn test_foreign_lock_co(void *opaque)
{
    BlockDriverState *bs = co_open("a", "");
    int fd = open(image, O_RDWR | O_CLOEXEC);
    struct flock fl = {
        .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 100, .l_len = 1,
    };
    Error *err = NULL;

    g_assert_cmpint(fcntl(fd, F_OFD_SETLK, &fl), ==, 0);
    g_assert_null(node_test_co_try_attach(&err, bs, READ, ALL));
    node_test_assert_error(err, "Failed to lock byte 100");
    close(fd);
    bdrv_co_unref(bs);
}

/* ---- against the qemu programs ---- */

static bool have_tools(void)
{
    g_autofree char *io = g_find_program_in_path("qemu-io");
    g_autofree char *img = g_find_program_in_path("qemu-img");

    if (!io || !img) {
        g_test_skip("qemu-io and qemu-img are not installed");
        return false;
    }
    return true;
}

/* Run a command line with IMAGE and OUT replaced; returns its stderr. */
static char *run_tool(const char *command, bool *ok)
{
    g_autofree char *out = g_strconcat(image, ".out", NULL);
    g_auto(GStrv) argv = g_strsplit(command, " ", -1);
    char *output = NULL;
    int status;

    for (int i = 0; argv[i]; i++) {
        if (!strcmp(argv[i], "IMAGE")) {
            g_free(argv[i]);
            argv[i] = g_strdup(image);
        } else if (!strcmp(argv[i], "OUT")) {
            g_free(argv[i]);
            argv[i] = g_strdup(out);
        }
    }
    g_assert_true(g_spawn_sync(NULL, argv, NULL,
                               G_SPAWN_SEARCH_PATH
                               | G_SPAWN_STDOUT_TO_DEV_NULL,
                               NULL, NULL, NULL, &output, &status, NULL));
    unlink(out);
    *ok = WIFEXITED(status) && WEXITSTATUS(status) == 0;
    return output;
}

typedef struct Tool {
    const char *command;
    uint64_t perm, shared;
} Tool;

/* What the programs do with the image and forbid to others. */
static const Tool tools[] = {
    { "qemu-io -f raw -r -c quit IMAGE", READ, ALL },
    { "qemu-io -f raw -c quit IMAGE", READ | WRITE, ALL },
    { "qemu-img info -f raw IMAGE", 0, ALL },
    { "qemu-img info -f raw -U IMAGE", 0, ALL },
    { "qemu-img resize -q -f raw IMAGE 1M", READ | WRITE | RESIZE, ALL },
    { "qemu-img compare -f raw -F raw IMAGE IMAGE", READ, ALL },
    { "qemu-img convert -f raw -O raw IMAGE OUT", READ,
      ALL & ~(WRITE | RESIZE) },
};

static const struct {
    uint64_t perm, shared;
} users[] = {
    { 0, ALL },
    { READ, ALL },
    { READ, READ },
    { READ, READ | WRITE },
    { READ | WRITE, ALL },
    { READ | WRITE, READ | WRITE },
    { READ | WRITE, READ },
    { READ | WRITE | RESIZE, ALL },
    { READ | WRITE | RESIZE, READ },
    { ALL, 0 },
};

/* The daemon has the image: does the program start? */
static void coroutine_fn test_tools_second_co(void *opaque)
{
    BlockDriverState *bs = co_open("a", "");
    Error *err = NULL;

    for (unsigned i = 0; i < G_N_ELEMENTS(users); i++) {
        BlockBackend *blk = node_test_co_try_attach(&err, bs, users[i].perm,
                                                    users[i].shared);

        node_test_no_error(err);
        for (unsigned j = 0; j < G_N_ELEMENTS(tools); j++) {
            const Tool *t = &tools[j];
            bool expected = !(t->perm & ~users[i].shared)
                            && !(users[i].perm & ~t->shared);
            bool ok;
            g_autofree char *output = run_tool(t->command, &ok);

            if (ok != expected) {
                g_error("user 0x%x/0x%x, %s: %s", (int)users[i].perm,
                        (int)users[i].shared, t->command,
                        ok ? "runs" : output);
            }
            g_assert_true(ok || strstr(output, "\" lock"));
        }
        blk_co_free(blk);
    }
    bdrv_co_unref(bs);
}

/* Start qemu-io and wait until it has opened the image. */
static GPid start_qemu_io(const char *options, int *to_child)
{
    g_autofree char *command = g_strdup_printf("qemu-io %s %s", options,
                                               image);
    g_auto(GStrv) argv = g_strsplit(command, " ", -1);
    GString *seen = g_string_new(NULL);
    int from_child;
    GPid pid;
    char c;

    g_assert_true(g_spawn_async_with_pipes(
        NULL, argv, NULL, G_SPAWN_SEARCH_PATH | G_SPAWN_DO_NOT_REAP_CHILD,
        NULL, NULL, &pid, to_child, &from_child, NULL, NULL));
    g_assert_cmpint(write(*to_child, "length\n", 7), ==, 7);
    while (!strstr(seen->str, "MiB") && read(from_child, &c, 1) == 1) {
        g_string_append_c(seen, c);
    }
    g_assert_nonnull(strstr(seen->str, "MiB"));
    g_string_free(seen, TRUE);
    close(from_child);
    return pid;
}

/* The program has the image: do we start? */
static void coroutine_fn test_tools_first_co(void *opaque)
{
    static const struct {
        const char *options;
        uint64_t perm, shared;
    } holders[] = {
        { "-f raw -r", READ, ALL },
        { "-f raw", READ | WRITE, ALL },
        { "-f qcow2 -r", READ, ALL & ~(WRITE | RESIZE) },
        { "-f qcow2", READ | WRITE | RESIZE, ALL & ~(WRITE | RESIZE) },
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(holders); i++) {
        bool ok;
        g_autofree char *output = NULL;
        int to_child, status;
        BlockDriverState *bs;
        GPid pid;

        if (strstr(holders[i].options, "qcow2")) {
            output = run_tool("qemu-img create -q -f qcow2 IMAGE 1M", &ok);
            g_assert_true(ok);
        }
        pid = start_qemu_io(holders[i].options, &to_child);
        bs = co_open("a", "'auto-read-only': true");
        for (unsigned j = 0; j < G_N_ELEMENTS(users); j++) {
            uint64_t perm = users[j].perm, shared = users[j].shared;
            bool expected = !(perm & ~holders[i].shared)
                            && !(holders[i].perm & ~shared);
            Error *err = NULL;
            BlockBackend *blk = node_test_co_try_attach(&err, bs, perm,
                                                        shared);

            if (!!blk != expected) {
                g_error("qemu-io %s, user 0x%x/0x%x: %s", holders[i].options,
                        (int)perm, (int)shared,
                        err ? error_get_pretty(err) : "runs");
            }
            g_assert_true(blk || strstr(error_get_pretty(err), "\" lock"));
            g_clear_pointer(&err, error_free);
            blk_co_free(blk);
        }
        bdrv_co_unref(bs);
        close(to_child);
        g_assert_cmpint(waitpid(pid, &status, 0), ==, pid);
    }
}

/* ---- table ---- */

static void test_plain(gconstpointer entry)
{
    run((CoroutineEntry *)entry, NULL);
}

static void test_tools(gconstpointer entry)
{
    if (have_tools()) {
        run((CoroutineEntry *)entry, NULL);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_data_func("/image-locking/bytes", test_bytes_co, test_plain);
    g_test_add_data_func("/image-locking/reopen", test_reopen_co, test_plain);
    g_test_add_data_func("/image-locking/options", test_options_co,
                         test_plain);
    g_test_add_data_func("/image-locking/two-nodes", test_two_nodes_co,
                         test_plain);
    g_test_add_data_func("/image-locking/foreign-lock", test_foreign_lock_co,
                         test_plain);
    g_test_add_data_func("/image-locking/tools-second", test_tools_second_co,
                         test_tools);
    g_test_add_data_func("/image-locking/tools-first", test_tools_first_co,
                         test_tools);
    return g_test_run();
}
