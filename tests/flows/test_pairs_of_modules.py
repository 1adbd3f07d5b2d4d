"""Flows of autoencoders of other kinds: convolutional, masked, and the library's own."""

from __future__ import annotations

import pytest
import torch

import torchkoopman as tk
from benchmarks.autoencoders import Autoencoder, Convolutional, Masked, Perceptron, denoise
from torchkoopman.flows import Flow, FlowMonitor, NoveltyScores, memorization, prototype_errors

pytest.importorskip("transformers", reason="needs the extra 'transformers'")
MAKERS = {
    "perceptron": (Perceptron, (64,)),
    "convolutional": (Convolutional, (1, 32, 32)),
    "masked": (Masked, (1, 8, 8)),
}


def images(shape: tuple[int, ...], rows: int = 6) -> torch.Tensor:
    square = tk.datasets.digits(seed=0).train.inputs[:rows].reshape(-1, 1, 8, 8)
    if shape[-1] == 32:
        square = torch.nn.functional.interpolate(square, scale_factor=4.0)
    return square.reshape(-1, *shape)


def made(name: str, steps: int = 3) -> tuple[Autoencoder, torch.Tensor]:
    maker, shape = MAKERS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        inputs = images(shape)
        return denoise(maker(), inputs, steps), inputs


@pytest.mark.parametrize("name", MAKERS)
def test_the_flow_of_a_pair_is_encode_after_decode_with_its_jacobian(name: str) -> None:
    model, inputs = made(name)
    model, inputs = model.double(), inputs.double()
    flow = Flow.of_autoencoder(model.encode, model.decode)
    with torch.no_grad():
        z = model.encode(inputs)
        assert model.decode(z).shape == inputs.shape
        again = model.encode(model.decode(z))
    torch.testing.assert_close(flow.velocity(z), again - z, atol=1e-9, rtol=0)
    J = flow.jacobian(z[:2])
    width = z[0].numel()
    assert J.shape == (2, width, width)
    step = 1e-3 if name == "masked" else 1e-6  # its softmax is of float32
    way = torch.randn(2, width, generator=torch.Generator().manual_seed(0)).view_as(z[:2]).to(z)
    with torch.no_grad():
        ahead, behind = (flow(z[:2] + sign * step * way) for sign in (1, -1))
    slope = (ahead - behind).flatten(1) / (2 * step)
    along = torch.einsum("nij,nj->ni", J, way.flatten(1))
    torch.testing.assert_close(along, slope, atol=step**0.5 / 50 * float(slope.abs().max()), rtol=0)


@pytest.mark.parametrize("name", MAKERS)
def test_everything_of_a_latent_field_runs_on_a_pair_of_any_kind(name: str) -> None:
    model, inputs = made(name)
    monitor = FlowMonitor(
        lambda m: Flow.of_autoencoder(m.encode, m.decode),
        {
            "train": lambda m: m.encode(inputs),
            "noise": torch.randn(4, *model.encode(inputs).shape[1:]),
        },
        steps=20,
    )
    with monitor.attach(model.train()):
        look = monitor.latest
    assert look.attractors.shape[1:] == model.encode(inputs).shape[1:]
    assert model.training
    model.eval()
    scores = NoveltyScores(model.encode, model.decode, inputs, steps=3)
    assert scores.compare(inputs, inputs + 5).auroc["kNN"] == 1
    told = prototype_errors(model.encode, model.decode, inputs, steps=20, points=2)
    assert (told.reconstruction <= told.bound * (1 + 1e-4)).all()
    with torch.no_grad():
        decoded = model.decode(model.encode(inputs))
    assert len(memorization(decoded, inputs).cosines) == len(inputs)


def test_a_mask_that_is_drawn_anew_is_refused_and_so_is_one_for_each_row() -> None:
    model, inputs = made("masked")
    assert isinstance(model, Masked)

    def encode(x: torch.Tensor) -> torch.Tensor:
        tokens: torch.Tensor = model.model.vit(x).last_hidden_state
        return tokens

    states = model.encode(inputs).detach()
    with pytest.raises(ValueError, match="two applications of the map to the same states differ"):
        Flow.of_autoencoder(encode, model.decode).velocity(states)
    # With a seed each application draws the same masks, but each row its own: an orbit whose
    # neighbours have ended would change its row, and go on under another mask.
    with pytest.raises(ValueError, match="draws numbers for each row"):
        Flow.of_autoencoder(encode, model.decode, seed=0).velocity(states)
    assert Flow.of_autoencoder(model.encode, model.decode).velocity(states).shape == states.shape


def test_the_field_of_a_closed_form_surrogate_vanishes_on_what_it_encodes() -> None:
    x = torch.randn(400, 3, generator=torch.Generator().manual_seed(0))
    after = x * torch.tensor([0.9, 0.5, 0.2])
    surrogate = tk.DMDFitter().update(tk.Trajectory.of(x, after)).surrogate
    encode, decode = tk.flows.autoencoder_of(surrogate)
    z = encode(x[:5])
    assert z.shape == (5, surrogate.latent)
    torch.testing.assert_close(decode(z).float(), x[:5], atol=1e-4, rtol=0)
    speed = Flow.of_autoencoder(encode, decode).velocity(z)
    torch.testing.assert_close(speed, torch.zeros_like(z), atol=1e-4, rtol=0)
    with pytest.raises(ValueError, match="not 'elsewhere'"):
        tk.flows.autoencoder_of(surrogate, "elsewhere")


def test_a_koopman_autoencoder_has_a_field_of_its_own_beside_its_operators() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(600, 4, generator=generator)
    fitter = tk.AutoencoderFitter(latent=6, steps_per_update=5, generator=generator)
    for part in x.split(100):
        fitter.update(tk.Trajectory.of(part, torch.tanh(2 * part)))
    surrogate = fitter.surrogate
    last = surrogate.layers[-1]
    for layer in (None, last):
        encode, decode = tk.flows.autoencoder_of(surrogate, layer)
        field = Flow.of_autoencoder(encode, decode)
        z = encode(x[:20]).detach()
        own = surrogate.layers[0] if layer is None else layer
        expected = surrogate.encode(surrogate.decode(z[:, None], own), own)[:, 0]
        torch.testing.assert_close(field.velocity(z), (expected - z).detach(), atol=1e-6, rtol=0)
        assert field.velocity(z).abs().max() > 1e-4  # a learnt decoder is no exact inverse
        found = field.fixed_points(z, steps=100)
        assert found.multipliers.shape[1:] == (6,)
        told = prototype_errors(encode, decode, x[:20].to(z), steps=100)
        assert (told.reconstruction <= told.bound * (1 + 1e-4)).all()
    rows = x[:20].to(z)
    predicted = surrogate.predict(rows[:, None])[:, 0].detach()
    torch.testing.assert_close(Flow.of_surrogate(surrogate).velocity(rows), predicted - rows)


def test_a_pair_that_does_not_compose_and_what_is_no_surrogate_are_named() -> None:
    encode, decode = torch.nn.Linear(3, 2).eval(), torch.nn.Linear(2, 4).eval()
    with pytest.raises(RuntimeError, match=r"encoder fails on what the decoder gives, \(2, 4\)"):
        tk.flows.Flow.of_autoencoder(encode, decode).fixed_points(torch.ones(2, 2))
    with pytest.raises(TypeError, match="autoencoder_of\\(\\) got a Linear"):
        tk.flows.autoencoder_of(encode)  # type: ignore[arg-type]
