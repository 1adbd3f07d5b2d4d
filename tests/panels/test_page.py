"""A page by itself: what is in it, how large it is, and that no name can break out of its place."""

from __future__ import annotations

import base64
import gzip
import json
import re
from functools import cache
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from torchkoopman_panels import SCHEMA, Document, Series, page

from benchmarks.panels.drifting import drifting

if TYPE_CHECKING:
    from pathlib import Path

HOSTILE = '</script><script>alert(1)</script><!-- <img src=x onerror="alert(1)"> & \u2028 \udcff'


@pytest.fixture(autouse=True)
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules of a few lines: what the panels draw has tests of its own."""
    folder = tmp_path / "stand_in" / "assets"
    folder.mkdir(parents=True)
    (folder / "panels.css").write_text("main { color: black }")
    (folder / "report.js").write_text("document.title;\n")
    monkeypatch.setattr("torchkoopman_panels.modules.files", lambda _: folder.parent)


@cache
def parsed(text: str) -> Scripts:
    """The page's parts, read once."""
    return Scripts(text)


class Scripts(HTMLParser):
    """Script elements by id, as a browser finds them; and the text of the title."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: dict[str, str] = {}
        self.elements: list[str] = []
        self.inside: str | None = None
        self.title = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.inside = (dict(attrs).get("id") or tag) if tag in {"script", "title"} else None

    def handle_endtag(self, tag: str) -> None:
        self.inside = None

    def handle_data(self, data: str) -> None:
        if self.inside == "title":
            self.title += data
        elif self.inside:
            self.found[self.inside] = self.found.get(self.inside, "") + data


def index_of(text: str) -> dict[str, Any]:
    index: dict[str, Any] = json.loads(parsed(text).found["index"])
    return index


def block_of(text: str, key: str) -> tuple[dict[str, Any], np.ndarray]:
    """Header and values, these with the steps first."""
    content = gzip.decompress(base64.b64decode(parsed(text).found[f"block-{key}"]))
    length = int.from_bytes(content[:4], "little")
    header = json.loads(content[4 : 4 + length])
    planes = np.frombuffer(content[4 + length :], np.uint8).reshape(4, -1)
    values = planes.T.copy().view(">f4").reshape(*header["shape"], len(header["steps"]))
    return header, np.moveaxis(values, -1, 0)


def of_one(values: np.ndarray, name: str = "r2", **about: Any) -> Document:
    document = Document("one step")
    document.add("run", "1-9", 3, [Series(name, values, about)])
    return document


def test_every_series_is_in_the_page_as_it_was_given() -> None:
    document = Document("two", labels={0: "first", 123456789: "last"})
    rows = {step: np.random.default_rng(step).normal(size=4) for step in (0, 10)}
    for step, row in rows.items():
        document.add("a", "1-9", step, [Series("r2", row, {"layers": ["2", "3", "4", "9"]})])
        document.add("b", "1-9", step, [Series("losses", row[:2], {"terms": ["x", "y"]})])
    text = page(document)
    index = index_of(text)
    assert index == document.index()
    assert index["schema"] == SCHEMA
    assert index["labels"] == {"0": "first", "123456789": "last"}
    assert [(each["run"], each["name"]) for each in index["series"]] == [
        ("a", "r2"),
        ("b", "losses"),
    ]
    header, values = block_of(text, index["series"][0]["key"])
    assert header["steps"] == [0, 10]
    assert header["of"] == 2
    np.testing.assert_array_equal(values, np.stack(list(rows.values())).astype(np.float32))


def test_names_and_titles_cannot_break_out_of_their_place() -> None:
    document = Document(HOSTILE, labels={3: HOSTILE})
    document.add(HOSTILE, HOSTILE, 3, [Series("r2", np.ones(1), {"layers": [HOSTILE]})])
    text = page(document)
    plain = page(of_one(np.ones(1), layers=["9"]))
    assert Scripts(text).elements == Scripts(plain).elements
    assert "\u2028" not in Scripts(text).found["index"]
    (entry,) = index_of(text)["series"]
    assert entry["run"] == entry["span"] == entry["about"]["layers"][0] == HOSTILE
    assert Scripts(text).title == HOSTILE.replace("\udcff", "?")
    text.encode()  # a lone surrogate could not be written


def test_a_page_names_no_other_file_and_forbids_the_browser_to_ask() -> None:
    text = page(of_one(np.ones(1)))
    assert "default-src 'none'" in text
    assert not re.findall(r"(?:src|href)=\"(?!data:)", text)
    assert "http://" not in text
    assert "https://" not in text


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300, 1e-300, 0.0])
def test_what_is_no_plain_number_stays_what_it_is(value: float) -> None:
    text = page(of_one(np.array([[value, 1.0]]), "singular_values", times=[value]))
    header, values = block_of(text, "0")
    expected = {1e300: np.inf, 1e-300: 0.0}.get(value, value)
    np.testing.assert_array_equal(values, [[[expected, 1]]])
    assert header["error"] == (1.0 if value == 1e-300 else 0.0)
    (entry,) = index_of(text)["series"]
    assert entry["about"]["times"] == ([value] if np.isfinite(value) else [None])


def test_an_empty_document_is_a_page() -> None:
    assert index_of(page(Document()))["series"] == []


def test_a_thousand_steps_of_64_modes_of_4_spans_stay_under_five_megabytes() -> None:
    document = drifting()
    text = page(document)
    assert len(text.encode()) < 3_000_000  # 2.1, the panels themselves with them
    for entry, (_, steps) in zip(index_of(text)["series"], document.arrays.items(), strict=True):
        header, values = block_of(text, entry["key"])
        assert header["steps"] == list(steps)
        assert header["of"] == 1000
        exact = np.stack(list(steps.values()))
        wrong = np.abs(values / np.where(exact == 0, 1, exact) - (exact != 0))
        if entry["name"] == "spectrum":
            assert header["error"] == pytest.approx(wrong.max((0, 1)), rel=1e-6)
            assert wrong[..., :2].max() < 1.3e-4
            assert wrong[..., 2:6].max() < 4e-3
            assert wrong[..., 6].max() == 0
            assert wrong[..., 7].max() < 4e-3
        else:
            bounds = {"singular_values": 4e-3, "r2": 1e-7, "tracks": 0}
            assert header["error"] == pytest.approx(wrong.max(), rel=1e-6)
            assert wrong.max() <= bounds[entry["name"]]


def test_steps_are_left_out_until_a_page_is_small_enough_and_it_says_so() -> None:
    document = drifting(steps=200, modes=16, runs=("a", "b"))
    document.add("a", "0-3", 5, [Series("notes", np.zeros(0), {"notes": ["well"]})])
    whole = len(page(document))
    text = page(document, size=whole // 3)
    assert whole // 6 < len(text) <= whole // 3
    kept: dict[tuple[str, bool], set[tuple[float, ...]]] = {}
    for entry in index_of(text)["series"]:
        header, values = block_of(text, entry["key"])
        if entry["name"] == "notes":
            assert (header["steps"], header["of"], values.shape) == ([5], 1, (1, 0))
            continue
        assert header["of"] == 200
        assert 20 < len(header["steps"]) < 70
        assert header["steps"][0] == 0 or entry["run"] == "a"
        assert header["steps"][-1] == 1990
        kept.setdefault(entry["run"], set()).add(tuple(header["steps"]))
    assert {run: len(each) for run, each in kept.items()} == {"a": 1, "b": 1}


def test_layers_are_never_left_out() -> None:
    document = Document("by depth", axis="layer")
    for layer in range(50):
        document.add("run", "0-49", layer, [Series("r2", np.ones(1))])
    header, _ = block_of(page(document, size=10), "0")
    assert header["of"] == len(header["steps"]) == 50


def test_a_spectrum_of_more_columns_is_not_rounded_and_one_of_an_older_file_is() -> None:
    row = np.random.default_rng(0).normal(size=(3, 9))
    _, values = block_of(page(of_one(row, "spectrum")), "0")
    np.testing.assert_array_equal(values[0], row.astype(np.float32))
    header, values = block_of(page(of_one(row[:, :7], "spectrum")), "0")
    assert len(header["error"]) == 7
    np.testing.assert_allclose(values[0, :, :2], row[:, :2], rtol=1.3e-4)
    assert (values[0, :, 2] != row[:, 2].astype(np.float32)).any()
