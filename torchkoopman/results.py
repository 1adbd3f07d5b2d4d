"""What the library gives back: classes that are read and printed, and that nobody needs to make.

For type hints and ``isinstance``; results come from the functions and methods that find them.
"""

from torchkoopman.inspecting.blocks import InspectedBlock
from torchkoopman.inspecting.inspection import Inspection
from torchkoopman.koopman.modes import Modes
from torchkoopman.koopman.paths import Paths
from torchkoopman.running.evaluation import Evaluation
from torchkoopman.running.ranked import SpanRanking
from torchkoopman.scaling.scale import Scaling
from torchkoopman.spectra.comparison import OperatorDistance
from torchkoopman.spectra.normality import NonNormality
from torchkoopman.spectra.pseudospectrum import Pseudospectrum
from torchkoopman.spectra.spectrum import Spectrum
from torchkoopman.spectra.tracks import ModeTracks
from torchkoopman.topology.betti import BettiCurve
from torchkoopman.topology.report import Topology
from torchkoopman.unlearning.report import Audit

__all__ = [
    "Inspection",
    "InspectedBlock",
    "Evaluation",
    "Spectrum",
    "Modes",
    "Pseudospectrum",
    "NonNormality",
    "ModeTracks",
    "OperatorDistance",
    "Topology",
    "Paths",
    "BettiCurve",
    "SpanRanking",
    "Audit",
    "Scaling",
]
