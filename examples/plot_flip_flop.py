"""A sheet of states that holds two numbers
========================================

A gated neural ODE with two states is trained to hold the latest pulse of each of two inputs, of any
height between -1 and 1. It learns a sheet: between pulses, states beside it come to it, and those
on it hardly move. Where on it a state is says which numbers are held, until they fade in the end.
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
optimizer = torch.optim.AdamW(parameters, lr=3e-2)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 800)
for rows in (torch.randperm(500)[:50] for _ in range(800)):
    loss = (readout(cell.run(train.inputs[:, rows])) - train.targets[:, rows]).square().mean()
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()
    schedule.step()
with torch.no_grad():
    states = cell.eval().run(test.inputs)[-1]
    variance = readout(states).var(0).sum()
    error = (readout(cell.run(test.inputs)) - test.targets).square().mean()
print(f"test error {error:.4f}; the variance of the targets {test.targets.var():.4f}")

# %%
# The phase portrait at zero input. The multipliers of its fixed points are near 1, so states stay.
resting = tk.flows.Flow.of_cell(cell, torch.zeros(2))
found = resting.fixed_points(states[:200], search="newton")
print(found)
figure, places = plt.subplots(1, 2, figsize=(11, 4.6), layout="constrained")
found.plot(resting, places[0], readout=readout.weight).set_title("flow between pulses")
plane = torch.cartesian_prod(*2 * [torch.linspace(-1.6, 1.6, 200)])
speed = resting.velocity(plane).norm(dim=1).clamp_min(1e-4).log10().view(200, 200).T
shown = places[1].imshow(speed.numpy(), "Greys_r", extent=(-1.6, 1.6) * 2, origin="lower")
outside = plane[plane.abs().amax(1) > 1.5][::60]
places[1].plot(*resting.orbit(outside, 40).unbind(2), color="tab:green", linewidth=0.7)
places[1].scatter(*states.T, c=test.targets[-1, :, 0], s=10, cmap="coolwarm")
figure.colorbar(shown, label="log10 of the speed")
places[1].set_title("its speed, orbits, and states by the first number held")

# %%
# How far the read-out moves after the last pulse, beside its variance. A trial has 100 steps.
drift = tk.flows.readout_drift(resting, readout, states, steps=200)
_, place = plt.subplots(figsize=(5.5, 3.4), layout="constrained")
place.plot(drift / variance)
place.set(xlabel="steps without a pulse", title="drift of the read-out over its variance")
print(f"drift in 8 and 100 steps {drift[8]:.3f}, {drift[100]:.3f} of {variance:.3f}")
plt.show()
