"""What a loader returns, and what it says when something is wrong."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Targets = NDArray[Any]


class DataError(Exception):
    """Data can't be used as it is; the message says which file, why, and what to do."""


class StandInWarning(UserWarning):
    """The real data is not here, so a subset or a simulation stands in for it."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """One data set, split into a training, a validation and sometimes a test part.

    Attributes:
        name: The set's name, as in `datasets/manifest.json`.
        source: In words, for captions: which data this is and where it was found.
        stand_in: Whether this is a subset or a simulation in place of the real data.
        x_train: Inputs of the training part, float32, one example a row.
        y_train: Targets of the training part: int32 classes, or float32 in the loader's unit.
        x_valid: Inputs of the validation part.
        y_valid: Targets of the validation part.
        x_test: Inputs of the test part; None where the set has no test part.
        y_test: Targets of the test part; None where the set has no test part.
        feature_names: Names of the columns of the inputs; empty for images.
        class_names: Names of the classes 0, 1, ...; empty for a regression.
        groups_train: Group of every training example (the artist of a song), or None.
        groups_valid: Group of every validation example, or None.
    """

    name: str
    source: str
    stand_in: bool
    x_train: Floats
    y_train: Targets
    x_valid: Floats
    y_valid: Targets
    x_test: Floats | None = None
    y_test: Targets | None = None
    feature_names: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()
    groups_train: NDArray[Any] | None = None
    groups_valid: NDArray[Any] | None = None

    def __repr__(self) -> str:
        """Show what a reader wants to know, not a million numbers."""
        parts = {"train": self.x_train, "valid": self.x_valid, "test": self.x_test}
        shapes = ", ".join(f"{name} {x.shape}" for name, x in parts.items() if x is not None)
        return f"Dataset({self.source}: {shapes})"
