/* SPDX-License-Identifier: MIT */
/* Files by name: what is found, opened, made and removed, and what is not. */
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>
#include "co-test.h"
#include "util/named-file.h"
#include "util/own-mounts.h"
#include "util/timed-call.h"

#define SOMEBODY 4711           /* a user who is neither root nor we */

static char *dir;

static char *path_of(const char *name)
{
    return g_build_filename(dir, name, NULL);
}

static char *new_file(const char *name, const char *text)
{
    char *path = path_of(name);

    g_assert_true(g_file_set_contents(path, text, -1, NULL));
    return path;
}

static void check_text(const char *path, const char *wanted)
{
    g_autofree char *text = NULL;

    g_assert_true(g_file_get_contents(path, &text, NULL, NULL));
    g_assert_cmpstr(text, ==, wanted);
}

static void check_error(int ret, int wanted, Error *err, const char *reason)
{
    g_assert_cmpint(ret, ==, -wanted);
    g_assert_nonnull(err);
    g_assert_cmpstr(error_get_pretty(err), ==, reason);
    error_free(err);
}

static void open_fails(const char *path, int flags, int errnum,
                       const char *reason)
{
    Error *err = NULL;
    int ret = named_file_open(path, flags, &err);

    check_error(ret, errnum, err, reason);
    g_assert_cmpint(named_file_open(path, flags, NULL), ==, -errnum);
}

static void create_fails(const char *path, bool regular, int errnum,
                         const char *reason)
{
    Error *err = NULL;
    NamedEntry entry = { 0 };
    int ret = named_file_create(path, O_WRONLY | O_TRUNC, 0600, regular, &entry,
                                &err);

    check_error(ret, errnum, err, reason);
    g_assert_null(entry.name);
}

static void create_works(const char *path, int flags, const char *text)
{
    Error *err = NULL;
    int fd = named_file_create(path, O_WRONLY | flags, 0600, false, NULL, &err);

    g_assert_null(err);
    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(fcntl(fd, F_GETFD), ==, FD_CLOEXEC);
    g_assert_cmpint(write(fd, text, strlen(text)), ==, strlen(text));
    close(fd);
}

/* ---- opening ---- */

static void test_open(void)
{
    g_autofree char *path = new_file("file", "text");
    g_autofree char *missing = path_of("missing");
    g_autofree char *below = path_of("file/x");
    g_autofree char *link = path_of("link");
    char buf[16] = "";
    int fd;

    g_assert_cmpint(symlink("file", link), ==, 0);
    fd = named_file_open(link, O_RDONLY, NULL);
    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(fcntl(fd, F_GETFD), ==, FD_CLOEXEC);
    g_assert_cmpint(named_file_read(fd, buf, sizeof(buf)), ==, 4);
    g_assert_cmpstr(buf, ==, "text");
    g_assert_cmpint(lseek(fd, 0, SEEK_SET), ==, 0);
    g_assert_cmpint(named_file_read(fd, buf, 4), ==, -EFBIG);
    close(fd);

    open_fails(missing, O_RDONLY, ENOENT, "No such file or directory");
    open_fails("", O_RDONLY, ENOENT, "No such file or directory");
    open_fails(below, O_RDONLY, ENOTDIR, "Not a directory");
    open_fails(dir, O_RDWR, EISDIR, "Is a directory");
    g_unlink(link);
    g_assert_cmpint(symlink("link", link), ==, 0);
    open_fails(link, O_RDONLY, ELOOP, "Too many levels of symbolic links");
    g_unlink(link);
    g_unlink(path);
}

/* Between finding and opening the name may be given to another file. */
static void test_swapped(void)
{
    g_autofree char *path = new_file("file", "first");
    g_autofree char *other = new_file("other", "second");
    NamedFile file, again;
    char buf[16];
    int fd, fd2;

    g_assert_cmpint(named_file_find(&file, path, NULL), ==, 0);
    g_assert_cmpint(named_file_find(&again, path, NULL), ==, 0);
    g_assert_true(named_file_same(&file, &again));
    named_file_release(&again);
    g_assert_cmpint(rename(other, path), ==, 0);
    g_assert_cmpint(named_file_find(&again, path, NULL), ==, 0);
    g_assert_false(named_file_same(&file, &again));
    named_file_release(&again);

    fd = named_file_open_found(&file, O_RDONLY, NULL);
    named_file_release(&file);
    g_assert_cmpint(named_file_read(fd, buf, sizeof(buf)), ==, 5);
    g_assert_cmpstr(buf, ==, "first");
    fd2 = named_file_reopen(fd, path, O_RDONLY, NULL);
    g_assert_cmpint(named_file_read(fd2, buf, sizeof(buf)), ==, 5);
    g_assert_cmpstr(buf, ==, "first");
    close(fd);
    close(fd2);
    g_unlink(path);
}

/* What /dev/fd/N names: files without a name, pipes. */
static void test_descriptors(void)
{
    g_autofree char *deleted = new_file("deleted", "gone");
    int gone = g_open(deleted, O_RDWR);
    int memory = memfd_create("memory", 0);
    int fds[2], fd;
    char buf[16];

    g_unlink(deleted);
    g_assert_cmpint(write(memory, "memory", 6), ==, 6);
    g_assert_cmpint(pipe(fds), ==, 0);
    g_assert_cmpint(write(fds[1], "pipe", 4), ==, 4);
    close(fds[1]);
    for (int i = 0; i < 3; i++) {
        int source = i == 0 ? gone : i == 1 ? memory : fds[0];
        g_autofree char *path = g_strdup_printf("/dev/fd/%d", source);

        fd = named_file_open(path, O_RDONLY, NULL);
        g_assert_cmpint(fd, >=, 0);
        g_assert_cmpint(named_file_read(fd, buf, sizeof(buf)), >, 0);
        g_assert_cmpstr(buf, ==, i == 0 ? "gone" : i == 1 ? "memory" : "pipe");
        close(fd);
        if (i < 2) {
            create_works(path, O_TRUNC, "new");
            g_assert_cmpint(pread(source, buf, sizeof(buf), 0), ==, 3);
        }
    }
    close(gone);
    close(memory);
    close(fds[0]);
}

/* Nobody at the other end: neither way waits. */
static void test_fifo(void)
{
    g_autofree char *path = path_of("fifo");
    int fd, writer;
    char buf[16];

    g_assert_cmpint(mkfifo(path, 0600), ==, 0);
    open_fails(path, O_WRONLY, ENXIO, "No such device or address");
    create_fails(path, false, ENXIO, "No such device or address");
    create_fails(path, true, EINVAL, "it is not a regular file");
    fd = named_file_open(path, O_RDONLY, NULL);
    g_assert_cmpint(fd, >=, 0);
    writer = named_file_open(path, O_WRONLY, NULL);
    g_assert_cmpint(write(writer, "late", 4), ==, 4);
    close(writer);
    g_assert_cmpint(named_file_read(fd, buf, sizeof(buf)), ==, 4);
    close(fd);
    g_unlink(path);
}

/* ---- own mounts ---- */

/* The file system that the test's files are on, as if we served it. */
static void test_own(void)
{
    g_autofree char *mem = g_strdup_printf("/dev/shm/test-named-file-%d",
                                           (int)getpid());
    const char *reason = "this very process serves it";
    struct stat st;
    int open_fd;

    g_assert_true(g_file_set_contents(mem, "own", -1, NULL));
    g_assert_cmpint(stat(mem, &st), ==, 0);
    if (major(st.st_dev) != 0) {
        g_test_skip("/dev/shm has a device of its own");
        g_unlink(mem);
        return;
    }
    open_fd = g_open(mem, O_RDONLY);
    own_mounts_add(minor(st.st_dev));
    open_fails(mem, O_RDONLY, ELOOP, reason);
    create_fails(mem, false, ELOOP, reason);
    {
        g_autofree char *path = g_strdup_printf("/dev/fd/%d", open_fd);
        g_autofree char *link = path_of("link");

        open_fails(path, O_RDONLY, ELOOP, reason);
        create_fails(path, false, ELOOP, reason);
        g_assert_cmpint(symlink(mem, link), ==, 0);
        open_fails(link, O_RDONLY, ELOOP, reason);
        create_fails(link, false, ELOOP, reason);
        g_unlink(link);
    }
    own_mounts_remove(minor(st.st_dev));
    check_text(mem, "own");
    close(open_fd);
    g_unlink(mem);
}

/* ---- making ---- */

static void test_create(void)
{
    g_autofree char *path = path_of("new");
    g_autofree char *link = path_of("link");
    g_autofree char *slash = path_of("new/");
    g_autofree char *below = path_of("missing/new");
    struct stat st;

    create_works(path, O_TRUNC, "one");
    g_assert_cmpint(stat(path, &st), ==, 0);
    g_assert_cmpint(st.st_mode & 0777, ==, 0600);
    create_works(path, O_APPEND, "two");
    check_text(path, "onetwo");
    create_works(path, O_TRUNC, "three");
    check_text(path, "three");

    /* Links of our own, to what is there and to what is not yet. */
    g_assert_cmpint(symlink("new", link), ==, 0);
    create_works(link, O_TRUNC, "four");
    check_text(path, "four");
    g_unlink(path);
    create_works(link, O_TRUNC, "five");
    check_text(path, "five");
    g_unlink(link);
    g_assert_cmpint(symlink("link", link), ==, 0);
    create_fails(link, false, ELOOP, "Too many levels of symbolic links");

    create_fails(slash, false, EISDIR, "Is a directory");
    create_fails(dir, false, EISDIR, "Is a directory");
    create_fails(dir, true, EISDIR, "Is a directory");
    create_fails(below, false, ENOENT, "No such file or directory");
    create_fails("", false, ENOENT, "No such file or directory");
    create_works("/dev/null", O_TRUNC, "x");
    create_fails("/dev/null", true, EINVAL, "it is not a regular file");
    g_unlink(link);
    g_unlink(path);
}

#define IN_SHARED ", in a directory where others may write"

/* A directory of somebody else's, then one that everybody may write to. */
static void test_shared(void)
{
    g_autofree char *shared = path_of("shared");
    g_autofree char *linked = path_of("shared/linked");
    g_autofree char *through = path_of("shared/linked/victim");
    g_autofree char *own_link = path_of("shared/own-link");
    g_autofree char *file = path_of("shared/file");
    g_autofree char *name = path_of("shared/name");
    g_autofree char *victim = new_file("victim", "precious");

    if (geteuid() != 0) {
        g_test_skip("only root can make files of others");
        return;
    }
    g_assert_cmpint(mkdir(shared, 0700), ==, 0);
    g_assert_cmpint(symlink(dir, linked), ==, 0);
    g_assert_cmpint(lchown(linked, SOMEBODY, SOMEBODY), ==, 0);
    g_assert_cmpint(symlink("file", own_link), ==, 0);
    for (int i = 0; i < 2; i++) {
        g_assert_cmpint(chown(shared, i ? 0 : SOMEBODY, 0), ==, 0);
        g_assert_cmpint(chmod(shared, i ? 01777 : 0700), ==, 0);

        create_fails(linked, false, ELOOP, "'linked' is somebody else's link"
                     IN_SHARED);
        create_fails(through, false, ELOOP, "'linked' is somebody else's link"
                     IN_SHARED);
        create_works(own_link, O_TRUNC, "text");
        check_text(file, "text");
        g_assert_cmpint(chown(file, SOMEBODY + 1, 0), ==, 0);
        create_fails(file, false, EACCES, "'file' belongs to somebody else"
                     IN_SHARED);
        create_fails(own_link, false, EACCES, "'file' belongs to somebody else"
                     IN_SHARED);
        g_assert_cmpint(chown(file, SOMEBODY, 0), ==, 0);
        if (i == 0) {
            create_works(file, O_TRUNC, "text");        /* the owner's */
        } else {
            create_fails(file, false, EACCES, "'file' belongs to somebody else"
                         IN_SHARED);
        }
        check_text(file, "text");
        g_unlink(file);
        g_assert_cmpint(link(victim, name), ==, 0);
        create_fails(name, false, EACCES, "'name' has a second name" IN_SHARED);
        g_unlink(name);
    }
    check_text(victim, "precious");

    /* In a directory of ours whatever is there was put there by us. */
    g_assert_cmpint(chmod(shared, 0755), ==, 0);
    create_works(through, O_TRUNC, "new");
    check_text(victim, "new");
    g_assert_cmpint(chown(victim, SOMEBODY, 0), ==, 0);
    create_works(victim, O_TRUNC, "theirs");
    g_unlink(own_link);
    g_unlink(linked);
    g_unlink(victim);
    g_rmdir(shared);
}

/* Users who share a directory trust each other, if it is not for everybody. */
static void test_shared_by_user(void)
{
    g_autofree char *shared = path_of("shared");
    g_autofree char *linked = path_of("shared/linked");
    g_autofree char *file = path_of("shared/file");

    if (geteuid() != 0) {
        g_test_skip("only root can make files of others");
        return;
    }
    g_assert_cmpint(chmod(dir, 0755), ==, 0);
    g_assert_cmpint(mkdir(shared, 0700), ==, 0);
    g_assert_cmpint(chown(shared, SOMEBODY + 1, SOMEBODY), ==, 0);
    g_assert_cmpint(symlink("file", linked), ==, 0);
    g_assert_cmpint(lchown(linked, SOMEBODY + 2, 0), ==, 0);
    g_assert_cmpint(chmod(shared, 0770), ==, 0);
    g_assert_cmpint(setegid(SOMEBODY), ==, 0);
    g_assert_cmpint(seteuid(SOMEBODY), ==, 0);
    create_works(linked, O_TRUNC, "text");
    check_text(file, "text");

    g_assert_cmpint(seteuid(0), ==, 0);
    g_assert_cmpint(chmod(shared, 01777), ==, 0);
    g_assert_cmpint(seteuid(SOMEBODY), ==, 0);
    create_fails(linked, false, ELOOP, "'linked' is somebody else's link"
                 IN_SHARED);

    g_assert_cmpint(seteuid(0), ==, 0);
    g_assert_cmpint(setegid(0), ==, 0);
    g_unlink(file);
    g_unlink(linked);
    g_rmdir(shared);
}

/* ---- removing ---- */

static void test_entry(void)
{
    g_autofree char *path = path_of("entry");
    g_autofree char *sub = path_of("sub");
    g_autofree char *moved = path_of("moved");
    g_autofree char *file = path_of("sub/file");
    NamedEntry entry, none = { 0 };
    int fd = named_file_create(path, O_WRONLY, 0600, true, &entry, NULL);

    g_assert_cmpint(fd, >=, 0);
    close(fd);
    g_assert_true(named_entry_is_current(&entry));
    g_assert_cmpint(rename(path, moved), ==, 0);
    g_free(new_file("entry", "somebody else's"));
    g_assert_false(named_entry_is_current(&entry));
    g_assert_cmpint(named_entry_remove(&entry), ==, -ENOENT);
    check_text(path, "somebody else's");
    named_entry_deinit(&entry);
    g_unlink(moved);
    g_unlink(path);

    /* The directory stays the same one, whatever it is called. */
    g_assert_cmpint(mkdir(sub, 0700), ==, 0);
    g_free(new_file("sub/file", "x"));
    g_assert_cmpint(named_entry_init(&entry, file, NULL), ==, 0);
    g_assert_true(entry.exists && S_ISREG(entry.mode));
    g_assert_cmpint(rename(sub, moved), ==, 0);
    g_assert_cmpint(mkdir(sub, 0700), ==, 0);
    g_free(new_file("sub/file", "x"));
    g_assert_cmpint(named_entry_remove(&entry), ==, 0);
    named_entry_deinit(&entry);
    g_assert_cmpint(g_rmdir(moved), ==, 0);
    g_unlink(file);
    g_rmdir(sub);

    g_assert_false(named_entry_is_current(&none));
    named_entry_deinit(&none);
    g_assert_cmpint(named_entry_init(&entry, path, NULL), ==, 0);
    g_assert_false(entry.exists);
    named_entry_deinit(&entry);
}

/* ---- for coroutines ---- */

static void coroutine_fn co_open(void *opaque)
{
    g_autofree char *path = path_of("co");
    Error *err = NULL;
    int fd = named_file_co_create(path, O_WRONLY, 0600, &err);

    g_assert_null(err);
    g_assert_cmpint(write(fd, "x", 1), ==, 1);
    close(fd);
    fd = named_file_co_open(path, O_RDONLY, &err);
    g_assert_cmpint(fd, >=, 0);
    close(fd);
    g_unlink(path);
    fd = named_file_co_open(path, O_RDONLY, &err);
    check_error(fd, ENOENT, err, "No such file or directory");
}

static void test_co(void)
{
    AioContext *ctx = co_test_context_new(AIO_BACKEND_AUTO, true);

    co_test_run(co_open, NULL);
    aio_context_free(ctx);
}

/* A call that hangs, here in a pipe, is given up and its result thrown away. */
typedef struct Hung {
    int fds[2];
    int *freed;
} Hung;

static int hung_call(void *opaque)
{
    Hung *hung = opaque;
    char c;

    return read(hung->fds[0], &c, 1);
}

static void hung_free(void *opaque)
{
    Hung *hung = opaque;

    ++*hung->freed;
    close(hung->fds[0]);
    g_free(hung);
}

static void coroutine_fn co_hang(void *opaque)
{
    int freed = 0, ret = 0, end;
    Hung *hung = g_new(Hung, 1);

    hung->freed = &freed;
    g_assert_cmpint(pipe(hung->fds), ==, 0);
    end = hung->fds[1];
    g_assert_false(timed_call_co_run(hung_call, hung, hung_free, 1000, &ret));
    g_assert_cmpint(ret, ==, -ETIMEDOUT);
    g_assert_true(timed_call_any_left());
    g_assert_cmpint(freed, ==, 0);
    close(end);
    while (!freed) {
        aio_co_sleep_ns(100 * 1000);
    }
    g_assert_false(timed_call_any_left());
}

static void test_hang(void)
{
    AioContext *ctx = co_test_context_new(AIO_BACKEND_AUTO, true);

    co_test_run(co_hang, NULL);
    aio_context_free(ctx);
}

int main(int argc, char **argv)
{
    int status;

    g_test_init(&argc, &argv, NULL);
    dir = g_dir_make_tmp("test-named-file-XXXXXX", NULL);
    g_assert_nonnull(dir);
    umask(022);
    g_test_add_func("/named-file/open", test_open);
    g_test_add_func("/named-file/swapped", test_swapped);
    g_test_add_func("/named-file/descriptors", test_descriptors);
    g_test_add_func("/named-file/fifo", test_fifo);
    g_test_add_func("/named-file/own", test_own);
    g_test_add_func("/named-file/create", test_create);
    g_test_add_func("/named-file/shared", test_shared);
    g_test_add_func("/named-file/shared-by-user", test_shared_by_user);
    g_test_add_func("/named-file/entry", test_entry);
    g_test_add_func("/named-file/co", test_co);
    g_test_add_func("/timed-call/hang", test_hang);
    status = g_test_run();
    g_assert_cmpint(g_rmdir(dir), ==, 0);
    g_free(dir);
    return status;
}
