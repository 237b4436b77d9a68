/* SPDX-License-Identifier: MIT */
/*
 * How the qcow2 driver scales with threads: no FUSE, no file I/O.
 *
 *     qcow2-threads [SECONDS [ROUNDS]]
 *
 * Random 4 KiB requests to a fully mapped image of 1 GiB whose data file is
 * null-co, from one thread and from two.  Prints the median of ROUNDS
 * (default 5) interleaved rounds of SECONDS (default 0.5) each, in million
 * requests a second, and the ratio.  The image is made by qemu-img.
 */
#include <stdio.h>
#include <stdlib.h>

#include "block/block.h"
#include "qapi/json.h"
#include "qapi/visit.h"
#include "util/iothread.h"

#define IMAGE_BYTES (INT64_C(1) << 30)
#define MAX_THREADS 2
#define MAX_ROUNDS 99

typedef struct Worker {
    BlockBackend *blk;
    bool write;
    uint64_t done;
    struct Run *run;
} Worker;

typedef struct Run {
    bool stop;                  /* atomic */
    unsigned running;           /* atomic */
} Run;

static void coroutine_fn worker_entry(void *opaque)
{
    Worker *w = opaque;
    uint64_t rand = (uintptr_t)w | 1, done = 0;
    void *buf = g_aligned_alloc0(1, 4096, 4096);

    while (!__atomic_load_n(&w->run->stop, __ATOMIC_RELAXED)) {
        QEMUIOVector qiov;
        int64_t offset;
        int ret;

        rand = rand * UINT64_C(6364136223846793005) + 1442695040888963407;
        offset = (rand >> 20) % (IMAGE_BYTES / 4096) * 4096;
        qemu_iovec_init_buf(&qiov, buf, 4096);
        blk_co_begin_request(w->blk);
        ret = w->write ? blk_co_pwritev(w->blk, offset, &qiov, 0)
                       : blk_co_preadv(w->blk, offset, &qiov, 0);
        blk_end_request(w->blk);
        if (ret < 0) {
            g_error("request failed: %s", g_strerror(-ret));
        }
        done++;
    }
    w->done = done;
    g_aligned_free(buf);
    __atomic_fetch_sub(&w->run->running, 1, __ATOMIC_RELEASE);
}

/* Requests a second of @n threads. */
static double coroutine_fn co_measure(BlockBackend *blk, IOThread **threads,
                                      int n, bool write, double seconds)
{
    Worker workers[MAX_THREADS];
    Run run = { .running = n };
    uint64_t sum = 0;
    int64_t start = clock_now_ns(), ns;

    for (int i = 0; i < n; i++) {
        workers[i] = (Worker) { .blk = blk, .write = write, .run = &run };
        aio_co_enter(iothread_aio_context(threads[i]),
                     coroutine_create(worker_entry, &workers[i]));
    }
    aio_co_sleep_ns(seconds * 1e9);
    __atomic_store_n(&run.stop, true, __ATOMIC_RELAXED);
    while (__atomic_load_n(&run.running, __ATOMIC_ACQUIRE)) {
        aio_co_sleep_ns(100000);
    }
    ns = clock_now_ns() - start;
    for (int i = 0; i < n; i++) {
        sum += workers[i].done;
    }
    return sum * 1e9 / ns;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static BlockDriverState *coroutine_fn co_open(const char *path)
{
    g_autofree char *json = g_strdup_printf(
        "{'driver': 'qcow2', 'node-name': 'q', "
        "'file': {'driver': 'file', 'filename': '%s'}, "
        "'data-file': {'driver': 'null-co', 'size': %" G_GINT64_FORMAT "}}",
        path, IMAGE_BYTES);
    g_autoptr(BlockdevOptions) options = NULL;
    BlockDriverState *bs = NULL;
    Error *err = NULL;
    QObject *obj = qobject_from_json(json, &err);

    if (obj) {
        options = qapi_from_qobject(&qapi_type_BlockdevOptions, obj, false,
                                    &err);
        qobject_unref(obj);
    }
    if (options) {
        bs = bdrv_co_open(options, true, &err);
    }
    if (!bs) {
        g_error("%s", error_get_pretty(err));
    }
    return bs;
}

typedef struct Bench {
    double seconds;
    int rounds;
    const char *path;
    bool done;
} Bench;

static void coroutine_fn bench_entry(void *opaque)
{
    Bench *b = opaque;
    BlockDriverState *bs = co_open(b->path);
    BlockBackend *blk = blk_new("bench", BLK_PERM_ALL, BLK_PERM_ALL);
    IOThread *threads[MAX_THREADS];
    Error *err = NULL;

    if (!blk_co_attach(blk, bs, &err)) {
        g_error("%s", error_get_pretty(err));
    }
    for (int i = 0; i < MAX_THREADS; i++) {
        g_autofree char *id = g_strdup_printf("bench%d", i);

        threads[i] = iothread_new(id, &iothread_default_params, &err);
    }
    for (int write = 0; write < 2; write++) {
        double one[MAX_ROUNDS], two[MAX_ROUNDS];

        for (int i = 0; i < b->rounds; i++) {
            one[i] = co_measure(blk, threads, 1, write, b->seconds);
            two[i] = co_measure(blk, threads, 2, write, b->seconds);
        }
        qsort(one, b->rounds, sizeof(double), compare);
        qsort(two, b->rounds, sizeof(double), compare);
        printf("%-9s 1 thread %6.2f M/s, 2 threads %6.2f M/s, %.2fx\n",
               write ? "overwrite" : "read", one[b->rounds / 2] / 1e6,
               two[b->rounds / 2] / 1e6,
               two[b->rounds / 2] / one[b->rounds / 2]);
    }
    for (int i = 0; i < MAX_THREADS; i++) {
        iothread_free(threads[i]);
    }
    blk_co_free(blk);
    bdrv_co_close_all();
    b->done = true;
}

int main(int argc, char **argv)
{
    g_autofree char *dir = g_dir_make_tmp("qcow2-threads-XXXXXX", NULL);
    g_autofree char *path = g_build_filename(dir, "image", NULL);
    g_autofree char *data = g_build_filename(dir, "data", NULL);
    g_autofree char *create = g_strdup_printf(
        "qemu-img create -q -f qcow2 -o "
        "data_file=%s,preallocation=metadata %s 1G", data, path);
    Bench b = {
        .seconds = argc > 1 ? g_ascii_strtod(argv[1], NULL) : 0.5,
        .rounds = argc > 2 ? CLAMP(atoi(argv[2]), 1, MAX_ROUNDS) : 5,
        .path = path,
    };
    int status;
    AioContext *ctx;

    if (!g_spawn_command_line_sync(create, NULL, NULL, &status, NULL)
        || status != 0) {
        fprintf(stderr, "qemu-img failed\n");
        return 1;
    }
    ctx = aio_context_new(AIO_BACKEND_AUTO, NULL);
    coroutine_enter(coroutine_create(bench_entry, &b));
    while (!b.done) {
        aio_poll(ctx, true);
    }
    aio_context_free(ctx);
    remove(path);
    remove(data);
    remove(dir);
    return 0;
}
