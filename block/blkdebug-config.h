/* SPDX-License-Identifier: MIT */
/* The rules in a file that blkdebug's option `config` names. */
#ifndef BLOCK_BLKDEBUG_CONFIG_H
#define BLOCK_BLKDEBUG_CONFIG_H

#include "qapi/qapi-types.h"
#include "util/error.h"

typedef struct BlkdebugConfig {
    BlkdebugInjectErrorOptionsList *inject_error;
    BlkdebugSetStateOptionsList *set_state;
} BlkdebugConfig;

/*
 * Read the file @path into the empty @config.  False with an error, @config
 * then holding what came before.  Any thread; may block.
 */
bool blkdebug_config_read(BlkdebugConfig *config, const char *path,
                          Error **errp);

/* Text instead of a file; @len bytes, and a 0 behind them. */
bool blkdebug_config_parse(BlkdebugConfig *config, const char *text,
                           size_t len, Error **errp);

void blkdebug_config_deinit(BlkdebugConfig *config);

#endif /* BLOCK_BLKDEBUG_CONFIG_H */
