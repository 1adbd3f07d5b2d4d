"""Finding fixed points: iteration or Newton's method from many starts, polishing, merging."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree
from torch import Tensor

from torchkoopman.flows.fixed_points import FixedPoints
from torchkoopman.flows.jacobians import jacobians
from torchkoopman.flows.settling import Settled, settle, spread_of

if TYPE_CHECKING:
    from torchkoopman.flows.maps import Map

_POLISH = 20
"""Newton steps of the polishing, which doubles the digits in each."""
_MOVED = 0.1
"""A fixed point further than this many spreads from where an orbit came to rest is another one."""
_ROUNDING = 100
"""A map of many layers rounds by about so many units in the last place."""
_POLISHED = 1e-6
"""Newton's method brings the speed of a fixed point to this share of the tolerance and below."""
_NUMBERS = 2**22
"""Numbers of the Jacobians by which steps are taken together: 32 MB."""
_FLAT = 1e-3
"""Where the slope of the speed is below this share of the speed, it is least."""


def fixed_points_of(
    flow: Map,
    starts: Tensor,
    steps: int,
    search: str,
    progress: bool,
    *,
    tolerance: float,
    merge: float,
    far: float,
) -> FixedPoints:
    """See :meth:`Flow.fixed_points`."""
    if search not in ("iteration", "newton"):
        raise ValueError(f"search={search!r} is unknown; choose 'iteration' or 'newton'.")
    slow = starts[:0]
    if search == "iteration":
        with torch.no_grad():
            told = settle(flow, starts, steps, tolerance, far, progress)
        ends = told.ends[told.converged]
        found = _polished(flow, ends, told.spread, merge)
        # What moved far was no neighbour of the orbit's end: the speed was small there, not zero.
        apart = (found - ends).flatten(1).double().norm(dim=1)
        good = _at_rest(flow, found, told.spread, tolerance) & (apart <= _MOVED * told.spread)
    else:
        centre, spread = spread_of(starts)
        ends, flat = _newton(flow, starts, steps, spread)
        speeds = _speeds(flow, ends, spread)
        away = (ends - centre).flatten(1).double().norm(dim=1) / spread
        lost = ~(away <= far)
        rest = ~lost & _at_rest(flow, ends, spread, tolerance)
        taken = torch.full((len(starts),), steps, device=starts.device)
        told = Settled(ends, rest, lost, taken, speeds, spread)
        found, good = ends[rest], torch.ones_like(rest)[rest]
        stuck = ends[flat & ~rest & ~lost]
        slow = stuck[_groups(stuck, merge * spread)[1]] if len(stuck) else slow
    basins = torch.full((len(starts),), -1, device=starts.device)
    reached = told.converged.nonzero().flatten()[good]
    labels, firsts = _groups(found[good], merge * told.spread)
    basins[reached] = labels
    points = found[good][firsts]
    J = jacobians(flow, points).double() if len(points) else _none(points)
    values = torch.linalg.eigvals(J) if len(points) else J[:, 0].to(torch.complex128)
    order = values.abs().argsort(dim=-1, descending=True, stable=True)
    residuals = _speeds(flow, points, told.spread)
    return FixedPoints(points, J, values.gather(-1, order), residuals, basins, starts, told, slow)


def _none(points: Tensor) -> Tensor:
    width = points.shape[1:].numel()
    return torch.zeros(0, width, width, dtype=torch.float64, device=points.device)


@torch.no_grad()
def _speeds(flow: Map, states: Tensor, spread: float) -> Tensor:
    """``|f(x) - x|`` in spreads, float64."""
    if not len(states):
        return torch.zeros(0, dtype=torch.float64, device=states.device)
    found: Tensor = (flow(states) - states).flatten(1).double().norm(dim=1) / spread
    return found


def _at_rest(flow: Map, states: Tensor, spread: float, tolerance: float) -> Tensor:
    """Whether states are fixed up to rounding: a slow drift is not, however slow."""
    size = states.flatten(1).double().norm(dim=1) / spread
    rounding = _ROUNDING * torch.finfo(states.dtype).eps * (1 + size)
    found: Tensor = _speeds(flow, states, spread) <= rounding.clamp_min(_POLISHED * tolerance)
    return found


def _polished(flow: Map, ends: Tensor, spread: float, merge: float) -> Tensor:
    """The fixed point beside each state that is at rest.

    Of neighbours one is polished. The others take one step of Newton's method with its Jacobian,
    and are the same point where they come as near to it as points that are one; what does not is
    polished by itself.
    """
    if not len(ends):
        return ends
    labels, firsts = _groups(ends, merge * spread)
    points, _ = _newton(flow, ends[firsts], _POLISH, spread)
    width = ends[0].numel()
    eye = torch.eye(width, dtype=torch.float64, device=ends.device)
    A = jacobians(flow, points).double() - eye
    inverse = torch.linalg.pinv(A.nan_to_num(0.0, 0.0, 0.0))  # no step where there is no slope
    with torch.no_grad():
        error = (flow(ends) - ends).flatten(1).double()
    parts = zip(
        *(torch.split(each, max(1, _NUMBERS // width**2)) for each in (labels, error)), strict=True
    )
    step = torch.cat([torch.einsum("nij,nj->ni", inverse[k], each) for k, each in parts])
    found = points[labels]
    apart = (ends.flatten(1).double() - step - found.flatten(1).double()).norm(dim=1)
    alone = (~(apart <= merge * spread)).nonzero().flatten()
    found[alone] = _newton(flow, ends[alone], _POLISH, spread)[0]
    return found


def _newton(flow: Map, starts: Tensor, steps: int, spread: float) -> tuple[Tensor, Tensor]:
    """Levenberg-Marquardt on ``|f(x) - x|²`` from each start, and where its slope vanishes.

    The damping of each start grows where a step would raise its speed, and shrinks elsewhere.
    Those that move no more are left out of later steps.
    """
    states = starts.clone()
    flat = torch.zeros(len(states), dtype=torch.bool, device=states.device)
    if not len(states):
        return states, flat
    width = states[0].numel()
    eye = torch.eye(width, dtype=torch.float64, device=states.device)
    damping = torch.full((len(states), 1, 1), 1e-6, dtype=torch.float64, device=states.device)
    active = torch.arange(len(states), device=states.device)
    for _ in range(steps):
        own, lift = states[active], damping[active]
        with torch.no_grad():
            error = (flow(own) - own).flatten(1).double()
        A = jacobians(flow, own).double() - eye
        slope = (A.mT @ error[..., None])[..., 0]
        size = error.norm(dim=1)
        scale = torch.linalg.matrix_norm(A) * size
        flat[active] = slope.norm(dim=1) <= _FLAT * scale
        normal = A.mT @ A
        mean = normal.diagonal(dim1=-2, dim2=-1).mean(-1)[:, None, None].clamp_min(1e-30)
        step = torch.linalg.solve(normal + lift * mean * eye, -slope[..., None])[..., 0]
        tried = own + step.view_as(own).to(own.dtype)
        with torch.no_grad():
            after = (flow(tried) - tried).flatten(1).double().norm(dim=1)
        better = after < size
        states[active] = torch.where(better.view(-1, *(1,) * (own.ndim - 1)), tried, own)
        lift = torch.where(better[:, None, None], lift / 5, lift * 5).clamp(1e-12, 1e12)
        damping[active] = lift
        moving = better & (step.norm(dim=1) > 1e-12 * spread)
        trying = (lift[:, 0, 0] < 1e6) & ~better & (size > 1e-12 * spread)
        active = active[moving | trying]
        if not len(active):
            break
    return states, flat


def _groups(points: Tensor, distance: float) -> tuple[Tensor, Tensor]:
    """Number of each point's group, largest group first, and a member of each.

    Points belong together where a chain of neighbours within the distance joins them.
    """
    if not len(points):
        empty = torch.zeros(0, dtype=torch.long, device=points.device)
        return empty, empty
    flat = points.detach().flatten(1).double().cpu().numpy()
    pairs = cKDTree(flat).query_pairs(distance, output_type="ndarray")
    graph = coo_array(([True] * len(pairs), (pairs[:, 0], pairs[:, 1])), shape=(len(flat),) * 2)
    labels = torch.from_numpy(connected_components(graph, directed=False)[1]).long()
    sizes = torch.bincount(labels)
    order = sizes.argsort(descending=True, stable=True)
    rank = order.argsort()
    numbers = rank[labels]
    firsts = torch.stack([(numbers == k).nonzero()[0, 0] for k in range(len(sizes))])
    return numbers.to(points.device), firsts.to(points.device)
