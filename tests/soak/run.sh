#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Runs the soak with the Python of QEMU's build and QEMU's own modules.
#
#   tests/soak/run.sh BUILD-DIRECTORY [ARGUMENT of soak.py...]
#
# SOAK_HOURS or SOAK_MINUTES, and SOAK_SEED, are taken from the environment.

set -eu
top=$(cd "$(dirname "$0")/../.." && pwd)
build=$(cd "$1" && pwd)
shift

export PYTHONDONTWRITEBYTECODE=1
tree=$("$top/scripts/staged-tree.sh")
export PYTHONPATH="$tree/python:$top/tests/functional"
if [ -n "${SOAK_SEED:-}" ]; then
    set -- --seed "$SOAK_SEED" "$@"
fi
if [ -n "${SOAK_MINUTES:-}" ]; then
    set -- --minutes "$SOAK_MINUTES" "$@"
elif [ -n "${SOAK_HOURS:-}" ]; then
    set -- --hours "$SOAK_HOURS" "$@"
fi
exec "$build/qemu/pyvenv/bin/python3" "$top/tests/soak/soak.py" \
    --build "$build" "$@"
