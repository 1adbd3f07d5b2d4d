"""What ``test_mesh.py`` runs in four processes: two share layers, times two that share rows."""

from __future__ import annotations

import datetime
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

import torchkoopman as tk
from tests.observe.sharded_worker import (
    DTENSORS,
    TENSOR,
    inputs,
    network,
    parallel,
    sequence,
    watch,
)
from torchkoopman.observe.trajectory import Trajectory

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn
    from torch.distributed.device_mesh import DeviceMesh

ROWS = [inputs(20, seed) for seed in range(4)]
"""Of all processes; those at one place along "data" take every other batch."""
BLOCKS, COLUMNS = "blocks.*", ["blocks.0.up", "blocks.1.up"]
BEHIND, NORMS = ["blocks.0", "blocks.1.act"], ["blocks.0.norm", "blocks.1.norm"]


def shared(mesh: DeviceMesh, plan: dict[str, Any], fsdp: bool = True) -> nn.Module:
    """The network in parts along "tensor", and along "data" in parts too, or whole in each."""
    model = parallel(plan, mesh=mesh["tensor"])
    if fsdp:
        for block in model.get_submodule("blocks").children():
            fully_shard(block, mesh=mesh["data"])
        fully_shard(model, mesh=mesh["data"])
    return model


def own(mesh: DeviceMesh) -> list[Tensor]:
    return ROWS[mesh["data"].get_local_rank() :: 2]


def gap(found: tk.Surrogate, layers: Any) -> str:
    """Nothing if it is the fit of all rows in one process."""
    alone, reference = tk.DMDFitter(), network()
    with torch.no_grad(), tk.attach(reference, layers) as probe:
        probe.stream_to(alone)
        for x in ROWS:
            reference(x)
    expected = alone.surrogate
    if found.record.rows != expected.record.rows:
        return f"{found.record.rows} rows for {expected.record.rows}"
    # Columns of a wide layer have fewer directions than features: their operator is not unique.
    r2, other = (tk.evaluate(each, reference, ROWS).r2 for each in (found, expected))
    return "" if abs(r2 - other) < 1e-4 else f"R² {r2} for {other}"


def watched(
    mesh: DeviceMesh, model: nn.Module, layers: Any, grad: bool = False, **options: Any
) -> str:
    """Each process streams its rows; those along "data" put them together."""
    fitter, got = tk.DMDFitter(), list[Trajectory]()
    try:
        with torch.set_grad_enabled(grad), tk.attach(model, layers, **options) as probe:
            probe.stream_to(fitter, got.append)
            for x in own(mesh):
                model(x)
    except ValueError as error:
        return str(error)
    for x, each in zip(own(mesh), got, strict=True):
        for layer, state in watch(network(), layers, x).states.items():
            if not torch.allclose(each.states[layer], state, atol=1e-5):
                return f"{layer} differs"
    return gap(fitter.sync(group=mesh["data"]).surrogate, layers)


def fitted(mesh: DeviceMesh, layers: Any, gather: bool) -> str:
    """One line, and its evaluation."""
    surrogate = tk.fit(
        shared(mesh, TENSOR),
        own(mesh),
        layers,
        method="dmd",
        held_out=ROWS[:1],
        progress=False,
        group=mesh["data"],
        gather=gather,
    )
    whole = tk.evaluate(surrogate, network(), ROWS[:1]).r2
    parts = tk.evaluate(surrogate, shared(mesh, TENSOR), ROWS[:1], gather=gather).r2
    if abs(whole - parts) > 1e-4:
        return f"R² {parts} for {whole}"
    return gap(surrogate, layers)


CASES: dict[str, Callable[[DeviceMesh], str]] = {
    # right
    "blocks": lambda mesh: watched(mesh, shared(mesh, TENSOR, fsdp=False), BLOCKS),
    "blocks of FSDP": lambda mesh: watched(mesh, shared(mesh, TENSOR), BLOCKS),
    "with gradients": lambda mesh: watched(mesh, shared(mesh, TENSOR), BLOCKS, grad=True),
    "gathered": lambda mesh: watched(mesh, shared(mesh, TENSOR), COLUMNS, gather=True),
    "gathered DTensors": lambda mesh: watched(mesh, shared(mesh, DTENSORS), COLUMNS, gather=True),
    "gathered sequence": lambda mesh: watched(
        mesh, sequence(local=True, mesh=mesh["tensor"]), NORMS, gather=True
    ),
    "fit": lambda mesh: fitted(mesh, BLOCKS, gather=False),
    "fit of gathered columns": lambda mesh: fitted(mesh, COLUMNS, gather=True),
    # refused by name
    "columns": lambda mesh: watched(mesh, shared(mesh, TENSOR), COLUMNS),
    "behind columns": lambda mesh: watched(mesh, shared(mesh, TENSOR, fsdp=False), BEHIND),
}


def main(folder: Path) -> None:
    dist.init_process_group("gloo", timeout=datetime.timedelta(seconds=120))
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("data", "tensor"))
    results = {name: case(mesh) for name, case in CASES.items()}
    torch.save(results, folder / f"{dist.get_rank()}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
