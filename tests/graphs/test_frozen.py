"""What a trace computes of a model's own tensors alone is refused."""

import pytest
import torch
from torch import Tensor, nn

import torchkoopman as tk

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
        elif self.kind == "derived number":
            x = x * (self.largest.exp() + 1).item()
        elif self.kind == "derived":
            x = x * (self.largest * 2)
        elif self.kind == "view":
            x = x * self.largest[0]
        else:
            x = x * self.largest
        return self.layers[3](x)


@pytest.mark.parametrize("kind", ["number", "derived number", "derived", "view"])
def test_what_is_computed_of_a_buffer_alone_is_refused(kind: str) -> None:
    model = Model(kind).eval()
    with pytest.raises(RuntimeError, match=r"'largest'.*how='eager'"):
        tk.swap(model, nn.Linear(4, 4), "layers.0", "layers.2", how="fx", example_inputs=X)


@pytest.mark.parametrize("kind", ["tensor", "number", "derived number", "derived", "view"])
def test_a_buffer_that_changes_later_is_read_again(kind: str) -> None:
    model, new = Model(kind).eval(), nn.Linear(4, 4)
    edited = tk.swap(model, new, "layers.0", "layers.2", example_inputs=X)
    for value in (0.5, 3.0):
        edited.load_state_dict({"largest": torch.tensor([value])}, strict=False)
        model.largest.fill_(value)
        model.layers[1], model.layers[2] = new, nn.Identity()
        torch.testing.assert_close(edited(X), model(X))
