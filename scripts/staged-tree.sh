#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Prints the directory of the staged QEMU that is built; see overlay/stage.py.
top=$(cd "$(dirname "$0")/.." && pwd)
series=$(cat "$top/subprojects/.series" 2>/dev/null || echo 10.0)
echo "$top/subprojects/qemu-$series"
