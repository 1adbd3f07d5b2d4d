"""Forgetting a class by redirecting the operator, in closed form.

With class means m_c of the start state z, forgotten f, retained r, and the pooled within-class
scatter W of z,

    Δ = B (Aᵀ W̄⁻¹ A)⁻¹ Aᵀ W̄⁻¹,   A = [m_f …, m_r …],   B = [s (T - K m_f) …, 0],   K' = K + Δ

disturbs within-class variation least among all Δ that move each forgotten mean a fraction s of the
way to its target T and leave every retained mean where K sends it; K is the operator as fitted, or
less what a fit with the forgotten classes has beyond one without (the downdate, which moves the
retained means, too). In place of a forgotten mean may stand its two halves, the mean plus and minus
a standard deviation along the class's widest direction: a class that lies in two places, as
Yin-Yang's dots do, then goes to two. ROME (arXiv 2202.05262), LEACE (arXiv 2306.03819) and the edit
of arXiv 2505.12809 share this form with other metrics and constraints.

This redirects the operator; it removes no information. The encoder still knows the class, and a
probe at the start state finds it, as one finds it in a network retrained without the class.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from torchkoopman.koopman.edits import Edit
from torchkoopman.koopman.regression import koopman_matrix, solve_ridge
from torchkoopman.koopman.surrogate import Surrogate
from torchkoopman.unlearning.heads import head_of
from torchkoopman.unlearning.neutral import neutralised
from torchkoopman.unlearning.problem import (
    affine_copy,
    aims_of,
    edited_copy,
    partition,
    points_of,
    wanted,
)

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import SupportsIndex

    from torchkoopman.koopman.edits import Target
    from torchkoopman.observe.class_moments import LabelledMoments
    from torchkoopman.observe.example import ExampleInputs

_REFIT_RIDGE = 0.3
"""Relative ridge of the downdate, far above that of the fits: directions that only the forgotten
classes excite must lose their effect, so that their states go where the retained classes' states
around them go, as in a network that never saw them. Of 1e-7 to 3, best on Yin-Yang and on digits in
KL to a retrained network, at no cost to the retained classes: a ridge as small as the fits' leaves
what those directions do undetermined."""
_CONDITION_LIMIT = 1e10
"""Class means worse conditioned than this, in the within-class metric, are one mean."""


def unlearn(
    surrogate: Surrogate,
    classes: Iterable[SupportsIndex] | SupportsIndex,
    *,
    strength: float = 1.0,
    target: Target = "softmix",
    downdate: bool = True,
    halves: bool = True,
    ridge: float = 1e-3,
    model: nn.Module | None = None,
    head: nn.Linear | None = None,
    example_inputs: ExampleInputs | None = None,
) -> Surrogate:
    """A surrogate that sends the given classes elsewhere; the one given stays as it is.

    The operator is changed in closed form so that the means of the forgotten classes move to a
    target and those of the retained ones do not move, but for the downdate, at the least
    disturbance within classes. The encoder still tells the classes apart: the operator is
    redirected, no information is removed.

    Example:
        >>> forgetful = tk.swap(model, tk.unlearn(surrogate, classes=[2], model=model))
        >>> dots = test.inputs[test.labels == 2]
        >>> for network in (model, forgetful):
        ...     print(bool((network(dots).argmax(1) == 2).float().mean() > 0.01))
        True
        False

    Args:
        surrogate: fitted with labels, so that it has class-wise statistics.
        classes: to forget, integers, all in one solve; one by itself is taken too. Means of classes
            forgotten by earlier edits stay.
        strength: fraction of the way from each forgotten mean's image to its target, 0 to 1. More
            than 1 would make the class linearly detectable again.
        target: ``"softmix"``, the retained classes' end means weighted by nearness, which leaves
            the network as unsure as one that never saw the class; ``"nearest"`` retained mean,
            which makes it sure of a wrong class; ``"centroid"`` of the retained means.
        downdate: first take away what a fit with the forgotten classes has beyond one without, both
            with a ridge of 0.3; it moves the retained classes, too.
        halves: give each half of a forgotten class its own target; False moves its mean only, which
            takes one constraint less.
        ridge: of the within-class scatter, relative to its mean variance.
        model: in which the surrogate's span is. If given, the linear layer that reads the span's
            last state and gives the answers, output unit c for class c, is found in it by forward
            passes on inputs like those of the fit, and the decoder is edited too, so that a
            forgotten class's logit is the mean of the retained ones (its *neutral row*) and can
            never be the largest; the head itself is not changed.
        head: that layer, if not to be found. With ``model`` it is proven to be it; alone it must
            give each class the average state of its samples.
        example_inputs: what ``model`` is called with, as for :func:`swap`: its one tensor, its
            positional arguments, or its keyword arguments by name. By default tensors of the shapes
            that the fit has seen; a model called otherwise needs them.

    Returns:
        A surrogate over the first and last layer with a dense affine operator.

    Raises:
        ValueError: no class statistics, a class never seen, nothing left to retain, a strength
            outside [0, 1], more constraints than the latent space has room for, class means too
            alike to be told apart, or a head that does not give the model's answers from the span's
            last state.
        TypeError: no linear surrogate, classes that are no integers, a head that is no linear
            layer, a model that is no module, or example inputs that are no arguments.
    """
    began = time.perf_counter()
    if not isinstance(surrogate, Surrogate):
        raise TypeError(
            f"unlearn() redirects the operator of a linear surrogate, and a "
            f"{type(surrogate).__name__} has none: give what tk.fit() or a fitter returns."
        )
    if example_inputs is not None and model is None:
        raise ValueError("example_inputs= says how model= is called; give the model too.")
    if head is not None or model is not None:
        head = head_of(surrogate, model, head, example_inputs)
    base = affine_copy(surrogate)
    statistics = base.statistics
    assert statistics is not None
    forgotten, gone, halved = _roles(surrogate, classes, halves)
    _, retained = partition(statistics, forgotten, base.latent, len(halved))
    if not 0 <= strength <= 1:
        raise ValueError(f"strength={strength} must lie between 0 (no edit) and 1 (all the way).")
    left_over = [c for c in retained if c not in gone]
    if not left_over:
        raise ValueError(
            f"forgetting {forgotten} after {gone} leaves no class; the fit has seen "
            f"{list(statistics.classes)}."
        )
    K = before = base.operator.matrix(1.0).detach().double()
    if downdate:
        K = before + _refit(statistics, [*gone, *forgotten]) - _refit(statistics, gone)
    moved = points_of(statistics, forgotten, halved)
    kept = points_of(statistics, gone, halved) if gone else moved[:, :0]
    aims = aims_of(statistics, K @ moved, left_over, target)
    points = torch.cat([moved, kept, points_of(statistics, left_over, ())], 1)
    # The second block takes back what the downdate does to classes forgotten earlier.
    left = torch.cat([strength * (aims - K @ moved), (before - K) @ kept], 1)
    right = _selectors(statistics, points, ridge)[:, : left.shape[1]]
    last = None
    if head is not None:
        # All of them anew: an earlier class's logit still holds those of the classes that go now.
        last = neutralised(base.frames()[-1], head, [*forgotten, *gone])
    edit = Edit(
        tuple(forgotten),
        strength,
        target,
        downdate,
        seconds=time.perf_counter() - began,
        left=left,
        right=right,
        halves=halves,
    )
    return edited_copy(surrogate, base, K + left @ right.T, edit, last)


def _roles(
    surrogate: Surrogate, classes: Iterable[SupportsIndex] | SupportsIndex, halves: bool
) -> tuple[list[int], list[int], list[int]]:
    """Classes to forget now, those forgotten earlier, and those of both that stand by halves."""
    forgotten = wanted(classes)
    earlier = {c: edit.halves for edit in surrogate.edits for c in edit.classes}
    gone = sorted(set(earlier) - set(forgotten))
    return forgotten, gone, [*(forgotten if halves else []), *(c for c in gone if earlier[c])]


def _refit(statistics: LabelledMoments, without: list[int]) -> Tensor:
    return koopman_matrix(statistics.without(without), _REFIT_RIDGE, constant=True)


def _selectors(statistics: LabelledMoments, means: Tensor, ridge: float) -> Tensor:
    """``W̄⁻¹ A (Aᵀ W̄⁻¹ A)⁻¹``: column i is 1 on point i and 0 on the others."""
    scatters = [statistics.by_class[c] for c in statistics.classes]
    weighted = [m.cov("start", "start") * (m.count / statistics.count) for m in scatters]
    within = torch.stack(weighted).sum(0)
    G = solve_ridge(within, means, ridge)
    gram = means.T @ G
    scale = gram.diagonal().rsqrt()
    condition = torch.linalg.cond(scale[:, None] * gram * scale).item()
    if not condition < _CONDITION_LIMIT:
        raise ValueError(
            f"the class means can hardly be told apart in the latent space (condition "
            f"{condition:.1e}); an edit would move the retained classes too. Fit with more "
            "observables or on a layer where the classes are further apart."
        )
    return torch.matmul(G, torch.linalg.inv(gram))
