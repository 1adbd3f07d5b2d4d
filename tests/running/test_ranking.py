"""``tk.rank_spans`` against least squares on all rows at once, and costs against real swaps."""

from collections.abc import Iterator
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import torchkoopman as tk
from tests.systems import draw
from torchkoopman.observe.costs import Cost
from torchkoopman.observe.trajectory import Trajectory
from torchkoopman.running.ranked import RankedSpan, SpanRanking
from torchkoopman.running.ranking import rank_spans


def network() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Linear(4, 6),
            nn.Tanh(),
            nn.Linear(6, 6),
            nn.Dropout(0.5),
            nn.Tanh(),
            nn.Linear(6, 5),
            nn.Tanh(),
        ).double()


LAYERS = ["1", "4", "6"]


def batches(sizes: tuple[int, ...] = (90, 70, 90, 33), seed: int = 0) -> list[Tensor]:
    return [2 * draw(size, 4, seed=seed + k) for k, size in enumerate(sizes)]


def rank(model: nn.Module, loader: Any, layers: Any, **options: Any) -> SpanRanking:
    return rank_spans(model, loader, layers, progress=False, **options)


def by_ends(ranking: SpanRanking) -> dict[tuple[str, str], RankedSpan]:
    return {(span.start, span.end): span for span in ranking.spans}


def states(model: nn.Module, loader: list[Any], layers: list[str]) -> list[Trajectory]:
    """One trajectory per batch, all of them kept."""
    kept: list[Trajectory] = []
    with torch.no_grad(), tk.attach(model.eval(), layers).stream_to(kept.append):
        for batch in loader:
            model(batch)
    return kept


def halves(parts: list[Tensor]) -> list[np.ndarray[Any, Any]]:
    """Rows of the first, third, … and of the second, fourth, … batch."""
    return [torch.cat(parts[first::2]).numpy() for first in (0, 1)]


def least_squares(start: list[Tensor], end: list[Tensor]) -> float:
    """R² of all rows, each predicted by the least squares with intercept of the other half."""
    error = 0.0
    features = [np.hstack([np.ones((len(x), 1)), x]) for x in halves(start)]
    truth = halves(end)
    for fit, test in ((0, 1), (1, 0)):
        solution = np.linalg.lstsq(features[fit], truth[fit], rcond=None)[0]
        error += ((features[test] @ solution - truth[test]) ** 2).sum()
    rows = np.vstack(truth)
    return 1 - error / ((rows - rows.mean(0)) ** 2).sum()


@pytest.mark.parametrize("size", [1e-25, 1.0, 1e25])
def test_r2_does_not_depend_on_the_scale_of_the_states(size: float) -> None:
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)).requires_grad_(
        False
    )
    loader = [size * draw(60, 4, seed=k).float() for k in range(4)]
    (span,) = rank(model, loader, ["0", "1"]).spans
    assert span.r2 == pytest.approx(1, abs=1e-5)


def test_r2_of_every_span_is_that_of_least_squares_on_the_other_half() -> None:
    model, loader = network(), batches()
    kept = [part.rows() for part in states(model, loader, LAYERS)]
    ranking = rank(model, loader, LAYERS)
    assert ranking.rows == 283
    assert set(by_ends(ranking)) == set(combinations(LAYERS, 2))
    for (start, end), span in by_ends(ranking).items():
        expected = least_squares([rows[start] for rows in kept], [rows[end] for rows in kept])
        assert span.r2 == pytest.approx(expected, abs=1e-6)


def test_r2_with_observables_is_that_of_least_squares_on_them() -> None:
    """The features are drawn layer by layer; they see the state scaled by the first batch."""
    model, loader, generator = network(), batches(), torch.Generator().manual_seed(3)
    kept = [part.rows() for part in states(model, loader, LAYERS)]
    observables = tk.RandomFeatures(20)
    ranking = rank(model, loader, LAYERS, observables=observables, generator=generator, ridge=1e-12)
    found = by_ends(ranking)
    generator.manual_seed(3)
    for depth, start in enumerate(LAYERS[:-1]):
        features = tk.RandomFeatures(20).build(6, generator).double()
        first = kept[0][start]
        scale = (first - first.mean(0)).square().mean().sqrt()
        scaled = [(rows[start] - first.mean(0)) / scale for rows in kept]
        observed = [torch.cat([c, features(c)], 1) for c in scaled]
        for end in LAYERS[depth + 1 :]:
            expected = least_squares(observed, [rows[end] for rows in kept])
            assert found[start, end].r2 == pytest.approx(expected, abs=1e-6)


def test_the_same_seed_draws_the_same_features_and_none_given_is_seed_zero() -> None:
    def once(**options: Any) -> SpanRanking:
        return rank(network(), batches(), LAYERS, observables=tk.RandomFeatures(9), **options)

    assert once() == once() == once(generator=torch.Generator().manual_seed(0))
    assert once() != once(generator=torch.Generator().manual_seed(1))


def test_skip_is_the_identitys_r2_and_absent_where_widths_differ() -> None:
    model, loader = network(), batches()
    kept = [part.rows() for part in states(model, loader, LAYERS)]
    start, end = (torch.cat([rows[layer] for rows in kept]) for layer in ("1", "4"))
    expected = 1 - (start - end).square().sum() / (end - end.mean(0)).square().sum()
    for observables in ((), tk.RandomFeatures(20)):
        found = by_ends(rank(model, loader, LAYERS, observables=observables))
        assert found["1", "4"].skip == pytest.approx(expected.item(), abs=1e-6)
        assert found["1", "6"].skip is None
        assert found["4", "6"].skip is None


def test_the_operator_ranked_is_the_one_that_a_fit_finds() -> None:
    model, loader = network(), batches()
    kept = [part.only(["1", "4"]) for part in states(model, loader, LAYERS)]
    error = spread = 0.0
    for first in (0, 1):
        fitter = tk.EDMDFitter([], pairs="all", calibration=50)
        for part in kept[first::2]:
            fitter.update(part)
        surrogate = fitter.between("1", "4")
        for part in kept[1 - first :: 2]:
            ahead = surrogate.predict(part.states["1"])
            error += (ahead - part.states["4"]).square().sum().item()
    ends = torch.cat([part.rows()["4"] for part in kept])
    spread = (ends - ends.mean(0)).square().sum().item()
    found = by_ends(rank(model, loader, LAYERS))["1", "4"]
    assert found.r2 == pytest.approx(1 - error / spread, abs=1e-6)


def linear(*widths: int) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return nn.Sequential(*(nn.Linear(a, b) for a, b in pairwise(widths)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_span_of_a_linear_network_is_explained_and_the_longest_is_best(
    dtype: torch.dtype,
) -> None:
    model = linear(3, 6, 6, 6, 6).to(dtype)
    loader = [draw(50, 3, seed=k).to(dtype) for k in range(4)]
    ranking = rank(model, loader, "*")
    assert len(ranking.spans) == 6
    for span in ranking.spans:
        assert span.r2 == pytest.approx(1, abs=1e-6)
        assert span.r2 <= 1
    best = [(span.start, span.end) for span in ranking.spans if span.best]
    assert best == [("0", "3")] == [(ranking.spans[0].start, ranking.spans[0].end)]


class Scramble(nn.Module):
    """As good as noise to a linear map: every direction turns many times over."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cos(500 * x)


def test_a_block_like_noise_ranks_below_a_linear_one() -> None:
    model = nn.Sequential(linear(5, 5), linear(5, 5), Scramble(), linear(5, 5)).double()
    found = by_ends(rank(model, [draw(400, 5, seed=k) for k in range(4)], "?"))
    assert found["0", "1"].r2 == pytest.approx(1, abs=1e-6)
    assert found["2", "3"].r2 == pytest.approx(1, abs=1e-6)
    for ends in (("0", "2"), ("1", "2"), ("0", "3"), ("1", "3")):
        assert found[ends].r2 < 0.1


def test_a_fit_on_one_half_is_not_scored_on_it() -> None:
    """Twenty-one unknowns and thirty rows of noise: a fit explains its own rows, and no others."""
    model = nn.Sequential(nn.Identity(), Scramble())
    span = rank(model, [draw(30, 20, seed=k) for k in range(2)], "*").spans[0]
    assert span.r2 < -0.3


def test_costs_are_those_of_the_swap() -> None:
    model = linear(4, 8, 8, 8, 3)
    loader = [draw(60, 4, seed=k).float() for k in range(4)]
    for observables in ((), tk.RandomFeatures(10)):
        parts = [] if isinstance(observables, tuple) else [observables]
        found = by_ends(rank(model, loader, "*", observables=observables))
        fitter = tk.EDMDFitter(parts, pairs="all", calibration=50)
        with torch.no_grad(), tk.attach(model, ["0", "1", "2"]).stream_to(fitter):
            for batch in loader:
                model(batch)
        for start, end in combinations("012", 2):
            edited = tk.swap(model, fitter.between(start, end))
            (record,) = tk.swap_history(edited)
            span = found[start, end]
            assert (span.removed.parameters, span.added.parameters) == (
                record.removed,
                record.added,
            )


def test_operations_of_the_replacement_are_those_of_its_matrices_at_every_position() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 8))
    loader = [draw(20, 7, 4, seed=k).float() for k in range(2)]
    plain = rank(model, loader, "*").spans[0]
    assert plain.added == Cost(7 * 2 * 6 * 8, 6 * 8 + 8)
    assert plain.removed == Cost(7 * 2 * 6 * 8, 6 * 8 + 8)
    assert plain.saved == 0
    assert not plain.best
    sampled = rank(model, loader, "*", positions=3, observables=tk.RandomFeatures(5)).spans[0]
    assert sampled.added == Cost(7 * 2 * (6 * 5 + 11 * 8), 6 * 5 + 5 + 11 * 8 + 8)


def test_spans_are_best_first_and_best_is_the_front_of_r2_and_operations_saved() -> None:
    model = nn.Sequential(*(nn.Sequential(linear(6, 9, 6), nn.Tanh()) for _ in range(5)))
    with torch.no_grad():
        for depth, parameter in enumerate(model.parameters()):
            parameter.mul_(1 + depth % 3)
    ranking = rank(model.double(), [draw(80, 6, seed=k) for k in range(2)], "?")
    worth = [(round(span.r2, 4), span.saved) for span in ranking.spans]
    for span, (r2, saved) in zip(ranking.spans, worth, strict=True):
        better = any(a >= r2 and b >= saved and (a > r2 or b > saved) for a, b in worth)
        assert span.best == (saved > 0 and not better)
    for kind in (True, False):
        column = [round(span.r2, 4) for span in ranking.spans if span.best == kind]
        assert len(column) > 1
        assert column == sorted(column, reverse=True)
    marks = [span.best for span in ranking.spans]
    assert marks == sorted(marks, reverse=True)
    saved = [span.saved for span in ranking.spans if span.best]
    assert saved == sorted(saved)


class Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.embed, self.mix, self.last = nn.Embedding(20, 4), nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.last(torch.tanh(self.mix(self.embed(input_ids))))


def token_batches(padding: int, labels: bool = False) -> list[dict[str, Tensor]]:
    """Twelve sentences of five tokens in each batch, and padding that says something else."""
    made = []
    for seed in range(4):
        generator = torch.Generator().manual_seed(seed)
        ids = torch.randint(10, (12, 5), generator=generator)
        pad = torch.randint(10, 20, (12, padding), generator=generator)
        mask = torch.cat([torch.ones(12, 5), torch.zeros(12, padding)], 1).long()
        batch = {"input_ids": torch.cat([ids, pad], 1), "attention_mask": mask}
        made.append(batch | ({"labels": torch.arange(12) % 3} if labels else {}))
    return made


PARTS = [tk.RandomFeatures(4), tk.ContextMean()]


@pytest.mark.parametrize("observables", [[], PARTS])
def test_padding_does_not_count(observables: Any) -> None:
    plain, padded = (
        rank(Tokens(), token_batches(padding), ["embed", "mix", "last"], observables=observables)
        for padding in (0, 3)
    )
    assert padded.rows == plain.rows == 4 * 12 * 5
    for ends, span in by_ends(plain).items():
        assert by_ends(padded)[ends].r2 == pytest.approx(span.r2, abs=1e-5)
        assert by_ends(padded)[ends].skip == pytest.approx(span.skip, abs=1e-5)


@pytest.mark.parametrize("observables", [[], PARTS])
def test_a_first_batch_of_padding_alone_does_no_harm(observables: Any) -> None:
    nothing = {name: torch.zeros_like(value) for name, value in token_batches(0)[0].items()}
    found = rank(Tokens(), [nothing, *token_batches(0)], ["embed", "mix"], observables=observables)
    assert found.rows == 4 * 12 * 5
    assert 0.5 < found.spans[0].r2 <= 1


def test_labels_change_nothing() -> None:
    model, layers = Tokens(), ["embed", "mix", "last"]
    assert rank(model, token_batches(2, True), layers) == rank(model, token_batches(2), layers)


def test_a_layout_is_passed_on() -> None:
    model = nn.Sequential(nn.Conv1d(2, 3, 1), nn.Conv1d(3, 3, 1)).double()
    loader = [draw(30, 2, 4, seed=k) for k in range(2)]
    span = rank(model, loader, "*", layout="b c t -> b t c").spans[0]
    assert span.r2 == pytest.approx(1, abs=1e-6)
    assert span.removed.operations == 4 * 2 * 9


def test_random_positions_are_taken_where_asked_for() -> None:
    assert rank(Tokens(), token_batches(0), ["embed", "mix"], positions=2).rows == 4 * 12 * 2


def test_a_loader_that_can_be_read_once_is_read_once() -> None:
    model, loader = network(), batches()
    assert rank(model, iter(loader), LAYERS) == rank(model, loader, LAYERS)


def test_forward_calls_the_model_in_the_users_way_and_keeps_a_batch_in_one_half() -> None:
    """Each batch is the same rows twice: if its passes were parted, a half would know the other."""
    model = nn.Sequential(nn.Identity(), Scramble())

    def twice(model: nn.Module, batch: Any) -> object:
        return model(batch["x"]), model(batch["x"])

    loader = [{"x": draw(15, 20, seed=k)} for k in range(2)]
    ranking = rank(model, loader, "*", forward=twice)
    assert ranking.rows == 60
    assert ranking.spans[0].r2 < 0


def modes(model: nn.Module) -> list[bool]:
    return [module.training for module in model.modules()]


def hooks(model: nn.Module) -> int:
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")
    return sum(len(getattr(module, kind)) for module in model.modules() for kind in kinds)


def test_the_model_is_given_back_as_it_was() -> None:
    model = network().train()
    model[3].eval()
    before, state = modes(model), {k: v.clone() for k, v in model.state_dict().items()}
    rng = torch.get_rng_state()
    rank(model, batches(), LAYERS, observables=tk.RandomFeatures(9))
    assert modes(model) == before
    assert hooks(model) == 0
    assert all(parameter.grad is None for parameter in model.parameters())
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, state[name], rtol=0, atol=0)
    assert torch.equal(rng, torch.get_rng_state())


@pytest.mark.parametrize("good", [0, 2])
def test_the_model_is_given_back_as_it_was_after_an_exception_too(good: int) -> None:
    model = network().train()

    def failing() -> Iterator[Tensor]:
        yield from batches()[:good]
        yield draw(50, 3)  # one feature short

    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        rank(model, failing(), LAYERS)
    assert all(modes(model))
    assert hooks(model) == 0
    assert torch.backends.mha.get_fastpath_enabled()
    assert torch.is_grad_enabled()


def test_the_table_is_printed_with_progress_and_never_without(
    capsys: pytest.CaptureFixture[str],
) -> None:
    ranking = rank(network(), batches(), LAYERS)
    printed = capsys.readouterr()
    assert printed.out == printed.err == ""
    assert rank_spans(network(), batches(), LAYERS) == ranking
    assert str(ranking) in capsys.readouterr().out


def test_the_table_shows_ends_r2_skip_and_costs_of_the_leading_spans() -> None:
    first = RankedSpan("a", "longer", 0.98765, None, Cost(1.2e6, 3400), Cost(1e5, 50), True)
    second = RankedSpan("a", "b", 0.5, -0.25, Cost(10, 1), Cost(40, 2))
    ranking = SpanRanking((first, second), Cost(2.2e6, 10_000), 77)
    head, columns, *lines = str(ranking).splitlines()
    assert "2 spans" in head
    assert "77 rows" in head
    assert len({len(line) for line in (columns, *lines)}) == 1
    for part in ("*  a ", "longer", "0.9877", "3.4k → 50", "1.2M → 100.0k", "12.0×", "50.0%"):
        assert part in lines[0], part
    for part in ("  a ", "-0.2500", "10 → 40", "0.2×", "-0.0%"):
        assert part in lines[1], part
    assert ranking.summary(spans=1).splitlines()[-1] == "… and 1 more"


def test_one_layer_is_no_span_and_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"\['1'\]. Choose two layers or more"):
        rank(network(), batches(), "1")


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_batches_are_refused_with_the_way_out(count: int) -> None:
    with pytest.raises(ValueError, match=rf"two batches.*it got {count} with.*smaller batches"):
        rank(network(), batches()[:count], LAYERS)


def test_a_half_with_no_more_rows_than_unknowns_is_refused() -> None:
    with pytest.raises(ValueError, match=r"6 rows were streamed.*either half"):
        rank(network(), batches((90, 6)), LAYERS)
    with pytest.raises(ValueError, match="fewer observables"):
        rank(network(), batches((90, 30)), LAYERS, observables=tk.RandomFeatures(50))


class Constant(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.full_like(x, 0.1)


def test_a_constant_layer_is_refused_by_name() -> None:
    model = nn.Sequential(nn.Identity(), Constant())
    with pytest.raises(ValueError, match="layer '1' is constant over all 283 rows"):
        rank(model, batches(), "*")


def test_layers_of_different_resolution_are_refused_with_the_way_out() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.MaxPool2d(2))
    loader = [draw(40, 1, 4, 4, seed=k).float() for k in range(2)]
    with pytest.raises(ValueError, match="Choose layers of one resolution"):
        rank(model, loader, "*")
    span = rank(model, loader, "*", layout="b ... -> b 1 (...)", ridge=1e-3).spans[0]
    assert (span.start, span.end, span.skip) == ("0", "1", None)


def test_observables_of_another_kind_are_refused() -> None:
    with pytest.raises(TypeError, match="observables are made of"):
        rank(network(), batches(), LAYERS, observables=tk.RandomFeatures)


def small(seed: int = 0) -> tuple[nn.Module, list[Tensor]]:
    """A network, and six batches for it."""
    generator = torch.Generator().manual_seed(seed)
    model = nn.Sequential(nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 5))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return model, [torch.randn(40, 5, generator=generator) for _ in range(6)]


def ranked(batches: list[Tensor], statistics: tk.SpanStatistics | None) -> tk.results.SpanRanking:
    model, _ = small()
    return tk.rank_spans(model, batches, ["0", "1", "2"], statistics=statistics, progress=False)


@pytest.mark.parametrize("observables", [(), tk.RandomFeatures(8)])
def test_statistics_that_were_saved_go_on_as_if_the_pass_had_not_ended(
    observables: Any, tmp_path: Path
) -> None:
    _, batches = small()
    whole = ranked(batches, tk.SpanStatistics(observables, ridge=1e-6))
    first = ranked(batches[:3], tk.SpanStatistics(observables, ridge=1e-6))
    assert first.statistics is not None
    torch.save(first.statistics.state_dict(), tmp_path / "state")
    loaded = tk.SpanStatistics(observables, ridge=1e-6)
    loaded.load_state_dict(torch.load(tmp_path / "state", weights_only=True))
    resumed = ranked(batches[3:], loaded)
    assert resumed == whole
    assert resumed.rows == 240


def test_statistics_of_two_streams_merge_into_those_of_one() -> None:
    model, batches = small()
    calibrated = tk.SpanStatistics(tk.RandomFeatures(8))
    with tk.attach(model, ["0", "1", "2"]) as probe, probe.stream_to(calibrated.calibrate):
        model(batches[0])
    state = calibrated.state_dict()
    parts = [
        ranked(some, tk.SpanStatistics(tk.RandomFeatures(8)).load_state_dict(state)).statistics
        for some in (batches[:2], batches[2:], batches)
    ]
    assert parts[0] is not None
    assert parts[1] is not None
    assert parts[2] is not None
    merged = parts[0].merge(parts[1])
    assert merged.batches == 6
    for start, end in (("0", "1"), ("0", "2"), ("1", "2")):
        for mine, whole in zip(merged.scores(start, end), parts[2].scores(start, end), strict=True):
            assert mine == pytest.approx(whole, abs=1e-9)


def test_statistics_of_other_scales_or_observables_do_not_merge_and_nothing_changes() -> None:
    _, batches = small()
    one, other = (
        ranked(some, tk.SpanStatistics()).statistics for some in (batches[:3], batches[3:])
    )
    assert one is not None
    assert other is not None
    rows = one.rows
    for wrong, message in (
        (other, "calibration"),
        (one, "itself"),
        (tk.SpanStatistics(ridge=1e-3), "ridge=0.001 and ridge=1e-07"),
        (tk.SpanStatistics(tk.Monomials(2)), "observables="),
    ):
        with pytest.raises(ValueError, match=message):
            one.merge(wrong)
    assert one.rows == rows
    with pytest.raises(ValueError, match="leave observables= and ridge= out"):
        tk.rank_spans(small()[0], batches, ["0", "2"], ridge=1e-3, statistics=one, progress=False)


class Stages(nn.Module):
    """Two stages of two blocks, the second at half the resolution, and a block of its own."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(1)
            wide = [nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.Tanh()) for _ in range(2)]
            small = [nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.Tanh()) for _ in range(2)]
            self.one, self.two = nn.Sequential(*wide), nn.Sequential(*small)
            self.head = nn.Sequential(nn.Flatten(), nn.Linear(48, 4))
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        half = nn.functional.avg_pool2d(self.one(x), 2)
        out: Tensor = self.head(self.two(half))
        return out


def photos(count: int = 5) -> list[Tensor]:
    return [draw(30, 3 * 64, seed=k).reshape(30, 3, 8, 8) for k in range(count)]


@pytest.mark.parametrize("positions", [None, 8])
def test_each_resolution_is_ranked_as_by_itself_and_the_rest_is_listed(
    positions: int | None,
) -> None:
    model, options = Stages(), {"positions": positions}
    ranking = rank(model, photos(), ["one.*", "two.*", "head"], **options)
    found = by_ends(ranking)
    assert set(found) == {("one.0", "one.1"), ("two.0", "two.1")}
    for layers in ("one.*", "two.*"):
        (alone,) = rank(model, photos(), layers, **options).spans
        span = found[alone.start, alone.end]
        assert (span.r2, span.skip, span.removed, span.added) == (
            (alone.r2, alone.skip, alone.removed, alone.added)
        )
    left = {(each.start, each.end): each.why for each in ranking.unranked}
    names = ["one.0", "one.1", "two.0", "two.1", "head"]
    assert found.keys() | left.keys() == set(combinations(names, 2))
    assert "64 and 16 positions" in left["one.1", "two.0"]
    assert "16 and 1 positions" in left["two.1", "head"]
    assert ranking.statistics is None
    assert "not ranked: one.0 → two.0" in str(ranking)
    assert "layout=" in ranking.table().html()


def test_layers_of_different_resolution_alone_are_refused_and_so_are_their_statistics() -> None:
    with pytest.raises(ValueError, match="layers disagree"):
        rank(Stages(), photos(), ["one.1", "two.0"])
    known = rank(Stages(), photos(), "one.*").statistics
    with pytest.raises(ValueError, match="layers disagree"):
        rank(Stages(), photos(), ["one.*", "two.*"], statistics=known)


def test_layouts_and_calls_of_layers_of_different_resolution_are_kept() -> None:
    layout = {"one.*": "b c h w -> b (h w) c", "two.?": "b c h w -> b 1 (c h w)"}
    found = by_ends(rank(Stages(), photos(8), ["one.*", "two.*"], layout=layout))
    assert set(found) == {("one.0", "one.1"), ("two.0", "two.1")}
    alone = rank(Stages(), photos(8), "two.*", layout={"two.*": layout["two.?"]}).spans[0]
    assert found["two.0", "two.1"].r2 == alone.r2


def test_a_constant_end_is_listed_where_other_spans_can_be_ranked() -> None:
    model = network()
    with torch.no_grad():
        model[5].weight.zero_()
    ranking = rank(model, batches(), LAYERS)
    assert [(span.start, span.end) for span in ranking.spans] == [("1", "4")]
    assert {(each.start, each.end) for each in ranking.unranked} == {("1", "6"), ("4", "6")}
    assert all("constant over all" in each.why for each in ranking.unranked)


def test_a_span_across_resolutions_is_fitted_flat_and_swapped_as_the_ranking_says() -> None:
    model, loader = Stages(), photos(10)
    flat = {"layout": "b c h w -> b 1 (c h w)", "progress": False}
    with pytest.raises(ValueError, match=r"fit the span by tk\.fit with rank="):
        rank(model, loader, ["one.0", "two.1"], layout=flat["layout"])
    fitted = tk.fit(model, loader, ["one.0", "two.1"], method="dmd", rank=20, **flat)  # type: ignore[arg-type]
    images = photos(1)[0]
    edited = tk.swap(model, fitted, example_inputs=images)
    with torch.no_grad():
        start = model.one[0](images).flatten(1)[:, None]
        expected = model.head(fitted(start).reshape(30, 3, 4, 4))
        torch.testing.assert_close(edited(images), expected)
        torch.testing.assert_close(edited(images[:7]), expected[:7])
