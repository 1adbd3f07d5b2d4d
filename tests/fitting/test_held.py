"""What a fitter holds until it is calibrated: copies, and only of what counts."""

from collections.abc import Callable

import pytest
import torch

from torchkoopman.fitting.autoencoder import AutoencoderFitter
from torchkoopman.fitting.closed_form import Fitter
from torchkoopman.fitting.edmd import EDMDFitter
from torchkoopman.koopman.feature_maps import RandomFeatures
from torchkoopman.observe.trajectory import Trajectory

FITTERS: dict[str, Callable[[], Fitter]] = {
    "edmd": lambda: EDMDFitter(RandomFeatures(10)),
    "autoencoder": lambda: AutoencoderFitter(4, hidden=(8,), steps_per_update=0.1),
}


def rows(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 6, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("kind", FITTERS)
def test_overwriting_what_was_streamed_does_not_change_the_fit(kind: str, whole: bool) -> None:
    def streamed(spoil: bool) -> torch.Tensor:
        fitter = FITTERS[kind]()
        for seed in range(30):
            x = rows(100, seed)
            y, labels = torch.tanh(x), torch.arange(100) % 2
            if whole:
                fitter.update(Trajectory.of(x, y, labels=labels))
            else:
                states = {"0": x[:, None], "1": y[:, None]}
                fitter.update(Trajectory(states, labels))
            if spoil:
                x.fill_(7.0), y.fill_(-3.0), labels.fill_(5)
        return fitter.surrogate.operator.matrix(1.0)

    assert torch.equal(streamed(False), streamed(True))


@pytest.mark.parametrize("kind", FITTERS)
def test_rows_that_never_count_are_not_held_and_the_fitter_says_so(kind: str) -> None:
    fitter = FITTERS[kind]()
    for seed in range(40):
        states = {name: rows(60, seed).view(10, 6, 6) for name in "ab"}
        fitter.update(Trajectory(states, mask=torch.zeros(10, 6, dtype=torch.bool)))
    held = getattr(fitter, "_intake", fitter)._calibration.held
    assert held == []
    with pytest.raises(ValueError, match="none of the 2400 rows that came counts"):
        _ = fitter.surrogate


@pytest.mark.parametrize("kind", FITTERS)
def test_of_samples_some_of_which_count_only_those_are_held(kind: str) -> None:
    fitter, alone = FITTERS[kind](), FITTERS[kind]()
    for seed in range(40):
        x = rows(60, seed).view(10, 6, 6)
        mask = torch.zeros(10, 6, dtype=torch.bool)
        mask[seed % 10, :4] = True
        fitter.update(Trajectory({"a": x, "b": torch.tanh(x)}, mask=mask))
        kept = x[mask]
        alone.update(Trajectory.of(kept, torch.tanh(kept)))
    held = getattr(fitter, "_intake", fitter)._calibration.held
    assert [each.batch for each in held] == [1] * 40
    assert fitter.surrogate.record.rows == alone.surrogate.record.rows == 160


def test_a_rank_asks_for_no_more_rows_than_it_has_directions() -> None:
    x = torch.randn(270, 400, generator=torch.Generator().manual_seed(0))
    fitter = EDMDFitter(RandomFeatures(50), rank=10).update(Trajectory.of(x, torch.tanh(x)))
    assert fitter.surrogate.latent == 61
    with pytest.raises(ValueError, match="270 rows were streamed, but the fit has 400 features"):
        _ = EDMDFitter(RandomFeatures(50)).update(Trajectory.of(x, torch.tanh(x))).surrogate
