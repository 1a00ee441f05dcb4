#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Brings the staged tree up to date and builds the nested QEMU.
#
#   scripts/qemu-build.sh BUILD-DIRECTORY [all|install|tests|unit|fuzz]
#
# QEMU's "all" holds some two thousand steps for its own tests.  Built here
# is what it would install, the servers used by tests, and our tests.

set -eu
top=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-/usr/bin/python3}

die()
{
    echo "error: $*" >&2
    exit 1
}

[ $# -ge 1 ] || die "usage: scripts/qemu-build.sh DIRECTORY" \
    "[all|install|tests|unit|fuzz]"
dir=$(cd "$1" && pwd)
scope=${2:-all}
[ -f "$dir/overlay.stamp" ] || die "$dir is not configured: run ./configure"

stage()
{
    (cd "$top/scripts" && "$python" -B -m overlay.stage "$@")
}

stage --refresh

# First the build file itself: a changed meson.build may bring new targets,
# and so may a new file that a meson.build looks for.
links=$(stage --state links)
regenerate=build.ninja
if [ "$(cat "$dir/overlay.links" 2>/dev/null)" != "$links" ]; then
    regenerate=reconfigure
    echo "  configuring QEMU again, as files came or went"
fi
ninja -C "$dir" --quiet "$regenerate" > "$dir/overlay-regenerate.log" 2>&1 || {
    tail -n 20 "$dir/overlay-regenerate.log" >&2
    die "meson rejects the tree (see above, all of it in" \
        "$dir/overlay-regenerate.log)"
}
printf '%s\n' "$links" > "$dir/overlay.links"
targets=$("$python" -B "$top/scripts/overlay/targets.py" "$dir" "$scope")
# shellcheck disable=SC2086
exec ninja -C "$dir" -j "${JOBS:-$(nproc)}" $targets
