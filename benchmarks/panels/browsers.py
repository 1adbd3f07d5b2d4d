"""A real Chromium and a real TensorBoard, started as users start them."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING

from benchmarks.torchrun import environment

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
NO_CHROMIUM = (
    "there is no Chromium: install it (Debian: apt-get install chromium), or set CHROMIUM to the "
    "path of a Chrome."
)


def chromium_path() -> str | None:
    """Of a Chromium on this machine."""
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser without a window.

    Raises:
        FileNotFoundError: there is none.
    """
    from playwright.sync_api import sync_playwright

    path = chromium_path()
    if path is None:
        raise FileNotFoundError(NO_CHROMIUM)
    with sync_playwright() as playwright:
        options = ["--no-sandbox", "--disable-gpu"]
        browser = playwright.chromium.launch(executable_path=path, args=options)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def tensorboard(logdir: Path, *options: str) -> Iterator[str]:
    """TensorBoard with the plugins that are installed; its address."""
    arguments = ["--logdir", str(logdir), "--host", "127.0.0.1", "--port", "0", *options]
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "tensorboard.main", *arguments],
            env=environment(),
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            yield _address(process, said)
        finally:
            for number in (signal.SIGTERM, signal.SIGKILL):
                with suppress(ProcessLookupError, subprocess.TimeoutExpired):
                    os.killpg(process.pid, number)
                    process.wait(10)


def _address(process: subprocess.Popen[bytes], said: IO[str]) -> str:
    late = time.monotonic() + 60
    while True:
        said.seek(0)
        text = said.read()
        if found := re.search(r"at (http://127\.0\.0\.1:\d+/)", text):
            return found[1]
        if process.poll() is not None or time.monotonic() > late:
            raise AssertionError(f"TensorBoard did not start; it said\n{text}")
        time.sleep(0.05)
