"""The gallery's scripts are short, run by themselves, and what their text says holds."""

import ast
import os
import sys
from pathlib import Path

import pytest

from benchmarks.torchrun import environment
from tests.processes import completed

ROOT = Path(__file__).parents[1]
STORIES = sorted((ROOT / "examples").glob("plot_*.py"))
LONGEST = 60

RUN = """
import runpy, sys
sys.argv, claim = [sys.argv[1]], sys.argv[2]
found = runpy.run_path(sys.argv[0], run_name="__main__")
from matplotlib import pyplot
figures = [pyplot.figure(number) for number in pyplot.get_fignums()]
assert figures, "it draws no picture"
for figure in figures:
    assert any(ax.get_xlabel() or ax.get_title() for ax in figure.axes), "a picture without a word"
assert eval(claim, found), claim
"""

CLAIMS = {
    "depth": "tk.evaluate(surrogate, model, test.loader(500)).r2 > 0.98"
    " and shape.layers[-1].relative(0) < 0.2",
    "transformer": "span.saved > 0 and span.best and right['model'] > 99"
    " and right['skipped'] + 5 < right['swapped'] < right['model']",
    "forgetting": "report.columns['edited'].forgotten == 0"
    " and report.columns['edited'].divergence[0] < 0.1"
    " and 0 < report.columns['edited'].relearning < report.columns['retrained'].relearning",
    "training": "explained[0] > 0.95 and 1 - max(explained[5:]) > 2 * (1 - explained[0])"
    " and accuracy[-1] > 0.9 and len(monitor.tracks.steps) == 20",
    "shipping": "difference < 1e-3 and not (answers.argmax(1) == 2).any()"
    " and edit['classes'] == [2] and (card['start'], card['end']) == ('1', '9')",
    "latent_field": "coefficients['ten digits'] > nulls['ten digits'] + 0.1"
    " and coefficients['all digits'] < nulls['all digits'] + 0.03"
    " and abs(coefficients['Yin-Yang'] - nulls['Yin-Yang']) < 1e-3 and min(shares.values()) > 0.9",
    "flip_flop": "error < 0.04 * test.targets.var() and drift[8] < 0.01 * variance < drift[100]"
    " and 0 < len(found.attractors) < 20 and 0.9 < found.radii.min() < 1",
    "processes": "len(two) == 2 and len(set(two)) == 1 and difference < 1e-6"
    " and alone.record.rows == together.record.rows == 6000",
}
"""Story → what its text says of what it found, in its own names."""


def name_of(story: Path) -> str:
    return story.stem.removeprefix("plot_")


def test_every_story_has_a_place_in_the_gallery_and_a_claim() -> None:
    setting = ast.parse((ROOT / "docs" / "gallery_setting.py").read_text())
    (order,) = [
        ast.literal_eval(node.value)
        for node in setting.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "ORDER"
    ]
    assert sorted(order) == sorted(CLAIMS) == [name_of(story) for story in STORIES]


@pytest.mark.parametrize("story", STORIES, ids=name_of)
def test_a_story_is_short_and_begins_with_its_title_and_what_it_shows(story: Path) -> None:
    lines = story.read_text().splitlines()
    assert len(lines) <= LONGEST, f"{len(lines)} lines"
    title, underline, blank, *paragraph = ast.get_docstring(ast.parse("\n".join(lines))).split("\n")
    assert underline == "=" * len(title)
    assert not blank
    assert len(" ".join(paragraph).split()) >= 20, "one paragraph says what it shows"


@pytest.mark.slow
@pytest.mark.parametrize("story", STORIES, ids=name_of)
def test_a_story_runs_by_itself_and_what_it_says_holds(story: Path, tmp_path: Path) -> None:
    """In a process and an empty folder of its own; a warning is an error."""
    path = os.pathsep.join(map(str, (ROOT, ROOT / "integrations")))
    done = completed(
        [sys.executable, "-W", "error", "-c", RUN, story, CLAIMS[name_of(story)]],
        cwd=tmp_path,
        env={**environment(), "MPLBACKEND": "Agg", "PYTHONPATH": path},
    )
    assert not done.returncode, done.stderr[-3000:]
    assert not list(tmp_path.iterdir()), "it leaves files in the folder it is run in"
