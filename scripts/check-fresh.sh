#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# The README's two commands on a machine that has nothing: makes a minimal
# Debian with git and make, clones the committed HEAD into it, and runs there
# as root "make demo" and "make check".  What a command uses and deps.conf does
# not list is missing there, however much this machine has.
#
#   scripts/check-fresh.sh [SUITE]     bookworm or trixie; default: the machine's
#
# In build/fresh/SUITE:
#
#   root/       the Debian as the last run left it, the clone in root/srv;
#               "scripts/chroot.sh run DIRECTORY bash" enters it
#   archives/   packages that were downloaded, kept for the next run; what
#               setup.sh fetches (QEMU's source, a kernel) comes anew
#   *.log       root.log: debootstrap; demo.log, check.log: the two commands
#
# Fails if a command fails, and also if a test was skipped because a package
# is not installed: who skips says "install PACKAGE".

set -eu
top=$(cd "$(dirname "$0")/.." && pwd)
cd "$top"
chroot=$top/scripts/chroot.sh
clone=srv/vfio-user-pci

die()
{
    echo "error: $*" >&2
    exit 1
}

suite=$("$chroot" suite "${1:-}")
[ "$(id -u)" = 0 ] ||
    die "make check-fresh installs packages in a Debian of its own, which" \
        "needs root: run the same command as root"
out=$top/build/fresh/$suite
root=$out/root

# What apt has downloaded there is not downloaded again.
keep_archives()
{
    mkdir -p "$out/archives"
    find "$root/var/cache/apt/archives" -maxdepth 1 -name '*.deb' \
        -exec mv -t "$out/archives" {} + 2>/dev/null || true
}

make_debian()
{
    keep_archives
    rm -rf "$root"
    "$chroot" create "$suite" "$root" --include=git,make \
        --cache-dir="$out/archives"
    cp -alf "$out/archives/." "$root/var/cache/apt/archives/"
}

make_clone()
{
    changed=$(git status --porcelain | wc -l)
    echo "  cloning $(git log -1 --format='%h, %s')"
    [ "$changed" = 0 ] ||
        echo "  (without the changes to $changed files that are not committed)"
    git clone -q --no-hardlinks "$top" "$root/$clone"
}

# In a shell as it is after logging in, without a terminal.  Not a pipe's
# status but the command's own decides.
run_there()
{
    log=$out/$1.log
    rm -f "$out/status"
    echo "  Debian $suite: make $1 (log: $log)"
    rm -f "$out/status"
    {
        "$chroot" run "$root" env -u LC_ALL -u TMPDIR -u DEBIAN_FRONTEND \
            make -C "/$clone" "$1" </dev/null 2>&1 && echo 0 > "$out/status"
    } | tee "$log"
    if [ -f "$out/status" ]; then
        rm "$out/status"
    else
        failed="$failed make $1 ($log)"
    fi
}

scripts/setup.sh install chroot
mkdir -p "$out"
failed=
make_debian
make_clone
run_there demo
run_there check
keep_archives

summary=$root/$clone/build/test-summary.txt
[ -z "$failed" ] || echo "error: failed on a fresh Debian $suite:$failed" >&2
unwanted=$(sed -n 's/^skipped: \(.*\binstall .*\)/  \1/p' "$summary" \
    2>/dev/null || true)
[ -z "$unwanted" ] || {
    echo "error: scripts/deps.conf lists no package for these tests, which" \
        "were skipped:" >&2
    echo "$unwanted" >&2
}
if [ -f "$summary" ]; then
    tail -n 1 "$summary"
else
    echo "no test ran: the set-up or the build failed, see above" >&2
fi
[ -z "$failed$unwanted" ]
