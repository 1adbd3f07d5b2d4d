"""Views: what a probe streamed is what was at the path, and can be read there again."""

import dataclasses
import json
import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from torchkoopman.observe.layouts import Layout
from torchkoopman.observe.outputs import tensors_in
from torchkoopman.observe.places import Step, filled, leaves, read
from torchkoopman.observe.probes import attach
from torchkoopman.observe.trajectory import Trajectory
from torchkoopman.observe.views import View, find_state
from torchkoopman.observe.watch import Watch, read_again

X = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))


@dataclasses.dataclass
class Record:
    hidden: Any
    rest: Any = None


class Named(NamedTuple):
    hidden: Any
    rest: Any


class Layer(nn.Module):
    """Returns what a function makes of its input."""

    def __init__(self, made: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.made = made

    def forward(self, x: Tensor) -> Any:
        return self.made(x)


def model_of(*made: Callable[[Tensor], Any]) -> nn.Module:
    """Layers ``"layers.0"``, ``"layers.1"``, …, each called on the model's input."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(Layer(each) for each in made)

        def forward(self, x: Tensor) -> list[Any]:
            return [layer(x) for layer in self.layers]

    return Model()


def streamed(model: nn.Module, layers: Any = "layers.*", x: Tensor = X, **how: Any) -> Trajectory:
    got: list[Trajectory] = []
    with attach(model, layers, **how) as probe:
        probe.stream_to(got.append)
        model(x)
    return got[0]


def by_json(view: View) -> View:
    return View.from_config(json.loads(json.dumps(view.config())))


def nested(leaf: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Containers within containers; a leaf is the number of a tensor, or None."""
    return st.recursive(
        leaf,
        lambda inner: st.one_of(
            st.lists(inner, min_size=1, max_size=3),
            st.lists(inner, min_size=1, max_size=3).map(tuple),
            st.dictionaries(st.sampled_from(["a", "b", 0, 7]), inner, min_size=1, max_size=3),
            st.builds(Record, inner, inner),
            st.builds(Named, inner, inner),
        ),
        max_leaves=8,
    )


def with_tensors(structure: Any, x: Tensor) -> Any:
    """The structure with ``x + k`` for each number k: equal numbers are one and the same tensor."""
    tensors: dict[int, Tensor] = {}
    for place, leaf in list(leaves(structure)):
        if isinstance(leaf, int):
            structure = filled(structure, place, tensors.setdefault(leaf, x + leaf))
    return structure


@settings(deadline=None, max_examples=60)
@given(nested(st.one_of(st.integers(0, 4), st.none())), st.data())
def test_what_is_streamed_is_what_was_at_the_path(structure: Any, data: st.DataObject) -> None:
    paths = sorted(tensors_in(with_tensors(structure, X)))
    if not paths:
        return
    path = data.draw(st.sampled_from(paths))
    model = model_of(lambda x: with_tensors(structure, x), lambda x: x)
    got = streamed(model, output={"layers.0": path})
    view = got.views["layers.0"]
    truth = tensors_in(model(X)[0])[path]
    assert torch.equal(got.states["layers.0"][:, 0], truth)
    assert (view.path, view.function) == (path, None)

    # The place is that of the path, also where the same tensor stands elsewhere too.
    output = with_tensors(structure, X)
    changed = tensors_in(filled(output, view.place, -X))
    assert torch.equal(changed.pop(path), -X)
    assert all(torch.equal(changed[each], tensors_in(output)[each]) for each in changed)

    # Written down and read again, it leads to the same tensor.
    again = by_json(view)
    assert again == view
    assert read(output, find_state(output, "layers.0", again)) is tensors_in(output)[path]
    assert torch.equal(
        streamed(model, output={"layers.0": again}).states["layers.0"], got.states["layers.0"]
    )


def test_a_view_says_what_was_read_and_survives_json() -> None:
    made = Named(None, {"a": (X, Record(X[:, None] + 1))})
    view, tensor = View.of(made, "1.a.1.hidden", "b p f -> b 1 (p f)", "layer", masked=True)
    assert torch.equal(tensor, X[:, None] + 1)
    assert view.structure == ("Named", "dict", "tuple", "Record")
    assert str(view) == "output '1.a.1.hidden', b p f -> b 1 (p f), masked"
    assert view.source == "1.a.1.hidden"
    assert by_json(view) == view
    own, _ = View.of(X, None, None, "layer")
    assert (own.path, own.structure, own.source) == ("", (), "")
    assert by_json(own) == own


def test_a_view_through_a_function_keeps_its_name_and_is_for_looking() -> None:
    def flipped(output: Tensor) -> Tensor:
        return output.flip(-1)

    model = model_of(lambda x: x, lambda x: x)
    got = streamed(model, output={"layers.1": flipped})
    view = got.views["layers.1"]
    assert torch.equal(got.states["layers.1"][:, 0], X.flip(-1))
    assert (view.function, view.place, view.source) == ("flipped", (), "function flipped")
    assert str(view).startswith("function flipped, ")
    assert by_json(view) == view
    with pytest.raises(TypeError, match=r"layer 'layers\.1' was read through the function 'flip"):
        streamed(model, output=got.views)


def test_a_layer_of_another_structure_is_refused_and_so_is_one_that_changes_it() -> None:
    made: list[Any] = [lambda x: (x, x + 1)]
    model = model_of(lambda x: made[0](x), lambda x: x)
    views = streamed(model, output={"layers.0": "1"}).views
    refused = r"layer 'layers\.0' was read at output='1' in a tuple, but here returns a "
    with attach(model, "layers.*", output=views) as probe:
        model(X)
        for other, kind in (
            (lambda x: [x, x + 1], "list"),
            (lambda x: (x,), "tuple"),
            (lambda x: (x, None), "tuple"),
            (lambda x: x, "Tensor"),
            (lambda x: Named(x, x), "Named"),
        ):
            made[0] = other
            with pytest.raises(ValueError, match=refused + kind):
                model(X)
        made[0] = lambda x: (x, x.long())
        with pytest.raises(TypeError, match="int64"):
            model(X)
    assert probe.report().trajectories == 1


def test_a_tensor_read_as_it_is_is_not_found_in_a_tuple() -> None:
    views = streamed(model_of(lambda x: x)).views
    with pytest.raises(ValueError, match="output='' in a Tensor, but here returns a tuple"):
        streamed(model_of(lambda x: (x,)), output=views)


def test_without_a_choice_the_view_follows_the_structure_of_each_pass() -> None:
    made: list[Any] = [lambda x: (x, None)]
    model, got = model_of(lambda x: made[0](x)), list[Trajectory]()
    with attach(model, "layers.*") as probe:
        probe.stream_to(got.append)
        for each in (made[0], lambda x: {"h": x}, lambda x: x, lambda x: [None, x]):
            made[0] = each
            model(X), model(X)
    found = [(each.views["layers.0"].path, each.views["layers.0"].structure) for each in got]
    assert found[::2] == found[1::2]
    assert found[::2] == [("0", ("tuple",)), ("h", ("dict",)), ("", ()), ("1", ("list",))]
    assert all(torch.equal(each.states["layers.0"][:, 0], X) for each in got)


def test_looking_makes_no_entry_in_an_output() -> None:
    made = [defaultdict(list, a=X), defaultdict(list, b=X)]
    given = iter(made)
    model = model_of(lambda x: next(given))
    with attach(model, "layers.*"):
        model(X), model(X)
    assert [set(each) for each in made] == [{"a"}, {"b"}]


def test_a_view_is_masked_where_a_mask_said_which_rows_count() -> None:
    model, got = model_of(lambda x: x), list[Trajectory]()
    tokens = torch.ones(2, 3, 4)
    tokens[0, 0] = torch.nan  # a row left out for itself is no mask
    with attach(model, "layers.*") as probe:
        probe.stream_to(got.append)
        model(tokens)
        with probe.mask(torch.ones(2, 3, dtype=torch.long)):
            model(tokens)
        model(tokens)
    assert [each.views["layers.0"].masked for each in got] == [False, True, False]
    assert [each.mask is not None for each in got] == [True] * 3


def test_an_attention_mask_in_a_batch_makes_a_watchs_views_masked() -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Identity()

        def forward(self, tokens: Tensor, attention_mask: Tensor | None = None) -> Any:
            return self.layer(tokens)

    got: list[Trajectory] = []
    batches = [{"tokens": torch.ones(2, 3, 4)}, {"tokens": torch.ones(2, 3, 4)}]
    batches[1]["attention_mask"] = torch.ones(2, 3, dtype=torch.long)
    Watch(Masked(), "layer").stream(batches, got.append)  # type: ignore[arg-type]
    assert [each.views["layer"].masked for each in got] == [False, True]


def test_reports_name_the_path_or_the_function() -> None:
    def second(output: Any) -> Any:
        return output[1]

    model = model_of(*[lambda x: (x, x)] * 2, lambda x: x)
    with attach(model, "layers.*", output={"layers.0": "1", "layers.1": second}) as probe:
        model(X)
    report = probe.report()
    assert [stream.output for stream in report.streams] == ["1", "function second", ""]
    first, other, last = str(report).splitlines()[2:]
    assert re.search(r" '1' +'batch features", first)
    assert re.search(r" 'function second' +'batch features", other)
    assert re.search(r"\d +'batch features", last)


def test_each_call_of_one_layer_can_have_a_choice_of_its_own() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = Layer(lambda x: (x, x + 1, x + 2))

        def forward(self, x: Tensor) -> Any:
            return self.layer(x), self.layer(x)

    model, calls = Twice(), ["layer#0", "layer#1"]
    got = streamed(model, calls, output={"layer": "1", "layer#1": "2"})
    assert {name: view.path for name, view in got.views.items()} == {"layer#0": "1", "layer#1": "2"}
    assert torch.equal(got.states["layer#1"][:, 0], X + 2)
    again = streamed(model, got.layers, output=got.views)
    assert all(torch.equal(again.states[call], got.states[call]) for call in calls)
    with pytest.raises(ValueError, match=r"'layer#2', which matches none.*'layer#0', 'layer#1'"):
        streamed(model, calls, output={"layer#2": "1"})


IMAGES = "b c h w -> b 1 (h w c)"


def reread(model: nn.Module, views: Mapping[str, View], x: Tensor, **how: Any) -> Trajectory:
    got: list[Trajectory] = []
    Watch.of(model, list(views), views, **how).stream([x], got.append)
    return got[0]


def test_a_watch_reads_again_as_views_say_and_arguments_replace_what_they_say() -> None:
    x = torch.randn(2, 3, 2, 2, generator=torch.Generator().manual_seed(1))
    model = model_of(lambda x: {"h": x, "g": x + 1}, lambda x: (x + 2, x + 3))
    how: dict[str, Any] = {"layout": IMAGES, "output": {"layers.0": "g", "layers.1": "1"}}
    first = streamed(model, x=x, **how)
    again = reread(model, first.views, x)
    assert again.views == first.views
    assert all(torch.equal(again.states[layer], first.states[layer]) for layer in first.layers)
    other = reread(model, first.views, x, output={"layers.1": "0"})
    assert torch.equal(other.states["layers.0"], first.states["layers.0"])
    torch.testing.assert_close(other.states["layers.1"], first.states["layers.1"] - 1)
    flat = reread(model, first.views, x, layout={"*.*": "b ... -> b 1 (...)"})
    assert torch.equal(flat.states["layers.1"][:, 0], (x + 3).flatten(1))


def test_layers_without_views_are_read_by_the_rules() -> None:
    assert read_again(["a", "b#0"], {}) == ({}, {})
    assert read_again(["a", "b#0", "b#1"], {}, {"b": "1", "b#1": "2"}, "b d -> b 1 d") == (
        {"b#0": "1", "b#1": "2"},
        dict.fromkeys(["a", "b#0", "b#1"], "b d -> b 1 d"),
    )


def test_a_layer_read_through_a_function_needs_the_function_again() -> None:
    model = model_of(lambda x: x, lambda x: x)
    views = streamed(model, output={"layers.1": torch.neg}).views
    with pytest.raises(ValueError, match=r"layer 'layers\.1'.*function 'neg'.*output=\{'layers\.1"):
        Watch.of(model, list(views), views)
    again = reread(model, views, X, output={"layers.1": torch.neg})
    assert torch.equal(again.states["layers.1"][:, 0], -X)
    assert again.views == views
    with pytest.raises(ValueError, match=r"output=.*'layers\.7', which matches none"):
        Watch.of(model, list(views), views, output={"layers.7": "0"})


def test_one_row_a_sample_keeps_the_order_of_positions_and_features() -> None:
    x = torch.randn(2, 3, 4, 5)
    for pattern in ("b c h w -> b (h w) c", "h b c w -> b 1 (w h c)", "b c h w -> b c (h w)"):
        layout = Layout.of(x, pattern)
        flat = Layout.of(x, layout.by_sample)
        assert torch.equal(flat.to_state(x)[:, 0], layout.to_state(x).flatten(1))
    assert Layout.of(X[:, 0]).by_sample == "batch -> batch 1 ()"
    assert Layout.of(X[:, 0], "batch -> batch 1 ()").to_state(X[:, 0]).shape == (3, 1, 1)


def test_steps_into_fields_are_written_down() -> None:
    view, _ = View.of(Record(X), "hidden", None, "layer")
    assert view.place == (Step("hidden", True, frozenset({(True, "hidden")})),)
    assert view.find(Record(-X)) is not None
    assert view.find({"hidden": X}) is None
    assert view.find(Record(None)) is None
