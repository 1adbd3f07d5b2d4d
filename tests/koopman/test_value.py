"""A surrogate is a value: made whole, never patched, and a change is a copy that shares nothing."""

import copy
import pickle
from dataclasses import fields
from typing import Any

import pytest
import torch
from torch import Tensor

import torchkoopman as tk
from torchkoopman.fitting import streams
from torchkoopman.koopman.edits import Edit
from torchkoopman.spectra.evidence import Evidence

PARTS = (
    "span",
    "coordinates",
    "observables",
    "operator",
    "record",
    "statistics",
    "evidence",
    "edits",
    "previous",
)


def rows(count: int = 600, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, generator=torch.Generator().manual_seed(seed))


def fitted(method: str = "edmd") -> tk.Surrogate:
    start = rows()
    path = tk.Trajectory.of(start, start.sin(), labels=torch.arange(600) % 2)
    makers: dict[str, Any] = {
        "edmd": lambda: tk.EDMDFitter([tk.RandomFeatures(9)], calibration=100),
        "dmd": tk.DMDFitter,
        "autoencoder": lambda: tk.AutoencoderFitter(latent=9, calibration=100),
    }
    surrogate: tk.Surrogate = makers[method]().update(path).surrogate
    return surrogate


def values(surrogate: tk.Surrogate) -> list[Tensor]:
    """Every tensor of a surrogate, wherever it is held."""
    found = list(surrogate.state_dict(keep_vars=True).values())
    assert surrogate.statistics is not None
    assert surrogate.evidence is not None
    found += list(surrogate.statistics.tensors().values())
    found += [surrogate.evidence.start, surrogate.evidence.end]
    for edit in surrogate.edits:
        found += [factor for factor in (edit.left, edit.right) if factor is not None]
    return found


def rows_of(count: int) -> Evidence:
    return Evidence(torch.zeros(count, 13), torch.zeros(count, 13), slice(1, 4), fitted=False)


def addresses(surrogate: tk.Surrogate) -> set[int]:
    return {tensor.untyped_storage().data_ptr() for tensor in values(surrogate)}


@pytest.mark.parametrize("name", PARTS)
def test_no_part_can_be_set_and_the_error_names_the_way_out(name: str) -> None:
    surrogate = fitted()
    held = getattr(surrogate, name)
    for value in (held, None):
        with pytest.raises(AttributeError):
            setattr(surrogate, name, value)
    assert getattr(surrogate, name) is held
    if name != "previous":
        with pytest.raises(AttributeError, match=rf"with_\({name}="):
            setattr(surrogate, name, None)


@pytest.mark.parametrize("method", ["edmd", "dmd", "autoencoder"])
def test_a_copy_with_another_part_shares_no_tensor_with_the_first(method: str) -> None:
    surrogate = tk.unlearn(fitted(method), [1])
    before = [value.clone() for value in values(surrogate)]
    record = copy.copy(surrogate.record)
    other = surrogate.with_(record=record)
    assert other.record == record
    assert not addresses(other) & addresses(surrogate)
    with torch.no_grad():
        for tensor in values(other):
            tensor.add_(1)
    other.record.r2["a"] = 7.0
    assert all(torch.equal(a, b) for a, b in zip(before, values(surrogate), strict=True))
    assert "a" not in surrogate.record.r2


def test_what_is_given_to_a_copy_is_copied_too() -> None:
    surrogate, donor = fitted(), fitted()
    given = {"statistics": donor.statistics, "evidence": donor.evidence}
    one, two = surrogate.with_(**given), surrogate.with_(**given)
    assert not addresses(one) & addresses(two)
    assert not addresses(one) & addresses(donor)


def test_a_copy_without_changes_is_the_same_in_everything() -> None:
    surrogate = tk.unlearn(fitted(), [1]).eval()
    other = surrogate.with_()
    assert not other.training
    assert [p.requires_grad for p in other.parameters()] == [
        p.requires_grad for p in surrogate.parameters()
    ]
    pairs = zip(values(other), values(surrogate), strict=True)
    assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in pairs)
    assert other.config() == surrogate.config()
    assert torch.equal(other(rows()[:, None]), surrogate(rows()[:, None]))


def test_a_part_that_does_not_exist_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match=r"no part 'rank'; it has span, coordinates"):
        fitted().with_(rank=3)


def test_rows_of_another_latent_space_are_refused() -> None:
    wide = fitted("dmd").evidence
    assert wide is not None
    with pytest.raises(ValueError, match=r"rows of shape \(600, 4\).*latent=13"):
        fitted().with_(evidence=wide)


def test_an_edit_holds_no_surrogate_and_the_undo_is_the_surrogates() -> None:
    surrogate = fitted()
    edited = tk.unlearn(surrogate, [1])
    assert not any(isinstance(getattr(edited.edits[0], f.name), tk.Surrogate) for f in fields(Edit))
    assert edited.previous is surrogate
    assert surrogate.previous is None
    assert not any("previous" in name for name in edited.state_dict())
    assert len(list(edited.modules())) == len(list(surrogate.modules()))


def test_copies_and_pickles_keep_the_undo_to_themselves() -> None:
    surrogate = fitted()
    expected, edited = surrogate(rows()[:, None]), tk.unlearn(surrogate, [1])
    for other in (copy.deepcopy(edited), pickle.loads(pickle.dumps(edited)), edited.with_()):
        undone = tk.undo(other)
        assert undone is not surrogate
        assert torch.equal(undone(rows()[:, None]), expected)


@pytest.mark.parametrize("edit", ["unlearn", "retargeted", "erased"])
def test_what_is_done_to_an_edited_surrogate_leaves_the_one_before_alone(edit: str) -> None:
    from benchmarks import rivals

    surrogate = fitted()
    before = [value.clone() for value in values(surrogate)]
    make: Any = tk.unlearn if edit == "unlearn" else getattr(rivals, edit)
    edited = make(surrogate, [1])
    assert not addresses(edited.with_(evidence=rows_of(1))) & addresses(surrogate)
    edited.statistics.update({"start": torch.ones(5, 13), "end": torch.ones(5, 13)})
    assert all(torch.equal(a, b) for a, b in zip(before, values(surrogate), strict=True))


@pytest.mark.parametrize("method", ["edmd", "dmd", "autoencoder"])
def test_a_surrogate_stays_as_it_is_while_its_fitter_streams_on(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "_SAMPLE_BYTES", 300_000)  # full, so that rows are replaced
    kinds: dict[str, Any] = {
        "edmd": tk.EDMDFitter([tk.RandomFeatures(9)], calibration=100),
        "dmd": tk.DMDFitter(),
        "autoencoder": tk.AutoencoderFitter(latent=9, calibration=100, replay_bytes=100_000),
    }
    fitter = kinds[method]
    for part in rows(12_000).split(1000):
        fitter.update(tk.Trajectory.of(part, part.sin(), labels=torch.arange(1000) % 2))
    surrogate = fitter.surrogate
    before, table = [value.clone() for value in values(surrogate)], str(surrogate.spectrum())
    for part in rows(20_000, 1).split(1000):
        fitter.update(tk.Trajectory.of(part, part.sin() / 2, labels=torch.arange(1000) % 2))
    assert all(torch.equal(a, b) for a, b in zip(before, values(surrogate), strict=True))
    assert str(surrogate.spectrum()) == table


WRONG = {
    "span": None,
    "coordinates": None,
    "observables": "none",
    "operator": None,
    "record": {},
    "statistics": 3,
    "evidence": torch.zeros(3),
    "edits": [None],
    "previous": torch.nn.Linear(2, 2),
}


@pytest.mark.parametrize("name", PARTS)
def test_a_part_of_another_kind_is_refused_by_name(name: str) -> None:
    with pytest.raises(TypeError, match=f"a surrogate's {name}.* it got "):
        fitted().with_(**{name: WRONG[name]})


def test_a_module_that_is_no_observables_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match=r"observables are a Dictionary or.* it got Linear"):
        fitted().with_(observables=torch.nn.Linear(2, 2))


@pytest.mark.parametrize("name", PARTS)
def test_no_part_can_be_deleted(name: str) -> None:
    surrogate = fitted()
    with pytest.raises(AttributeError, match=f"its {name!r} cannot be deleted"):
        delattr(surrogate, name)
    assert getattr(surrogate, name) is getattr(surrogate, name)
