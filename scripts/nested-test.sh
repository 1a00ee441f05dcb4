#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Runs a test program of the nested QEMU build, from its directory.
#
#   scripts/nested-test.sh BUILD-DIRECTORY PROGRAM [ARGUMENT...]

set -eu
cd "$1"
program=$2
shift 2
if [ ! -x "$program" ]; then
    echo "1..1"
    echo "not ok 1 $program is not built: is it listed in" \
        "hw/vfio-user/meson.build, and did make succeed?"
    exit 1
fi
exec "./$program" --tap -k "$@"
