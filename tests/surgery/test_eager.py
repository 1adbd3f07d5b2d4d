"""Eager surgery: stand-ins for whole layers, and when there can be none."""

import copy
import dataclasses
import io
import pickle
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from tests.systems import rows
from torchkoopman.graphs.region import DirtyCut
from torchkoopman.surgery.swap import swap, swap_history
from torchkoopman.undo import undo


@dataclasses.dataclass
class Output:
    hidden: Tensor
    weights: Tensor | None = None
    kind: str = "attention"


class Named(NamedTuple):
    hidden: Tensor
    size: int


class Layer(nn.Module):
    """Gives its output in one of the structures that layers have."""

    def __init__(self, structure: str) -> None:
        super().__init__()
        self.fc, self.structure = nn.Linear(4, 4), structure

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Any:
        hidden = x + torch.tanh(self.fc(x)) + (0 if bias is None else bias)
        given = {
            "tensor": hidden,
            "tuple": (hidden, bias),
            "list": [hidden],
            "dict": {"hidden": hidden, "kind": "layer"},
            "dataclass": Output(hidden),
            "namedtuple": Named(hidden, 4),
            "nested": ((hidden,), "rest"),
        }
        return given[self.structure]


class Stack(nn.Module):
    """Layers in a list; the structure is taken apart in Python that no tracer follows."""

    def __init__(self, structure: str, depth: int = 5) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(structure) for _ in range(depth))
        self.head = nn.Linear(4, 2)
        self.note = "kept"

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        if float(x.sum()) > 1e6:  # no graph can hold this
            x = x / 2
        for layer in self.layers:
            output = layer(x, bias=bias)
            if isinstance(output, Tensor):
                x = output
            elif isinstance(output, Output):
                x = output.hidden
            else:
                x = output["hidden"] if isinstance(output, dict) else output[0]
            x = x[0] if isinstance(x, tuple) else x
        out: Tensor = self.head(x)
        return out

    def describe(self) -> str:
        return self.note


def state_of(output: Any) -> Tensor:
    while not isinstance(output, Tensor):
        field = isinstance(output, Output | Named)
        output = output.hidden if field else output["hidden" if isinstance(output, dict) else 0]
    return output


STRUCTURES = ["tensor", "tuple", "list", "dict", "dataclass", "namedtuple", "nested"]


@pytest.mark.parametrize("structure", STRUCTURES)
@torch.no_grad()
def test_stand_ins_keep_the_structure_of_the_layers_outputs(structure: str) -> None:
    model, middle = Stack(structure).eval(), nn.Linear(4, 4)
    edited: Any = swap(model, middle, "layers.0", "layers.3", example_inputs=rows())
    assert swap_history(edited)[-1].how == "eager"
    final = state_of(model.layers[4](middle(state_of(model.layers[0](rows(1))))))
    assert torch.equal(edited(rows(1)), model.head(final))
    assert torch.equal(undo(edited)(rows(1)), model(rows(1)))


def test_class_methods_and_attributes_stay() -> None:
    model = Stack("tensor")
    edited: Any = swap(model, nn.Linear(4, 4), "layers.0", "layers.3", "eager", rows())
    assert type(edited) is Stack
    assert edited.describe() == "kept"
    assert edited.layers[2].structure == "tensor"
    with pytest.raises(AttributeError, match="no attribute 'fc'"):
        _ = edited.layers[2].fc


def test_the_given_model_is_untouched_and_the_removed_layers_are_gone() -> None:
    model = Stack("tuple")
    before = copy.deepcopy(model.state_dict())
    edited = swap(model, nn.Linear(4, 4), "layers.0", "layers.3", "eager", rows())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    gone = {f"layers.{depth}.fc.{name}" for depth in (1, 2, 3) for name in ("weight", "bias")}
    assert set(before) - set(edited.state_dict()) == gone
    record = swap_history(edited)[-1]
    assert (record.removed, record.added) == (60, 20)
    assert record.layers == ("layers.1", "layers.2", "layers.3")
    assert not any(module._forward_hooks for module in model.modules())


def test_an_argument_that_a_layer_passes_on_is_passed_on() -> None:
    model = Stack("tuple").eval()
    given = (rows(), rows(5))
    edited: Any = swap(
        model, nn.Identity(), "layers.0", "layers.2", "eager", given, side_inputs=["bias"]
    )
    state, bias = edited.layers[1](rows(1), bias=rows(7))
    assert torch.equal(state, rows(1))
    assert torch.equal(bias, rows(7))


@torch.no_grad()
def test_several_spans_copies_pickles_and_the_way_back() -> None:
    model = Stack("tensor", depth=8).eval()
    one = swap(model, nn.Linear(4, 4), "layers.0", "layers.2", "eager", rows())
    two = swap(one, nn.Linear(4, 4), "layers.4", "layers.6", "eager", rows())
    assert [record.start for record in swap_history(two)] == ["layers.0", "layers.4"]
    for copied in (copy.deepcopy(two), pickle.loads(pickle.dumps(two))):
        assert torch.equal(copied(rows()), two(rows()))
        assert swap_history(copied) == swap_history(two)
    assert torch.equal(undo(two)(rows()), one(rows()))
    assert torch.equal(undo(undo(two))(rows()), model(rows()))
    with pytest.raises(RuntimeError, match="not in this model"):
        undo(pickle.loads(pickle.dumps(two)))
    buffer = io.BytesIO()
    torch.save(two, buffer)
    buffer.seek(0)
    assert torch.equal(torch.load(buffer, weights_only=False)(rows()), two(rows()))


@torch.no_grad()
def test_a_span_that_joins_the_one_before_is_swapped_too() -> None:
    model = Stack("tensor", depth=6).eval()
    one, two = nn.Linear(4, 4), nn.Linear(4, 4)
    edited = swap(model, one, "layers.0", "layers.2", "eager", rows())
    edited = swap(edited, two, "layers.2", "layers.4", "eager", rows())
    by_hand = model.head(model.layers[5](two(one(model.layers[0](rows(1))))))
    assert torch.equal(edited(rows(1)), by_hand)


class Residual(nn.Module):
    """The sum outside of the layers cannot be stood in for."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Linear(4, 4) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        out: Tensor = self.c(h + torch.tanh(self.b(h)) * float(bool(h.sum() > -1e9)))
        return out


class Remembering(nn.Module):
    """The second layer's output is used again at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.d = (nn.Linear(4, 4) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        h = self.b(self.a(x))
        out: Tensor = self.d(self.c(h)) + h * float(bool(x.sum() > -1e9))
        return out


class SecondInput(nn.Module):
    """The last layer reads the model's input besides the one before."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Bilinear(4, 4, 4)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        out: Tensor = self.b(self.a(x), y)
        return out


class Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.b(self.b(self.a(x)))
        return out


@pytest.mark.parametrize(
    ("model", "start", "end", "inputs", "error", "message"),
    [
        (Residual(), "a", "c", (rows(),), RuntimeError, "given to no layer on the way to 'c'"),
        (Remembering(), "a", "d", (rows(),), RuntimeError, "'b' is read by mul"),
        (SecondInput(), "a", "b", (rows(), rows(3)), DirtyCut, "something else enters the span"),
        (Shared(), "a", "b#1", (rows(),), RuntimeError, "called 2 times in one forward pass"),
        (Stack("tensor"), "layers.0", "layers.3", None, RuntimeError, "give example_inputs"),
        (Stack("tensor"), "layers.3", "layers.0", (rows(),), ValueError, "names swapped"),
    ],
)
def test_what_cannot_be_exchanged_is_refused_with_the_reason(
    model: nn.Module, start: str, end: str, inputs: Any, error: type, message: str
) -> None:
    with pytest.raises(error, match=message):
        swap(model, nn.Linear(4, 4), start, end, "eager", inputs)
    assert not any(module._forward_hooks for module in model.modules())


def test_side_inputs_are_allowed_to_enter_when_they_are_named() -> None:
    model, middle = SecondInput(), nn.Linear(4, 4)
    edited = swap(model, middle, "a", "b", "eager", (rows(), rows(3)), side_inputs=["y"])
    assert torch.equal(edited(rows(1), rows(2)), middle(model.a(rows(1))))


@torch.no_grad()
def test_kept_escapes_keep_all_layers_and_exchange_the_last_output() -> None:
    model, middle = Remembering(), nn.Linear(4, 4)
    edited = swap(model, middle, "a", "d", "eager", rows(), keep_escapes=True)
    h = model.b(model.a(rows(1)))
    assert torch.equal(edited(rows(1)), middle(model.a(rows(1))) + h)
    assert torch.equal(copy.deepcopy(edited)(rows(1)), edited(rows(1)))
    assert set(model.state_dict()) < set(edited.state_dict())
    assert "nothing is saved" in str(swap_history(edited)[-1])
    assert torch.equal(undo(edited)(rows(1)), model(rows(1)))


def test_when_no_way_fits_the_reason_of_each_is_given() -> None:
    with pytest.raises(RuntimeError) as refusal:
        swap(Residual(), nn.Identity(), "a", "c", example_inputs=rows())
    for way in ("fx: ", "export: ", "eager: ", "keep_escapes=True"):
        assert way in str(refusal.value)
