"""A gated neural ODE between two sets of rows: what it starts as, its training, and its folding."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from tqdm.auto import trange

from torchkoopman.flows.gated import GatedODECell
from torchkoopman.koopman.folding import Folded
from torchkoopman.koopman.regression import ridge_map
from torchkoopman.observe.moments import Moments

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torchkoopman.koopman.feature_maps import Affine

RIDGE = 1e-7
"""Of all closed forms here, relative to the mean variance."""
_WARM = 0.1
"""Share of the gradient steps in which the rate rises: the decoder begins as a closed form, which
large first steps would undo."""
_LOOKS = 20
"""How often the validation rows are looked at."""


class Unrolled(nn.Module):
    """A cell without inputs, applied a number of times."""

    def __init__(self, cell: GatedODECell, times: int) -> None:
        super().__init__()
        self.cell = cell
        self.times = times

    def forward(self, state: Tensor) -> Tensor:
        """``(…, states)`` → the same."""
        for _ in range(self.times):
            state = self.cell(state[..., :0], state)
        return state

    def extra_repr(self) -> str:
        """What ``print`` shows beside the cell."""
        return f"times={self.times}"


@dataclass(frozen=True)
class Scale:
    """The mean of rows and their RMS distance from it by coordinate: one frame for all of them."""

    mean: Tensor
    size: Tensor

    @classmethod
    def of(cls, rows: Tensor) -> Scale:
        """Of rows ``(n, features)``."""
        mean = rows.double().mean(0)
        return cls(mean, (rows.double() - mean).square().mean().sqrt())

    def __call__(self, rows: Tensor) -> Tensor:
        """Rows with mean 0 and mean square 1."""
        return ((rows.double() - self.mean) / self.size).to(rows)


@dataclass(frozen=True)
class Trained:
    """What came of a training."""

    core: Folded
    """From states of the start to states of the end."""
    step: int
    """The gradient step after which the validation rows were predicted best; 0 for none."""


def closed_form(start: Tensor, end: Tensor) -> Affine:
    """The ridge map from rows to rows, float64."""
    moments = Moments([("start", "start"), ("start", "end")])
    return ridge_map(moments.update({"start": start, "end": end}), RIDGE)


def trained(
    fit: tuple[Tensor, Tensor],
    choose: tuple[Tensor, Tensor],
    *,
    states: int,
    widths: Sequence[int],
    times: int,
    steps: int,
    learning_rate: float,
    batch: int,
    generator: torch.Generator,
    progress: bool,
) -> Trained:
    """Adam on the mean squared error, its rate rising and falling in one cycle; the best is kept.

    The encoder starts as the leading principal directions, the decoder as the ridge map of what
    the flow makes of them.
    """
    scales = Scale.of(fit[0]), Scale.of(fit[1])
    (x, y), (x_choose, y_choose) = (
        (scales[0](start), scales[1](end)) for start, end in (fit, choose)
    )
    flow = Unrolled(_drawn(states, widths, times, generator).to(x), times)
    encoder = linear(_directions(x, states), torch.zeros(states).to(x))
    with torch.no_grad():
        decoder = linear(*(part.to(x) for part in closed_form(flow(encoder(x)), y)))
    network = nn.Sequential(encoder, flow, decoder)
    optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps))
    best, least, at = _values(network), _error(network, x_choose, y_choose), 0
    every = max(1, steps // _LOOKS)
    with trange(1, steps + 1, desc="gated", disable=not progress) as bar:
        for step in bar:
            rows = torch.randint(len(x), (min(batch, len(x)),), generator=generator).to(x.device)
            loss = (network(x[rows]) - y[rows]).square().mean()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            if step % every == 0 or step == steps:
                error = _error(network, x_choose, y_choose)
                bar.set_postfix({"R²": f"{1 - error:.4f}"}, refresh=False)
                if error < least:
                    best, least, at = _values(network), error, step
    network.load_state_dict(best)
    return Trained(_folded(encoder, flow, decoder, *scales).eval().requires_grad_(False), at)


def _rate(step: int, steps: int) -> float:
    """The share of the learning rate: rising in a line, then falling to 0 by a cosine."""
    rising = max(1, round(_WARM * steps))
    if step < rising:
        return (step + 1) / rising
    return (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising))) / 2


def _drawn(
    states: int, widths: Sequence[int], times: int, generator: torch.Generator
) -> GatedODECell:
    """A cell of unit time in so many steps, with the weights that torch would draw.

    The generator draws them in float32, whatever the default is and whoever draws elsewhere.
    """
    with torch.device("meta"):
        cell = GatedODECell(0, states, widths=widths, alpha=1 / times)
    cell.float().to_empty(device="cpu")
    for layer in cell.modules():
        if isinstance(layer, nn.Linear):
            bound = layer.in_features**-0.5
            for values in (layer.weight, layer.bias):
                nn.init.uniform_(values, -bound, bound, generator)
    return cell


def _directions(rows: Tensor, states: int) -> Tensor:
    """Leading principal directions, ``(states, features)``; the axes where all fit in."""
    features = rows.shape[1]
    if states >= features:
        return torch.eye(states, features).to(rows)
    vectors: Tensor = torch.linalg.eigh(rows.double().T.cov(correction=0)).eigenvectors
    return vectors.flip(1)[:, :states].T.to(rows)


def linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    """A layer with these values; draws nothing."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], device="meta")  # without numbers
    layer.weight, layer.bias = nn.Parameter(weight.clone()), nn.Parameter(bias.clone())
    return layer


def _values(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


@torch.no_grad()
def _error(network: nn.Module, start: Tensor, end: Tensor) -> float:
    """Mean squared error over the mean square of the end; infinite where it is not a number."""
    error: Tensor = (network(start) - end).double().square().mean() / end.double().square().mean()
    return error.nan_to_num(torch.inf).item()


@torch.no_grad()
def _folded(
    encoder: nn.Linear, flow: Unrolled, decoder: nn.Linear, start: Scale, end: Scale
) -> Folded:
    """The scales multiplied into the first and the last map, in float64; rounded once."""
    weight, bias = encoder.weight.double() / start.size, encoder.bias.double()
    first = weight, bias - weight @ start.mean
    last = end.size * decoder.weight.double(), end.size * decoder.bias.double() + end.mean
    own = encoder.weight.dtype
    inner, outer = (linear(w.to(own), b.to(own)) for w, b in (first, last))
    return Folded(nn.Sequential(inner, flow), outer, nn.Identity())
