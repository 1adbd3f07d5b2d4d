"""Layers that return several tensors: chosen in the fit, and never to be said again."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import torchkoopman as tk
from tests.systems import normal
from torchkoopman.running.ranking import rank_spans


class Cell(nn.Module):
    """Takes ``(h, g)`` of one width and returns such a pair, in a tuple or a dictionary."""

    def __init__(self, width: int, named: bool) -> None:
        super().__init__()
        self.named = named
        self.turn, self.mix = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, state: Any) -> Any:
        h, g = state.values() if isinstance(state, dict) else state
        h, g = torch.tanh(self.turn(h)), g + self.mix(h)
        return {"h": h, "g": g} if self.named else (h, g)


class Pairs(nn.Module):
    """Three cells; the second returns a dictionary."""

    def __init__(self, width: int = 3) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.cells = nn.ModuleList(Cell(width, named) for named in (False, True, False))

    def forward(self, x: Tensor) -> Tensor:
        state: Any = (x, x)
        for cell in self.cells:
            state = cell(state)
        out: Tensor = state[0] + state[1]
        return out


LAYERS = ["cells.0", "cells.1", "cells.2"]
MIXED = {"cells.0": "1", "cells.1": "h", "cells.2": "1"}


def batches(seed: int = 0, count: int = 6, shape: tuple[int, ...] = (50, 3)) -> list[Tensor]:
    return [normal(*shape, seed=100 * seed + k) for k in range(count)]


def quiet(model: nn.Module, layers: Any = LAYERS, **options: Any) -> tk.Surrogate:
    options = {"method": "dmd", "frames": "aligned", "dynamics": "step", **options}
    return tk.fit(model, batches(), layers, progress=False, **options)


def states(model: Pairs, x: Tensor) -> dict[str, Any]:
    """What the cells return, by hand."""
    outputs, state = {}, (x, x)
    for name, cell in zip(LAYERS, model.cells, strict=True):
        state = outputs[name] = cell(state)
    return outputs


def quality(surrogate: tk.Surrogate, model: Pairs, paths: dict[str, Any], x: Tensor) -> Any:
    """R² layer by layer from the definition."""
    found, first = states(model, x), surrogate.layers[0]
    at = {layer: found[layer][key] for layer, key in paths.items()}
    return {
        layer: 1
        - (
            (surrogate.predict(at[first][:, None], first, layer)[:, 0] - at[layer]).square().sum()
            / (at[layer] - at[layer].mean(0)).square().sum()
        ).item()
        for layer in surrogate.layers[1:]
    }


@torch.no_grad()
def test_a_fit_on_a_path_is_evaluated_on_that_path_without_saying_it_again() -> None:
    model, fresh = Pairs(), batches(1)
    surrogate = quiet(model, output=MIXED)
    assert {layer: view.path for layer, view in surrogate.views.items()} == MIXED
    assert surrogate.views["cells.1"].structure == ("dict",)
    result = tk.evaluate(surrogate, model, fresh)
    keys = {"cells.0": 1, "cells.1": "h", "cells.2": 1}
    expected = quality(surrogate, model, keys, torch.cat(fresh))
    assert result.layers == pytest.approx(expected, rel=1e-5)
    assert result == tk.evaluate(surrogate, model, fresh, output=MIXED)


@pytest.mark.parametrize("method", ["dmd", "edmd", "autoencoder"])
def test_one_path_serves_all_layers_that_have_it_and_every_method(method: str) -> None:
    options: dict[str, Any] = {
        "dmd": {},
        "edmd": {"observables": tk.RandomFeatures(20)},
        "autoencoder": {"latent": 6, "hidden": (8,), "batch": 32, "steps": 20},
    }[method]
    options |= {"method": method, "progress": False}
    model, ends = Pairs(), ["cells.0", "cells.2"]
    plain = tk.fit(model, batches(), ends, **options)
    other = tk.fit(model, batches(), ends, output="1", **options)
    assert [view.path for view in plain.views.values()] == ["0", "0"]
    assert [view.path for view in other.views.values()] == ["1", "1"]
    for surrogate in (plain, other):
        held = [torch.cat(batches())[9::10]]
        result = tk.evaluate(surrogate, model, held)
        assert surrogate.record.held_out == pytest.approx(result.layers, rel=1e-5)
    assert plain.record.held_out != other.record.held_out


def test_an_ambiguous_output_names_an_argument_that_fit_has() -> None:
    with pytest.raises(TypeError, match=r'output="path", or output=\{\'cells\.1\': "path"\}'):
        quiet(Pairs())


class Turned(nn.Module):
    """A layer that returns maps, and two with the batch in their second axis."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.first = nn.Conv2d(2, 2, 1)
            self.inner, self.last = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(torch.tanh(self.inner(self.first(x).flatten(1)[None])))
        return out


LAYOUT = {"first": "b c h w -> b 1 (c h w)", "inner": "t b f -> b t f", "last": "t b f -> b t f"}


@pytest.mark.parametrize("delays", [0, 1])
def test_a_layout_is_not_to_be_said_again_either(delays: int) -> None:
    model = Turned()
    maps, fresh = (batches(seed, 6, (40, 2, 2, 2)) for seed in (0, 1))
    surrogate = tk.fit(
        model, maps, list(LAYOUT), method="dmd", layout=LAYOUT, delays=delays, progress=False
    )
    assert {layer: view.layout.pattern for layer, view in surrogate.views.items()} == LAYOUT
    result = tk.evaluate(surrogate, model, fresh)
    assert result == tk.evaluate(surrogate, model, fresh, layout=LAYOUT)
    small: dict[str, Any] = {"points": 40, "dimensions": (0,), "bootstrap": 0}
    shape = surrogate.topology(model, fresh, **small)
    assert str(shape) == str(surrogate.topology(model, fresh, layout=LAYOUT, **small))


def test_topology_looks_at_the_tensors_of_the_fit() -> None:
    model = Pairs()
    small: dict[str, Any] = {"points": 60, "dimensions": (0,), "bootstrap": 0}
    surrogate = quiet(model, output=MIXED)
    found = surrogate.topology(model, batches(1), **small)
    assert str(found) == str(surrogate.topology(model, batches(1), output=MIXED, **small))
    others = surrogate.topology(model, batches(1), output={"cells.0": "0"}, **small)
    assert others.epsilon != found.epsilon


def second(output: Any) -> Tensor:
    return output["g"] if isinstance(output, dict) else output[1]


@pytest.mark.parametrize("run", [tk.evaluate, tk.Surrogate.topology])
def test_what_was_read_through_a_function_is_to_be_said_again(run: Any) -> None:
    model = Pairs()
    surrogate = quiet(model, output=second)
    said = r"layer 'cells\.0' was read through the function 'second'.*output=\{'cells\.0': function"
    with pytest.raises(ValueError, match=said):
        run(surrogate, model, batches(1))
    few = {"points": 60, "dimensions": (0,), "bootstrap": 0} if run is tk.Surrogate.topology else {}
    by_path = {"cells.0": "1", "cells.1": "g", "cells.2": "1"}
    one, other = (
        run(surrogate, model, batches(1), output=output, **few) for output in (second, by_path)
    )
    assert str(one) == str(other)


def test_a_model_that_returns_something_else_is_refused() -> None:
    surrogate, other = quiet(Pairs(), output=MIXED), Pairs()
    other.cells[1].named = False  # type: ignore[assignment]
    with pytest.raises(ValueError, match=r"'cells\.1' was read at output='h' in a dict, but here"):
        tk.evaluate(surrogate, other, batches(1))


def test_rank_spans_scores_the_tensors_chosen() -> None:
    model, layout = Pairs(), {"*.*": "b f -> b f"}
    ranking = rank_spans(
        model, batches(), LAYERS, output=MIXED, layout=layout, ridge=1e-9, progress=False
    )
    by_ends = {(span.start, span.end): span.r2 for span in ranking.spans}
    x = torch.cat(batches())
    with torch.no_grad():
        found = states(model, x)
    start, end = found["cells.0"][1].double(), found["cells.1"]["h"].double()
    halves = torch.arange(len(x)) // 50 % 2 == 0
    error = 0.0
    for fit, rest in ((halves, ~halves), (~halves, halves)):
        ones = torch.ones(len(x), 1, dtype=torch.float64)
        design = torch.cat([ones, start], 1)
        weight = torch.linalg.lstsq(design[fit], end[fit]).solution
        error += (design[rest] @ weight - end[rest]).square().sum().item()
    expected = 1 - error / (end - end.mean(0)).square().sum().item()
    assert by_ends["cells.0", "cells.1"] == pytest.approx(expected, abs=1e-5)


def test_a_surrogate_between_two_layers_keeps_their_views_alone() -> None:
    model, fitter = Pairs(), tk.DMDFitter(pairs="all")
    tk.fit(model, batches(), LAYERS, method=fitter, output=MIXED, progress=False)
    surrogate = fitter.between("cells.1", "cells.2")
    assert {layer: view.path for layer, view in surrogate.views.items()} == {
        "cells.1": "h",
        "cells.2": "1",
    }
    assert tk.evaluate(surrogate, model, batches(1)).rows == 300


def test_a_surrogate_read_from_its_file_is_evaluated_as_before(tmp_path: Path) -> None:
    model = Pairs()
    surrogate = quiet(model, output=MIXED)
    read = tk.Surrogate.load(surrogate.save(tmp_path / "s.safetensors"))
    assert read.views == surrogate.views
    assert tk.evaluate(read, model, batches(1)) == tk.evaluate(surrogate, model, batches(1))
