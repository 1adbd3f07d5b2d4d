"""Trajectories: rows of all layers stay the same points."""

import pytest
import torch

from torchkoopman.observe.trajectory import Trajectory
from torchkoopman.observe.views import View

STATES = {"first": torch.arange(24.0).reshape(2, 3, 4), "last": torch.arange(12.0).reshape(2, 3, 2)}
MASK = torch.tensor([[True, True, False], [True, False, False]])
LABELS = torch.tensor([7, 9])


def test_rows_without_a_mask_are_all_samples_and_positions() -> None:
    rows = Trajectory(STATES).rows()
    assert torch.equal(rows["first"], STATES["first"].reshape(6, 4))
    assert torch.equal(rows["last"], STATES["last"].reshape(6, 2))


def test_masked_rows_drop_out_of_every_layer_and_of_the_labels() -> None:
    trajectory = Trajectory(STATES, LABELS, MASK)
    assert torch.equal(trajectory.rows()["first"], STATES["first"][MASK])
    assert torch.equal(trajectory.rows()["last"], STATES["last"][MASK])
    labels = trajectory.row_labels()
    assert labels is not None
    assert labels.tolist() == [7, 7, 9]


def test_every_position_has_the_class_of_its_sample() -> None:
    labels = Trajectory(STATES, LABELS).row_labels()
    assert labels is not None
    assert labels.tolist() == [7, 7, 7, 9, 9, 9]
    assert Trajectory(STATES).row_labels() is None


def test_bare_matrices_have_one_position_and_are_named_in_order() -> None:
    trajectory = Trajectory.of(torch.zeros(5, 3), torch.zeros(5, 1, 2))
    assert trajectory.layers == ("0", "1")
    assert (trajectory.batch, trajectory.positions) == (5, 1)


def test_concatenating_selections_restores_the_whole() -> None:
    whole = Trajectory(STATES, LABELS, MASK, inputs=(((2, 3), "int64"),))
    parts = [whole.select(torch.tensor([index])) for index in range(2)]
    again = Trajectory.concatenate(parts)
    for layer in whole.layers:
        assert torch.equal(again.states[layer], whole.states[layer])
    assert again.labels is not None
    assert torch.equal(again.labels, LABELS)
    assert torch.equal(again.full_mask(), MASK)
    assert again.inputs == whole.inputs


def test_concatenating_with_an_unmasked_part_counts_all_of_its_rows() -> None:
    both = Trajectory.concatenate([Trajectory(STATES, mask=MASK), Trajectory(STATES)])
    assert torch.equal(both.full_mask(), torch.cat([MASK, torch.ones_like(MASK)]))


def test_concatenating_with_an_unlabelled_part_has_no_labels() -> None:
    both = Trajectory.concatenate([Trajectory(STATES, LABELS), Trajectory(STATES)])
    assert both.labels is None


def test_selecting_by_a_boolean_keeps_samples_labels_and_masks_together() -> None:
    chosen = Trajectory(STATES, LABELS, MASK).select(LABELS == 9)
    assert torch.equal(chosen.states["last"], STATES["last"][1:])
    assert torch.equal(chosen.full_mask(), MASK[1:])
    assert chosen.labels is not None
    assert chosen.labels.tolist() == [9]


def test_layers_of_different_resolution_are_refused() -> None:
    states = {"a": torch.zeros(2, 3, 4), "b": torch.zeros(2, 5, 4)}
    with pytest.raises(ValueError, match=r"'a': \(2, 3, 4\).*'b': \(2, 5, 4\).*flatten"):
        Trajectory(states)


def test_an_empty_or_flat_trajectory_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one layer"):
        Trajectory({})
    with pytest.raises(ValueError, match="batch, positions, features"):
        Trajectory({"a": torch.zeros(2, 3)})


def test_labels_and_masks_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"labels have shape \(3,\).*batch of 2"):
        Trajectory(STATES, torch.zeros(3, dtype=torch.long))
    with pytest.raises(TypeError, match="integer classes"):
        Trajectory(STATES, torch.zeros(2))
    with pytest.raises(ValueError, match=r"mask has shape \(2, 4\).*\(2, 3\)"):
        Trajectory(STATES, mask=torch.ones(2, 4, dtype=torch.bool))


def test_views_go_with_their_layers_and_not_with_stacked_states() -> None:
    states = {name: torch.ones(2, 3, 4) for name in "abc"}
    views = {name: View.of(states[name], None, None, name)[0] for name in "ab"}
    whole = Trajectory(states, views=views)
    assert whole.only(["c", "b"]).views == {"b": views["b"]}
    assert whole.select(torch.tensor([1])).views == views
    assert Trajectory.concatenate([whole, whole]).views == views
    assert whole.delayed(1).views == {}


def test_all_of_a_trajectory_goes_to_a_device() -> None:
    plain = Trajectory(
        {"a": torch.ones(2, 3, 1), "b": torch.ones(2, 3, 1)},
        labels=torch.tensor([0, 1]),
        mask=torch.ones(2, 3, dtype=torch.bool),
        chosen=torch.tensor([[0], [2]]),
    )
    moved = plain.to(torch.device("meta"))
    for tensor in (*moved.states.values(), moved.labels, moved.mask, moved.chosen):
        assert tensor is not None
        assert tensor.is_meta
