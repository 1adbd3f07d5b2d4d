"""A document as one HTML file that needs nothing else: no server, no network, no other file."""

from __future__ import annotations

import base64
import html
import json
import math
from typing import TYPE_CHECKING, Any

from torchkoopman_panels.modules import asset, in_one
from torchkoopman_panels.schema import BITS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torchkoopman_panels.document import Document
    from torchkoopman_panels.packing import Bits

SIZE = 5_000_000
"""Bytes that a page has at most, unless it is larger with three steps: what a mail takes."""

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; \
script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>
{style}
</style>
</head>
<body>
<main id="koopman">
<noscript>This page draws with JavaScript, which is turned off here.</noscript>
</main>
<script type="application/json" id="index">{index}</script>
{blocks}
<script type="module">
{script}
</script>
</body>
</html>
"""


def page(
    document: Document, *, bits: Mapping[str, Bits] | None = None, size: int | None = SIZE
) -> str:
    """The panels of a document as one HTML file.

    Values are rounded, and where the page would be too large, of a training's steps every second,
    third … is taken, and the last. The page says both of each series: the largest relative error,
    and how many of how many steps. It loads nothing from anywhere, and forbids the browser to.

    Example:
        >>> import numpy as np
        >>> from torchkoopman_panels import Document, Series, page
        >>> document = Document("one step")
        >>> document.add("run", "1-9", 0, [Series("singular_values", np.ones(3))])
        >>> page(document)[:15]
        '<!doctype html>'

    Args:
        document: what to show.
        bits: name of a series → binary digits that are kept after the leading one, by column if
            there are several; None for all 23. By default λ has 12 (a relative error of at most
            0.00013); residuals, energies, errors, closures, conditions and singular values have 7
            (0.4 %).
        size: bytes to stay below by leaving out steps; None to keep them all.
    """
    bits = BITS if bits is None else bits
    index, script, style = document.index(), in_one("report.js"), asset("panels.css")
    every, most = 1, max(map(len, document.arrays.values()), default=0)
    while True:
        text = _PAGE.format(
            title=html.escape(document.title or "Koopman"),
            style=style,
            index=as_json(index),
            blocks="\n".join(
                f'<script type="application/octet-stream" id="block-{key}">'
                f"{base64.b64encode(block).decode()}</script>"
                for key, block in document.blocks(bits, every)
            ),
            script=script,
        )
        excess = 1.0 if size is None else len(text.encode("utf-8", "replace")) / size
        if excess <= 1 or document.axis != "step" or 2 * every >= most:
            return text.encode("utf-8", "replace").decode()
        every = max(every + 1, math.floor(every * excess))


def as_json(value: Any) -> str:
    """JSON that a browser reads and that can stand in a script element."""
    text = json.dumps(_finite(value), allow_nan=False)  # ASCII: U+2028 and U+2029 are escaped
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _finite(value: Any) -> Any:
    """With null for NaN and infinite numbers, which JSON does not have."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
