"""JavaScript modules put one after another, since a page on its own can import none.

Browsers block imports over ``file://``. In ``assets`` all imports are of named exports, by their
own names, from ``./``, and no two modules have a name in common: so each can stand in one module
without its imports and without the word ``export``.
"""

from __future__ import annotations

import re
from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_IMPORT = re.compile(r'^import \{([^}]*)\} from "\./([\w.]+)";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async )?function|const|let|class)", re.MULTILINE)


def asset(name: str) -> str:
    """The text of a file in ``assets``."""
    return (files(__package__) / "assets" / name).read_text("utf-8")


def assets() -> dict[str, str]:
    """Name → text of what a server has to hand to a browser; ``index.js`` is TensorBoard's tab.

    Example:
        >>> from torchkoopman_panels import assets
        >>> "index.js" in assets()
        True
    """
    folder = files(__package__) / "assets"
    return {file.name: file.read_text("utf-8") for file in folder.iterdir() if file.is_file()}


def in_order(entry: str, read: Callable[[str], str] = asset) -> list[str]:
    """A module and all that it needs, each after those that it imports."""
    found: dict[str, None] = {}
    begun: set[str] = set()

    def visit(name: str) -> None:
        if name not in begun:
            begun.add(name)
            for needed in imports_of(read(name)):
                visit(needed)
            found[name] = None

    visit(entry)
    return list(found)


def imports_of(source: str) -> Iterator[str]:
    """Names of the modules that a module imports."""
    return (match[2] for match in _IMPORT.finditer(source))


def in_one(entry: str, read: Callable[[str], str] = asset) -> str:
    """All these modules as one, which imports and exports nothing."""
    parts = [f"// {name}\n{_bare(read(name))}" for name in in_order(entry, read)]
    return "\n".join(parts)


def _bare(source: str) -> str:
    return _EXPORT.sub("", _IMPORT.sub("", source))
