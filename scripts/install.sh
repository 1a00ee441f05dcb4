#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Installs QEMU with the device, its tools and our pages; not the headers of
# libvfio-user, which is linked into QEMU.
#
#   scripts/install.sh NESTED-BUILD DESTDIR PREFIX
#
# PREFIX must be the one that configure was called with, as QEMU has it
# compiled in; empty means just that.

set -eu
top=$(cd "$(dirname "$0")/.." && pwd)
build=$(cd "$1" && pwd)
dest=$2
wanted=$3

prefix=$("$build/pyvenv/bin/meson" introspect --buildoptions "$build" |
    /usr/bin/python3 -c 'import json, sys
print(next(o["value"] for o in json.load(sys.stdin) if o["name"] == "prefix"))')
if [ -n "$wanted" ] && [ "$wanted" != "$prefix" ]; then
    echo "error: QEMU is configured for $prefix: run" \
        "./configure --prefix=$wanted, then make install" >&2
    exit 1
fi

DESTDIR=$dest "$build/pyvenv/bin/meson" install -C "$build" --no-rebuild \
    --quiet --skip-subprojects
doc=$dest$prefix/share/doc/qemu-vfio-user
mkdir -p "$doc"
install -m 644 "$top/README.md" "$top/COPYING" "$doc/"
for page in system/devices interop devel; do
    [ ! -f "$top/docs/$page/vfio-user.rst" ] ||
        install -m 644 "$top/docs/$page/vfio-user.rst" \
            "$doc/$(basename "$page").rst"
done
echo "  installed in $dest$prefix: bin/qemu-system-x86_64 and tools;" \
    "pages in share/doc/qemu-vfio-user"
