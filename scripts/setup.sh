#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Brings the machine to what scripts/deps.conf lists.
#
#   scripts/setup.sh install KIND...  packages: installs what is missing as
#                                     root, else names the command and fails
#   scripts/setup.sh check KIND...    packages: never installs
#   scripts/setup.sh fetch KIND...    what is unpacked below build/deps
#
# With nothing missing it does nothing, and needs no network.

set -eu
top=$(cd "$(dirname "$0")/.." && pwd)
list=$top/scripts/deps.conf

die()
{
    echo "error: $*" >&2
    exit 1
}

# Packages of the given kinds that are not installed.
missing()
{
    kinds=$(echo "$*" | tr ' ' '|')
    wanted=$(sed 's/#.*//' "$list" |
             awk -v k="^($kinds)\$" '$1 ~ k { $1 = ""; print }')
    # shellcheck disable=SC2086
    dpkg-query -W -f '${db:Status-Abbrev} ${Package}\n' $wanted 2>/dev/null |
        awk -v want="$wanted" '
            /^.i/ { have[$2] = 1 }
            END { n = split(want, w, /[ \n]+/)
                  for (i = 1; i <= n; i++)
                      if (w[i] != "" && !(w[i] in have)) printf "%s ", w[i] }'
}

install_packages()
{
    command -v dpkg-query >/dev/null || {
        [ "$mode" = check ] && return 0
        die "this is not a Debian machine: install the equivalents of the" \
            "packages in scripts/deps.conf, then run ./configure" \
            "--qemu-source=TREE and make"
    }
    need=$(missing "$@" | sed 's/ $//')
    [ -n "$need" ] || return 0
    if [ "$mode" = check ] || [ "$(id -u)" != 0 ]; then
        die "packages are missing; as root run:" \
            "apt-get update && apt-get install -y --no-install-recommends" \
            "$need"
    fi
    echo "  installing $need"
    export DEBIAN_FRONTEND=noninteractive
    apt-get -q -o APT::Update::Error-Mode=any update </dev/null ||
        die "the machine's package lists cannot be fetched: look at the" \
            "network and at /etc/apt, then run the same command again"
    # shellcheck disable=SC2086
    apt-get -q install -y --no-install-recommends $need </dev/null ||
        die "apt-get could not install $need: its words are above"
}

mode=${1:-}
[ $# -ge 2 ] || die "usage: scripts/setup.sh install|check|fetch KIND..."
shift
case $mode in
install|check)
    install_packages "$@"
    ;;
fetch)
    cd "$top/scripts"
    exec /usr/bin/python3 -B -m overlay.fetch \
        "${DEPS_DIR:-$top/build/deps}" "$@"
    ;;
*)
    die "unknown mode '$mode'; use install, check or fetch"
    ;;
esac
