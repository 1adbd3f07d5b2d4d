"""``Surrogate.topology``: a perfect surrogate has the network's shape, a bad one has not."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import torchkoopman as tk
from torchkoopman.observe.trajectory import Trajectory
from torchkoopman.topology.clouds import Clouds
from torchkoopman.topology.distances import scale
from torchkoopman.topology.persistence import deaths
from torchkoopman.topology.report import Topology

LAYERS = ["0", "1", "2"]


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator)


def stretching() -> nn.Sequential:
    """The same linear map three times; it stretches one axis and shrinks another."""
    with torch.random.fork_rng():  # nn.Linear draws its weights from the global generator
        model = nn.Sequential(*(nn.Linear(3, 3) for _ in LAYERS))
    with torch.no_grad():
        for layer in model:
            assert isinstance(layer, nn.Linear)
            layer.bias.zero_()
            layer.weight.copy_(torch.tensor([[1.5, 0.2, 0.0], [-0.2, 0.5, 0.1], [0.0, 0.1, 0.8]]))
    return model


def loader(seed: int = 0) -> list[Tensor]:
    return [normal(50, 3, seed=seed + k) for k in range(4)]


def small(surrogate: tk.Surrogate, model: nn.Module, data: Any = None, **options: Any) -> Topology:
    options = {"points": 80, "landmarks": 50, "bootstrap": 2, **options}
    return surrogate.topology(model, loader() if data is None else data, **options)


def fitted(model: nn.Module, **options: Any) -> tk.Surrogate:
    return tk.fit(model, loader(9), LAYERS, method="dmd", progress=False, **options)


def skipping() -> tk.Surrogate:
    """A surrogate that says of every layer what it knows of the first: the identity."""
    x = normal(500, 1, 3)
    return tk.DMDFitter().update(Trajectory(dict.fromkeys(LAYERS, x))).surrogate


@pytest.fixture(scope="module")
def model() -> nn.Sequential:
    return stretching()


@pytest.fixture(scope="module")
def perfect(model: nn.Sequential) -> tk.Surrogate:
    return fitted(model)


def test_a_perfect_surrogate_has_the_curves_of_the_network(
    model: nn.Sequential, perfect: tk.Surrogate
) -> None:
    found = small(perfect, model)
    assert [each.layer for each in found.layers] == LAYERS
    assert [each.time for each in found.layers] == [0.0, 0.5, 1.0]
    for each in found.layers:
        assert each.relative(0) < 1e-3
        assert each.relative(1) < 1e-2
        network, surrogate = each.curves[1]
        assert network.area() > 0
        assert torch.equal(network.scales, surrogate.scales)
    assert found.network == found.surrogate


def test_a_surrogate_that_skips_the_layers_has_other_curves(model: nn.Sequential) -> None:
    found = small(skipping(), model)
    assert found.layers[0].relative(0) < 1e-3
    assert all(each.relative(0) > 0.1 for each in found.layers[1:])
    assert all(each.relative(1) > 0.1 for each in found.layers[1:])


def test_one_epsilon_from_the_networks_first_layer_serves_both_systems_and_all_layers(
    model: nn.Sequential,
) -> None:
    surrogate = skipping()
    clouds = Clouds(surrogate, 80, "states", torch.Generator().manual_seed(0))
    with torch.no_grad(), tk.attach(model, LAYERS).stream_to(clouds):
        for batch in loader():
            model(batch)
    own, other = clouds.of("network"), clouds.of("surrogate")
    found = small(surrogate, model)
    assert found.epsilon == scale(own["0"])
    for counts, kind in ((found.network, own), (found.surrogate, other)):
        merged = [1 + int((deaths(kind[layer]) > found.epsilon).sum()) for layer in LAYERS]
        assert counts == merged


def test_both_clouds_are_the_same_rows_and_predictions_of_them(
    model: nn.Sequential, perfect: tk.Surrogate
) -> None:
    clouds = Clouds(perfect, 30, "states", torch.Generator())
    with torch.no_grad(), tk.attach(model, LAYERS).stream_to(clouds):
        for batch in loader():
            model(batch)
    own, other = clouds.of("network"), clouds.of("surrogate")
    for before, after in ("01", "12"):
        torch.testing.assert_close(model[int(after)](own[before]), own[after])
    start = own["0"][:, None]
    torch.testing.assert_close(other["0"], own["0"], rtol=1e-3, atol=1e-3)
    for layer in ("1", "2"):
        torch.testing.assert_close(other[layer], perfect.predict(start, "0", layer)[:, 0])


def test_every_row_of_the_stream_is_kept_with_equal_probability_and_none_twice() -> None:
    """And each is as likely as any other to come first, so that the first few are a sample."""
    surrogate, generator = skipping(), torch.Generator().manual_seed(1)
    rows = torch.arange(24.0)[:, None, None].expand(24, 2, 3) + torch.tensor([0.0, 0.5])[:, None]
    mask = torch.rand(24, 2, generator=generator) < 0.7
    stream = [
        Trajectory(dict.fromkeys(LAYERS, rows[part]), mask=mask[part])
        for part in torch.arange(24).split([1, 10, 3, 10])
    ]
    counts: dict[float, int] = {}
    firsts: list[float] = []
    for _ in range(400):
        clouds = Clouds(surrogate, 5, "states", generator)
        for trajectory in stream:
            clouds.update(trajectory)
        kept = clouds.of("network")["0"][:, 0].tolist()
        assert len(set(kept)) == 5
        firsts.append(kept[0])
        for value in kept:
            counts[value] = counts.get(value, 0) + 1
    assert set(counts) == set(rows[mask][:, 0].tolist())
    values = rows[mask][:, 0]
    error = torch.tensor(firsts).mean() - values.mean()
    assert error.abs() < 4 * values.std() / 400**0.5
    mean = 400 * 5 / int(mask.sum())
    assert all(abs(count - mean) < 5 * mean**0.5 for count in counts.values())


def test_context_of_a_kept_row_is_there_when_it_is_predicted() -> None:
    """Observables that look along positions see the whole sample, not the kept rows alone."""
    x = normal(60, 5, 3)
    trajectory = Trajectory({"0": x, "1": x.mean(1, keepdim=True) + x.roll(1, 2)})
    fitter = tk.EDMDFitter([tk.ContextMean()])
    surrogate = fitter.update(trajectory).surrogate
    clouds = Clouds(surrogate, 20, "states", torch.Generator())
    clouds.update(trajectory)
    own, other = clouds.of("network")["1"], clouds.of("surrogate")["1"]
    torch.testing.assert_close(other, own, rtol=1e-2, atol=1e-2)


def test_in_latent_space_encoded_states_stand_beside_propagated_ones(
    model: nn.Sequential, perfect: tk.Surrogate
) -> None:
    clouds = Clouds(perfect, 30, "latent", torch.Generator())
    states = Clouds(perfect, 30, "states", torch.Generator())
    with torch.no_grad(), tk.attach(model, LAYERS).stream_to(clouds).stream_to(states):
        for batch in loader():
            model(batch)
    own, other, rows = clouds.of("network"), clouds.of("surrogate"), states.of("network")
    start = perfect.encode(rows["0"][:, None], "0")
    for layer in LAYERS:
        encoded = perfect.encode(rows[layer][:, None], layer)[:, 0]
        torch.testing.assert_close(own[layer], encoded)
        path = perfect.operator(start, perfect.time(layer))[:, 0]
        torch.testing.assert_close(other[layer], path)


def test_normalised_curves_do_not_see_the_size_of_a_cloud() -> None:
    growing = stretching()
    with torch.no_grad():
        for layer, factor in zip(growing, (1.0, 2.0, 1.5), strict=True):
            assert isinstance(layer, nn.Linear)
            layer.weight.copy_(factor * torch.eye(3))
    surrogate = skipping()
    raw, shape = small(surrogate, growing), small(surrogate, growing, normalise=True)
    assert all(each.relative(0) > 0.3 for each in raw.layers[1:])
    assert all(each.relative(0) < 1e-3 for each in shape.layers)
    assert len(set(shape.network)) == 1
    assert raw.network[0] < raw.network[1] < raw.network[2]
    assert "RMS radii" in str(shape)


def test_a_network_that_contracts_simplifies() -> None:
    shrinking = stretching()
    with torch.no_grad():
        for layer in shrinking[1:]:
            assert isinstance(layer, nn.Linear)
            layer.weight.copy_(0.5 * torch.eye(3))
    surrogate = fitted(shrinking)
    found = small(surrogate, shrinking)
    assert found.simplifies() == (True, True)
    assert small(skipping(), shrinking).simplifies() == (True, False)
    assert "network falls monotonically" in str(found)


def test_layers_between_the_steps_of_the_operator_are_left_out(model: nn.Sequential) -> None:
    found = small(fitted(model, dynamics="span"), model)
    assert [each.layer for each in found.layers] == ["0", "2"]


def test_delay_coordinates_are_stacked_as_the_surrogate_was_fitted(model: nn.Sequential) -> None:
    found = small(fitted(model, delays=1), model)
    assert [each.layer for each in found.layers] == ["1", "2"]
    assert all(each.relative(0) < 0.01 for each in found.layers)


def test_same_seed_same_bits(model: nn.Sequential, perfect: tk.Surrogate) -> None:
    def run(seed: int) -> list[Tensor]:
        found = small(perfect, model, generator=torch.Generator().manual_seed(seed))
        curves = [curve for each in found.layers for pair in each.curves.values() for curve in pair]
        return [t for c in curves for t in (c.births, c.deaths, c.scales, c.low, c.high)]

    pairs = list(zip(run(3), run(3), strict=True))
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not torch.equal(run(3)[1], run(4)[1])
    state = torch.get_rng_state()
    small(perfect, model)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_model_is_left_as_it_was(perfect: tk.Surrogate) -> None:
    model = stretching()
    model.train()
    model[1].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    small(perfect, model)
    assert [module.training for module in model] == [True, False, True]
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


def test_fewer_rows_than_points_will_do(model: nn.Sequential, perfect: tk.Surrogate) -> None:
    found = small(perfect, model, points=1000)
    assert found.rows == 200
    assert all(each.relative(1) < 0.05 for each in found.layers)


def test_too_much_memory_is_refused_before_the_model_runs(perfect: tk.Surrogate) -> None:
    def batches() -> Iterator[Tensor]:
        raise AssertionError("the loader was touched")
        yield

    for options in ({"points": 10**6}, {"points": 10**4, "landmarks": 10**4}):
        with pytest.raises(ValueError, match="or raise max_bytes"):
            perfect.topology(stretching(), batches(), **options)


def test_what_cannot_be_compared_is_refused(model: nn.Sequential, perfect: tk.Surrogate) -> None:
    with pytest.raises(ValueError, match="fewer than two counted rows"):
        small(perfect, model, [])
    with pytest.raises(ValueError, match="choose 'states' or 'latent'"):
        small(perfect, model, space="hidden")
    with pytest.raises(ValueError, match="points=1 and landmarks=50 must be two"):
        small(perfect, model, points=1)
    broken = fitted(model)
    with torch.no_grad():
        next(broken.operator.parameters()).fill_(torch.nan)
    with pytest.raises(ValueError, match="points of the surrogate at layer '1' are not finite"):
        small(broken, model)


def test_the_table_shows_every_layer_both_counts_and_both_distances(
    model: nn.Sequential, perfect: tk.Surrogate
) -> None:
    found = small(perfect, model)
    lines = str(found).splitlines()
    assert lines[0].startswith(f"80 points, ε = {found.epsilon:.4g}")
    assert lines[1].split() == [
        *("layer", "time", "β0", "network", "β0", "surrogate", "β0", "rel.", "L1", "β1"),
        *("rel.", "L1"),
    ]
    for line, each in zip(lines[2:5], found.layers, strict=True):
        network, surrogate = each.components(found.epsilon)
        expected = [each.layer, f"{each.time:.3f}", str(network), str(surrogate)]
        expected += [f"{each.relative(d):.4f}" for d in (0, 1)]
        assert line.split() == expected
    assert "β1" not in str(small(perfect, model, dimensions=[0]))
