"""Spectrum: known eigenvalues found, trust, non-normality, modes in training, seeds compared."""

from __future__ import annotations

from functools import partial
from itertools import combinations
from math import log10
from typing import TYPE_CHECKING, Any

import torch

import torchkoopman as tk
from benchmarks.known.network import DEPTH, SYSTEMS, known
from benchmarks.known.network import fitted as known_fit
from benchmarks.models import SURROGATES, fitted
from benchmarks.tables import folder, markdown, seeds, spread
from benchmarks.tasks import watch
from torchkoopman.koopman.feature_maps import Monomials
from torchkoopman.spectra.spectrum import spectrum_of

if TYPE_CHECKING:
    from collections.abc import Callable

SHARE = 0.01
"""Of the energy, for a mode to be followed."""
EPSILON = 0.1
"""Of the pseudospectral radius."""
RANK = 20
"""Directions in which operators are compared."""
LOOKED = (
    "modes",
    "trusted",
    "radius",
    "trusted radius",
    "pseudospectral radius",
    "departure",
    "norm",
    "growth of 20 spans, decades",
)
"""What is said of each surrogate."""
COMPARED = 3
"""Of the seeds, whose networks are compared with each other."""


def jobs(quick: bool) -> dict[str, Callable[[], dict[str, Any]]]:
    """The known systems; each seed's surrogates; operators of different seeds."""
    found: dict[str, Callable[[], dict[str, Any]]] = {"known": known_systems}
    found |= {f"yinyang-{seed}": partial(look, seed, quick) for seed in seeds(quick)}
    if not quick:
        pairs = combinations(seeds(quick)[:COMPARED], 2)
        found |= {f"compare-{a}-{b}": partial(compared, a, b) for a, b in pairs}
    return found


def known_systems() -> dict[str, Any]:
    """Errors of eigenvalues that are known, and how residuals tell them from the spurious ones."""
    found: dict[str, Any] = {}
    for name, linear in SYSTEMS.items():
        surrogate = known_fit(linear, Monomials(2), noise=1)
        step = spectrum_of(surrogate.operator.matrix(1 / DEPTH)).eigenvalues
        span = surrogate.spectrum()
        places = [int((span.eigenvalues - value**DEPTH).abs().argmin()) for value in known(linear)]
        trusted = span.trusted()
        found[name] = {
            "error": max((step - value).abs().min().item() for value in known(linear)),
            "true": len(set(places)),
            "true trusted": int(trusted[list(set(places))].sum()),
            "spurious": len(trusted) - len(set(places)),
            "spurious trusted": int(trusted.sum() - trusted[list(set(places))].sum()),
        }
    return found


def look(seed: int, quick: bool) -> dict[str, Any]:
    """What the spectral tools say of one network's surrogates."""
    made = fitted("yinyang", seed, quick, folder(quick))
    found: dict[str, Any] = {}
    for method in SURROGATES:
        surrogate = made.surrogates[method]
        spectrum = surrogate.spectrum()
        pseudo = surrogate.pseudospectrum(points=31)
        shape = surrogate.non_normality(points=15)
        found[method] = {
            "modes": len(spectrum.eigenvalues),
            "trusted": int(spectrum.trusted().sum()),
            "radius": spectrum.radius,
            "trusted radius": spectrum.keep(spectrum.trusted()).radius,
            "pseudospectral radius": pseudo.radius(EPSILON),
            "departure": shape.departure,
            "norm": shape.norm,
            "growth of 20 spans, decades": log10(shape.peak[1]),
        }
    return {"surrogates": found, "following": _followed(made, seed)}


def _followed(made: Any, seed: int) -> dict[str, Any]:
    """Modes with a share of the autoencoder's energy, followed while it trains: do they settle?"""
    fitter, spectra = made.task.fitter(made.model, seed), []
    watch(made.model, made.task.stream(made.data.train, seed), fitter)
    steps = made.task.steps // 4
    for _ in range(4):
        fitter.train(steps)
        spectrum = fitter.surrogate.spectrum()
        assert spectrum.energies is not None
        spectra.append(spectrum.keep(spectrum.energies >= SHARE))
    tracks = tk.follow(spectra, trusted=False)  # whether the data bear them out or not
    whole = int((~tracks.eigenvalues.isnan()).all(0).sum())
    return {
        "modes": [len(each.eigenvalues) for each in spectra],
        "followed throughout": whole,
        "ever trusted": tk.follow(spectra).indices.shape[1],
        "drift": tracks.drift.tolist(),
    }


def compared(first: int, second: int) -> dict[str, Any]:
    """Operators of two seeds' networks, and of one network by two fits, beside their nulls."""
    one, other = (fitted("yinyang", seed, False, folder(False)) for seed in (first, second))
    anew = tk.EDMDFitter(generator=torch.Generator().manual_seed(300 + first))
    stream = one.task.stream(one.data.train, first)
    again = one.task.fitter(one.model, 100 + first)
    watch(one.model, one.task.stream(one.data.train, 100 + first), again)
    pairs = {
        "EDMD, two networks": (one.surrogates["EDMD"], other.surrogates["EDMD"]),
        "EDMD, one network, two draws": (
            one.surrogates["EDMD"],
            tk.fit(one.model, stream, "blocks.*", method=anew, progress=False),
        ),
        "autoencoder, two networks": (
            one.surrogates["autoencoder"],
            other.surrogates["autoencoder"],
        ),
        "autoencoder, one network, two fits": (
            one.surrogates["autoencoder"],
            again.train(one.task.steps).surrogate,
        ),
    }
    found: dict[str, Any] = {}
    for name, pair in pairs.items():
        distance = tk.compare(*pair, rank=RANK, generator=torch.Generator().manual_seed(first))
        null = distance.null_similarity / distance.scale
        found[name] = {"relative": distance.relative, "null": null.mean().item()}
    return {"pairs": found}


def table(results: dict[str, dict[str, Any]]) -> str:
    """Known systems, looks by seed, comparisons."""
    texts = []
    if "known" in results:
        texts.append(_known(results["known"]))
    looks = [result for job, result in results.items() if job.startswith("yinyang")]
    if looks:
        texts.append(_looks(looks))
    pairs = [result["pairs"] for job, result in results.items() if job.startswith("compare")]
    if pairs:
        rows = [
            [
                name,
                spread([each[name]["relative"] for each in pairs], 3),
                spread([each[name]["null"] for each in pairs], 3),
            ]
            for name in pairs[0]
        ]
        head = ["surrogates", "relative similarity distance", "null"]
        texts.append(f"Operators compared, {len(pairs)} pairs:\n\n{markdown(head, rows)}")
    return "\n\n".join(texts)


def _known(result: dict[str, Any]) -> str:
    head = ["known system", "largest error of λ", "true modes trusted", "spurious modes trusted"]
    rows, met = [], True
    for name in SYSTEMS:
        each = result[name]
        met &= each["error"] < 1e-3
        met &= each["true trusted"] == each["true"] and each["spurious trusted"] == 0
        ratios = [f"{each[f'{k} trusted']} of {each[k]}" for k in ("true", "spurious")]
        rows.append([name, f"{each['error']:.1e}", *ratios])
    verdict = "met" if met else "MISSED"
    return f"{markdown(head, rows)}\n\nGoal: errors below 1e-3, only true modes trusted: {verdict}."


def _looks(looks: list[dict[str, Any]]) -> str:
    names = LOOKED
    rows = [
        [method, *(spread([look["surrogates"][method][name] for look in looks]) for name in names)]
        for method in looks[0]["surrogates"]
    ]
    followed = [look["following"] for look in looks]
    modes = spread([each["modes"][-1] for each in followed], 1)
    whole = spread([each["followed throughout"] for each in followed], 1)
    trusted = spread([each["ever trusted"] for each in followed], 1)
    drift = [spread([each["drift"][k] for each in followed], 4) for k in (0, -1)]
    return (
        f"Yin-Yang, {len(looks)} seed(s):\n\n{markdown(['surrogate', *names], rows)}\n\n"
        f"Of {modes} modes with 1 % of the energy, {whole} can be followed while the autoencoder "
        f"trains on, {trusted} tracks are ever trusted; an eigenvalue moves by {drift[0]} at first "
        f"and {drift[1]} at last."
    )
