#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Prints the version of the staged QEMU, which is the version of the whole.
exec cat "$("$(dirname "$0")/staged-tree.sh")/VERSION"
