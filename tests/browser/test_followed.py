"""A whole training followed in the tab: broken off and resumed it shows as one that was not."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn
from torchkoopman_tensorboard import EventFolder

import torchkoopman as tk
from benchmarks.panels.browsers import tensorboard
from tests.browser.browsing import chromium, opened
from tests.systems import normal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.browser.browsing import Shown

STEPS, EVERY, SAVED, BROKEN = 60, 10, 30, 47
LAYERS = ["0", "2", "4"]


class Training:
    """A small network, its optimiser, and a monitor that logs into a folder."""

    def __init__(self, folder: Path) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            blocks = [layer for _ in range(3) for layer in (nn.Linear(6, 6), nn.Tanh())]
            self.model = nn.Sequential(*blocks).train()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.05)
        fitter = tk.DMDFitter(4, halflife=200)
        log = EventFolder(folder)
        self.monitor = tk.TrainingMonitor(LAYERS, log, fitter, sample_every=1, log_every=EVERY)

    def run(self, first: int, last: int) -> dict[str, Any]:
        """Steps after ``first`` up to ``last``; what a checkpoint at ``SAVED`` holds, if passed."""
        saved: dict[str, Any] = {}
        with self.monitor.attach(self.model, first):
            for step in range(first + 1, last + 1):
                batch = normal(64, 6, seed=step)
                self.optimizer.zero_grad()
                (self.model(batch) - batch.roll(1, 1)).square().mean().backward()
                self.optimizer.step()
                self.monitor.step()
                if step == SAVED:
                    saved = copy.deepcopy(self.state())
        return saved

    def state(self) -> dict[str, Any]:
        return {
            name: getattr(self, name).state_dict() for name in ("model", "optimizer", "monitor")
        }

    def load(self, state: dict[str, Any]) -> None:
        for name, part in state.items():
            getattr(self, name).load_state_dict(part)


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    folder = tmp_path_factory.mktemp("followed")
    Training(folder / "whole").run(0, STEPS)
    saved = Training(folder / "resumed").run(0, BROKEN)  # 40 is logged, and comes again
    again = Training(folder / "resumed")
    again.load(saved)
    again.run(SAVED, STEPS)
    with chromium() as browser, tensorboard(folder) as address:
        yield opened(browser.new_page(), f"{address}#koopman")


def rows(tab: Shown, run: str, panel: str) -> list[dict[str, str]]:
    tab.choose("run", run)
    tab.frame.wait_for_function(
        "run => document.querySelector('select[data-choice=\"run\"]').value === run", arg=run
    )
    tab.panel(panel).locator("svg").wait_for()
    found = tab.table(panel)
    assert {row["run"] for row in found} == {run}
    return [{name: cell for name, cell in row.items() if name != "run"} for row in found]


def test_a_resumed_training_shows_each_step_once_with_the_modes_of_an_unbroken_one(
    tab: Shown,
) -> None:
    whole = rows(tab, "whole", "training")
    resumed = rows(tab, "resumed", "training")
    assert sorted({int(row["step"]) for row in whole}) == list(range(EVERY, STEPS + 1, EVERY))
    assert resumed == whole, "λ, residuals, energies, trust and tracks, to the last digit"
    assert any(row["track"] for row in whole), "modes are followed across the break"
    assert tab.count() == "6 of 6"


def test_its_quality_and_singular_values_are_those_of_an_unbroken_one(tab: Shown) -> None:
    for panel in ("quality", "singular"):
        assert rows(tab, "resumed", panel) == rows(tab, "whole", panel)


def test_the_modes_at_the_end_have_tails_that_cross_the_break(tab: Shown) -> None:
    tab.choose("run", "resumed")
    tab.go(STEPS)
    tails = tab.panel("spectrum").locator("path.k-tail")
    assert tails.count() > 0
    longest = max(
        tails.evaluate_all(
            "nodes => nodes.map((node) => node.getAttribute('d').split(/[ML]/).length - 1)"
        )
    )
    assert longest > (STEPS - SAVED) / EVERY
