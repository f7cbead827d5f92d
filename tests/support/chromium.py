"""The Chromium that the tests of the page drive; run as a script, it sees to it that there is one.

`make test` runs it. It says nothing where a Chromium is there already, installs Debian's where it may, and otherwise
the one that playwright brings along.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
MISSING = (
    "no Chromium for the tests of the live page: install your system's chromium or google-chrome, "
    "or run `python -m playwright install chromium`"
)


def find_chromium() -> str | None:
    """The program, on the PATH or where playwright puts its own; None where there is none."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    return found or _playwrights_own()


def _playwrights_own() -> str | None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        path = playwright.chromium.executable_path
    return path if Path(path).exists() else None


def install_chromium() -> None:
    """Debian's, with all it needs, where this user may; else playwright's own, which needs no rights."""
    if shutil.which("apt-get") and os.geteuid() == 0:
        _try("apt-get", "update", "--quiet")
        _try("apt-get", "install", "--quiet", "--yes", "--no-install-recommends", "chromium")
    if find_chromium() is None:
        _try(sys.executable, "-m", "playwright", "install", "chromium")


def _try(*command: str) -> None:
    """Run a command and show its output only if it fails; success is seen by what is there afterwards."""
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode:
        sys.stderr.write(f"{' '.join(command)} failed:\n{done.stdout}")


def main() -> int:
    """Find or install one; 1, with one line, where neither works."""
    if find_chromium() is None:
        sys.stderr.write("installing Chromium for the tests of the live page\n")
        install_chromium()
    if find_chromium() is None:
        sys.stderr.write(MISSING + "\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
