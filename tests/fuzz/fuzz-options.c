/* SPDX-License-Identifier: MIT */
/*
 * Option arguments as the command line takes them, key=value or JSON, to C
 * values and back.  Nothing is carried out.
 *
 * Input: which option, then its argument.
 */
#include <stdio.h>

#include "qapi/json.h"
#include "qapi/qapi-types.h"
#include "qapi/visit.h"
#include "storage-daemon/chardev-int.h"
#include "storage-daemon/daemon.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);

static const struct {
    const QapiType *type;
    const char *implied_key;
} kinds[] = {
    { &qapi_type_BlockdevOptions, "driver" },
    { &qapi_type_BlockExportOptions, "type" },
    { &qapi_type_ObjectOptions, "qom-type" },
    { &qapi_type_MonitorOptions, "chardev" },
};

/* What main.c has in the daemon. */
void daemon_request_quit(void)
{
}

bool daemon_quitting(void)
{
    return false;
}

/* A value must come back the same from its clone, and from its JSON. */
static void check_value(const QapiType *type, void *value)
{
    void *clone = qapi_clone(type, value);
    g_autoptr(QObject) obj = qapi_to_qobject(type, value);
    g_autoptr(QObject) cloned = qapi_to_qobject(type, clone);
    g_autofree char *json = qobject_to_json(obj);
    Error *err = NULL;
    void *again;

    g_assert_true(qobject_is_equal(obj, cloned));
    again = qapi_from_option(type, json, NULL, NULL, &err);
    g_assert_null(err);
    g_assert_nonnull(again);
    qapi_free(type, again);
    qapi_free(type, clone);
}

static void run_typed(unsigned kind, const char *text)
{
    const QapiType *type = kinds[kind].type;
    bool help = false;
    Error *err = NULL;
    void *value = qapi_from_option(type, text, kinds[kind].implied_key, &help,
                                   &err);

    g_assert_true(!!value + !!err + help == 1);
    if (value) {
        check_value(type, value);
        qapi_free(type, value);
    }
    error_free(err);
}

static void run_chardev(const char *text)
{
    g_autofree char *id = NULL;
    bool help = false;
    Error *err = NULL;
    ChardevBackend *backend = chardev_parse_option(text, &id, &help, &err);

    g_assert_true(!!backend + !!err + help == 1);
    if (backend) {
        check_value(&qapi_type_ChardevBackend, backend);
        qapi_free_ChardevBackend(backend);
    }
    error_free(err);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    /* Help is printed. */
    return freopen("/dev/null", "w", stdout) ? 0 : -1;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    FuzzInput in = { data, size };
    unsigned kind = fuzz_take_u8(&in) % (G_N_ELEMENTS(kinds) + 1);
    g_autofree char *text = fuzz_take_string(&in);

    if (kind < G_N_ELEMENTS(kinds)) {
        run_typed(kind, text);
    } else {
        run_chardev(text);
    }
    return 0;
}
