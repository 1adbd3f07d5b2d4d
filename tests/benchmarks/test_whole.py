"""The bench of networks looked at whole: what is compared stands in one place, goals are said."""

import torch
from torch import nn

from benchmarks import whole as networks
from benchmarks.parts import whole
from tests.systems import draw
from torchkoopman.observe.layouts import Layout


def test_the_networks_have_the_layers_and_resolutions_that_are_named() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        cnn, vit = networks.Residual().eval(), networks.VisionTransformer().eval()
    images = draw(2, 256).float().reshape(2, 1, 16, 16)
    with torch.no_grad():
        stages = [cnn.stem(images)]
        for stage in (cnn.stage1, cnn.stage2, cnn.stage3):
            stages.append(stage(stages[-1]))
        assert [tuple(each.shape[1:]) for each in stages[1:]] == [
            (16, 16, 16),
            (32, 8, 8),
            (64, 4, 4),
        ]
        assert cnn(images).shape == vit(images).shape == (2, 10)


def test_a_map_in_a_spans_place_reads_and_gives_what_the_layers_did() -> None:
    first, last = (
        Layout.of(draw(2, 3, 4, 4), networks.FLAT),
        Layout.of(draw(2, 6, 2, 2), networks.FLAT),
    )
    weight, bias = draw(24, 48).float(), draw(24).float()
    images = draw(5, 3, 4, 4).float()
    found = whole.Mapped(weight, bias, first, last)(images)
    expected = nn.functional.linear(images.flatten(1), weight, bias).reshape(5, 6, 2, 2)
    torch.testing.assert_close(found, expected)


def test_what_takes_too_long_is_missed() -> None:
    span = {"seconds": 2.0, "right": 0.9, "ridge": 0.8, "skip": None, "r2": 0.7}
    span |= {"outside": {"a": 0.1}, "removed": 20, "added": 10}
    run = {"right": 0.95, "inspect": 1.0, "rank": 1.0, "ranked": 3, "unranked": 12}
    for total, verdict in ((50.0, "met"), (70.0, "MISSED")):
        text = whole.table({"cnn-0": {**run, "spans": {"a → b": span}, "total": total}})
        assert f"goal 60 s: {verdict}" in text
        assert "90.0" in text
        assert "20 → 10" in text
