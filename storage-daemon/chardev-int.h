/* SPDX-License-Identifier: MIT */
/*
 * What chardev drivers share.  Main thread only.
 */
#ifndef STORAGE_DAEMON_CHARDEV_INT_H
#define STORAGE_DAEMON_CHARDEV_INT_H

#include "storage-daemon/chardev.h"
#include "storage-daemon/object.h"
#include "storage-daemon/optstr.h"
#include "util/aio.h"

typedef struct ChardevDriver {
    ChardevBackendKind kind;
    const char *qom_type;
    size_t instance_size;               /* of the struct that embeds Chardev */

    /* Build @backend (its data is allocated) from a legacy option string. */
    bool (*parse)(const OptStr *opts, ChardevBackend *backend, Error **errp);

    /* Returns once usable; chardev_set_fds() where a peer is there. */
    bool coroutine_fn (*co_open)(Chardev *chr, const ChardevBackend *backend,
                                 bool from_qmp, Error **errp);

    /* Stop and release; also after a co_open that failed. */
    void (*close)(Chardev *chr);

    /* Free the rest with the last reference; may be NULL. */
    void (*finalize)(Chardev *chr);

    /* The peer has gone and the descriptors are closed; may be NULL. */
    void (*disconnected)(Chardev *chr);

    char *(*filename)(const Chardev *chr);
} ChardevDriver;

typedef struct ChardevLog ChardevLog;

struct Chardev {
    const ChardevDriver *drv;
    char *label;
    QomObject *object;
    bool opening;                       /* not to be found yet */
    bool closed;                        /* only references keep it */
    unsigned refcnt;

    int read_fd, write_fd;              /* -1: none; may be the same */
    bool keep_fds;                      /* not ours to close */
    bool receiving;
    bool flushing;                      /* write handler installed */
    GString *out;                       /* from out_pos on: to be written */
    size_t out_pos;
    BottomHalf *hangup_bh;

    ChardevLog *log;                    /* its log file, or NULL */
    ChardevLog *file;                   /* in place of write_fd, or NULL */

    const ChardevFrontend *fe;
    void *fe_opaque;
};

extern const ChardevDriver chardev_file_driver;
extern const ChardevDriver chardev_pipe_driver;
extern const ChardevDriver chardev_stdio_driver;
extern const ChardevDriver chardev_null_driver;
extern const ChardevDriver chardev_socket_driver;
const ChardevDriver *chardev_driver_by_name(const char *name);

/* A peer is there. */
void chardev_set_fds(Chardev *chr, int read_fd, int write_fd);

/* The peer has gone. */
void chardev_hangup(Chardev *chr);

void chardev_ref(Chardev *chr);
void chardev_unref(Chardev *chr);

/*
 * A file that takes output.  Writing never waits: what the file does not take
 * is buffered, and if more than CHARDEV_OUT_MAX bytes pile up when there is
 * more to come, that is lost, and a warning says so.
 */
ChardevLog *chardev_log_new(const char *label, int fd, bool timestamp);
void chardev_log_write(ChardevLog *log, const GString *text);
bool chardev_log_busy(const ChardevLog *log);   /* not all is written */
void chardev_log_close(ChardevLog *log);        /* frees it; NULL is fine */

/* Wait until all are closed that are to be. */
void coroutine_fn chardev_log_co_wait_closed(int64_t limit_ns);

/*
 * The legacy option string as QMP's form, and the id it names.  NULL with an
 * error, or with *@help set: it asks for help, which has been printed.
 */
ChardevBackend *chardev_parse_option(const char *optarg, char **id, bool *help,
                                     Error **errp);

/* Wait until no closed socket chardev is still connecting. */
void coroutine_fn chardev_socket_co_wait_idle(void);

/* The members that all kinds have. */
ChardevCommon *chardev_common(const ChardevBackend *backend);

void chardev_print_kinds(void);

#endif /* STORAGE_DAEMON_CHARDEV_INT_H */
