"""Damaged and forged files are refused with a ValueError, in little memory, and run no code.

A share of what ``python -m benchmarks.durability.damaged_files`` reads.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import torchkoopman as tk
from benchmarks.durability import damaged_files, forged_files, forging
from benchmarks.durability.damaged_files import Outcome, Reader
from tests.processes import completed
from torchkoopman.observe.class_moments import LabelledMoments

ROOT = Path(__file__).parents[2]
KILLED = """
import sys
from pathlib import Path
from benchmarks.durability.damaged_files import killed
path, *sources = map(Path, sys.argv[1:])
print(killed(path, sources, 8))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files")


@pytest.fixture(scope="module")
def made(folder: Path) -> dict[str, Path]:
    return forging.originals(folder)


@pytest.fixture(scope="module")
def read_by(made: dict[str, Path]) -> Iterator[Reader]:
    reader = Reader(made["weights"])
    yield reader
    reader.close()


def failures(outcomes: list[tuple[str, Outcome]]) -> list[tuple[str, Outcome]]:
    assert outcomes
    return [(name, outcome) for name, outcome in outcomes if not outcome.passed]


def test_files_as_they_were_written_are_read(made: dict[str, Path], read_by: Reader) -> None:
    assert {name: read_by(path).error for name, path in made.items()} == dict.fromkeys(made, "")


def test_one_flipped_bit_anywhere_is_seen(
    folder: Path, made: dict[str, Path], read_by: Reader
) -> None:
    files = damaged_files.flipped(folder, made, 60, seed=1)
    assert failures([(path.name, read_by(path)) for path in files]) == []


def test_a_file_cut_short_is_refused(folder: Path, made: dict[str, Path], read_by: Reader) -> None:
    files = damaged_files.cut(folder, made, 24, seed=1)
    assert failures([(path.name, read_by(path)) for path in files]) == []


@pytest.mark.parametrize("kind", ["of_surrogates", "of_weights", "of_programs", "versions"])
def test_forged_files_are_refused_before_they_take_memory(
    kind: str, folder: Path, made: dict[str, Path], read_by: Reader
) -> None:
    files = getattr(forged_files, kind)(folder, made)
    assert failures([(name, read_by(path)) for name, path in files]) == []


def test_headers_of_tensors_are_bounded_by_their_files(folder: Path, read_by: Reader) -> None:
    files = forged_files.of_tensors(folder)
    assert failures([(name, read_by(path)) for name, path in files]) == []


def of_classes(classes: int) -> tk.Surrogate:
    """A surrogate of one coordinate with statistics of so many classes."""
    x = torch.randn(600, 1, generator=torch.Generator().manual_seed(0))
    surrogate = tk.DMDFitter(dynamics="span").update(tk.Trajectory.of(x, 0.9 * x)).surrogate
    assert surrogate.statistics is not None
    one = surrogate.statistics.unlabelled.tensors()
    named = {
        f"class/{label}/{name}": each for label in range(classes) for name, each in one.items()
    }
    statistics = LabelledMoments(surrogate.statistics.pairs).load(named)
    return surrogate.with_(statistics=statistics)


def test_a_valid_file_of_very_many_tiny_classes_is_read_within_the_bound(
    tmp_path: Path, read_by: Reader
) -> None:
    """As many as are written; of some hundred more nothing is."""
    found = read_by(of_classes(6700).save(tmp_path / "many.safetensors"))
    assert found.error == ""
    assert found.grown <= found.allowed
    with pytest.raises(ValueError, match=r"not written: 36,0\d\d tensors .*with_\(statistics=None"):
        of_classes(7200).save(tmp_path / "more.safetensors")
    assert [each.name for each in tmp_path.iterdir()] == ["many.safetensors"]


@pytest.mark.parametrize("spaces", ["", "   "])
def test_a_file_of_more_tensors_than_are_written_is_refused_before_they_are_made(
    spaces: str, tmp_path: Path, read_by: Reader
) -> None:
    """As earlier versions wrote them, whose headers may be spaced in any way."""
    path, count = tmp_path / "old.safetensors", 45_000
    described = {
        str(number): {"dtype": "F64", "shape": [1], "data_offsets": [8 * number, 8 * number + 8]}
        for number in range(count)
    }
    header = json.dumps(described, separators=("," + spaces, spaces + ":")).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(8 * count))
    assert failures([("old", read_by(path))]) == []
    with pytest.raises(tk.FileError, match=r"holds 45,000 tensors in .*far more memory"):
        tk.Surrogate.load(path)


def test_a_killed_save_leaves_the_file_whole_and_the_next_clears_away(
    made: dict[str, Path], tmp_path: Path
) -> None:
    arguments = [str(tmp_path / "s.safetensors"), str(made["dmd"]), str(made["edmd"])]
    command = [sys.executable, "-c", KILLED, *arguments]
    done = completed(command, cwd=ROOT)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")


def test_no_code_in_a_file_is_run(folder: Path, made: dict[str, Path], read_by: Reader) -> None:
    trace = folder / "code was run"
    files = forged_files.with_code(folder, made, trace)
    assert failures([(name, read_by(path)) for name, path in files]) == []
    assert not trace.exists()
    import pickle

    pickle.loads((folder / "pickle.pt2").read_bytes())
    assert trace.exists(), "the payload works where pickles are read"
