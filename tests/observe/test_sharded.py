"""Two processes that share a network: each layer's state is the whole one, or refused by name."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import torchkoopman as tk
from benchmarks.torchrun import ROOT
from tests.processes import completed, results
from torchkoopman.observe.placements import is_dtensor, parallel_modules

pytest.importorskip("transformers", reason="needs the extra 'transformers'")

WORKER = Path(__file__).with_name("sharded_worker.py")

RIGHT = [
    "blocks",
    "blocks, with gradients",
    "row",
    "before the columns",
    "row of DTensors",
    "replicated columns",
    "head behind sequences",
    "prepared whole",
    "gathered columns",
    "gathered columns, with gradients",
    "gathered DTensors",
    "gathered sequence",
    "gathered DTensor sequence",
    "gathered uneven",
    "early blocks",
    "early row",
    "FSDP",
    "FSDP after attach",
    "FSDP of a part",
    "FSDP and columns",
    "DDP",
    "fit",
    "one process each",
    "decoder layers",
    "decoder rows",
]
REFUSED = {
    "columns": r"layer 'blocks.0.up' gives .*Shard\(dim=-1\) over 2.*layer is 'blocks.0.down'",
    "behind columns": "layer 'blocks.1.act' lies behind 'blocks.1.up'.*is 'blocks.1.down'",
    "columns of DTensors": r"layer 'blocks.0.up'.*Shard\(dim=2\) over 2.*is 'blocks.0.down'",
    "behind columns of DTensors": r"layer 'blocks.0.act'.*Shard\(dim=2\).*is 'blocks.0.down'",
    "gathered behind columns": "layer 'blocks.1.act' lies behind.*gather=True puts together what",
    "past another branch": "layer 'act' is computed from another layer's output of which each",
    "past another branch, with gradients": "layer 'act' is computed from another layer's output",
    "sequence": r"layer 'blocks.0.norm'.*Shard\(dim=1\) over 2.*whole layer is 'head'",
    "DTensor sequence": r"layer 'blocks.0.norm'.*Shard\(dim=1\) over 2.*whole layer is 'head'",
    "blocks of a sequence": "layer 'blocks.1' lies behind 'blocks.1.down'.*whole layer is 'head'",
    "prepared part": r"layer 'blocks.2' gives.*Shard\(dim=1\).*no later layer of it is whole",
    "unknown style": "layer 'head' gives.*a style that does not say what it returns",
    "decoder columns": "'layers.1.mlp.gate_proj' gives.*whole layer is 'layers.1.mlp.down_proj'",
}
"""Case → what the refusal says; after it no hook is left and the model goes on."""


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, str]]:
    """What the two processes of one start say of every case."""
    return results(WORKER, tmp_path_factory.mktemp("sharded"))


@pytest.mark.slow
@pytest.mark.parametrize("case", RIGHT)
def test_states_are_those_of_the_network_in_one_process(
    processes: list[dict[str, str]], case: str
) -> None:
    assert [each[case] for each in processes] == ["", ""]


@pytest.mark.slow
@pytest.mark.parametrize("case", REFUSED)
def test_parts_are_refused_by_name_with_the_next_whole_layer(
    processes: list[dict[str, str]], case: str
) -> None:
    """Merged, they would be taken for the same features; and the user's forward pass goes on."""
    for each in processes:
        assert re.search(REFUSED[case], each[case]), each[case]
        assert "Hooks left: 0. Passed on: 0." in each[case]


@pytest.mark.slow
def test_a_process_that_watches_alone_refuses_without_holding_up_the_others(
    processes: list[dict[str, str]],
) -> None:
    first, second = (each["one process"] for each in processes)
    assert "layer 'blocks.0.up' gives" in first
    assert second == "went on"


@pytest.mark.slow
@pytest.mark.parametrize("case", ["swap", "swap FSDP"])
def test_swap_refuses_a_network_that_is_shared_out(
    processes: list[dict[str, str]], case: str
) -> None:
    for each in processes:
        assert re.search(r"swap\(\).*'blocks.0.*weight' is a DTensor .*one process", each[case])


@pytest.mark.slow
def test_every_case_is_asked_for(processes: list[dict[str, str]]) -> None:
    others = {"one process", "swap", "swap FSDP"}
    assert set(processes[0]) == {*RIGHT, *REFUSED, *others}


def test_one_process_pays_for_none_of_this() -> None:
    """Nor does it import what distributed tensors are made of."""
    code = (
        "import sys, torch, torchkoopman as tk\n"
        "model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))\n"
        "with tk.attach(model, '*', gather=True) as probe: model(torch.randn(3, 2))\n"
        "assert probe.report().trajectories == 1\n"
        "assert 'torch.distributed.tensor' not in sys.modules\n"
    )
    done = completed([sys.executable, "-c", code], cwd=ROOT)
    assert done.returncode == 0, done.stderr
    model = nn.Linear(2, 2)
    assert parallel_modules(model) == {}
    assert not is_dtensor(model.weight)
    with tk.attach(model, "", gather=True) as probe:
        model(torch.randn(3, 2))
    assert probe.report().trajectories == 1
