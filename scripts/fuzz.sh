#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Fuzzes the client with libFuzzer, ASan and UBSan: a build of its own in
# build/fuzz.  Each target begins with tests/fuzz/corpus/TARGET and with what
# earlier runs found (build/fuzz/TARGET), and runs for FUZZ_SECONDS (60).  An
# input that fails stays in build/fuzz as crash-*, leak-* or timeout-*.
#
#   scripts/fuzz.sh run [TARGET...]       all targets when none is named
#   scripts/fuzz.sh minimise [TARGET...]  rewrite tests/fuzz/corpus/TARGET: the
#                                         fewest inputs with the same coverage

set -eu
cd "$(dirname "$0")/.."
top=$PWD
dir=build/fuzz
seconds=${FUZZ_SECONDS:-60}
mode=${1:-run}
[ $# = 0 ] || shift
[ $# -gt 0 ] || set -- wire caps config conn device
status=0

# The options are fixed: what changes the coverage has to change the build.
profile="-fprofile-instr-generate -fcoverage-mapping -fsanitize=fuzzer-no-link"
list=$top/tests/fuzz/coverage.list
CC=clang scripts/qemu-configure.sh "$top/$dir/qemu" --cc=clang --cxx=clang++ \
    --host-cc=clang --enable-fuzzing --enable-asan --enable-ubsan \
    "--extra-ldflags=-fprofile-instr-generate -fsanitize=fuzzer-no-link" \
    --extra-cflags="$profile \
-fsanitize-coverage-allowlist=$list"
scripts/qemu-build.sh "$top/$dir/qemu" fuzz
program=$top/$dir/qemu/tests/unit/fuzz-vfio-user

export ASAN_OPTIONS="detect_leaks=1:allocator_may_return_null=1"
export UBSAN_OPTIONS="halt_on_error=1:print_stacktrace=1"
export ASAN_SYMBOLIZER_PATH="${ASAN_SYMBOLIZER_PATH:-$(clang \
    -print-prog-name=llvm-symbolizer)}"

llvm()
{
    tool=$(clang -print-prog-name="$1")
    shift
    "$tool" "$@"
}

run()
{
    log=$dir/$1.log
    mkdir -p "$dir/$1"
    # With threads and event loops a look for leaks after each input costs more
    # than the input: there it is made at the end.
    case $1 in
    conn|device) leaks=0 ;;
    *) leaks=1 ;;
    esac
    echo "  $1 for $seconds seconds (log: $log)"
    if ! LLVM_PROFILE_FILE="$dir/$1.profraw" "$program" --target="$1" \
        -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 \
        -max_len=8192 -print_final_stats=1 -detect_leaks="$leaks" \
        -artifact_prefix="$dir/" \
        "$dir/$1" "tests/fuzz/corpus/$1" > "$log" 2>&1; then
        status=1
        grep -m 3 'ERROR\|runtime error\|ASSERT\|Test unit written' "$log" ||
            tail -n 5 "$log"
    fi
    awk -v t="$1" '/^stat::number_of_executed_units/ { n = $2 }
        /^#.* cov: / { for (i = 1; i < NF; i++) if ($i == "cov:") c = $(i + 1) }
        END { printf "  %s: %d executions, %d edges\n", t, n, c }' "$log"
}

minimise()
{
    new=$dir/minimised-$1
    rm -rf "$new"
    mkdir -p "$new" "$dir/$1"
    LLVM_PROFILE_FILE=/dev/null "$program" --target="$1" -merge=1 \
        -timeout=10 -max_len=8192 "$new" "tests/fuzz/corpus/$1" "$dir/$1" \
        > "$dir/$1-merge.log" 2>&1 || {
        tail -n 5 "$dir/$1-merge.log"
        exit 1
    }
    # Regressions have names, and stay whatever they cover.
    find "tests/fuzz/corpus/$1" -type f ! -name 'regression-*' -delete
    cp "$new"/* "tests/fuzz/corpus/$1/"
    rm -rf "$new"
    du -sh --apparent-size "tests/fuzz/corpus/$1"
}

# What earlier sources left behind cannot be added to this run's.
rm -f "$dir"/*.profraw
for target; do
    $mode "$target"
done
# An execution that fails writes none.
ls "$dir"/*.profraw > /dev/null 2>&1 || exit "$status"

llvm llvm-profdata merge -o "$dir/coverage.profdata" "$dir"/*.profraw
llvm llvm-cov report "$program" -instr-profile="$dir/coverage.profdata" \
    > "$dir/coverage.txt"
awk 'NR == 1 { print "  lines of hw/vfio-user reached" }
    /hw\/vfio-user\/[^ ]*\.c / { sub(".*/", "", $1)
        printf "  %-16s %8s\n", $1, $10 }' "$dir/coverage.txt"
echo "  coverage: $dir/coverage.txt"
exit "$status"
