"""Whether networks contract before they are trained (Fumero et al.): σ of outputs over inputs.

Twelve families of the zoo that take images, at the sizes in which people train them on images of
32 × 32, with random weights as their libraries draw them, in evaluation mode. Inputs are noise,
N(0, 1). Outputs are the features of the last block at all positions, before anything is averaged
over these; a final norm is taken out, and applied to them afterwards, so that both are of the same
weights. The σ of all numbers is what the paper compares; the σ between inputs, of each feature by
itself, leaves out what is the same for all inputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from benchmarks.tables import markdown, seeds, spread
from benchmarks.zoo.libraries import SEGFORMER, STAGES, SWIN, VISION
from benchmarks.zoo.networks import Mixer

if TYPE_CHECKING:
    from collections.abc import Callable

INPUTS, BATCH, SIDE = 1000, 100, 32
BELOW = 0.99
"""A layer norm alone gives 1, less its ε."""
HOW = ("as it is", "without norm")
WEIGHTS_SEED = 5000
"""Added to a seed for weights; inputs take it bare."""


@dataclass(frozen=True)
class Backbone:
    """One family: how it is made, and where its final norm is."""

    build: Callable[[], nn.Module]
    norm: str | None = None
    """Path of the norm behind the last block; None if nothing is normalised there."""
    remark: str = "none"


class Patches(nn.Module):
    """An MLP-Mixer: patches of 4 × 4, twelve blocks of the zoo, a final norm."""

    def __init__(self, width: int = 192, depth: int = 12) -> None:
        positions = (SIDE // 4) ** 2
        super().__init__()
        self.stem = nn.Conv2d(3, width, 4, 4)
        self.blocks = nn.Sequential(*(Mixer(positions, width) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.blocks(self.stem(x).flatten(2).mT))
        return y


def perceptron(width: int = 512, depth: int = 4) -> nn.Module:
    """Linear layers with ReLU, drawn as torch draws them."""
    hidden = [layer for _ in range(depth - 1) for layer in (nn.ReLU(), nn.Linear(width, width))]
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE**2, width), *hidden)


def hugging(architecture: str, *sizes: dict[str, Any]) -> Callable[[], nn.Module]:
    """A model of the transformers library, from its config."""

    def build() -> nn.Module:
        import transformers

        made: Any = getattr(transformers, architecture)
        options = {key: value for each in sizes for key, value in each.items()}
        model: nn.Module = made(made.config_class(**options))
        return model

    return build


TINY: dict[str, Any] = {"hidden_size": 192, "num_hidden_layers": 12, "num_attention_heads": 3}
TINY |= {"intermediate_size": 768, "image_size": SIDE, "patch_size": 4}
FOUR: dict[str, Any] = {"hidden_sizes": [32, 64, 128, 256], "depths": [2, 2, 6, 2], "num_stages": 4}
SHIFTED: dict[str, Any] = {
    "patch_size": 2,
    "embed_dim": 48,
    "depths": [2, 2, 6],
    "num_heads": [2, 4, 8],
}
MIXED: dict[str, Any] = {
    "hidden_sizes": [32, 64, 160, 256],
    "depths": [2, 2, 2, 2],
    "patch_sizes": [7, 3, 3, 3],
}
MIXED |= {"strides": [4, 2, 2, 2], "sr_ratios": [8, 4, 2, 1], "mlp_ratios": [4, 4, 4, 4]}
MIXED |= {"num_attention_heads": [1, 2, 5, 8], "num_encoder_blocks": 4}
POOLED: dict[str, Any] = {"hidden_sizes": [64, 128, 320, 512], "depths": [2, 2, 6, 2]}
BASIC: dict[str, Any] = {"layer_type": "basic", "embedding_size": 32, "depths": [2, 2, 2, 2]}
GROUPED: dict[str, Any] = {"groups_width": 16, "embedding_size": 32, "depths": [1, 2, 4, 1]}
WITH = "none; batch norm inside, the identity before training"

FAMILIES: dict[str, Backbone] = {
    "perceptron": Backbone(perceptron),
    "MLP-Mixer": Backbone(Patches, "norm"),
    "ResNet": Backbone(hugging("ResNetModel", STAGES, FOUR, BASIC), remark=WITH),
    "RegNet": Backbone(hugging("RegNetModel", FOUR, GROUPED), remark=WITH),
    "MobileNetV2": Backbone(
        hugging("MobileNetV2Model", {"image_size": SIDE, "depth_multiplier": 0.5}), remark=WITH
    ),
    "ConvNeXt": Backbone(hugging("ConvNextModel", STAGES, FOUR, {"patch_size": 2}), "layernorm"),
    "PoolFormer": Backbone(hugging("PoolFormerModel", POOLED)),
    "SegFormer": Backbone(hugging("SegformerModel", SEGFORMER, MIXED), "stages.3.layer_norm"),
    "Swin": Backbone(hugging("SwinModel", SWIN, SHIFTED), "layernorm"),
    "ViT": Backbone(hugging("ViTModel", VISION, TINY), "layernorm"),
    "CLIP, vision tower": Backbone(hugging("CLIPVisionModel", VISION, TINY), "post_layernorm"),
    "DINOv2": Backbone(hugging("Dinov2Model", VISION, TINY), "layernorm"),
}


def jobs(quick: bool) -> dict[str, Callable[[], dict[str, Any]]]:
    """All families by the weights and inputs of one seed."""
    count = 20 if quick else INPUTS
    return {f"families-{seed}": partial(contraction, seed, count) for seed in seeds(quick)}


def contraction(seed: int, count: int) -> dict[str, Any]:
    """σ of all numbers and σ between inputs, over the inputs', with the final norm and without."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(count, 3, SIDE, SIDE, generator=generator)
    found = {name: of(each, inputs, seed) for name, each in FAMILIES.items()}
    return {"seed": seed, "families": found}


def of(family: Backbone, inputs: Tensor, seed: int) -> dict[str, Any]:
    """One family."""
    torch.manual_seed(WEIGHTS_SEED + seed)
    model = family.build().eval()
    norm: nn.Module | None = None
    if family.norm is not None:
        norm = model.get_submodule(family.norm)
        model.set_submodule(family.norm, nn.Identity())
    with torch.no_grad():
        plain = torch.cat([features(model, part) for part in torch.split(inputs, BATCH)])
        normed = plain if norm is None else norm(plain)
    found: dict[str, Any] = {"parameters": sum(each.numel() for each in model.parameters())}
    for name, outputs in zip(HOW, (normed, plain), strict=True):
        for which, spread_by in (("all", everywhere), ("between", between)):
            found[f"{which}, {name}"] = spread_by(outputs) / spread_by(inputs)
    return found


def features(model: nn.Module, inputs: Tensor) -> Tensor:
    """Of the last block at all positions; the channels last."""
    found = model(inputs)
    found = found if isinstance(found, Tensor) else found.last_hidden_state
    return found.movedim(1, -1) if found.ndim == 4 else found


def everywhere(x: Tensor) -> float:
    """Standard deviation of all numbers."""
    return x.double().std().item()


def between(x: Tensor) -> float:
    """RMS over features of the standard deviation between inputs."""
    return x.flatten(1).double().var(0).mean().sqrt().item()


def table(results: dict[str, dict[str, Any]]) -> str:
    """Ratios by family, and how many contract."""
    kinds = [f"{which}, {how}" for which in ("all", "between") for how in HOW]
    runs = [run["families"] for run in results.values()]
    rows = []
    for name, family in FAMILIES.items():
        own = [run[name] for run in runs]
        cells = [significant([each[kind] for each in own]) for kind in kinds]
        if family.norm is None:
            cells[1] = cells[3] = "–"
        size = f"{own[0]['parameters'] / 1e6:.1f} M"
        where = f"`{family.norm}`" if family.norm else family.remark
        rows.append([name, size, where, *cells])
    head = ["family", "parameters", "final norm", "σ", "σ without it"]
    head += ["σ between inputs", "without it"]
    few = [sum(all(run[name][kind] < BELOW for run in runs) for name in FAMILIES) for kind in kinds]
    below = (
        f"Below {BELOW} in each of {len(runs)} draw(s) are, of {len(FAMILIES)} families: σ of all "
        f"numbers {few[0]} (without a final norm {few[1]}), σ between inputs {few[2]} ({few[3]})."
    )
    return f"{markdown(head, rows)}\n\n{below}"


def significant(values: list[float]) -> str:
    """Mean ± standard deviation; tiny ones as powers of ten, by their median."""
    middle = sorted(values)[len(values) // 2]
    return spread(values) if middle >= 0.005 else f"{middle:.0e}"
