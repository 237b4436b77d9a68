/* SPDX-License-Identifier: MIT */
/*
 * The walker, over types of the real schema.  Expected texts were recorded
 * from the reference daemon.
 */
#include "qapi/event.h"
#include "qapi/json.h"
#include "qapi/keyval.h"
#include "qapi/qapi-types.h"

typedef struct Case {
    const QapiType *type;
    const char *in;             /* JSON if it begins with '{', else key=value */
    const char *out;            /* JSON, or "! " and an error */
} Case;

/* What @in becomes after a trip through C; the value itself and a clone. */
static char *round_trip(const QapiType *type, const char *in)
{
    g_autoptr(Error) err = NULL;
    void *value = qapi_from_option(type, in, NULL, NULL, &err);
    g_autoptr(QObject) obj = NULL;
    void *clone;

    if (!value) {
        return g_strconcat("! ", error_get_pretty(err), NULL);
    }
    g_assert_null(err);
    clone = qapi_clone(type, value);
    qapi_free(type, value);
    obj = qapi_to_qobject(type, clone);
    qapi_free(type, clone);
    return qobject_to_json(obj);
}

static void check_cases(const Case *cases, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        g_autofree char *out = round_trip(cases[i].type, cases[i].in);

        if (!g_str_equal(out, cases[i].out)) {
            g_test_message("input: %s", cases[i].in);
        }
        g_assert_cmpstr(out, ==, cases[i].out);
    }
}

#define BD &qapi_type_BlockdevOptions
#define EX &qapi_type_BlockExportOptions
#define INET &qapi_type_InetSocketAddress
#define OBJ &qapi_type_ObjectOptions

static void test_keyval(void)
{
    static const Case cases[] = {
        { BD, "driver=file,node-name=f,filename=a,cache.direct=on,aio=native",
          "{\"driver\": \"file\", \"node-name\": \"f\", \"cache\": "
          "{\"direct\": true}, \"filename\": \"a\", \"aio\": \"native\"}" },
        { BD, "driver=raw,file.driver=raw,file.file=x,size=010,offset=0x10",
          "{\"driver\": \"raw\", \"file\": {\"driver\": \"raw\", "
          "\"file\": \"x\"}, \"offset\": 16, \"size\": 8}" },
        { BD, "driver=null-co,read-zeroes=yes,size=-1,latency-ns=-1",
          "{\"driver\": \"null-co\", \"size\": -1, "
          "\"latency-ns\": 18446744073709551615, \"read-zeroes\": true}" },
        { EX, "type=fuse,id=e,node-name=n,mountpoint=m,iothread=a,io-uring=on",
          "{\"type\": \"fuse\", \"id\": \"e\", \"iothread\": \"a\", "
          "\"node-name\": \"n\", \"mountpoint\": \"m\", "
          "\"io-uring\": \"on\"}" },
        { EX, "type=fuse,id=e,node-name=n,mountpoint=m,iothread.0=a,"
          "iothread.1=b,queue-depth=8",
          "{\"type\": \"fuse\", \"id\": \"e\", \"iothread\": [\"a\", \"b\"], "
          "\"node-name\": \"n\", \"mountpoint\": \"m\", "
          "\"queue-depth\": 8}" },
        { OBJ, "qom-type=throttle-group,id=g,limits.iops-total=5,x-bps-read=6",
          "{\"qom-type\": \"throttle-group\", \"id\": \"g\", \"limits\": "
          "{\"iops-total\": 5}, \"x-bps-read\": 6}" },
        { &qapi_type_ImageInfoSpecificFile, "extent-size-hint=1.5k",
          "{\"extent-size-hint\": 1536}" },
        { &qapi_type_ImageInfoSpecificFile, "extent-size-hint=0x10",
          "{\"extent-size-hint\": 16}" },
        { &qapi_type_ImageInfoSpecificFile, "extent-size-hint=2E",
          "{\"extent-size-hint\": 2305843009213693952}" },
    };

    check_cases(cases, G_N_ELEMENTS(cases));
}

/* The only type with fractions has 13 integers before the first of them. */
static char *timed_stats(bool keyval, const char *depth)
{
    static const char *const names[] = {
        "interval_length", "min_rd_latency_ns", "max_rd_latency_ns",
        "avg_rd_latency_ns", "min_wr_latency_ns", "max_wr_latency_ns",
        "avg_wr_latency_ns", "min_zone_append_latency_ns",
        "max_zone_append_latency_ns", "avg_zone_append_latency_ns",
        "min_flush_latency_ns", "max_flush_latency_ns",
        "avg_flush_latency_ns", "avg_rd_queue_depth", "avg_wr_queue_depth",
        "avg_zone_append_queue_depth",
    };
    GString *out = g_string_new(keyval ? "" : "{");

    for (size_t i = 0; i < G_N_ELEMENTS(names); i++) {
        g_string_append_printf(out, keyval ? "%s%s=%s" : "%s\"%s\": %s",
                               i == 0 ? "" : keyval ? "," : ", ", names[i],
                               i == 13 ? depth : "7");
    }
    return g_string_free(g_string_append(out, keyval ? "" : "}"), FALSE);
}

static void test_number(void)
{
    static const struct {
        const char *in;
        const char *out;            /* JSON, or "! " and an error */
        bool json;
    } cases[] = {
        { "0.5", "0.5" }, { "1e3", "1000" }, { "-2", "-2" },
        { "0.5", "0.5", true }, { "-3", "-3", true },
        { "nan", "! Parameter 'avg_rd_queue_depth' expects number" },
        { "1e999", "! Parameter 'avg_rd_queue_depth' expects number" },
        { "1x", "! Parameter 'avg_rd_queue_depth' expects number" },
        { "", "! Parameter 'avg_rd_queue_depth' expects number" },
        { "\"1\"", "! Invalid parameter type for 'avg_rd_queue_depth', "
          "expected: number", true },
    };

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autofree char *in = timed_stats(!cases[i].json, cases[i].in);
        g_autofree char *want = cases[i].out[0] == '!'
                                ? g_strdup(cases[i].out)
                                : timed_stats(false, cases[i].out);
        g_autofree char *out = round_trip(&qapi_type_BlockDeviceTimedStats,
                                          in);

        g_assert_cmpstr(out, ==, want);
    }
}

static void test_keyval_errors(void)
{
    static const Case cases[] = {
        { BD, "", "! Parameter 'driver' is missing" },
        { BD, "driver=x", "! Parameter 'driver' does not accept value 'x'" },
        { BD, "driver=file", "! Parameter 'filename' is missing" },
        { BD, "driver=file,filename=a,bogus=1",
          "! Parameter 'bogus' is unexpected" },
        { BD, "driver=file,filename=a,cache.direct=maybe",
          "! Parameter 'cache.direct' expects 'on' or 'off'" },
        { BD, "driver=file,filename=a,cache.direct=ON",
          "! Parameter 'cache.direct' expects 'on' or 'off'" },
        { BD, "driver=file,filename=a,cache.bogus=on",
          "! Parameter 'cache.bogus' is unexpected" },
        { BD, "driver=file,filename=a,cache=on",
          "! Invalid parameter type for 'cache', expected: object" },
        { BD, "driver=file,filename=a,cache.0=on",
          "! Invalid parameter type for 'cache', expected: object" },
        { BD, "driver=file,filename.a=1",
          "! Parameters 'filename.*' are unexpected" },
        { BD, "driver=file,filename=a,cache.direct.x=on",
          "! Parameters 'cache.direct.*' are unexpected" },
        { BD, "driver=null-co,detect-zeroes.0=1",
          "! Parameters 'detect-zeroes.*' are unexpected" },
        { BD, "driver=file,filename=a,aio=bad",
          "! Parameter 'aio' does not accept value 'bad'" },
        { BD, "driver=raw", "! Parameter 'file' is missing" },
        { BD, "driver=raw,file.0=a",
          "! Invalid parameter type for 'file', expected: BlockdevRef" },
        { BD, "driver=raw,file.driver=bad",
          "! Parameter 'driver' does not accept value 'bad'" },
        { BD, "driver=raw,file.node-name=bad",
          "! Parameter 'file.driver' is missing" },
        { BD, "driver=raw,file.driver=file,file.filename=x,file.bogus=1",
          "! Parameter 'file.bogus' is unexpected" },
        { BD, "driver=raw,file=f,offset=2M",
          "! Parameter 'offset' expects integer" },
        { BD, "driver=raw,file=f,size=x",
          "! Parameter 'size' expects integer" },
        { BD, "driver=null-co,size=99999999999999999999",
          "! Parameter 'size' expects integer" },
        { BD, "driver=null-co,size=", "! Parameter 'size' expects integer" },
        { BD, "driver=null-co,size=1 ", "! Parameter 'size' expects integer" },
        { BD, "driver=null-co,latency-ns=18446744073709551616",
          "! Parameter 'latency-ns' expects integer" },
        { EX, "type=bad", "! Parameter 'type' does not accept value 'bad'" },
        { EX, "type=fuse", "! Parameter 'id' is missing" },
        { EX, "type=fuse,id=e", "! Parameter 'node-name' is missing" },
        { EX, "type=fuse,id=e,node-name=n",
          "! Parameter 'mountpoint' is missing" },
        { EX, "type=fuse,id=e,node-name=n,mountpoint=m,growable=x",
          "! Parameter 'growable' expects 'on' or 'off'" },
        { EX, "type=fuse,id=e,node-name=n,mountpoint=m,io-uring=x",
          "! Parameter 'io-uring' does not accept value 'x'" },
        { EX, "type=fuse,id=e,node-name=n,mountpoint=m,queue-depth=70000",
          "! Parameter 'queue-depth' expects uint16_t" },
        { EX, "type=fuse,id=e,node-name=n,mountpoint=m,iothread.0.a=b",
          "! Parameters 'iothread.0.*' are unexpected" },
        { EX, "type=fuse,id=e,node-name=n,mountpoint=m,iothread.a=b",
          "! Invalid parameter type for 'iothread', expected: "
          "BlockExportIothreads" },
        { INET, "host=x,port=1,to=-1", "! Parameter 'to' expects uint16_t" },
        { INET, "host=x,port=1,keep-alive-idle=q",
          "! Parameter 'keep-alive-idle' expects integer" },
        { OBJ, "qom-type=bogus,id=a",
          "! Parameter 'qom-type' does not accept value 'bogus'" },
        { OBJ, "qom-type=throttle-group,id=g,limits.iops-total=x",
          "! Parameter 'limits.iops-total' expects integer" },
        { &qapi_type_ImageInfoSpecificFile, "extent-size-hint=1.5",
          "! Parameter 'extent-size-hint' expects size" },
        { &qapi_type_ImageInfoSpecificFile, "extent-size-hint=16E",
          "! Parameter 'extent-size-hint' expects size" },
        { &qapi_type_ImageInfoSpecificFile, "extent-size-hint=-1",
          "! Parameter 'extent-size-hint' expects size" },
        { &qapi_type_ImageInfoSpecificFile, "extent-size-hint=1KB",
          "! Parameter 'extent-size-hint' expects size" },
    };

    check_cases(cases, G_N_ELEMENTS(cases));
}

static void test_json(void)
{
    static const Case cases[] = {
        { BD, "{'driver':'raw','file':{'driver':'null-co','latency-ns':-1}}",
          "{\"driver\": \"raw\", \"file\": {\"driver\": \"null-co\", "
          "\"latency-ns\": 18446744073709551615}}" },
        { EX, "{'type':'fuse','id':'e','node-name':'n','mountpoint':'m',"
          "'io-uring':true,'iothread':[]}",
          "{\"type\": \"fuse\", \"id\": \"e\", \"iothread\": [], "
          "\"node-name\": \"n\", \"mountpoint\": \"m\", "
          "\"io-uring\": true}" },
        { EX, "{'type':'fuse','id':'e','node-name':'n','mountpoint':'m',"
          "'io-uring':'auto','placement':'none'}",
          "{\"type\": \"fuse\", \"id\": \"e\", \"node-name\": \"n\", "
          "\"mountpoint\": \"m\", \"io-uring\": \"auto\", "
          "\"placement\": \"none\"}" },
        { &qapi_type_ObjectPropertyValue,
          "{'name':'n','type':'t','value':{'any':[1,null]}}",
          "{\"name\": \"n\", \"type\": \"t\", "
          "\"value\": {\"any\": [1, null]}}" },
        { &qapi_type_ChardevBackend,
          "{'type':'socket','data':{'addr':{'type':'unix','data':"
          "{'path':'p'}},'server':false}}",
          "{\"type\": \"socket\", \"data\": {\"addr\": {\"type\": \"unix\", "
          "\"data\": {\"path\": \"p\"}}, \"server\": false}}" },
    };

    check_cases(cases, G_N_ELEMENTS(cases));
}

static void test_json_errors(void)
{
    static const Case cases[] = {
        { BD, "{'driver':'file'",
          "! 1:17: JSON parse error, premature end of input" },
        { BD, "{'driver':'file','node-name':'f','filename':1}",
          "! Invalid parameter type for 'filename', expected: string" },
        { BD, "{'driver':null}",
          "! Invalid parameter type for 'driver', expected: string" },
        { BD, "{'driver':'null-co','size':'1G'}",
          "! Invalid parameter type for 'size', expected: integer" },
        { BD, "{'driver':'null-co','size':1.0}",
          "! Invalid parameter type for 'size', expected: integer" },
        { BD, "{'driver':'null-co','size':9223372036854775808}",
          "! Invalid parameter type for 'size', expected: integer" },
        { BD, "{'driver':'null-co','latency-ns':1e30}",
          "! Parameter 'latency-ns' expects uint64" },
        { BD, "{'driver':'null-co','read-zeroes':'on'}",
          "! Invalid parameter type for 'read-zeroes', expected: boolean" },
        { BD, "{'driver':'raw','file':1}",
          "! Invalid parameter type for 'file', expected: BlockdevRef" },
        { BD, "{'driver':'raw','file':null}",
          "! Invalid parameter type for 'file', expected: BlockdevRef" },
        { BD, "{'driver':'raw','file':{'driver':'file','cache':"
          "{'direct':1}}}",
          "! Invalid parameter type for 'file.cache.direct', expected: "
          "boolean" },
        { BD, "{'driver':'file','filename':'x','cache':null}",
          "! Invalid parameter type for 'cache', expected: object" },
        { EX, "{'type':'fuse','id':'e','node-name':'n','mountpoint':'m',"
          "'writable':1}",
          "! Invalid parameter type for 'writable', expected: boolean" },
        { EX, "{'type':'fuse','id':'e','node-name':'n','mountpoint':'m',"
          "'io-uring':1}",
          "! Invalid parameter type for 'io-uring', expected: FuseIoUring" },
        { EX, "{'type':'fuse','id':'e','node-name':'n','mountpoint':'m',"
          "'iothread':['a',1]}",
          "! Invalid parameter type for 'iothread[1]', expected: string" },
        { EX, "{'type':'fuse','id':'e','node-name':'n','mountpoint':'m',"
          "'queue-depth':65536}",
          "! Parameter 'queue-depth' expects uint16_t" },
        { &qapi_type_SocketAddressLegacy,
          "{'type':'inet','data':{'host':'x','port':'1','to':'1'}}",
          "! Parameter 'data.to' expects uint64" },
        { &qapi_type_SocketAddressLegacy,
          "{'type':'inet','data':{'host':'x','port':'1','to':-1}}",
          "! Parameter 'to' expects uint16_t" },
        { &qapi_type_SocketAddressLegacy, "{'type':'unix'}",
          "! Parameter 'data' is missing" },
        { &qapi_type_BlockDeviceTimedStats, "{'interval_length': true}",
          "! Invalid parameter type for 'interval_length', expected: "
          "integer" },
        { BD, "{'driver':'file','filename':'a','filename':'b'}",
          "! 1:44: JSON parse error, duplicate key" },
    };

    check_cases(cases, G_N_ELEMENTS(cases));
}

/* What the C side sees. */
static void test_c_values(void)
{
    g_autoptr(BlockdevOptions) bd = qapi_from_option(
        BD, "driver=raw,node-name=n,file.driver=null-co,offset=7", NULL, NULL,
        NULL);
    g_autoptr(BlockExportOptions) ex = qapi_from_option(
        EX, "fuse,id=e,node-name=n,mountpoint=m,io-uring=auto,iothread.0=a",
        "type", NULL, NULL);
    g_autoptr(BlockExportOptions) json = qapi_from_option(
        EX, "{'type':'fuse','id':'e','node-name':'n','mountpoint':'m',"
        "'io-uring':true}", "type", NULL, NULL);
    g_autoptr(BlockExportOptions) copy = QAPI_CLONE(BlockExportOptions, ex);

    g_assert_cmpint(bd->driver, ==, BLOCKDEV_DRIVER_RAW);
    g_assert_cmpstr(bd->node_name, ==, "n");
    g_assert_false(bd->has_read_only);
    g_assert_null(bd->cache);
    g_assert_true(bd->u.raw.has_offset && bd->u.raw.offset == 7);
    g_assert_false(bd->u.raw.has_size);
    g_assert_cmpint(bd->u.raw.file->type, ==, QTYPE_QDICT);
    g_assert_cmpint(bd->u.raw.file->u.definition.driver, ==,
                    BLOCKDEV_DRIVER_NULL_CO);
    g_assert_cmpstr(BlockdevDriver_str(BLOCKDEV_DRIVER_NULL_CO), ==,
                    "null-co");
    g_assert_cmpstr(BlockdevDriver_str(BLOCKDEV_DRIVER__MAX), ==, "?");

    g_assert_cmpint(copy->iothread->type, ==, QTYPE_QLIST);
    g_assert_cmpstr(copy->iothread->u.multi->value, ==, "a");
    g_assert_true(copy->iothread->u.multi != ex->iothread->u.multi);
    g_assert_cmpint(copy->u.fuse.io_uring->type, ==, QTYPE_QSTRING);
    g_assert_cmpint(copy->u.fuse.io_uring->u.mode, ==, ON_OFF_AUTO_AUTO);
    g_assert_cmpint(json->u.fuse.io_uring->type, ==, QTYPE_QBOOL);
    g_assert_true(json->u.fuse.io_uring->u.enable);
}

static void test_lists(void)
{
    g_autoptr(QObject) in = qobject_from_json("[{'name':'a'},{'name':'b'}]",
                                              NULL);
    g_autoptr(CommandInfoList) list = qapi_from_qobject(
        &qapi_type_CommandInfoList, in, false, NULL);
    g_autoptr(QObject) out = qapi_to_qobject(&qapi_type_CommandInfoList, list);
    g_autoptr(QObject) none = qapi_to_qobject(&qapi_type_CommandInfoList,
                                              NULL);
    g_autofree char *none_text = qobject_to_json(none);
    g_autoptr(QObject) bad = qobject_from_json("[{'name':'a'},{}]", NULL);
    g_autoptr(Error) err = NULL;

    g_assert_true(qobject_is_equal(in, out));
    g_assert_cmpstr(none_text, ==, "[]");
    g_assert_null(qapi_from_qobject_named(&qapi_type_CommandInfoList, "x", bad,
                                          false, &err));
    g_assert_cmpstr(error_get_pretty(err), ==,
                    "Parameter 'x[1].name' is missing");
}

static void test_scalar(void)
{
    g_autoptr(QObject) good = qobject_from_json("5", NULL);
    g_autoptr(QObject) bad = qobject_from_json("'x'", NULL);
    g_autoptr(Error) err = NULL;
    int64_t value = 0;

    g_assert_true(qapi_scalar_from_qobject(&qapi_type_int, "p", good, false,
                                           &value, NULL));
    g_assert_cmpint(value, ==, 5);
    g_assert_false(qapi_scalar_from_qobject(&qapi_type_int, "poll-max-ns", bad,
                                            false, &value, &err));
    g_assert_cmpstr(error_get_pretty(err), ==, "Invalid parameter type for "
                    "'poll-max-ns', expected: integer");
}

/* A chain of nodes inside of each other ends in an error, not in a crash. */
static void test_depth(void)
{
    g_autoptr(GString) fine = g_string_new("{'driver':'null-co'}");
    g_autoptr(GString) deep = NULL;
    g_autofree char *out = NULL, *err = NULL;

    for (int i = 0; i < 90; i++) {
        g_string_prepend(fine, "{'driver':'raw','file':");
        g_string_append(fine, "}");
    }
    deep = g_string_new(fine->str);
    for (int i = 0; i < 900; i++) {
        g_string_prepend(deep, "{'driver':'raw','file':");
        g_string_append(deep, "}");
    }
    out = round_trip(BD, fine->str);
    g_assert_cmpint(out[0], ==, '{');
    err = round_trip(BD, deep->str);
    g_assert_cmpstr(err, ==, "! Parameter 'file' is nested too deeply");
}

static char *event_text;

static void emit_event(QAPIEvent event, QDict *message)
{
    QDict *timestamp = qdict_get_qdict(message, "timestamp");

    g_assert_cmpint(event, ==, QAPI_EVENT_BLOCK_EXPORT_DELETED);
    g_assert_cmpint(qdict_get_int(timestamp, "seconds", 0), >, 1500000000);
    g_assert_true(qdict_haskey(timestamp, "microseconds"));
    qdict_del(message, "timestamp");
    event_text = qobject_to_json(QOBJECT(message));
    qobject_unref(message);
}

static void test_event(void)
{
    QapiEventBlockExportDeleted arg = { .id = (char *)"e" };

    qapi_event_send(QAPI_EVENT_BLOCK_EXPORT_DELETED, &arg);
    g_assert_null(event_text);
    qapi_event_set_emitter(emit_event);
    qapi_event_send(QAPI_EVENT_BLOCK_EXPORT_DELETED, &arg);
    g_assert_cmpstr(event_text, ==, "{\"event\": \"BLOCK_EXPORT_DELETED\", "
                    "\"data\": {\"id\": \"e\"}}");
    g_free(event_text);
    qapi_event_set_emitter(NULL);
}

/* A walk that fails anywhere frees what it has made (see LeakSanitizer). */
static void test_fuzz(void)
{
    static const char *const parts[] = {
        "'driver':'raw'", "'driver':'file'", "'file':'x'", "'filename':'y'",
        "'file':{'driver':'null-co'}", "'cache':{'direct':true}",
        "'cache':{}", "'size':1", "'size':-1.5", "'node-name':'n'",
        "'node-name':[]", "'discard':'unmap'", "'discard':1",
        "'file':{'driver':'raw','file':{'driver':'file','filename':1}}",
    };

    for (int round = 0; round < 20000; round++) {
        g_autoptr(GString) text = g_string_new("{");
        int n = g_test_rand_int_range(0, 6);
        g_autofree char *out = NULL;

        for (int i = 0; i < n; i++) {
            int which = g_test_rand_int_range(0, G_N_ELEMENTS(parts));

            g_string_append_printf(text, "%s%s", i ? "," : "", parts[which]);
        }
        g_string_append_c(text, '}');
        out = round_trip(BD, text->str);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/visit/keyval", test_keyval);
    g_test_add_func("/visit/keyval-errors", test_keyval_errors);
    g_test_add_func("/visit/number", test_number);
    g_test_add_func("/visit/json", test_json);
    g_test_add_func("/visit/json-errors", test_json_errors);
    g_test_add_func("/visit/c-values", test_c_values);
    g_test_add_func("/visit/lists", test_lists);
    g_test_add_func("/visit/scalar", test_scalar);
    g_test_add_func("/visit/depth", test_depth);
    g_test_add_func("/visit/event", test_event);
    g_test_add_func("/visit/fuzz", test_fuzz);
    return g_test_run();
}
