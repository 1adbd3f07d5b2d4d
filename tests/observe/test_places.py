"""Structures: the state in a layer's output, taken out and put in."""

import dataclasses
from collections import OrderedDict, UserDict
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_sequence
from torch.utils import _pytree as pytree

from torchkoopman.observe.places import filled, leaves, read
from torchkoopman.observe.views import find_state

STATE, NEW = torch.ones(2, 3), torch.zeros(2, 3)


@dataclasses.dataclass(frozen=True)
class Frozen:
    hidden: Any
    rest: Any = "rest"


class Named(NamedTuple):
    hidden: Any
    rest: Any


@dataclasses.dataclass
class Both(OrderedDict[str, Any]):
    """A mapping and a dataclass, as transformers' outputs are."""

    hidden: Any

    def __post_init__(self) -> None:
        self["hidden"] = self.hidden


OUTPUTS = [
    STATE,
    (STATE, 3),
    [1, STATE],
    {"hidden": STATE, "rest": None},
    Frozen(STATE),
    Named(STATE, ("a", "b")),
    {"inner": (Frozen([STATE]), 7)},
]


@pytest.mark.parametrize("output", OUTPUTS, ids=lambda output: type(output).__name__)
def test_what_is_put_at_the_states_place_is_read_there_and_all_else_stays(output: Any) -> None:
    place = find_state(output, "layer")
    assert read(output, place) is STATE
    changed = filled(output, place, NEW)
    assert type(changed) is type(output)
    assert read(changed, place) is NEW
    assert read(output, place) is STATE  # the given one is not written to
    others = [leaf for where, leaf in leaves(output) if where != place]
    assert [leaf for where, leaf in leaves(changed) if where != place] == others


def test_every_spelling_of_an_entry_is_known() -> None:
    (named,), (frozen,) = find_state(Named(STATE, 1), ""), find_state(Frozen(STATE), "")
    assert named.spellings == {(False, 0), (True, "hidden")}
    assert frozen.spellings == {(True, "hidden")}
    (both,) = find_state(Both(STATE), "")
    assert both.spellings == {(False, "hidden"), (True, "hidden"), (False, 0)}


def test_an_output_that_is_no_container_is_itself() -> None:
    assert find_state(torch.tensor(3), "layer") == ()
    assert find_state("text", "layer") == ()


def test_an_output_with_several_states_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match="layer 'attention' gave a dict with 2 tensors"):
        find_state({"one": STATE, "other": NEW}, "attention")


def test_leaves_are_in_order_with_their_places() -> None:
    found = list(leaves({"a": (1, STATE), "b": []}))
    assert [leaf for _, leaf in found[:2]] == [1, STATE]
    assert [tuple(step.key for step in place) for place, _ in found] == [("a", 0), ("a", 1), ("b",)]
    assert isinstance(found[1][1], Tensor)


class Strings(list[Any]):
    """A list of one's own."""


@pytest.mark.parametrize(
    "output", [Frozen(STATE), UserDict(hidden=STATE), Strings([STATE, "rest"])]
)
def test_containers_that_torch_was_not_told_of_are_opened_without_telling_it(output: Any) -> None:
    known = len(pytree.SUPPORTED_NODES)
    assert any(leaf is STATE for _, leaf in leaves(output))
    assert pytree.tree_leaves(output) == [output]  # else pytree could serve here
    assert len(pytree.SUPPORTED_NODES) == known


def test_a_packed_sequence_is_one_leaf_though_it_is_a_named_tuple() -> None:
    packed = pack_sequence([STATE])
    assert [leaf for _, leaf in leaves((packed, 1))] == [packed, 1]
