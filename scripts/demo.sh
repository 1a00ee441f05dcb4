#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# The demo; `make demo` builds what it needs first.  See scripts/demo.py.
exec /usr/bin/env python3 -B "$(dirname "$0")/demo.py" "$@"
