"""The head of a model is found by what it does, and a wrong layer is refused by name."""

from collections.abc import Callable
from threading import Thread
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import torchkoopman as tk
from torchkoopman.observe.example import Example

CLASSES, WIDTH = 3, 6


def batches(rows: int = 600) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(CLASSES, (rows,), generator=generator)
    inputs = 3 * torch.eye(4)[labels] + 0.3 * torch.randn(rows, 4, generator=generator)
    return list(zip(inputs.split(100), labels.split(100), strict=True))


class Net(nn.Module):
    """Blocks, what stands between them and the head, the head, and what comes behind it."""

    def __init__(
        self, between: Callable[[Tensor], Tensor] | None = None, behind: Any = None
    ) -> None:
        super().__init__()
        self.start = nn.Sequential(nn.Linear(4, WIDTH), nn.Tanh())
        self.end = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh())
        self.auxiliary, self.head = nn.Linear(WIDTH, CLASSES), nn.Linear(WIDTH, CLASSES)
        self.between, self.behind = between, behind

    def forward(self, x: Tensor) -> Any:
        state = self.end(self.start(x))
        self.auxiliary(state)
        state = state if self.between is None else self.between(state)
        logits = self.head(state)
        return logits if self.behind is None else self.behind(logits)


def trained(**options: Any) -> Net:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Net(**options)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-2)
    for _ in range(30):
        for x, y in batches():
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
    return model


def fitted(model: nn.Module, layers: tuple[str, str] = ("start", "end")) -> tk.Surrogate:
    return tk.fit(model, batches(), layers, method="edmd", progress=False)


@pytest.fixture(scope="module")
def model() -> Net:
    return trained()


@pytest.fixture(scope="module")
def surrogate(model: Net) -> tk.Surrogate:
    return fitted(model)


def same(found: tk.Surrogate, expected: tk.Surrogate) -> bool:
    states = torch.randn(50, 1, WIDTH, generator=torch.Generator().manual_seed(1))
    return torch.equal(found(states), expected(states))


def test_the_head_that_is_found_is_the_one_that_gives_the_answers(
    model: Net, surrogate: tk.Surrogate
) -> None:
    expected = tk.unlearn(surrogate, [2], head=model.head)
    assert same(tk.unlearn(surrogate, [2], model=model), expected)
    assert same(tk.unlearn(surrogate, [2], model=model, head=model.head), expected)
    assert not same(tk.unlearn(surrogate, [2]), expected)
    answers = tk.swap(model, expected)(torch.randn(500, 4)).argmax(1)
    assert not (answers == 2).any()


@pytest.mark.parametrize(
    "behind",
    [
        lambda logits: logits.softmax(-1),
        lambda logits: logits.log_softmax(-1),
        lambda logits: 3 * logits + 1,
        lambda logits: {"logits": logits},
    ],
    ids=["softmax", "log_softmax", "scaled", "dict"],
)
def test_what_keeps_the_order_of_the_logits_may_come_behind_the_head(behind: Any) -> None:
    model = Net(behind=behind)
    surrogate = fitted(model)
    head = tk.unlearn(surrogate, [0], model=model)
    assert same(head, tk.unlearn(surrogate, [0], model=model, head=model.head))


def test_a_layer_that_is_not_the_models_answer_is_refused_though_it_has_its_shape(
    model: Net, surrogate: tk.Surrogate
) -> None:
    with pytest.raises(ValueError, match=r"gives 3 numbers a row.*\['auxiliary'\] none"):
        tk.unlearn(surrogate, [2], model=model, head=model.auxiliary)
    turned = Net(behind=lambda logits: -logits)
    with pytest.raises(ValueError, match=r"'head'\] none that runs once gives them"):
        tk.unlearn(fitted(turned), [2], model=turned)


def test_alone_a_head_must_give_each_class_its_average_state(
    model: Net, surrogate: tk.Surrogate
) -> None:
    for wrong in (model.auxiliary, model.end[0]):
        with pytest.raises(ValueError, match=r"does not give the classes: .*\[0, 1, 2\] at 'end'"):
            tk.unlearn(surrogate, [2], head=wrong)  # type: ignore[arg-type]
    swapped = nn.Linear(WIDTH, CLASSES)
    with torch.no_grad():
        swapped.weight.copy_(model.head.weight[[1, 0, 2]])
        swapped.bias.copy_(model.head.bias[[1, 0, 2]])
    with pytest.raises(ValueError, match=r"it gives \[1, 0, 2\]"):
        tk.unlearn(surrogate, [2], head=swapped)


def test_classes_that_are_gone_are_not_asked_of_the_head_again(
    model: Net, surrogate: tk.Surrogate
) -> None:
    once = tk.unlearn(surrogate, 2, head=model.head)
    twice = tk.unlearn(once, 0, head=model.head)
    answers = tk.swap(model, twice)(torch.randn(200, 4)).argmax(1)
    assert (answers == 1).all()


def test_a_state_that_is_changed_on_its_way_to_the_head_is_refused() -> None:
    model = Net(between=lambda state: state**3)
    with pytest.raises(ValueError, match=r"head 'head' does not read the output of 'end'"):
        tk.unlearn(fitted(model), [2], model=model)
    plain = Net()
    with pytest.raises(ValueError, match=r"does not read the output of 'start'"):
        tk.unlearn(fitted(plain, ("start.0", "start")), [2], model=plain)


class Pooled(nn.Module):
    """Four tokens; the head reads their mean, or the first."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.start = nn.Sequential(nn.Linear(4, WIDTH), nn.Tanh())
        self.end = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh())
        self.head, self.kind = nn.Linear(WIDTH, CLASSES), kind

    def forward(self, x: Tensor) -> Tensor:
        tokens = x[:, None] * torch.linspace(0.5, 1, 4)[:, None]
        state = self.end(self.start(tokens))
        pooled = {"mean": state.mean(1), "first": state[:, 0], "max": state.amax(1)}[self.kind]
        logits: Tensor = self.head(pooled)
        return logits


@pytest.mark.parametrize("kind", ["mean", "first", "max"])
def test_a_mean_of_positions_and_one_of_them_is_read_and_a_maximum_is_not(kind: str) -> None:
    model = Pooled(kind)
    surrogate = tk.fit(model, batches(), ["start", "end"], method="dmd", progress=False)
    if kind == "max":
        with pytest.raises(ValueError, match="does not read the output of 'end'"):
            tk.unlearn(surrogate, [2], model=model)
        return
    edited = tk.swap(model, tk.unlearn(surrogate, [2], model=model))
    assert not (edited(torch.randn(300, 4)).argmax(1) == 2).any()


def test_the_model_is_given_back_as_it_was(surrogate: tk.Surrogate, model: Net) -> None:
    model.train()
    before = torch.random.get_rng_state()
    tk.unlearn(surrogate, [2], model=model)
    assert all(module.training for module in model.modules())
    assert torch.equal(torch.random.get_rng_state(), before)
    for module in model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks


def test_another_threads_passes_get_the_models_own_answers_and_are_not_looked_at(
    surrogate: tk.Surrogate, model: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs, run, told = torch.randn(7, 4), Example.run, list[Tensor]()

    def beside(example: Example, called: nn.Module) -> Any:
        thread = Thread(target=lambda: told.append(model(inputs).detach()))
        thread.start()
        thread.join()
        return run(example, called)

    expected = tk.unlearn(surrogate, [2], model=model)
    monkeypatch.setattr(Example, "run", beside)
    assert same(tk.unlearn(surrogate, [2], model=model), expected)
    assert len(told) > 8
    assert all(torch.equal(each, model(inputs)) for each in told)


def test_what_is_no_model_or_another_one_is_refused(model: Net, surrogate: tk.Surrogate) -> None:
    with pytest.raises(TypeError, match=r"model= is a str"):
        tk.unlearn(surrogate, [2], model="model")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"is no layer of the Net given as model="):
        tk.unlearn(surrogate, [2], model=model, head=nn.Linear(WIDTH, CLASSES))
    with pytest.raises(ValueError, match=r"has no layer 'end'"):
        tk.unlearn(surrogate, [2], model=nn.Sequential(nn.Linear(4, 3)))
    states = torch.randn(400, 1, 3), torch.randn(400, 1, 3)
    blind = tk.DMDFitter().update(tk.Trajectory.of(*states, labels=torch.arange(400) % 3))
    with pytest.raises(ValueError, match=r"its head cannot be looked for"):
        tk.unlearn(blind.surrogate, [2], model=model)


def test_one_class_by_itself_is_taken_as_a_list_of_it_is(
    model: Net, surrogate: tk.Surrogate
) -> None:
    assert same(tk.unlearn(surrogate, 1), tk.unlearn(surrogate, [1]))
    found, expected = (tk.neutral_head(model.head, each) for each in (1, [1]))
    assert torch.equal(found.weight, expected.weight)
    with pytest.raises(TypeError, match=r"classes='dots' are no class numbers"):
        tk.neutral_head(model.head, "dots")  # type: ignore[arg-type]


class ByName(nn.Module):
    """Called with keyword arguments alone, one of them a mapping."""

    def __init__(self, inner: Net) -> None:
        super().__init__()
        self.start, self.end, self.head, self.inner = inner.start, inner.end, inner.head, [inner]

    def forward(self, *, given: dict[str, Tensor], scale: Tensor) -> Any:
        return {"logits": self.head(self.end(self.start(given["x"] * scale)))}


def test_a_model_called_by_name_is_looked_through_on_example_inputs(model: Net) -> None:
    named, one = ByName(model), torch.ones(1)
    stream = [
        {"given": {"x": x}, "scale": one.expand(len(x), 1), "labels": y} for x, y in batches()
    ]
    surrogate = tk.fit(
        named,
        stream,
        ("start", "end"),
        method="edmd",
        progress=False,
        forward=lambda net, batch: net(given=batch["given"], scale=batch["scale"]),
    )
    expected = tk.unlearn(surrogate, [2], head=named.head)
    with pytest.raises(ValueError, match=r"cannot be looked for .* Give example_inputs="):
        tk.unlearn(surrogate, [2], model=named)
    for rows in (1, 5):
        example = {"given": {"x": torch.randn(rows, 4)}, "scale": torch.ones(rows, 1)}
        kept = example["given"]["x"].clone()  # type: ignore[index]
        found = tk.unlearn(surrogate, [2], model=named, example_inputs=example)
        assert same(found, expected)
        assert torch.equal(example["given"]["x"], kept)  # type: ignore[index]
    with pytest.raises(ValueError, match=r"example_inputs= says how model= is called"):
        tk.unlearn(surrogate, [2], head=named.head, example_inputs=example)
    with pytest.raises(TypeError, match=r"example_inputs is a int"):
        tk.unlearn(surrogate, [2], model=named, example_inputs=3)  # type: ignore[arg-type]


def test_example_inputs_prove_no_more_than_the_models_own(model: Net) -> None:
    turned = Net(behind=lambda logits: -logits)
    with pytest.raises(ValueError, match=r"none that runs once gives them"):
        tk.unlearn(fitted(turned), [2], model=turned, example_inputs=torch.randn(4, 4))
