#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Runs QEMU's own configure on the staged tree.
#
#   scripts/qemu-configure.sh BUILD-DIRECTORY [option of QEMU's configure...]
#
# Does nothing when the same source was configured there with the same
# options.  A build directory of another source is emptied first.
#
# QEMU_TREE names another tree than the staged one: overlay.pristine's.

set -eu
top=$(cd "$(dirname "$0")/.." && pwd)
tree=${QEMU_TREE:-$("$top/scripts/staged-tree.sh")}
deps=${DEPS_DIR:-$top/build/deps}
python=${PYTHON:-/usr/bin/python3}
# Where Debian's packages put what --disable-install-blobs leaves out.
firmware=/usr/share/qemu:/usr/share/seabios:/usr/lib/ipxe/qemu

die()
{
    echo "error: $*" >&2
    exit 1
}

[ $# -ge 1 ] || die "usage: scripts/qemu-configure.sh DIRECTORY [OPTION...]"
dir=$1
shift
[ -f "$tree/.overlay/state.json" ] ||
    die "$tree is not staged: run ./configure"

stage()
{
    (cd "$top/scripts" && "$python" -B -m overlay.stage "$@")
}

[ -n "${QEMU_TREE:-}" ] || stage --refresh

# An unpacked meson and pycotap come in by path, not by installation.
meson_path()
{
    if [ -d "$deps/python/mesonbuild" ] || [ -d "$deps/python/pycotap" ]; then
        echo "$deps/python"
    fi
}

source_id()
{
    sed -n 's/^ *"source": "\(.*\)",*$/\1/p; s/^ *"version": //p' \
        "$tree/.overlay/state.json"
}

# The firmware path is looked up below qemu-bundle when qemu-system-x86_64
# runs from the build directory, so the directories have to appear there.
link_firmware()
{
    for d in $(echo "$firmware" | tr : ' '); do
        mkdir -p "$dir/qemu-bundle$(dirname "$d")"
        ln -sfn "$d" "$dir/qemu-bundle$d"
    done
}

# ninja runs meson again when a meson.build changes, without our environment.
remember_path()
{
    for site in "$dir"/pyvenv/lib/python3*/site-packages; do
        meson_path > "$site/overlay.pth"
    done
}

# gcc 14 warns about two swapped arguments in libvfio-user, harmlessly; meson
# takes no warning option for one subproject.
warnings()
{
    if ${CC:-cc} -Werror -Wcalloc-transposed-args -x c -c /dev/null \
            -o /dev/null 2>/dev/null; then
        echo --extra-cflags=-Wno-calloc-transposed-args
    fi
}

# What the tree's series has no more, or not yet, is listed beside its hooks.
options()
{
    series=$(cut -d. -f1,2 "$tree/VERSION")
    without=$top/subprojects/packagefiles/qemu-$series/without-options
    [ -f "$without" ] || without=/dev/null
    sed 's/#.*//' "$top/scripts/qemu-options.conf" | grep -vxFf "$without"
}

# shellcheck disable=SC2046
set -- --python="$python" --firmwarepath="$firmware" \
    -Dlibvfio-user:default_library=static \
    $(warnings; options) "$@"
stamp=$(source_id; printf '%s\n' "$@"; "$python" --version)
if [ -f "$dir/overlay.stamp" ] && [ -f "$dir/build.ninja" ] &&
    [ "$(cat "$dir/overlay.stamp")" = "$stamp" ]; then
    exit 0
fi
if [ -f "$dir/overlay.source" ] &&
    [ "$(cat "$dir/overlay.source")" != "$(source_id)" ]; then
    echo "  emptying $dir, which was built from another source"
    rm -rf "$dir"
fi
mkdir -p "$dir"
rm -f "$dir/overlay.stamp"
source_id > "$dir/overlay.source"

echo "  configuring QEMU in $dir (log: $dir/overlay-configure.log)"
path=$(meson_path)
export PYTHONPATH="$path${PYTHONPATH:+:$PYTHONPATH}"
if ! (cd "$dir" && "$tree/configure" "$@") > "$dir/overlay-configure.log" 2>&1
then
    tail -n 15 "$dir/overlay-configure.log" >&2
    die "QEMU's configure failed (last lines above, all of it in" \
        "$dir/overlay-configure.log): repair what it names and run the" \
        "same command again"
fi
remember_path
link_firmware
stage --state links > "$dir/overlay.links"
printf '%s\n' "$stamp" > "$dir/overlay.stamp"
