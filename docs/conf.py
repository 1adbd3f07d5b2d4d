"""How Sphinx builds these pages: ``make docs``, without network, every warning an error."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from docutils import nodes

if TYPE_CHECKING:
    from docutils.nodes import Element
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "integrations"), str(ROOT / "docs")]

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
    "formulas",
]
html_math_renderer = "mathml"
exclude_patterns = ["_build", "start.py", "gallery/*.rst.txt"]
nitpicky = True
myst_enable_extensions = ["dollarmath", "colon_fence", "deflist"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = "torchkoopman"
html_static_path = ["_static"]
html_css_files = ["pages.css"]

sphinx_gallery_conf: dict[str, Any] = {
    "examples_dirs": "../examples",
    "gallery_dirs": "gallery",
    "filename_pattern": r"/plot_",
    "ignore_pattern": r"(^|/)(?!plot_)\w+\.py$",  # the folder holds other programs too
    "within_subsection_order": "gallery_setting.ReadingOrder",
    "abort_on_example_error": True,
    "run_stale_examples": True,  # what they show depends on the library, not on them alone
    "reset_modules": ("matplotlib", "gallery_setting.begin"),
    "image_scrapers": ("matplotlib",),
    "capture_repr": (),
    # Nothing that is another at each build, and no notebooks.
    "notebook_extensions": set(),
    "download_all_examples": False,
    "write_computation_times": False,
    "min_reported_time": float("inf"),
    "show_memory": False,
    "show_signature": False,
}

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
napoleon_numpy_docstring = False
python_maximum_signature_line_length = 80
python_use_unqualified_type_names = True

nitpick_ignore_regex = [
    ("py:.*", r"(torch|nn|fx|numpy|np|npt)\..*"),
    ("py:.*", r"(builtins|collections|contextlib|enum|pathlib|types|typing)\..*"),
    ("py:.*", "Tensor|Path|AbstractContextManager|TracebackType|SummaryWriter|optional"),
]
"""torch, numpy and Python, whose pages are not at hand without network."""

GATHERING = ("results", "spectra", "topology", "scaling", "showing", "flows", "plots")
"""Modules of the package with public names of their own."""

WITHOUT_PAGE = {
    "Bits",
    "Following",
    "Layout",
    "Moving",
    "PathReplacement",
    "Replacement",
    "Residuals",
    "ScaledLayer",
    "Solver",
    "Starts",
    "Step",
    "System",
    "Updatable",
    "Value",
    "Writer",
}
"""Types of the package that signatures name and users do not need: shown without a link."""

MADE_BY_THE_LIBRARY = {
    "Document",
    "Probe",
    "Trajectory",
    "Evaluation",
    "Surrogate",
    "Spectrum",
    "Modes",
    "Pseudospectrum",
    "NonNormality",
    "ModeTracks",
    "OperatorDistance",
    "Topology",
    "BettiCurve",
    "SpanRanking",
    "Inspection",
    "InspectedBlock",
    "Rank",
    "Skipped",
    "DirtyCut",
    "Audit",
    "Scaling",
    "ProbeReport",
    "StreamReport",
    "View",
    "FitRecord",
    "Edit",
    "LayerTopology",
    "RankedSpan",
    "UnrankedSpan",
    "Cost",
    "SwapRecord",
    "Crossing",
    "Column",
    "Detection",
    "Membership",
    "Table",
    "Part",
}
"""Classes that users get and do not make, or make with few of their arguments: shown without the
arguments of their constructor."""


def link(app: Sphinx, env: BuildEnvironment, node: Element, contents: Element) -> Element | None:
    """Link a name that is given bare, or by the module that defines it, to where it is described.

    ``Surrogate`` and ``torchkoopman.koopman.surrogate.Surrogate`` are ``torchkoopman.Surrogate``.
    """
    if node.get("refdomain") != "py":
        return None
    python, parts = env.domains.python_domain, node["reftarget"].split(".")
    for length in range(min(2, len(parts)), 0, -1):
        end = ".".join(parts[-length:])
        found = [
            name
            for name, entry in python.objects.items()
            if f".{name}".endswith(f".{end}")
            and (length == 2 or entry.objtype in ("class", "exception", "function", "type"))
        ]
        if len(found) == 1:
            return python.resolve_xref(
                env, node["refdoc"], app.builder, "obj", found[0], node, contents
            )
    return contents if parts[-1] in WITHOUT_PAGE else None


def without_arguments(
    app: Sphinx, what: str, name: str, thing: Any, options: Any, arguments: str, returns: str
) -> tuple[str, str] | None:
    """Leave the constructor's arguments out where nobody calls it."""
    return ("", "") if name.rpartition(".")[2] in MADE_BY_THE_LIBRARY else None


def as_written(
    app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]
) -> None:
    """Keep napoleon from taking what an attribute's text says before a colon for its type.

    It looks in the first line only, which here becomes an empty comment.
    """
    if what in ("attribute", "data", "property"):
        lines[:0] = ["..", ""]


def whole_numbers(app: Sphinx, page: nodes.document) -> None:
    """In the cells of tables no line is broken between a mean and its deviation."""
    for cell in page.findall(nodes.entry):
        for text in list(cell.findall(nodes.Text)):
            text.parent.replace(text, nodes.Text(text.replace(" ± ", "\u00a0±\u00a0")))


def links_back(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any
) -> None:
    """Let source link to all that is described of it.

    viewcode takes one module for all of a file. Its names are described under the package, under
    modules that gather public names, or under the name of the file itself.
    """
    if not page.startswith("_modules/torchkoopman/"):
        return
    described, own = (
        app.env.domains.python_domain.objects,
        page[len("_modules/") :].replace("/", "."),
    )

    modules = ("torchkoopman", *(f"torchkoopman.{name}" for name in GATHERING), own)

    def link(found: re.Match[str]) -> str:
        parts = found[1].split(".")
        for length in (2, 1):
            for module in modules:
                name = ".".join([module, *parts[-length:]])
                if name in described and not described[name].aliased:
                    return f'#{name}"'
        return found[0]

    context["body"] = re.sub(r'#(torchkoopman(?:\.\w+)+)"', link, context["body"])


def setup(app: Sphinx) -> None:
    """Connect the above to Sphinx."""
    app.connect("html-page-context", links_back)
    app.connect("doctree-read", whole_numbers)
    app.connect("missing-reference", link)
    app.connect("autodoc-process-signature", without_arguments)
    app.connect("autodoc-process-docstring", as_written, priority=400)  # before napoleon's
