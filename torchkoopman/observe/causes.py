"""Causes: why a probe passed nothing on, as far as its report tells."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torchkoopman.observe.warned import warn

if TYPE_CHECKING:
    from torch import nn

    from torchkoopman.observe.report import ProbeReport

EAGER = (
    "Run the model itself while the probe is on, not what torch.compile made of it: for "
    "transformers' Trainer leave torch_compile=False, for Lightning fit(module) without "
    "torch.compile (an earlier one is undone by to_uncompiled(module))."
)

_REASONS = {
    "compiled": f"layers ran in compiled code, where nothing can be read. {EAGER}",
    "traced": (
        "layers were traced or transformed, or gave tensors without values (a meta or fake model, "
        "torch.func); run the model itself on real data."
    ),
    "mode": (
        "the model was never in the mode that when= asks for; call model.train() or model.eval(), "
        "or attach with another when=."
    ),
    "other": (
        "its forward passes were run for another probe (that of tk.fit, tk.evaluate and the like), "
        "or in another thread than tk.fit and the like were called in."
    ),
    "outside": (
        "layers were called one by one, outside of any call of a module around all of them, so "
        "their outputs cannot be paired; call the model, or the part that holds them all."
    ),
    "recompute": "layers ran within a backward pass only.",
    "empty batch": "batches had no samples.",
}
"""Reason a layer call was skipped for → what it means and the way out; the likelier ones first."""


def warn_of_compiling(name: str) -> None:
    """Say that a module with a hook on it is being compiled."""
    warn(
        f"{name!r} of a model with a probe on it is being compiled, and nothing can be read in "
        f"compiled code: its calls are counted and passed over. {EAGER}"
    )


def warn_of_mixture(mode: str) -> None:
    """Say that a stream holds passes of both modes."""
    warn(
        f"a forward pass in {mode} mode joins a stream of the other mode, as validation does in a "
        "training: dropout and batch statistics differ, so these are states of two networks. "
        "Attach with when='train' or when='eval' for one of them, or when='always' for both."
    )


def warn_of_padding(aside: str) -> None:
    """Say that padding counts, since the model's mask could not be taken."""
    warn(
        f"the model's attention_mask was left aside in a forward pass ({aside}), so all positions "
        "count there, padding included; report().masks_aside counts such passes. Give a mask of "
        "shape (batch, positions), 0 and 1, to probe.mask()."
    )


def warn_of_replaced(name: str, module: nn.Module | None, old: nn.Module) -> None:
    """Say that another module stands under the name of a layer."""
    now = "nothing" if module is None else f"a {type(module).__name__}"
    inside = module is not None and any(each is old for each in module.modules())
    streamed = (
        f"what the {type(old).__name__} within it returns is streamed, and not what it makes of it"
        if inside
        else f"the {type(old).__name__} that stood there is no longer called by this name"
    )
    warn(
        f"since attach() {now} stands in the place of layer {name!r}, without the probe's hooks: "
        f"{streamed}. Attach again."
    )


def warn_at_the_end(report: ProbeReport) -> None:
    """Say so of a probe that is left, if it read nothing, or not all, for a hidden reason."""
    told = {"outside", "empty batch"} & {*report.skipped}
    why = why_nothing(report)
    if report.lost_hooks and report.trajectories:
        names = ", ".join(map(repr, report.lost_hooks))
        warn(
            f"somebody else removed the probe's hooks from {names}, and since then forward passes "
            f"were not read or not whole: {report.trajectories} trajectories of {report.forwards} "
            f"passes, {report.skipped.get('outside', 0)} layer calls outside of any. Attach again "
            "after whatever removes hooks."
        )
    elif why is not None and not (report.unpaired or report.interrupted or told):
        warn(f"the probe has passed nothing on to its listeners: {why}")


def why_nothing(report: ProbeReport) -> str | None:
    """The likely reason why nothing was passed on, and the way out; None if something was."""
    if report.trajectories:
        return None
    if report.compiled_calls or report.compiled:
        calls = f"{report.compiled_calls} calls ran" if report.compiled_calls else "calls ran"
        return f"{calls} in code that was compiled while the probe was on. {EAGER}"
    if report.lost_hooks:
        names = ", ".join(map(repr, report.lost_hooks))
        return f"somebody else removed the probe's hooks from {names}."
    for reason, text in _REASONS.items():
        if reason in report.skipped:
            return text
    if report.interrupted:
        return "every forward pass ended with an exception."
    if report.forwards:
        return "in no forward pass did all of the layers run."
    return (
        "no forward pass of the model was seen. It may not have run; or another object ran (a "
        "copy, or a replica); or it was called as model.forward(x); or it was compiled and run "
        "before the probe was attached: then hooks are never called, until torch._dynamo.reset(). "
        f"{EAGER}"
    )
