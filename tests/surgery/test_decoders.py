"""Decoders with a swapped span: they go on generating, and never look ahead."""

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import torchkoopman as tk

transformers = pytest.importorskip("transformers", reason="needs the extra 'transformers'")
Batch = dict[str, Tensor]


@dataclasses.dataclass(frozen=True)
class Decoder:
    """A decoder with random weights, and the names of what comes before and within its layers."""

    model: Any
    before: str
    layer: str


def llama() -> Decoder:
    config = transformers.LlamaConfig(
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=64,
        vocab_size=100,
        max_position_embeddings=64,
    )
    return Decoder(
        seeded(transformers.LlamaForCausalLM, config), "model.embed_tokens", "model.layers"
    )


def gpt2() -> Decoder:
    config = transformers.GPT2Config(
        n_embd=32,
        n_layer=4,
        n_head=4,
        vocab_size=100,
        n_positions=64,
        bos_token_id=0,
        eos_token_id=1,
    )
    return Decoder(
        seeded(transformers.GPT2LMHeadModel, config), "transformer.drop", "transformer.h"
    )


def seeded(kind: Any, config: Any) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return kind(config).eval()


def batch(seed: int, samples: int = 8, tokens: int = 16, padded: int = 0) -> Batch:
    """Tokens of which the first ``padded`` of the first half of the samples do not count."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(2, 100, (samples, tokens), generator=generator)
    mask = torch.ones(samples, tokens, dtype=torch.long)
    mask[: samples // 2, :padded] = 0
    return {"input_ids": ids, "attention_mask": mask}


OBSERVABLES: dict[str, list[Any]] = {
    "position by position": [],
    "looking back": [tk.ContextMean(causal=True), tk.Neighbours((-1,))],
}


def fitted(decoder: Decoder, start: str, end: str, kind: str) -> tk.Surrogate:
    fitter = tk.EDMDFitter(OBSERVABLES[kind])
    with tk.attach(decoder.model, [start, end]) as probe, torch.no_grad():
        probe.stream_to(fitter)
        for seed in range(10):
            given = batch(seed, padded=4)
            with probe.mask(given["attention_mask"]):
                decoder.model(**given)
    return fitter.surrogate


@pytest.mark.parametrize("build", [llama, gpt2])
@pytest.mark.parametrize("kind", OBSERVABLES)
@pytest.mark.parametrize("first", [True, False], ids=["the first layer", "later layers"])
def test_generation_with_the_cache_is_token_by_token_the_uncached_one(
    build: Any, kind: str, first: bool
) -> None:
    decoder = build()
    start = decoder.before if first else f"{decoder.layer}.0"
    end = f"{decoder.layer}.0" if first else f"{decoder.layer}.2"
    surrogate = fitted(decoder, start, end, kind)
    edited: Any = tk.swap(decoder.model, surrogate, how="eager", example_inputs=batch(0, padded=4))
    assert type(edited) is type(decoder.model)
    runs = [
        edited.generate(
            **batch(99, samples=4, tokens=6, padded=3),
            max_new_tokens=10,
            do_sample=False,
            use_cache=cached,
            pad_token_id=0,
            output_logits=True,
            return_dict_in_generate=True,
        )
        for cached in (True, False)
    ]
    assert torch.equal(runs[0].sequences, runs[1].sequences)
    for cached, uncached in zip(runs[0].logits, runs[1].logits, strict=True):
        torch.testing.assert_close(cached, uncached, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("how", ["export", "eager"])
@pytest.mark.parametrize("kind", OBSERVABLES)
@torch.no_grad()
def test_a_future_token_does_not_change_a_past_output(how: str, kind: str) -> None:
    decoder = llama()
    surrogate = fitted(decoder, "model.layers.0", "model.layers.2", kind)
    decoder.model.config.use_cache = how == "eager"
    edited = tk.swap(decoder.model, surrogate, how=how, example_inputs=batch(0))
    given, other = batch(1), batch(1)
    other["input_ids"][:, 10:] = 2 + (other["input_ids"][:, 10:] + 7) % 98
    found, changed = (edited(**each).logits for each in (given, other))
    torch.testing.assert_close(found[:, :10], changed[:, :10])
    assert not torch.allclose(found[:, 10:], changed[:, 10:])


def test_observables_that_look_ahead_do_change_it() -> None:
    decoder = llama()
    fitter = tk.EDMDFitter([tk.ContextMean(causal=False)])
    with tk.attach(decoder.model, ["model.layers.0", "model.layers.2"]) as probe, torch.no_grad():
        probe.stream_to(fitter)
        for seed in range(10):
            decoder.model(**batch(seed))
    edited = tk.swap(decoder.model, fitter.surrogate, how="eager", example_inputs=batch(0))
    given, other = batch(1), batch(1)
    other["input_ids"][:, 10:] = 5
    with torch.no_grad():
        found, changed = (edited(**each).logits for each in (given, other))
    assert not torch.allclose(found[:, :10], changed[:, :10])


@pytest.mark.parametrize("how", ["export", "eager"])
@pytest.mark.parametrize("build", [llama, gpt2])
@torch.no_grad()
def test_padding_does_not_change_what_counts(how: str, build: Any) -> None:
    decoder = build()
    start, end = f"{decoder.layer}.0", f"{decoder.layer}.2"
    surrogate = fitted(decoder, start, end, "looking back")
    decoder.model.config.use_cache = how == "eager"
    edited = tk.swap(decoder.model, surrogate, how=how, example_inputs=batch(0, padded=4))
    given, other = batch(1, padded=4), batch(1, padded=4)
    other["input_ids"][:4, :4] = 3
    found, changed = (edited(**each).logits for each in (given, other))
    counted = given["attention_mask"].bool()
    torch.testing.assert_close(found[counted], changed[counted])


def test_padded_positions_do_not_enter_the_moments() -> None:
    decoder = llama()
    layers = ["model.layers.0", "model.layers.2"]
    fitters = [tk.DMDFitter(), tk.DMDFitter()]
    for fitter, filler in zip(fitters, (3, 50), strict=True):
        with tk.attach(decoder.model, layers) as probe, torch.no_grad():
            probe.stream_to(fitter)
            for seed in range(5):
                given = batch(seed, padded=4)
                given["input_ids"][:4, :4] = filler
                with probe.mask(given["attention_mask"]):
                    decoder.model(**given)
    one, other = (fitter.surrogate for fitter in fitters)
    assert one.record.rows == other.record.rows == 5 * (4 * 16 + 4 * 12)
    state = torch.randn(2, 3, 32)
    torch.testing.assert_close(one(state), other(state), rtol=1e-4, atol=1e-4)


def test_a_decoder_that_returns_its_cache_is_swapped_eagerly_and_says_why() -> None:
    decoder = llama()
    ends = ("model.layers.0", "model.layers.2")
    edited = tk.swap(decoder.model, nn.Linear(32, 32), *ends, example_inputs=batch(0))
    record = tk.swap_history(edited)[-1]
    assert record.how == "eager"
    assert "cannot be traced by torch.fx" in record.why
    assert "use_cache=False" in record.why


def test_a_swapped_decoder_trains() -> None:
    decoder = llama()
    surrogate = fitted(decoder, "model.layers.0", "model.layers.2", "position by position")
    edited: Any = tk.swap(decoder.model, surrogate, how="eager", example_inputs=batch(0)).train()
    given = batch(1)
    loss = edited(**given, labels=given["input_ids"]).loss
    loss.backward()
    assert edited.model.layers[3].mlp.up_proj.weight.grad.abs().max() > 0
    assert edited.model.layers[0].mlp.up_proj.weight.grad.abs().max() > 0


def test_the_layers_that_went_are_gone_from_the_state_dict() -> None:
    decoder = gpt2()
    edited = tk.swap(
        decoder.model, nn.Linear(32, 32), "transformer.h.0", "transformer.h.2", "eager", batch(0)
    )
    names = set(edited.state_dict())
    assert not any(name.startswith("transformer.h.2.") for name in names)
    assert {name for name in names if name.startswith("transformer.h.1.")} == {
        "transformer.h.1.module.weight",
        "transformer.h.1.module.bias",
    }
    assert tk.swap_history(edited)[-1].layers == ("transformer.h.1", "transformer.h.2")
    assert "save_pretrained" in str(tk.swap_history(edited)[-1])
