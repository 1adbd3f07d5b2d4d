"""The bench of contraction: the norm that is taken out is the final one, and nothing else is."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks.parts import contraction
from benchmarks.parts.contraction import FAMILIES

NORMED = [name for name, family in FAMILIES.items() if family.norm]


def small(seed: int = 0) -> Tensor:
    return torch.randn(2, 3, contraction.SIDE, contraction.SIDE, generator=generator(seed))


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def model_of(name: str) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return FAMILIES[name].build().eval()


@pytest.mark.parametrize("name", NORMED)
def test_the_norm_behind_the_features_without_it_gives_what_the_model_gives(name: str) -> None:
    model = model_of(name)
    path = FAMILIES[name].norm
    assert path is not None
    norm = model.get_submodule(path)
    with torch.no_grad():
        # Weights that are not those of a fresh norm, so that another one in its place is seen.
        for weight in norm.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator(2)))
        whole = model(small())
        model.set_submodule(path, nn.Identity())
        normed = norm(contraction.features(model, small()))
    if name == "CLIP, vision tower":  # these two apply it behind their pooling
        expected, found = whole.pooler_output, normed[:, 0]
    elif name == "ConvNeXt":
        plain = contraction.features(model, small()).detach()
        expected, found = whole.pooler_output, norm(plain.mean((1, 2)))
    else:
        whole = whole if isinstance(whole, Tensor) else whole.last_hidden_state
        expected, found = (whole.movedim(1, -1) if whole.ndim == 4 else whole), normed
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", [name for name in FAMILIES if name not in NORMED])
def test_where_no_final_norm_is_named_the_last_layer_is_none(name: str) -> None:
    """A layer norm at the end would make the σ of the features 1 at each position."""
    with torch.no_grad():
        found = contraction.features(model_of(name), small())
    assert ((found.std(-1, correction=0) - 1).abs() > 0.01).any()


def test_what_is_the_same_for_all_inputs_spreads_everywhere_and_not_between_them() -> None:
    same = torch.arange(6.0).expand(4, 6)
    assert contraction.between(same) == 0
    assert contraction.everywhere(same) > 1
    x = torch.randn(500, 6, generator=generator(0))
    assert contraction.between(x) == pytest.approx(contraction.everywhere(x), rel=0.02)


def test_both_ratios_are_those_of_one_network(monkeypatch: pytest.MonkeyPatch) -> None:
    class Half(nn.Module):
        """Halves its inputs, and normalises them."""

        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm2d(3, affine=False)
            self.norm.running_var += 3  # divides by two

        def forward(self, x: Tensor) -> Any:
            return self.norm(x / 2)

    family = contraction.Backbone(Half, "norm")
    monkeypatch.setattr(contraction, "features", lambda model, inputs: model(inputs))
    told = contraction.of(family, torch.randn(40, 3, 8, 8, generator=generator(0)), 0)
    for which in ("all", "between"):
        assert told[f"{which}, without norm"] == pytest.approx(0.5)
        assert told[f"{which}, as it is"] == pytest.approx(0.25, rel=1e-3)
