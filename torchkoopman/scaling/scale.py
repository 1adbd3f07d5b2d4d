"""Layer scaling: square layers before a layer make a trajectory inside it (arXiv 2409.01308).

The states x → s_1 → … → s_n → layer(x) are watched and fitted as layers are. A surrogate of them
replaces the one layer, since all its states but the last are computed from the layer's input.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from itertools import takewhile
from numbers import Integral
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from torchkoopman.koopman.folding import fold
from torchkoopman.observe.batches import check_loader
from torchkoopman.observe.names import named_module
from torchkoopman.observe.trajectory import Trajectory
from torchkoopman.observe.watch import Watch
from torchkoopman.scaling.layer import PathReplacement, ScaledLayer, SquareStep
from torchkoopman.scaling.recipe import ScalingRecipe, train_steps

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from torchkoopman.koopman.surrogate import Surrogate
    from torchkoopman.observe.batches import Forward

_LAYOUT = "batch ... features -> batch (...) features"


@dataclass(frozen=True)
class Scaling:
    """A layer with a trajectory inside it; made by :func:`scale_layer`.

    Example:
        >>> blocks = torch.nn.Sequential(model[:2], model[2:4], model[4:])
        >>> recipe = tk.scaling.ScalingRecipe(steps=50)
        >>> batches = train.loader(500)
        >>> scaling = tk.scaling.scale_layer(blocks, "1", batches, squares=2, recipe=recipe)
        >>> scaling.states  # the layer's input, two square layers, its output
        ('1.states.0', '1.states.1', '1.states.2', '1.states.3')
    """

    model: nn.Module
    """A frozen copy of the model in eval mode with a ``ScaledLayer`` in the layer's place: what to
    fit and attach to. It computes the scaled network's function."""
    layer: str
    """Name of the layer."""
    states: tuple[str, ...]
    """Names of the n + 2 states in :attr:`model`: the layer's input, the outputs of the n square
    layers, and what the layer itself makes of the input."""
    losses: dict[str, float]
    """Term of the recipe → its value in the last update, as a multiple of the output's variance."""

    @property
    def scaled(self) -> ScaledLayer:
        """The layer with its square layers."""
        module = self.model.get_submodule(self.layer)
        assert isinstance(module, ScaledLayer)
        return module

    @torch.no_grad()
    def replacement(self, surrogate: Surrogate) -> PathReplacement:
        """The module that gives the layer's output from the layer's input, without the layer.

        Args:
            surrogate: fitted on :attr:`states`, or on some of them that end with the last. The
                paper stacks all states but the last, ``delays=n``, and takes one step. With fewer
                delays one operator makes all the steps from there on; ``dynamics="span"`` fits the
                last state alone.

        Returns:
            A module of its own, for ``swap(model, module, start, scaling.layer)``, where ``start``
            is the layer whose output is the layer's input.

        Raises:
            ValueError: the surrogate was fitted on other states, or in another layout.
        """
        names = [surrogate.layers[0], *reversed(surrogate.span.before)]
        if surrogate.layers[-1] != self.states[-1] or not set(names) <= set(self.states[:-1]):
            raise ValueError(
                f"the surrogate leads from {names} to {surrogate.layers[-1]!r}; one that replaces "
                f"{self.layer!r} starts from states of its path and ends with {self.states[-1]!r}. "
                "Fit it on scaling.states."
            )
        scaled = self.scaled
        first, last = surrogate.frames()[0], surrogate.frames()[-1]
        width = scaled.width * len(names)
        if first.features != width:
            raise ValueError(
                f"the surrogate starts from {first.features} features, but the stack of {names} "
                f"has {width}: fit it with features as the last axis alone, layout={_LAYOUT!r}."
            )
        # Each stack begins with its latest state, here the layer's output before the padding.
        own = torch.eye(scaled.features[1], last.features).to(last.weight)
        end = last.after(own, torch.zeros_like(own[:, 0]))
        time = surrogate.time(surrogate.layers[-1])
        core = fold(first, surrogate.observables, surrogate.operator, time, end)
        stack = [self.states.index(name) for name in names]
        return PathReplacement(scaled.steps, stack, scaled.width, core)


def scale_layer(
    model: nn.Module,
    layer: str,
    loader: Iterable[Any],
    *,
    squares: int = 10,
    activation: Callable[[], nn.Module] = nn.ReLU,
    recipe: ScalingRecipe = ScalingRecipe(),  # noqa: B008, frozen
    rows: int = 50_000,
    forward: Forward | None = None,
    generator: torch.Generator | None = None,
) -> Scaling:
    """Make a trajectory inside one layer: train square layers before it, all else frozen.

    The step from the square layers' states to the layer's output then becomes linear. The
    nonlinearity is in the square layers, which are observables learnt for this layer; if they are
    as wide as its output and have its activation, they can learn the layer itself. The replacement
    contains them, so it is larger than the layer. Compare it with the ridge map, and with square
    layers that were not trained (``ScalingRecipe(steps=0)``). With delays, the evaluation that
    ``fit`` prints is of stacked states, most of which only move along by one.

    Example:
        >>> blocks = torch.nn.Sequential(model[:2], model[2:4], model[4:])
        >>> loader, recipe = train.loader(500), tk.scaling.ScalingRecipe(steps=50)
        >>> scaling = tk.scaling.scale_layer(blocks, "1", loader, squares=3, recipe=recipe)
        >>> inside = tk.fit(
        ...     scaling.model, loader, scaling.states, method="dmd", delays=3, progress=False
        ... )
        >>> edited = tk.swap(blocks, scaling.replacement(inside), "0", "1")
        >>> bool((edited(test.inputs).argmax(1) == test.labels).float().mean() > 0.9)
        True

    In the paper a layer is a linear map with its activation. A bare ``nn.Linear`` has nothing to
    linearise: name a module that holds both, such as an ``nn.Sequential``.

    Args:
        model: any eager module; it is copied, and only the copy runs, in eval mode.
        layer: a name of ``model.named_modules()``: called once a forward pass, with one tensor
            ``(batch, …, features)``, and returning one ``(batch, …, features')``.
        loader: batches: a tensor, ``(inputs, labels)``, or a mapping of keyword arguments, less its
            ``"labels"``. Shuffled, for it is read only until there are rows enough.
        squares: n, how many square layers. The paper takes 10; costs grow with n, and fewer may do.
        activation: makes the activation of each of them; ReLU in the paper.
        recipe: how they are trained.
        rows: how many to keep in memory and train on.
        forward: how to call the model on a batch, if not as above.
        generator: of all randomness; None for one seeded with 0.

    Raises:
        ValueError: no such layer, one that is called several times, has no features of its own as
            last axis, or is constant; ``squares`` or ``rows`` below 1; too few rows.
        TypeError: the layer takes or returns anything else than one floating-point tensor; no
            module; ``squares`` or ``rows`` that are no whole numbers.
        RuntimeError: the layer did not run, or the training diverged.
    """
    if not all(isinstance(each, Integral) for each in (squares, rows)):
        raise TypeError(f"squares={squares!r} and rows={rows!r} must both be whole numbers.")
    if squares < 1 or rows < 1:
        raise ValueError(f"squares={squares} and rows={rows} must both be 1 or more.")
    if not isinstance(model, nn.Module):
        raise TypeError(f"scale_layer() takes an nn.Module; it got a {type(model).__name__}.")
    if "#" in layer:
        raise ValueError(f"layer={layer!r} is one of a module's calls; scaling takes a module.")
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    with torch.inference_mode(False), torch.enable_grad():
        scaled_model = copy.deepcopy(model).eval().requires_grad_(False)
        module = named_module(scaled_model, layer)
        _put(scaled_model, module, ScaledLayer(module))
        inputs, outputs = _passing(scaled_model, layer, loader, rows, forward)
        layers = _squares(squares, inputs, activation, recipe, generator)
        scaled = ScaledLayer(module, layers, (inputs.shape[-1], outputs.shape[-1]))
        losses = train_steps(scaled, inputs, outputs, recipe, generator)
    _put(scaled_model, scaled_model.get_submodule(layer), scaled.requires_grad_(False).eval())
    states = tuple(f"{layer}.states.{depth}" for depth in range(squares + 2))
    return Scaling(scaled_model, layer, states, losses)


def _put(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Put a module in another's place, under all its names."""
    names = [name for name, each in model.named_modules(remove_duplicate=False) if each is old]
    for name in names:
        model.set_submodule(name, new)


def _squares(
    count: int,
    inputs: Tensor,
    activation: Callable[[], nn.Module],
    recipe: ScalingRecipe,
    generator: torch.Generator,
) -> list[nn.Module]:
    """New square layers for a layer's inputs, in float32 at least: they are trained."""
    precision = torch.promote_types(inputs.dtype, torch.float32)
    kind = {"residual": recipe.residual, "batch_norm": recipe.batch_norm}
    made = (SquareStep(inputs.shape[-1], activation, generator, **kind) for _ in range(count))
    return [step.to(inputs.device, precision) for step in made]


@torch.no_grad()
def _passing(
    model: nn.Module, layer: str, loader: Iterable[Any], rows: int, forward: Forward | None
) -> tuple[Tensor, Tensor]:
    """What goes into a layer, and what comes out, for the loader's first samples of finite values.

    The layer is a ``ScaledLayer`` without steps, whose two states are just these.
    """
    names = (f"{layer}.states.0", f"{layer}.states.1")
    seen: list[Trajectory] = []

    def enough() -> bool:
        return sum(each.batch * each.positions for each in seen) >= rows

    check_loader(loader)
    batches = takewhile(lambda batch: not enough(), loader)
    Watch(model, names, _LAYOUT, forward=forward).stream(batches, seen.append)
    if not seen:
        raise ValueError("the loader gave no samples, so there is nothing to learn a path from.")
    if seen[0].layers != names:
        raise ValueError(
            f"the layer {layer!r} is called several times in a forward pass; scaling replaces a "
            "module that is called once."
        )
    if len({each.positions for each in seen}) > 1:
        raise ValueError(
            f"the samples of {layer!r} have {sorted({each.positions for each in seen})} positions; "
            "give a loader whose samples have one shape."
        )
    whole = Trajectory.concatenate(seen)
    whole = whole.select(whole.full_mask().all(1))
    inputs, outputs = (whole.views[name].layout.to_output(whole.states[name]) for name in names)
    found, features = whole.batch * whole.positions, inputs.shape[-1]
    if found <= features:
        raise ValueError(
            f"{found} rows of finite values went into the layer {layer!r} of {features} features; "
            "any affine map would fit them. Give more data."
        )
    if not outputs.flatten(0, -2).var(0).any():
        raise ValueError(
            f"the layer {layer!r} is constant over {found} rows; there is nothing to predict. "
            "Choose another layer."
        )
    return inputs, outputs
