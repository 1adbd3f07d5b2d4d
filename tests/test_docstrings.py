"""Public names: each has an example that runs, and one place in the API reference."""

import ast
import doctest
import inspect
import re
from collections import Counter
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from tests.integrations.trainings import quietly
from tests.sessions import DOCS, ROOT, run_session

PACKAGES = [ROOT / "torchkoopman", *sorted(ROOT.glob("integrations/torchkoopman_*"))]


def names_of(package: Path) -> list[str]:
    """The names in a package's ``__all__``, in order, without importing it.

    Modules among them stand for the names that they have themselves.
    """
    tree = ast.parse((package if package.is_file() else package / "__init__.py").read_text())
    (listed,) = (
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    )
    modules = {
        name.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module == package.name
        for name in node.names
    }
    found: list[str] = []
    for name in ast.literal_eval(listed):
        if name in modules:
            file = package / f"{name}.py"
            inner = names_of(file if file.is_file() else package / name)
            found += [f"{package.name}.{name}.{each.rpartition('.')[2]}" for each in inner]
        else:
            found.append(f"{package.name}.{name}")
    return found


PUBLIC = [name for package in PACKAGES for name in names_of(package)]
CONSTANTS = {  # a str has no docstring of its own
    "torchkoopman.__version__",
    "torchkoopman_tensorboard.PLUGIN_NAME",
}


def named(name: str) -> Any:
    module, _, own = name.rpartition(".")
    return getattr(import_module(module), own)


def sessions(thing: Any, name: str) -> list[tuple[str, str]]:
    """Name and docstring of a public thing, and of its members of ours that show a session."""
    found = [(name, inspect.getdoc(thing) or "")]
    for kind in inspect.getmro(thing) if isinstance(thing, type) else ():
        if kind.__module__.startswith("torchkoopman"):
            for member, value in vars(kind).items():
                text = getattr(value, "__doc__", None) or ""
                if ">>>" in text and not member.startswith("_"):
                    found.append((f"{name}.{member}", text))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in PUBLIC if name not in CONSTANTS])
def test_a_public_name_has_an_example_that_gives_what_it_shows(
    name: str, start: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with nullcontext() if name.startswith("torchkoopman.") else quietly():  # trainers warn
        for where, text in sessions(named(name), name):
            run_session(text, dict(start), where, 1)


def test_an_example_shows_what_it_gives() -> None:
    """None may only make things."""
    examples = {name: inspect.getdoc(named(name)) or "" for name in PUBLIC if name not in CONSTANTS}
    parser = doctest.DocTestParser()
    silent = [
        name
        for name, text in examples.items()
        if not any(example.want or example.exc_msg for example in parser.get_examples(text))
    ]
    assert silent == []


def documented() -> list[str]:
    """What the pages of the API reference document, in full."""
    directive = re.compile(r"^\.\. auto(?:function|class|exception|data):: (\S+)", re.MULTILINE)
    return [
        name
        for page in sorted((DOCS / "api").glob("*.md"))
        for name in directive.findall(page.read_text())
    ]


def test_the_reference_documents_each_public_name_once() -> None:
    assert Counter(name for name in documented() if name in PUBLIC) == Counter(PUBLIC)
