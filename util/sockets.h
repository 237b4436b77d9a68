/* SPDX-License-Identifier: MIT */
/*
 * Stream sockets: addresses, listening, connecting.
 *
 * Nothing here blocks the calling thread: names of hosts and of files are
 * looked up in the thread pool, connecting waits in the event loop.  All
 * descriptors are non-blocking and close-on-exec.  Functions belong to the
 * thread whose AioContext is current.
 */
#ifndef UTIL_SOCKETS_H
#define UTIL_SOCKETS_H

#include <stdbool.h>
#include <stdint.h>
#include <glib.h>
#include <sys/un.h>
#include "util/coroutine.h"
#include "util/error.h"
#include "util/named-file.h"

typedef enum SocketKind {
    SOCKET_KIND_UNIX,
    SOCKET_KIND_INET,
    SOCKET_KIND_FD,
} SocketKind;

typedef enum SocketChoice {
    SOCKET_CHOICE_UNSET,
    SOCKET_CHOICE_OFF,
    SOCKET_CHOICE_ON,
} SocketChoice;

/* Where a socket listens or connects to. */
typedef struct SocketAddr {
    SocketKind kind;
    bool loopback_only;         /* TCP with other hosts is an error */

    /* SOCKET_KIND_UNIX */
    char *path;
    bool abstract;              /* in the abstract namespace */
    bool tight;                 /* abstract: length without trailing zeroes */

    /* SOCKET_KIND_INET */
    char *host;                 /* listening: "" is any address */
    char *port;                 /* number or service; listening: "0" any */
    uint16_t port_to;           /* listening: try up to this one; 0: no */
    bool numeric;               /* @host is an address, never a name */
    SocketChoice ipv4, ipv6;
    bool keep_alive;
    bool mptcp;
    uint32_t keep_alive_count, keep_alive_idle, keep_alive_interval;

    /* SOCKET_KIND_FD */
    int fd;                     /* taken over */
} SocketAddr;

SocketAddr *socket_addr_new(SocketKind kind);
void socket_addr_free(SocketAddr *addr);                /* NULL is fine */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(SocketAddr, socket_addr_free)

/*
 * As users see it: "unix:PATH[,abstract=on[,tight=on]]", "tcp:HOST:PORT" (an
 * IPv6 address in brackets is made by the caller's choice of text, see
 * socket_local_text()), "fd:N".
 */
char *socket_addr_text(const SocketAddr *addr);

/*
 * Listen with @backlog on all addresses that @addr means.  Returns the
 * descriptors (an array of int) or NULL.  A socket file left by somebody else
 * is replaced; @made, all zero before, is the one that has been made, if any.
 */
GArray *coroutine_fn socket_co_listen(const SocketAddr *addr, int backlog,
                                      NamedEntry *made, Error **errp);

/* Lets another coroutine end socket_co_connect() early. */
typedef struct SocketCancel {
    bool cancelled;
    int fd;                     /* connecting now; 0 or -1: none */
} SocketCancel;

/* Connect; returns the descriptor, or -1 with an error. */
int coroutine_fn socket_co_connect(const SocketAddr *addr,
                                   SocketCancel *cancel, Error **errp);
void socket_cancel(SocketCancel *cancel);

/*
 * The address of @fd at this end, or of its peer: "HOST:PORT" with an IPv6
 * address in brackets; a unix socket's path (empty if it has none); NULL if it
 * is neither.
 */
char *socket_local_text(int fd);
char *socket_peer_text(int fd);

/* The address of the unix socket @file, without looking its name up again. */
void socket_unix_found(const NamedFile *file, struct sockaddr_un *un);

bool socket_is_unix(int fd);
bool socket_is_listening(int fd);
void socket_set_nodelay(int fd);

/* "File descriptor 'N' is not a socket", or make it non-blocking. */
bool socket_fd_check(int fd, Error **errp);

#endif /* UTIL_SOCKETS_H */
