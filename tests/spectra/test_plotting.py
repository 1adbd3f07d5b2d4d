"""The picture of a spectrum shows every eigenvalue where it is, and as trusted as it is."""

import sys
from collections.abc import Iterator
from dataclasses import replace

import matplotlib as mpl
import pytest
import torch
from torch import Tensor

import torchkoopman as tk
from tests.processes import completed
from torchkoopman.observe.moments import Moments
from torchkoopman.observe.pairs import layer_pairs
from torchkoopman.spectra.pseudospectrum import Kind, Pseudospectrum
from torchkoopman.spectra.spectrum import Spectrum, spectrum_of
from torchkoopman.spectra.tracks import ModeTracks

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.contour import ContourSet
from matplotlib.patches import Circle

from tests.systems import draw


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    plt.close("all")


def spectrum(scale: float = 1.0) -> Spectrum:
    """Of a law that half of the coordinates obey; the others are noise."""
    start, noise = draw(400, 6), draw(400, 6, seed=1)
    end = torch.cat([0.9 * start[:, :3].roll(1, 1), noise[:, 3:]], 1)
    moments = Moments(layer_pairs(("start", "end"), "ends")).update({"start": start, "end": end})
    K = torch.linalg.lstsq(start, end, driver="gels").solution.T
    return spectrum_of(scale * K, moments)


def markers(ax: Axes) -> dict[str, PathCollection]:
    """First word of each legend entry → its markers."""
    dots = [each for each in ax.collections if isinstance(each, PathCollection)]
    return {str(each.get_label()).split()[0]: each for each in dots}


def places(dots: PathCollection) -> Tensor:
    return torch.view_as_complex(torch.as_tensor(dots.get_offsets().data).contiguous())


def test_trusted_modes_are_filled_and_the_others_hollow() -> None:
    own = spectrum()
    trusted = own.trusted()
    assert 0 < trusted.sum() < len(trusted)
    ax = own.plot()
    found = markers(ax)
    torch.testing.assert_close(places(found["trusted"]), own.eigenvalues[trusted])
    torch.testing.assert_close(places(found["not"]), own.eigenvalues[~trusted])
    assert len(found["trusted"].get_facecolor()) == 1
    assert len(found["not"].get_facecolor()) == 0
    counts = [str(text.get_text()) for text in ax.get_legend().get_texts()]
    assert counts == [
        f"not borne out by the data ({int((~trusted).sum())})",
        f"trusted ({int(trusted.sum())})",
    ]


def test_area_grows_with_energy() -> None:
    own = spectrum()
    trusted, energies = own.trusted(), own.energies
    assert energies is not None
    sizes = torch.as_tensor(markers(own.plot())["trusted"].get_sizes())
    assert torch.equal(sizes.argsort(stable=True), energies[trusted].argsort(stable=True))


def test_the_unit_circle_is_drawn_whole_and_to_scale() -> None:
    ax = spectrum(0.1).plot()
    circle = next(each for each in ax.patches if isinstance(each, Circle))
    assert (circle.center, circle.radius) == ((0, 0), 1)
    assert ax.get_aspect() == 1
    assert min(-ax.get_xlim()[0], ax.get_xlim()[1], -ax.get_ylim()[0], ax.get_ylim()[1]) > 1


def test_the_title_counts_what_lies_beyond_the_view() -> None:
    own = spectrum()
    trusted = own.trusted()
    far = torch.where(trusted, own.eigenvalues, own.eigenvalues * 1e6)
    assert own.residuals is not None
    doubted = torch.where(trusted, own.residuals, torch.inf)
    ax = replace(own, eigenvalues=far, residuals=doubted).plot()
    assert f"{int((~trusted).sum())} beyond this view" in ax.get_title()
    assert ax.get_xlim()[1] < 2
    assert "beyond" not in own.plot().get_title()


def test_without_data_every_mode_is_filled_and_in_view() -> None:
    own = spectrum_of(5 * draw(4, 4))
    ax = own.plot()
    assert list(markers(ax)) == ["modes"]
    assert ax.get_xlim()[1] > own.radius
    assert "beyond" not in ax.get_title()


def test_a_spectrum_without_modes_is_a_circle() -> None:
    own = spectrum()
    ax = own.keep(torch.zeros(len(own.eigenvalues), dtype=torch.bool)).plot()
    assert not ax.collections
    assert ax.get_title() == "0 eigenvalues of K over the span"


def test_it_draws_on_the_axes_given() -> None:
    figure, axes = plt.subplots(1, 2)
    assert spectrum().plot(axes[1]) is axes[1]
    assert not axes[0].patches
    assert len(plt.get_fignums()) == 1
    plt.close(figure)


def test_what_is_no_axes_is_refused_by_its_type() -> None:
    _, both = plt.subplots(1, 2)
    for wrong, kind in ((both, "ndarray"), ("here", "str")):
        with pytest.raises(TypeError, match=f"ax= of type {kind}; give one matplotlib Axes"):
            spectrum().plot(wrong)  # type: ignore[arg-type]


def test_matplotlib_is_loaded_by_nothing_but_a_plot() -> None:
    code = "import sys, torchkoopman; print('matplotlib' in sys.modules)"
    done = completed([sys.executable, "-c", code])
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "False"


def test_without_matplotlib_a_plot_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    own = spectrum()
    for name in ("matplotlib", "matplotlib.pyplot"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r"needs matplotlib.*torchkoopman\[plot\]"):
        own.plot()


def tracks(*, trusted: bool = True) -> ModeTracks:
    """Three modes over four spectra: one that stays, one that is born late, one that dies."""
    values = torch.full((4, 3), complex("nan+nanj"), dtype=torch.complex128)
    values[:, 0] = torch.tensor([0.9, 0.8, 0.7, 0.6])
    values[2:, 1] = torch.tensor([0.5j, 0.4j])
    values[:2, 2] = torch.tensor([-0.3, -0.2])
    there = ~values.isnan()
    indices = torch.where(there, 0, -1)
    known = there.clone()
    known[1, 0] = known[0, 2] = False
    return ModeTracks((0, 10, 20, 40), values, indices, known if trusted else None)


def dots(ax: Axes) -> dict[str, set[tuple[float, float]]]:
    """First word of each legend entry → the places of its dots."""
    return {
        name: {(round(x, 6), round(y, 6)) for x, y in found.get_offsets().data.tolist()}
        for name, found in markers(ax).items()
    }


def test_tracks_show_each_mode_at_its_steps_and_where_it_is_trusted() -> None:
    ax = tracks().plot()
    found = dots(ax)
    assert found["trusted"] == {(0, 0.9), (20, 0.7), (40, 0.6), (20, 0.5), (40, 0.4), (10, 0.2)}
    assert found["not"] == {(10, 0.8), (0, 0.3)}
    assert len(markers(ax)["not"].get_facecolor()) == 0
    lines = [line for line in ax.lines if len(line.get_xdata()) == 4]  # type: ignore[arg-type]
    drawn = torch.tensor([list(map(float, line.get_ydata())) for line in lines])  # type: ignore[arg-type]
    torch.testing.assert_close(drawn.T, tracks().eigenvalues.abs().float(), equal_nan=True)
    assert ax.get_ylabel() == "|λ|"


def test_the_angle_is_in_turns_and_without_trust_all_have_dots() -> None:
    found = dots(tracks(trusted=False).plot(part="angle"))
    turns = {(x, 0) for x in (0, 10, 20, 40)} | {(20, 0.25), (40, 0.25), (0, 0.5), (10, 0.5)}
    assert found == {"modes": turns}


def test_tracks_have_two_parts_and_may_be_none() -> None:
    with pytest.raises(ValueError, match="part='phase'; it draws 'modulus' or 'angle'"):
        tracks().plot(part="phase")  # type: ignore[arg-type]
    none = torch.zeros(4, 0)
    ax = ModeTracks((0, 1, 2, 3), none.to(torch.complex128), none.long()).plot()
    assert ax.get_legend() is None


def near(values: Tensor, kind: Kind = "residual") -> Pseudospectrum:
    axis = torch.linspace(-1, 1, 21, dtype=torch.float64)
    return Pseudospectrum(axis, 2 * axis, values, kind, kept=1, latent=1)


def test_contours_pass_through_the_values_that_they_name() -> None:
    axis = torch.linspace(-1, 1, 21, dtype=torch.float64)
    values = 10 ** (2 * axis)[None, :].expand(21, 21)  # of the real part alone: 0.01 to 100
    ax = near(values).plot()
    (contours,) = (each for each in ax.collections if isinstance(each, ContourSet))
    assert contours.levels.tolist() == pytest.approx([0.1, 1, 10])
    for level, path in zip(contours.levels, contours.get_paths(), strict=True):
        assert abs(10 ** (2 * path.vertices[:, 0]) / level - 1).max() < 0.2
    assert (ax.get_xlim(), ax.get_ylim()) == ((-1, 1), (-2, 2))
    assert ax.get_title() == "least residual"


@pytest.mark.parametrize("low", [0.0, 1.0, 2.0])
def test_few_powers_of_ten_and_none_are_no_error(low: float) -> None:
    values = torch.full((21, 21), 2.0, dtype=torch.float64)
    values[10, 10] = low
    ax = near(values, "matrix").plot()
    assert any(isinstance(each, ContourSet) for each in ax.collections) == (low < 2)
    assert "singular value" in ax.get_title()


def test_a_pseudospectrum_of_data_is_drawn() -> None:
    x = draw(500, 2)
    turn = torch.tensor([[0.0, -0.9], [0.9, 0.0]], dtype=x.dtype)
    own = tk.DMDFitter().update(tk.Trajectory.of(x, x @ turn.T)).surrogate.pseudospectrum()
    ax = own.plot()
    (contours,) = (each for each in ax.collections if isinstance(each, ContourSet))
    level = contours.levels.tolist().index(pytest.approx(0.1))
    line = torch.as_tensor(contours.get_paths()[level].vertices)
    ends = torch.tensor([[1.0, 0.0], [0.0, 0.9], [0.0, -0.9]], dtype=line.dtype)
    distances = torch.cdist(line, ends)
    assert distances.min(1).values.max() < 0.2, "around the constant's 1, and 0.9i and -0.9i"
    assert distances.min(0).values.max() < 0.2, "around each of them"
