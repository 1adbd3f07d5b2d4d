"""Copies: what they share with the model, what they own, and what writes into it is found."""

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.systems import rows
from torchkoopman.surgery.copies import (
    SMALL,
    Trespass,
    Workbench,
    full_copy,
    proof_copy,
    sharing_copy,
)

Copy = Callable[[nn.Module], Any]
COPIES: list[Copy] = [full_copy, proof_copy, sharing_copy]


class Model(nn.Module):
    """Tied parameters, a frozen one, a buffer, and attributes of two kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
        self.b.weight = self.a.weight
        self.b.bias.requires_grad_(False)
        self.norm = nn.BatchNorm1d(4)
        self.register_buffer("steps", torch.zeros(1))
        self.notes, self.kept = {"calls": 0}, torch.ones(2)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.b(torch.tanh(self.a(x))))


class Kept(nn.Module):
    """Keeps what it computed, with its history."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.kept = nn.Linear(4, 4), dict[str, Any]()

    def forward(self, x: Tensor) -> Tensor:
        self.kept["out"] = [self.fc(x)]
        out: Tensor = self.kept["out"][0]
        return out


class Momentum(nn.Module):
    """Writes into its second layer's weight and into a buffer, at each call."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.slow = nn.Linear(4, 4), nn.Linear(4, 4)
        self.register_buffer("steps", torch.zeros(1))

    @torch.no_grad()
    def _follow(self) -> None:
        self.slow.weight.lerp_(self.a.weight, 0.5)
        self.steps += 1

    def forward(self, x: Tensor) -> Tensor:
        self._follow()
        out: Tensor = self.slow(self.a(x))
        return out


def share(one: Tensor, two: Tensor) -> bool:
    return one.untyped_storage().data_ptr() == two.untyped_storage().data_ptr()


def memory(model: nn.Module) -> set[int]:
    held = (*model.parameters(), *model.buffers())
    return {each.untyped_storage().data_ptr() for each in held}


@pytest.mark.parametrize("copied", COPIES)
def test_a_copy_does_what_the_model_does_and_owns_its_attributes(copied: Copy) -> None:
    model = Model().eval()
    other = copied(model)
    assert torch.equal(other(rows()), model(rows()))
    assert type(other) is Model
    assert not other.training
    other.notes["calls"] = 1
    other.kept.zero_()
    other.a.out_features = 7
    assert model.notes == {"calls": 0}
    assert model.kept.tolist() == [1, 1]
    assert model.a.out_features == 4


@pytest.mark.parametrize(
    ("copied", "parameters", "buffers"),
    [(full_copy, False, False), (proof_copy, True, False), (sharing_copy, True, True)],
)
def test_copies_share_the_memory_that_they_say(
    copied: Copy, parameters: bool, buffers: bool
) -> None:
    model = Model()
    other = copied(model)
    mine, theirs = dict(model.named_parameters()), dict(other.named_parameters())
    assert mine.keys() == theirs.keys()
    assert all(share(each, theirs[name]) is parameters for name, each in mine.items())
    mine, theirs = dict(model.named_buffers()), dict(other.named_buffers())
    assert mine.keys() == theirs.keys()
    assert all(share(each, theirs[name]) is buffers for name, each in mine.items())


@pytest.mark.parametrize("copied", COPIES)
def test_gradients_of_a_copy_are_its_own(copied: Copy) -> None:
    model = Model()
    other = copied(model)
    other(rows()).square().sum().backward()
    assert other.a.weight.grad is not None
    assert all(each.grad is None for each in model.parameters())


@pytest.mark.parametrize("copied", [proof_copy, sharing_copy])
def test_gradients_of_the_model_do_not_come_along(copied: Copy) -> None:
    model = Model()
    model(rows()).square().sum().backward()
    assert all(each.grad is None for each in copied(model).parameters())
    assert model.a.weight.grad is not None


@pytest.mark.parametrize("copied", COPIES)
def test_tied_parameters_stay_tied_and_frozen_ones_frozen(copied: Copy) -> None:
    other = copied(Model())
    assert other.a.weight is other.b.weight
    assert isinstance(other.a.weight, nn.Parameter)
    assert (other.a.bias.requires_grad, other.b.bias.requires_grad) == (True, False)


@pytest.mark.parametrize("copied", COPIES)
def test_kept_activations_are_copied_without_their_history(copied: Copy) -> None:
    model = Kept()
    out = model(rows())
    other = copied(model)
    (kept,) = other.kept["out"]
    assert torch.equal(kept, out)
    assert not share(kept, out)
    assert kept.grad_fn is None
    assert out.grad_fn is not None


@pytest.mark.parametrize("copied", COPIES)
def test_weights_that_a_hook_computes_are_copied(copied: Copy) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        layer = torch.nn.utils.weight_norm(nn.Linear(4, 4))
    other = copied(layer)
    assert torch.equal(other(rows()), layer(rows()))
    other(rows()).sum().backward()
    assert other.weight_g.grad is not None
    assert layer.weight_g.grad is None


@pytest.mark.parametrize("copied", COPIES)
def test_hooks_on_parameters_come_along(copied: Copy) -> None:
    model = Model()
    model.a.weight.register_hook(lambda gradient: gradient * 0)
    other = copied(model)
    other(rows()).square().sum().backward()
    assert not other.a.weight.grad.any()
    assert other.a.bias.grad.any()


def test_a_workbench_leaves_the_model_and_its_copies_share_one_memory() -> None:
    model = Model()
    bench = Workbench(model)
    assert not memory(bench.source) & memory(model)
    assert memory(bench.to_edit()) == memory(bench.source)
    run, held = bench.to_run(), dict(bench.source.named_parameters())
    assert all(share(each, held[name]) for name, each in run.named_parameters())
    assert not share(run.steps, bench.source.steps)


def test_nothing_is_restored_where_nothing_was_written() -> None:
    bench = Workbench(Model())
    bench.to_run()(rows())
    assert bench.restore() == []
    assert not bench.apart


def test_writes_into_parameters_are_found_undone_and_kept_apart_from_then_on() -> None:
    model = Momentum()
    before = {name: each.clone() for name, each in model.state_dict().items()}
    bench = Workbench(model)
    bench.to_run()(rows())
    assert bench.restore() == ["slow.weight"]
    assert bench.apart
    for name, each in bench.source.state_dict().items():
        assert torch.equal(each, before[name]), name
        assert torch.equal(model.state_dict()[name], before[name])
    bench.to_run()(rows())
    assert not memory(bench.to_run()) & memory(bench.source)
    assert bench.restore() == []


def test_writes_into_buffers_of_a_copy_to_edit_are_undone() -> None:
    bench = Workbench(Momentum())
    bench.to_edit()(rows())
    assert bench.restore() == ["slow.weight", "steps"]
    assert bench.source.steps == 0


def test_undefined_values_are_no_writes() -> None:
    model = Model()
    model.steps.fill_(float("nan"))
    assert Workbench(model).restore() == []


def test_hooks_that_step_an_optimizer_are_refused_by_name() -> None:
    model = Model()
    model.norm.bias.register_post_accumulate_grad_hook(lambda parameter: None)
    with pytest.raises(RuntimeError, match=r"'norm\.bias' have hooks that run when"):
        Workbench(model)


def test_what_a_copy_uses_of_the_original_is_named() -> None:
    class Stubborn(nn.Linear):
        def __deepcopy__(self, memo: dict[int, Any]) -> nn.Module:
            return self

    model = nn.Sequential(nn.Linear(4, 4), Stubborn(4, 4))
    trespass, other = Trespass(model), full_copy(model)
    told = r"still uses '1\.(weight|bias)'.*of the model given"
    with pytest.raises(RuntimeError, match=told), trespass:
        other(rows())


def test_a_full_copy_uses_nothing_of_the_original() -> None:
    model = Model()
    trespass, other = Trespass(model), full_copy(model)
    with trespass:
        other(rows())
    assert trespass.used == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.int8])
@pytest.mark.parametrize("numbers", [SMALL + 1, SMALL + 2, 2 * SMALL])
@pytest.mark.parametrize("skipped", [0, 1])
def test_one_changed_number_of_a_large_tensor_is_found(
    dtype: torch.dtype, numbers: int, skipped: int
) -> None:
    model = nn.Module()
    model.register_buffer("table", torch.ones(skipped + numbers).to(dtype)[skipped:])
    bench = Workbench(model)
    assert bench.restore(thorough=True) == []
    bench.source.table.data[-1] += 1
    assert bench.restore(thorough=True) == ["table"]
    assert torch.equal(bench.source.table, model.table)


def test_zeros_of_either_sign_and_undefined_numbers_are_no_change() -> None:
    model = nn.Module()
    model.register_buffer(
        "table", torch.zeros(2 * SMALL).index_fill(0, torch.tensor([3]), torch.nan)
    )
    bench = Workbench(model)
    bench.source.table.neg_()
    assert bench.restore(thorough=True) == []
