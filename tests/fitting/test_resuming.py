"""Fitters that were saved go on as if nothing had happened, and fitters that merge are one."""

import copy
import io
import pickle
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

import torchkoopman as tk
from tests.fitting.resumable import (
    BATCHES,
    MAKERS,
    Fitter,
    assert_same_bits,
    autoencoder,
    batch,
    finished,
    parts,
    streamed,
    tail,
)
from torchkoopman.fitting.calibration import Calibration
from torchkoopman.fitting.identity import row_ids
from torchkoopman.observe.trajectory import Trajectory

KINDS = sorted(MAKERS)


def through_a_file(fitter: Fitter) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(fitter.state_dict(), file)
    file.seek(0)
    state: dict[str, Any] = torch.load(file, weights_only=True)
    return state


def bits(state: object) -> bytes:
    """A state as it would be written."""
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=3, deadline=None)
@given(stops=st.lists(st.integers(0, BATCHES - 1), min_size=1, max_size=2, unique=True))
def test_a_fitter_that_was_saved_ends_where_one_that_was_not_does(
    kind: str, stops: list[int]
) -> None:
    fitter = MAKERS[kind]()
    for number in range(BATCHES):
        if number in stops:
            fitter = MAKERS[kind]().load_state_dict(through_a_file(fitter))
        fitter.update(batch(number))
    assert_same_bits(finished(fitter), finished(streamed(MAKERS[kind]())))


def told(surrogate: tk.Surrogate) -> object:
    """What is fitted, and the rows that judge it."""
    assert surrogate.evidence is not None
    return surrogate.state_dict(), surrogate.evidence.tensors()


READINGS: dict[str, Callable[[Any], object]] = {
    "surrogate": lambda fitter: told(fitter.surrogate),
    "between": lambda fitter: told(fitter.between("0", "1")),
    "state": lambda fitter: fitter.state_dict(),
    "copy": lambda fitter: copy.deepcopy(fitter).state_dict(),
    "train": lambda fitter: fitter.train(3).state_dict(),
}


@pytest.mark.parametrize(
    ("kind", "reading"),
    [
        ("dmd", "surrogate"),
        ("dmd", "between"),
        ("edmd", "state"),
        ("edmd", "copy"),
        ("autoencoder", "surrogate"),
        ("autoencoder", "state"),
        ("autoencoder", "copy"),
        ("autoencoder", "train"),
    ],
)
def test_what_another_thread_reads_is_of_whole_trajectories(
    kind: str, reading: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read while a trajectory is half learnt: it waits for the other half."""
    fitter, found, threads = streamed(MAKERS[kind](), range(6)), list[Any](), list[Any]()

    def meanwhile(trajectory: Trajectory) -> Tensor:
        if not threads:
            read = READINGS[reading]
            threads.append(threading.Thread(target=lambda: found.append(read(fitter))))
            threads[0].start()
            threads[0].join(0.5)
        return row_ids(trajectory)

    for module in ("streams", "intake"):
        monkeypatch.setattr(f"torchkoopman.fitting.{module}.row_ids", meanwhile)
    fitter.update(batch(6))
    threads[0].join()
    expected = READINGS[reading](streamed(MAKERS[kind](), range(7)))
    assert bits(found[0]) == bits(expected)


MEANWHILE: dict[str, Callable[[Fitter, Fitter], object]] = {
    "merged into another": lambda fitter, other: other.merge(fitter),
    "another merged in": lambda fitter, other: fitter.merge(other),
    "reset": lambda fitter, _: fitter.reset(),
    "loaded": lambda fitter, other: fitter.load_state_dict(other.state_dict()),
}


@pytest.mark.parametrize("kind", ["dmd", "edmd", "autoencoder"])
@pytest.mark.parametrize("change", MEANWHILE)
def test_what_another_thread_changes_waits_for_the_trajectory_that_is_half_learnt(
    change: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pair() -> tuple[Fitter, Fitter]:
        fitters = MAKERS[kind](), MAKERS[kind]()
        for each in fitters:
            if kind != "dmd":  # rows of both in one frame
                each.calibrate(batch(99))
        return streamed(fitters[0], range(6)), streamed(fitters[1], range(10, 13))

    (fitter, other), threads, halfway = pair(), list[threading.Thread](), list[bool]()

    def meanwhile(trajectory: Trajectory) -> Tensor:
        if not threads:
            threads.append(threading.Thread(target=MEANWHILE[change], args=(fitter, other)))
            threads[0].start()
            threads[0].join(0.2)
            halfway.append(not threads[0].is_alive())
        return row_ids(trajectory)

    with monkeypatch.context() as patch:
        for module in ("streams", "intake"):
            patch.setattr(f"torchkoopman.fitting.{module}.row_ids", meanwhile)
        fitter.update(batch(6))
    threads[0].join()
    assert halfway == [False]
    expected = pair()
    expected[0].update(batch(6))
    MEANWHILE[change](*expected)
    for mine, theirs in zip((fitter, other), expected, strict=True):
        assert bits(mine.state_dict()) == bits(theirs.state_dict())


HOLDING: dict[str, Callable[[], Any]] = {
    "edmd": lambda: tk.EDMDFitter(tk.RandomFeatures(6), calibration=10_000),
    "autoencoder": lambda: tk.AutoencoderFitter(latent=4, hidden=[8], calibration=10_000),
}


@pytest.mark.parametrize("kind", HOLDING)
def test_a_calibration_by_another_thread_waits_for_the_trajectory_that_is_half_held(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitter, expected = (streamed(HOLDING[kind](), range(6)) for _ in range(2))
    threads, halfway, add = list[threading.Thread](), list[bool](), Calibration.add

    def meanwhile(calibration: Calibration, trajectory: Trajectory) -> bool:
        threads.append(threading.Thread(target=fitter.calibrate))
        threads[0].start()
        threads[0].join(0.2)
        halfway.append(not threads[0].is_alive())
        return add(calibration, trajectory)

    with monkeypatch.context() as patch:
        patch.setattr(Calibration, "add", meanwhile)
        fitter.update(batch(6))
    threads[0].join()
    assert halfway == [False]
    expected.update(batch(6)).calibrate()
    assert bits(fitter.state_dict()) == bits(expected.state_dict())


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_taken_after_training_and_looking_goes_on_too(kind: str) -> None:
    """By then an autoencoder has compared itself, and an EDMD has calibrated to be looked at."""
    fitters = []
    for saved in (False, True):
        fitter = streamed(MAKERS[kind](), range(4))
        finished(fitter)
        fitters.append(MAKERS[kind]().load_state_dict(through_a_file(fitter)) if saved else fitter)
    for number in (4, 5, 6):
        for fitter in fitters:
            fitter.update(batch(number))
    assert_same_bits(finished(fitters[0]), finished(fitters[1]))


def test_what_a_comparison_came_to_is_part_of_the_state() -> None:
    """A training that went astray has been replaced: what was loaded must not be the astray one."""
    fitter = autoencoder(learning_rate=3.0, latent=4)
    streamed(fitter, range(18))
    fitter.train(600)
    assert fitter.surrogate.record.method == "edmd", "the test needs a closed form in its place"
    loaded = autoencoder(learning_rate=3.0, latent=4).load_state_dict(through_a_file(fitter))
    assert loaded.surrogate.record == fitter.surrogate.record
    assert torch.equal(loaded.surrogate.operator.matrix(), fitter.surrogate.operator.matrix())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batches", [1, 5])
def test_fitters_are_copied_and_pickled_whole(kind: str, batches: int) -> None:
    fitter = streamed(MAKERS[kind](), range(batches))
    copies = [copy.deepcopy(fitter), pickle.loads(pickle.dumps(fitter))]
    expected = finished(streamed(fitter, range(batches, 6)))
    for each in copies:
        assert_same_bits(finished(streamed(each, range(batches, 6))), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_does_not_change_with_the_fitter_and_serves_twice(kind: str) -> None:
    fitter = streamed(MAKERS[kind](), range(4))
    state = fitter.state_dict()
    before = bits(state)
    streamed(fitter, range(4, BATCHES))
    assert bits(state) == before
    results = []
    for _ in range(2):
        other = streamed(MAKERS[kind](), range(3))  # what it has seen must not remain
        other.load_state_dict(state)
        results.append(finished(streamed(other, range(4, BATCHES))))
    assert bits(state) == before
    assert_same_bits(*results)
    assert_same_bits(results[0], finished(fitter))


def test_a_generator_of_the_users_goes_on_where_it_stood() -> None:
    def fitter(seed: int) -> tk.EDMDFitter:
        generator = torch.Generator().manual_seed(seed)
        return tk.EDMDFitter(parts(), calibration=170, generator=generator)

    state = through_a_file(streamed(fitter(5), range(2)))  # nothing drawn yet
    resumed = streamed(fitter(6).load_state_dict(state), range(2, 6))
    assert_same_bits(finished(resumed), finished(streamed(fitter(5), range(6))))


OTHERS: dict[str, tuple[Fitter, Fitter, str]] = {
    "rank": (tk.DMDFitter(3), tk.DMDFitter(2), "rank=3 and rank=2"),
    "delays": (tk.DMDFitter(delays=1), tk.DMDFitter(), "delays=1 and delays=0"),
    "halflife": (tk.DMDFitter(halflife=9), tk.DMDFitter(), "halflife=9.0 and halflife=None"),
    "pairs": (tk.DMDFitter(pairs="all"), tk.DMDFitter(), "pairs='all'"),
    "calibration": (tk.EDMDFitter(), tk.EDMDFitter(calibration=9), "calibration=None"),
    "observables": (tk.EDMDFitter(), tk.EDMDFitter(tk.RandomFeatures(7)), "'count': 500"),
    "kind": (tk.EDMDFitter(), tk.DMDFitter(), "EDMDFitter"),
    "latent": (tk.AutoencoderFitter(8), tk.AutoencoderFitter(9), "latent=8 and latent=9"),
    "batch": (tk.AutoencoderFitter(), tk.AutoencoderFitter(batch=9), "batch=128 and batch=9"),
    "tail": (autoencoder(), autoencoder(tail=tail()), "tail=None"),
    "other tail": (autoencoder(tail=nn.Identity()), autoencoder(tail=tail()), "tail="),
    "weights": (
        tk.AutoencoderFitter(),
        tk.AutoencoderFitter(weights=tk.LossWeights(isometry=0)),
        "'isometry': 0.001",
    ),
}


@pytest.mark.parametrize("name", sorted(OTHERS))
def test_a_fitter_of_other_options_is_refused_by_name_and_nothing_changes(name: str) -> None:
    one, other, message = OTHERS[name]
    one, other = streamed(copy.deepcopy(one), range(2)), streamed(copy.deepcopy(other), range(1))
    before = bits(other.state_dict())
    with pytest.raises(ValueError, match=message):
        other.load_state_dict(one.state_dict())
    with pytest.raises(ValueError, match=message):
        other.merge(one)  # type: ignore[arg-type, misc]
    assert bits(other.state_dict()) == before


def damaged(state: dict[str, Any]) -> list[tuple[dict[str, Any], str]]:
    missing = {**state, "parts": {k: v for k, v in state["parts"].items() if k != "draws"}}
    wrong = {
        **state,
        "parts": {**state["parts"], "intake": {**state["parts"]["intake"], "frames": 7}},
    }
    return [
        ({**state, "version": 99}, "version 99"),
        ({"model": 1}, "not a state of a AutoencoderFitter"),
        (missing, "damaged"),
        (wrong, "damaged"),
    ]


def test_a_state_of_another_version_or_a_damaged_one_is_refused_and_nothing_changes() -> None:
    state = streamed(autoencoder()).state_dict()
    fitter = streamed(autoencoder(), range(4))
    before = bits(fitter.state_dict())
    for other, message in damaged(state):
        with pytest.raises(ValueError, match=message):
            fitter.load_state_dict(other)
        assert bits(fitter.state_dict()) == before


def test_rows_left_out_and_views_are_part_of_the_state(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4))
    fitter = tk.DMDFitter()
    with tk.attach(model, ["0", "1"]) as probe, probe.stream_to(fitter):
        model(torch.randn(50, 4))
        with warnings.catch_warnings(action="ignore"):
            model(torch.full((1, 4), 1e12))
    torch.save(fitter.state_dict(), tmp_path / "state")
    loaded = tk.DMDFitter().load_state_dict(torch.load(tmp_path / "state", weights_only=True))
    assert loaded.surrogate.views == fitter.surrogate.views
    assert loaded.surrogate.views
    assert loaded.surrogate.record == fitter.surrogate.record
    assert "1 rows were left out" in " ".join(loaded.surrogate.record.notes)


def double(number: int) -> Trajectory:
    single = batch(number)
    states = {layer: state.double() for layer, state in single.states.items()}
    return Trajectory(states, single.labels, single.mask)


@pytest.mark.parametrize("kind", ["dmd", "dmd delays", "edmd"])
@pytest.mark.parametrize("split", [0, 2, 5])
def test_closed_forms_of_merged_fitters_are_those_of_one_stream(kind: str, split: int) -> None:
    fitters = [MAKERS[kind]() for _ in range(3)]
    for fitter in fitters:
        if isinstance(fitter, tk.EDMDFitter):
            fitter.calibrate(double(3))
    for number in range(7):
        fitters[0].update(double(number))
        fitters[1 if number < split else 2].update(double(number))
    other = bits(fitters[2].state_dict())
    merged = fitters[1].merge(fitters[2])  # type: ignore[arg-type]
    assert bits(fitters[2].state_dict()) == other
    one, two = merged.surrogate, fitters[0].surrogate
    assert one.record.rows == two.record.rows
    torch.testing.assert_close(one.operator.matrix(), two.operator.matrix(), rtol=0, atol=1e-10)
    assert one.statistics is not None
    assert two.statistics is not None
    for label in (0, 1, 2):
        mine, theirs = one.statistics.by_class[label], two.statistics.by_class[label]
        assert mine.count == theirs.count
        torch.testing.assert_close(mine.cov("start", "end"), theirs.cov("start", "end"))


@pytest.mark.parametrize("kind", ["edmd", "autoencoder"])
def test_rows_held_back_are_merged_by_streaming_them(kind: str) -> None:
    one, two = streamed(MAKERS[kind](), range(2)), streamed(MAKERS[kind](), range(2, 4))
    one.merge(two)  # type: ignore[arg-type]
    found, expected = finished(one), finished(streamed(MAKERS[kind](), range(4)))
    for each in (found, expected):
        del each["record"]  # the latest batch was held without its masked samples
    assert_same_bits(found, expected)


@pytest.mark.parametrize("kind", ["edmd", "autoencoder"])
def test_a_merger_into_an_empty_fitter_is_the_other_fitter(kind: str) -> None:
    one, two = MAKERS[kind](), streamed(MAKERS[kind]())
    one.merge(two)  # type: ignore[arg-type]
    assert one.surrogate.record.rows == two.surrogate.record.rows
    fresh = MAKERS[kind]()
    assert_same_bits(
        finished(streamed(fresh.merge(MAKERS[kind]()))), finished(streamed(MAKERS[kind]()))
    )  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["edmd", "edmd halflife", "autoencoder", "autoencoder halflife"])
def test_other_coordinates_are_not_merged_and_nothing_changes(kind: str) -> None:
    one, two = streamed(MAKERS[kind](), range(4)), streamed(MAKERS[kind](), range(3, 7))
    held = streamed(MAKERS[kind](), range(1))
    for fitter in (one, held):
        before = bits(fitter.state_dict())
        with pytest.raises(ValueError, match="calibration"):
            fitter.merge(two)  # type: ignore[arg-type]
        assert bits(fitter.state_dict()) == before


def test_merged_autoencoders_learn_from_the_rows_of_both() -> None:
    one, two = autoencoder(), autoencoder()
    for number, fitter in ((0, one), (40, two)):
        fitter.calibrate(batch(20))
        streamed(fitter, range(number, number + 4))
    steps, seen = one.steps, one.surrogate.record.rows + two.surrogate.record.rows
    one.merge(two)
    assert one.steps == steps, "steps the other one took are not taken again"
    surrogate = one.train(20).surrogate
    assert surrogate.record.rows == seen
    assert surrogate.statistics is not None
    assert surrogate.statistics.count == seen, "the replay holds the rows of both"


def test_fitters_of_other_layers_or_the_same_one_are_not_merged() -> None:
    one, other = streamed(tk.DMDFitter()), tk.DMDFitter()
    other.update(batch(0).only(["0", "1"]))
    for fitter, message in ((other, "layers"), (one, "itself")):
        with pytest.raises(ValueError, match=message):
            one.merge(fitter)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
def test_fitters_of_other_widths_are_not_merged_and_nothing_changes(kind: str) -> None:
    narrow = batch(1)
    states = {layer: state[..., :3] for layer, state in narrow.states.items()}
    one, other = streamed(MAKERS[kind](), range(1)), MAKERS[kind]()
    other.update(replace(narrow, states=states))
    before = bits(one.state_dict())
    with pytest.raises(ValueError, match="widths"):
        one.merge(other)  # type: ignore[arg-type]
    assert bits(one.state_dict()) == before


@pytest.fixture
def process_group() -> Iterator[None]:
    """One process is a group too: what a sync leaves behind can be looked at without others."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("process_group")
@pytest.mark.parametrize("kind", ["dmd", "edmd"])
def test_what_a_sync_has_shared_is_part_of_the_state(kind: str) -> None:
    fitters: list[Fitter] = []
    for saved in (False, True):
        fitter = streamed(MAKERS[kind](), range(4)).sync()
        streamed(fitter, range(4, 6))
        if saved:
            fitter = MAKERS[kind]().load_state_dict(through_a_file(fitter))
        fitters.append(streamed(fitter.sync(), range(6, 8)))
    assert_same_bits(finished(fitters[0]), finished(fitters[1]))
    with pytest.raises(ValueError, match="rows of the same sync"):
        fitters[0].merge(fitters[1])  # type: ignore[arg-type]


def changed(state: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The state with something done to each of its tensors."""
    return tree_map_only(Tensor, change, state)


OTHER = {torch.float32: torch.float64, torch.float64: torch.float32}
CHANGES: dict[str, Callable[[Tensor], Tensor]] = {
    "half": lambda tensor: tensor.half() if tensor.is_floating_point() else tensor,
    "other": lambda tensor: tensor.to(OTHER.get(tensor.dtype, tensor.dtype)),
    "cut": lambda tensor: tensor[:-1] if tensor.ndim else tensor,
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("kind", sorted(MAKERS))
def test_a_state_that_was_cast_or_cut_is_refused_and_nothing_changes(
    kind: str, change: str
) -> None:
    """Moments in half precision load as well as any, and give another surrogate."""
    state = streamed(MAKERS[kind](), range(5)).state_dict()
    fitter = streamed(MAKERS[kind](), range(2))
    before = copy.deepcopy(fitter.state_dict())
    with pytest.raises(ValueError, match="was cast, cut or damaged"):
        fitter.load_state_dict(changed(state, CHANGES[change]))
    assert str(before) == str(fitter.state_dict())
    with pytest.raises(TypeError, match="it got a NoneType"):
        fitter.load_state_dict(None)  # type: ignore[arg-type]
