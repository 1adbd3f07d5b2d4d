"""Tables of the part on latent vector fields."""

from __future__ import annotations

from collections import Counter
from math import comb
from statistics import mean
from typing import Any

from benchmarks.parts.fields_memory import DIGITS
from benchmarks.parts.fields_scores import COUNTS
from benchmarks.parts.fields_scores import SIZES as PROBED
from benchmarks.tables import markdown, spread

Results = dict[str, dict[str, Any]]
NOVEL = ("5 to 9", "noise", "turned")
FEW, ALL, ALL_MNIST = 10, 1258, 60_000
"""Fewest and most training samples of the part."""
RECOVERED, SAME_ERROR, MORE = 9.5, 0.1, 2
"""The bars, ours and not the paper's: samples of ten that are recovered with noise in training;
how far noise may change the test error, relatively; how many times more attractors it must make."""


def of(results: Results, kind: str) -> Results:
    """The jobs whose names begin with this."""
    return {job: each for job, each in results.items() if job.startswith(f"{kind}-")}


def memory_table(results: Results) -> str:
    """What attractors from training samples remember, by data, size, width and noise."""
    groups: dict[tuple[str, int, int, float], list[dict[str, Any]]] = {}
    for kind in ("size", "width", "plain"):
        for each in of(results, kind).values():
            key = (each["data"], each["size"], each["width"], each["noise"])
            groups.setdefault(key, []).append(each)
    head = ["trained on", "latent", "noise", "test error", "converged", "attractors", "by cosine",
            "recovered of train", "recovered of unseen (null)", "coefficient", "its null",
            "rank 90 %", "from noise: converged", "recovered of train",
            "recovered of unseen (null)", "rank 90 %"]  # fmt: skip
    rows = []
    for (data, size, width, noise), runs in sorted(groups.items()):
        own, free = ([run[f"from {start}"] for run in runs] for start in ("train", "noise"))
        known = [each["coefficient"] for each in own if each["coefficient"] is not None]
        unseen = runs[0]["unseen"]
        rows.append(
            [
                f"{size} of {data}",
                str(width),
                f"{noise:g}",
                spread([run["error"] for run in runs], 4),
                spread([each["converged"] for each in own]),
                spread([each["attractors"] for each in own], 1),
                spread([each["by cosine"] for each in own], 1),
                _counted([each["recovered"] for each in own], size),
                _counted([each["recovered of unseen"] for each in own], unseen),
                spread(known, 3) if known else "–",
                spread([each["null"] for each in own], 3),
                spread([each["rank"] for each in own], 1),
                spread([each["converged"] for each in free]),
                _counted([each["recovered"] for each in free], size),
                _counted([each["recovered of unseen"] for each in free], unseen),
                spread([each["rank"] for each in free], 1),
            ]
        )
    return "\n\n".join([markdown(head, rows), *goals(results), rates_line(results)])


def _counted(counts: list[int], total: int) -> str:
    """Numbers of samples, and the share that their mean is of all of the set."""
    return f"{spread(counts, 1)} ({mean(counts) / total:.3%})"


def goals(results: Results) -> list[str]:
    """What was to be shown, and whether it was; of the groups that were measured."""
    full, plain = (list(of(results, f"{kind}-{ALL}").values()) for kind in ("size", "plain"))
    lines = [*_memory_goals(results, "", ALL), *_memory_goals(results, "mnist-", ALL_MNIST)]
    if full and plain:
        error = mean(run["error"] for run in full) / mean(run["error"] for run in plain)
        counts = [mean(run["from train"]["attractors"] for run in runs) for runs in (full, plain)]
        changed = counts[0] >= MORE * counts[1] and abs(error - 1) <= SAME_ERROR
        lines.append(
            f"Goal, mean over seeds, of {ALL} digits: noise in training changes the field "
            f"({MORE} times the attractors) and not the test error (by {SAME_ERROR:.0%} at most); "
            f"{counts[0]:.1f} attractors against {counts[1]:.1f}, {error:.2f} of the error: "
            f"{_said(changed)}."
        )
    return lines


def _memory_goals(results: Results, data: str, most: int) -> list[str]:
    """Few samples are remembered, and none of all."""
    few, full = (list(of(results, f"size-{data}{size}").values()) for size in (FEW, most))
    lines = []
    if few:
        kept = mean(run["from train"]["recovered"] for run in few)
        lines.append(
            f"Goal, {few[0]['data']}, mean over seeds: of {FEW} samples {RECOVERED:g} are "
            f"recovered with noise in training; {kept:.1f} are: {_said(kept >= RECOVERED)}."
        )
    if full:
        own = [run["from train"] for run in full]
        kept, converged = (mean(each[what] for each in own) for what in ("recovered", "converged"))
        said = _said(all(each["recovered"] == 0 for each in own))
        chance = mean(each["recovered of unseen"] for each in own)
        alike = mean(each["unseen like a training sample"] for each in own)
        unseen = full[0]["unseen"]
        lines.append(
            f"Goal, {full[0]['data']}, each seed: of {most} none is; {kept:.1f} in the mean "
            f"({kept / most:.3%}), with {converged:.1%} of the starts converged: {said}. By the "
            f"same rule {chance:.1f} of {unseen} unseen samples are attractors "
            f"({chance / unseen:.3%}){by_chance(own, most, unseen)}. {alike:.1%} of unseen samples "
            "are as like a training sample."
        )
    return lines


def by_chance(own: list[dict[str, Any]], train: int, unseen: int) -> str:
    """How probable so many training samples are among all recovered, if both sets are alike."""
    kept, others = (sum(run[what] for run in own) for what in ("recovered", "recovered of unseen"))
    if not kept + others:
        return ""
    share, total = train / (train + unseen), kept + others
    tail = sum(
        comb(total, k) * share**k * (1 - share) ** (total - k) for k in range(kept, total + 1)
    )
    return (
        f"; in all {kept} training and {others} unseen samples, and were both sets alike, so many "
        f"training ones or more would come with probability {tail:.2f}"
    )


def _said(met: bool) -> str:
    return "met" if met else "MISSED"


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


def split_table(results: Results) -> str:
    """Errors of trained and unseen digits beside those of their attractors and of the mean."""
    groups: dict[int, list[dict[str, Any]]] = {}
    for each in of(results, "split").values():
        groups.setdefault(each["size"], []).append(each)
    parts = ("reconstruction", "prototype", "coverage", "mean sample")
    rows = []
    for size, runs in sorted(groups.items()):
        for which in ("trained", "unseen"):
            told = [run[which] for run in runs]
            known = [[each[part] for each in told if each[part] is not None] for part in parts]
            cells = [spread(values, 4) if values else "–" for values in known]
            ending = spread([each["attracted"] for each in told])
            rows.append([f"{size} {DIGITS}", f"{which} ones", ending, *cells])
    return markdown(["trained on", "of", "end at an attractor", *parts], rows)


def probe_table(results: Results) -> str:
    """Relative error of decoded codes by dictionary: as many atoms as attractors, and more."""
    runs = list(of(results, "probe").values())
    rows, larger = [], []
    for unseen, first in runs[0]["unseen"].items():
        told = [run["unseen"][unseen] for run in runs]
        plain = spread([each["plain"] for each in told], 3)
        for name, errors in first["errors"].items():
            cells = [
                spread([each["errors"][name][k] for each in told], 3) for k in range(len(errors))
            ]
            rows.append([unseen, name, *cells, plain])
        own = spread([each["errors"]["attractors"][1] for each in told], 3)
        names = dict.fromkeys(key.rsplit(", ", 1)[0] for key in first["larger"])
        for name in names:
            cells = []
            for size in PROBED:
                known = [each["larger"].get(f"{name}, {size}") for each in told]
                cells.append("–" if None in known else spread(known, 3))
            larger.append([unseen, name, *cells, own])
    count = spread([run["sizes"]["attractors"] for run in runs], 1)
    head = ["coded", f"{count} atoms that are", *(f"{k} in a code" for k in COUNTS)]
    many = ["coded, 4 in a code", "atoms that are", *(f"{k} of them" for k in PROBED)]
    many.append(f"the {count} attractors")
    first_table = markdown([*head, "latent states themselves"], rows)
    return f"{first_table}\n\n{markdown(many, larger)}"


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
    """AUROC and FPR95 of all scores, a table for each data set, and which score wins how often."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for each in of(results, "novelty").values():
        groups.setdefault(each["data"], []).append(each)
    return "\n\n".join(_novelty(data, runs) for data, runs in sorted(groups.items()))


def _novelty(data: str, runs: list[dict[str, Any]]) -> str:
    names = sorted({score for run in runs for novel in NOVEL for score in run[novel]})
    order = sorted(names, key=lambda name: -mean(run["5 to 9"].get(name, [0.5])[0] for run in runs))
    rows = []
    for name in order:
        cells = []
        for novel in NOVEL:
            known = [run[novel][name] for run in runs if name in run[novel]]
            cells += [spread([each[k] for each in known], 3) for k in (0, 1)]
        rows.append([name, *cells])
    head = [data, *(f"{novel}, {what}" for novel in NOVEL for what in ("AUROC", "FPR95"))]
    best = []
    for novel in NOVEL:
        won = Counter(name for run in runs for name in _best(run[novel]))
        told = ", ".join(f"{name} {count}" for name, count in won.most_common())
        best.append(f"{novel}: {told}")
    below = f"Seeds with the best AUROC (equal ones count), {'; '.join(best)}."
    return f"{markdown(head, rows)}\n\n{below}"


def _best(scores: dict[str, list[float]]) -> list[str]:
    most = max(auroc for auroc, _ in scores.values())
    return [name for name, (auroc, _) in scores.items() if auroc == most]
