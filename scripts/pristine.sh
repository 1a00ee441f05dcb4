#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Configures build/pristine/qemu: the same QEMU without the overlay, with the
# options of build/qemu.  What to build in it is the caller's affair.

set -eu
cd "$(dirname "$0")/.."
top=$PWD

(cd scripts && /usr/bin/python3 -B -m overlay.pristine ../build/pristine/source)
# What configure was called with; words are quoted there.
eval "set -- $(sed -n 's/^exec \.\/configure .* --//p' build/config.status)"
QEMU_TREE="$top/build/pristine/source" \
    scripts/qemu-configure.sh "$top/build/pristine/qemu" "$@"
