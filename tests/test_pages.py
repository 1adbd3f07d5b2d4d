"""The pages: every block runs as written, and shows what it gives; what is public has its place."""

import os
import re
from pathlib import Path
from typing import Any

import pytest

from tests.sessions import DOCS, ROOT, run_session

BLOCK = re.compile(r"^(`{3,})(python|pycon)[^\n]*\n(.*?)^\1", re.MULTILINE | re.DOTALL)
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
NOT_RUN = "# not run: "


def blocks(page: Path) -> list[tuple[int, str, str]]:
    """Line, kind and text of a page's Python blocks, in order."""
    text = page.read_text()
    return [
        (text.count("\n", 0, found.start()) + 2, found[2], found[3])
        for found in BLOCK.finditer(text)
        if not found[3].startswith(NOT_RUN)
    ]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


WITH_BLOCKS = [page for page in PAGES if blocks(page)]


@pytest.mark.slow
@pytest.mark.parametrize("page", WITH_BLOCKS, ids=name_of)
def test_the_blocks_of_a_page_run_and_give_what_it_shows(
    page: Path, start: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, (ROOT, ROOT / "integrations"))))
    namespace = start if "(start.md)" in page.read_text() else {"__name__": "page"}
    for line, kind, text in blocks(page):
        where = f"{name_of(page)}:{line}"
        if kind == "python":
            exec(compile("\n" * (line - 1) + text, where, "exec"), namespace)
        else:
            run_session(text, namespace, where, line)
