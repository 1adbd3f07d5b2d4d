"""Outputs: the tensor taken from what a layer returns, and the error when there is no telling."""

import dataclasses
import warnings
from collections import OrderedDict
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from torchkoopman.observe.outputs import choose_tensor, tensors_in
from torchkoopman.observe.probes import attach
from torchkoopman.observe.trajectory import Trajectory

STATE, OTHER = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
LOSS, TOKENS = torch.tensor(0.5), torch.zeros(2, 3, dtype=torch.long)


@dataclasses.dataclass
class Record:
    loss: Tensor
    hidden: Tensor


@pytest.mark.parametrize(
    "output",
    [
        STATE,
        (STATE,),
        (STATE, OTHER),
        [STATE, None, OTHER],
        (TOKENS, STATE),
        (LOSS, STATE),
        {"loss": LOSS, "hidden": STATE, "tokens": TOKENS},
        OrderedDict(hidden=STATE),
        Record(LOSS, STATE),
        (None, {"hidden": STATE}),
    ],
)
def test_the_only_state_or_the_first_item_is_taken(output: object) -> None:
    assert choose_tensor(output, None, "layer") is STATE


@pytest.mark.parametrize(
    ("choice", "output"),
    [
        ("1", (OTHER, STATE)),
        ("hidden", {"other": OTHER, "hidden": STATE}),
        ("0.hidden", [Record(LOSS, STATE), OTHER]),
        ("last.1", {"last": (OTHER, STATE)}),
        (lambda output: output.hidden, Record(LOSS, STATE)),
    ],
)
def test_a_path_or_a_function_chooses(choice: object, output: object) -> None:
    assert choose_tensor(output, choice, "layer") is STATE  # type: ignore[arg-type]


def test_an_ambiguous_output_is_refused_with_its_structure() -> None:
    with pytest.raises(TypeError, match=r"layer 'enc' gave a dict with 2 tensors") as error:
        choose_tensor({"a": STATE, "b": (OTHER, 7)}, None, "enc")
    text = str(error.value)
    assert "a: float32 of shape (2, 3, 4)" in text
    assert "b.0: float32 of shape (2, 3, 4)" in text
    assert "b.1: int" in text
    assert 'output="path"' in text
    with pytest.raises(TypeError, match="gave a NoneType with 0 tensors"):
        choose_tensor(None, None, "enc")


def test_a_path_to_nothing_is_refused_with_the_paths_there_are() -> None:
    with pytest.raises(ValueError, match=r"'enc' has no tensor at output='2'[\s\S]*1: float32"):
        choose_tensor((STATE, OTHER), "2", "enc")
    with pytest.raises(TypeError, match="returned a tuple for layer 'enc'"):
        choose_tensor((STATE, OTHER), lambda output: output, "enc")  # type: ignore[arg-type,return-value]


def test_integers_are_refused_with_their_dtype() -> None:
    with pytest.raises(TypeError, match=r"layer 'tokens' gave int64 of shape \(2, 3\)"):
        choose_tensor(TOKENS, None, "tokens")


@pytest.mark.parametrize(
    ("convert", "kind"),
    [
        (Tensor.to_sparse, "sparse_coo"),
        (Tensor.to_sparse_csr, "sparse_csr"),
        (Tensor.to_mkldnn, "_mkldnn"),
        (lambda dense: torch.nested.as_nested_tensor([dense, dense[:2]]), "nested"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*(CSR|nested tensors).*:UserWarning")
def test_what_is_not_dense_is_refused_with_the_way_out(
    convert: Callable[[Tensor], Tensor], kind: str
) -> None:
    class Converting(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return convert(x)

    model, x = nn.Sequential(nn.Linear(4, 4), Converting()), torch.randn(3, 4)
    with attach(model, ["0", "1"]), pytest.raises(TypeError, match=f"'1' .* of layout {kind};"):
        model(x)
    if kind != "nested":
        seen = states_of(Only(model), x, output=lambda output: output.to_dense())
        assert torch.equal(seen.states["0"][:, 0], model[0](x))


def test_what_wraps_values_or_packs_them_is_refused() -> None:
    """Otherwise it ended in an error about a data pointer, or about a copy kernel."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        masked = torch.masked.masked_tensor(STATE, STATE > 0)
    with pytest.raises(TypeError, match=r"'enc' gave a MaskedTensor.*output\.to_tensor\(0\.0\)"):
        choose_tensor(masked, None, "enc")
    packed = torch.zeros(6, 2, dtype=torch.uint8).view(torch.float4_e2m1fn_x2)
    with pytest.raises(TypeError, match=r"'enc' gave a Tensor \(float4_e2m1fn_x2 of shape \(6, 2"):
        choose_tensor(packed, None, "enc")
    assert choose_tensor(nn.Parameter(STATE), None, "enc").shape == STATE.shape


def test_a_function_that_writes_into_the_output_is_refused() -> None:
    """The model would go on with what it wrote."""
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh())
    with (
        attach(model, "*", output=lambda output: output.mul_(2)),
        pytest.raises(
            ValueError, match=r"output=callable wrote into what layer '0' returned.*copy"
        ),
        torch.no_grad(),
    ):
        model(torch.randn(3, 4))
    x = torch.randn(3, 4)
    seen = states_of(Only(model[0]), x, output=lambda output: output.clone().mul_(2))
    assert torch.equal(seen.states["0"][:, 0], model[0](x) * 2)


def test_every_tensor_has_a_path() -> None:
    assert list(tensors_in((STATE, {"a": [TOKENS]}, None))) == ["0", "1.a.0"]


def states_of(model: nn.Module, *args: object, **options: object) -> Trajectory:
    got = list[Trajectory]()
    with attach(model, "0", **options) as probe:  # type: ignore[arg-type]
        probe.stream_to(got.append)
        model(*args)
    return got[0]


class Only(nn.Module):
    """One layer, called as it wishes; its output is returned as it is."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.add_module("0", layer)

    def forward(self, *args: object) -> object:
        return self.get_submodule("0")(*args)


def test_an_lstm_gives_its_sequence_and_its_cell_by_path() -> None:
    model = Only(nn.LSTM(4, 5, batch_first=True))
    sequence, (_, cell) = model(STATE)  # type: ignore[misc]
    assert torch.equal(states_of(model, STATE).states["0"], sequence)
    chosen = states_of(model, STATE, output={"0": "1.1"}, layout="l b d -> b l d")
    assert torch.equal(chosen.states["0"], cell.transpose(0, 1))


def test_attention_gives_its_output_not_its_weights() -> None:
    model = Only(nn.MultiheadAttention(4, 2, batch_first=True))
    expected, _ = model(STATE, STATE, STATE)  # type: ignore[misc]
    assert torch.equal(states_of(model, STATE, STATE, STATE).states["0"], expected)


def test_a_packed_sequence_is_refused_with_the_way_out() -> None:
    model = Only(nn.GRU(4, 5, batch_first=True))
    packed = pack_padded_sequence(STATE, torch.tensor([3, 2]), batch_first=True)
    with pytest.raises(TypeError, match=r"PackedSequence.*pad_packed_sequence.*probe\.mask"):
        states_of(model, packed)

    def unpack(output: tuple[PackedSequence, Tensor]) -> Tensor:
        return pad_packed_sequence(output[0], batch_first=True)[0]

    assert states_of(model, packed, output=unpack).states["0"].shape == (2, 3, 5)
    assert states_of(model, packed, output="1").states["0"].shape == (1, 2, 5)
