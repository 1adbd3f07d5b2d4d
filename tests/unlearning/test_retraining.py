"""The network to compare with: without the classes, and fresh, or refused."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from torchkoopman.unlearning.batches import Batches
from torchkoopman.unlearning.relearning import Relearning
from torchkoopman.unlearning.retraining import Retraining, Without, require_fresh

LABELS = torch.arange(40) % 4
BATCHES = list(zip(torch.eye(4)[LABELS].split(10), LABELS.split(10), strict=True))


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 4))


def trained(model: nn.Module, batches: Batches, steps: int = 100) -> nn.Module:
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-2)
    for _ in range(steps):
        for x, y in batches:
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimiser.step()
    return model.eval()


def test_batches_without_a_class_hold_every_other_sample_each_time() -> None:
    without = Without(BATCHES, [1, 3])
    for _ in range(2):
        labels = torch.cat([y for _, y in without])
        assert labels.tolist() == [0, 2] * 10
    assert all(torch.equal(x.argmax(1), y) for x, y in without)


def test_a_batch_of_nothing_else_is_left_out() -> None:
    batches = [(torch.zeros(3, 4), torch.ones(3, dtype=torch.long)), BATCHES[0]]
    assert len(list(Without(batches, [1]))) == 1


def test_the_factory_s_network_is_trained_on_the_other_classes_alone() -> None:
    seen: list[torch.Tensor] = []

    def train(model: nn.Module, batches: Batches) -> None:
        seen.extend(y for _, y in batches)
        trained(model, batches, 20)

    torch.manual_seed(0)
    model = Retraining(network, train).without(BATCHES, [2], network())
    assert 2 not in torch.cat(seen)
    assert not model.training


@pytest.mark.parametrize(
    ("reuse", "what"),
    [
        (lambda model: model, "memory"),
        (copy.deepcopy, "equals that"),
        (lambda model: nn.Sequential(nn.Linear(4, 6), model[1], nn.Linear(6, 4)), "memory"),
    ],
)
def test_a_network_that_already_knows_something_is_refused(
    reuse: Callable[[nn.Module], nn.Module], what: str
) -> None:
    torch.manual_seed(0)
    original = trained(network(), BATCHES, 1)
    with pytest.raises(ValueError, match=what):
        Retraining(lambda: reuse(original), trained).without(BATCHES, [1], original)


def test_a_network_whose_normalisation_has_counted_batches_is_refused() -> None:
    torch.manual_seed(0)
    other = trained(network(), BATCHES, 1)
    with pytest.raises(ValueError, match=r"1\.num_batches_tracked.*4 batches"):
        require_fresh(other, network())


def test_a_fresh_network_passes_though_its_biases_and_scales_are_constant() -> None:
    torch.manual_seed(0)
    original, fresh = network(), network()
    with torch.no_grad():
        for model in (original, fresh):
            model[0].bias.zero_()  # type: ignore[union-attr]
    require_fresh(fresh, original)


def test_a_factory_that_gives_no_module_is_refused() -> None:
    with pytest.raises(TypeError, match=r"factory\(\) gave a str"):
        Retraining(lambda: "net", trained).without(BATCHES, [1], network())  # type: ignore[arg-type, return-value]


def test_what_was_not_forgotten_needs_no_step() -> None:
    torch.manual_seed(0)
    model = trained(network(), BATCHES)
    assert Relearning().steps(model, BATCHES, BATCHES[:1]) == 0


def test_relearning_leaves_the_model_as_it_was_and_counts_its_steps() -> None:
    torch.manual_seed(0)
    model = trained(network(), Without(BATCHES, [1])).requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    gone = [(torch.eye(4)[[1, 1]], torch.tensor([1, 1]))]
    slow, fast = (
        Relearning(learning_rate=rate).steps(model, BATCHES, gone) for rate in (1e-3, 3e-2)
    )
    assert slow is not None
    assert fast is not None
    assert 0 < fast < slow
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_relearning_gives_up_at_its_limit() -> None:
    torch.manual_seed(0)
    model = trained(network(), Without(BATCHES, [1]))
    gone = [(torch.eye(4)[[1]], torch.tensor([1]))]
    assert Relearning(learning_rate=1e-9, limit=7).steps(model, BATCHES, gone) is None


@pytest.mark.parametrize(
    "options", [{"learning_rate": 0.0}, {"learning_rate": -1.0}, {"limit": -1}]
)
def test_relearning_that_could_not_learn_is_refused(options: Any) -> None:
    with pytest.raises(ValueError, match=r"must be above 0, limit=.* 0 or more"):
        Relearning(**options)


def test_relearning_without_batches_is_refused() -> None:
    with pytest.raises(ValueError, match="no training batches"):
        Relearning(threshold=2.0).steps(network(), [], BATCHES[:1])
