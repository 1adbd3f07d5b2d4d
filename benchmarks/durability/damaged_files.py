"""Damaged and forged files, each to be refused: ``python -m benchmarks.durability.damaged_files``.

Bits are flipped and files cut short anywhere in them; forged ones are in ``forged_files.py``. Each
is read in a process of its own, whose memory at its peak (ru_maxrss) is compared with that before,
and the limit is four times the file and 64 MB. A file must be refused with a ValueError.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torchkoopman as tk
from benchmarks.durability import forged_files, forging

if TYPE_CHECKING:
    from collections.abc import Iterator

MODULE = "benchmarks.durability.damaged_files"
ROOM = 64 * 2**20
"""Bytes that a reader may take beside four times the file."""
FLIPS, CUTS, KILLS = 1000, 300, 100


@dataclass(frozen=True)
class Outcome:
    """What came of reading a file."""

    error: str
    """Class of the error; empty if the file was accepted."""
    refused: bool
    """Whether the error is a ValueError."""
    grown: int
    """Bytes that the process grew by, at most."""
    allowed: int
    """How many it may."""

    @property
    def passed(self) -> bool:
        """Refused, and in little memory."""
        return self.refused and self.grown <= self.allowed


def read(path: Path) -> None:
    """Read a file by what is for it."""
    if path.suffix != ".safetensors":
        tk.read_card(path)
    elif "weights" in path.name:
        tk.load(forging.network(), path)
    else:
        tk.Surrogate.load(path)


def outcome(path: Path) -> Outcome:
    """Read a file in a fork of this process."""
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        before, error, refused = peak(), "", False
        try:
            read(path)
        except BaseException as caught:
            error, refused = type(caught).__name__, isinstance(caught, ValueError)
        os.write(theirs, json.dumps([error, refused, peak() - before]).encode())
        os._exit(0)
    os.close(theirs)
    with os.fdopen(ours) as file:
        said = file.read()
    os.waitpid(child, 0)
    error, refused, grown = json.loads(said) if said else ("died", False, 0)
    return Outcome(error, refused, grown, 4 * path.stat().st_size + ROOM)


def peak() -> int:
    """The most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def reader() -> None:
    """Read the files named on standard input: a process that has made none of them."""
    good = Path(sys.stdin.readline().strip())
    read(good)  # what is imported then does not count
    for line in sys.stdin:
        print(json.dumps(vars(outcome(Path(line.strip())))), flush=True)


class Reader:
    """Another process that reads files."""

    def __init__(self, good: Path) -> None:
        command = [sys.executable, "-m", MODULE, "--reader"]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
        self._say(good)

    def __call__(self, path: Path) -> Outcome:
        """What comes of a file."""
        self._say(path)
        assert self.process.stdout is not None
        return Outcome(**json.loads(self.process.stdout.readline()))

    def close(self) -> None:
        """End the process."""
        self.process.communicate()

    def _say(self, path: Path) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{path}\n")
        self.process.stdin.flush()


def flipped(folder: Path, made: dict[str, Path], count: int, seed: int = 0) -> Iterator[Path]:
    """Files with one bit turned, each kind in turn, anywhere in it."""
    draw = random.Random(seed)
    for turn in range(count):
        source = list(made.values())[turn % len(made)]
        content = bytearray(source.read_bytes())
        # Every other one in the first bytes, where headers are, or in the last ones.
        bits = 8 * (len(content) if turn % 2 else min(len(content), 2000))
        bit = draw.randrange(bits)
        if turn % 4 == 0:
            bit = 8 * len(content) - 1 - bit
        content[bit // 8] ^= 1 << bit % 8
        path = folder / f"flipped.{source.name}"
        path.write_bytes(content)
        yield path


def cut(folder: Path, made: dict[str, Path], count: int, seed: int = 0) -> Iterator[Path]:
    """Files that end too early."""
    draw = random.Random(seed)
    for turn in range(count):
        source = list(made.values())[turn % len(made)]
        content = source.read_bytes()
        path = folder / f"cut.{source.name}"
        path.write_bytes(content[: draw.randrange(len(content))])
        yield path


def killed(path: Path, sources: list[Path], kills: int, seed: int = 0) -> list[str]:
    """Kill a process that saves surrogates in turn, and say what is wrong with the file then.

    It must be one of the two, whole, and the next save must leave nothing else in the folder.
    """
    draw, wrong = random.Random(seed), []
    surrogates = [tk.Surrogate.load(source) for source in sources]
    surrogates[0].save(path)
    whole = [
        surrogate.save(path.with_name("whole.safetensors")).read_bytes() for surrogate in surrogates
    ]
    path.with_name("whole.safetensors").unlink()
    left = 0
    for _ in range(kills):
        child = os.fork()
        if child == 0:
            for turn in range(100_000):
                surrogates[turn % 2].save(path)
        time.sleep(draw.uniform(0.005, 0.05))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        left += len(list(path.parent.iterdir())) > 1
        if path.read_bytes() not in whole:
            wrong.append("the file is not whole")
    surrogates[0].save(path)
    if [file.name for file in path.parent.iterdir()] != [path.name]:
        wrong.append("something stays behind")
    return wrong if left else ["no kill left anything, so nothing was tested"]


def report(name: str, outcomes: list[tuple[str, Outcome]]) -> bool:
    """Print one line, and one for each file that was not refused as it should be."""
    passed = sum(each.passed for _, each in outcomes)
    most = max(each.grown / each.allowed for _, each in outcomes)
    print(f"| {name} | {passed} of {len(outcomes)} | {most:.2f} |", flush=True)
    for what, each in outcomes:
        if not each.passed:
            said = each.error or "accepted"
            print(f"    {what}: {said}, {each.grown / 2**20:.0f} of {each.allowed / 2**20:.0f} MB")
    return passed == len(outcomes)


def main() -> None:
    """Make the files, read them, print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reader", action="store_true")
    parser.add_argument("--quick", action="store_true", help="a tenth of the flips and cuts")
    options = parser.parse_args()
    if options.reader:
        reader()
        return
    share = 10 if options.quick else 1
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        made = forging.originals(folder)
        trace = folder / "code was run"
        read_by = Reader(made["weights"])
        accepted = [name for name, path in made.items() if read_by(path).error]
        print(f"originals refused: {accepted or 'none'}")
        print("| files | refused | memory, of what is allowed |")
        print("|---|---|---|")
        flips, cuts = (flipped(folder, made, FLIPS // share), cut(folder, made, CUTS // share))
        done = [
            report("one bit flipped", [(path.name, read_by(path)) for path in flips]),
            report("cut short", [(path.name, read_by(path)) for path in cuts]),
        ]
        for name, files in (
            ("descriptions of surrogates", forged_files.of_surrogates(folder, made)),
            ("records of swaps", forged_files.of_weights(folder, made)),
            ("headers of tensors", forged_files.of_tensors(folder)),
            ("programs", forged_files.of_programs(folder, made)),
            ("versions", forged_files.versions(folder, made)),
            ("pickles", forged_files.with_code(folder, made, trace)),
        ):
            done.append(report(name, [(what, read_by(path)) for what, path in files]))
        read_by.close()
        (folder / "killed").mkdir()
        saved = [made["dmd"], made["edmd"]]
        wrong = killed(folder / "killed" / "s.safetensors", saved, KILLS // share)
        print(f"| killed while saving | {len(wrong)} wrong of {KILLS // share} | |")
        done.append(not wrong)
        print(f"code run: {'yes' if trace.exists() else 'no'}")
        if accepted or trace.exists() or not all(done):
            sys.exit(1)


if __name__ == "__main__":
    main()
