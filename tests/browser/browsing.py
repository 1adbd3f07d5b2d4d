"""A real TensorBoard and a real Chromium, and what a user does with the panels in them."""

from __future__ import annotations

import csv
import os
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.panels import browsers
from benchmarks.panels.browsers import NO_CHROMIUM, chromium_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Browser, Frame, Locator, Page

PICTURES = Path(__file__).parents[2] / "runs" / "pictures"
"""Where the pictures of a run of these tests are kept."""
PATIENCE = 20_000
"""Milliseconds that anything may take on a busy machine."""


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser without a window; where CI has none the test fails, at a desk it is skipped."""
    if chromium_path() is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(NO_CHROMIUM)
    with browsers.chromium() as found:
        yield found


@dataclass
class Shown:
    """The panels in a page: what a user sees, and does."""

    page: Page
    frame: Frame
    told: list[str] = field(default_factory=list)
    """Errors and warnings on the console that come from the panels."""

    def panel(self, key: str) -> Locator:
        return self.frame.locator(f'[data-panel="{key}"]')

    def choose(self, name: str, value: str) -> None:
        self.frame.locator(f'select[data-choice="{name}"]').select_option(value)

    def chosen(self, name: str) -> str:
        return self.frame.locator(f'select[data-choice="{name}"]').input_value()

    @property
    def slider(self) -> Locator:
        return self.frame.locator("input.k-slider")

    @property
    def box(self) -> Locator:
        return self.frame.locator("input.k-step")

    def sentence(self) -> str:
        return self.frame.locator(".k-first").inner_text()

    def tip(self) -> str:
        """What stands beside the mode that is pointed at."""
        tip = self.frame.locator(".k-tip")
        return tip.inner_text() if tip.is_visible() else ""

    def count(self) -> str:
        return self.frame.locator(".k-count").inner_text()

    def options(self, name: str) -> list[str]:
        return self.frame.locator(f'select[data-choice="{name}"] option').all_inner_texts()

    def panels(self) -> list[str]:
        keys: list[str] = self.frame.locator("[data-panel]").evaluate_all(
            "nodes => nodes.map((node) => node.dataset.panel)"
        )
        return keys

    def dark(self, dark: bool) -> None:
        """As TensorBoard's own button does it."""
        self.page.evaluate("dark => document.body.classList.toggle('dark-mode', dark)", dark)
        self.frame.wait_for_selector(f'#koopman[data-dark="{str(dark).lower()}"]')

    def go(self, step: int) -> None:
        """Type a step."""
        self.box.fill(str(step))
        self.box.press("Enter")
        self.box.evaluate("box => box.blur()")

    def wait_for(self, *, run: str, step: int, modes: int) -> None:
        """Until this is what the spectrum shows."""
        shows = """([run, step, modes]) => {
          const panel = document.querySelector('[data-panel="spectrum"]');
          const name = panel?.querySelector("svg")?.getAttribute("aria-label");
          return document.querySelector('select[data-choice="run"]')?.value === run &&
            name?.startsWith(`Eigenvalues at step ${step}:`) &&
            panel.querySelectorAll(".k-mode[data-mode]").length === modes;
        }"""
        self.frame.wait_for_function(shows, arg=[run, step, modes], timeout=PATIENCE)

    def table(self, key: str) -> list[dict[str, str]]:
        """The CSV file that a panel gives."""
        with self.page.expect_download(timeout=PATIENCE) as given:
            self.panel(key).get_by_role("button", name="CSV").click()
        with Path(given.value.path()).open(encoding="utf-8", newline="") as file:
            head, *rows = csv.reader(file)
        return [dict(zip(head, row, strict=True)) for row in rows]

    def picture(self, key: str) -> str:
        """The SVG file that a panel gives."""
        with self.page.expect_download(timeout=PATIENCE) as given:
            self.panel(key).get_by_role("button", name="SVG").click()
        return Path(given.value.path()).read_text("utf-8")

    def keep(self, name: str) -> None:
        """A picture of the page as it is, for somebody to look at."""
        PICTURES.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=PICTURES / f"{name}.png", full_page=True)


def listening(page: Page, of: str = "") -> list[str]:
    """What goes wrong in a page, as it comes: errors of scripts, and what its console says."""
    told: list[str] = []
    page.on("pageerror", lambda error: told.append(f"{error}\n{error.stack}"))

    def said(message: Any) -> None:
        if message.type in {"error", "warning"} and of in message.location.get("url", ""):
            told.append(message.text)

    page.on("console", said)
    return told


SPECTRUM = '[data-panel="spectrum"] svg'


def opened(page: Page, address: str, wait_for: str = SPECTRUM) -> Shown:
    """The tab in TensorBoard, once it has drawn a spectrum."""
    told = listening(page, "/koopman/")
    page.goto(address)
    shown = Shown(page, framed(page, 'iframe[src*="name=koopman"]'), told)
    shown.frame.wait_for_selector(wait_for, timeout=PATIENCE)
    return shown


def until(check: Callable[[], object]) -> None:
    """Wait for something; Playwright's own waiting evaluates texts, which a report forbids."""
    late = time.monotonic() + PATIENCE / 1000
    while not check():
        assert time.monotonic() < late, "it did not come"
        time.sleep(0.02)


def framed(page: Page, selector: str) -> Frame:
    """The document within a frame."""
    element = page.wait_for_selector(selector, timeout=PATIENCE)
    frame = element.content_frame() if element else None
    assert frame is not None
    return frame


def failures(frame: Frame) -> list[str]:
    """What axe-core finds in a frame: contrast, names, focus, and all else of WCAG 2.2 AA."""
    from axe_playwright_python.sync_playwright import Axe

    rules = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
    found = Axe().run(frame, options=rules)  # type: ignore[arg-type]
    return [
        f"{each['id']}: {each['help']}: {node['html'][:120]}"
        for each in found.response["violations"]
        for node in each["nodes"]
    ]
