"""The tables of forgetting."""

from __future__ import annotations

from statistics import mean
from typing import Any

from benchmarks.tables import markdown, spread

GOALS = "at most 0.5 % left, retained within 0.2 points of the unedited swap"

ORDER = (
    "original",
    "unedited swap",
    "edited",
    "neutral row only",
    "operator edit only",
    "the paper's edit",
    "LEACE",
    "retrained",
    "another retrained",
)
"""Networks as the tables have them."""


def table(results: dict[str, dict[str, Any]]) -> str:
    """The audits as tables, network by network, and whether the goals are met."""
    texts = []
    runs = [result for job, result in results.items() if job.startswith("yinyang")]
    for method in ("EDMD", "autoencoder") if runs else ():
        cards = [run["audits"][method] for run in runs]
        texts.append(
            f"Yin-Yang without the dots, {method}, {len(runs)} seed(s):\n\n{_audits(cards)}\n\n"
            f"{_verdict(cards)}\n\n{_strength([run['strength'][method] for run in runs])}"
        )
    if runs:
        texts.append(f"Reverting the edit is exact: {all(run['reverted'] for run in runs)}.")
    swept = [r for job, r in results.items() if job.startswith("mnist") and "accuracies" in r]
    if swept:
        texts.append(_digits(swept))
    cards = [r["audits"]["autoencoder"] for job, r in results.items() if "audit" in job]
    if cards:
        texts.append(
            f"MNIST, {len(cards)} sets of digits forgotten, one seed each, mean over the sets:\n\n"
            f"{_audits(cards)}"
        )
    return "\n\n".join(texts)


def _audits(cards: list[dict[str, Any]]) -> str:
    """One row a network: mean and spread over audits."""
    head = ["network", "left %", "retained %", "KL, forgotten", "KL, retained", "members %"]
    head += ["relearning, steps", "probe: start", "operator", "decoded", "neighbours: decoded"]
    rows = []
    known = cards[0]["columns"]
    for name in sorted(known, key=lambda each: ORDER.index(each) if each in ORDER else len(ORDER)):
        each = [card["columns"][name] for card in cards]
        steps = [column["relearning"] for column in each]
        rows.append(
            [
                name,
                spread([100 * column["forgotten"] for column in each]),
                spread([100 * column["retained"] for column in each]),
                *(spread([column["divergence"][k] for column in each], 3) for k in (0, 1)),
                spread([100 * column["membership"]["forgotten"] for column in each], 1),
                "not always" if None in steps else spread(steps, 1),
                *(_detected(each, state, "probe") for state in ("start", "operator", "decoded")),
                _detected(each, "decoded", "neighbours"),
            ]
        )
    return markdown(head, rows)


def _detected(columns: list[dict[str, Any]], state: str, how: str) -> str:
    known = [100 * c["detections"][state][how] for c in columns if state in c["detections"]]
    return spread(known, 1) if known else ""


def _verdict(cards: list[dict[str, Any]]) -> str:
    left = mean(100 * card["columns"]["edited"]["forgotten"] for card in cards)
    lost = mean(100 * card["edit_cost"] for card in cards)
    apart = mean(card["columns"]["edited"]["divergence"][0] for card in cards)
    met = "met" if left <= 0.5 and lost <= 0.2 and apart <= 0.1 else "MISSED"
    took = 1000 * mean(card["seconds"] for card in cards)
    memory = mean(card["moment_bytes"] for card in cards) / 2**20
    strength = mean(card["columns"]["edited"]["membership"]["strength"] for card in cards)
    return (
        f"Goal: {GOALS}, KL on the forgotten at most 0.1; {left:.2f} % left, {lost:+.2f} points "
        f"lost, KL {apart:.3f}: {met}. The edit takes {took:.0f} ms and {memory:.1f} MiB of "
        f"moments. The membership attack's own AUC is {strength:.2f}."
    )


def _strength(curves: list[dict[str, list[float]]]) -> str:
    """Accuracy by strength of the bare operator edit; the last class is the forgotten one."""
    rows = []
    for strength in curves[0]:
        values = [curve[strength] for curve in curves]
        kept = [100 * mean(each[:-1]) for each in values]
        rows.append([strength, spread([100 * each[-1] for each in values]), spread(kept)])
    head = ["strength, operator edit only", "left %", "retained %"]
    return markdown(head, rows)


def _digits(runs: list[dict[str, Any]]) -> str:
    """One row for each set of digits: what is left, and what the others lose."""
    rows, worst_left, worst_lost = [], 0.0, -100.0
    for name in (key for key in runs[0]["accuracies"] if key != "swap"):
        classes = [int(digit) for digit in name.split("-")]
        kept = [digit for digit in range(10) if digit not in classes]
        left, lost, most = [], [], []
        for run in runs:
            before, after = run["accuracies"]["swap"], run["accuracies"][name]
            left.append(100 * mean(after[digit] for digit in classes))
            losses = [100 * (before[digit] - after[digit]) for digit in kept]
            lost.append(mean(losses))
            most.append(max(losses))
        worst_left, worst_lost = max(worst_left, mean(left)), max(worst_lost, mean(lost))
        took = [run["milliseconds"][name] for run in runs]
        cells = [spread(left), spread(lost, sign=True), spread(most), f"{mean(took):.0f}"]
        rows.append([name.replace("-", ", "), *cells])
    met = "met" if worst_left <= 0.5 and worst_lost <= 0.2 else "MISSED"
    head = ["forgotten", "left %", "lost by the others", "most lost by one", "edit, ms"]
    return (
        f"MNIST, autoencoder, {len(runs)} seed(s), points lost against the unedited swap:\n\n"
        f"{markdown(head, rows)}\n\nGoal: {GOALS}; at worst {worst_left:.2f} % left and "
        f"{worst_lost:+.2f} points lost: {met}."
    )
