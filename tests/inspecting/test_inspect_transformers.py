"""``tk.inspect`` on transformers of tiny configurations, with padding."""

from typing import Any

import pytest
import torch

import torchkoopman as tk
from tests.systems import seeded
from torchkoopman.results import Inspection

transformers = pytest.importorskip("transformers")

TOKENS = {"vocab_size": 50, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}


def batches(lengths: tuple[int, int] = (5, 13)) -> list[dict[str, Any]]:
    kept, generator = [], seeded()
    for _ in range(5):
        ids = torch.randint(3, 50, (16, 12), generator=generator)
        ends = torch.randint(*lengths, (16, 1), generator=generator)
        kept.append({"input_ids": ids, "attention_mask": (torch.arange(12) < ends).long()})
    return kept


def inspect(model: Any, loader: Any) -> Inspection:
    return tk.inspect(model, loader, points=30, progress=False)


def gpt2() -> Any:
    config = transformers.GPT2Config(n_embd=8, n_layer=3, n_head=2, n_positions=12, **TOKENS)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return transformers.GPT2LMHeadModel(config)


def test_blocks_of_gpt2_and_the_state_before_them_without_padding() -> None:
    loader = batches()
    found = inspect(gpt2(), loader)
    assert found.layers == (
        "transformer.drop",
        *(f"transformer.h.{k}" for k in range(3)),
    )
    assert "3 × GPT2Block" in found.found
    assert found.rows == sum(int(batch["attention_mask"].sum()) for batch in loader)
    assert all(block.r2 is not None and block.r2 > (block.skip or 0) for block in found.blocks)
    assert found.skipped == ()


def test_blocks_of_bert_hide_the_longer_run_of_query_key_and_value() -> None:
    config = transformers.BertConfig(
        hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16, **TOKENS
    )
    found = inspect(transformers.BertModel(config), batches())
    assert found.layers == ("embeddings", "encoder.layer.0", "encoder.layer.1")


def test_encoder_and_decoder_of_one_class_are_no_blocks() -> None:
    config = transformers.T5Config(
        d_model=8, num_layers=3, num_decoder_layers=2, num_heads=2, d_ff=16, d_kv=4, **TOKENS
    )
    loader = [{**batch, "decoder_input_ids": batch["input_ids"]} for batch in batches()]
    found = inspect(transformers.T5Model(config), loader)
    assert "3 × T5Block" in found.found
    assert found.layers[-1] == "encoder.block.2"
    assert "decoder.block" in found.found


def test_padded_batches_of_other_lengths_have_rows_of_their_own_alone() -> None:
    model, loader = gpt2(), batches()
    for batch in loader[1:]:
        batch["input_ids"], batch["attention_mask"] = (
            batch[name][:, :9] for name in ("input_ids", "attention_mask")
        )
    found = inspect(model, loader)
    assert found.rows == sum(int(batch["attention_mask"].sum()) for batch in loader)
