"""Panels of what torchkoopman finds, for a browser: one set, for TensorBoard's tab and for reports.

This package needs numpy alone. It knows series of arrays by name, not the results they come from.
"""

from torchkoopman_panels.document import Document
from torchkoopman_panels.modules import assets
from torchkoopman_panels.packing import pack
from torchkoopman_panels.page import page
from torchkoopman_panels.schema import SCHEMA, Series

__all__ = ["SCHEMA", "Document", "Series", "assets", "pack", "page"]
