"""Other ways to make an operator forget, to stand beside :func:`torchkoopman.unlearn` in an audit.

Each has the form K' = K + Δ and needs the same streamed class moments and nothing more. None holds
the retained classes where they are.
"""

from __future__ import annotations

import time
import warnings
from typing import TYPE_CHECKING

import torch

from torchkoopman.koopman.edits import Edit
from torchkoopman.koopman.regression import koopman_matrix
from torchkoopman.observe.moments import Moments
from torchkoopman.unlearning.problem import (
    affine_copy,
    aims_of,
    edited_copy,
    partition,
    points_of,
)

with warnings.catch_warnings():  # about a function of theirs that is not used here
    warnings.simplefilter("ignore", DeprecationWarning)
    from concept_erasure import LeaceFitter

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torchkoopman.koopman.edits import Target
    from torchkoopman.koopman.surrogate import Surrogate


def retargeted(
    surrogate: Surrogate,
    classes: Iterable[int],
    *,
    target: Target = "softmix",
    ridge: float = 1e-7,
) -> Surrogate:
    """The edit of arXiv 2505.12809 in streamed form: the operator is fitted once more.

    The forgotten samples' end states are all replaced by one target, the others' stay, and K' is
    the least squares solution. The authors do this on stored activations, without a ridge.

    Args:
        surrogate: fitted with labels.
        classes: to forget.
        target: as for :func:`torchkoopman.unlearn`.
        ridge: relative, of the regression.

    Raises:
        ValueError: as :func:`torchkoopman.unlearn`.
    """
    began = time.perf_counter()
    base = affine_copy(surrogate)
    statistics, K = base.statistics, base.operator.matrix(1.0).detach().double()
    assert statistics is not None
    forgotten, retained = partition(statistics, classes, base.latent)
    means = points_of(statistics, forgotten, ())
    aims = aims_of(statistics, K @ means, retained, target)
    eye, nothing = torch.eye(len(K)).to(K), torch.zeros_like(K)
    kept = statistics.class_pairs
    pooled = Moments(kept).merge(statistics.unlabelled.only(kept))
    for c, moments in statistics.by_class.items():
        if c in forgotten:
            aim = aims[:, forgotten.index(c)]
            moments = moments.affine({"start": (eye, nothing[0]), "end": (nothing, aim)})
        pooled.merge(moments)
    changed = koopman_matrix(pooled, ridge, constant=True)
    took = time.perf_counter() - began
    edit = Edit(tuple(forgotten), 1.0, target, False, took, method="retarget")
    return edited_copy(surrogate, base, changed, edit)


def erased(surrogate: Surrogate, classes: Iterable[int]) -> Surrogate:
    """LEACE (Belrose et al. 2023, arXiv 2306.03819) on the operator's output, by the authors' code.

    The least change of K z, in its own metric, after which no linear probe tells the forgotten
    classes from the others. The authors' fitter is filled with the streamed moments of K z. Neither
    their shrinkage nor their bound on the trace, which are not in the theorem, is used.

    Args:
        surrogate: fitted with labels.
        classes: to forget; all of them together are told from the rest no more.

    Raises:
        ValueError: as :func:`torchkoopman.unlearn`, or linear probes do not tell them apart as it
            is: their correlation is below 0.01.
    """
    began = time.perf_counter()
    base = affine_copy(surrogate)
    statistics, K = base.statistics, base.operator.matrix(1.0).detach().double()
    assert statistics is not None
    forgotten, _ = partition(statistics, classes, base.latent)
    total, others = statistics.total(), statistics.without(forgotten)
    kept = others.count / total.count
    fitter = LeaceFitter(
        len(K), 1, dtype=K.dtype, device=K.device, shrinkage=False, constrain_cov_trace=False
    )
    fitter.n = torch.tensor(total.count)
    fitter.mean_x = K @ total.mean("start")
    fitter.sigma_xx_ = total.count * K @ total.cov("start", "start") @ K.T
    # Of K z with the indicator of the classes: their share times the distance of their mean from
    # the mean of all is what the others' mean lacks.
    difference = fitter.mean_x - K @ others.mean("start")
    fitter.sigma_xz_ = total.count * kept * difference[:, None]
    eraser = fitter.eraser
    if not eraser.proj_left.any():
        raise ValueError(
            f"the operator sends classes {forgotten} and the others to one mean already; there is "
            "nothing to erase."
        )
    changed = eraser.P @ K
    changed[:, 0] += fitter.mean_x - eraser.P @ fitter.mean_x
    took = time.perf_counter() - began
    edit = Edit(tuple(forgotten), 1.0, "centroid", False, took, method="erase")
    return edited_copy(surrogate, base, changed, edit)
