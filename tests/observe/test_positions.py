"""Sampled positions are rows; the others stay neighbours of what looks along them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import torchkoopman as tk
from torchkoopman.observe.trajectory import Trajectory

BATCH, POSITIONS, FEATURES, KEPT = 16, 12, 3, 4


class Along(nn.Module):
    """Ends in an affine function of each position and its two neighbours, or of the mean of all."""

    def __init__(self, mean: bool = False) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.start, self.end = nn.Identity(), nn.Identity()
        self.weights = [torch.randn(FEATURES, FEATURES, generator=generator) for _ in range(3)]
        self.mean = mean

    def forward(self, x: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        x = self.start(x)
        here = torch.arange(x.shape[1])
        left, right = (x[:, (here + by).clamp(0, x.shape[1] - 1)] for by in (-1, 1))
        if self.mean:
            known = torch.ones(x.shape[:2]) if attention_mask is None else attention_mask
            known = known[..., None].to(x)
            left = right = ((x * known).sum(1, keepdim=True) / known.sum(1, keepdim=True)) + 0 * x
        moved = x @ self.weights[0] + left @ self.weights[1] + right @ self.weights[2]
        out: Tensor = self.end(moved + 1)
        return out


def batches(count: int = 12, masked: bool = False) -> list[Any]:
    generator = torch.Generator().manual_seed(1)
    found: list[Any] = []
    for _ in range(count):
        x = torch.randn(BATCH, POSITIONS, FEATURES, generator=generator)
        lengths = torch.randint(6, POSITIONS + 1, (BATCH, 1), generator=generator)
        mask = (torch.arange(POSITIONS) < lengths).long()
        found.append({"x": x, "attention_mask": mask} if masked else x)
    return found


def fit(model: nn.Module, loader: list[Any], part: Any, **options: Any) -> tk.Surrogate:
    options = {"method": tk.EDMDFitter(part, calibration=200), "progress": False, **options}
    return tk.fit(model, loader, ["start", "end"], positions=KEPT, **options)


def test_a_listener_is_given_full_states_and_which_positions_are_rows() -> None:
    model, x, got = Along(), batches(1)[0], list[Trajectory]()
    with tk.attach(model, ["start", "end"], positions=KEPT) as probe:
        probe.stream_to(got.append)
        end = model(x)
    (seen,) = got
    assert torch.equal(seen.states["start"], x)
    assert torch.equal(seen.states["end"], end)
    assert seen.chosen is not None
    assert seen.chosen.shape == (BATCH, KEPT)
    where = seen.chosen[0]
    assert torch.equal(seen.rows()["end"], end[:, where].flatten(0, 1))
    assert int(seen.counted().sum()) == BATCH * KEPT
    assert torch.equal(seen.sampled().states["start"], x[:, where])
    assert probe.report().streams[0].rows == BATCH * KEPT


def test_a_listener_that_looks_at_each_row_alone_is_given_these_rows_alone() -> None:
    """Nobody then pays for a copy of the others; and the rows are the same ones."""

    class Alone:
        contextual = False

        def __init__(self) -> None:
            self.seen: list[Trajectory] = []

        def update(self, trajectory: Trajectory) -> None:
            self.seen.append(trajectory)

    model, alone, whole = Along(), Alone(), list[Trajectory]()
    for listeners in ([alone], [whole.append]):
        with tk.attach(model, ["start", "end"], positions=KEPT) as probe:
            probe.stream_to(*listeners)
            model(batches(1)[0])
    assert alone.seen[0].states["start"].shape == (BATCH, KEPT, FEATURES)
    for layer, rows in whole[0].rows().items():
        assert torch.equal(alone.seen[0].rows()[layer], rows)


@pytest.mark.parametrize("fitter", [tk.DMDFitter(), tk.AutoencoderFitter(4), tk.EDMDFitter()])
def test_fitters_of_single_rows_need_no_others(fitter: Any) -> None:
    assert fitter.contextual is False


def test_neighbours_are_neighbours_whatever_positions_are_sampled() -> None:
    """Sampled first, the neighbours would be other positions: R² would be .06 of what is exact."""
    model, loader = Along(), batches()
    surrogate = fit(model, loader, tk.Neighbours())
    assert surrogate.record.rows <= 12 * BATCH * KEPT
    assert surrogate.record.held_out["end"] > 1 - 1e-8
    assert surrogate.record.r2["end"] > 1 - 1e-8
    again = tk.evaluate(surrogate, model, batches(2), positions=KEPT)
    assert again.rows == 2 * BATCH * KEPT
    assert again.r2 > 1 - 1e-8


def test_the_mean_of_a_sample_is_that_of_all_its_positions_that_count() -> None:
    surrogate = fit(Along(mean=True), batches(masked=True), tk.ContextMean())
    assert surrogate.record.held_out["end"] > 1 - 1e-8


def test_spans_are_ranked_with_the_neighbours_that_there_are() -> None:
    ranking = tk.rank_spans(
        Along(),
        batches(),
        ["start", "end"],
        observables=tk.Neighbours(),
        positions=KEPT,
        progress=False,
    )
    assert ranking.rows == 12 * BATCH * KEPT
    assert ranking.spans[0].r2 > 1 - 1e-6


def test_topology_predicts_rows_from_their_own_neighbours() -> None:
    model, loader = Along(), batches()
    surrogate = fit(model, loader, tk.Neighbours())
    found = surrogate.topology(
        model, loader, points=80, dimensions=(0,), bootstrap=2, positions=KEPT
    )
    network, predicted = found.layers[-1].curves[0]
    assert found.rows == 80
    apart = torch.as_tensor(network.values) - torch.as_tensor(predicted.values)
    assert apart.abs().max() <= 1  # of 80 components: a distance at a scale falls to either side


def test_chosen_positions_survive_selection_and_concatenation() -> None:
    states = {"a": torch.arange(24.0).reshape(2, 4, 3)}
    mask = torch.tensor([[True, False, True, True], [True, True, True, True]])
    first = Trajectory(states, torch.tensor([0, 1]), mask, chosen=torch.tensor([[0, 1], [0, 1]]))
    second = Trajectory(states, torch.tensor([2, 3]), chosen=torch.tensor([[2, 3], [2, 3]]))
    both = Trajectory.concatenate([first, second])
    expected = torch.cat([first.rows()["a"], second.rows()["a"]])
    assert torch.equal(both.rows()["a"], expected)
    assert torch.equal(states["a"].repeat(2, 1, 1)[both.counted()], expected)
    labels = both.row_labels()
    assert labels is not None
    assert labels.tolist() == [0, 1, 1, 2, 2, 3, 3]
    assert torch.equal(both.select(torch.tensor([2])).rows()["a"], states["a"][0, 2:])
    assert torch.equal(both.sampled().rows()["a"], expected)
    with pytest.raises(ValueError, match="some of these trajectories are of chosen positions"):
        Trajectory.concatenate([first, Trajectory(states)])
    with pytest.raises(ValueError, match=r"chosen has shape \(2,\)"):
        Trajectory(states, chosen=torch.tensor([0, 1]))
