"""What documentation shows is run: ``>>>`` lines, in the namespace that pages begin with."""

import doctest
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


def start_of_pages() -> dict[str, Any]:
    """What `docs/start.py` defines."""
    namespace: dict[str, Any] = {"__name__": "page"}
    exec(compile((DOCS / "start.py").read_text(), "docs/start.py", "exec"), namespace)
    return namespace


NUMBER = re.compile(r"-?\d+\.\d+(?:e[-+]\d+)?")


class Rounded(doctest.OutputChecker):
    """Numbers agree where they differ by at most one of the last digit that is shown.

    What a training leads to is not the same on every processor, so a page shows few digits of it.
    """

    def check_output(self, want: str, got: str, optionflags: int) -> bool:
        shown, found = NUMBER.findall(want), NUMBER.findall(got)
        if len(shown) == len(found):
            pairs = iter(zip(shown, found, strict=True))
            got = NUMBER.sub(lambda _: _as_shown(*next(pairs)), got)
        return super().check_output(want, got, optionflags)


def _as_shown(shown: str, found: str) -> str:
    digit = 10.0 ** -len(shown.partition(".")[2])
    near = "e" not in shown and abs(float(found) - float(shown)) <= digit * (1 + 1e-9)
    return shown if near else found


def run_session(text: str, namespace: dict[str, Any], where: str, line: int) -> None:
    """Run a block of ``>>>`` lines and hold what it prints or raises against what it shows."""
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    case = doctest.DocTestParser().get_doctest(text, namespace, where, where, line - 1)
    assert case.examples, f"{where} shows no '>>>'"
    case.globs = namespace  # names that a block makes stay for the next
    said: list[str] = []
    doctest.DocTestRunner(Rounded(), optionflags=options, verbose=False).run(
        case, out=said.append, clear_globs=False
    )
    assert not said, "".join(said)
