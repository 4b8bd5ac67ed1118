"""What a lab's checks call: `expect` says what was expected, what came, and where to read."""

from math import isinf
from numbers import Real
from typing import Any

import numpy as np
import numpy.typing as npt


def expect(
    what: str, got: Any, expected: npt.ArrayLike, *, read: str = "", tolerance: float = 1e-6
) -> None:
    """Compare a result with the right one, number by number.

    Args:
        what: What was computed, as the student would write it: `clip([3, 4], limit=1)`.
        got: The student's result.
        expected: The right one: a number, or an array of any shape.
        read: Where to read about it, for the message.
        tolerance: The largest difference that counts as none; for numbers above 1, times the
            number.

    Raises:
        AssertionError: If the shapes differ or any number does, also by a nan.
    """
    right = np.asarray(expected, dtype=float)
    problem = _problem(got, right, tolerance)
    if problem:
        lines = [f"{what}: {problem}", f"  expected: {_short(right)}", f"  got:      {_short(got)}"]
        raise AssertionError("\n".join(lines + ([f"  read:     {read}"] if read else [])))


def _problem(got: Any, right: npt.NDArray[np.float64], tolerance: float) -> str:
    if got is None:
        return "the result is None. Does the function return it?"
    no_numbers = "the result is no array of numbers."
    try:
        mine = np.asarray(got)
        # NumPy makes floats of texts, times, complex and masked numbers, too.
        if mine.dtype.kind in "SUmMc" or np.ma.isMaskedArray(got):
            return no_numbers
        if mine.dtype.kind == "O" and not all(isinstance(number, Real) for number in mine.ravel()):
            return no_numbers
        mine = mine.astype(float)
    except (TypeError, ValueError, OverflowError):
        return no_numbers
    if mine.shape != right.shape:
        return f"the shape should be {right.shape}, and is {mine.shape}."
    # Plain arithmetic: what a notebook does to NumPy's comparisons does not matter here.
    for a, b in zip(mine.ravel().tolist(), right.ravel().tolist(), strict=True):
        # Of an infinite number, every share is infinite: nothing would differ from it.
        if a != b and (isinf(b) or not abs(a - b) <= tolerance * max(1.0, abs(b))):
            return "a number differs."
    return ""


def _short(value: Any) -> str:
    """Return a value in at most four lines."""
    text = np.array2string(value, precision=6) if isinstance(value, np.ndarray) else repr(value)
    return text if len(text) <= 300 else f"{text[:300]} ..."
