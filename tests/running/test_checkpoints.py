"""``tk.fit(checkpoint=…)``: a fit that was stopped ends as if it had not been."""

import contextlib
import io
import os
import signal
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    Sampler,
    TensorDataset,
)

import torchkoopman as tk
from benchmarks.costs import checkpointing
from tests.fitting.resumable import assert_same_bits, finished
from tests.processes import completed
from torchkoopman.running import orders
from torchkoopman.running.batch_digests import digest_of
from torchkoopman.running.checkpoints import Checkpoints
from torchkoopman.storage.logs import read_rows
from torchkoopman.storage.rows import with_rows
from torchkoopman.storage.writers import only_writer

ROWS, BATCH, EVERY = 600, 20, 100
LAYERS = ["0", "2", "4"]


class CrashError(Exception):
    """What ends a fit in these tests."""


def network(seed: int = 1, noise: float = 0.0) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    model = nn.Sequential(
        nn.Linear(6, 6), Noise(noise), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6)
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
    return model


class Noise(nn.Module):
    """Draws from torch's global random numbers, also in eval mode."""

    def __init__(self, size: float) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        return x + self.size * torch.randn_like(x) if self.size else x


def data(seed: int = 2, rows: int = ROWS) -> TensorDataset:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(rows, 6, generator=generator)
    return TensorDataset(inputs, torch.randint(0, 3, (rows,), generator=generator))


def shuffled(**options: Any) -> DataLoader[Any]:
    generator = torch.Generator().manual_seed(3)
    return DataLoader(data(), BATCH, shuffle=True, generator=generator, **options)


class Stateful:
    """A shuffled loader that says where it stands, as torchdata's does."""

    def __init__(self) -> None:
        self.batches = list(DataLoader(data(), BATCH))
        self.generator = torch.Generator().manual_seed(4)
        self.order: list[int] = []
        self.place = 0

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Any]:
        if self.place >= len(self.order):
            self.order = torch.randperm(len(self), generator=self.generator).tolist()
            self.place = 0
        while self.place < len(self.order):
            self.place += 1
            yield self.batches[self.order[self.place - 1]]

    def state_dict(self) -> dict[str, Any]:
        state = {"order": list(self.order), "place": self.place}
        return {**state, "draws": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.order, self.place = list(state["order"]), state["place"]
        self.generator.set_state(state["draws"])


def drawn() -> RandomSampler:
    return RandomSampler(data(), generator=torch.Generator().manual_seed(6))


def batches_of(sampler: Sampler[int]) -> BatchSampler:
    return BatchSampler(sampler, BATCH, drop_last=False)


LOADERS: dict[str, Callable[[], Any]] = {
    "list": lambda: list(DataLoader(data(), BATCH)),
    "sequential": lambda: DataLoader(data(), BATCH),
    "shuffled": shuffled,
    "replacement": lambda: DataLoader(
        data(),
        BATCH,
        sampler=RandomSampler(data(), replacement=True, generator=torch.Generator().manual_seed(5)),
    ),
    "batch sampler": lambda: DataLoader(data(), batch_sampler=batches_of(drawn())),
    "whole batches": lambda: DataLoader(data(), batch_size=None, sampler=batches_of(drawn())),
    "stateful": Stateful,
}
FITS: dict[str, dict[str, Any]] = {
    "dmd": {"method": "dmd"},
    "edmd": {"method": "edmd", "observables": tk.RandomFeatures(10), "calibration": 150},
    "autoencoder": {
        "latent": 6,
        "hidden": [8],
        "steps": 30,
        "batch": 16,
        "calibration": 150,
        "replay_bytes": 12_000,
    },
}


def stopping(model: nn.Module, forwards: int, error: Callable[[], object]) -> nn.Module:
    """The model, with something that happens in one of its forward passes."""
    count = 0

    def hook(*_: object) -> None:
        nonlocal count
        count += 1
        if count == forwards:
            error()

    model.register_forward_hook(hook)
    return model


def crash() -> None:
    raise CrashError


def fit(model: nn.Module, loader: Any, path: Path | None, **options: Any) -> dict[str, Tensor]:
    options = {"every": EVERY, **options} if path is not None else options
    surrogate = tk.fit(model, loader, LAYERS, checkpoint=path, progress=False, **options)
    assert surrogate.statistics is not None
    record = torch.tensor(list(repr(surrogate.record).encode()))
    return dict(surrogate.state_dict()) | surrogate.statistics.tensors() | {"record": record}


@pytest.mark.parametrize("loader", sorted(LOADERS))
@pytest.mark.parametrize("epochs", [1, 2])
def test_a_fit_that_crashed_ends_as_one_that_did_not(
    loader: str, epochs: int, tmp_path: Path
) -> None:
    """Twice on the way; the model draws global random numbers, and positions are sampled."""
    options = {**FITS["edmd"], "epochs": epochs, "positions": 1}
    options["held_out"] = list(DataLoader(data(9, 50), 25)) if epochs > 1 else None
    torch.manual_seed(11)
    whole = fit(network(noise=0.1), LOADERS[loader](), None, **options)
    torch.manual_seed(11)
    for forwards in (13, 14):
        with pytest.raises(CrashError):
            fit(
                stopping(network(noise=0.1), forwards, crash),
                LOADERS[loader](),
                tmp_path / "checkpoint",
                **options,
            )
        torch.manual_seed(forwards)  # another process has others
    resumed = fit(network(noise=0.1), LOADERS[loader](), tmp_path / "checkpoint", **options)
    assert_same_bits(whole, resumed)


@pytest.mark.parametrize("forwards", [30, 31, 32, 60])
@pytest.mark.parametrize("loader", ["stateful", "shuffled"])
def test_the_end_of_a_pass_is_not_taken_for_the_beginning_of_one(
    loader: str, forwards: int, tmp_path: Path
) -> None:
    """Thirty batches are a pass; a checkpoint is due behind every one."""
    held_out = list(DataLoader(data(9, 50), 25))
    options = {**FITS["dmd"], "epochs": 2, "held_out": held_out, "every": 1}
    whole = fit(network(), LOADERS[loader](), tmp_path / "other", **options)
    model = stopping(network(), forwards, crash)
    with pytest.raises(CrashError):
        fit(model, LOADERS[loader](), tmp_path / "checkpoint", **options)
    assert_same_bits(whole, fit(network(), LOADERS[loader](), tmp_path / "checkpoint", **options))


@pytest.mark.parametrize("kind", sorted(FITS))
@settings(max_examples=3, deadline=None)
@given(forwards=st.integers(1, ROWS // BATCH), every=st.sampled_from([1, 70, 100]))
def test_wherever_a_fit_crashes_it_goes_on(
    kind: str, forwards: int, every: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("fit") / "new folder" / "checkpoint"
    with pytest.raises(CrashError):
        fit(stopping(network(), forwards, crash), shuffled(), path, every=every, **FITS[kind])
    resumed = fit(network(), shuffled(), path, every=every, **FITS[kind])
    assert_same_bits(fit(network(), shuffled(), None, **FITS[kind]), resumed)


def test_a_fit_that_ended_gives_the_same_surrogate_again_without_streaming(tmp_path: Path) -> None:
    first = fit(network(), shuffled(), tmp_path / "checkpoint", **FITS["dmd"])
    model = stopping(network(), 1, crash)
    assert_same_bits(first, fit(model, shuffled(), tmp_path / "checkpoint", **FITS["dmd"]))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint", "checkpoint.previous"]


@pytest.mark.parametrize("forwards", [18, 31])
def test_what_was_said_of_the_targets_is_said_after_going_on_too(
    forwards: int, tmp_path: Path
) -> None:
    batches = [(x, x[:, 0] if number < 3 else y) for number, (x, y) in enumerate(LOADERS["list"]())]
    with contextlib.suppress(CrashError):
        fit(stopping(network(), forwards, crash), batches, tmp_path / "checkpoint", **FITS["dmd"])
    resumed = fit(network(), batches, tmp_path / "checkpoint", **FITS["dmd"])
    assert_same_bits(fit(network(), batches, None, **FITS["dmd"]), resumed)
    assert b"no class statistics" in bytes(resumed["record"].tolist())


def test_a_loader_without_batches_leaves_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no batches"):
        fit(network(), [], tmp_path / "checkpoint", **FITS["dmd"])
    assert not list(tmp_path.iterdir())


def test_a_loader_with_workers_goes_on_too(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    whole = fit(network(), shuffled(), None, **FITS["dmd"])
    with pytest.raises(CrashError):
        fit(stopping(network(), 17, crash), shuffled(num_workers=1), path, **FITS["dmd"])
    assert_same_bits(whole, fit(network(), shuffled(num_workers=1), path, **FITS["dmd"]))


class Custom(Sampler[int]):
    def __iter__(self) -> Iterator[int]:
        return iter(range(ROWS))

    def __len__(self) -> int:
        return ROWS


class Endless(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter(data())


class Reordered(DataLoader[Any]):
    def __iter__(self) -> Any:
        return reversed(list(super().__iter__()))


UNREPEATABLE: dict[str, tuple[Any, str]] = {
    "unseeded": (DataLoader(data(), BATCH, shuffle=True), "shuffle=True, generator=torch.Gen"),
    "generator": ((batch for batch in ()), r"a generator is not known\. Give a DataLoader"),
    "iterable": (DataLoader(Endless(), BATCH), "IterableDataset.*StatefulDataLoader"),
    "sampler": (DataLoader(data(), BATCH, sampler=Custom()), "sampler Custom is not known"),
    "sampler of a batch sampler": (
        DataLoader(data(), batch_sampler=batches_of(Custom())),
        "sampler Custom is not known",
    ),
    "unseeded sampler of whole batches": (
        DataLoader(data(), batch_size=None, sampler=batches_of(RandomSampler(data()))),
        "global random numbers.*the generator to a sampler of your own",
    ),
    "subclass": (Reordered(data(), BATCH), "a Reordered is not known"),
    "order": (DataLoader(data(), BATCH, num_workers=1, in_order=False), "in_order=False"),
}


@pytest.mark.parametrize("name", sorted(UNREPEATABLE))
def test_an_order_that_cannot_be_repeated_is_refused_before_anything_runs(
    name: str, tmp_path: Path
) -> None:
    loader, message = UNREPEATABLE[name]
    with pytest.raises(ValueError, match=f"(?s)order can be repeated.*{message}"):
        fit(stopping(network(), 1, crash), loader, tmp_path / "checkpoint", **FITS["dmd"])
    assert not list(tmp_path.iterdir())


class Odd(Stateful):
    def state_dict(self) -> dict[str, Any]:
        return {"place": object()}


def test_a_loader_whose_state_is_not_plain_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="state_dict of Odd holds a object"):
        fit(network(), Odd(), tmp_path / "checkpoint", **FITS["dmd"])


def begun(path: Path, **options: Any) -> None:
    """A fit that crashed after 340 rows, with checkpoints at 100, 200 and 300 of them."""
    with pytest.raises(CrashError):
        fit(stopping(network(), 18, crash), shuffled(), path, **{**FITS["dmd"], **options})


OTHER_FITS: dict[str, tuple[dict[str, Any], str]] = {
    "option": ({"rank": 3}, "rank=-1 and rank=3"),
    "method": ({"method": "edmd"}, "fitter='DMDFitter' and fitter='EDMDFitter'"),
    "positions": ({"positions": 1}, "positions=None and positions=1"),
    "layers": ({"layers": ["0", "4"]}, r"layers=\['0', '2', '4'\] and layers=\['0', '4'\]"),
    "layout": ({"layout": "b f -> b 1 f"}, "layout=None and layout='b f -> b 1 f'"),
    "model": ({"model": network(5)}, "model="),
    "samples": ({"loader": DataLoader(data(rows=620), BATCH)}, "samples=600 and samples=620"),
    "batch size": ({"loader": DataLoader(data(), 30)}, "batch_size=20 and batch_size=30"),
    "held out": ({"held_out": [torch.zeros(5, 6)]}, "held_out=2000 and held_out=0"),
    "loader": ({"loader": Stateful()}, "loader='DataLoader' and loader='Stateful'"),
}


@pytest.mark.parametrize("name", sorted(OTHER_FITS))
def test_a_checkpoint_of_another_fit_is_refused_by_name(name: str, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    begun(path)
    before = path.read_bytes()
    changes, message = OTHER_FITS[name]
    call = {"model": network(), "loader": shuffled(), "layers": LAYERS, **FITS["dmd"], **changes}
    with pytest.raises(ValueError, match=message):
        tk.fit(**call, checkpoint=path, progress=False)
    assert path.read_bytes() == before


def test_a_checkpoint_of_more_processes_or_another_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    begun(path)
    written = torch.load(path, weights_only=True)
    for changed, message in (
        ({**written, "run": {**written["run"], "processes": 4}}, "processes=4 and processes=1"),
        ({**written, "format": 99}, "format 99"),
    ):
        torch.save(changed, path)
        with pytest.raises(ValueError, match=message):
            fit(network(), shuffled(), path, **FITS["dmd"])


def other_data(loader: Any, batch: int) -> Any:
    """The same loader, one number of one of its batches changed."""
    if isinstance(loader, Stateful):
        number = loader.batches[batch][0]
    elif isinstance(loader, list):
        number = loader[batch][0]
    else:
        number = loader.dataset.tensors[0][batch * BATCH : (batch + 1) * BATCH]
    number[3, 2] += 1
    return loader


@pytest.mark.parametrize(("kind", "batch"), [("list", 14), ("list", 3), ("sequential", 3)])
def test_a_batch_that_is_another_one_now_is_noticed(kind: str, batch: int, tmp_path: Path) -> None:
    """Not the last one before the checkpoint alone; behind it, 15 is not compared, but the next."""
    path = tmp_path / "checkpoint"
    with pytest.raises(CrashError):
        fit(stopping(network(), 18, crash), LOADERS[kind](), path, **FITS["dmd"])
    with pytest.raises(ValueError, match="batch 15 of the loader, or one before it, is another"):
        fit(network(), other_data(LOADERS[kind](), batch), path, **FITS["dmd"])


def test_the_batch_behind_the_checkpoint_of_a_loader_with_a_state_must_be_the_same(
    tmp_path: Path,
) -> None:
    """Of those before it nothing can be seen again."""
    path = tmp_path / "checkpoint"
    with pytest.raises(CrashError):
        fit(stopping(network(), 18, crash), Stateful(), path, **FITS["dmd"])
    place = torch.randperm(30, generator=torch.Generator().manual_seed(4))[15]
    with pytest.raises(ValueError, match="batch 16 of the loader, or one before it, is another"):
        fit(network(), other_data(Stateful(), int(place)), path, **FITS["dmd"])


@pytest.mark.parametrize("kind", ["list", "sequential"])
@pytest.mark.parametrize("batch", [0, 17, 29])
def test_other_data_are_refused_where_the_fit_had_ended_too(
    kind: str, batch: int, tmp_path: Path
) -> None:
    fit(network(), LOADERS[kind](), tmp_path / "checkpoint", **FITS["dmd"])
    with pytest.raises(ValueError, match="batch 30 of the loader, or one before it, is another"):
        fit(network(), other_data(LOADERS[kind](), batch), tmp_path / "checkpoint", **FITS["dmd"])


class Wrapped:
    def __init__(self, x: Tensor) -> None:
        self.x = x


def called(model: nn.Module, batch: Wrapped) -> Any:
    return model(batch.x)


def test_batches_that_print_their_address_go_on_in_another_process_too(tmp_path: Path) -> None:
    batches = [[Wrapped(x) for x in data().tensors[0].split(BATCH)] for _ in range(2)]
    options = {**FITS["dmd"], "forward": called}
    with pytest.raises(CrashError):
        fit(stopping(network(), 17, crash), batches[0], tmp_path / "checkpoint", **options)
    resumed = fit(network(), batches[1], tmp_path / "checkpoint", **options)
    assert_same_bits(fit(network(), batches[0], None, **options), resumed)


def test_other_data_in_batches_that_do_not_print_them_are_noticed(tmp_path: Path) -> None:
    batches = [Wrapped(x) for x in data().tensors[0].split(BATCH)]
    options = {**FITS["dmd"], "forward": called}
    with pytest.raises(CrashError):
        fit(stopping(network(), 17, crash), batches, tmp_path / "checkpoint", **options)
    batches[3].x[3, 2] += 1
    with pytest.raises(ValueError, match="batch 15 of the loader, or one before it, is another"):
        fit(network(), batches, tmp_path / "checkpoint", **options)


def test_an_object_that_refers_to_itself_has_a_digest() -> None:
    one, other = Wrapped(torch.zeros(3)), Wrapped(torch.zeros(3))
    for each in (one, other):
        each.parent = each  # type: ignore[attr-defined]
    assert digest_of(one) == digest_of(other)
    other.x[1] = 1
    assert digest_of(one) != digest_of(other)


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "cut": lambda content: content[: len(content) // 2],
    "flipped": lambda content: flipped(content, within_a_tensor(content)),
    "flipped early": lambda content: flipped(content, 300),
    "other": lambda content: b"not a checkpoint" * 99,
}


def flipped(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 16]) + content[place + 1 :]


def within_a_tensor(content: bytes) -> int:
    """A place that matters: zip files have others, between their parts."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        largest = archive.read(max(archive.infolist(), key=lambda part: part.file_size))
    return content.index(largest) + len(largest) // 2


@pytest.mark.parametrize("damage", sorted(DAMAGES))
def test_of_a_damaged_checkpoint_the_one_before_is_taken_and_said(
    damage: str, tmp_path: Path
) -> None:
    path = tmp_path / "checkpoint"
    begun(path)
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    with pytest.warns(RuntimeWarning, match=r"is damaged .* goes on from the .* before"):
        resumed = fit(network(), shuffled(), path, **FITS["dmd"])
    assert_same_bits(fit(network(), shuffled(), None, **FITS["dmd"]), resumed)


def begun_with_log(path: Path) -> list[Path]:
    """An autoencoder's fit that crashed with checkpoints behind it; returns its logs."""
    begun(path, every=60, **FITS["autoencoder"], method="autoencoder")
    return sorted(path.parent.glob(f"{path.name}.rows-*"))


def gone_on(path: Path) -> None:
    """That fit goes on and ends as one that was never stopped."""
    options = {**FITS["autoencoder"], "method": "autoencoder"}
    resumed = fit(network(), shuffled(), path, every=60, **options)
    assert_same_bits(fit(network(), shuffled(), None, **options), resumed)


def test_checkpoints_stand_on_one_log_to_which_only_new_rows_are_appended(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    logs = begun_with_log(path)
    files = [torch.load(each, weights_only=True) for each in (path, Checkpoints(path).previous)]
    latest, previous = (content["rows"][0][1] for content in files)
    assert [each.name for each in logs] == [latest["log"]] == [previous["log"]]
    row = 8 + 3 * 6 * 4 + 16
    assert 0 < latest["bytes"] - previous["bytes"] <= 60 * row + 8 < 12_000
    sample = files[0]["state"]["holdout"]["listeners"][0]["parts"]["intake"]["reservoir"]["sample"]
    assert sample is None, "the rows are in the log alone"
    gone_on(path)


@pytest.mark.parametrize("harm", ["torn", "another", "renamed"])
def test_what_killed_writers_leave_beside_a_checkpoint_is_not_read_and_goes(
    harm: str, tmp_path: Path
) -> None:
    path = tmp_path / "checkpoint"
    (log,) = begun_with_log(path)
    orphan = path.with_name("checkpoint.rows-0123abcd")
    orphan.write_bytes(b"half a record")
    if harm == "torn":
        log.write_bytes(log.read_bytes() + b"half a record")
    if harm == "renamed":  # all but their logs, whose names the files say
        path.rename(tmp_path / "other")
        Checkpoints(path).previous.rename(tmp_path / "other.previous")
        path = tmp_path / "other"
    gone_on(path)
    assert orphan.exists() == (harm == "renamed")


@pytest.mark.parametrize("damage", ["tail", "head", "cut", "removed"])
def test_a_checkpoint_whose_log_is_damaged_is_damaged(damage: str, tmp_path: Path) -> None:
    """Where only the latest one's part is, the one before is taken, and that is said."""
    path = tmp_path / "checkpoint"
    (log,) = begun_with_log(path)
    content = log.read_bytes()
    if damage == "removed":
        log.unlink()
    else:
        place = 50 if damage == "head" else len(content) - 9
        log.write_bytes(content[:place] if damage == "cut" else flipped(content, place))
    if damage in ("tail", "cut"):
        with pytest.warns(RuntimeWarning, match=r"is damaged .*rows-.* goes on from the .* before"):
            gone_on(path)
    else:
        with pytest.raises(ValueError, match=r"(?s)rows-.*rows-.*nothing to go on from"):
            gone_on(path)
        assert Checkpoints(path).previous.exists()


def test_a_checkpoint_of_the_format_before_goes_on(tmp_path: Path) -> None:
    """Format 2 held the rows themselves."""
    path = tmp_path / "checkpoint"
    logs = begun_with_log(path)
    content = torch.load(path, weights_only=True)
    for keys, rows in content.pop("rows"):
        with_rows(content["state"], keys, read_rows(tmp_path, rows))
    torch.save({**content, "format": 2}, path)
    for each in (Checkpoints(path).previous, *logs):
        each.unlink()
    gone_on(path)


def test_a_checkpoint_that_cannot_be_written_leaves_a_log_that_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the next one stands on is all that has changed since the last that was written."""
    path, save, count = tmp_path / "checkpoint", torch.save, [0]
    options = {**FITS["autoencoder"], "method": "autoencoder", "every": 60}

    def full(content: Any, place: Path) -> None:
        count[0] += 1
        if count[0] == 3:
            raise RuntimeError("unexpected pos")
        save(content, place)

    with monkeypatch.context() as patched:
        patched.setattr("torchkoopman.running.checkpoints.torch.save", full)
        with pytest.raises(OSError, match="could not be written"):
            fit(network(), shuffled(), path, **options)
    assert count == [3]
    gone_on(path)
    assert len(list(tmp_path.glob("checkpoint.rows-*"))) <= 2


def test_if_both_checkpoints_are_damaged_nothing_is_guessed(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    begun(path)
    for each in (path, path.with_name("checkpoint.previous")):
        each.write_bytes(b"")
    with pytest.raises(ValueError, match=r"nothing to go on from\. Remove it"):
        fit(network(), shuffled(), path, **FITS["dmd"])


def test_two_fits_do_not_write_to_one_path(tmp_path: Path) -> None:
    path, caught = tmp_path / "checkpoint", []

    def second() -> None:
        with pytest.raises(RuntimeError, match=f"process {os.getpid()} writes") as error:
            fit(network(), shuffled(), path, **FITS["dmd"])
        caught.append(error)

    def elsewhere() -> None:
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()

    first = fit(stopping(network(), 7, elsewhere), shuffled(), path, **FITS["dmd"])
    assert caught
    assert_same_bits(first, fit(network(), shuffled(), None, **FITS["dmd"]))
    assert not path.with_name("checkpoint.lock").exists()


def test_the_lock_of_a_dead_process_is_taken_over_even_if_its_child_has_it_open(
    tmp_path: Path,
) -> None:
    """As the workers of a killed process's loader have, for some seconds."""
    code = (
        "import fcntl, os, sys, time\n"
        "lock = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)\n"
        "fcntl.flock(lock, fcntl.LOCK_EX)\n"
        "os.write(lock, str(os.getpid()).encode())\n"
        "if os.fork() == 0:\n"
        "    time.sleep(30)\n"
        "    os._exit(0)\n"
        "print('held', flush=True)\n"
        "time.sleep(30)\n"
    )
    path = tmp_path / "checkpoint"
    command = [sys.executable, "-c", code, str(path) + ".lock"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(RuntimeError, match=f"process {process.pid} writes"), only_writer(path):
            pass
        process.kill()
        process.wait()
        with only_writer(path):
            assert Path(str(path) + ".lock").read_text() == str(os.getpid())
        assert not Path(str(path) + ".lock").exists()
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.stdout.close()  # type: ignore[union-attr]


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.usefixtures("hears_interrupts")
@pytest.mark.parametrize("kind", sorted(FITS))
def test_an_interrupted_fit_ends_its_batch_writes_a_checkpoint_and_says_how_to_go_on(
    kind: str, tmp_path: Path
) -> None:
    path = tmp_path / "checkpoint"
    with pytest.raises(KeyboardInterrupt, match=r"checkpoint' holds .* 180 rows; the same call"):
        fit(stopping(network(), 9, interrupt), shuffled(), path, every=10**6, **FITS[kind])
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    model = stopping(network(), 22, crash)  # 21 batches are left
    resumed = fit(model, shuffled(), path, every=10**6, **FITS[kind])
    assert_same_bits(fit(network(), shuffled(), None, **FITS[kind]), resumed)


@pytest.mark.usefixtures("hears_interrupts")
def test_an_interrupt_within_the_loader_loses_nothing_either(tmp_path: Path) -> None:
    class Interrupting(TensorDataset):
        def __getitem__(self, index: Any) -> Any:
            if index == 207:
                raise KeyboardInterrupt
            return super().__getitem__(index)

    def loader(kind: type[TensorDataset]) -> DataLoader[Any]:
        return DataLoader(kind(*data().tensors), BATCH)

    path = tmp_path / "checkpoint"
    with pytest.raises(KeyboardInterrupt, match="200 rows"):
        fit(network(), loader(Interrupting), path, every=10**6, **FITS["dmd"])
    resumed = fit(network(), loader(TensorDataset), path, every=10**6, **FITS["dmd"])
    assert_same_bits(fit(network(), loader(TensorDataset), None, **FITS["dmd"]), resumed)


class Augmented(TensorDataset):
    """Draws global random numbers for each sample, and may be interrupted behind a draw."""

    stops: int | None = None

    def __getitem__(self, index: Any) -> Any:
        x, label = super().__getitem__(index)
        x = x + 0.1 * torch.randn(6)
        if index == self.stops:
            raise KeyboardInterrupt
        return x, label


def test_an_interrupt_within_a_loader_that_draws_random_numbers_draws_none_twice(
    tmp_path: Path,
) -> None:
    def loader(stops: int | None) -> DataLoader[Any]:
        augmented = Augmented(*data().tensors)
        augmented.stops = stops
        return DataLoader(augmented, BATCH)

    path = tmp_path / "checkpoint"
    torch.manual_seed(11)
    whole = fit(network(), loader(None), None, **FITS["dmd"])
    torch.manual_seed(11)
    with pytest.raises(KeyboardInterrupt, match="200 rows"):
        fit(network(), loader(207), path, every=10**6, **FITS["dmd"])
    resumed = fit(network(), loader(None), path, every=10**6, **FITS["dmd"])
    assert_same_bits(whole, resumed)


@pytest.mark.parametrize("call", [31, 32, 33], ids=["last batch", "end of the pass", "next pass"])
def test_an_interrupt_between_two_passes_leaves_their_order_as_it_was(
    call: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While random states are read: at the start, behind each batch, and from pass to pass."""
    calls, read = 0, orders.random_states

    def interrupted() -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            raise KeyboardInterrupt
        return read()

    path, options = tmp_path / "checkpoint", {**FITS["dmd"], "epochs": 2}
    options["held_out"] = list(DataLoader(data(9, 50), 25))
    monkeypatch.setattr(orders, "random_states", interrupted)
    with pytest.raises(KeyboardInterrupt, match="600 rows" if call < 33 else "620 rows"):
        fit(network(), shuffled(), path, every=10**6, **options)
    resumed = fit(network(), shuffled(), path, every=10**6, **options)
    assert_same_bits(fit(network(), shuffled(), None, **options), resumed)


@pytest.mark.usefixtures("hears_interrupts")
def test_a_second_interrupt_stops_at_once(tmp_path: Path) -> None:
    def twice() -> None:
        interrupt()
        interrupt()

    with pytest.raises(KeyboardInterrupt, match="100 rows; the same call"):
        fit(stopping(network(), 9, twice), shuffled(), tmp_path / "checkpoint", **FITS["dmd"])


@pytest.mark.usefixtures("hears_interrupts")
def test_a_fitter_of_the_users_keeps_what_it_learnt_before_an_interrupt() -> None:
    fitter, expected = tk.DMDFitter(), tk.DMDFitter()
    batches = list(DataLoader(data(), BATCH))
    with pytest.raises(KeyboardInterrupt, match=r"after 180 rows\. Your fitter keeps"):
        fit(stopping(network(), 9, interrupt), batches, None, method=fitter)
    fit(network(), batches[:9], None, method=expected)
    assert_same_bits(finished(fitter), finished(expected))


@pytest.mark.usefixtures("hears_interrupts")
def test_without_a_checkpoint_an_interrupt_says_what_would_have_helped() -> None:
    with pytest.raises(KeyboardInterrupt, match=r"after 180 rows, .* is lost\. With checkpoint="):
        fit(stopping(network(), 9, interrupt), shuffled(), None, **FITS["edmd"])


def test_a_fitter_of_the_users_goes_on_from_a_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    begun(path, method=tk.DMDFitter(2))
    fitter = tk.DMDFitter(2)
    resumed = fit(network(), shuffled(), path, method=fitter)
    assert_same_bits(fit(network(), shuffled(), None, method="dmd", rank=2), resumed)
    assert fitter.surrogate.record.rows == ROWS - ROWS // 10


def test_a_fitter_without_a_state_gets_no_checkpoint(tmp_path: Path) -> None:
    class Mine:
        def update(self, trajectory: tk.Trajectory) -> "Mine":
            return self

        @property
        def surrogate(self) -> tk.Surrogate:
            raise NotImplementedError

    with pytest.raises(TypeError, match="Mine does not have both"):
        fit(network(), shuffled(), tmp_path / "checkpoint", method=Mine())


@pytest.mark.parametrize("every", [0, -5, float("nan")])
def test_checkpoints_need_rows_between_them(every: float, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"every={every}"):
        fit(network(), shuffled(), tmp_path / "checkpoint", every=every, **FITS["dmd"])


@pytest.mark.parametrize("every", ["5", None, True])
def test_rows_between_checkpoints_are_a_number(every: Any, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=f"every={every!r} is a"):
        fit(network(), shuffled(), tmp_path / "checkpoint", every=every, **FITS["dmd"])


@pytest.mark.parametrize(("path", "error"), [(7, TypeError), (b"x", TypeError), ("", ValueError)])
def test_a_checkpoint_has_the_path_of_a_file(path: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=f"checkpoint={path!r}"):
        fit(network(), shuffled(), path, **FITS["dmd"])


@pytest.mark.parametrize("kind", ["folder", "fifo"])
def test_what_is_no_file_is_refused_and_not_waited_for(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    path.mkdir() if kind == "folder" else os.mkfifo(path)
    with pytest.raises(ValueError, match=r"checkpoint' is no file\. Give checkpoint="):
        fit(network(), shuffled(), path, **FITS["dmd"])


def test_a_checkpoint_without_room_is_an_error_of_the_disk_and_the_one_before_it_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What torch raises on a full disk is a RuntimeError about its archive."""
    path, save, count = tmp_path / "checkpoint", torch.save, [0]

    def full(content: Any, place: Path) -> None:
        count[0] += 1
        save(content, place)
        if count[0] > 2:
            place.write_bytes(place.read_bytes()[:99])
            raise RuntimeError("[enforce fail at inline_container.cc] unexpected pos")

    with monkeypatch.context() as patched:
        patched.setattr("torchkoopman.running.checkpoints.torch.save", full)
        with pytest.raises(OSError, match=r"could not be written .*unexpected pos\)\. The one bef"):
            fit(network(), shuffled(), path, **FITS["dmd"])
    assert sorted(each.name for each in tmp_path.iterdir()) == [path.name, f"{path.name}.previous"]
    resumed = fit(network(), shuffled(), path, **FITS["dmd"])
    assert_same_bits(fit(network(), shuffled(), None, **FITS["dmd"]), resumed)


def test_the_cost_of_checkpoints_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """A share of ``python -m benchmarks.costs.checkpointing``; how large it is is not tested."""
    small = ["--rows", "6000", "--every", "2000", "--replay", "1", "--kinds", "dmd"]
    assert checkpointing.main(small) > 0
    assert "6000 rows: 3 checkpoints, the last of " in capsys.readouterr().out


def test_fits_killed_at_random_moments_end_as_if_they_had_not_been(tmp_path: Path) -> None:
    """A share of ``make resume``, in processes that are killed for real."""
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "benchmarks.durability.killed", "--kills", "2"]
    command += ["--folder", str(tmp_path), "--kinds", "dmd", "edmd", "autoencoder"]
    run = completed(command, cwd=root)
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.count("2 of 2 equal") == 3
