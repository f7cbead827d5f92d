"""What every test can rely on."""

from __future__ import annotations

import os
import signal
import tempfile

# Tests say themselves which backend they mean, and keep nothing of what they prepare.
os.environ.setdefault("PERSONALIVE_BACKEND", "eager")
os.environ.setdefault("PERSONALIVE_CACHE", tempfile.mkdtemp(prefix="personalive-programs-"))

# Jobs that a shell starts in the background ignore Ctrl-C, and so would every process that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)
