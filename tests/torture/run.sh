#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Runs the torture with the Python of QEMU's build.
#
#   tests/torture/run.sh BUILD-DIRECTORY [ARGUMENT of torture.py...]
#
# TORTURE_MINUTES and TORTURE_SEED are taken from the environment.

set -eu
top=$(cd "$(dirname "$0")/../.." && pwd)
build=$(cd "$1" && pwd)
shift

export PYTHONDONTWRITEBYTECODE=1
export PYTHONPATH="$top/tests/functional"
if [ -n "${TORTURE_SEED:-}" ]; then
    set -- --seed "$TORTURE_SEED" "$@"
fi
if [ -n "${TORTURE_MINUTES:-}" ]; then
    set -- --minutes "$TORTURE_MINUTES" "$@"
fi
exec "$build/qemu/pyvenv/bin/python3" "$top/tests/torture/torture.py" \
    --build "$build" "$@"
