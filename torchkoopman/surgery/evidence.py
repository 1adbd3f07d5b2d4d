"""Evidence: what the reference of a swap does on an example, to hold edited models against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torchkoopman.surgery.copies import Borrowed, Trespass
from torchkoopman.surgery.reference import Reference
from torchkoopman.surgery.transcript import Failed, Reach, Transcript, transcribe

if TYPE_CHECKING:
    from torchkoopman.observe.example import Example
    from torchkoopman.observe.places import Place
    from torchkoopman.surgery.copies import Workbench
    from torchkoopman.surgery.request import SwapRequest

REACHES: tuple[Reach, ...] = ("inputs", "parameters", "nothing")
"""What gradients are asked of; the next where the model itself cannot give them."""


@dataclass(frozen=True)
class Evidence:
    """What a reference did, to hold edited models against."""

    examples: tuple[Example, ...]
    """The calls: the example, a variation of it if there is one, the example again."""
    transcript: Transcript
    reach: Reach
    """What gradients could be asked of."""
    places: dict[str, Place]
    """Where the two layers' states are in what they return."""
    states: dict[str, Any]
    """The first states of the two layers."""
    written: bool
    """Whether the model writes into the start's state later: the module is then given a copy."""
    drew: bool
    """Whether the span draws random numbers."""

    @property
    def example(self) -> Example:
        """The first call."""
        return self.examples[0]

    @property
    def is_varied(self) -> bool:
        """Whether the calls differ."""
        return self.examples[0] is not self.examples[1]


def gather(bench: Workbench, request: SwapRequest, example: Example, sides: list[str]) -> Evidence:
    """Run the reference of a swap.

    Args:
        bench: copies of the model.
        request: what is to be swapped.
        example: the model's inputs.
        sides: arguments that stay as they are when the inputs are varied.

    Raises:
        ValueError: the layers are not called once, or in another order; the module does not fit.
        TypeError: a layer's output holds no state, or several that could be it.
        RuntimeError: the model fails on the example.
    """
    varied = example.varied(bench.model, sides)
    orders = [(example, varied, example)] if varied is not None else []
    failed: Failed | None = None
    for examples in (*orders, (example, example, example)):
        for reach in REACHES:
            try:
                return _gathered(bench, request, examples, reach)
            except Failed as error:
                failed = error
            if failed.call < len(examples) - 1:  # what follows is about the last call
                break
    assert failed is not None
    cause = failed.__cause__
    raise RuntimeError(
        f"{type(bench.model).__name__} fails on the example inputs: {type(cause).__name__}: {cause}"
    ) from cause


def _gathered(
    bench: Workbench, request: SwapRequest, examples: tuple[Example, ...], reach: Reach
) -> Evidence:
    """What the reference does; again, on copies of its own, if it writes into parameters."""
    for _ in range(2):
        reference = Reference(
            bench.to_run(),
            bench.to_run(request.module),
            request.start,
            request.end,
            request.known,
        )
        trespass = Trespass(bench.model)
        with bench.surroundings.kept():
            try:
                transcript = transcribe(
                    reference.model,
                    examples,
                    reference.entered,
                    reach,
                    reference.put_in,
                    weights=bench.apart,
                    around_first=trespass,
                )
                transcript.left |= bench.surroundings.left()
            except Failed as error:
                if isinstance(error.__cause__, Borrowed):
                    raise error.__cause__ from None
                if reference.refusal is not None and error.call == 0:
                    raise reference.refusal from None
                raise
            finally:
                written = bench.restore()
        reference.check_calls()
        if not written:
            break
    return Evidence(
        examples,
        transcript,
        reach,
        reference.places,
        reference.states,
        reference.written,
        reference.drew,
    )
