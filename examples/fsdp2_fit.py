"""A network sharded by FSDP2 is read as it is; each process streams its part of the data.

    torchrun --nproc-per-node 2 examples/fsdp2_fit.py

FSDP2 gathers weights in every forward pass, so here all processes need equally many batches.
"""

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

import torchkoopman as tk


def main() -> tk.Surrogate:
    """Shard, attach after that, fit over the mesh along which rows differ."""
    dist.init_process_group()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    mesh = init_device_mesh(device, (dist.get_world_size(),), mesh_dim_names=("data",))
    torch.manual_seed(0)
    blocks = [nn.Sequential(nn.Linear(16, 16), nn.Tanh()) for _ in range(4)]
    model = nn.Sequential(*blocks, nn.Linear(16, 3)).to(device)
    for block in blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    data = TensorDataset(torch.randn(4000, 16))
    loader = DataLoader(data, batch_size=100, sampler=DistributedSampler(data))

    surrogate = tk.fit(model, loader, ["0", "1", "2", "3"], method="dmd", group=mesh["data"])

    if dist.get_rank() == 0:
        print(surrogate.spectrum().summary(5))
    dist.destroy_process_group()
    return surrogate


if __name__ == "__main__":
    main()
