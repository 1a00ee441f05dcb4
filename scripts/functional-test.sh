#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Runs one functional test with QEMU's framework.
#
#   scripts/functional-test.sh BUILD-DIRECTORY TEST.py [ARGUMENT...]
#
# BUILD-DIRECTORY is the nested QEMU's.  What the test leaves behind (console,
# server and QMP logs) is in BUILD-DIRECTORY/tests/functional/, and a failure
# says so.

set -eu
top=$(cd "$(dirname "$0")/.." && pwd)
tree=$("$top/scripts/staged-tree.sh")
build=$(cd "$1" && pwd)
script=$(realpath "$2")
shift 2

export QEMU_BUILD_ROOT="$build"
export QEMU_TEST_QEMU_BINARY="$build/qemu-system-x86_64"
export QEMU_TEST_QEMU_IMG="$build/qemu-img"
export VFIO_USER_DEPS="${DEPS_DIR:-$top/build/deps}"
export PYTHONDONTWRITEBYTECODE=1
# What a test that is ended by force has said so far.
export PYTHONUNBUFFERED=1
# pycotap comes with the pyvenv; the tests' own modules lie beside the tests.
export PYTHONPATH="$tree/python:$tree/tests/functional:$top/tests/functional"

cd "$build"
status=0
"$build/pyvenv/bin/python3" "$script" "$@" || status=$?
if [ "$status" != 0 ]; then
    echo "# logs of $(basename "$script"): $build/tests/functional/" >&2
fi
exit "$status"
