"""The audit: what an edited classifier forgot, what it kept, and against what that is measured.

Networks stand side by side: the original, the edited one, one retrained without the forgotten
classes where there is one, and any baselines. No single number shows forgetting; a network that
never saw a class still has states that tell it apart, so every figure has to be read against the
retrained network's, not against chance.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from torchkoopman.unlearning.answers import Answers, Ends, Interview, answers_of
from torchkoopman.unlearning.batches import chosen, labels_of
from torchkoopman.unlearning.measures import (
    among,
    class_accuracies,
    detection,
    divergence,
    membership,
)
from torchkoopman.unlearning.problem import wanted
from torchkoopman.unlearning.relearning import Relearning
from torchkoopman.unlearning.report import (
    EDITED,
    ORIGINAL,
    RETRAINED,
    UNEDITED,
    Audit,
    Column,
)
from torchkoopman.unlearning.retraining import Retraining

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any, SupportsIndex

    from torchkoopman.koopman.surrogate import Surrogate
    from torchkoopman.observe.batches import Forward
    from torchkoopman.observe.views import OutputOption
    from torchkoopman.unlearning.batches import Batches

_ATTACKED = 5000
"""Samples of each kind that the membership attack takes."""
_RELEARNT = 500
"""Unseen samples on which relearning is judged after every step."""


def audit(
    model: nn.Module,
    edited: nn.Module,
    classes: Iterable[SupportsIndex] | SupportsIndex,
    train: Batches,
    test: Batches,
    *,
    retrained: Retraining | nn.Module | None = None,
    unedited: nn.Module | None = None,
    baselines: Mapping[str, nn.Module] | None = None,
    surrogates: Mapping[str, Surrogate] | None = None,
    layers: tuple[str, str] | None = None,
    output: OutputOption | None = None,
    forward: Forward | None = None,
    relearning: Relearning = Relearning(),  # noqa: B008, frozen
    samples: int = 2000,
) -> Audit:
    """Measure what a classifier forgot and kept; every model is given back as it was.

    Each network gets a column: accuracy, divergence from a retrained network, a membership attack,
    the steps to relearn, and how well a probe and nearest neighbours detect the classes.

    Example:
        >>> edited = tk.swap(model, tk.unlearn(surrogate, classes=[2], model=model))
        >>> loaders = train.loader(500), test.loader(500)
        >>> quick = {"samples": 200, "relearning": tk.Relearning(limit=5)}
        >>> columns = tk.audit(model, edited, [2], *loaders, **quick).columns
        >>> columns["original"].forgotten > 0.9, columns["edited"].forgotten < 0.1
        (True, True)

    Args:
        model: the classifier before anything was done to it.
        edited: the one that should have forgotten.
        classes: to be forgotten, integers; one by itself is taken too.
        train: batches of all classes that the original was trained on, as for
            :func:`torchkoopman.fit`, with labels: ``(inputs, labels)``, ``((a, b), labels)``, a
            mapping.
        test: batches it has never seen, in the same order each time.
        retrained: how to train the network once more without those classes, or such a network;
            without it only the original is there to compare with.
        unedited: the swapped network before the edit, which separates the swap's cost from the
            edit's.
        baselines: name → further network, such as one with a :func:`neutral_head` alone.
        surrogates: column (``"edited"``, ``"unedited swap"`` or a baseline's name) → the surrogate
            in that network, for its latent state, and for the edit's time and memory.
        layers: start and end of the span in whose states the classes are detected; by default the
            edited surrogate's.
        output: which tensor of these two layers' outputs, as for :func:`torchkoopman.attach`; by
            default what the surrogates' ``views`` say. The module that a swap put in is read as it
            is.
        forward: how to call the networks on a batch, if not as :func:`torchkoopman.fit` does; the
            labels then stand last, or under ``"labels"``.
        relearning: how relearning is tried.
        samples: states of each data set that go into the probe and the neighbours, at most.

    Raises:
        ValueError: a class without samples in ``train`` or ``test``, none left to retain, a
            retrained network that was not fresh, two columns of one name, data that come in
            another order at each pass or are gone after one, a layer a network does not have, or
            one that was read through a function, without ``output``.
        TypeError: batches without labels or with two readings, or answers that are not one row of
            logits per sample.
    """
    gone, given = tuple(wanted(classes)), dict(surrogates or {})
    networks = _networks(model, edited, unedited, baselines or {})
    strange = sorted(set(given) - set(networks))
    if strange:
        raise ValueError(f"surrogates= names {strange}; the columns are {list(networks)}.")
    if layers is None and EDITED in given:
        layers = (given[EDITED].layers[0], given[EDITED].layers[-1])
    known = (given.get(EDITED), *given.values())
    ends = None if layers is None else Ends.of(layers, known, output)

    def ask(name: str, network: nn.Module) -> Answers:
        interview = Interview(name, network, gone, ends, given.get(name), samples, forward)
        return answers_of(interview, train, test)

    answers = {name: ask(name, network) for name, network in networks.items()}
    _comparable(answers, gone)
    notes = []
    if retrained is not None:
        if isinstance(retrained, Retraining):
            networks[RETRAINED] = retrained.without(train, gone, model, forward)
        else:
            networks[RETRAINED] = retrained
            notes.append("the retrained network was given ready; that it was fresh is not checked.")
        answers[RETRAINED] = ask(RETRAINED, networks[RETRAINED])
        _comparable(answers, gone)
    unseen = _of_classes(test, gone, model, forward)
    columns = {}
    for name, each in answers.items():
        steps = relearning.steps(networks[name], train, unseen, forward)
        columns[name] = _column(each, answers.get(RETRAINED), gone, steps)
    seconds, nbytes = _price(given.get(EDITED))
    return Audit(gone, columns, seconds, nbytes, relearning, tuple(notes))


def _price(surrogate: Surrogate | None) -> tuple[float | None, int | None]:
    """Seconds that the edits of a surrogate took, and bytes of the moments they need."""
    if surrogate is None or surrogate.statistics is None:
        return None, None
    times = [edit.seconds for edit in surrogate.edits if edit.seconds is not None]
    return (sum(times) if times else None), surrogate.statistics.nbytes


def _networks(
    original: nn.Module,
    edited: nn.Module,
    unedited: nn.Module | None,
    baselines: Mapping[str, nn.Module],
) -> dict[str, nn.Module]:
    """Column → network, in the order they are printed."""
    taken = {ORIGINAL, UNEDITED, EDITED, RETRAINED} & set(baselines)
    if taken:
        raise ValueError(f"baselines= uses the names {sorted(taken)}, which are columns already.")
    networks = {ORIGINAL: original}
    if unedited is not None:
        networks[UNEDITED] = unedited
    networks |= {EDITED: edited, **baselines}
    for name, network in networks.items():
        if not isinstance(network, nn.Module):
            raise TypeError(
                f"the {name!r} network is a {type(network).__name__}; an audit compares nn.Modules."
            )
    return networks


def _comparable(answers: Mapping[str, Answers], classes: tuple[int, ...]) -> None:
    """Refuse data that do not let networks be compared."""
    first = answers[ORIGINAL]
    for what in ("train", "test"):
        labels = getattr(first, what).labels
        for name, each in answers.items():
            if not torch.equal(getattr(each, what).labels.sort().values, labels.sort().values):
                raise ValueError(
                    f"{what}= gave other samples to the {name} network than to the original; it "
                    "is gone through once for each network and must hold the same every time."
                )
        seen = labels.unique().tolist()
        missing = [c for c in classes if c not in seen]
        if missing or not set(seen) - set(classes):
            raise ValueError(
                f"{what}= has samples of the classes {seen}, and classes= is {list(classes)}; both "
                "the forgotten classes and others need samples."
            )
    if any(not torch.equal(each.test.labels, first.test.labels) for each in answers.values()):
        raise ValueError(
            "test= comes in another order at each pass, so answers cannot be compared sample by "
            "sample; give a loader that does not shuffle."
        )


def _of_classes(
    batches: Batches, classes: tuple[int, ...], model: nn.Module, forward: Forward | None
) -> list[Any]:
    """Batches of these classes alone, some samples in all."""
    found, room = [], _RELEARNT
    for batch in batches:
        wanted = among(labels_of(batch, model, forward), classes)
        kept = wanted & (wanted.cumsum(0) <= room)
        if kept.any():
            found.append(chosen(batch, kept))
            room -= int(kept.sum())
    return found


def _column(
    answers: Answers, reference: Answers | None, classes: tuple[int, ...], relearning: int | None
) -> Column:
    """What was measured on one network, beside the retrained one's answers."""
    train, test = answers.train, answers.test
    gone = among(test.labels, classes)
    right = (test.logits.argmax(1) == test.labels).double()
    old = among(train.labels, classes)
    known = None
    if reference is not None:
        truth = reference.test.logits
        known = (
            divergence(truth[gone], test.logits[gone]),
            divergence(truth[~gone], test.logits[~gone]),
        )
    return Column(
        class_accuracies(test.logits, test.labels),
        class_accuracies(train.logits, train.labels),
        right[gone].mean().item(),
        right[~gone].mean().item(),
        known,
        membership(
            train.logits[~old][:_ATTACKED],
            test.logits[~gone][:_ATTACKED],
            train.logits[old][:_ATTACKED],
        ),
        relearning,
        {
            name: detection(train.states[name], train.target, test.states[name], test.target)
            for name in train.states
        },
    )
