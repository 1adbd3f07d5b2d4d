"""Exported graphs: models that torch.fx cannot trace, cut in torch.export's program of them."""

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn

import torchkoopman as tk
from torchkoopman.graphs.region import DirtyCut
from torchkoopman.surgery.swap import swap, swap_history
from torchkoopman.undo import undo


def tokens(seed: int = 0, samples: int = 3, length: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(1, 11, (samples, length), generator=generator)


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.fc, self.drop = nn.LayerNorm(4), nn.Linear(4, 4), nn.Dropout(0.5)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        mean = (x * mask[..., None]).sum(1, keepdim=True) / mask.sum(1)[:, None, None]
        return x + self.drop(torch.relu_(self.fc(self.norm(x)) + mean)), mean


class Encoder(nn.Module):
    """Branches on a size, which torch.fx cannot follow and torch.export can."""

    def __init__(self, depth: int = 5) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 4)
        self.layers = nn.ModuleList(Layer() for _ in range(depth))
        self.head = nn.Linear(4, 2)

    def forward(self, ids: Tensor, attention_mask: Tensor | None = None) -> dict[str, Tensor]:
        x = self.embed(ids)
        if x.shape[1] > 100:
            x = x[:, :100]
        mask = torch.ones_like(ids) if attention_mask is None else attention_mask
        for layer in self.layers:
            x, _ = layer(x, mask)
        return {"logits": self.head(x), "last": x}


class MaskFromIds(Encoder):
    """Padding is told by the tokens themselves."""

    def forward(self, ids: Tensor, attention_mask: Tensor | None = None) -> dict[str, Tensor]:
        return super().forward(ids, (ids != 0).long())


def by_hand(model: Encoder, middle: nn.Module, start: int, end: int, ids: Tensor) -> Tensor:
    x, mask = model.embed(ids), torch.ones_like(ids)
    for index, layer in enumerate(model.layers):
        if not start < index < end:
            x = middle(x) if index == end else layer(x, mask)[0]
    out: Tensor = model.head(x)
    return out


@torch.no_grad()
def test_the_module_stands_between_the_two_layers_states() -> None:
    model, middle = Encoder().eval(), nn.Linear(4, 4)
    edited = swap(model, middle, "layers.0", "layers.3", example_inputs=tokens())
    record = swap_history(edited)[-1]
    assert record.how == "export"
    assert "cannot be traced by torch.fx" in record.why
    assert record.layers == ("layers.1", "layers.2", "layers.3")
    for ids in (tokens(1), tokens(2, samples=7, length=9), tokens(3, samples=2)):
        torch.testing.assert_close(edited(ids)["logits"], by_hand(model, middle, 0, 3, ids))


@torch.no_grad()
def test_hooks_that_change_what_a_layer_returns_are_part_of_the_program() -> None:
    model = Encoder().eval()
    model.layers[0].register_forward_hook(lambda module, args, out: (out[0] * 2, out[1]))
    edited = swap(model, nn.Identity(), "layers.0", "layers.4", "export", tokens())
    state = model.layers[0](model.embed(tokens(1)), torch.ones_like(tokens(1)))[0]
    torch.testing.assert_close(edited(tokens(1))["last"], state)


@torch.no_grad()
def test_the_span_is_gone_from_graph_and_state_dict_and_the_way_back_is_exact() -> None:
    model = Encoder().eval()
    before = copy.deepcopy(model.state_dict())
    edited = swap(model, nn.Linear(4, 4), "layers.0", "layers.3", "export", tokens())
    gone = {name for name in before if name.split(".")[1] in {"1", "2", "3"}}
    assert set(before) - set(edited.state_dict()) == gone
    assert swap_history(edited)[-1].removed == sum(before[name].numel() for name in gone)
    left = [
        node for node in edited.graph.nodes if "layers.1" in str(node.meta.get("nn_module_stack"))
    ]
    assert left == []
    assert torch.equal(undo(edited)(tokens(1))["last"], model(tokens(1))["last"])
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@torch.no_grad()
def test_several_spans_also_one_that_begins_where_another_ends() -> None:
    model, one, two = Encoder(7).eval(), nn.Linear(4, 4), nn.Linear(4, 4)
    first = swap(model, one, "layers.0", "layers.2", "export", tokens())
    both = swap(first, two, "layers.2", "layers.5", example_inputs=tokens())
    x = two(one(model.layers[0](model.embed(tokens(1)), torch.ones_like(tokens(1)))[0]))
    x, _ = model.layers[6](x, torch.ones_like(tokens(1)))
    torch.testing.assert_close(both(tokens(1))["last"], x)
    assert torch.equal(undo(both)(tokens(1))["last"], first(tokens(1))["last"])
    with pytest.raises(ValueError, match=r"no output of a layer 'layers.1'"):
        swap(both, one, "layers.1", "layers.6", example_inputs=tokens())


@torch.no_grad()
def test_masks_may_enter_and_the_record_says_that_the_module_does_not_see_them() -> None:
    given = {"ids": tokens(), "attention_mask": torch.ones_like(tokens())}
    edited = swap(Encoder().eval(), nn.Linear(4, 4), "layers.0", "layers.3", "export", given)
    assert "the module does not see attention_mask" in swap_history(edited)[-1].notes
    placeholders = [node for node in edited.graph.nodes if node.op == "placeholder"]
    assert len(placeholders) == 2
    with pytest.raises(DirtyCut, match="enters"):
        swap(
            Encoder().eval(),
            nn.Linear(4, 4),
            "layers.0",
            "layers.3",
            "export",
            given,
            side_inputs=["ids"],
        )


@torch.no_grad()
def test_what_a_refusal_names_can_be_allowed() -> None:
    model, middle = MaskFromIds().eval(), nn.Linear(4, 4)
    with pytest.raises(DirtyCut, match=r"allow it with side_inputs=\['to"):
        swap(model, middle, "layers.0", "layers.3", "export", tokens())
    try:
        swap(model, middle, "layers.0", "layers.3", "export", tokens())
    except DirtyCut as refusal:
        sides = [crossing.value for crossing in refusal.crossings]
    edited = swap(model, middle, "layers.0", "layers.3", "export", tokens(), side_inputs=sides)
    torch.testing.assert_close(edited(tokens(1))["logits"], by_hand(model, middle, 0, 3, tokens(1)))


def test_a_refusal_names_the_value_its_layer_and_the_nearest_clean_cut() -> None:
    with pytest.raises(DirtyCut) as refusal:
        swap(Encoder(), nn.Identity(), "layers.1.norm", "layers.3", "export", tokens())
    assert {crossing.layer for crossing in refusal.value.crossings} == {"layers.0"}
    assert "nearest clean cut has" in str(refusal.value)


@torch.no_grad()
def test_kept_escapes_are_computed_on() -> None:
    class Escaping(Encoder):
        def forward(self, ids: Tensor, attention_mask: Tensor | None = None) -> dict[str, Tensor]:
            x, mask, kept = self.embed(ids), torch.ones_like(ids), []
            if x.shape[1] > 100:
                x = x[:, :100]
            for layer in self.layers:
                x, mean = layer(x, mask)
                kept.append(mean)
            return {"logits": self.head(x), "last": kept[1]}

    model, middle = Escaping().eval(), nn.Linear(4, 4)
    with pytest.raises(DirtyCut, match="keep_escapes=True keeps the computation"):
        swap(model, middle, "layers.0", "layers.3", "export", tokens())
    edited = swap(model, middle, "layers.0", "layers.3", "export", tokens(), keep_escapes=True)
    torch.testing.assert_close(edited(tokens(1))["logits"], by_hand(model, middle, 0, 3, tokens(1)))
    assert torch.equal(edited(tokens(1))["last"], model(tokens(1))["last"])
    assert any("kept, since it escapes" in note for note in swap_history(edited)[-1].notes)
    assert not any(name.startswith("layers.3") for name in edited.state_dict())


@torch.no_grad()
def test_copies_compute_the_same_and_a_pickle_says_what_to_do() -> None:
    edited = swap(Encoder().eval(), nn.Linear(4, 4), "layers.0", "layers.3", "export", tokens())
    expected = edited(tokens(1))["logits"]
    assert torch.equal(copy.deepcopy(edited)(tokens(1))["logits"], expected)
    with pytest.raises(TypeError, match=r"save it with tk\.export"):
        pickle.dumps(edited)


@pytest.mark.filterwarnings("ignore:the probe has passed nothing on")
def test_probes_see_nothing_of_it_and_examples_are_left_alone() -> None:
    model, seen, given = Encoder().eval(), list[tk.Trajectory](), tokens()
    with tk.attach(model, ["layers.0", "layers.3"], output="0") as probe:
        probe.stream_to(seen.append)
        swap(model, nn.Linear(4, 4), "layers.0", "layers.3", "export", given)
    assert seen == []
    assert vars(given) == {}
    assert torch.equal(given, tokens())


def test_sizes_that_the_program_does_not_fit_are_refused_not_mistaken() -> None:
    class Fixed(Encoder):
        def forward(self, ids: Tensor, attention_mask: Tensor | None = None) -> dict[str, Tensor]:
            if ids.shape[1] == 5:  # the branch is part of the program
                return super().forward(ids, attention_mask)
            return {"logits": self.embed(ids), "last": self.embed(ids)}

    edited = swap(Fixed().eval(), nn.Linear(4, 4), "layers.0", "layers.3", "export", tokens())
    assert edited(tokens(1, samples=6))["logits"].shape == (6, 5, 2)
    with pytest.raises(AssertionError, match="Guard failed"):
        edited(tokens(1, length=6))


@pytest.mark.parametrize("given", [{"ids": "text"}, (3,)])
def test_a_model_that_fails_on_the_example_says_so(given: object) -> None:
    with pytest.raises(RuntimeError, match="Encoder fails on the example inputs"):
        swap(Encoder(), nn.Linear(4, 4), "layers.0", "layers.3", "export", given)


def test_examples_of_another_kind_are_refused() -> None:
    with pytest.raises(TypeError, match="example_inputs is a int; give the model's one tensor"):
        swap(Encoder(), nn.Linear(4, 4), "layers.0", "layers.3", "export", 3)


class Optional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Linear(4, 4) for _ in range(3))

    def forward(self, x: Tensor, kind: str = "one", mask: Tensor | None = None) -> Tensor:
        y: Tensor = self.c(self.b(self.a(x))) * (2 if kind == "two" else 1)
        return y if mask is None else y * mask


def test_a_program_takes_the_texts_and_missing_arguments_it_was_recorded_with() -> None:
    x, mask = torch.rand(2, 4), torch.ones(4)
    given = {"x": x, "kind": "one", "mask": None}
    edited = swap(Optional().eval(), nn.Identity(), "a", "b", "export", given)
    assert torch.equal(edited(mask=None, kind="one", x=x), edited(x, "one", None))
    with pytest.raises(RuntimeError, match=r"recorded with mask=None, .* got a Tensor"):
        edited(x=x, kind="one", mask=mask)
    with pytest.raises(RuntimeError, match=r"recorded with kind='one', .* got 'two'"):
        edited(x=x, kind="two", mask=None)
