"""Batches: what is no loader, no batch or no class is said at once, by its true cause."""

import re
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import torchkoopman as tk
from torchkoopman.observe.probes import attach
from torchkoopman.observe.trajectory import Trajectory

X = torch.randn(300, 4, generator=torch.Generator().manual_seed(0))
Y = torch.arange(300) % 3
LAYERS = ["0", "2"]


def network() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4))


def fit(loader: Any, model: nn.Module | None = None, **options: Any) -> tk.Surrogate:
    options = {"method": "dmd", "progress": False, **options}
    return tk.fit(model or network(), loader, LAYERS, **options)


def pairs(target: Any) -> list[Any]:
    return [(X[k : k + 50], target(Y[k : k + 50])) for k in range(0, 300, 50)]


NO_LOADERS = {
    "dataset": (TensorDataset(X, Y), "Did you mean a DataLoader"),
    "tensor": (X, "gives single samples"),
    "array": (X.numpy(), "gives single samples"),
    "batch": ({"input": X}, "mapping, which is one batch"),
    "pair": ((X, Y), "pair (inputs, labels)"),
    "column": ((X, Y[:, None]), "pair (inputs, labels)"),
    "arrays": ((X.numpy(), Y.numpy()), "pair (inputs, labels)"),
    "list": ([X, Y], "pair (inputs, labels)"),
    "text": ("data.pt", "gives no batches"),
    "number": (5, "gives no batches"),
}


@pytest.mark.parametrize("kind", NO_LOADERS)
def test_what_is_no_loader_is_refused_wherever_one_is_taken(kind: str, tmp_path: Any) -> None:
    given, message = NO_LOADERS[kind]
    surrogate, match = fit(pairs(Tensor.clone)), rf"loader=.*{re.escape(message)}"
    with pytest.raises(TypeError, match=match):
        fit(given)
    with pytest.raises(TypeError, match=match):
        tk.evaluate(surrogate, network(), given)
    with pytest.raises(TypeError, match=match):
        tk.rank_spans(network(), given, LAYERS, progress=False)
    with pytest.raises(TypeError, match=match):
        surrogate.topology(network(), given)
    with pytest.raises(TypeError, match=match):
        tk.scaling.scale_layer(network(), "0", given)
    with pytest.raises(TypeError, match=match.replace("loader", "held_out")):
        fit(pairs(Tensor.clone), held_out=given)


class Lines(IterableDataset[Tensor]):
    def __iter__(self) -> Any:
        return iter(X.split(50))


def test_what_gives_batches_is_a_loader() -> None:
    rows = {
        "list": fit(list(X.split(50))),
        "tuple": fit(X.split(50)),
        "two": fit((X[:150], X[150:])),
        "iterable data": fit(Lines()),
        "no collation": fit(DataLoader(TensorDataset(X.view(6, 50, 4)), batch_size=None)),
    }
    assert {name: each.record.rows for name, each in rows.items()} == dict.fromkeys(rows, 270)


def test_two_equal_batches_of_integers_are_no_pair() -> None:
    embedded = nn.Sequential(nn.Embedding(9, 4), nn.Tanh(), nn.Linear(4, 4))
    tokens = torch.randint(9, (40,), generator=torch.Generator().manual_seed(0))
    assert fit((tokens, tokens), embedded).record.rows == 72


def test_a_sample_in_the_place_of_a_batch_is_refused_unless_a_layout_says_so() -> None:
    model, got = network(), list[Trajectory]()
    with attach(model, LAYERS) as probe:
        probe.stream_to(got.append)
        with pytest.raises(ValueError, match=r"'0' gave.*Dataset instead of a DataLoader"):
            model(X[0])
    model = nn.Sequential(nn.Flatten(0), nn.Tanh())
    with attach(model, "*", layout="batch -> batch 1 1") as probe:
        probe.stream_to(got.append)
        model(X[:, :1])
    assert got[0].states["1"].shape == (300, 1, 1)


@pytest.mark.parametrize(
    "target",
    [
        Tensor.clone,
        lambda y: y[:, None],
        Tensor.tolist,
        lambda y: tuple(y.tolist()),
        Tensor.numpy,
        Tensor.int,
        list,
        lambda y: list(y.numpy()),
    ],
)
def test_one_integer_a_sample_is_a_class_in_whatever_it_comes(target: Any) -> None:
    statistics = fit(pairs(target)).statistics
    expected = fit(pairs(Tensor.clone)).statistics
    assert statistics is not None
    assert expected is not None
    assert statistics.classes == (0, 1, 2)
    for c in statistics.classes:
        ours, theirs = statistics.by_class[c], expected.by_class[c]
        assert torch.equal(ours.mean("start"), theirs.mean("start"))


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (Tensor.float, r"torch\.float32 of shape \(50,\).*give y\.long\(\)"),
        (lambda y: y[:, None].double(), r"torch\.float64 of shape \(50, 1\).*y\.long\(\)"),
        (lambda y: y.float().numpy(), r"float32 of shape \(50,\).*y\.long\(\)"),
        (lambda y: F.one_hot(y, 3), r"int64 of shape \(50, 3\).*one-hot: give y\.argmax\(1\)"),
        (lambda y: F.one_hot(y, 3).float(), r"float32 of shape \(50, 3\).*one-hot"),
        (Tensor.to_sparse, r"layout torch\.sparse_coo.*labels\.to_dense\(\)"),
        (lambda y: y.to("meta"), r"meta device.*torch\.device\('meta'\)"),
    ],
)
def test_classes_in_another_form_are_warned_of_at_once(target: Any, message: str) -> None:
    with pytest.warns(UserWarning, match=message) as warned:
        surrogate = fit(pairs(target))
    assert len(warned) == 1
    with pytest.raises(ValueError, match=r"record says: no class statistics: the targets were"):
        tk.unlearn(surrogate, classes=[1])


@pytest.mark.parametrize(
    "target",
    [
        lambda y: y + 0.5,
        lambda y: torch.stack([y, y], 1) + 0.5,
        lambda y: torch.stack([y, y], 1),
        lambda y: ["a"] * len(y),
    ],
)
def test_other_targets_leave_a_note(target: Any) -> None:
    notes = fit(pairs(target)).record.notes
    assert any("no class statistics: the targets were" in note for note in notes)


def test_a_stream_with_classes_or_without_targets_leaves_no_note() -> None:
    for loader in (pairs(Tensor.clone), list(X.split(50)), pairs(lambda y: None)):
        assert not any("class statistics" in note for note in fit(loader).record.notes)


@pytest.mark.parametrize("label", [3, 0.5, torch.tensor(2)])
def test_one_number_for_a_batch_is_refused(label: Any) -> None:
    with pytest.raises(TypeError, match=r"single number.*Dataset instead of a DataLoader"):
        fit([(X[:50], label)])


def test_labels_of_a_wrong_kind_are_refused_by_a_probe() -> None:
    model, got = network(), list[Trajectory]()
    with attach(model, LAYERS) as probe:
        probe.stream_to(got.append)
        for wrong, way_out in (
            (F.one_hot(Y, 3), r"\(300, 3\).*argmax"),
            (Y.float(), r"float32.*y\.long"),
            (torch.tensor(2), r"shape \(\)"),
            (["a", "b"], "list"),
            (2, "int"),
        ):
            with pytest.raises(TypeError, match=rf"probe\.labels\(\) got.*{way_out}"):
                probe.labels(wrong)  # type: ignore[arg-type]
        for right in (Y[:, None], Y.tolist(), Y.numpy()):
            with probe.labels(right):  # type: ignore[arg-type]
                model(X)
    assert all(each.labels is not None and torch.equal(each.labels, Y) for each in got)
    assert len(got) == 3


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.add_module("0", nn.Linear(4, 4))
        self.add_module("2", nn.Linear(4, 4))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.get_submodule("2")(torch.tanh(self.get_submodule("0")(x) + t))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("batch", "model", "way_out"),
    [
        ((X, Y, Y), network, "model(batch[0])"),
        ({"x": X, "t": X, "index": 3}, Two, "model(x=batch['x'], t=batch['t'])"),
        (X.numpy(), network, "model(torch.as_tensor(batch))"),
    ],
)
def test_a_batch_that_the_model_does_not_take_is_told_with_a_way_that_works(
    batch: Any, model: Any, way_out: str
) -> None:
    with pytest.raises(TypeError) as raised:
        fit([batch], model())
    assert f"forward=lambda model, batch: {way_out}." in str(raised.value)
    forward = eval(f"lambda model, batch: {way_out}")
    assert fit([batch], model(), forward=forward).record.rows == 270


class Optional(Two):
    """Takes labels of its own, or a mask, or neither."""

    def forward(self, x: Tensor, t: Tensor, mask: Tensor | None = None, k: int = 0) -> Tensor:
        return super().forward(x, t)


class Starred(Two):
    def forward(self, *inputs: Tensor) -> Tensor:
        return super().forward(*inputs, X)


READ = {
    "one input": (network, (X,), None),
    "an input and labels": (network, (X, Y), Y),
    "two inputs": (Two, (X, X), None),
    "two inputs and labels": (Two, (X, X, Y), Y),
    "two inputs of their own and labels": (Two, ((X, X), Y), Y),
    "two inputs of their own": (Two, ([X, X],), None),
    "arguments by name and labels": (Two, ({"t": X, "x": X}, Y), Y),
    "what is required": (Optional, (X, X), None),
    "what is required and labels": (Optional, (X, X, Y), Y),
    "anything": (Starred, (X, Y), Y),
}


@pytest.mark.parametrize("how", READ)
def test_a_tuple_is_read_by_what_the_model_requires(how: str) -> None:
    make, batch, labels = READ[how]
    surrogate = fit([batch], make())
    assert surrogate.record.rows == 270
    assert surrogate.statistics is not None
    assert surrogate.statistics.classes == (() if labels is None else (0, 1, 2))


def test_a_tuple_of_two_readings_is_refused_and_never_guessed() -> None:
    with pytest.raises(TypeError, match=r"(?s)can take all of it, or all but labels.*forward="):
        fit([(X, X, X, Y)], Optional())
    with pytest.raises(TypeError, match="can take all of it"):
        fit([(X, X, X, Y)], Optional())

    def forward(model: nn.Module, batch: Any) -> None:
        model(*batch[:3])

    assert fit([(X, X, X, Y)], Optional(), forward=forward).statistics is not None


@pytest.mark.parametrize(
    ("batch", "said"),
    [
        ((), "a batch is empty"),
        (X.to("meta"), r"\(300, 4\) on the meta device"),
        (None, "a NoneType"),
    ],
)
def test_what_is_no_batch_is_said(batch: Any, said: str) -> None:
    with pytest.raises((TypeError, ValueError), match=said):
        fit([batch])


def test_a_type_error_from_within_the_model_is_left_as_it_is() -> None:
    model = network()
    model[1].register_forward_pre_hook(lambda *_: len(3))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^object of type 'int' has no len"):
        fit(pairs(Tensor.clone), model)


@pytest.mark.parametrize("method", ["dmd", "edmd", "autoencoder"])
def test_the_true_cause_is_told_where_no_row_counts(method: str) -> None:
    spoilt = [(x * torch.nan, y) for x, y in pairs(Tensor.clone)]
    with pytest.raises(ValueError, match=r"none of the rows.*300 are not finite.*layer '0'"):
        fit(spoilt, method=method)
    model = network()
    with torch.no_grad():
        model[2].weight[0] = torch.inf
    with pytest.raises(ValueError, match="are not finite, first in layer '2'"):
        fit(pairs(Tensor.clone), model, method=method)
    for loader in ([], iter([])):
        with pytest.raises(ValueError, match="loader= gave no batches"):
            fit(loader, method=method)
    with pytest.raises(ValueError, match="held_out= gave no batches"):
        fit(pairs(Tensor.clone), method=method, held_out=[], **_few(method))
    with pytest.raises(ValueError, match=r"'0\.weight' is on the meta device.*to_empty"):
        fit(pairs(Tensor.clone), network().to("meta"), method=method)
    model, loader = network(), pairs(Tensor.clone)
    with (
        pytest.raises(ValueError, match="default device is the meta device"),
        torch.device("meta"),
    ):
        fit(loader, model, method=method)


def _few(method: str) -> dict[str, Any]:
    few: dict[str, dict[str, Any]] = {
        "edmd": {"observables": tk.RandomFeatures(10)},
        "autoencoder": {"calibration": 200, "latent": 4, "steps": 1},
    }
    return few.get(method, {})


def test_classes_to_forget_are_integers_in_whatever_they_come() -> None:
    surrogate = fit(pairs(Tensor.clone), method="edmd", observables=tk.RandomFeatures(10))
    for classes in (1, [1], np.array([1]), np.int64(1), torch.tensor([1]), {1}):
        assert tk.unlearn(surrogate, classes).edits[-1].classes == (1,)  # type: ignore[arg-type]
    with pytest.raises(
        ValueError, match=r"classes=\[\] to forget: there is nothing to forget\. It has seen"
    ):
        tk.unlearn(surrogate, [])
    for wrong in ("1", [0.5], None):
        with pytest.raises(TypeError, match="are no class numbers"):
            tk.unlearn(surrogate, wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"head='2' is a str.*get_submodule"):
        tk.unlearn(surrogate, [1], head="2")  # type: ignore[arg-type]
