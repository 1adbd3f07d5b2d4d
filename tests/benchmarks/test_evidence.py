"""The evidence on the pages is what the committed results give, and says where it comes from."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import bench, evidence, robust
from benchmarks.parts import topology

PART = """
def table(results):
    return f"sum {results['add']['sum']}"

def headlines(results):
    return [("one and two", str(results["add"]["sum"]))]
"""
RESULTS: dict[str, Any] = {
    "add": {"sum": 3, "origin": {"commit": "abc", "date": "2026-01-02", "seeds": [5, 6]}},
    "more": {"sum": 4, "origin": {"commit": "abc", "date": "2026-01-03", "seeds": [5, 7]}},
}
PAGE = "before\n<!-- results: made -->\nold\n<!-- end of results -->\nbehind\n"


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bench of one part with results, and nothing kept."""
    (tmp_path / "made_for_evidence.py").write_text(PART)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(bench, "PARTS", {"made": ("made_for_evidence", 2)})
    parts = {"made": "made_for_evidence", "apart": "made_for_evidence"}
    monkeypatch.setattr(evidence, "PARTS", parts)
    monkeypatch.setattr(evidence, "ROOT", tmp_path)
    monkeypatch.setattr(evidence, "KEPT", tmp_path / "kept")
    monkeypatch.setattr(evidence, "PAGES", (tmp_path / "page.md",))
    (tmp_path / "page.md").write_text(PAGE)
    (tmp_path / "bench.json").write_text(json.dumps({"made": RESULTS}))
    return tmp_path


@pytest.mark.parametrize("page", evidence.PAGES, ids=lambda page: page.name)
def test_a_page_shows_what_the_committed_results_give(page: Path) -> None:
    assert page.read_text() == evidence.written(page.read_text()), "run `make evidence`"


@pytest.mark.parametrize("part", sorted(evidence.kept()))
def test_kept_results_say_where_they_come_from_and_are_shown(part: str) -> None:
    for job, result in evidence.kept()[part].items():
        origin = result["origin"]
        assert origin["commit"] != "unknown", job
        assert "changed" not in origin["commit"], f"{job} is of code that nobody can look at"
        assert origin["date"], job
    assert f"<!-- results: {part} -->" in (evidence.ROOT / "docs/evidence.md").read_text()


def test_results_are_kept_and_written_into_the_page_again_and_again(made: Path) -> None:
    for _ in range(2):
        assert evidence.main(["keep", str(made)]) == 0
    told = "*Seeds 5, 6, 7; commit abc, 2026-01-02 to 2026-01-03: "
    told += '`make bench PARTS=made BENCH_SEEDS="5 6 7"`.*'
    expected = PAGE.replace("old", f"\nsum 3\n\n{told}\n")
    assert (made / "page.md").read_text() == expected


def test_jobs_are_added_to_those_kept_before(made: Path) -> None:
    evidence.main(["keep", str(made)])
    newer = {"add": {**RESULTS["add"], "sum": 5}, "third": RESULTS["more"]}
    (made / "bench.json").write_text(json.dumps({"made": newer}))
    path = made / "kept" / "made.json"
    evidence.main(["keep", str(made), "--add"])
    assert json.loads(path.read_text()) == {**newer, "more": RESULTS["more"]}
    evidence.main(["keep", str(made)])
    assert json.loads(path.read_text()) == newer


def test_a_changed_result_or_page_is_seen(made: Path) -> None:
    evidence.main(["keep", str(made)])
    page = (made / "page.md").read_text()
    assert evidence.written(page) == page
    assert evidence.written(page.replace("sum 3", "sum 5")) == page
    path = made / "kept" / "made.json"
    path.write_text(path.read_text().replace('"sum": 3', '"sum": 6'))
    assert "sum 6" in evidence.written(page)


def test_the_summary_has_a_line_for_what_a_part_says_first(made: Path) -> None:
    (made / "page.md").write_text(PAGE.replace("made", "summary"))
    evidence.main(["keep", str(made)])
    row = '| one and two | 3        | `make bench PARTS=made BENCH_SEEDS="5 6 7"` |'
    assert row in (made / "page.md").read_text()


@pytest.mark.parametrize(
    ("name", "why"), [("quick", "no evidence"), ("full", "run `make bench` first")]
)
def test_a_quick_bench_and_no_bench_are_no_evidence(
    name: str, why: str, made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        evidence.main(["keep", str(made / name)])
    assert why in capsys.readouterr().err
    assert not (made / "kept").exists()


def test_a_page_that_asks_for_what_is_not_kept_is_an_error(made: Path) -> None:
    with pytest.raises(ValueError, match="asks for results of 'made'; kept are"):
        evidence.main(["write"])


def test_what_is_no_part_of_the_bench_is_measured_again_by_its_own_command(made: Path) -> None:
    (made / "page.md").write_text(PAGE.replace("made", "apart"))
    (made / "bench.json").write_text(json.dumps({"apart": RESULTS}))
    evidence.main(["keep", str(made)])
    assert "2026-01-02 to 2026-01-03: `make apart`.*" in (made / "page.md").read_text()


def test_fits_are_told_span_by_span_with_the_worst_of_each() -> None:
    fits = {
        f"{span}-{draw}": {
            "span": span,
            "network": draw,
            "EDMD": {"lost": 0.1, "fvu": {"a": 0.5, "b": 0.01}, "seconds": 1.0, "notes": []},
            "autoencoder": {"lost": lost, "fvu": {"b": 0.02}, "seconds": 9.0, "notes": ["x"]},
        }
        for span, losses in {"authors": (0.1, 0.3), "ours": (0.1, 0.5)}.items()
        for draw, lost in enumerate(losses)
    }
    authors, ours = robust.table(fits).split("From the first block")
    assert "it loses 0.200, 0.30 and 0.20: met." in authors
    assert "it loses 0.300, 0.50 and 0.40: MISSED." in ours
    assert robust.headlines(fits)[0][1] == "0.30 of 2; 0.50 of 2"


def test_of_shapes_all_is_kept_that_the_tables_need_and_no_curves() -> None:
    layer = {"layer": "a", "components": [3, 2], "relative 0": 0.1, "curves 0": [{"values": [1]}]}
    result = {"rows": 10, "latent": {"layers": [layer]}, "origin": {"seeds": [1]}}
    slim = topology.kept({"layers": [layer], **result})
    assert topology._all(slim) == topology._all({"layers": [layer], **result})
    assert "curves" not in json.dumps(slim)
    assert slim["origin"] == result["origin"]
