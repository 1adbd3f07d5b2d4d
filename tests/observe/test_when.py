"""``when``: in a training with validation passes, which passes are taken, and what is counted."""

import pytest
import torch
from torch import Tensor, nn

from torchkoopman.observe.capture import When
from torchkoopman.observe.probes import attach
from torchkoopman.observe.trajectory import Trajectory


def network() -> nn.Sequential:
    """The second layer drops features in training, so that the mode can be told."""
    return nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 2))


def train_and_validate(model: nn.Module, seen: list[Trajectory], when: When) -> tuple[int, str]:
    """Three epochs of four training passes and two validation passes."""
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    with attach(model, ["0", "1"], when=when) as probe:
        probe.stream_to(seen.append)
        for _ in range(3):
            model.train()
            for _ in range(4):
                optimiser.zero_grad()
                model(torch.randn(20, 3)).square().mean().backward()  # type: ignore[no-untyped-call]
                optimiser.step()
            model.eval()
            with torch.no_grad():
                for _ in range(2):
                    model(torch.randn(20, 3))
        report = probe.report()
    assert report.forwards == 18
    assert report.trajectories == len(seen)
    assert report.unpaired == report.interrupted == 0
    return report.skipped.get("mode", 0), str(report)


def dropped(trajectory: Trajectory) -> bool:
    """Whether dropout was at work: the mode of the pass itself."""
    before, after = trajectory.states.values()
    equal: Tensor = before == after
    return not bool(equal.all())


@pytest.mark.parametrize(
    ("when", "passes", "training"),
    [
        ("always", 18, [True, True, True, True, False, False] * 3),
        ("train", 12, [True] * 12),
        ("eval", 6, [False] * 6),
    ],
)
def test_passes_are_taken_by_the_mode_they_run_in_and_the_others_are_counted(
    when: When, passes: int, training: list[bool]
) -> None:
    torch.manual_seed(0)
    seen: list[Trajectory] = []
    skipped, text = train_and_validate(network(), seen, when)
    assert len(seen) == passes
    assert [dropped(each) for each in seen] == training
    assert skipped == 2 * (18 - passes), "each of the two layers, in each pass left out"
    assert ("mode" in text) == (skipped > 0)


def test_the_first_pass_that_mixes_the_modes_is_warned_of_unless_it_was_asked_for() -> None:
    model, seen = network().train(), list[Trajectory]()
    with attach(model, ["0", "1"]) as probe:
        probe.stream_to(seen.append)
        model(torch.randn(5, 3)), model(torch.randn(5, 3))
        model.eval()
        with pytest.warns(RuntimeWarning, match=r"eval mode joins.*when='train'.*when='always'"):
            model(torch.randn(5, 3))
        model.train()(torch.randn(5, 3))
        report = probe.report()
    assert len(seen) == 4
    assert report.modes == {"train": 3, "eval": 1}
    assert "taken in both: 3 trajectories in training, 1 in evaluation" in str(report)


def test_the_mode_that_counts_is_that_of_the_outermost_module_not_of_a_frozen_layer() -> None:
    """Fine-tuning leaves some layers in eval mode while the model trains."""
    model, seen = network().train(), list[Trajectory]()
    model[0].eval()
    with attach(model, ["0", "1"], when="train") as probe:
        probe.stream_to(seen.append)
        model(torch.randn(5, 3))
        model.eval()
        model(torch.randn(5, 3))
    assert len(seen) == 1
    assert dropped(seen[0])
