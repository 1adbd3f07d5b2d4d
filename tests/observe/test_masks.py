"""A model's own attention mask says which positions count, without anybody passing it on."""

from __future__ import annotations

import re
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import torchkoopman as tk
from torchkoopman.observe.trajectory import Trajectory

transformers = pytest.importorskip("transformers", reason="needs the extra 'transformers'")

LENGTHS = torch.tensor([7, 3, 5])
RIGHT = (torch.arange(7) < LENGTHS[:, None]).long()
LEFT = RIGHT.flip(1)
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 50}
SPECIAL = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}


def llama() -> Any:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(**SIZES, **SPECIAL, intermediate_size=20)
    return transformers.LlamaForCausalLM(config).eval()


def bert() -> Any:
    torch.manual_seed(0)
    config = transformers.BertConfig(**SIZES, intermediate_size=20)
    return transformers.BertForSequenceClassification(config).eval()


def t5() -> Any:
    torch.manual_seed(0)
    config = transformers.T5Config(
        d_model=16,
        d_kv=8,
        d_ff=20,
        num_layers=2,
        num_heads=2,
        vocab_size=50,
        decoder_start_token_id=0,
    )
    return transformers.T5ForConditionalGeneration(config).eval()


def tokens(*shape: int) -> Tensor:
    return torch.randint(2, 50, shape, generator=torch.Generator().manual_seed(2))


class Custom(nn.Module):
    """A mask beside the input, whatever its kind; the layers never see it."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        out: Tensor = self.b(self.a(x))
        return out


def watched(
    model: nn.Module, layers: Any, *calls: Any, **options: Any
) -> tuple[list[Trajectory], Any]:
    """What was passed on for each call, positional arguments or keywords; and the report."""
    got: list[Trajectory] = []
    with torch.no_grad(), tk.attach(model, layers, **options) as probe:
        probe.stream_to(got.append)
        for call in calls:
            model(**call) if isinstance(call, dict) else model(*call)
    return got, probe.report()


@pytest.mark.parametrize("mask", [RIGHT, LEFT, LEFT.bool(), LEFT.float()], ids=str)
@pytest.mark.parametrize(
    ("make", "layers"), [(llama, "model.layers.*"), (bert, "bert.encoder.layer.*")]
)
def test_padding_is_left_out_right_and_left(make: Any, layers: str, mask: Tensor) -> None:
    """1 499 167 rows were streamed where 1970 of 3136 of each batch counted."""
    (seen,), report = watched(
        make(), layers, {"input_ids": tokens(3, 7), "attention_mask": mask.clone()}
    )
    last = seen.layers[-1]
    assert torch.equal(seen.rows()[last], seen.states[last][mask.bool()])
    assert all(view.masked for view in seen.views.values())
    assert [stream.rows for stream in report.streams] == [15, 15]
    assert (report.positions, report.masks) == (21, {"attention_mask": 1})
    assert "rows counted: 15 of 21 positions, by attention_mask in 1 trajectories" in str(report)


@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_each_step_of_a_generation_counts_its_own_columns(cache: str) -> None:
    """Behind the prompt a mask has a column for every earlier position too."""
    model, got = llama(), list[Trajectory]()
    with tk.attach(model, "model.layers.*") as probe:
        probe.stream_to(got.append)
        with nullcontext() if cache == "dynamic" else pytest.warns(RuntimeWarning, match="4 axes"):
            model.generate(
                input_ids=tokens(3, 7),
                attention_mask=LEFT,
                min_new_tokens=4,
                max_new_tokens=4,
                do_sample=False,
                cache_implementation=None if cache == "dynamic" else "static",
            )
    report = probe.report()
    assert [each.positions for each in got] == [7, 1, 1, 1]
    if cache == "dynamic":
        assert report.masks == {"attention_mask": 4}
        assert [len(each.rows()["model.layers.0"]) for each in got] == [15, 3, 3, 3]
    else:  # transformers makes masks of four axes for it
        assert report.masks_aside == {"it has 4 axes": 4}


class Cached(Custom):
    """A cache and a mask as wide as it may grow, as compiled generation has them."""

    def forward(self, x: Tensor, attention_mask: Tensor, past_key_values: Any) -> Tensor:  # type: ignore[override]
        return super().forward(x)


class Cache:
    def get_seq_length(self) -> int:
        return 7


@pytest.mark.parametrize("wider", [0, 5], ids=["dynamic", "static"])
def test_new_positions_behind_a_cache_take_the_columns_after_it(wider: int) -> None:
    new = torch.tensor([[1, 0], [0, 1], [1, 1]])
    mask = torch.cat([LEFT, new, torch.ones(3, wider, dtype=torch.long)], 1)
    (seen,), _ = watched(Cached(), ["a", "b"], (torch.randn(3, 2, 4), mask, Cache()))
    assert seen.mask is not None
    assert torch.equal(seen.mask, new.bool())


def test_a_chunk_behind_a_real_cache_takes_the_last_columns() -> None:
    model, new = llama(), torch.tensor([[1, 0], [0, 1], [1, 1]])
    with torch.no_grad():
        past = model(input_ids=tokens(3, 7), attention_mask=LEFT, use_cache=True).past_key_values
    call = {
        "input_ids": tokens(3, 2),
        "attention_mask": torch.cat([LEFT, new], 1),
        "past_key_values": past,
    }
    (seen,), _ = watched(model, "model.layers.*", call)
    assert seen.mask is not None
    assert torch.equal(seen.mask, new.bool())


def test_a_decoder_is_not_masked_by_its_encoders_padding() -> None:
    """Both sequences have seven positions here, so the shape alone would let it through."""
    call = {"input_ids": tokens(3, 7), "attention_mask": LEFT, "decoder_input_ids": tokens(3, 7)}
    (seen,), report = watched(t5(), "decoder.block.*", call)
    assert seen.mask is None
    assert report.masks == {}
    assert "has 'decoder_input_ids' too" in str(report)
    (seen,), _ = watched(t5(), "encoder.block.*", call)
    assert seen.mask is not None
    assert torch.equal(seen.mask, LEFT.bool())
    call["decoder_attention_mask"] = RIGHT
    (seen,), report = watched(t5(), "decoder.block.*", call)
    assert seen.mask is not None
    assert torch.equal(seen.mask, RIGHT.bool())
    assert report.masks_aside == {}


@pytest.mark.parametrize(
    ("mask", "why"),
    [
        (torch.zeros(3, 1, 7, 7), "it has 4 axes"),
        (torch.ones(3, 9), r"its shape is (3, 9), that of the states (3, 7)"),
        (torch.ones(2, 7), r"its shape is (2, 7), that of the states (3, 7)"),
        (torch.full((3, 7), -1e9), "it holds other numbers than 0 and 1"),
        (torch.zeros(3, 7), "it is 0 everywhere, as one is that is added to scores"),
    ],
    ids=["four axes", "longer", "another batch", "additive", "additive without padding"],
)
def test_a_mask_that_does_not_say_which_positions_count_is_left_aside(
    mask: Tensor, why: str
) -> None:
    call = (torch.randn(3, 7, 4), mask)
    with pytest.warns(RuntimeWarning, match=f"left aside.*{re.escape(why)}.*padding inc") as warned:
        seen, report = watched(Custom(), ["a", "b"], call, call)
    assert len(warned) == 1
    assert [each.mask for each in seen] == [None, None]
    assert report.masks_aside == {why: 2}
    assert f"attention_mask left aside: 2×, {why}" in str(report)


def test_masks_that_a_model_makes_for_itself_are_no_masks_of_its_caller() -> None:
    """Eager attention is given one of four axes, with padding or without."""
    model = bert()
    model.set_attn_implementation("eager")
    layers = ["bert.encoder.layer.0.attention", "bert.encoder.layer.0.output"]
    (seen,), report = watched(model, layers, {"input_ids": tokens(3, 7)})
    assert seen.mask is None or bool(seen.mask.all())
    assert report.masks_aside == {}
    call = {"input_ids": tokens(3, 7), "attention_mask": RIGHT}
    (seen,), report = watched(model, layers, call)
    assert seen.mask is not None
    assert torch.equal(seen.mask, RIGHT.bool())
    assert report.masks_aside == {}


def test_a_mask_may_be_positional_and_the_probes_own_comes_before_it() -> None:
    model, x, got = Custom(), torch.randn(3, 7, 4), list[Trajectory]()
    with tk.attach(model, ["a", "b"]) as probe:
        probe.stream_to(got.append)
        model(x, LEFT)
        with probe.mask(RIGHT):
            model(x, LEFT)
        model(x)
    first, second, third = got
    assert first.mask is not None
    assert second.mask is not None
    assert torch.equal(first.mask, LEFT.bool())
    assert torch.equal(second.mask, RIGHT.bool())
    assert third.mask is None
    assert probe.report().masks == {"attention_mask": 1, "probe.mask": 1}


def test_the_mask_is_that_of_the_call_even_if_the_model_overwrites_it() -> None:
    class Overwrites(Custom):
        def forward(self, x: Tensor, attention_mask: Tensor | None = None) -> Tensor:
            assert attention_mask is not None
            attention_mask.fill_(1)
            return super().forward(x)

    (seen,), _ = watched(Overwrites(), ["a", "b"], (torch.randn(3, 7, 4), LEFT.clone()))
    assert seen.mask is not None
    assert torch.equal(seen.mask, LEFT.bool())


def test_a_mask_of_one_call_is_not_that_of_the_next() -> None:
    x = torch.randn(3, 7, 4)
    (first, second), _ = watched(Custom(), ["a", "b"], (x, LEFT), (x,))
    assert first.mask is not None
    assert second.mask is None


def test_it_can_be_switched_off() -> None:
    call = (torch.randn(3, 7, 4), LEFT)
    (seen,), report = watched(Custom(), ["a", "b"], call, attention_mask=False)
    assert seen.mask is None
    assert report.masks == report.masks_aside == {}


def test_sampled_positions_and_the_mask_meet() -> None:
    (seen,), report = watched(Custom(), ["a", "b"], (torch.randn(3, 7, 4), LEFT), positions=4)
    assert seen.mask is not None
    assert seen.chosen is not None
    assert torch.equal(seen.mask, LEFT.bool())
    rows = int(LEFT.gather(1, seen.chosen).sum())
    assert len(seen.rows()["a"]) == rows
    assert (report.streams[0].rows, report.positions) == (rows, 12)


@pytest.mark.parametrize("forward", [None, lambda model, batch: model(**batch)])
def test_fit_and_attach_agree_on_what_counts(forward: Any) -> None:
    model, generator = Custom(), torch.Generator().manual_seed(0)
    batch = {"x": torch.randn(3, 7, 4, generator=generator), "attention_mask": LEFT}
    batch["x"][~LEFT.bool()] *= 1e3
    fitter = tk.DMDFitter()
    with torch.no_grad(), tk.attach(model, ["a", "b"]) as probe:
        probe.stream_to(fitter)
        model(**batch)
    options: dict[str, Any] = {"held_out": [batch], "progress": False, "forward": forward}
    fitted = tk.fit(model, [batch], ["a", "b"], method="dmd", **options)
    assert fitted.record.rows == fitter.surrogate.record.rows == 15
    assert torch.equal(fitted.operator.matrix(1.0), fitter.surrogate.operator.matrix(1.0))


def test_a_fit_says_that_padding_counts_where_its_mask_cannot_be_taken() -> None:
    batch = {"x": torch.randn(9, 7, 4), "attention_mask": torch.zeros(9, 1, 7, 7)}
    with pytest.warns(RuntimeWarning, match=r"left aside in a forward pass.*4 axes") as warned:
        tk.fit(Custom(), [batch] * 4, ["a", "b"], method="dmd", held_out=[batch], progress=False)
    assert len(warned) == 2  # one for each loader


@pytest.mark.parametrize("kind", ["bool", "float"])
def test_the_padding_of_torchs_own_encoder_is_left_out(kind: str) -> None:
    """There True, or minus infinity, is padding."""
    layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
    model, x = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), torch.randn(3, 7, 4)
    padding = LEFT == 0
    given = padding if kind == "bool" else torch.zeros(3, 7).masked_fill(padding, -torch.inf)
    call = {"src": x, "src_key_padding_mask": given}
    (seen, plain), report = watched(model.eval(), "layers.*", call, (x,))
    assert seen.mask is not None
    assert torch.equal(seen.mask, LEFT.bool())
    assert plain.mask is None
    assert report.masks == {"src_key_padding_mask": 1}


@pytest.mark.parametrize(("part", "rows"), [("encoder", 15), ("decoder", 21)])
def test_the_padding_of_torchs_own_encoder_is_not_that_of_the_decoder(part: str, rows: int) -> None:
    """Also where both sequences are of one length, and its shape fits."""
    model = nn.Transformer(4, 2, 2, 2, 8, batch_first=True).eval()
    call = {"src": torch.randn(3, 7, 4), "tgt": torch.randn(3, 7, 4)}
    given = {**call, "src_key_padding_mask": LEFT == 0}
    (seen, plain), report = watched(model, f"{part}.layers.*", given, tuple(call.values()))
    assert [int(each.counted().sum()) for each in (seen, plain)] == [rows, 21]
    assert sum(report.masks_aside.values()) == (part == "decoder")


def test_a_classification_token_needs_no_mask_and_no_warning() -> None:
    batch = {"input_ids": tokens(3, 7), "attention_mask": LEFT}
    layers = ["bert.pooler.dense", "bert.pooler.activation"]
    options: dict[str, Any] = {"method": "dmd", "held_out": [batch], "progress": False}
    surrogate = tk.fit(bert(), [batch] * 9, layers, **options)
    assert surrogate.record.rows == 27
