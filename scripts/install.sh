#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Installs QEMU with the device, its tools and our pages; not the headers of
# libvfio-user, which is linked into QEMU.
#
#   scripts/install.sh NESTED-BUILD DESTDIR PREFIX
#
# PREFIX may differ from the one that configure was called with: QEMU finds
# its files relative to its program.  Empty means that one.

set -eu
top=$(cd "$(dirname "$0")/.." && pwd)
build=$(cd "$1" && pwd)
dest=$2
wanted=$3

prefix=$("$build/pyvenv/bin/meson" introspect --buildoptions "$build" |
    /usr/bin/python3 -c 'import json, sys
print(next(o["value"] for o in json.load(sys.stdin) if o["name"] == "prefix"))')
to=$dest${wanted:-$prefix}
case $to in
/*) ;;
*) echo "error: PREFIX=$wanted is no absolute path: give one" >&2; exit 1 ;;
esac

scratch=$build/overlay-install
rm -rf "$scratch"
DESTDIR=$scratch "$build/pyvenv/bin/meson" install -C "$build" --no-rebuild \
    --quiet --skip-subprojects
mkdir -p "$to/share/doc/qemu-vfio-user"
cp -a "$scratch$prefix/." "$to/"
rm -rf "$scratch"

cd "$top"
install -m 644 README.md COPYING "$to/share/doc/qemu-vfio-user/"
for page in system/devices interop devel; do
    install -m 644 "docs/$page/vfio-user.rst" \
        "$to/share/doc/qemu-vfio-user/${page%%/*}.rst"
done
echo "  installed in $to: bin/qemu-system-x86_64 and tools;" \
    "pages in share/doc/qemu-vfio-user"
