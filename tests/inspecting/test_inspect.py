"""``tk.inspect`` on networks whose blocks are known, and what it leaves behind."""

import random
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import torchkoopman as tk
from tests.systems import draw, normal, seeded, turn
from torchkoopman.inspecting.gathering import Gathering
from torchkoopman.inspecting.ranks import rank_of
from torchkoopman.results import Inspection


def inspect(model: nn.Module, batches: Any, layers: Any = None, **options: Any) -> Inspection:
    return tk.inspect(model, batches, layers, progress=False, **{"points": 40, **options})


def linear(matrix: Tensor) -> nn.Linear:
    layer = nn.Linear(*matrix.T.shape, bias=False, dtype=matrix.dtype)
    with torch.no_grad():
        layer.weight.copy_(matrix)
    return layer


class Skip(nn.Module):
    def __init__(self, branch: nn.Module) -> None:
        super().__init__()
        self.branch = branch

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.branch(x)
        return out


class Bend(nn.Module):
    """``x ↦ x + |x|``, which no affine map is."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.scale * x.abs()


def batches(count: int = 6, rows: int = 100, width: int = 2) -> list[Tensor]:
    return [draw(rows, width, seed=k) for k in range(count)]


TURNS = [0.9 * turn(0.3), 0.8 * turn(-1.0), turn(2.0)]


def test_exact_linear_blocks_have_r2_1_and_their_own_eigenvalues_all_trusted() -> None:
    model = nn.Sequential(linear(turn(0.1)), *map(linear, TURNS))
    found = inspect(model, batches())
    assert found.layers == ("0", "1", "2", "3")
    for block, matrix in zip(found.blocks, TURNS, strict=True):
        assert block.r2 == pytest.approx(1, abs=1e-9)
        assert block.skip is not None
        assert block.skip < 0.999
        assert block.beyond_skip == pytest.approx(1, abs=1e-9)
        assert block.spectrum is not None
        assert block.trusted == 3
        values = block.spectrum.eigenvalues
        wanted = torch.linalg.eigvals(matrix)
        assert (wanted[:, None] - values).abs().min(1).values.max() < 1e-6
        assert block.largest == pytest.approx(wanted[0].abs().item(), abs=1e-6)
        assert block.rank is not None
        assert block.rank.effective == pytest.approx(2, abs=1e-6)
        assert block.non_normality is not None
        assert block.non_normality.departure < 0.01
    assert found.skipped == ()
    assert found.surrogate is not None
    whole = found.surrogate.record.held_out["3"]
    assert whole == pytest.approx(1, abs=1e-6)


def test_a_block_that_does_nothing_is_explained_by_skipping_it() -> None:
    nothing = [Skip(linear(torch.zeros(2, 2, dtype=torch.float64))) for _ in range(3)]
    found = inspect(nn.Sequential(*nothing), batches())
    for block in found.blocks:
        assert block.skip == pytest.approx(1, abs=1e-9)
        assert block.largest == pytest.approx(1, abs=1e-6)


def test_of_a_bent_block_a_line_explains_its_share_and_no_more() -> None:
    rows = batches(20)
    bent = inspect(nn.Sequential(linear(torch.eye(2).double()), Bend()), rows, ["0", "1"])
    (block,) = bent.blocks
    # x and |x| are uncorrelated: of Var(x + |x|) = 1 + 1 - 2/π a line explains Var(x) = 1.
    assert block.r2 == pytest.approx(1 / (2 - 2 / torch.pi), abs=0.03)


def test_ranks_are_those_of_the_states_and_of_the_map() -> None:
    squeeze = torch.diag(torch.tensor([1.0, 1.0, 0.0, 0.0], dtype=torch.float64))
    model = nn.Sequential(*(linear(each) for each in (torch.eye(4).double(), squeeze, squeeze)))
    found = inspect(model, batches(10, 200, 4))
    assert found.ranks["0"].numerical == 4
    assert found.ranks["0"].effective == pytest.approx(4, rel=0.05)
    assert found.ranks["1"].numerical == 2
    assert found.ranks["1"].effective == pytest.approx(2, rel=0.05)
    rank = found.blocks[0].rank
    assert rank is not None
    assert (rank.numerical, rank.of) == (2, 4)


def test_a_participation_ratio_counts_equal_directions() -> None:
    assert rank_of(torch.tensor([2.0, 2.0, 2.0])).effective == pytest.approx(3)
    assert rank_of(torch.tensor([1.0, 0.0])).numerical == 1
    assert rank_of(torch.zeros(3)) == rank_of(torch.zeros(3, dtype=torch.float64))
    assert rank_of(torch.zeros(3)).numerical == 0


def tanh_network(width: int = 6) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            *(m for _ in range(4) for m in (nn.Linear(width, width), nn.Tanh(), nn.Dropout(0.5)))
        )


def test_the_ranking_is_that_of_rank_spans() -> None:
    model, loader = tanh_network(), [3 * normal(60, 6, seed=k) for k in range(5)]
    found = inspect(model, loader)
    assert found.layers == ("2", "5", "8", "11")
    ranking = tk.rank_spans(model, loader, list(found.layers), progress=False)
    assert found.ranking == ranking
    by_ends = {(span.start, span.end): span for span in ranking.spans}
    assert [block.span for block in found.blocks] == [
        by_ends[block.start, block.end] for block in found.blocks
    ]


def test_rows_that_judge_a_surrogate_are_not_those_of_its_fit() -> None:
    gathering = Gathering((3, 3), 256, None, seeded())
    for k in range(7):
        x = draw(33, 3, seed=k)
        gathering.update(tk.Trajectory.of(x, 2 * x))
    every = torch.cat([draw(33, 3, seed=k) for k in range(7)])
    unseen = gathering.unseen.rows()["0"]
    assert len(unseen) == 7 * 33 // 10
    held = (every[:, None] == unseen).all(-1).any(1)
    assert held.nonzero()[:, 0].tolist() == list(range(9, 7 * 33, 10))
    moments = gathering.fitter.surrogate.record
    assert moments.rows == int((~held).sum())


def test_only_so_many_unseen_rows_are_kept_the_same_of_all_layers() -> None:
    gathering = Gathering((3, 3), 256, None, seeded())
    gathering.unseen._most = 8
    for k in range(20):
        x = draw(50, 3, seed=k)
        gathering.update(tk.Trajectory.of(x, 2 * x))
    rows = gathering.unseen.rows()
    assert len(rows["0"]) == 8
    assert torch.equal(2 * rows["0"], rows["1"])


def test_the_loader_is_gone_through_once_and_no_further_than_needed() -> None:
    drawn: list[int] = []

    def stream() -> Iterator[Tensor]:
        for k in range(50):
            drawn.append(k)
            yield normal(40, 6, seed=k)

    once = stream()
    found = inspect(tanh_network(), once, rows=200)
    assert drawn == list(range(5))
    assert found.rows == 200
    assert "no further batch" in found.notes[0]
    listed = inspect(tanh_network(), [normal(40, 6, seed=k) for k in range(5)])
    assert listed.ranking == found.ranking
    assert listed.surrogate == found.surrogate or torch.equal(
        *(each.surrogate.operator.matrix(1.0) for each in (listed, found) if each.surrogate)
    )


def bits(found: Inspection) -> list[Tensor]:
    surrogates = [found.surrogate, *(block.surrogate for block in found.blocks)]
    tensors = [each.operator.matrix(1.0) for each in surrogates if each is not None]
    assert found.topology is not None
    for layer in found.topology.layers:
        tensors += [curve.values for both in layer.curves.values() for curve in both]
    return tensors


def test_two_runs_with_one_seed_give_the_same_bits_and_another_seed_others() -> None:
    model = nn.Sequential(*(nn.Conv1d(3, 3, 3, padding=1) for _ in range(3)))
    loader = [normal(10, 3, 50, seed=k) for k in range(6)]
    options: dict[str, Any] = {"layout": "b c t -> b t c", "positions": 8}
    first, second, other = (
        inspect(model, loader, generator=seeded(seed), **options) for seed in (1, 1, 2)
    )
    assert first.ranking == second.ranking != other.ranking
    assert str(first) == str(second)
    assert all(map(torch.equal, bits(first), bits(second)))
    assert first.rows == 60 * 8
    assert "8 random positions of 50" in first.notes[0]


def hooks(model: nn.Module) -> int:
    names = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")
    return sum(len(getattr(module, name)) for module in model.modules() for name in names)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("after", [0, 1, 3])
def test_a_model_is_given_back_as_it_was_also_after_an_error(
    error: type[BaseException], after: int
) -> None:
    model = tanh_network().train()
    model[3].eval()
    modes = [module.training for module in model.modules()]
    states = torch.get_rng_state(), random.getstate()

    def failing() -> Iterator[Tensor]:
        for k in range(after):
            yield torch.randn(40, 6) + random.random() + k
        raise error("in the middle")

    with pytest.raises(error, match="in the middle"):
        inspect(model, failing())
    assert hooks(model) == 0
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]


def test_a_layer_that_fails_in_the_pass_leaves_no_hooks() -> None:
    class Picky(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            if len(x) == 7:
                raise ArithmeticError("not seven")
            return super().forward(x)

    model = nn.Sequential(Picky(3, 3), Picky(3, 3))
    with pytest.raises(ArithmeticError, match="not seven"):
        inspect(model, [normal(20, 3), normal(20, 3), normal(7, 3)])
    assert hooks(model) == 0


def test_a_probe_of_the_users_own_sees_nothing_of_it() -> None:
    model, kept = tanh_network(), list[Any]()
    with tk.attach(model, "2").stream_to(kept.append):
        inspect(model, [normal(40, 6, seed=k) for k in range(3)])
        assert kept == []
        model(normal(5, 6))
    assert len(kept) == 1


def test_measures_that_fail_are_named_with_their_reason_and_the_rest_stands() -> None:
    class Dead(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return 0 * super().forward(x)

    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), Dead(3, 3))
    found = inspect(model, [normal(60, 3, seed=k) for k in range(4)], ["0", "1", "2"])
    first, second = found.blocks
    assert first.r2 == pytest.approx(1, abs=1e-6)
    assert first.spectrum is not None
    assert second.r2 is None
    assert second.surrogate is None
    said = {each.what: each.why for each in found.skipped}
    assert "constant" in said["R² of 0 → 2, 1 → 2"]
    assert "constant" in said["map 1 → 2"]
    assert found.ranks["2"].numerical == 0
    assert "skipped: map 1 → 2" in str(found)


def test_one_batch_leaves_spectra_and_says_why_there_is_no_r2() -> None:
    found = inspect(tanh_network(), [normal(200, 6)])
    assert found.ranking is None
    assert all(block.spectrum is not None and block.r2 is None for block in found.blocks)
    assert [each.what for each in found.skipped] == ["R² of spans"]
    assert "one batch" in found.skipped[0].why


def test_few_rows_say_so_of_each_measure() -> None:
    found = inspect(tanh_network(), [normal(3, 6), normal(3, 6)])
    assert found.surrogate is None
    assert found.topology is None
    assert all(block.surrogate is None for block in found.blocks)
    assert any("rows were streamed" in each.why for each in found.skipped)


def test_spectra_of_wide_layers_are_of_the_leading_directions() -> None:
    model, loader = tanh_network(), [normal(60, 6, seed=k) for k in range(5)]
    narrow, whole = inspect(model, loader, rank=3), inspect(model, loader)
    (first, *_), (full, *_) = narrow.blocks, whole.blocks
    assert first.surrogate is not None
    assert first.surrogate.latent == 4
    assert first.r2 == full.r2
    assert any("3 directions of most variance, of 6" in note for note in narrow.notes)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"rows": 0}, ValueError, "rows=0; give 1 or more"),
        ({"rank": 0}, ValueError, "rank=0; give 1 or more"),
        ({"points": 1}, ValueError, "points=1; give 2 or more"),
        ({"points": 2.5}, TypeError, "points=2.5; give a whole number"),
        ({"positions": 0}, ValueError, "positions=0"),
        ({"layout": {"nothing": "b d -> b d"}}, ValueError, "matches none of the chosen layers"),
    ],
)
def test_wrong_arguments_are_refused(
    options: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        inspect(tanh_network(), [normal(40, 6)], **options)


def test_what_is_no_model_or_no_loader_is_refused() -> None:
    with pytest.raises(TypeError, match="got a str as the model"):
        inspect("model", [])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="single samples"):
        inspect(tanh_network(), normal(40, 6))
    with pytest.raises(ValueError, match="gave no batches"):
        inspect(tanh_network(), [])
    with pytest.raises(ValueError, match="none of the rows"):
        inspect(tanh_network(), [torch.full((40, 6), torch.nan)] * 2)


def test_the_table_is_shown_in_a_notebook_and_says_how_blocks_were_found() -> None:
    found = inspect(tanh_network(), [normal(40, 6, seed=k) for k in range(3)])
    text, html = str(found), found._repr_html_()
    assert text.startswith("4 blocks, '2' … '11' (4 × (Linear, Tanh, Dropout)), the longest run")
    assert found.summary() == text
    assert "<table>" in html
    assert "4 × (Linear, Tanh, Dropout)" in html
    assert text.count("\n") > len(found.blocks)
