/* SPDX-License-Identifier: MIT */
/*
 * qcow2: opening, using, checking and repairing images that somebody made up.
 *
 * Input: options (2 bytes), how many operations, how many sectors of nothing
 * after the last piece; the operations (8 bytes each); then pieces of the
 * image: number of a sector (2), its 512 bytes.  The mutator knows where in
 * such an image header, tables and refcounts are.
 *
 * Files are in memory.  No input makes the driver open another one: where it
 * may follow names, options say what to take instead.  What an image may cost
 * is limited: processor time by us, memory by libFuzzer, its size by rlimit.
 *
 * An image in which a check finds nothing wrong, and nothing that is used
 * twice, stays so whatever is done to it: that is looked at in the end.
 */
#include "config-host.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "block/block-int.h"
#include "block/check.h"
#include "block/qcow2.h"
#include "block/secret.h"
#include "block/snapshot.h"
#include "tests/fuzz/fuzz.h"
#include "tests/unit/node-test.h"

enum {
    OPT_READ_ONLY = 1 << 0,
    OPT_DATA_FILE = 1 << 1,         /* else safe-image */
    OPT_BACKING = 1 << 2,
    OPT_INSPECT = 1 << 3,           /* open as programs that check do */
    OPT_TOGETHER = 1 << 4,          /* requests do not wait for each other */
    OPT_KEY = 1 << 5,
    OPT_REPAIR = 1 << 6,            /* before everything else */
    OPT_NO_BACKING_OPTION = 1 << 7, /* with safe-image: names are refused */
};

enum {
    MORE_LAZY = 1 << 0,
    MORE_NO_UNREF = 1 << 1,
    MORE_PASS = 1 << 2,
    MORE_SMALL_CACHE = 1 << 3,
    MORE_OVERLAP_SHIFT = 4,         /* two bits */
    MORE_SMALL_TABLES = 1 << 6,     /* no more than MAX_SMALL_L1 */
};

enum {
    OP_READ, OP_WRITE, OP_ZEROES, OP_DISCARD, OP_FLUSH, OP_STATUS,
    OP_COMPRESSED, OP_CREATE, OP_DELETE, OP_APPLY, OP_CHECK, OP_REPAIR,
    OP_TRUNCATE, OP_REOPEN, OP__MAX,
};

#define HEAD_SIZE 4
#define OP_SIZE 8
#define PIECE_SIZE (2 + 512)
#define MAX_OPS 24
#define MAX_TOGETHER 8
#define MAX_IO (64 * 1024)
#define FILE_SIZE_LIMIT (16 * 1024 * 1024)
#define MAX_SMALL_L1 4096           /* entries; a thousandth of the limit */
#define MAX_SMALL_DISK (64 * 1024 * 1024)
#define MAX_CPU_MS 4000             /* sanitizers make it a few times slower */

int LLVMFuzzerInitialize(int *argc, char ***argv);
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size,
                               unsigned seed);

typedef struct Target {
    FuzzInput in;
    uint8_t options, more;
    unsigned n_ops;
    int fd, data_fd;
    BlockBackend *blk;
    unsigned running;
    WaitSet done;               /* running: 0 */
} Target;

typedef struct Op {
    Target *t;
    uint8_t what, flags;
    uint16_t size;
    uint32_t where;
} Op;

/* ---- the image ---- */

static void write_pieces(int fd, const uint8_t *data, size_t size,
                         unsigned tail)
{
    unsigned end = 0;

    while (size > 2) {
        unsigned sector = data[0] | data[1] << 8;
        size_t n = MIN(size - 2, 512);
        off_t offset = (off_t)sector * 512;

        if (offset + (off_t)n <= FILE_SIZE_LIMIT) {
            g_assert_cmpint(pwrite(fd, data + 2, n, offset), ==, n);
            end = MAX(end, sector + (n == 512));
        }
        data += n + 2;
        size -= n + 2;
    }
    if (tail) {
        g_assert_cmpint(ftruncate(fd, MIN((off_t)(end + tail) * 512,
                                          FILE_SIZE_LIMIT)), ==, 0);
    }
}

static void add_options(const Target *t, GString *json)
{
    static const char *const overlap[] = { "none", "constant", "cached",
                                           "all" };
    unsigned template = t->more >> MORE_OVERLAP_SHIFT & 3;

    if (!(t->options & OPT_DATA_FILE)) {
        g_string_append(json, ", 'safe-image': true");
    } else {
        g_string_append_printf(json, ", 'data-file': {'driver': 'file', "
                               "'filename': '/proc/self/fd/%d'}", t->data_fd);
    }
    if (t->options & OPT_BACKING) {
        g_string_append(json, ", 'backing': {'driver': 'null-co', "
                        "'size': 100000, 'read-zeroes': true}");
    } else if ((t->options & OPT_DATA_FILE)
               || !(t->options & OPT_NO_BACKING_OPTION)) {
        g_string_append(json, ", 'backing': null");
    }
    if (t->options & OPT_KEY) {
        g_string_append(json, ", 'encrypt': {'format': 'aes', "
                        "'key-secret': 's'}");
    }
    if (t->more & MORE_SMALL_CACHE) {
        g_string_append(json, ", 'l2-cache-size': 1024, "
                        "'l2-cache-entry-size': 512, "
                        "'refcount-cache-size': 2048");
    }
    g_string_append_printf(json, ", 'lazy-refcounts': %s, "
                           "'discard-no-unref': %s, 'overlap-check': '%s'",
                           t->more & MORE_LAZY ? "true" : "false",
                           t->more & MORE_NO_UNREF ? "true" : "false",
                           overlap[template]);
    if (t->more & (MORE_PASS | MORE_NO_UNREF)) {
        g_string_append_printf(json, ", 'discard': 'unmap', "
                               "'pass-discard-other': %s",
                               t->more & MORE_PASS ? "true" : "false");
    }
}

static bool coroutine_fn open_co(Target *t)
{
    g_autoptr(GString) json = g_string_new(NULL);
    bool read_only = t->options & OPT_READ_ONLY;
    Error *err = NULL;
    BlockDriverState *bs;

    g_string_printf(json, "{'driver': 'qcow2', 'node-name': 'n', "
                    "'read-only': %s, 'file': {'driver': 'file', "
                    "'filename': '/proc/self/fd/%d'}",
                    read_only ? "true" : "false", t->fd);
    add_options(t, json);
    g_string_append_c(json, '}');
    bdrv_open_for_check = t->options & OPT_INSPECT;
    bs = node_test_co_try_open(&err, json->str);
    bdrv_open_for_check &= !read_only;
    g_assert_true(!bs == !!err);
    if (!bs) {
        g_debug("%s", error_get_pretty(err));   /* G_MESSAGES_DEBUG=all */
        error_free(err);
        return false;
    }
    err = NULL;
    t->blk = node_test_co_try_attach(&err, bs,
                                     read_only ? BLK_PERM_CONSISTENT_READ
                                               : BLK_PERM_ALL, BLK_PERM_ALL);
    node_test_no_error(err);
    bs->monitor_owned = false;
    bdrv_co_unref(bs);
    return true;
}

static void coroutine_fn close_co(Target *t)
{
    blk_co_free(t->blk);
    t->blk = NULL;
    bdrv_open_for_check = false;
}

/* ---- operations ---- */

static void note_message(void *opaque, const char *line)
{
    g_assert_nonnull(line);
    g_assert_null(strchr(line, '\n'));
    g_debug("%s", line);
}

/* Corruptions or errors, or -1. */
static int64_t coroutine_fn check_co(Target *t, int fix)
{
    const BdrvCheckHooks hooks = { .message = note_message };
    BdrvCheckResult res = { 0 };
    Error *err = NULL;
    int ret = bdrv_co_check(blk_bs(t->blk), &res, fix, &hooks, &err);

    g_assert_true(ret < 0 || !err);
    error_free(err);
    return ret < 0 ? -1 : res.corruptions + res.check_errors;
}

/*
 * Is the image consistent?  A check finds nothing wrong with a table that is
 * also data if its refcount says so.
 */
static bool coroutine_fn clean_co(Target *t)
{
    BlockDriverState *bs = blk_bs(t->blk);
    BDRVQcow2State *s = bs->opaque;
    uint64_t n = bdrv_getlength(bs->file->bs) >> s->cluster_bits;
    uint64_t refcount = 1;
    bool ok = check_co(t, 0) == 0;

    co_mutex_lock(&s->lock);
    for (uint64_t i = 0; ok && i <= n; i++) {
        ok = qcow2_co_get_refcount(bs, i, &refcount) >= 0 && refcount <= 1;
    }
    co_mutex_unlock(&s->lock);
    return ok;
}

static void coroutine_fn snapshot_co(Target *t, const Op *op)
{
    BlockDriverState *bs = blk_bs(t->blk);
    SnapshotInfoList *list = bdrv_snapshot_list(bs, NULL);
    g_autofree char *name = g_strdup_printf("%u", op->where % 8);
    Error *err = NULL;
    unsigned n = op->size % 4;

    for (SnapshotInfoList *e = list; e; e = e->next, n--) {
        if (n == 0) {
            g_free(name);
            name = g_strdup(e->value->id);
        }
    }
    if (op->what == OP_CREATE) {
        bdrv_co_snapshot_create(bs, name, NULL, &err);
    } else if (op->what == OP_DELETE) {
        bdrv_co_snapshot_delete(bs, name, NULL, &err);
    } else {
        bdrv_co_snapshot_apply(bs, name, &err);
    }
    error_free(err);
    qapi_free_SnapshotInfoList(list);
}

static void coroutine_fn transfer_co(const Op *op, int64_t offset,
                                     int64_t bytes)
{
    BlockBackend *blk = op->t->blk;
    char *buf = g_malloc(MAX(bytes, 1));
    QEMUIOVector qiov;

    memset(buf, op->where ^ op->what, bytes);
    qemu_iovec_init_buf(&qiov, buf, bytes);
    if (op->what == OP_READ) {
        blk_co_preadv(blk, offset, &qiov, 0);
    } else {
        blk_co_pwritev(blk, offset, &qiov,
                       op->what == OP_COMPRESSED ? BDRV_REQ_WRITE_COMPRESSED :
                       op->flags & 0x80 ? BDRV_REQ_FUA : 0);
    }
    g_free(buf);
}

static void coroutine_fn request_co(void *opaque)
{
    Op *op = opaque;
    BlockBackend *blk = op->t->blk;
    int64_t length, offset, bytes, pnum;

    blk_co_begin_request(blk);
    length = blk_getlength(blk);
    g_assert_cmpint(length, >=, 0);
    offset = ((uint64_t)op->where << (op->flags & 31)) % ((uint64_t)length + 1);
    bytes = MIN((int64_t)op->size << (op->flags & 0x40 ? 12 : 0),
                length - offset);
    switch (op->what) {
    case OP_ZEROES:
        blk_co_pwrite_zeroes(blk, offset, MIN(bytes, 16 * MAX_IO),
                             op->flags & 0x80 ? BDRV_REQ_MAY_UNMAP : 0);
        break;
    case OP_DISCARD:
        blk_co_pdiscard(blk, offset, bytes);
        break;
    case OP_FLUSH:
        blk_co_flush(blk);
        break;
    case OP_STATUS:
        if (blk_co_block_status(blk, offset, bytes, &pnum) >= 0 && bytes) {
            g_assert_cmpint(pnum, >, 0);
            g_assert_cmpint(pnum, <=, bytes);
        }
        break;
    case OP_COMPRESSED:
        transfer_co(op, offset & ~INT64_C(0xffff), MIN(bytes, MAX_IO));
        break;
    default:
        transfer_co(op, offset, MIN(bytes, MAX_IO));
    }
    blk_end_request(blk);
    op->t->running--;
    wait_set_wake(&op->t->done);
    g_free(op);
}

static void coroutine_fn truncate_co(Target *t, const Op *op)
{
    int64_t size = (int64_t)op->where << (op->flags & 31) >> 4;
    Error *err = NULL;

    if (t->more & MORE_SMALL_TABLES) {
        size %= MAX_SMALL_DISK;
    }
    blk_co_begin_request(t->blk);
    blk_co_truncate(t->blk, size,
                    op->size % 64 < PREALLOC_MODE__MAX ? op->size % 64
                                                       : PREALLOC_MODE_OFF,
                    op->flags & 0x80 ? BDRV_REQ_ZERO_WRITE : 0, &err);
    blk_end_request(t->blk);
    error_free(err);
}

static bool is_settled(void *opaque)
{
    const Target *t = opaque;

    return t->running == 0;
}

static void coroutine_fn settle_co(Target *t)
{
    wait_set_co_wait(&t->done, is_settled, t);
}

static void coroutine_fn alone_co(Target *t, const Op *op)
{
    bool writes = !(t->options & OPT_READ_ONLY);

    settle_co(t);
    if (op->what == OP_CHECK) {
        check_co(t, 0);
    } else if (op->what == OP_REOPEN) {
        close_co(t);
        open_co(t);
    } else if (!writes) {
        return;
    } else if (op->what == OP_REPAIR) {
        check_co(t, op->size % 4);
    } else if (op->what == OP_TRUNCATE) {
        truncate_co(t, op);
    } else {
        snapshot_co(t, op);
    }
}

static void coroutine_fn next_co(Target *t)
{
    Op op = {
        .t = t,
        .what = fuzz_take_u8(&t->in) % OP__MAX,
        .flags = fuzz_take_u8(&t->in),
        .size = fuzz_take_u16(&t->in),
        .where = fuzz_take_u16(&t->in),
    };
    bool writes = op.what != OP_READ && op.what != OP_STATUS;

    op.where |= (uint32_t)fuzz_take_u16(&t->in) << 16;
    g_debug("operation %d, flags 0x%x, size %u, where %u", op.what, op.flags,
            op.size, op.where);
    if (!t->blk) {
        return;                 /* did not open again */
    }
    if (op.what >= OP_CREATE) {
        alone_co(t, &op);
    } else if (!writes || !(t->options & OPT_READ_ONLY)) {
        t->running++;
        coroutine_enter(coroutine_create(request_co,
                                         g_memdup2(&op, sizeof(op))));
        if (!(t->options & OPT_TOGETHER) || t->running == MAX_TOGETHER) {
            settle_co(t);
        }
    }
}

static void coroutine_fn use_co(Target *t)
{
    bool clean;

    if (!open_co(t)) {
        return;
    }
    if (t->options & OPT_REPAIR && !(t->options & OPT_READ_ONLY)) {
        check_co(t, BDRV_FIX_LEAKS | BDRV_FIX_ERRORS);
    }
    clean = clean_co(t);
    while (t->n_ops--) {
        next_co(t);
    }
    settle_co(t);
    if (t->blk) {
        close_co(t);
    }
    t->options &= ~(OPT_INSPECT | OPT_NO_BACKING_OPTION);
    if (clean && open_co(t)) {
        g_assert_cmpint(check_co(t, 0), <=, 0);
        close_co(t);
    }
}

static void coroutine_fn fuzz_co_entry(void *opaque)
{
    Target *t = opaque;
    SecretProperties props = { .data = (char *)"pw" };
    Secret *secret = secret_co_new("s", &props, NULL);

    wait_set_init(&t->done);
    use_co(t);
    wait_set_deinit(&t->done);
    secret_free(secret);
}

static int64_t cpu_ms(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
    return ts.tv_sec * INT64_C(1000) + ts.tv_nsec / 1000000;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    struct rlimit limit = { FILE_SIZE_LIMIT, FILE_SIZE_LIMIT };

    return setrlimit(RLIMIT_FSIZE, &limit);
}

static uint32_t l1_entries(int fd)
{
    uint32_t n = 0;

    g_assert_cmpint(pread(fd, &n, sizeof(n), offsetof(Qcow2Header, l1_size)),
                    >=, 0);
    return GUINT32_FROM_BE(n);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    Target t = {
        .in = { data, size },
        .fd = memfd_create("image", MFD_CLOEXEC),
        .data_fd = memfd_create("data", MFD_CLOEXEC),
    };
    int64_t start = cpu_ms();
    size_t op_bytes;
    uint8_t tail;

    fuzz_context();
    signal(SIGXFSZ, SIG_IGN);   /* libFuzzer wants to know of it */
    g_assert_cmpint(ftruncate(t.data_fd, 65536), ==, 0);
    t.options = fuzz_take_u8(&t.in);
    t.more = fuzz_take_u8(&t.in);
    t.n_ops = fuzz_take_u8(&t.in);
    t.n_ops = MIN(t.n_ops, MAX_OPS);
    tail = fuzz_take_u8(&t.in);
    op_bytes = MIN((size_t)t.n_ops * OP_SIZE, t.in.size);
    write_pieces(t.fd, t.in.data + op_bytes, t.in.size - op_bytes, tail);
    t.in.size = op_bytes;
    if (!(t.more & MORE_SMALL_TABLES) || l1_entries(t.fd) <= MAX_SMALL_L1) {
        co_test_run(fuzz_co_entry, &t);
    }
    close(t.fd);
    close(t.data_fd);
    g_assert_cmpint(cpu_ms() - start, <, MAX_CPU_MS);
    return 0;
}

/* ---- the mutator ---- */

typedef struct Mutant {
    uint8_t *data;
    size_t size, max_size;
    size_t pieces;              /* where they begin */
    GRand *rand;
} Mutant;

static const struct {
    uint8_t at, size;
} fields[] = {
    { 4, 4 }, { 8, 8 }, { 16, 4 }, { 20, 4 }, { 24, 8 }, { 32, 4 }, { 36, 4 },
    { 40, 8 }, { 48, 8 }, { 56, 4 }, { 60, 4 }, { 64, 8 }, { 72, 8 },
    { 80, 8 }, { 88, 8 }, { 96, 4 }, { 100, 4 }, { 104, 1 },
};

static uint32_t below(Mutant *m, uint32_t n)
{
    return n ? g_rand_int(m->rand) % n : 0;
}

static uint8_t *piece_of(Mutant *m, uint64_t offset, bool add)
{
    uint64_t sector = offset / 512;

    for (size_t at = m->pieces; at + PIECE_SIZE <= m->size;
         at += PIECE_SIZE) {
        if ((m->data[at] | m->data[at + 1] << 8u) == sector) {
            return m->data + at + 2;
        }
    }
    if (!add || sector > 0xffff || m->size < m->pieces
        || (m->size - m->pieces) % PIECE_SIZE != 0
        || m->size + PIECE_SIZE > m->max_size) {
        return NULL;
    }
    memset(m->data + m->size, 0, PIECE_SIZE);
    m->data[m->size] = sector;
    m->data[m->size + 1] = sector >> 8;
    m->size += PIECE_SIZE;
    return m->data + m->size - 512;
}

/* A number of @size bytes, all in one sector. */
static uint64_t get(Mutant *m, uint64_t offset, unsigned size)
{
    const uint8_t *piece = piece_of(m, offset, false);
    uint64_t n = 0;

    for (unsigned i = 0; piece && i < size; i++) {
        n = n << 8 | piece[(offset + i) % 512];
    }
    return n;
}

static void put(Mutant *m, uint64_t offset, unsigned size, uint64_t n)
{
    uint8_t *piece = piece_of(m, offset, true);

    while (piece && size--) {
        piece[(offset + size) % 512] = n;
        n >>= 8;
    }
}

static unsigned cluster_bits(Mutant *m)
{
    return CLAMP(get(m, 20, 4), 9, 21);
}

/* Somewhere in the image, mostly where a cluster begins. */
static uint64_t some_offset(Mutant *m)
{
    size_t n = (m->size - MIN(m->size, m->pieces)) / PIECE_SIZE;
    const uint8_t *piece = m->data + m->pieces + below(m, n) * PIECE_SIZE;
    uint64_t offset = n ? (uint64_t)(piece[0] | piece[1] << 8) * 512 : 0;

    switch (below(m, 8)) {
    case 0:
        return offset + (1u << below(m, 10));
    case 1:
        return offset | (uint64_t)1 << (9 + below(m, 55));
    case 2:
        return (uint64_t)below(m, 64) << cluster_bits(m);
    default:
        return offset >> cluster_bits(m) << cluster_bits(m);
    }
}

static uint64_t some_number(Mutant *m, uint64_t old)
{
    switch (below(m, 7)) {
    case 0:
        return old ^ (uint64_t)1 << below(m, 64);
    case 1:
        return old + below(m, 17) - 8;
    case 2:
        return below(m, 300);
    case 3:
        return ((uint64_t)1 << below(m, 64)) - below(m, 2);
    case 4:
        return UINT64_MAX >> below(m, 64);
    default:
        return some_offset(m);
    }
}

/* An entry of an L1, L2, refcount or bitmap table. */
static uint64_t some_entry(Mutant *m, uint64_t old)
{
    static const uint64_t flags[] = {
        0, QCOW2_OFLAG_COPIED, QCOW2_OFLAG_COMPRESSED, QCOW2_OFLAG_ZERO,
        QCOW2_OFLAG_ZERO | QCOW2_OFLAG_COPIED,
    };

    if (below(m, 4) == 0) {
        return some_number(m, old);
    }
    return some_offset(m) | flags[below(m, G_N_ELEMENTS(flags))];
}

static void change_field(Mutant *m)
{
    unsigned i = below(m, G_N_ELEMENTS(fields));

    put(m, fields[i].at, fields[i].size,
        some_number(m, get(m, fields[i].at, fields[i].size)));
}

static void change_table(Mutant *m, uint64_t table)
{
    /* First entries are more often in use. */
    uint64_t at = table + 8 * below(m, 1u << below(m, 8));

    put(m, at, 8, some_entry(m, get(m, at, 8)));
}

/* Of the table at @table, which one of its entries points to. */
static uint64_t below_table(Mutant *m, uint64_t table)
{
    uint64_t entry = 0;

    for (unsigned i = 0; i < 8 && !entry; i++) {
        entry = get(m, table + 8 * below(m, 1u << i), 8);
    }
    return entry & QCOW2_L1E_OFFSET_MASK;
}

static void change_refcount(Mutant *m)
{
    uint64_t block = below_table(m, get(m, 48, 8));
    unsigned bits = 1u << (get(m, 4, 4) < 3 ? 4 : get(m, 96, 4) & 7);

    put(m, block + below(m, 64) * MAX(bits, 8) / 8, CLAMP(bits / 8, 1, 8),
        below(m, 2) ? below(m, 4) : some_number(m, 0));
}

static void change_extension(Mutant *m)
{
    uint64_t at = get(m, 4, 4) < 3 ? 72 : get(m, 100, 4);

    for (unsigned n = below(m, 4); n && get(m, at, 4); n--) {
        at += 8 + ((get(m, at + 4, 4) & 0x1ff) + 7) / 8 * 8;
    }
    at = at / 4 * 4 + 4 * below(m, 8);
    put(m, at, 4, some_number(m, get(m, at, 4)));
}

static void change_snapshot(Mutant *m)
{
    uint64_t at = get(m, 64, 8) + 4 * below(m, 24);

    if (below(m, 3) == 0) {
        change_table(m, get(m, get(m, 64, 8), 8));
    } else {
        put(m, at, 4, some_number(m, get(m, at, 4)));
    }
}

static void change_op(Mutant *m)
{
    unsigned n = MIN(m->data[2], MAX_OPS);
    size_t at = HEAD_SIZE + OP_SIZE * below(m, n);

    if (n == 0 || at + OP_SIZE > m->size) {
        m->data[below(m, HEAD_SIZE)] = g_rand_int(m->rand);
        return;
    }
    m->data[at] = below(m, OP__MAX);
    m->data[at + 1 + below(m, 7)] = g_rand_int(m->rand);
    if (below(m, 4) == 0) {
        m->data[below(m, 2)] ^= 1u << below(m, 8);
    }
}

static void change(Mutant *m)
{
    switch (below(m, 10)) {
    case 0:
        change_field(m);
        break;
    case 1:
        change_table(m, get(m, 40, 8));
        break;
    case 2:
        change_table(m, get(m, 48, 8));
        break;
    case 3:
    case 4:
        change_table(m, below_table(m, get(m, 40, 8)));
        break;
    case 5:
        change_refcount(m);
        break;
    case 6:
        change_extension(m);
        break;
    case 7:
        change_snapshot(m);
        break;
    default:
        change_op(m);
    }
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size,
                               unsigned seed)
{
    Mutant m = { .data = data, .size = size, .max_size = max_size };

    if (size < HEAD_SIZE || seed % 4 == 0) {
        return LLVMFuzzerMutate(data, size, max_size);
    }
    m.rand = g_rand_new_with_seed(seed);
    m.pieces = HEAD_SIZE + MIN(data[2], MAX_OPS) * OP_SIZE;
    for (unsigned n = 1 + below(&m, 4); n; n--) {
        change(&m);
    }
    if (below(&m, 16) != 0) {
        /* Large tables cost a thousand times what they show. */
        data[1] |= MORE_SMALL_TABLES;
    }
    g_rand_free(m.rand);
    return m.size;
}
