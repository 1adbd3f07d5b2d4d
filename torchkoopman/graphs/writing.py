"""Writing: whether code that cannot be traced may write into what it is given, read off its source.

A layer may write into its input for some values only, ``if h.max() > 2: h.clamp_(-1, 1)``, and then
no run of an example shows it. What cannot be read is taken to write.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
import types
from typing import TYPE_CHECKING, Any

from torchkoopman.graphs.schemas import torch_effect
from torchkoopman.observe.surroundings import is_foreign

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import nn

NUMBERS = {"float", "int", "len", "range", "bool", "item", "tolist", "size", "dim", "numel"}
"""Functions and methods whose result is no tensor's memory."""


def may_write(module: nn.Module) -> bool:
    """Whether a module's code, or that of a module in it, may write into its arguments in place."""
    return any(_module_writes(each) for each in module.modules())


def _module_writes(module: nn.Module) -> bool:
    forward = vars(module).get("forward", type(module).forward)
    function = getattr(forward, "__func__", forward)
    if is_foreign(getattr(function, "__module__", None)):
        return bool(getattr(module, "inplace", False))
    if not isinstance(function, types.FunctionType):
        return True
    seen: set[types.FunctionType] = set()
    waiting = [function]
    while waiting:
        each = waiting.pop()
        if each not in seen:
            seen.add(each)
            try:
                tree = ast.parse(textwrap.dedent(inspect.getsource(each)))
            except (OSError, SyntaxError, TypeError):  # made by exec, say
                return True
            if _Code(module, _numbers(tree)).block(tree.body, set()):
                return True
            waiting.extend(_called(tree, each, type(module)))
    return False


class _Code:
    """Statements in order, with the names that hold memory of their own."""

    def __init__(self, module: nn.Module, numbers: set[str]) -> None:
        self.module = module
        self.numbers = numbers
        """Names that only ever hold numbers."""

    def block(self, body: Sequence[ast.stmt], own: set[str]) -> bool:
        """Whether some statements may write into memory that is not their own."""
        return any(self._statement(each, own) for each in body)

    def _statement(self, node: ast.stmt, own: set[str]) -> bool:
        if isinstance(node, ast.FunctionDef):
            return self.block(node.body, set())
        if isinstance(node, ast.If):
            return self._branch(node, own)
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if node.value is not None and self._expression(node.value, own):
                return True
            return any(self._assigned(target, node.value, own) for target in targets)
        if isinstance(node, ast.AugAssign):
            return self._expression(node.value, own) or not self._is_own(node.target, own)
        inner = [each for each in ast.iter_child_nodes(node) if isinstance(each, ast.stmt)]
        if isinstance(node, ast.For | ast.While):
            own -= {name for each in ast.walk(node) for name in _stored(each)}
        for held in ast.iter_child_nodes(node):
            inner += held.body if isinstance(held, ast.ExceptHandler | ast.match_case) else []
        expressions = [each for each in ast.iter_child_nodes(node) if isinstance(each, ast.expr)]
        return any(self._expression(each, own) for each in expressions) or self.block(inner, own)

    def _branch(self, node: ast.If, own: set[str]) -> bool:
        """A branch on a plain attribute of the module is taken as it is now."""
        if self._expression(node.test, own):
            return True
        test = node.test.operand if isinstance(node.test, ast.UnaryOp) else node.test
        if isinstance(test, ast.Attribute) and ast.unparse(test.value) == "self":
            value = vars(self.module).get(test.attr)
            if isinstance(value, bool) and test.attr != "training":
                taken = value == (test is node.test)
                return self.block(node.body if taken else node.orelse, own)
        one, other = set(own), set(own)
        wrote = self.block(node.body, one) or self.block(node.orelse, other)
        own.clear()
        own.update(one & other)
        return wrote

    def _assigned(self, target: ast.expr, value: ast.expr | None, own: set[str]) -> bool:
        if isinstance(target, ast.Subscript):
            return not self._is_own(target.value, own)
        for each in ast.walk(target):
            if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store):
                mine = value is not None and each is target and self._is_own(value, own)
                (own.add if mine else own.discard)(each.id)
        return False

    def _expression(self, node: ast.expr, own: set[str]) -> bool:
        """Whether any call in an expression may write into memory that is not its own."""
        return any(self._call(each, own) for each in ast.walk(node) if isinstance(each, ast.Call))

    def _call(self, node: ast.Call, own: set[str]) -> bool:
        first = node.args[0] if node.args else None
        for option in node.keywords:
            if option.arg == "out" and not self._is_own(option.value, own):
                return True
            no = isinstance(option.value, ast.Constant) and not option.value.value
            if option.arg == "inplace" and not no and not self._is_own(first, own):
                return True
        name = _name(node)
        effect = torch_effect(name) if name else None
        if effect is None or 0 not in effect.writes:
            return False
        if isinstance(node.func, ast.Attribute) and not _is_module(node.func.value):
            first = node.func.value
        return not self._is_own(first, own)

    def _is_own(self, node: ast.expr | None, own: set[str]) -> bool:
        """Whether an expression's value is memory of its own, or no memory at all."""
        if isinstance(node, ast.Name):
            return node.id in own or node.id in self.numbers
        if isinstance(node, ast.Call):
            name = _name(node)
            if name in NUMBERS:
                return True
            effect = torch_effect(name) if name else None
            if effect is not None and 0 in effect.writes and isinstance(node.func, ast.Attribute):
                return self._is_own(node.func.value, own)
            return effect is not None and 0 not in effect.shares
        return isinstance(node, ast.Constant | ast.BinOp | ast.UnaryOp | ast.Compare)


def _called(tree: ast.AST, function: types.FunctionType, kind: type) -> Iterator[Any]:
    """The functions of the user's that a function calls by a plain name or on ``self``."""
    for node in ast.walk(tree):
        target: Any = None
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            target = function.__globals__.get(node.func.id)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            base = node.func.value
            own = isinstance(base, ast.Name) and base.id == "self"
            target = getattr(kind, node.func.attr, None) if own else None
        if isinstance(target, types.FunctionType) and not is_foreign(target.__module__):
            yield target


def _name(node: ast.Call) -> str:
    """The name by which something is called, without what is before the dot."""
    if isinstance(node.func, ast.Attribute):
        return node.func.attr
    return node.func.id if isinstance(node.func, ast.Name) else ""


def _is_module(node: ast.expr) -> bool:
    """Whether a name before the dot is a package: ``torch``, ``F``, ``nn.functional``."""
    text = ast.unparse(node)
    return text in {"F", "torch", "functional", "nn.functional", "torch.nn.functional"}


def _numbers(tree: ast.AST) -> set[str]:
    """Names that are assigned nothing but constants, and are no arguments."""
    constants, others = set[str](), set[str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            names = {target.id for target in node.targets if isinstance(target, ast.Name)}
            (constants if isinstance(node.value, ast.Constant) else others).update(names)
        elif isinstance(node, ast.arg):
            others.add(node.arg)
        elif isinstance(node, ast.For):
            others.update(name for each in ast.walk(node.target) for name in _stored(each))
    return constants - others


def _stored(node: ast.AST) -> set[str]:
    """The name that a piece of syntax binds, if it does."""
    bound = isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    return {node.id} if bound and isinstance(node, ast.Name) else set()
