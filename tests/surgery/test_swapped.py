"""Swapped graphs: changing what a graph holds is refused and told, and the rest is free."""

import copy
import functools
import logging
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 (as everybody calls it)
from torch import Tensor, nn

from tests.systems import rows
from torchkoopman.surgery.swap import swap, swap_history
from torchkoopman.surgery.swapped import SwappedModule, is_bound


class Model(nn.Module):
    """Reads attributes, a class variable and a method; a swap opens it and ``inner``."""

    gain = 1.5
    unread = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.head = Inner(), nn.Linear(4, 4)
        self.scale, self.kind, self.shift = 2.0, "plain", torch.ones(4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.inner(x)) * self.scale * self.gain + self.shift
        return self.finish(out)

    def finish(self, x: Tensor) -> Tensor:
        return x - 1


class Inner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
        self.bias = 0.5

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.b(self.a(x)) + self.bias
        return out


class Dropping(Inner):
    """A branch on the mode that tracing resolves."""

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(F.dropout(x, 0.5, self.training)))


class Switching(Inner):
    def forward(self, x: Tensor) -> Tensor:
        x = x * 2 if self.training else x
        return self.b(self.a(x))


class Layered(Inner):
    """Layers that know their mode themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.drop, self.norm = nn.Dropout(0.5), nn.BatchNorm1d(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.b(self.a(self.drop(x))))


class Pair(Inner):
    def forward(self, x: Tensor, more: list[Tensor] | None = None) -> Tensor:
        out: Tensor = self.b(self.a(x))
        return out if more is None else out + sum(more)


def edited(how: str = "fx", given: bool = True) -> Any:
    example = rows() if given else None
    return swap(Model().eval(), nn.Identity(), "inner.a", "inner.b", how, example)


@pytest.fixture(scope="module", params=["fx", "fx without example", "export"])
def graph(request: pytest.FixtureRequest) -> Any:
    how, *without = request.param.split(" ", 1)
    return edited(how, not without)


@pytest.mark.parametrize("name", ["scale", "kind", "shift", "gain", "finish"])
def test_setting_what_the_graph_holds_is_refused_and_says_what_to_do(graph: Any, name: str) -> None:
    refused = f"'{name}' was read when this graph was made .* set it on the original and swap again"
    with pytest.raises(AttributeError, match=refused):
        setattr(graph, name, 3.0)


def test_setting_it_behind_the_graphs_back_is_told_at_the_next_call() -> None:
    for place, name in (("", "scale"), ("inner", "bias")):
        graph = edited()
        vars(graph.get_submodule(place))[name] = 3.0
        with pytest.raises(AttributeError, match=f"'{name}' was read when this graph was made"):
            graph(rows())


def as_it_is(module: nn.Module, args: Any, output: Any) -> Any:
    return output


@pytest.mark.parametrize("hook", [as_it_is, functools.partial(as_it_is)])
def test_hooks_on_all_modules_cannot_reach_what_a_graph_has_opened(hook: Any) -> None:
    graph, whole = edited(), swap(Inner().eval(), nn.Identity(), "a", "b", "fx", rows())
    handle = nn.modules.module.register_module_forward_hook(hook, always_call=True)
    try:
        whole(rows())  # it is called as a module itself
        with pytest.raises(RuntimeError, match="hooked on all modules has changed"):
            graph(rows())
        with pytest.raises(RuntimeError, match=r"'(as_it_is|partial)' is a hook on all modules"):
            swap(Inner().eval(), nn.Identity(), "a", "b", "fx")
    finally:
        handle.remove()
    graph(rows())


def test_hooks_of_libraries_on_all_modules_are_no_objection() -> None:
    graph, log = edited(), logging.getLogger(__name__).debug
    handle = nn.modules.module.register_module_forward_hook(log, always_call=True)
    try:
        graph(rows())
    finally:
        handle.remove()


class Annotated(Inner):
    def forward(self, x: "Tensor") -> "Tensor":
        return super().forward(x)


def test_annotations_as_text_do_not_hinder_pickling() -> None:
    graph = swap(Annotated().eval(), nn.Identity(), "a", "b", "fx", rows())
    assert torch.equal(pickle.loads(pickle.dumps(graph))(rows()), graph(rows()))


def test_containers_that_the_graph_has_opened_refuse_it_too(graph: Any) -> None:
    with pytest.raises(AttributeError, match=r"'bias' was read .*how='eager'"):
        graph.inner.bias = 3.0


def test_new_attributes_may_be_set(graph: Any) -> None:
    before = graph(rows(1))
    graph.note, graph.head.note = "mine", 1
    assert (graph.note, graph.head.note) == ("mine", 1)
    assert torch.equal(graph(rows(1)), before)


def test_layers_that_stay_whole_are_the_users() -> None:
    graph = edited()
    graph.head = nn.Identity()
    graph.inner.a.weight.data.zero_()
    graph.inner.note = "mine"
    bias = graph.inner.a.bias + 0.5
    assert torch.allclose(graph(rows(1)), (bias * 2 * 1.5 + 1 - 1).expand(3, 4))


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        (Model, "gain", 7.0),
        (Model, "forward", lambda self, x: x),
        (Model, "finish", lambda self, x: x),
        (Inner, "forward", lambda self, x: x),
    ],
)
def test_a_class_that_changed_since_is_refused_at_the_call(
    monkeypatch: pytest.MonkeyPatch, kind: type, name: str, value: Any
) -> None:
    graph = edited()
    before = graph(rows())
    with monkeypatch.context() as patch:
        patch.setattr(kind, name, value)
        with pytest.raises(RuntimeError, match=rf"{kind.__name__}\.{name} has changed since this"):
            graph(rows())
    assert torch.equal(graph(rows()), before)


def test_a_change_of_a_class_that_the_graph_has_not_read_is_free(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    graph = edited()
    monkeypatch.setattr(Model, "unread", 2.0)
    monkeypatch.setattr(Model, "other", lambda self: 1, raising=False)
    monkeypatch.setattr(Model, "gain", 1.5)
    graph(rows())


@pytest.mark.parametrize("kind", [Dropping, Switching])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("given", [True, False], ids=["with example", "without example"])
def test_a_graph_that_depends_on_the_mode_refuses_the_other(
    kind: type[nn.Module], training: bool, given: bool
) -> None:
    model = kind().train(training)
    graph = swap(model, nn.Identity(), "a", "b", "fx", rows() if given else None)
    assert is_bound(graph)
    now, other = ("train", "eval") if training else ("eval", "train")
    graph.train(training)
    with pytest.raises(RuntimeError, match=rf"in {now}\(\) mode and does not do what it does in "):
        graph.train(not training)
    with pytest.raises(RuntimeError, match=rf"call {other}\(\) on the original and swap again"):
        graph.train(not training)
    assert graph.training is training


@pytest.mark.parametrize("kind", [Dropping, Switching, Layered])
def test_a_program_of_a_model_that_depends_on_the_mode_refuses_the_other(
    kind: type[nn.Module],
) -> None:
    assert is_bound(swap(kind().eval(), nn.Identity(), "a", "b", "export", rows()))


class Hidden(Model):
    """What the span makes counts while training only."""

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.inner(x)
        return self.head(x) + (h if self.training else h * 0)


@pytest.mark.parametrize("module", [nn.Linear(4, 4), nn.Dropout(0.5)])
def test_a_program_switches_what_was_put_in_if_nothing_else_depends_on_the_mode(
    module: nn.Module,
) -> None:
    model = Model().eval()
    graph = swap(model, module, "inner.a", "inner.b", "export", rows())
    assert not is_bound(graph)
    assert graph.train().get_submodule(swap_history(graph)[-1].module).training
    with torch.no_grad():
        torch.manual_seed(0)
        expected = copy.deepcopy(module).train()(model.inner.a(rows()))
        torch.manual_seed(0)
        assert torch.equal(graph(rows()), model.head(expected + 0.5) * 2 * 1.5 + 1 - 1)
    assert is_bound(swap(Hidden().eval(), module, "inner.a", "inner.b", "export", rows()))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("given", [True, False], ids=["with example", "without example"])
def test_a_graph_whose_layers_know_their_mode_may_be_switched(training: bool, given: bool) -> None:
    model = Layered().train(training)
    graph = swap(model, nn.Identity(), "a", "b", "fx", rows() if given else None)
    assert not is_bound(graph)
    graph.eval()
    assert torch.equal(graph(rows()), model.eval().norm(model.a(rows())))
    graph.train()
    assert graph.norm.training
    assert not torch.equal(graph(rows()), graph(rows()))


def test_eager_models_keep_both_modes() -> None:
    model = Switching().eval()
    kept = swap(model, nn.Identity(), "a", "b", "eager", rows())
    assert torch.equal(kept.train()(rows()), model.a(rows() * 2))
    assert torch.equal(kept.eval()(rows()), model.a(rows()))


def test_another_number_of_tensors_is_refused_by_exported_graphs() -> None:
    model = Pair().eval()
    graph = swap(model, nn.Identity(), "a", "b", "export", (rows(), [rows(1), rows(2)]))
    expected = model.a(rows()) + rows(1) + rows(2)
    torch.testing.assert_close(graph(rows(), [rows(1), rows(2)]), expected)
    for more in ([rows(1)], [rows(1)] * 3):
        with pytest.raises(RuntimeError, match=f"takes 3 values .*, and got {1 + len(more)}: swap"):
            graph(rows(), more)


@pytest.mark.parametrize("times", [1, 2])
def test_pickles_keep_the_mode_and_the_constants(times: int) -> None:
    bound: Any = swap(Switching().eval(), nn.Identity(), "a", "b", "fx", rows())
    graph: Any = edited()
    for _ in range(times):
        bound, graph = pickle.loads(pickle.dumps((bound, graph)))
    assert isinstance(graph, SwappedModule)
    with pytest.raises(RuntimeError, match=r"what the model does in eval\(\) mode"):
        bound.train()
    with pytest.raises(AttributeError, match="'scale' was read"):
        graph.scale = 1.0
    graph.train()


class Silent(nn.Module):
    """Its span runs without gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        with torch.no_grad():
            x = self.b(x)
        return self.c(x)


@pytest.mark.parametrize("put_in", [nn.Identity, nn.ReLU])
@pytest.mark.parametrize("times", [0, 1, 2])
def test_pickles_keep_which_values_have_a_history(put_in: type[nn.Module], times: int) -> None:
    graph: Any = swap(Silent(), put_in(), "a", "b", "fx", rows())
    for _ in range(times):
        graph = pickle.loads(pickle.dumps(graph))
    graph(rows()).sum().backward()
    assert (graph.a.weight.grad is not None) == (put_in is nn.Identity)
    assert graph.c.weight.grad is not None


@pytest.mark.parametrize("how", ["fx", "export", "eager"])
def test_an_identity_without_gradients_hands_on_an_input_that_asks_for_one(how: Any) -> None:
    model = Silent().eval()
    model.a = nn.Identity()
    x = rows().requires_grad_()
    swap(model, nn.Identity(), "a", "b", how, rows())(x).sum().backward()
    torch.testing.assert_close(x.grad, model.c.weight.sum(0).expand_as(x))


@pytest.mark.parametrize(
    "register",
    [
        "register_forward_hook",
        "register_forward_pre_hook",
        "register_full_backward_hook",
        "register_full_backward_pre_hook",
    ],
)
def test_hooks_on_opened_places_are_refused(register: str) -> None:
    graph = edited()
    with pytest.raises(RuntimeError, match="the graph does not call it, so a hook on it would"):
        getattr(graph.inner, register)(print)
    for module in (graph, graph.head, graph.inner.a):
        getattr(module, register)(lambda *given: None).remove()


def test_a_swapped_graph_compiles_whole() -> None:
    graph = edited()
    expected = graph(rows(1))
    torch._dynamo.reset()
    compiled = torch.compile(graph, fullgraph=True, backend="eager")
    assert torch.equal(compiled(rows(1)), expected)


@pytest.mark.parametrize(
    "copied", [lambda model: model, copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))]
)
def test_a_container_switches_what_was_put_in_for_its_layers(copied: Any) -> None:
    layers = nn.ModuleDict({"inner": nn.Sequential(*(nn.Linear(4, 4) for _ in range(6)))})
    model = nn.Sequential(layers["inner"]).eval()
    once = swap(model, nn.Dropout(), "0.0", "0.2", how="fx", example_inputs=torch.rand(2, 4))
    twice = swap(once, nn.Dropout(), "0.3", "0.5", how="fx", example_inputs=torch.rand(2, 4))
    edited = copied(twice)
    put_in = [edited.get_submodule(record.module) for record in swap_history(edited)]
    edited.get_submodule("0").train()
    assert [module.training for module in put_in] == [True, True]
    assert not edited.training
    edited.get_submodule("0").eval()
    assert [module.training for module in put_in] == [False, False]
    assert list(edited.state_dict()) == ["0.0.weight", "0.0.bias", "0.3.weight", "0.3.bias"]


class Reading(Inner):
    """Scales by a number in a file."""

    def __init__(self, path: str, read: Any) -> None:
        super().__init__()
        self.path, self.read = path, read

    def forward(self, x: Tensor) -> Tensor:
        read = self.read
        return self.b(self.a(x)) * float(read(self.path))


def numbers_in(path: str) -> Any:
    return np.load(path)


@pytest.mark.parametrize("read", [np.load, numbers_in, functools.partial(np.load)])
@torch.no_grad()
def test_a_file_that_a_forward_reads_is_read_at_each_call(tmp_path: Path, read: Any) -> None:
    path = str(tmp_path / "scale.npy")
    np.save(path, 2.0)
    model, layer, x = Reading(path, read).eval(), nn.Linear(4, 4), torch.rand(3, 4)
    for how in ("fx", "export"):
        with pytest.raises(RuntimeError, match=r"numpy\.load\(\)"):
            swap(model, layer, "a", "b", how, example_inputs=x)
    edited = swap(model, layer, "a", "b", example_inputs=x)
    np.save(path, 3.0)
    assert torch.allclose(edited(x), layer(model.a(x)) * 3)
