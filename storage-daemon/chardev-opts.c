/* SPDX-License-Identifier: MIT */
/*
 * The option string of --chardev.
 */
#include <stdio.h>
#include <string.h>
#include "storage-daemon/chardev-int.h"
#include "storage-daemon/ident.h"

/* All kinds share one set of names. */
static const OptStrDesc chardev_opts[] = {
    { "abstract", OPTSTR_BOOL },
    { "allow-remote", OPTSTR_BOOL },
    { "append", OPTSTR_BOOL },
    { "backend", OPTSTR_STR },
    { "delay", OPTSTR_BOOL },
    { "fd", OPTSTR_STR },
    { "host", OPTSTR_STR },
    { "id", OPTSTR_STR },
    { "input-path", OPTSTR_STR },
    { "ipv4", OPTSTR_BOOL },
    { "ipv6", OPTSTR_BOOL },
    { "logappend", OPTSTR_BOOL },
    { "logfile", OPTSTR_STR },
    { "logtimestamp", OPTSTR_BOOL },
    { "mux", OPTSTR_BOOL },
    { "nodelay", OPTSTR_BOOL },
    { "path", OPTSTR_STR },
    { "port", OPTSTR_STR },
    { "reconnect", OPTSTR_NUM },
    { "reconnect-ms", OPTSTR_NUM },
    { "server", OPTSTR_BOOL },
    { "signal", OPTSTR_BOOL },
    { "telnet", OPTSTR_BOOL },
    { "tight", OPTSTR_BOOL },
    { "tls-authz", OPTSTR_STR },
    { "tls-creds", OPTSTR_STR },
    { "tn3270", OPTSTR_BOOL },
    { "to", OPTSTR_NUM },
    { "wait", OPTSTR_BOOL },
    { "websocket", OPTSTR_BOOL },
    { NULL }
};

/* Known names of things that this daemon does not do. */
static const char *const chardev_unsupported[] = {
    "mux", "telnet", "tls-authz", "tls-creds", "tn3270", "websocket",
};

static bool chardev_opts_supported(const OptStr *opts, Error **errp)
{
    for (size_t i = 0; i < G_N_ELEMENTS(chardev_unsupported); i++) {
        const char *name = chardev_unsupported[i];
        const char *value = optstr_get(opts, name);

        if (value && strcmp(value, "off")) {
            error_setg(errp, "chardev: '%s' is not supported", name);
            return false;
        }
    }
    return true;
}

static void chardev_print_options(void)
{
    static const char *const types[] = {
        [OPTSTR_STR] = "<str>",
        [OPTSTR_BOOL] = "<bool (on/off)>",
        [OPTSTR_NUM] = "<num>",
    };

    printf("chardev options:\n");
    for (const OptStrDesc *desc = chardev_opts; desc->name; desc++) {
        if (strcmp(desc->name, "id")) {
            printf("  %s=%s\n", desc->name, types[desc->type]);
        }
    }
}

static void chardev_parse_common(const OptStr *opts, ChardevCommon *common)
{
    common->logfile = g_strdup(optstr_get(opts, "logfile"));
    common->has_logappend = true;
    common->logappend = optstr_get_bool(opts, "logappend", false);
    common->has_logtimestamp = true;
    common->logtimestamp = optstr_get_bool(opts, "logtimestamp", false);
}

static ChardevBackend *chardev_parse_backend(const OptStr *opts,
                                             const char *kind, Error **errp)
{
    const ChardevDriver *drv = chardev_driver_by_name(kind);
    g_autoptr(ChardevBackend) backend = NULL;

    if (!drv) {
        error_setg(errp, "'%s' is not a valid char driver name", kind);
        return NULL;
    }
    backend = g_new0(ChardevBackend, 1);
    backend->type = drv->kind;
    if (!drv->parse(opts, backend, errp)) {
        return NULL;
    }
    chardev_parse_common(opts, chardev_common(backend));
    return g_steal_pointer(&backend);
}

ChardevBackend *chardev_parse_option(const char *optarg, char **id, bool *help,
                                     Error **errp)
{
    g_autoptr(OptStr) opts = optstr_parse(optarg, "backend", chardev_opts,
                                          help, errp);
    const char *kind, *name;

    if (!opts) {
        return NULL;
    }
    kind = optstr_get(opts, "backend");
    if (!*help && !g_strcmp0(kind, "help")) {
        *help = true;
        kind = NULL;
    }
    if (*help) {
        if (kind) {
            chardev_print_options();
        } else {
            chardev_print_kinds();
        }
        return NULL;
    }
    name = optstr_get(opts, "id");
    if (!name) {
        error_setg(errp, "chardev: no id specified");
        return NULL;
    }
    if (!ident_check(name, errp)) {
        return NULL;
    }
    if (!kind) {
        error_setg(errp, "chardev: \"%s\" missing backend", name);
        return NULL;
    }
    if (!chardev_opts_supported(opts, errp)) {
        return NULL;
    }
    *id = g_strdup(name);
    return chardev_parse_backend(opts, kind, errp);
}
