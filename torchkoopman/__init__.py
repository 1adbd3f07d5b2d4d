"""torchkoopman: see and edit neural networks as dynamical systems.

Hooks on any ``nn.Module`` stream layer activations into a fitter; the linear operator that predicts
how representations move through depth can be looked at, put in place of layers, made to forget a
class, and exported.
"""

from torchkoopman.fitting.autoencoder import AutoencoderFitter
from torchkoopman.fitting.dmd import DMDFitter
from torchkoopman.fitting.edmd import EDMDFitter
from torchkoopman.fitting.evaluation import Evaluation
from torchkoopman.fitting.fit import evaluate, fit
from torchkoopman.fitting.losses import LossWeights
from torchkoopman.fitting.ranking import SpanRanking, rank_spans
from torchkoopman.koopman.files import load_surrogate, save_surrogate
from torchkoopman.koopman.parts import ContextMean, Neighbours, RandomFeatures
from torchkoopman.koopman.spectrum import Spectrum
from torchkoopman.koopman.surrogate import Surrogate
from torchkoopman.observe.probes import Probe, attach
from torchkoopman.observe.trajectory import Trajectory
from torchkoopman.shipping.export import export, load, read_card
from torchkoopman.surgery.path_training import ScalingRecipe
from torchkoopman.surgery.region import DirtyCut
from torchkoopman.surgery.scaling import Scaling, scale_layer
from torchkoopman.surgery.swap import swap, swap_back, swaps
from torchkoopman.unlearning.edit import revert, unlearn
from torchkoopman.unlearning.neutral import neutral_head

__all__ = [
    # watch
    "attach",
    "Probe",
    "Trajectory",
    # fit
    "fit",
    "evaluate",
    "Evaluation",
    "AutoencoderFitter",
    "EDMDFitter",
    "DMDFitter",
    "LossWeights",
    "RandomFeatures",
    "ContextMean",
    "Neighbours",
    # look
    "Surrogate",
    "Spectrum",
    "rank_spans",
    "SpanRanking",
    # operate
    "swap",
    "swap_back",
    "swaps",
    "DirtyCut",
    "unlearn",
    "revert",
    "neutral_head",
    "scale_layer",
    "Scaling",
    "ScalingRecipe",
    # ship
    "export",
    "load",
    "read_card",
    "save_surrogate",
    "load_surrogate",
]
