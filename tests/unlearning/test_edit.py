"""Forgetting a class: what the closed form promises of means, ranks, metrics and undoing."""

import copy
import json
import statistics as scalar
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.systems import draw
from torchkoopman.koopman.coordinates import CoordinateOptions
from torchkoopman.koopman.edits import Target
from torchkoopman.koopman.feature_maps import RandomFeatures
from torchkoopman.koopman.learnt import LearntObservables
from torchkoopman.koopman.observables import Dictionary
from torchkoopman.koopman.operator import Operator
from torchkoopman.koopman.operators import BlockDiagonal, Dense, Orthogonal, Stable
from torchkoopman.koopman.principal import layer_coordinates
from torchkoopman.koopman.regression import koopman_matrix
from torchkoopman.koopman.span import FitRecord, Span
from torchkoopman.koopman.surrogate import Surrogate
from torchkoopman.observe.class_moments import LabelledMoments
from torchkoopman.observe.moments import Moments
from torchkoopman.observe.pairs import layer_pairs
from torchkoopman.undo import undo
from torchkoopman.unlearning.edit import _REFIT_RIDGE
from torchkoopman.unlearning.edit import unlearn as forget
from torchkoopman.unlearning.problem import aims_of, points_of

# What is promised of means; what is promised of their two halves, below, calls ``forget``.
unlearn = partial(forget, halves=False)
CLASSES = 4
RIDGE = 1e-7
TARGETS: tuple[Target, ...] = ("softmix", "nearest", "centroid")


def data(classes: int = CLASSES, rows: int = 400) -> tuple[Tensor, Tensor, Tensor]:
    """States of a start and an end layer, of different widths, and their classes."""
    labels = torch.arange(rows) % classes
    start = draw(classes, 6, seed=1)[labels] + 0.4 * draw(rows, 6, seed=2)
    end = torch.tanh(start @ draw(6, 5, seed=3)) + draw(classes, 5, seed=4)[labels]
    return start, end, labels


def observe(observables: Dictionary | LearntObservables, classes: int = CLASSES) -> Surrogate:
    """A surrogate with class statistics, in float64, whose operator is still to be set."""
    start, end, labels = data(classes)
    moments = Moments(layer_pairs(("a", "z"), "ends")).update({"a": start, "z": end})
    frames = layer_coordinates(moments, ["a", "z"], CoordinateOptions(rank=5))
    observables.double()
    latents = {
        "start": observables.encode(frames[0](start)[:, None])[:, 0],
        "end": observables.encode(frames[1](end)[:, None])[:, 0],
    }
    known = LabelledMoments(layer_pairs(("start", "end"), "ends")).update(latents, labels)
    operator, record = Dense(observables.latent, constant=True), FitRecord("by hand", 400)
    span = Span.even(["a", "z"])
    return Surrogate(span, frames, observables, operator, record, known).double()


def fitted(classes: int = CLASSES) -> Surrogate:
    """A closed-form fit of random features."""
    dictionary = Dictionary([RandomFeatures(8)]).build(5, torch.Generator().manual_seed(0))
    surrogate = observe(dictionary, classes)
    assert surrogate.statistics is not None
    surrogate.operator.start_from(koopman_matrix(surrogate.statistics.total(), RIDGE, True))
    surrogate.requires_grad_(False)
    return surrogate


def head_of(surrogate: Surrogate) -> nn.Linear:
    """A head that gives a state the class of the nearest mean."""
    ends = torch.stack([mean(surrogate, c, "end") for c in range(CLASSES)])
    states = surrogate.decode(ends[:, None], "z")[:, 0].detach()
    head = nn.Linear(*states.T.shape).double()
    with torch.no_grad():
        head.weight.copy_(states)
        head.bias.copy_(-states.square().sum(1) / 2)
    return head


def learnt(family: Callable[[int], Operator], constant: bool = False) -> Surrogate:
    observables = LearntObservables(5, 8, [10], constant)
    observables.initialise(torch.Generator().manual_seed(0))
    operator = family(8).double()
    with torch.no_grad():
        for k, parameter in enumerate(operator.parameters()):
            parameter += 0.2 * draw(*parameter.shape, seed=k)
    return observe(observables).with_(operator=operator)


def mean(surrogate: Surrogate, label: int, end: str = "start") -> Tensor:
    assert surrogate.statistics is not None
    return surrogate.statistics.by_class[label].mean(end)


def matrix(surrogate: Surrogate) -> Tensor:
    return surrogate.operator.matrix(1.0).detach()


def image(surrogate: Surrogate, label: int) -> Tensor:
    """Where the operator sends a class's mean."""
    return matrix(surrogate) @ mean(surrogate, label)


def aim(surrogate: Surrogate, label: int, retained: list[int], target: Target) -> Tensor:
    """T, one class after the other."""
    here = image(surrogate, label)
    ends = [mean(surrogate, c, "end") for c in retained]
    squares = [sum((here - end).square().tolist()) for end in ends]
    match target:
        case "nearest":
            return ends[squares.index(min(squares))]
        case "centroid":
            weights = [1.0] * len(ends)
        case "softmix":
            median = scalar.median_low(squares)
            weights = [2.718281828459045 ** (-square / median) for square in squares]
    total = sum(weights)
    return torch.stack([w / total * end for w, end in zip(weights, ends, strict=True)]).sum(0)


def within(surrogate: Surrogate, ridge: float) -> Tensor:
    """W̄: the pooled within-class scatter of the encoded rows themselves, and its ridge."""
    start, _, labels = data()
    z = surrogate.encode(start[:, None], "a")[:, 0].detach()
    centres = torch.stack([z[labels == c].mean(0) for c in range(CLASSES)])
    W = torch.einsum("ri,rj->ij", z - centres[labels], z - centres[labels]) / len(z)
    return W + ridge * W.trace() / len(W) * torch.eye(len(W)).double()


forgettable = st.lists(st.integers(0, CLASSES - 1), min_size=1, max_size=CLASSES - 1, unique=True)


@settings(deadline=None, max_examples=25)
@given(forgettable, st.floats(0, 1), st.sampled_from(TARGETS))
def test_retained_means_stay_and_forgotten_means_move_their_fraction_of_the_way(
    classes: list[int], strength: float, target: Target
) -> None:
    surrogate = fitted()
    edited = unlearn(surrogate, classes, strength=strength, target=target, downdate=False)
    retained = [c for c in range(CLASSES) if c not in classes]
    for label in retained:
        torch.testing.assert_close(image(edited, label), image(surrogate, label), rtol=0, atol=1e-9)
    for label in classes:
        before = image(surrogate, label)
        there = aim(surrogate, label, retained, target)
        expected = before + strength * (there - before)
        torch.testing.assert_close(image(edited, label), expected, rtol=0, atol=1e-9)


def test_retained_means_do_not_move_in_single_precision() -> None:
    surrogate = fitted().float()
    edited = unlearn(surrogate, [1], downdate=False)
    assert matrix(edited).dtype == torch.float32
    for label in (0, 2, 3):
        there, here = (matrix(s).double() @ mean(s, label) for s in (edited, surrogate))
        torch.testing.assert_close(there, here, rtol=0, atol=1e-5)
    expected = aim(fitted(), 1, [0, 2, 3], "softmix")
    found = matrix(edited).double() @ mean(edited, 1)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_an_edit_is_linear_in_its_strength() -> None:
    surrogate = fitted()
    K = matrix(surrogate)
    full = matrix(unlearn(surrogate, [1, 2], downdate=False)) - K
    for strength in (0.0, 0.25, 0.7):
        part = matrix(unlearn(surrogate, [1, 2], strength=strength, downdate=False)) - K
        torch.testing.assert_close(part, strength * full, rtol=0, atol=1e-12)


@pytest.mark.parametrize("classes", [[2], [0, 3], [0, 1, 3]])
def test_the_rank_of_an_edit_is_the_number_of_forgotten_classes(classes: list[int]) -> None:
    surrogate = fitted()
    edited = unlearn(surrogate, classes, downdate=False)
    delta = matrix(edited) - matrix(surrogate)
    singular = torch.linalg.svdvals(delta)
    assert int((singular > 1e-9 * singular[0]).sum()) == len(classes)
    edit = edited.edits[-1]
    assert edit.left.shape == edit.right.shape == (surrogate.latent, len(classes))
    torch.testing.assert_close(edit.left @ edit.right.T, delta, rtol=0, atol=1e-9)


@pytest.mark.parametrize("ridge", [1e-3, 0.5])
@pytest.mark.parametrize("classes", [[1], [0, 2]])
def test_no_other_edit_with_these_means_disturbs_the_classes_less(
    ridge: float, classes: list[int]
) -> None:
    """tr(Δ' W̄ Δ'ᵀ) over Δ' = Δ + P, with P any matrix that vanishes on all class means."""
    surrogate = fitted()
    delta = matrix(unlearn(surrogate, classes, downdate=False, ridge=ridge)) - matrix(surrogate)
    W = within(surrogate, ridge)
    A = torch.stack([mean(surrogate, c) for c in range(CLASSES)], 1)
    free = torch.eye(len(A)).double() - A @ torch.linalg.pinv(A)
    least = torch.trace(delta @ W @ delta.T).item()
    for seed in range(50):
        for size in (1e-3, 1.0):
            other = delta + size * draw(*delta.shape, seed=seed) @ free
            torch.testing.assert_close(other @ A, delta @ A, rtol=0, atol=1e-9)
            assert torch.trace(other @ W @ other.T).item() > least
    slope = torch.einsum("ij,jk,ik->", delta, W @ free, draw(*delta.shape))
    assert abs(slope.item()) < 1e-8


def test_several_classes_are_one_joint_solve_whatever_their_order() -> None:
    surrogate = fitted()
    joint = unlearn(surrogate, [3, 1, 3])
    assert joint.edits[-1].classes == (1, 3)
    assert torch.equal(matrix(joint), matrix(unlearn(surrogate, (1, 3))))


def test_edits_one_after_the_other_leave_earlier_classes_where_they_went() -> None:
    surrogate = fitted()
    first = unlearn(surrogate, [0], downdate=False)
    second = unlearn(first, [1], downdate=False)
    third = unlearn(second, [1, 2], strength=0.5, downdate=False)
    for edited in (second, third):
        torch.testing.assert_close(image(edited, 0), image(first, 0), rtol=0, atol=1e-9)
        torch.testing.assert_close(image(edited, 3), image(surrogate, 3), rtol=0, atol=1e-9)
    expected = aim(first, 1, [2, 3], "softmix")
    torch.testing.assert_close(image(second, 1), expected, rtol=0, atol=1e-9)
    assert [edit.classes for edit in third.edits] == [(0,), (1,), (1, 2)]


def test_forgetting_a_class_twice_that_is_where_it_should_be_changes_nothing() -> None:
    surrogate = fitted(classes=2)
    first = unlearn(surrogate, [0], downdate=False)
    second = unlearn(first, [0], downdate=False)
    torch.testing.assert_close(matrix(second), matrix(first), rtol=0, atol=1e-9)


@pytest.mark.parametrize("classes", [[2], [0, 3]])
def test_a_downdate_takes_away_what_a_fit_with_the_class_has_beyond_one_without(
    classes: list[int],
) -> None:
    surrogate = fitted()
    start, end, labels = data()
    kept = ~torch.isin(labels, torch.tensor(classes))
    rows = {
        "start": surrogate.encode(start[kept][:, None], "a")[:, 0],
        "end": surrogate.encode(end[kept][:, None], "z")[:, 0],
    }
    alone = Moments(layer_pairs(("start", "end"), "ends")).update(rows)
    assert surrogate.statistics is not None
    total = surrogate.statistics.total()
    refits = [koopman_matrix(each, _REFIT_RIDGE, constant=True) for each in (alone, total)]
    refit = matrix(surrogate) + refits[0] - refits[1]
    downdated = unlearn(surrogate, classes, strength=0.0)
    torch.testing.assert_close(matrix(downdated), refit, rtol=0, atol=1e-8)
    # The edit that follows leaves the retained means where that puts them, not where they were.
    for label in {0, 1, 2, 3} - {*classes}:
        moved = image(unlearn(surrogate, classes), label)
        torch.testing.assert_close(moved, refit @ mean(surrogate, label), rtol=0, atol=1e-8)
        assert (moved - image(surrogate, label)).abs().max() > 1e-3
    reference = copy.deepcopy(surrogate)
    reference.operator.start_from(refit)
    torch.testing.assert_close(
        matrix(unlearn(surrogate, classes)),
        matrix(unlearn(reference, classes, downdate=False)),
        rtol=0,
        atol=1e-8,
    )


def test_downdating_two_classes_in_turn_is_downdating_both_for_the_retained_means() -> None:
    surrogate = fitted()
    turns = unlearn(unlearn(surrogate, [0], strength=0.0), [1], strength=0.0)
    both = unlearn(surrogate, [0, 1], strength=0.0)
    for label in (2, 3):
        found, expected = (matrix(each) @ mean(surrogate, label) for each in (turns, both))
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-8)


def test_the_most_similar_class_weighs_most_in_the_softmix() -> None:
    surrogate = fitted()
    edited = unlearn(surrogate, [0], downdate=False)
    ends = torch.stack([mean(surrogate, c, "end") for c in (1, 2, 3)], 1)
    weights = torch.linalg.lstsq(ends, image(edited, 0)[:, None], driver="gels").solution[:, 0]
    distances = (ends - image(surrogate, 0)[:, None]).norm(dim=0)
    assert weights.sum().item() == pytest.approx(1)
    assert weights.argsort(descending=True).tolist() == distances.argsort().tolist()


def test_reverting_gives_back_the_very_same_surrogate() -> None:
    surrogate, state = fitted(), draw(3, 1, 6)
    before = surrogate(state)
    first = unlearn(surrogate, [0])
    second = unlearn(first, [1])
    assert undo(second) is first
    assert undo(first) is surrogate
    assert torch.equal(undo(undo(second))(state), before)


def test_an_edit_leaves_the_surrogate_it_is_given_as_it_is() -> None:
    surrogate = learnt(Stable)
    head = head_of(surrogate)
    assert surrogate.statistics is not None
    tensors = {**surrogate.state_dict(), **surrogate.statistics.tensors(), **head.state_dict()}
    before = {name: tensor.clone() for name, tensor in tensors.items()}
    edited = unlearn(surrogate, [0, 2], head=head)
    with torch.no_grad():
        for tensor in edited.state_dict().values():
            tensor.add_(1)
    after = {**surrogate.state_dict(), **surrogate.statistics.tensors(), **head.state_dict()}
    assert all(torch.equal(before[name], tensor) for name, tensor in after.items())
    assert surrogate.edits == ()
    assert isinstance(surrogate.operator, Stable)
    assert all(parameter.requires_grad for parameter in surrogate.parameters())


def test_an_edited_surrogate_spans_the_ends_and_replaces_as_it_predicts() -> None:
    surrogate = fitted()
    first, last = surrogate.frames()
    surrogate = surrogate.with_(
        span=Span.even(["a", "m", "z"]), coordinates=[first, copy.deepcopy(first), last]
    )
    edited, state = unlearn(surrogate, [1]), draw(3, 2, 6)
    assert edited.layers == ("a", "z")
    assert edited.span.times == (0.0, 1.0)
    torch.testing.assert_close(edited.replacement()(state), edited(state))
    assert "edited" in repr(edited)


def test_the_card_of_an_edit_names_it_and_holds_no_undo() -> None:
    edited = unlearn(unlearn(fitted(), [1]), [0, 3], strength=0.5, target="nearest")
    how = {"method": "redirect", "halves": False}
    assert json.loads(json.dumps(edited.card()["edits"])) == [
        {
            "classes": [1],
            "strength": 1.0,
            "target": "softmix",
            "downdated": True,
            **how,
        },
        {
            "classes": [0, 3],
            "strength": 0.5,
            "target": "nearest",
            "downdated": True,
            **how,
        },
    ]


FAMILIES: list[Any] = [Stable, BlockDiagonal, Orthogonal, Dense]


@pytest.mark.parametrize("family", FAMILIES)
def test_surrogates_without_constant_are_lifted_and_their_means_obey_the_edit(
    family: Callable[[int], Operator],
) -> None:
    surrogate, state = learnt(family), draw(3, 2, 6)
    lifted = unlearn(surrogate, [1], strength=0.0, downdate=False)
    assert lifted.latent == surrogate.latent + 1
    assert lifted.observables.constant
    torch.testing.assert_close(lifted(state), surrogate(state))
    latent = surrogate.encode(state, "a")
    torch.testing.assert_close(lifted.encode(state, "a")[..., 1:], latent)
    edited = unlearn(surrogate, [1], downdate=False)
    for label in (0, 2, 3):
        before = matrix(surrogate) @ mean(surrogate, label)
        torch.testing.assert_close(image(edited, label)[1:], before, rtol=0, atol=1e-9)
    expected = aim(lifted, 1, [0, 2, 3], "softmix")
    torch.testing.assert_close(image(edited, 1), expected, rtol=0, atol=1e-9)
    torch.testing.assert_close(unlearn(surrogate, [1]).replacement()(state).shape, (3, 2, 5))


@pytest.mark.parametrize("family", FAMILIES)
def test_learnt_observables_with_a_constant_keep_their_predictions_at_strength_zero(
    family: Callable[[int], Operator],
) -> None:
    surrogate, state = learnt(family, constant=True), draw(3, 2, 6)
    same = unlearn(surrogate, [1], strength=0.0, downdate=False)
    assert same.latent == surrogate.latent
    torch.testing.assert_close(same(state), surrogate(state))


@settings(deadline=None, max_examples=20)
@given(st.permutations(range(CLASSES)), st.integers(1, CLASSES - 1), st.booleans())
def test_with_a_head_no_input_is_given_a_forgotten_class_however_many_edits(
    order: list[int], forgotten: int, joint: bool
) -> None:
    """Also after edits in turn: an earlier class must not profit from a later one's large logit."""
    surrogate = fitted()
    head = head_of(surrogate)
    classes = order[:forgotten]
    for some in [classes] if joint else [[label] for label in classes]:
        surrogate = unlearn(surrogate, some, head=head)
    states = 5 * draw(300, 1, 6, seed=9)
    for logits in (head(surrogate(states)), head(surrogate.replacement()(states))):
        found = set(logits.argmax(-1).flatten().tolist())
        assert not found & set(classes)
    assert len(found) == CLASSES - forgotten


def test_the_decoder_of_a_surrogate_edited_with_a_head_keeps_retained_logits() -> None:
    surrogate = fitted()
    head = head_of(surrogate)
    plain, folded = unlearn(surrogate, [2]), unlearn(surrogate, [2], head=head)
    states = draw(20, 1, 6)
    kept = [0, 1, 3]
    torch.testing.assert_close(head(folded(states))[..., kept], head(plain(states))[..., kept])
    assert torch.equal(matrix(folded), matrix(plain))


def test_a_surrogate_without_class_statistics_is_refused() -> None:
    surrogate = fitted()
    with pytest.raises(ValueError, match=r"no class statistics.*Fit it with labels"):
        unlearn(surrogate.with_(statistics=None), [0])
    empty = LabelledMoments(layer_pairs(("start", "end"), "ends"))
    with pytest.raises(ValueError, match="no class statistics"):
        unlearn(surrogate.with_(statistics=empty), [0])


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        ([7], r"never seen \[7\]"),
        ([0, 9, 5], r"never seen \[5, 9\]"),
        ([], "there is nothing to forget"),
    ],
)
def test_a_class_never_seen_and_no_class_at_all_are_refused(classes: list[int], said: str) -> None:
    with pytest.raises(ValueError, match=rf"{said}.*seen \[0, 1, 2, 3\]"):
        unlearn(fitted(), classes)


def test_forgetting_all_classes_is_refused_at_once_and_in_turn() -> None:
    surrogate = fitted()
    with pytest.raises(ValueError, match=r"forgetting \[0, 1, 2, 3\] leaves no class"):
        unlearn(surrogate, range(4))
    edited = unlearn(unlearn(surrogate, [0]), [1, 2])
    with pytest.raises(ValueError, match=r"forgetting \[3\] after \[0, 1, 2\] leaves no class"):
        unlearn(edited, [3])


@pytest.mark.parametrize("strength", [-0.1, 1.1, float("nan")])
def test_a_strength_outside_zero_and_one_is_refused(strength: float) -> None:
    with pytest.raises(ValueError, match=f"strength={strength} must lie between 0"):
        unlearn(fitted(), [0], strength=strength)


def test_a_latent_space_with_less_room_than_classes_is_refused() -> None:
    with pytest.raises(ValueError, match=r"6 classes .* at least 7; this one has 6"):
        unlearn(observe(Dictionary().build(5), classes=6), [0])
    unlearn(observe(Dictionary().build(5), classes=5), [0])


def test_an_unknown_target_is_refused() -> None:
    with pytest.raises(ValueError, match="target='away'; choose 'softmix', 'nearest' or"):
        unlearn(fitted(), [0], target="away")  # type: ignore[arg-type]


def test_classes_with_one_mean_cannot_be_told_apart() -> None:
    surrogate = fitted()
    assert surrogate.statistics is not None
    surrogate.statistics.by_class[1] = copy.deepcopy(surrogate.statistics.by_class[0])
    with pytest.raises(ValueError, match="can hardly be told apart"):
        unlearn(surrogate, [0], downdate=False)


def test_there_is_nothing_to_revert_without_an_edit_or_without_its_undo() -> None:
    surrogate = fitted()
    with pytest.raises(ValueError, match="never edited"):
        undo(surrogate)
    edited = unlearn(surrogate, [0]).with_(previous=None)
    with pytest.raises(ValueError, match="keeps no undo"):
        undo(edited)


def test_earlier_classes_stay_where_they_went_also_when_the_operator_is_downdated() -> None:
    surrogate = fitted()
    first = unlearn(surrogate, [0])
    second = unlearn(first, [1])
    mean = first.statistics.by_class[0].mean("start")
    before, after = (each.operator.matrix(1.0).double() @ mean for each in (first, second))
    torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-5)


def known(surrogate: Surrogate) -> LabelledMoments:
    assert surrogate.statistics is not None
    return surrogate.statistics


def points(surrogate: Surrogate, *classes: int) -> Tensor:
    return points_of(known(surrogate), classes, classes)


def test_halves_lie_a_standard_deviation_from_the_mean_along_the_widest_direction() -> None:
    surrogate = fitted()
    moments = known(surrogate).by_class[2]
    first, second = points(surrogate, 2).unbind(1)
    torch.testing.assert_close((first + second) / 2, moments.mean("start"))
    step = (first - second) / 2
    widest = torch.linalg.eigvalsh(moments.cov("start", "start"))[-1]
    assert step @ step == pytest.approx(widest.item())
    assert step @ moments.cov("start", "start") @ step == pytest.approx((widest**2).item())


@pytest.mark.parametrize("strength", [0.3, 1.0])
@pytest.mark.parametrize("classes", [[1], [0, 2]])
def test_each_half_moves_its_fraction_of_the_way_and_retained_means_stay(
    strength: float, classes: list[int]
) -> None:
    surrogate = fitted()
    kept = [c for c in range(CLASSES) if c not in classes]
    edited = forget(surrogate, classes, strength=strength, downdate=False)
    before, after, halves = matrix(surrogate), matrix(edited), points(surrogate, *classes)
    aims = aims_of(known(surrogate), before @ halves, kept, "softmix")
    expected = torch.lerp(before @ halves, aims, strength)
    torch.testing.assert_close(after @ halves, expected, rtol=0, atol=1e-7)
    means = points_of(known(surrogate), kept, ())
    torch.testing.assert_close(after @ means, before @ means, rtol=0, atol=1e-7)


def test_the_rank_of_an_edit_by_halves_is_twice_the_number_of_classes() -> None:
    surrogate = fitted()
    change = matrix(forget(surrogate, [0, 3], downdate=False)) - matrix(surrogate)
    assert torch.linalg.matrix_rank(change, rtol=1e-9) == 4


def test_a_later_edit_leaves_both_halves_of_an_earlier_one_where_they_went() -> None:
    surrogate = fitted()
    first = forget(surrogate, [1])
    second = forget(first, [0])
    halves = points(surrogate, 1)
    torch.testing.assert_close(matrix(second) @ halves, matrix(first) @ halves, rtol=0, atol=1e-7)
    assert undo(second) is first
    assert [edit.halves for edit in second.edits] == [True, True]


def test_a_class_without_width_stands_for_itself_by_its_mean() -> None:
    surrogate = fitted()
    statistics = known(surrogate)
    eye = torch.eye(surrogate.latent, dtype=torch.float64)
    mean = statistics.by_class[1].mean("start")
    narrow = {"start": (0 * eye, mean), "end": (eye, 0 * mean)}
    statistics.by_class[1] = statistics.by_class[1].affine(narrow)
    assert points(surrogate, 1).shape == (surrogate.latent, 1)


def test_too_small_a_latent_space_for_halves_is_refused_with_the_way_out() -> None:
    surrogate = fitted(classes=8)
    assert surrogate.latent == 14
    with pytest.raises(ValueError, match=r"14 constraints.* at least 15; .*halves=False"):
        forget(surrogate, range(6))
    assert forget(surrogate, range(5)).edits[0].halves
    assert not forget(surrogate, range(6), halves=False).edits[0].halves
