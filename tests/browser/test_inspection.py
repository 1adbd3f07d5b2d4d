"""The page of an inspection in a real Chromium: one slider over the blocks, and the tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

import torchkoopman as tk
from tests.browser.browsing import PATIENCE, SPECTRUM, Shown, chromium, failures, listening, until
from tests.systems import normal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser

    from torchkoopman.results import Inspection


class Dead(nn.Linear):
    """A layer that says nothing, so that two blocks have no map."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 0 * super().forward(x)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def inspection() -> Inspection:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        blocks = [m for _ in range(4) for m in (nn.Linear(3, 3), nn.Tanh())]
        blocks[6] = Dead(3, 3)
        model = nn.Sequential(*blocks)
    batches = [normal(60, 3, seed=k) for k in range(4)]
    return tk.inspect(model, batches, ["1", "3", "5", "7"], points=20, progress=False)


@pytest.fixture
def shown(browser: Browser, inspection: Inspection, tmp_path: Path) -> Iterator[Shown]:
    path = inspection.report(tmp_path / "net.html", title="A <small> network")
    opened = browser.new_page(viewport={"width": 1300, "height": 1600})
    told = listening(opened)
    opened.goto(path.as_uri())
    opened.wait_for_selector(SPECTRUM, timeout=PATIENCE)
    yield Shown(opened, opened.main_frame, told)
    opened.close()
    assert told == []


def test_the_slider_goes_over_the_blocks(shown: Shown, inspection: Inspection) -> None:
    assert shown.page.title() == "A <small> network"
    assert shown.chosen("span") == "blocks"
    assert shown.count() == "3 of 3"
    first, second, last = inspection.blocks
    assert last.spectrum is None
    # Nothing, and not the spectrum of the block before.
    until(lambda: shown.sentence().startswith("no mode was kept"))
    for position, block in enumerate((first, second)):
        shown.slider.fill(str(position))
        name = f"{block.start} → {block.end}"
        until(lambda name=name: shown.box.input_value() == name)  # type: ignore[misc]
        assert shown.sentence().startswith(f"{block.trusted} of 4 modes trusted")
        assert f"R² {block.r2:.3g}" in shown.sentence()


def test_tables_say_what_the_printed_inspection_says(shown: Shown, inspection: Inspection) -> None:
    rows = shown.table("table:1 blocks")
    table = inspection.table()
    assert [list(row.values()) for row in rows] == [list(row) for row in table.rows]
    skipped = shown.table("table:3 skipped")
    assert [row["why"] for row in skipped] == [each.why for each in inspection.skipped]
    assert inspection.found in shown.panel("table:1 blocks").inner_text()


def test_the_page_is_accessible_and_narrow_enough_for_a_phone(shown: Shown) -> None:
    assert failures(shown.frame) == []
    shown.page.set_viewport_size({"width": 390, "height": 800})
    fits = "document.documentElement.scrollWidth <= innerWidth"
    until(lambda: shown.page.evaluate(fits))  # once it is drawn anew
    shown.keep("inspection-narrow")
