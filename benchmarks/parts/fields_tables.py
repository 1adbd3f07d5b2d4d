"""Tables of the part on latent vector fields."""

from __future__ import annotations

from statistics import mean
from typing import Any

from benchmarks.tables import markdown, spread

Results = dict[str, dict[str, Any]]
NOVEL = ("5 to 9", "noise", "turned")
COUNTS = (1, 4, 16)
"""Atoms in a code."""


def of(results: Results, kind: str) -> Results:
    """The jobs whose names begin with this."""
    return {job: each for job, each in results.items() if job.startswith(f"{kind}-")}


def memory_table(results: Results) -> str:
    """What attractors from training samples remember, by size, width and noise."""
    groups: dict[tuple[int, int, float], list[dict[str, Any]]] = {}
    for kind in ("size", "width", "plain"):
        for each in of(results, kind).values():
            groups.setdefault((each["size"], each["width"], each["noise"]), []).append(each)
    head = ["trained on", "latent", "noise", "test error", "converged", "attractors", "recovered",
            "coefficient", "null", "rank 90 %", "from noise: converged", "recovered"]  # fmt: skip
    rows = []
    for (size, width, noise), runs in sorted(groups.items()):
        own, free = ([run[f"from {start}"] for run in runs] for start in ("train", "noise"))
        known = [each["coefficient"] for each in own if each["coefficient"] is not None]
        rows.append(
            [
                str(size),
                str(width),
                f"{noise:g}",
                spread([run["error"] for run in runs], 4),
                spread([each["converged"] for each in own]),
                spread([each["attractors"] for each in own], 1),
                spread([each["recovered"] for each in own], 1),
                spread(known, 3) if known else "–",
                spread([each["null"] for each in own], 3),
                spread([each["rank"] for each in own], 1),
                spread([each["converged"] for each in free]),
                spread([each["recovered"] for each in free], 1),
            ]
        )
    return f"{markdown(head, rows)}\n\n{rates_line(results)}"


def rates_line(results: Results) -> str:
    """The rate law against measured steps, over all attractors that can be rated."""
    runs = [
        run["from train"]
        for kind in ("size", "width", "plain")
        for run in of(results, kind).values()
    ]
    rated = [run for run in runs if run.get("rated")]
    if not rated:
        return "No attractor could be rated."
    radius = spread([run["radius ratio"] for run in rated])
    norms = [run["norm ratio"] for run in rated if run["norm ratio"] not in (None, float("inf"))]
    without = spread([run["without a value"] for run in rated])
    by_norm = spread(norms) if norms else "–"
    return (
        f"Steps to come e times closer, by the law over measured, medians of {len(rated)} fields: "
        f"by the multipliers' radius {radius}, by the spectral norm {by_norm}; the norm is 1 or "
        f"more, and gives no law, at a share of {without} of the attractors."
    )


def probe_table(results: Results) -> str:
    """Relative error of decoded codes by dictionary."""
    runs = list(of(results, "probe").values())
    counts = range(len(next(iter(runs[0]["errors"].values()))))
    rows = []
    for name in runs[0]["errors"]:
        cells = [spread([run["errors"][name][k] for run in runs], 3) for k in counts]
        rows.append([name, spread([run["sizes"][name] for run in runs], 1), *cells])
    rows.append(
        ["the latent states", "", *[spread([run["plain"] for run in runs], 3)] * len(counts)]
    )
    return markdown(["dictionary", "atoms", "1 in a code", "4", "16"], rows)


def score_table(results: Results) -> str:
    """Cosine of the field with the score."""
    groups: dict[float, list[dict[str, Any]]] = {}
    for each in of(results, "score").values():
        groups.setdefault(each["sigma"], []).append(each)
    rows = [
        [f"{sigma:g}", spread([r["cosine"] for r in runs], 3), spread([r["null"] for r in runs], 3)]
        for sigma, runs in sorted(groups.items())
    ]
    return markdown(["noise", "cosine with the score", "shuffled (null)"], rows)


def novelty_table(results: Results) -> str:
    """AUROC and FPR95 of all scores."""
    runs = list(of(results, "novelty").values())
    names = sorted({score for run in runs for novel in NOVEL for score in run[novel]})
    order = sorted(names, key=lambda name: -mean(run["5 to 9"].get(name, [0.5])[0] for run in runs))
    rows = []
    for name in order:
        cells = []
        for novel in NOVEL:
            known = [run[novel][name] for run in runs if name in run[novel]]
            cells += [spread([each[k] for each in known], 3) for k in (0, 1)]
        rows.append([name, *cells])
    head = ["score", *(f"{novel}, {what}" for novel in NOVEL for what in ("AUROC", "FPR95"))]
    return f"{markdown(head, rows)}\n\nData: {runs[0]['data']}; chance is 0.5 and 0.95."
