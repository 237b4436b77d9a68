/* SPDX-License-Identifier: MIT */
/*
 * Rules for blkdebug in a file: sections [inject-error] and [set-state] (an id
 * may follow the name: [set-state "id"]), lines of the form key = "value",
 * comments after #.  A key that comes twice in a section has its last value.
 *
 * Each section becomes a dictionary, and that a struct of the schema, so that
 * a rule in a file and one in the options are the same.
 */
#include "block/blkdebug-config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "qapi/visit.h"
#include "util/named-file.h"

#define CONFIG_MAX_BYTES (1 << 20)

typedef enum Section {
    SECTION_NONE,
    SECTION_INJECT_ERROR,
    SECTION_SET_STATE,
} Section;

typedef struct Parser {
    Section section;
    QDict *dict;                            /* of the present section */
    BlkdebugInjectErrorOptionsList **error_tail;
    BlkdebugSetStateOptionsList **state_tail;
} Parser;

/* The present section is complete. */
static bool finish_section(Parser *p, Error **errp)
{
    g_autoptr(QDict) dict = g_steal_pointer(&p->dict);
    Section section = p->section;
    void *rule;

    p->section = SECTION_NONE;
    if (section == SECTION_NONE) {
        return true;
    }
    if (!qdict_haskey(dict, "event")) {
        error_setg(errp, "Missing event name for rule");
        return false;
    }
    if (qapi_enum_parse(&qapi_type_BlkdebugEvent, "event",
                        qdict_get_str(dict, "event"), NULL) < 0) {
        error_setg(errp, "invalid parameter value: %s",
                   qdict_get_str(dict, "event"));
        return false;
    }
    if (section == SECTION_INJECT_ERROR) {
        rule = qapi_from_qobject(&qapi_type_BlkdebugInjectErrorOptions,
                                 QOBJECT(dict), true, errp);
        if (rule) {
            QAPI_LIST_APPEND(p->error_tail, rule);
        }
    } else {
        rule = qapi_from_qobject(&qapi_type_BlkdebugSetStateOptions,
                                 QOBJECT(dict), true, errp);
        if (rule) {
            QAPI_LIST_APPEND(p->state_tail, rule);
        }
    }
    return rule != NULL;
}

/* "[name]" or "[name "id"]". */
static bool begin_section(Parser *p, char *line, Error **errp)
{
    size_t len = strlen(line);
    g_autofree char *name = NULL;

    if (!finish_section(p, errp)) {
        return false;
    }
    if (line[len - 1] == ']') {
        line[len - 1] = '\0';
    }
    name = g_strndup(line + 1, strcspn(line + 1, " \t"));
    if (line[len - 1] != '\0') {
        error_setg(errp, "Missing ']' after '%s'", name);
        return false;
    }
    if (!strcmp(name, "inject-error")) {
        p->section = SECTION_INJECT_ERROR;
    } else if (!strcmp(name, "set-state")) {
        p->section = SECTION_SET_STATE;
    } else {
        error_setg(errp, "There is no option group '%s'", name);
        return false;
    }
    p->dict = qdict_new();
    return true;
}

/* key = "value" */
static bool add_line(Parser *p, const char *line, Error **errp)
{
    size_t len = strcspn(line, " \t=");
    g_autofree char *key = g_strndup(line, len);
    g_autofree char *value = NULL;
    const char *text = line + len + strspn(line + len, " \t");

    if (p->section == SECTION_NONE) {
        error_setg(errp, "no group defined");
        return false;
    }
    if (!*key || *text != '=') {
        error_setg(errp, "Invalid parameter '%s'", line);
        return false;
    }
    text++;
    text += strspn(text, " \t");
    len = strlen(text);
    if (len < 2 || text[0] != '"' || strchr(text + 1, '"') != text + len - 1) {
        error_setg(errp, "Parameter '%s' expects a value in quotes", key);
        return false;
    }
    value = g_strndup(text + 1, len - 2);
    qdict_put_str(p->dict, key, value);
    return true;
}

static bool parse_line(Parser *p, char *line, Error **errp)
{
    line = g_strstrip(line);
    if (*line == '\0' || *line == '#') {
        return true;
    }
    return *line == '[' ? begin_section(p, line, errp)
                        : add_line(p, line, errp);
}

bool blkdebug_config_parse(BlkdebugConfig *config, const char *text,
                           size_t len, Error **errp)
{
    Parser p = {
        .error_tail = &config->inject_error,
        .state_tail = &config->set_state,
    };
    bool ok = true;

    if (strlen(text) != len || !g_utf8_validate(text, len, NULL)) {
        error_setg(errp, "The blkdebug config file is not a text file");
        return false;
    }
    while (ok && *text) {
        size_t n = strcspn(text, "\n");
        g_autofree char *line = g_strndup(text, n);

        ok = parse_line(&p, line, errp);
        text += n + (text[n] == '\n');
    }
    ok = ok && finish_section(&p, errp);
    qobject_unref(p.dict);
    return ok;
}

bool blkdebug_config_read(BlkdebugConfig *config, const char *path,
                          Error **errp)
{
    g_autofree char *buf = g_malloc(CONFIG_MAX_BYTES);
    int fd = named_file_open(path, O_RDONLY | O_NONBLOCK, errp);
    ssize_t len;

    if (fd < 0) {
        error_prepend(errp, "Could not read blkdebug config file: ");
        return false;
    }
    len = named_file_read(fd, buf, CONFIG_MAX_BYTES);
    close(fd);
    if (len < 0) {
        error_setg_errno(errp, -len, "Cannot read config file");
        return false;
    }
    return blkdebug_config_parse(config, buf, len, errp);
}

void blkdebug_config_deinit(BlkdebugConfig *config)
{
    qapi_free(&qapi_type_BlkdebugInjectErrorOptionsList, config->inject_error);
    qapi_free(&qapi_type_BlkdebugSetStateOptionsList, config->set_state);
    *config = (BlkdebugConfig) { 0 };
}
