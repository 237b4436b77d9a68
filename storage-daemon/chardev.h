/* SPDX-License-Identifier: MIT */
/*
 * Character devices: byte streams to whoever controls the daemon.
 *
 * A chardev has at most one frontend (a monitor).  Writing never blocks: what
 * the peer does not take is buffered, and a peer that has let more than
 * CHARDEV_OUT_MAX bytes pile up when there is more to come is dropped.  Main
 * thread only.
 */
#ifndef STORAGE_DAEMON_CHARDEV_H
#define STORAGE_DAEMON_CHARDEV_H

#include "qapi/qapi-types.h"
#include "util/coroutine.h"
#include "util/error.h"

typedef struct Chardev Chardev;

/* Output buffered at most before the last write, which may be any size. */
#define CHARDEV_OUT_MAX (16 * 1024 * 1024)

/* What a frontend is told; any may be NULL. */
typedef struct ChardevFrontend {
    void (*opened)(void *opaque);       /* a peer is there */
    void (*closed)(void *opaque);       /* no more input: the peer left */
    void (*received)(void *opaque, const char *buf, size_t len);
    void (*drained)(void *opaque);      /* all output has left */
} ChardevFrontend;

/* NULL with the error `chardev "ID" not found`. */
Chardev *chardev_find(const char *id, Error **errp);
const char *chardev_label(const Chardev *chr);

/*
 * Become its frontend, "chardev 'ID' is already in use" if there is one.
 * opened() comes at once if a peer is there.
 */
bool chardev_attach(Chardev *chr, const ChardevFrontend *fe, void *opaque,
                    Error **errp);
void chardev_detach(Chardev *chr);

/* Send @text, which it takes over; nothing happens if no peer is there. */
void chardev_write(Chardev *chr, GString *text);

/* Bytes that the peer has not taken yet. */
size_t chardev_pending(const Chardev *chr);

/* Whether received() (and, at the end of input, closed()) may come. */
void chardev_set_receiving(Chardev *chr, bool enable);

/*
 * Make one as the option --chardev says.  False with an error, or with *@help
 * set if help was asked for (and has been printed).
 */
bool coroutine_fn chardev_co_add_option(const char *optarg, bool *help,
                                        Error **errp);

/* From QMP's and JSON's form; @from_qmp: what needs the command line fails. */
bool coroutine_fn chardev_co_add(const char *id,
                                 const ChardevBackend *backend, bool from_qmp,
                                 Error **errp);

/*
 * Hang up, if the peer is one of those that come over a socket: closed() comes
 * at once.
 */
void chardev_end_session(Chardev *chr);

/* Remove one that has no frontend. */
void chardev_remove(Chardev *chr);

/* Waiting for clients (server=on,wait=on) and connecting ends with an error. */
void chardev_cancel_waits(void);

/* Wait until output has left, 2 s at most. */
void coroutine_fn chardev_co_flush_all(void);

/* Close and free all.  They have no frontends any more. */
void coroutine_fn chardev_co_close_all(void);

/* A process that is about to become a daemon has no stdio for chardevs. */
void chardev_forbid_stdio(void);

#endif /* STORAGE_DAEMON_CHARDEV_H */
