"""A folded surrogate is the surrogate, in the layers' own shapes, and exports."""

import copy
import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from tests.systems import draw
from torchkoopman.koopman import folding
from torchkoopman.koopman.coordinates import Coordinates
from torchkoopman.koopman.feature_maps import (
    ContextMean,
    Monomials,
    Neighbours,
    Part,
    RandomFeatures,
)
from torchkoopman.koopman.learnt import LearntObservables
from torchkoopman.koopman.observables import Dictionary
from torchkoopman.koopman.operator import Operator
from torchkoopman.koopman.operators import BlockDiagonal, Dense, LowRank, Orthogonal, Stable
from torchkoopman.koopman.span import FitRecord, Span
from torchkoopman.koopman.surrogate import Surrogate
from torchkoopman.observe.layouts import Layout
from torchkoopman.observe.views import View

PARTS: dict[str, Callable[[], Part]] = {
    "random": lambda: RandomFeatures(5),
    "monomials": lambda: Monomials(2),
    "mean": ContextMean,
    "causal mean": lambda: ContextMean(causal=True),
    "neighbours": lambda: Neighbours([-1, 2]),
}


def frame_of(size: int, features: int, seed: int) -> Coordinates:
    """Arbitrary affine coordinates whose way back has an offset of its own."""
    weight = draw(size, features, seed=seed)
    inverse = draw(features, size, seed=seed + 1)
    return Coordinates(weight, draw(features), inverse, draw(features, seed=seed + 2))


def assemble(
    observables: Dictionary | LearntObservables,
    operator: Operator,
    widths: tuple[int, ...] = (4, 2, 5),
    views: dict[str, View] | None = None,
) -> Surrogate:
    """A surrogate in float64 of layers ``a``, ``b``, … with these widths, all of it random."""
    with torch.no_grad():
        for k, parameter in enumerate(operator.parameters()):
            parameter += 0.3 * draw(*parameter.shape, seed=k).float()
    names = [chr(ord("a") + depth) for depth in range(len(widths))]
    frames = [frame_of(3, width, depth) for depth, width in enumerate(widths)]
    span = Span.even(names, views=views or {})
    return Surrogate(span, frames, observables, operator, FitRecord("by hand", 1)).double()


def dictionary(*parts: str) -> Dictionary:
    return Dictionary([PARTS[part]() for part in parts]).build(3, torch.Generator().manual_seed(0))


def assert_replaces_every_pair(surrogate: Surrogate) -> None:
    for start, end in itertools.combinations(surrogate.layers, 2):
        state = draw(2, 6, surrogate.frames()[surrogate.layers.index(start)].features, seed=9)
        replacement = surrogate.replacement(start, end)
        torch.testing.assert_close(replacement(state), surrogate.predict(state, start, end))


@settings(deadline=None, max_examples=25)
@given(st.lists(st.sampled_from(list(PARTS)), max_size=4), st.booleans())
def test_a_replacement_is_the_prediction_for_any_dictionary(
    parts: list[str], constant: bool
) -> None:
    observables = dictionary(*parts)
    operator = Dense(observables.latent, steps=2, constant=constant)
    assert_replaces_every_pair(assemble(observables, operator))


@pytest.mark.parametrize("constant", [True, False])
@pytest.mark.parametrize("hidden", [[], [7], [7, 4]])
@pytest.mark.parametrize("family", [Stable, BlockDiagonal, lambda n: Dense(n, 2, constant=True)])
def test_a_replacement_is_the_prediction_for_learnt_observables(
    constant: bool, hidden: list[int], family: Callable[[int], Operator]
) -> None:
    observables = LearntObservables(3, 6, hidden, constant)
    assert_replaces_every_pair(assemble(observables, family(6)))


@pytest.mark.parametrize("kind", ["dictionary", "learnt"])
def test_a_replacement_is_the_prediction_after_an_edit_of_the_way_back(kind: str) -> None:
    observables = dictionary("random") if kind == "dictionary" else LearntObservables(3, 6, [7])
    surrogate = assemble(observables, Dense(observables.latent, 2, constant=True))
    *frames, last = surrogate.frames()
    surrogate = surrogate.with_(coordinates=[*frames, last.after(draw(5, 5), draw(5))])
    assert_replaces_every_pair(surrogate)


def test_nothing_is_left_of_coordinates_but_their_images() -> None:
    """Encoder, one matrix, decoder: no module of the surrogate, no float of its coordinates."""
    observables = dictionary("random", "mean")
    surrogate = assemble(observables, Dense(observables.latent, 2, constant=True), (4, 2, 3))
    core = surrogate.replacement().core
    assert not any(isinstance(module, Coordinates | Operator) for module in core.modules())
    assert isinstance(core.decoder, nn.Identity)
    assert isinstance(core.linear, nn.Linear)
    assert core.linear.weight.shape == (3, 5 + 4 + 4)  # random features, and the 4-d state twice


WIDE: dict[str, Callable[[], Dictionary | LearntObservables]] = {
    "dmd": dictionary,
    "random": lambda: dictionary("random"),
    "contextual": lambda: dictionary("mean", "random", "neighbours"),
    "learnt": lambda: LearntObservables(3, 9, [7]),
}


@pytest.mark.parametrize("widths", [(40, 2, 30), (40, 2, 4), (4, 2, 40)], ids=str)
@pytest.mark.parametrize("kind", WIDE)
@pytest.mark.parametrize("images", [False, True])
def test_few_coordinates_of_wide_layers_fold_to_thin_maps(
    kind: str, widths: tuple[int, ...], images: bool
) -> None:
    """Never more numbers than all multiplied out, and the same map in every memory layout."""
    observables = WIDE[kind]()
    surrogate = assemble(observables, Dense(observables.latent, 2, constant=True), widths)
    core = surrogate.replacement().core
    state = draw(2, 6, widths[0])
    state = state.mT.contiguous().mT if images else state
    torch.testing.assert_close(core(state), surrogate(state))
    found = sum(each.numel() for each in core.parameters())
    thin, dense = 3 * (widths[0] + widths[2]) + 3 + widths[2], widths[2] * (widths[0] + 1)
    if kind == "dmd":
        assert found == min(thin, dense)
        assert isinstance(core.linear, nn.Linear) == (dense <= thin)
    assert found < thin + 400


@pytest.mark.parametrize("latent", [8, 9])
@pytest.mark.parametrize("family", [lambda n: LowRank(n, 2, 3), lambda n: BlockDiagonal(n, 2)])
def test_low_rank_and_blocks_stay_small_and_export(
    family: Callable[[int], Operator], latent: int
) -> None:
    surrogate = assemble(LearntObservables(3, latent, [7], constant=False), family(latent))
    core = surrogate.replacement("a", "c").core
    state = draw(2, 6, 4)
    assert sum(each.numel() for each in core.linear.parameters()) < latent**2
    torch.testing.assert_close(core(state), surrogate(state), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(
        surrogate.replacement("a", "b")(state), surrogate.predict(state, "a", "b")
    )
    program = torch.export.export(core, (state,), dynamic_shapes=({0: torch.export.Dim("n")},))
    for size in (2, 5):
        batch = draw(size, 6, 4, seed=size)
        torch.testing.assert_close(program.module()(batch), core(batch))


def test_a_low_rank_operator_that_is_not_thin_enough_is_one_matrix() -> None:
    surrogate = assemble(LearntObservables(3, 6, [7], constant=False), LowRank(6, 2, 3))
    assert isinstance(surrogate.replacement().core.linear, nn.Linear)


def test_a_replacement_shares_no_tensor_with_its_surrogate() -> None:
    for observables in (dictionary(*PARTS), LearntObservables(3, 6, [7])):
        surrogate = assemble(observables, Dense(observables.latent, 2, constant=True))
        own = {tensor.data_ptr() for tensor in surrogate.state_dict().values()}
        held = surrogate.replacement().state_dict().values()
        assert not own & {tensor.data_ptr() for tensor in held}


def test_folding_leaves_the_global_generator_alone() -> None:
    for observables in (dictionary(*PARTS), LearntObservables(3, 6, [7])):
        surrogate = assemble(observables, Dense(observables.latent, 2, constant=True))
        state = torch.get_rng_state()
        surrogate.replacement()
        assert torch.equal(torch.get_rng_state(), state)


IMAGES = Layout.of(torch.zeros(1, 4, 2, 3))
MAPS = Layout.of(torch.zeros(1, 5, 3, 2))
TOKENS = Layout.of(torch.zeros(6, 1, 4), "time batch features -> batch time features")


def test_layouts_of_images_are_applied_inside_the_replacement() -> None:
    surrogate = assemble(
        dictionary(*PARTS),
        Dense(dictionary(*PARTS).latent, 2, constant=True),
        views={"a": View(IMAGES), "c": View(MAPS)},
    )
    images = draw(2, 4, 2, 3)
    rows = images.permute(0, 2, 3, 1).reshape(2, 6, 4)
    expected = surrogate(rows).reshape(2, 3, 2, 5).permute(0, 3, 1, 2)
    torch.testing.assert_close(surrogate.replacement()(images), expected)


def test_layouts_of_tokens_are_applied_inside_the_replacement_at_any_length() -> None:
    views = {"a": View(TOKENS), "c": View(TOKENS)}
    surrogate = assemble(dictionary("causal mean"), Dense(7, 2, constant=True), (4, 2, 4), views)
    for length in (6, 1, 11):
        tokens = draw(length, 2, 4)
        expected = surrogate(tokens.transpose(0, 1)).transpose(0, 1)
        torch.testing.assert_close(surrogate.replacement()(tokens), expected)


def test_a_replacement_computes_in_its_own_precision_and_returns_that_of_its_input() -> None:
    surrogate = assemble(dictionary("random"), Dense(9, 2, constant=True)).float()
    state = draw(2, 6, 4)
    for dtype in (torch.bfloat16, torch.float64):
        out = surrogate.replacement()(state.to(dtype))
        assert out.dtype == dtype
        assert torch.equal(out, surrogate.replacement()(state.to(dtype).float()).to(dtype))


OPERATORS: dict[str, Callable[[int], Operator]] = {
    "step": lambda latent: Dense(latent, 6, constant=True),
    "low rank": lambda latent: LowRank(latent, 6, 3),
    "orthogonal": lambda latent: Orthogonal(latent, 6),
    "stable": Stable,
    "blocks": BlockDiagonal,
}
KINDS: dict[str, Callable[[], Dictionary | LearntObservables]] = {
    "dictionary": lambda: dictionary(*PARTS),
    "learnt": lambda: LearntObservables(3, 6, [7]),
}


class NarrowDevice(TorchFunctionMode):
    """The meta device as one without float64, from which zeros come to the CPU."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, own = kwargs or {}, args[0] if args else None
        narrow = isinstance(own, Tensor) and own.is_meta
        if narrow and (func is Tensor.double or torch.float64 in (*args[1:], *kwargs.values())):
            raise TypeError("this device has no float64")
        if narrow and func is Tensor.to and torch.device("cpu") in args[1:]:
            return torch.zeros(own.shape, dtype=own.dtype)
        return func(*args, **kwargs)


@pytest.mark.parametrize("kind", ["dictionary", "learnt"])
def test_where_a_device_has_no_float64_folding_computes_on_the_cpu(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    observables = dictionary("random") if kind == "dictionary" else LearntObservables(3, 6, [7])
    surrogate = assemble(observables, Dense(observables.latent, 2, constant=True)).float()
    surrogate.to("meta")
    with NarrowDevice():
        with pytest.raises(TypeError, match="no float64"):
            surrogate.replacement()
        monkeypatch.setattr(folding, "_WITHOUT_FLOAT64", {"meta"})
        replacement = surrogate.replacement()
    assert {(each.device.type, each.dtype) for each in replacement.state_dict().values()} == {
        ("meta", torch.float32)
    }


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", OPERATORS)
def test_folding_rounds_once(kind: str, family: str) -> None:
    """In float32 it is to the bit what the same numbers give in float64, rounded."""
    observables = KINDS[kind]()
    operator = OPERATORS[family](observables.latent)
    surrogate = assemble(observables, operator, (4, 2, 5, 3, 3, 4, 3)).float()
    precise = copy.deepcopy(surrogate).double()
    for start, end in (("a", "g"), ("b", "e"), ("f", "g")):
        ours = surrogate.replacement(start, end).state_dict()
        for name, tensor in precise.replacement(start, end).state_dict().items():
            assert ours[name].dtype == torch.float32, name
            assert torch.equal(ours[name], tensor.float()), name


def test_a_folded_matrix_is_the_unfolded_map_but_for_one_rounding_of_its_entries() -> None:
    operator = Dense(4, steps=6, constant=True)
    surrogate = assemble(dictionary(), operator, (4, 2, 5, 3, 3, 4, 3)).float()
    precise, core = copy.deepcopy(surrogate).double(), surrogate.replacement().core
    state = draw(2, 6, 4)
    assert isinstance(core.linear, nn.Linear)
    linear = core.linear.double()
    entries = state.abs() @ linear.weight.abs().T + linear.bias.abs()
    rounding = torch.finfo(torch.float32).eps / 2 * entries
    assert ((core.double()(state) - precise(state)).abs() <= 1.0001 * rounding).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", OPERATORS)
def test_autocast_changes_nothing_of_a_surrogate_and_its_replacement(
    kind: str, family: str
) -> None:
    """In eight bits a closed form's matrix, of entries that cancel, would leave nothing."""
    observables = KINDS[kind]()
    operator = OPERATORS[family](observables.latent)
    surrogate = assemble(observables, operator, (4, 2, 5)).float()
    state, outside = draw(2, 6, 4).float(), surrogate.replacement()
    expected = outside(state), surrogate(state), operator.matrix(), operator.matrix(0.5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = surrogate.replacement()
        found = outside(state), surrogate(state), operator.matrix(), operator.matrix(0.5)
        rounded = outside(state.bfloat16()), surrogate(state.bfloat16())
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.equal(ours, theirs)
    for name, tensor in outside.state_dict().items():
        assert torch.equal(inside.state_dict()[name], tensor), name
    assert torch.equal(rounded[0], outside(state.bfloat16()))
    assert torch.equal(rounded[1], surrogate(state.bfloat16().float()))


def test_gradients_pass_through_a_replacement_to_its_input() -> None:
    surrogate = assemble(dictionary("random"), Dense(9, 2, constant=True))
    state = draw(1, 1, 4).requires_grad_()
    replacement = surrogate.replacement()
    assert torch.autograd.gradcheck(replacement, (state,))


@pytest.mark.parametrize("kind", ["dictionary", "learnt"])
def test_a_replacement_exports_with_a_batch_of_any_size(kind: str) -> None:
    observables = dictionary(*PARTS) if kind == "dictionary" else LearntObservables(3, 6, [7])
    operator = Dense(observables.latent, 2, constant=True)
    surrogate = assemble(observables, operator, views={"a": View(IMAGES), "c": View(MAPS)}).float()
    replacement = surrogate.replacement().eval()
    batch = torch.export.Dim("batch")
    example = (draw(2, 4, 2, 3).float(),)
    program = torch.export.export(replacement, example, dynamic_shapes=({0: batch},))
    for size in (2, 5, 17):
        images = draw(size, 4, 2, 3).float()
        torch.testing.assert_close(program.module()(images), replacement(images))
