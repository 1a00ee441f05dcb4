#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Small Debian systems in directories: to build and try packages in, and to
# see what the overlay needs that a machine may not have.
#
#   scripts/chroot.sh suite [SUITE]              prints the suite, by default the
#                                                machine's, or refuses it
#   scripts/chroot.sh create SUITE DIRECTORY [OPTION-OF-DEBOOTSTRAP...]
#   scripts/chroot.sh run DIRECTORY COMMAND...   in it, as root
#
# "create" gives the new system what the machine's own apt needs to fetch
# packages: mirror and key as overlay/apt.py reads them, apt's settings that
# concern fetching with the files that they name, and logins for mirrors.
# What the machine pins, and what its programs have hooked into apt, is not
# for another system.
#
# "run" enters a mount namespace and a PID namespace of its own, which the
# kernel takes down with the first process in it: whichever way the command
# ends, nothing stays mounted, and nothing of it stays running.  The directory
# becomes the root of that namespace, as chroot alone would take the right to
# make user namespaces away.  /dev is the machine's, with /dev/kvm where there
# is one; terminals and /dev/shm are new, and /tmp is the directory's.

set -eu
here=$(cd "$(dirname "$0")" && pwd)

die()
{
    echo "error: $*" >&2
    exit 1
}

suite()
{
    suite=${1:-$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)}
    case $suite in
    bookworm|trixie) echo "$suite" ;;
    *) die "the overlay is not made for '$suite': use SUITE=bookworm or trixie" ;;
    esac
}

need_root()
{
    [ "$(id -u)" = 0 ] ||
        die "a Debian in a directory needs root: run the same command as root"
}

# The machine's mirror for a suite, as lines of a sources.list.
sources()
{
    (cd "$here" && /usr/bin/python3 -B -m overlay.suite "$1")
}

# How the machine's apt fetches: proxies, certificates, retries, dates.
apt_settings()
{
    apt-config dump | grep -E '^(Acquire|APT::(Get|Sandbox))::' |
        grep -Ev '^Acquire::(cdrom|Changelogs|CompressionTypes|IndexTargets)'
}

# copy_from_machine ROOT PATH...: to the same place, if it is there
copy_from_machine()
{
    root=$1
    shift
    for path; do
        [ -e "$path" ] || continue
        mkdir -p "$root${path%/*}"
        cp -rLT --preserve=mode "$path" "$root$path"
    done
}

configure_apt()
{
    apt_settings > "$1/etc/apt/apt.conf.d/50machine" || true
    sed -n 's/^[^"]* "\(\/.*\)";$/\1/p' "$1/etc/apt/apt.conf.d/50machine" |
        while read -r path; do
            copy_from_machine "$1" "$path"
        done
    netrc=
    netrcparts=
    eval "$(apt-config shell netrc Dir::Etc::netrc/f \
        netrcparts Dir::Etc::netrcparts/d)"
    copy_from_machine "$1" "$netrc" "${netrcparts%/}"
    case $2 in
    *https://*)
        # Else the package ca-certificates would have to come first.
        copy_from_machine "$1" /etc/ssl/certs/ca-certificates.crt \
            /usr/local/share/ca-certificates ;;
    esac
    printf '%s\n' "$2" > "$1/etc/apt/sources.list"
}

# debootstrap asks wget, which does not know of apt's proxy.
export_proxy()
{
    eval "$(apt-config shell proxy Acquire::http::Proxy \
        secure Acquire::https::Proxy)"
    export http_proxy="${http_proxy:-${proxy:-}}"
    export https_proxy="${https_proxy:-${secure:-}}"
    [ -n "$http_proxy" ] || unset http_proxy
    [ -n "$https_proxy" ] || unset https_proxy
}

create()
{
    suite=$1
    dir=$2
    shift 2
    list=$(sources "$suite")
    mirror=$(printf '%s\n' "$list" | sed -n '1s/^deb [^ ]*\] //; 1s/ .*//p')
    keyring=$(printf '%s\n' "$list" | sed -n '1s/.*signed-by=\([^]]*\)\].*/\1/p')
    rm -rf "$dir.new"
    mkdir -p "$dir.new"
    echo "  making a small Debian $suite in $dir (log: $dir.log)"
    # It mounts, too.
    (export_proxy &&
        unshare --mount --propagation private debootstrap --variant=minbase \
            --keyring="$keyring" "$@" "$suite" "$dir.new" "$mirror") \
        > "$dir.log" 2>&1 || {
        tail -n 5 "$dir.log" >&2
        die "debootstrap failed (last lines above, all of it in $dir.log)"
    }
    configure_apt "$dir.new" "$list"
    # Services of installed packages are not for a directory.
    printf '#!/bin/sh\nexit 101\n' > "$dir.new/usr/sbin/policy-rc.d"
    chmod 755 "$dir.new/usr/sbin/policy-rc.d"
    (run "$dir.new" apt-get -q -o APT::Update::Error-Mode=any update) \
        >> "$dir.log" 2>&1 || {
        tail -n 5 "$dir.log" >&2
        die "the package lists of $suite cannot be fetched (last lines" \
            "above, all of it in $dir.log)"
    }
    rm -rf "$dir"
    mv "$dir.new" "$dir"
}

# Does not return: whoever ends this process ends all in the directory.  The
# shell that is process 1 there waits for whatever processes are left to it.
run()
{
    root=$(cd "$1" && pwd)
    shift
    cp -L /etc/resolv.conf /etc/hosts "$root/etc/"
    # shellcheck disable=SC2016
    exec unshare --mount --pid --fork --kill-child --propagation private \
        sh -euc '
            root=$1
            shift
            mount --bind "$root" "$root"
            mount -t proc proc "$root/proc"
            mount -t sysfs -o ro sysfs "$root/sys"
            mount --rbind /dev "$root/dev"
            mount -t devpts -o newinstance,ptmxmode=666,mode=620,gid=5 \
                devpts "$root/dev/pts"
            mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
            cd "$root"
            pivot_root . mnt
            umount -l /mnt
            exec chroot . /usr/bin/env -i HOME=/root LC_ALL=C.UTF-8 \
                PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
                TMPDIR=/tmp DEBIAN_FRONTEND=noninteractive \
                ${http_proxy:+"http_proxy=$http_proxy"} \
                ${https_proxy:+"https_proxy=$https_proxy"} \
                ${no_proxy:+"no_proxy=$no_proxy"} sh -c "
                    trap \"exit 129\" HUP
                    trap \"exit 130\" INT
                    trap \"exit 143\" TERM
                    \"\$@\"
                    exit \$?" sh "$@"
        ' sh "$root" "$@"
}

what=${1:-}
[ $# = 0 ] || shift
case $what in
suite) suite "$@" ;;
create|run)
    [ $# -ge 2 ] || die "usage: scripts/chroot.sh create SUITE DIRECTORY" \
        "[OPTION...] | run DIRECTORY COMMAND..."
    need_root
    $what "$@"
    ;;
*) die "usage: scripts/chroot.sh suite [SUITE] | create SUITE DIRECTORY" \
    "[OPTION...] | run DIRECTORY COMMAND..." ;;
esac
