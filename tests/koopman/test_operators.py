"""One contract for all operator families, and what each of them promises on its own."""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import linalg
from torch import Tensor, nn

from tests.systems import draw
from torchkoopman.koopman.operator import Operator
from torchkoopman.koopman.operators import (
    FAMILIES,
    BlockDiagonal,
    Dense,
    LowRank,
    Orthogonal,
    Stable,
    operator_from_config,
)
from torchkoopman.koopman.powers import fractional_power, logarithm


def eye(size: int) -> Tensor:
    return torch.eye(size, dtype=torch.float64)


def keeps_lengths(operator: Operator) -> None:
    M = operator.matrix(1 / operator.steps)
    torch.testing.assert_close(M.T @ M, torch.eye(len(M)).to(M), rtol=0, atol=1e-5)
    moduli = torch.linalg.eigvals(operator.matrix(1.0)).abs()
    torch.testing.assert_close(moduli, torch.ones_like(moduli), rtol=0, atol=1e-4)


def never_grows(operator: Operator) -> None:
    assert isinstance(operator, Stable)
    assert torch.linalg.eigvals(operator.generator()).real.max() <= 1e-5
    for time in (0.1, 0.5, 1.0, 3.0):
        assert torch.linalg.matrix_norm(operator.matrix(time), 2) <= 1 + 1e-5


def has_its_rank(operator: Operator) -> None:
    assert isinstance(operator, LowRank)
    singular = torch.linalg.svdvals(operator.matrix(1.0))
    assert (singular[operator.rank :] <= 1e-5 * singular[0]).all()


def has_its_rates(operator: Operator) -> None:
    assert isinstance(operator, BlockDiagonal)
    for time in (0.3, 1.0):
        K = operator.matrix(time).double()
        torch.testing.assert_close(K @ K.T, K.T @ K, rtol=1e-4, atol=1e-5)
        expected = []
        for k, decay in enumerate(operator.decay.tolist()):
            turns = operator.frequency[k].item() if k < len(operator.frequency) else 0.0
            size, angle = math.exp(-decay * time), turns * time
            expected += [
                complex(size * math.cos(angle), s * size * math.sin(angle)) for s in (1, -1)
            ]
        found = torch.linalg.eigvals(K).tolist()
        for value in found:
            assert min(abs(value - other) for other in expected) <= 1e-4 * (1 + abs(value))
        for other in expected:
            assert min(abs(other - value) for value in found) <= 1e-4 * (1 + abs(other))


def keeps_the_constant(operator: Operator) -> None:
    row = operator.matrix(1.0)[0]
    assert row.tolist() == [1.0] + [0.0] * (operator.latent - 1)
    latent = draw(9, operator.latent).to(row)
    latent[:, 0] = 1
    assert torch.equal(operator(latent)[:, 0], torch.ones(9).to(row))


@dataclass(frozen=True)
class Case:
    """A family, and what must hold at any parameter values."""

    make: Callable[[], Operator]
    times: tuple[float, ...]
    """Times at which K is known without a fractional power."""
    holds: Callable[[Operator], None] = lambda operator: None


CASES = {
    "dense": Case(lambda: Dense(4), (0, 1, 2)),
    "dense in steps": Case(lambda: Dense(4, steps=4), (0, 0.25, 0.5, 1)),
    "dense with constant": Case(
        lambda: Dense(4, steps=2, constant=True), (0, 0.5, 1), keeps_the_constant
    ),
    "low rank": Case(lambda: LowRank(5, steps=2, rank=2), (0, 0.5, 1), has_its_rank),
    "orthogonal": Case(lambda: Orthogonal(4), (0, 1, 2), keeps_lengths),
    "orthogonal in steps": Case(lambda: Orthogonal(5, steps=3), (0, 1 / 3, 2 / 3), keeps_lengths),
    "stable": Case(lambda: Stable(4), (0, 0.2, 0.37, 1), never_grows),
    "blocks": Case(lambda: BlockDiagonal(4), (0, 0.2, 0.37, 1), has_its_rates),
    "blocks and one": Case(lambda: BlockDiagonal(5), (0, 0.2, 0.37, 1), has_its_rates),
    "one": Case(lambda: BlockDiagonal(1), (0, 0.2, 1), has_its_rates),
}
every_family = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
both_precisions = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


def disturbed(case: Case, dtype: torch.dtype = torch.float64, seed: int = 0) -> Operator:
    """A family at random parameter values."""
    operator = case.make().to(dtype)
    with torch.no_grad():
        for k, parameter in enumerate(operator.parameters()):
            parameter += 0.4 * draw(*parameter.shape, seed=seed + k).to(dtype)
    return operator


def test_the_contract_covers_every_family() -> None:
    assert {type(case.make()) for case in CASES.values()} == set(FAMILIES.values())
    assert all(family.guarantee for family in FAMILIES.values())


@every_family
@both_precisions
def test_no_time_leaves_every_state_where_it_is(case: Case, dtype: torch.dtype) -> None:
    operator = disturbed(case, dtype)
    assert torch.equal(operator.matrix(0.0), torch.eye(operator.latent, dtype=dtype))
    latent = draw(3, operator.latent).to(dtype)
    torch.testing.assert_close(operator(latent, 0.0), latent)


@every_family
@both_precisions
def test_times_add_up(case: Case, dtype: torch.dtype) -> None:
    operator = disturbed(case, dtype)
    for s in case.times:
        for t in case.times:
            assert operator.exact_at(s + t)
            product = operator.matrix(s) @ operator.matrix(t)
            tolerance = 1e-4 if dtype == torch.float32 else 1e-10
            assert (product - operator.matrix(s + t)).norm() <= tolerance * product.norm()


@every_family
@both_precisions
def test_applying_an_operator_is_multiplying_with_its_matrix(
    case: Case, dtype: torch.dtype
) -> None:
    operator = disturbed(case, dtype)
    latent = draw(2, 3, operator.latent).to(dtype)
    for time in case.times:
        out = operator(latent, time)
        assert out.dtype == operator.matrix(time).dtype == dtype
        expected = torch.einsum("ij,bpj->bpi", operator.matrix(time), latent)
        torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-4)


@every_family
def test_building_an_operator_leaves_the_global_generator_alone(case: Case) -> None:
    state = torch.get_rng_state()
    case.make().start_from(torch.eye(case.make().latent))
    assert torch.equal(torch.get_rng_state(), state)


@every_family
def test_gradients_reach_every_parameter(case: Case) -> None:
    operator = disturbed(case)
    latent = draw(6, operator.latent)
    (operator(latent, 1.0) - draw(6, operator.latent, seed=1)).square().sum().backward()
    for name, parameter in operator.named_parameters():
        assert parameter.grad is not None, name
        assert (parameter.grad != 0).any() or parameter.numel() == 0, name


@every_family
@both_precisions
def test_an_operator_survives_its_configuration_and_its_tensors(
    case: Case, dtype: torch.dtype
) -> None:
    operator = disturbed(case, dtype)
    restored = operator_from_config(json.loads(json.dumps(operator.config()))).to(dtype)
    restored.load_state_dict(operator.state_dict())
    assert type(restored) is type(operator)
    assert restored.config() == operator.config()
    for time in case.times:
        torch.testing.assert_close(restored.matrix(time), operator.matrix(time), rtol=0, atol=0)


@every_family
@both_precisions
def test_guarantees_hold_before_and_after_training_towards_an_unstable_target(
    case: Case, dtype: torch.dtype
) -> None:
    operator = disturbed(case, dtype)
    case.holds(operator)
    target = 3 * draw(operator.latent, operator.latent, seed=7).to(dtype)
    rows = draw(50, operator.latent, seed=8).to(dtype)
    optimiser = torch.optim.Adam(operator.parameters(), lr=0.1)
    losses = []
    for _ in range(50):
        optimiser.zero_grad()
        loss = (operator(rows, 1.0) - rows @ target.T).square().mean()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    case.holds(operator)


@every_family
@both_precisions
def test_every_member_is_its_own_nearest_member(case: Case, dtype: torch.dtype) -> None:
    operator = disturbed(case, dtype)
    step = operator.matrix(1 / operator.steps).detach()
    restored = case.make().to(dtype).start_from(step)
    found = restored.matrix(1 / operator.steps)
    torch.testing.assert_close(found, step, rtol=0, atol=1e-5 if dtype == torch.float32 else 1e-6)
    assert all(parameter.dtype == dtype for parameter in restored.parameters())


@every_family
def test_a_start_in_double_precision_does_not_change_an_operator_in_single(case: Case) -> None:
    """Closed forms are float64, parameters float32."""
    step = disturbed(case).matrix(1 / case.make().steps).detach()
    operator = case.make().start_from(step)
    assert all(parameter.dtype == torch.float32 for parameter in operator.parameters())
    torch.testing.assert_close(operator.matrix(1 / operator.steps), step.float(), rtol=0, atol=1e-5)


@every_family
def test_starting_from_any_matrix_keeps_the_guarantee(case: Case) -> None:
    for seed in range(5):
        operator = case.make().double()
        case.holds(operator.start_from(draw(operator.latent, operator.latent, seed=seed)))


@every_family
def test_an_operator_starts_where_its_family_is_near_the_identity(case: Case) -> None:
    operator = case.make()
    if not isinstance(operator, LowRank):
        assert (operator.matrix(1.0) - torch.eye(operator.latent)).abs().max() < 0.5
    else:
        expected = torch.diag(torch.tensor([1.0, 1.0, 0.0, 0.0, 0.0]))
        assert torch.equal(operator.matrix(1.0), expected)


def test_a_low_rank_start_is_that_of_eckart_and_young() -> None:
    step = draw(5, 5)
    error = (LowRank(5, rank=2).double().start_from(step).step() - step).square().sum()
    singular = torch.linalg.svdvals(step)
    torch.testing.assert_close(error.detach(), singular[2:].square().sum())


def test_an_orthogonal_start_is_the_polar_factor() -> None:
    step = draw(5, 5)
    polar = torch.from_numpy(linalg.polar(step.numpy())[0])
    found = Orthogonal(5).double().start_from(step).step()
    torch.testing.assert_close(found.detach(), polar, rtol=0, atol=1e-9)


def test_a_block_diagonal_start_is_nearest_block_by_block() -> None:
    """Least squares over a·I + b·J, which exp(-decay)·rotation(frequency) covers."""
    step = draw(4, 4)
    K = BlockDiagonal(4).double().start_from(step).matrix(1.0).detach()
    basis = np.array([[1.0, 0, 0, 1], [0, -1, 1, 0]]).T
    for k in (0, 2):
        block = step[k : k + 2, k : k + 2].numpy().ravel()
        expected = basis @ linalg.lstsq(basis, block)[0]
        np.testing.assert_allclose(K[k : k + 2, k : k + 2].numpy().ravel(), expected, atol=1e-9)
        assert K[k : k + 2].square().sum() == K[k : k + 2, k : k + 2].square().sum()


def test_an_odd_last_block_keeps_the_modulus_of_its_entry() -> None:
    step = torch.diag(torch.tensor([1.0, 1.0, -0.5]))
    assert BlockDiagonal(3).start_from(step).matrix()[2, 2].item() == pytest.approx(0.5)


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 5), st.integers(0, 1000))
def test_a_stable_start_cuts_the_growing_part_of_the_logarithm(size: int, seed: int) -> None:
    """A = log M: the skew half stays, the symmetric half loses its positive eigenvalues."""
    A = draw(size, size, seed=seed) / size
    operator = Stable(size).double().start_from(torch.matrix_exp(A))
    values, vectors = np.linalg.eigh(((A + A.T) / 2).numpy())
    cut = vectors @ np.diag(np.minimum(values, 0)) @ vectors.T + ((A - A.T) / 2).numpy()
    np.testing.assert_allclose(operator.generator().detach().numpy(), cut, atol=2e-6)
    never_grows(operator)


@pytest.mark.parametrize("family", [Stable, BlockDiagonal])
def test_a_generator_starts_from_one_step_of_several(family: Callable[..., Operator]) -> None:
    """K(1/3) is the step, so K(1) is its cube."""
    step = 0.9 * torch.tensor([[math.cos(0.4), -math.sin(0.4)], [math.sin(0.4), math.cos(0.4)]])
    K = family(2, steps=3).double().start_from(step.double()).matrix(1.0).detach()
    expected = step.double() @ step.double() @ step.double()
    torch.testing.assert_close(K, expected, rtol=0, atol=1e-6)


def test_a_stable_start_without_a_logarithm_is_that_of_the_first_order() -> None:
    step = torch.diag(torch.tensor([0.5, -0.5])).double()
    generator = Stable(2).double().start_from(step).generator().detach()
    torch.testing.assert_close(generator, step - eye(2), rtol=0, atol=1e-9)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 6), st.integers(0, 1000))
def test_the_exponential_undoes_the_logarithm(size: int, seed: int) -> None:
    matrix = torch.matrix_exp(draw(size, size, seed=seed) / size)
    log = logarithm(matrix)
    torch.testing.assert_close(torch.matrix_exp(log), matrix, rtol=0, atol=1e-9)
    np.testing.assert_allclose(log.numpy(), linalg.logm(matrix.numpy()).real, atol=1e-8)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 6), st.integers(0, 1000))
def test_a_square_root_squared_is_the_matrix(size: int, seed: int) -> None:
    matrix = torch.matrix_exp(draw(size, size, seed=seed) / size)
    root = fractional_power(matrix, 0.5)
    torch.testing.assert_close(root @ root, matrix, rtol=0, atol=1e-9)
    third = fractional_power(matrix, 1 / 3)
    torch.testing.assert_close(third @ third @ third, matrix, rtol=0, atol=1e-9)


@both_precisions
def test_powers_keep_the_dtype(dtype: torch.dtype) -> None:
    assert fractional_power(torch.eye(3, dtype=dtype), 0.5).dtype == dtype


def test_a_discrete_family_between_its_steps_is_a_fractional_power() -> None:
    """A rotation by 1 radian in one step turns by half a radian in half of it."""
    turn = torch.tensor([[math.cos(1), -math.sin(1)], [math.sin(1), math.cos(1)]]).double()
    half = torch.tensor([[math.cos(0.5), -math.sin(0.5)], [math.sin(0.5), math.cos(0.5)]]).double()
    for operator in (Dense(2).double(), Orthogonal(2).double()):
        operator.start_from(turn)
        assert not operator.exact_at(0.5)
        torch.testing.assert_close(operator.matrix(0.5).detach(), half)
        states = draw(3, 2)
        torch.testing.assert_close(operator(states, 0.5).detach(), states @ half.T)


def test_time_runs_back_where_the_step_is_invertible() -> None:
    for name in ("dense", "orthogonal", "stable", "blocks and one"):
        operator, states = disturbed(CASES[name]), draw(3, CASES[name].make().latent)
        torch.testing.assert_close(operator(operator(states, 1.0), -1.0), states)


@pytest.mark.parametrize("value", [-0.7, 0.0])
@both_precisions
def test_an_eigenvalue_on_the_cut_has_no_fractional_power_and_is_named(
    value: float, dtype: torch.dtype
) -> None:
    matrix = torch.diag(torch.tensor([1.0, value, 0.5])).to(dtype)
    with pytest.raises(ValueError, match=rf"eigenvalue {value:.1g} on the closed\b"):
        logarithm(matrix)
    with pytest.raises(ValueError, match="Ask for whole steps"):
        Dense(3).to(dtype).start_from(matrix).matrix(0.5)


@settings(deadline=None, max_examples=20)
@given(st.integers(2, 6), st.integers(0, 1000))
def test_a_singular_matrix_has_no_logarithm_whatever_the_rounding(size: int, seed: int) -> None:
    kept = torch.linalg.qr(draw(size, size - 1, seed=seed)).Q
    matrix = kept @ kept.T  # a projection: eigenvalues 1, and one 0
    with pytest.raises(ValueError, match="on the closed negative real axis"):
        logarithm(matrix)


def test_a_defective_matrix_has_no_trusted_fractional_power() -> None:
    jordan = torch.tensor([[2.0, 1.0], [0.0, 2.0]]).double()
    with pytest.raises(ValueError, match="nearly defective"):
        logarithm(jordan)
    torch.testing.assert_close(Dense(2).double().start_from(jordan).matrix(2.0), jordan @ jordan)


def test_operators_without_size_steps_or_rank_are_refused() -> None:
    with pytest.raises(ValueError, match="latent ≥ 1 and steps ≥ 1; got 0, 1"):
        Dense(0)
    with pytest.raises(ValueError, match="got 3, 0"):
        Orthogonal(3, steps=0)
    with pytest.raises(ValueError, match="rank=4 must lie between 1 and latent=3"):
        LowRank(3, rank=4)


def test_the_parameters_of_a_low_rank_operator_are_as_few_as_promised() -> None:
    count = sum(parameter.numel() for parameter in LowRank(20, rank=3).parameters())
    assert count == 2 * 20 * 3
    assert sum(p.numel() for p in BlockDiagonal(21).parameters()) == 21
    assert isinstance(BlockDiagonal(21).decay, nn.Parameter)
