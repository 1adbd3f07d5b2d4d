"""A sheet of states that holds two numbers
========================================

A gated neural ODE with two states is trained to hold the latest pulse of each of two inputs, of any
height between -1 and 1. What it learns is a sheet: between pulses its states move slowly, and where
on the sheet a state is says which two numbers are held. Few of its points are at rest, so the
numbers fade in the end.
"""

import torch
from matplotlib import pyplot as plt
from torch import nn

import torchkoopman as tk

train, test = (
    tk.flows.flip_flops(500, shape="square", generator=torch.Generator().manual_seed(seed))
    for seed in (0, 1)
)
torch.manual_seed(0)
cell, readout = tk.flows.GatedODECell(2, 2, widths=[64, 64]), nn.Linear(2, 2)
parameters = [*cell.parameters(), *readout.parameters()]
optimizer = torch.optim.AdamW(parameters, lr=1e-2)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 800)
for _ in range(800):
    rows = torch.randperm(500)[:50]
    loss = (readout(cell.run(train.inputs[:, rows])) - train.targets[:, rows]).square().mean()
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()
    schedule.step()
with torch.no_grad():
    states = cell.eval().run(test.inputs)
    error = (readout(states) - test.targets).square().mean()
print(f"test error {error:.4f}; the variance of the targets {test.targets.var():.4f}")

# %%
# The flow between pulses, at zero input, with the fixed points that Newton's method finds. A few
# points attract, with multipliers near 1, so that states stay near where they are for many steps.
resting = tk.flows.Flow.of_cell(cell, torch.zeros(2))
found = resting.fixed_points(states[-1, :200], search="newton")
print(found)
figure, places = plt.subplots(1, 3, figsize=(15, 4.6), layout="constrained")
found.plot(resting, places[0]).set_title("flow between pulses")
shown = places[1].scatter(*states[-1].T, c=test.targets[-1, :, 0], s=12, cmap="coolwarm")
figure.colorbar(shown, label="first number held")
places[1].set(title="states at the end of 500 trials", xlabel="first coordinate")

# %%
# How far the read-out moves after the last pulse: at its variance nothing is left of the numbers. A
# trial has 100 steps, and pulses come about every eighth.
drift = tk.flows.readout_drift(resting, readout, states[-1], steps=200)
places[2].plot(drift, label="drift of the read-out")
variance = readout(states[-1]).var(0).sum().item()
places[2].axhline(variance, color="0.6", label="its variance")
print(f"drift after 8 and after 100 steps: {drift[8]:.3f}, {drift[100]:.3f} of {variance:.3f}")
places[2].set(xlabel="steps without a pulse", title="how long the numbers are held")
places[2].legend()
plt.show()
