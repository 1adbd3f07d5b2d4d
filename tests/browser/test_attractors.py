"""The panel of attractors in a real Chromium: what it draws is what was logged."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING, Any

import pytest

import torchkoopman as tk
from tests.browser.browsing import chromium, failures
from tests.browser.test_report import OVER, SIZE, read
from tests.showing.test_flows import looks

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser

FLOW = '[data-panel="flow"] svg .k-dot'


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_attractors_are_drawn_through_the_steps(
    browser: Browser, tmp_path: Path, scheme: Any
) -> None:
    found = looks()
    path = tk.report(tmp_path / "flow.html", {"gain": {look.step: look for look in found}})
    context = browser.new_context(viewport=SIZE, color_scheme=scheme, offline=True)
    shown = read(context, path.as_uri(), FLOW)
    panel = shown.panel("flow")
    # Three charts with a dot for each step: two sets' attractors and shares, and one distance.
    assert panel.locator(".k-dot").count() == (2 + 2 + 1) * 3
    for column, values in (("1", "radii"), ("2", "norms")):
        marks = panel.locator(f'path[data-column="{column}"]').get_attribute("d")
        assert marks is not None
        assert marks.count("M") == sum(len(getattr(look, values)) for look in found) == 5
    assert shown.sentence() == "1 attractor, 0 born, 1 gone."
    note = panel.locator(".k-note")
    assert "1 attractor, 0 born since the look before, 1 gone" in note.inner_text()
    shown.go(0)
    assert "2 attractors, 2 born since the look before, 0 gone" in note.inner_text()
    rows = {(row["step"], row["of"], row["quantity"]): row["value"] for row in shown.table("flow")}
    for look in found:
        for k, name in enumerate(look.names):
            told = float(rows[str(look.step), f"from {name}", "attractors"])
            assert told == int(look.reached[k].sum())
        for k, track in enumerate(look.tracks.tolist()):
            radius = float(rows[str(look.step), f"attractor {track}", "radius"])
            assert radius == pytest.approx(look.radii[k].item(), rel=2e-4)
    ET.fromstring(shown.picture("flow"))
    assert failures(shown.frame) == []
    for width in (1300, 420):
        shown.page.set_viewport_size({"width": width, "height": 1000})
        shown.frame.wait_for_function(f"() => {OVER} === 0")
        shown.keep(f"attractors-{width}-{scheme}")
    assert shown.told == []
    context.close()
