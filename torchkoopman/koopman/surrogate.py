"""The surrogate: coordinates → observables → operator, as one ``nn.Module``, with what it shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from torchkoopman.koopman.arithmetic import own_precision
from torchkoopman.koopman.folding import Replacement, fold
from torchkoopman.koopman.following import Following
from torchkoopman.koopman.structure import card_of_config
from torchkoopman.spectra.pseudospectrum import Pseudospectrum, pseudospectrum_of
from torchkoopman.spectra.spectrum import Spectrum, spectrum_of
from torchkoopman.tables import qualities
from torchkoopman.topology.layers import topology_of
from torchkoopman.topology.persistence import MAX_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch import nn

    from torchkoopman.observe.batches import Forward
    from torchkoopman.observe.views import LayoutOption, OutputOption
    from torchkoopman.spectra.pseudospectrum import Kind
    from torchkoopman.topology.clouds import Space
    from torchkoopman.topology.report import Topology


class Surrogate(Following):
    """A linear system that stands for the layers of a span; every fitter gives one.

    Calling it predicts the last layer's state from the first layer's, both of shape
    ``(batch, positions, features)``. It computes in its own precision, under autocast too. Its
    parts cannot be set; :meth:`with_` makes a copy with others.

    Example:
        >>> state = model[:2](test.inputs[:8])[:, None]  # of layer "1"
        >>> surrogate(state).shape
        torch.Size([8, 1, 32])
        >>> surrogate.layers, surrogate.latent, surrogate.record.method
        (('1', '3', '5', '7', '9'), 533, 'edmd')
    """

    @own_precision
    def spectrum(self) -> Spectrum:
        """Eigenvalues of K over the whole span, with modes, rates, residuals and energies.

        The first call takes seconds for a thousand latent coordinates. The result is kept, and
        computed again when a bit of the operator, the statistics or the evidence has changed, in
        whatever way; each call returns a copy of its own.
        """
        return self._spectrum.of(self._spectral_sources, self._computed_spectrum)

    def pseudospectrum(
        self,
        kind: Kind = "residual",
        *,
        real: Tensor | None = None,
        imag: Tensor | None = None,
        points: int = 61,
        rank: int = 100,
    ) -> Pseudospectrum:
        """Where in the complex plane K over the span almost has an eigenvalue.

        Takes seconds at 61 × 61 points and 100 directions.

        Args:
            kind: ``"residual"``, by the data of the fit, or ``"matrix"``, of the operator alone.
            real: real parts of the grid, ascending; by default ``points`` that cover the unit disk
                and the trusted eigenvalues (without data: all eigenvalues).
            imag: imaginary parts likewise.
            points: per axis of the default grid.
            rank: directions at most, of largest latent states or of largest ``|λ|``; fewer raise
                the values. The time grows with its cube.

        Raises:
            ValueError: no statistics of the fit for ``"residual"``, an unknown kind, or a grid that
                does not ascend.
        """
        total = None if self.statistics is None else self.statistics.total()
        K, spectrum = self.operator.matrix(1.0), self.spectrum()
        known = spectrum.residuals is not None
        cover = spectrum.eigenvalues[spectrum.trusted()] if known else None
        return pseudospectrum_of(
            K, total, kind=kind, real=real, imag=imag, points=points, rank=rank, cover=cover
        )

    def topology(
        self,
        model: nn.Module,
        loader: Iterable[Any],
        *,
        points: int = 1000,
        dimensions: Sequence[int] = (0, 1),
        landmarks: int = 300,
        bootstrap: int = 20,
        space: Space = "states",
        normalise: bool = False,
        generator: torch.Generator | None = None,
        layout: LayoutOption | None = None,
        output: OutputOption | None = None,
        positions: int | None = None,
        forward: Forward | None = None,
        gather: bool = False,
        max_bytes: int = MAX_BYTES,
    ) -> Topology:
        """Betti curves of the network's layers and of the surrogate at the layers' depth-times.

        One ε, from one rule on the network's first layer, serves both systems and all layers, while
        the Koopman-autoencoder paper (arXiv 2505.12809) chooses two so that the counts agree. Whole
        curves over ε are compared too, on scales set by the network's layer alone. The surrogate's
        cloud at a layer is what it predicts there from the first layer, and at the first layer the
        decoded encoding. Both clouds hold the same rows.

        The model runs in eval mode without gradients and is given back as it was. Layers between
        the steps of an operator fitted across the span are left out.

        Example:
            >>> topology = surrogate.topology(
            ...     model, test.loader(500), points=200, dimensions=[0], bootstrap=0
            ... )
            >>> [layer.layer for layer in topology.layers], topology.rows  # fitted across the span
            (['1', '9'], 200)

        Args:
            model: the network that the surrogate was fitted on.
            loader: batches as for :func:`torchkoopman.fit`; all are run, an even sample of rows
                stays.
            points: rows in each cloud for components, β0; n points take 4 n² bytes.
            dimensions: 0 for components, which always take part, 1 for loops, and so on.
            landmarks: rows for loops and higher dimensions; n points take up to n³ bytes.
            bootstrap: subsamples for the band of each curve, the same rows for all; 0 for none.
            space: ``"states"``, or ``"latent"``: encoded states beside propagated ones.
            normalise: divide each cloud by its RMS distance from its mean, so that shapes are
                compared and not sizes.
            generator: of the sample and the subsamples; None for one seeded with 0.
            layout: einops pattern of the layers' outputs; by default those of the surrogate's
                ``views``.
            output: which tensor is a layer's state; by default what the surrogate's ``views`` say.
            positions: take so many random positions of each sample instead of all.
            forward: how to call the model on a batch.
            gather: as for :func:`torchkoopman.fit`.
            max_bytes: refuse at the start what could need more memory; 2 GiB by default.

        Raises:
            ValueError: too much memory, fewer than two rows in the loader, states that are not
                finite, an unknown space, a layer that was read through a function, without
                ``output``, or one that returns another structure than in the fit.
            ImportError: loops without gudhi.
        """
        return topology_of(
            self,
            model,
            loader,
            points=points,
            dimensions=dimensions,
            landmarks=landmarks,
            bootstrap=bootstrap,
            space=space,
            normalise=normalise,
            generator=generator,
            layout=layout,
            output=output,
            positions=positions,
            forward=forward,
            gather=gather,
            max_bytes=max_bytes,
        )

    @torch.no_grad()
    def replacement(
        self, start: str | None = None, end: str | None = None, *, thin: bool = True
    ) -> Replacement:
        """A module from the output of one layer to that of a later one, as :func:`swap` puts it in.

        It is encoder, linear map and decoder. Coordinates are folded into encoder and decoder
        where that takes no more numbers (without ``thin`` always, as in files of version 0.1), and
        layouts are applied inside.

        Raises:
            ValueError: as :meth:`predict`, or a surrogate fitted with delays.
        """
        start, end = self._ends(start, end)
        if self.span.before:
            raise ValueError(
                f"the states of {start!r} are stacked on those of {self.span.before}, which no "
                "module between two layers can see; fit without delays to replace layers."
            )
        core = fold(
            self._frame(start),
            self.observables,
            self.operator,
            self.time(end) - self.time(start),
            self._frame(end),
            thin,
        )
        views = (self.views.get(layer) for layer in (start, end))
        return Replacement(core, *(None if view is None else view.layout for view in views))

    def card(self) -> dict[str, Any]:
        """JSON-able description for the file an edited model is exported to."""
        return card_of_config(self.config())

    def __repr__(self) -> str:
        record = self.record
        where = f"{self.layers[0]} → {self.layers[-1]}, {len(self.layers)} layers"
        kind = f"{record.method}, {type(self.operator).__name__} {self.latent}×{self.latent}"
        if record.frames:
            kind += f", {record.frames} frames, dynamics by {record.dynamics}"
        quality, r2 = "", record.r2.get(self.layers[-1])
        if r2 is not None:
            quality = f", {record.rows} rows, R² of the latest {qualities(r2)[0]}"
        ends = {layer: record.outside[layer] for layer in self.layers if layer in record.outside}
        if ends:
            shares = [f"{share:.2%} of {layer}" for layer, share in ends.items()]
            several = [shares[0], "…", shares[-1]] if len(shares) > 2 else shares
            size = self.frames()[0].size
            quality += f", {size} directions leave out {', '.join(several)}"
        notes = "".join(f"; {note}" for note in record.notes)
        return f"Surrogate({where}; {kind}{quality}{', edited' if self.edits else ''}{notes})"

    def _spectral_sources(self) -> list[Any]:
        """All that the spectrum depends on."""
        known, evidence = self.statistics, self.evidence
        found: list[Any] = [self.operator.matrix(1.0), len(self.layers), self.record.frames]
        if known is not None:
            found += (each for named in known.total().tensors().items() for each in named)
        if evidence is not None:
            found += (
                evidence.config(),
                *(e for named in evidence.tensors().items() for e in named),
            )
        return found

    def _computed_spectrum(self) -> Spectrum:
        total = None if self.statistics is None else self.statistics.total()
        return spectrum_of(
            self.operator.matrix(1.0),
            total,
            self.evidence,
            steps=len(self.layers) - 1,
            frames=self.record.frames,
        )
