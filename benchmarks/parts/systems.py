"""Eigenvalues where they are known: errors beside the peers', and what is trusted.

Ours is a fit with all defaults. Peers get the same functions of the state, in the same frame, as
features: kooplearn's ridge without a ridge, deeptime's EDMD, PyDMD's DMD of all directions. An
eigenvalue is wrong that is off from every one there is by more than ``OFF`` and three of its
standard errors; a leading one is found if it is off by at most three standard errors.
"""

from __future__ import annotations

import importlib
import math
import warnings
from collections import Counter
from functools import partial
from statistics import median
from typing import TYPE_CHECKING, Any

import torch

import torchkoopman as tk
from benchmarks.known.systems import SYSTEMS, KnownSystem
from benchmarks.tables import markdown, seeds

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from torchkoopman.spectra.spectrum import Spectrum

OFF = 0.05
EXACT = 1e-5
"""Errors below this are as good as none."""
BEST = 1.1
"""Times the best peer's error that ours may be."""


def jobs(quick: bool) -> dict[str, Callable[[], dict[str, Any]]]:
    """All systems at once, since each takes seconds; a seed is a draw."""
    return {"known": partial(everything, seeds(quick))}


def everything(draws: Sequence[int]) -> dict[str, Any]:
    """Every system in turn."""
    return {"systems": [measured(system, draws) for system in SYSTEMS]}


def measured(system: KnownSystem, draws: Sequence[int]) -> dict[str, Any]:
    """Largest error of the leading eigenvalues by draw, ours and the peers', and our trust."""
    found: dict[str, Any] = {"name": system.name, "rows": system.rows}
    found |= {"ours": [], "trust": [], "closures": []}
    found["peers"] = {name: [] for name in PEERS}
    found["absent"] = {}
    for seed in draws:
        x, y = system.draw(seed, system.rows)
        surrogate = fitted(system, x, y)
        spectrum = surrogate.spectrum()
        found["ours"].append(system.errors(spectrum.eigenvalues).max().item())
        found["trust"].append(trust(system, spectrum))
        found["closures"].append(closure(system, spectrum))
        features = [surrogate.encode(state[:, None], "0")[:, 0] for state in (x, y)]
        for name, peer in PEERS.items():
            try:
                values = peer(*features)
            except ImportError as error:
                found["absent"][name] = str(error)
                continue
            found["peers"][name].append(system.errors(values).max().item())
    return found


def fitted(system: KnownSystem, x: Tensor, y: Tensor) -> tk.Surrogate:
    """EDMD with the system's dictionary, or DMD where it has none, with all defaults."""
    parts = system.observables()
    fitter = tk.EDMDFitter(parts) if parts else tk.DMDFitter()
    return fitter.update(tk.Trajectory.of(x, y)).surrogate


def trust(system: KnownSystem, spectrum: Spectrum) -> dict[str, int]:
    """Counts of leading eigenvalues found, of these trusted, and of wrong ones.

    Found is what lies within three standard errors, "to no better" than ``OFF`` where one standard
    error alone is larger: such data do not determine the eigenvalue.
    """
    values, trusted = spectrum.eigenvalues, spectrum.trusted()
    errors = torch.zeros(len(values)) if spectrum.errors is None else spectrum.errors
    margin = OFF + 3 * errors.nan_to_num(nan=math.inf).cpu()
    wrong = system.distances(values) > margin
    gaps = (system.eigenvalues[:, None] - values).abs()
    nearest = gaps.argmin(1)
    right = gaps.amin(1) <= (margin[nearest] - OFF).clamp(min=EXACT)
    return {
        "leading": len(nearest),
        "found": int(right.sum()),
        "found and trusted": int(trusted[nearest[right]].sum()),
        "found to no better": int((~trusted & (errors.cpu() > OFF))[nearest[right]].sum()),
        "trusted": int(trusted.sum()),
        "wrong": int(wrong.sum()),
        "wrong and trusted": int((wrong & trusted).sum()),
    }


def closure(system: KnownSystem, spectrum: Spectrum) -> float:
    """The largest of leading ones: how far what the dictionary misses may put them off."""
    gaps = (system.eigenvalues[:, None] - spectrum.eigenvalues).abs()
    closures = spectrum.closures
    return math.nan if closures is None else closures[gaps.argmin(1)].max().item()


def kooplearn(start: Tensor, end: Tensor) -> Tensor:
    """Principal component regression of all components; it takes one series and a lag."""
    ridge = importlib.import_module("kooplearn.linear_model").Ridge
    model = ridge(
        n_components=start.shape[1],
        lag_time=len(start),
        reduced_rank=False,
        alpha=None,
        eigen_solver="dense",
    )
    return torch.as_tensor(model.fit(torch.cat([start, end]).numpy()).eig())


def deeptime(start: Tensor, end: Tensor) -> Tensor:
    """EDMD of features that are given."""
    identity = importlib.import_module("deeptime.basis").Identity()
    edmd = importlib.import_module("deeptime.decomposition").EDMD(identity)
    return torch.as_tensor(edmd.fit((start.numpy(), end.numpy())).fetch_model().eigenvalues)


def pydmd(start: Tensor, end: Tensor) -> Tensor:
    """DMD of pairs, all directions."""
    dmd = importlib.import_module("pydmd").DMD(svd_rank=-1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of condition numbers
        return torch.as_tensor(dmd.fit(start.T.numpy(), end.T.numpy()).eigs)


PEERS = {"kooplearn": kooplearn, "deeptime": deeptime, "PyDMD": pydmd}


def table(results: dict[str, dict[str, Any]]) -> str:
    """Errors and trust by system, with the goals and what is not installed."""
    head = ["known system", "rows", "ours", *PEERS, "wrong trusted", "leading trusted"]
    head += [f"error above {OFF:g}", "closure", "goal"]
    systems = results["known"]["systems"]
    rows = [_row(system) for system in systems]
    draws = len(systems[0]["ours"])
    absent = {f"{n}: {why}" for system in systems for n, why in system["absent"].items()}
    note = f"\n\nNot installed (pip install 'torchkoopman[bench]'): {'; '.join(sorted(absent))}."
    return (
        f"Largest error of the leading eigenvalues, median of {draws} draw(s); trust over all "
        "draws, leading ones of those found, and how many of these have a standard error above "
        f"{OFF:g}, which is never trusted; largest closure of leading ones, median of draws:\n\n"
        f"{markdown(head, rows)}\n\nGoal: at most {BEST} times the best peer's error or below "
        f"{EXACT:.0e}, no wrong eigenvalue trusted, every leading one that is found trusted."
        f"{note if absent else ''}"
    )


def headlines(results: dict[str, dict[str, Any]]) -> list[tuple[str, str]]:
    """How many systems are as near as the best peer, and what is trusted."""
    systems = results["known"]["systems"]
    near = sum("error" not in _row(system)[-1] for system in systems)
    sums: Counter[str] = Counter()
    for system in systems:
        for draw in system["trust"]:
            sums.update(draw)
    return [
        (
            f"systems of known eigenvalues, error at most {BEST} times the best of "
            f"{', '.join(PEERS)}, or below {EXACT:.0e}",
            f"{near} of {len(systems)}",
        ),
        (
            "wrong eigenvalues trusted; leading ones that are found, trusted",
            f"{sums['wrong and trusted']} of {sums['wrong']}; {sums['found and trusted']} of "
            f"{sums['found']}",
        ),
    ]


def _row(result: dict[str, Any]) -> list[str]:
    ours = median(result["ours"])
    peers = {name: median(errors) for name, errors in result["peers"].items() if errors}
    sums = {name: sum(each[name] for each in result["trust"]) for name in result["trust"][0]}
    best = min(peers.values(), default=math.inf)
    missed = [] if ours <= max(EXACT, BEST * best) else ["error"]
    missed += ["wrong trusted"] * (sums["wrong and trusted"] > 0)
    missed += ["leading not trusted"] * (sums["found and trusted"] < sums["found"])
    met = "met" if peers or ours <= EXACT else "met but for want of a peer"
    return [
        result["name"],
        str(result["rows"]),
        f"{ours:.2g}",
        *(f"{peers[name]:.2g}" if name in peers else "not installed" for name in PEERS),
        f"{sums['wrong and trusted']} of {sums['wrong']}",
        f"{sums['found and trusted']} of {sums['found']} ({sums['leading']} there are)",
        str(sums["found to no better"]),
        f"{median(result['closures']):.2g}",
        f"MISSED: {', '.join(missed)}" if missed else met,
    ]
