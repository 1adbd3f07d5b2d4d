"""See depth in a network
======================

Depth is treated as time: each layer's output is a state, and one linear operator carries it on to
the next. The pictures show the states of unseen points, what the operator makes of them, its
eigenvalues, and how many pieces the points fall into at each scale.
"""

import torch
from matplotlib import pyplot as plt
from torch import nn

import torchkoopman as tk
from torchkoopman.datasets import yin_yang


class Residual(nn.Sequential):
    def forward(self, x):
        return x + super().forward(x)


torch.manual_seed(0)
train, test = yin_yang(seed=0)  # points in the plane, of three classes
blocks = [Residual(nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 16)) for _ in range(5)]
model = nn.Sequential(nn.Linear(4, 16), *blocks, nn.Linear(16, 3))
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
for _ in range(200):
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(train.inputs), train.labels).backward()
    optimizer.step()

# %%
# The autoencoder learns coordinates in which all blocks follow one linear law. On unseen points:
layers, loader = ["1", "2", "3", "4", "5"], train.loader(500, seed=0)
surrogate = tk.fit(model.eval(), loader, layers, steps=400, latent=32, progress=False)
print(tk.evaluate(surrogate, model, test.loader(500)))

# %%
# The two principal axes of each block, coloured by class. The lower row starts from the states of
# block 1 and follows the operator alone; no block is run.
states = [model[: 1 + k](test.inputs).detach() for k in range(1, 6)]
figure, axes = plt.subplots(2, 5, figsize=(8.5, 3.8), layout="constrained", sharex="col")
for k, path in enumerate(surrogate.trajectory(states[0][:, None])[:, :, 0]):
    plane = torch.linalg.svd(states[k] - states[k].mean(0), full_matrices=False).Vh[:2]
    for ax, cloud in zip(axes[:, k], (states[k], path), strict=True):
        ax.scatter(*((cloud - states[k].mean(0)) @ plane.T).T, 2, [f"C{y}" for y in test.labels])
        ax.set(xticks=[], yticks=[], ylim=axes[0, k].get_ylim())
    axes[0, k].set_title(f"block {layers[k]}")
axes[0, 0].set_ylabel("network")
axes[1, 0].set_ylabel("surrogate, from block 1")

# %%
# Eigenvalues, filled if the data bear them out; and the pieces that points nearer than ε form.
shape = surrogate.topology(model, test.loader(500), points=500, dimensions=[0])
figure, (left, right) = plt.subplots(1, 2, figsize=(8.5, 4.4), layout="constrained")
surrogate.spectrum().plot(left)
for curve, name in zip(shape.layers[-1].curves[0], ("network", "surrogate"), strict=True):
    right.semilogx(curve.scales, curve.values, label=name, drawstyle="steps-post")
right.set(xlabel="ε, in units of the states", ylabel="pieces, β0", title="points of block 5")
right.legend()
