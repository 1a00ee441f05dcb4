#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Runs in a fresh Debian: installs the package beside the distribution's QEMU,
# and has a guest use a device of another process.  scripts/deb.sh has put
# the demo below /try.
#
#   check.sh PACKAGE

set -eu
deb=$1
program=qemu-system-x86_64-vfio-user
passed=0

ok()
{
    passed=$((passed + 1))
    echo "  ok: $*"
}

die()
{
    echo "error: $*" >&2
    exit 1
}

install_quietly()
{
    apt-get -q -y --no-install-recommends install "$@" </dev/null \
        > /try/apt.log 2>&1 || {
        tail -n 20 /try/apt.log >&2
        die "apt-get install $* failed (see above)"
    }
}

has_device()
{
    "$1" -machine none -device help 2>/dev/null | grep -q '"vfio-user-pci"'
}

# Alone first: its dependencies have to be enough.
install_quietly "$deb"
has_device $program || die "$program has no vfio-user-pci"
ok "installs and runs without the distribution's QEMU"

install_quietly qemu-system-x86 qemu-utils
dpkg --verify qemu-vfio-user qemu-system-x86 qemu-system-data \
    qemu-system-common | grep . && die "files of these packages changed"
dpkg -L qemu-vfio-user | while read -r path; do
    [ -d "$path" ] || [ "$(dpkg -S "$path")" = "qemu-vfio-user: $path" ] ||
        die "$path belongs to another package, too"
done
ok "shares no file with the distribution's QEMU"

[ "$(command -v qemu-system-x86_64)" = /usr/bin/qemu-system-x86_64 ]
case $(dpkg -S /usr/bin/qemu-system-x86_64) in
qemu-system-x86*) ok "qemu-system-x86_64 is still the distribution's" ;;
*) die "/usr/bin/qemu-system-x86_64 is not the distribution's" ;;
esac

for path in /usr/share/man/man7/qemu-vfio-user.7.gz \
    /usr/share/man/man1/$program.1.gz \
    /usr/share/doc/qemu-vfio-user/system.rst*; do
    [ -s "$path" ] || die "$path is missing"
done
ok "has manual pages and documentation"

install_quietly tshark
tshark -G protocols 2>/dev/null | cut -f3 | grep -qx vfio_user ||
    die "tshark does not find the dissector"
ok "has a dissector that tshark finds"

# Data of its own, firmware of others.
for path in /usr/lib/qemu-vfio-user/share/qemu /usr/share/seabios; do
    [ -n "$(ls "$path")" ] || die "$path is empty"
    $program -L help | xargs realpath -m | grep -qx "$path" ||
        die "$program does not look in $path"
done
ok "finds its data"

install_quietly python3
ln -sf /usr/bin/$program /try/build/qemu/qemu-system-x86_64
/try/scripts/demo.py > /try/demo.log 2>&1 || {
    cat /try/demo.log >&2
    die "the demo failed"
}
grep -E '^(client|guest|Done)' /try/demo.log
ok "a guest uses an NVMe controller of another process"

apt-get -q -y purge qemu-vfio-user > /try/apt.log 2>&1
for path in /usr/bin/$program /usr/lib/qemu-vfio-user \
    /usr/share/doc/qemu-vfio-user; do
    [ ! -e "$path" ] || die "$path is left after purging the package"
done
qemu-system-x86_64 --version > /dev/null
ok "leaves nothing when it is purged"
echo "$passed passed, 0 failed"
