"""Which layers ``tk.inspect`` takes, by what one forward pass shows of them."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import torchkoopman as tk
from tests.systems import normal
from torchkoopman.results import Inspection


def inspect(model: nn.Module, batches: list[Any], layers: Any = None, **options: Any) -> Inspection:
    return tk.inspect(model, batches, layers, progress=False, **{"points": 20, **options})


class Residual(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, stride, 1)
        self.norm = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        same = inputs == outputs and stride == 1
        self.down = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.relu(self.norm(self.conv(x)) + self.down(x))
        return out


class ResNet(nn.Module):
    """Stages in Sequentials, two blocks, three and one."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, 1, 1)
        self.layer1 = nn.Sequential(Residual(4, 4), Residual(4, 4))
        self.layer2 = nn.Sequential(Residual(4, 6, 2), Residual(6, 6), Residual(6, 6))
        self.layer3 = nn.Sequential(Residual(6, 8, 2))
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer3(self.layer2(self.layer1(self.stem(x))))
        out: Tensor = self.head(x.mean((2, 3)))
        return out


IMAGES = [normal(8, 3, 8, 8, seed=k) for k in range(4)]


def test_stages_of_a_resnet_give_way_to_the_longest_stage_of_one_resolution() -> None:
    found = inspect(ResNet(), IMAGES, rows=None)
    assert found.layers == ("layer2.0", "layer2.1", "layer2.2")
    assert "'layer1.0' … 'layer1.1' (2 × Residual)" in found.found
    assert found.rows == 4 * 8 * 16


def test_the_state_before_the_first_block_is_taken_where_a_module_gives_it() -> None:
    found = inspect(ResNet(), IMAGES, ["stem", "layer1.0", "layer1.1"])
    model = ResNet()
    model.layer2, model.layer3 = nn.Sequential(), nn.Sequential()  # type: ignore[assignment]
    model.head = nn.Linear(4, 2)
    assert inspect(model, IMAGES).layers == found.layers == ("stem", "layer1.0", "layer1.1")


def test_blocks_of_another_resolution_are_left_out_by_name() -> None:
    blocks = nn.Sequential(*(Residual(3, 3) for _ in range(3)), Residual(3, 3, 2))
    found = inspect(blocks, IMAGES)
    assert found.layers == ("0", "1", "2")
    assert [(each.what, "other points" in each.why) for each in found.skipped] == [
        ("layer '3'", True)
    ]
    asked = inspect(blocks, IMAGES, "*")
    assert (asked.layers, asked.skipped) == (found.layers, found.skipped)


class Parallel(nn.Module):
    """Heads side by side are longer than the blocks that follow one another."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = nn.ModuleList(nn.Linear(4, 4) for _ in range(5))
        self.blocks = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))
        self.idle = nn.ModuleList(nn.Linear(4, 4) for _ in range(7))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.stack([head(x) for head in self.heads]).sum(0)
        for block in self.blocks:
            x = block(x)
        return x


def test_what_runs_side_by_side_or_never_is_no_chain_of_blocks() -> None:
    found = inspect(Parallel(), [normal(40, 4, seed=k) for k in range(2)])
    assert found.layers == ("blocks.0", "blocks.1", "blocks.2")


class Apart(nn.Module):
    """Functions between the layers, which no module is."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = (nn.Linear(4, 4) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.third(self.second(self.first(x).tanh()).tanh())
        return out


def test_what_runs_between_blocks_is_said_and_two_of_them_are_no_run() -> None:
    model, batches = Apart(), [normal(40, 4, seed=k) for k in range(2)]
    found = inspect(model, batches)
    assert found.layers == ("first", "second", "third")
    assert "part of the step" in found.found
    model.third = nn.Identity()  # type: ignore[assignment]
    with pytest.raises(ValueError, match="does not take what the first gave"):
        inspect(model, batches)
    assert inspect(model, batches, ["first", "second"]).layers == ("first", "second")


class Branches(nn.Module):
    """Residual blocks whose sum is outside of them, and a shorter chain inside of each."""

    def __init__(self) -> None:
        super().__init__()
        inner = [[m for _ in range(2) for m in (nn.Linear(4, 4), nn.Tanh())] for _ in range(4)]
        self.blocks = nn.ModuleList(nn.ModuleDict({"mlp": nn.Sequential(*each)}) for each in inner)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = x + block["mlp"](x)  # type: ignore[index]
        return x


class Wrapped(Branches):
    """The same with blocks that are called."""

    class Block(nn.Module):
        def __init__(self, mlp: nn.Module) -> None:
            super().__init__()
            self.mlp = mlp

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.mlp(x)
            return out

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(self.Block(each["mlp"]) for each in self.blocks)  # type: ignore[index]

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = x + block(x)
        return x


def test_blocks_with_a_sum_outside_hide_the_shorter_chains_inside() -> None:
    batches = [normal(40, 4, seed=k) for k in range(2)]
    found = inspect(Wrapped(), batches)
    assert found.layers == ("blocks.0", "blocks.1", "blocks.2", "blocks.3")
    assert "part of the step" in found.found
    inner = inspect(Branches(), batches)  # its blocks are containers, which give nothing
    assert inner.layers == ("blocks.0.mlp.1", "blocks.0.mlp.3")


def test_a_module_that_is_called_again_and_again_is_a_chain_of_its_calls() -> None:
    layer = nn.Linear(4, 4)
    model = nn.Sequential(nn.Linear(4, 4), layer, layer, layer)
    found = inspect(model, [normal(40, 4, seed=k) for k in range(2)])
    assert found.layers == ("0", "1#0", "1#1", "1#2")
    assert "one module called again and again" in found.found
    # An activation that many layers use takes what these gave, and not what it gave before.
    relu = nn.ReLU()
    with pytest.raises(ValueError, match="no blocks that repeat"):
        inspect(nn.Sequential(nn.Linear(4, 4), relu, nn.LayerNorm(4), relu), [normal(40, 4)])


def test_channels_that_may_be_taken_for_positions_are_said() -> None:
    model = nn.Sequential(*(nn.Conv1d(5, 5, 3, padding=1) for _ in range(3)))
    batches = [normal(20, 5, 9, seed=k) for k in range(4)]
    assert any("a Conv1d" in note for note in inspect(model, batches).notes)
    told = inspect(model, batches, layout="b c t -> b t c")
    assert not any("a Conv1d" in note for note in told.notes)
    assert told.blocks[0].r2 != inspect(model, batches).blocks[0].r2


def test_a_model_without_repeated_blocks_is_refused_with_its_modules() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
    with pytest.raises(ValueError, match="no blocks that repeat") as refusal:
        inspect(model, [normal(40, 4)])
    for part in ("'0' (Linear, 40 parameters)", "'1' (Tanh, 0 parameters)", "layers="):
        assert part in str(refusal.value)


def test_blocks_that_cannot_be_read_do_not_give_way_to_their_parts() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 8)
    model = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
    batches = [normal(6, 5, 8, seed=k) for k in range(6)]
    with pytest.raises(ValueError, match="batch_first=False"):
        inspect(model, batches)
    found = inspect(model, batches, layout="t b d -> b t d")
    assert found.layers == ("layers.0", "layers.1", "layers.2")


def test_layers_asked_for_are_taken_call_by_call() -> None:
    layer = nn.Linear(4, 4)
    model = nn.Sequential(layer, nn.Tanh(), layer, nn.Tanh(), layer)
    batches = [normal(40, 4, seed=k) for k in range(2)]
    assert inspect(model, batches, "0").layers == ("0#0", "0#1", "0#2")
    assert inspect(model, batches, ["0#0", "0#2"]).layers == ("0#0", "0#2")


def test_layers_of_which_no_two_go_together_are_refused() -> None:
    with pytest.raises(ValueError, match="no two give states of the same points"):
        inspect(ResNet(), IMAGES, ["layer1.1", "layer2.1"])
    with pytest.raises(ValueError, match="no module matching"):
        inspect(ResNet(), IMAGES, "nothing")


def test_many_wide_layers_are_thinned_evenly_and_two_too_wide_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = nn.Sequential(*(nn.Linear(6, 6) for _ in range(9)))
    batches = [normal(40, 6, seed=k) for k in range(4)]
    whole = inspect(model, batches)
    assert len(whole.layers) == 9
    monkeypatch.setattr("torchkoopman.inspecting.inspect._MAX_BYTES", 20_000)
    found = inspect(model, batches)
    assert found.layers == ("0", "2", "4", "6", "8")
    assert "too much memory" in found.skipped[0].why
    assert found.skipped[0].what == "layers 1, 3, 5, 7"
    monkeypatch.setattr("torchkoopman.inspecting.inspect._MAX_BYTES", 100)
    with pytest.raises(ValueError, match="whose moments take"):
        inspect(model, batches)
