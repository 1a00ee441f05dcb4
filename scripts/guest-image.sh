#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Makes build/guest (kernel and initrd of the test guest) unless it is newer
# than all it is made from.

set -eu
cd "$(dirname "$0")/.."
deps=${DEPS_DIR:-build/deps}
out=build/guest

newer=$(find scripts/guest tests/server/engine.h "$deps/linux/version" \
        -newer "$out/initrd" 2>/dev/null | head -n 1 || true)
if [ -f "$out/initrd" ] && [ -f "$out/vmlinux" ] && [ -z "$newer" ]; then
    exit 0
fi
[ -d "$deps/linux" ] || scripts/setup.sh fetch kernel
echo "  making the guest's initrd for Linux $(cat "$deps/linux/version")"
mkdir -p "$out"
/usr/bin/python3 -B scripts/guest/build-initramfs "$deps/linux" "$out"
