"""A report in a real Chromium: opened as a file and in a sandboxed frame, without any server."""

from __future__ import annotations

import html
import re
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from torchkoopman_panels import Document, Series, page
from torchkoopman_tensorboard import report

from tests.browser.browsing import (
    PATIENCE,
    SPECTRUM,
    Shown,
    chromium,
    failures,
    framed,
    listening,
    until,
)
from tests.browser.marks import draws, eigenvalues
from tests.browser.trainings import RUNS, STEPS, logged
from tests.panels.test_page import HOSTILE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, BrowserContext

    import torchkoopman as tk

Written = dict[tuple[str, str, int], "tk.Surrogate"]
FIRST, SECOND = RUNS
LONG, SHORT = "b.2-b.9", "b.2-b.10"
OVER = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
SIZE: Any = {"width": 1300, "height": 1700}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("reports")


@pytest.fixture(scope="module")
def written(folder: Path) -> Written:
    return logged(folder / "runs")


@pytest.fixture(scope="module")
def path(folder: Path, written: Written) -> Path:
    return report(folder / "runs", folder / "report.html")


@pytest.fixture(scope="module")
def context(browser: Browser) -> Iterator[BrowserContext]:
    """Without a network."""
    found = browser.new_context(viewport=SIZE, offline=True)
    yield found
    found.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


def read(context: BrowserContext, address: str, wait_for: str = SPECTRUM) -> Shown:
    opened = context.new_page()
    asked: list[str] = []
    opened.on("request", lambda request: asked.append(request.url))
    told = listening(opened)
    opened.goto(address)
    frame = framed(opened, "iframe") if address.endswith("framed.html") else opened.main_frame
    frame.wait_for_selector(wait_for, timeout=PATIENCE)
    assert [url for url in asked if not url.startswith(("data:", "blob:"))] == [
        address.split("#")[0]
    ]
    return Shown(opened, frame, told)


def address_of(shown: Shown) -> str:
    address: str = shown.page.evaluate("location.href")
    return address


def drive(shown: Shown, written: Written) -> None:
    """What a reader does, held against the log."""
    shown.choose("span", LONG)
    assert draws(shown, written[FIRST, LONG, STEPS[-1]])
    for position, step in enumerate(STEPS):
        shown.slider.fill(str(position))
        assert draws(shown, written[FIRST, LONG, step])
        trusted = int(written[FIRST, LONG, step].spectrum().trusted().sum())
        assert shown.sentence().startswith(f"{trusted} of 5 modes trusted")
    shown.go(20)
    assert draws(shown, written[FIRST, LONG, 20])
    shown.choose("other", SECOND)
    assert draws(shown, written[FIRST, LONG, 20])
    assert draws(shown, written[SECOND, LONG, 20], tone=1)
    shown.choose("run", SECOND)
    shown.choose("span", SHORT)
    assert draws(shown, written[SECOND, SHORT, 20])
    values = eigenvalues(written[SECOND, SHORT, 20])
    index = int(np.argmax(values.imag))
    shown.panel("spectrum").locator(f'.k-mode[data-mode="{index}"]').hover()
    assert f"|λ| = {abs(values[index]):.3g}" in shown.tip()


def test_a_report_is_read_from_a_file(
    context: BrowserContext, path: Path, written: Written
) -> None:
    shown = read(context, path.as_uri())
    assert shown.page.title() == "runs"
    drive(shown, written)
    rows = shown.table("spectrum")
    found = [float(row["real"]) + 1j * float(row["imaginary"]) for row in rows]
    np.testing.assert_allclose(found, eigenvalues(written[SECOND, SHORT, 20]), rtol=2e-4)
    ET.fromstring(shown.picture("spectrum"))
    assert "rounded" in shown.frame.locator("footer").inner_text()
    assert failures(shown.frame) == []
    until(lambda: "run=lr%2010" in address_of(shown))
    # What the address says is what a reload, or a reader that the address is sent to, sees.
    again = read(context, address_of(shown))
    assert draws(again, written[SECOND, SHORT, 20])
    assert again.chosen("run") == SECOND
    assert shown.told == again.told == []
    shown.page.close()
    again.page.close()


def test_a_report_is_read_in_a_sandboxed_frame(
    context: BrowserContext, path: Path, written: Written
) -> None:
    frame = (
        '<!doctype html><html lang="en"><title>notebook</title>'
        '<iframe sandbox="allow-scripts" title="report" style="width: 1200px; height: 1600px"'
        f' srcdoc="{html.escape(path.read_text())}"></iframe></html>'
    )
    framed_path = path.with_name("framed.html")
    framed_path.write_text(frame)
    shown = read(context, framed_path.as_uri())
    drive(shown, written)
    assert shown.told == []  # from here on the browser says what it forbids
    # A link cannot be copied and a file not be saved there: both are on the page instead.
    shown.frame.get_by_role("button", name="Copy link").click()
    field = shown.frame.locator('input[aria-label="link to this view"]')
    field.wait_for()
    assert "p.koopman.run=lr%2010" in field.input_value()
    shown.panel("spectrum").get_by_role("button", name="CSV").click()
    shown.panel("spectrum").locator("summary").click()
    text = shown.panel("spectrum").locator("textarea").input_value()
    assert text.startswith("run,step,mode,real,imaginary")
    shown.page.close()


def test_a_slider_that_is_drawn_to_and_fro_writes_the_address_once(
    context: BrowserContext, path: Path, written: Written
) -> None:
    shown = read(context, path.as_uri())
    shown.choose("span", LONG)
    # Browsers ignore whoever changes the address 200 times within ten seconds.
    shown.slider.evaluate(
        """slider => {
          const write = history.replaceState.bind(history);
          window.written = 0;
          history.replaceState = (...all) => { window.written += 1; write(...all); };
          for (let k = 0; k <= 300; k += 1) {
            slider.value = k % 4;
            slider.dispatchEvent(new Event("input"));
          }
        }"""
    )
    until(lambda: "step=0" in address_of(shown))
    assert shown.page.evaluate("window.written") == 1
    assert draws(shown, written[FIRST, LONG, 0])
    assert shown.told == []
    shown.page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_report_follows_the_systems_theme_and_fits_its_window(
    browser: Browser, path: Path, scheme: Any
) -> None:
    context = browser.new_context(viewport=SIZE, color_scheme=scheme, offline=True)
    shown = read(context, path.as_uri())
    paper = shown.frame.locator("#koopman").evaluate(
        "node => getComputedStyle(node).backgroundColor"
    )
    brightness = sum(map(int, re.findall(r"\d+", paper)[:3])) / 765
    assert brightness > 0.8 if scheme == "light" else brightness < 0.3
    assert failures(shown.frame) == []
    for width in (1500, 420):
        shown.page.set_viewport_size({"width": width, "height": 1000})
        until(lambda: shown.frame.evaluate(OVER) == 0)
        shown.keep(f"report-{width}-{scheme}")
    assert shown.told == []
    context.close()


def test_names_are_shown_as_they_are_and_never_run(context: BrowserContext, tmp_path: Path) -> None:
    document = Document(HOSTILE)
    spectrum = np.array([[0.5, 0.1, 0.01, 0.3, 0.01, 0.1, 1.0]])
    about = {"layers": [HOSTILE, "2"], "times": [0, 1], "steps": 1, "frames": "shared"}
    for step in (0, 1):
        series = [
            Series("spectrum", spectrum, about),
            Series("r2", np.array([0.9]), {"layers": [HOSTILE]}),
            Series("notes", np.zeros(0), {"notes": [HOSTILE]}),
        ]
        document.add(HOSTILE, HOSTILE, step, series)
    path = tmp_path / "hostile.html"
    path.write_text(page(document), "utf-8", "replace")
    shown = read(context, path.as_uri())
    assert shown.options("run")[0].startswith("</script><script>alert(1)")
    assert shown.frame.locator("img").count() == 0
    assert shown.told == []
    shown.page.close()


@pytest.mark.parametrize(("modes", "columns"), [(0, 8), (1, 8), (3, 7)])
def test_no_mode_one_mode_and_numbers_that_are_none_are_drawn(
    context: BrowserContext, tmp_path: Path, modes: int, columns: int
) -> None:
    document = Document("few")
    spectrum = np.full((modes, columns), np.nan)
    spectrum[:, :2] = 0.5
    document.add("run", "1-9", 0, [Series("spectrum", spectrum, {"layers": ["1", "9"]})])
    odd = [Series("r2", np.array([np.nan, np.inf]), {"layers": ["5", "9"]})]
    document.add("run", "1-9", 0, [*odd, Series("singular_values", np.full(3, np.nan))])
    document.warnings = ["Something was left out."]
    path = tmp_path / "few.html"
    path.write_text(page(document))
    shown = read(context, path.as_uri())
    assert shown.frame.locator(".k-failed").count() == 0
    assert shown.frame.locator(".k-warning").all_inner_texts() == document.warnings
    assert shown.frame.locator(f"{SPECTRUM} .k-mode[data-mode]").count() == modes
    assert shown.told == []
    shown.page.close()


def test_an_empty_report_says_what_writes_one(context: BrowserContext, tmp_path: Path) -> None:
    path = tmp_path / "empty.html"
    path.write_text(page(Document("nothing")))
    shown = read(context, path.as_uri(), ".k-first:not(:empty)")
    assert "log(writer, surrogate, step)" in shown.sentence()
    assert shown.told == []
    shown.page.close()
