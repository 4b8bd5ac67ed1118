"""The surfaces: gradients against finite differences, minima that are minima."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainwell.from_scratch import AdaGrad, Adam, Momentum, descend
from trainwell.surfaces import BEALE, BOWL, RAVINE, ROSENBROCK, SADDLE

SURFACES = [BOWL, RAVINE, SADDLE, ROSENBROCK, BEALE]
STEP = 1e-5

every_surface = pytest.mark.parametrize("surface", SURFACES, ids=lambda surface: surface.name)
fractions = st.tuples(st.floats(0, 1), st.floats(0, 1))


def inside(surface, fractions):
    """The point at these fractions of the surface's limits."""
    low, high = np.transpose(surface.limits)
    return low + np.array(fractions) * (high - low)


@every_surface
@settings(max_examples=50, deadline=None, derandomize=True)
@given(fractions)
def test_the_gradient_is_that_of_the_value(surface, fractions):
    w = inside(surface, fractions)
    steps = STEP * np.eye(2)
    numeric = [(surface.value(w + h) - surface.value(w - h)) / (2 * STEP) for h in steps]
    # The differences lose what rounding the values loses.
    atol = 1e-6 + 1e-15 * surface.value(w) / STEP
    np.testing.assert_allclose(surface.gradient(w), numeric, rtol=1e-5, atol=atol)


@every_surface
def test_the_minimum_is_one(surface):
    minimum = np.array(surface.minimum)
    np.testing.assert_allclose(surface.gradient(minimum), 0, atol=1e-12)
    grid = np.stack(np.meshgrid(*[np.linspace(*limits, 201) for limits in surface.limits]))
    assert surface.value(minimum) <= surface.value(grid).min() + 1e-12
    assert surface.value(minimum) < surface.value(np.array(surface.start))


@every_surface
def test_arrays_of_points(surface):
    points = np.random.default_rng(0).normal(size=(2, 3, 4))
    assert surface.value(points).shape == (3, 4)
    assert surface.gradient(points).shape == (2, 3, 4)
    one = points[:, 1, 2]
    assert surface.value(points)[1, 2] == pytest.approx(surface.value(one))
    np.testing.assert_allclose(surface.gradient(points)[:, 1, 2], surface.gradient(one))


@every_surface
def test_start_and_minimum_are_in_the_picture(surface):
    for point in (surface.start, surface.minimum):
        for number, (low, high) in zip(point, surface.limits, strict=True):
            assert low < number < high


def test_values_from_the_literature():
    assert ROSENBROCK.value(np.array([-1.2, 1.0])) == pytest.approx(24.2)
    assert BEALE.value(np.array([1.0, 1.0])) == pytest.approx(14.203125)
    assert BEALE.value(np.array([3.0, 0.5])) == 0


def test_curvatures_of_bowl_and_ravine():
    def curvatures(surface):
        return np.linalg.eigvalsh([surface.gradient(w) for w in np.eye(2)])

    np.testing.assert_allclose(curvatures(BOWL), [1, 20])
    np.testing.assert_allclose(curvatures(RAVINE), [1, 100])


def test_the_saddles_other_points_of_rest():
    for y, value in [(0.0, 0.0), (-1.0, -0.25), (1.0, -0.25)]:
        np.testing.assert_array_equal(SADDLE.gradient(np.array([0.0, y])), 0)
        assert SADDLE.value(np.array([0.0, y])) == value


@every_surface
@pytest.mark.parametrize(
    "optimizer", [Momentum(learning_rate=0.001), Adam(learning_rate=0.05)], ids=["momentum", "Adam"]
)
def test_the_start_leads_to_the_minimum(surface, optimizer):
    path = descend(optimizer, surface.gradient, surface.start, 3_000)
    np.testing.assert_allclose(path[-1], surface.minimum, atol=0.02)


def test_scaling_the_axes_rounds_the_bowl_but_not_the_ravine():
    """AdaGrad goes straight on one and not on the other."""

    def detour(surface):
        path = descend(AdaGrad(learning_rate=0.5), surface.gradient, surface.start, 3_000)
        walked = np.linalg.norm(np.diff(path, axis=0), axis=1).sum()
        return walked / np.linalg.norm(path[-1] - path[0])

    assert detour(BOWL) < 1.1 < detour(RAVINE)
