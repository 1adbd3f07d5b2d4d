"""Pooled layouts: means over axes, so that layers of different resolution are seen together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

import torchkoopman as tk
from torchkoopman.observe.layouts import Layout

if TYPE_CHECKING:
    from pathlib import Path

    from torchkoopman.observe.trajectory import Trajectory

POOLED = "b c h w -> b c, mean over h w"
STAGES = ["stages.0", "stages.1", "stages.2"]


class Residual(nn.Module):
    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.way = nn.Conv2d(width, out, 1, stride=2)
        self.norm, self.conv = nn.BatchNorm2d(out), nn.Conv2d(out, out, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.way(x)
        return torch.relu(x + self.conv(self.norm(x)))


class Stages(nn.Module):
    """A residual network whose stages halve the resolution, 16, 8, 4, and widen."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.Sequential(Residual(3, 4), Residual(4, 6), Residual(6, 8))
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.stages(x).mean((2, 3)))
        return out


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return Stages().eval()


def images(count: int = 4) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(40, 3, 32, 32, generator=generator) for _ in range(count)]


@pytest.mark.parametrize(
    ("pattern", "axes", "shape"),
    [
        (POOLED, (2, 3), (2, 1, 3)),
        ("b c h w -> b 1 c, mean over h w", (2, 3), (2, 1, 3)),
        ("b c h w -> b h c, mean over w", (3,), (2, 4, 3)),
        ("b c ... -> b c, mean over ...", (2, 3), (2, 1, 3)),
        ("b c h w -> b 1 (c h),  mean over   w", (3,), (2, 1, 12)),
    ],
)
def test_a_pooled_layout_is_the_mean_over_the_axes_it_names(
    pattern: str, axes: tuple[int, ...], shape: tuple[int, ...]
) -> None:
    output = torch.randn(2, 3, 4, 5)
    layout = Layout.of(output, pattern)
    mean = output.mean(axes)
    expected = mean.transpose(1, 2) if shape[1] > 1 else mean.flatten(1)
    assert layout.to_state(output).shape == shape
    assert torch.allclose(layout.to_state(output).reshape_as(expected), expected)
    assert layout.features == shape[-1]
    assert Layout.of(output, layout.pattern) == layout
    assert Layout.of(output, layout.by_sample).to_state(output).shape == (2, 1, expected[0].numel())


def test_a_mean_of_halves_is_taken_in_float32() -> None:
    output = torch.randn(2, 3, 16, 16, dtype=torch.bfloat16)
    state = Layout.of(output, POOLED).to_state(output)
    assert torch.allclose(state[:, 0], output.float().mean((2, 3)), atol=1e-6)


@pytest.mark.parametrize(
    "pattern",
    [
        "b c h w -> b c",  # what is averaged over is named, lest an axis be forgotten
        "b c h w -> b c, mean over h",
        "b c h w -> b c w, mean over h w",
        "b c h w -> b c, mean over h w d",
    ],
)
def test_axes_that_are_not_named_exactly_once_are_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"same axes on both sides.*mean over h w"):
        Layout.of(torch.zeros(2, 3, 4, 5), pattern)


def test_nothing_is_put_back_through_a_mean() -> None:
    layout = Layout.of(torch.zeros(2, 3, 4, 5), POOLED)
    with pytest.raises(ValueError, match=r"nothing can be put back through the layout.*mean over"):
        layout.to_output(torch.zeros(2, 1, 3))


def test_stages_of_different_resolution_are_seen_together(model: nn.Module) -> None:
    got: list[Trajectory] = []
    (batch,) = images(1)
    with torch.no_grad(), tk.attach(model, "stages.*", layout=POOLED) as probe:
        probe.stream_to(got.append)
        model(batch)
        report = str(probe.report())
    assert [tuple(state.shape) for state in got[0].states.values()] == [
        (40, 1, 4),
        (40, 1, 6),
        (40, 1, 8),
    ]
    with torch.no_grad():
        expected = model.get_submodule("stages")(batch).mean((2, 3))
    assert torch.allclose(got[0].states["stages.2"][:, 0], expected, atol=1e-6)
    assert "mean over h w" in report
    with tk.attach(model, "stages.*"), pytest.raises(ValueError, match="mean over h w"):
        model(batch)


def test_a_pooled_fit_is_kept_evaluated_ranked_and_refused_by_swap(
    model: nn.Module, tmp_path: Path
) -> None:
    loader = images()
    options: dict[str, Any] = {"method": "dmd", "layout": POOLED, "progress": False}
    surrogate = tk.fit(model, loader, "stages.*", **options)
    assert surrogate.views["stages.1"].layout.pooled == ("h", "w")
    surrogate.save(tmp_path / "pooled.safetensors")
    again = tk.Surrogate.load(tmp_path / "pooled.safetensors")
    assert again.views == surrogate.views
    assert "mean over h w" in str(again.views["stages.0"])

    found, fresh = tk.evaluate(again, model, images(2)), tk.evaluate(surrogate, model, images(2))
    assert found.rows == 80
    assert found.layers == fresh.layers
    topology = again.topology(model, loader, points=60, dimensions=(0,), bootstrap=2)
    assert topology.rows == 60
    ranking = tk.rank_spans(model, loader, STAGES, layout=POOLED, progress=False)
    assert len(ranking.spans) == 3
    assert ranking.rows == 160

    for how in ("auto", "fx", "export", "eager"):
        with pytest.raises(ValueError, match=r"'stages.0' was read as.*mean over.*b \.\.\. -> b 1"):
            tk.swap(model, surrogate, how=how, example_inputs=loader[0])


def test_one_pooled_layer_of_two_is_refused_too(model: nn.Module) -> None:
    """A start that is an average would give the rest of the network another function of it."""
    layers = ["stages.2", "head"]
    options: dict[str, Any] = {"method": "dmd", "layout": {"stages.2": POOLED}, "progress": False}
    surrogate = tk.fit(model, images(), layers, **options)
    assert surrogate.record.held_out["head"] > 0.95  # three of eight directions
    with pytest.raises(ValueError, match=r"'stages.2' was read as"):
        tk.swap(model, surrogate, example_inputs=images(1)[0])


def test_padding_in_a_mean_over_tokens_is_spoken_of() -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: Tensor, attention_mask: Tensor) -> Tensor:
            out: Tensor = self.b(self.a(x))
            return out

    batch = {"x": torch.randn(20, 7, 4), "attention_mask": torch.ones(20, 7).tril()}
    options: dict[str, Any] = {"method": "dmd", "held_out": [batch], "progress": False}
    with pytest.warns(RuntimeWarning, match="padding included"):
        tk.fit(Tokens(), [batch], ["a", "b"], layout="b t d -> b d, mean over t", **options)
