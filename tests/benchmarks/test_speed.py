"""The speed table counts what it says it counts; times are not asserted."""

import pytest
import torch

from benchmarks.costs import speed
from benchmarks.networks import ResidualMLP


def test_a_row_holds_the_operations_of_both_networks_and_fits_the_head() -> None:
    model = ResidualMLP(4, 8, 5, 2).eval()
    batches = iter(torch.randn(4, 50, 4, generator=torch.Generator().manual_seed(0)))
    row = speed.measure(
        "tiny", model, "blocks.1", "blocks.3", lambda: next(batches), turns=2, least=0.01
    )
    ends = 2 * (4 * 8 + 8 * 2)
    assert row.before == ends + 10 * 2 * 8 * 8
    assert row.after == ends + 6 * 2 * 8 * 8 + 2 * 8 * 8
    assert row.promised == row.before / row.after
    assert row.kept == row.speedup / row.promised > 0
    assert len(str(row)) == len(speed.HEAD)


@pytest.mark.slow
def test_the_networks_to_try_run_and_have_the_blocks_that_are_replaced() -> None:
    with torch.random.fork_rng():
        for each in speed.subjects():
            with torch.no_grad():
                each.model.eval()(each.make()[:2])
            for block in (0, 2, 8, 11):
                each.model.get_submodule(f"{each.blocks}.{block}")
