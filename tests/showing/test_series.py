"""What results show: series of arrays with the values of the result, and scalars."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torchkoopman_panels import Document

import torchkoopman as tk
from tests.systems import normal
from torchkoopman.showing import Shown, series_of
from torchkoopman.topology.report import LayerTopology
from torchkoopman.unlearning.measures import Detection, Membership
from torchkoopman.unlearning.report import Column

LAYERS = ("b.9", "b.10", "b.2")
"""Their alphabetical order is not that of depth."""


def fitted(width: int = 3, rows: int = 300, **options: Any) -> tk.Surrogate:
    x, turn = normal(rows, width), torch.linalg.qr(normal(width, width, seed=1))[0]
    states = (x, 0.9 * x @ turn, (x @ turn).sin())
    named = {layer: state[:, None] for layer, state in zip(LAYERS, states, strict=True)}
    return tk.DMDFitter(**{"dynamics": "step", **options}).update(tk.Trajectory(named)).surrogate


def named(shown: Shown) -> dict[str, np.ndarray[Any, Any]]:
    assert len({series.name for series in shown.series}) == len(shown.series)
    return {series.name: series.values for series in shown.series}


def about(shown: Shown, name: str) -> dict[str, Any]:
    (found,) = (dict(series.about) for series in shown.series if series.name == name)
    return found


def test_r2_is_that_of_held_out_rows_where_it_is_known() -> None:
    fit = fitted()
    held_out = {layer: 0.25 * k for k, layer in enumerate(LAYERS[1:], start=1)}
    judged = fit.with_(record=replace(fit.record, held_out=held_out))
    shown = series_of(judged)
    assert named(shown)["r2"].tolist() == [0.25, 0.5]
    assert [shown.scalars[f"r2/{layer}"] for layer in LAYERS[1:]] == [0.25, 0.5]
    assert named(series_of(fit))["r2"].tolist() == [fit.record.r2[layer] for layer in LAYERS[1:]]


def topology() -> tk.results.Topology:
    """Three layers whose counts differ between the systems and the layers."""

    def layer(number: int) -> LayerTopology:
        scales = torch.linspace(0.1, 2.0, 7, dtype=torch.float64)
        clouds = [normal(12 - 2 * number, 2, seed=10 * number + k) for k in (1, 2)]
        curves = {
            d: tuple(tk.topology.betti_curve(cloud, d, scales=scales) for cloud in clouds)
            for d in (0, 1)
        }
        return LayerTopology(f"block.{number}", number / 2, curves)  # type: ignore[arg-type]

    return tk.results.Topology(12, 9, 0.6, "states", False, tuple(map(layer, range(3))))


def column(shift: float, relearning: int | None, **options: Any) -> Column:
    test = {0: 0.9 - shift, 1: 0.8, 2: 0.7 + shift}
    train = {c: accuracy + 0.05 for c, accuracy in test.items()}
    member = Membership(0.5 + shift, 0.6)
    found: dict[str, Any] = {"divergence": None, "detections": {}, **options}
    return Column(test, train, 0.9 - shift, 0.75, membership=member, relearning=relearning, **found)


def audit(**more: Column) -> tk.results.Audit:
    probe = {"operator": Detection(0.8, 0.7)}
    columns = {
        "original": column(0.0, 0),
        "unedited swap": column(0.02, 1),
        "edited": column(0.2, None, detections=probe, divergence=(0.1, 0.2)),
        **more,
    }
    return tk.results.Audit((0,), columns, None, None, tk.Relearning(limit=40), ("a note",))


def test_a_surrogates_series_are_its_spectrum_singular_values_and_quality() -> None:
    fit = fitted()
    shown, spectrum = series_of(fit), fit.spectrum()
    found = named(shown)
    assert set(found) == {"spectrum", "singular_values", "r2"}
    assert shown.span == "b.9-b.2"
    assert found["spectrum"].shape == (fit.latent, 8)
    values = spectrum.eigenvalues.numpy()
    assert (found["spectrum"][:, 0] + 1j * found["spectrum"][:, 1] == values).all()
    assert (found["spectrum"][:, 6] == spectrum.trusted().numpy()).all()
    assert spectrum.conditions is not None
    assert (found["spectrum"][:, 7] == spectrum.conditions.numpy()).all()
    assert about(shown, "spectrum") == {
        "layers": list(LAYERS),
        "times": [0, 0.5, 1],
        "steps": 2,
        "frames": "shared",
    }
    assert about(shown, "r2") == {"layers": ["b.10", "b.2"]}
    assert found["r2"].tolist() == [fit.record.r2[layer] for layer in LAYERS[1:]]
    assert shown.scalars["trusted_modes"] == spectrum.trusted().sum() > 0


def test_one_mode_and_none_that_is_trusted_are_shown() -> None:
    alone = fitted(1)
    scalars = series_of(alone.with_(statistics=None, evidence=None)).scalars
    assert "trusted_modes" not in scalars, "nothing is known"
    x, noise = normal(300, 1), normal(300, 1, seed=5)
    spurious = tk.DMDFitter().update(tk.Trajectory.of(x, noise)).surrogate
    shown = series_of(spurious)
    assert shown.scalars["trusted_modes"] < len(named(shown)["spectrum"])
    kept = spurious.spectrum().trusted()
    assert ("spectral_radius" in shown.scalars) == bool(kept.any())


def test_losses_and_notes_are_shown_where_there_are_any() -> None:
    fitter = tk.AutoencoderFitter(5, hidden=(6,), calibration=100, steps_per_update=2)
    x = normal(300, 3)
    fit = fitter.update(tk.Trajectory.of(x, 0.9 * x)).surrogate
    shown = series_of(fit, tag="encoder")
    assert shown.span == "encoder"
    assert about(shown, "losses") == {"terms": list(fit.record.losses)}
    assert named(shown)["losses"].tolist() == list(fit.record.losses.values())
    assert shown.notes == fit.record.notes


def test_tracks_say_the_column_of_each_mode() -> None:
    first, second = fitted(), fitted(ridge=0.1)
    tracks = tk.follow([first.spectrum(), second.spectrum()])
    columns = named(series_of(second, tracks=tracks))["tracks"]
    for column, index in enumerate(tracks.indices[-1].tolist()):
        assert index < 0 or columns[index] == column


def test_a_pseudospectrum_has_its_axes_in_the_first_row_and_column() -> None:
    fit = fitted()
    shown, expected = series_of(fit, pseudospectrum=True), fit.pseudospectrum()
    found = named(shown)["pseudospectrum"]
    assert math.isnan(found[0, 0])
    assert found[0, 1:].tolist() == expected.real.tolist()
    assert found[1:, 0].tolist() == expected.imag.tolist()
    assert found[1:, 1:].tolist() == expected.residuals.tolist()
    assert about(shown, "pseudospectrum") == {"kind": "residual"}
    without = series_of(fit.with_(statistics=None, evidence=None), pseudospectrum=True)
    assert about(without, "pseudospectrum") == {"kind": "matrix"}


def test_a_topology_shows_curves_and_components_of_both_systems() -> None:
    own = topology()
    shown = series_of(own)
    assert shown.span == "block.0-block.2"
    found = named(shown)
    for dimension, rows in ((0, 12), (1, 9)):
        values = found[f"betti{dimension}"]
        assert values.shape == (3, 2, 4, 7)
        for layer, one in enumerate(own.layers):
            for system, curve in enumerate(one.curves[dimension]):
                expected = (curve.scales, curve.values, curve.low, curve.high)
                for row, each in zip(values[layer, system], expected, strict=True):
                    assert row.tolist() == each.tolist()
        told = about(shown, f"betti{dimension}")
        assert (told["dimension"], told["rows"]) == (dimension, rows)
        assert told["unit"] == "units of the states"
    assert found["components"].tolist() == [
        [0.6, 0.6],
        *map(list, zip(own.network, own.surrogate, strict=True)),
    ]
    assert own.network != own.surrogate, "else the two could be exchanged"
    for k, one in enumerate(own.layers):
        assert shown.scalars[f"beta0/network/{one.layer}"] == own.network[k]
        assert shown.scalars[f"beta0/surrogate/{one.layer}"] == own.surrogate[k]
        assert shown.scalars[f"beta1_l1/{one.layer}"] == one.relative(1)


def test_an_audit_shows_accuracies_and_all_its_numbers() -> None:
    own = audit()
    shown = series_of(own)
    found = named(shown)
    assert shown.span == "forgetting-0"
    assert shown.notes == ("a note",)
    networks = ["original", "unedited swap", "edited"]
    told = {"networks": networks, "classes": [0, 1, 2], "forgotten": [0]}
    assert about(shown, "accuracy") == told
    for row, each in zip(found["accuracy"], own.columns.values(), strict=True):
        assert row.tolist() == [[each.test[c], each.train[c]] for c in range(3)]
    assert about(shown, "audit")["limit"] == 40
    measures = about(shown, "audit")["measures"]
    numbers = dict(zip(measures, found["audit"].tolist(), strict=True))
    assert not any("class " in name for name in measures), "they are in the accuracies"
    assert numbers["forgotten, still right, test %"] == [90, 88, 70]
    assert numbers["relearning, steps"] == [0, 1, math.inf], "infinite where it did not come back"
    assert numbers["KL from retrained, retained"][2] == 0.2
    assert np.isnan(numbers["KL from retrained, retained"][:2]).all()
    assert numbers["probe at operator, balanced %"][2] == 80
    assert shown.scalars["forgotten/unedited swap"] == 0.88
    assert shown.scalars["edit_cost"] == own.edit_cost
    assert shown.scalars["swap_cost"] == own.swap_cost


def test_the_printed_audit_has_the_numbers_that_are_shown() -> None:
    own = audit(retrained=column(0.9, 20))
    cells = {row[0]: row[1:] for row in own.table().rows}
    assert cells["relearning, steps"] == ["0", "1", "> 40", "20"]
    assert cells["… of the retrained network's"] == ["0.00", "0.05", "–", "1.00"]
    assert cells["KL from retrained, retained"] == ["–", "–", "0.200", "–"]
    assert cells["  class 0 (forgotten), test %"] == ["90.00", "88.00", "70.00", "0.00"]
    shown = series_of(own)
    for name, values in zip(about(shown, "audit")["measures"], named(shown)["audit"], strict=True):
        for cell, value in zip(cells[name], values, strict=True):
            if cell not in ("–", "> 40"):
                assert float(cell) == pytest.approx(value, abs=0.006), name


def paths() -> tk.results.Paths:
    nan = math.nan
    points = torch.arange(24.0, dtype=torch.float64).reshape(3, 2, 2, 2)
    shares = torch.tensor([[[0.5, 0.4], [0.6, 0.1]], [[0.3, 0.2], [nan, nan]]])
    r2 = torch.tensor([[1.0, 0.9], [1.0, nan]]).double()
    labels = torch.tensor([2, 0, 2])
    systems = ("network", "surrogate")
    return tk.results.Paths(("a", "b"), (0.0, 1.0), systems, points, shares.double(), r2, labels)


def test_paths_show_the_shares_of_variance_before_the_samples() -> None:
    own = paths()
    shown = series_of(own)
    assert shown.span == "a-b"
    values = named(shown)["trajectories"]
    assert values[1:].tolist() == own.points.tolist()
    np.testing.assert_array_equal(values[0], own.shares.numpy())
    told = about(shown, "trajectories")
    assert told.pop("times") == [0, 1]
    names = {"layers": ["a", "b"], "systems": ["network", "surrogate"]}
    assert told == {**names, "labels": [2, 0, 2], "forgotten": []}
    assert shown.scalars == {
        "variance_shown/a": pytest.approx(0.9),
        "variance_shown/b": pytest.approx(0.5),
    }, "nothing of what is not predicted"


@pytest.mark.parametrize("make", [fitted, topology, audit, paths], ids=lambda make: make.__name__)
def test_series_go_into_a_document(make: Any) -> None:
    shown = series_of(make())
    for series in shown.series:
        assert series.values.dtype == np.float64
        json.dumps(dict(series.about), allow_nan=False)
    document = Document()
    document.add("run", shown.span, 0, shown.series)
    assert len(dict(document.blocks())) == len(shown.series)


def test_what_has_no_series_is_refused_by_its_class() -> None:
    with pytest.raises(TypeError, match="a Spectrum has no series of its own; give one of Surr"):
        series_of(fitted().spectrum())  # type: ignore[arg-type]
    for options in ({"pseudospectrum": True}, {"tracks": tk.follow([fitted().spectrum()])}):
        with pytest.raises(TypeError, match=r"go with a Surrogate.*of the class Topology"):
            series_of(topology(), **options)  # type: ignore[arg-type]
