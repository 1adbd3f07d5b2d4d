"""What ``tests/test_syncing.py`` runs: groups of real processes, forked from one without threads.

``python forked_worker.py <folder> <size>:<case>:<detail> …`` leaves ``<group>/<rank>.pt`` there.
"""

import datetime
import importlib
import math
import os
import signal
import socket
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.utils._pytree import tree_leaves

import torchkoopman as tk
from tests.processes import forked
from torchkoopman.observe.processes import Processes, digest
from torchkoopman.observe.trajectory import Trajectory

ROWS = 1200
Fitter = Any


@cache
def data(dtype: torch.dtype) -> tuple[list[Tensor], Tensor]:
    """Three noisy layers of six features, and labels."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    first = draw(ROWS, 6) + 3
    second = torch.tanh(first @ draw(6, 6) / 3) + draw(ROWS, 6) / 10
    third = torch.sin(second @ draw(6, 6) / 3) + draw(ROWS, 6) / 10
    return [state.to(dtype) for state in (first, second, third)], torch.arange(ROWS) % 3


def trajectory(rows: Tensor, dtype: torch.dtype = torch.float32) -> Trajectory:
    states, labels = data(dtype)
    return Trajectory.of(*(state[rows] for state in states), labels=labels[rows])


BATCHES = torch.arange(ROWS).split(20)


def closed_form(kind: str, dtype: torch.dtype) -> Fitter:
    """A closed form whose operator does not depend on which rows its sample holds."""
    if kind == "edmd":
        sample = trajectory(torch.arange(0, ROWS, 3), dtype)
        edmd = tk.EDMDFitter(tk.RandomFeatures(20), dynamics="span", ridge=1e-6)
        return edmd.calibrate(sample)
    return tk.DMDFitter(dynamics="step" if kind == "step" else "span")


def summary(surrogate: tk.Surrogate) -> dict[str, Any]:
    """All that a surrogate consists of."""
    assert surrogate.statistics is not None
    assert surrogate.evidence is not None
    return {
        **surrogate.state_dict(),
        **surrogate.statistics.tensors(),
        "evidence": surrogate.evidence.start,
        "record": repr(surrogate.record),
        "span": repr(surrogate.span),
    }


def state_of(fitter: Fitter) -> str:
    """A digest of all that a fitter has learnt."""
    return digest(*tree_leaves(fitter.state_dict()))


def again(detail: str) -> dict[str, Any]:
    """Every process streams each ``size``-th batch, syncs so many times, and twice at the end."""
    rank, size = Processes().rank, Processes().size
    found = {}
    for dtype in (torch.float64, torch.float32):
        for kind in ("dmd", "step", "edmd"):
            for syncs in (1, 4, 20):
                fitter = closed_form(kind, dtype)
                for number, batch in enumerate(BATCHES):
                    if number % size == rank:
                        fitter.update(trajectory(batch, dtype))
                    if (number + 1) % (len(BATCHES) // syncs) == 0:
                        fitter.sync()
                known = state_of(fitter.sync())
                assert known == state_of(fitter), "reading changed the fitter"
                found[kind, str(dtype), syncs] = summary(fitter.sync().surrogate)
    return found


def uneven(detail: str) -> dict[str, Any]:
    """Three of four processes have no row, one of them never; a surrogate is read between syncs."""
    rank = Processes().rank
    fitter = closed_form("step", torch.float64)
    for number, batch in enumerate(BATCHES):
        if rank == (1 if number < 50 else 2):
            fitter.update(trajectory(batch, torch.float64))
        if number in (49, 54):
            fitter.sync()
            assert fitter.surrogate.record.rows == 20 * (number + 1)
    between = fitter.surrogate.record.rows
    return {"between": between, **summary(fitter.sync().surrogate)}


def wide(detail: str) -> dict[str, Any]:
    """Layers that count as wide: rows are held back in one process, then moments in both."""
    rank, size, rows = Processes().rank, Processes().size, torch.arange(ROWS)
    with (
        mock.patch("torchkoopman.fitting.dmd_wide.WIDE", 5),
        mock.patch("torchkoopman.fitting.calibration.WIDE", 5),
    ):
        fitter = closed_form("dmd", torch.float64)
        if rank == 0:
            fitter.update(trajectory(rows[:2], torch.float64))
        held = fitter.holding()
        fitter.sync()
        if rank == 1:
            fitter.update(trajectory(rows[2:4], torch.float64))
        fitter.sync()
        for batch in rows[4:][rank::size].split(20):
            fitter.update(trajectory(batch, torch.float64))
        found = summary(fitter.sync().surrogate)
    return {"held": held, "left": fitter.holding(), **found}


def refused(detail: str) -> dict[str, str]:
    """What ``sync`` says where process 1 differs, and whether it changed the fitter."""
    rank = Processes().rank
    rows = BATCHES[rank]

    def streamed(fitter: Fitter, dtype: torch.dtype = torch.float32) -> Fitter:
        return fitter.update(trajectory(rows, dtype))

    def calibrated(seed: int) -> Fitter:
        generator = torch.Generator().manual_seed(seed)
        fitter = tk.EDMDFitter(tk.RandomFeatures(9), generator=generator)
        return streamed(fitter.calibrate(trajectory(torch.arange(0, ROWS, 3))))

    def narrow() -> Fitter:
        wide = trajectory(rows)
        cut = {layer: state[..., : 6 - rank] for layer, state in wide.states.items()}
        return tk.DMDFitter().update(Trajectory(cut))

    def ahead() -> Fitter:
        fitter = streamed(tk.DMDFitter())
        mine = [dist.new_group([each]) for each in range(Processes().size)][rank]
        return fitter.sync(mine) if rank == 1 else fitter

    made: dict[str, Callable[[], Fitter]] = {
        "pairs": lambda: streamed(tk.DMDFitter(pairs=("adjacent", "all")[rank])),
        "options": lambda: streamed(tk.DMDFitter(ridge=(1e-9, 1e-6)[rank])),
        "rank": lambda: streamed(tk.DMDFitter(rank=(2, 3)[rank])),
        "observables": lambda: tk.EDMDFitter(tk.RandomFeatures((9, 8)[rank])),
        "latent": lambda: streamed(tk.AutoencoderFitter(latent=(5, 6)[rank])),
        "fitter": lambda: streamed((tk.DMDFitter, tk.EDMDFitter)[rank]()),
        "layers": lambda: tk.DMDFitter().update(
            trajectory(rows).only((("0", "1", "2"), ("0", "1"))[rank])
        ),
        "widths": narrow,
        "dtype": lambda: streamed(tk.DMDFitter(), (torch.float32, torch.float64)[rank]),
        "calibration": lambda: calibrated(rank),
        "halflife": lambda: streamed(tk.DMDFitter(halflife=(None, 100)[rank])),
        "syncs": ahead,
    }
    found = {}
    for name, make in made.items():
        fitter = make()
        before = state_of(fitter)
        try:
            fitter.sync()
            found[name] = "no error"
        except ValueError as error:
            found[name] = str(error) if state_of(fitter) == before else "it changed the fitter"
    return found


def grouped(detail: str) -> dict[str, Any]:
    """Four processes, of which pairs hold the same rows: sync over the other dimension alone."""
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("data", "tensor"))
    fitter = tk.DMDFitter(dynamics="span")
    for batch in BATCHES[mesh["data"].get_local_rank() :: 2]:
        fitter.update(trajectory(batch))
    try:
        fitter.sync(mesh)
        refusal = "no error"
    except ValueError as error:
        refusal = str(error)
    return {"refusal": refusal, "rows": fitter.sync(mesh["data"]).surrogate.record.rows}


@contextmanager
def dying(rank: int, exchange: int, stays: bool) -> Iterator[None]:
    """Process ``rank`` dies, or stays away, in so many-th exchange of a sync."""
    finish, count = Processes._finish, [0]

    def counted(self: Processes, work: Any) -> None:
        count[0] += 1
        if self.rank == rank and count[0] == exchange:
            if stays:
                time.sleep(6)
            os.kill(os.getpid(), signal.SIGKILL)
        finish(self, work)

    Processes._finish = counted  # type: ignore[method-assign]
    try:
        yield
    finally:
        Processes._finish = finish  # type: ignore[method-assign]


def killed(detail: str) -> dict[str, Any]:
    """The last process dies before a second sync (0), in some exchange of it, or after it (99)."""
    exchange, stays = int(detail.strip("s")), "s" in detail
    rank, last = Processes().rank, Processes().size - 1
    fitter = closed_form("edmd", torch.float64)
    fitter.update(trajectory(BATCHES[rank], torch.float64)).sync()
    fitter.update(trajectory(BATCHES[rank + 3], torch.float64))
    before, error, begun = state_of(fitter), "", time.monotonic()
    if rank == last and exchange == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    try:
        with dying(last, exchange, stays):
            fitter.sync(timeout=3)
    except RuntimeError as found:
        error = str(found)
    waited = time.monotonic() - begun
    if rank == last:
        os.kill(os.getpid(), signal.SIGKILL)
    state = "before" if state_of(fitter) == before else state_of(fitter)
    return {"state": state, "error": error, "waited": waited, "rows": fitter._moments.count}


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 12), nn.Tanh(), nn.Linear(12, 12)]
    return nn.Sequential(*layers, nn.Tanh(), nn.Linear(12, 3))


def fitted(detail: str) -> dict[str, Any]:
    """``tk.fit`` on shards: even, uneven, or all rows in process 0."""
    method, _, how = detail.partition(",")
    rank, size = Processes().rank, Processes().size
    rows = torch.arange(3000)
    shards = {
        "even": rows[rank::size],
        "uneven": rows[:2900] if rank == 0 else rows[2900:],
        "empty": rows if rank == 0 else rows[:0],
    }
    x = torch.randn(3000, 6, generator=torch.Generator().manual_seed(1))
    mine = shards[how]
    loader = [(x[each], each % 3) for each in mine.split(50)] if len(mine) else []
    options = {"latent": 8, "steps": 60} if method == "autoencoder" else {}
    surrogate = tk.fit(network(), loader, ["1", "3", "5"], method=method, **options)
    return {"rows": surrogate.record.rows, **summary(surrogate)}


def trained(detail: str) -> dict[str, Any]:
    """An autoencoder by hand: stream, sync, stream, sync, train; and what train refuses."""
    rank = Processes().rank
    fitter = tk.AutoencoderFitter(latent=8, calibration=150, steps_per_update=1, batch=33)
    for batch in BATCHES[rank:8:2]:
        fitter.update(trajectory(batch))  # held back: 80 rows each
    fitter.sync()
    for batch in BATCHES[8 + rank :: 2]:
        fitter.update(trajectory(batch))
    steps, refusals = fitter.steps, []
    for ready in (False, True):
        if ready:
            fitter.sync(timeout=60)
        try:
            fitter.train(10 + rank * ready)
        except ValueError as error:
            refusals.append(str(error))
    time.sleep(0.3 * rank)  # the other one waits, long after the last sync's timeout
    with mock.patch("torchkoopman.observe.processes.time.monotonic", return_value=math.inf):
        fitter.train(30)
    once = summary(fitter.surrogate)
    again = tk.AutoencoderFitter(latent=8, calibration=150, steps_per_update=1, batch=33)
    again.load_state_dict(fitter.sync().state_dict())
    again.sync()
    return {
        "steps": steps,
        "refusals": refusals,
        "resumed": [again.surrogate.record.rows, summary(again.surrogate)["record"]],
        "synced": digest(*summary(fitter.surrogate).values()) == digest(*once.values()),
        **once,
    }


def tokens() -> list[Tensor]:
    """Six batches of sentences, of which each rank has some."""
    generator = torch.Generator().manual_seed(5)
    return [torch.randn(size, 3, 6, generator=generator) for size in (30, 20, 31, 12, 25, 30)]


RANKED: dict[str, dict[str, Any]] = {
    "plain": {},
    "features": {"observables": tk.RandomFeatures(9)},
    "positions": {"observables": [tk.RandomFeatures(9), tk.ContextMean()], "positions": 2},
}


def ranking(batches: list[Tensor], **options: Any) -> tk.results.SpanRanking:
    return tk.rank_spans(network(), batches, ["1", "3", "5"], progress=False, **options)


def ranked(detail: str) -> dict[str, Any]:
    """Spans ranked by shards of 3 and 3, 5 and 1, or 0 and 6 batches; on from there; refusals."""
    rank, found = Processes().rank, {}
    for name, options in RANKED.items():
        for cut in (3, 5, 0):
            mine = (tokens()[:cut], tokens()[cut:])[rank]
            generator = torch.Generator().manual_seed(7 * rank)  # the first one's counts
            found[name, cut] = spans_of(ranking(mine, generator=generator, **options))
    first = ranking((tokens()[:1], tokens()[1:3])[rank]).statistics
    found["on"] = spans_of(ranking((tokens()[3:5], tokens()[5:])[rank], statistics=first))
    ways: dict[str, Callable[[], Any]] = {
        "layers": lambda: tk.rank_spans(
            network(), tokens(), [["1", "3"], ["1", "5"]][rank], progress=False
        ),
        "ridge": lambda: ranking(tokens(), ridge=(1e-7, 1e-3)[rank]),
        "observables": lambda: ranking(tokens(), observables=[tk.Monomials(2)][:rank]),
        "statistics": lambda: ranking(
            tokens(), statistics=first if rank else ranking(tokens(), group=mine_alone).statistics
        ),
        "few": lambda: ranking(tokens()[: 1 - rank]),
        "alike": lambda: ranking(tokens()),
    }
    mine_alone = [dist.new_group([each]) for each in range(2)][rank]
    for name, way in ways.items():
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                found[name] = f"no error, {way().rows} rows"
            except ValueError as error:
                found[name] = str(error)
        found[name] += "".join(str(each.message) for each in caught)
    return found


def spans_of(ranking: tk.results.SpanRanking) -> dict[str, Any]:
    """All that a ranking says."""
    spans = [(each.start, each.end, each.r2, each.skip, each.best) for each in ranking.spans]
    return {"spans": spans, "rows": ranking.rows, "costs": repr(ranking.spans[0].removed)}


def example(detail: str) -> dict[str, Any]:
    """A script of ``examples/`` as torchrun starts it; it joins and leaves the group itself."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
    surrogate = importlib.import_module(detail).main()
    return {"rows": surrogate.record.rows, **summary(surrogate)}


CASES: dict[str, Callable[[str], dict[Any, Any]]] = {
    case.__name__: case
    for case in (again, uneven, wide, refused, grouped, killed, fitted, trained, ranked, example)
}


def run(group: str, folder: Path, rank: int) -> None:
    size, case, detail = group.split(":")
    torch.set_num_threads(1)
    os.chdir(folder)
    if case == "example":
        os.environ |= {"RANK": str(rank), "WORLD_SIZE": size, "LOCAL_RANK": str(rank)}
    else:
        dist.init_process_group(
            "gloo",
            init_method=f"file://{folder / 'store'}",
            rank=rank,
            world_size=int(size),
            timeout=datetime.timedelta(seconds=60),
        )
    torch.save(CASES[case](detail), folder / f"{rank}.pt")


def main(folder: Path, groups: list[str]) -> None:
    for group in groups:
        place = folder / group
        place.mkdir()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
        forked(int(group.split(":")[0]), partial(run, group, place))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
