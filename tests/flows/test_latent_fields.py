"""Latent vector fields: what attractors remember, few atoms that code, and novelty, with nulls."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

import torchkoopman as tk
from torchkoopman.flows import (
    Flow,
    NoveltyScores,
    chamfer,
    dictionaries,
    dictionary_rank,
    memorization,
    probe,
)

if TYPE_CHECKING:
    from torch import Tensor


def gaussians(rows: int, width: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))


def identity(x: Tensor) -> Tensor:
    return x


def test_memorization_is_one_for_training_samples_and_the_null_is_that_of_unseen_ones() -> None:
    train, unseen = gaussians(20, 8), gaussians(30, 8, 1)
    told = memorization(3 * train[[4, 7, 7]], train, unseen)
    torch.testing.assert_close(told.cosines, torch.ones(3, dtype=torch.float64))
    assert told.nearest.tolist() == [4, 7, 7]
    assert told.recovered.nonzero().flatten().tolist() == [4, 7]
    slow = torch.nn.functional.cosine_similarity(unseen[:, None], train[None], dim=2).amax(1)
    torch.testing.assert_close(told.null, slow.double(), atol=1e-6, rtol=0)
    assert "2 of 20 training samples" in str(told)


def test_without_attractors_nothing_is_remembered() -> None:
    told = memorization(torch.zeros(0, 8), gaussians(5, 8))
    assert not told.recovered.any()
    assert "0 of 5 training samples" in str(told)


def test_an_attractor_that_is_an_unseen_sample_recovers_it_and_no_training_sample() -> None:
    train, unseen = gaussians(20, 8), gaussians(30, 8, 1)
    told = memorization(2 * unseen[[3, 3]], train, unseen)
    assert not told.recovered.any()
    assert told.unseen_recovered.nonzero().flatten().tolist() == [3]
    assert "0 of 20 training samples (0.00%)" in str(told)
    assert "1 of 30 unseen samples (3.33%) are, too (null)" in str(told)


def test_training_and_unseen_samples_are_recovered_by_one_rule() -> None:
    train, unseen = torch.eye(4)[:3], torch.eye(4)[1:]  # two samples are in both
    told = memorization(torch.eye(4)[[0, 1, 3]] + 0.01, train, unseen)
    assert told.recovered.tolist() == [True, True, False]
    assert told.unseen_recovered.tolist() == [True, False, True]
    stricter = memorization(torch.eye(4)[[0, 1, 3]] + 0.01, train, unseen, threshold=0.9999)
    assert not stricter.recovered.any()
    assert not stricter.unseen_recovered.any()


@pytest.mark.parametrize("unseen", [None, torch.zeros(0, 8)])
def test_without_unseen_samples_there_is_no_null(unseen: Tensor | None) -> None:
    train = gaussians(5, 8)
    told = memorization(train[:2], train, unseen)
    assert told.recovered.sum() == 2
    assert told.unseen_recovered.shape == told.null.shape == (0,)
    assert told.unseen_recovered.dtype == torch.bool
    assert "unseen" not in str(told)


def test_the_dictionary_rank_is_the_number_of_directions_that_hold_the_share() -> None:
    scales = torch.tensor([3.0, 3.0, 1.0, 0.01])
    exact = torch.linalg.qr(gaussians(200, 4) - gaussians(200, 4).mean(0)).Q * scales
    assert dictionary_rank(exact, 0.9) == 2
    assert dictionary_rank(exact, 0.99) == 3
    assert dictionary_rank(exact[:1]) == 0
    assert dictionary_rank(exact[:1].repeat(5, 1)) == 0


def test_the_chamfer_distance_is_that_of_its_definition() -> None:
    a, b = gaussians(7, 3), gaussians(9, 3, 1)
    distances = (a[:, None] - b).norm(dim=2)
    slow = (distances.amin(1).mean() + distances.amin(0).mean()) / 2
    assert chamfer(a, b) == pytest.approx(slow.item(), abs=1e-6)
    assert chamfer(a, b) == chamfer(b, a)
    assert chamfer(a, a.flip(0)) == pytest.approx(0, abs=1e-6)


def test_a_probe_with_the_atoms_the_data_are_made_of_is_exact_and_others_are_not() -> None:
    atoms = torch.nn.functional.normalize(gaussians(6, 20), dim=1)
    codes = torch.zeros(40, 6)
    codes[torch.arange(40), torch.arange(40) % 6] = 2.0
    codes[torch.arange(40), (torch.arange(40) + 1) % 6] = -1.0
    told = probe(
        identity, identity, codes @ atoms, {"own": atoms, "else": gaussians(6, 20, 1)}, [2]
    )
    assert told.errors["own"][0] < 1e-10
    assert told.errors["else"][0] > 0.3
    assert told.plain == 0


def test_the_controls_of_a_probe_are_as_many_as_the_attractors() -> None:
    flow = Flow(lambda z: torch.tanh(2 * z))
    noise, train = gaussians(300, 3), gaussians(100, 3, 1)
    atoms = dictionaries(flow, noise, train)
    assert len(atoms["attractors"]) == 8
    assert atoms["attractors"].abs().sub(0.9575).abs().max() < 1e-3
    assert [len(each) for each in atoms.values()] == [8, 8, 3, 8]
    torch.testing.assert_close(atoms["one step"], torch.tanh(2 * noise[:8]))
    square = atoms["random orthogonal"] @ atoms["random orthogonal"].T
    torch.testing.assert_close(square, torch.eye(3), atol=1e-5, rtol=0)
    again = dictionaries(flow, noise, train)
    assert all(torch.equal(each, again[name]) for name, each in atoms.items())


NAN = torch.tensor([[1.0, 0.0], [torch.nan, 0.0]])


class Pull(nn.Module):
    """A decoder whose field pulls every state halfway to the nearer of two points."""

    def forward(self, z: Tensor) -> Tensor:
        target = torch.where(z[:, :1] > 0, 1.0, -1.0) * torch.ones(2)
        return z + 0.5 * (target - z)


def test_novelty_scores_are_those_of_their_definitions() -> None:
    train = torch.where(gaussians(60, 1) > 0, 1.0, -1.0) + 0.1 * gaussians(60, 2)
    scores = NoveltyScores(identity, Pull().eval(), train, steps=5)
    x = gaussians(10, 2, 4)
    told = scores(x)
    target = torch.where(x[:, :1] > 0, 1.0, -1.0) * torch.ones(2)
    gap = (x - target).norm(dim=1).double()
    close = {"atol": 1e-4, "rtol": 1e-3}
    torch.testing.assert_close(told["orbit"], gap * sum(0.5**k for k in range(1, 6)) / 5, **close)
    # To rest: until a step is below 1e-4 of the training latents' spread.
    spread = (train - train.mean(0)).double().norm(dim=1).square().mean().sqrt()
    steps = (gap / (1e-4 * spread)).log2().ceil()
    until = gap * (1 - 0.5**steps) / steps
    torch.testing.assert_close(told["orbit, converged"], until, atol=1e-3, rtol=2e-2)
    torch.testing.assert_close(told["path"], gap * (0.5 + 0.25 + 0.125), **close)
    torch.testing.assert_close(told["first step"], gap / 2 / x.norm(dim=1), **close)
    torch.testing.assert_close(told["reconstruction"], gap.square() / 8, **close)
    torch.testing.assert_close(told["kNN"], torch.cdist(x, train).amin(1).double(), **close)
    away = (x - train.mean(0)).double()
    precision = torch.linalg.inv(torch.cov(train.double().T))
    expected = torch.einsum("ni,ij,nj->n", away, precision, away).sqrt()
    torch.testing.assert_close(told["Mahalanobis"], expected, **close)


def test_auroc_and_fpr_are_those_of_ranks() -> None:
    train = gaussians(200, 2)
    scores = NoveltyScores(identity, lambda z: 0.5 * z, train, steps=3)
    known, novel = gaussians(300, 2, 1), gaussians(300, 2, 2) * 3
    told = scores.compare(known, novel)
    a, b = (scores(each)["kNN"] for each in (known, novel))
    assert told.auroc["kNN"] == pytest.approx((b[:, None] > a).double().mean().item(), abs=1e-9)
    accepted = a.sort().values[round(0.95 * len(a)) - 1]
    assert told.fpr95["kNN"] == pytest.approx((b <= accepted).double().mean().item(), abs=0.01)
    same = scores.compare(known, known)  # ties from end to end, of which no threshold is left out
    assert same.auroc["kNN"] == pytest.approx(0.5)
    assert same.fpr95["kNN"] == pytest.approx(0.95)


def test_orbit_scores_need_training_starts_that_come_to_rest() -> None:
    scores = NoveltyScores(identity, lambda z: 2 * z, gaussians(20, 2), steps=3)
    assert "orbit" not in scores(gaussians(5, 2))
    assert len(scores.attractors) == 0


def autoencoder(inputs: Tensor, latent: int, steps: int) -> tuple[nn.Module, nn.Module]:
    """Trained to denoise, with a generator of its own."""
    generator = torch.Generator().manual_seed(7)
    with torch.random.fork_rng():
        torch.manual_seed(7)
        encode = nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, latent))
        decode = nn.Sequential(nn.Linear(latent, 64), nn.Tanh(), nn.Linear(64, 64))
    optimizer = torch.optim.Adam([*encode.parameters(), *decode.parameters()], lr=3e-3)
    for _ in range(steps):
        noise = torch.randn(inputs.shape, generator=generator)
        optimizer.zero_grad()
        (decode(encode(inputs + 0.1 * noise)) - inputs).square().mean().backward()
        optimizer.step()
    return encode.eval(), decode.eval()


@pytest.mark.slow
def test_a_denoising_autoencoder_remembers_each_of_ten_digits_as_a_point_that_attracts() -> None:
    digits = tk.datasets.digits(seed=0)
    few, unseen = digits.train.inputs[:10].flatten(1), digits.test.inputs.flatten(1)
    encode, decode = autoencoder(few, 16, 2000)
    with torch.no_grad():
        starts = encode(torch.cat([few, unseen]))
    found = Flow.of_autoencoder(encode, decode).fixed_points(starts)
    with torch.no_grad():
        told = memorization(decode(found.attractors), few, unseen)
    assert found.share_converged > 0.99
    assert told.recovered.sum() >= 9
    assert told.coefficient > 0.99 > told.null.mean()


def test_training_mode_is_refused_before_anything_is_encoded() -> None:
    net = nn.BatchNorm1d(2)
    before = net.running_mean.clone()
    with pytest.raises(ValueError, match="training mode"):
        NoveltyScores(net, identity, gaussians(9, 2))
    assert torch.equal(net.running_mean, before)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: memorization(gaussians(2, 3), gaussians(2, 4)), r"decoded= of shape \(2, 3\)"),
        (lambda: memorization(gaussians(2, 3), gaussians(0, 3)), "no training samples"),
        (lambda: dictionary_rank(gaussians(3, 3), 1.5), "share=1.5"),
        (lambda: dictionary_rank(NAN), r"dictionary_rank\(\) got 1 points that are not finite"),
        (lambda: chamfer(NAN, NAN), r"chamfer\(\) got 2 points"),
        (lambda: memorization(NAN, NAN[:1]), r"memorization\(\) got 1 points"),
        (lambda: memorization(NAN[:1], NAN[:1], threshold=7), "threshold=7"),
        (lambda: NoveltyScores(identity, identity, gaussians(1, 2)), "1 training inputs"),
        (lambda: probe(nn.Dropout(), identity, gaussians(2, 3), {}), "training mode"),
        (lambda: chamfer(gaussians(0, 3), gaussians(2, 3)), r"shapes \(0, 3\) and \(2, 3\)"),
        (lambda: probe(identity, identity, gaussians(0, 3), {}), "got 0 inputs"),
        (
            lambda: probe(identity, identity, gaussians(2, 3), {"a": gaussians(2, 4)}),
            r"atoms of 'a' have shape \(2, 4\)",
        ),
        (
            lambda: NoveltyScores(identity, identity, gaussians(9, 2)).compare(
                gaussians(0, 2), gaussians(2, 2)
            ),
            "0 known and 2 novel",
        ),
        (
            lambda: NoveltyScores(identity, identity, gaussians(9, 2))(
                torch.tensor([[0, torch.nan]])
            ),
            "not all finite",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
