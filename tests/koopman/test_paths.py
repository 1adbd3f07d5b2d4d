"""Samples through depth: planes that follow each other, and what is predicted of the same rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import pytest
import torch
from torch import Tensor, nn

import torchkoopman as tk
from tests.systems import normal
from torchkoopman.koopman.planes import planes_of

if TYPE_CHECKING:
    from collections.abc import Iterator

mpl.use("Agg")
from matplotlib import pyplot as plt

LAYERS = ["0", "1", "2"]


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    plt.close("all")


def network(*, bend: bool = False) -> nn.Sequential:
    """Three layers of three widths; the state of the first holds the inputs."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 4), nn.Linear(4, 6))
    if bend:
        model[1] = nn.Sequential(model[1], nn.Tanh())
    return model.eval()


def batches(count: int = 4, classes: int = 3) -> list[tuple[Tensor, Tensor]]:
    """Samples of classes that lie apart."""
    found = []
    for seed in range(count):
        labels = torch.arange(60) % classes
        centers = 4 * torch.eye(classes, 3)[labels]
        found.append(((centers + normal(60, 3, seed=seed)).float(), labels))
    return found


def fitted(model: nn.Module, **options: Any) -> tk.Surrogate:
    given = {"method": "dmd", "progress": False, **options}
    return tk.fit(model, batches(), LAYERS, **given)


def test_a_cloud_that_only_turns_stays_where_it_is_in_the_planes() -> None:
    """Through layers of other widths, in which signs and order of principal axes are arbitrary."""
    flat = normal(50, 2).double() * torch.tensor([3.0, 2.9])
    layers = []
    for seed, width in enumerate((7, 3, 5, 2)):
        basis = torch.linalg.qr(normal(width, width, seed=seed).double())[0][:, :2]
        layers.append(flat @ basis.T + seed)
    first, *others = (
        plane.coordinates(states) for plane, states in zip(planes_of(layers), layers, strict=True)
    )
    for each in others:
        torch.testing.assert_close(each, first)
    apart = torch.cdist(first, first)
    torch.testing.assert_close(apart, torch.cdist(flat, flat), rtol=1e-6, atol=1e-6)


def test_a_plane_holds_the_two_largest_variances() -> None:
    states = normal(400, 5).double() * torch.tensor([1.0, 5.0, 2.0, 0.1, 3.0])
    (plane,) = planes_of([states])
    variances = torch.linalg.eigvalsh(states.T.cov())
    expected = variances[-2:].sum() / variances.sum()
    torch.testing.assert_close(plane.shares(states).sum(), expected)


def test_one_feature_and_one_direction_fill_one_axis() -> None:
    line, way = normal(20, 1).double(), normal(1, 4, seed=1).double()
    planes = planes_of([line, line @ way])
    for plane, states in zip(planes, (line, line @ way), strict=True):
        placed = plane.coordinates(states)
        assert torch.linalg.matrix_rank(placed) == 1
        torch.testing.assert_close(plane.shares(states).sum(), states.new_tensor(1.0))


def test_what_a_linear_network_does_is_predicted() -> None:
    model = network()
    paths = fitted(model, dynamics="span").paths(model, batches(), samples=30)
    assert paths.points.shape == (30, 3, 2, 2)
    assert paths.systems == ("network", "surrogate")
    ends = paths.points[:, [0, 2]]
    torch.testing.assert_close(ends[:, :, 1], ends[:, :, 0], rtol=1e-3, atol=1e-3)
    assert (paths.r2[[0, 2]] > 0.999).all()
    assert "30 samples of layer 0: in two axes" in str(paths)


def test_layers_of_any_width_are_predicted_from_the_first() -> None:
    model = network(bend=True)
    surrogate = fitted(model, dynamics="step")
    paths = surrogate.paths(model, batches(), samples=500)
    inputs = torch.cat([x for x, _ in batches()])
    with torch.no_grad():
        first, middle = model[:1](inputs), model[:2](inputs)
        predicted = surrogate.predict(first[:, None], "0", "1")[:, 0]
    error = (predicted - middle).square().sum() / (middle - middle.mean(0)).square().sum()
    assert error > 0.001, "else it could be the network's own state"
    assert paths.r2[1, 1] == pytest.approx(1 - error.item(), abs=1e-5)
    assert paths.points.isfinite().all()


def test_all_systems_and_labels_are_of_the_same_samples() -> None:
    """Against states computed by hand; rows of several batches, each with its label."""
    model = network(bend=True)
    surrogate = fitted(model, dynamics="span")
    forgetful = tk.unlearn(surrogate, classes=[1], halves=False)
    paths = surrogate.paths(model, batches(), samples=500, edited=forgetful)
    assert len(paths.points) == 240, "all of them, shuffled"
    assert paths.systems == ("network", "surrogate", "edited")
    assert paths.forgotten == (1,)
    inputs = torch.cat([x for x, _ in batches()])
    labels = torch.cat([y for _, y in batches()])
    with torch.no_grad():
        first, last = model[:1](inputs), model(inputs)
        after = forgetful(first[:, None])[:, 0]
    (plane,) = planes_of([last])
    known = plane.coordinates(last).double(), plane.coordinates(after).double()
    # A plane of its own is turned otherwise, so distances are compared, of the same samples.
    order = torch.cdist(paths.points[:, 0, 0], _first_plane(first)).argmin(1)
    assert len(order.unique()) == 240
    assert paths.labels is not None
    assert paths.labels.tolist() == labels[order].tolist()
    for system, expected in zip((0, 2), known, strict=True):
        mine = torch.cdist(paths.points[:, 2, system], paths.points[:, 2, 0])
        torch.testing.assert_close(
            mine, torch.cdist(expected[order], known[0][order]), rtol=1e-3, atol=1e-3
        )
    assert paths.points[:, 1, 1:].isnan().all(), "a fit across the span knows its ends only"
    assert paths.points[:, [0, 2]].isfinite().all()
    gone = paths.labels == 1
    moved = (paths.points[:, 2, 2] - paths.points[:, 2, 1]).norm(dim=1)
    assert moved[gone].mean() > 3 * moved[~gone].mean()


def _first_plane(states: Tensor) -> Tensor:
    (plane,) = planes_of([states])
    return plane.coordinates(states)


def test_a_generator_draws_other_samples_and_the_default_the_same() -> None:
    model = network()
    surrogate = fitted(model)
    one, two = (surrogate.paths(model, batches(), samples=9).points for _ in range(2))
    torch.testing.assert_close(one, two, equal_nan=True)
    other = torch.Generator().manual_seed(1)
    three = surrogate.paths(model, batches(), samples=9, generator=other).points
    assert not torch.equal(one[:, 0, 0], three[:, 0, 0])


def test_a_loader_without_labels_has_one_color() -> None:
    model = network()
    paths = fitted(model).paths(model, [x for x, _ in batches()], samples=9)
    assert paths.labels is None
    legend = paths.plot().get_legend()
    assert legend is not None
    assert legend.get_texts()[0].get_text() == "samples"


def test_a_batch_without_labels_leaves_those_of_the_others_where_they_are() -> None:
    model = network()
    first, second, *others = batches()
    mixed = [first, second[0], *others]
    paths = fitted(model).paths(model, mixed, samples=500)
    whole = fitted(model).paths(model, batches(), samples=500)
    assert paths.labels is not None
    assert whole.labels is not None
    torch.testing.assert_close(paths.points, whole.points, equal_nan=True)
    unknown = paths.labels < 0
    assert unknown.sum() == 60
    assert torch.equal(paths.labels[~unknown], whole.labels[~unknown])
    names = [text.get_text() for text in paths.plot().get_legend().get_texts()]
    assert names[:2] == ["class unknown", "class 0"]


def test_positions_of_a_sample_have_its_label_and_padding_none() -> None:
    """Each position is a row of its own; masked ones are none."""
    layer = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)).eval()
    x, labels = torch.randn(40, 5, 2, generator=torch.Generator().manual_seed(0)), torch.arange(40)
    x = x + 100 * labels[:, None, None]
    padded = x.clone()
    padded[:, 3:] = torch.nan
    loader = [(padded, labels)]
    surrogate = tk.fit(layer, loader, ["0", "1"], method="dmd", progress=False)
    paths = surrogate.paths(layer, loader, samples=999)
    assert len(paths.points) == 40 * 3
    assert paths.labels is not None
    assert paths.labels.bincount().tolist() == [3] * 40
    order = paths.points[:, 0, 0, 0].argsort()
    steps = paths.labels[order].diff()
    assert (steps >= 0).all() or (steps <= 0).all(), "along the axis in which classes lie apart"


def test_stacked_states_are_followed_too() -> None:
    model = nn.Sequential(*(nn.Linear(3, 3) for _ in range(4))).eval()
    fitter = tk.DMDFitter(delays=1)
    surrogate = tk.fit(model, batches(), ["0", "1", "2", "3"], method=fitter, progress=False)
    paths = surrogate.paths(model, batches(), samples=20)
    assert paths.layers == surrogate.layers
    assert len(paths.layers) == 3
    assert paths.points[:, 0].isfinite().all()


def test_refusals_name_what_came() -> None:
    model = network()
    surrogate = fitted(model)
    with pytest.raises(ValueError, match="samples=1; a plane needs two"):
        surrogate.paths(model, batches(), samples=1)
    with pytest.raises(TypeError, match="edited= of type Sequential; give the surrogate"):
        surrogate.paths(model, batches(), edited=model)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"was never edited.*leads from '0' to '2'"):
        surrogate.paths(model, batches(), edited=surrogate)
    shorter = tk.fit(model, batches(), LAYERS[:2], method="dmd", progress=False)
    with pytest.raises(ValueError, match="leads from '0' to '1'; give"):
        surrogate.paths(model, batches(), edited=tk.unlearn(shorter, classes=[1], halves=False))
    with pytest.raises(ValueError, match="gave 1 counted row"):
        surrogate.paths(model, [(torch.ones(1, 3), torch.zeros(1).long())])


def test_a_plot_shows_each_layer_beside_the_one_before_and_the_edit_of_the_forgotten_class() -> (
    None
):
    model = network()
    surrogate = fitted(model)
    edited = tk.unlearn(surrogate, classes=[1], halves=False)
    paths = surrogate.paths(model, batches(), samples=60, edited=edited)
    _, axes = plt.subplots(1, 2)
    assert paths.plot(axes[1], lines=7) is axes[1]
    assert not axes[0].collections
    ax = axes[1]
    assert len(ax.lines) == 7
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["layer 0", "layer 1", "layer 2"]
    names = [text.get_text() for text in ax.get_legend().get_texts()]
    assert names[:3] == ["class 0", "class 1 (forgotten)", "class 2"]
    assert names[-1] == "surrogate that forgets"
    assert paths.labels is not None
    gone = int((paths.labels == 1).sum())
    crosses = [each for each in ax.collections if len(each.get_paths()) and _is_cross(each)]
    assert [len(each.get_offsets()) for each in crosses] == [2 * gone], "of that class alone"


def _is_cross(each: Any) -> bool:
    return (
        hasattr(each, "get_offsets")
        and each.get_paths()[0].codes is not None
        and len(each.get_paths()[0].vertices) == 4
    )
