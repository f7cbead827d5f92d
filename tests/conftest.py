"""What every test can rely on."""

from __future__ import annotations

import signal

# Jobs that a shell starts in the background ignore Ctrl-C, and so would every process that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)
