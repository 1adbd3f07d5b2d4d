"""The evidence that README.md and docs/evidence.md show, from results that are committed.

``keep`` takes a bench's results into ``docs/results``, one file for each part, with commits, dates
and seeds; ``write`` writes the tables of both pages from these files. A page says where:
``<!-- results: replacement -->``, and ``<!-- end of results -->`` behind the table.
"""

from __future__ import annotations

import argparse
import importlib
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import bench
from benchmarks.tables import markdown

if TYPE_CHECKING:
    from types import ModuleType

ROOT = Path(__file__).parents[1]
KEPT = ROOT / "docs" / "results"
PAGES = (ROOT / "README.md", ROOT / "docs" / "evidence.md")
MARKED = re.compile(r"(<!-- results: (\w+) -->\n).*?(<!-- end of results -->)", re.DOTALL)
PARTS = {part: name for part, (name, _) in bench.PARTS.items()} | {"robust": "benchmarks.robust"}
"""What evidence is kept of → its module: the bench's parts, and what has a command of its own."""
SUMMARY = "summary"
LONGEST = 10
"""Rows of the summary at most."""


def main(arguments: list[str] | None = None) -> int:
    """Keep results, or write the pages."""
    parser = argparse.ArgumentParser(description=__doc__)
    tasks = parser.add_subparsers(dest="task", required=True)
    keeping = tasks.add_parser("keep", help="take a bench's results into docs/results")
    keeping.add_argument("folder", type=Path, help="as runs/bench/full")
    keeping.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    keeping.add_argument("--add", action="store_true", help="beside jobs kept before, of any seed")
    tasks.add_parser("write", help="write the tables of the pages")
    chosen = parser.parse_args(arguments)
    if chosen.task == "keep":
        if chosen.folder.name.startswith("quick"):
            parser.error(f"{chosen.folder} is of a quick bench, of one small seed: no evidence")
        if not (chosen.folder / "bench.json").is_file():
            parser.error(f"{chosen.folder} has no bench.json; run `make bench` first")
        keep(chosen.folder, chosen.parts, add=chosen.add)
    for page in PAGES:
        page.write_text(written(page.read_text()))
    return 0


def keep(folder: Path, parts: list[str], *, add: bool = False) -> None:
    """Take the results of some parts; those of a part that has none stay, and with ``add`` jobs."""
    known = json.loads((folder / "bench.json").read_text())
    KEPT.mkdir(parents=True, exist_ok=True)
    for part in parts:
        if results := known.get(part):
            if hasattr(module(part), "kept"):  # what the tables need of it
                results = {job: module(part).kept(result) for job, result in results.items()}
            path = KEPT / f"{part}.json"
            if add and path.exists():
                results = json.loads(path.read_text()) | results
            path.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
            print(f"kept: {path.relative_to(ROOT)}")


def module(part: str) -> ModuleType:
    """A part's module."""
    return importlib.import_module(PARTS[part])


def kept() -> dict[str, dict[str, Any]]:
    """Part → its committed results, in the order of the bench."""
    paths = {part: KEPT / f"{part}.json" for part in PARTS}
    return {part: json.loads(path.read_text()) for part, path in paths.items() if path.exists()}


def written(page: str) -> str:
    """A page with its marked tables as the committed results give them."""
    results = kept()

    def filled(found: re.Match[str]) -> str:
        part = found[2]
        if part == SUMMARY:
            text = summary(results)
        elif part in results:
            text = f"{module(part).table(results[part])}\n\n{provenance(part, results[part])}"
        else:
            raise ValueError(f"a page asks for results of {part!r}; kept are {list(results)}.")
        return f"{found[1]}\n{text}\n\n{found[3]}"

    return MARKED.sub(filled, page)


def summary(results: dict[str, dict[str, Any]]) -> str:
    """What was measured in one line each, and by which command."""
    rows = [
        [what, number, command(part, found)]
        for part, found in results.items()
        for what, number in getattr(module(part), "headlines", no_headlines)(found)
    ]
    assert len(rows) <= LONGEST, f"{len(rows)} rows: keep the summary short"
    return markdown(["what", "measured", "command"], rows)


def no_headlines(results: dict[str, Any]) -> list[tuple[str, str]]:
    """Of a part that the summary leaves out."""
    return []


def seeds_of(results: dict[str, Any]) -> list[int]:
    """The seeds that results are of."""
    return sorted({seed for run in results.values() for seed in run["origin"]["seeds"]})


def command(part: str, results: dict[str, Any]) -> str:
    """What measures them again; the bench's own seeds need not be named."""
    if part not in bench.PARTS:
        return f"`make {part}`"
    seeds = seeds_of(results)
    own = seeds in ([], list(range(5)))
    chosen = "" if own else f' BENCH_SEEDS="{" ".join(map(str, seeds))}"'
    return f"`make bench PARTS={part}{chosen}`"


def provenance(part: str, results: dict[str, Any]) -> str:
    """Where numbers come from: seeds, commit, date and command."""
    origins = [run["origin"] for run in results.values()]
    commits = ", ".join(sorted({origin["commit"] for origin in origins}))
    days = sorted({origin["date"] for origin in origins})
    when = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    seeds = seeds_of(results)
    told = f"Seeds {', '.join(map(str, seeds))}; c" if seeds else "C"
    return f"*{told}ommit {commits}, {when}: {command(part, results)}.*"


if __name__ == "__main__":
    sys.exit(main())
