"""Selection: what names, wildcards, types, modules and callables mean."""

import pytest
import torch
from torch import nn

from torchkoopman.observe.selection import common_ancestors, per_layer, select


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.act = nn.ReLU()


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.blocks = nn.ModuleList(Block() for _ in range(3))
        self.head = nn.Linear(4, 2)


def names(model: nn.Module, layers: object) -> list[str]:
    return [each.name for each in select(model, layers)]  # type: ignore[arg-type]


BLOCKS = ["blocks.0", "blocks.1", "blocks.2"]
LINEARS = [f"{block}.linear" for block in BLOCKS]


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ("head", ["head"]),
        ("", [""]),
        ("*", ["linear", "head"]),
        ("blocks.*", BLOCKS),
        ("blocks.?", BLOCKS),
        ("blocks.*.linear", LINEARS),
        ("blocks.**", [n for b in BLOCKS for n in (b, f"{b}.linear", f"{b}.act")]),
        ("**.linear", ["linear", *LINEARS]),
        ("**linear", ["linear", *LINEARS]),
        (["head", "blocks.*"], [*BLOCKS, "head"]),
        (["blocks.0", "blocks.*", "blocks.0"], BLOCKS),
        (Block, BLOCKS),
        (lambda name, _: name.endswith("act"), [f"{block}.act" for block in BLOCKS]),
        ([nn.ReLU, "head"], [*(f"{block}.act" for block in BLOCKS), "head"]),
    ],
)
def test_layers_mean_these_modules_in_the_models_order(layers: object, expected: list[str]) -> None:
    assert names(Net(), layers) == expected


def test_a_module_is_found_by_itself_and_a_sequential_is_not_read_as_a_list() -> None:
    net = Net()
    assert names(net, net.blocks[1]) == ["blocks.1"]
    inner = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    assert names(nn.Sequential(inner, nn.ReLU()), inner) == ["0"]


@pytest.mark.parametrize("layers", ["**", nn.Module, lambda name, module: True])
def test_containers_that_never_run_are_left_out(layers: object) -> None:
    assert "blocks" not in names(Net(), layers)


def test_a_container_by_name_is_refused_with_what_it_holds() -> None:
    with pytest.raises(ValueError, match=r"only containers.*'blocks'.*'blocks\.\*'"):
        select(Net(), "blocks")


@pytest.mark.parametrize(("typo", "near"), [("heed", "head"), ("block.*", "blocks.0"), ("zz", "l")])
def test_an_unknown_name_is_named_with_the_nearest(typo: str, near: str) -> None:
    with pytest.raises(
        ValueError, match=f"no module matching '{typo}'.*nearest: .*'{near}"
    ) as error:
        select(Net(), ["head", typo])
    assert "crosses dots" in str(error.value)


def test_a_star_does_not_cross_a_dot() -> None:
    with pytest.raises(ValueError, match="no module matching"):
        select(Net(), "blo*ar")


def test_what_is_not_in_the_model_is_refused() -> None:
    with pytest.raises(ValueError, match="not part of the model"):
        select(Net(), nn.Linear(4, 4))
    with pytest.raises(ValueError, match=r"no module for Conv2d.*Linear"):
        select(Net(), nn.Conv2d)
    with pytest.raises(ValueError, match="no module for"):
        select(Net(), lambda name, module: False)
    with pytest.raises(ValueError, match="no layers"):
        select(Net(), [])
    with pytest.raises(TypeError, match="type int"):
        select(Net(), 3)  # type: ignore[arg-type]


def test_calls_are_chosen_by_number_and_a_bare_name_means_all() -> None:
    (chosen,) = select(Net(), ["head#2", "head#0"])
    assert chosen.calls == {0, 2}
    assert chosen.required == ("head#0", "head#2")
    (chosen,) = select(Net(), ["head#2", "head"])
    assert chosen.calls is None
    assert [each.required for each in select(Net(), "blocks.*#1")] == [(f"{b}#1",) for b in BLOCKS]
    with pytest.raises(ValueError, match="number of a call"):
        select(Net(), "head#last")
    with pytest.raises(ValueError, match="number of a call"):
        select(Net(), "head#²")


def tied() -> nn.Module:
    net = Net()
    net.add_module("again", net.head)
    return net


def test_one_module_under_two_names_must_be_chosen_by_one() -> None:
    net = tied()
    assert names(net, "again") == ["again"]
    assert names(net, "head") == ["head"]
    assert names(net, net.head) == ["head"]
    for layers in ("*", ["head", "again"], ["head#0", "again#1"], nn.Linear):
        with pytest.raises(ValueError, match=r"'head' and 'again'.*one and the same.*'head#0'"):
            select(net, layers)


def test_compiled_modules_around_a_layer_are_refused() -> None:
    net = Net()
    with pytest.raises(ValueError, match=r"the model.*_orig_mod"):
        select(torch.compile(net, backend="eager"), "head")  # type: ignore[arg-type]
    net.blocks[1].compile(backend="eager")
    assert names(net, "head") == ["head"]
    for layers in ("blocks.1", "blocks.1.linear", "blocks.*"):
        with pytest.raises(ValueError, match=r"module 'blocks\.1'.*compiled in place"):
            select(net, layers)
    net.head = torch.compile(net.head, backend="eager")  # type: ignore[assignment]
    with pytest.raises(ValueError, match=r"module 'head'.*_orig_mod"):
        select(net, "head")
    net.compile(backend="eager")
    with pytest.raises(ValueError, match=r"the model.*in place"):
        select(net, "linear")


@pytest.mark.parametrize(
    ("layers", "ancestors"),
    [
        (["a.b.c", "a.b.d"], ("", "a", "a.b")),
        (["a.b.c", "a.d"], ("", "a")),
        (["a.b", "a.b.c"], ("", "a")),
        (["a", "b"], ("",)),
        (["a", "ab.c"], ("",)),
        ([""], ("",)),
        (["", "a.b"], ("",)),
        (["a.b"], ("", "a")),
    ],
)
def test_common_ancestors_are_strict_but_for_the_model(
    layers: list[str], ancestors: tuple[str, ...]
) -> None:
    assert common_ancestors(layers) == ancestors


def test_options_by_layer_prefer_the_exact_name_to_the_wildcard() -> None:
    layers = ["blocks.0", "blocks.1", "head"]
    assert per_layer("x", layers, "output") == dict.fromkeys(layers, "x")
    assert per_layer(None, layers, "output") == {}
    given = {"blocks.*": "0", "blocks.1": "1", "**": "2"}
    assert per_layer(given, layers, "output") == {"blocks.0": "0", "blocks.1": "1", "head": "2"}
    with pytest.raises(ValueError, match=r"attach\(output=...\).*'tail'.*'head'"):
        per_layer({"tail": "0"}, layers, "output")


def test_one_call_of_a_layer_is_a_key_of_its_own_that_no_wildcard_matches() -> None:
    given = {"*": "0", "act#1": "1"}
    chosen = per_layer(given, ["act"], "output", ["act#0", "act#1"])
    assert chosen == {"act": "0", "act#1": "1"}
    with pytest.raises(ValueError, match=r"'act#2', which matches none.*'act', 'act#0'"):
        per_layer({"act#2": "1"}, ["act"], "output", ["act#0"])
