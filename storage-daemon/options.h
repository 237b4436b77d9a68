/* SPDX-License-Identifier: MIT */
/*
 * The command line.  Main thread only.
 */
#ifndef STORAGE_DAEMON_OPTIONS_H
#define STORAGE_DAEMON_OPTIONS_H

#include <stdbool.h>
#include "util/coroutine.h"

/* What the options say that concerns the process itself. */
typedef struct ProcessOptions {
    bool daemonize;
    const char *pidfile;        /* or NULL */
} ProcessOptions;

/*
 * Read the command line; exits on wrong usage, and after --help and --version.
 * Options about the process itself are collected, all others kept.
 */
ProcessOptions options_parse(int argc, char **argv);

typedef enum OptionsResult {
    OPTIONS_DONE,
    OPTIONS_FAILED,             /* the message has been printed */
    OPTIONS_EXIT,               /* help was asked for and has been printed */
} OptionsResult;

/* Carry out, in order, the options kept; stops early when the daemon quits. */
OptionsResult coroutine_fn options_co_run(void);

/* Another process, forked meanwhile, is to know nothing of their secrets. */
void options_forget(void);

/* Free what options_parse() kept. */
void options_cleanup(void);

#endif /* STORAGE_DAEMON_OPTIONS_H */
