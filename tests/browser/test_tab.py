"""The Koopman tab in a real TensorBoard and a real Chromium, held against what was logged."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from torchkoopman_tensorboard import EventFolder, log

from benchmarks.panels.browsers import tensorboard
from tests.browser.browsing import PATIENCE, chromium, failures, opened
from tests.browser.marks import draws, eigenvalues
from tests.browser.trainings import LAYERS, RUNS, STEPS, fitted, logged

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser

    import torchkoopman as tk
    from tests.browser.browsing import Shown

Written = dict[tuple[str, str, int], "tk.Surrogate"]
FIRST, SECOND = RUNS
SIZE: Any = {"width": 1300, "height": 1700}
LONG, SHORT = "b.2-b.9", "b.2-b.10"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("browser") / "runs"


@pytest.fixture(scope="module")
def written(folder: Path) -> Written:
    return logged(folder)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def address(folder: Path, written: Written, browser: Browser) -> Iterator[str]:
    with tensorboard(folder, "--reload_interval", "1") as found:
        yield f"{found}#koopman"


@pytest.fixture(scope="module")
def opened_once(browser: Browser, address: str) -> Iterator[Shown]:
    context = browser.new_context(viewport=SIZE)
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    yield opened(context.new_page(), address)
    context.close()


@pytest.fixture
def tab(opened_once: Shown) -> Iterator[Shown]:
    """The tab with its first choices; whatever goes wrong in it fails the test."""
    shown = opened_once
    choices = {"other": "", "run": FIRST, "span": LONG, "view": "lambda", "theme": "auto"}
    for name, value in choices.items():
        shown.choose(name, value)
    shown.go(STEPS[-1])
    shown.wait_for(run=FIRST, step=STEPS[-1], modes=5)
    yield shown
    assert shown.told == []


def listed(tab: Shown, run: str = FIRST) -> np.ndarray:
    """λ in the file that the spectrum's panel gives."""
    rows = [row for row in tab.table("spectrum") if row["run"] == run]
    return np.array([float(row["real"]) + 1j * float(row["imaginary"]) for row in rows])


def test_the_slider_shows_the_spectrum_of_each_step_that_was_logged(
    tab: Shown, written: Written
) -> None:
    for position, step in enumerate(STEPS):
        tab.slider.fill(str(position))
        tab.wait_for(run=FIRST, step=step, modes=5)
        assert tab.box.input_value() == str(step)
        assert draws(tab, written[FIRST, LONG, step])
        trusted = int(written[FIRST, LONG, step].spectrum().trusted().sum())
        assert tab.sentence().startswith(f"{trusted} of 5 modes trusted")
        filled = tab.panel("spectrum").locator(".k-mode[data-mode].k-trusted")
        assert filled.count() == trusted


def test_the_latest_notes_of_the_span_stand_at_the_foot(tab: Shown) -> None:
    told = tab.frame.locator("footer .k-sentence").first.inner_text()
    assert told == f"At step {STEPS[-1]}: fitted after step {STEPS[-1]}"


def test_a_typed_step_is_the_latest_that_is_not_after_it(tab: Shown, written: Written) -> None:
    for typed, step in (("20", 20), ("34.5", 20), ("1e9", 50), ("-3", 0), ("x", 0)):
        tab.box.fill(typed)
        tab.box.press("Enter")
        tab.wait_for(run=FIRST, step=step, modes=5)
        assert draws(tab, written[FIRST, LONG, step])
        tab.box.evaluate("box => box.blur()")
        assert tab.box.input_value() == str(step)


def test_arrow_keys_go_from_step_to_step_and_from_mode_to_mode(tab: Shown) -> None:
    picture = tab.panel("spectrum").locator("svg")
    picture.focus()
    picture.press("ArrowLeft")
    tab.wait_for(run=FIRST, step=35, modes=5)
    picture.press("ArrowRight")
    tab.wait_for(run=FIRST, step=50, modes=5)
    picture.press("ArrowDown")
    first = tab.tip()
    picture.press("ArrowDown")
    assert "λ = " in first
    assert tab.tip() != first


def test_a_mode_under_the_pointer_says_what_it_is(tab: Shown, written: Written) -> None:
    fit = written[FIRST, LONG, 50].spectrum()
    values = fit.eigenvalues.numpy()
    index = int(np.argmax(values.imag))
    tab.panel("spectrum").locator(f'.k-mode[data-mode="{index}"]').hover()
    told = tab.tip()
    assert f"|λ| = {abs(values[index]):.3g}" in told
    assert f"frequency {np.angle(values[index]) / 2 / np.pi:.3g} turns" in told
    assert fit.residuals is not None
    assert f"residual {float(fit.residuals[index]):.2g}" in told
    assert fit.conditions is not None
    assert f"condition of λ {float(fit.conditions[index]):.2g}" in told
    assert "trusted" in told
    tab.panel("singular").locator("h2").hover()
    assert tab.tip() == ""


def test_run_and_span_are_chosen_by_their_names(tab: Shown, written: Written) -> None:
    assert tab.options("run") == list(RUNS)
    assert tab.options("span") == [LONG, SHORT, "forgetting-0"]
    tab.choose("run", SECOND)
    tab.wait_for(run=SECOND, step=50, modes=5)
    assert draws(tab, written[SECOND, LONG, 50])
    np.testing.assert_allclose(
        listed(tab, SECOND), eigenvalues(written[SECOND, LONG, 50]), rtol=1e-5
    )
    tab.choose("span", SHORT)
    tab.wait_for(run=SECOND, step=50, modes=5)
    assert draws(tab, written[SECOND, SHORT, 50])


def test_two_runs_lie_over_one_another(tab: Shown, written: Written) -> None:
    tab.choose("other", SECOND)
    tab.wait_for(run=FIRST, step=50, modes=10)
    assert draws(tab, written[FIRST, LONG, 50])
    assert draws(tab, tone=1, fit=written[SECOND, LONG, 50])
    np.testing.assert_allclose(
        listed(tab, SECOND), eigenvalues(written[SECOND, LONG, 50]), rtol=1e-5
    )
    assert f"{SECOND}: " in tab.sentence()
    tab.keep("tab-two-runs")
    assert failures(tab.frame) == []


def test_rates_stand_where_their_logarithms_are(tab: Shown, written: Written) -> None:
    tab.choose("view", "omega")
    tab.frame.wait_for_selector('[data-panel="spectrum"] line.k-circle', state="attached")
    values = eigenvalues(written[FIRST, LONG, 50])
    placed = tab.panel("spectrum").evaluate(
        """panel => Object.fromEntries(
          [...panel.querySelectorAll(".k-mode[data-mode]")].map((node) => {
            const box = node.getBBox();
            return [node.dataset.mode, [box.x + box.width / 2, box.y + box.height / 2]];
          }),
        )"""
    )
    assert len(placed) >= 4
    modes = sorted(map(int, placed))
    rates = np.log(values[modes])
    x, y = np.array([placed[str(mode)] for mode in modes]).T
    # Pixels are a linear function of the rate along each axis.
    for pixels, rate in ((x, rates.real), (y, rates.imag)):
        slope, start = np.polyfit(rate, pixels, 1)
        assert np.allclose(slope * rate + start, pixels, atol=0.2)
        assert abs(slope) > 20


def test_tensorboards_own_dark_mode_and_a_theme_of_ones_own(tab: Shown) -> None:
    def paper() -> str:
        colour: str = tab.frame.locator("#koopman").evaluate(
            "node => getComputedStyle(node).backgroundColor"
        )
        return colour

    bright = paper()
    tab.dark(True)
    dark = paper()
    assert dark != bright
    tab.choose("theme", "light")
    assert paper() == bright
    tab.dark(False)
    tab.choose("theme", "dark")
    assert paper() == dark


def test_a_copied_link_shows_the_same_in_a_new_window(tab: Shown, written: Written) -> None:
    tab.choose("run", SECOND)
    tab.choose("other", FIRST)
    tab.choose("span", SHORT)
    tab.wait_for(run=SECOND, step=50, modes=10)
    tab.slider.fill("1")
    tab.wait_for(run=SECOND, step=10, modes=10)
    tab.frame.get_by_role("button", name="Copy link").click()
    tab.frame.wait_for_function("document.querySelector('.k-copied').textContent === 'copied'")
    link: str = tab.page.evaluate("navigator.clipboard.readText()")
    page = tab.page.context.new_page()
    try:
        other = opened(page, link)
        other.wait_for(run=SECOND, step=10, modes=10)
        chosen = [other.chosen(name) for name in ("run", "other", "span")]
        assert chosen == [SECOND, FIRST, SHORT]
        assert draws(other, written[SECOND, SHORT, 10])
        assert draws(other, tone=1, fit=written[FIRST, SHORT, 10])
        # The same window follows a link that is put into its address, too.
        page.evaluate("link => { location.hash = link }", f"#koopman&p.koopman.run={FIRST}")
        other.frame.wait_for_function(
            """run => document.querySelector('select[data-choice="run"]')?.value === run""",
            arg=FIRST,
        )
        assert other.told == []
    finally:
        page.close()


def test_a_picture_is_a_file_by_itself(tab: Shown, written: Written) -> None:
    root = ET.fromstring(tab.picture("spectrum"))
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    marks = [node for node in root.iter() if node.get("data-mode")]
    assert len(marks) == len(eigenvalues(written[FIRST, LONG, 50]))
    assert all(node.get("stroke", "").startswith("rgb") for node in marks)
    assert not [node for node in root.iter() if node.get("class")]


@pytest.mark.parametrize(
    ("span", "expected"),
    [(LONG, {"spectrum", "training", "singular", "quality", "betti"}), ("forgetting-0", {"audit"})],
)
def test_every_panel_gives_numbers_and_a_picture(tab: Shown, span: str, expected: set[str]) -> None:
    tab.choose("span", span)
    tab.panel(min(expected)).wait_for()
    assert expected <= set(tab.panels())
    if span == "forgetting-0":
        assert tab.sentence() == (
            "forgotten classes still right 90 % → 70 %, retained classes right 75 % → 75 %."
        )
        tab.keep("tab-forgetting")
    for key in tab.panels():
        assert len(tab.table(key)) > 0, key
        if tab.panel(key).locator("svg").count():
            ET.fromstring(tab.picture(key))
    assert tab.frame.locator(".k-failed").count() == 0
    assert failures(tab.frame) == []


def test_the_files_of_panels_hold_what_was_logged(tab: Shown, written: Written) -> None:
    np.testing.assert_allclose(listed(tab), eigenvalues(written[FIRST, LONG, 50]), rtol=1e-5)
    rows = tab.table("training")
    assert sorted({int(row["step"]) for row in rows}) == list(STEPS)
    moduli = [float(row["modulus"]) for row in rows if row["step"] == "20"]
    values = eigenvalues(written[FIRST, LONG, 20])
    np.testing.assert_allclose(sorted(moduli), sorted(abs(values)), rtol=1e-5, atol=1e-9)
    r2 = written[FIRST, LONG, 50].record.r2
    assert tab.panel("quality").inner_text().count("b.<9>") >= 1
    rows = [row for row in tab.table("quality") if "b.<9>" in row.values() and "50" in row.values()]
    assert any(np.isclose(float(v), r2["b.<9>"]) for row in rows for v in row.values() if number(v))


def number(text: str) -> bool:
    return re.fullmatch(r"-?[0-9.]+(e-?\d+)?", text) is not None


def test_a_training_that_goes_on_leaves_what_the_user_chose(
    tab: Shown, folder: Path, written: Written
) -> None:
    tab.slider.fill("1")
    tab.wait_for(run=FIRST, step=10, modes=5)
    events = EventFolder(folder / FIRST).open(STEPS[-1])
    log(events, fitted(0, 60, LAYERS[LONG]), 60, LONG)
    events.close()
    for _ in range(40):
        tab.page.locator("button[title='Reload'], .reload-button").first.click()
        tab.page.wait_for_timeout(500)
        if tab.count().endswith("of 6"):
            break
    assert tab.count() == "2 of 6"
    assert tab.box.input_value() == "10"
    assert tab.chosen("run") == FIRST
    assert draws(tab, written[FIRST, LONG, 10])


def test_the_tab_fits_wide_and_narrow_windows(tab: Shown) -> None:
    try:
        for width, dark in ((420, False), (420, True), (1500, False), (1500, True)):
            tab.page.set_viewport_size({"width": width, "height": 2600})
            tab.dark(dark)
            over = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
            tab.frame.wait_for_function(f"{over} === 0")
            tab.keep(f"tab-{width}-{'dark' if dark else 'light'}")
        assert failures(tab.frame) == []
    finally:
        tab.dark(False)
        tab.page.set_viewport_size(SIZE)


def test_what_cannot_be_read_is_told_and_the_rest_is_drawn(
    browser: Browser, address: str, written: Written
) -> None:
    page = browser.new_page()
    words = "series 'x' cannot be drawn"
    page.route("**/block?key=*singular*", lambda route: route.fulfill(status=400, body=words))
    tab = opened(page, f"{address}&p.koopman.span={SHORT}")
    told = tab.frame.locator(".k-warning")
    told.wait_for()
    assert told.all_inner_texts() == [
        f"singular_values of run {FIRST} cannot be read: TensorBoard answers 400: {words}"
    ]
    tab.panel("quality").locator("svg").wait_for()
    assert "singular" not in tab.panels()
    assert draws(tab, written[FIRST, SHORT, STEPS[-1]])
    # TensorBoard that is gone when the page is reloaded leaves on it what was there.
    page.route("**/koopman/index", lambda route: route.fulfill(status=500, body="gone"))
    page.locator(".reload-button").first.click()
    tab.frame.wait_for_selector("text=What is logged cannot be read")
    assert draws(tab, written[FIRST, SHORT, STEPS[-1]])
    page.close()


def test_the_slower_loader_shows_the_same_and_the_tab_says_that_it_may_be_a_sample(
    browser: Browser, folder: Path, written: Written
) -> None:
    page = browser.new_page()
    options = ("--load_fast=false", "--samples_per_plugin", f"koopman={len(STEPS)}")
    with tensorboard(folder, *options) as address:
        tab = opened(page, f"{address}#koopman&p.koopman.span={LONG}")
        latest = int(tab.box.input_value())  # the test before may have logged one more
        assert draws(tab, fitted(0, latest, LAYERS[LONG]))
        assert "keeps 5 steps of a series" in tab.frame.locator("footer").inner_text()
        assert tab.told == []
    page.close()


def test_where_nothing_is_logged_the_tab_says_which_call_does(
    browser: Browser, tmp_path: Path
) -> None:
    page = browser.new_page()
    with tensorboard(tmp_path) as address:
        tab = opened(page, f"{address}#koopman", wait_for=".k-first")
        tab.frame.wait_for_selector("text=torchkoopman_tensorboard.log(", timeout=PATIENCE)
        assert tab.told == []
        assert failures(tab.frame) == []
        tab.keep("tab-empty")
    page.close()
