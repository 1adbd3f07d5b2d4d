"""How unlike the training data an input is: scores of one kind, and how well each tells apart.

Scores of a latent vector field (Fumero et al.) stand beside those that everybody has: how badly an
input is reconstructed, how far its latent state is from the nearest of the training's, and how far
from their mean (Mahalanobis). The larger a score, the more novel the input.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from sklearn.metrics import roc_auc_score, roc_curve
from torch import Tensor

from torchkoopman.flows.flow import Flow
from torchkoopman.flows.maps import require_eval
from torchkoopman.tables import Table, Tabular

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_ROWS = 2**12
_LONGEST = 1000
"""Applications at most until a start is at rest."""
_KNOWN_KEPT = 0.95
"""Share of known inputs that are accepted where the false positives are counted."""


@dataclass(frozen=True)
class NoveltyTable(Tabular):
    """How well each score tells novel inputs from known ones; print it.

    Example:
        >>> pull = lambda z: 0.5 * z
        >>> scores = tk.flows.NoveltyScores(lambda x: x, pull, torch.randn(200, 2), steps=5)
        >>> table = scores.compare(torch.randn(100, 2), torch.randn(100, 2) + 9)
        >>> table.auroc["kNN"], table.fpr95["kNN"]
        (1.0, 0.0)
    """

    auroc: Mapping[str, float]
    """Score → the probability that a novel input has the larger score; 0.5 is chance."""
    fpr95: Mapping[str, float]
    """Score → share of novel inputs that are accepted where 95 % of the known ones are; 0 is
    best."""
    known: int
    """Number of known inputs."""
    novel: int
    """Number of novel ones."""

    def table(self) -> Table:
        """A row for each score, the best AUROC first."""
        order = sorted(self.auroc, key=lambda name: -self.auroc[name])
        rows = [[name, f"{self.auroc[name]:.3f}", f"{self.fpr95[name]:.3f}"] for name in order]
        above = f"{self.known} known and {self.novel} novel inputs; chance is 0.5 and 0.95"
        return Table(["score", "AUROC", "FPR95"], rows, [above])


class NoveltyScores:
    """Scores of inputs by an autoencoder that was trained on ``train``.

    * ``orbit``: mean distance of the latent orbit's states, over ``steps`` applications of encoding
      after decoding, to the nearest training attractor; ``orbit, converged`` over the states until
      the orbit is at rest (a thousand at most), so that it mixes distance and speed, as the paper's
      score does.
    * ``first step``: ``|f(z) - z| / |z|``; ``path``: length of the orbit's first three steps.
    * ``reconstruction``: mean squared error; ``kNN``: distance to the nearest training latent;
      ``Mahalanobis``: distance to the training latents' mean in their covariance.

    Example:
        >>> encode, decode = torch.nn.Linear(4, 2).eval(), torch.nn.Linear(2, 4).eval()
        >>> scores = tk.flows.NoveltyScores(encode, decode, train.inputs[:500], steps=20)
        >>> told = scores.compare(test.inputs[:200], test.inputs[:200] + 5)
        >>> sorted(told.auroc)[:3]
        ['Mahalanobis', 'first step', 'kNN']

    Args:
        encode: from inputs to latent states.
        decode: from latent states to inputs.
        train: inputs that the autoencoder was trained on.
        steps: of orbits.
        tolerance: see :meth:`Flow.settle`.

    Raises:
        TypeError, ValueError: a pair that has no orbits, see :meth:`Flow.orbit`.
    """

    def __init__(
        self,
        encode: Callable[[Tensor], Tensor],
        decode: Callable[[Tensor], Tensor],
        train: Tensor,
        *,
        steps: int = 30,
        tolerance: float = 1e-4,
    ) -> None:
        self.encode, self.decode, self.steps, self.tolerance = encode, decode, steps, tolerance
        self.flow = Flow.of_autoencoder(encode, decode)
        require_eval(self.flow.modules)
        if len(train) < 2 or not train.isfinite().all():
            raise ValueError(
                f"NoveltyScores got {len(train)} training inputs; give two or more, all finite."
            )
        with torch.no_grad():
            self.latents = encode(train).flatten(1)
            starts = encode(train)
        found = self.flow.fixed_points(starts, _LONGEST, tolerance=tolerance)
        self.attractors = found.attractors.flatten(1)
        """Distinct points where training starts come to rest; empty if none does."""
        self.mean = self.latents.double().mean(0)
        cov = torch.cov(self.latents.double().T).reshape(len(self.mean), -1)
        self._precision = torch.linalg.pinv(cov, hermitian=True)

    def __call__(self, inputs: Tensor) -> dict[str, Tensor]:
        """Score → float64, ``(n,)``; orbit scores are left out where no training start rests.

        Raises:
            ValueError: inputs that are not finite.
        """
        if not inputs.isfinite().all():
            raise ValueError("the inputs to score are not all finite; leave those out.")
        with torch.no_grad():
            z = self.encode(inputs)
            again = self.decode(z)
        orbit = self.flow.orbit(z, max(3, self.steps)).flatten(2).double()
        flat = z.flatten(1).double()
        moves = orbit.diff(dim=0).norm(dim=2)
        away = flat - self.mean
        found = {
            "reconstruction": (again - inputs).flatten(1).double().square().mean(1),
            "kNN": _nearest(flat, self.latents.double()),
            "Mahalanobis": ((away @ self._precision) * away).sum(1).clamp_min(0).sqrt(),
            "first step": moves[0] / flat.norm(dim=1).clamp_min(1e-12),
            "path": moves[:3].sum(0),
        }
        if len(self.attractors):
            states = orbit[1 : self.steps + 1]
            distances = torch.stack([_nearest(s, self.attractors.double()) for s in states])
            found["orbit"] = distances.mean(0)
            found["orbit, converged"] = self._until_rest(z)
        return {name: score.nan_to_num(nan=torch.inf) for name, score in found.items()}

    def _until_rest(self, states: Tensor) -> Tensor:
        """Mean distance over the states until each is at rest, float64, ``(n,)``."""
        scale = (self.latents.double() - self.mean).norm(dim=1).square().mean().sqrt()
        total = torch.zeros(len(states), dtype=torch.float64, device=states.device)
        count, active = total.clone(), torch.arange(len(states), device=states.device)
        with self.flow.running(states), torch.no_grad():
            for _ in range(_LONGEST):
                after = self.flow(states)
                total[active] += _nearest(after.flatten(1).double(), self.attractors.double())
                count[active] += 1
                moving = (after - states).flatten(1).double().norm(dim=1) > self.tolerance * scale
                states, active = after[moving], active[moving]
                if not len(active):
                    break
        return total / count

    def compare(self, known: Tensor, novel: Tensor) -> NoveltyTable:
        """How well each score tells two sets of inputs apart.

        Args:
            known: inputs like the training data, unseen by it.
            novel: others.

        Raises:
            ValueError: an empty set, or inputs that are not finite.
        """
        if not len(known) or not len(novel):
            raise ValueError(
                f"compare() got {len(known)} known and {len(novel)} novel inputs; give one or more."
            )
        a, b = self(known), self(novel)
        auroc, fpr95 = {}, {}
        for name in a:
            labels = [0] * len(known) + [1] * len(novel)
            values = torch.cat([a[name], b[name]]).clamp(max=1e300).cpu().numpy()
            auroc[name] = float(roc_auc_score(labels, values))
            # Known inputs are the positives that must be kept; novel ones are kept wrongly.
            kept = [1 - label for label in labels]
            wrong, right, _ = roc_curve(kept, -values, drop_intermediate=False)
            fpr95[name] = float(wrong[right >= _KNOWN_KEPT].min())
        return NoveltyTable(auroc, fpr95, len(known), len(novel))


def _nearest(points: Tensor, others: Tensor) -> Tensor:
    """Distance to the nearest; infinite for points that are not finite."""
    parts = [torch.cdist(part, others).amin(1) for part in torch.split(points, _ROWS)]
    return torch.cat(parts).nan_to_num(nan=torch.inf)
