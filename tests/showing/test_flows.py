"""What a look at a flow shows, in series, scalars and an event file."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter
from torchkoopman_tensorboard import EventFolder, log

from tests.integrations.trainings import points
from tests.showing.test_series import named
from torchkoopman.flows import Flow, FlowMonitor
from torchkoopman.showing import series_of

if TYPE_CHECKING:
    from pathlib import Path

    import torchkoopman as tk


class Gain(nn.Module):
    """``tanh(a x)``: two points attract for a above 1, and 0 alone below."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor(2.0, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.a * x)


STARTS = {
    "all": torch.linspace(-1, 1, 30, dtype=torch.float64)[:, None],
    "right": torch.linspace(0.1, 1, 10, dtype=torch.float64)[:, None],
}


def looks() -> list[tk.flows.FlowLook]:
    """With a gain of 2, of 1.5, and of 0.5, where one of two is gone."""
    model, found = Gain(), []
    monitor = FlowMonitor(Flow, STARTS, lambda look, step: found.append(look), log_every=10)
    with monitor.attach(model):
        for step, gain in ((10, 1.5), (20, 0.5)):
            model.a.data.fill_(gain)
            monitor.step(step)
    return found


def test_series_and_scalars_are_those_of_the_look() -> None:
    for look in looks():
        shown = series_of(look)
        assert shown.span == "flow"
        values = named(shown)
        assert values["flow"].shape == (2, 5)
        assert values["flow"][:, 0].tolist() == look.reached.sum(1).tolist()
        assert values["flow"][:, 1].tolist() == look.converged.tolist() == [1, 1]
        assert values["flow"][:, 3:].tolist() == look.chamfer.tolist()
        count = len(look.tracks)
        assert values["changes"][:3].tolist() == [count, len(look.born), len(look.gone)]
        rows = {int(row[0]): row for row in values["attractors"]}
        for k, track in enumerate(look.tracks.tolist()):
            assert rows[track][1] == look.radii[k]
            assert rows[track][2] == look.norms[k]
            assert rows[track][4] == look.basins[:, k].sum() / 40
        assert shown.scalars["attractors"] == count
        assert shown.scalars["largest_radius"] == look.radii.max()
        assert shown.scalars["chamfer/all-right"] == look.chamfer[0, 1]
        assert shown.scalars["attractors_from/right"] == 1
        assert ("moved" in shown.scalars) == (look.step > 0)
    assert [len(look.tracks) for look in looks()] == [2, 2, 1]


def test_only_those_that_most_starts_lead_to_are_shown_of_very_many() -> None:
    def rounded(x: Tensor) -> Tensor:
        return x + 0.5 * (x.round() - x)

    many = torch.arange(400, dtype=torch.float64)[:, None] + 0.1
    monitor = FlowMonitor(lambda m: Flow(rounded), {"a": many, "b": many[7:9] + 0.01}, steps=60)
    with monitor.attach(nn.Identity()):
        shown = series_of(monitor.latest, tag="field")
    assert shown.span == "field"
    values = named(shown)
    assert values["changes"][0] == 400
    assert values["attractors"].shape == (256, 5)
    assert values["attractors"][:2, 4].tolist() == [2 / 402, 2 / 402]


def test_without_an_attractor_there_are_no_rates() -> None:
    with FlowMonitor(lambda m: Flow(lambda x: 2 * x + 1), STARTS).attach(nn.Identity()) as monitor:
        shown = series_of(monitor.latest)
    assert named(shown)["attractors"].shape == (0, 5)
    assert shown.scalars["attractors"] == 0
    assert not {"largest_radius", "moved", "chamfer/all-right"} & set(shown.scalars)
    assert math.isnan(named(shown)["changes"][3])


def test_what_is_logged_is_in_the_event_file(tmp_path: Path) -> None:
    found = looks()
    with SummaryWriter(str(tmp_path / "plain")) as writer:
        for look in found:
            log(writer, look, look.step)
    told = points(tmp_path / "plain")
    assert [step for step, _ in told["koopman/flow/attractors"]] == [0, 10, 20]
    (tag,) = (tag for tag in told if "/flow/attractors.v" in tag)
    assert [len(rows) for _, rows in told[tag]] == [2, 2, 1]
    model = Gain()
    monitor = FlowMonitor(Flow, STARTS, EventFolder(tmp_path / "own"), log_every=10)
    with monitor.attach(model):
        for step, gain in ((10, 1.5), (20, 0.5)):
            model.a.data.fill_(gain)
            monitor.step(step)
    assert repr(sorted(points(tmp_path / "own").items())) == repr(sorted(told.items()))
