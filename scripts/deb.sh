#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Builds a Debian package of QEMU with the device, to be installed beside the
# distribution's QEMU, and tries it.
#
#   scripts/deb.sh build [SUITE]   build/deb/SUITE/qemu-vfio-user_*.deb
#   scripts/deb.sh check [SUITE]   installs that in a small, fresh Debian,
#                                  where scripts/deb/check.sh uses it
#
# SUITE is bookworm or trixie, by default the machine's own.  A package has to
# be built with the libraries of its suite: the machine's own is built on the
# machine, another in a chroot.  In both cases the overlay as it is in the
# working tree is copied, and what scripts/deb/debian says is done to the copy.
# Its version is QEMU's and the last commit's, all dates are that commit's.

set -eu
top=$(cd "$(dirname "$0")/.." && pwd)
cd "$top"
deps=${DEPS_DIR:-$top/build/deps}

die()
{
    echo "error: $*" >&2
    exit 1
}

[ $# -ge 1 ] || die "usage: scripts/deb.sh build|check [SUITE]"
what=$1
chroot=$top/scripts/chroot.sh
suite=$("$chroot" suite "${2:-}")
case $suite in
bookworm) release=deb12 ;;
trixie) release=deb13 ;;
esac
own=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
out=$top/build/deb/$suite

files()
{
    git ls-files --cached --others --exclude-standard -z
}

# 10.0.13+vfiouser0.71.gaf7b890~deb13: grows with each commit, and from one
# release of Debian to the next.
version()
{
    dsc=$(cat "$deps"/source/*.dsc)
    qemu=$(printf '%s\n' "$dsc" |
        sed -n 's/^Version: \([0-9]*:\)\{0,1\}\([0-9.]*\).*/\2/p')
    mine=$(git describe --match 'v[0-9]*' 2>/dev/null | sed 's/^v//' ||
        true)
    : "${mine:=0.$(git rev-list --count HEAD).g$(git rev-parse --short HEAD)}"
    [ -z "$(git status --porcelain)" ] || mine=$mine.changed
    echo "$qemu+vfiouser$(echo "$mine" | tr - .)~$release"
}

changelog()
{
    printf 'qemu-vfio-user (%s) %s; urgency=medium\n\n' "$1" "$suite"
    printf '  * %s.\n\n' "$(git log -1 --format=%s)"
    git log -1 --format=' -- %cn <%ce>  %cD'
}

# The packages of deps.conf, each ending in a comma.
build_depends()
{
    sed 's/#.*//' scripts/deps.conf |
        awk '$1 == "build" { for (i = 2; i <= NF; i++) print " " $i "," }'
}

# A copy of the overlay with debian/ at its top and all that it fetches.
assemble()
{
    rm -rf "$out/work"
    mkdir -p "$out/work/src/build/deps"
    files | tar -c --null -T - --ignore-failed-read | tar -x -C "$out/work/src"
    cp -a "$deps/source" "$out/work/src/build/deps/"
    [ ! -d "$deps/python" ] || cp -a "$deps/python" "$out/work/src/build/deps/"
    cp -a scripts/deb/debian "$out/work/src/debian"
    changelog "$1" > "$out/work/src/debian/changelog"
    build_depends > "$out/depends"
    sed -i -e "s/@MAINTAINER@/$(git log -1 --format='%cn <%ce>')/" \
        -e "/@BUILD_DEPENDS@/{r $out/depends
            d}" "$out/work/src/debian/control"
    # What is younger than that, dpkg gives that date itself.
    find "$out/work/src/debian" -exec \
        touch -d "@$(git log -1 --format=%ct)" {} +
}

# For a shell in the directory with debian/.
# shellcheck disable=SC2016
compile='DEB_BUILD_OPTIONS="noautodbgsym${DEB_BUILD_OPTIONS:+ $DEB_BUILD_OPTIONS}" \
    exec dpkg-buildpackage --build=binary --unsigned-changes --no-sign'

# The small Debian that building and trying begin with; kept for a week.
base()
{
    if [ ! -d "$out/base" ] || [ -n "$(find "$out/base.log" -mtime +6)" ]; then
        "$chroot" create "$suite" "$out/base"
    fi
}

# A copy of it with some packages.
fresh()
{
    base
    rm -rf "${out:?}/$1"
    cp -a --reflink=auto "$out/base" "$out/$1"
}

# Both end with the status of their one command, as "set -e" does not hold in
# them; both leave what was built in $built.
build_here()
{
    built=$out/work
    (cd "$built/src" && sh -c "$compile")
}

build_in_chroot()
{
    built=$out/root/build
    mv "$out/work" "$built" &&
        "$chroot" run "$out/root" sh -euc '
            cd /build/src
            apt-get -q -y --no-install-recommends build-dep . </dev/null
            JOBS='"${JOBS:-$(nproc)} $compile"
}

build()
{
    scripts/setup.sh install deb chroot
    scripts/setup.sh fetch source python
    version=$(version)
    stamp=$(echo "$version"; files | xargs -0 sha256sum 2>/dev/null |
        sha256sum)
    deb=$out/qemu-vfio-user_${version}_amd64.deb
    if [ ! -f "$deb" ] || [ "$(cat "$out/stamp" 2>/dev/null)" != "$stamp" ]
    then
        mkdir -p "$out"
        rm -f "$out"/qemu-vfio-user_* "$out/stamp"
        assemble "$version"
        echo "  building the package in $out (log: $out/build.log)"
        if [ "$suite" = "$own" ]; then
            scripts/setup.sh install build
            set -- build_here
        else
            fresh root
            set -- build_in_chroot
        fi
        "$@" > "$out/build.log" 2>&1 || {
            tail -n 20 "$out/build.log" >&2
            die "the package was not built (last lines above, all of it in" \
                "$out/build.log)"
        }
        mv "$built"/qemu-vfio-user_* "$out/"
        rm -rf "$out/work" "$out/root"
        printf '%s\n' "$stamp" > "$out/stamp"
    fi
    lintian --suppress-tags-from-file scripts/deb/lintian-tags "$deb"
    echo "  $deb"
}

check()
{
    build
    scripts/guest-image.sh
    fresh check
    mkdir -p "$out/check/try/build/qemu" "$out/check/try/scripts" \
        "$out/check/try/tests"
    cp "$deb" scripts/deb/check.sh "$out/check/try/"
    cp scripts/demo.py "$out/check/try/scripts/"
    cp -r tests/functional "$out/check/try/tests/"
    cp -rL build/guest "$out/check/try/build/"
    "$chroot" run "$out/check" sh -eu /try/check.sh "/try/$(basename "$deb")"
    rm -rf "$out/check"
}

case $what in
build|check) $what ;;
*) die "unknown command '$what'; use build or check" ;;
esac
