"""Facts: what is found in calls and models, and which differences are rounding."""

import dataclasses
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from torchkoopman.observe.facts import ROUNDINGS, alike, attributes, facts_in, gap
from torchkoopman.observe.surroundings import INTERNALS

NAN, INF = float("nan"), float("inf")
X = torch.tensor([1.0, -2.0, 4.0])


@dataclasses.dataclass
class Record:
    hidden: Any
    kind: Any = None


class Named(NamedTuple):
    hidden: Any
    size: Any


class Holder:
    """No container: an object of a user's own class."""

    def __init__(self, **held: Any) -> None:
        vars(self).update(held)


class Cache(Holder):
    def get_seq_length(self) -> int:
        return 0


class Model(nn.Module):
    """One attribute of each kind."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(2, 2)
        self.norm = nn.BatchNorm1d(2)
        self.register_buffer("steps", torch.tensor([3]))
        self.register_buffer("scratch", torch.ones(2), persistent=False)
        self.scale, self.kind, self.seen = 0.5, None, X
        self.memory = {"last": [X, 2], "name": "m"}
        self.helper = Holder(count=1)
        self.function = torch.relu


@pytest.mark.parametrize(
    ("value", "names"),
    [
        (X, {"out"}),
        (None, {"out"}),
        ((X, [1, None]), {"out '0'", "out '1.0'", "out '1.1'"}),
        ({"a": {0: X}}, {"out 'a.0'"}),
        (Record(X, "k"), {"out 'hidden'", "out 'kind'"}),
        (Named(X, 3), {"out '0'", "out '1'"}),
        (Holder(h=X, n=2), {"out at 'h'", "out at 'n'"}),
        ((Holder(h=(X, X)),), {"out '0' at 'h.0'", "out '0' at 'h.1'"}),
        (Cache(h=X), set()),
        (nn.Linear(2, 2), set()),
        (Record, set()),
        (torch.relu, set()),
        ([], set()),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_tensor_and_plain_value_has_a_name(value: Any, names: set[str]) -> None:
    assert set(dict(facts_in("out", value))) == names


def test_facts_are_copies_without_history() -> None:
    x = X.clone().requires_grad_()
    found = dict(facts_in("out", {"a": x * 2, "b": x}))
    with torch.no_grad():
        x.zero_()
    assert torch.equal(found["out 'b'"], X)
    assert not any(fact.requires_grad for fact in found.values())


def test_values_within_objects_are_looked_for_in_calls_and_not_in_models() -> None:
    assert set(dict(facts_in("out", Holder(n=1)))) == {"out at 'n'"}
    assert dict(facts_in("out", Holder(n=1), " at ")) == {}


def test_attributes_are_buffers_and_what_users_set_and_nothing_of_torch() -> None:
    found = attributes(Model())
    own = {"steps", "scratch", "scale", "kind", "seen"}
    own |= {"memory at 'last.0'", "memory at 'last.1'", "memory at 'name'"}
    own |= {"helper at 'count'"}
    norm = {"running_mean", "running_var", "num_batches_tracked", "eps", "momentum", "affine"}
    norm |= {"num_features", "track_running_stats"}
    assert {name for name in found if "." not in name or " at " in name} == own
    assert {f"norm.{name}" for name in norm} <= set(found)
    assert {"fc.in_features", "fc.out_features"} <= set(found)
    assert not {name.rpartition(".")[2] for name in found} & INTERNALS
    assert not [name for name in found if "weight" in name or "training" in name]


def test_attributes_do_not_follow_later_writes() -> None:
    model = Model()
    before = attributes(model)
    model.steps += 1
    model.memory["last"].append(1)
    after = attributes(model)
    assert not alike(before["steps"], after["steps"])
    assert set(after) - set(before) == {"memory at 'last.2'"}


@pytest.mark.parametrize(
    ("value", "other"),
    [
        (1, 1), ("a", "a"), (None, None), (NAN, NAN), (INF, INF), (True, True),
        (torch.float32, torch.float32), (torch.device("cpu"), torch.device("cpu")),
        (X, X.clone()),
        (torch.tensor([NAN, INF, -INF, 1]), torch.tensor([NAN, INF, -INF, 1])),
        (torch.tensor([1, 2]), torch.tensor([1, 2])),
        (torch.tensor([True]), torch.tensor([True])),
        (torch.ones(0), torch.ones(0)),
        (torch.tensor(complex(1, NAN)), torch.tensor(complex(1, NAN))),
    ],
    ids=str,
)  # fmt: skip
def test_equal_facts_are_alike_also_where_undefined(value: Any, other: Any) -> None:
    assert alike(value, other)


@pytest.mark.parametrize(
    ("value", "other"),
    [
        (1, 2), (1, 1.0), (True, 1), (0, False), (None, 0), ("1", 1), (NAN, 1.0),
        (torch.float32, torch.float64),
        (X, X.double()),
        (X, X[None]),
        (torch.ones(0), torch.ones(0, 2)),
        (torch.tensor([1, 2]), torch.tensor([1, 3])),
        (torch.tensor([2**40]), torch.tensor([2**40 + 1])),
        (torch.tensor([True]), torch.tensor([1])),
        (torch.tensor([NAN, 1]), torch.tensor([0.0, 1])),
        (torch.tensor([INF]), torch.tensor([-INF])),
        (torch.tensor([INF, 1]), torch.tensor([1e30, 1])),
        (torch.tensor([1.0]), torch.tensor([NAN])),
    ],
    ids=str,
)  # fmt: skip
def test_other_facts_are_not_alike(value: Any, other: Any) -> None:
    assert not alike(value, other)
    assert not alike(other, value)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.half])
@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3])
def test_rounding_is_relative_to_the_largest_value(dtype: torch.dtype, size: float) -> None:
    value = (X * size).to(torch.double)
    unit = torch.finfo(dtype).eps * float(value.abs().max())
    small = torch.tensor([1.0, 0, 0])
    within = (value + 0.4 * ROUNDINGS * unit * small).to(dtype)
    beyond = (value + 3 * ROUNDINGS * unit * small).to(dtype)
    assert alike(within, value.to(dtype))
    assert not alike(beyond, value.to(dtype))


def test_infinities_are_not_the_largest_value() -> None:
    value, other = torch.tensor([INF, 1.0]), torch.tensor([INF, 1.1])
    assert not alike(value, other)


def test_differences_below_the_least_are_rounding_whatever_the_size() -> None:
    zero = torch.zeros(2)
    assert not alike(zero + 1e-6, zero)
    assert alike(zero + 1e-6, zero, least=1e-5)
    assert not alike(torch.tensor([1]), torch.tensor([2]), least=5.0)


@pytest.mark.parametrize(
    ("value", "other", "expected"),
    [
        (X, X, 0.0),
        (X, X + torch.tensor([0, 0.5, 0]), 0.5),
        (torch.tensor([NAN, INF]), torch.tensor([NAN, INF]), 0.0),
        (torch.tensor([NAN, 1]), torch.tensor([NAN, 3.0]), 2.0),
        (torch.tensor([NAN]), torch.tensor([1.0]), INF),
        (torch.tensor([3 + 4j]), torch.tensor([0j]), 5.0),
        (torch.ones(0), torch.ones(0), 0.0),
        (torch.tensor([1]), torch.tensor([2]), INF),
    ],
    ids=str,
)
def test_the_gap_is_the_largest_difference(value: Tensor, other: Tensor, expected: float) -> None:
    assert gap(value, other) == gap(other, value) == expected
