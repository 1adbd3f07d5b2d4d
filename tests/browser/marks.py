"""Where a spectrum's marks stand in the picture, held against eigenvalues."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from tests.browser.browsing import PATIENCE

if TYPE_CHECKING:
    import numpy.typing as npt

    import torchkoopman as tk
    from tests.browser.browsing import Shown


def eigenvalues(fit: tk.Surrogate) -> npt.NDArray[Any]:
    """λ over the span, as the log has them."""
    return fit.spectrum().eigenvalues.numpy()


MARKS = """([panel, tone]) => {
  const circle = panel.querySelector("circle.k-circle");
  const marks = [...panel.querySelectorAll(`.k-mode[data-mode].k-tone-${tone}`)];
  const [cx, cy, r] = ["cx", "cy", "r"].map((name) => Number(circle?.getAttribute(name)));
  return marks.map((node) => {
    const box = node.getBBox();
    const [x, y] = [box.x + box.width / 2, box.y + box.height / 2];
    return [Number(node.dataset.mode), (x - cx) / r, (cy - y) / r];
  });
}"""


def draws(tab: Shown, fit: tk.Surrogate, tone: int = 0) -> bool:
    """Whether each mode's mark stands where its λ is beside the unit circle, at last."""
    panel = tab.panel("spectrum").element_handle()
    expected = eigenvalues(fit)
    late = time.monotonic() + PATIENCE / 1000
    while time.monotonic() < late:
        found = {mode: complex(x, y) for mode, x, y in tab.frame.evaluate(MARKS, [panel, tone])}
        if sorted(found) == list(range(len(expected))):
            values = [found[mode] for mode in sorted(found)]
            if np.allclose(values, expected, atol=2e-3):
                return True
        time.sleep(0.02)
    return False
