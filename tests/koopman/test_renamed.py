"""A surrogate's layers can have other names, as where a model was wrapped when it was fitted."""

from typing import Any

import pytest
import torch
from torch import nn

import torchkoopman as tk

NAMES = {"module.0": "0", "module.1": "1", "module.3": "3"}


def network() -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 3)
        return nn.Sequential(*layers).eval()


class Wrapped(nn.Module):
    """As DistributedDataParallel holds a model."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: torch.Tensor) -> Any:
        return self.module(x)


def fitted(**options: Any) -> tk.Surrogate:
    x = torch.randn(200, 3, generator=torch.Generator().manual_seed(0))
    batches = [(part, torch.arange(50) % 2) for part in x.split(50)]
    given = {"method": "dmd", "progress": False, **options}
    return tk.fit(Wrapped(network()), batches, list(NAMES), **given)


def test_a_surrogate_of_a_wrapped_model_goes_into_the_model_itself() -> None:
    surrogate, x = fitted(), torch.randn(5, 3)
    renamed = surrogate.renamed(NAMES)
    expected = tk.swap(Wrapped(network()), surrogate)(x)
    assert torch.equal(tk.swap(network(), renamed)(x), expected)
    assert surrogate.layers == tuple(NAMES), "the one before stays as it was"


def test_every_name_changes_wherever_it_stands() -> None:
    before = fitted(delays=1)
    assert before.span.before == ("module.0",)
    surrogate = before.renamed(NAMES)
    assert "module." not in str(surrogate.config())
    assert "module." not in str(surrogate.card())
    assert surrogate.layers == ("1", "3")
    assert surrogate.span.before == ("0",)
    assert set(surrogate.views) == {"0", "1", "3"}
    assert set(surrogate.record.held_out) == {"3"}
    h = torch.randn(6, 1, 8)
    assert torch.equal(surrogate.predict(h, "1", "3"), before.predict(h, "module.1", "module.3"))
    assert surrogate.modes("3").layer == "3"
    with pytest.raises(ValueError, match=r"'module\.1'"):
        surrogate.predict(h, "module.1")


def test_an_edited_surrogate_stays_edited_under_other_names() -> None:
    edited = tk.unlearn(fitted(rank=3, method="edmd", observables=tk.RandomFeatures(5)), [1])
    renamed = edited.renamed({"module.0": "first"})
    assert [edit.classes for edit in renamed.edits] == [(1,)]
    h = torch.randn(6, 1, 4)
    assert torch.equal(renamed(h), edited(h))
    assert tk.undo(renamed).layers == tuple(NAMES), "the undo is the surrogate before, as it was"


def test_names_may_change_places() -> None:
    surrogate = fitted().renamed({"module.0": "module.3", "module.3": "module.0"})
    assert surrogate.layers == ("module.3", "module.1", "module.0")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"0": "1"}, r"given the layers \['0'\], and the surrogate's are \('module\.0'"),
        ({"module.0": "module.1"}, r"several layers .* the name 'module\.1'"),
        ({"module.0": "a", "module.3": "a"}, "the name 'a'"),
        ({"module.0": 3}, "have names, each one of its own"),
    ],
)
def test_unknown_and_clashing_names_are_refused(names: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fitted().renamed(names)
