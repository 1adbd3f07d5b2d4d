"""Runs of siblings, by classes alone; no model is run."""

import pytest
from torch import nn

from torchkoopman.inspecting.runs import runs_of


class Block(nn.Module):
    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))


def found(model: nn.Module) -> set[str]:
    return {str(run) for run in runs_of(model)}


@pytest.mark.parametrize(
    ("model", "runs"),
    [
        (nn.ModuleList([Block(), Block()]), "'0' … '1' (2 × Block)"),
        (
            nn.Sequential(*(m for _ in range(3) for m in (nn.Linear(2, 2), nn.Tanh())), Block()),
            "'1' … '5' (3 × (Linear, Tanh))",
        ),
        (
            nn.Sequential(
                nn.Flatten(),
                *(m for _ in range(2) for m in (nn.Linear(2, 2), nn.LayerNorm(2), nn.ReLU())),
                nn.Linear(2, 2),
            ),
            "'3' … '6' (2 × (Linear, LayerNorm, ReLU))",
        ),
        (
            nn.Sequential(nn.Sequential(nn.Linear(2, 2)), nn.Sequential(nn.Linear(2, 2))),
            "'0' … '1' (2 × Sequential)",
        ),
    ],
)
def test_a_run_goes_as_far_as_its_classes_repeat(model: nn.Module, runs: str) -> None:
    assert runs in found(model)


def test_the_last_of_each_period_is_the_layer_and_what_is_over_is_left() -> None:
    pattern = [m for _ in range(4) for m in (nn.Linear(2, 2), nn.Tanh())]
    (run,) = runs_of(nn.Sequential(*pattern, nn.Linear(2, 2)))
    assert run.layers == ("1", "3", "5", "7")
    assert run.blocks[0] == ("0", "1")


def test_a_pattern_is_no_multiple_of_a_shorter_one() -> None:
    kinds = {run.kinds for run in runs_of(nn.Sequential(*(nn.Linear(2, 2) for _ in range(8))))}
    assert kinds == {("Linear",)}


def test_what_holds_no_parameters_or_never_runs_is_no_block() -> None:
    assert runs_of(nn.Sequential(nn.Tanh(), nn.Tanh())) == []
    lists = nn.ModuleList([nn.ModuleList([nn.Linear(2, 2), nn.Tanh()]) for _ in range(3)])
    assert runs_of(lists) == []


def test_parameters_that_blocks_share_count_once() -> None:
    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    second.weight = first.weight
    (run,) = runs_of(nn.Sequential(first, second))
    assert run.parameters == 16 + 4 + 4


def test_a_run_lies_within_the_blocks_of_another() -> None:
    runs = runs_of(nn.ModuleDict({"b": nn.ModuleList([Block(), Block()])}))
    outer = next(run for run in runs if run.kinds == ("Block",))
    inner = [run for run in runs if run is not outer]
    assert len(inner) == 2
    assert all(run.within(outer) and not outer.within(run) for run in inner)
