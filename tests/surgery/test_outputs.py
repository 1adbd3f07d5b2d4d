"""What attach read is what swap replaces: layers of two states, and every choice among them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import torchkoopman as tk

WIDTH, ROWS = 4, 32


@dataclass
class States:
    """A layer's output with two states and something else."""

    first: Tensor
    second: Tensor
    name: str = "states"


@dataclass(frozen=True)
class Form:
    """A structure of two states, where they are in it, and the same with one exchanged."""

    make: Callable[[Tensor, Tensor], Any]
    paths: tuple[str, str]
    read: Callable[[Any], tuple[Tensor, Tensor]]


FORMS = {
    "tuple": Form(lambda a, b: (a, b), ("0", "1"), tuple),
    "dict": Form(
        lambda a, b: {"a": a, "b": b}, ("a", "b"), lambda output: (output["a"], output["b"])
    ),
    "dataclass": Form(States, ("first", "second"), lambda output: (output.first, output.second)),
    "tuple in dict": Form(
        lambda a, b: {"x": (a, b)}, ("x.0", "x.1"), lambda output: (output["x"][0], output["x"][1])
    ),
    "dict in tuple": Form(
        lambda a, b: ({"x": a}, b), ("0.x", "1"), lambda output: (output[0]["x"], output[1])
    ),
    "dataclass in tuple": Form(
        lambda a, b: (1, States(a, b)),
        ("1.first", "1.second"),
        lambda output: (output[1].first, output[1].second),
    ),
}
USES = {"chosen": ((0,), (1,)), "other": ((1,), (0,)), "both": ((0, 1), (0, 1))}
"""What is read of a layer's output, of the first and of the second tensor chosen."""


class Two(nn.Module):
    """A layer that returns two states."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form = form
        self.one, self.two = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Any:
        return FORMS[self.form].make(torch.tanh(self.one(x)), torch.sin(self.two(x)))


class Net(nn.Module):
    """A layer of two states, one between, another of two states, and a head."""

    def __init__(self, forms: tuple[str, str], reads: tuple[tuple[int, ...], ...]) -> None:
        super().__init__()
        self.reads = reads
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.stem, self.start = nn.Linear(WIDTH, WIDTH), Two(forms[0])
            self.between, self.end = nn.Linear(WIDTH, WIDTH), Two(forms[1])
            self.head = nn.Linear(WIDTH, 2)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        x = _read(self.start.form, self.start(self.stem(x)), self.reads[0])
        x = _read(self.end.form, self.end(torch.tanh(self.between(x))), self.reads[1])
        return self.head(x)


def _read(form: str, output: Any, which: tuple[int, ...]) -> Tensor:
    tensors = FORMS[form].read(output)
    return tensors[which[0]] if len(which) == 1 else tensors[0] + tensors[1]


def rows(seed: int, count: int = ROWS) -> Tensor:
    return torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(seed))


def fitted(model: Net, paths: dict[str, str] | str, kind: str) -> tk.Surrogate:
    """A closed-form surrogate of the two layers, each read at its path."""
    small = tk.EDMDFitter(tk.RandomFeatures(6), calibration=40)
    fitter = tk.DMDFitter() if kind == "dmd" else small
    with torch.no_grad(), tk.attach(model, ["start", "end"], output=paths).stream_to(fitter):
        for seed in range(6):
            model(rows(seed))
    return fitter.surrogate


def reference(model: Net, surrogate: tk.Surrogate, x: Tensor, chosen: tuple[int, int]) -> Tensor:
    """The model with the prediction at the chosen place of the output of ``end``."""
    module, seen = surrogate.replacement("start", "end"), list[Tensor]()

    def look(layer: Two, inputs: Any, output: Any) -> None:
        seen.append(FORMS[layer.form].read(output)[chosen[0]].clone())

    def put(layer: Two, inputs: Any, output: Any) -> Any:
        tensors = list(FORMS[layer.form].read(output))
        tensors[chosen[1]] = module(seen[-1])
        return FORMS[layer.form].make(*tensors)

    hooks = model.start.register_forward_hook(look), model.end.register_forward_hook(put)
    output = model(x)
    for hook in hooks:
        hook.remove()
    return output


CHOSEN = st.sampled_from([0, 1])
FORM = st.sampled_from(list(FORMS))
USE = st.sampled_from(["chosen"] * 3 + ["other", "both"])


@settings(
    max_examples=90,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(
    st.tuples(FORM, FORM),
    st.tuples(CHOSEN, CHOSEN),
    st.tuples(USE, USE),
    st.sampled_from(["dmd", "edmd"]),
)
@torch.no_grad()
def test_what_attach_read_is_what_swap_replaces(
    forms: tuple[str, str], chosen: tuple[int, int], uses: tuple[str, str], kind: str
) -> None:
    model = Net(forms, tuple(USES[use][which] for use, which in zip(uses, chosen, strict=True)))
    paths = [FORMS[form].paths[which] for form, which in zip(forms, chosen, strict=True)]
    same = paths[0] == paths[1]
    surrogate = fitted(
        model, paths[0] if same else dict(zip(("start", "end"), paths, strict=True)), kind
    )
    event(f"{uses[0]} of the start's, {uses[1]} of the end's")
    try:
        edited = tk.swap(model, surrogate, example_inputs=rows(99))
    except (TypeError, ValueError, RuntimeError):
        if uses == ("chosen", "chosen"):
            raise
        return  # the other state enters the span, or leaves it
    for x in (rows(7), 4 * rows(8), rows(9, 5)):
        truth = reference(model, surrogate, x, chosen)
        torch.testing.assert_close(edited(x), truth, rtol=1e-5, atol=1e-6)


def test_the_choices_give_different_predictions() -> None:
    model = Net(("tuple", "tuple"), ((0,), (1,)))
    right, wrong = (fitted(model, paths, "dmd") for paths in ({"start": "0", "end": "1"}, "0"))
    x = rows(7)
    assert not torch.allclose(
        reference(model, right, x, (0, 1)), reference(model, wrong, x, (0, 1)), rtol=1e-2
    )
