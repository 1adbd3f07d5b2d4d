"""Choose a span and swap it in a transformer
==========================================

Which layers of a decoder can one linear operator replace, and what is lost? A small Llama learns to
count in steps modulo 29; its spans are ranked; one is replaced, and the model goes on generating.
"""

import torch
from matplotlib import pyplot as plt
from transformers import LlamaConfig, LlamaForCausalLM

import torchkoopman as tk


def sequences(count, length=16):
    start, step = torch.randint(29, (count, 1)), torch.randint(1, 29, (count, 1))
    return (start + step * torch.arange(length)) % 29


torch.manual_seed(0)
sizes = {"hidden_size": 48, "intermediate_size": 192, "num_hidden_layers": 6, "vocab_size": 29}
model = LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=4, eos_token_id=None))
optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=250)
for _ in range(250):
    tokens = sequences(32)
    optimizer.zero_grad()
    model(input_ids=tokens, labels=tokens).loss.backward()
    optimizer.step()
    schedule.step()

# %%
# One pass over the data ranks all spans; those in colour are best at some price.
batches = [{"input_ids": sequences(100)} for _ in range(20)]
causal = [tk.RandomFeatures(200), tk.ContextMean(causal=True), tk.Neighbours((-1,))]  # look back
ranking = tk.rank_spans(model.eval(), batches, "model.layers.*", observables=causal, progress=False)
span = max((each for each in ranking.spans if each.r2 > 0.8), key=lambda each: each.saved)

figure, ax = plt.subplots(figsize=(7, 4), layout="constrained")
for each in reversed(ranking.spans):
    saved = 100 * each.saved / ranking.network.operations
    ax.scatter(saved, each.r2, color="C1" if each is span else "C0" if each.best else "0.8")
    if each.best:
        name = f" {each.start} → {each.end}".replace("model.layers.", "")
        ax.text(saved, each.r2, f"{name}, chosen" if each is span else name, va="bottom")
ax.set(xlabel="operations saved, % of the network", ylabel="R² on rows kept out")
ax.set(xlim=(0, 85), ylim=(None, 1))

# %%
# The swap keeps the model's class, so ``generate`` works. Beside it, the model that skips the span.
ends, options = (span.start, span.end), {"how": "eager", "example_inputs": batches[0]}
surrogate = tk.fit(model, batches, ends, method="edmd", observables=causal, progress=False)
networks = {"model": model, "swapped": tk.swap(model, surrogate, **options)}
networks["skipped"] = tk.swap(model, torch.nn.Identity(), *ends, **options)
prompt, truth = sequences(500).split([6, 10], dim=1)
right = {}
for name, network in networks.items():
    text = network.generate(prompt, max_new_tokens=10, do_sample=False, use_cache=True)[:, 6:]
    right[name] = 100 * (text == truth).double().mean().item()
    print(f"{name:8} {right[name]:5.1f} % of the generated tokens right")
