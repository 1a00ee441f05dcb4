#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Builds, and runs tests with a closing line that counts them.
#
#   scripts/check.sh build BUILD-DIRECTORY
#   scripts/check.sh test BUILD-DIRECTORY [meson test option...]

set -eu
cd "$(dirname "$0")/.."
what=$1
dir=$2
shift 2

ninja -C "$dir" -j "${JOBS:-$(nproc)}" --quiet || {
    echo "error: the build failed; the first error is above" >&2
    exit 1
}
[ "$what" = test ] || exit 0

# A log of an earlier run must not be counted if this one does not start.
summary=$dir/test-summary.txt
rm -f "$dir/meson-logs/testlog.json" "$summary"
status=0
scripts/meson test -C "$dir" --no-rebuild --print-errorlogs "$@" || status=$?
/usr/bin/python3 -B scripts/test-summary.py \
    "$dir/meson-logs/testlog.json" > "$summary" || status=1
cat "$summary"
exit "$status"
