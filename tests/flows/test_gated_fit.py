"""A gated neural ODE in place of a span: its R² is that of the module that a swap puts in."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import threading
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

import torchkoopman as tk
from torchkoopman.flows import GatedSurrogate, fit_gated
from torchkoopman.flows.gated_training import _drawn

QUICK = {"steps": 60, "widths": [16], "batch": 64, "progress": False}
FEW = {**QUICK, "observables": tk.RandomFeatures(30)}


def network(*widths: int) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = [nn.Sequential(nn.Linear(a, b), nn.Tanh()) for a, b in pairwise(widths)]
        for layer in layers:
            layer[0].weight.data *= 2
        return nn.Sequential(*layers, nn.Linear(widths[-1], 3))


def batches(*shape: int, count: int = 400, size: int = 50) -> list[Tensor]:
    inputs = torch.randn(count, *shape, generator=torch.Generator().manual_seed(1))
    return list(inputs.split(size))


def r2(predicted: Tensor, truth: Tensor) -> float:
    error = (predicted - truth).double().square().sum()
    return (1 - error / (truth - truth.mean(0)).double().square().sum()).item()


@pytest.mark.parametrize("states", [None, 3, 9])
@pytest.mark.parametrize("end", ["1", "2"])
def test_its_quality_is_that_of_its_module_on_samples_that_it_has_not_seen(
    states: int | None, end: str
) -> None:
    model, loader = network(4, 6, 6, 5), batches(4)
    found = fit_gated(model, loader, "0", end, states=states, **FEW)
    inputs = torch.cat(loader)
    with torch.no_grad():
        start = model[0](inputs)
        truth = model[1 : int(end) + 1](start)
        predicted = found.module(start)
    held = torch.arange(400) % 10 == 9
    fit = ~held & (torch.arange(400) % 10 != 4)
    assert (found.rows, found.chosen_on, found.held_out) == (320, 40, 40)
    assert found.r2["gnODE"] == pytest.approx(r2(predicted[held], truth[held]), abs=1e-5)
    one = torch.ones(400, 1)
    design = torch.cat([start, one], 1).double()
    weight = torch.linalg.lstsq(design[fit], truth[fit].double()).solution
    linear = r2(design[held] @ weight, truth[held].double())
    assert found.r2["ridge map"] == pytest.approx(linear, abs=1e-4)
    assert ("skip" in found.r2) == (end == "1")
    if end == "1":
        assert found.r2["skip"] == pytest.approx(r2(start[held], truth[held]), abs=1e-6)
    assert found.r2["gnODE"] > 0.5


@pytest.mark.slow
def test_of_a_span_that_is_not_linear_it_explains_more_than_the_linear_forms() -> None:
    model, loader = network(3, 3, 3, 3), batches(3, count=4000, size=500)
    found = fit_gated(model, loader, "0", "2", steps=1500, widths=[64], progress=False)
    left = {name: 1 - value for name, value in found.r2.items()}
    assert left["gnODE"] < 0.2 * left["ridge map"]
    assert left["gnODE"] < left["skip"]
    assert found.step > 0


@pytest.mark.parametrize("how", ["fx", "export", "eager"])
def test_a_swap_puts_the_module_between_the_two_layers(how: str) -> None:
    model, loader = network(4, 6, 6, 5), batches(4)
    found = fit_gated(model, loader, "0", "2", **FEW)
    edited = tk.swap(model, found.module, found.start, found.end, how, loader[0])
    with torch.no_grad():
        wanted = model[3](found.module(model[0](loader[0])))
        assert torch.equal(edited(loader[0]), wanted)
        assert torch.equal(tk.undo(edited)(loader[0]), model(loader[0]))
    assert not any("1.0" in name for name, _ in edited.named_parameters())


def test_images_and_tokens_keep_their_shapes_and_samples_are_parted_whole() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 6, 1), nn.Tanh(), nn.Flatten(),
            nn.Linear(6 * 25, 2),
        )  # fmt: skip
    loader = batches(1, 5, 5, count=40, size=8)
    found = fit_gated(model, loader, "0", "2", **FEW)
    assert (found.rows, found.chosen_on, found.held_out) == (32 * 25, 4 * 25, 4 * 25)
    edited = tk.swap(model, found.module, found.start, found.end)
    with torch.no_grad():
        inner = found.module(model[0](loader[0]))
        assert inner.shape == (8, 6, 5, 5)
        assert torch.equal(edited(loader[0]), model[3:](inner))
        held = torch.cat(loader)[9::10]
        truth = model[:3](held).movedim(1, -1).reshape(-1, 6)
        own = found.module(model[0](held)).movedim(1, -1).reshape(-1, 6)
    assert found.r2["gnODE"] == pytest.approx(r2(own, truth), abs=1e-5)


def test_one_generator_gives_the_same_and_nothing_global_changes() -> None:
    model, loader = network(4, 6, 5).train(), batches(4)
    model[0].eval()
    before, modes = torch.get_rng_state(), [each.training for each in model.modules()]
    values = [value.clone() for value in model.state_dict().values()]
    one = fit_gated(model, loader, "0", "1", **FEW)
    with torch.no_grad():
        two = fit_gated(model, loader, "0", "1", **FEW)
    with torch.inference_mode():
        three = fit_gated(model, loader, "0", "1", **FEW)
    with torch.autocast("cpu"):
        four = fit_gated(model, loader, "0", "1", **FEW)
    other = fit_gated(model, loader, "0", "1", generator=torch.Generator().manual_seed(1), **FEW)
    assert torch.equal(torch.get_rng_state(), before)
    assert [each.training for each in model.modules()] == modes
    assert not any(each._forward_hooks for each in model.modules())
    assert all(map(torch.equal, model.state_dict().values(), values))
    assert all(parameter.grad is None for parameter in model.parameters())
    assert one.r2 == two.r2 == three.r2
    assert one.r2 != other.r2
    assert one.r2["ridge map"] == pytest.approx(other.r2["ridge map"])
    assert four.r2["gnODE"] == pytest.approx(one.r2["gnODE"], abs=0.05)
    assert not any(parameter.requires_grad for parameter in one.module.parameters())


def test_threads_that_draw_and_another_default_dtype_change_nothing() -> None:
    model, loader = network(4, 6, 5), batches(4)
    alone = fit_gated(model, loader, "0", "1", **FEW)
    found, done = {}, threading.Event()

    def draw() -> None:
        while not done.is_set():
            torch.rand(7)

    def fit(number: int) -> None:
        found[number] = fit_gated(copy.deepcopy(model), loader, "0", "1", **FEW)

    with torch.random.fork_rng():
        drawing = threading.Thread(target=draw)
        fits = [threading.Thread(target=fit, args=(k,)) for k in range(2)]
        for thread in (drawing, *fits):
            thread.start()
        for thread in fits:
            thread.join()
        done.set()
        drawing.join()
    assert found[0].r2 == found[1].r2 == alone.r2
    torch.set_default_dtype(torch.float64)
    try:
        other = fit_gated(model, loader, "0", "1", **FEW)
    finally:
        torch.set_default_dtype(torch.float32)
    assert other.r2["gnODE"] == pytest.approx(alone.r2["gnODE"], abs=1e-6)


def test_a_fresh_flow_has_the_weights_that_torch_draws_in_distribution() -> None:
    cell = _drawn(50, [400], 4, torch.Generator().manual_seed(0))
    for layer in (cell.target[0], cell.target[2], cell.gate):
        with torch.random.fork_rng():
            torch.manual_seed(1)
            theirs = nn.Linear(layer.in_features, layer.out_features)
        for own, other in ((layer.weight, theirs.weight), (layer.bias, theirs.bias)):
            assert own.dtype == torch.float32
            assert own.abs().max() <= layer.in_features**-0.5
            assert own.std().item() == pytest.approx(other.std().item(), rel=0.25)


def test_a_training_that_goes_wrong_keeps_what_it_started_from() -> None:
    model, loader = network(4, 6, 6, 5), batches(4)
    found = fit_gated(model, loader, "0", "2", **FEW, learning_rate=1e4)
    assert found.step == 0
    assert found.r2["gnODE"] > 0.3


@pytest.mark.parametrize("steps", [1, 2, 10])
def test_few_steps_are_enough_to_run(steps: int) -> None:
    found = fit_gated(network(4, 6, 5), batches(4), "0", "1", **FEW | {"steps": steps})
    assert found.steps == steps
    assert 0 <= found.step <= steps


def test_the_observables_that_are_given_stay_as_they_are() -> None:
    part = tk.RandomFeatures(30)
    fit_gated(network(4, 6, 5), batches(4), "0", "1", **QUICK, observables=part)
    assert not dict(part.named_buffers())


class Twice(nn.Module):
    """A layer that is called twice and returns a tuple, in bfloat16."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.inner = nn.Linear(4, 6), Pair()
        self.last = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        state, _ = self.inner(self.first(x))
        return self.last(self.inner(state)[0])


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> tuple[Tensor, int]:
        return torch.tanh(self.linear(x)), 1


def test_a_call_among_many_a_tensor_in_a_tuple_and_half_precision() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Twice().bfloat16()
    loader = [batch.bfloat16() for batch in batches(4)]
    found = fit_gated(model, loader, "first", "inner#1", output={"inner": "0"}, **FEW)
    assert found.r2["gnODE"] > 0.5
    assert found.module.core.linear.weight.dtype == torch.float32
    given = model.first(loader[0])
    with torch.no_grad():
        assert found.module(given).dtype == torch.bfloat16
        edited = tk.swap(
            model, found.module, "first", "inner#1", "fx", loader[0], output={"inner#1": "0"}
        )
        assert torch.equal(edited(loader[0]), model.last(found.module(given)))


def test_some_positions_of_each_image_are_enough() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 6, 1), nn.Tanh())
    found = fit_gated(model, batches(1, 5, 5, count=40, size=8), "0", "2", positions=3, **FEW)
    assert (found.rows, found.chosen_on, found.held_out) == (32 * 3, 4 * 3, 4 * 3)


def test_double_precision_stays() -> None:
    model = network(4, 6, 5).double()
    loader = [batch.double() for batch in batches(4)]
    found = fit_gated(model, loader, "0", "1", **FEW)
    assert found.module.core.linear.weight.dtype == torch.float64
    assert found.module(model[0](loader[0])).dtype == torch.float64


def made(**changes: object) -> GatedSurrogate:
    return dataclasses.replace(
        fit_gated(network(4, 6, 5), batches(4, count=50), "0", "1", **FEW), **changes
    )


def test_the_table_says_on_which_rows_and_what_is_not_beaten() -> None:
    found = made(r2={"ridge map": 0.9, "EDMD": 0.99, "gnODE": 0.9}, step=7)
    said = str(found)
    assert "'0' → '1' on 5 held-out rows" in said
    assert "after 7 of 60 steps, by the R² on 5 other rows" in said
    assert found.beaten_by() == ["ridge map", "EDMD"]
    assert "does not beat: ridge map, EDMD" in said
    assert "does not beat" not in str(made(r2={"ridge map": 0.9, "EDMD": 0.8, "gnODE": 0.95}))


def test_what_needs_an_operator_is_refused_by_name() -> None:
    found = made()
    assert copy.deepcopy(found).r2 == pickle.loads(pickle.dumps(found)).r2 == found.r2
    for ask in (found.spectrum, found.pseudospectrum):
        with pytest.raises(TypeError, match=r"'0' to '1' is not linear.*tk\.fit"):
            ask()
    with pytest.raises(TypeError, match="a GatedSurrogate has none: give what"):
        tk.unlearn(found, [0])
    with pytest.raises(AttributeError, match=r"'operator' is of linear surrogates.*tk\.fit"):
        getattr(found, "operator")  # noqa: B009
    with pytest.raises(AttributeError, match="no attribute 'colour'"):
        getattr(found, "colour")  # noqa: B009


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"start": "1", "end": "0"}, "goes through '0', '1'"),
        ({"start": "0", "end": "0"}, "goes through '0'|meant under two names"),
        ({"steps": 0}, "steps=0"),
        ({"times": 0}, "times=0"),
        ({"states": 0}, "states=0"),
        ({"learning_rate": 0.0}, "learning_rate=0.0"),
        ({"observables": tk.Neighbours([-1])}, "Neighbours, which look along"),
        ({"loader": batches(4, count=8)}, "of 8 samples there is no row to report"),
        ({"loader": batches(4, count=10)}, r"layer '1' is constant over the 1 row.*choose by"),
        ({"loader": []}, "no batches"),
        ({"loader": [torch.zeros(50, 4)]}, "layer '0' is constant over the 40"),
        ({"layout": "b ... -> b 1, mean over ..."}, "mean|layout"),
        ({"output": lambda output: output}, "through the function"),
    ],
)
def test_what_cannot_be_fitted_is_refused(options: dict[str, object], message: str) -> None:
    given = {"start": "0", "end": "1", "loader": batches(4)} | FEW | options
    loader, start, end = (given.pop(name) for name in ("loader", "start", "end"))
    with pytest.raises(ValueError, match=message):
        fit_gated(network(4, 6, 5), loader, start, end, **given)


def test_an_average_is_refused_since_no_swap_can_undo_it() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(36, 2))
    layout = "b c h w -> b c, mean over h w"
    with pytest.raises(ValueError, match=r"read layer '0' through .*mean over h w"):
        fit_gated(model, batches(1, 5, 5, count=20), "0", "1", layout=layout, **FEW)
