"""Samples are known by their states: whenever they come, in any batch, by any of their tokens."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

import torchkoopman as tk
from tests.systems import normal
from torchkoopman.fitting.identity import _mantissas, mixed, row_ids, sample_ids, thinned
from torchkoopman.fitting.whole_samples import WholeSamples
from torchkoopman.observe.trajectory import Trajectory

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torchkoopman.fitting.closed_form import ClosedForm
    from torchkoopman.koopman.feature_maps import Part

FIT: dict[str, type[ClosedForm]] = {"dmd": tk.DMDFitter, "edmd": tk.EDMDFitter}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("special", [(), (0.0,), (-0.0, 1e-40, 5e-324), (float("inf"),), (1e-7,)])
def test_mantissas_are_those_of_frexp(dtype: torch.dtype, special: tuple[float, ...]) -> None:
    x = (100 * normal(50, 2, 7)).to(dtype)
    for row, number in enumerate(special):
        x[row, 0, 3] = number
    counted = torch.ones(50, 2, dtype=torch.bool)
    before = x.clone()
    expected = torch.frexp(x.double()).mantissa
    assert torch.equal(_mantissas(x, counted), expected)
    counted[9, 1] = False
    expected[9, 1] = 0
    assert torch.equal(_mantissas(x, counted), expected)
    assert torch.equal(x, before)  # the states are not written to
    assert _mantissas(x[:0], counted[:0]).shape == (0, 2, 7)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("features", [1, 3, 300])
def test_numbers_are_the_samples_own_uniform_and_apart(dtype: torch.dtype, features: int) -> None:
    x = (100 * normal(4000, features)).to(dtype)
    ids = sample_ids(Trajectory.of(x, x))
    assert (ids >= 0).all()
    known = len(torch.unique(x, dim=0))
    assert len(torch.unique(ids)) > (0.5 if dtype == torch.bfloat16 else 0.9) * known
    assert (torch.unique(ids) < 2**62).double().mean() == pytest.approx(0.5, abs=0.05)
    shuffled = torch.randperm(4000, generator=torch.Generator().manual_seed(1))
    again = sample_ids(Trajectory.of(x[shuffled], x[shuffled]))
    assert torch.equal(again, ids[shuffled])


@pytest.mark.parametrize("features", [10, 64])
def test_rounding_that_differs_from_batch_to_batch_hardly_changes_a_number(features: int) -> None:
    layer = nn.Sequential(nn.Linear(features, features), nn.ReLU(), nn.Linear(features, features))
    x = normal(2000, features)
    order = torch.randperm(2000, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        first = torch.cat([layer(part) for part in x.split(100)])
        single = torch.cat([layer(part) for part in x[order].split(7)])
    ids, again = (sample_ids(Trajectory.of(state, state)) for state in (first, single))
    assert (again == ids[order]).double().mean() > 0.98


@pytest.mark.parametrize("offset", [1e4, 1e6])
def test_samples_beside_a_huge_offset_are_told_apart_by_their_bits(offset: float) -> None:
    x = normal(500, 6) + offset
    ids = sample_ids(Trajectory.of(x, x))
    assert len(torch.unique(ids)) > 0.95 * len(torch.unique(x, dim=0))
    assert torch.equal(sample_ids(Trajectory.of(x, x)), ids)


def test_padding_has_no_part_in_a_number_and_all_tokens_of_a_sample_have_it() -> None:
    x = normal(6, 5, 4)
    mask = torch.ones(6, 5, dtype=torch.bool)
    mask[2, 3:] = False
    padded = x.clone()
    padded[2, 3:] = float("nan")
    longer = torch.cat([x, normal(6, 2, 4, seed=1)], 1)
    known = torch.cat([mask, torch.zeros(6, 2, dtype=torch.bool)], 1)
    one, other = Trajectory({"a": padded}, mask=mask), Trajectory({"a": longer}, mask=known)
    assert torch.equal(sample_ids(one), sample_ids(other))
    rows = row_ids(one)
    assert len(rows) == 28
    assert torch.equal(torch.unique_consecutive(rows), sample_ids(one))


def test_of_long_samples_some_rows_stand_for_all_and_the_same_ones_each_time() -> None:
    ids = mixed(torch.arange(3)).repeat_interleave(torch.tensor([100, 5, 40]))
    kept, shares = thinned(ids)
    counts = torch.unique_consecutive(ids[kept], return_counts=True)[1]
    assert counts.tolist() == [16, 5, 16]
    assert shares.sum() == pytest.approx(145)
    assert kept[:16].max() > 50, "not the beginning of it"
    alone, _ = thinned(ids[105:])
    assert torch.equal(alone + 105, kept[21:])


def streamed(*orders: Tensor, batch: int = 50, memory: int = 8000) -> WholeSamples:
    rows, ids = normal(1000, 4), mixed(torch.arange(1000) // 2)
    sample = WholeSamples(memory)
    for order in orders:
        for part in order.split(batch):
            sample.add(rows[part].split([1, 3], 1), ids[part])
    return sample


def held(sample: WholeSamples, widths: Sequence[int] = (1, 3)) -> list[Tensor]:
    found = sample.read(widths)
    return [*found.columns, found.samples, found.shares]


def test_samples_are_kept_whole_whatever_the_order_and_those_of_two_streams_merge() -> None:
    forwards = torch.arange(1000)
    once = streamed(forwards)
    ids = once.read([4]).samples
    assert 100 < len(ids) <= 8000 // (16 + 24)
    assert torch.unique_consecutive(ids, return_counts=True)[1].unique().tolist() == [2]
    for other in (streamed(forwards, batch=1000), streamed(forwards, batch=2)):
        assert all(map(torch.equal, held(once), held(other)))
    halves = streamed(forwards[:500]).merge(streamed(forwards[500:]))
    assert all(map(torch.equal, held(once), held(halves)))
    twice = streamed(forwards, forwards.view(500, 2).flip(0).reshape(-1))
    counts = torch.unique_consecutive(twice.read([4]).samples, return_counts=True)[1]
    assert counts.unique().tolist() == [4], "all rows of a sample, of both epochs"
    assert set(twice.read([4]).samples.tolist()) < set(ids.tolist())
    again = WholeSamples(8000).load_state_dict(streamed(forwards).state_dict())
    assert all(map(torch.equal, held(once), held(again)))
    with pytest.raises(ValueError, match="same memory, halflife and width"):
        once.merge(streamed(forwards, memory=4000))


class Exchange:
    """Processes in threads: what ``of_all`` calls, and how many rows were sent."""

    def __init__(self, rank: int, barrier: threading.Barrier, said: dict[int, Any]) -> None:
        self.rank, self._barrier, self._said = rank, barrier, said
        self.sent = 0

    def gather(self, mine: Any) -> list[Any]:
        self._said[self.rank] = mine
        self._barrier.wait()
        found = [self._said[rank] for rank in sorted(self._said)]
        self._barrier.wait()
        return found

    def from_one(self, tensor: Tensor, source: int) -> Tensor:
        found: list[Tensor] = self.gather(tensor)
        assert len({each.shape for each in found}) == 1, "all say how much comes"
        assert len({each.dtype for each in found}) == 1
        self.sent += len(tensor) * (source == self.rank and tensor.ndim == 2)
        return found[source].clone()


@pytest.mark.parametrize("starts", [(500, 500), (1000, 0), (3, 997), (0, 0), (990, 990)])
def test_the_sample_of_all_processes_is_that_of_one_and_only_rows_that_stay_travel(
    starts: tuple[int, int],
) -> None:
    """The last case has most samples in both, as where shards overlap."""
    streams = [streamed(torch.arange(starts[0])), streamed(torch.arange(1000 - starts[1], 1000))]
    expected = WholeSamples(8000).merge(streams[0]).merge(streams[1])
    barrier, said = threading.Barrier(2, timeout=60), dict[int, Any]()
    processes = [Exchange(rank, barrier, said) for rank in range(2)]
    found: dict[int, WholeSamples] = {}

    def sync(rank: int) -> None:
        exchange: Any = processes[rank]
        found[rank] = streams[rank].of_all(exchange, torch.device("cpu"))

    threads = [threading.Thread(target=sync, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for each in found.values():
        assert each.seen == expected.seen
        assert all(map(torch.equal, held(each), held(expected)))
        more = torch.arange(300, 700)
        later, one = (
            WholeSamples(8000).merge(whole).merge(streamed(more)) for whole in (each, expected)
        )
        assert all(map(torch.equal, held(later), held(one))), "its bound is the same"
    assert sum(each.sent for each in processes) == len(expected)


def test_with_a_halflife_rows_stay_in_proportion_to_their_weight_and_looking_changes_nothing() -> (
    None
):
    ids = mixed(torch.arange(20_000))
    sample, watched = WholeSamples(2**20, halflife=2000), WholeSamples(2**20, halflife=2000)
    for part in torch.arange(20_000).split(100):
        for each in (sample, watched):
            each.add([part[:, None].float()], ids[part])
        watched.read([1])
    found = sample.read([1])
    ages = 20_000 - found.columns[0][:, 0]
    for place in range(4):
        share = ((ages > 2000 * place) & (ages <= 2000 * (place + 1))).sum() / 2000
        assert share == pytest.approx(0.72 * 2**-place, rel=0.12)
    assert all(map(torch.equal, held(sample, [1]), held(watched, [1])))
    assert found.weights is not None
    assert found.weights.max() <= 1


@pytest.mark.parametrize("kind", FIT)
@pytest.mark.parametrize("epochs", [1, 3])
def test_a_samples_residual_is_that_of_the_fit_without_all_of_it(kind: str, epochs: int) -> None:
    """Slowly: the fit is made anew without each sample, its tokens and its repetitions."""
    x = normal(12, 3, 2, seed=1).double() + normal(12, 1, 2).double()
    y = x @ normal(2, 2, seed=2).double() / 2 + normal(12, 1, 2, seed=3).double()
    options = {"observables": tk.Monomials(2), "calibration": 10} if kind == "edmd" else {}

    def fit(kept: Tensor) -> tk.Surrogate:
        fitter = FIT[kind](ridge=1e-13, dynamics="span", **options)  # type: ignore[arg-type]
        if isinstance(fitter, tk.EDMDFitter):
            fitter.calibrate(Trajectory.of(x, y))
        for epoch in range(epochs):
            order = kept[torch.randperm(len(kept), generator=torch.Generator().manual_seed(epoch))]
            fitter.update(Trajectory.of(x[order], y[order]))
        return fitter.surrogate

    whole, every = fit(torch.arange(12)), torch.arange(12)
    spectrum = whole.spectrum()
    assert spectrum.residuals is not None
    W = spectrum.functionals
    start = whole.encode(x, "0")
    sizes = (start.flatten(0, 1).to(W) @ W.conj()).abs().square().mean(0)
    errors = []
    for left in range(12):
        without = fit(every[every != left])
        predicted = without.predict(x[left : left + 1], "0", "1")
        gap = whole.encode(y[left : left + 1], "1") - whole.encode(predicted, "1")
        if kind == "dmd":
            errors.append((gap[0].to(W) @ W.conj()).abs().square().mean(0))
        else:
            image = without.operator(without.encode(x[left : left + 1], "0"), 1.0)
            gap = whole.encode(y[left : left + 1], "1") - image
            errors.append((gap[0].to(W) @ W.conj()).abs().square().mean(0))
    expected = (torch.stack(errors).mean(0) / sizes).sqrt()
    torch.testing.assert_close(spectrum.residuals, expected, rtol=1e-4, atol=1e-6)


def test_tokens_of_few_texts_know_an_eigenvalue_no_better_than_the_texts() -> None:
    """The noise is each text's own, so more tokens of it say nothing more."""
    found, told = [], []
    for seed in range(60):
        x = normal(40, 1, 1, seed=3 * seed).double().expand(40, 30, 1)
        x = x + 0.1 * normal(40, 30, 1, seed=3 * seed + 1).double()
        y = 0.7 * x + 0.5 * normal(40, 1, 1, seed=3 * seed + 2).double()
        spectrum = tk.DMDFitter(dynamics="span").update(Trajectory.of(x, y)).surrogate.spectrum()
        assert spectrum.errors is not None
        k = int((spectrum.eigenvalues - 0.7).abs().argmin())
        found.append(spectrum.eigenvalues[k].real)
        told.append(spectrum.errors[k])
    assert torch.stack(told).median() == pytest.approx(torch.stack(found).std().item(), rel=0.3)


@pytest.mark.parametrize("epochs", [1, 30])
def test_a_fit_that_knows_its_few_samples_by_heart_is_not_trusted(epochs: int) -> None:
    """y is noise; with more functions than samples the fit is exact on each of its rows."""
    x, y = normal(60, 1, 4).repeat(1, 20, 1), normal(60, 1, 4, seed=1).repeat(1, 20, 1)
    fitter = tk.EDMDFitter(tk.RandomFeatures(200), calibration=1000, dynamics="span")
    for epoch in range(epochs):
        order = torch.randperm(60, generator=torch.Generator().manual_seed(epoch))
        fitter.update(Trajectory.of(x[order], y[order]))
    surrogate = fitter.surrogate
    assert min(surrogate.record.r2.values()) > 0.99
    spectrum = surrogate.spectrum()
    assert spectrum.residuals is not None
    assert spectrum.residuals[spectrum.moduli > 1.1].min() > 0.3
    assert ((spectrum.eigenvalues[spectrum.trusted()] - 1).abs() < 1e-6).all()


def test_no_sample_is_trained_on_and_held_out_whatever_its_tokens_epochs_and_streams() -> None:
    def stream(seed: int, epochs: int) -> tk.AutoencoderFitter:
        fitter = tk.AutoencoderFitter(
            4, hidden=(8,), calibration=100, steps_per_update=0, replay_bytes=60_000
        )
        x = normal(200, 5, 3)
        fitter.calibrate(Trajectory.of(x, x.tanh()))
        for epoch in range(epochs):
            order = torch.randperm(200, generator=torch.Generator().manual_seed(seed + epoch))
            for part in order.split(20):
                fitter.update(Trajectory.of(x[part], x[part].tanh()))
        return fitter

    one, other = stream(0, 3), stream(50, 2)
    one.merge(other)
    for reservoir in (one._intake.reservoir, other._intake.reservoir):
        assert reservoir.seen > len(reservoir)
        paths, _, samples = reservoir.parts()
        assert len(torch.unique(samples)) == 200
        sides = [reservoir.held_out(len(reservoir)), reservoir.trained(len(reservoir))]
        held, trained = (
            {
                number
                for path, number in zip(paths[:, 0].tolist(), samples.tolist(), strict=True)
                if path in side[:, 0].tolist()
            }
            for side in sides
        )
        assert 20 < len(held) < 60
        assert not held & trained
        assert len(held | trained) == 200
        drawn = reservoir.sample(500)[:, 0].tolist()
        assert not any(path in sides[0][:, 0].tolist() for path in drawn)
    evidence = one.surrogate.evidence
    assert evidence is not None
    assert evidence.samples is not None
    assert set(evidence.samples.tolist()) <= held | trained


def test_fewer_rows_are_read_by_whole_samples_and_columns_have_memory_of_their_own() -> None:
    sample = streamed(torch.arange(1000))
    whole, some = sample.read([1, 3]), sample.read([4], most=51)
    assert len(some.samples) == 50, "of two rows each"
    assert torch.equal(some.samples, whole.samples[:50])
    assert torch.equal(some.columns[0], torch.cat(whole.columns, 1)[:50])
    assert all(each.untyped_storage().nbytes() == each.nbytes for each in whole.columns)
    with pytest.raises(RuntimeError, match="split"):
        sample.read([3])


@pytest.mark.parametrize(
    "parts", [tk.RandomFeatures(5), [tk.Neighbours(), tk.Monomials(2)]], ids=["alone", "context"]
)
def test_the_rows_that_judge_are_latent_states_of_the_data_though_states_are_kept(
    parts: Part | list[Part],
) -> None:
    x, mask = normal(60, 4, 3), torch.rand(60, 4, generator=torch.manual_seed(1)) > 0.3
    mask[:, 0] = True
    states = {"a": x, "b": x.sin(), "c": x.cos() * x}
    data = Trajectory(states, mask=mask)
    surrogate = tk.EDMDFitter(parts, calibration=40).update(data).surrogate
    evidence = surrogate.evidence
    assert evidence is not None
    assert evidence.samples is not None
    ids = row_ids(data)
    order = ids.argsort(stable=True)
    assert torch.equal(evidence.samples, ids[order])
    for rows, layer in ((evidence.start, "a"), (evidence.end, "c")):
        latent = data.flatten(surrogate.encode(states[layer], layer, mask))
        torch.testing.assert_close(rows, latent[order])


def test_a_sample_takes_the_memory_of_states_and_not_of_their_observables() -> None:
    fitter = tk.EDMDFitter(tk.RandomFeatures(500), calibration=100)
    fitter.update(Trajectory.of(normal(2000, 2), normal(2000, 2, seed=1)))
    held = fitter.state_dict()["parts"]["sample"]["rows"]
    assert held[0].shape == (2000, 4)
    evidence = fitter.surrogate.evidence
    assert evidence is not None
    assert evidence.start.shape == (2000, 503)


def test_rows_that_come_a_few_at_a_time_are_held_in_few_parts() -> None:
    sample = streamed(torch.arange(1000), torch.arange(1000), batch=2, memory=32_000)
    assert len(sample._parts) <= 33
    whole = streamed(torch.arange(1000), torch.arange(1000), batch=1000, memory=32_000)
    assert all(map(torch.equal, held(sample), held(whole)))


@pytest.mark.parametrize("kind", ["plain", "zeros", "subnormal", "half", "infinite", "masked"])
def test_a_samples_number_reads_mantissas_as_frexp_has_them(kind: str) -> None:
    """The bits of float32 are read themselves; the transcription is slower and takes float64."""
    x = torch.randn(40, 3, 24, generator=torch.Generator().manual_seed(1))
    mask = None
    match kind:
        case "zeros":
            x = x.relu()
        case "subnormal":
            x = torch.cat([x.relu(), x * 1e-42])
        case "half":
            x = torch.cat([x, x * 1e-6]).half()
        case "infinite":
            x[0, 0, 0] = torch.inf
        case "masked":
            mask = torch.rand(40, 3, generator=torch.Generator().manual_seed(2)) > 0.3
    trajectory = Trajectory({"0": x}, mask=mask)
    counted = trajectory.counted()
    mantissas = torch.frexp(torch.where(counted[..., None], x.double(), 0.0)).mantissa
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(24, 2, generator=generator, dtype=torch.float64) / 24**0.5
    read = (mantissas @ weight).sum(1) / counted.sum(1).clamp(min=1)[:, None]
    quantum = 2.0**-8 if x.dtype == torch.half else 2.0**-14
    cells = (read / quantum).floor().long()
    expected = mixed(mixed(cells[:, 0]) + cells[:, 1])
    same = sample_ids(trajectory) == expected
    assert same.double().mean() > 0.95  # a sum in another order may cross a cell's border
