#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Configures the overlay's own meson build, or configures it again when a
# test was added or removed: meson itself does not watch directories.
#
#   scripts/outer-configure.sh BUILD-DIRECTORY [meson option...]

set -eu
cd "$(dirname "$0")/.."
dir=$1
shift

die()
{
    echo "error: $*" >&2
    exit 1
}

files()
{
    printf '%s\n' "$@"
    scripts/staged-tree.sh
    find tests \( -name 'meson.build' -o -name '*test*.c' -o \
        -name 'test_*.py' -o -name '*.sh' \) | LC_ALL=C sort
}

mkdir -p "$dir"
now=$(files "$@")
if [ -f "$dir/build.ninja" ] && [ -f "$dir/overlay.tests" ] &&
    [ "$(cat "$dir/overlay.tests")" = "$now" ]; then
    exit 0
fi
again=
[ ! -f "$dir/build.ninja" ] || again=--reconfigure
# shellcheck disable=SC2086
scripts/meson setup $again "$@" "$dir" . > "$dir/overlay-meson.log" 2>&1 || {
    tail -n 15 "$dir/overlay-meson.log" >&2
    die "meson rejects the overlay's meson.build (see above, all of it in" \
        "$dir/overlay-meson.log)"
}
printf '%s\n' "$now" > "$dir/overlay.tests"
