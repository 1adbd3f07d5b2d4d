"""Networks that are applied again and again: latent vector fields, surrogates, recurrent cells."""

from torchkoopman.flows.drifting import readout_drift
from torchkoopman.flows.expressing import Expressivity, expressivity
from torchkoopman.flows.fixed_points import FixedPoints
from torchkoopman.flows.flip_flops import FlipFlops, flip_flops
from torchkoopman.flows.flow import Flow
from torchkoopman.flows.gated import GatedODECell
from torchkoopman.flows.gated_fit import fit_gated
from torchkoopman.flows.gated_surrogate import GatedSurrogate
from torchkoopman.flows.history import FlowHistory
from torchkoopman.flows.koopman_pair import autoencoder_of
from torchkoopman.flows.looks import FlowLook
from torchkoopman.flows.memory import Memorization, chamfer, dictionary_rank, memorization
from torchkoopman.flows.monitor import FlowMonitor
from torchkoopman.flows.novelty import NoveltyScores, NoveltyTable
from torchkoopman.flows.pairing import pairs
from torchkoopman.flows.probing import ProbeTable, dictionaries, probe
from torchkoopman.flows.prototypes import PrototypeErrors, prototype_errors
from torchkoopman.flows.settling import Settled
from torchkoopman.flows.solving import solve

__all__ = [
    "Flow",
    "FixedPoints",
    "Settled",
    "FlowMonitor",
    "FlowLook",
    "FlowHistory",
    "pairs",
    "autoencoder_of",
    "solve",
    "GatedODECell",
    "flip_flops",
    "FlipFlops",
    "readout_drift",
    "expressivity",
    "Expressivity",
    "fit_gated",
    "GatedSurrogate",
    "memorization",
    "Memorization",
    "prototype_errors",
    "PrototypeErrors",
    "dictionary_rank",
    "chamfer",
    "dictionaries",
    "probe",
    "ProbeTable",
    "NoveltyScores",
    "NoveltyTable",
]
