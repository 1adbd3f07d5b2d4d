"""The panels' JavaScript and style, as they lie in the repository."""

from pathlib import Path

ASSETS = Path(__file__).parents[2] / "integrations" / "torchkoopman_panels" / "assets"
