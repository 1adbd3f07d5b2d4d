"""Two short trainings in a log, as the library writes them, and what was written."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torchkoopman_tensorboard import EventFolder, log

import torchkoopman as tk
from tests.showing.test_series import audit, topology
from tests.systems import normal

if TYPE_CHECKING:
    from pathlib import Path

LAYERS = {"b.2-b.10": ("b.2", "b.10"), "b.2-b.9": ("b.2", "b.9", "b.<9>")}
"""Spans in the order of their numbers, and their layers."""
STEPS = (0, 10, 20, 35, 50)
RUNS = ("lr 9", "lr 10")


def fitted(run: int, step: int, layers: tuple[str, ...]) -> tk.Surrogate:
    """A turn and a decay that change with the training; noise makes some modes doubtful."""
    x = normal(400, 4, seed=run)
    angle = 0.4 + 0.01 * step + 0.3 * run
    turn = torch.tensor([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    A = torch.block_diag(0.98 * turn, torch.diag(torch.tensor([0.7 - 0.005 * step, 0.2])))
    states = [x]
    for k in range(len(layers) - 1):
        states.append(states[-1] @ A + 0.02 * normal(400, 4, seed=100 + step + k))
    named = {layer: state[:, None] for layer, state in zip(layers, states, strict=True)}
    return tk.DMDFitter(dynamics="span").update(tk.Trajectory(named)).surrogate


def logged(folder: Path) -> dict[tuple[str, str, int], tk.Surrogate]:
    """Write both trainings; run, span and step → the surrogate that was logged."""
    written = {}
    for number, run in enumerate(RUNS):
        events = EventFolder(folder / run).open(0)
        for span, layers in LAYERS.items():
            spectra: list[tk.results.Spectrum] = []
            for step in STEPS:
                fit = written[run, span, step] = fitted(number, step, layers)
                spectra.append(fit.spectrum())
                tracks = tk.follow(spectra, steps=STEPS[: len(spectra)])
                said = replace(fit.record, notes=(f"fitted after step {step}",))
                log(events, fit.with_(record=said), step, span, tracks=tracks)
        log(events, topology(), STEPS[-1], "b.2-b.9")
        log(events, audit(), STEPS[-1])
        events.close()
    return written
