"""What documentation shows is run: ``>>>`` lines, in the namespace that pages begin with."""

import doctest
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


def start_of_pages() -> dict[str, Any]:
    """What `docs/start.py` defines."""
    namespace: dict[str, Any] = {"__name__": "page"}
    exec(compile((DOCS / "start.py").read_text(), "docs/start.py", "exec"), namespace)
    return namespace


def run_session(text: str, namespace: dict[str, Any], where: str, line: int) -> None:
    """Run a block of ``>>>`` lines and hold what it prints or raises against what it shows."""
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    case = doctest.DocTestParser().get_doctest(text, namespace, where, where, line - 1)
    assert case.examples, f"{where} shows no '>>>'"
    case.globs = namespace  # names that a block makes stay for the next
    said: list[str] = []
    doctest.DocTestRunner(optionflags=options, verbose=False).run(
        case, out=said.append, clear_globs=False
    )
    assert not said, "".join(said)
