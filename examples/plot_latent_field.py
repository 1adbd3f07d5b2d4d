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
points, others = (part.inputs[:1000] for part in tk.datasets.yin_yang(seed=0))


def autoencoder(inputs):
    """Two latent coordinates, trained to remove noise."""
    torch.manual_seed(0)
    width = inputs.shape[1]
    encode = nn.Sequential(nn.Linear(width, 128), nn.Tanh(), nn.Linear(128, 2))
    decode = nn.Sequential(nn.Linear(2, 128), nn.Tanh(), nn.Linear(128, width))
    optimizer = torch.optim.Adam([*encode.parameters(), *decode.parameters()], lr=3e-3)
    for _ in range(1500):
        batch = inputs[torch.randint(len(inputs), (min(128, len(inputs)),))]
        optimizer.zero_grad()
        (decode(encode(batch + 0.1 * torch.randn_like(batch))) - batch).square().mean().backward()
        optimizer.step()
    return encode.eval(), decode.eval()


# %%
# The fields of three autoencoders: of points of the Yin-Yang, of ten digits, and of all. Lines
# follow the velocity, encoding after decoding minus the state itself; filled points attract, rings
# do not, and small dots are encoded samples. All points of the Yin-Yang have a training sample
# nearby, so that the coefficient, which its null equals, says nothing there.
fields = {"Yin-Yang": (points, others), "ten digits": (images[:10], unseen)}
fields["all digits"] = images, unseen
coefficients, nulls, shares = {}, {}, {}
figure, places = plt.subplots(1, 3, figsize=(14, 4.8), layout="constrained")
for place, (name, (inputs, new)) in zip(places, fields.items(), strict=True):
    encode, decode = autoencoder(inputs)
    field = tk.flows.Flow.of_autoencoder(encode, decode)
    with torch.no_grad():
        starts = encode(torch.cat([inputs[:100], new[:100]]))
        own = encode(inputs[:1000])
    found = field.fixed_points(starts, steps=5000)
    found.plot(field, place).set_title(name)
    place.scatter(*own.T, s=9, color="tab:orange", alpha=0.6, linewidths=0, zorder=2.5)
    print(found)
    # The coefficient stands beside its null: how like training samples unseen ones are.
    with torch.no_grad():
        told = tk.flows.memorization(decode(found.attractors), inputs, new)
    print(told)
    coefficients[name], nulls[name] = told.coefficient, told.null.mean().item()
    shares[name] = found.share_converged
plt.show()
