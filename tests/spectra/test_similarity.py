"""Distances of operators: zero for similar ones, symmetric, above bounds, below their null."""

import itertools
import math
from typing import Any, Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.systems import seeded, turn
from torchkoopman.fitting.autoencoder import AutoencoderFitter
from torchkoopman.fitting.dmd import DMDFitter
from torchkoopman.fitting.edmd import EDMDFitter
from torchkoopman.koopman.coordinates import Coordinates
from torchkoopman.koopman.feature_maps import RandomFeatures
from torchkoopman.koopman.learnt import LearntObservables
from torchkoopman.koopman.observables import Dictionary
from torchkoopman.koopman.operators import Dense
from torchkoopman.koopman.span import FitRecord, Span
from torchkoopman.koopman.surrogate import Surrogate
from torchkoopman.observe.class_moments import LabelledMoments
from torchkoopman.observe.pairs import layer_pairs
from torchkoopman.observe.trajectory import Trajectory
from torchkoopman.spectra.alignment import alignment_starts, ascend, random_orthogonal
from torchkoopman.spectra.comparison import compare
from torchkoopman.spectra.geodesics import climb
from torchkoopman.spectra.similarity import (
    similarity_bound,
    similarity_distance,
    spectral_distance,
)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def turned(matrix: Tensor, seed: int) -> Tensor:
    C = random_orthogonal(len(matrix), 1, seeded(seed))[0]
    return C @ matrix @ C.T


@settings(deadline=None, max_examples=10)
@given(st.integers(1, 12), st.integers(0, 1000))
def test_orthogonally_similar_matrices_have_distance_zero(size: int, seed: int) -> None:
    A = draw(size, size, seed=seed)
    B = turned(A, seed + 1)
    distance, C, _ = similarity_distance(A, B, starts=1)
    assert distance < 1e-6 * A.norm()
    torch.testing.assert_close(C @ B @ C.T, A, rtol=0, atol=1e-6)
    assert spectral_distance(A, B) < 1e-6


@pytest.mark.parametrize("kind", ["orthogonal", "symmetric", "normal"])
def test_normal_matrices_turned_have_distance_zero(kind: str) -> None:
    A = {
        "orthogonal": torch.linalg.qr(draw(6, 6)).Q,
        "symmetric": draw(6, 6) + draw(6, 6).T,
        "normal": torch.block_diag(0.9 * turn(0.4), 0.9 * turn(1.4), 0.2 * turn(2.0)),
    }[kind]
    assert similarity_distance(A, turned(A, 5))[0] < 1e-6


@settings(deadline=None, max_examples=8)
@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 1000))
def test_distances_are_symmetric(first: int, second: int, seed: int) -> None:
    A, B = draw(first, first, seed=seed), draw(second, second, seed=seed + 1)
    there, C, _ = similarity_distance(A, B, starts=4)
    back, D, _ = similarity_distance(B, A, starts=4)
    assert there == pytest.approx(back)
    torch.testing.assert_close(C, D.T)
    assert spectral_distance(A, B) == pytest.approx(spectral_distance(B, A))
    assert similarity_bound(A, B) == pytest.approx(similarity_bound(B, A))


@settings(deadline=None, max_examples=10)
@given(st.integers(1, 4), st.integers(0, 1000))
def test_the_triangle_holds_of_spectra_and_along_the_rotations_found(size: int, seed: int) -> None:
    """The minimum is a metric; of what a search finds, the composed rotation bounds the third."""
    A, B, D = (draw(size, size, seed=seed + k) for k in range(3))
    ab, C1, _ = similarity_distance(A, B)
    bd, C2, _ = similarity_distance(B, D)
    C = C1 @ C2
    assert (A - C @ D @ C.T).norm() <= ab + bd + 1e-9
    assert similarity_distance(A, D)[0] <= ab + bd + 1e-6
    assert spectral_distance(A, D) <= spectral_distance(A, B) + spectral_distance(B, D) + 1e-9


@settings(deadline=None, max_examples=10)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 1000))
def test_no_rotation_comes_below_the_bound(first: int, second: int, seed: int) -> None:
    A, B = draw(first, first, seed=seed), draw(second, second, seed=seed + 1)
    bound = similarity_bound(A, B)
    assert similarity_distance(A, B, starts=3)[0] >= bound - 1e-9
    size = max(first, second)
    padded = [torch.nn.functional.pad(M, (0, size - len(M)) * 2) for M in (A, B)]
    for C in random_orthogonal(size, 20, seeded(seed)):
        assert (padded[0] - C @ padded[1] @ C.T).norm() >= bound - 1e-9


@settings(deadline=None, max_examples=8)
@given(st.integers(1, 6), st.integers(0, 1000))
def test_for_symmetric_matrices_both_distances_and_the_bound_are_one(size: int, seed: int) -> None:
    """Hoffman & Wielandt: sorted eigenvalues are the optimal assignment, and C attains it."""
    A, B = (M + M.T for M in (draw(size, size, seed=seed), draw(size, size, seed=seed + 1)))
    expected = (torch.linalg.eigvalsh(A) - torch.linalg.eigvalsh(B)).norm().item()
    assert spectral_distance(A, B) == pytest.approx(expected, abs=1e-9)
    assert similarity_distance(A, B)[0] == pytest.approx(expected, abs=1e-6)
    assert similarity_bound(A, B) == pytest.approx(expected, abs=1e-9)


def test_for_normal_matrices_the_spectral_distance_is_a_lower_bound() -> None:
    for seed in range(5):
        a, b, c, d = draw(4, seed=seed).tolist()
        A = turned(torch.block_diag(a * turn(b), c * turn(d)), seed)
        B = turned(torch.block_diag(d * turn(a), b * turn(c)), seed + 1)
        bound = similarity_bound(A, B)
        assert bound >= spectral_distance(A, B) - 1e-9
        assert similarity_distance(A, B)[0] >= bound - 1e-9


def test_for_others_it_is_none() -> None:
    """A nilpotent block and its perturbation: eigenvalues move by ε^(1/4), the matrix by ε."""
    A = torch.diag(torch.ones(3).double(), 1)
    B = A.clone()
    B[3, 0] = 1e-4
    assert spectral_distance(A, B) == pytest.approx(2 * 1e-4**0.25, rel=1e-3)
    assert similarity_distance(A, B)[0] <= 1e-4 + 1e-9
    assert similarity_bound(A, B) <= 1e-4 + 1e-9


def test_the_search_finds_the_best_of_all_rotations_of_the_plane() -> None:
    """In two dimensions all rotations and reflections can be tried."""
    for seed in range(5):
        A, B = draw(2, 2, seed=seed), draw(2, 2, seed=seed + 100)
        flip = torch.diag(torch.tensor([1.0, -1.0])).double()
        all_of_them = (
            turn(2 * math.pi * k / 2000) @ F
            for k, F in itertools.product(range(2000), (flip, flip @ flip))
        )
        least = min((A - C @ B @ C.T).norm().item() for C in all_of_them)
        assert similarity_distance(A, B)[0] == pytest.approx(least, abs=1e-4)


def test_the_search_climbs_and_stays_orthogonal() -> None:
    A, B = draw(6, 6), draw(6, 6, seed=1)
    starts = random_orthogonal(6, 5, seeded(2))
    gains = [torch.linalg.matrix_norm(A - C @ B @ C.mT) for C in (starts, ascend(A, B, starts, 5))]
    assert (gains[1] < gains[0]).all()
    C = ascend(A, B, starts, 500)
    torch.testing.assert_close(C @ C.mT, torch.eye(6).double().expand(5, 6, 6))
    # At a maximum the gradient is symmetric in C's own frame: no turn of C gains anything.
    inner = (A @ C @ B.T + A.T @ C @ B) @ C.mT
    torch.testing.assert_close(inner, inner.mT, rtol=0, atol=1e-3)


def test_alignment_starts_are_orthogonal_and_exact_for_similar_matrices() -> None:
    A = draw(7, 7)
    starts = alignment_starts(A, turned(A, 3))
    torch.testing.assert_close(starts @ starts.mT, torch.eye(7).double().expand(4, 7, 7))
    distances = torch.linalg.matrix_norm(A - starts @ turned(A, 3) @ starts.mT)
    assert (distances[1:] < 1e-6).all()
    assert distances[0] > 1


def test_the_spectral_distance_is_the_least_over_all_assignments() -> None:
    A, B = draw(4, 4), draw(4, 4, seed=1)
    first, second = (torch.linalg.eigvals(M).tolist() for M in (A, B))
    expected = min(
        sum(abs(a - b) ** 2 for a, b in zip(first, order, strict=True))
        for order in itertools.permutations(second)
    )
    assert spectral_distance(A, B) == pytest.approx(math.sqrt(expected))


def test_a_missing_direction_counts_as_one_that_vanishes() -> None:
    A = torch.diag(torch.tensor([0.9, 0.5])).double()
    assert spectral_distance(A, torch.tensor([[0.9]])) == pytest.approx(0.5)
    assert similarity_distance(A, torch.tensor([[0.9]]).double())[0] == pytest.approx(0.5)
    padded = torch.diag(torch.tensor([0.5, 0.0, 0.9, 0.0])).double()
    assert compare(A, padded, draws=1).similarity == pytest.approx(0, abs=1e-9)


def test_the_angle_is_that_of_the_matrices_and_blind_to_scale() -> None:
    A, B = draw(4, 4), draw(4, 4, seed=1)
    found = compare(A, B, draws=0)
    image = found.rotation @ B @ found.rotation.T
    cosine = (A * image).sum() / (A.norm() * B.norm())
    assert found.angle == pytest.approx(math.acos(cosine.item()))
    assert compare(A, 3 * A, draws=0).angle == pytest.approx(0, abs=1e-5)
    assert math.isnan(compare(A, 0 * A, draws=0).angle)


def test_similar_operators_are_below_the_null_and_unrelated_ones_are_not() -> None:
    K = torch.block_diag(0.9 * turn(0.5), 0.8 * turn(1.5), 0.7 * turn(2.5))
    alike = compare(K, turned(K, 1) + 0.01 * draw(6, 6))
    assert alike.below_null == 1
    assert alike.relative < 0.05
    other = compare(draw(6, 6), draw(6, 6, seed=1), draws=12, starts=4)
    assert other.below_null < 0.5
    assert other.lower_bound <= other.similarity <= math.sqrt(2) * other.scale


def test_null_pairs_keep_the_singular_values_alone() -> None:
    """Of two rotations every null pair is a pair of random orthogonal matrices."""
    found = compare(turn(0.3), turn(2.0), draws=6)
    assert found.null_similarity.shape == (6,)
    assert (found.null_similarity <= math.sqrt(2) * found.scale).all()
    assert found.null_similarity.std() > 0
    scaled = compare(3 * turn(0.3), 3 * turn(2.0), draws=6)
    torch.testing.assert_close(scaled.null_similarity, 3 * found.null_similarity)


def test_the_generator_decides_and_the_global_one_is_left_alone() -> None:
    A, B = draw(5, 5), draw(5, 5, seed=1)
    state = torch.get_rng_state()
    first, again = (compare(A, B, draws=2, starts=2, generator=seeded(4)) for _ in range(2))
    other = compare(A, B, draws=2, starts=2, generator=seeded(5))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.null_similarity, again.null_similarity)
    assert not torch.equal(first.null_similarity, other.null_similarity)


def surrogate_of(step: Tensor, basis: Tensor, rows: Tensor, fitted: bool = True) -> Surrogate:
    """The system z ↦ step z, its latent states seen in another basis."""
    start, K = rows @ basis.T, basis @ step @ torch.linalg.inv(basis)
    frame = Coordinates(torch.eye(3), torch.zeros(3), torch.eye(3))
    dictionary = Dictionary().build(3)
    statistics = LabelledMoments(layer_pairs(("start", "end"), "ends"))
    statistics.update({"start": start, "end": start @ K.T})
    operator = Dense(4).double().start_from(K)
    span, record = Span(("a", "b"), (0.0, 1.0)), FitRecord("dmd", len(rows))
    kept = statistics if fitted else None
    return Surrogate(span, [frame, frame], dictionary, operator, record, kept)


def test_surrogates_are_compared_whatever_the_basis_of_their_latent_space() -> None:
    step, rows = draw(4, 4) / 2, draw(500, 4)
    here = surrogate_of(step, torch.eye(4).double(), rows)
    there = surrogate_of(step, draw(4, 4, seed=7), rows)
    matrices = [surrogate.operator.matrix(1.0) for surrogate in (here, there)]
    assert compare(*matrices, draws=0).relative > 0.1
    found = compare(here, there, draws=3)
    assert found.relative < 1e-6
    assert found.sizes == (4, 4)
    assert compare(here, there, rank=2, draws=0).sizes == (2, 2)
    # Whitened by moments that are the identity up to sampling, the operator is what it was.
    assert compare(here, step, draws=0).relative < 0.1


def flow(seed: int, untrained: bool = False) -> Trajectory:
    """States before and after residual blocks x + B tanh(Wx), drawn anew by each seed."""
    x = draw(3000, 5, seed=100)
    y, size = x, 0.03 if untrained else 0.4
    for block in range(2):
        W, B = draw(5, 8, seed=10 * seed + block), draw(8, 5, seed=10 * seed + block + 5)
        y = y + size * (y @ W).tanh() @ B
    return Trajectory.of(x[:, None].float(), y[:, None].float())


def fitted(trajectory: Trajectory, draw_of_features: int) -> Surrogate:
    fitter = EDMDFitter(
        RandomFeatures(60), frames="shared", dynamics="span", generator=seeded(draw_of_features)
    )
    return fitter.calibrate(trajectory).update(trajectory).surrogate


def test_the_draw_of_the_dictionary_is_not_in_the_distance_and_the_network_is() -> None:
    one, other = flow(1), flow(2)
    first, again = fitted(one, 0), fitted(one, 1)
    drawn_anew = compare(first, again, draws=3, starts=2)
    networks = compare(first, fitted(other, 0), draws=3, starts=2)
    assert drawn_anew.relative < 0.01
    assert networks.relative > 10 * drawn_anew.relative
    assert drawn_anew.below_null == 1
    assert drawn_anew.subject == "K - I on functions of the state,"
    assert drawn_anew.notes == ()


def test_with_all_latent_functions_the_draw_counts_and_a_note_says_so() -> None:
    first, again = (fitted(flow(1), features) for features in (0, 1))
    state, latent = (
        compare(first, again, draws=0, starts=2, functions=functions)
        for functions in ("state", "latent")  # type: ignore[arg-type]
    )
    assert latent.relative > 3 * state.relative
    assert latent.notes[0] in str(latent)
    assert "drawn or learnt" in latent.notes[0]


@pytest.mark.parametrize("seeds", [(1, 2), (3, 4)])
def test_two_untrained_residual_blocks_are_not_alike_and_two_fits_of_one_are(
    seeds: tuple[int, int],
) -> None:
    one, other = (fitted(flow(seed, untrained=True), seed) for seed in seeds)
    again = fitted(flow(seeds[0], untrained=True), 0)
    whole = compare(one, other, less_identity=False, starts=2, draws=4)
    assert whole.similarity < 0.2 * whole.null_similarity.mean(), "near the identity all is alike"
    apart, same = (compare(one, each, starts=2, draws=4) for each in (other, again))
    assert apart.similarity > 0.8 * apart.null_similarity.mean()
    assert same.similarity < 0.01 * same.null_similarity.mean()
    assert same.below_null == 1


UNTRAINED = [(2 * k, 2 * k + 1) for k in range(10, 15)]


def test_beside_untrained_pairs_two_fits_of_one_network_are_near_and_an_untrained_pair_is_not() -> (
    None
):
    """Against random operators even those are: the null that is named can be failed."""
    raw = [tuple(fitted(flow(seed, True), seed) for seed in pair) for pair in UNTRAINED]
    shares = []
    for k, pair in enumerate(raw):
        others = [other for place, other in enumerate(raw) if place != k]
        found = compare(*pair, beside=others, draws=0, starts=2)
        assert found.null_similarity.shape == (4,)
        shares.append(found.below_null)
    # Of pairs of one kind each is as often the nearest as any other.
    assert sorted(shares) == [0, 0.25, 0.5, 0.75, 1]
    same = compare(*(fitted(flow(1), features) for features in (0, 1)), beside=raw, draws=0)
    assert same.below_null == 1


def test_pairs_beside_must_be_pairs_of_what_is_compared_itself() -> None:
    shared: Any = tuple(noisy(turn(0.5), seed) for seed in (1, 2))
    aligned: Any = tuple(noisy(turn(0.5), seed, frames="aligned") for seed in (1, 2))
    assert compare(*shared, beside=[shared], draws=0, starts=1).null_similarity.shape == (1,)
    with pytest.raises(
        ValueError, match=r"of beside\[1\] the K on .*itself the K - I on functions"
    ):
        compare(*shared, beside=[shared, aligned], draws=0, starts=1)
    with pytest.raises(ValueError, match=r"of beside\[0\] the operators would be compared"):
        compare(*shared, beside=[(turn(0.5), turn(0.6))], draws=0, starts=1)
    with pytest.raises(ValueError, match=r"beside\[0\] is a Surrogate; expected a pair"):
        compare(*shared, beside=shared)
    hole = torch.tensor([[1.0, 0.0], [0.0, math.nan]])
    with pytest.raises(ValueError, match=r"beside\[0\]\[1\] has 1 of 4 entries that are not"):
        compare(turn(0.5), turn(0.6), beside=[(turn(0.7), hole)])
    with pytest.raises(ValueError, match=r"starts=8 and draws=-1 must not be negative"):
        compare(turn(0.5), turn(0.6), draws=-1)


def noisy(
    step: Tensor,
    seed: int,
    rows: int = 2000,
    frames: Literal["shared", "aligned"] = "shared",
    noise: float = 0.5,
) -> Surrogate:
    x = draw(rows, len(step), seed=seed)
    end = x @ step.T + noise * draw(rows, len(step), seed=seed + 1)
    return DMDFitter(frames=frames).update(Trajectory.of(x, end)).surrogate


def test_fits_to_different_rows_of_one_system_are_at_the_floor_and_other_systems_above() -> None:
    step = torch.block_diag(0.9 * turn(0.5), 0.6 * turn(1.5))
    other = step + 0.15 * draw(4, 4, seed=3)
    ratios = []
    for seed in range(0, 8, 2):
        same = compare(noisy(step, seed), noisy(step, seed + 100), draws=4, starts=1)
        ratios.append(same.similarity / same.floor.mean().item())
    assert sum(ratios) / 4 == pytest.approx(1, rel=0.3)
    apart = compare(noisy(step, 0), noisy(other, 100), draws=4, starts=1)
    assert apart.above_floor == 1
    assert apart.similarity > 2 * apart.floor.max()
    assert "100% of such pairs are nearer" in str(apart)
    # Fewer rows know less, and each fit's own count.
    few = compare(noisy(step, 0), noisy(step, 100, rows=200), draws=4, starts=1)
    assert few.floor.mean() == pytest.approx(2.3 * same.floor.mean().item(), rel=0.4)
    matrices = compare(step, other, draws=2)
    assert matrices.floor.shape == (0,)
    assert math.isnan(matrices.above_floor)


@pytest.mark.parametrize(("noise", "rank"), [(0.01, 20), (0.3, 20), (0.1, 2)])
def test_the_metric_of_the_data_is_drawn_with_the_rows_too(noise: float, rank: int) -> None:
    step = torch.tensor([[0.8, 0.1, 0.0], [0.0, 0.5, 0.2], [0.0, 0.0, -0.4]]).double()
    real, drawn, above = [], [], 0
    for seed in range(0, 24, 2):
        fits = noisy(step, seed, 300, noise=noise), noisy(step, seed + 100, 300, noise=noise)
        found = compare(*fits, rank=rank, draws=10, starts=1)
        real.append(found.similarity)
        drawn.append(found.floor.mean().item())
        above += found.above_floor == 1
    assert sum(real) / sum(drawn) == pytest.approx(1, rel=0.35)
    assert above <= 4  # of 12, each with a chance of 1 in 11


def test_the_state_compared_is_the_best_affine_map_in_the_metric_of_the_data() -> None:
    trajectory = flow(1)
    dmd = DMDFitter(frames="shared", dynamics="span").update(trajectory).surrogate
    found = compare(fitted(trajectory, 0), dmd, draws=0, starts=2)
    assert found.relative < 0.01
    assert found.sizes == (6, 6)


def test_a_learnt_encoders_functions_are_compared_whole_and_a_note_says_so() -> None:
    """Its first coordinates are the state and something more, so they are no common functions."""
    trajectory = flow(1)
    fitter = AutoencoderFitter(8, hidden=(6,), calibration=200, steps_per_update=1)
    learnt = fitter.update(trajectory).surrogate
    assert isinstance(learnt.observables, LearntObservables)
    found = compare(learnt, fitted(trajectory, 0), draws=0, starts=2)
    assert "latent functions" in found.subject
    assert len(found.notes) == 1
    with pytest.raises(ValueError, match="learnt encoder's latent coordinates do not hold"):
        compare(learnt, learnt, functions="state")


def test_the_identity_is_taken_off_only_where_both_have_shared_frames() -> None:
    trajectory = flow(1)
    aligned = DMDFitter(frames="aligned", dynamics="span").update(trajectory).surrogate
    shared = DMDFitter(frames="shared", dynamics="span").update(trajectory).surrogate
    assert compare(aligned, shared, draws=0).subject == "K on functions of the state,"
    assert compare(shared, shared, draws=0).subject == "K - I on functions of the state,"
    A = draw(3, 3)
    assert compare(A, A + torch.eye(3), draws=0, less_identity=True).subject == "K - I"


def test_a_summary_has_both_distances_beside_their_nulls() -> None:
    lines = str(compare(draw(3, 3), draw(4, 4, seed=1), draws=4)).splitlines()
    assert lines[0].startswith("operators of size 3 and 4, scale ")
    assert lines[2].startswith("similarity")
    assert lines[3].startswith("eigenvalues")
    assert len({len(line) for line in lines[1:4]}) == 1
    assert lines[4].startswith("similarity is at least")
    alone = compare(draw(3, 3), draw(4, 4, seed=1), draws=0)
    assert "none drawn" in str(alone)
    assert math.isnan(alone.below_null)


def test_mistakes_are_named() -> None:
    K = torch.eye(2)
    with pytest.raises(ValueError, match=r"second has shape \(2, 3\); expected"):
        compare(K, torch.zeros(2, 3))
    with pytest.raises(ValueError, match="rank=0 must be at least 1"):
        compare(K, K, rank=0)
    with pytest.raises(ValueError, match="first has 4 of 4 entries that are not finite"):
        compare(K * math.nan, K)
    with pytest.raises(TypeError, match="second must be a Surrogate or a matrix; got NoneType"):
        compare(K, None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="functions='all' is unknown"):
        compare(K, K, functions="all")  # type: ignore[arg-type]
    bare = surrogate_of(draw(4, 4), torch.eye(4).double(), draw(50, 4), fitted=False)
    with pytest.raises(ValueError, match=r"first surrogate has no statistics.*matrix\(1\.0\)"):
        compare(bare, bare)


def _of_size(size: int, kind: str, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    A, B = torch.randn(2, size, size, generator=generator, dtype=torch.float64) / size**0.5
    turn = random_orthogonal(size, 1, generator)[0]
    return A, {"unrelated": B, "noisy": turn @ (A + 0.1 * B) @ turn.T, "same": turn @ A @ turn.T}[
        kind
    ]


@pytest.mark.parametrize("kind", ["unrelated", "noisy", "same"])
@pytest.mark.parametrize("size", [40, 64])
def test_large_matrices_come_as_near_as_the_search_of_small_ones_brings_them(
    kind: str, size: int
) -> None:
    A, B = _of_size(size, kind, seed=size)
    generator = torch.Generator().manual_seed(1)
    starts = torch.cat([alignment_starts(A, B), random_orthogonal(size, 2, generator)])
    found = climb(A, B, starts, 150)
    eye = torch.eye(size, dtype=torch.float64)
    assert (found @ found.mT - eye).abs().max() < 1e-12
    distances, slow = (
        torch.linalg.matrix_norm(A - C @ B @ C.mT) for C in (found, ascend(A, B, starts, 300))
    )
    assert distances.min() <= slow.min() + 1e-6 * A.norm()
    begun = torch.linalg.matrix_norm(A - starts @ B @ starts.mT)
    assert (distances <= begun + 1e-9).all()
    assert torch.equal(climb(A, B, starts, 150), found)
    for scale in (1e-30, 1e60):  # beyond what float32 can square or hold
        scaled = climb(scale * A, scale * B, starts, 150)
        near = torch.linalg.matrix_norm(A - scaled @ B @ scaled.mT)
        torch.testing.assert_close(near.min(), distances.min(), rtol=1e-4, atol=1e-6)


def test_matrices_of_zeros_leave_large_searches_where_they_start() -> None:
    starts = random_orthogonal(40, 2, torch.Generator().manual_seed(0))
    none = torch.zeros(40, 40, dtype=torch.float64)
    assert torch.equal(climb(none, starts[0], starts, 10), starts)
    assert compare(none, none, draws=0).similarity == 0
