/*
 * vfio-user test server: the words of a line
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <string.h>
#include "script-line.h"

void line_fail(Line *line, const char *what, const char *word)
{
    if (!line->error) {
        line->error = g_strdup_printf("%s: %s '%s'", line->words[0], what,
                                      word);
    }
}

static uint64_t line_parse(Line *line, const char *text, char **rest)
{
    static const char suffixes[] = "KMG";
    uint64_t value = g_ascii_strtoull(text, rest, 0);
    const char *suffix;

    if (*rest == text) {
        line_fail(line, "not a number", text);
    }
    suffix = **rest ? strchr(suffixes, **rest) : NULL;
    if (suffix) {
        value <<= 10 * (suffix - suffixes + 1);
        (*rest)++;
    }
    return value;
}

uint64_t line_number(Line *line, const char *text)
{
    char *rest;
    uint64_t value = line_parse(line, text, &rest);

    if (*rest) {
        line_fail(line, "not a number", text);
    }
    return value;
}

void line_pair(Line *line, const char *text, char separator,
               uint64_t *a, uint64_t *b)
{
    char *rest;

    *a = line_parse(line, text, &rest);
    *b = 0;
    if (*rest == separator) {
        *b = line_number(line, rest + 1);
    } else {
        line_fail(line, "not a pair", text);
    }
}

const char *line_text(Line *line, const char *key)
{
    size_t len = strlen(key);

    for (char **w = line->words + 1; *w; w++) {
        if (g_str_has_prefix(*w, key) && (*w)[len] == '=') {
            return *w + len + 1;
        }
    }
    return NULL;
}

uint64_t line_value(Line *line, const char *key, uint64_t none)
{
    const char *text = line_text(line, key);

    return text ? line_number(line, text) : none;
}

bool line_flag(Line *line, const char *flag)
{
    for (char **w = line->words + 1; *w; w++) {
        if (!strcmp(*w, flag)) {
            return true;
        }
    }
    return false;
}

unsigned line_first(Line *line, unsigned limit)
{
    uint64_t value = line->words[1] ? line_number(line, line->words[1])
                                    : limit;

    if (value >= limit) {
        line_fail(line, "no number in range", line->words[1] ?: "");
        return 0;
    }
    return value;
}

uint64_t line_size(Line *line, uint64_t least)
{
    uint64_t size = line_value(line, "size", least);

    if (size < least || size & (size - 1)) {
        line_fail(line, "size is no power of two in range",
                  line_text(line, "size") ?: "");
        return least;
    }
    return size;
}
