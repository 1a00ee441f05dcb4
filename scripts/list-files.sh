#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Prints the names in a directory that match a pattern, one a line; nothing
# if there are none.  For meson.build, so that a new test needs no edit there.
#
#   scripts/list-files.sh DIRECTORY PATTERN
cd "$1" || exit 1
for f in $2; do
    if [ -e "$f" ]; then
        echo "$f"
    fi
done
