"""The bench of residual streams: the maps that are iterated are the decoder's own blocks."""

from typing import Any

import pytest
import torch

from benchmarks.parts import streams


@pytest.fixture(scope="module")
def decoder() -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = streams.decoder(24).eval()
        for weight in model.parameters():  # so that each block and norm does something of its own
            weight.data += 0.2 * torch.randn_like(weight)
    return model


IDS = torch.randint(24, (3, streams.POSITIONS), generator=torch.Generator().manual_seed(1))


def test_all_blocks_with_the_norm_lead_to_the_logits_of_the_decoder(decoder: Any) -> None:
    flow = streams.stream(decoder, list(range(streams.DEPTH)), norm=True)
    with torch.no_grad():
        start = decoder.get_input_embeddings()(IDS)
        found = decoder.lm_head(start + flow.velocity(start))
        torch.testing.assert_close(found, decoder(input_ids=IDS).logits, atol=1e-4, rtol=1e-4)


def test_blocks_one_by_one_without_a_norm_are_all_of_them(decoder: Any) -> None:
    whole = streams.stream(decoder, list(range(streams.DEPTH)), norm=False)
    with torch.no_grad():
        state = start = decoder.get_input_embeddings()(IDS)
        for block in range(streams.DEPTH):
            state = state + streams.stream(decoder, [block], norm=False).velocity(state)
    torch.testing.assert_close(state, start + whole.velocity(start), atol=1e-4, rtol=1e-4)


def test_the_decoder_is_as_it_was(decoder: Any) -> None:
    before = decoder(input_ids=IDS).logits
    streams.stream(decoder, [0], norm=False)
    torch.testing.assert_close(decoder(input_ids=IDS).logits, before, rtol=0, atol=0)


def test_text_is_of_its_seed_and_windows_lie_in_it() -> None:
    letters, ids = streams.text(0)
    assert streams.text(0)[1].equal(ids)
    assert not streams.text(1)[1][:200].equal(ids[:200])
    whole = "".join(letters[k] for k in ids.tolist())
    with torch.random.fork_rng():
        batch = streams.windows(ids, 20, 8)
    assert batch.shape == (20, 9)
    assert all("".join(letters[k] for k in row) in whole for row in batch.tolist())


def test_the_table_tells_what_starts_did_and_what_attractors_say() -> None:
    row = {"converged": 0.5, "diverged": 0.0, "growth": 5312.0, "speed": 1e-5, "attractors": 2}
    row |= {"distinct": 2, "own letters": 0.1, "next letters": 0.2, "decoded": ["the dog "]}
    maps = {f"trained; all blocks, norm; {start}": row for start in ("text", "noise")}
    text = streams.table({"decoder-0": {"right": {"trained": 0.8}, "maps": maps}})
    assert "| 5300 | 1e-05 |" in text
    assert "right: trained 80.0 %." in text
    assert "“the dog ”" in text
