"""torchkoopman: see and edit neural networks as dynamical systems.

Hooks on any ``nn.Module`` stream layer activations into a fitter; the linear operator that predicts
how representations move through depth can be looked at, put in place of layers, made to forget a
class, and exported.
"""

from torchkoopman import datasets, flows, plots, results, scaling, showing, spectra, topology
from torchkoopman.fitting.autoencoder import AutoencoderFitter
from torchkoopman.fitting.dmd import DMDFitter
from torchkoopman.fitting.edmd import EDMDFitter
from torchkoopman.fitting.losses import LossWeights
from torchkoopman.fitting.monitor import TrainingMonitor
from torchkoopman.graphs.region import DirtyCut
from torchkoopman.inspecting.inspect import inspect
from torchkoopman.koopman.feature_maps import ContextMean, Monomials, Neighbours, RandomFeatures
from torchkoopman.koopman.surrogate import Surrogate
from torchkoopman.observe.probe import Probe
from torchkoopman.observe.probes import attach
from torchkoopman.observe.trajectory import Trajectory
from torchkoopman.reporting import report
from torchkoopman.running.evaluate import evaluate
from torchkoopman.running.fit import fit
from torchkoopman.running.ranking import rank_spans
from torchkoopman.running.span_statistics import SpanStatistics
from torchkoopman.shipping.export import export, load, read_card
from torchkoopman.spectra.comparison import compare
from torchkoopman.spectra.tracking import follow
from torchkoopman.storage.errors import FileError
from torchkoopman.surgery.swap import swap, swap_history
from torchkoopman.undo import undo
from torchkoopman.unlearning.audit import audit
from torchkoopman.unlearning.edit import unlearn
from torchkoopman.unlearning.neutral import neutral_head
from torchkoopman.unlearning.relearning import Relearning
from torchkoopman.unlearning.retraining import Retraining
from torchkoopman.version import __version__

__all__ = [
    # watch
    "attach",
    "Probe",
    "Trajectory",
    # fit
    "fit",
    "evaluate",
    "AutoencoderFitter",
    "EDMDFitter",
    "DMDFitter",
    "LossWeights",
    "TrainingMonitor",
    "RandomFeatures",
    "Monomials",
    "ContextMean",
    "Neighbours",
    # look
    "inspect",
    "report",
    "Surrogate",
    "follow",
    "compare",
    "rank_spans",
    "SpanStatistics",
    # operate
    "swap",
    "swap_history",
    "undo",
    "DirtyCut",
    "unlearn",
    "neutral_head",
    "audit",
    "Retraining",
    "Relearning",
    # ship
    "export",
    "load",
    "read_card",
    "FileError",
    # more, each with names of its own
    "results",
    "spectra",
    "topology",
    "scaling",
    "flows",
    "plots",
    "showing",
    "datasets",
    "__version__",
]
