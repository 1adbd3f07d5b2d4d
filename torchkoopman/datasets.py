"""Data to try things on: Yin-Yang generated in code, digits from scikit-learn, MNIST from a folder.

Every function returns a train and a test part that share no sample.
"""

from __future__ import annotations

import gzip
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    RandomSampler,
    Sampler,
    SequentialSampler,
    TensorDataset,
)

__all__ = ["yin_yang", "digits", "mnist", "Split", "Labelled"]

YIN_YANG_CLASSES = ("yin", "yang", "dot")
_BIG, _SMALL = 0.5, 0.1

_MNIST_FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


class Labelled(NamedTuple):
    """Inputs, float32, ``(samples, features)``, and integer classes, ``(samples,)``.

    Example:
        >>> tk.datasets.Labelled(torch.zeros(5, 2), torch.arange(5)).loader(2)  # a DataLoader
        <torch.utils.data.dataloader.DataLoader object at ...>
    """

    inputs: Tensor
    labels: Tensor

    def loader(self, batch: int, seed: int | None = None) -> DataLoader[tuple[Tensor, ...]]:
        """Batches of ``(inputs, labels)``: in order, or shuffled anew each pass from ``seed``."""
        dataset = TensorDataset(self.inputs, self.labels)
        generator = torch.Generator().manual_seed(0 if seed is None else seed)
        order: Sampler[int] = SequentialSampler(dataset)
        if seed is not None:
            order = RandomSampler(dataset, generator=generator)
        # Whole batches are indexed at once, which is many times faster than sample by sample.
        batches = BatchSampler(order, batch, drop_last=False)
        return DataLoader(dataset, batch_size=None, sampler=batches, generator=generator)


class Split(NamedTuple):
    """Two parts of a data set that share no sample.

    Example:
        >>> known, unseen = tk.datasets.yin_yang(100, 50)  # a Split
        >>> known.inputs.shape, unseen.labels.shape
        (torch.Size([100, 4]), torch.Size([50]))
    """

    train: Labelled
    test: Labelled


def yin_yang(train: int = 5000, test: int = 5000, *, seed: int = 0, dots: bool = True) -> Split:
    """The Yin-Yang set of Kriener, Göltz & Petrovici (2022, arXiv 2102.08211).

    A point in the unit square is drawn until it falls into a goal class drawn uniformly; inputs are
    ``(x, y, 1 - x, 1 - y)``. Both parts come from one stream of random numbers, in turn.

    Example:
        >>> tk.datasets.yin_yang(seed=0).train.labels.bincount()  # yin, yang, dots
        tensor([...])

    Args:
        train: samples of the train part.
        test: samples of the test part.
        seed: of the stream.
        dots: False leaves the class of the dots out, so that two classes remain.
    """
    generator = torch.Generator().manual_seed(seed)
    classes = 3 if dots else 2
    return Split(_draw(train, classes, generator), _draw(test, classes, generator))


def digits(*, test: float = 0.3, seed: int = 0) -> Split:
    """The 1 797 8×8 digits of scikit-learn, pixels from 0 to 1, split at random.

    Example:
        >>> tk.datasets.digits(test=0.3).train.inputs.shape
        torch.Size([1258, 64])

    Raises:
        ModuleNotFoundError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("digits() reads them from scikit-learn; install that.") from error
    images, classes = load_digits(return_X_y=True)
    inputs = torch.as_tensor(images, dtype=torch.float32) / 16
    labels = torch.as_tensor(classes, dtype=torch.long)
    order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(seed))
    cut = round(len(order) * (1 - test))
    return Split(*(Labelled(inputs[part], labels[part]) for part in (order[:cut], order[cut:])))


def mnist(folder: str | Path | None = None) -> Split:
    """MNIST from its idx files, plain or gzipped; pixels from 0 to 1, ``(samples, 784)``.

    Example:
        >>> tk.datasets.mnist("here")
        Traceback (most recent call last):
            ...
        FileNotFoundError: here has neither train-images-idx3-ubyte nor ...

    Args:
        folder: holds the four files itself or under ``MNIST/raw``; by default the folder that the
            environment variable ``TORCHKOOPMAN_DATA`` names.

    Raises:
        FileNotFoundError: no folder given, or a file missing from it.
        ValueError: a file that is not in idx format.
    """
    root = folder or os.environ.get("TORCHKOOPMAN_DATA")
    if not root:
        raise FileNotFoundError(
            "mnist() needs the folder of the idx files: give it, or set TORCHKOOPMAN_DATA."
        )
    raw = Path(root) / "MNIST" / "raw"
    base = raw if raw.is_dir() else Path(root)
    parts = []
    for images, labels in _MNIST_FILES.values():
        pixels = read_idx(_existing(base, images))
        inputs = pixels.flatten(1).float() / 255
        parts.append(Labelled(inputs, read_idx(_existing(base, labels)).long()))
    return Split(*parts)


def read_idx(path: Path) -> Tensor:
    """An idx file of unsigned bytes (the format of MNIST), plain or gzipped, as a uint8 tensor.

    Raises:
        ValueError: the file is not such a file.
    """
    content = path.read_bytes()
    if path.suffix == ".gz":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError) as error:
            raise ValueError(f"{path} is not a whole gzip file: {error}.") from error
    if len(content) < 4 or content[:3] != b"\x00\x00\x08":
        raise ValueError(f"{path} does not start as an idx file of unsigned bytes does (00 00 08).")
    rank = content[3]
    shape = [int.from_bytes(content[4 + 4 * k : 8 + 4 * k], "big") for k in range(rank)]
    values = torch.from_numpy(np.frombuffer(content[4 + 4 * rank :], np.uint8).copy())
    if values.numel() != torch.Size(shape).numel():
        raise ValueError(f"{path} announces shape {shape}, but holds {values.numel()} bytes.")
    return values.view(shape)


def yin_yang_class(points: Tensor) -> Tensor:
    """Class of points in the unit square, ``(samples, 2)``: 0 yin, 1 yang, 2 dot, -1 outside."""
    x, y = points.unbind(1)
    right = torch.hypot(x - 1.5 * _BIG, y - _BIG)
    left = torch.hypot(x - 0.5 * _BIG, y - _BIG)
    yin = (left <= 0.5 * _BIG) | ((y > _BIG) & (right > 0.5 * _BIG))
    labels = torch.where(yin, 0, 1)
    labels[(right < _SMALL) | (left < _SMALL)] = 2
    labels[torch.hypot(x - _BIG, y - _BIG) > _BIG] = -1
    return labels


def _draw(samples: int, classes: int, generator: torch.Generator) -> Labelled:
    goals = torch.randint(classes, (samples,), generator=generator)
    points = torch.empty(samples, 2)
    waiting = torch.ones(samples, dtype=torch.bool)
    while waiting.any():
        tries = torch.rand(int(waiting.sum()), 2, generator=generator)
        points[waiting] = tries
        waiting[waiting.clone()] = yin_yang_class(tries) != goals[waiting]
    return Labelled(torch.cat([points, 1 - points], 1), goals)


def _existing(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise FileNotFoundError(
        f"{folder} has neither {name} nor {name}.gz. Give the folder that holds the files of MNIST."
    )
