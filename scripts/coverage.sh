#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Lines of hw/vfio-user that unit tests, qtests and the fuzzing corpus reach:
# a build of its own in build/cov, the report in build/cov/report.

set -eu
cd "$(dirname "$0")/.."
top=$PWD
status=0

mkdir -p build/cov/report
scripts/qemu-configure.sh "$top/build/cov/qemu" --enable-gcov
scripts/outer-configure.sh build/cov -Dscope=tests -Dguest_tests=false
# Counts add up over runs and mean nothing across different sources.
find build/cov -name '*.gcda' -delete
scripts/check.sh test build/cov --suite unit --suite qtest --suite fuzz ||
    status=1
gcovr --root "$top" --filter "$top/hw/vfio-user/" \
    --gcov-ignore-parse-errors \
    --html-details build/cov/report/index.html \
    --json-summary build/cov/report/summary.json \
    --txt build/cov/report/summary.txt build/cov/qemu
cat build/cov/report/summary.txt
echo "  report: build/cov/report/index.html"
exit "$status"
