"""Hostile networks × ways × {new, run before} × modules put in: ``make hostile FULL=1``.

``WAYS="export fx"``, ``KINDS=identity``, ``SHARE=0.1`` and ``TWINS=1`` choose. One line is kept for
each swap in ``runs/hostile/``, in a file named after the code, so an interrupted run goes on and a
change of the library or of the suite starts again. Exit status 1 if anything is silently wrong.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import random
import sys
from collections import Counter
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from tqdm.auto import tqdm

from benchmarks.hostile.suite import CASES, FINE, KINDS, WAYS, judge

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.hostile.case import Case
    from benchmarks.hostile.suite import Verdict

ROOT = Path(__file__).parents[2]
RUNS = Path("runs/hostile")
WRONG = ("silent", "gradients")
Job = tuple[str, str, str, bool]
"""Way, module put in, network, whether it was run before."""


def fingerprint() -> str:
    """Of the library's and the suite's code and of torch: verdicts of other code do not count."""
    code = hashlib.sha256(torch.__version__.encode())
    sources = (*(ROOT / "torchkoopman").rglob("*.py"), *(ROOT / "benchmarks/hostile").glob("*.py"))
    for path in sorted(sources):
        code.update(path.read_bytes())
    return code.hexdigest()[:12]


def jobs(cases: list[Case], ways: list[str], kinds: list[str]) -> dict[Job, Case]:
    """Every swap to be judged, way by way."""
    every = product(ways, kinds, cases, (False, True))
    return {(way, kind, case.name, prior): case for way, kind, case, prior in every}


def share(every: dict[Job, Case], part: float) -> dict[Job, Case]:
    """Some of the swaps, always the same, in their order."""
    count = min(len(every), max(1, round(part * len(every))))
    chosen = set(random.Random(0).sample(range(len(every)), count))
    return {job: case for index, (job, case) in enumerate(every.items()) if index in chosen}


def known(path: Path) -> dict[Job, Verdict]:
    """The verdicts of a file; a last line that was cut off is left out."""
    found: dict[Job, Verdict] = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            *job, verdict, detail = json.loads(line)
        except ValueError:
            continue
        found[tuple(job)] = (verdict, detail)
    return found


def verdicts(wanted: dict[Job, Case], path: Path) -> dict[Job, Verdict]:
    """Judge what is wanted and not known yet, and write each verdict down at once."""
    found = known(path)
    waiting = {job: case for job, case in wanted.items() if job not in found}
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and path.read_text()[-1:] not in ("", "\n"):  # a line that was cut off
        path.write_text(path.read_text() + "\n")
    with path.open("a") as file, tqdm(total=len(waiting), unit="swap", mininterval=1) as bar:
        for job, case in waiting.items():
            way, kind, _, prior = job
            bar.set_postfix_str(f"{way}, {kind}: {case.name}", refresh=False)
            found[job] = judge(case, way, prior, kind)
            print(json.dumps([*job, *found[job]]), file=file, flush=True)
            if found[job][0] in WRONG:
                bar.write(told(job, found[job]), file=sys.stdout)
            bar.update()
    return {job: found[job] for job in wanted}


def told(job: Job, verdict: Verdict) -> str:
    """One line on one swap."""
    way, kind, name, prior = job
    return (
        f"{verdict[0]}: {name!r} by {way}, {kind}, {'run before' if prior else 'new'}: {verdict[1]}"
    )


def table(found: dict[Job, Verdict]) -> Iterator[str]:
    """A row for each way and module: how many swaps came out how."""
    columns = (*FINE, *WRONG)
    yield f"{'way':<9}{'module':<11}{'swaps':>7}" + "".join(f"{name:>11}" for name in columns)
    groups = dict.fromkeys((way, kind) for way, kind, _, _ in found)
    rows = {
        group: Counter(verdict for job, (verdict, _) in found.items() if job[:2] == group)
        for group in groups
    }
    rows["all", ""] = sum(rows.values(), Counter())
    for (way, kind), counts in rows.items():
        cells = "".join(f"{counts[name]:>11}" for name in columns)
        yield f"{way:<9}{kind:<11}{counts.total():>7}{cells}"


def main(arguments: list[str] | None = None) -> int:
    """Parse arguments, judge, print the table; 1 if a swap was silently wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--share", type=float, default=1.0, help="of the swaps, chosen by a seed")
    parser.add_argument("--twins", action="store_true", help="the harmless twins instead")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    twins = [case.harmless() for case in CASES if case.twin]
    cases = twins if chosen.twins else CASES
    wanted = share(jobs(cases, chosen.ways, chosen.kinds), chosen.share)
    path = RUNS / f"{fingerprint()}.jsonl"
    found = verdicts(wanted, path)
    wrong = {job: verdict for job, verdict in found.items() if verdict[0] in WRONG}
    what = "harmless twins" if chosen.twins else "hostile networks"
    print(f"{len(cases)} {what}, each new and run before; verdicts in {path}")
    print("\n".join((*table(found), *(told(job, verdict) for job, verdict in wrong.items()))))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
