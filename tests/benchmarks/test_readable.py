"""What is read first, by the example that prints it: a short training, and what is said of it."""

import pytest

import torchkoopman as tk
from benchmarks.training.readable import BEGAN, DRAWS, NETWORKS, distances, looks, table, watched


@pytest.mark.slow
def test_a_network_outweighs_the_draw_of_a_dictionary_and_trusted_modes_are_few() -> None:
    trained, raw = ((watched(3, epochs), watched(4, epochs)) for epochs in (4, 0))
    found = distances(trained, raw)
    assert found[DRAWS].relative < 0.1 * found[NETWORKS].relative
    assert found[DRAWS].below_null == 1
    assert found[BEGAN].below_null < 1
    assert (found[DRAWS].above_floor, found[NETWORKS].above_floor) == (0, 1)
    assert all(name in table(found) for name in found)
    told, every = (tk.follow(trained[0].spectra, trusted=only) for only in (True, False))
    assert 0 < told.indices.shape[1] < 0.1 * every.indices.shape[1]
    assert (told.indices >= 0).all()  # each mode is there throughout
    spectrum = trained[0].last.spectrum()
    assert spectrum.radius > 20
    assert spectrum.keep(spectrum.trusted()).radius < 2
    assert trained[0].last.pseudospectrum(points=3).real.max() < 2
    assert "modes followed" in looks(trained[0])
