"""What several modules ask of an argument."""

from numbers import Integral
from typing import Any


def check_whole(name: str, value: Any, least: int) -> None:
    """Raise a ValueError that names the argument, unless it is a whole number, `least` or more."""
    if not isinstance(value, Integral) or int(value) < least:
        raise ValueError(f"{name} must be a whole number, at least {least}, got {value!r}.")
