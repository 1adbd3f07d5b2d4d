"""Three networks that are looked at whole: a residual CNN, a ViT, and a decoder of eight blocks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.zoo.images import BasicBlock
from torchkoopman import datasets

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

WIDTH, PATCH, MODULO, LENGTH, PROMPT = 16, 4, 29, 16, 6
FLAT = "b c h w -> b 1 (c h w)"


class Residual(nn.Module):
    """A stem, three stages of two residual blocks at 16 × 16, 8 × 8 and 4 × 4, and a head."""

    def __init__(self) -> None:
        super().__init__()
        widths = (WIDTH, 2 * WIDTH, 4 * WIDTH)
        self.stem = nn.Sequential(nn.Conv2d(1, WIDTH, 3, padding=1), nn.ReLU())
        self.stage1 = nn.Sequential(BasicBlock(WIDTH, WIDTH), BasicBlock(WIDTH, WIDTH))
        self.stage2 = nn.Sequential(
            BasicBlock(WIDTH, widths[1], 2), BasicBlock(widths[1], widths[1])
        )
        self.stage3 = nn.Sequential(
            BasicBlock(widths[1], widths[2], 2), BasicBlock(widths[2], widths[2])
        )
        self.head = nn.Linear(widths[2], 10)

    def forward(self, images: Tensor) -> Tensor:
        """``(batch, 1, 16, 16)`` → ``(batch, 10)``."""
        out: Tensor = self.head(
            self.stage3(self.stage2(self.stage1(self.stem(images)))).mean((2, 3))
        )
        return out


class VisionTransformer(nn.Module):
    """Patches of 4 × 4 of an image of 16 × 16, a class token, and six blocks of width 64."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, 64, PATCH, PATCH)
        self.first = nn.Parameter(torch.zeros(1, 1, 64))
        self.place = nn.Parameter(0.02 * torch.randn(1, 17, 64))
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(
                64, 4, 128, dropout=0.0, batch_first=True, norm_first=True, activation="gelu"
            )
            for _ in range(6)
        )
        self.head = nn.Sequential(nn.LayerNorm(64), nn.Linear(64, 10))

    def forward(self, images: Tensor) -> Tensor:
        """``(batch, 1, 16, 16)`` → ``(batch, 10)``."""
        tokens = self.patches(images).flatten(2).mT
        state = torch.cat([self.first.expand(images.shape[0], -1, -1), tokens], 1) + self.place
        for block in self.blocks:
            state = block(state)
        out: Tensor = self.head(state[:, 0])
        return out


@dataclass(frozen=True)
class Span:
    """A span that is fitted and swapped."""

    start: str
    end: str
    options: Mapping[str, Any]
    """Of ``tk.fit``: method, rank, layout."""


@dataclass(frozen=True)
class Network:
    """A trained network, what it is looked at with, and the spans that are replaced."""

    model: nn.Module
    train: list[Any]
    """Batches as a loader gives them."""
    right: Callable[[nn.Module], float]
    """Share of test answers that are right."""
    layers: str
    """Of the whole network's ranking."""
    spans: tuple[Span, ...]


def images(seed: int) -> tuple[list[tuple[Tensor, Tensor]], Tensor, Tensor]:
    """Digits at 16 × 16: batches to train on, test images and their classes."""
    data = datasets.digits(test=0.25, seed=seed)

    def large(inputs: Tensor) -> Tensor:
        return nn.functional.interpolate(inputs.reshape(-1, 1, 8, 8), size=16, mode="bilinear")

    parts = (torch.split(each, 100) for each in (large(data.train.inputs), data.train.labels))
    return list(zip(*parts, strict=True)), large(data.test.inputs), data.test.labels


def classifier(kind: str, seed: int) -> Network:
    """``"cnn"`` or ``"vit"``, trained on digits."""
    batches, inputs, labels = images(seed)
    torch.manual_seed(seed)
    model: nn.Module = Residual() if kind == "cnn" else VisionTransformer()
    epochs, rate = (5, 3e-3) if kind == "cnn" else (25, 2e-3)
    optimizer = torch.optim.AdamW(model.parameters(), rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rate, total_steps=epochs * len(batches)
    )
    for _ in range(epochs):
        for index in torch.randperm(len(batches)).tolist():
            x, y = batches[index]
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()

    @torch.no_grad()
    def right(network: nn.Module) -> float:
        return float((network(inputs).argmax(1) == labels).double().mean())

    model.eval()
    if kind == "vit":
        spans: tuple[Span, ...] = tuple(
            Span(start, end, {"method": "edmd"})
            for start, end in (("blocks.2", "blocks.5"), ("blocks.0", "blocks.5"))
        )
        return Network(model, batches, right, "blocks.*", spans)
    wide = {"method": "edmd", "rank": 64, "layout": FLAT}
    return Network(
        model,
        batches,
        right,
        "stage*.*",
        (
            Span("stage3.0", "stage3.1", {"method": "edmd"}),
            Span("stage2", "stage3", wide),
            Span("stage1", "stage3", wide),
        ),
    )


def sequences(count: int, generator: torch.Generator) -> Tensor:
    """Counting in steps modulo 29, ``(count, 16)``."""
    start = torch.randint(MODULO, (count, 1), generator=generator)
    step = torch.randint(1, MODULO, (count, 1), generator=generator)
    return (start + step * torch.arange(LENGTH)) % MODULO


def decoder(seed: int) -> Network:
    """A Llama of eight blocks that learns to count in steps."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    sizes: dict[str, Any] = {"hidden_size": 48, "intermediate_size": 192, "num_hidden_layers": 8}
    config = LlamaConfig(**sizes, vocab_size=MODULO, num_attention_heads=4, eos_token_id=None)
    model = LlamaForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=250)
    for _ in range(250):
        tokens = sequences(32, generator)
        optimizer.zero_grad()
        model(input_ids=tokens, labels=tokens).loss.backward()
        optimizer.step()
        schedule.step()
    test = sequences(500, generator)

    @torch.no_grad()
    def right(network: nn.Module) -> float:
        answers = network(input_ids=test).logits.argmax(-1)
        return float((answers[:, PROMPT - 1 : -1] == test[:, PROMPT:]).double().mean())

    batches = [{"input_ids": sequences(100, generator)} for _ in range(20)]
    spans = tuple(
        Span(f"model.layers.{start}", f"model.layers.{end}", {"method": "edmd"})
        for start, end in ((4, 7), (2, 7))
    )
    model.eval()  # type: ignore[no-untyped-call]
    return Network(model, batches, right, "model.layers.*", spans)


def trained(kind: str, seed: int) -> Network:
    """``"cnn"``, ``"vit"`` or ``"decoder"``."""
    return decoder(seed) if kind == "decoder" else classifier(kind, seed)
