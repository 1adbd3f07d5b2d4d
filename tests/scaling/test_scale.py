"""Layer scaling against paths made by hand, least squares, and the paper's loss written out."""

import copy
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

import torchkoopman as tk
from benchmarks import scaling as example
from torchkoopman.datasets import Labelled, yin_yang
from torchkoopman.scaling.layer import ScaledLayer, SquareStep
from torchkoopman.scaling.recipe import ScalingRecipe, affine_error
from torchkoopman.scaling.scale import Scaling, scale_layer

if TYPE_CHECKING:
    from torchkoopman.observe.trajectory import Trajectory

BRIEF = ScalingRecipe(steps=3)
UNTRAINED = ScalingRecipe(steps=0)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def network(*widths: int, activation: type[nn.Module] = nn.ReLU, seed: int = 0) -> nn.Sequential:
    """Layers of a linear map and an activation, and a linear head, in float64."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = [
            nn.Sequential(nn.Linear(widths[i], widths[i + 1]), activation())
            for i in range(len(widths) - 2)
        ]
        return nn.Sequential(*layers, nn.Linear(widths[-2], widths[-1])).double()


def scaled_by_hand(model: nn.Sequential, *steps: nn.Module) -> Scaling:
    """Layer ``"1"`` of a model with these steps before it."""
    scaled_model = copy.deepcopy(model).requires_grad_(False)
    linear = scaled_model.get_submodule("1.0")
    assert isinstance(linear, nn.Linear)
    features = (linear.in_features, linear.out_features)
    scaled_model[1] = ScaledLayer(scaled_model[1], steps, features)
    states = tuple(f"1.states.{depth}" for depth in range(len(steps) + 2))
    return Scaling(scaled_model, "1", states, {})


def step(features: int, seed: int = 0) -> SquareStep:
    """A tanh step as it is drawn, its entries a few times larger."""
    made = SquareStep(features, nn.Tanh, torch.Generator().manual_seed(seed)).double()
    with torch.no_grad():
        made.linear.weight *= 2
    return made


def fitted(
    scaling: Scaling, inputs: Tensor, states: tuple[str, ...] | None = None, **options: Any
) -> tk.Surrogate:
    """Delay DMD over all states, or those named, without ridge to speak of."""
    states = scaling.states if states is None else states
    options = {"delays": len(states) - 2, "ridge": 1e-13} | options
    fitter = tk.DMDFitter(**options)
    with torch.no_grad(), tk.attach(scaling.model, states) as probe:
        probe.stream_to(fitter)
        scaling.model(inputs)
    return fitter.surrogate


def test_steps_that_do_nothing_keep_the_function_and_a_linear_layer_is_replaced_exactly() -> None:
    model = network(3, 5, 4, 2, activation=nn.Identity)
    idle = [SquareStep(5, nn.ReLU, torch.Generator(), residual=True).double() for _ in range(3)]
    for each in idle:
        nn.init.zeros_(each.linear.weight)
    scaling = scaled_by_hand(model, *idle)
    inputs, unseen = draw(60, 3), draw(20, 3, seed=1)
    assert torch.equal(scaling.model(unseen), model(unseen))
    surrogate = fitted(scaling, inputs, ridge=1e-9)  # all states are equal: a singular stack
    edited = tk.swap(model, scaling.replacement(surrogate), "0", "1")
    torch.testing.assert_close(edited(unseen), model(unseen), rtol=1e-5, atol=1e-5)


def test_a_path_that_learnt_the_layer_itself_replaces_it_exactly() -> None:
    model = network(3, 5, 4, 2)
    copying = SquareStep(5, nn.ReLU, torch.Generator()).double()
    with torch.no_grad():
        copying.linear.weight[:4], copying.linear.bias[:4] = model[1][0].weight, model[1][0].bias
        copying.linear.weight[4], copying.linear.bias[4] = 0, 0
    scaling = scaled_by_hand(model, copying)
    surrogate = fitted(scaling, draw(200, 3), ridge=1e-12)
    edited = tk.swap(model, scaling.replacement(surrogate), "0", "1")
    unseen = draw(50, 3, seed=1)
    torch.testing.assert_close(edited(unseen), model(unseen), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("widths", [(3, 5, 4, 2), (3, 4, 6, 2)], ids=["narrower", "wider"])
def test_stacking_all_states_is_least_squares_of_the_output_on_the_path(
    widths: tuple[int, ...],
) -> None:
    model = network(*widths, activation=nn.Tanh)
    scaling = scaled_by_hand(model, step(widths[1]), step(widths[1], seed=1))
    rows = model[0](draw(300, 3)).detach()
    states = [torch.ones(300, 1).double(), rows]
    for each in scaling.scaled.steps:
        states.append(each(states[-1]))
    expected = torch.cat(states, 1) @ torch.linalg.lstsq(torch.cat(states, 1), model[1](rows))[0]
    replacement = scaling.replacement(fitted(scaling, draw(300, 3)))
    torch.testing.assert_close(replacement(rows), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("delays", [0, 1, 2, 3])
@pytest.mark.parametrize("dynamics", ["step", "span"])
def test_the_replacement_is_the_surrogate_on_stacks_written_out(delays: int, dynamics: str) -> None:
    model = network(3, 5, 4, 2)
    scaling = scaled_by_hand(model, *(step(5, seed=k) for k in range(3)))
    surrogate = fitted(scaling, draw(300, 3), delays=delays, dynamics=dynamics, ridge=1e-6)
    x = draw(7, 5, seed=2)
    states = [x]
    for each in scaling.scaled.steps:
        states.append(torch.tanh(states[-1] @ each.linear.weight.T + each.linear.bias))
    stack = torch.cat([states[k] for k in range(delays, -1, -1)], 1)
    expected = surrogate.predict(stack[:, None])[:, 0, :4]
    torch.testing.assert_close(scaling.replacement(surrogate)(x), expected)


def test_a_surrogate_of_the_end_of_the_path_starts_there() -> None:
    model = network(3, 5, 4, 2)
    scaling = scaled_by_hand(model, *(step(5, seed=k) for k in range(3)))
    surrogate = fitted(scaling, draw(300, 3), scaling.states[-3:])
    x = draw(7, 5, seed=2)
    path = scaling.scaled.path(x)
    expected = surrogate.predict(torch.cat([path[3], path[2]], 1)[:, None])[:, 0, :4]
    torch.testing.assert_close(scaling.replacement(surrogate)(x), expected)


def test_a_dictionary_on_the_last_state_replaces_the_layer_as_well() -> None:
    model = network(3, 5, 4, 2, activation=nn.Tanh).float()
    scaling = scale_layer(model, "1", [draw(300, 3).float()], squares=2, recipe=BRIEF)
    ends = scaling.states[-2:]
    surrogate = tk.fit(scaling.model, [draw(900, 3).float()], ends, method="edmd", progress=False)
    x = model[0](draw(30, 3, seed=1).float()).detach()
    error = (scaling.replacement(surrogate)(x) - model[1](x)).square().mean()
    assert error < 1e-3 * model[1](x).var()


def test_the_states_are_the_layers_input_the_path_and_the_layers_own_output() -> None:
    model = network(3, 5, 4, 2)
    scaling = scale_layer(model, "1", [draw(100, 3)], squares=2, recipe=BRIEF)
    seen: list[Trajectory] = []
    x = draw(9, 3, seed=1)
    with tk.attach(scaling.model, scaling.states) as probe:
        probe.stream_to(seen.append)
        out = scaling.model(x)
    path = scaling.scaled.path(model[0](x))
    expected = [*path, nn.functional.pad(model[1](path[0]), (0, 1))]
    for state, value in zip(seen[0].states.values(), expected, strict=True):
        torch.testing.assert_close(state[:, 0], value)
    torch.testing.assert_close(out, model[2](model[1](path[2])))


@pytest.mark.parametrize("positions", [(), (3,), (2, 3)])
def test_layers_act_on_the_last_axis_whatever_stands_before_it(positions: tuple[int, ...]) -> None:
    model = network(3, 5, 4, 2)
    data = draw(50, *positions, 3)
    scaling = scale_layer(model, "1", [data], squares=2, recipe=BRIEF)
    with (
        torch.no_grad(),
        tk.attach(scaling.model, scaling.states, layout="b ... f -> b (...) f") as probe,
    ):
        probe.stream_to(fitter := tk.DMDFitter(delays=2))
        scaling.model(data)
    replacement = scaling.replacement(fitter.surrogate)
    x = model[0](draw(4, *positions, 3, seed=1)).detach()
    out = replacement(x)
    assert out.shape == (4, *positions, 4)
    torch.testing.assert_close(out.flatten(0, -2), replacement(x.flatten(0, -2)))


def test_a_swapped_layer_runs_as_the_parts_do_swaps_back_and_exports(tmp_path: Path) -> None:
    model = network(3, 5, 4, 2).float()
    data = draw(100, 3).float()
    scaling = scale_layer(model, "1", [data], squares=2, recipe=BRIEF)
    replacement = scaling.replacement(fitted(scaling, data, ridge=1e-6))
    edited = tk.swap(model, replacement, "0", "1", example_inputs=data[:4])
    torch.testing.assert_close(edited(data), model[2](replacement(model[0](data))))
    assert torch.equal(tk.undo(edited)(data), model(data))
    assert all(parameter.requires_grad for parameter in replacement.parameters())
    program = torch.export.load(tk.export(edited, tmp_path / "scaled.pt2", data[:4]))
    torch.testing.assert_close(program.module()(data), edited(data), rtol=1e-4, atol=1e-5)


def test_the_model_is_left_as_it_was_and_so_is_the_global_generator() -> None:
    model = network(3, 5, 4, 2)
    model[0].eval()
    model[2].requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    modes = [module.training for module in model.modules()]
    grads = [parameter.requires_grad for parameter in model.parameters()]
    state = torch.random.get_rng_state()
    with torch.inference_mode():
        scaling = scale_layer(model, "1", [draw(100, 3)], squares=2, recipe=BRIEF)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert [module.training for module in model.modules()] == modes
    assert [parameter.requires_grad for parameter in model.parameters()] == grads
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    assert not scaling.model.training
    assert not any(parameter.requires_grad for parameter in scaling.model.parameters())


def test_only_the_steps_are_trained() -> None:
    model = network(3, 5, 4, 2)
    scaling = scale_layer(model, "1", [draw(100, 3)], squares=2, recipe=BRIEF)
    left = {
        name: value for name, value in scaling.model.state_dict().items() if "steps" not in name
    }
    for (name, value), known in zip(left.items(), model.state_dict().values(), strict=True):
        assert torch.equal(value, known), name
    drawn = scale_layer(model, "1", [draw(100, 3)], squares=2, recipe=UNTRAINED).scaled.steps
    for value, first in zip(scaling.scaled.steps.parameters(), drawn.parameters(), strict=True):
        assert not torch.equal(value, first)


def test_equal_generators_give_equal_bits_and_others_do_not() -> None:
    model = network(3, 5, 4, 2)
    ways = [
        scale_layer(
            model,
            "1",
            [draw(100, 3)],
            squares=2,
            recipe=BRIEF,
            generator=torch.Generator().manual_seed(seed),
        ).model(draw(5, 3))
        for seed in (1, 1, 2)
    ]
    assert torch.equal(ways[0], ways[1])
    assert not torch.equal(ways[0], ways[2])


def test_training_keeps_the_function_and_makes_the_last_step_linear() -> None:
    model = network(3, 8, 4, 2, activation=nn.ReLU)
    data = draw(500, 3)
    start = scale_layer(model, "1", [data], squares=3, recipe=ScalingRecipe(steps=1))
    scaling = scale_layer(model, "1", [data], squares=3, recipe=ScalingRecipe(steps=300))
    assert scaling.losses["linear"] < 0.1 * start.losses["linear"]
    x = draw(300, 3, seed=1)
    y = model[1](model[0](x))
    error = (scaling.replacement(fitted(scaling, data))(model[0](x)) - y).square().mean()
    ends = (scaling.states[0], scaling.states[-1])
    affine = scaling.replacement(fitted(scaling, data, ends))(model[0](x))
    assert error < 0.1 * (affine - y).square().mean()
    kept = (scaling.model(x) - model(x)).square().mean()
    assert kept < 0.01 * model(x).var()


def test_the_terms_are_hubers_loss_of_the_layers_output_and_the_difference_of_norms() -> None:
    model = network(3, 5, 4, 2)
    scaled = scaled_by_hand(model, step(5), step(5, seed=1)).scaled
    x = draw(20, 5, seed=3)
    y = model[1](x).detach()
    terms = ScalingRecipe.published().terms(scaled, x, y)
    far = [d for row in (model[1](scaled.path(x)[2]) - y).abs().tolist() for d in row]
    huber = sum(d * d / 2 if d <= 1 else d - 0.5 for d in far) / len(far)
    squares = [
        sum(w.square().sum() for w in part.parameters()) for part in (scaled.steps, model[1])
    ]
    assert set(terms) == {"function", "norms"}
    assert terms["function"].item() == pytest.approx(huber)
    norms = [torch.as_tensor(square).sqrt().item() for square in squares]
    assert terms["norms"].item() == pytest.approx((norms[0] - norms[1]) ** 2)


def test_the_affine_error_is_that_of_least_squares_with_its_gradient() -> None:
    states, outputs = draw(40, 3), draw(40, 2, seed=1)
    known = torch.cat([states, torch.ones(40, 1).double()], 1)
    residual = known @ torch.linalg.lstsq(known, outputs)[0] - outputs
    found = affine_error(states, outputs)
    assert found.item() == pytest.approx(residual.square().mean().item(), rel=1e-6)
    states.requires_grad_(True)
    assert torch.autograd.gradcheck(lambda s: affine_error(s, outputs), (states,))


def test_a_dead_path_predicts_the_mean() -> None:
    outputs = draw(40, 2)
    error = affine_error(torch.zeros(40, 3).double(), outputs)
    assert error.item() == pytest.approx(outputs.var(0, correction=0).mean().item())


def test_steps_of_any_sign_start_close_to_the_input() -> None:
    made = SquareStep(50, nn.ReLU, torch.Generator().manual_seed(0), residual=True).double()
    x = draw(100, 50)
    assert 0 < (made(x) - x).square().mean() < 0.02


@pytest.mark.parametrize("shape", [(6, 4), (2, 3, 4)])
def test_a_folded_step_is_the_normalised_one_in_eval_mode(shape: tuple[int, ...]) -> None:
    made = SquareStep(4, nn.ReLU, torch.Generator(), batch_norm=True).double()
    for seed in range(3):
        made(3 + 2 * draw(20, 4, seed=seed))
    x = draw(*shape)
    expected = made.eval()(x)
    made.fold()
    assert made.norm is None
    torch.testing.assert_close(made(x), expected)


@pytest.mark.parametrize("precision", [torch.float32, torch.float64, torch.bfloat16])
def test_the_replacement_returns_the_precision_of_its_input(precision: torch.dtype) -> None:
    model = network(3, 5, 4, 2).to(precision)
    data = draw(200, 3).to(precision)
    scaling = scale_layer(model, "1", [data], squares=2, recipe=BRIEF)
    replacement = scaling.replacement(fitted(scaling, data, ridge=1e-6))
    assert replacement(model[0](data)).dtype == precision
    wide = torch.float64 if precision == torch.float64 else torch.float32
    assert {parameter.dtype for parameter in replacement.parameters()} == {wide}


def test_batches_are_read_as_fit_reads_them_until_there_are_rows_enough() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = network(3, 5, 4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x)

    model, x = Named(), draw(80, 3)
    loaders: list[tuple[Any, Callable[[nn.Module, Any], object] | None]] = [
        ([x[:40], x[40:]], None),
        ([(x[:40], torch.zeros(40)), (x[40:], torch.zeros(40))], None),
        ([{"x": x[:40], "labels": torch.zeros(40)}, {"x": x[40:]}], None),
        ([("other", x[:40]), ("other", x[40:])], lambda model, batch: model(batch[1])),
        ([x[:40], x[40:], "never read"], None),
    ]
    found = [
        scale_layer(model, "net.1", loader, squares=1, recipe=BRIEF, rows=80, forward=forward)
        for loader, forward in loaders
    ]
    for each in found[1:]:
        assert torch.equal(each.model(x), found[0].model(x))


def test_samples_that_are_not_finite_are_left_out() -> None:
    model, x = network(3, 5, 4, 2), draw(80, 3)
    spoilt = torch.cat([x[:30], torch.full((1, 3), torch.nan), x[30:]])
    clean, other = (
        scale_layer(model, "1", [data], squares=1, recipe=BRIEF) for data in (x, spoilt)
    )
    torch.testing.assert_close(clean.model(x), other.model(x))


class Called(nn.Module):
    """A model that calls its layer in some way of its own."""

    def __init__(self, call: Callable[[nn.Module, Tensor], Tensor], layer: nn.Module) -> None:
        super().__init__()
        self.call, self.layer = call, layer

    def forward(self, x: Tensor) -> Tensor:
        return self.call(self.layer, x)


class Pair(nn.Module):
    """Takes an optional second argument and returns two things."""

    def forward(self, x: Tensor, other: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return x, x


class Constant(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x)


class Pooled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean(1)


def once(layer: nn.Module, x: Tensor) -> Tensor:
    out = layer(x)
    return out[0] if isinstance(out, tuple) else out


LINEAR = nn.Linear(3, 3).double()
REFUSED: dict[str, tuple[nn.Module, type[Exception], str]] = {
    "twice": (Called(lambda f, x: f(f(x)), LINEAR), ValueError, "called several times"),
    "never": (Called(lambda f, x: x, LINEAR), RuntimeError, "did not run"),
    "pair": (Called(once, Pair()), TypeError, "returns a tuple"),
    "arguments": (Called(lambda f, x: f(x, x)[0], Pair()), TypeError, "one tensor alone"),
    "keyword": (Called(lambda f, x: f(x, other=x)[0], Pair()), TypeError, "other="),
    "constant": (Called(once, Constant()), ValueError, "constant"),
    "pooled": (
        Called(lambda f, x: f(x[:, None].expand(-1, 4, -1)), Pooled()),
        ValueError,
        "last axis",
    ),
    "integers": (Called(lambda f, x: f((9 * x).long()), Constant()), TypeError, "int64"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_layers_that_cannot_be_scaled_are_refused_with_the_reason(case: str) -> None:
    model, kind, reason = REFUSED[case]
    with pytest.raises(kind, match=reason):
        scale_layer(model, "layer", [draw(50, 3)], recipe=BRIEF)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"layer": "nowhere"}, "nowhere"),
        ({"layer": "1#0"}, "calls"),
        ({"squares": 0}, "squares=0"),
        ({"rows": 0}, "rows=0"),
        ({"loader": []}, "no samples"),
        ({"loader": [draw(4, 3)]}, "4 rows"),
        ({"loader": [draw(9, 2, 3), draw(9, 4, 3)]}, r"\[2, 4\] positions"),
        ({"recipe": ScalingRecipe(batch=4)}, "larger batch"),
    ],
)
def test_what_cannot_be_is_refused_with_numbers(options: dict[str, Any], reason: str) -> None:
    given = {"layer": "1", "loader": [draw(50, 3)], "recipe": BRIEF} | options
    with pytest.raises(ValueError, match=reason):
        scale_layer(network(3, 5, 4, 2), **given)


@pytest.mark.parametrize(
    "options", [{"steps": -1}, {"batch": 0}, {"norms": -1.0}, {"function": 0.0, "linear": 0.0}]
)
def test_recipes_that_say_nothing_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must"):
        ScalingRecipe(**options)


@pytest.mark.parametrize("wrong", [2.5, "3"])
def test_counts_that_are_no_whole_numbers_are_refused(wrong: Any) -> None:
    with pytest.raises(TypeError, match="must both be whole numbers"):
        scale_layer(network(3, 5, 4, 2), "1", [draw(50, 3)], squares=wrong)
    for options in ({"steps": wrong}, {"batch": wrong}):
        with pytest.raises(TypeError, match="must be whole numbers"):
            ScalingRecipe(**options)


def test_a_training_that_diverged_says_so() -> None:
    recipe = ScalingRecipe(steps=20, learning_rate=1e200, one_cycle=False)
    with pytest.raises(RuntimeError, match="learning_rate"):
        scale_layer(network(3, 5, 4, 2), "1", [draw(50, 3)], recipe=recipe)


def test_only_modules_are_scaled() -> None:
    model: Any = torch.tanh
    with pytest.raises(TypeError, match="builtin"):
        scale_layer(model, "1", [draw(50, 3)])


class Twin(nn.Module):
    """Knows its layer by two names and calls it by the second."""

    def __init__(self) -> None:
        super().__init__()
        self.one = self.two = nn.Sequential(nn.Linear(3, 2), nn.Tanh()).double()

    def forward(self, x: Tensor) -> Tensor:
        return self.two(x)


def test_a_layer_of_two_names_is_scaled_under_both() -> None:
    scaling = scale_layer(Twin(), "one", [draw(50, 3)], squares=1, recipe=BRIEF)
    assert scaling.model.one is scaling.model.two is scaling.scaled
    x = draw(5, 3, seed=1)
    path = scaling.scaled.path(x)
    assert torch.equal(scaling.model(x), scaling.scaled.layer(path[1]))


def test_surrogates_of_other_states_or_layouts_give_no_replacement() -> None:
    model = network(3, 5, 4, 2)
    scaling = scaled_by_hand(model, step(5), step(5, seed=1))
    elsewhere = fitted(scaling, draw(200, 3), scaling.states[:3])
    with pytest.raises(ValueError, match=r"ends with '1.states.3'"):
        scaling.replacement(elsewhere)
    fitter = tk.DMDFitter()
    data = draw(200, 2, 3)
    with tk.attach(scaling.model, scaling.states, layout="b t f -> b 1 (t f)") as probe:
        probe.stream_to(fitter)
        scaling.model(data)
    with pytest.raises(ValueError, match="10 features"):
        scaling.replacement(fitter.surrogate)


@pytest.mark.slow
def test_a_layer_of_s2s_yin_yang_network_is_replaced_within_half_a_point() -> None:
    train, test = yin_yang(3000, 5000, seed=0, dots=False)
    model = network(4, 8, 6, 4, 3, 2, seed=0).float()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=1e-2, fused=True)
    for _ in range(1500):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(train.inputs), train.labels).backward()
        optimiser.step()
    model.requires_grad_(False)
    recipe = ScalingRecipe(steps=500)
    scaling = scale_layer(model, "1", train.loader(1000, seed=0), recipe=recipe)
    loader = train.loader(1000, seed=0)
    path = tk.fit(scaling.model, loader, scaling.states, method="dmd", delays=10, progress=False)
    ends = (scaling.states[0], scaling.states[-1])
    affine = tk.fit(scaling.model, loader, ends, method="dmd", progress=False)
    accuracies = [
        accuracy(net, test)
        for net in (
            model,
            tk.swap(model, scaling.replacement(path), "0", "1"),
            tk.swap(model, scaling.replacement(affine), "0", "1"),
        )
    ]
    assert accuracies[0] > 0.95
    assert accuracies[1] >= accuracies[0] - 0.005
    assert accuracies[2] < accuracies[1]


@pytest.mark.slow
def test_the_example_prints_its_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], threads: int
) -> None:
    task = replace(
        example.TASKS["yinyang"],
        squares=2,
        ours=ScalingRecipe(steps=2),
        published=replace(ScalingRecipe.published(), steps=2),
    )
    monkeypatch.setitem(example.TASKS, "yinyang", task)
    monkeypatch.setattr(example, "trained", lambda *_: network(*task.widths).float().eval())
    monkeypatch.setattr(sys, "argv", ["scaling.py", "--seeds", "2", "--published"])
    example.main()
    printed = capsys.readouterr().out
    for row in ("network", "affine map", "untrained", "steps trained", "as published", "±"):
        assert row in printed


def accuracy(model: nn.Module, data: Labelled) -> float:
    return (model(data.inputs).argmax(1) == data.labels).double().mean().item()
