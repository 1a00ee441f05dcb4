#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Prints the version of the staged QEMU, which is the version of the whole.
exec cat "$(dirname "$0")/../subprojects/qemu-10.0/VERSION"
