"""A plain DMD keeps two Gram matrices: the same operator, and refusals where it cannot tell."""

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor

import torchkoopman as tk
from torchkoopman.fitting import streams
from torchkoopman.fitting.resuming import _outline
from torchkoopman.observe.trajectory import Trajectory


def states(rows: int = 600, offset: float = 0.0, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Three layers of one linear system with noise, of directions a thousandfold apart in size."""
    generator = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(6, 6, generator=generator, dtype=torch.float64)).Q
    K = basis @ torch.diag(torch.tensor([0.95, 0.8, 0.6, 0.5, 0.3, 0.2]).double()) @ basis.T
    sizes = torch.logspace(0, -3, 6, dtype=torch.float64)
    x = torch.randn(rows, 6, generator=generator, dtype=torch.float64) * sizes @ basis.T
    path = [x, x @ K.T, x @ K.T @ K.T]
    noise = [1e-4 * torch.randn(rows, 6, generator=generator, dtype=torch.float64) for _ in path]
    one, two, three = (
        (each + noise + offset).float() for each, noise in zip(path, noise, strict=True)
    )
    return one, two, three


def streamed(fitter: tk.DMDFitter, *path: Tensor, batch: int = 100) -> tk.DMDFitter:
    for start in range(0, len(path[0]), batch):
        fitter.update(Trajectory.of(*(each[start : start + batch] for each in path)))
    return fitter


def plain(dynamics: str = "span") -> tk.DMDFitter:
    return tk.DMDFitter(dynamics=dynamics, residuals=False)  # type: ignore[arg-type]


@pytest.mark.parametrize("dynamics", ["span", "step"])
@pytest.mark.parametrize("offset", [0.0, 30.0])
def test_two_gram_matrices_give_the_operator_that_three_give(dynamics: str, offset: float) -> None:
    """In another frame of the same space, so predictions and eigenvalues are compared."""
    path = states(offset=offset)
    two = streamed(plain(dynamics), *path).surrogate
    three = streamed(tk.DMDFitter(dynamics=dynamics), *path).surrogate  # type: ignore[arg-type]
    probe = states(50, offset, seed=1)[0][:, None]
    torch.testing.assert_close(two(probe), three(probe), rtol=1e-4, atol=1e-4)
    ours, theirs = (s.spectrum().eigenvalues.real.sort().values for s in (two, three))
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)
    assert two.record.r2 == {}
    assert any("residuals=False" in note for note in two.record.notes)


def test_the_operator_is_the_regression_of_the_rows_themselves_also_far_from_the_origin() -> None:
    x, _, y = states(2000, offset=100.0)
    surrogate = streamed(plain(), x, y).surrogate
    a, b = x.double(), y.double()
    G, A = a - a.mean(0), b - b.mean(0)
    expected = torch.linalg.lstsq(G, A, driver="gelsd").solution
    probe = states(50, 100.0, seed=1)[0].double()
    found = surrogate.double()(probe[:, None])[:, 0]
    wanted = (probe - a.mean(0)) @ expected + b.mean(0)
    assert (found - wanted).norm() <= 1e-4 * (wanted - b.mean(0)).norm()


def test_the_fitter_holds_less_and_says_nothing_it_cannot_know() -> None:
    path = states()
    fitter = streamed(plain(), *path)
    assert len(fitter._sample) == 0
    assert fitter._moments.nbytes < streamed(tk.DMDFitter(), *path)._moments.nbytes
    surrogate = fitter.surrogate
    assert surrogate.evidence is None
    spectrum = surrogate.spectrum()
    assert spectrum.residuals is None
    assert spectrum.energies is not None
    assert "trusted" not in spectrum.summary()
    with pytest.raises(ValueError, match=r"not with residuals=False"):
        spectrum.trusted()
    with pytest.raises(ValueError, match=r"second moment of the end.*residuals=False"):
        surrogate.pseudospectrum()
    assert surrogate.pseudospectrum("matrix", points=5).residuals.isfinite().all()


def test_a_comparison_with_such_a_fit_says_that_it_has_no_floor() -> None:
    path = states()
    bare, whole = streamed(plain(), *path), streamed(tk.DMDFitter(dynamics="span"), *path)
    known = tk.compare(whole.surrogate, whole.surrogate, draws=2, starts=1)
    assert len(known.floor) == 2
    assert not any("residuals=False" in note for note in known.notes)
    unknown = tk.compare(bare.surrogate, bare.surrogate, draws=2, starts=1)
    assert len(unknown.floor) == 0
    assert any("residuals=False" in note for note in unknown.notes)
    assert unknown.similarity == pytest.approx(0, abs=1e-5)


def test_what_would_need_more_is_refused() -> None:
    for kept in (False, "moments"):
        with pytest.raises(ValueError, match=f"residuals={kept!r} keeps no rows to choose"):
            tk.DMDFitter(residuals=kept)  # type: ignore[arg-type]
    for unknown in ("rows", 1):
        with pytest.raises(ValueError, match="is unknown; choose True, 'moments' or False"):
            tk.DMDFitter(residuals=unknown)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no covariance of the last layer for frames='aligned'"):
        tk.DMDFitter(residuals=False, dynamics="span", frames="aligned")
    x, _, y = states()
    with pytest.raises(ValueError, match="of '1' no covariance was kept"):
        _ = streamed(plain(), x, y[:, :4]).surrogate
    with pytest.raises(TypeError, match="complex"):
        streamed(plain(), torch.complex(x, x), torch.complex(y, y))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_fitted_as_its_float32_values(dtype: torch.dtype) -> None:
    path = states()
    half = streamed(plain(), *(each.to(dtype) for each in path)).surrogate
    single = streamed(plain(), *(each.to(dtype).float() for each in path)).surrogate
    assert torch.equal(half.operator.matrix(), single.operator.matrix())


def test_saved_merged_and_second_fits_are_the_fit_of_one_stream(tmp_path: Path) -> None:
    path = states()
    whole = streamed(plain("step"), *path)
    first = streamed(plain("step"), *(each[:300] for each in path))
    resumed = plain("step").load_state_dict(copy.deepcopy(first.state_dict()))
    streamed(resumed, *(each[300:] for each in path))
    merged = first.merge(streamed(plain("step"), *(each[300:] for each in path)))
    K = whole.surrogate.operator.matrix()
    assert torch.equal(whole.surrogate.operator.matrix(), K)
    assert torch.equal(resumed.surrogate.operator.matrix(), K)
    torch.testing.assert_close(merged.surrogate.operator.matrix(), K, rtol=1e-5, atol=1e-5)
    whole.surrogate.save(tmp_path / "plain.safetensors")
    loaded = tk.Surrogate.load(tmp_path / "plain.safetensors")
    assert loaded.spectrum().residuals is None
    assert torch.equal(loaded.operator.matrix(), K)
    with pytest.raises(ValueError, match="residuals="):
        tk.DMDFitter(dynamics="step").load_state_dict(whole.state_dict())
    with pytest.raises(ValueError, match="residuals="):
        streamed(tk.DMDFitter(dynamics="step"), *path).merge(whole)


def test_a_class_of_an_inner_span_is_kept_where_pairs_are_named() -> None:
    path, labels = states(), torch.arange(600) % 3
    rows = Trajectory.of(*path, labels=labels)
    part = tk.Monomials(2)
    default = tk.EDMDFitter(part).update(rows)
    assert default.surrogate.statistics is not None
    assert default.surrogate.statistics.classes == (0, 1, 2)
    assert tk.unlearn(default.surrogate, [1]).edits
    inner = default.between("0", "1")
    with pytest.raises(ValueError, match=r"no class statistics.*pairs='chain'"):
        tk.unlearn(inner, [1])
    chain = tk.EDMDFitter(part, pairs="chain").update(rows)
    named = chain.between("0", "1")
    torch.testing.assert_close(named.operator.matrix(), inner.operator.matrix())
    assert tk.unlearn(named, [1]).edits
    assert default._moments.nbytes < 0.75 * chain._moments.nbytes


def test_moments_alone_estimate_residuals_from_the_fits_own_rows() -> None:
    path = states(offset=30.0)
    fitter = streamed(tk.DMDFitter(dynamics="span", residuals="moments"), *path)
    assert len(fitter._sample) == 0
    whole = streamed(tk.DMDFitter(dynamics="span"), *path).surrogate
    surrogate = fitter.surrogate
    assert torch.equal(surrogate.operator.matrix(), whole.operator.matrix())
    assert surrogate.evidence is None
    assert any("residuals='moments'" in note for note in surrogate.record.notes)
    found, held_out = surrogate.spectrum(), whole.spectrum()
    assert found.residuals is not None
    assert held_out.residuals is not None
    torch.testing.assert_close(found.residuals[:3], held_out.residuals[:3], rtol=0.2, atol=1e-4)
    assert torch.equal(found.trusted()[:2], held_out.trusted()[:2])
    assert torch.equal(
        surrogate.pseudospectrum(points=5).residuals, whole.pseudospectrum(points=5).residuals
    )
    x, y = torch.randn(2, 500, 4, generator=torch.Generator().manual_seed(0))
    narrow = tk.DMDFitter(dynamics="span", residuals="moments", frames="aligned")
    assert narrow.update(Trajectory.of(x, y[:, :3])).surrogate.latent == 4


@pytest.mark.parametrize("kind", ["dmd", "edmd"])
def test_states_of_fitters_that_kept_all_pairs_of_every_class_load_and_go_on(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = Trajectory.of(*states(3000), labels=torch.arange(3000) % 3)
    part = tk.Monomials(2)
    with monkeypatch.context() as patch:
        patch.setattr(streams, "regressions", tuple)
        made = {"dmd": tk.DMDFitter(), "edmd": tk.EDMDFitter(part, pairs="chain")}
        older = made[kind].update(rows)
        state = copy.deepcopy(older.state_dict())
    for new in ("coordinates", "held", "outside") if kind == "dmd" else ():
        del state["parts"][new]
    state["outline"] = _outline(state["parts"])
    loaded = {"dmd": tk.DMDFitter(), "edmd": tk.EDMDFitter(part)}[kind].load_state_dict(state)
    assert loaded._moments.nbytes < older._moments.nbytes
    for each in (loaded, older):
        each.update(rows)
    new, old = (each.surrogate for each in (loaded, older))
    torch.testing.assert_close(new.operator.matrix(), old.operator.matrix())
    for statistics in (new.statistics, old.statistics):
        assert statistics is not None
        assert statistics.classes == (0, 1, 2)
