#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# QEMU's own unit tests and qtests with the overlay and without.
#
#   scripts/check-qemu.sh [TEST...]    names as meson has them; none: all
#
# Each tree's tests are its own: also a test that the patches touch runs as
# upstream has it in build/pristine, and as patched in build/qemu.  Verdicts
# are compared case by case.  A program whose verdict differs runs once more
# in both trees with the machine to itself, as a test that looks at the clock
# may fail beside others; that is said.  Results are in build/check-qemu.
#
# KVM=off hides /dev/kvm from the tests, so that all of them use TCG: for
# machines whose KVM is nested and too slow for the guests of migration-test.
# JOBS=N: how many programs at a time.

set -eu
cd "$(dirname "$0")/.."
top=$PWD
out=$top/build/check-qemu
jobs=${JOBS:-$(nproc)}

case ${KVM:-on} in
on) hide= ;;
off) hide='[ ! -e /dev/kvm ] || mount --bind /dev/null /dev/kvm; ' ;;
*) echo "error: KVM=$KVM is not known; use on or off" >&2; exit 1 ;;
esac

# Runs a command without what is to be hidden
without_hidden()
{
    if [ -n "$hide" ]; then
        # shellcheck disable=SC2046
        unshare --mount $([ "$(id -u)" = 0 ] || echo --map-root-user) \
            sh -euc "$hide"'exec "$@"' sh "$@"
    else
        "$@"
    fi
}

# run NAME BUILD-DIRECTORY TEST...: build and run, the log to NAME.json
run()
{
    name=$1
    dir=$2
    shift 2
    echo "  $name: $dir"
    # The status is of no interest: verdicts are compared, not asserted.
    without_hidden "$dir/pyvenv/bin/meson" test -C "$dir" --suite qemu:unit \
        --suite qemu:qtest --num-processes "$jobs" --timeout-multiplier 6 \
        --logbase check-qemu "$@" > "$out/$name.log" 2>&1 || true
    [ -f "$dir/meson-logs/check-qemu.json" ] || {
        tail -n 20 "$out/$name.log" >&2
        echo "error: meson ran no test in $dir (see above)" >&2
        exit 1
    }
    mv "$dir/meson-logs/check-qemu.json" "$out/$name.json"
}

compare()
{
    /usr/bin/python3 -B scripts/compare-tests.py "$@"
}

scripts/pristine.sh
scripts/qemu-build.sh build/qemu tests
rm -rf "$out"
mkdir -p "$out"
run pristine "$top/build/pristine/qemu" "$@"
run patched "$top/build/qemu" "$@"

again=$(compare --differing "$out/pristine.json" "$out/patched.json")
if [ -n "$again" ]; then
    jobs=1
    # shellcheck disable=SC2086
    run pristine-again "$top/build/pristine/qemu" $again
    # shellcheck disable=SC2086
    run patched-again "$top/build/qemu" $again
    set -- "$out/pristine-again.json" "$out/patched-again.json"
else
    set --
fi
status=0
compare "$out/pristine.json" "$out/patched.json" "$@" \
    > "$out/differences" || status=$?
cat "$out/differences"
exit "$status"
