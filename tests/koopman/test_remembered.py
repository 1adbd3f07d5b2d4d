"""A kept spectrum is what would be computed now, whatever was done to the surrogate meanwhile."""

from __future__ import annotations

import copy
import io
import pickle
import threading
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor

import torchkoopman as tk
from torchkoopman.koopman import looks
from torchkoopman.koopman import surrogate as surrogates
from torchkoopman.koopman.remembered import Remembered
from torchkoopman.spectra.spectrum import Spectrum, spectrum_of

if TYPE_CHECKING:
    from collections.abc import Callable


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def fitted(seed: int = 0) -> tk.Surrogate:
    x = draw(400, 3, seed=seed)
    fitter = tk.EDMDFitter(tk.RandomFeatures(4), dynamics="step", calibration=100)
    return fitter.update(tk.Trajectory.of(x, 0.8 * x, 0.6 * x.sin())).surrogate


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Grows by one whenever a spectrum or a decomposition is computed."""
    calls: list[str] = []

    def spectrum(*args: object, **options: object) -> Spectrum:
        calls.append("spectrum")
        return spectrum_of(*args, **options)  # type: ignore[arg-type]

    def modes(*args: object) -> object:
        calls.append("modes")
        return looks_decompose(*args)  # type: ignore[arg-type]

    looks_decompose = looks.decompose
    monkeypatch.setattr(surrogates, "spectrum_of", spectrum)
    monkeypatch.setattr(looks, "decompose", modes)
    return calls


def assert_same(one: Spectrum, other: Spectrum) -> None:
    for name, value in vars(one).items():
        theirs = getattr(other, name)
        if isinstance(value, Tensor):
            assert value.dtype == theirs.dtype, name
            assert torch.equal(value.nan_to_num(), theirs.nan_to_num()), name
        else:
            assert value == theirs, name


def assert_present(surrogate: tk.Surrogate) -> None:
    """What is shown is what a surrogate of the same parts, made anew, shows."""
    anew = surrogate.with_()
    assert_same(surrogate.spectrum(), anew.spectrum())
    assert torch.equal(surrogate.modes().vectors, anew.modes().vectors)


def test_a_spectrum_is_computed_once_and_modes_are(counted: list[str]) -> None:
    surrogate = fitted()
    for _ in range(3):
        surrogate.spectrum()
        surrogate.pseudospectrum(points=3)
        surrogate.modes("1")
        surrogate.eigenfunctions(draw(2, 1, 3))
        surrogate.amplitudes()
    assert counted == ["spectrum", "modes"]
    assert_present(surrogate)


def in_place(surrogate: tk.Surrogate) -> None:
    with torch.no_grad():
        surrogate.operator.rows.mul_(0.9)


def unseen_by_counters(surrogate: tk.Surrogate) -> None:
    surrogate.operator.rows.data[0, 0] += 1e-6


def through_memory(surrogate: tk.Surrogate) -> None:
    surrogate.operator.rows.detach().numpy()[0, 0] += 0.5


def another_tensor(surrogate: tk.Surrogate) -> None:
    surrogate.operator.rows.data = surrogate.operator.rows.data.clone() * 0.7


def another_parameter(surrogate: tk.Surrogate) -> None:
    surrogate.operator.rows = torch.nn.Parameter(0.5 * surrogate.operator.rows.detach())


def loaded(surrogate: tk.Surrogate) -> None:
    surrogate.load_state_dict(fitted(1).state_dict())


def assigned(surrogate: tk.Surrogate) -> None:
    surrogate.load_state_dict(fitted(1).state_dict(), assign=True)


def moved(surrogate: tk.Surrogate) -> None:
    surrogate.double()


def trained(surrogate: tk.Surrogate) -> None:
    surrogate.requires_grad_(True)
    state = draw(5, 1, 3)
    surrogate(state).square().sum().backward()
    torch.optim.SGD(surrogate.operator.parameters(), 1e-3).step()


def more_rows(surrogate: tk.Surrogate) -> None:
    assert surrogate.statistics is not None
    latent = surrogate.latent
    rows = {"start": draw(50, latent).double(), "end": draw(50, latent, seed=1).double()}
    surrogate.statistics.update(rows)


def other_evidence(surrogate: tk.Surrogate) -> None:
    assert surrogate.evidence is not None
    surrogate.evidence.end.mul_(1.5)


def other_shares(surrogate: tk.Surrogate) -> None:
    assert surrogate.evidence is not None
    assert surrogate.evidence.shares is not None
    surrogate.evidence.shares[:50] = 3


CHANGES: tuple[Callable[[tk.Surrogate], None], ...] = (
    in_place,
    unseen_by_counters,
    through_memory,
    another_tensor,
    another_parameter,
    loaded,
    assigned,
    moved,
    trained,
    more_rows,
    other_evidence,
    other_shares,
)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_spectrum_is_never_that_of_an_earlier_state(
    change: Callable[[tk.Surrogate], None],
) -> None:
    surrogate = fitted()
    before = surrogate.spectrum()
    surrogate.modes()
    change(surrogate)
    assert_present(surrogate)
    with pytest.raises(AssertionError):
        assert_same(surrogate.spectrum(), before)


def test_a_change_of_a_copy_or_of_the_original_is_no_change_of_the_other() -> None:
    surrogate = fitted()
    before = surrogate.spectrum()
    copies = [copy.deepcopy(surrogate), surrogate.with_(), pickle.loads(pickle.dumps(surrogate))]
    for each in copies:
        in_place(each)
        assert_present(each)
    assert_same(surrogate.spectrum(), before)
    in_place(surrogate)
    in_place(surrogate)
    assert_present(surrogate)
    assert_present(tk.unlearn(labelled(), classes=[1]))


def labelled() -> tk.Surrogate:
    x = draw(400, 3)
    trajectory = tk.Trajectory.of(x, 0.8 * x, labels=(x[:, 0] > 0).long())
    surrogate = tk.DMDFitter().update(trajectory).surrogate
    surrogate.spectrum()
    return surrogate


def test_what_is_returned_may_be_written_to() -> None:
    surrogate = fitted()
    first = surrogate.spectrum()
    expected = copy.deepcopy(first)
    for tensor in (first.eigenvalues, first.modes, first.residuals):
        assert tensor is not None
        tensor.zero_()
    assert_same(surrogate.spectrum(), expected)


def test_a_spectrum_kept_in_inference_mode_or_under_autocast_is_an_ordinary_one() -> None:
    surrogate, state = fitted(), draw(2, 1, 3)
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        surrogate.spectrum()
        surrogate.modes()
    assert not surrogate.spectrum().eigenvalues.is_inference()
    assert not surrogate.eigenfunctions(state).is_inference()
    assert_present(surrogate)


def test_neither_files_nor_pickles_hold_a_kept_spectrum() -> None:
    def size(surrogate: tk.Surrogate) -> int:
        buffer = io.BytesIO()
        torch.save(surrogate, buffer)
        return len(buffer.getvalue())

    surrogate = fitted()
    names, bare = set(surrogate.state_dict()), size(surrogate)
    surrogate.spectrum()
    surrogate.modes()
    assert set(surrogate.state_dict()) == names
    assert size(surrogate) == bare


def test_what_changes_while_it_is_computed_is_not_kept() -> None:
    value, kept = torch.zeros(1), Remembered[float]()

    def slow() -> float:
        if started.is_set():
            return value.item()
        started.set()
        go_on.wait(10)
        return value.item()

    started, go_on = threading.Event(), threading.Event()
    thread = threading.Thread(target=lambda: kept.of(lambda: [value], slow))
    thread.start()
    assert started.wait(10)
    value.fill_(1.0)  # hashed as 0, computed as 1
    go_on.set()
    thread.join(10)
    value.fill_(0.0)
    assert kept.of(lambda: [value], slow) == 0.0
