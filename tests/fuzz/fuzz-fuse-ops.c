/* SPDX-License-Identifier: MIT */
/*
 * FUSE operations as a hostile kernel could ask for them, over a node of
 * null-co, or of a small file in memory.
 *
 * Input: flags, then requests: opcode (1 byte), length of the argument (1),
 * length of the payload in units of 16 bytes (2), the argument.
 */
#include "config-host.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "tests/fuzz/fuzz.h"
#include "tests/unit/fuse-test.h"

enum {
    FLAG_WRITABLE = 1,
    FLAG_GROWABLE = 2,
    FLAG_ALLOW_OTHER = 4,
    FLAG_FILE = 8,              /* a file in memory, not null-co */
    FLAG_TOGETHER = 16,         /* requests do not wait for each other */
    FLAG_WINDOW = 32,           /* a part of the node, by raw */
    FLAG_FIXED = 64,            /* clients may not change the length */
};

#define IMAGE_SIZE (128 * 1024 + 512)
#define FILE_SIZE_LIMIT (4 * 1024 * 1024)
#define MAX_REQUESTS 16

int LLVMFuzzerInitialize(int *argc, char ***argv);

typedef struct Target {
    uint8_t flags;
    int fd;                     /* the file, or -1 */
    BlockBackend *blk;
    FuseFile file;
} Target;

typedef struct Request {
    Target *target;
    struct fuse_in_header in;
    FuseRequest req;
    bool done;
} Request;

static char *payloads[MAX_REQUESTS];

static char *node_json(const Target *t)
{
    g_autofree char *node =
        t->fd < 0
        ? g_strdup_printf("'driver': 'null-co', 'read-zeroes': true, "
                          "'size': %d", IMAGE_SIZE)
        : g_strdup_printf("'driver': 'file', 'filename': '/proc/self/fd/%d'",
                          t->fd);

    if (t->flags & FLAG_WINDOW) {
        return g_strdup_printf("{'driver': 'raw', 'node-name': 'n', "
                               "'offset': 1536, 'size': 65536, "
                               "'file': {%s}}", node);
    }
    return g_strdup_printf("{%s, 'node-name': 'n'}", node);
}

static void target_init(Target *t)
{
    g_autofree char *json = node_json(t);
    bool writable = t->flags & FLAG_WRITABLE;

    t->blk = fuse_test_user_new(json, writable);
    fuse_file_init(&t->file, t->blk, writable, t->flags & FLAG_GROWABLE,
                   t->flags & FLAG_ALLOW_OTHER);
    if (t->flags & FLAG_FIXED) {
        t->file.growable = t->file.resizable = false;
    }
}

static void coroutine_fn teardown_co(void *opaque)
{
    Target *t = opaque;
    int64_t length = blk_co_getlength(t->blk);

    g_assert_cmpint(length, >=, 0);
    if (!(t->flags & FLAG_WRITABLE) || (t->flags & FLAG_FIXED)) {
        g_assert_cmpint(length, ==,
                        t->flags & FLAG_WINDOW ? 65536 :
                        t->flags & FLAG_FILE ? IMAGE_SIZE
                        : IMAGE_SIZE / 512 * 512);
    }
    blk_co_free(t->blk);
}

static void coroutine_fn request_co(void *opaque)
{
    Request *r = opaque;
    int ret;

    if (r->in.opcode == FUSE_INIT) {
        ret = fuse_init(&r->target->file, &r->req);
    } else {
        blk_co_begin_request(r->target->blk);
        ret = fuse_op_co_run(&r->target->file, &r->req);
        blk_end_request(r->target->blk);
    }
    g_assert_cmpint(ret, >, -512);
    g_assert_cmpint(ret, <=, FUSE_MAX_IO_BYTES);
    r->done = true;
}

/* Start the next request of the input; it may have ended already. */
static void request_start(Request *r, Target *t, FuzzInput *in, unsigned n)
{
    uint8_t opcode = fuzz_take_u8(in);
    size_t arg_len = fuzz_take_u8(in);
    size_t payload_len = MIN(fuzz_take_u16(in) * 16, FUSE_MAX_IO_BYTES);

    *r = (Request) {
        .target = t,
        .in = { .opcode = opcode, .nodeid = 1 },
        .req = {
            .payload = payloads[n],
            .payload_len = payload_len,
            .payload_size = FUSE_MAX_IO_BYTES,
        },
    };
    r->req.in = &r->in;
    r->req.arg = fuzz_take_copy(in, &arg_len);
    r->req.arg_len = arg_len;
    coroutine_enter(coroutine_create(request_co, r));
}

static void request_finish(Request *r)
{
    while (!r->done) {
        aio_poll(fuzz_context(), true);
    }
    g_free((void *)r->req.arg);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    struct rlimit limit = { FILE_SIZE_LIMIT, RLIM_INFINITY };

    /* Nobody wants to fuzz the host's memory. */
    signal(SIGXFSZ, SIG_IGN);
    for (int i = 0; i < MAX_REQUESTS; i++) {
        payloads[i] = aligned_alloc(4096, FUSE_MAX_IO_BYTES);
        memset(payloads[i], 'p', FUSE_MAX_IO_BYTES);
    }
    return setrlimit(RLIMIT_FSIZE, &limit);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    FuzzInput in = { data, size };
    Request requests[MAX_REQUESTS];
    Target t = { .flags = fuzz_take_u8(&in), .fd = -1 };
    unsigned n = 0;

    fuzz_context();
    if (t.flags & FLAG_FILE) {
        t.fd = memfd_create("fuzz", MFD_CLOEXEC);
        g_assert_cmpint(ftruncate(t.fd, IMAGE_SIZE), ==, 0);
        g_assert_cmpint(pwrite(t.fd, payloads[0], 4096, 65536), ==, 4096);
    }
    target_init(&t);
    while (in.size && n < MAX_REQUESTS) {
        request_start(&requests[n], &t, &in, n);
        if (!(t.flags & FLAG_TOGETHER)) {
            request_finish(&requests[n]);
        }
        n++;
    }
    for (unsigned i = 0; i < n && (t.flags & FLAG_TOGETHER); i++) {
        request_finish(&requests[i]);
    }
    co_test_run(teardown_co, &t);
    if (t.fd >= 0) {
        close(t.fd);
    }
    return 0;
}
