"""The audit: on networks of which it is known what they forgot."""

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import torchkoopman as tk
from torchkoopman.koopman.folding import Replacement
from torchkoopman.observe.views import OutputOption
from torchkoopman.unlearning.answers import Ends, Interview, Part
from torchkoopman.unlearning.audit import audit
from torchkoopman.unlearning.batches import Batches
from torchkoopman.unlearning.relearning import Relearning
from torchkoopman.unlearning.report import EDITED, ORIGINAL, RETRAINED, UNEDITED, Audit
from torchkoopman.unlearning.retraining import Retraining

CLASSES = 3


def samples(seed: int, rows: int = 600) -> Batches:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, (rows,), generator=generator)
    inputs = torch.eye(CLASSES)[labels] + 0.25 * torch.randn(rows, CLASSES, generator=generator)
    return list(zip(inputs.split(100), labels.split(100), strict=True))


TRAIN, TEST = samples(0), samples(1)
QUICK = Relearning(limit=60, learning_rate=1e-2)


def network() -> nn.Sequential:
    width = 12
    return nn.Sequential(
        *(nn.Sequential(nn.Linear(CLASSES, width), nn.Tanh()),),
        *(nn.Sequential(nn.Linear(width, width), nn.Tanh()) for _ in range(2)),
        nn.Linear(width, CLASSES),
    )


def trained(model: nn.Module, batches: Batches) -> nn.Module:
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(15):
        for x, y in batches:
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimiser.step()
    return model.eval()


@pytest.fixture(scope="module")
def models() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    model = trained(network(), TRAIN)
    surrogate = tk.fit(
        model, TRAIN, ["0", "2"], method=tk.EDMDFitter([tk.RandomFeatures(30)]), progress=False
    )
    forgetful = tk.unlearn(surrogate, [1], head=model[3])  # type: ignore[index]
    neutral = tk.swap(model, surrogate)
    neutral.get_submodule("3").load_state_dict(
        tk.neutral_head(model[3], [1]).state_dict()  # type: ignore[index]
    )
    return {
        ORIGINAL: model,
        UNEDITED: tk.swap(model, surrogate),
        EDITED: tk.swap(model, forgetful),
        "neutral row": neutral,
        "surrogate": surrogate,
        "forgetful": forgetful,
    }


@pytest.fixture(scope="module")
def report(models: dict[str, nn.Module]) -> Audit:
    torch.manual_seed(1)
    return audit(
        models[ORIGINAL],
        models[EDITED],
        [1],
        TRAIN,
        TEST,
        retrained=Retraining(network, trained),
        unedited=models[UNEDITED],
        baselines={"neutral row": models["neutral row"]},
        surrogates={UNEDITED: models["surrogate"], EDITED: models["forgetful"]},  # type: ignore[dict-item]
        relearning=QUICK,
        samples=400,
    )


def test_columns_run_from_the_original_to_the_retrained_network(report: Audit) -> None:
    assert list(report.columns) == [ORIGINAL, UNEDITED, EDITED, "neutral row", RETRAINED]


def test_accuracies_are_those_of_the_networks(report: Audit, models: dict[str, nn.Module]) -> None:
    inputs, labels = (torch.cat(each) for each in zip(*TEST, strict=True))
    for name in (ORIGINAL, EDITED):
        with torch.no_grad():
            right = models[name](inputs).argmax(1) == labels
        column = report.columns[name]
        assert column.forgotten == pytest.approx(right[labels == 1].double().mean().item())
        assert column.retained == pytest.approx(right[labels != 1].double().mean().item())
        assert column.test[2] == pytest.approx(right[labels == 2].double().mean().item())


def test_the_edited_network_has_forgotten_and_the_original_has_not(report: Audit) -> None:
    assert report.columns[EDITED].forgotten == 0
    assert report.columns[ORIGINAL].forgotten > 0.9
    assert report.columns[RETRAINED].forgotten == 0


def test_swap_and_edit_cost_add_up_to_the_loss_on_retained_classes(report: Audit) -> None:
    assert report.swap_cost is not None
    lost = report.columns[ORIGINAL].retained - report.columns[EDITED].retained
    assert report.swap_cost + report.edit_cost == pytest.approx(lost)


def test_the_retrained_network_diverges_from_itself_by_nothing(report: Audit) -> None:
    assert report.columns[RETRAINED].divergence == pytest.approx((0, 0), abs=1e-9)
    far, near = (report.columns[name].divergence for name in (ORIGINAL, EDITED))
    assert far is not None
    assert near is not None
    assert near[0] < far[0]


def test_the_edit_hides_the_class_from_a_probe_behind_the_operator_but_not_before(
    report: Audit,
) -> None:
    states = report.columns[EDITED].detections
    assert set(states) == {"start", "operator", "decoded"}
    assert states["start"].probe > 0.9
    assert states["operator"].probe < report.columns[UNEDITED].detections["operator"].probe
    assert "operator" not in report.columns[ORIGINAL].detections


def test_relearning_takes_no_step_where_nothing_was_forgotten(report: Audit) -> None:
    assert report.columns[ORIGINAL].relearning == 0
    assert report.columns[EDITED].relearning != 0


def test_the_report_prints_every_network_class_and_price(report: Audit) -> None:
    text = str(report)
    for name in report.columns:
        assert name in text
    assert "class 1 (forgotten)" in text
    assert "ms; it needs" in text
    assert len({len(line) for line in text.splitlines()[:-2]}) == 1


def test_models_are_given_back_as_they_were(models: dict[str, nn.Module]) -> None:
    model = copy.deepcopy(models[ORIGINAL]).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    audit(model, models[EDITED], [1], TRAIN, TEST, relearning=QUICK)
    assert model.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


def test_a_retrained_network_given_ready_is_noted_as_unchecked(
    models: dict[str, nn.Module],
) -> None:
    other = copy.deepcopy(models[ORIGINAL])
    found = audit(
        models[ORIGINAL], models[EDITED], [1], TRAIN, TEST, retrained=other, relearning=QUICK
    )
    assert "not checked" in str(found)
    assert found.columns[ORIGINAL].divergence == pytest.approx((0, 0), abs=1e-9)


def test_without_a_retrained_network_nothing_is_compared_with_it(
    models: dict[str, nn.Module],
) -> None:
    found = audit(models[ORIGINAL], models[EDITED], [1], TRAIN, TEST, relearning=QUICK)
    assert found.columns[EDITED].divergence is None
    assert found.swap_cost is None
    assert found.columns[EDITED].detections == {}
    assert replace(found, notes=("note",)).notes == ("note",)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"classes": [7]}, r"classes \[0, 1, 2\], and classes= is \[7\]"),
        ({"classes": [0, 1, 2]}, "others need samples"),
        ({"layers": ("0", "nowhere")}, "no layer 'nowhere'"),
        ({"baselines": {"edited": nn.Identity()}}, "columns already"),
        ({"test": iter(TEST)}, "has no batches"),
        ({"surrogates": {"other": None}}, "names \\['other'\\]"),
    ],
)
def test_bad_input_is_named(
    models: dict[str, nn.Module], change: dict[str, object], words: str
) -> None:
    arguments = {"classes": [1], "train": TRAIN, "test": TEST, "relearning": QUICK} | change
    with pytest.raises(ValueError, match=words):
        audit(models[ORIGINAL], models[EDITED], **arguments)  # type: ignore[arg-type]


def test_one_class_by_itself_is_taken_and_what_is_no_network_is_named(
    models: dict[str, nn.Module],
) -> None:
    arguments = {"train": TRAIN, "test": TEST, "relearning": QUICK}
    found = audit(models[ORIGINAL], models[EDITED], 1, **arguments)  # type: ignore[arg-type]
    assert found.classes == (1,)
    with pytest.raises(TypeError, match="the 'mine' network is a int"):
        audit(models[ORIGINAL], models[EDITED], 1, baselines={"mine": 3}, **arguments)  # type: ignore[arg-type, dict-item]


def test_a_test_set_that_is_shuffled_anew_is_refused(models: dict[str, nn.Module]) -> None:
    data = torch.utils.data.TensorDataset(*(torch.cat(each) for each in zip(*TEST, strict=True)))
    loader = torch.utils.data.DataLoader(data, 100, shuffle=True)
    with pytest.raises(ValueError, match="another order"):
        audit(models[ORIGINAL], models[EDITED], [1], TRAIN, loader, relearning=QUICK)


def test_answers_that_are_no_logits_are_refused() -> None:
    model = nn.Linear(CLASSES, 2)
    with pytest.raises(TypeError, match=r"classes up to 2 with finite rows \(100, 2\)"):
        audit(model, model, [1], TRAIN, TEST)


@pytest.mark.parametrize(
    ("batch", "found"),
    [
        (torch.zeros(4, CLASSES), "a tensor, with no labels"),
        ({"input": torch.zeros(4, CLASSES)}, "{'input'}, with no labels"),
        ((torch.zeros(4, CLASSES), torch.zeros(4)), r"torch\.float32 of shape \(4,\)"),
    ],
)
def test_batches_without_labels_are_refused(
    models: dict[str, nn.Module], batch: object, found: str
) -> None:
    with pytest.raises(TypeError, match=rf"test= gave a batch, .*{found}.*an audit needs labels"):
        audit(models[ORIGINAL], models[EDITED], [1], TRAIN, [batch])


class Sum(nn.Module):
    """A network of two inputs and an option."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, a: Tensor, b: Tensor, c: Tensor | None = None) -> dict[str, Tensor]:
        return {"logits": self.network(a + b + (0 if c is None else c))}


FORMS = {
    "nested": lambda x, y: ((0.25 * x, 0.75 * x), y),
    "flat": lambda x, y: [0.25 * x, 0.75 * x, y[:, None]],
    "mapping": lambda x, y: {"a": 0.25 * x, "b": 0.75 * x, "labels": y.tolist()},
    "forward": lambda x, y: {"left": 0.25 * x, "right": 0.75 * x, "labels": y},
}


@pytest.mark.parametrize("form", FORMS)
def test_batches_of_every_form_that_a_fit_takes_give_the_same_audit(
    models: dict[str, nn.Module], form: str
) -> None:
    """The retrained network is trained on them, too, without the class."""
    torch.manual_seed(1)
    retraining = Retraining(network, lambda model, batches: trained(model, list(batches)))
    options: dict[str, Any] = {"layers": ("0", "2"), "relearning": QUICK, "samples": 200}
    pair = models[ORIGINAL], models[EDITED]
    expected = audit(*pair, [1], TRAIN, TEST, retrained=retraining, **options)
    given = [[FORMS[form](x, y) for x, y in data] for data in (TRAIN, TEST)]
    seen: list[Any] = []

    def learn(model: nn.Module, batches: Batches) -> None:
        seen.extend(batches)
        if form == "nested":
            pairs = [(a + b, y) for (a, b), y in seen]
        elif form == "flat":
            pairs = [(a + b, y[:, 0]) for a, b, y in seen]
        else:
            pairs = []
            for each in seen:
                a, b, y = each.values()
                pairs.append((a + b, torch.as_tensor(y)))
        trained(model.network, pairs)  # type: ignore[arg-type]

    if form == "forward":
        options["forward"] = lambda model, batch: model(batch["left"], batch["right"])
    torch.manual_seed(1)
    options["layers"] = ("network.0", "network.2")
    found = audit(
        *map(Sum, pair), [1], *given, retrained=Retraining(lambda: Sum(network()), learn), **options
    )
    assert len(seen) == len(TRAIN)
    for name, column in found.columns.items():
        before = expected.columns[name]
        assert column.test == pytest.approx(before.test)
        assert column.relearning == before.relearning
        assert column.divergence == pytest.approx(before.divergence, rel=1e-3, abs=1e-6)
        assert column.membership == pytest.approx(before.membership, abs=1e-6)


def test_a_batch_with_two_readings_is_refused_and_forward_is_named(
    models: dict[str, nn.Module],
) -> None:
    batches = [(x, x, y) for x, y in TEST]
    two = Sum(models[ORIGINAL])
    both = [(x, x, x, y) for x, y in TEST]
    with pytest.raises(TypeError, match=r"no labels in it.*forward=lambda"):
        audit(two, two, [1], [each[:2] for each in batches], batches, relearning=QUICK)

    class Wide(Sum):
        def forward(self, a: Tensor, b: Any = None, c: Any = None) -> dict[str, Tensor]:
            return {"logits": self.network(a)}

    wide = Wide(models[ORIGINAL])
    with pytest.raises(TypeError, match=r"can take all of it, or all but labels.*forward=lambda"):
        audit(wide, wide, [1], batches, batches, relearning=QUICK)
    read = audit(
        wide, wide, [1], both, both, relearning=QUICK, forward=lambda model, batch: model(batch[0])
    )
    assert read.columns[EDITED].retained > 0.9


class Cell(nn.Module):
    """Takes ``(h, g)`` and returns such a pair."""

    def __init__(self) -> None:
        super().__init__()
        self.turn = nn.Linear(CLASSES, CLASSES)

    def forward(self, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        h, g = state
        return torch.tanh(self.turn(h)), g + torch.sin(h)


class Pairs(nn.Module):
    """Two layers of several tensors, of which the classes are read off the second."""

    def __init__(self, last: nn.Module | None = None) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.first, self.last = Cell(), last or Cell()

    def forward(self, x: Tensor) -> Tensor:
        state = self.first((x, x))
        if isinstance(self.last, Replacement):
            return self.last(state[1])  # type: ignore[no-any-return]
        return self.last(state)[1]  # type: ignore[no-any-return]


def second(output: tuple[Tensor, Tensor]) -> Tensor:
    return output[1]


def surrogate_of(model: nn.Module, output: OutputOption) -> tk.Surrogate:
    return tk.fit(model, TRAIN, ["first", "last"], method="dmd", output=output, progress=False)


def asked(model: nn.Module, surrogate: tk.Surrogate, output: OutputOption | None = None) -> Part:
    ends = Ends.of(("first", "last"), [None, surrogate], output)
    return Interview("edited", model, [1], ends, surrogate, 2 * 600).ask(TEST, "test")


@torch.no_grad()
def test_an_audit_looks_into_the_tensors_that_the_surrogate_was_fitted_on() -> None:
    model = Pairs()
    surrogate = surrogate_of(model, "1")
    order = torch.cat([y for _, y in TEST])
    x = torch.cat([x for x, _ in TEST])
    found = asked(model, surrogate)
    start, end = (each[1] for each in (model.first((x, x)), model.last(model.first((x, x)))))
    for name, truth in (("start", start), ("decoded", end)):
        mine = torch.cat([found.states[name][found.target], found.states[name][~found.target]])
        expected = torch.cat([truth[order == 1], truth[order != 1]])
        torch.testing.assert_close(mine, expected)
    other = asked(model, surrogate, {"first": "0"})
    assert torch.equal(other.states["decoded"], found.states["decoded"])
    assert not torch.equal(other.states["start"], found.states["start"])
    swapped = asked(Pairs(surrogate.replacement()), surrogate)
    torch.testing.assert_close(swapped.states["start"], found.states["start"])
    torch.testing.assert_close(
        swapped.states["decoded"], surrogate(found.states["start"][:, None])[:, 0]
    )


def test_an_audit_of_layers_read_through_a_function_needs_the_function_again() -> None:
    model = Pairs()
    given = {"relearning": QUICK, "surrogates": {EDITED: surrogate_of(model, second)}}
    with pytest.raises(ValueError, match=r"layer 'first' was read through the function 'second'"):
        audit(model, model, [1], TRAIN, TEST, **given)  # type: ignore[arg-type]
    one = audit(model, model, [1], TRAIN, TEST, output=second, **given)  # type: ignore[arg-type]
    by_path = {"relearning": QUICK, "surrogates": {EDITED: surrogate_of(model, "1")}}
    other = audit(model, model, [1], TRAIN, TEST, **by_path)  # type: ignore[arg-type]
    assert one.columns == other.columns


def test_an_audit_keeps_the_samples_of_a_layer_whose_batch_is_not_its_first_axis() -> None:
    class Turned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            with torch.random.fork_rng():
                torch.manual_seed(0)
                self.first, self.last = (nn.Linear(CLASSES, CLASSES) for _ in range(2))

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.last(self.first(x[None]))
            return out[0]

    model = Turned()
    surrogate = tk.fit(
        model, TRAIN, ["first", "last"], method="dmd", layout="t b f -> b t f", progress=False
    )
    ends = Ends.of(("first", "last"), [surrogate], None)
    found = Interview("edited", model, [1], ends, surrogate, 1200).ask(TEST, "test")
    assert found.states["start"].shape == (600, CLASSES)
    torch.testing.assert_close(
        found.states["decoded"], surrogate(found.states["start"][:, None])[:, 0]
    )
