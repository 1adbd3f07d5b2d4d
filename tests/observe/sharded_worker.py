"""What ``test_sharded.py`` runs in two processes: each case compares with the unshared network."""

from __future__ import annotations

import copy
import datetime
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_module
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    PrepareModuleInput,
    PrepareModuleOutput,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)

import torchkoopman as tk

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch.distributed.device_mesh import DeviceMesh

    from torchkoopman.observe.trajectory import Trajectory

MESH = (2,)


class Block(nn.Module):
    """Residual, as transformers have them: a norm, then wide and narrow again."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.up = nn.LayerNorm(8), nn.Linear(8, 16)
        self.act, self.down = nn.GELU(), nn.Linear(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.down(self.act(self.up(self.norm(x))))
        return out


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(Block(), Block(), Block())
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.blocks(x))
        return out


def network() -> Net:
    torch.manual_seed(0)
    return Net()


def inputs(batch: int = 6, seed: int = 1) -> Tensor:
    return torch.randn(batch, 4, 8, generator=torch.Generator().manual_seed(seed))


def parallel(
    plan: dict[str, Any], model: nn.Module | None = None, mesh: DeviceMesh | None = None
) -> nn.Module:
    """The network with a plan for each of its blocks."""
    model = network() if model is None else model
    mesh = init_device_mesh("cpu", MESH) if mesh is None else mesh
    for block in model.get_submodule("blocks").children():
        parallelize_module(block, mesh, {name: plan[name]() for name in plan})
    return model


TENSOR: dict[str, Any] = {"up": ColwiseParallel, "down": RowwiseParallel}
DTENSORS: dict[str, Any] = {
    "up": lambda: ColwiseParallel(use_local_output=False),
    "down": lambda: RowwiseParallel(),
}
REPLICATED: dict[str, Any] = {
    "up": lambda: ColwiseParallel(output_layouts=Replicate()),
    "down": lambda: RowwiseParallel(input_layouts=Replicate()),
}


def sequence(local: bool, mesh: DeviceMesh | None = None) -> nn.Module:
    """Blocks on half of the positions each; only the head has them all again."""
    plan: dict[str, Any] = {
        "norm": lambda: SequenceParallel(use_local_output=local),
        "up": lambda: ColwiseParallel(input_layouts=Shard(1)),
        "down": lambda: RowwiseParallel(output_layouts=Shard(1)),
    }
    mesh = init_device_mesh("cpu", MESH) if mesh is None else mesh
    model = parallel(plan, mesh=mesh)
    halves = PrepareModuleInput(
        input_layouts=Replicate(), desired_input_layouts=Shard(1), use_local_output=True
    )
    head = ColwiseParallel(input_layouts=Shard(1), output_layouts=Replicate())
    parallelize_module(model, mesh, {"blocks": halves, "head": head})
    return model


def watch(model: nn.Module, layers: Any, x: Tensor, grad: bool = False, **options: Any) -> Any:
    """The trajectory of one forward pass, or what the refusal says."""
    got: list[Trajectory] = []
    probe = tk.attach(model, layers, **options).stream_to(got.append)
    try:
        with torch.set_grad_enabled(grad):
            out = model(x)
            if grad:
                (out if isinstance(out, Tensor) else out[0]).sum().backward()
    except ValueError as error:
        hooks = sum(
            getattr(hook, "may_be_lost", False)
            for module in model.modules()
            for hook in (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
        )
        with torch.no_grad():
            model(x)  # goes on without the probe
        return f"{error} Hooks left: {hooks}. Passed on: {len(got)}."
    finally:
        probe.detach()
    return got[0]


def gap(found: Any, layers: Any, x: Tensor | None = None) -> str:
    """Nothing if the states are those of the unshared network."""
    if isinstance(found, str):
        return found
    expected = watch(network(), layers, inputs() if x is None else x)
    assert found.layers == expected.layers
    for layer, state in expected.states.items():
        other = found.states[layer]
        assert type(other) is Tensor, type(other)
        if other.shape != state.shape or not torch.allclose(other, state, atol=1e-5):
            return f"{layer}: {tuple(other.shape)} for {tuple(state.shape)}"
        assert found.views[layer] == expected.views[layer]
    return ""


def seen(make: Callable[[], nn.Module], *layers: str, **options: Any) -> Callable[[], str]:
    return lambda: gap(watch(make(), list(layers), inputs(), **options), list(layers))


class Crossed(nn.Module):
    """A part that waits while another branch is made whole again."""

    def __init__(self, between: bool) -> None:
        super().__init__()
        self.one, self.two, self.down = nn.Linear(8, 16), nn.Linear(8, 16), nn.Linear(16, 8)
        self.act, self.between = nn.GELU(), between

    def forward(self, x: Tensor) -> Tensor:
        part = self.one(x)
        x = x + self.down(self.two(x))
        part = self.act(part * 2 if self.between else part)
        return x.mean() + part.sum()


def crossed(grad: bool, between: bool) -> str:
    plan: Any = {"one": ColwiseParallel(), "two": ColwiseParallel(), "down": RowwiseParallel()}
    model = parallelize_module(Crossed(between), init_device_mesh("cpu", MESH), plan)
    return str(watch(model, ["down", "act"], inputs(), grad))


def early(plan: dict[str, Any], layers: str) -> str:
    """Parallel only after the probe is on, so that the styles' hooks are behind the probe's."""
    model, got = network(), list[Any]()
    with tk.attach(model, layers) as probe, torch.no_grad():
        probe.stream_to(got.append)
        parallel(plan, model)
        try:
            model(inputs())
        except ValueError as error:
            return str(error)
    return gap(got[0], layers)


def unknown() -> str:
    """A style of somebody's own, whose output is a plain part."""

    def shard(name: str, module: nn.Module, mesh: Any) -> None:
        ColwiseParallel()._partition_linear_fn(name, module, mesh)

    def enter(module: nn.Module, args: Any, mesh: Any) -> Any:
        return (DTensor.from_local(args[0], mesh, [Replicate()], run_check=False),)

    model = network()
    distribute_module(
        model.head,
        init_device_mesh("cpu", MESH),
        shard,
        enter,
        lambda module, output, mesh: output.to_local(),
    )
    return gap(watch(model, ["blocks.2", "head"], inputs()), ["blocks.2", "head"])


def prepared(output: Any, desired: Any) -> Callable[[], nn.Module]:
    """A block whose output a style moves."""

    def make() -> nn.Module:
        model, mesh = parallel(TENSOR), init_device_mesh("cpu", MESH)
        style = PrepareModuleOutput(output_layouts=output, desired_output_layouts=desired)
        parallelize_module(model, mesh, {"blocks.2": style})
        return model

    return make


def uneven() -> str:
    """17 features for two processes: parts of 9 and 8."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 17))
    expected, mesh = copy.deepcopy(model)(inputs()), init_device_mesh("cpu", MESH)
    parallelize_module(model, mesh, {"1": ColwiseParallel()})
    found = watch(model, "*", inputs(), gather=True)
    return "" if torch.allclose(found.states["1"], expected, atol=1e-5) else "differs"


def sharded_data(late: bool, submodule: bool = False, tensor: bool = False) -> str:
    """FSDP2, before or after the probe is on; with columns and rows shared out too."""
    model: nn.Module = network()
    mesh = None
    if tensor:
        both = init_device_mesh("cpu", (1, 2), mesh_dim_names=("data", "tensor"))
        mesh = both["data"]
        for block in model.get_submodule("blocks").children():
            plan: Any = {"up": ColwiseParallel(), "down": RowwiseParallel()}
            parallelize_module(block, both["tensor"], plan)

    def shard() -> None:
        for block in () if submodule else model.get_submodule("blocks").children():
            fully_shard(block, mesh=mesh) if mesh is not None else fully_shard(block)
        fully_shard(model, mesh=mesh) if mesh is not None else fully_shard(model)

    layers = ["blocks.0", "blocks.1.up", "blocks.2"] if not tensor else ["blocks.0", "blocks.2"]
    got: list[Any] = []
    if not late:
        shard()
    part = model.get_submodule("blocks") if submodule else model
    names = [name.removeprefix("blocks.") for name in layers] if submodule else layers
    with tk.attach(part, names) as probe, torch.no_grad():
        probe.stream_to(got.append)
        if late:
            shard()
        model(inputs()), model(inputs())
    assert len(got) == 2
    expected = watch(network(), layers, inputs())
    pairs = zip(expected.states.values(), got[1].states.values(), strict=True)
    return "" if all(torch.allclose(a, b, atol=1e-5) for a, b in pairs) else "differs"


def replicas() -> str:
    """DDP on half of the rows each; synced, the fit is that of all rows in one process."""
    model, rank = nn.parallel.DistributedDataParallel(network()), dist.get_rank()
    x, fitter, alone = inputs(40), tk.DMDFitter(), tk.DMDFitter()
    with tk.attach(model, "module.blocks.*") as probe:
        probe.stream_to(fitter)
        model(x[:24] if rank == 0 else x[24:]).sum().backward()
    reference = network()
    with tk.attach(reference, "blocks.*") as probe:
        probe.stream_to(alone)
        reference(x)
    found, expected = fitter.sync().surrogate, alone.surrogate
    assert found.record.rows == expected.record.rows == 160
    same = torch.allclose(found.operator.matrix(1.0), expected.operator.matrix(1.0), atol=1e-5)
    return "" if same else "differs"


def fitted() -> str:
    """One line on a model with columns and rows shared out."""
    loader = [inputs(40, seed) for seed in range(3)]
    options: dict[str, Any] = {"method": "dmd", "progress": False}
    found = tk.fit(parallel(TENSOR), loader, "blocks.*", **options)
    expected = tk.fit(network(), loader, "blocks.*", **options)
    same = torch.allclose(found.operator.matrix(1.0), expected.operator.matrix(1.0), atol=1e-3)
    return "" if same else "differs"


def one_process_alone() -> str:
    """Only one process watches: it refuses after the pass, so that nobody waits for it."""
    model = parallel(TENSOR)
    if dist.get_rank() == 0:
        return str(watch(model, "blocks.0.up", inputs()))
    with torch.no_grad():
        model(inputs()), model(inputs())
    return "went on"


def decoder(layer: str, grad: bool) -> str:
    """A decoder whose MLPs transformers has shared out."""
    import transformers
    from transformers.distributed.tensor_parallel import apply_tensor_parallelism

    def llama() -> nn.Module:
        torch.manual_seed(0)
        config = transformers.LlamaConfig(
            hidden_size=16,
            intermediate_size=20,
            num_hidden_layers=2,
            num_attention_heads=2,
            vocab_size=30,
        )
        model: nn.Module = transformers.LlamaModel(config)
        return model

    styles = {"gate_proj": "colwise", "up_proj": "colwise", "down_proj": "rowwise"}
    plan = {}
    for name in (f"layers.{k}.mlp.{part}" for k in (0, 1) for part in styles):
        plan |= dict.fromkeys((f"{name}.weight", name), styles[name.rpartition(".")[2]])
    mesh = init_device_mesh("cpu", MESH)
    tokens, layers = torch.arange(24).reshape(4, 6), [f"layers.{k}{layer}" for k in (0, 1)]
    model = apply_tensor_parallelism(llama(), mesh, plan)
    found, expected = watch(model, layers, tokens, grad), watch(llama(), layers, tokens)
    if isinstance(found, str):
        return found
    pairs = zip(expected.states.values(), found.states.values(), strict=True)
    return "" if all(torch.allclose(a, b, atol=1e-5) for a, b in pairs) else "differs"


def alone() -> nn.Module:
    """Columns and rows over one process each: nothing is shared out."""
    model, mesh = network(), init_device_mesh("cpu", (2, 1), mesh_dim_names=("data", "tensor"))
    for block in model.blocks.children():
        plan: Any = {"up": ColwiseParallel(), "down": RowwiseParallel()}
        parallelize_module(block, mesh["tensor"], plan)
    return model


def swapped(make: Callable[[], nn.Module]) -> str:
    reference = network()
    surrogate = tk.fit(reference, [inputs(40)], "blocks.*", method="dmd", progress=False)
    try:
        tk.swap(make(), surrogate, example_inputs=inputs())
    except ValueError as error:
        return str(error)
    return "swapped"


def shared() -> nn.Module:
    model = network()
    fully_shard(model)
    return model


def tensors() -> nn.Module:
    return parallel(TENSOR)


def dtensors() -> nn.Module:
    return parallel(DTENSORS)


CASES: dict[str, Callable[[], str]] = {
    # right
    "blocks": seen(tensors, "blocks.0", "blocks.1", "blocks.2"),
    "blocks, with gradients": seen(tensors, "blocks.0", "blocks.2", grad=True),
    "row": seen(tensors, "blocks.0.down", "blocks.1.down"),
    "before the columns": seen(tensors, "blocks.0.norm", "blocks.1.norm"),
    "row of DTensors": seen(dtensors, "blocks.0.down", "blocks.1.down"),
    "replicated columns": seen(lambda: parallel(REPLICATED), "blocks.0.up", "blocks.1.act"),
    "head behind sequences": seen(lambda: sequence(True), "head"),
    "prepared whole": seen(prepared(Replicate(), Replicate()), "blocks.1", "blocks.2"),
    "gathered columns": seen(tensors, "blocks.0.up", "blocks.1.up", gather=True),
    "gathered columns, with gradients": seen(tensors, "blocks.0.up", grad=True, gather=True),
    "gathered DTensors": seen(dtensors, "blocks.0.up", "blocks.0.act", gather=True),
    "gathered sequence": seen(
        lambda: sequence(True), "blocks.0.norm", "blocks.0.down", gather=True
    ),
    "gathered DTensor sequence": seen(lambda: sequence(False), "blocks.0.norm", gather=True),
    "gathered uneven": uneven,
    "early blocks": lambda: early(TENSOR, "blocks.*"),
    "early row": lambda: early(TENSOR, "blocks.0.down"),
    "FSDP": lambda: sharded_data(late=False),
    "FSDP after attach": lambda: sharded_data(late=True),
    "FSDP of a part": lambda: sharded_data(late=False, submodule=True),
    "FSDP and columns": lambda: sharded_data(late=False, tensor=True),
    "DDP": replicas,
    "fit": fitted,
    "one process each": seen(alone, "blocks.0.up", "blocks.0.act", "blocks.0.down"),
    "decoder layers": lambda: decoder("", grad=False),
    "decoder rows": lambda: decoder(".mlp.down_proj", grad=True),
    # refused by name
    "decoder columns": lambda: decoder(".mlp.gate_proj", grad=False),
    "columns": seen(tensors, "blocks.0.up", "blocks.1"),
    "behind columns": seen(tensors, "blocks.1.act"),
    "columns of DTensors": seen(dtensors, "blocks.0.up"),
    "behind columns of DTensors": seen(dtensors, "blocks.0.act"),
    "gathered behind columns": seen(tensors, "blocks.1.act", gather=True),
    "past another branch": lambda: crossed(grad=False, between=False),
    "past another branch, with gradients": lambda: crossed(grad=True, between=True),
    "sequence": seen(lambda: sequence(True), "blocks.0.norm"),
    "DTensor sequence": seen(lambda: sequence(False), "blocks.0.norm"),
    "blocks of a sequence": seen(lambda: sequence(True), "blocks.1"),
    "prepared part": seen(prepared(Replicate(), Shard(1)), "blocks.2"),
    "unknown style": unknown,
    "one process": one_process_alone,
    "swap": lambda: swapped(tensors),
    "swap FSDP": lambda: swapped(shared),
}


def main(folder: Path) -> None:
    dist.init_process_group("gloo", timeout=datetime.timedelta(seconds=60))
    results = {name: case() for name, case in CASES.items()}
    torch.save(results, folder / f"{dist.get_rank()}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
