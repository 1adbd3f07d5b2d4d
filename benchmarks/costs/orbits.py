"""Orbits and settling beside the bare loop of module calls: ``python -m benchmarks.costs.orbits``.

Ten thousand starts of an autoencoder with 32 latent coordinates, 500 steps, nothing stopped early.
"""

from __future__ import annotations

import torch
from torch import nn

from benchmarks.costs.measuring import in_turn, verdict
from benchmarks.tables import markdown
from torchkoopman.flows import Flow

STARTS, LATENT, HIDDEN, FEATURES, STEPS, TURNS = 10_000, 32, 128, 784, 500, 3
GOAL = 0.8


def main() -> None:
    """Time them in turn and print throughputs as shares of the bare loop's."""
    torch.manual_seed(0)
    encode = nn.Sequential(nn.Linear(FEATURES, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, LATENT)).eval()
    decode = nn.Sequential(nn.Linear(LATENT, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, FEATURES)).eval()
    starts = torch.randn(STARTS, LATENT)
    flow = Flow.of_autoencoder(encode, decode)

    @torch.no_grad()
    def bare() -> torch.Tensor:
        state = starts
        for _ in range(STEPS):
            state = encode(decode(state))
        return state

    contenders = {
        "modules called in a loop": bare,
        "Flow.orbit": lambda: flow.orbit(starts, STEPS, every=STEPS),
        "Flow.settle, never at rest": lambda: flow.settle(starts, STEPS, tolerance=1e-300),
    }
    found = in_turn(contenders, TURNS)
    rows = [[name, f"{row['least']:.1f}", f"{1 / row['ratio']:.2f}"] for name, row in found.items()]
    print(markdown(["", "s", "throughput"], rows))
    share = 1 / found["Flow.orbit"]["ratio"]
    print(f"Goal: at least {GOAL} of the loop's throughput; {share:.2f}: {verdict(share >= GOAL)}.")


if __name__ == "__main__":
    main()
