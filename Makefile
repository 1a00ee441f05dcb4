# SPDX-License-Identifier: GPL-2.0-or-later
#
# Thin fronts over configure, ninja and meson; "make help" lists them.

SHELL := /bin/sh
B := build
JOBS := $(shell nproc)
export JOBS

all: configured
	@scripts/check.sh build $(B)

help:
	@sed -n 's/^#: //p' Makefile

#: make                build what configure has set up
#: make setup          install packages (as root), fetch what is fetched
#: make demo           set up, build, show a guest using a device of another
#:                     process; ARGS=--shell leaves you in the guest
#: make check          set up, build, run all suites
#: make check-unit     run one suite; also check-qtest, check-functional,
#:                     check-interop, check-overlay, check-fuzz
#: make check-san      unit, qtest, some guests: ASan and UBSan; unit: TSan
#: make check-vfio     vfio-pci with the overlay and without (compiles a
#:                     QEMU and a kernel first)
#: make check-qemu     QEMU's own unit tests and qtests, with the overlay and
#:                     without (compiles them first); TESTS=NAMES for some
#: make check-fresh    make demo and make check of the committed HEAD, in a
#:                     minimal Debian made for it (SUITE=bookworm or trixie)
#: make fuzz           fuzz the client with libFuzzer; FUZZ_SECONDS=N each
#: make soak           random things happen to a guest; SOAK_HOURS=1 or
#:                     SOAK_MINUTES=N, SOAK_SEED=N for an old one again
#: make torture        a guest, its server and its operator do the worst they
#:                     can; TORTURE_MINUTES=N (60), TORTURE_SEED=N to begin
#:                     with, TORTURE_ARGS="--runs 1 --machine pc --accel kvm"
#: make coverage       unit, qtest and some functional tests, with gcov
#: make bench          measure; build/bench/results.json and results.svg
#: make docs           the documentation as HTML
#: make install        install QEMU with the device beside a distribution's
#:                     (DESTDIR=, PREFIX=)
#: make deb            build a Debian package (SUITE=bookworm or trixie)
#: make check-deb      build it, install it in a fresh chroot, use it there
#: make clean          remove what was compiled
#: make distclean      remove all that is not source

setup:
	@scripts/setup.sh install build run
	@scripts/setup.sh fetch python kernel

guest:
	@scripts/guest-image.sh

# As configure was last called, or plainly; then only lists are compared.
configured:
	@scripts/configured.sh $(B)

check: setup configured guest
	@scripts/check.sh test $(B)

check-functional check-interop: guest
check-unit check-qtest check-functional check-interop check-overlay \
check-fuzz: configured
	@scripts/check.sh test $(B) --suite $(@:check-%=%)

check-san: setup configured guest
	@scripts/check-san.sh

check-vfio: setup configured guest
	@scripts/check.sh build $(B)
	@scripts/check-vfio.sh

check-qemu: setup configured
	@scripts/check-qemu.sh $(TESTS)

check-fresh:
	@scripts/check-fresh.sh $(SUITE)

fuzz: setup configured
	@scripts/setup.sh install fuzz
	@FUZZ_SECONDS=$(FUZZ_SECONDS) scripts/fuzz.sh run $(FUZZ_TARGETS)

soak: setup configured guest
	@scripts/check.sh build $(B)
	@SOAK_HOURS="$(SOAK_HOURS)" SOAK_MINUTES="$(SOAK_MINUTES)" \
	    SOAK_SEED="$(SOAK_SEED)" tests/soak/run.sh $(B)

torture: setup configured
	@scripts/check.sh build $(B)
	@TORTURE_MINUTES="$(TORTURE_MINUTES)" TORTURE_SEED="$(TORTURE_SEED)" \
	    tests/torture/run.sh $(B) $(TORTURE_ARGS)

coverage: setup configured
	@scripts/setup.sh install cover
	@scripts/coverage.sh

demo: setup configured guest
	@scripts/check.sh build $(B)
	@scripts/demo.sh $(ARGS)

bench: setup configured
	@scripts/check.sh build $(B)
	@scripts/meson test -C $(B) --no-rebuild --benchmark --verbose

docs: setup configured
	@scripts/setup.sh install docs
	@scripts/docs.sh

install: configured
	@scripts/check.sh build $(B)
	@scripts/install.sh $(B)/qemu "$(DESTDIR)" "$(PREFIX)"

deb:
	@scripts/deb.sh build $(SUITE)

check-deb: setup
	@scripts/deb.sh check $(SUITE)

clean:
	@for d in $(B)/qemu $(B)/pristine $(B)/san $(B)/tsan $(B)/fuzz \
	    $(B)/cov $(B)/docs $(B)/fresh; do \
	    [ ! -e $$d ] || { echo "  removing $$d"; rm -rf $$d; }; \
	done
	@rm -rf $(B)/meson-* $(B)/build.ninja $(B)/overlay.tests $(B)/tests

distclean:
	@echo "  removing $(B) and the staged trees in subprojects"
	@rm -rf $(B) subprojects/qemu-* subprojects/.staging-* subprojects/.series

# Steps of the set-up follow each other also under make -j.
.NOTPARALLEL:

.PHONY: all help setup guest configured check check-unit check-qtest \
	check-functional check-interop check-overlay check-fuzz check-san \
	check-vfio check-qemu check-fresh \
	fuzz soak torture coverage demo bench docs install deb check-deb \
	clean distclean
