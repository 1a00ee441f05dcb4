#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# vfio-pci with the overlay and without: tests/functional's
# test_x86_64_vfio_user_kernel.py lends devices to a QEMU in a guest, once to
# build/qemu's and once to build/pristine's.  What both saw must be the same.
#
# The outer QEMU is build/qemu's for both, so one thing differs.  Results are
# in build/check-vfio: pristine/*.txt, patched/*.txt and differences.

set -eu
cd "$(dirname "$0")/.."
top=$PWD
out=$top/build/check-vfio
test=tests/functional/test_x86_64_vfio_user_kernel.py
status=0

scripts/guest-image.sh
scripts/guest-iommufd.sh
scripts/pristine.sh
ninja -C build/pristine/qemu -j "${JOBS:-$(nproc)}" --quiet qemu-system-x86_64

rm -rf "$out"
for build in pristine patched; do
    mkdir -p "$out/$build"
    tree=$top/build/qemu
    [ $build = patched ] || tree=$top/build/pristine/qemu
    echo "  $build: $tree/qemu-system-x86_64"
    VFIO_USER_INNER_QEMU=$tree/qemu-system-x86_64 \
        VFIO_USER_TRANSCRIPT=$out/$build \
        scripts/functional-test.sh build/qemu "$test" > "$out/$build.tap" ||
        status=1
    grep -E '^(not )?ok ' "$out/$build.tap" || status=1
done

diff -ru "$out/pristine" "$out/patched" > "$out/differences" || status=1
for name in legacy iommufd; do
    [ -s "$out/patched/$name.txt" ] || {
        echo "error: there is no transcript of $name" >&2
        status=1
    }
done
if [ -s "$out/differences" ]; then
    echo "  vfio-pci differs with the overlay:"
    cat "$out/differences"
else
    lines=$(cat "$out"/patched/*.txt | wc -l)
    echo "  vfio-pci: $lines lines compared, none differs"
fi
exit "$status"
