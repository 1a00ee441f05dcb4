#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# The tests under sanitizers: unit, qtest, the fuzzing corpus and some
# functional tests under ASan and UBSan (build/san), then the unit tests, which
# hold the threaded engine, under TSan (build/tsan).
#
# The functional tests are those whose guest is a page of code, since vCPUs
# that wait for a server are in no other suite, and one with a Debian guest and
# a server in a QEMU, which is instrumented as well.

set -eu
cd "$(dirname "$0")/.."
top=$PWD
guests="x86_64_vfio_user_cut x86_64_vfio_user_dma_effects
        x86_64_vfio_user_ioeventfd x86_64_vfio_user_kvm
        x86_64_vfio_user_nvme x86_64_vfio_user_reconnect_smp
        x86_64_vfio_user_smp"
status=0

# A finding ends the program, so that it fails its test.  The quarantine of
# freed memory is kept small: a test watches QEMU's memory for growth.
# Reports go to files, as tests read what QEMU writes to stderr.  The fast way
# to note where memory came from gets lost in glib, which suppressions need.
reports=$top/build/san/report
ASAN_OPTIONS="halt_on_error=1:detect_leaks=1:quarantine_size_mb=1"
ASAN_OPTIONS="$ASAN_OPTIONS:log_path=$reports"
ASAN_OPTIONS="$ASAN_OPTIONS:fast_unwind_on_malloc=0:malloc_context_size=12"
export ASAN_OPTIONS="$ASAN_OPTIONS:thread_local_quarantine_size_kb=64"
LSAN_OPTIONS="suppressions=$top/tests/lsan.supp:print_suppressions=0"
export LSAN_OPTIONS
UBSAN_OPTIONS="halt_on_error=1:print_stacktrace=1"
export UBSAN_OPTIONS="$UBSAN_OPTIONS:suppressions=$top/tests/ubsan.supp"
TSAN_OPTIONS="halt_on_error=1:second_deadlock_stack=1"
export TSAN_OPTIONS="$TSAN_OPTIONS:suppressions=$top/tests/tsan.supp"

# Prints what was found; a file may hold only a remark on makecontext, which
# QEMU's coroutines use.
show_reports()
{
    for file in "$reports".*; do
        if [ -f "$file" ] && grep -q 'ERROR\|runtime error' "$file"; then
            echo "  $file:"
            cat "$file"
            status=1
        else
            rm -f "$file"
        fi
    done
}

echo "  unit, qtest, fuzz and some guests under ASan and UBSan"
mkdir -p build/san build/tsan
rm -f "$reports".*
scripts/qemu-configure.sh "$top/build/san/qemu" --enable-asan --enable-ubsan
scripts/outer-configure.sh build/san -Dscope=tests \
    -Db_sanitize=address,undefined
export VFIO_USER_TEST_SERVER="$top/build/san/tests/server/vfio-user-test-server"
# shellcheck disable=SC2086
scripts/check.sh test build/san -t 3 'test-*' 'vfio-user-*' 'fuzz-*' $guests ||
    status=1
show_reports

echo "  unit under TSan"
scripts/qemu-configure.sh "$top/build/tsan/qemu" --enable-tsan
scripts/outer-configure.sh build/tsan -Dscope=unit -Dguest_tests=false \
    -Db_sanitize=thread
scripts/check.sh test build/tsan --suite unit || status=1
exit "$status"
