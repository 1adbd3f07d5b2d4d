"""Forget a class and audit it
===========================

The operator is edited so that no point is taken for a dot any more. Whether that is forgetting has
to be measured, beside the network before the edit and one that was trained without the dots.
"""

import torch
from torch import nn

import torchkoopman as tk
from torchkoopman.datasets import yin_yang

train, test = yin_yang(seed=0)  # three classes: yin, yang, and the dots, which are class 2


def make(seed=1):
    torch.manual_seed(seed)
    hidden = [layer for _ in range(4) for layer in (nn.Linear(32, 32), nn.Tanh())]
    return nn.Sequential(nn.Linear(4, 32), nn.Tanh(), *hidden, nn.Linear(32, 3))


def teach(network, batches):
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(30):
        for x, y in batches:
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(x), y).backward()
            optimizer.step()


model, loader = make(seed=0), train.loader(500)
teach(model, loader)

# %%
# The fit keeps moments of each class, so that the edit is a closed form: no data, no training.
surrogate = tk.fit(model.eval(), loader, ["1", "9"], method="edmd", progress=False)
forgetful = tk.unlearn(surrogate, classes=[2], model=model)
edited, options = tk.swap(model, forgetful), {"unedited": tk.swap(model, surrogate)}
options["surrogates"] = {"edited": forgetful, "unedited swap": surrogate}
report = tk.audit(
    model, edited, [2], loader, test.loader(1000), retrained=tk.Retraining(make, teach), **options
)
print(report)


# %%
# No dot is left, as in the network that never saw one, and the edited network's answers are near
# that one's. Here is what each network gained or lost on each class against the original.
report.plot()

# %%
# Where the edit sends the dots: from where they were, among the points around them. The class is
# learnt again in fewer steps than the retrained network needs: the edit redirects what is known of
# the dots and does not erase it.
surrogate.paths(model, test.loader(1000), samples=150, edited=forgetful).plot()
