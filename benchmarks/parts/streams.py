"""The residual stream of a small decoder, iterated (Fumero et al.): where it goes, what that says.

A decoder of four Llama blocks learns generated sentences, letter by letter. Its state is the stream
of eight positions, as it enters the first block; the map is all blocks, the first or the last, with
the decoder's final norm behind them or without. Nothing in the decoder was made to be iterated.
Starts are embedded text that it has not seen, and noise of the same size; beside it is the decoder
before its training. The paper iterates 300 times, and so do we.
"""

from __future__ import annotations

import copy
import random
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from benchmarks.parts.streams_table import table
from benchmarks.tables import seeds
from benchmarks.zoo.libraries import DECODER
from torchkoopman.flows import Flow

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["jobs", "table"]

ADJECTIVES = ("small", "red", "old", "quick", "blue", "tired")
NOUNS = ("cat", "dog", "bird", "child", "king", "robot")
VERBS = ("sees", "likes", "follows", "finds", "paints")
ADVERBS = ("here", "today", "again", "slowly")
SENTENCES, LENGTH, BATCH, STEPS = 6000, 32, 32, 1000
POSITIONS, STARTS, ITERATIONS = 8, 48, 300
DEPTH = 4
DECODER_SEED = 6000
"""Added to a seed for weights and training; text takes it bare."""
MAPS: dict[str, tuple[list[int], bool]] = {
    "all blocks, norm": (list(range(DEPTH)), True),
    "all blocks": (list(range(DEPTH)), False),
    "first block, norm": ([0], True),
    "last block, norm": ([DEPTH - 1], True),
}


def jobs(quick: bool) -> dict[str, Callable[[], dict[str, Any]]]:
    """One decoder for each seed, with all its maps."""
    steps, starts = (20, 4) if quick else (STEPS, STARTS)
    return {f"decoder-{seed}": partial(iterated, seed, steps, starts) for seed in seeds(quick)}


def iterated(seed: int, steps: int, count: int) -> dict[str, Any]:
    """A decoder before and after its training, iterated by each map from text and from noise."""
    letters, ids = text(seed)
    cut = 9 * len(ids) // 10
    torch.manual_seed(DECODER_SEED + seed)
    trained = decoder(len(letters))
    decoders = {"untrained": copy.deepcopy(trained).eval(), "trained": trained}
    train(trained, ids[:cut], steps)
    unseen = windows(ids[cut:], count, POSITIONS)
    found: dict[str, Any] = {"seed": seed, "right": {}, "maps": {}}
    for name, model in decoders.items():
        found["right"][name] = right(model, windows(ids[cut:], 500, LENGTH))
        with torch.no_grad():
            embedded = model.get_input_embeddings()(unseen[:, :-1])
        noise = embedded.std() * torch.randn(embedded.shape)
        for which, (blocks, norm) in MAPS.items():
            flow = stream(model, blocks, norm)
            for start, states in (("text", embedded), ("noise", noise)):
                key = f"{name}; {which}; {start}"
                found["maps"][key] = told(model, flow, norm, states, unseen, letters)
    return found


def text(seed: int) -> tuple[list[str], Tensor]:
    """Sentences such as "the red dog sees a cat today. ", as numbers of letters."""
    draw = random.Random(seed)

    def thing() -> str:
        adjective = draw.choice(ADJECTIVES) + " " if draw.random() < 0.5 else ""
        return f"{draw.choice(('the', 'a'))} {adjective}{draw.choice(NOUNS)}"

    def sentence() -> str:
        adverb = " " + draw.choice(ADVERBS) if draw.random() < 0.4 else ""
        return f"{thing()} {draw.choice(VERBS)} {thing()}{adverb}. "

    whole = "".join(sentence() for _ in range(SENTENCES))
    letters = sorted(set(whole))
    return letters, torch.tensor([letters.index(each) for each in whole])


def decoder(letters: int) -> Any:
    """Llama with four blocks of width 32; its attention is written out, which ``vmap`` can take."""
    import transformers

    sizes: dict[str, Any] = {
        **DECODER,
        "vocab_size": letters,
        "intermediate_size": 96,
        "num_hidden_layers": DEPTH,
    }
    more: dict[str, Any] = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"))
    more["attn_implementation"] = "eager"
    config = transformers.LlamaConfig(**{**sizes, **more})
    return transformers.LlamaForCausalLM(config)


def train(model: nn.Module, ids: Tensor, steps: int) -> None:
    """Next letters of random windows, by AdamW with one cycle of the learning rate."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=6e-3)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, 6e-3, total_steps=steps)
    for _ in range(steps):
        batch = windows(ids, BATCH, LENGTH)
        logits = model(input_ids=batch[:, :-1]).logits
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        cycle.step()
    model.eval()


def windows(ids: Tensor, count: int, length: int) -> Tensor:
    """Random windows of so many letters and the next one, ``(count, length + 1)``."""
    firsts = torch.randint(len(ids) - length, (count,))
    return ids[firsts[:, None] + torch.arange(length + 1)]


@torch.no_grad()
def right(model: nn.Module, batch: Tensor) -> float:
    """Share of next letters that are right, after eight or more."""
    predicted = model(input_ids=batch[:, :-1]).logits.argmax(-1)
    same: Tensor = predicted[:, 8:] == batch[:, 9:]
    return same.double().mean().item()


def stream(model: Any, blocks: list[int], norm: bool) -> Flow:
    """Some blocks of a decoder as a map of its residual stream."""
    core = copy.deepcopy(model.model)
    core.layers = nn.ModuleList([core.layers[k] for k in blocks])
    if not norm:
        core.norm = nn.Identity()
    core.eval()
    return Flow(lambda x: core(inputs_embeds=x).last_hidden_state, modules=[core])


def told(
    model: Any, flow: Flow, norm: bool, starts: Tensor, ids: Tensor, letters: list[str]
) -> dict[str, Any]:
    """What becomes of the starts, and what the attractors are decoded to.

    Decoded letters stand beside those of the text that the starts embed, and beside the letters
    that the decoder takes to be next.
    """
    found = flow.fixed_points(starts, ITERATIONS)
    settled = found.settled
    points = found.attractors

    def decoded(states: Tensor) -> Tensor:
        with torch.no_grad():
            chosen: Tensor = model.lm_head(states if norm else model.model.norm(states)).argmax(-1)
        return chosen

    def size(states: Tensor) -> float:
        return states.double().square().mean().sqrt().item()

    with torch.no_grad():
        following = model(input_ids=ids[:, :-1]).logits.argmax(-1)
    ends = decoded(settled.ends)
    words = ["".join(letters[k] for k in row) for row in decoded(points).tolist()]
    return {
        "converged": found.share_converged,
        "diverged": settled.diverged.double().mean().item(),
        "undecided": settled.undecided.double().mean().item(),
        "speed": settled.speeds.median().item(),
        "growth": size(settled.ends) / size(starts),
        "fixed": len(found.points),
        "attractors": len(points),
        "decoded": words[:3],
        "distinct": len(set(words)),
        "own letters": (ends == ids[:, :-1]).double().mean().item(),
        "next letters": (ends == following).double().mean().item(),
    }
