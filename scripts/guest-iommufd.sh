#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Makes build/guest-iommufd/vmlinux: Debian's kernel source, configured by
# scripts/guest/iommufd.config.  Debian's own kernel has CONFIG_IOMMUFD off.
# The guest's initrd is used with it as it is.

set -eu
cd "$(dirname "$0")/.."
top=$PWD
deps=${DEPS_DIR:-$top/build/deps}
out=$top/build/guest-iommufd
config=$top/scripts/guest/iommufd.config

die()
{
    echo "error: $*" >&2
    exit 1
}

scripts/setup.sh install build iommufd
scripts/setup.sh fetch kernelsource
if [ -f "$out/vmlinux" ] &&
    [ -z "$(find "$config" "$deps/linux-source/Makefile" \
            -newer "$out/vmlinux")" ]; then
    exit 0
fi

run()
{
    make -s -C "$deps/linux-source" O="$out/build" "$@" > "$out/log" 2>&1 || {
        tail -n 15 "$out/log" >&2
        die "the kernel's make failed (last lines above, all of it in" \
            "$out/log)"
    }
}

echo "  compiling a kernel with iommufd in $out/build"
mkdir -p "$out/build"
run KCONFIG_ALLCONFIG="$config" allnoconfig
# Kconfig drops silently what depends on something that is not there.
# shellcheck disable=SC2013
for line in $(grep '=y$' "$config"); do
    grep -qx "$line" "$out/build/.config" ||
        die "$line of $config is not in $out/build/.config: this kernel" \
            "wants something else with it"
done
run -j "${JOBS:-$(nproc)}" vmlinux
cp "$out/build/vmlinux" "$out/vmlinux.new"
touch "$out/vmlinux.new"
mv "$out/vmlinux.new" "$out/vmlinux"
