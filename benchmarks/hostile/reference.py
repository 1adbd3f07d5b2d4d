"""What a swap must be equal to: a model in which hooks override the span's last output."""

from __future__ import annotations

import copy
from collections import Counter
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

import torchkoopman as tk
from benchmarks.hostile.compare import (
    flat,
    is_state,
    under,
    with_state,
)
from benchmarks.hostile.play import Use, call, play, seed

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.hostile.case import Case, Inputs


def put_in(kind: str) -> nn.Module:
    """A module to swap in, by its name in ``KINDS``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        made: dict[str, Callable[[], nn.Module]]
        made = {"map": lambda: nn.Linear(8, 8), "identity": nn.Identity, "dropout": nn.Dropout}
        return made[kind]()


def reference(
    case: Case, prior: bool, kind: str, inputs: list[Inputs]
) -> tuple[nn.Module, list[Use]]:
    """The model with the output of the span's last layer overridden by hooks, and what it gives."""
    model, new = ready(case, prior), put_in(kind)
    above = model.get_submodule(case.end.partition("#")[0].rpartition(".")[0])
    kept: list[Tensor] = []
    counts: Counter[str] = Counter()

    def begin() -> None:
        kept.clear()
        counts.clear()

    def called(layer: str, output: Any) -> Any:
        _, _, number = layer.partition("#")
        counts[layer] += 1
        if number and counts[layer] - 1 != int(number):
            return None
        if layer == case.end:
            new.to(next(model.parameters()).dtype)  # a model may be moved after the swap
            new.train(above.training)  # and switched, in whole or in part
            return with_state(output, new(again(kept[-1])))[0]
        kept.append(again(next(filter(is_state, flat(output).values()))))
        return None

    for layer in (case.start, case.end):
        model.get_submodule(layer.partition("#")[0]).register_forward_hook(
            lambda module, given, output, layer=layer: called(layer, output)
        )
    return model, play(case, model, inputs, new, begin)


def again(state: Tensor) -> Tensor:
    """A copy with the history of a state, as an identity hands it on under torch.no_grad too."""
    with torch.set_grad_enabled(torch.is_grad_enabled() or state.requires_grad):
        return state.clone()


def ready(case: Case, prior: bool) -> nn.Module:
    """A new model in its mode, with its history."""
    seed(99)
    model = case.make().train(case.train)
    if prior:
        with torch.no_grad():
            call(model, copy.deepcopy(case.example()))
    seed(98)
    return model


def gone(case: Case, edited: nn.Module, names: dict[str, Any]) -> set[str]:
    """Of some names those in layers that were replaced, whose contents are their own affair."""
    record = tk.swap_history(edited)[-1]
    return under(names, (case.end, record.module, *record.layers))
