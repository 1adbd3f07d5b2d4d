"""Writing: code that may write into its arguments, and code like it that does not."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 (as everybody calls it)
from torch import Tensor, nn

from torchkoopman.graphs.writing import may_write


def helper(h: Tensor) -> Tensor:
    return h.mul_(2)


def harmless(h: Tensor) -> Tensor:
    return h.mul(2)


class Layer(nn.Module):
    """One of many forwards, each with a branch on values, so that no trace sees it."""

    copies = False

    def __init__(self, forward: Any, copies: bool = False) -> None:
        super().__init__()
        self.copies = copies
        self._code = forward

    @staticmethod
    def of(code: Any, **options: Any) -> nn.Module:
        kind = type("Made", (Layer,), {"forward": code})
        return kind(code, **options)


def method(self: Any, h: Tensor) -> Tensor:
    return h.clamp_(-1, 1) if bool(h.sum() > 0) else h


def function(self: Any, h: Tensor) -> Tensor:
    return torch.relu_(h) if bool(h.sum() > 0) else h


def option(self: Any, h: Tensor) -> Tensor:
    return F.relu(h, inplace=True) if bool(h.sum() > 0) else h


def out(self: Any, h: Tensor) -> Tensor:
    return torch.mul(h, 2, out=h)


def augmented(self: Any, h: Tensor) -> Tensor:
    if bool(h.sum() > 0):
        h += 1
    return h


def item(self: Any, h: Tensor) -> Tensor:
    h[h > 2] = 0
    return h


def through_a_view(self: Any, h: Tensor) -> Tensor:
    flat = h.view(-1)
    flat.mul_(2)
    return h


def through_data(self: Any, h: Tensor) -> Tensor:
    h.data.mul_(2)
    return h


def in_a_helper(self: Any, h: Tensor) -> Tensor:
    return helper(h) if bool(h.sum() > 0) else h


def in_a_loop(self: Any, h: Tensor) -> Tensor:
    own = h.clone()
    for _ in range(2):
        own.mul_(2)
        own = h
    return own


def copied_on_one_side(self: Any, h: Tensor) -> Tensor:
    if bool(h.sum() > 0):
        h = h.clone()
    return h.mul_(2)


def copied_by_a_switch(self: Any, h: Tensor) -> Tensor:
    if self.copies:
        h = h.clone()
    return h.mul_(2) if bool(h.sum() > 0) else h


WRITING = [
    method, function, option, out, augmented, item, through_a_view, through_data, in_a_helper,
    in_a_loop, copied_on_one_side, copied_by_a_switch,
]  # fmt: skip


def out_of_place(self: Any, h: Tensor) -> Tensor:
    return h.clamp(-1, 1) if bool(h.sum() > 0) else h


def on_a_copy(self: Any, h: Tensor) -> Tensor:
    own = h.clone()
    own.clamp_(-1, 1)
    own[0] = 0
    own += 1
    return own


def on_a_result(self: Any, h: Tensor) -> Tensor:
    own = torch.relu(h) * 2
    return own.add_(1) if bool(h.sum() > 0) else own


def chained(self: Any, h: Tensor) -> Tensor:
    return h.clone().mul_(2).add_(1)


def counting(self: Any, h: Tensor) -> Tensor:
    steps = 0
    while float(h.abs().max()) > 1 and steps < 3:
        h = h / 2
        steps += 1
    return h


def special_methods(self: Any, h: Tensor) -> Tensor:
    return h if h.__len__() > 2 and self.__class__.__name__ else h.__add__(1)


def in_a_harmless_helper(self: Any, h: Tensor) -> Tensor:
    return harmless(h) if bool(h.sum() > 0) else h


READING = [out_of_place, on_a_copy, on_a_result, chained, counting, in_a_harmless_helper]
READING.append(special_methods)


def name(value: Any) -> str:
    return str(value.__name__)


@pytest.mark.parametrize("code", WRITING, ids=name)
def test_code_that_may_write_into_its_argument_is_known(code: Any) -> None:
    assert may_write(Layer.of(code))


@pytest.mark.parametrize("code", READING, ids=name)
def test_code_that_writes_into_its_own_memory_only_is_known_too(code: Any) -> None:
    assert not may_write(Layer.of(code))


def test_a_branch_on_a_switch_of_the_layer_is_taken_as_it_is() -> None:
    assert not may_write(Layer.of(copied_by_a_switch, copies=True))


def test_code_whose_source_cannot_be_read_is_taken_to_write() -> None:
    scope: dict[str, Any] = {}
    exec("def forward(self, h):\n    return h + 1", scope)
    assert may_write(Layer.of(scope["forward"]))


def test_layers_of_torch_write_where_they_say_so() -> None:
    assert may_write(nn.Sequential(nn.Linear(2, 2), nn.ReLU(inplace=True)))
    assert not may_write(nn.Sequential(nn.Linear(2, 2), nn.ReLU()))
