"""What the pages begin with: points of three classes, a network for them, and a surrogate of it."""

import torch

import torchkoopman as tk
from torchkoopman.datasets import yin_yang

train, test = yin_yang(seed=0)  # points in the plane; three classes: yin, yang, and the dots

torch.manual_seed(0)
hidden = [layer for _ in range(4) for layer in (torch.nn.Linear(32, 32), torch.nn.Tanh())]
model = torch.nn.Sequential(
    torch.nn.Linear(4, 32), torch.nn.Tanh(), *hidden, torch.nn.Linear(32, 3)
)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
for _ in range(300):
    optimizer.zero_grad()
    torch.nn.functional.cross_entropy(model(train.inputs), train.labels).backward()
    optimizer.step()
model.eval()

layers = ["1", "3", "5", "7", "9"]  # the five Tanh layers
surrogate = tk.fit(model, train.loader(500), layers, method="edmd", progress=False)
