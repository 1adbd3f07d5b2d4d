"""Closures: functions of a copied model use the copy's layers, and share only data."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from torchkoopman.surgery.copies import Trespass, full_copy, sharing_copy


class Model(nn.Module):
    """Its head is called by whatever function is put on its first layer."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Any:
        return self.body(x)


def rows() -> Tensor:
    return torch.randn(3, 4, generator=torch.Generator().manual_seed(0))


def by_lambda(model: Any) -> None:
    head = model.head
    model.body.register_forward_hook(lambda module, args, output: head(output))


def by_the_model_itself(model: Any) -> None:
    model.body.register_forward_hook(lambda module, args, output: model.head(output))


def by_a_default_argument(model: Any) -> None:
    def hook(module: nn.Module, args: Any, output: Tensor, head: Any = model.head) -> Any:
        return head(output)

    model.body.register_forward_hook(hook)


def by_a_nested_function(model: Any) -> None:
    head = model.head

    def apply(x: Tensor) -> Any:
        def inner() -> Any:
            return head(x)

        return inner()

    model.body.register_forward_hook(lambda module, args, output: apply(output))


def by_a_function_in_a_default(model: Any) -> None:
    def apply(x: Tensor, head: Any = model.head) -> Any:
        return head(x)

    def hook(module: nn.Module, args: Any, output: Tensor, apply: Any = apply) -> Any:
        return apply(output)

    model.body.register_forward_hook(hook)


def by_an_instances_forward(model: Any) -> None:
    body, head = model.body, model.head
    model.forward = lambda x: head(body(x))


def by_a_wrapped_forward(model: Any) -> None:
    before, head = model.body.forward, model.head
    model.body.forward = lambda x: head(before(x))


def by_a_bound_method(model: Any) -> None:
    call = model.head.forward
    model.body.register_forward_hook(lambda module, args, output: call(output))


def by_a_list_of_layers(model: Any) -> None:
    layers = [model.head]
    model.body.register_forward_hook(lambda module, args, output: layers[0](output))


def by_a_dict_of_layers(model: Any) -> None:
    layers = {"heads": (model.head,)}
    model.body.register_forward_hook(lambda module, args, output: layers["heads"][0](output))


def by_a_parameter(model: Any) -> None:
    weight, bias = model.head.weight, model.head.bias
    model.body.register_forward_hook(
        lambda module, args, output: nn.functional.linear(output, weight, bias)
    )


def by_a_pre_hook(model: Any) -> None:
    head = model.head
    model.body.register_forward_pre_hook(lambda module, args: (head(args[0]),))


def by_recursion(model: Any) -> None:
    head = model.head

    def down(x: Tensor, count: int) -> Any:
        return head(x) if count == 0 else down(x, count - 1)

    model.body.register_forward_hook(lambda module, args, output: down(output, 2))


WAYS = [value for name, value in list(globals().items()) if name.startswith("by_")]


@pytest.mark.parametrize("copied", [full_copy, sharing_copy])
@pytest.mark.parametrize("put", WAYS, ids=lambda put: str(put.__name__))
def test_functions_of_a_copy_use_the_copys_layers(
    put: Callable[[Any], None], copied: Callable[[nn.Module], Any]
) -> None:
    model = Model()
    put(model)
    expected, other = model(rows()), copied(model)
    with torch.no_grad():
        other.head.weight.data = -other.head.weight
    assert torch.equal(model(rows()), expected)
    assert not torch.equal(other(rows()), expected)
    with torch.no_grad():
        other.head.weight.data = model.head.weight.clone()
    assert torch.equal(other(rows()), expected)


@pytest.mark.parametrize("put", WAYS, ids=lambda put: str(put.__name__))
def test_functions_of_a_full_copy_use_nothing_of_the_original(put: Callable[[Any], None]) -> None:
    model = Model()
    put(model)
    other, trespass = full_copy(model), Trespass(model)
    with trespass:
        other(rows())
    assert trespass.used == []


def test_what_holds_only_data_stays_shared() -> None:
    model, seen, head = Model(), {"calls": 0}, [1.0]

    def hook(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        seen["calls"] += 1
        return output * head[0]

    model.body.register_forward_hook(hook)
    full_copy(model)(rows())
    assert seen == {"calls": 1}
    (copied,) = full_copy(model).body._forward_hooks.values()
    assert copied is hook


def test_data_stays_shared_also_beside_a_layer() -> None:
    model, seen = Model(), {"calls": 0}
    head = model.head

    def hook(module: nn.Module, args: Any, output: Tensor) -> Any:
        seen["calls"] += 1
        return head(output)

    model.body.register_forward_hook(hook)
    full_copy(model)(rows())
    assert seen == {"calls": 1}


def test_a_layer_of_another_model_stays_shared() -> None:
    model, teacher = Model(), nn.Linear(4, 4)
    model.body.register_forward_hook(lambda module, args, output: teacher(output))
    other = full_copy(model)
    with torch.no_grad():
        teacher.weight.zero_()
    assert torch.equal(other(rows()), model(rows()))


def test_recursion_without_layers_does_not_loop() -> None:
    def even(count: int) -> bool:
        return count == 0 or odd(count - 1)

    def odd(count: int) -> bool:
        return count != 0 and even(count - 1)

    model = Model()
    model.body.register_forward_hook(lambda module, args, output: output * even(2))
    assert torch.equal(full_copy(model)(rows()), model(rows()))


def test_a_container_that_holds_itself_does_not_loop() -> None:
    held: dict[str, Any] = {}
    model = Model()
    held["hook"] = hook = lambda module, args, output: output * len(held)
    model.body.register_forward_hook(hook)
    assert torch.equal(full_copy(model)(rows()), model(rows()))


def test_copied_functions_keep_their_names_and_attributes() -> None:
    model = Model()
    head = model.head

    def hook(module: nn.Module, args: Any, output: Tensor, *, scale: float = 2.0) -> Any:
        return head(output) * scale

    hook.note = "mine"  # type: ignore[attr-defined]
    model.body.register_forward_hook(hook)
    (copied,) = full_copy(model).body._forward_hooks.values()
    assert copied is not hook
    assert (copied.__name__, copied.__qualname__) == (hook.__name__, hook.__qualname__)
    assert (copied.note, copied.__kwdefaults__) == ("mine", {"scale": 2.0})
