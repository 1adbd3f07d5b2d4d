"""What TensorBoard finds as its plugin: it imports this file when it starts, whatever is logged.

An exception here, or in :meth:`KoopmanLoader.fix_flags`, would keep all of TensorBoard from
starting. So this imports nothing that can be missing; what ``load`` raises is caught by
TensorBoard, which then starts without the tab.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tensorboard.plugins import base_plugin

from torchkoopman_tensorboard import PLUGIN_NAME

if TYPE_CHECKING:
    import argparse

SAMPLES = 1000
"""Steps of a series that TensorBoard keeps, unless ``--samples_per_plugin koopman=…`` says how
many; 0 keeps them all. TensorBoard's own default is 10, or 100 with its fast loader."""


class KoopmanLoader(base_plugin.TBLoader):  # type: ignore[misc]
    """Makes the plugin of the tab "Koopman"."""

    def fix_flags(self, flags: argparse.Namespace) -> None:
        """Keep more than a few steps."""
        try:
            flags.samples_per_plugin.setdefault(PLUGIN_NAME, SAMPLES)
        except Exception:  # flags of another TensorBoard: it starts, with fewer steps
            return

    def load(self, context: base_plugin.TBContext) -> base_plugin.TBPlugin:
        """The plugin."""
        from torchkoopman_tensorboard.plugin import KoopmanPlugin

        return KoopmanPlugin(context)
