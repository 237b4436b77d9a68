/* SPDX-License-Identifier: MIT */
/* What sockets.c and sockets-unix.c share. */
#ifndef UTIL_SOCKETS_INT_H
#define UTIL_SOCKETS_INT_H

#include "util/sockets.h"

/* As socket_co_listen() and socket_co_connect(): a descriptor or -1. */
int coroutine_fn socket_unix_co_listen(const SocketAddr *addr, int backlog,
                                       NamedEntry *made, Error **errp);
int coroutine_fn socket_unix_co_connect(const SocketAddr *addr,
                                        SocketCancel *cancel, Error **errp);

#endif /* UTIL_SOCKETS_INT_H */
