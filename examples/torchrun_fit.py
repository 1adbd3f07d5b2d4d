"""Many processes fit one surrogate, each on its shard of the data.

    torchrun --nproc-per-node 2 examples/torchrun_fit.py

Lightning, Accelerate and Ray Train put their processes into one such group too: there leave out the
first and the last line of ``main``.
"""

import torch
import torch.distributed as dist
from torch import nn
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

import torchkoopman as tk


def main() -> tk.Surrogate:
    """Fit; every process returns the same surrogate, and keeps a file of it, to compare."""
    dist.init_process_group()
    torch.manual_seed(0)  # the same network in every process
    blocks = [nn.Sequential(nn.Linear(16, 16), nn.Tanh()) for _ in range(4)]
    model = nn.Sequential(*blocks, nn.Linear(16, 3))
    data = TensorDataset(torch.randn(6000, 16), torch.randint(3, (6000,)))
    loader = DataLoader(data, batch_size=100, sampler=DistributedSampler(data))
    unseen = [torch.randn(1000, 16)]

    surrogate = tk.fit(model, loader, ["0", "3"], method="dmd", held_out=unseen)

    surrogate.save(f"process-{dist.get_rank()}.safetensors")
    dist.destroy_process_group()
    return surrogate


if __name__ == "__main__":
    main()
