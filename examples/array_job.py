"""Jobs that never meet stream a shard each; their files become one surrogate.

    for shard in 0 1 2 3; do python examples/array_job.py $shard 4; done
    python examples/array_job.py merge 4

What a job has streamed is its fitter's state. All jobs calibrate with the same sample first.
"""

import sys

import torch
from torch import nn

import torchkoopman as tk

LAYERS = ["0", "1", "2", "3"]


def network() -> nn.Module:
    """The same in every job; yours comes from a file."""
    torch.manual_seed(0)
    return nn.Sequential(*(nn.Sequential(nn.Linear(16, 16), nn.Tanh()) for _ in range(4)))


def inputs(shard: int) -> torch.Tensor:
    """The rows of a job."""
    return torch.randn(1500, 16, generator=torch.Generator().manual_seed(shard))


def fitter() -> tk.EDMDFitter:
    """A fitter with the same coordinates and observables in every job."""
    made = tk.EDMDFitter(tk.RandomFeatures(100))
    with tk.attach(model := network(), LAYERS) as probe:
        probe.stream_to(made.calibrate)
        model(inputs(shard=0)[:1000])
    return made


def stream(shard: int) -> None:
    """One job."""
    made = fitter()
    with tk.attach(model := network(), LAYERS) as probe:
        probe.stream_to(made)
        for batch in inputs(shard).split(100):
            model(batch)
    torch.save(made.state_dict(), f"shard-{shard}.pt")


def merge(shards: int) -> tk.Surrogate:
    """The last job."""
    total = fitter()
    for shard in range(shards):
        state = torch.load(f"shard-{shard}.pt", weights_only=True)
        total.merge(fitter().load_state_dict(state))
    print(total.surrogate.spectrum().summary(5))
    return total.surrogate


if __name__ == "__main__":
    if sys.argv[1] == "merge":
        merge(int(sys.argv[2]))
    else:
        stream(int(sys.argv[1]))
