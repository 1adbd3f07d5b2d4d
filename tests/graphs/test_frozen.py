"""What a trace computes of a model's own tensors alone is refused."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import torchkoopman as tk
from torchkoopman.graphs.frozen import Frozen

X = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))


class Model(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(4))
        self.register_buffer("largest", torch.tensor([0.5]))

    def forward(self, x: Tensor) -> Tensor:
        x = self.layers[2](self.layers[1](self.layers[0](x)))
        if self.kind == "number":
            x = x * float(self.largest)
        elif self.kind == "list":
            x = x * self.largest.tolist()[0]
        elif self.kind == "array":
            x = x * torch.from_numpy(self.largest.numpy() * 2)
        elif self.kind == "text":
            x = x * len(str(self.largest + 0.123))
        elif self.kind == "comparison":
            x = x * 2 if torch.equal(self.largest, torch.tensor([0.5])) else x
        elif self.kind == "size":
            x = x * (1 + torch.nonzero(self.largest > 1).shape[0])
        elif self.kind == "masked size":
            x = x * (1 + self.largest[self.largest > 1].shape[0])
        elif self.kind == "derived number":
            x = x * (self.largest.exp() + 1).item()
        elif self.kind == "derived":
            x = x * (self.largest * 2)
        elif self.kind == "written":
            torch._foreach_copy_([factor := torch.zeros(1)], [self.largest])
            x = x * factor
        elif self.kind == "view":
            x = x * self.largest[0]
        else:
            x = x * self.largest
        return self.layers[3](x)


READ = ["number", "derived number", "list", "array", "text", "comparison", "size", "masked size"]


@pytest.mark.parametrize("kind", [*READ, "derived", "written", "view"])
def test_what_is_computed_of_a_buffer_alone_is_refused(kind: str) -> None:
    model = Model(kind).eval()
    with pytest.raises(RuntimeError, match=r"'largest'.*how='eager'"):
        tk.swap(model, nn.Linear(4, 4), "layers.0", "layers.2", how="fx", example_inputs=X)


@pytest.mark.parametrize("kind", ["tensor", *READ, "derived", "written", "view"])
def test_a_buffer_that_changes_later_is_read_again(kind: str) -> None:
    model, new = Model(kind).eval(), nn.Linear(4, 4)
    edited = tk.swap(model, new, "layers.0", "layers.2", example_inputs=X)
    for value in (0.5, 3.0):
        edited.load_state_dict({"largest": torch.tensor([value])}, strict=False)
        model.largest.fill_(value)
        model.layers[1], model.layers[2] = new, nn.Identity()
        torch.testing.assert_close(edited(X), model(X))


def test_a_size_that_follows_from_the_number_of_indices_is_a_constant() -> None:
    class Indexed(Model):
        def forward(self, x: Tensor) -> Tensor:
            x = self.layers[2](self.layers[1](self.layers[0](x)))
            return self.layers[3](x * self.largest[torch.zeros(2, dtype=torch.long)].shape[0])

    model, new = Indexed("").eval(), nn.Linear(4, 4)
    edited = tk.swap(model, new, "layers.0", "layers.2", how="fx", example_inputs=X)
    torch.testing.assert_close(edited(X), model.layers[3](2 * new(model.layers[0](X))))


NUMBER, FACTOR = torch.tensor(0.5), torch.tensor(0.5)


class Outside(Model):
    def forward(self, x: Tensor) -> Tensor:
        x = self.layers[2](self.layers[1](self.layers[0](x)))
        return self.layers[3](x * (FACTOR if self.kind == "tensor" else NUMBER.item()))


@pytest.mark.parametrize("how", ["fx", "export"])
def test_a_number_of_a_tensor_outside_of_the_model_must_stay(how: Any) -> None:
    model, new = Outside("number").eval(), nn.Linear(4, 4)
    edited = tk.swap(model, new, "layers.0", "layers.2", how=how, example_inputs=X)
    torch.testing.assert_close(edited(X), model.layers[3](new(model.layers[0](X)) * NUMBER))
    NUMBER.mul_(2)
    with pytest.raises(RuntimeError, match=r"global variable 'NUMBER' has changed since"):
        edited(X)


@pytest.mark.parametrize("how", ["fx", "export"])
def test_a_tensor_outside_of_the_model_that_a_graph_has_itself_may_change(how: Any) -> None:
    model, new = Outside("tensor").eval(), nn.Linear(4, 4)
    edited = tk.swap(model, new, "layers.0", "layers.2", how=how, example_inputs=X)
    for _ in range(2):
        torch.testing.assert_close(edited(X), model.layers[3](new(model.layers[0](X)) * FACTOR))
        FACTOR.mul_(2)


@pytest.mark.parametrize("method", ["__enter__", "__exit__"])
def test_an_interrupt_leaves_no_mode_behind(method: str) -> None:
    frozen, stack = Frozen(nn.Linear(2, 2)), torch._C._len_torch_dispatch_stack()

    class Interrupted(type(frozen._methods)):  # type: ignore[misc]
        def _raise(self, *_: object) -> None:
            raise KeyboardInterrupt

    setattr(Interrupted, method, Interrupted._raise)
    other = {"__enter__": "__exit__", "__exit__": "__enter__"}[method]
    setattr(Interrupted, other, lambda *_: None)
    frozen._methods.__class__ = Interrupted
    try:
        with pytest.raises(KeyboardInterrupt), frozen:
            pass
        assert torch._C._len_torch_dispatch_stack() == stack
    finally:
        while torch._C._len_torch_dispatch_stack() > stack:
            torch._C._pop_torch_dispatch_stack()
