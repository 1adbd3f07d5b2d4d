"""A monitor of a training: what it samples and follows, and that it can be stopped anywhere."""

import copy
import functools
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter
from torchkoopman_tensorboard import EventFolder, log

import torchkoopman as tk
from torchkoopman.fitting import monitor as source
from torchkoopman.fitting.monitor_sampling import in_features
from torchkoopman.observe.hooks import Hook
from torchkoopman.observe.trajectory import Trajectory

LAYERS = ["1", "3", "5"]


def network(width: int = 6) -> nn.Sequential:
    torch.manual_seed(0)
    blocks = [layer for _ in range(3) for layer in (nn.Linear(width, width), nn.Tanh())]
    return nn.Sequential(*blocks, nn.Linear(width, 3))


def train(
    model: nn.Module,
    steps: range,
    after: Callable[[int], object] = lambda step: None,
    batch: int = 40,
    during: Callable[[int], object] = lambda step: None,
) -> None:
    """Steps of SGD whose data depend on the step alone; ``after`` gets the number of those done."""
    optimiser = torch.optim.SGD(model.parameters(), 0.5)
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        x = torch.randn(batch, 6, generator=generator)
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(x), x[:, :3].argmax(1)).backward()  # type: ignore[no-untyped-call]
        during(step)
        optimiser.step()
        after(step + 1)


class Kept:
    """A fitter that keeps what it is given, and a log that keeps what it is told."""

    contextual = False

    def __init__(self, refuses: int | None = None) -> None:
        self.given: list[Trajectory] = []
        self.told: list[tuple[int, Tensor, tk.results.ModeTracks]] = []
        self.opened: list[int] = []
        self.closed = 0
        self.refuses = refuses

    def update(self, trajectory: Trajectory) -> None:
        if len(self.given) == self.refuses:
            raise ValueError("enough")
        self.given.append(trajectory)

    def __call__(self, surrogate: tk.Surrogate, step: int, tracks: tk.results.ModeTracks) -> None:
        self.told.append((step, surrogate.spectrum().eigenvalues, tracks))

    def reset(self) -> None:
        self.given.clear()

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Any) -> None:
        pass

    def open(self, step: int) -> None:
        self.opened.append(step)

    def close(self) -> None:
        self.closed += 1


def hooks(model: nn.Module) -> int:
    """How many of our hooks are on a model."""
    kinds = ("_forward_hooks", "_forward_pre_hooks")
    found = (hook for m in model.modules() for kind in kinds for hook in getattr(m, kind).values())
    return sum(isinstance(hook, Hook) for hook in found)


def test_hooks_are_on_in_one_step_of_every_so_many_and_off_afterwards() -> None:
    model, kept, on = network(), Kept(), []
    with tk.TrainingMonitor(LAYERS, fitter=kept, sample_every=3).attach(model) as monitor:
        train(model, range(8), lambda _: monitor.step(), during=lambda s: on.append(hooks(model)))
        monitor.close(quiet=True)
    assert [count > 0 for count in on] == [step % 3 == 0 for step in range(8)]
    assert len(kept.given) == 3
    assert hooks(model) == 0


def test_rows_are_a_sample_of_the_batch_and_the_same_in_all_layers() -> None:
    model, kept, inputs = network(), Kept(), []
    model.register_forward_pre_hook(lambda module, args: inputs.append(args[0].clone()))
    with tk.TrainingMonitor(LAYERS, fitter=kept, sample_every=1, rows=7).attach(model) as monitor:
        train(model, range(4), lambda _: monitor.step())
        monitor.close(quiet=True)
    weights = copy.deepcopy(network())
    chosen = []
    for given, x in zip(kept.given[:1], inputs[:1], strict=True):
        assert given.batch == 7
        states = {"1": weights[:2](x), "3": weights[:4](x), "5": weights[:6](x)}
        for layer, state in given.states.items():
            distance = (state - states[layer]).norm(dim=2)
            assert distance.amin(1).max() < 1e-6, "they are rows of this batch"
            chosen.append(distance.argmin(1).tolist())
    assert chosen[0] == chosen[1] == chosen[2]
    assert len({tuple(given.states["1"].flatten().tolist()) for given in kept.given}) == 4


def test_of_sequences_few_positions_of_several_samples_are_taken() -> None:
    kept = Kept()
    model = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh())
    with tk.TrainingMonitor(["1", "3"], fitter=kept, rows=64).attach(model) as monitor:
        model(torch.randn(10, 50, 6))
        model(torch.randn(2, 5, 6))
        monitor.close(quiet=True)
    first, second = (tuple(given.sampled().states["1"].shape) for given in kept.given)
    assert first == (4, 16, 6)
    assert second == (2, 5, 6)


def test_a_training_is_bit_by_bit_what_it_is_without_a_monitor() -> None:
    plain, watched = network(), network()
    torch.manual_seed(5)
    train(plain, range(12))
    before = torch.get_rng_state()
    torch.manual_seed(5)
    with tk.TrainingMonitor(LAYERS, sample_every=2, log_every=4, rows=16).attach(watched) as m:
        train(watched, range(12), lambda _: m.step())
    assert torch.equal(torch.get_rng_state(), before)
    for one, other in zip(plain.parameters(), watched.parameters(), strict=True):
        assert torch.equal(one, other)


def test_what_is_logged_is_the_fit_of_the_watched_steps_and_follows_their_spectra() -> None:
    """Beside a fitter that is fed by hand, and tk.follow of its spectra."""
    model, kept = network(), Kept()
    fitter = tk.DMDFitter(halflife=2000)
    monitor = tk.TrainingMonitor(LAYERS, kept, fitter, sample_every=2, log_every=6, rows=400)
    with monitor.attach(model):
        train(model, range(24), lambda _: monitor.step(), batch=400)

    by_hand, again, spectra = tk.DMDFitter(halflife=2000), network(), []
    with tk.attach(again, LAYERS) as probe:
        done = [0]

        def update(trajectory: Trajectory) -> None:
            if done[0] % 2 == 0:
                by_hand.update(trajectory)

        def after(step: int) -> None:
            done[0] = step
            if step % 6 == 0:
                surrogate = by_hand.surrogate
                spectra.append(in_features(surrogate, surrogate.spectrum()))

        probe.stream_to(update)
        train(again, range(24), after, batch=400)
    assert [step for step, _, _ in kept.told] == [6, 12, 18, 24]
    for (_, values, _), spectrum in zip(kept.told, spectra, strict=True):
        assert torch.equal(values, spectrum.eigenvalues)
    expected = tk.follow(spectra, [6, 12, 18, 24])
    assert expected.indices.shape[1] > 1
    for found in (kept.told[-1][2], monitor.tracks):
        assert found.steps == expected.steps
        assert torch.equal(found.indices, expected.indices)
        assert str(found) == str(expected)


def test_tracks_keep_their_columns_when_others_follow() -> None:
    model, kept = network(), Kept()
    fitter = tk.EDMDFitter(tk.Monomials(3), rank=2, calibration=60, halflife=300)
    monitor = tk.TrainingMonitor(LAYERS, kept, fitter, sample_every=1, log_every=5)
    with monitor.attach(model):
        train(model, range(60), lambda _: monitor.step())
    last = kept.told[-1][2]
    assert last.indices.shape[1] > kept.told[0][2].indices.shape[1], "some are born later"
    for count, (_, _, tracks) in enumerate(kept.told, 1):
        assert torch.equal(last.indices[:count, : tracks.indices.shape[1]], tracks.indices)


@pytest.mark.parametrize("way", ["file", "torch.save"])
@pytest.mark.parametrize(
    "make",
    [
        lambda: None,
        lambda: tk.EDMDFitter(tk.RandomFeatures(8), calibration=60, halflife=300),
    ],
    ids=["default", "edmd"],
)
def test_a_resumed_training_logs_what_an_uninterrupted_one_does(
    make: Callable[[], Any], way: str, tmp_path: Path
) -> None:
    def monitor(log: Kept) -> tk.TrainingMonitor:
        return tk.TrainingMonitor(LAYERS, log, make(), sample_every=2, log_every=5, rows=20)

    model, whole = network(), Kept()
    with monitor(whole).attach(model) as watching:
        train(model, range(40), lambda _: watching.step())

    model, first, second = network(), Kept(), Kept()
    watching = monitor(first).attach(model)

    def after(step: int) -> None:
        watching.step()
        if step == 17:  # inside a watched step's interval, and between two spectra
            if way == "file":
                watching.save(tmp_path / "monitor.safetensors")
            else:
                torch.save(watching.state_dict(), tmp_path / "monitor.pt")
            torch.save(model.state_dict(), tmp_path / "model.pt")
        if step == 23:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), watching:
        train(model, range(40), after)
    assert hooks(model) == 0
    model = network()
    model.load_state_dict(torch.load(tmp_path / "model.pt"))
    watching = monitor(second)
    if way == "file":
        watching.load(tmp_path / "monitor.safetensors")
    else:
        watching.load_state_dict(torch.load(tmp_path / "monitor.pt", weights_only=True))
    with watching.attach(model, 17):
        train(model, range(17, 40), lambda _: watching.step())
    assert second.opened == [17]
    assert [step for step, _, _ in second.told] == [20, 25, 30, 35, 40]
    for (_, values, _), (_, expected, _) in zip(second.told, whole.told[3:], strict=True):
        assert torch.equal(values, expected)
    found, expected = second.told[-1][2], whole.told[-1][2]
    assert found.steps == expected.steps
    assert torch.equal(found.indices, expected.indices)
    assert torch.equal(found.eigenvalues.nan_to_num(), expected.eigenvalues.nan_to_num())


def test_an_event_folder_of_a_resumed_training_has_one_series_of_each_kind(
    tmp_path: Path,
) -> None:
    def monitor() -> tk.TrainingMonitor:
        folder = EventFolder(tmp_path / "events", pseudospectrum_every=2)
        return tk.TrainingMonitor(LAYERS, folder, sample_every=2, log_every=5)

    model, first = network(), monitor()
    with first.attach(model):
        train(model, range(17), lambda _: first.step())
    resumed = monitor().load_state_dict(first.state_dict())
    with resumed.attach(model, 17):
        train(model, range(17, 30), lambda _: resumed.step())
    events = EventAccumulator(str(tmp_path / "events")).Reload()
    tensors = [tag for tag in events.Tags()["tensors"] if ".v" in tag]
    found = {tag.split("/")[-1].split(".")[0]: events.Tensors(tag) for tag in tensors}
    assert len(found) == len(tensors), "one series of each"
    assert [event.step for event in found["spectrum"]] == [5, 10, 15, 20, 25, 30]
    assert [event.step for event in found["pseudospectrum"]] == [10, 20, 30]


def test_a_state_is_a_copy() -> None:
    model = network()
    with tk.TrainingMonitor(LAYERS, sample_every=1, log_every=3).attach(model) as monitor:
        train(model, range(3), lambda _: monitor.step())
        state, before, after = monitor.state_dict(), io.BytesIO(), io.BytesIO()
        torch.save(state, before)
        train(model, range(3, 9), lambda _: monitor.step())
        torch.save(state, after)
    assert before.getvalue() == after.getvalue()


def test_a_layer_that_does_not_exist_is_refused_before_anything_is_opened() -> None:
    kept, model = Kept(), network()
    with pytest.raises(ValueError, match="found no module matching 'blocks'"):
        tk.TrainingMonitor(["blocks"], kept).attach(model)
    assert kept.opened == []
    assert hooks(model) == 0


def test_compiled_and_replicated_models_are_refused() -> None:
    model = network()
    with pytest.raises(ValueError, match="compiled"):
        tk.TrainingMonitor(LAYERS).attach(torch.compile(model, backend="eager"))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="DataParallel"):
        tk.TrainingMonitor(["module.1", "module.3"]).attach(nn.DataParallel(model))


def test_a_state_of_other_layers_or_of_another_step_is_refused_when_attached() -> None:
    model = network()
    with tk.TrainingMonitor(LAYERS, sample_every=1, log_every=2).attach(model) as monitor:
        train(model, range(4), lambda _: monitor.step())
    other = tk.TrainingMonitor(["1", "3"]).load_state_dict(monitor.state_dict())
    with pytest.raises(ValueError, match=r"of the layers \('1', '3', '5'\)"):
        other.attach(model)
    same = tk.TrainingMonitor(LAYERS).load_state_dict(monitor.state_dict())
    with pytest.raises(ValueError, match="after step 6, but the monitor's state is of step 4"):
        same.attach(model, 6)
    same.attach(model, 4).close(quiet=True)
    with pytest.raises(ValueError, match="not a state of a TrainingMonitor"):
        same.load_state_dict({"fitter": {}})
    with pytest.raises(ValueError, match="the state is of a DMDFitter"):
        tk.TrainingMonitor(LAYERS, fitter=tk.EDMDFitter()).load_state_dict(monitor.state_dict())


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"draws": torch.zeros(3)}, ValueError, "damaged or was changed"),
        ({"layers": None}, ValueError, "damaged or was changed"),
        ({"tracks": {}}, ValueError, "damaged or was changed"),
        ({"step": "x"}, ValueError, "damaged or was changed.*invalid literal"),
        (None, TypeError, "returned, a dictionary; it got a list"),
    ],
    ids=["draws", "layers", "tracks", "step", "list"],
)
def test_a_damaged_state_is_refused_by_name_and_changes_nothing(
    change: dict[str, Any] | None, error: type[Exception], said: str
) -> None:
    model = network()
    with tk.TrainingMonitor(LAYERS, sample_every=1, log_every=2).attach(model) as monitor:
        train(model, range(4), lambda _: monitor.step())
    fresh = tk.TrainingMonitor(LAYERS)
    state: Any = [1] if change is None else {**monitor.state_dict(), **change}
    with pytest.raises(error, match=said):
        fresh.load_state_dict(state)
    expected = tk.TrainingMonitor(LAYERS).state_dict()
    assert str(fresh.state_dict()) == str(expected), "the fitter is as it was, too"


def test_step_0_begins_anew_and_a_later_one_without_a_state_is_warned_of() -> None:
    model, kept = network(), Kept()
    monitor = tk.TrainingMonitor(LAYERS, kept, sample_every=1, log_every=2)
    for _ in range(2):
        model = network()
        with monitor.attach(model, 0):
            train(model, range(4), lambda _: monitor.step())
    assert [step for step, _, _ in kept.told] == [2, 4, 2, 4]
    assert torch.equal(kept.told[0][1], kept.told[2][1])
    assert kept.told[-1][2].steps == (2, 4)
    late = tk.TrainingMonitor(LAYERS, kept)
    with pytest.warns(RuntimeWarning, match="after step 100, but no state"):
        late.attach(model, 100)
    late.close(quiet=True)


def test_what_the_fitter_refuses_at_first_is_an_error_and_later_a_warning() -> None:
    model = network()
    with (
        pytest.raises(ValueError, match="enough"),
        tk.TrainingMonitor(LAYERS, fitter=Kept(refuses=0)).attach(model) as monitor,
    ):
        train(model, range(2), lambda _: monitor.step())
    assert hooks(model) == 0
    kept, seen = Kept(refuses=2), []
    with tk.TrainingMonitor(LAYERS, fitter=kept, sample_every=1).attach(model) as monitor:
        with pytest.warns(RuntimeWarning, match="watches no further.*enough"):
            train(model, range(5), lambda step: (monitor.step(), seen.append(step)))
        assert hooks(model) == 0
    assert seen == [1, 2, 3, 4, 5], "the training went on"


def test_a_monitor_that_watches_no_further_logs_no_further() -> None:
    model, kept = network(), Kept()
    fitter = tk.DMDFitter(halflife=100)
    monitor = tk.TrainingMonitor(LAYERS, kept, fitter, sample_every=1, log_every=1)
    with monitor.attach(model):
        train(model, range(2), lambda _: monitor.step())
        fitter.reset().update(
            Trajectory({"other": torch.randn(99, 1, 6), "x": torch.randn(99, 1, 6)})
        )
        with pytest.warns(RuntimeWarning, match="watches no further"):
            train(model, range(3), lambda _: monitor.step())
    assert [step for step, _, _ in kept.told] == [1, 2]


def test_without_new_rows_there_is_no_new_spectrum() -> None:
    model, kept = network(), Kept()
    monitor = tk.TrainingMonitor(LAYERS, kept, sample_every=8, log_every=2)
    with (
        pytest.warns(RuntimeWarning, match="no spectrum at step 4, for nothing was read") as told,
        monitor.attach(model),
    ):
        train(model, range(12), lambda _: monitor.step())
    assert len(told) == 1
    assert [step for step, _, _ in kept.told] == [2, 10]


def test_a_writer_of_yours_is_logged_to(tmp_path: Path) -> None:
    model = network()
    with SummaryWriter(str(tmp_path)) as writer:
        log_here = functools.partial(log, writer)
        with tk.TrainingMonitor(LAYERS, log_here, sample_every=1, log_every=2).attach(model) as m:
            train(model, range(4), lambda _: m.step())
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [event.step for event in events.Scalars("koopman/1-5/tracks_living")] == [2, 4]


@pytest.mark.parametrize("kind", [OSError, ValueError, RuntimeError])
def test_a_training_goes_on_where_the_log_cannot_be_written(kind: type[Exception]) -> None:
    def full(surrogate: tk.Surrogate, step: int, tracks: tk.results.ModeTracks) -> None:
        raise kind("no space left")

    model = network()
    with tk.TrainingMonitor(LAYERS, full, sample_every=1, log_every=2).attach(model) as monitor:
        with pytest.warns(RuntimeWarning, match="step 2 could not be written: no space") as told:
            train(model, range(6), lambda _: monitor.step())
        assert len(told) == 1
    assert monitor.tracks.steps == (2, 4, 6)


def test_an_attach_that_breaks_off_leaves_no_log_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, known, calls = network(), source.attach, list[object]()

    def breaks_off(*arguments: Any, **options: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 2:  # the first is a check
            raise KeyboardInterrupt
        return known(*arguments, **options)

    monkeypatch.setattr(source, "attach", breaks_off)
    monitor = tk.TrainingMonitor(LAYERS, EventFolder(tmp_path))
    with pytest.raises(KeyboardInterrupt):
        monitor.attach(model)
    EventFolder(tmp_path).open(0).close()
    assert not monitor.attached
    assert not any(module._forward_hooks for module in model.modules())


def test_layers_that_cannot_be_read_are_told_of_after_the_first_step() -> None:
    model = network()
    with tk.TrainingMonitor(LAYERS, fitter=Kept()).attach(model) as monitor:
        for layer in (1, 3, 5):
            model[layer](torch.randn(3, 6))
        with pytest.warns(RuntimeWarning, match="could read nothing of the first step.*one by one"):
            monitor.step()
        monitor.close(quiet=True)


def test_passes_in_eval_mode_are_left_out() -> None:
    model, kept = network(), Kept()
    with tk.TrainingMonitor(LAYERS, fitter=kept, sample_every=1).attach(model) as monitor:
        model(torch.randn(4, 6))
        model.eval()(torch.randn(5, 6))
        monitor.close(quiet=True)
    assert [given.batch for given in kept.given] == [4]


def test_steps_may_come_several_at_once_and_the_same_one_does_nothing() -> None:
    model, kept = network(), Kept()
    monitor = tk.TrainingMonitor(LAYERS, kept, sample_every=1, log_every=5, rows=100)
    with monitor.attach(model):
        for step in (0, 2, 2, 4, 6, 6, 8, 10):
            train(model, range(1))
            monitor.step(step)
        with pytest.raises(ValueError, match=r"step\(9\) was called after step 10"):
            monitor.step(9)
    assert [step for step, _, _ in kept.told] == [6, 10]


def test_too_few_rows_are_told_of_and_logging_begins_later() -> None:
    model, kept = network(), Kept()
    monitor = tk.TrainingMonitor(LAYERS, kept, sample_every=1, log_every=1, rows=2)
    with (
        pytest.warns(RuntimeWarning, match="no spectrum at step 1.*2 rows were streamed") as told,
        monitor.attach(model),
    ):
        train(model, range(6), lambda _: monitor.step())
    assert len(told) == 1
    assert [step for step, _, _ in kept.told] == [4, 5, 6]


def test_a_training_shorter_than_log_every_is_told_of() -> None:
    model, kept = network(), Kept()
    monitor = tk.TrainingMonitor(LAYERS, kept)
    with (
        pytest.warns(RuntimeWarning, match="ended after step 3, and nothing was logged"),
        monitor.attach(model),
    ):
        train(model, range(3), lambda _: monitor.step())
    assert (kept.opened, kept.closed) == ([0], 1)


def test_the_surrogate_that_is_logged_says_what_was_sampled() -> None:
    model, notes = network(), []
    monitor = tk.TrainingMonitor(
        LAYERS,
        lambda surrogate, step, tracks: notes.append(surrogate.record.notes[-1]),
        sample_every=2,
        log_every=4,
        rows=9,
    )
    with monitor.attach(model):
        train(model, range(4), lambda _: monitor.step())
    assert notes == [monitor.sampled]
    assert "one optimiser step of every 2, at most 9 rows" in notes[0]
    assert notes[0].endswith("2 passes until step 4")


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"rows": 0}, ValueError, "rows=0; give 1 or more"),
        ({"log_every": 2.5}, TypeError, "log_every=2.5; give a whole number"),
        ({"sample_every": True}, TypeError, "sample_every=True"),
        ({"when": "eval"}, TypeError, "got when=, which it does not take"),
        ({"fitter": tk.DMDFitter}, TypeError, "is a class"),
        ({"fitter": print}, TypeError, "lacks update, reset"),
    ],
)
def test_bad_arguments_are_refused(
    options: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        tk.TrainingMonitor(LAYERS, **options)


def test_calls_out_of_turn_are_refused() -> None:
    monitor = tk.TrainingMonitor(LAYERS)
    with pytest.raises(RuntimeError, match="not attached"):
        monitor.step()
    with monitor.attach(network()):
        state = monitor.state_dict()
        with pytest.raises(RuntimeError, match="before attach"):
            monitor.load_state_dict(state)
        with pytest.raises(RuntimeError, match="close"):
            monitor.reset()
