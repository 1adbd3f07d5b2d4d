"""Swaps: the edited model against the original, bit by bit, wired by chance and by hand."""

import copy
import io
import pickle
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, fx, nn

from torchkoopman.graphs.cut import find_cut
from torchkoopman.surgery.swap import SwapRecord, swap, swap_history
from torchkoopman.undo import undo

if TYPE_CHECKING:
    from torchkoopman.observe.trajectory import InputSpec


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.fc = nn.BatchNorm1d(4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.tanh(self.fc(self.norm(x)))


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block() for _ in range(6))
        self.head = nn.Linear(4, 2)
        self.note = "an attribute of the class"

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return self.head(x)

    def describe(self) -> str:
        return self.note


class Linear(nn.Module):
    """A surrogate: one linear map for the layers ``blocks.0`` … ``blocks.4``."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = tuple(f"blocks.{depth}" for depth in range(5))
        self.inputs: tuple[InputSpec, ...] = (((3, 4), "float32"),)
        self.fc = nn.Linear(4, 4)

    def replacement(self, start: str | None = None, end: str | None = None) -> nn.Module:
        return self.fc

    def card(self) -> dict[str, Any]:
        return {"kind": "linear", "sizes": (4, 4)}

    def config(self) -> dict[str, Any]:
        return {"sizes": (4, 4)}


class Lookup(nn.Module):
    """What the layer ``end`` returned for each output of ``start`` that was seen."""

    def __init__(self, *pairs: tuple[Tensor, Tensor]) -> None:
        super().__init__()
        self.pairs = pairs

    def forward(self, output: Tensor) -> Tensor:
        return next(end for start, end in self.pairs if torch.equal(start, output)).clone()


def rows(seed: int = 0, batch: int = 3) -> Tensor:
    return torch.randn(batch, 4, generator=torch.Generator().manual_seed(seed))


def test_the_module_stands_between_the_two_outputs() -> None:
    model, middle = Residual().eval(), nn.Linear(4, 4)
    edited = swap(model, middle, "blocks.0", "blocks.4", example_inputs=rows())
    by_hand = model.head(model.blocks[5](middle(model.blocks[0](rows()))))
    assert torch.equal(edited(rows()), by_hand)


def test_the_removed_layers_are_gone_and_the_others_keep_their_names() -> None:
    model = Residual()
    edited = swap(model, Linear())
    kept = {key for key in model.state_dict() if key.split(".")[1] in {"0", "5", "weight", "bias"}}
    new = {"koopman_blocks_0_to_blocks_4.weight", "koopman_blocks_0_to_blocks_4.bias"}
    assert set(edited.state_dict()) == kept | new


def test_the_given_model_and_surrogate_are_untouched_and_share_nothing() -> None:
    model, surrogate = Residual(), Linear()
    before, fitted = copy.deepcopy(model.state_dict()), surrogate.fc.weight.clone()
    edited = swap(model, surrogate, example_inputs=(rows(),))
    with torch.no_grad():
        for parameter in edited.parameters():
            parameter.zero_()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert torch.equal(surrogate.fc.weight, fitted)
    assert not any(module._forward_hooks for module in model.modules())


def test_the_record_says_what_was_swapped() -> None:
    model = Residual()
    (record,) = swap_history(swap(model, Linear()))
    block = sum(tensor.numel() for tensor in model.blocks[0].state_dict().values())
    assert (record.start, record.end) == ("blocks.0", "blocks.4")
    assert (record.module, record.how) == ("koopman_blocks_0_to_blocks_4", "fx")
    assert (record.card, record.surrogate) == ({"kind": "linear", "sizes": [4, 4]}, "Linear")
    assert record.inputs == (((3, 4), "float32"),)
    assert (record.removed, record.added) == (4 * block, 20)
    assert swap_history(model) == ()


def test_a_plain_module_has_a_record_without_a_card() -> None:
    (record,) = swap_history(swap(Residual(), nn.Identity(), "blocks.0", "blocks.1"))
    assert (record.surrogate, record.card, record.config) == ("Identity", None, None)


@pytest.mark.parametrize("training", [True, False])
def test_the_training_mode_of_every_module_is_kept(training: bool) -> None:
    model = Residual().train(training)
    model.blocks[5].norm.eval()
    edited = swap(model, Linear(), "blocks.1", "blocks.3")
    modes = {name: module.training for name, module in edited.named_modules()}
    assert not modes.pop("blocks.5.norm")
    assert set(modes.values()) == {training}


def test_several_spans_are_swapped_one_after_the_other() -> None:
    model = Residual().eval()
    one, two = nn.Linear(4, 4), nn.Linear(4, 4)
    edited = swap(swap(model, one, "blocks.0", "blocks.1"), two, "blocks.3", "blocks.5")
    b = model.blocks
    assert torch.equal(edited(rows()), model.head(two(b[3](b[2](one(b[0](rows())))))))
    assert [record.start for record in swap_history(edited)] == ["blocks.0", "blocks.3"]
    assert [record.start for record in swap_history(undo(edited))] == ["blocks.0"]
    assert torch.equal(undo(undo(edited))(rows()), model(rows()))


def test_a_swapped_module_can_itself_be_an_end_of_the_next_span() -> None:
    model = swap(Residual().eval(), nn.Linear(4, 4), "blocks.0", "blocks.2")
    edited = swap(model, nn.Identity(), "blocks.0", "koopman_blocks_0_to_blocks_2")
    assert "koopman_blocks_0_to_blocks_2.weight" not in edited.state_dict()


def test_names_of_new_modules_do_not_collide() -> None:
    model = nn.Sequential(*(nn.Linear(4, 4) for _ in range(2)))
    model.koopman_0_to_1 = nn.Identity()
    assert swap_history(swap(model, nn.Identity(), "0", "1"))[0].module == "koopman_0_to_1_2"


def test_swapping_back_is_identity() -> None:
    model = Residual().eval()
    restored = undo(swap(model, Linear()))
    assert type(restored) is Residual
    assert restored.describe() == "an attribute of the class"
    assert torch.equal(restored(rows()), model(rows()))
    assert not {id(p) for p in restored.parameters()} & {id(p) for p in model.parameters()}


def test_swapping_back_keeps_what_the_other_layers_learnt() -> None:
    model = Residual()
    edited = swap(model, Linear())
    edited(rows()).sum().backward()
    with torch.no_grad():
        for parameter in edited.parameters():
            parameter -= 0.1 * parameter.grad
    restored = undo(edited.eval())
    assert torch.equal(restored.head.weight, edited.head.weight)
    assert torch.equal(restored.blocks[2].fc.weight, model.blocks[2].fc.weight)
    assert not torch.equal(restored.head.weight, model.head.weight)
    assert not any(module.training for module in restored.modules())


def test_swapping_back_follows_the_precision() -> None:
    restored = undo(swap(Residual(), Linear()).double())
    assert {p.dtype for p in restored.parameters()} == {torch.float64}


def test_swapping_back_keeps_mixed_precisions() -> None:
    model = Residual()
    model.head.double()
    restored = undo(swap(model, Linear()))
    assert [p.dtype for p in restored.parameters()] == [p.dtype for p in model.parameters()]


def test_a_copy_can_be_swapped_back() -> None:
    edited = copy.deepcopy(swap(Residual().eval(), Linear()))
    assert swap_history(edited)[0].surrogate == "Linear"
    assert type(undo(edited)) is Residual


@pytest.mark.parametrize("times", [1, 2])
def test_a_pickle_keeps_model_and_records_but_not_the_original(times: int) -> None:
    edited = swap(Residual().eval(), Linear())
    restored: Any = edited
    for _ in range(times):
        restored = pickle.loads(pickle.dumps(restored))
    assert torch.equal(restored(rows()), edited(rows()))
    assert swap_history(restored) == swap_history(edited)
    assert type(restored).__name__ == "Residual"
    assert not any(module.training for module in restored.modules())
    with pytest.raises(RuntimeError, match="read from a file"):
        undo(restored)


def test_torch_save_and_load_keep_the_model() -> None:
    edited, file = swap(Residual().eval(), Linear()), io.BytesIO()
    torch.save(edited, file)
    file.seek(0)
    restored = torch.load(file, weights_only=False)
    assert torch.equal(restored(rows()), edited(rows()))
    assert (
        swap_history(swap(restored, nn.Identity(), "blocks.0", "blocks.5"))[0]
        == swap_history(edited)[0]
    )


class Writes(nn.Module):
    """Writes and augmented assignments in an opened module, outside the span."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Linear(4, 4) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        h = self.b(self.a(x))
        view = h.view(-1)
        h += 1
        h[:, 0] = 2
        return self.c(h) + view.view(-1, 4)


@torch.no_grad()
def test_writes_outside_the_span_survive_the_graph_and_the_pickle() -> None:
    model = Writes()
    seen = [model.a(rows()), model.b(model.a(rows()))]
    edited = swap(model, Lookup((seen[0], seen[1])), "a", "b", example_inputs=rows())
    assert torch.equal(edited(rows()), model(rows()))
    assert torch.equal(pickle.loads(pickle.dumps(edited))(rows()), model(rows()))


class Repeated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(4):
            x = torch.tanh(self.fc(x))
        return x


def test_a_span_between_two_calls_of_one_module_keeps_its_other_calls() -> None:
    model, middle = Repeated(), nn.Linear(4, 4)
    edited = swap(model, middle, "fc#0", "fc#2", example_inputs=rows())
    by_hand = torch.tanh(model.fc(torch.tanh(middle(model.fc(rows())))))
    assert torch.equal(edited(rows()), by_hand)
    assert swap_history(edited)[0].module == "koopman_fc_0_to_fc_2"


class Outputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Linear(4, 4) for _ in range(3))

    def forward(self, x: Tensor, y: Tensor) -> dict[str, Any]:
        h = self.a(x)
        z = self.b(torch.relu(h).view(h.size(0), -1))
        return {"first": h, "last": (self.c(z), z * y)}


@torch.no_grad()
def test_several_inputs_and_outputs_keep_their_structure() -> None:
    model, y = Outputs(), rows(1)
    start = model.a(rows())
    lookup = Lookup((start, model.b(torch.relu(start))))
    edited = swap(model, lookup, "a", "b", example_inputs=(rows(), y))
    found, expected = edited(rows(), y), model(rows(), y)
    assert torch.equal(found["first"], expected["first"])
    assert all(map(torch.equal, found["last"], expected["last"]))


class Remembering(nn.Module):
    """A crossing that no graph shows: one layer leaves a value for another."""

    def __init__(self) -> None:
        super().__init__()
        self.value: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        before, self.value = self.value, x.detach()
        return x if before is None else x + before


def test_the_replay_finds_what_the_graph_does_not_show() -> None:
    shared = Remembering()
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), shared, nn.Tanh(), shared)
    find_cut(model, "0", "3")
    with pytest.raises(RuntimeError, match="something crosses that was not seen"):
        swap(model, nn.Identity(), "0", "3", "fx", example_inputs=rows())


class Optional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        h = self.b(self.a(x))
        return h if scale is None else h * scale


def test_an_optional_argument_counts_as_given_and_the_replay_says_so() -> None:
    model, scale = Optional(), torch.tensor(2.0)
    edited = swap(model, nn.Identity(), "a", "b", example_inputs=(rows(), scale))
    assert torch.equal(edited(rows(), scale), model.a(rows()) * 2)
    with pytest.raises(RuntimeError, match="takes every argument as given"):
        swap(model, nn.Identity(), "a", "b", "fx", example_inputs=rows())


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.rnn = nn.Linear(4, 4), nn.GRU(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.rnn(self.a(x))[0]


class Pair(Linear):
    def __init__(self) -> None:
        super().__init__()
        self.layers = ("a", "rnn")


@pytest.mark.parametrize("how", ["fx", "export", "eager"])
def test_the_module_stands_for_the_state_in_a_layers_tuple(how: str) -> None:
    model, surrogate = Recurrent(), Pair()
    edited = swap(model, surrogate, how=how, example_inputs=rows())
    assert torch.allclose(edited(rows(1)), surrogate.fc(model.a(rows(1))), atol=1e-6)
    assert torch.equal(undo(edited)(rows(1)), model(rows(1)))


def test_random_numbers_outside_are_not_drawn() -> None:
    model, surrogate, state = Residual(), Linear(), torch.get_rng_state()
    swap(model, surrogate, example_inputs=rows())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"how": "onnx"}, ValueError, "how='onnx'; there are 'auto', fx, export, eager"),
        ({"start": "head"}, ValueError, "not fitted on layer 'head'; its layers are 'blocks.0'"),
        ({"surrogate": nn.Identity()}, ValueError, "between which layers it stands"),
        ({"surrogate": "blocks"}, TypeError, "it got a str"),
        ({"model": torch.relu}, TypeError, "edits an nn.Module"),
        ({"start": "blocks.4", "end": "blocks.1"}, ValueError, "names swapped"),
        ({"start": "blocks.4"}, ValueError, "two different layers"),
    ],
)
def test_mistakes_are_explained(given: dict[str, Any], error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        swap(**{"model": Residual(), "surrogate": Linear(), **given})


def test_a_model_without_swaps_cannot_be_swapped_back() -> None:
    for wrong in (3, None, torch.zeros(2)):
        with pytest.raises(TypeError, match=rf"a {type(wrong).__name__} is no model"):
            undo(wrong)  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="nothing was swapped in this Residual"):
        undo(Residual())


def test_records_print_as_one_line() -> None:
    (record,) = swap_history(swap(Residual(), Linear()))
    assert isinstance(record, SwapRecord)
    assert "Linear from 'blocks.0' to 'blocks.4'" in str(record)


def test_the_edited_model_is_an_ordinary_graph_module() -> None:
    edited = swap(Residual().eval(), Linear())
    assert isinstance(edited, fx.GraphModule)
    edited.graph.lint()
    again = fx.GraphModule(edited, fx.Tracer().trace(edited))
    assert torch.equal(again(rows()), edited(rows()))


def test_a_forward_that_keeps_values_keeps_no_proxies_of_the_trace() -> None:
    model = nn.Sequential(nn.Linear(4, 4), Remembering(), nn.Linear(4, 4))
    edited = swap(model, nn.Identity(), "1", "2", "fx", rows())
    assert model[1].value is None
    assert edited.get_submodule("1").value is None


def test_the_record_says_where_nothing_is_saved() -> None:
    model = Residual().eval()
    small, large = nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 90), nn.Linear(90, 4))
    for module, smaller in ((small, True), (large, False)):
        edited = swap(model, module, "blocks.0", "blocks.4")
        (record,) = swap_history(edited)
        assert record.smaller == smaller == (record.added < record.removed)
        assert ("no smaller" in str(record)) != smaller


def test_a_swap_without_memory_for_its_proof_is_no_unproven_swap(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its own inputs prove a swap; that they found no memory says nothing of the model."""
    model = Residual().eval()

    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("no memory is left")

    with monkeypatch.context() as patch:
        patch.setattr("torchkoopman.surgery.swap.gather", full)
        with pytest.raises(torch.OutOfMemoryError):
            swap(model, Linear())
    assert isinstance(swap(model, Linear()), nn.Module)
