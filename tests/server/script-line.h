/*
 * vfio-user test server: the words of a line
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * What a directive wants to know of its line. Numbers are C's, with K, M and
 * G as suffixes. A mistake is noted once, and a value that can be used comes
 * back all the same.
 */

#ifndef TESTS_SERVER_SCRIPT_LINE_H
#define TESTS_SERVER_SCRIPT_LINE_H

#include "server.h"

typedef struct Line {
    char **words;           /* words[0] is the directive */
    char *error;            /* the first thing that was wrong */
} Line;

void line_fail(Line *line, const char *what, const char *word);
uint64_t line_number(Line *line, const char *text);
/* Two numbers with @separator between them. */
void line_pair(Line *line, const char *text, char separator,
               uint64_t *a, uint64_t *b);
/* What follows "@key=", or NULL. */
const char *line_text(Line *line, const char *key);
uint64_t line_value(Line *line, const char *key, uint64_t none);
/* Whether the word @flag is there. */
bool line_flag(Line *line, const char *flag);
/* The first word after the directive, as a number below @limit. */
unsigned line_first(Line *line, unsigned limit);
/* "size=", a power of two of at least @least */
uint64_t line_size(Line *line, uint64_t least);

/* script-migration.c */
void script_migration(TestServer *s, Line *line);
void script_migration_fail(TestServer *s, Line *line);
void script_migration_lie(TestServer *s, Line *line);
void script_no_features(TestServer *s, Line *line);
void script_engine(TestServer *s, Line *line);

#endif /* TESTS_SERVER_SCRIPT_LINE_H */
