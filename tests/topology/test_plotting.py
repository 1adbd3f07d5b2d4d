"""Pictures of Betti numbers show the curves and the counts that the results hold."""

from collections.abc import Iterator

import matplotlib as mpl
import pytest
import torch

mpl.use("Agg")
from matplotlib import pyplot as plt

from tests.systems import draw
from torchkoopman.topology.betti import BettiCurve, betti_curve
from torchkoopman.topology.report import LayerTopology, Topology


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    plt.close("all")


def curve(seed: int, dimension: int = 0) -> BettiCurve:
    parts = [torch.randperm(25, generator=torch.Generator().manual_seed(k))[:20] for k in range(5)]
    return betti_curve(draw(25, 3, seed=seed), dimension, subsamples=parts)


def layer(number: int) -> LayerTopology:
    own = {dimension: (curve(2 * number), curve(2 * number + 1)) for dimension in (0,)}
    return LayerTopology(f"block.{number}", number / 2, own)


def test_a_curve_is_a_step_function_with_its_band() -> None:
    own = curve(0)
    ax = own.plot(label="mine")
    (line,) = ax.lines
    torch.testing.assert_close(torch.as_tensor(line.get_xdata()), own.scales)
    assert torch.as_tensor(line.get_ydata()).tolist() == own.values.tolist()
    assert line.get_drawstyle() == "steps-post", "a number holds until the next event"
    (band,) = ax.collections
    (path,) = band.get_paths()
    assert path.vertices[:, 1].max() == own.high.max()
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("ε", "β0")
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["mine"]


def test_a_layer_shows_the_network_beside_its_surrogate() -> None:
    own = layer(1)
    _, axes = plt.subplots(1, 2)
    assert own.plot(axes[1]) is axes[1]
    drawn = [torch.as_tensor(line.get_ydata()).tolist() for line in axes[1].lines]
    assert drawn == [each.values.tolist() for each in own.curves[0]]
    assert [text.get_text() for text in axes[1].get_legend().get_texts()] == [
        "network",
        "surrogate",
    ]
    assert not axes[0].lines
    with pytest.raises(ValueError, match="dimension=1; there are curves of 0"):
        own.plot(dimension=1)


def test_a_topology_shows_components_by_depth() -> None:
    own = Topology(25, 10, 0.6, "states", False, tuple(map(layer, range(3))))
    ax = own.plot()
    network, surrogate = ax.lines
    assert list(network.get_ydata()) == own.network
    assert list(surrogate.get_ydata()) == own.surrogate
    assert own.network != own.surrogate, "else the two could be exchanged"
    assert list(network.get_xdata()) == [0, 0.5, 1]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["block.0", "block.1", "block.2"]
