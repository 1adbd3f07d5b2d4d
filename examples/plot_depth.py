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
# Some unseen points in the two principal axes of each block, coloured by class. Dots are the
# network's states; rings start from the state of block 1 and follow the operator alone.
paths = surrogate.paths(model, test.loader(500), samples=150)
print(paths)
paths.plot()

# %%
# Eigenvalues, filled if the data bear them out; and the pieces that points nearer than ε form.
shape = surrogate.topology(model, test.loader(500), points=500, dimensions=[0])
figure, (left, right) = plt.subplots(1, 2, figsize=(8.5, 4.4), layout="constrained")
surrogate.spectrum().plot(left)
for curve, name in zip(shape.layers[-1].curves[0], ("network", "surrogate"), strict=True):
    right.semilogx(curve.scales, curve.values, label=name, drawstyle="steps-post")
right.set(xlabel="ε, in units of the states", ylabel="pieces, β0", title="points of block 5")
right.legend()
