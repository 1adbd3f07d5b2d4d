"""Swaps in many architectures: each equals the original with one layer's output overridden."""

import importlib.util
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch

import torchkoopman as tk
from benchmarks.zoo import suite as zoo
from benchmarks.zoo.comparing import call, difference, reference
from benchmarks.zoo.families import FAMILIES, HANDWRITTEN
from benchmarks.zoo.family import Family
from benchmarks.zoo.fitted import Fitted, examine_fitted, summary
from benchmarks.zoo.libraries import TRANSFORMERS
from torchkoopman.observe.outputs import tensors_in

TOLERANCE = 1e-5
"""float32 rounding of reordered sums, relative to an output's largest value."""

Examine = Callable[[Family], zoo.Outcome]

CLEAN = [family for family in FAMILIES if family.refuses is None]
DIRTY = [family for family in FAMILIES if family.refuses is not None]
TYPICAL = [
    *HANDWRITTEN,
    *(
        family
        for family in TRANSFORMERS
        if family.name.startswith(("BERT", "GPT-2", "T5", "SegFormer"))
    ),
]
"""Those written to a file and swapped in other ways here; ``make zoo`` does it with all."""
OTHER_WAYS = [
    (family, way)
    for family in TYPICAL
    if family in CLEAN
    for way in family.ways[1:]
    if way == "eager" or family in HANDWRITTEN[:8]
]
"""Beyond the first way that fits: eager costs little, torch.export a second or more."""
FITTED = [
    *TYPICAL,
    *(
        family
        for family in TRANSFORMERS
        if family.name.startswith(("Swin", "ConvNeXt", "Llama", "ViT", "BART, decoder"))
    ),
]
"""Those whose span is also fitted here, among them all kinds of refusals and resolutions."""
ONNX = [family for family in FAMILIES if family.name in ("autoencoder", "BERT", "GPT-2", "ViT")]


def name(value: object) -> str:
    return value.name if isinstance(value, Family) else str(value)


def needed(family: Family) -> Family:
    if family.missing:
        pytest.skip(f"the family {family.name} needs the package {family.needs}")
    return family


@pytest.fixture(scope="module")
def examined(tmp_path_factory: pytest.TempPathFactory) -> Examine:
    """What became of a family with ``how="auto"``, found out once for all tests."""
    folder = tmp_path_factory.mktemp("programs")

    @cache
    def found(family: Family) -> zoo.Outcome:
        return zoo.examine(family, folder=folder if family in TYPICAL else None)

    return lambda family: found(needed(family))


clean = pytest.mark.parametrize("family", CLEAN, ids=name)


@pytest.mark.slow
@clean
def test_the_edited_model_is_the_original_with_the_output_overridden(
    family: Family, examined: Examine
) -> None:
    outcome = examined(family)
    assert not outcome.refused
    assert outcome.way == family.ways[0]
    assert outcome.effect > 0.1
    assert outcome.difference <= TOLERANCE


@pytest.mark.slow
@clean
def test_the_replaced_layers_leave_no_parameters(family: Family, examined: Examine) -> None:
    outcome = examined(family)
    assert outcome.left == ()
    assert outcome.surplus == 0


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES, ids=name)
def test_the_given_model_is_untouched(family: Family, examined: Examine) -> None:
    assert examined(family).untouched


@pytest.mark.slow
@clean
def test_swapping_back_is_identity(family: Family, examined: Examine) -> None:
    assert examined(family).restored


@pytest.mark.slow
@pytest.mark.parametrize("family", [one for one in TYPICAL if one in CLEAN], ids=name)
def test_the_program_is_the_edited_model_or_says_why_there_is_none(
    family: Family, examined: Examine
) -> None:
    outcome = examined(family)
    if isinstance(family.exports, str):
        assert re.search(family.exports, outcome.unexported)
    else:
        assert not outcome.unexported
        assert outcome.program <= TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("family", DIRTY, ids=name)
def test_a_span_that_no_module_can_stand_for_is_refused_with_the_reason(
    family: Family, examined: Examine
) -> None:
    outcome = examined(family)
    assert outcome.way == ""
    assert re.search(family.refuses or "", outcome.refused)


@pytest.mark.slow
@pytest.mark.parametrize(("family", "way"), OTHER_WAYS, ids=name)
def test_every_way_gives_the_same_model(family: Family, way: str) -> None:
    outcome = zoo.examine(needed(family), way)
    assert not outcome.refused
    assert outcome.way == way
    assert outcome.difference <= TOLERANCE
    assert (outcome.left, outcome.surplus) == ((), 0)
    assert outcome.restored
    assert outcome.untouched


def test_the_comparison_tells_another_module_from_the_one_swapped_in() -> None:
    family = HANDWRITTEN[0]
    model, inputs = family.model(), family.sample(0)
    with torch.no_grad():
        module = zoo.stand_in(family, model, inputs)
        edited = tk.swap(model, module, family.start, family.end, example_inputs=inputs)
        next(module.parameters()).mul_(1.001)
        truth = reference(family, model, module, inputs)
        assert difference(call(edited, inputs), truth) > TOLERANCE


@pytest.mark.parametrize("family", HANDWRITTEN, ids=name)
def test_a_family_is_the_same_each_time_and_draws_no_global_random_numbers(family: Family) -> None:
    state = torch.get_rng_state()
    with torch.no_grad():
        first, again = (call(family.model(), family.sample(1)) for _ in range(2))
    assert difference(first, again) == 0
    assert torch.equal(torch.get_rng_state(), state)


def test_names_say_which_family_is_meant() -> None:
    assert len({family.name for family in FAMILIES}) == len(FAMILIES) >= 30


@pytest.mark.slow
@pytest.mark.parametrize("family", ONNX, ids=name)
@torch.no_grad()
def test_the_edited_model_runs_in_onnxruntime(family: Family, tmp_path: Path) -> None:
    if not all(map(importlib.util.find_spec, ("onnx", "onnxscript", "onnxruntime"))):
        pytest.skip("needs the packages onnx, onnxscript and onnxruntime")
    import onnxruntime

    model, inputs, others = needed(family).model(), family.sample(0), family.sample(2, batch=3)
    module = zoo.stand_in(family, model, inputs)
    edited = tk.swap(model, module, family.start, family.end, example_inputs=inputs)
    path = tk.export(edited, tmp_path / "model.onnx", example_inputs=inputs)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    values = others.values() if isinstance(others, dict) else others
    feeds = {
        node.name: value.numpy() for node, value in zip(session.get_inputs(), values, strict=True)
    }
    found = [torch.from_numpy(array) for array in session.run(None, feeds)]
    truth = tensors_in(reference(family, model, module, others)).values()
    assert len(found) == len(truth)
    assert max(map(difference, found, truth)) <= TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("family", FITTED, ids=name)
def test_a_fitted_surrogate_gives_the_original_with_its_prediction_put_in(family: Family) -> None:
    fitted = examine_fitted(needed(family))
    if family.refuses is not None:
        assert re.search(family.refuses, fitted.refused)
        return
    assert (fitted.unfitted, fitted.refused) == ("", "")
    assert fitted.way in family.ways
    assert fitted.effect > 10 * TOLERANCE
    assert fitted.difference <= TOLERANCE


def test_the_summary_counts_what_was_swapped_and_what_was_not() -> None:
    some = [Fitted("edmd", "fx", 0.1, 2e-7), Fitted("dmd", refused="dirty"), Fitted(unfitted="no")]
    assert summary(some) == (
        "fitted surrogates: 1 of 3 families swapped, at most 2e-07 from the reference; "
        "1 swaps refused, 1 without a surrogate"
    )
