#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Small Debian systems in directories, for building and trying packages.
#
#   scripts/deb/chroot.sh create SUITE DIRECTORY    with debootstrap
#   scripts/deb/chroot.sh run DIRECTORY COMMAND...  in it, as root
#
# "run" mounts /proc, /dev and /sys in a mount namespace of its own, which
# the kernel takes down with the last process in it: whichever way the command
# ends, nothing stays mounted, and nothing of it stays running.  Its PID
# namespace ends with it, too.
#
# Mirror and key are the machine's, read as in overlay/apt.py.

set -eu
here=$(cd "$(dirname "$0")" && pwd)

die()
{
    echo "error: $*" >&2
    exit 1
}

# The machine's mirror for a suite, as lines of a sources.list.
sources()
{
    (cd "$here/.." && /usr/bin/python3 -B -m overlay.suite "$1")
}

create()
{
    suite=$1
    dir=$2
    list=$(sources "$suite")
    mirror=$(printf '%s\n' "$list" | sed -n '1s/^deb [^ ]*\] //; 1s/ .*//p')
    keyring=$(printf '%s\n' "$list" | sed -n '1s/.*signed-by=\([^]]*\)\].*/\1/p')
    rm -rf "$dir.new"
    mkdir -p "$dir.new"
    echo "  making a small Debian $suite in $dir"
    debootstrap --variant=minbase --keyring="$keyring" "$suite" "$dir.new" \
        "$mirror" > "$dir.log" 2>&1 || {
        tail -n 5 "$dir.log" >&2
        die "debootstrap failed (last lines above, all of it in $dir.log)"
    }
    printf '%s\n' "$list" > "$dir.new/etc/apt/sources.list"
    # A proxy that the machine needs is needed there as well.
    apt-config dump | grep -i '^Acquire::.*proxy' \
        > "$dir.new/etc/apt/apt.conf.d/proxy" || true
    # Services of installed packages are not for a chroot.
    printf '#!/bin/sh\nexit 101\n' > "$dir.new/usr/sbin/policy-rc.d"
    chmod 755 "$dir.new/usr/sbin/policy-rc.d"
    (in_chroot "$dir.new" apt-get -q -o APT::Update::Error-Mode=any update) \
        >> "$dir.log" 2>&1 ||
        die "the package lists of $suite cannot be fetched: see $dir.log"
    rm -rf "$dir"
    mv "$dir.new" "$dir"
}

# Does not return: whoever ends this process ends all in the chroot.
in_chroot()
{
    root=$1
    shift
    cp -L /etc/resolv.conf "$root/etc/resolv.conf"
    # shellcheck disable=SC2016
    exec unshare --mount --pid --fork --kill-child --propagation private \
        sh -euc '
            root=$1
            shift
            mount -t proc proc "$root/proc"
            mount -t sysfs -o ro sysfs "$root/sys"
            mount --rbind /dev "$root/dev"
            exec chroot "$root" /usr/bin/env -i HOME=/root LC_ALL=C.UTF-8 \
                PATH=/usr/sbin:/usr/bin:/sbin:/bin TMPDIR=/tmp \
                DEBIAN_FRONTEND=noninteractive "$@"
        ' sh "$root" "$@"
}

[ "$(id -u)" = 0 ] || die "a chroot needs root: run the same command as root"
what=${1:-}
case $what in
create) create "$2" "$3" ;;
run)
    shift
    in_chroot "$@"
    ;;
*) die "usage: scripts/deb/chroot.sh create SUITE DIR | run DIR COMMAND..." ;;
esac
