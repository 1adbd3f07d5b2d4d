"""Tables of results: columns line up, nothing is cut, and a notebook shows what text shows."""

import re
from html import unescape
from html.parser import HTMLParser
from itertools import chain

import pytest
import torch
from torch import nn

import torchkoopman as tk
from torchkoopman.tables import Table, complex_number, more, qualities

TABLE = Table(
    ["name", "", "size"],
    [["a", "long text", "1"], ["longer", "", "1 000"]],
    ["above"],
    ["b"],
    (0, 1),
)


def test_columns_line_up_text_to_the_left_and_numbers_to_the_right() -> None:
    assert str(TABLE).splitlines() == [
        "above",
        "name                size",
        "a       long text      1",
        "longer             1 000",
        "b",
    ]


def test_a_table_without_rows_has_its_head() -> None:
    assert str(Table(["name", "size"], [])) == "name  size"


def test_rows_of_another_length_are_an_error() -> None:
    with pytest.raises(ValueError, match="zip"):
        str(Table(["name", "size"], [["a"]]))


class Cells(HTMLParser):
    """The texts of a page, and its tags."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.tags: set[str] = set()
        self.feed(html)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)


def test_html_holds_the_same_and_runs_nothing() -> None:
    layer = "<script>alert(1)</script>"
    page = Cells(Table([layer, "R²"], [["a & b", "<b>1</b>"]], [layer]).html())
    assert page.texts == [layer, layer, "R²", "a & b", "<b>1</b>"]
    assert page.tags == {"p", "table", "thead", "tbody", "tr", "th", "td"}


def test_what_is_left_out_is_counted() -> None:
    assert more(12, 10) == ["… and 2 more"]
    assert more(10, 10) == more(3, 10) == []
    assert complex_number(complex(0.5, -0.25)) == "+0.5000 -0.2500i"


def test_every_result_is_a_table_for_a_notebook() -> None:
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(*(nn.Sequential(nn.Linear(4, 4), nn.Tanh()) for _ in range(3)))
    batches = [torch.randn(50, 4, generator=generator) for _ in range(10)]
    layers = ["0", "1", "2"]
    fitter = tk.DMDFitter()
    with tk.attach(model, layers) as probe:
        probe.stream_to(fitter)
        for batch in batches:
            model(batch)
        report = probe.report()
    surrogate = fitter.surrogate
    spectra = [surrogate.spectrum(), surrogate.spectrum()]
    results = [
        report,
        spectra[0],
        surrogate.modes("2"),
        tk.follow(spectra, trusted=False),
        tk.evaluate(surrogate, model, batches),
        tk.rank_spans(model, batches, layers, progress=False),
        surrogate.topology(model, batches, points=40),
        surrogate.pseudospectrum(points=11),
        surrogate.non_normality(),
        tk.compare(surrogate, surrogate),
    ]
    for result in results:
        table = result.table()
        words = re.findall(r"\S+", " ".join([*table.above, *table.head, *chain(*table.rows)]))
        assert table.rows
        for shown in (str(result), unescape(result._repr_html_())):
            assert all(word in shown for word in words), type(result).__name__


def test_qualities_near_one_are_told_apart_and_a_column_has_one_number_of_decimals() -> None:
    assert qualities(0.5, -0.25, 0.99) == ["0.5000", "-0.2500", "0.9900"]
    assert qualities(0.99987, 0.99983) == ["0.99987", "0.99983"]
    assert qualities(0.5, 1 - 2.4e-6) == ["0.5000000", "0.9999976"]
    assert qualities(1.0, 0.0) == ["1.0000", "0.0000"]
    assert qualities(1 - 1e-15) == ["1.00000000"]
    assert qualities(-float("inf"), float("nan"), 0.5) == ["-inf", "nan", "0.5000"]
