"""Dead links within built pages are found, and no others."""

import importlib.util
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[1]


def checker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("dead_links", ROOT / "docs" / "dead_links.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_links_to_missing_files_and_places_are_found_and_no_others(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "a picture.png").write_bytes(b"")
    (tmp_path / "inner" / "two.html").write_text(
        '<p id="tk.fit">fit</p><a href="../one.html#λ">back</a><a href="#tk.fit">here</a>'
        '<a href="../one.html#gone">dead</a><a href="#nowhere">dead</a>'
    )
    (tmp_path / "one.html").write_text(
        '<h1 id="λ">λ</h1><a href="inner/two.html#tk.fit">two</a><img src="a%20picture.png">'
        '<a href="https://example.org/gone.html">elsewhere</a><a href="mailto:me">me</a>'
        '<a href="three.html">dead</a><script src="lost.js"></script>'
    )
    assert checker().dead_links(tmp_path) == [
        "inner/two.html: ../one.html#gone",
        "inner/two.html: #nowhere",
        "one.html: three.html",
        "one.html: lost.js",
    ]


def test_what_a_page_loads_from_afar_is_found(tmp_path: Path) -> None:
    (tmp_path / "one.html").write_text(
        '<script src="https://cdn.example.org/mathjax.js"></script>'
        '<link rel="stylesheet" href="//example.org/a.css"><link rel="next" href="https://a.org/b">'
        '<img src="data:image/png;base64,AA=="><a href="https://example.org/">elsewhere</a>'
    )
    assert checker().dead_links(tmp_path) == [
        "one.html: https://cdn.example.org/mathjax.js",
        "one.html: //example.org/a.css",
    ]
