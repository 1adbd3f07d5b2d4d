"""Modes, eigenfunctions and their dynamics on systems where they are known."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import torchkoopman as tk
from tests.koopman.test_surrogate import KINDS, OPERATORS, draw, make
from torchkoopman.koopman.operators import Dense
from torchkoopman.koopman.surrogate import Surrogate
from torchkoopman.observe.class_moments import LabelledMoments
from torchkoopman.observe.pairs import layer_pairs

VALUES = (0.95, 0.8, 0.5, -0.6)
"""Eigenvalues of a step of the linear system."""


def linear(layers: int = 3, dtype: torch.dtype = torch.float64) -> tuple[Surrogate, Tensor, Tensor]:
    """DMD of ``x ↦ A x + b`` in an oblique basis: the surrogate, the eigenvectors, the fixed
    point."""
    basis = torch.linalg.qr(draw(4, 4)).Q + 0.3 * draw(4, 4, seed=1)
    A = basis @ torch.diag(torch.tensor(VALUES).double()) @ torch.linalg.inv(basis)
    point = 3 * draw(4, seed=2)
    states = [draw(3000, 4, seed=3) + point]
    for _ in range(layers - 1):
        states.append((states[-1] - point) @ A.T + point)
    fitter = tk.DMDFitter(ridge=0, dynamics="step")
    fitter.update(tk.Trajectory.of(*(state.to(dtype) for state in states)))
    return fitter.surrogate, basis / basis.norm(dim=0), point


def polynomial(parts: tk.Monomials, image: Callable[[Tensor], Tensor], rows: int) -> Surrogate:
    """EDMD of a map of the plane, in one frame."""
    start = draw(rows, 2)
    fitter = tk.EDMDFitter(parts, ridge=0, calibration=rows)
    fitter.calibrate(tk.Trajectory.of(start, start))
    return fitter.update(tk.Trajectory.of(start, image(start))).surrogate


def with_statistics(surrogate: Surrogate, layer: str = "a") -> tuple[Surrogate, Tensor]:
    """The surrogate with latent statistics of random states of a layer, and these states."""
    states = draw(400, 1, surrogate.frames()[0].features, seed=9).to(surrogate.frames()[0].weight)
    latent = surrogate.encode(states, layer)[:, 0].detach()
    end = latent @ surrogate.operator.matrix(1.0).detach().T
    statistics = LabelledMoments(layer_pairs(("start", "end"), "ends"))
    statistics.update({"start": latent, "end": end})
    return surrogate.with_(statistics=statistics), states


def mode_of(modes: tk.results.Modes, value: complex) -> int:
    return int((modes.eigenvalues - value).abs().argmin())


@pytest.mark.parametrize(("dtype", "error"), [(torch.float64, 1e-7), (torch.float32, 1e-3)])
def test_modes_of_a_linear_system_are_its_eigenvectors_in_the_layers_own_basis(
    dtype: torch.dtype, error: float
) -> None:
    surrogate, basis, _ = linear(dtype=dtype)
    for layer in surrogate.layers:
        modes = surrogate.modes(layer)
        assert modes.exact
        assert modes.vectors.shape == (4, 5)
        for vector, value in zip(basis.T, VALUES, strict=True):
            found = modes.vectors[:, mode_of(modes, value**2)]
            cosine = (found.conj() @ vector.to(found.dtype)).abs() / found.norm()
            assert 1 - cosine < error, (layer, value)


def test_modes_are_those_of_a_step_where_two_of_its_eigenvalues_have_one_power() -> None:
    """Any mix of the vectors of .9 and -.9 is an eigenvector over two steps, but not over one."""
    surrogate = make(KINDS["dmd"], lambda latent: Dense(latent, steps=2, constant=True), (3, 3, 3))
    mixed = draw(3, 3, seed=5)
    step = mixed @ torch.diag(torch.tensor([0.9, -0.9, 0.4]).double()) @ torch.linalg.inv(mixed)
    surrogate.operator.start_from(torch.block_diag(torch.ones(1, 1).double(), step))
    state = draw(6, 2, 3)
    torch.testing.assert_close(
        surrogate.reconstruct(state, "b"), surrogate.predict(state, "a", "b"), rtol=0, atol=1e-10
    )
    powers = surrogate.dynamics(state, [0.0, 0.5])
    ratios = (powers[1] / powers[0])[0, 0].real.sort().values
    torch.testing.assert_close(ratios, torch.tensor([-0.9, 0.4, 0.9, 1.0]).double())


def test_the_constant_function_carries_the_fixed_point() -> None:
    surrogate, _, point = linear()
    modes = surrogate.modes()
    k = mode_of(modes, 1)
    assert not modes.offset.any()
    assert "belongs to the constant function" in modes.note
    values = surrogate.eigenfunctions(draw(50, 1, 4))
    assert (values[..., k] - values[0, 0, k]).abs().max() < 1e-10
    alone = surrogate.reconstruct(draw(50, 1, 4), modes=[k])
    torch.testing.assert_close(alone, point.expand_as(alone), rtol=0, atol=1e-8)


def test_with_delays_modes_are_of_the_stacked_state() -> None:
    states = [draw(2000, 3)]
    for depth in range(3):
        states.append(torch.tanh(states[-1]) @ draw(3, 3, seed=depth) / 2)
    trajectory = tk.Trajectory.of(*states)
    surrogate = tk.DMDFitter(delays=1).update(trajectory).surrogate
    stacked = trajectory.delayed(1).states[surrogate.layers[0]][:10]
    assert surrogate.modes().vectors.shape == (6, surrogate.latent)
    torch.testing.assert_close(surrogate.reconstruct(stacked), surrogate(stacked))


def test_eigenfunctions_of_a_slow_manifold_are_x1_and_x2_less_its_height() -> None:
    """x1 ↦ a x1, x2 ↦ b x2 + (a² - b) c x1²: x1 and x2 - c x1² are eigenfunctions."""
    a, b, c = 0.9, 0.5, 0.7

    def image(x: Tensor) -> Tensor:
        return torch.stack([a * x[:, 0], b * x[:, 1] + (a * a - b) * c * x[:, 0].square()], 1)

    surrogate = polynomial(tk.Monomials(2), image, 500)
    state = draw(100, 1, 2, seed=7)
    values = surrogate.eigenfunctions(state)[:, 0]
    x1, x2 = state[:, 0].T
    spectrum = surrogate.spectrum().eigenvalues
    for truth, value in ((x1, a), (x2 - c * x1.square(), b), (x1.square(), a * a)):
        found = values[:, int((spectrum - value).abs().argmin())]
        scale = found[0] / truth[0]
        torch.testing.assert_close(found, scale * truth, rtol=0, atol=1e-8 * scale.abs().item())
    after = surrogate.eigenfunctions(image(state[:, 0])[:, None], "1")[:, 0]
    for value in (1, a, a * a, b):
        k = int((spectrum - value).abs().argmin())
        torch.testing.assert_close(after[:, k], spectrum[k] * values[:, k], rtol=0, atol=1e-8)


def test_eigenfunctions_of_williams_linear_system_are_products_of_its_coordinates() -> None:
    """PyDMD's test_edmd: ((x - y) / √2)^i y^j on a grid, at infinity norm 1; its tolerance .05."""
    J = torch.tensor([[0.9, -0.1], [0.0, 0.8]]).double()
    surrogate = polynomial(tk.Monomials(4), lambda x: x @ J.T, 500)
    axis = torch.linspace(-5, 5, 11).double()
    y, x = torch.meshgrid(axis.flip(0), axis, indexing="ij")
    state = torch.stack([x, y], -1).reshape(-1, 1, 2)
    values = surrogate.eigenfunctions(state)[:, 0]
    spectrum = surrogate.spectrum().eigenvalues
    orders = [(1, 0), (2, 0), (0, 1), (3, 0), (1, 1), (4, 0), (2, 1), (0, 2)]
    for i, j in orders:
        truth = (((x - y) / 2**0.5) ** i * y**j).flatten()
        k = int((spectrum - 0.9**i * 0.8**j).abs().argmin())
        found = values[:, k].real
        truth, found = (each / each.abs().max() for each in (truth, found))
        found = found * (found @ truth).sign()
        assert (found - truth).norm() / truth.norm() < 1e-6, (i, j)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("operator", OPERATORS)
def test_all_modes_together_are_the_prediction_at_every_layer(kind: str, operator: str) -> None:
    surrogate, state = make(KINDS[kind], OPERATORS[operator]), draw(2, 5, 4)
    for layer in surrogate.layers[1:]:
        found = surrogate.reconstruct(state, layer)
        expected = surrogate.predict(state, end=layer)
        torch.testing.assert_close(found, expected.detach(), rtol=0, atol=1e-10)
    start = surrogate.decode(surrogate.encode(state, "a"), "a").detach()
    torch.testing.assert_close(surrogate.reconstruct(state, "a"), start, rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", ["dmd", "dictionary"])
@pytest.mark.parametrize("operator", OPERATORS)
def test_a_decoded_state_is_the_sum_of_its_eigenfunctions_times_modes(
    kind: str, operator: str
) -> None:
    surrogate = make(KINDS[kind], OPERATORS[operator])
    for layer in surrogate.layers:
        modes = surrogate.modes(layer)
        state = draw(2, 5, len(modes.vectors))
        values = surrogate.eigenfunctions(state, layer)
        assert values.shape == (2, 5, surrogate.latent)
        found = (values @ modes.vectors.mT).real + modes.offset
        expected = surrogate.decode(surrogate.encode(state, layer), layer).detach()
        assert modes.exact
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
        assert ("belongs to the constant" in modes.note) == (operator == "affine")
        assert (not modes.offset.any()) == (operator == "affine")


@pytest.mark.parametrize("operator", OPERATORS)
def test_dynamics_times_modes_are_the_path(operator: str) -> None:
    surrogate = make(operator=OPERATORS[operator], widths=(4, 4, 4, 4))
    state = draw(2, 5, 4)
    dynamics = surrogate.dynamics(state)
    assert dynamics.shape == (4, 2, 5, surrogate.latent)
    for k, layer in enumerate(surrogate.layers):
        modes = surrogate.modes(layer)
        found = (dynamics[k] @ modes.vectors.mT).real + modes.offset
        torch.testing.assert_close(found, surrogate.trajectory(state)[k].detach())
    torch.testing.assert_close(dynamics[0], surrogate.eigenfunctions(state))
    if operator in ("stable", "blocks"):
        modes = surrogate.modes()
        between = (surrogate.dynamics(state, [0.9])[0] @ modes.vectors.mT).real + modes.offset
        latent = surrogate.operator(surrogate.encode(state, "a"), 0.9)
        torch.testing.assert_close(between, surrogate.decode(latent, "d").detach())


@pytest.mark.parametrize("operator", OPERATORS)
def test_modes_and_eigenfunctions_are_biorthogonal_and_ordered_as_the_spectrum(
    operator: str,
) -> None:
    """φ_k of the latent direction v_j is 1 if k = j and 0 otherwise."""
    surrogate = make(operator=OPERATORS[operator])
    parts = surrogate._parts()
    product = parts.covectors.mH @ parts.vectors
    torch.testing.assert_close(product, torch.eye(surrogate.latent).to(product))
    K = surrogate.operator.matrix(1.0).detach().to(product.dtype)
    found = parts.vectors @ torch.diag(parts.eigenvalues) @ parts.covectors.mH
    torch.testing.assert_close(found, K)
    spectrum = surrogate.spectrum()
    torch.testing.assert_close(parts.eigenvalues, spectrum.eigenvalues, rtol=0, atol=1e-8)
    torch.testing.assert_close(surrogate.modes("b").eigenvalues, parts.eigenvalues)


def test_parts_of_chosen_modes_add_up_to_the_whole() -> None:
    surrogate, state = make(), draw(2, 5, 4)
    modes = surrogate.modes()
    assert (modes.conjugates != torch.arange(surrogate.latent)).any()
    chosen = modes.eigenvalues.abs() > modes.eigenvalues.abs().median() + 1e-6
    parts = [surrogate.reconstruct(state, modes=which) for which in (chosen, ~chosen)]
    torch.testing.assert_close(sum(parts), surrogate(state).detach())
    assert parts[0].abs().max() > 1e-3
    assert parts[1].abs().max() > 1e-3
    index = chosen.nonzero().flatten()
    torch.testing.assert_close(surrogate.reconstruct(state, modes=index.flip(0)), parts[0])
    torch.testing.assert_close(surrogate.reconstruct(state, modes=index.tolist()), parts[0])
    kept, values = modes.keep(chosen), surrogate.dynamics(state, [1.0])[0][..., chosen]
    torch.testing.assert_close((values @ kept.vectors.mT).real, parts[0])
    assert (kept.conjugates >= 0).all()


def test_no_modes_leave_nothing_but_an_offset_that_stands_apart() -> None:
    state = draw(2, 5, 4)
    assert not make().reconstruct(state, modes=[]).any()
    apart = make(operator=OPERATORS["dense"])
    nothing = apart.reconstruct(state, modes=torch.zeros(apart.latent, dtype=torch.bool))
    torch.testing.assert_close(nothing, apart.modes().offset.expand_as(nothing))


def test_half_of_a_conjugate_pair_is_refused_with_its_partner() -> None:
    surrogate, state = make(), draw(2, 5, 4)
    conjugates = surrogate.modes().conjugates
    k = int((conjugates != torch.arange(surrogate.latent)).nonzero()[0])
    partner = int(conjugates[k])
    with pytest.raises(ValueError, match=rf"Choose both: \[{k}, {partner}\]"):
        surrogate.reconstruct(state, modes=[k])
    assert surrogate.reconstruct(state, modes=[k, partner]).isfinite().all()
    assert surrogate.modes().keep([k]).conjugates.tolist() == [-1]


def test_a_mask_hides_positions_from_those_that_look_along_them() -> None:
    surrogate, state = make(), draw(2, 5, 4)
    mask = torch.tensor([[True, True, True, False, False], [True] * 5])
    other = torch.where(mask[..., None], state, 99.0)
    calls: list[Callable[[Tensor], Tensor]] = [
        lambda x: surrogate.eigenfunctions(x, mask=mask),
        lambda x: surrogate.amplitudes(x, mask),
        lambda x: surrogate.dynamics(x, [0.0, 1.0], mask)[1],
        lambda x: surrogate.reconstruct(x, mask=mask),
    ]
    for call in calls:
        assert torch.equal(call(state)[mask], call(other)[mask])
    whole, masked = surrogate.eigenfunctions(state), surrogate.eigenfunctions(state, mask=mask)
    assert not torch.allclose(whole[0, :3], masked[0, :3])
    found = surrogate.reconstruct(state, mask=mask)
    expected = surrogate.predict(state, mask=mask).detach()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_surrogate_in_float32_takes_states_of_any_precision(dtype: torch.dtype) -> None:
    exact, state = make(), draw(2, 5, 4)
    surrogate = make().to(torch.float32)
    values = surrogate.eigenfunctions(state.to(dtype))
    assert values.dtype == surrogate.modes().vectors.dtype == torch.complex128
    parts = (values[..., None] * surrogate.modes("a").vectors.T).real
    truth = (exact.eigenfunctions(state)[..., None] * exact.modes("a").vectors.T).real
    torch.testing.assert_close(parts, truth, rtol=1e-3, atol=1e-3)
    found = surrogate.reconstruct(state.to(dtype))
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), exact(state).detach(), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_autocast_and_inference_mode_change_nothing(kind: str) -> None:
    surrogate, states = with_statistics(make(KINDS[kind]).float())
    state = draw(2, 5, 4).float().requires_grad_()
    calls: list[Callable[[], Tensor]] = [
        lambda: surrogate.modes("c").vectors,
        lambda: surrogate.modes("c").offset,
        lambda: surrogate.eigenfunctions(state),
        lambda: surrogate.amplitudes(state),
        surrogate.amplitudes,
        lambda: surrogate.dynamics(state),
        lambda: surrogate.reconstruct(state),
    ]
    if kind.startswith("learnt"):
        calls.append(lambda: surrogate.modes("a", states.float()).vectors)
    for call in calls:
        expected = call()
        assert not expected.requires_grad
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(call(), expected)
        with torch.inference_mode():
            assert torch.equal(call(), expected)


def test_mean_amplitudes_are_root_mean_squares_of_the_eigenfunctions() -> None:
    surrogate, states = with_statistics(make())
    values = surrogate.eigenfunctions(states)
    expected = values.abs().square().mean((0, 1)).sqrt()
    torch.testing.assert_close(surrogate.amplitudes(), expected)
    modes = surrogate.modes("c")
    assert modes.amplitudes is not None
    assert modes.sizes is not None
    torch.testing.assert_close(modes.amplitudes, expected)
    part = surrogate.dynamics(states, [surrogate.time("c")])[0][..., None] * modes.vectors.T
    sizes = part.abs().square().sum(-1).mean((0, 1)).sqrt()
    torch.testing.assert_close(modes.sizes, sizes)
    torch.testing.assert_close(surrogate.amplitudes(states), values)


def test_a_learnt_decoders_modes_are_its_derivative_and_say_so() -> None:
    surrogate, _ = with_statistics(make(KINDS["learnt"]))
    modes = surrogate.modes()
    assert not modes.exact
    assert "Jacobian at the mean latent state" in modes.note
    assert surrogate.statistics is not None
    mean = surrogate.statistics.total().mean("start")
    point = surrogate.operator(mean, 1.0).detach()
    parts = surrogate._parts()
    varying = (parts.vectors[0].abs() < 1e-12).nonzero().flatten()
    assert len(varying) == surrogate.latent - 1  # the constant's mode carries the offset too
    for k in varying.tolist():
        vector, found = torch.view_as_real(parts.vectors[:, k]), modes.vectors[:, k]
        for step, component in zip(1e-5 * vector.T, torch.view_as_real(found).T, strict=True):
            change = surrogate.decode(point + step, "d") - surrogate.decode(point - step, "d")
            torch.testing.assert_close(change.detach() / 2e-5, component, rtol=1e-5, atol=1e-7)
    values = point.to(torch.complex128) @ parts.covectors.conj()
    around = (values @ modes.vectors.mT).real
    torch.testing.assert_close(around, surrogate.decode(point, "d").detach())


def test_without_statistics_a_learnt_decoder_is_differentiated_at_the_layers_mean_state() -> None:
    surrogate = make(KINDS["learnt without constant"], OPERATORS["dense"])
    modes = surrogate.modes("c")
    mean = surrogate.frames()[2].mean
    values = surrogate.eigenfunctions(mean[None, None], "c")
    found = (values @ modes.vectors.mT).real[0, 0] + modes.offset
    expected = surrogate.decode(surrogate.encode(mean[None, None], "c"), "c")[0, 0].detach()
    torch.testing.assert_close(found, expected)


def test_a_learnt_decoders_modes_on_data_are_least_squares_of_the_states() -> None:
    surrogate = make(KINDS["learnt"])
    states = draw(300, 2, 6, seed=4)
    modes = surrogate.modes("d", states)
    assert not modes.exact
    values = surrogate.eigenfunctions(states, "d").flatten(0, 1)
    found = (values @ modes.vectors.mT).real
    rows = states.flatten(0, 1)
    latent = surrogate.encode(states, "d").flatten(0, 1).detach()
    solution = torch.linalg.lstsq(latent, rows, driver="gels").solution
    torch.testing.assert_close(found, latent @ solution, rtol=1e-5, atol=1e-5)
    left = (rows - found).square().sum() / (rows - rows.mean(0)).square().sum()
    assert f"on 600 states, of whose variance {left:.2%} is unexplained" in modes.note


def test_modes_of_an_edited_surrogate_are_those_of_the_edited_operator() -> None:
    states = draw(900, 3)
    labels = torch.arange(900) % 3
    start = states + 2 * torch.eye(3).double()[labels]
    fitter = tk.EDMDFitter(tk.RandomFeatures(10), calibration=100)
    fitter.update(tk.Trajectory.of(start, torch.tanh(start @ draw(3, 3, seed=1)), labels=labels))
    surrogate = fitter.surrogate
    edited, state = tk.unlearn(surrogate, [1]), start[:20, None]
    torch.testing.assert_close(edited.reconstruct(state), edited(state), rtol=0, atol=1e-8)
    assert (edited.reconstruct(state) - surrogate.reconstruct(state)).abs().max() > 0.1
    torch.testing.assert_close(
        edited.modes().eigenvalues, edited.spectrum().eigenvalues, rtol=0, atol=1e-8
    )


def test_a_surrogate_read_from_its_file_has_the_same_modes(tmp_path: Path) -> None:
    surrogate, _, _ = linear()
    read = tk.Surrogate.load(surrogate.save(tmp_path / "s.safetensors"))
    ours, theirs, state = surrogate.modes("1"), read.modes("1"), draw(5, 1, 4)
    assert torch.equal(ours.vectors, theirs.vectors)
    assert ours.amplitudes is not None
    assert theirs.amplitudes is not None
    assert torch.equal(ours.amplitudes, theirs.amplitudes)
    assert str(ours) == str(theirs)
    assert torch.equal(surrogate.eigenfunctions(state), read.eigenfunctions(state))


def test_a_change_of_the_operator_changes_the_modes_at_once() -> None:
    surrogate, state = make(), draw(2, 5, 4)
    before = surrogate.reconstruct(state)
    assert torch.equal(surrogate.reconstruct(state), before)
    with torch.no_grad():
        next(surrogate.operator.parameters()).mul_(0.5)
    after = surrogate.reconstruct(state)
    assert not torch.allclose(after, before)
    torch.testing.assert_close(after, surrogate(state).detach(), rtol=0, atol=1e-10)


def test_a_summary_lists_the_largest_modes_by_the_index_that_chooses_them() -> None:
    surrogate, _ = with_statistics(make())
    modes = surrogate.modes()
    lines = modes.summary(3).splitlines()
    assert lines[0].startswith(f"{surrogate.latent} modes at 'd', 6 features; exact")
    assert modes.sizes is not None
    largest = modes.sizes.argsort(descending=True)[:3]
    assert [int(line.split()[0]) for line in lines[3:6]] == largest.tolist()
    assert lines[-1] == f"… and {surrogate.latent - 3} more"
    assert str(make().modes()).count("\n") == 13


def test_the_looks_of_one_surrogate_are_methods_too() -> None:
    surrogate = make()
    assert str(surrogate.non_normality(horizon=3, points=5)) == str(
        tk.spectra.non_normality(surrogate, horizon=3, points=5)
    )


def test_an_operator_without_a_basis_of_eigenvectors_is_refused() -> None:
    surrogate = make(KINDS["dmd"])
    jordan = torch.diag(torch.tensor([1.0, 0.5, 0.5, 0.5])).double()
    jordan[1, 2] = jordan[2, 3] = 1
    assert isinstance(surrogate.operator, Dense)
    surrogate.operator.start_from(jordan)
    state = draw(2, 5, 4)
    calls: list[Callable[[], object]] = [
        surrogate.modes,
        lambda: surrogate.eigenfunctions(state),
        lambda: surrogate.reconstruct(state),
        lambda: surrogate.dynamics(state),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=r"condition is \d.*limit 1e\+08.*Jordan blocks"):
            call()


def test_repeated_eigenvalues_with_all_their_eigenvectors_are_fine() -> None:
    surrogate = make(KINDS["dmd"])
    assert isinstance(surrogate.operator, Dense)
    surrogate.operator.start_from(torch.eye(4).double())
    state = draw(2, 5, 4)
    assert surrogate.modes().condition == pytest.approx(1)
    torch.testing.assert_close(surrogate.reconstruct(state), surrogate(state).detach())


def test_an_ill_conditioned_basis_is_told_in_the_summary() -> None:
    surrogate = make(KINDS["dmd"])
    near = torch.diag(torch.tensor([1.0, 0.5, 0.5 + 1e-7, 0.3])).double()
    near[1, 2] = 1
    assert isinstance(surrogate.operator, Dense)
    surrogate.operator.start_from(near)
    modes = surrogate.modes()
    assert 1e6 < modes.condition < 1e8
    assert "so modes are large and cancel" in str(modes)


def test_a_time_at_which_a_negative_eigenvalue_has_no_power_is_refused_unless_left_out() -> None:
    surrogate = make(KINDS["dmd"], lambda latent: Dense(latent, 1, constant=True), (3, 3, 3))
    step = torch.diag(torch.tensor([1.0, -0.5, 0.25, 0.0])).double()
    surrogate.operator.start_from(step)
    state = draw(2, 5, 3)
    with pytest.raises(ValueError, match=r"0\.5 steps.*eigenvalue -0\.5 has no real power"):
        surrogate.reconstruct(state, "b")
    with pytest.raises(ValueError, match=r"eigenvalue -0\.5"):
        surrogate.dynamics(state)
    values = surrogate.modes().eigenvalues.real
    rest = surrogate.reconstruct(state, "b", modes=values >= 0)
    latent = surrogate.encode(state, "a") * torch.tensor([1.0, 0, 0.5, 0]).double()
    torch.testing.assert_close(rest, surrogate.decode(latent, "b"))
    with pytest.raises(ValueError, match="eigenvalue 0 has no past"):
        surrogate.dynamics(state, [-1.0])


BAD_STATES: dict[str, tuple[Any, type[Exception], str]] = {
    "width": (torch.zeros(2, 5, 3), ValueError, r"shape \(2, 5, 3\).*positions, 4\)"),
    "rows": (torch.zeros(5, 4), ValueError, r"state\[:, None\]"),
    "complex": (torch.zeros(2, 5, 4, dtype=torch.complex64), TypeError, "got torch.complex64"),
    "integers": (torch.zeros(2, 5, 4, dtype=torch.long), TypeError, "got torch.int64"),
    "list": ([[0.0]], TypeError, "got list"),
}


@pytest.mark.parametrize("bad", BAD_STATES)
def test_what_is_no_state_of_the_layer_is_refused_by_name(bad: str) -> None:
    surrogate = make()
    state, error, message = BAD_STATES[bad]
    for call in (
        surrogate.eigenfunctions,
        surrogate.amplitudes,
        surrogate.dynamics,
        surrogate.reconstruct,
    ):
        with pytest.raises(error, match=f"states of 'a'.*{message}"):
            call(state)


def test_masks_of_another_shape_or_kind_are_refused() -> None:
    surrogate, state = make(), draw(2, 5, 4)
    with pytest.raises(ValueError, match=r"mask has shape \(5, 2\)"):
        surrogate.eigenfunctions(state, mask=torch.ones(5, 2, dtype=torch.bool))
    with pytest.raises(TypeError, match=r"mask must be a bool tensor.*float32"):
        surrogate.eigenfunctions(state, mask=torch.ones(2, 5))
    with pytest.raises(TypeError, match=r"mask must be a bool tensor.*list"):
        surrogate.eigenfunctions(state, mask=[[True]])  # type: ignore[arg-type]


def test_unknown_layers_are_named() -> None:
    surrogate, state = make(), draw(2, 5, 4)
    calls: list[Callable[[], object]] = [
        lambda: surrogate.modes("nowhere"),
        lambda: surrogate.eigenfunctions(state, "nowhere"),
        lambda: surrogate.reconstruct(state, "nowhere"),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=r"knows the layers \('a', .*not 'nowhere'"):
            call()


def test_modes_that_do_not_exist_are_refused() -> None:
    surrogate, state = make(KINDS["dmd"]), draw(2, 5, 4)
    for modes in ([4], [-1], [0, 0], torch.zeros(1, 2, dtype=torch.long)):
        with pytest.raises(ValueError, match="different indices from 0 to 3"):
            surrogate.reconstruct(state, modes=modes)
    with pytest.raises(ValueError, match=r"shape \(3,\); expected one bool for each of 4"):
        surrogate.modes().keep(torch.ones(3, dtype=torch.bool))
    with pytest.raises(TypeError, match=r"bool or by index; got torch\.float32"):
        surrogate.reconstruct(state, modes=torch.ones(4))


def test_states_for_modes_are_refused_where_they_say_nothing_or_too_little() -> None:
    with pytest.raises(ValueError, match=r"modes of .* are exact.*leave states out"):
        make().modes("d", draw(100, 1, 6))
    with pytest.raises(ValueError, match="6 rows for a read-out of 6 latent"):
        make(KINDS["learnt"]).modes("d", draw(6, 1, 6))
    with pytest.raises(ValueError, match="states of 'd'"):
        make(KINDS["learnt"]).modes("d", draw(100, 1, 4))


def test_mean_amplitudes_without_statistics_are_refused() -> None:
    with pytest.raises(ValueError, match=r"no statistics of its fit.*give amplitudes\(\) a state"):
        make().amplitudes()
    assert make().modes().sizes is None
