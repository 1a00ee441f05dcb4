#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# For make: configures unless that is done, as configure was last called, or
# without options if it never was.
#
#   scripts/configured.sh BUILD-DIRECTORY

set -eu
cd "$(dirname "$0")/.."

stale()
{
    [ -f "$1/overlay.tests" ] && [ -f "$1/qemu/overlay.stamp" ] &&
        [ -f "$(scripts/staged-tree.sh)/.overlay/state.json" ] || return 0
    [ -n "$(find configure scripts/qemu-options.conf \
            scripts/qemu-configure.sh scripts/deps.conf \
            -newer "$1/config.done" 2>/dev/null || echo none)" ]
}

if stale "$1"; then
    if [ -f "$1/config.status" ]; then
        sh "$1/config.status"
    else
        ./configure
    fi
fi
exec scripts/outer-configure.sh "$1"
