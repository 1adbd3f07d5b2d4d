"""Reports: everything that was not passed on is counted, and bad rows are masked out."""

import dataclasses
import re

import pytest
import torch
from torch import Tensor, nn

from torchkoopman.observe.probes import attach
from torchkoopman.observe.trajectory import Trajectory


def identities(count: int = 2) -> nn.Sequential:
    return nn.Sequential(*(nn.Identity() for _ in range(count)))


def test_a_report_counts_calls_rows_and_names_the_layout_taken() -> None:
    model = identities()
    with attach(model, "*") as probe:
        model(torch.zeros(2, 3, 4))
        model(torch.zeros(5, 3, 4))
    first, last = probe.report().streams
    assert (first.layer, last.layer) == ("0", "1")
    assert (first.calls, first.rows, first.shape) == (2, 21, (5, 3, 4))
    assert first.layout == "batch positions features -> batch positions features"
    text = str(probe.report())
    assert "2 forward passes, 2 trajectories" in text
    assert re.search(r"^0 +5 × 3 × 4 +2 +21 +0 +'batch positions", text, re.MULTILINE)


def test_a_report_is_a_value_that_later_passes_do_not_change() -> None:
    model = identities()
    with attach(model, "*") as probe:
        before = probe.report()
        model(torch.zeros(2, 4))
    assert before.forwards == 0
    assert before.never_fired == ("0", "1")
    assert "never fired: '0', '1'" in str(before)
    with pytest.raises(dataclasses.FrozenInstanceError):
        before.forwards = 3  # type: ignore[misc]


def test_rows_that_are_not_finite_are_masked_zeroed_and_counted() -> None:
    class Spoil(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            x = x.clone()
            x[0, 1, 2], x[1, 0, 0] = torch.nan, -torch.inf
            return x

    model, got = nn.Sequential(nn.Identity(), Spoil()), list[Trajectory]()
    with attach(model, "*") as probe:
        probe.stream_to(got.append)
        model(torch.ones(2, 3, 4))
    expected = torch.tensor([[True, False, True], [False, True, True]])
    assert torch.equal(got[0].full_mask(), expected)
    assert torch.equal(got[0].states["1"], expected[..., None].expand(-1, -1, 4).float())
    report = probe.report()
    assert report.dropped_rows == 2
    assert [stream.not_finite for stream in report.streams] == [0, 2]
    assert [stream.rows for stream in report.streams] == [4, 4]
    assert "2 rows dropped because not finite" in str(report)
    assert re.search(r"^1 +2 × 3 × 4 +1 +4 +2 ", str(report), re.MULTILINE)


def test_padding_that_is_not_finite_is_not_a_dropped_row() -> None:
    tokens, mask = torch.ones(2, 3, 4), torch.tensor([[1, 1, 0], [1, 1, 1]])
    tokens[0, 2], tokens[1, 2] = torch.nan, torch.nan
    model, got = identities(), list[Trajectory]()
    with attach(model, "*") as probe, probe.mask(mask):
        probe.stream_to(got.append)
        model(tokens)
    assert got[0].full_mask().tolist() == [[True, True, False], [True, True, False]]
    assert probe.report().dropped_rows == 1


def test_a_width_that_changes_is_refused_with_both_widths() -> None:
    model = identities()
    with attach(model, "*"):
        model(torch.zeros(2, 4))
        with pytest.raises(ValueError, match="layer '0' gave 6 features, but 4 before"):
            model(torch.zeros(2, 6))


def test_a_stream_by_call_has_a_width_of_its_own() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.act = nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            return self.act(torch.cat([self.act(x), x], -1))  # type: ignore[no-any-return]

    model = Twice()
    with attach(model, "act") as probe:
        model(torch.zeros(2, 4)), model(torch.zeros(2, 4))
    assert [stream.shape for stream in probe.report().streams] == [(2, 1, 4), (2, 1, 8)]
    assert [stream.calls for stream in probe.report().streams] == [2, 2]


def test_empty_batches_are_counted_and_pass_nothing_on() -> None:
    model = identities()
    with attach(model, "*") as probe:
        model(torch.zeros(0, 4))
        model(torch.zeros(2, 4))
    report = probe.report()
    assert report.skipped == {"empty batch": 2}
    assert (report.forwards, report.trajectories, report.unpaired) == (2, 1, 0)
    assert "skipped layer calls: 2 empty batch" in str(report)


def test_a_state_without_features_is_no_empty_batch() -> None:
    model = identities()
    with attach(model, "*") as probe:
        model(torch.zeros(2, 0, 4))  # no positions: nothing to pass on
        with pytest.raises(
            ValueError, match=r"layer '0' gave \(2, 3, 0\), states without features"
        ):
            model(torch.zeros(2, 3, 0))
    assert probe.report().skipped == {"empty batch": 2}


@pytest.mark.parametrize("when", ["train", "eval"])
def test_only_passes_in_the_mode_asked_for_are_taken(when: str) -> None:
    model, got = identities(), list[Trajectory]()
    with attach(model, "*", when=when) as probe:  # type: ignore[arg-type]
        probe.stream_to(got.append)
        model.train()(torch.zeros(2, 4))
        model.eval()(torch.zeros(3, 4))
    assert [each.batch for each in got] == [2 if when == "train" else 3]
    assert probe.report().skipped == {"mode": 2}


def test_hooks_that_somebody_else_removed_are_reported_lost() -> None:
    model = identities()
    with attach(model, "*") as probe:
        model[1]._forward_hooks.clear()
        assert probe.report().lost_hooks == ("1",)
        model._forward_hooks.clear()
        assert probe.report().lost_hooks == ("1", "")
        assert "lost hooks on: '1', ''" in str(probe.report())
    assert probe.report().lost_hooks == ("1", "")


@pytest.mark.parametrize("layer", ["1", ""])
def test_a_stream_that_ended_with_its_hooks_is_warned_of(layer: str) -> None:
    model, got = identities(), list[Trajectory]()
    probe = attach(model, "*").stream_to(got.append)
    model(torch.zeros(2, 4))
    model.get_submodule(layer)._forward_hooks.clear()
    model(torch.zeros(2, 4)), model(torch.zeros(2, 4))
    with pytest.warns(
        RuntimeWarning, match=f"removed the probe's hooks from '{layer}'.*1 traj.* 3 "
    ):
        probe.detach()
    report = probe.report()
    assert len(got) == 1
    assert report.unpaired + report.interrupted == 2
