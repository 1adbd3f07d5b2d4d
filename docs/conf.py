"""How Sphinx builds these pages: ``make docs``, without network, every warning an error."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "integrations")]

import torchkoopman  # noqa: E402, behind the path

project = "torchkoopman"
project_copyright = "the torchkoopman authors"
version = release = torchkoopman.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "start.py", "gallery/*.rst.txt"]
nitpicky = True
myst_enable_extensions = ["dollarmath", "colon_fence", "deflist"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = "torchkoopman"
html_static_path: list[str] = []
