"""Following modes: crossings, births and deaths, conjugate pairs, and orders that mean nothing."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.systems import draw, turn
from torchkoopman.spectra.spectrum import Spectrum, spectrum_of
from torchkoopman.spectra.tracking import follow
from torchkoopman.spectra.tracks import ModeTracks


def permuted(spectrum: Spectrum, seed: int) -> Spectrum:
    """The same modes in another order, each turned by a phase."""
    order = torch.randperm(len(spectrum.eigenvalues), generator=torch.Generator().manual_seed(seed))
    return replace(
        spectrum,
        eigenvalues=spectrum.eigenvalues[order],
        modes=-spectrum.modes[:, order],
        functionals=spectrum.functionals[:, order],
    )


def path(size: int, seed: int, steps: int = 5) -> list[Spectrum]:
    """A matrix that drifts at random, in small steps."""
    K = draw(size, size, seed=seed) / size**0.5
    moves = [0.03 * k * draw(size, size, seed=seed + 1) for k in range(steps)]
    return [spectrum_of(K + move) for move in moves]


def test_real_eigenvalues_that_cross_keep_their_modes() -> None:
    V = torch.linalg.qr(draw(3, 3)).Q
    first = torch.linspace(0.9, 0.3, 9).tolist()
    second = torch.linspace(0.43, 0.8, 9).tolist()
    spectra = [
        spectrum_of(V @ torch.diag(torch.tensor([a, b, 0.1]).double()) @ V.T)
        for a, b in zip(first, second, strict=True)
    ]
    tracks = follow(spectra)
    assert tracks.eigenvalues.shape == (9, 3)
    assert tracks.eigenvalues[:, 0].real.tolist() == pytest.approx(first)
    assert tracks.eigenvalues[:, 1].real.tolist() == pytest.approx(second)
    for step, spectrum in enumerate(spectra):
        mode = spectrum.modes[:, tracks.indices[step, 0]].real
        assert abs(mode @ V[:, 0]) == pytest.approx(1)


def test_rotations_whose_eigenvalues_cross_keep_their_planes() -> None:
    angles = torch.linspace(0.5, 1.5, 12).tolist()
    V = torch.linalg.qr(draw(4, 4)).Q
    spectra = [
        spectrum_of(V @ torch.block_diag(turn(angle), turn(2 - angle)) @ V.T) for angle in angles
    ]
    tracks = follow(spectra)
    found = {tuple(column.angle().abs().tolist()) for column in tracks.eigenvalues.T}
    assert len(found) == 2
    for expected in (angles, [2 - angle for angle in angles]):
        assert any(list(column) == pytest.approx(expected) for column in found)


def test_without_a_say_of_the_modes_nearest_eigenvalues_are_taken() -> None:
    V = torch.linalg.qr(draw(2, 2)).Q
    ends = [(0.6, 0.5), (0.52, 0.58)]
    spectra = [spectrum_of(V @ torch.diag(torch.tensor(pair).double()) @ V.T) for pair in ends]
    assert follow(spectra).eigenvalues[1].real.tolist() == pytest.approx([0.52, 0.58])
    by_value = follow(spectra, weight=0.0).eigenvalues[1].real.tolist()
    assert by_value == pytest.approx([0.58, 0.52])


def same(first: ModeTracks, second: ModeTracks) -> bool:
    return torch.equal(first.eigenvalues.nan_to_num(9), second.eigenvalues.nan_to_num(9))


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 7), st.integers(0, 500))
def test_the_order_within_each_spectrum_changes_nothing(size: int, seed: int) -> None:
    spectra = path(size, seed)
    shuffled = [permuted(spectrum, seed + k) for k, spectrum in enumerate(spectra)]
    assert same(follow(spectra), follow(shuffled))


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 7), st.integers(0, 500))
def test_every_mode_of_every_spectrum_is_in_one_track(size: int, seed: int) -> None:
    spectra = path(size, seed)
    tracks = follow(spectra, gate=0.05)
    for step, spectrum in enumerate(spectra):
        present = tracks.indices[step][tracks.indices[step] >= 0]
        assert sorted(present.tolist()) == list(range(size))
        there = tracks.indices[step] >= 0
        assert torch.equal(tracks.eigenvalues[step, there], spectrum.eigenvalues[present])
        assert tracks.eigenvalues[step, ~there].isnan().all()
    assert (tracks.eigenvalues.diff(dim=0).abs().nan_to_num(0) <= 0.05).all()


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 7), st.integers(0, 500))
def test_what_is_conjugate_stays_conjugate_while_it_is_complex(size: int, seed: int) -> None:
    values = follow(path(size, seed, steps=8)).eigenvalues
    for now, then in pairwise(values):
        for i in range(len(now)):
            for j in range(len(now)):
                alive = not (then[i].isnan() or then[j].isnan())
                if alive and now[i].imag > 0 and now[i] == now[j].conj() and then[i].imag != 0:
                    assert then[i] == then[j].conj()


def test_two_real_eigenvalues_that_meet_go_on_as_a_pair_and_part_again() -> None:
    """The eigenvalues of [[0.5, 1], [s, 0.5]] are 0.5 ± √s."""
    spectra = [
        spectrum_of(torch.tensor([[0.5, 1.0], [s, 0.5]])) for s in (0.02, 0.005, -0.005, 0.005)
    ]
    tracks = follow(spectra)
    assert tracks.eigenvalues.shape == (4, 2)
    assert not tracks.eigenvalues.isnan().any()
    assert (tracks.eigenvalues[2].imag != 0).all()
    assert tracks.eigenvalues[2, 0] == tracks.eigenvalues[2, 1].conj()


def test_a_leap_beyond_the_gate_ends_a_track_and_begins_another() -> None:
    spectra = [spectrum_of(torch.diag(torch.tensor([0.9, x]))) for x in (0.1, 0.12, 0.5, 0.52)]
    tracks = follow(spectra, gate=0.2)
    assert tracks.births.tolist() == [0, 0, 2]
    assert tracks.deaths.tolist() == [4, 2, 4]
    assert tracks.eigenvalues[:2, 1].real.tolist() == pytest.approx([0.1, 0.12])
    assert tracks.eigenvalues[2:, 2].real.tolist() == pytest.approx([0.5, 0.52])
    assert follow(spectra, gate=0.5).births.tolist() == [0, 0]


def test_a_leap_makes_no_other_mode_take_a_detour() -> None:
    """0.9 → 0.85 and 0.5 → 1.2: pairing 0.5 with 0.85 would be allowed, and wrong."""
    V = torch.linalg.qr(draw(2, 2)).Q
    spectra = [
        spectrum_of(V @ torch.diag(torch.tensor(pair).double()) @ V.T)
        for pair in ((0.9, 0.5), (0.85, 1.2))
    ]
    tracks = follow(spectra, gate=0.4)
    assert tracks.eigenvalues[1, 0].real.item() == pytest.approx(0.85)
    assert tracks.deaths.tolist() == [2, 1, 2]


def test_spectra_of_different_sizes_are_matched_by_eigenvalue() -> None:
    sizes = [(0.9, 0.5), (0.88, 0.52, 0.1), (0.86,)]
    tracks = follow([spectrum_of(torch.diag(torch.tensor(values))) for values in sizes])
    assert tracks.births.tolist() == [0, 0, 1]
    assert tracks.deaths.tolist() == [3, 2, 2]
    assert tracks.eigenvalues[:, 0].real.tolist() == pytest.approx([0.9, 0.88, 0.86])


def test_kept_modes_are_followed_alone_and_empty_spectra_end_every_track() -> None:
    spectra = [spectrum_of(torch.diag(torch.tensor([x, 0.5, 0.2]))) for x in (0.9, 0.85, 0.8)]
    kept = [spectrum.keep(spectrum.moduli > 0.4) for spectrum in spectra]
    tracks = follow(kept)
    assert tracks.eigenvalues[:, 0].real.tolist() == pytest.approx([0.9, 0.85, 0.8])
    assert tracks.indices.shape == (3, 2)
    none = spectra[2].keep(torch.zeros(3, dtype=torch.bool))
    assert follow([*kept[:2], none]).deaths.tolist() == [2, 2]
    assert follow([none, kept[0]]).births.tolist() == [1, 1]
    assert follow([none, none]).summary().startswith("0 modes over 2 spectra")


def test_drift_and_paths_are_distances_in_the_complex_plane() -> None:
    spectra = [spectrum_of(torch.diag(torch.tensor([0.9, x]))) for x in (0.3, 0.4, 0.35)]
    tracks = follow(spectra, steps=[10, 20, 40])
    assert tracks.drift.tolist() == pytest.approx([0.05, 0.025])
    assert tracks.travelled.tolist() == pytest.approx([0, 0.15])
    assert tracks.steps == (10, 20, 40)


def test_a_summary_lists_the_longest_lives_first() -> None:
    spectra = [spectrum_of(torch.diag(torch.tensor([x, 0.5]))) for x in (0.9, 0.1, 0.12)]
    lines = str(follow(spectra, steps=[0, 100, 200])).splitlines()
    assert lines[0] == ("3 modes over 3 spectra: 1 throughout, 1 born, 1 died; latest drift 0.0100")
    assert lines[2].split()[:3] == ["0", "200", "+0.5000"]
    assert len({len(line) for line in lines[1:]}) == 1
    assert follow(spectra).summary(tracks=1).splitlines()[-1] == "… and 2 more"
    assert "latest drift unknown" in follow(spectra[:1]).summary()


def judged(values: list[float], trusted: list[bool]) -> Spectrum:
    """A diagonal operator's spectrum whose data bear out some of its modes."""
    spectrum = spectrum_of(torch.diag(torch.tensor(values).double()))
    places = [int((spectrum.eigenvalues.real - value).abs().argmin()) for value in values]
    residuals = torch.full((len(values),), 9.0, dtype=torch.float64)
    residuals[[place for place, known in zip(places, trusted, strict=True) if known]] = 0
    return replace(spectrum, residuals=residuals, energies=torch.full_like(residuals, 0.1))


def test_a_mode_that_is_trusted_now_and_then_is_one_track() -> None:
    flicker = [False, True, False, True, False]
    spectra = [judged([0.9 - 0.01 * k, 0.3], [known, False]) for k, known in enumerate(flicker)]
    tracks = follow(spectra)
    assert tracks.indices.shape == (5, 1)
    assert tracks.births.tolist() == [1], "it begins where it is trusted first"
    assert tracks.deaths.tolist() == [5]
    assert tracks.eigenvalues[1:, 0].real.tolist() == pytest.approx([0.89, 0.88, 0.87, 0.86])
    assert tracks.trusted is not None
    assert tracks.trusted[:, 0].tolist() == flicker
    assert tracks.dropped == 1


def test_a_spurious_mode_never_begins_a_track_unless_everything_is_followed() -> None:
    spurious = [(0.2, 43.0), (0.7, -8.0), (-0.5, 12.0)]
    spectra = [judged([0.9, *pair], [True, False, False]) for pair in spurious]
    tracks = follow(spectra)
    assert tracks.eigenvalues.real.flatten().tolist() == pytest.approx([0.9] * 3)
    assert tracks.dropped == 6
    assert str(tracks).splitlines()[0] == (
        "1 trusted modes over 3 spectra: 1 throughout, 0 born, 0 died; latest drift 0.0000; "
        "6 never trusted, left out"
    )
    lines = str(tracks).splitlines()
    assert lines[1].split()[-1] == "trusted"
    assert lines[2].split()[-1] == "100%"
    assert len({len(line) for line in lines[1:]}) == 1
    everything = follow(spectra, trusted=False)
    assert everything.indices.shape == (3, 7)
    assert (everything.trusted, everything.dropped) == (None, 0)


def test_tracks_are_in_order_of_the_birth_that_trust_gives_them() -> None:
    spectra = [judged([0.9, 0.5], known) for known in ([False, True], [True, True])]
    tracks = follow(spectra)
    assert tracks.births.tolist() == [0, 1]
    assert tracks.eigenvalues[1].real.tolist() == pytest.approx([0.5, 0.9])
    none = follow([judged([0.9, 0.5], [False, False])] * 2)
    assert none.indices.shape == (2, 0)
    assert none.summary().startswith("0 trusted modes over 2 spectra")


def test_where_a_spectrum_was_made_without_data_everything_is_followed() -> None:
    known, unknown = judged([0.9, 0.5], [True, False]), spectrum_of(torch.diag(torch.ones(2)))
    assert follow([known, unknown]).trusted is None
    assert follow([known, unknown], gate=9).indices.shape == (2, 2)
    with pytest.raises(ValueError, match="made without data"):
        follow([known, unknown], trusted=True)


def test_mistakes_are_named() -> None:
    spectrum = spectrum_of(turn(1.0))
    with pytest.raises(ValueError, match="needs at least one spectrum"):
        follow([])
    with pytest.raises(ValueError, match="3 steps were given for 2 spectra"):
        follow([spectrum] * 2, steps=[1, 2, 3])
    with pytest.raises(ValueError, match=r"steps must ascend; got \(2\.0, 1\.0\)"):
        follow([spectrum] * 2, steps=[2, 1])
    with pytest.raises(ValueError, match="steps must be finite; got nan"):
        follow([spectrum] * 2, steps=[1, math.nan])
    with pytest.raises(ValueError, match=r"weight=-1 and gate=0\.25 must not be negative"):
        follow([spectrum], weight=-1)
    spoilt = replace(spectrum, eigenvalues=spectrum.eigenvalues * math.nan)
    with pytest.raises(ValueError, match="spectrum of step 7 has eigenvalues that are not finite"):
        follow([spectrum, spoilt], steps=[3, 7])
    unpaired = replace(spectrum, eigenvalues=torch.tensor([1j, 0.5]).to(torch.complex128))
    with pytest.raises(ValueError, match="1 eigenvalues above the real axis and 0 below"):
        follow([unpaired])


def test_what_is_no_spectrum_cannot_be_followed() -> None:
    with pytest.raises(TypeError, match=r"follow\(\) takes spectra.*got a int"):
        follow([3])
