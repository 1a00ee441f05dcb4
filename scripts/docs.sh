#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# QEMU's documentation with our pages in it, as HTML: a build of its own in
# build/docs, so that the one in build/qemu needs no Sphinx.

set -eu
cd "$(dirname "$0")/.."
top=$PWD
dir=$top/build/docs/qemu

mkdir -p build/docs
scripts/qemu-configure.sh "$dir" --enable-docs
echo "  building the documentation (a few minutes at first)"
ninja -C "$dir" --quiet docs/docs.stamp
for page in system/devices interop devel; do
    echo "  $dir/docs/manual/$page/vfio-user.html"
done
