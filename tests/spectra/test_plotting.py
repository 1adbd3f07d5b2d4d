"""The picture of a spectrum shows every eigenvalue where it is, and as trusted as it is."""

import sys
from collections.abc import Iterator
from dataclasses import replace

import matplotlib as mpl
import pytest
import torch
from torch import Tensor

from tests.processes import completed
from torchkoopman.observe.moments import Moments
from torchkoopman.observe.pairs import layer_pairs
from torchkoopman.spectra.spectrum import Spectrum, spectrum_of

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
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
