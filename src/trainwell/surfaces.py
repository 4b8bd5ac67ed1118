"""Losses of two weights, to be drawn: each with its gradient, a start and its minimum. ::

    x, y = np.meshgrid(np.linspace(*BEALE.limits[0]), np.linspace(*BEALE.limits[1]))
    plt.contour(x, y, BEALE.value(np.stack([x, y])))

A point is an array of two numbers, w = (x, y).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

BOWL_CURVATURE = 20
RAVINE_CURVATURE = 100


@dataclass(frozen=True)
class Surface:
    """A loss of two weights.

    Attributes:
        name: What it is called.
        value: Takes points of shape (2,) or (2, ...), returns the loss of each, shape () or (...).
        gradient: Takes the same, returns gradients of the same shape.
        start: A point from which a descent shows what the surface is for.
        minimum: The point of least loss.
        limits: What to draw: the ends of the first axis, and of the second.
    """

    name: str
    value: Callable[[Array], Any]
    gradient: Callable[[Array], Array]
    start: tuple[float, float]
    minimum: tuple[float, float]
    limits: tuple[tuple[float, float], tuple[float, float]]


def _bowl(w: Array) -> Any:
    x, y = w
    return (x**2 + BOWL_CURVATURE * y**2) / 2


def _bowl_gradient(w: Array) -> Array:
    x, y = w
    return np.stack([x, BOWL_CURVATURE * y])


def _ravine(w: Array) -> Any:
    x, y = w
    return ((x + y) ** 2 + RAVINE_CURVATURE * (x - y) ** 2) / 4


def _ravine_gradient(w: Array) -> Array:
    x, y = w
    along, across = (x + y) / 2, RAVINE_CURVATURE * (x - y) / 2
    return np.stack([along + across, along - across])


def _saddle(w: Array) -> Any:
    x, y = w
    return x**2 / 2 - y**2 / 2 + y**4 / 4


def _saddle_gradient(w: Array) -> Array:
    x, y = w
    return np.stack([x, y**3 - y])


def _rosenbrock(w: Array) -> Any:
    x, y = w
    return (1 - x) ** 2 + 100 * (y - x**2) ** 2


def _rosenbrock_gradient(w: Array) -> Array:
    x, y = w
    return np.stack([-2 * (1 - x) - 400 * x * (y - x**2), 200 * (y - x**2)])


def _beale(w: Array) -> Any:
    x, y = w
    return (1.5 - x + x * y) ** 2 + (2.25 - x + x * y**2) ** 2 + (2.625 - x + x * y**3) ** 2


def _beale_gradient(w: Array) -> Array:
    x, y = w
    a, b, c = 1.5 - x + x * y, 2.25 - x + x * y**2, 2.625 - x + x * y**3
    by_x = 2 * (a * (y - 1) + b * (y**2 - 1) + c * (y**3 - 1))
    by_y = 2 * x * (a + 2 * b * y + 3 * c * y**2)
    return np.stack([by_x, by_y])


# Twenty times steeper along the second axis than along the first: AdaGrad and its kin, which
# scale each axis by itself, make it round.
BOWL = Surface(
    "elongated bowl", _bowl, _bowl_gradient, (-9.0, 1.5), (0.0, 0.0), ((-10.0, 10.0), (-2.0, 2.0))
)
# A bowl of curvatures 1 and 100, turned by 45 degrees: scaling the axes does not help here.
RAVINE = Surface(
    "ravine", _ravine, _ravine_gradient, (-1.6, -1.2), (0.0, 0.0), ((-2.0, 2.0), (-2.0, 2.0))
)
# The gradient is 0 at the origin too: a minimum along the first axis, a maximum along the second.
# The start lies close to the ridge. The other minimum is at (0, -1).
SADDLE = Surface(
    "saddle", _saddle, _saddle_gradient, (1.5, 0.001), (0.0, 1.0), ((-2.0, 2.0), (-1.5, 1.5))
)
# A bent valley with a flat floor, and the start that Rosenbrock took (The Computer Journal 3(3),
# 1960).
ROSENBROCK = Surface(
    "Rosenbrock",
    _rosenbrock,
    _rosenbrock_gradient,
    (-1.2, 1.0),
    (1.0, 1.0),
    ((-2.0, 2.0), (-1.0, 3.0)),
)
# Almost flat in the middle, with walls thousands of times steeper in the corners (Beale 1958).
BEALE = Surface(
    "Beale", _beale, _beale_gradient, (1.0, 1.5), (3.0, 0.5), ((-4.5, 4.5), (-4.5, 4.5))
)
