#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# The user's page as qemu-vfio-user(7), made by Sphinx without QEMU's manual
# around it.  Ends with status 77, and says why, where there is no Sphinx.
#
#   scripts/man.sh DIRECTORY
#
# The date in it is SOURCE_DATE_EPOCH's, or that of the page.

set -eu
top=$(cd "$(dirname "$0")/.." && pwd)
sphinx=${SPHINX_BUILD:-sphinx-build}
page=$top/docs/system/devices/vfio-user.rst

command -v "$sphinx" >/dev/null || {
    echo "  no manual page: $sphinx is missing (Debian: python3-sphinx)" >&2
    exit 77
}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/in"

# The program's name is what install.sh gives it.  The other pages are there
# for references only.
sed 's/qemu-system-x86_64 /qemu-system-x86_64-vfio-user /' "$page" \
    > "$work/in/user.rst"
for part in "$top"/docs/system/devices/vfio-user*.inc; do
    [ ! -f "$part" ] || cp "$part" "$work/in/"
done
cp "$top/docs/interop/vfio-user.rst" "$work/in/protocol.rst"
cp "$top/docs/devel/vfio-user.rst" "$work/in/internals.rst"
printf '%s\n' '.. toctree::' '' '   user' '   protocol' '   internals' \
    > "$work/in/index.rst"
cat > "$work/in/conf.py" <<EOF
project = 'QEMU with vfio-user-pci'
extensions = []
smartquotes = False
suppress_warnings = ['misc.highlighting_failure']
highlight_language = 'none'
today = '$(date -u -d "@${SOURCE_DATE_EPOCH:-$(stat -c %Y "$page")}" +%F)'
man_pages = [('user', 'qemu-vfio-user',
              'PCI devices of QEMU that another process implements', [], 7)]
EOF
"$sphinx" -q -b man -d "$work/trees" "$work/in" "$work/out" 2> "$work/log" || {
    cat "$work/log" >&2
    exit 1
}
grep -v 'Pygments lexer name' "$work/log" >&2 || true
install -m 644 "$work/out/qemu-vfio-user.7" "$1/"
