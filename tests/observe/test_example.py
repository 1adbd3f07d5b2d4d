"""Example inputs: copies, variations, and the arguments' names."""

import torch
from torch import Tensor, nn

from torchkoopman.observe.example import Example


class Model(nn.Module):
    def forward(self, ids: Tensor, attention_mask: Tensor, scale: Tensor | None = None) -> Tensor:
        ids += 1
        return ids * attention_mask + (0 if scale is None else torch.rand(3) * scale)


def given() -> Example:
    ids = torch.arange(6).reshape(2, 3)
    return Example.of({"ids": ids, "attention_mask": torch.tensor([[1, 1, 1], [0, 1, 1]])})


def test_a_tensor_a_tuple_and_a_mapping_are_one_call() -> None:
    x = torch.ones(2)
    assert Example.of(x).args[0] is x
    assert Example.of((x, None)).args == (x, None)
    assert Example.of({"x": x}).kwargs == {"x": x}
    assert Example.of(Example((x,))).args == (x,)


def test_running_changes_neither_inputs_nor_global_randomness() -> None:
    example, state = given(), torch.get_rng_state()
    example.kwargs["scale"] = torch.ones(3)
    example.run(Model())
    assert torch.equal(example.kwargs["ids"], torch.arange(6).reshape(2, 3))
    assert torch.equal(torch.get_rng_state(), state)


def test_variation_keeps_shapes_ranges_and_what_is_fixed() -> None:
    example = given()
    example.kwargs["scale"] = torch.tensor([1.0, 2.0, 3.0])
    varied = example.varied(Model(), ["attention_mask"])
    assert varied is not None
    assert varied.kwargs["attention_mask"] is example.kwargs["attention_mask"]
    ids = varied.kwargs["ids"]
    assert not torch.equal(ids, example.kwargs["ids"])
    assert torch.equal(ids.flatten().sort().values, torch.arange(6))
    assert varied.kwargs["scale"].shape == (3,)
    assert not torch.equal(varied.kwargs["scale"], example.kwargs["scale"])


def test_positional_arguments_are_fixed_by_their_names_too() -> None:
    mask = torch.tensor([[1, 0, 1]])
    varied = Example.of((torch.arange(3)[None], mask)).varied(Model(), ["attention_mask"])
    assert varied is not None
    assert varied.args[1] is mask


def test_there_is_no_variation_of_what_is_constant() -> None:
    assert Example.of(torch.zeros(3, dtype=torch.long)).varied(Model(), []) is None
    assert Example.of(torch.ones(3, dtype=torch.bool)).varied(Model(), []) is None


def test_arguments_are_named_whether_given_by_position_or_by_name() -> None:
    assert given().named(Model(), ["mask"]) == ["attention_mask"]
    assert Example.of((torch.ones(1), torch.ones(1))).named(Model(), ["mask"]) == ["attention_mask"]
    assert Example.of(torch.ones(1)).named(Model(), ["mask"]) == []


def test_a_batch_of_one_is_doubled_where_all_inputs_have_it() -> None:
    assert Example.of(torch.ones(1, 3)).with_a_batch().args[0].shape == (2, 3)
    kept = Example.of((torch.ones(1, 3), torch.ones(5))).with_a_batch()
    assert kept.args[0].shape == (1, 3)


def test_a_constant_index_becomes_another_valid_one() -> None:
    varied = Example.of(torch.full((3,), 4)).varied(Model(), [])
    assert varied is not None
    assert torch.equal(varied.args[0], torch.full((3,), 3))


def test_objects_among_the_arguments_are_copied_too() -> None:
    class Store:
        def __init__(self) -> None:
            self.seen: list[int] = []

    store = Store()
    copied = Example.of((torch.ones(2), store)).copied()
    copied.args[1].seen.append(1)
    assert store.seen == []
