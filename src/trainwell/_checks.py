"""What several modules ask of an argument."""

import math
from numbers import Integral, Real
from typing import Any

import numpy as np


def check_whole(name: str, value: Any, least: int) -> None:
    """Raise a ValueError that names the argument, unless it is a whole number, `least` or more."""
    if not isinstance(value, Integral) or int(value) < least:
        raise ValueError(f"{name} must be a whole number, at least {least}, got {value!r}.")


def check_number(name: str, value: Any) -> None:
    """Raise a ValueError that names the argument, unless it is a number, which no bool is."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ValueError(f"{name} must be a number, got {value!r}.")


def check_positive(name: str, value: Any) -> None:
    """Raise a ValueError that names the argument, unless it is a finite number above 0."""
    number = isinstance(value, Real) and not isinstance(value, bool)
    if not number or not 0 < float(value) < math.inf:
        raise ValueError(f"{name} must be a finite number above 0, got {value!r}.")


def check_finite(name: str, examples: Any) -> None:
    """Raise a ValueError that names the argument and the row, if one has a nan or an infinity."""
    array = np.asarray(examples)
    if array.dtype.kind != "f" or np.isfinite(array).all():
        return
    odd = np.flatnonzero(~np.isfinite(array).reshape(len(array), -1).all(axis=1))
    row = array[odd[0]]
    raise ValueError(
        f"{name} must be finite, got {row[~np.isfinite(row)].flat[0]} in row {odd[0]}; such "
        f"numbers are in {len(odd):,} of {len(array):,} rows. Leave these out, or fill in what is "
        "missing."
    )
