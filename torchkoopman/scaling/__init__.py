"""A trajectory inside one layer, after layer scaling (arXiv 2409.01308)."""

from torchkoopman.scaling.recipe import ScalingRecipe
from torchkoopman.scaling.scale import scale_layer

__all__ = [
    "scale_layer",
    "ScalingRecipe",
]
