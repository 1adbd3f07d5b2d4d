"""Rivals of the edit: each does what its own theorem says."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import torchkoopman as tk
from benchmarks.rivals import LeaceFitter, erased, retargeted
from torchkoopman.koopman.surrogate import Surrogate
from torchkoopman.unlearning.measures import among

RIVALS: tuple[Callable[..., Surrogate], ...] = (retargeted, erased)


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh()).eval()


def samples(rows: int = 900) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(rows) % 3
    return 2 * torch.eye(3)[labels] + 0.3 * torch.randn(rows, 3, generator=generator), labels


def fitted() -> Surrogate:
    model, fitter = network(), tk.EDMDFitter([tk.RandomFeatures(20)], frames="aligned")
    inputs, labels = samples()
    with torch.no_grad(), tk.attach(model, ["1", "3"]) as probe, probe.labels(labels):
        probe.stream_to(fitter)
        model(inputs)
    return fitter.surrogate


def images(surrogate: Surrogate) -> Tensor:
    """Latent states behind the operator, ``(rows, latent)``, float64."""
    with torch.no_grad():
        start = network()[:2](samples()[0])
        latent = surrogate.encode(start[:, None], surrogate.layers[0])[:, 0].double()
        return latent @ surrogate.operator.matrix(1.0).double().T


def image_means(surrogate: Surrogate, classes: list[int]) -> tuple[Tensor, Tensor]:
    """Images of the mean start state of these classes and of the others."""
    assert surrogate.statistics is not None
    K = surrogate.operator.matrix(1.0).double()
    others = [c for c in surrogate.statistics.classes if c not in classes]
    ours, theirs = (surrogate.statistics.without(each) for each in (others, classes))
    return K @ ours.mean("start"), K @ theirs.mean("start")


def test_erased_classes_have_the_mean_image_of_the_others() -> None:
    surrogate = fitted()
    before, after = (image_means(each, [1]) for each in (surrogate, erased(surrogate, [1])))
    assert (before[0] - before[1]).norm() > 1
    assert (after[0] - after[1]).norm() < 1e-4 * (before[0] - before[1]).norm()


def test_erasing_leaves_the_mean_of_all_where_it_was() -> None:
    surrogate = fitted()
    edited = erased(surrogate, [0, 2])
    means = [images(each).mean(0) for each in (surrogate, edited)]
    torch.testing.assert_close(means[0], means[1], atol=1e-4, rtol=1e-4)


def test_no_direction_tells_erased_classes_apart_in_least_squares() -> None:
    edited, target = erased(fitted(), [1]), among(samples()[1], [1]).double()
    states = images(edited)
    centred, aim = states - states.mean(0), target - target.mean()
    covariances = centred.T @ aim / len(aim)
    assert covariances.abs().max() < 1e-4 * centred.std()


def test_moments_give_what_the_authors_code_makes_of_stored_rows() -> None:
    surrogate, told = fitted(), among(samples()[1], [1]).double()
    states = images(surrogate)
    options = {"shrinkage": False, "constrain_cov_trace": False}
    expected = LeaceFitter.fit(states, told[:, None], **options).eraser(states)
    torch.testing.assert_close(images(erased(surrogate, [1])), expected, atol=1e-4, rtol=0)


def test_what_no_linear_probe_tells_apart_is_refused() -> None:
    with pytest.raises(ValueError, match=r"one mean already"):
        erased(erased(fitted(), [1]), [1])


def test_a_refit_on_targets_is_the_least_squares_solution_on_stored_states() -> None:
    surrogate, (inputs, labels) = fitted(), samples()
    edited = retargeted(surrogate, [1], target="centroid")
    with torch.no_grad():
        states = network()[:2](inputs), network()(inputs)
        start, end = (
            surrogate.encode(state[:, None], layer)[:, 0].double()
            for state, layer in zip(states, surrogate.layers, strict=True)
        )
    end[labels == 1] = torch.stack([end[labels == c].mean(0) for c in (0, 2)]).mean(0)
    solution = torch.linalg.lstsq(start, end, driver="gelsd").solution
    torch.testing.assert_close(images(edited), start @ solution, atol=5e-3, rtol=0)


@pytest.mark.parametrize("rival", RIVALS)
def test_a_rival_can_be_reverted_and_says_what_it_is(rival: Callable[..., Surrogate]) -> None:
    surrogate = fitted()
    before = surrogate.operator.matrix(1.0).clone()
    edited = rival(surrogate, [2])
    assert edited.card()["edits"][0]["method"] in {"retarget", "erase"}
    assert edited.edits[0].seconds is not None
    assert tk.undo(edited) is surrogate
    assert torch.equal(surrogate.operator.matrix(1.0), before)


@pytest.mark.parametrize("rival", RIVALS)
def test_an_unknown_class_is_named(rival: Callable[..., Surrogate]) -> None:
    with pytest.raises(ValueError, match=r"\[7\]"):
        rival(fitted(), [7])
