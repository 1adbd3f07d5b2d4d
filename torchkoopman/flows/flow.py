"""A flow: a map on states that is applied again and again, and what its orbits do.

Decoding and encoding by an autoencoder (latent vector fields), a surrogate, a residual block, a
recurrent cell at an input that is held fixed, a step of a differential equation: all of them are
maps f from states to states. ``f(x) - x`` is the velocity, points with f(x) = x are fixed, and the
eigenvalues of the Jacobian there, its multipliers, say which of them attract.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from tqdm.auto import trange

from torchkoopman.flows.finding import fixed_points_of
from torchkoopman.flows.jacobians import jacobians
from torchkoopman.flows.maps import Map, composed, modules_of, one_step
from torchkoopman.flows.settling import Settled, settle

if TYPE_CHECKING:
    from collections.abc import Callable

    from torchkoopman.flows.fixed_points import FixedPoints
    from torchkoopman.koopman.surrogate import Surrogate


class Flow(Map):
    """A map from states to states of one shape, ``(n, …) → (n, …)``, that is iterated.

    Modules must be in evaluation mode, and the map must not be random: where it draws numbers,
    ``seed`` fixes them, and each application draws the same ones. What draws for each row, as a
    masked autoencoder draws masks, must be given its numbers. Global random state is as before
    after every call. States are float32 or float64, on any device.

    Example:
        >>> logistic = tk.flows.Flow(lambda x: 2.8 * x * (1 - x))
        >>> found = logistic.fixed_points(torch.linspace(0.1, 0.9, 9, dtype=torch.float64)[:, None])
        >>> found.points.round(decimals=4), found.multipliers.real.round(decimals=4)
        (tensor([[0.6429]], dtype=torch.float64), tensor([[-0.8000]], dtype=torch.float64))

    Args:
        step: a module, or a function of states.
        seed: of the numbers that the map draws; None for a map that draws none.
        modules: the modules that ``step`` uses, where it is a function that hides them.

    Raises:
        TypeError: in all methods, starts or states that are no float32 or float64 tensor.
        ValueError: in all methods, no starts, starts that are not finite, a module in training
            mode, a map that gives another shape, or one that draws random numbers without ``seed``
            or for each row.
    """

    @classmethod
    def of_autoencoder(
        cls,
        encode: Callable[[Tensor], Tensor],
        decode: Callable[[Tensor], Tensor],
        *,
        seed: int | None = None,
    ) -> Flow:
        """Encode after decode, on latent states (Fumero et al., latent vector fields).

        Example:
            >>> encode, decode = torch.nn.Linear(4, 2).eval(), torch.nn.Linear(2, 4).eval()
            >>> field = tk.flows.Flow.of_autoencoder(encode, decode)
            >>> field.velocity(torch.zeros(3, 2)).shape
            torch.Size([3, 2])

        Args:
            encode: a module or function from inputs to latent states.
            decode: from latent states to inputs.
            seed: as for :class:`Flow`.
        """
        return cls(composed(decode, encode), seed=seed, modules=modules_of(encode, decode))

    @classmethod
    def of_surrogate(cls, surrogate: Surrogate) -> Flow:
        """A surrogate's whole span, applied again and again to rows ``(n, features)``.

        Example:
            >>> flow = tk.flows.Flow.of_surrogate(surrogate)
            >>> flow.orbit(torch.zeros(1, 32), steps=2).shape
            torch.Size([3, 1, 32])

        Raises:
            ValueError: its first and last layer have different widths.
        """
        first, *_, last = (frame.features for frame in surrogate.frames())
        if first != last:
            raise ValueError(
                f"{surrogate.layers[0]!r} has {first} features and {surrogate.layers[-1]!r} has "
                f"{last}, so what the surrogate predicts cannot be its input again."
            )
        predict = surrogate.predict  # the same in training mode
        return cls(lambda rows: predict(rows[:, None])[:, 0])

    @classmethod
    def of_cell(cls, cell: nn.Module, held: Tensor) -> Flow:
        """A recurrent cell, ``cell(input, state) → state``, at an input that does not change.

        Example:
            >>> flow = tk.flows.Flow.of_cell(torch.nn.GRUCell(2, 5).eval(), torch.zeros(2))
            >>> flow.fixed_points(torch.randn(20, 5), steps=200).share_converged
            1.0

        Args:
            cell: such as ``nn.RNNCell`` or ``nn.GRUCell``.
            held: the input, ``(inputs,)``.
        """

        def step(state: Tensor) -> Tensor:
            same = held.to(state).expand(*state.shape[:-1], *held.shape)
            found: Tensor = cell(same, state)
            return found

        return cls(step, modules=modules_of(cell))

    @classmethod
    def of_field(
        cls,
        velocity: Callable[[Tensor], Tensor],
        dt: float,
        method: Literal["euler", "rk4"] = "rk4",
    ) -> Flow:
        """One step of ``dx/dt = velocity(x)``, by Euler or the classical Runge-Kutta method.

        Example:
            >>> decay = tk.flows.Flow.of_field(lambda x: -x, dt=0.1)
            >>> decay.orbit(torch.ones(1, 1), steps=10)[-1].item()  # e⁻¹ = 0.367879…
            0.36787...

        Args:
            velocity: a module or function of states alone.
            dt: the step of time.
            method: an error of order ``dt`` or ``dt⁴``.

        Raises:
            ValueError: an unknown method, or no positive step.
        """
        return cls(one_step(velocity, dt, method), modules=modules_of(velocity))

    def velocity(self, states: Tensor) -> Tensor:
        """``f(x) - x``, of the states' shape."""
        with self.running(states), torch.no_grad():
            return self(states) - states

    def orbit(
        self, starts: Tensor, steps: int, *, every: int = 1, progress: bool = False
    ) -> Tensor:
        """Each start and where it is after one step, two, and so on; nothing is stopped early.

        An orbit that diverges is not finite in the end.

        Args:
            starts: ``(n, …)``.
            steps: applications of the map.
            every: keep one of so many states.
            progress: show a bar.

        Returns:
            ``(1 + steps // every, n, …)``.

        Raises:
            ValueError: steps or ``every`` out of range.
        """
        if steps < 0 or every < 1:
            raise ValueError(
                f"orbit() got steps={steps} and every={every}; give steps of 0 or more and every "
                "of 1 or more."
            )
        with self.running(starts), torch.no_grad():
            state, kept = starts, [starts]
            for count in trange(1, steps + 1, desc="orbit", disable=not progress):
                state = self(state)
                if count % every == 0:
                    kept.append(state)
        return torch.stack(kept)

    def settle(
        self,
        starts: Tensor,
        steps: int = 1000,
        *,
        tolerance: float = 1e-5,
        far: float = 1e6,
        progress: bool = False,
    ) -> Settled:
        """Iterate each start until it moves no more, is far away, or the steps are used up.

        Example:
            >>> flow = tk.flows.Flow(lambda x: x * x)
            >>> found = flow.settle(torch.tensor([[0.5], [0.9], [2.0]]))
            >>> found.converged.tolist(), found.diverged.tolist()
            ([True, True, False], [False, False, True])

        Args:
            starts: ``(n, …)``.
            steps: at most.
            tolerance: a state is at rest where ``|f(x) - x|`` is at most this times the spread of
                the starts (their RMS distance from their mean; their RMS size for one start).
            far: it has diverged where it is not finite, or this many spreads from their mean.
            progress: show a bar.
        """
        with self.running(starts), torch.no_grad():
            return settle(self, starts, steps, tolerance, far, progress)

    def jacobian(self, states: Tensor) -> Tensor:
        """Of the map at each state: ``(n, k, k)`` for states of k numbers, rows are outputs."""
        with self.running(states):
            return jacobians(self, states)

    def multipliers(self, states: Tensor) -> Tensor:
        """Eigenvalues of the Jacobian: complex128, largest modulus first, ``(n, k)``."""
        values = torch.linalg.eigvals(self.jacobian(states).double())
        order = values.abs().argsort(dim=-1, descending=True, stable=True)
        found: Tensor = values.gather(-1, order)
        return found

    def fixed_points(
        self,
        starts: Tensor,
        steps: int = 1000,
        *,
        search: Literal["iteration", "newton"] = "iteration",
        tolerance: float = 1e-5,
        merge: float = 1e-3,
        far: float = 1e6,
        progress: bool = False,
    ) -> FixedPoints:
        """Points with f(x) = x that the starts lead to, each polished by Newton's method.

        Iteration finds points that attract and says which start ends at which: their basins.
        Newton's method (damped, on ``|f(x) - x|²``) finds others, too, and slow points, where the
        speed is least but not zero (Sussillo & Barak 2013). Starts that converge, diverge and do
        neither are reported apart; only the first lead to fixed points.

        Args:
            starts: ``(n, …)``.
            steps: applications of the map, or Newton steps, at most.
            search: ``"iteration"`` or ``"newton"``.
            tolerance: see :meth:`settle`.
            merge: points nearer to each other than this times the spread are one.
            far: see :meth:`settle`.
            progress: show a bar.
        """
        options: dict[str, Any] = {"tolerance": tolerance, "merge": merge, "far": far}
        with self.running(starts):
            return fixed_points_of(self, starts, steps, search, progress, **options)
