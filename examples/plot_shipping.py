"""Edit a network and ship it to ONNX
==================================

The edited network leaves as one file that runs without torch and without this library. A card in
the file tells what was fitted, swapped and forgotten.
"""

import tempfile

import onnxruntime
import torch
from matplotlib import pyplot as plt
from torch import nn

import torchkoopman as tk
from torchkoopman.datasets import yin_yang

torch.manual_seed(0)
train, test = yin_yang(seed=0)  # three classes: yin, yang, and the dots, which are class 2
hidden = [layer for _ in range(4) for layer in (nn.Linear(32, 32), nn.Tanh())]
model = nn.Sequential(nn.Linear(4, 32), nn.Tanh(), *hidden, nn.Linear(32, 3))
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
for _ in range(300):
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(train.inputs), train.labels).backward()
    optimizer.step()

# %%
# One operator takes the place of four layers, and is then made to forget the dots.
fit = {"steps": 400, "latent": 32, "progress": False}
surrogate = tk.fit(model.eval(), train.loader(500, seed=0), ["1", "3", "5", "7", "9"], **fit)
swapped = tk.swap(model, surrogate)
forgetful = tk.swap(model, tk.unlearn(surrogate, classes=[2], model=model))
path = tk.export(forgetful, f"{tempfile.mkdtemp()}/without_dots.onnx")

# %%
# From here on the file alone is used. Its card was checked against its content when it was read.
session = onnxruntime.InferenceSession(path)
card = tk.read_card(path)["swaps"][0]
edit = card["card"]["edits"][0]
print(f"swapped: {card['start']} to {card['end']}; forgotten: classes {edit['classes']}")
(answers,) = session.run(None, {session.get_inputs()[0].name: test.inputs.numpy()})
difference = (torch.from_numpy(answers) - forgetful(test.inputs)).abs().max()
print(f"{len(answers)} answers, at most {difference:.1e} from the network's")

# %%
# What each of them makes of the unseen points.
maps = {"network": model(test.inputs), "swapped": swapped(test.inputs)}
maps["edited, in onnxruntime"] = torch.from_numpy(answers)
figure, axes = plt.subplots(1, 3, figsize=(8, 3.1), layout="constrained", sharey=True)
for ax, (title, logits) in zip(axes, maps.items(), strict=True):
    ax.scatter(*test.inputs[:, :2].T, 3, [f"C{label}" for label in logits.argmax(1)])
    ax.set(title=title, xlabel="x", aspect="equal")
axes[0].set_ylabel("y")
