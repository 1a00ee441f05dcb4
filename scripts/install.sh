#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Installs QEMU with the device beside a distribution's QEMU: no name that
# one of its packages has is used, and none of its programs is hidden.
#
#   scripts/install.sh NESTED-BUILD DESTDIR PREFIX
#
#   PREFIX/bin/qemu-system-x86_64-vfio-user    link to the program
#   PREFIX/lib/qemu-vfio-user/                 program, tools, helper, keymaps
#   PREFIX/share/doc/qemu-vfio-user/           README.md and our pages
#   PREFIX/share/man/man7/qemu-vfio-user.7     the user's page; in man1, too
#   .../wireshark/plugins/vfio-user.lua        the dissector, where a
#                                              Wireshark in PREFIX looks
#
# QEMU finds its files relative to its program, so PREFIX may differ from the
# one that configure was called with; empty means that one.  Firmware is the
# distribution's.  SPHINX_BUILD names another sphinx-build.

set -eu
top=$(cd "$(dirname "$0")/.." && pwd)
build=$(cd "$1" && pwd)
dest=$2
wanted=$3
name=qemu-vfio-user

die()
{
    echo "error: $*" >&2
    exit 1
}

# The value of one of QEMU's meson options.
option()
{
    "$build/pyvenv/bin/meson" introspect --buildoptions "$build" |
        /usr/bin/python3 -c 'import json, sys
print(next(o["value"] for o in json.load(sys.stdin)
           if o["name"] == sys.argv[1]))' "$1"
}

configured=$(option prefix)
prefix=${wanted:-$configured}
case $prefix in
*/lib/$name) prefix=${prefix%/lib/"$name"} ;;
/*) ;;
*) die "PREFIX=$wanted is no absolute path: give one" ;;
esac
own=$dest$prefix/lib/$name

# What lies below the configured prefix is looked for beside the program.
case :$(option qemu_firmwarepath): in
*:"${configured%/}"/*)
    die "QEMU was configured with --prefix=$configured, where the" \
        "distribution's firmware is, and would not find it from elsewhere:" \
        "configure with another prefix, and give make install this one as" \
        "PREFIX=$configured" ;;
esac

# Of all that QEMU installs, what ours runs with.
install_qemu()
{
    scratch=$build/overlay-install
    rm -rf "$scratch"
    DESTDIR=$scratch "$build/pyvenv/bin/meson" install -C "$build" \
        --no-rebuild --quiet --skip-subprojects
    rm -rf "$own"
    for part in bin libexec share/qemu; do
        [ -e "$scratch$configured/$part" ] || continue
        mkdir -p "$own/$(dirname $part)"
        cp -a "$scratch$configured/$part" "$own/$part"
    done
    rm -rf "$scratch"
    mkdir -p "$dest$prefix/bin"
    ln -sfn ../lib/$name/bin/qemu-system-x86_64 \
        "$dest$prefix/bin/qemu-system-x86_64-vfio-user"
}

install_pages()
{
    doc=$dest$prefix/share/doc/$name
    mkdir -p "$doc"
    install -m 644 "$top/README.md" "$top/COPYING" "$doc/"
    for page in system/devices interop devel; do
        install -m 644 "$top/docs/$page/vfio-user.rst" "$doc/${page%%/*}.rst"
    done
    for part in "$top"/docs/system/devices/vfio-user*.inc; do
        [ ! -f "$part" ] || install -m 644 "$part" "$doc/"
    done
}

install_man()
{
    man=$dest$prefix/share/man
    mkdir -p "$man/man1" "$man/man7"
    "$top/scripts/man.sh" "$man/man7" || [ $? = 77 ] || exit 1
    [ -f "$man/man7/qemu-vfio-user.7" ] || return 0
    echo '.so man7/qemu-vfio-user.7' > "$man/man1/qemu-system-x86_64-vfio-user.1"
}

# A distribution's Wireshark has its own in /usr/lib/TRIPLET.
install_dissector()
{
    where=$dest$prefix/lib
    triplet=$(${CC:-cc} -print-multiarch 2>/dev/null || true)
    [ "$prefix" != /usr ] || where=$where${triplet:+/$triplet}
    mkdir -p "$where/wireshark/plugins"
    install -m 644 "$top/scripts/wireshark/vfio-user.lua" \
        "$where/wireshark/plugins/"
}

install_qemu
install_pages
install_man
install_dissector
echo "  installed in $dest$prefix: bin/qemu-system-x86_64-vfio-user," \
    "what it needs in lib/$name, pages in share/doc/$name"
