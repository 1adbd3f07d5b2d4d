"""The surrogate: predictions between any two layers, paths through depth, and its configuration."""

import json
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from tests.systems import draw
from torchkoopman.koopman.coordinates import CoordinateOptions
from torchkoopman.koopman.feature_maps import ContextMean, Neighbours, RandomFeatures
from torchkoopman.koopman.learnt import LearntObservables
from torchkoopman.koopman.observables import Dictionary
from torchkoopman.koopman.operator import Operator
from torchkoopman.koopman.operators import BlockDiagonal, Dense, LowRank, Orthogonal, Stable
from torchkoopman.koopman.principal import layer_coordinates
from torchkoopman.koopman.span import FitRecord, Span
from torchkoopman.koopman.surrogate import Surrogate
from torchkoopman.observe.class_moments import LabelledMoments
from torchkoopman.observe.layouts import Layout
from torchkoopman.observe.moments import Moments
from torchkoopman.observe.pairs import layer_pairs
from torchkoopman.observe.places import Step
from torchkoopman.observe.views import View

Kind = Callable[[], Dictionary | LearntObservables]

KINDS: dict[str, Kind] = {
    "dmd": lambda: Dictionary().build(3),
    "dictionary": lambda: Dictionary(
        [RandomFeatures(5), ContextMean(), ContextMean(causal=True), Neighbours()]
    ).build(3, torch.Generator().manual_seed(0)),
    "learnt": lambda: LearntObservables(3, 6, [7]),
    "learnt without constant": lambda: LearntObservables(3, 6, [7], constant=False),
}
OPERATORS: dict[str, Callable[[int], Operator]] = {
    "dense": lambda latent: Dense(latent, steps=3),
    "affine": lambda latent: Dense(latent, steps=3, constant=True),
    "low rank": lambda latent: LowRank(latent, steps=3, rank=2),
    "orthogonal": lambda latent: Orthogonal(latent, steps=3),
    "stable": Stable,
    "blocks": BlockDiagonal,
}


def make(
    kind: Kind = KINDS["dictionary"],
    operator: Callable[[int], Operator] = OPERATORS["affine"],
    widths: tuple[int, ...] = (4, 5, 3, 6),
) -> Surrogate:
    """A surrogate in float64 with a random operator; layers ``a``, ``b``, … of these widths."""
    layers = {
        chr(ord("a") + depth): draw(60, width, seed=depth) @ draw(width, width) + depth
        for depth, width in enumerate(widths)
    }
    moments = Moments(layer_pairs(tuple(layers), "all")).update(layers)
    frames = layer_coordinates(moments, list(layers), CoordinateOptions(rank=3, whitening=0.2))
    observables = kind()
    if isinstance(observables, LearntObservables):
        observables.initialise(torch.Generator().manual_seed(0))
    K = operator(observables.latent)
    with torch.no_grad():
        for index, parameter in enumerate(K.parameters()):
            parameter += 0.2 * draw(*parameter.shape, seed=index).float()
    record = FitRecord("by hand", 60, r2={"d": 0.75})
    return Surrogate(Span.even(list(layers)), frames, observables, K, record).double()


def by_hand(surrogate: Surrogate, state: Tensor, start: str, end: str) -> Tensor:
    """C_j⁻¹ ∘ decode ∘ K(t_j - t_i) ∘ encode ∘ C_i, one after the other."""
    i, j = surrogate.layers.index(start), surrogate.layers.index(end)
    depth = len(surrogate.layers) - 1
    frame, last = surrogate.frames()[i], surrogate.frames()[j]
    latent = surrogate.observables.encode((state - frame.mean) @ frame.weight.T)
    latent = latent @ surrogate.operator.matrix((j - i) / depth).T
    return surrogate.observables.decode(latent) @ last.inverse_weight.T + last.offset


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("operator", OPERATORS)
def test_a_prediction_is_the_formula_between_every_two_layers(kind: str, operator: str) -> None:
    surrogate = make(KINDS[kind], OPERATORS[operator])
    for i, start in enumerate(surrogate.layers):
        state = draw(2, 5, surrogate.frames()[i].features)
        for end in surrogate.layers[i + 1 :]:
            found = surrogate.predict(state, start, end)
            assert found.shape == (2, 5, surrogate.frames()[surrogate.layers.index(end)].features)
            torch.testing.assert_close(found, by_hand(surrogate, state, start, end))


def test_calling_a_surrogate_leads_from_the_first_layer_to_the_last() -> None:
    surrogate, state = make(), draw(2, 5, 4)
    assert torch.equal(surrogate(state), surrogate.predict(state, "a", "d"))
    mask = torch.tensor([[True, True, False, False, False]] * 2)
    assert torch.equal(surrogate(state, mask), surrogate.predict(state, mask=mask))
    assert not torch.equal(surrogate(state, mask), surrogate(state))


def test_encoding_and_decoding_a_layer_undo_each_other_on_the_kept_subspace() -> None:
    surrogate = make(KINDS["dmd"], widths=(3, 3, 3))
    state = draw(2, 5, 3)
    for layer in surrogate.layers:
        torch.testing.assert_close(surrogate.decode(surrogate.encode(state, layer), layer), state)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("operator", OPERATORS)
def test_a_path_at_the_layers_times_is_the_predictions(kind: str, operator: str) -> None:
    surrogate = make(KINDS[kind], OPERATORS[operator], widths=(4, 4, 4, 4))
    state = draw(2, 5, 4)
    path = surrogate.trajectory(state)
    assert path.shape == (4, 2, 5, 4)
    start = surrogate.decode(surrogate.encode(state, "a"), "a")
    torch.testing.assert_close(path[0], start)
    for depth, layer in enumerate(surrogate.layers[1:], 1):
        torch.testing.assert_close(path[depth], surrogate.predict(state, "a", layer))
    torch.testing.assert_close(surrogate.trajectory(state, [1.0])[0], surrogate(state))


@pytest.mark.parametrize("operator", ["stable", "blocks"])
def test_a_path_is_continuous_between_and_at_the_layers(operator: str) -> None:
    surrogate = make(operator=OPERATORS[operator], widths=(4, 4, 4, 4))
    state, step = draw(2, 5, 4), 1e-4
    times = [step * k for k in range(round(1 / step) + 1)]
    near = [time for time in times if min(abs(time * 3 - k) for k in range(4)) < 20 * step]
    path = surrogate.trajectory(state, near)
    moves = (path[1:] - path[:-1]).flatten(1).norm(dim=1)
    joined = torch.tensor(near).diff() < 1.5 * step
    assert moves[joined].max() < 100 * step * path.flatten(1).norm(dim=1).max()
    assert joined.sum() > 30


def test_a_path_halfway_between_layers_is_half_in_the_coordinates_of_each() -> None:
    surrogate = make(KINDS["learnt"], OPERATORS["stable"], widths=(4, 4))
    state = draw(2, 5, 4)
    latent = surrogate.operator(surrogate.encode(state, "a"), 0.25)
    expected = 0.75 * surrogate.decode(latent, "a") + 0.25 * surrogate.decode(latent, "b")
    torch.testing.assert_close(surrogate.trajectory(state, [0.25])[0], expected)


def test_a_path_beyond_the_last_layer_stays_in_its_coordinates() -> None:
    surrogate = make(KINDS["learnt"], OPERATORS["stable"], widths=(4, 4))
    state = draw(2, 5, 4)
    latent = surrogate.operator(surrogate.encode(state, "a"), 1.5)
    expected = surrogate.decode(latent, "b")
    torch.testing.assert_close(surrogate.trajectory(state, [1.5])[0], expected)


def test_a_path_over_layers_of_different_widths_is_refused() -> None:
    with pytest.raises(ValueError, match=r"widths \[4, 5, 3, 6\].*layer by layer"):
        make().trajectory(draw(2, 5, 4))


def test_a_path_at_a_time_the_operator_cannot_take_is_refused() -> None:
    surrogate = make(widths=(4, 4, 4, 4))
    assert isinstance(surrogate.operator, Dense)
    surrogate.operator.start_from(-torch.eye(surrogate.latent).double())
    with pytest.raises(ValueError, match="negative real axis"):
        surrogate.trajectory(draw(2, 5, 4), [0.5])


def test_a_layer_the_surrogate_does_not_know_is_named() -> None:
    surrogate, state = make(), draw(2, 5, 4)
    calls: list[Callable[[], object]] = [
        lambda: surrogate.predict(state, end="nowhere"),
        lambda: surrogate.encode(state, "nowhere"),
        lambda: surrogate.decode(state, "nowhere"),
        lambda: surrogate.time("nowhere"),
        lambda: surrogate.replacement("nowhere"),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=r"knows the layers \('a', .*'d'\), not 'nowhere'"):
            call()


@pytest.mark.parametrize(("start", "end"), [("b", "b"), ("c", "a"), (None, "a"), ("d", None)])
def test_a_start_that_is_not_before_its_end_is_refused(start: str | None, end: str | None) -> None:
    surrogate = make()
    with pytest.raises(ValueError, match="must come before end="):
        surrogate.predict(draw(2, 5, 4), start, end)
    with pytest.raises(ValueError, match="must come before end="):
        surrogate.replacement(start, end)


def test_an_even_span_divides_the_depth_evenly() -> None:
    span = Span.even(["x", "y", "z", "end", "out"])
    assert span.times == (0.0, 0.25, 0.5, 0.75, 1.0)
    with pytest.raises(ValueError, match=r"it got \['x'\]\. Choose two layers"):
        Span.even(["x"])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("operator", OPERATORS)
def test_a_surrogate_survives_its_configuration_as_json_and_its_tensors(
    kind: str, operator: str
) -> None:
    surrogate = make(KINDS[kind], OPERATORS[operator])
    layout = Layout.of(torch.zeros(2, 4, 3, 3))
    inputs = (((7, 4, 3, 3), "float32"),)
    views = {"a": View(layout, (Step(1),), ("tuple",))}
    surrogate = surrogate.with_(span=Span.even(surrogate.layers, views=views, inputs=inputs))
    config = json.loads(json.dumps(surrogate.config()))
    restored = Surrogate.from_config(config).double()
    restored.load_state_dict(surrogate.state_dict())
    assert restored.span == surrogate.span
    assert restored.views == surrogate.views
    assert restored.record == surrogate.record
    assert restored.inputs == inputs
    assert restored.config() == surrogate.config()
    state = draw(2, 5, 4)
    for end in surrogate.layers[1:]:
        torch.testing.assert_close(
            restored.predict(state, end=end), surrogate.predict(state, end=end)
        )


def test_the_spectrum_is_that_of_the_whole_span_with_what_is_known_of_the_data() -> None:
    surrogate = make(KINDS["dmd"])
    K = surrogate.operator.matrix(1.0).detach()
    values = torch.linalg.eigvals(K).abs().sort(descending=True).values
    assert surrogate.spectrum().residuals is None
    torch.testing.assert_close(surrogate.spectrum().moduli, values)
    start = torch.cat([torch.ones(50, 1).double(), draw(50, 3)], 1)
    labels = torch.arange(50) % 3
    statistics = LabelledMoments(layer_pairs(("start", "end"), "ends"))
    statistics.update({"start": start, "end": start @ K.T}, labels)
    spectrum = surrogate.with_(statistics=statistics).spectrum()
    assert spectrum.residuals is not None
    assert spectrum.residuals.max() < 1e-6
    torch.testing.assert_close(spectrum.moduli, values)


def test_a_card_and_a_representation_say_what_the_surrogate_is() -> None:
    surrogate = make()
    card = json.loads(json.dumps(surrogate.card()))
    assert card["layers"] == ["a", "b", "c", "d"]
    assert card["latent"] == surrogate.latent == 1 + 3 + 5 + 3 + 3 + 6
    assert (card["operator"], card["observables"]) == ("Dense", "dictionary")
    assert (card["method"], card["rows"], card["edits"]) == ("by hand", 60, [])
    text = f"a → d, 4 layers; by hand, Dense {surrogate.latent}×{surrogate.latent}, 60 rows"
    assert repr(surrogate) == f"Surrogate({text}, R² of the latest 0.7500)"


def test_a_surrogate_is_differentiable_through_every_part_that_is_learnt() -> None:
    surrogate = make(KINDS["learnt"], OPERATORS["stable"])
    surrogate(draw(2, 5, 4)).square().sum().backward()
    for name, parameter in surrogate.named_parameters():
        assert parameter.grad is not None, name
    assert not any(isinstance(frame, nn.Linear) for frame in surrogate.coordinates)
    assert math.isfinite(sum(p.grad.norm().item() for p in surrogate.parameters()))
