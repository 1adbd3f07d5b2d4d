"""What an autoencoder remembers
=============================

Encoding after decoding is a map on latent states, and its orbits end at attractors. In a network
that was fitted to few samples these decode to something nearer to the samples than unseen data are;
in one that was fitted to many they do not.
"""

import torch
from matplotlib import pyplot as plt
from torch import nn

import torchkoopman as tk

train, test = tk.datasets.digits(seed=0)  # 8 × 8 pixels
images, unseen = train.inputs.flatten(1), test.inputs.flatten(1)


def autoencoder(inputs):
    """Two latent coordinates, trained to remove noise."""
    torch.manual_seed(0)
    encode = nn.Sequential(nn.Linear(64, 128), nn.Tanh(), nn.Linear(128, 2))
    decode = nn.Sequential(nn.Linear(2, 128), nn.Tanh(), nn.Linear(128, 64))
    optimizer = torch.optim.Adam([*encode.parameters(), *decode.parameters()], lr=3e-3)
    for _ in range(1500):
        batch = inputs[torch.randint(len(inputs), (min(128, len(inputs)),))]
        optimizer.zero_grad()
        (decode(encode(batch + 0.1 * torch.randn_like(batch))) - batch).square().mean().backward()
        optimizer.step()
    return encode.eval(), decode.eval()


# %%
# The field of an autoencoder of ten digits, and of one of all. Lines follow the velocity, encoding
# after decoding minus the state itself; filled points attract, rings do not.
coefficients, nulls = [], []
figure, places = plt.subplots(1, 2, figsize=(10, 5), layout="constrained")
for place, inputs in zip(places, (images[:10], images), strict=True):
    encode, decode = autoencoder(inputs)
    field = tk.flows.Flow.of_autoencoder(encode, decode)
    with torch.no_grad():
        starts = encode(torch.cat([inputs[:100], unseen[:100]]))
    found = field.fixed_points(starts, steps=5000)
    found.plot(field, place).set_title(f"{len(inputs)} digits")
    print(found)
    # The coefficient stands beside its null: how like training samples unseen digits are.
    with torch.no_grad():
        told = tk.flows.memorization(decode(found.attractors), inputs, unseen)
    print(told)
    coefficients.append(told.coefficient)
    nulls.append(told.null.mean().item())
plt.show()
