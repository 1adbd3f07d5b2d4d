"""The neutral head row: a class that can never win, in the head or folded into the decoder."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tests.systems import draw
from torchkoopman.koopman.coordinates import Coordinates
from torchkoopman.unlearning.neutral import neutral_head, neutralised

ROWS, FEATURES = 4, 6
classes_of = st.lists(st.integers(0, ROWS - 1), min_size=1, max_size=ROWS - 1, unique=True)


def head_of(bias: bool = True, features: int = FEATURES, seed: int = 0) -> nn.Linear:
    head = nn.Linear(features, ROWS, bias=bias).double()
    for k, parameter in enumerate(head.parameters()):
        nn.init.normal_(parameter, generator=torch.Generator().manual_seed(seed + k))
    return head


def end_of(size: int, features: int = FEATURES, seed: int = 0) -> Coordinates:
    """Arbitrary end coordinates, whose way back has an offset of its own."""
    weight, inverse = draw(size, features, seed=seed), draw(features, size, seed=seed + 1)
    return Coordinates(weight, draw(features), inverse, draw(features, seed=seed + 2))


def margin_of(head: nn.Linear) -> float:
    """A thousandth of the mean length of the head's rows."""
    lengths = [sum(value**2 for value in row) ** 0.5 for row in head.weight.tolist()]
    return 1e-3 * sum(lengths) / len(lengths)


@settings(deadline=None, max_examples=40)
@given(classes_of, st.booleans(), st.integers(0, 1000), st.floats(-2, 2))
def test_a_neutral_logit_is_the_mean_of_the_retained_less_a_margin_and_never_wins(
    classes: list[int], bias: bool, seed: int, exponent: float
) -> None:
    head = head_of(bias, seed=seed)
    neutral = neutral_head(head, classes)
    inputs = 10**exponent * draw(100, FEATURES, seed=seed + 5)
    logits, edited = head(inputs), neutral(inputs)
    retained = [c for c in range(ROWS) if c not in classes]
    torch.testing.assert_close(edited[:, retained], logits[:, retained])
    mean = sum(logits[:, c] for c in retained) / len(retained) - margin_of(head)
    for label in classes:
        torch.testing.assert_close(edited[:, label], mean, rtol=1e-9, atol=1e-9)
    assert (edited[:, classes].max(1).values < edited[:, retained].max(1).values).all()


@settings(deadline=None, max_examples=40)
@given(classes_of, st.booleans(), st.integers(1, FEATURES), st.integers(0, 1000))
def test_folded_into_the_decoder_the_same_head_gives_the_logits_of_the_neutral_one(
    classes: list[int], bias: bool, size: int, seed: int
) -> None:
    head, end, latent = head_of(bias, seed=seed), end_of(size, seed=seed), draw(50, size)
    decoded = neutralised(end, head, classes).inverse(latent)
    expected = neutral_head(head, classes)(end.inverse(latent))
    torch.testing.assert_close(head(decoded), expected, rtol=0, atol=1e-7)


def test_folding_moves_decoded_states_no_further_than_it_must() -> None:
    """Only along the head's rows, and the way in stays as it is."""
    head, end, latent = head_of(), end_of(5), draw(50, 5)
    edited = neutralised(end, head, [1])
    moves = edited.inverse(latent) - end.inverse(latent)
    basis = torch.linalg.qr(head.weight.detach().T).Q
    torch.testing.assert_close(moves @ basis @ basis.T, moves, rtol=0, atol=1e-9)
    states = draw(3, FEATURES)
    assert torch.equal(edited(states), end(states))


def test_ties_break_against_the_forgotten_class() -> None:
    """The zero state of a head without bias gives all classes one logit."""
    head = head_of(bias=False)
    for label in range(ROWS):
        logits = neutral_head(head, [label])(torch.zeros(FEATURES).double())
        assert logits.argmax() != label
        assert logits[label].item() == pytest.approx(-margin_of(head))
        end = Coordinates(draw(5, FEATURES), torch.zeros(FEATURES), draw(FEATURES, 5)).double()
        assert head(end.inverse(torch.zeros(5).double())).abs().max() == 0
        folded = neutralised(end, head, [label]).inverse(torch.zeros(5).double())
        torch.testing.assert_close(head(folded), logits, rtol=0, atol=1e-12)


def test_folding_a_class_in_twice_is_folding_it_in_once_up_to_the_margin() -> None:
    head, end, latent = head_of(), end_of(5), draw(50, 5)
    once = neutralised(end, head, [1])
    torch.testing.assert_close(
        head(neutralised(once, head, [1]).inverse(latent)), head(once.inverse(latent))
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtypes_follow_the_head_and_the_coordinates(dtype: torch.dtype) -> None:
    head, end = head_of().to(dtype), end_of(5).float()
    assert neutral_head(head, [0]).weight.dtype == dtype
    edited = neutralised(end, head, [0])
    assert {tensor.dtype for tensor in edited.state_dict().values()} == {torch.float32}


def test_the_head_itself_stays_as_it_is() -> None:
    head = head_of()
    before = {name: tensor.clone() for name, tensor in head.state_dict().items()}
    state = torch.get_rng_state()
    neutral_head(head, [0])
    neutralised(end_of(5), head, [0])
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[name], tensor) for name, tensor in head.state_dict().items())


def test_a_head_with_dependent_rows_cannot_be_served_by_the_decoder() -> None:
    head = head_of()
    with torch.no_grad():
        head.weight[3] = head.weight[0] - 2 * head.weight[1]
    with pytest.raises(ValueError, match="4 rows are linearly dependent over 6 features"):
        neutralised(end_of(5), head, [0])
    with pytest.raises(ValueError, match="linearly dependent over 3 features"):
        neutralised(end_of(2, features=3), head_of(features=3), [0])
    inputs = draw(100, FEATURES)
    assert (neutral_head(head, [0])(inputs).argmax(1) != 0).all()


def test_a_head_of_another_width_than_the_last_layer_is_refused() -> None:
    with pytest.raises(ValueError, match="the head takes 6 features, but the last layer has 5"):
        neutralised(end_of(3, features=5), head_of(), [0])


@pytest.mark.parametrize(
    ("classes", "named"), [([4], r"\[4\]"), ([0, -1], r"\[-1\]"), ([0, 1, 2, 3], "all of them")]
)
def test_classes_without_a_row_and_all_classes_are_refused(classes: list[int], named: str) -> None:
    for call in (
        lambda: neutral_head(head_of(), classes),
        lambda: neutralised(end_of(5), head_of(), classes),
    ):
        with pytest.raises(ValueError, match=f"rows 0 to 3; .* asks for {named}"):
            call()
