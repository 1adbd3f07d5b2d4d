"""What a swap saves in time, against what its operations promise: ``make speed``.

Two ratios and their quotient; no absolute time is claimed. The networks are untrained, since their
speed does not depend on their weights, and what the surrogates are worth is not asked here.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from importlib.util import find_spec
from statistics import median
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

import torchkoopman as tk
from benchmarks.networks import ResidualMLP
from torchkoopman.observe.costs import cost_of, short

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class EncoderBlock(nn.Module):
    """Attention and a perceptron, each normalised first and added to what came in."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.inputs, self.outputs = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        split = self.inputs(self.first(x)).unflatten(-1, (3, self.heads, -1))
        query, key, value = split.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = nn.functional.scaled_dot_product_attention(query, key, value)
        x = x + self.outputs(mixed.transpose(1, 2).flatten(-2))
        y: Tensor = x + self.mlp(self.second(x))
        return y


class Encoder(nn.Module):
    """A transformer encoder over vectors, with a linear head on their mean."""

    def __init__(self, width: int, depth: int, heads: int = 8) -> None:
        super().__init__()
        self.embed = nn.Linear(32, width)
        self.blocks = nn.Sequential(*(EncoderBlock(width, heads) for _ in range(depth)))
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.blocks(self.embed(x)).mean(1))
        return y


class ConvolutionBlock(nn.Module):
    """``ReLU(x + BN(conv(ReLU(BN(conv x)))))``."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.body(x))


class ResidualCNN(nn.Module):
    """A stem, blocks of one resolution, and a linear head on their mean."""

    def __init__(self, channels: int, depth: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 3, padding=1)
        self.blocks = nn.Sequential(*(ConvolutionBlock(channels) for _ in range(depth)))
        self.head = nn.Linear(channels, 10)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.blocks(self.stem(x)).mean((-2, -1)))
        return y


@dataclass(frozen=True)
class Row:
    """One swap: what it promises and what it does."""

    network: str
    span: str
    """First and last layer."""
    before: float
    """Operations of the network per sample."""
    after: float
    """The same of the edited one."""
    speedup: float
    """Time of the network by that of the edited one, median of the turns of one run."""

    @property
    def promised(self) -> float:
        """Ratio of operations."""
        return self.before / self.after

    @property
    def kept(self) -> float:
        """Share of the promised speed-up that is measured."""
        return self.speedup / self.promised

    def __str__(self) -> str:
        operations = f"{short(self.before)} → {short(self.after)}"
        return (
            f"{self.network:<20} {self.span:<35} {operations:>16} {self.promised:8.2f}× "
            f"{self.speedup:8.2f}× {self.kept:7.2f}"
        )


HEAD = (
    f"{'network':<20} {'span replaced':<35} {'operations':>16} {'promised':>9} {'measured':>9} "
    f"{'kept':>7}"
)


def measure(
    name: str,
    model: nn.Module,
    start: str,
    end: str,
    make: Callable[[], Tensor],
    fitting: int = 4,
    turns: int = 15,
    least: float = 0.25,
) -> Row:
    """Replace a span by DMD's operator and time both networks in turn on one batch.

    Args:
        name: of the network, for the table.
        model: the network, in eval mode.
        start: first layer of the span.
        end: last layer of the span.
        make: draws a batch, the model's one argument.
        fitting: batches that the operator is fitted on.
        turns: times each network is timed.
        least: seconds that one timing takes at least.
    """
    batches = [make() for _ in range(fitting)]
    surrogate = tk.fit(model, batches, [start, end], method="dmd", dynamics="span", progress=False)
    edited = tk.swap(model, surrogate, example_inputs=batches[0][:2])
    before, after = (cost_of(each, batches[0]).operations for each in (model, edited))
    ratio = speedup(model, edited, batches[0], turns, least)
    return Row(name, f"{start} → {end}", before, after, ratio)


@torch.no_grad()
def speedup(model: nn.Module, edited: nn.Module, batch: Tensor, turns: int, least: float) -> float:
    """Time of one forward pass of ``model`` by that of ``edited``: the median over the turns.

    In each turn both run for about as long, one right after the other, so that whatever else the
    machine does slows both.
    """
    counts = {each: passes(each, batch, least) for each in (model, edited)}
    ratios = []
    for turn in range(turns):
        order = (model, edited) if turn % 2 else (edited, model)
        times = {each: seconds(each, batch, counts[each]) for each in order}
        ratios.append(times[model] / times[edited])
    return median(ratios)


def passes(model: nn.Module, batch: Tensor, least: float) -> int:
    """How many forward passes take ``least`` seconds, after one to warm up."""
    model(batch)
    count, start = 0, time.process_time()
    while count == 0 or time.process_time() - start < least:
        model(batch)
        count += 1
    return count


def seconds(model: nn.Module, batch: Tensor, count: int) -> float:
    """Processor time of one forward pass, mean of ``count``: waiting for others is left out."""
    start = time.process_time()
    for _ in range(count):
        model(batch)
    return (time.process_time() - start) / count


@dataclass(frozen=True)
class Subject:
    """A network to try, and what it is called with."""

    name: str
    model: nn.Module
    blocks: str
    """Name of its twelve blocks without their number."""
    make: Callable[[], Tensor]
    """Draws a batch."""


def subjects() -> Iterator[Subject]:
    """Networks whose time goes into matrix products."""
    torch.manual_seed(0)
    perceptron = ResidualMLP(64, 512, 12, 10)
    yield Subject("MLP 12 × 512", perceptron, "blocks", lambda: torch.randn(512, 64))
    encoder = Encoder(256, 12)
    yield Subject("transformer 12 × 256", encoder, "blocks", lambda: torch.randn(8, 64, 32))
    cnn = ResidualCNN(64, 12)
    yield Subject("CNN 12 × 64", cnn, "blocks", lambda: torch.randn(8, 3, 32, 32))
    if find_spec("transformers") is None:
        print("BERT is left out: transformers is not installed (pip install transformers)")
        return
    from transformers import BertConfig, BertModel

    config = BertConfig(
        hidden_size=512, intermediate_size=2048, num_attention_heads=8, vocab_size=1000
    )
    bert = BertModel(config, add_pooling_layer=False)
    yield Subject("BERT 12 × 512", bert, "encoder.layer", lambda: torch.randint(1000, (8, 64)))


def main() -> None:
    """Replace half of each network's blocks, then nearly all of them, and print the table."""
    torch.set_num_threads(1)
    print(HEAD)
    for each in subjects():
        for start, end in ((2, 8), (0, 11)):
            ends = f"{each.blocks}.{start}", f"{each.blocks}.{end}"
            print(measure(each.name, each.model.eval(), *ends, each.make), flush=True)


if __name__ == "__main__":
    main()
