/* SPDX-License-Identifier: MIT */
/*
 * qsd-img: sizes, progress, output.
 */
#include "qsd-img/qsd-img.h"

#include <math.h>
#include <stdio.h>
#include "qapi/json.h"
#include "qapi/visit.h"

char *img_size_text(uint64_t size)
{
    static const char *const units[] = {
        "", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei",
    };
    int exponent;
    int unit;

    /* From 1000 on the next unit, so that three digits are enough. */
    frexp(size / (1000.0 / 1024.0), &exponent);
    unit = MAX(exponent - 1, 0) / 10;
    return g_strdup_printf("%.3g %sB", ldexp(size, -10 * unit), units[unit]);
}

int64_t img_parse_size(const char *text)
{
    g_autoptr(QString) str = qstring_new(text);
    uint64_t size;

    if (!qapi_scalar_from_qobject(&qapi_type_size, "size", QOBJECT(str), true,
                                  &size, NULL) || size > INT64_MAX) {
        return -1;
    }
    return size;
}

int64_t img_size_arg(const char *name, const char *text)
{
    int64_t size = img_parse_size(text);

    if (size < 0) {
        error_report("Invalid %s specified. You may use k, M, G, T, P or E "
                     "suffixes for", name);
        error_report("kilobytes, megabytes, gigabytes, terabytes, petabytes "
                     "and exabytes.");
    }
    return size;
}

void img_print_json(const QObject *obj)
{
    g_autofree char *text = qobject_to_json_pretty(obj, true);

    puts(text);
}

void img_say(const ImgArgs *args, const char *fmt, ...)
{
    va_list ap;

    if (!args->given['q']) {
        va_start(ap, fmt);
        vprintf(fmt, ap);
        va_end(ap);
    }
}

/* ---- progress ---- */

static void progress_show(ImgProgress *p, double percent)
{
    p->shown = percent;
    printf("    (%3.2f/100%%)\r", percent);
    fflush(stdout);
}

void img_progress_begin(ImgProgress *p, const ImgArgs *args)
{
    p->on = args->given['p'] && !args->given['q'] && !args->json;
    p->shown = -1;
    img_progress(p, 0);
}

void img_progress(ImgProgress *p, double part)
{
    double percent = CLAMP(part, 0, 1) * 100;

    /* Not more than a person can see. */
    if (p->on && (p->shown < 0 || percent >= p->shown + 0.5)) {
        progress_show(p, percent);
    }
}

void img_progress_end(ImgProgress *p)
{
    if (p->on) {
        if (p->shown < 100) {
            progress_show(p, 100);
        }
        putchar('\n');
    }
}
