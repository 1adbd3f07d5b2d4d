"""What the package raises and warns of, read out of its source, with gaps for what is put in."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
GAP = "…"
"""Stands in a message for what is known only when it is raised."""


@dataclass(frozen=True)
class Message:
    """One message that is raised, and where."""

    where: str
    raised: str
    text: str


class Texts:
    """What an expression of one file can be as a text, gaps where that is not written there."""

    def __init__(self, module: str, scope: ast.AST | None = None) -> None:
        self.module = module
        self.tree, self.imported = parsed(module)
        self.scope = scope or self.tree

    def of(self, node: ast.expr) -> Iterator[str]:
        if isinstance(node, ast.Constant):
            yield node.value if isinstance(node.value, str) else GAP
        elif isinstance(node, ast.JoinedStr):
            yield "".join(
                str(part.value) if isinstance(part, ast.Constant) else GAP for part in node.values
            )
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            for left in self.of(node.left):
                yield from (left + right for right in self.of(node.right))
        elif isinstance(node, ast.IfExp):
            yield from self.of(node.body)
            yield from self.of(node.orelse)
        elif isinstance(node, ast.Name):
            yield from self.named(node.id)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            yield from self.of(node.func.value)  # "…".strip()
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield from self.returned(node.func.id)
        else:
            yield GAP

    def named(self, name: str) -> Iterator[str]:
        """What is assigned to a name, here or in the file it is imported from."""
        if name in self.imported:
            yield from Texts(self.imported[name]).named(name)
            return
        found = [
            node.value
            for scope in (self.scope, self.tree)
            for node in ast.walk(scope)
            if isinstance(node, ast.Assign)
            and any(isinstance(to, ast.Name) and to.id == name for to in node.targets)
        ]
        for value in found or [ast.Constant(None)]:
            yield from self.of(value)

    def returned(self, function: str) -> Iterator[str]:
        """What a function of the package returns."""
        if function in self.imported:
            yield from Texts(self.imported[function]).returned(function)
            return
        for node in ast.walk(self.tree):
            if isinstance(node, ast.FunctionDef) and node.name == function:
                within = Texts(self.module, node)
                for each in ast.walk(node):
                    if isinstance(each, ast.Return) and each.value is not None:
                        yield from within.of(each.value)
                return
        yield GAP


@cache
def parsed(module: str) -> tuple[ast.Module, dict[str, str]]:
    """A file's tree, and which names it imports from which file of the package."""
    tree = ast.parse((ROOT / module).read_text())
    imported = {
        name.asname or name.name: path
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module is not None
        for path in (f"{node.module.replace('.', '/')}.py",)
        if (ROOT / path).is_file()
        for name in node.names
    }
    return tree, imported


def messages_of(module: str) -> Iterator[Message]:
    """What a file raises and warns of; passing an error on and abstract methods raise none."""
    tree, _ = parsed(module)
    functions = [each for each in ast.walk(tree) if isinstance(each, ast.FunctionDef)]
    for node in ast.walk(tree):
        call = node.exc if isinstance(node, ast.Raise) else node
        warns = isinstance(node, ast.Call) and ast.unparse(node.func) in ("warn", "warnings.warn")
        if not isinstance(call, ast.Call) or (call is node and not warns):
            continue
        around = [each for each in functions if each.lineno <= call.lineno <= each.end_lineno]  # type: ignore[operator]
        texts = Texts(module, around[-1] if around else None)
        numbered = ast.unparse(call.func) == "OSError" and len(call.args) > 1
        for argument in call.args[numbered : numbered + 1]:
            for text in dict.fromkeys(texts.of(argument)):
                yield Message(f"{module}:{call.lineno}", ast.unparse(call), text)


def modules() -> list[str]:
    return sorted(
        str(path.relative_to(ROOT))
        for folder in ("torchkoopman", "integrations")
        for path in (ROOT / folder).rglob("*.py")
        if path.name != "warned.py"  # which passes messages on
    )
