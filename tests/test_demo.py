"""The demo runs from end to end: here on a network that is hardly trained."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from examples import demo


@pytest.mark.slow
def test_the_demo_prints_its_tables_and_writes_logs_and_models(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    threads: int,
) -> None:
    task = replace(
        demo.TASKS["yinyang"],
        training={"epochs": 2, "batch": 500, "rate": 0.03},
        autoencoder={"latent": 16, "steps_per_update": 1},
        steps=5,
    )
    monkeypatch.setitem(demo.TASKS, "yinyang", task)
    arguments = ["--seeds", "2", "--compare", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["demo.py", *arguments])
    with torch.random.fork_rng():
        demo.main()
    printed = capsys.readouterr().out
    for row in ("network", "skip", "ridge map", "EDMD", "autoencoder", "spectral radius", "±"):
        assert row in printed
    folder = tmp_path / "yinyang"
    assert len(list(folder.glob("seed?/events.out.tfevents.*"))) == 2
    for page in ("training.html", "network.html"):
        assert "</html>" in (folder / page).read_text()
        assert page in printed
    for path in (folder / "forgetful-seed0.pt2", folder / "forgetful-seed1.safetensors"):
        assert path.is_file()
        assert str(path) in printed
