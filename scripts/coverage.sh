#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Lines of hw/vfio-user that tests reach, measured with gcov: a build of its
# own in build/cov.  Run are unit tests, qtests, the fuzzing corpus, and of the
# functional tests those whose guest is a page of code: with them vCPUs wait
# for a server, which qtest has none of.  Guests that boot Linux add minutes
# and no lines.
#
# The report is in build/cov/report: index.html with the sources, summary.txt
# with the lines that nothing reached, which is printed.  Why these are not
# reached is in docs/devel/vfio-user.rst.

set -eu
cd "$(dirname "$0")/.."
top=$PWD
staged=$("$top/scripts/staged-tree.sh")
report=build/cov/report
flat="x86_64_vfio_user_cut x86_64_vfio_user_dma_effects
      x86_64_vfio_user_ioeventfd x86_64_vfio_user_kvm
      x86_64_vfio_user_reconnect_smp x86_64_vfio_user_smp"
# Percent of lines; fewer fail.
least=90
status=0

# Only the client is instrumented: a QEMU that exits then writes two dozen
# counter files, not two thousand.  Its threads count in the same counters.
# Without optimization each line keeps its own, and the build takes a third of
# the time.
flags="--coverage -fprofile-update=atomic"
flags="$flags -fprofile-filter-files=.*hw/vfio-user/.*"
scripts/qemu-configure.sh "$top/build/cov/qemu" "--extra-cflags=$flags" \
    --extra-ldflags=--coverage -Doptimization=0 --disable-debug-info
scripts/outer-configure.sh build/cov -Dscope=tests

# Counts add up over runs and mean nothing across different sources.
scripts/check.sh build build/cov
find build/cov/qemu -name '*.gcda' -delete
rm -rf "$report"
mkdir -p "$report"
export VFIO_USER_TEST_SERVER="$top/build/cov/tests/server/vfio-user-test-server"
# shellcheck disable=SC2086
scripts/check.sh test build/cov 'test-*' 'vfio-user-*' 'fuzz-*' $flat ||
    status=1

gcovr --root "$staged" --filter '(.+/)?hw/vfio-user/' \
    --object-directory build/cov/qemu --html-details "$report/index.html" \
    --json-summary "$report/summary.json" --txt "$report/summary.txt" \
    --fail-under-line "$least" build/cov/qemu || status=1
cat "$report/summary.txt"
echo "  report: $report/index.html"
exit "$status"
