"""Swaps on a GPU; left out where there is none."""

import pytest
import torch
from torch import Tensor, nn

import torchkoopman as tk

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.fc, self.drop = nn.LayerNorm(16), nn.Linear(16, 16), nn.Dropout(0.2)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.drop(torch.tanh(self.fc(self.norm(x))))


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block() for _ in range(6))
        self.register_buffer("calls", torch.zeros(()))
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        out: Tensor = self.head(x)
        return out


class Counting(Network):
    """Every call counts, which a graph would do once."""

    def forward(self, x: Tensor) -> Tensor:
        self.calls.add_(1)
        return super().forward(x) / self.calls


def rows(seed: int) -> Tensor:
    return torch.randn(5, 16, generator=torch.Generator().manual_seed(seed)).cuda()


@pytest.mark.parametrize("how", ["auto", "fx", "export", "eager"])
@torch.no_grad()
def test_the_module_stands_between_the_two_outputs(how: str) -> None:
    torch.manual_seed(0)
    model, middle = Network().cuda().eval(), nn.Linear(16, 16)
    edited = tk.swap(model, middle, "blocks.0", "blocks.3", how, rows(0))
    assert {each.device.type for each in edited.parameters()} == {"cuda"}
    hidden = middle.cuda()(model.blocks[0](rows(1)))
    expected = model.head(model.blocks[5](model.blocks[4](hidden)))
    torch.testing.assert_close(edited(rows(1)), expected)
    assert torch.equal(tk.undo(edited)(rows(1)), model(rows(1)))


@torch.no_grad()
def test_a_counter_counts_on() -> None:
    model = Counting().cuda().eval()
    edited = tk.swap(
        model, nn.Linear(16, 16).cuda(), "blocks.0", "blocks.3", example_inputs=rows(0)
    )
    first, second = edited(rows(1)), edited(rows(1))
    torch.testing.assert_close(second * 2, first)
    assert model.calls == 0


def test_random_numbers_of_the_gpu_are_as_before() -> None:
    model = Network().cuda().train()
    before = torch.cuda.get_rng_state(), torch.get_rng_state()
    with pytest.raises(RuntimeError, match=r"swap in eval\(\) mode"):
        tk.swap(model, nn.Identity(), "blocks.0", "blocks.3", "fx", rows(0))
    assert torch.equal(torch.cuda.get_rng_state(), before[0])
    assert torch.equal(torch.get_rng_state(), before[1])


def test_a_surrogate_fitted_on_the_gpu_is_swapped_and_trains_there() -> None:
    torch.manual_seed(0)
    model = Network().cuda().eval()
    loader = [rows(seed) for seed in range(80)]
    surrogate = tk.fit(model, loader, ["blocks.0", "blocks.3"], method="dmd", progress=False)
    edited = tk.swap(model, surrogate, example_inputs=rows(0)).train()
    edited(rows(1)).sum().backward()
    assert all(each.grad is not None for each in edited.head.parameters())
    assert all(each.grad is None for each in model.parameters())
