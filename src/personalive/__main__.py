"""``python -m personalive``."""

from __future__ import annotations

import sys

from personalive.cli.main import main

sys.exit(main())
