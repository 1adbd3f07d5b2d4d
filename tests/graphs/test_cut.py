"""Cuts: what crosses the border of a span, known by construction for each small model."""

import operator

import pytest
import torch
from torch import Tensor, nn

from torchkoopman.graphs.cut import find_cut
from torchkoopman.graphs.region import DirtyCut


class Block(nn.Module):
    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.fc = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.tanh(self.fc(x))


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block() for _ in range(5))
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return self.head(x)


class Layers(nn.Module):
    """Five linear layers a … e, wired by the subclass."""

    def __init__(self) -> None:
        super().__init__()
        for name in "abcde":
            self.add_module(name, nn.Linear(4, 4))


class Escaping(Layers):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        inner = self.b(h)
        return self.d(self.c(inner)) + inner


class Entering(Layers):
    def forward(self, x: Tensor) -> Tensor:
        early = self.a(x)
        return self.e(self.d(self.c(self.b(early)) + early))


class Around(Layers):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        return self.e(self.c(self.b(h)) + h + x)


class TwoInputs(Layers):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.d(self.c(self.b(self.a(x)) * y))


class Shapes(Layers):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        size = h.size(0)
        positions = torch.arange(x.shape[1], dtype=x.dtype, device=x.device)
        h = self.b(h).view(x.size(0), -1) + positions + torch.zeros_like(x)
        return self.d(self.c(h.view(h.size(0), -1)).reshape(size, 4))


class ShapeOfInner(Layers):
    def forward(self, x: Tensor) -> Tensor:
        inner = self.b(self.a(x))
        return self.c(inner).view(inner.size(0), -1)


class Repeated(Layers):
    def forward(self, x: Tensor) -> Tensor:
        for _ in range(3):
            x = self.b(self.a(x))
        return x


class Parallel(Layers):
    def forward(self, x: Tensor) -> Tensor:
        return self.a(x) + self.b(x)


class WrittenLater(Layers):
    """The write's result is thrown away, but later readers of h see it."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        nn.functional.relu(h, inplace=True)
        return self.d(self.b(h))


class WrittenAndUsed(Layers):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        h.relu_()
        return self.b(h) + h


class WrittenThroughView(Layers):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        flat = h.view(-1)
        inner = self.b(flat.relu_().view(-1, 4))
        return self.c(inner) + h


class AugmentedAssignment(Layers):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        skip = h
        h += 1
        return self.b(h) + skip


class ItemAssignment(Layers):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        h[:, 0] = 0
        return self.b(h) + h


class WritesItsInput(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mul_(2) + 1


class HiddenWrite(Layers):
    def __init__(self) -> None:
        super().__init__()
        self.b = WritesItsInput()

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        return self.c(self.b(h)) + h


class InPlaceReLU(nn.Module):
    """As a ResNet does it: the activation after the sum is in place."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.relu = nn.ReLU(inplace=True)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        return self.head(self.relu(self.second(h) + h))


class LastSharesMemory(nn.Module):
    """The span's last output is a view of its first, and is written to after the span."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.flat, self.head = nn.Linear(4, 4), nn.Flatten(), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        flat = self.flat(h)
        flat += 1
        return self.head(flat) + h.sum()


class Counting(Layers):
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(4))

    def forward(self, x: Tensor) -> Tensor:
        return self.d(self.c(self.b(self.a(x)) + self.count.add_(x.mean(0).detach())))


class Counter(Layers):
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(4))

    def forward(self, x: Tensor) -> Tensor:
        h = self.b(self.a(x))
        self.count.add_(h.mean(0).detach())
        return self.d(self.c(h))


class Asserting(Layers):
    def forward(self, x: Tensor) -> Tensor:
        h = self.b(self.a(x))
        torch._assert(h.dim() == 2, "rows of features")
        _unused = h * 2
        return self.d(self.c(h))


class Branching(Layers):
    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x)) if x.sum() > 0 else x


def crossings(model: nn.Module, start: str, end: str) -> set[tuple[str, str]]:
    with pytest.raises(DirtyCut) as caught:
        find_cut(model, start, end)
    return {(crossing.kind, crossing.layer) for crossing in caught.value.crossings}


@pytest.mark.parametrize(
    ("model", "start", "end", "layers"),
    [
        (Residual(), "blocks.0", "blocks.3", ("blocks.1", "blocks.2", "blocks.3")),
        (nn.Sequential(nn.Sequential(nn.Linear(4, 4), nn.Tanh())), "0.0", "0", ("0.1",)),
        (nn.Sequential(*(nn.Linear(4, 4) for _ in range(4))), "0", "2", ("1", "2")),
        (Around(), "a", "c", ("b", "c")),
        (Escaping(), "b", "d", ("c", "d")),
        (TwoInputs(), "c", "d", ("d",)),
        (Shapes(), "a", "c", ("b", "c")),
        (Repeated(), "a#0", "a#1", ("b", "a")),
        (Repeated(), "b#1", "b#2", ("a", "b")),
        (WrittenLater(), "a", "b", ("b",)),
        (InPlaceReLU(), "first", "relu", ("second", "relu")),
        (Asserting(), "a", "c", ("b", "c")),
    ],
)
def test_clean_cuts_list_exactly_the_layers_that_go(
    model: nn.Module, start: str, end: str, layers: tuple[str, ...]
) -> None:
    assert find_cut(model, start, end).layers == layers


@pytest.mark.parametrize(
    ("model", "start", "end", "kind", "layer"),
    [
        (Escaping(), "a", "d", "escapes", "b"),
        (Entering(), "b", "d", "enters", "a"),
        (Residual(), "blocks.1.fc", "blocks.1", "enters", "blocks.0"),
        (TwoInputs(), "a", "c", "enters", "y"),
        (ShapeOfInner(), "a", "c", "escapes", "b"),
        (WrittenAndUsed(), "a", "b", "is written in place", "a"),
        (WrittenThroughView(), "a", "c", "is written in place", "a"),
        (AugmentedAssignment(), "a", "b", "is written in place", "a"),
        (ItemAssignment(), "a", "b", "is written in place", "a"),
        (HiddenWrite(), "a", "c", "is written in place", "a"),
        (InPlaceReLU(), "second", "relu", "enters", "first"),
        (LastSharesMemory(), "a", "flat", "is written in place", "a"),
        (Counting(), "a", "c", "enters", "count"),
        (Counter(), "a", "c", "escapes", "b"),
    ],
)
def test_dirty_cuts_name_what_crosses(
    model: nn.Module, start: str, end: str, kind: str, layer: str
) -> None:
    assert (kind, layer) in crossings(model, start, end)


@pytest.mark.parametrize(
    ("model", "start", "end", "nearest"),
    [
        (Escaping(), "a", "d", "end='b'"),
        (Entering(), "b", "e", "end='c'"),
        (Entering(), "c", "e", "start='a'"),
        (AugmentedAssignment(), "a", "b", "choose a different span"),
    ],
)
def test_the_refusal_names_the_nearest_clean_cut_and_it_is_clean(
    model: nn.Module, start: str, end: str, nearest: str
) -> None:
    with pytest.raises(DirtyCut, match=nearest):
        find_cut(model, start, end)
    side, _, layer = nearest.partition("=")
    if layer:
        find_cut(model, **{"start": start, "end": end, side: layer.strip("'")})


@pytest.mark.parametrize(
    ("model", "start", "end"),
    [
        (Escaping(), "a", "d"),
        (Entering(), "b", "d"),
        (Residual(), "blocks.1.fc", "blocks.1"),
        (TwoInputs(), "a", "c"),
        (WrittenThroughView(), "a", "c"),
        (InPlaceReLU(), "second", "relu"),
        (LastSharesMemory(), "a", "flat"),
        (Counting(), "a", "c"),
    ],
)
def test_the_nearest_clean_cut_is_never_the_present_one_nor_empty(
    model: nn.Module, start: str, end: str
) -> None:
    with pytest.raises(DirtyCut) as refusal:
        find_cut(model, start, end)
    for side, layer in (("start", start), ("end", end), ("start", end), ("end", start)):
        assert f"nearest clean cut has {side}={layer!r}" not in str(refusal.value)


def test_the_refusal_says_who_uses_the_value() -> None:
    with pytest.raises(DirtyCut, match=r"'b' \(from 'b'\) escapes: used by 'add' \(in 'd'\)"):
        find_cut(Escaping(), "a", "d")


def test_sizes_of_the_first_output_are_side_inputs_and_stay() -> None:
    cut = find_cut(Shapes(), "a", "c")
    assert "arange" in cut.side_inputs
    assert "size" not in cut.region
    assert "size_2" in cut.region  # of an inner value


def test_an_assertion_on_an_inner_value_goes_with_it() -> None:
    assert "_assert" in find_cut(Asserting(), "a", "c").region


def test_a_module_that_cannot_be_looked_into_is_listed() -> None:
    model = nn.Sequential(nn.Linear(4, 4), Branching(), nn.Linear(4, 4))
    cut = find_cut(model, "0", "2")
    assert cut.opaque == ("1",)
    assert "not looked into: 1" in str(cut)


def test_every_name_of_a_shared_module_selects_it() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4))
    model.append(model[1])
    assert find_cut(model, "0", "3#1").layers == ("1", "2", "1")


def test_hooks_are_not_called_and_the_model_is_left_as_it_was() -> None:
    model = Shapes()
    model.register_buffer("scale", torch.ones(1))
    called: list[object] = []
    for layer in model.children():
        layer.register_forward_hook(lambda *given: called.append(given))
    attributes, keys = set(vars(model)), list(model.state_dict())
    find_cut(model, "a", "c")
    assert called == []
    assert set(vars(model)) == attributes
    assert list(model.state_dict()) == keys


@pytest.mark.parametrize(
    ("model", "start", "end", "message"),
    [
        (Residual(), "blocks.2", "blocks.1", "names swapped"),
        (Residual(), "blocks.1", "blocks.1", "two different layers"),
        (Residual(), "block.1", "blocks.3", r"no layer 'block.1'; nearest: 'blocks.1'"),
        (Residual(), "blocks.1", "blocks", "'blocks' is never called"),
        (Repeated(), "a", "b#2", "called 3 times; choose one of 'a#0', 'a#1', 'a#2'"),
        (Repeated(), "a#3", "b#2", "called 3 times only"),
        (Repeated(), "a#x", "b#2", "not the number of a call"),
        (Parallel(), "a", "b", "does not depend on"),
        (nn.Sequential(nn.Sequential(nn.Linear(4, 4))), "0.0", "0", "the same value"),
        (nn.Sequential(nn.Linear(4, 4), nn.Tanh()), "", "1", "no layer ''"),
    ],
)
def test_mistakes_in_naming_the_ends_are_explained(
    model: nn.Module, start: str, end: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        find_cut(model, start, end)


@pytest.mark.parametrize(
    ("model", "start", "end", "where"),
    [
        (Branching(), "a", "b", "in its own forward: TraceError"),
        (nn.Sequential(Branching(), nn.Tanh()), "0.a", "1", "in '0': TraceError"),
    ],
)
def test_a_model_that_cannot_be_traced_is_told_where(
    model: nn.Module, start: str, end: str, where: str
) -> None:
    with pytest.raises(RuntimeError, match=where):
        find_cut(model, start, end)


@pytest.mark.parametrize(
    "name",
    ["iadd", "isub", "imul", "itruediv", "ifloordiv", "imod", "ipow", "iand", "ior", "ixor"],
)
def test_augmented_assignment_is_traced_as_the_write_that_it_is(name: str) -> None:
    write = getattr(operator, name)

    class Writing(Layers):
        def forward(self, x: Tensor) -> Tensor:
            h = self.a(x)
            size = h.size(0)
            size = write(size, 2)  # a number: not a write
            view = h.view(-1)
            write(h, 2)
            return self.b(h) + view.sum() + size

    assert ("is written in place", "a") in crossings(Writing(), "a", "b")
