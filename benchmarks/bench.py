"""Everything the README claims, measured again: ``make bench``, or ``make bench QUICK=1``.

A part is a module with ``jobs(quick)``, name → function that measures and gives a JSON-able dict,
and ``table(results)``, Markdown. Each job runs in a process of its own and leaves one JSON file, so
that an interrupted bench goes on where it stopped; ``--fresh`` starts again. Tables and numbers
land in ``runs/bench/<full or quick>/``, with ``--seeds`` in a folder named after them.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from tqdm.auto import tqdm

from benchmarks.tables import SEEDS, place, seeds, tasks

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

ROOT = Path(__file__).parents[1]
MODULE = "benchmarks.bench"
PARTS: dict[str, tuple[str, int]] = {
    "replacement": ("benchmarks.parts.replacement", 2),
    "forgetting": ("benchmarks.parts.forgetting", 2),
    "topology": ("benchmarks.parts.topology", 2),
    "spectrum": ("benchmarks.parts.spectrum", 2),
    "systems": ("benchmarks.parts.systems", 2),
    "surgery": ("benchmarks.parts.surgery", 2),
    "fields": ("benchmarks.parts.fields", 2),
    "contraction": ("benchmarks.parts.contraction", 2),
    "streams": ("benchmarks.parts.streams", 2),
    "attractors": ("benchmarks.parts.attractors", 2),
    "gated": ("benchmarks.parts.gated", 1),
    "cells": ("benchmarks.parts.cells", 1),
    "whole": ("benchmarks.parts.whole", 1),
    "peers": ("benchmarks.parts.peers", 1),
    "cost": ("benchmarks.parts.cost", 1),
}
"""Part → its module, and how many of its jobs may run side by side; times of one are of one alone.
Later parts use the networks and surrogates of the first."""


def main(arguments: list[str] | None = None) -> int:
    """Run what is asked for; 1 if a job failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one small seed, no MNIST, minutes")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--seeds", nargs="+", type=int, help="other seeds than the bench's own")
    parser.add_argument("--fresh", action="store_true", help="forget what was measured before")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.seeds:
        os.environ[SEEDS] = " ".join(map(str, chosen.seeds))
    folder = place(chosen.quick)
    if chosen.job:
        work(chosen.job, chosen.quick, folder)
        return 0
    if not chosen.quick and "mnist" not in tasks(quick=False):
        print("MNIST is left out: TORCHKOOPMAN_DATA names no folder of its files", file=sys.stderr)
    if chosen.fresh:
        shutil.rmtree(folder, ignore_errors=True)
    failed = [f"{part}/{job}" for part in chosen.parts for job in run(part, chosen.quick, folder)]
    report(folder, chosen.quick)
    for name in failed:
        print(f"failed: {name}; what it said is in {folder / f'{name}.log'}", file=sys.stderr)
    return 1 if failed else 0


def run(part: str, quick: bool, folder: Path) -> list[str]:
    """Run a part's jobs that have no result yet; returns those that failed."""
    width = PARTS[part][1]
    waiting = [job for job in jobs(part, quick) if not (folder / part / f"{job}.json").exists()]
    (folder / part).mkdir(parents=True, exist_ok=True)
    failed = []
    with ThreadPoolExecutor(width) as pool:
        started = {pool.submit(process, part, job, quick, folder): job for job in waiting}
        bar = tqdm(as_completed(started), part, len(started), unit="job", disable=not started)
        for done in bar:
            if done.result() != 0:
                failed.append(started[done])
    return failed


def process(part: str, job: str, quick: bool, folder: Path) -> int:
    """One job in a process of its own, on one thread; what it prints goes into a log."""
    command = [sys.executable, "-m", MODULE, "--job", f"{part}/{job}"]
    command += ["--quick"] if quick else []
    with (folder / part / f"{job}.log").open("w") as log:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.run(command, stdout=log, stderr=log, env=environment).returncode


def work(name: str, quick: bool, folder: Path) -> None:
    """Measure one job and write its result, whole or not at all."""
    torch.set_num_threads(1)
    part, job = name.split("/", 1)
    start = time.perf_counter()
    result = jobs(part, quick)[job]()
    result = {"seconds": round(time.perf_counter() - start, 1), **result}
    result["origin"] = origin(part, quick)
    if "seed" in result:  # of a job that is of one seed alone
        result["origin"]["seeds"] = [result["seed"]]
    path = folder / part / f"{job}.json"
    path.with_suffix(".part").write_text(json.dumps(result, indent=1))
    path.with_suffix(".part").replace(path)


def origin(part: str, quick: bool) -> dict[str, Any]:
    """Where a number comes from: the code, the day, and the seeds of parts that have any."""
    drawn = hasattr(module(part), "seeds")
    return {**code(), "seeds": seeds(quick) if drawn else []}


def code() -> dict[str, str]:
    """The commit that runs, and the day."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty=, changed"]
    commit = subprocess.run(command, capture_output=True, text=True).stdout.strip() or "unknown"
    return {"commit": commit, "date": time.strftime("%Y-%m-%d", time.gmtime())}


def report(folder: Path, quick: bool) -> None:
    """Write ``bench.json`` and ``bench.md`` from all results there are, and print the tables."""
    known: dict[str, dict[str, Any]] = {}
    texts = []
    for part in PARTS:
        files = {job: folder / part / f"{job}.json" for job in jobs(part, quick)}
        results = {
            job: json.loads(path.read_text()) for job, path in files.items() if path.exists()
        }
        if not results:
            continue
        known[part] = results
        missing = [job for job in files if job not in results]
        note = f"\n\nNot measured: {', '.join(missing)}." if missing else ""
        took = sum(result["seconds"] for result in results.values())
        texts.append(
            f"# {part}\n\n{module(part).table(results)}{note}\n\n{took / 60:.1f} minutes.\n"
        )
    (folder / "bench.json").write_text(json.dumps(known, indent=1))
    (folder / "bench.md").write_text("\n".join(texts))
    print("\n".join(texts))
    print(f"written: {folder / 'bench.md'}, {folder / 'bench.json'}")


def jobs(part: str, quick: bool) -> dict[str, Callable[[], dict[str, Any]]]:
    """A part's jobs by name."""
    found: dict[str, Callable[[], dict[str, Any]]] = module(part).jobs(quick)
    return found


def module(part: str) -> ModuleType:
    """A part's module."""
    return importlib.import_module(PARTS[part][0])


if __name__ == "__main__":
    sys.exit(main())
