"""What the panels cost whoever looks: ``python -m benchmarks.costs.panels``.

A log of 1000 steps of 64 modes of 4 spans, its spectra drifting like those of a training, is shown
by TensorBoard and as a report. Measured in Chromium: from the click on the tab (from opening the
file) to the first frame with the spectrum in it, and to the last panel; from a move of the slider
until all panels that follow it are painted; and the size of the file. Of several turns, the median
and the largest.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from torchkoopman_tensorboard import report

from benchmarks.panels.browsers import chromium, tensorboard
from benchmarks.panels.drifting import drifting
from benchmarks.panels.logs import logged

if TYPE_CHECKING:
    from collections.abc import Sequence

    from playwright.sync_api import Browser, Frame, Page

FIRST_PAINT, MOVE, SIZE = 3.0, 0.05, 5e6
"""Goals: seconds, seconds, bytes."""
WINDOW = {"width": 1400, "height": 1000}
SPECTRUM = '[data-panel="spectrum"] .k-mode[data-mode]'
QUALITY = '[data-panel="quality"] svg'
MOVES = """async (moves) => {
  const slider = document.querySelector("input.k-slider");
  const frame = () => new Promise(requestAnimationFrame);
  const task = () => new Promise((done) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = done;
    port2.postMessage(null);
  });
  const taken = [];
  for (const position of moves) {
    await frame();
    await task();
    const start = performance.now();
    slider.value = position;
    slider.dispatchEvent(new Event("input"));
    // Panels are drawn in the next frame; a task after that begins when it is laid out and painted.
    await frame();
    await task();
    taken.push((performance.now() - start) / 1000);
  }
  return taken;
}"""


def main() -> None:
    """Print the figures, and whether they are as good as they should be."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--modes", type=int, default=64)
    parser.add_argument("--turns", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as made, chromium() as browser:
        folder = Path(made)
        logged(drifting(given.steps, given.modes), folder / "runs")
        print(f"{given.steps} steps, {given.modes} modes, 4 spans; median (largest)\n")
        for loader in ("auto", "false"):
            with tensorboard(folder / "runs", f"--load_fast={loader}") as address:
                _wait_until_loaded(browser, address, given.steps)
                turns = [in_tab(browser, address) for _ in range(given.turns)]
            told(f"tab, --load_fast={loader}", turns)
        start = time.perf_counter()
        path = report(folder / "runs", folder / "report.html")
        print(f"report written in {time.perf_counter() - start:.1f} s: ", end="")
        print(verdict(path.stat().st_size / 1e6, SIZE / 1e6, "MB"))
        told("report", [in_file(browser, path) for _ in range(given.turns)])


def told(name: str, turns: Sequence[tuple[float, float, list[float]]]) -> None:
    """A line of figures."""
    paints, everything, moves = zip(*turns, strict=True)
    every = [each for taken in moves for each in taken]
    print(
        f"{name}: spectrum after {median(paints):.2f} s, {verdict(max(paints), FIRST_PAINT, 's')}; "
        f"all panels after {median(everything):.2f} s; slider move "
        f"{1000 * median(every):.0f} ms, {verdict(1000 * max(every), 1000 * MOVE, 'ms')}"
    )


def verdict(value: float, goal: float, unit: str) -> str:
    """A figure beside its goal."""
    return f"{value:.3g} {unit} ({'below' if value < goal else 'NOT below'} {goal:g})"


def in_tab(browser: Browser, address: str) -> tuple[float, float, list[float]]:
    """Seconds from the click on the tab to the spectrum, to all panels, and of slider moves."""
    page = browser.new_page(viewport=WINDOW)  # type: ignore[arg-type]
    page.goto(f"{address}#timeseries")
    tab = page.get_by_role("tab", name="Koopman")
    tab.wait_for()
    start = time.perf_counter()
    tab.click()
    element = page.wait_for_selector('iframe[src*="name=koopman"]', state="attached")
    frame = element.content_frame() if element else None
    assert frame is not None
    return _measured(page, frame, start)


def in_file(browser: Browser, path: Path) -> tuple[float, float, list[float]]:
    """The same from opening a file."""
    page = browser.new_page(viewport=WINDOW)  # type: ignore[arg-type]
    start = time.perf_counter()
    page.goto(path.as_uri(), wait_until="commit")
    return _measured(page, page.main_frame, start)


def _measured(page: Page, frame: Frame, start: float) -> tuple[float, float, list[float]]:
    frame.wait_for_selector(SPECTRUM, state="attached")
    first = time.perf_counter() - start
    frame.wait_for_selector(QUALITY, state="attached")
    everything = time.perf_counter() - start
    page.wait_for_timeout(1000)  # everything that was drawn is on the screen, and settled
    last = int(frame.locator("input.k-slider").get_attribute("max") or 0)
    moves = [k * last // 40 for k in (*range(0, 40, 2), *range(39, 0, -2))]
    taken: list[float] = frame.evaluate(MOVES, moves)
    page.close()
    return first, everything, taken


def _wait_until_loaded(browser: Browser, address: str, steps: int) -> None:
    """TensorBoard reads the log behind the scenes; the tab counts the steps that it has."""
    page = browser.new_page()
    count = f"of {steps}"
    for _ in range(120):
        page.goto(f"{address}?again={time.time()}#koopman")
        element = page.wait_for_selector('iframe[src*="name=koopman"]')
        frame = element.content_frame() if element else None
        if frame is not None and frame.get_by_text(count).count():
            break
        page.wait_for_timeout(1000)
        if frame is not None and frame.get_by_text(count).count():
            break
    page.close()


if __name__ == "__main__":
    main()
