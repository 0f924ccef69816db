"""What the shell is told."""

from __future__ import annotations

OK = 0
USAGE = 1
SOME_FAILED = 2
INTERRUPTED = 130
