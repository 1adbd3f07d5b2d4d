"""Data sets: classes against a scalar transcription, splits without overlap, idx files."""

import gzip
import math
import os
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from torchkoopman.datasets import (
    YIN_YANG_CLASSES,
    Labelled,
    digits,
    mnist,
    read_idx,
    yin_yang,
    yin_yang_class,
)

YIN, YANG, DOT, OUTSIDE = 0, 1, 2, -1


def kriener(x: float, y: float, big: float = 0.5, small: float = 0.1) -> int:
    """Kriener et al. (2022), section 2: three conditions for yin, two dots, the rest is yang.

    Distances are to the middles of the right and of the left dot; the symbol is the disc of radius
    ``big`` around (big, big).
    """
    if math.dist((x, y), (big, big)) > big:
        return OUTSIDE
    right, left = math.dist((x, y), (1.5 * big, big)), math.dist((x, y), (0.5 * big, big))
    if right < small or left < small:
        return DOT
    inside_right_dot = right <= small
    inside_left_half_disc = small < left <= 0.5 * big
    above_but_not_in_right_half_disc = y > big and right > 0.5 * big
    if inside_right_dot or inside_left_half_disc or above_but_not_in_right_half_disc:
        return YIN
    return YANG


def test_every_point_has_the_class_of_the_published_definition() -> None:
    points = torch.rand(20_000, 2, generator=torch.Generator().manual_seed(0)).double()
    expected = [kriener(x, y) for x, y in points.tolist()]
    assert yin_yang_class(points).tolist() == expected
    assert set(expected) == {YIN, YANG, DOT, OUTSIDE}


@pytest.mark.parametrize(
    ("point", "label"),
    [
        ((0.25, 0.5), DOT),
        ((0.75, 0.5), DOT),
        ((0.5, 0.9), YIN),
        ((0.25, 0.35), YIN),
        ((0.5, 0.1), YANG),
        ((0.75, 0.65), YANG),
        ((0.02, 0.02), OUTSIDE),
    ],
)
def test_landmarks_of_the_symbol(point: tuple[float, float], label: int) -> None:
    assert yin_yang_class(torch.tensor([point])).item() == label


def test_half_a_turn_exchanges_yin_and_yang() -> None:
    points = torch.rand(5000, 2, generator=torch.Generator().manual_seed(1)).double()
    exchanged = torch.tensor([YANG, YIN, DOT, OUTSIDE])  # by class; the last is class -1
    expected = exchanged[yin_yang_class(points)]
    assert torch.equal(yin_yang_class(1 - points), expected)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 300), st.integers(0, 300), st.integers(0, 1000), st.booleans())
def test_labels_are_the_classes_of_the_points_in_both_parts(
    train: int, test: int, seed: int, dots: bool
) -> None:
    split = yin_yang(train, test, seed=seed, dots=dots)
    for part, size in zip(split, (train, test), strict=True):
        assert part.inputs.shape == (size, 4)
        assert (part.inputs.dtype, part.labels.dtype) == (torch.float32, torch.int64)
        assert torch.equal(part.inputs[:, 2:], 1 - part.inputs[:, :2])
        points = part.inputs[:, :2]
        assert torch.equal(yin_yang_class(points), part.labels)
        assert torch.isin(part.labels, torch.arange(3 if dots else 2)).all()


@pytest.mark.parametrize("dots", [True, False])
def test_classes_are_balanced(dots: bool) -> None:
    """Each class has its share within five deviations of a fair draw."""
    classes, size = (3, 9000) if dots else (2, 9000)
    assert len(YIN_YANG_CLASSES) == 3
    for part in yin_yang(size, size, dots=dots):
        counts = torch.bincount(part.labels, minlength=classes)
        assert len(counts) == classes
        deviation = math.sqrt(size * (1 / classes) * (1 - 1 / classes))
        assert (counts - size / classes).abs().max() < 5 * deviation


def test_points_fill_their_class_evenly() -> None:
    """The disc of the left half lies in yin but for its dot: its share is a ratio of areas."""
    inputs, labels = yin_yang(20_000, 0).train
    yin = inputs[labels == YIN, :2]
    share = (torch.hypot(yin[:, 0] - 0.25, yin[:, 1] - 0.5) <= 0.25).double().mean().item()
    disc, dot = math.pi * 0.25**2, math.pi * 0.1**2
    assert share == pytest.approx((disc - dot) / (math.pi * 0.5**2 / 2 - dot), abs=0.02)


def rows(part: Labelled) -> set[tuple[float, ...]]:
    return {tuple(row) for row in part.inputs.tolist()}


def test_train_and_test_share_no_sample() -> None:
    train, test = yin_yang(5000, 5000)
    assert len(rows(train)) == len(rows(test)) == 5000
    assert not rows(train) & rows(test)


def test_a_seed_gives_the_same_points_again_and_leaves_the_global_generator_alone() -> None:
    state = torch.get_rng_state()
    first, again, other = yin_yang(50, 50), yin_yang(50, 50), yin_yang(50, 50, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    for a, b in zip(first, again, strict=True):
        assert torch.equal(a.inputs, b.inputs)
        assert torch.equal(a.labels, b.labels)
    assert not torch.equal(first.train.inputs, other.train.inputs)


def test_digits_are_split_without_overlap_or_loss() -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    images, labels = datasets.load_digits(return_X_y=True)
    train, test = digits()
    assert (len(train.inputs), len(test.inputs)) == (1258, 539)
    assert train.inputs.min() == 0
    assert train.inputs.max() == 1
    together = [
        (*row, label)
        for part in (train, test)
        for row, label in zip((part.inputs * 16).tolist(), part.labels.tolist(), strict=True)
    ]
    published = zip(images.tolist(), labels.tolist(), strict=True)
    assert sorted(together) == sorted((*row, label) for row, label in published)
    assert not rows(train) & rows(test)
    assert torch.equal(digits().test.inputs, test.inputs)
    assert not torch.equal(digits(seed=1).test.inputs, test.inputs)
    assert len(digits(test=0.5).test.labels) in (898, 899)


def test_a_loader_gives_every_sample_once_in_order_or_shuffled_from_its_seed() -> None:
    part = yin_yang(50, 0).train
    batches = list(part.loader(20))
    assert [len(labels) for _, labels in batches] == [20, 20, 10]
    assert torch.equal(torch.cat([inputs for inputs, _ in batches]), part.inputs)
    loader, again = part.loader(20, seed=3), part.loader(20, seed=3)
    first, second, same = (
        torch.cat([inputs for inputs, _ in which]) for which in (loader, loader, again)
    )
    assert torch.equal(first, same)
    assert not torch.equal(first, second)
    assert rows(Labelled(first, part.labels)) == rows(part)


def write_idx(path: Path, values: Tensor, header: bytes = b"\x00\x00\x08") -> Path:
    sizes = b"".join(size.to_bytes(4, "big") for size in values.shape)
    content = header + bytes([values.ndim]) + sizes + bytes(values.flatten().tolist())
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("shape", [(5,), (3, 4, 2), (300, 2), (0, 4, 4)])
def test_idx_files_are_read_as_they_were_written(
    tmp_path: Path, suffix: str, shape: tuple[int, ...]
) -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.randint(256, shape, generator=generator, dtype=torch.uint8)
    assert torch.equal(read_idx(write_idx(tmp_path / f"values{suffix}", values)), values)


def test_files_that_are_no_idx_files_of_bytes_are_refused(tmp_path: Path) -> None:
    values = torch.arange(6, dtype=torch.uint8)
    with pytest.raises(ValueError, match="does not start as an idx file of unsigned bytes"):
        read_idx(write_idx(tmp_path / "floats", values, header=b"\x00\x00\x0d"))
    for content in (b"", b"\x00\x00\x08", b"<html>"):
        (tmp_path / "other").write_bytes(content)
        with pytest.raises(ValueError, match="other does not start"):
            read_idx(tmp_path / "other")
    short = write_idx(tmp_path / "short", values)
    for cut in (1, 6):
        short.write_bytes(write_idx(tmp_path / "whole", values).read_bytes()[:-cut])
        with pytest.raises(ValueError, match=rf"announces shape \[6\], but holds {6 - cut} bytes"):
            read_idx(short)


@pytest.mark.parametrize(
    "content", [b"no gzip at all", gzip.compress(b"x" * 99)[:-9]], ids=["none", "cut"]
)
def test_files_that_are_no_whole_gzip_files_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "broken.gz").write_bytes(content)
    with pytest.raises(ValueError, match=r"broken\.gz is not a whole gzip file"):
        read_idx(tmp_path / "broken.gz")


def write_mnist(folder: Path, suffix: str = "") -> dict[str, tuple[Tensor, Tensor]]:
    """Four small files under the names of MNIST."""
    folder.mkdir(parents=True, exist_ok=True)
    parts, generator = {}, torch.Generator().manual_seed(0)
    for name, size in (("train", 7), ("t10k", 3)):
        images = torch.randint(256, (size, 28, 28), generator=generator, dtype=torch.uint8)
        labels = torch.randint(10, (size,), generator=generator, dtype=torch.uint8)
        write_idx(folder / f"{name}-images-idx3-ubyte{suffix}", images)
        write_idx(folder / f"{name}-labels-idx1-ubyte{suffix}", labels)
        parts[name] = images, labels
    return parts


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("inside", [".", "MNIST/raw"])
def test_mnist_is_read_from_the_folder_given_or_that_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, inside: str
) -> None:
    parts = write_mnist(tmp_path / inside, suffix)
    monkeypatch.setenv("TORCHKOOPMAN_DATA", str(tmp_path))
    for split in (mnist(tmp_path), mnist(str(tmp_path)), mnist()):
        for found, (images, labels) in zip(split, parts.values(), strict=True):
            assert torch.equal(found.inputs, images.flatten(1).float() / 255)
            assert torch.equal(found.labels, labels.long())
            assert (found.inputs.dtype, found.labels.dtype) == (torch.float32, torch.int64)


def test_mnist_without_a_folder_says_how_to_name_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHKOOPMAN_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match="give it, or set TORCHKOOPMAN_DATA"):
        mnist()


def test_mnist_names_the_file_that_is_missing(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(FileNotFoundError, match=r"neither t10k-labels-idx1-ubyte nor .*\.gz"):
        mnist(tmp_path)


@pytest.mark.skipif(
    "TORCHKOOPMAN_DATA" not in os.environ,
    reason="TORCHKOOPMAN_DATA does not name a folder with the idx files of MNIST",
)
def test_mnist_is_what_it_is_known_to_be() -> None:
    """Sizes, and counts and mean pixel as published many times (0.1307 over the train part)."""
    train, test = mnist()
    assert (train.inputs.shape, test.inputs.shape) == ((60_000, 784), (10_000, 784))
    counts = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert torch.bincount(train.labels).tolist() == counts
    assert train.inputs.mean().item() == pytest.approx(0.1307, abs=1e-4)
    assert train.inputs.max() == 1
