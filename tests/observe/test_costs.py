"""Costs between layers against products counted by hand."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import torchkoopman as tk
from torchkoopman.observe.costs import Cost, CostMeter, NetworkCosts, cost_of, numbers, short


def measured(model: nn.Module, layers: Any, *inputs: Tensor) -> NetworkCosts:
    with torch.no_grad(), CostMeter(model) as meter, tk.attach(model, layers).stream_to(meter):
        model(*inputs)
    assert meter.costs is not None
    return meter.costs


def perceptron() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 2))


@pytest.mark.parametrize("batch", [1, 4])
def test_costs_of_a_perceptron_are_its_matrix_products_per_sample(batch: int) -> None:
    costs = measured(perceptron(), ["0", "2", "4"], torch.zeros(batch, 3))
    assert costs.between("0", "2") == Cost(2 * 5 * 7, 5 * 7 + 7)
    assert costs.between("2", "4") == Cost(2 * 7 * 2, 7 * 2 + 2)
    assert costs.between("0", "4") == Cost(2 * (5 * 7 + 7 * 2), 5 * 7 + 7 + 7 * 2 + 2)
    assert costs.network == Cost(2 * (3 * 5 + 5 * 7 + 7 * 2), 20 + 42 + 16)
    assert costs.states == {"0": (batch, 1, 5), "2": (batch, 1, 7), "4": (batch, 1, 2)}


class Table(nn.Module):
    """A module that is called with a view of a parameter, as relative positions of DeBERTa are."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.ones(2, 3))
        self.blocks = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
        self.projection = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.blocks(x) + self.projection(self.table[:1])
        return out


def test_a_module_that_is_given_a_view_of_a_parameter_is_counted() -> None:
    costs = measured(Table(), ["blocks.0", "blocks.1"], torch.zeros(2, 3))
    assert costs.between("blocks.0", "blocks.1").operations == 2 * 3 * 3
    assert costs.network.operations == 2 * 2 * 3 * 3 + 2 * 3 * 3 / 2


class Convolutions(nn.Module):
    """A stem, two blocks with one convolution in common, and a head that takes it once more."""

    def __init__(self, tail: bool) -> None:
        super().__init__()
        self.shared = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.stem = nn.Conv2d(2, 4, 1)
        self.first = nn.Sequential(self.shared, nn.BatchNorm2d(4))
        self.second = nn.Sequential(nn.Conv2d(4, 4, 1), self.shared)
        self.tail = tail

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(self.first(self.stem(x)))
        return self.shared(x) if self.tail else x


SHARED, NORM, SINGLE = 4 * 4 * 9, 4 * 4 + 1, 4 * 4 + 4
"""Numbers held by the shared convolution, the normalisation with its count, the 1×1 convolution."""


def test_a_convolution_used_twice_in_the_span_is_counted_twice_and_saved_once() -> None:
    costs = measured(
        Convolutions(False).eval(), ["stem", "first", "second"], torch.zeros(3, 2, 5, 6)
    )
    twice = 2 * 30 * (4 * 4 * 9) * 2 + 2 * 30 * 4 * 4
    assert costs.between("stem", "second") == Cost(twice, SHARED + NORM + SINGLE)
    assert costs.network == Cost(twice + 2 * 30 * 2 * 4, SHARED + NORM + SINGLE + 12)


def test_a_module_shared_with_the_outside_is_not_saved_but_its_operations_are() -> None:
    costs = measured(
        Convolutions(True).eval(), ["stem", "first", "second"], torch.zeros(3, 2, 5, 6)
    )
    once = 2 * 30 * 4 * 4 * 9
    assert costs.between("stem", "first") == Cost(once, NORM)
    assert costs.between("first", "second") == Cost(once + 2 * 30 * 4 * 4, SINGLE)
    assert costs.between("stem", "second").parameters == NORM + SINGLE


def test_a_weight_tied_to_a_module_outside_is_not_saved() -> None:
    model = nn.Sequential(nn.Linear(5, 5), nn.Linear(5, 5), nn.Linear(5, 5))
    model[2].weight = model[0].weight
    assert measured(model, "*", torch.zeros(2, 5)).between("0", "2") == Cost(100, 30 + 5)


class Repeated(nn.Module):
    """One layer applied three times."""

    def __init__(self) -> None:
        super().__init__()
        self.step = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.step(self.step(self.step(x)))
        return out


def test_calls_of_one_layer_are_layers_whose_operations_add_up() -> None:
    costs = measured(Repeated(), "step", torch.zeros(2, 4))
    assert list(costs.outputs) == ["step#0", "step#1", "step#2"]
    assert costs.between("step#0", "step#1") == Cost(32, 0)
    assert costs.between("step#0", "step#2") == Cost(64, 0)
    assert costs.network == Cost(96, 20)


class Holding(nn.Module):
    """Holds a weight of its own beside its layers, and a list of scales for each of them."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Parameter(torch.eye(3))
        self.layers = nn.ModuleList(nn.Linear(3, 3) for _ in range(2))
        self.scales = nn.ParameterList(torch.ones(3) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        for layer, scale in zip(self.layers, self.scales, strict=True):
            x = layer(x) * scale @ self.mix
        return x


def test_what_a_module_around_an_end_holds_itself_counts_as_used_outside() -> None:
    costs = measured(Holding(), "layers.*", torch.zeros(2, 3))
    assert costs.between("layers.0", "layers.1") == Cost(2 * 9 + 2 * 9, 12)


def test_what_a_module_within_the_span_holds_is_saved_also_from_lists_that_never_run() -> None:
    model = nn.Sequential(nn.Linear(3, 3), Holding(), nn.Linear(3, 3))
    assert measured(model, "*", torch.zeros(2, 3)).between("0", "1") == Cost(4 * 18, 9 + 24 + 6)


def test_a_model_that_is_a_layer_itself_ends_with_its_own_output() -> None:
    costs = measured(perceptron(), ["0", ""], torch.zeros(2, 3))
    assert costs.between("0", "").operations == 2 * (5 * 7 + 7 * 2)


def attention_operations(tokens: int, width: int) -> int:
    """Four projections, scores and their weighted sum; no matter how many heads."""
    return 2 * 4 * tokens * width**2 + 2 * 2 * tokens**2 * width


class Attention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.inputs, self.outputs = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        heads = self.inputs(x).unflatten(-1, (3, 2, -1)).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(*heads)
        return self.outputs(mixed.transpose(1, 2).flatten(-2))


def test_attention_counts_its_scores_and_its_weighted_sum() -> None:
    model = nn.Sequential(nn.Linear(8, 8), Attention(8))
    costs = measured(model, "*", torch.zeros(2, 6, 8))
    assert costs.between("0", "1") == Cost(attention_operations(6, 8), 4 * 64 + 4 * 8)


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(8, 8)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(self.embed(x))
        return out


@pytest.mark.parametrize("training", [True, False])
def test_a_fused_transformer_layer_counts_like_the_one_that_is_not(training: bool) -> None:
    model = Encoder().train(training)
    costs = measured(model, ["embed", "layer"], torch.zeros(2, 6, 8))
    feedforward = 2 * 6 * 2 * 8 * 16
    held = 4 * 64 + 4 * 8 + 2 * 8 * 16 + 24 + 4 * 8
    assert costs.between("embed", "layer") == Cost(attention_operations(6, 8) + feedforward, held)
    assert torch.backends.mha.get_fastpath_enabled()


def hooks(model: nn.Module) -> int:
    kinds = ("_forward_hooks", "_forward_pre_hooks")
    return sum(len(getattr(module, kind)) for module in model.modules() for kind in kinds)


class Failing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise OSError("the disk is gone")


def test_the_model_and_torch_are_as_they_were_also_after_an_exception() -> None:
    model = nn.Sequential(nn.Linear(3, 3), Failing())
    meter = CostMeter(model)
    with pytest.raises(OSError, match="the disk is gone"), meter:
        model(torch.zeros(2, 3))
    assert hooks(model) == 0
    assert torch.backends.mha.get_fastpath_enabled()


def test_only_the_first_forward_pass_counts() -> None:
    model = perceptron()
    with torch.no_grad(), CostMeter(model) as meter, tk.attach(model, ["0", "2"]).stream_to(meter):
        model(torch.zeros(4, 3))
        first = meter.costs
        model(torch.zeros(9, 3))
    assert meter.costs is first


def test_a_pass_that_a_part_of_the_model_ran_counts_that_part() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4)))
    with torch.no_grad(), CostMeter(model) as meter, tk.attach(model, ["1.0", "1.1"]) as probe:
        probe.stream_to(meter)
        model[1](torch.zeros(2, 3))
    assert meter.costs is not None
    assert meter.costs.between("1.0", "1.1") == Cost(32, 20)
    assert meter.costs.network.operations == 2 * (12 + 16)


def test_without_a_forward_pass_there_are_no_costs() -> None:
    with CostMeter(perceptron()) as meter:
        pass
    assert meter.costs is None


def test_the_cost_of_a_module_is_that_of_its_matrix_products_also_without_values() -> None:
    module = nn.Linear(4, 6, device="meta")
    state = torch.empty(5, 3, 4, device="meta")
    assert cost_of(module, state) == Cost(3 * 2 * 4 * 6, 30)


def test_numbers_are_parameters_and_buffers_each_once() -> None:
    norm = nn.BatchNorm1d(3)
    assert numbers(nn.Sequential(norm, norm)) == 4 * 3 + 1


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0"), (12, "12"), (34_500, "34.5k"), (1.2e6, "1.2M"), (3.4e12, "3.4T")]
)
def test_numbers_are_read_in_thousands(number: float, text: str) -> None:
    assert short(number) == text
