"""Replay: every kind of difference from the reference is named, and so is a module that misfits."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from torchkoopman.observe.randomness import random_draws
from torchkoopman.surgery.reference import Misfit
from torchkoopman.surgery.replay import Unproven
from torchkoopman.surgery.swap import swap, swap_history

HOWS = ["fx", "export", "eager"]


class Base(nn.Module):
    """Layers ``a``, ``b`` (the span) and ``c``."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Linear(4, 4) for _ in range(3))

    def forward(self, x: Tensor) -> Any:
        return self.c(self.b(self.a(x)))


class Watched(nn.Module):
    """Tells an object of its own how large its input was."""

    def __init__(self, told: Any) -> None:
        super().__init__()
        self.fc, self.told = nn.Linear(4, 4), (told,)

    def forward(self, x: Tensor) -> Tensor:
        self.told[0].hear(x)
        return self.fc(x)


class Gain(nn.Module):
    """Its layer's factor is set by what others tell it."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = 1.0
        self.register_buffer("total", torch.zeros(()))

    def hear(self, x: Tensor) -> None:
        self.total += x.detach().abs().sum()

    def forward(self, x: Tensor) -> Tensor:
        return x


class Hearing(Gain):
    def hear(self, x: Tensor) -> None:
        self.factor = float(x.detach().abs().sum())


class Scaling(Hearing):
    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


class Told(Base):
    """The span's layer tells the last one something beside the path of values."""

    def __init__(self, gain: nn.Module) -> None:
        super().__init__()
        self.gain = gain
        self.b = Watched(gain)  # type: ignore[assignment]

    def forward(self, x: Tensor) -> Any:
        return self.gain(self.c(self.b(self.a(x))))


class Fills(nn.Module):
    """Leaves its result in an argument too."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: Tensor, into: Any) -> Tensor:
        out: Tensor = self.fc(x)
        if isinstance(into, dict):
            into["b"] = out
        elif isinstance(into, list):
            into.append(out)
        else:
            into.copy_(out.detach())
        return out


class Filling(Base):
    def __init__(self) -> None:
        super().__init__()
        self.b = Fills()  # type: ignore[assignment]

    def forward(self, x: Tensor, into: Any) -> Any:
        return self.c(self.b(self.a(x), into))


class Doubling(nn.Module):
    """Doubles the gradient of what it is given, whoever else uses that."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        if x.requires_grad:
            x.register_hook(lambda gradient: 2 * gradient)
        return self.fc(x)


class Losing(Base):
    def __init__(self) -> None:
        super().__init__()
        self.b = Doubling()  # type: ignore[assignment]


class Again(Base):
    """What enters the span is counted by a hook that the span's layer sets off."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = Gain()
        self.b = Watched(self.shift)  # type: ignore[assignment]

    def forward(self, x: Tensor) -> Any:
        return self.c(self.b(self.a(x + self.shift.total)))


def rows(seed: int = 0, width: int = 4) -> Tensor:
    return torch.randn(3, width, generator=torch.Generator().manual_seed(seed))


def held(model: nn.Module) -> dict[str, Any]:
    """All of a model that a swap must leave as it is, and the random states."""
    found: dict[str, Any] = {name: each.clone() for name, each in model.state_dict().items()}
    found |= {f"{name}.grad": each.grad for name, each in model.named_parameters()}
    for name, module in model.named_modules():
        found[f"{name} hooks"] = [
            list(value) for key, value in vars(module).items() if key.endswith("_hooks")
        ]
        found[f"{name} training"] = module.training
        found[f"{name} factor"] = getattr(module, "factor", None)
    return {**found, "random": random_draws()}


def assert_same(before: dict[str, Any], after: dict[str, Any]) -> None:
    assert before.keys() == after.keys()
    for name, value in before.items():
        same = torch.equal if isinstance(value, Tensor) else lambda one, two: one == two
        assert same(value, after[name]), name


DIFFERENCES = [
    (Again, rows(), "call 2: what enters the span is off by"),
    (lambda: Told(Scaling()), rows(), "call 1: output is off by"),
    (lambda: Told(Gain()), rows(), "'gain.total', which the model's calls set, stays as it was"),
    (lambda: Told(Hearing()), rows(), "'gain.factor', which the model's calls set, stays as"),
    (Filling, (rows(), {}), "call 1: argument '0.1.b' is missing"),
    (Filling, (rows(), []), "call 1: argument '0.1.0' is missing"),
    (Filling, (rows(), rows(1)), "call 1: argument '0.1' is off by"),
    (Losing, rows(), "gradient of 'a.weight' is off by"),
]
KINDS = ["entering", "output", "buffer", "attribute", "dict", "list", "tensor", "gradient"]


@pytest.mark.parametrize(("make", "inputs", "named"), DIFFERENCES, ids=KINDS)
@pytest.mark.parametrize("how", ["fx", "eager"])
def test_a_difference_from_the_reference_is_named(
    make: Any, inputs: Any, named: str, how: str
) -> None:
    model = make().eval()
    sides = ["into"] if isinstance(model, Filling) else None
    before = held(model)
    with pytest.raises(Unproven) as caught:
        swap(model, nn.Identity(), "a", "b", how, inputs, side_inputs=sides)
    assert named in str(caught.value)
    assert_same(before, held(model))


class Fails(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise KeyError("mine")


class Cast(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.double()


class Several(nn.Module):
    def forward(self, x: Tensor) -> Any:
        return x, x


SHAPE = r"float32 of shape \(3, 4\)"
MISFITS = [
    (nn.Linear(4, 5), rf"makes float32 of shape \(3, 5\) of the output of 'a', {SHAPE}, but 'b' "),
    (nn.Flatten(0), rf"makes float32 of shape \(12,\) .*, but 'b' gives {SHAPE}"),
    (Cast(), rf"makes float64 of shape \(3, 4\) .*, but 'b' gives {SHAPE}"),
    (Several(), rf"makes a tuple of the output of 'a', {SHAPE}, but 'b' gives {SHAPE}"),
    (nn.Linear(5, 4), rf"fails on the output of 'a', {SHAPE}: RuntimeError: mat1 and mat2 shapes"),
    (Fails(), rf"fails on the output of 'a', {SHAPE}: KeyError: 'mine'"),
]


@pytest.mark.parametrize(("module", "message"), MISFITS)
@pytest.mark.parametrize("how", [*HOWS, "auto"])
def test_a_module_that_misfits_is_refused_with_shapes_and_both_layers(
    module: nn.Module, message: str, how: str
) -> None:
    model = Base()
    model(rows()).sum().backward()
    model.b.eval()
    before = held(model)
    with pytest.raises(Misfit, match=message):
        swap(model, module, "a", "b", how, rows())
    assert_same(before, held(model))
    assert issubclass(Misfit, ValueError)


@pytest.mark.parametrize("how", HOWS)
def test_a_module_that_fits_leaves_the_model_too(how: str) -> None:
    model, module = Base().eval(), nn.Linear(4, 4)
    model(rows()).sum().backward()
    before = held(model)
    edited = swap(model, module, "a", "b", how, rows())
    assert_same(before, held(model))
    assert all(each.grad is None for each in edited.parameters())


@pytest.mark.parametrize("how", ["fx", "eager"])
def test_an_example_that_cannot_be_varied_is_told(how: str) -> None:
    model = nn.Sequential(nn.Embedding(3, 4), nn.Linear(4, 4), nn.Linear(4, 4)).eval()
    edited = swap(model, nn.Identity(), "0", "1", how, torch.zeros(2, 3, dtype=torch.long))
    told = any("cannot be varied" in note for note in swap_history(edited)[0].notes)
    assert told is (how == "eager")
    ids = torch.tensor([[0, 2, 1]])
    assert torch.equal(edited(ids), model[2](model[0](ids)))


def test_a_model_that_fails_on_the_example_says_why() -> None:
    with pytest.raises(RuntimeError, match="Base fails on the example inputs: RuntimeError: mat1"):
        swap(Base(), nn.Identity(), "a", "b", "fx", rows(width=5))
