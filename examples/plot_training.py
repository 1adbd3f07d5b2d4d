"""Watch a network train
=====================

A monitor reads a few rows of some training steps and follows the operator between two layers while
the network changes. With a halflife the fit forgets the network as it was: after so many rows a row
counts half. What it finds goes into a folder of event files for TensorBoard.
"""

import tempfile

import torch
from matplotlib import pyplot as plt
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torchkoopman_tensorboard import EventFolder

import torchkoopman as tk
from torchkoopman.datasets import yin_yang

torch.manual_seed(0)
train, test = yin_yang(seed=0)
hidden = [layer for _ in range(4) for layer in (nn.Linear(32, 32), nn.Tanh())]
model = nn.Sequential(nn.Linear(4, 32), nn.Tanh(), *hidden, nn.Linear(32, 3))
optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)

# %%
# One step of every ten is watched, and a spectrum is taken after every fifty. Modes that the data
# bear out are followed from one spectrum to the next, as :func:`torchkoopman.follow` does.
folder = tempfile.mkdtemp()  # in a training of yours: "runs/first"
fitter = tk.DMDFitter(halflife=1000)
monitor = tk.TrainingMonitor(["1", "9"], EventFolder(folder), fitter, sample_every=10, log_every=50)
accuracy = []
with monitor.attach(model):
    for epoch in range(20):
        for x, y in train.loader(100, seed=epoch):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
            monitor.step()
        right = model.eval()(test.inputs).argmax(1) == test.labels  # the monitor reads train() only
        accuracy.append(right.double().mean().item())
        model.train()
print(monitor.tracks)

# %%
# The lower curve is read from the folder, where ``tensorboard --logdir`` finds it too: R², the
# share of the last layer's variance that an affine map of the first explains. Learning lowers it.
events = EventAccumulator(folder).Reload().Scalars("koopman/1-9/r2/9")
steps, explained = [event.step for event in events], [event.value for event in events]
figure, (upper, lower) = plt.subplots(2, 1, figsize=(7, 5), layout="constrained", sharex=True)
upper.plot(steps, accuracy, "C0.-")
upper.set(ylabel="share of unseen points right", ylim=(0.5, 1))
lower.plot(steps, explained, "C1.-")
lower.set(xlabel="training steps", ylabel="R² of an affine map", ylim=(None, 1))
