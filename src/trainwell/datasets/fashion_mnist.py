"""Fashion-MNIST: 70,000 pictures of clothes in ten classes."""

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainwell._checks import check_whole
from trainwell.datasets.dataset import Dataset, StandInWarning
from trainwell.datasets.manifest import manifest
from trainwell.datasets.places import embedded, find, why_not

CLASS_NAMES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
IMAGES = 60_000  # in the published training file


def load_fashion_mnist(
    *, train_size: int | None = None, seed: int | None = 0, validation_size: int = 5_000
) -> Dataset:
    """Load Fashion-MNIST (Xiao, Rasul and Vollgraf, 2017, arXiv:1708.07747).

    The published test file of 10,000 images is always the test part. The published 60,000
    training images are split into a training and a validation part.

    Args:
        train_size: How many training images to return. None means all that are left beside
            the validation part. A smaller set is the beginning of a larger one, and the
            validation part is the same for all, so results can be compared across sizes.
        seed: Seed of the shuffling before the split. None means the split of the published
            experiments: in the order of the file, the last images validate.
        validation_size: How many of the 60,000 images to hold out for validation.

    Returns:
        Images (n, 28, 28) as float32 in [0, 1], 0 the background; labels (n,) as int32 in 0 to
        9. By default 55,000 training, 5,000 validation and 10,000 test images. Where only the
        embedded subset of 6,000 + 1,000 images is found, the validation part shrinks tenfold
        and the training part to what is there, with a `StandInWarning`.

    Raises:
        ValueError: If `validation_size` or `train_size` can't be had from 60,000 images, or `seed`
            is neither None nor a whole number, 0 or more.
        DataError: If the files in `TRAINWELL_DATA` are wrong, or the cache can't be written.
    """
    _check_sizes(train_size, validation_size)
    if seed is not None:
        check_whole("seed", seed, 0)
    entry = manifest()["fashion-mnist"]
    found = find(entry)
    stand_in = found is None
    if found is None:
        entry, missing = manifest()["fashion-mnist-subset"], entry
        found = embedded(entry)
        warnings.warn(
            f"{missing.title} is not here, so its embedded subset of {entry.contents} stands in. "
            f"{why_not(missing)}",
            StandInWarning,
            stacklevel=2,
        )
    files, place = found
    images, labels, test_images, test_labels = files.values()

    count = len(images)
    order = np.arange(count) if seed is None else np.random.default_rng(seed).permutation(count)
    held_out = max(1, round(validation_size * count / IMAGES))
    train, valid = order[:-held_out][:train_size], order[-held_out:]
    return Dataset(
        name=entry.name,
        source=f"{entry.title}, {entry.contents} ({place.kind})",
        stand_in=stand_in,
        x_train=_pixels(images[train]),
        y_train=labels[train].astype(np.int32),
        x_valid=_pixels(images[valid]),
        y_valid=labels[valid].astype(np.int32),
        x_test=_pixels(test_images),
        y_test=test_labels.astype(np.int32),
        class_names=CLASS_NAMES,
    )


def _check_sizes(train_size: int | None, validation_size: int) -> None:
    check_whole("validation_size", validation_size, 1)
    if validation_size >= IMAGES:
        raise ValueError(
            f"validation_size must be between 1 and {IMAGES - 1:,}, got {validation_size}."
        )
    if train_size is None:
        return
    check_whole("train_size", train_size, 1)
    most = IMAGES - validation_size
    if train_size > most:
        raise ValueError(
            f"train_size must be between 1 and {most:,} (beside {validation_size:,} validation "
            f"images), got {train_size}."
        )


def _pixels(images: NDArray[Any]) -> NDArray[np.float32]:
    """Map bytes 0 to 255 to [0, 1]."""
    return images.astype(np.float32) / np.float32(255)
