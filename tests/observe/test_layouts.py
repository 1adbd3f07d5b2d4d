"""Layouts against plain reshapes, and there and back."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from torchkoopman.observe.layouts import DEFAULT_PATTERNS, Layout
from torchkoopman.observe.probes import attach
from torchkoopman.observe.trajectory import Trajectory

PATTERNS = [
    ("b ... -> b 1 (...)", (2, 3, 4, 5)),
    ("b t d -> b t d", (2, 3, 4)),
    ("t b d -> b t d", (3, 2, 4)),
    ("b c h w -> b (h w) c", (2, 3, 4, 5)),
    ("b c h w -> b h (c w)", (2, 3, 4, 5)),
    ("b c ... -> b (...) c", (2, 3, 4, 5)),
    ("b h t d -> b t (h d)", (2, 3, 4, 5)),
    ("b d -> b d", (2, 7)),
]


def numbered(*shape: int) -> torch.Tensor:
    return torch.arange(float(torch.Size(shape).numel())).reshape(shape)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=5))
def test_every_default_layout_returns_what_it_was_given(shape: list[int]) -> None:
    output = numbered(*shape)
    layout = Layout.of(output)
    state = layout.to_state(output)
    assert state.ndim == 3
    assert state.shape[0] == shape[0]
    assert state.shape[2] == layout.features
    assert torch.equal(layout.to_output(state), output)


@pytest.mark.parametrize(("pattern", "shape"), PATTERNS)
def test_a_state_returns_to_the_output_it_came_from(pattern: str, shape: tuple[int, ...]) -> None:
    output = numbered(*shape)
    layout = Layout.of(output, pattern)
    state = layout.to_state(output)
    assert state.shape[0] == 2
    assert state.shape[2] == layout.features
    assert torch.equal(layout.to_output(state), output)


def test_defaults_read_tokens_last_and_images_channels_first() -> None:
    tokens, image = numbered(2, 3, 4), numbered(2, 3, 4, 5)
    assert torch.equal(Layout.of(tokens).to_state(tokens), tokens)
    expected = image.flatten(2).transpose(1, 2)
    assert torch.equal(Layout.of(image).to_state(image), expected)
    vector = numbered(2, 7)
    assert torch.equal(Layout.of(vector).to_state(vector), vector[:, None])


def test_two_groups_mean_one_position() -> None:
    output = numbered(2, 3, 4)
    layout = Layout.of(output, "b ... -> b (...)")
    assert torch.equal(layout.to_state(output), output.reshape(2, 1, 12))
    assert torch.equal(layout.to_output(layout.to_state(output)), output)


def test_the_batch_may_stand_second_as_recurrent_networks_have_it() -> None:
    output = numbered(3, 2, 4)
    layout = Layout.of(output, "t b d -> b t d")
    assert torch.equal(layout.to_state(output), output.transpose(0, 1))
    assert dict(layout.sizes) == {"t": 3, "d": 4}


def test_another_batch_and_number_of_tokens_still_return() -> None:
    layout = Layout.of(numbered(2, 3, 4))
    longer = numbered(5, 9, 4)
    assert torch.equal(layout.to_output(layout.to_state(longer)), longer)


def test_an_image_of_another_batch_size_still_returns() -> None:
    layout = Layout.of(numbered(2, 3, 4, 5))
    other = numbered(7, 3, 4, 5)
    assert torch.equal(layout.to_output(layout.to_state(other)), other)


def test_a_rank_without_default_is_refused_with_the_way_out() -> None:
    with pytest.raises(ValueError, match=r"shape \(1, 1, 1, 1, 1, 1\) has no default.*einops"):
        Layout.of(torch.zeros(1, 1, 1, 1, 1, 1))
    assert max(DEFAULT_PATTERNS) == 5


@pytest.mark.parametrize(
    "pattern",
    [
        "b t d",
        "b t d -> (b t) d",
        "b t d -> b t d 1",
        "b t d -> b",
        "b t d -> 1 t d",
        "b -> c -> d",
        "b t d -> b (t d",
        "b t d -> b t) d",
        "b t d -> b ((t) d)",
    ],
)
def test_a_pattern_that_is_not_batch_positions_features_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"batch positions features|has a bracket that is not"):
        Layout.of(torch.zeros(2, 3, 4), pattern)


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("kind", ["lstm", "attention", "encoder"])
def test_a_module_with_the_batch_second_needs_a_layout(kind: str, batch_first: bool) -> None:
    """Else time would be the batch: labels and masks would go with the wrong rows."""
    model: nn.Module = {
        "lstm": lambda: nn.LSTM(4, 4, batch_first=batch_first),
        "attention": lambda: nn.MultiheadAttention(4, 2, batch_first=batch_first),
        "encoder": lambda: nn.TransformerEncoderLayer(4, 2, 8, batch_first=batch_first),
    }[kind]().eval()
    x, got = torch.randn(3, 3, 4), list[Trajectory]()
    inputs = (x, x, x) if kind == "attention" else (x,)
    with attach(model, "") as probe:
        probe.stream_to(got.append)
        if not batch_first:
            with pytest.raises(ValueError, match=r"batch_first=False.*layout='t b d -> b t d'"):
                model(*inputs)
            return
        model(*inputs)
    output = model(*inputs)
    assert torch.allclose(got[0].states[""], output if kind == "encoder" else output[0], atol=1e-6)


def test_a_pattern_of_another_rank_names_pattern_and_shape() -> None:
    with pytest.raises(ValueError, match=r"'b c h w -> b \(h w\) c' does not fit.*\(2, 3\)"):
        Layout.of(torch.zeros(2, 3), "b c h w -> b (h w) c")


@pytest.mark.parametrize("pattern", ["b t d -> b d", "b t d -> b t e", "b (t u) d -> b (t u) d"])
def test_a_pattern_that_loses_or_invents_an_axis_is_refused_when_taken(pattern: str) -> None:
    with pytest.raises(ValueError, match="same axes on both sides"):
        Layout.of(torch.zeros(2, 3, 4), pattern)
