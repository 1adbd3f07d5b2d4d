"""Recurrent cells that are steps of a gated differential equation, from RNN to gated neural ODE.

After Kim, Can, Krishnamurthy & Mante, Trainability, expressivity and interpretability in gated
neural ODEs (ICML 2023): ``τ dh/dt = G(h, x) ⊙ (-h + F(h, x))``, F a perceptron, G one layer with a
sigmoid. A step of Euler's method with ``α = dt / τ`` is ``h' = (1 - α G) h + α G F``.
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from torchkoopman.flows.critical import scale_critically
from torchkoopman.flows.maps import one_step
from torchkoopman.flows.solving import require_solver, solve

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torchkoopman.flows.solving import Solver

Method = Literal["euler", "rk4"]


class GatedODECell(nn.Module):
    """One step of a gated differential equation: ``cell(input, state) → state``.

    ============================  ======================================================
    options                       what the cell is
    ============================  ======================================================
    ``gate=False, alpha=1``       the RNN with tanh, as ``nn.RNNCell``
    ``alpha=1``                   the minimal gated unit without a reset gate (mGRU)
    ``gate=False, widths=[…]``    a neural ODE (nODE)
    ``widths=[…]``                a gated neural ODE (gnODE)
    ============================  ======================================================

    Without widths F is one layer with tanh; with widths its hidden layers have ReLU and its last
    layer is linear. It takes the input in its first layer, as the gate does in its only one.

    Example:
        >>> cell = tk.flows.GatedODECell(2, 5, widths=[16], alpha=0.1)
        >>> states = cell.run(torch.zeros(30, 8, 2))  # (times, batch, inputs)
        >>> states.shape
        torch.Size([30, 8, 5])
        >>> flow = tk.flows.Flow.of_cell(cell.eval(), torch.zeros(2))
        >>> flow.multipliers(states[-1].detach()).shape
        torch.Size([8, 5])

    Args:
        inputs: width of the input; 0 for a flow of the state alone.
        states: width of the state.
        widths: of F's hidden layers.
        gate: whether G is there, or 1.
        alpha: ``dt / τ``, more than 0 and with Euler's method at most 1.
        method: ``"euler"``, or ``"rk4"`` (classical Runge-Kutta, input held during the step).

    Raises:
        ValueError: widths below 1, or an alpha out of range.
    """

    def __init__(
        self,
        inputs: int,
        states: int,
        *,
        widths: Sequence[int] = (),
        gate: bool = True,
        alpha: float = 1.0,
        method: Method = "euler",
    ) -> None:
        super().__init__()
        if isinstance(widths, (int, str)):
            raise TypeError(
                f"GatedODECell got widths={widths!r}; give a sequence, as widths=[100]."
            )
        if inputs < 0 or min([states, *widths]) < 1:
            raise ValueError(
                f"GatedODECell got inputs={inputs}, states={states} and widths={list(widths)}; "
                "give inputs of 0 or more, and widths of 1 or more."
            )
        if not alpha > 0 or (method == "euler" and alpha > 1):
            raise ValueError(
                f"GatedODECell got alpha={alpha}; give more than 0, and for Euler's method at most "
                "1, beyond which a step overshoots."
            )
        one_step(lambda x: x, alpha, method)  # refuses an unknown method
        self.inputs, self.states, self.alpha, self.method = inputs, states, alpha, method
        sizes = [inputs + states, *widths, states]
        layers: list[nn.Module] = []
        for width, following in pairwise(sizes):
            layers += [nn.Linear(width, following), nn.ReLU()]
        layers[-1] = nn.Identity() if widths else nn.Tanh()
        self.target = nn.Sequential(*layers)
        """F, to which the state is drawn."""
        self.gate = nn.Linear(inputs + states, states) if gate else None
        """G before its sigmoid."""

    def velocity(self, given: Tensor, state: Tensor) -> Tensor:
        """``τ dh/dt``, of the state's shape ``(…, states)``."""
        both = torch.cat([given, state], -1)
        drawn: Tensor = self.target(both) - state
        return drawn if self.gate is None else torch.sigmoid(self.gate(both)) * drawn

    def forward(self, given: Tensor, state: Tensor) -> Tensor:
        """The state one step later.

        Raises:
            ValueError: inputs or states of other widths.
        """
        self._require_widths(given, state)
        step = one_step(lambda h: self.velocity(given, h), self.alpha, self.method)
        return step(state)

    def _require_widths(self, given: Tensor, state: Tensor) -> None:
        if given.shape[-1] != self.inputs or state.shape[-1] != self.states:
            raise ValueError(
                f"the cell takes inputs (…, {self.inputs}) and states (…, {self.states}); got "
                f"{tuple(given.shape)} and {tuple(state.shape)}."
            )

    def run(self, inputs: Tensor, state: Tensor | None = None) -> Tensor:
        """States behind each input: ``(times, batch, inputs) → (times, batch, states)``.

        Args:
            inputs: one for each step.
            state: to begin with, ``(batch, states)``; 0 by default.

        Raises:
            ValueError: no times, or other widths.
        """
        state = self._before(inputs, state, "run")
        states = []
        for given in inputs:
            state = self(given, state)
            states.append(state)
        return torch.stack(states)

    def solve(
        self,
        inputs: Tensor,
        state: Tensor | None = None,
        *,
        method: Solver = "rk4",
        dt: float = 0.05,
        tolerance: float = 1e-6,
    ) -> Tensor:
        """As :meth:`run`, in continuous time: each input is held for ``alpha`` units of τ.

        What a step of the cell approximates is solved here to a tolerance, so that the two agree
        as alpha goes to 0. The solver begins anew at each input, for there the velocity jumps.

        Example:
            >>> cell = tk.flows.GatedODECell(2, 5, widths=[16], alpha=0.5)
            >>> inputs = torch.randn(30, 8, 2)
            >>> fine = cell.solve(inputs, dt=0.01)
            >>> adaptive = cell.solve(inputs, method="dopri5")
            >>> bool((fine - adaptive).abs().max() < 1e-4)
            True

        Args:
            inputs: ``(times, batch, inputs)``.
            state: to begin with, ``(batch, states)``; 0 by default.
            method: ``"rk4"``, or ``"dopri5"``, which needs the extra ``torchkoopman[ode]``.
            dt: the longest step of ``"rk4"``, in units of τ.
            tolerance: of a step of ``"dopri5"``.

        Raises:
            ValueError: no times, other widths, or options that are not positive.
            ImportError: torchdiffeq is not installed.
            RuntimeError: as :func:`torchkoopman.flows.solve` says.
        """
        require_solver(method, dt, tolerance)
        state = self._before(inputs, state, "solve")
        options: dict[str, Any] = {"method": method, "dt": dt, "tolerance": tolerance}
        states = []
        for given in inputs:
            field = partial(self.velocity, given)
            state = solve(field, state, (0.0, self.alpha), **options)[-1]
            states.append(state)
        return torch.stack(states)

    def _before(self, inputs: Tensor, state: Tensor | None, asked: str) -> Tensor:
        """The state to begin with, one for each of the batch."""
        if inputs.ndim != 3 or not len(inputs):
            raise ValueError(
                f"{asked}() takes inputs (times, batch, inputs), one time or more; got "
                f"{tuple(inputs.shape)}."
            )
        batch = inputs.shape[1]
        state = inputs.new_zeros(batch, self.states) if state is None else state
        self._require_widths(inputs[0], state)
        if state.shape != (batch, self.states):
            raise ValueError(
                f"{asked}() begins with a state for each of a batch of {batch}, ({batch}, "
                f"{self.states}); got {tuple(state.shape)}."
            )
        return state

    def critical_(self, generator: torch.Generator | None = None) -> GatedODECell:
        """Scale F and G so that ``-h + F`` neither grows nor decays near 0; in place.

        All weights of F's and of G's layers are multiplied by ``(1 / (η + 1))^(1 / layers)``, where
        η is the largest real part of the eigenvalues of ``∂(-h + F)/∂h``, here the mean over
        small states drawn at random. Biases are set to 0, so that 0 is a fixed point.

        This is of the differential equation, and of small states on average: at ``alpha=1`` an
        eigenvalue of another sign or angle can be the largest, and F with ReLU has no bound, so
        that a cell of few states may run away. ``Flow.of_cell(…).multipliers`` tells.

        Args:
            generator: draws the states; None for one seeded with 0.

        Returns:
            The cell itself.

        Raises:
            ValueError: F's Jacobian has no eigenvalue with a positive real part to be scaled.
        """
        scale_critically(self.target, self.gate, self.inputs, generator)
        return self

    def extra_repr(self) -> str:
        """What ``print`` shows beside the parts."""
        return f"alpha={self.alpha}, method={self.method!r}"
