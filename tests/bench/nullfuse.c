/* SPDX-License-Identifier: MIT */
/*
 * nullfuse: the upper bound of the FUSE transport for a one-file export.
 *
 * Mounts one regular file of a given size over an existing one.  A READ is
 * answered with whatever the payload buffer holds, WRITE data is dropped: what
 * is left is the kernel's transport, its wake-ups and copies.  A contender of
 * scripts/bench, not a file system.
 *
 *     nullfuse [--mode=dev|uring] [--threads=N] [--depth=N] [--size=BYTES]
 *              [--adapt] FILE
 *
 * dev: N threads on cloned /dev/fuse descriptors.  uring: N threads with a ring
 * each, queue q served by thread q % N.  --adapt moves a thread to its
 * clients' CPU while they wait for each reply.  Ends on SIGTERM or unmount.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <liburing.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "block/export/fuse-kernel.h"

#ifndef IORING_SETUP_SINGLE_ISSUER
#define IORING_SETUP_SINGLE_ISSUER (1U << 12)
#endif
#ifndef IORING_SETUP_DEFER_TASKRUN
#define IORING_SETUP_DEFER_TASKRUN (1U << 13)
#endif
#ifndef FOPEN_PARALLEL_DIRECT_WRITES
#define FOPEN_PARALLEL_DIRECT_WRITES (1 << 6)
#endif

#define MAX_WRITE (1U << 20)
#define MAX_BACKGROUND 1024
#define HEADER_STRIDE 512

/* Wake-ups between two looks at where a thread had better run. */
#define ADAPT_WINDOW 256

typedef struct Entry {
    struct fuse_uring_req_header *header;
    char *payload;
    struct iovec iov[2];
    uint16_t qid;
} Entry;

typedef struct Worker {
    pthread_t thread;
    unsigned id;
    int fd;
    unsigned wakeups;
    unsigned requests;
    bool pinned;
} Worker;

static struct {
    const char *file;
    bool uring;
    bool adapt;
    unsigned threads;
    unsigned depth;
    uint64_t size;
} options = {
    .uring = true, .threads = 2, .depth = 16, .size = 1ULL << 30,
};

static int dev_fd = -1;
static unsigned n_cpus;
static volatile sig_atomic_t mounted;

static void die(const char *what)
{
    perror(what);
    if (mounted) {
        umount2(options.file, MNT_DETACH);
    }
    exit(1);
}

/* ---- what is answered ---- */

static void fill_attr(struct fuse_attr *attr)
{
    time_t now = time(NULL);

    *attr = (struct fuse_attr) {
        .ino = 1, .size = options.size, .blocks = options.size / 512,
        .atime = now, .mtime = now, .ctime = now,
        .mode = S_IFREG | 0644, .nlink = 1, .blksize = 4096,
    };
}

/* The length of the reply written to @out, or -errno. */
static int answer(uint32_t opcode, const void *arg, void *out, bool *silent)
{
    switch (opcode) {
    case FUSE_READ:
        return ((const struct fuse_read_in *)arg)->size;
    case FUSE_WRITE:
        *(struct fuse_write_out *)out = (struct fuse_write_out) {
            .size = ((const struct fuse_write_in *)arg)->size,
        };
        return sizeof(struct fuse_write_out);
    case FUSE_GETATTR:
    case FUSE_SETATTR:
        *(struct fuse_attr_out *)out = (struct fuse_attr_out) {
            .attr_valid = 3600,
        };
        fill_attr(&((struct fuse_attr_out *)out)->attr);
        return sizeof(struct fuse_attr_out);
    case FUSE_OPEN:
        *(struct fuse_open_out *)out = (struct fuse_open_out) {
            .open_flags = FOPEN_DIRECT_IO | FOPEN_PARALLEL_DIRECT_WRITES,
        };
        return sizeof(struct fuse_open_out);
    case FUSE_RELEASE:
    case FUSE_FLUSH:
    case FUSE_FSYNC:
        return 0;
    case FUSE_FORGET:
    case FUSE_BATCH_FORGET:
    case FUSE_INTERRUPT:
        *silent = true;
        return 0;
    default:
        return -ENOSYS;
    }
}

/* INIT comes over /dev/fuse in both modes, before anything else. */
static bool answer_init(void)
{
    static char buffer[MAX_WRITE + 8192];
    const struct fuse_in_header *in = (void *)buffer;
    const struct fuse_init_in *init = (void *)(in + 1);
    struct {
        struct fuse_out_header header;
        struct fuse_init_out init;
    } reply = { 0 };
    uint64_t flags = FUSE_ASYNC_READ | FUSE_ASYNC_DIO | FUSE_BIG_WRITES
                     | FUSE_MAX_PAGES | FUSE_INIT_EXT
                     | FUSE_HANDLE_KILLPRIV_V2 | FUSE_DIRECT_IO_ALLOW_MMAP;

    if (read(dev_fd, buffer, sizeof(buffer)) < (ssize_t)sizeof(*in)
        || in->opcode != FUSE_INIT) {
        return false;
    }
    if (options.uring) {
        flags |= FUSE_OVER_IO_URING;
    }
    flags &= init->flags | (uint64_t)init->flags2 << 32;
    if (options.uring && !(flags & FUSE_OVER_IO_URING)) {
        fprintf(stderr, "the kernel offers no FUSE over io_uring\n");
        return false;
    }
    reply.header.len = sizeof(reply);
    reply.header.unique = in->unique;
    reply.init = (struct fuse_init_out) {
        .major = FUSE_KERNEL_VERSION,
        .minor = FUSE_KERNEL_MINOR_VERSION,
        .max_readahead = init->max_readahead,
        .flags = flags,
        .flags2 = flags >> 32,
        .max_background = MAX_BACKGROUND,
        .congestion_threshold = MAX_BACKGROUND / 4 * 3,
        .max_write = MAX_WRITE,
        .max_pages = MAX_WRITE / 4096,
        .time_gran = 1,
    };
    return write(dev_fd, &reply, sizeof(reply)) == sizeof(reply);
}

/* ---- /dev/fuse ---- */

static char *map_pages(size_t size)
{
    char *p = mmap(NULL, size, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (p == MAP_FAILED) {
        die("mmap");
    }
    return p;
}

static void *dev_thread(void *opaque)
{
    Worker *worker = opaque;
    size_t size = MAX_WRITE + 4096;
    char *request = map_pages(size);
    char *reply = map_pages(size);
    const struct fuse_in_header *in = (void *)request;

    for (;;) {
        struct fuse_out_header out = { 0 };
        struct iovec iov[2] = { { &out, sizeof(out) }, { reply, 0 } };
        bool silent = false;
        int ret;

        if (read(worker->fd, request, size) < 0) {
            if (errno == EINTR || errno == EAGAIN || errno == ENOENT) {
                continue;
            }
            return NULL;                /* ENODEV: unmounted */
        }
        ret = answer(in->opcode, in + 1, reply, &silent);
        if (silent) {
            continue;
        }
        iov[1].iov_len = ret > 0 ? ret : 0;
        out.unique = in->unique;
        out.error = ret < 0 ? ret : 0;
        out.len = sizeof(out) + iov[1].iov_len;
        if (writev(worker->fd, iov, 2) < 0 && errno == ENODEV) {
            return NULL;
        }
    }
}

/* ---- FUSE over io_uring ---- */

static void submit(struct io_uring *ring, Entry *entry, uint32_t cmd)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
    struct fuse_uring_cmd_req *req;

    if (!sqe) {
        die("submission queue full");
    }
    memset(sqe, 0, 2 * sizeof(*sqe));
    sqe->opcode = IORING_OP_URING_CMD;
    sqe->flags = IOSQE_FIXED_FILE;      /* index 0: /dev/fuse */
    sqe->cmd_op = cmd;
    sqe->user_data = (uintptr_t)entry;
    req = (struct fuse_uring_cmd_req *)sqe->cmd;
    req->qid = entry->qid;
    if (cmd == FUSE_IO_URING_CMD_REGISTER) {
        sqe->addr = (uintptr_t)entry->iov;
        sqe->len = 2;
    } else {
        req->commit_id = entry->header->ring_ent_in_out.commit_id;
    }
}

static void handle(struct io_uring *ring, Entry *entry)
{
    const struct fuse_in_header *in = (void *)entry->header->in_out;
    struct fuse_out_header *out = (void *)entry->header->in_out;
    uint64_t unique = in->unique;
    bool silent = false;
    int ret = answer(in->opcode, entry->header->op_in, entry->payload,
                     &silent);

    *out = (struct fuse_out_header) {
        .len = sizeof(*out) + (ret > 0 ? ret : 0),
        .error = ret < 0 ? ret : 0,
        .unique = unique,
    };
    entry->header->ring_ent_in_out.payload_sz = ret > 0 ? ret : 0;
    submit(ring, entry, FUSE_IO_URING_CMD_COMMIT_AND_FETCH);
}

/*
 * One request a wake-up: the client waits for each reply, and is served best
 * on its own CPU.  More: let the thread run beside it.
 */
static void adapt_placement(Worker *worker, unsigned n)
{
    cpu_set_t set;
    bool pin;

    worker->wakeups++;
    worker->requests += n;
    if (worker->wakeups < ADAPT_WINDOW) {
        return;
    }
    pin = worker->requests * 16 <= worker->wakeups * 17;
    worker->wakeups = worker->requests = 0;
    if (pin == worker->pinned) {
        return;
    }
    worker->pinned = pin;
    CPU_ZERO(&set);
    for (unsigned cpu = 0; cpu < n_cpus; cpu++) {
        if ((cpu == worker->id % n_cpus) == pin) {
            CPU_SET(cpu, &set);
        }
    }
    sched_setaffinity(0, sizeof(set), &set);
}

static void ring_init(struct io_uring *ring, unsigned n_entries)
{
    struct io_uring_params params = {
        .flags = IORING_SETUP_SQE128 | IORING_SETUP_SUBMIT_ALL
                 | IORING_SETUP_CQSIZE | IORING_SETUP_SINGLE_ISSUER
                 | IORING_SETUP_DEFER_TASKRUN,
        .cq_entries = n_entries * 4,
    };

    errno = -io_uring_queue_init_params(n_entries * 2, ring, &params);
    if (errno) {
        die("io_uring_queue_init_params");
    }
    errno = -io_uring_register_files(ring, &dev_fd, 1);
    if (errno) {
        die("io_uring_register_files");
    }
    io_uring_register_ring_fd(ring);
}

static void register_entries(struct io_uring *ring, Worker *worker,
                             unsigned n_entries)
{
    Entry *entries = calloc(n_entries, sizeof(*entries));
    char *headers = map_pages((size_t)n_entries * HEADER_STRIDE);
    char *payloads = map_pages((size_t)n_entries * MAX_WRITE);

    if (!entries) {
        die("calloc");
    }
    for (unsigned i = 0; i < n_entries; i++) {
        Entry *entry = &entries[i];

        entry->header = (void *)(headers + (size_t)i * HEADER_STRIDE);
        entry->payload = payloads + (size_t)i * MAX_WRITE;
        entry->iov[0] = (struct iovec) {
            entry->header, sizeof(*entry->header)
        };
        entry->iov[1] = (struct iovec) { entry->payload, MAX_WRITE };
        entry->qid = worker->id + i / options.depth * options.threads;
        submit(ring, entry, FUSE_IO_URING_CMD_REGISTER);
    }
}

/* Take all completions; returns how many, or -1 once the mount is gone. */
static int reap(struct io_uring *ring)
{
    struct io_uring_cqe *cqe;
    unsigned head, n = 0;
    bool gone = false;

    io_uring_for_each_cqe(ring, head, cqe) {
        n++;
        if (cqe->res) {
            gone = true;
        } else {
            handle(ring, (Entry *)(uintptr_t)cqe->user_data);
        }
    }
    io_uring_cq_advance(ring, n);
    return gone ? -1 : (int)n;
}

static void *ring_thread(void *opaque)
{
    Worker *worker = opaque;
    struct io_uring ring;
    unsigned n_queues = 0;
    int n;

    for (unsigned q = worker->id; q < n_cpus; q += options.threads) {
        n_queues++;
    }
    if (n_queues == 0) {
        return NULL;
    }
    ring_init(&ring, n_queues * options.depth);
    register_entries(&ring, worker, n_queues * options.depth);
    do {
        int ret = io_uring_submit_and_wait(&ring, 1);

        if (ret < 0 && ret != -EINTR) {
            errno = -ret;
            die("io_uring_submit_and_wait");
        }
        n = reap(&ring);
        if (options.adapt && n > 0) {
            adapt_placement(worker, n);
        }
    } while (n >= 0);
    return NULL;
}

/* ---- set-up ---- */

static void parse_options(int argc, char **argv)
{
    static const struct option table[] = {
        { "mode", required_argument, NULL, 'm' },
        { "threads", required_argument, NULL, 't' },
        { "depth", required_argument, NULL, 'd' },
        { "size", required_argument, NULL, 's' },
        { "adapt", no_argument, NULL, 'a' },
        { NULL, 0, NULL, 0 },
    };
    int c;

    while ((c = getopt_long(argc, argv, "", table, NULL)) != -1) {
        switch (c) {
        case 'm':
            options.uring = !strcmp(optarg, "uring");
            break;
        case 't':
            options.threads = strtoul(optarg, NULL, 0);
            break;
        case 'd':
            options.depth = strtoul(optarg, NULL, 0);
            break;
        case 's':
            options.size = strtoull(optarg, NULL, 0);
            break;
        case 'a':
            options.adapt = true;
            break;
        default:
            exit(2);
        }
    }
    if (optind != argc - 1 || options.threads < 1 || options.threads > 64
        || options.depth < 1 || options.depth > 256) {
        fprintf(stderr, "usage: nullfuse [--mode=dev|uring] [--threads=N] "
                "[--depth=N] [--size=BYTES] [--adapt] FILE\n");
        exit(2);
    }
    options.file = argv[optind];
}

static void on_signal(int number)
{
    umount2(options.file, MNT_DETACH);
    _exit(0);
}

static void mount_file(void)
{
    char text[128];

    dev_fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    if (dev_fd < 0) {
        die("/dev/fuse");
    }
    snprintf(text, sizeof(text), "fd=%d,rootmode=100644,user_id=0,group_id=0,"
             "default_permissions,allow_other", dev_fd);
    if (mount("nullfuse", options.file, "fuse", MS_NOSUID | MS_NODEV, text)) {
        die("mount");
    }
    mounted = 1;
    signal(SIGTERM, on_signal);
    signal(SIGINT, on_signal);
}

/* Another descriptor of the connection, so that threads do not share one. */
static int clone_fd(void)
{
    uint32_t source = dev_fd;
    int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);

    if (fd < 0 || ioctl(fd, FUSE_DEV_IOC_CLONE, &source)) {
        die("FUSE_DEV_IOC_CLONE");
    }
    return fd;
}

int main(int argc, char **argv)
{
    struct rlimit unlimited = { RLIM_INFINITY, RLIM_INFINITY };
    Worker *workers, main_worker = { 0 };

    parse_options(argc, argv);
    n_cpus = sysconf(_SC_NPROCESSORS_CONF);
    setrlimit(RLIMIT_MEMLOCK, &unlimited);
    mount_file();
    if (!answer_init()) {
        die("INIT");
    }
    workers = calloc(options.threads, sizeof(*workers));
    if (!workers) {
        die("calloc");
    }
    for (unsigned i = 0; i < options.threads; i++) {
        workers[i].id = i;
        workers[i].fd = options.uring || i == 0 ? dev_fd : clone_fd();
        errno = pthread_create(&workers[i].thread, NULL,
                               options.uring ? ring_thread : dev_thread,
                               &workers[i]);
        if (errno) {
            die("pthread_create");
        }
    }
    if (options.uring) {
        /* FORGET and INTERRUPT come here even when the ring is up. */
        main_worker.fd = dev_fd;
        dev_thread(&main_worker);
    }
    for (unsigned i = 0; i < options.threads; i++) {
        pthread_join(workers[i].thread, NULL);
    }
    umount2(options.file, MNT_DETACH);
    return 0;
}
