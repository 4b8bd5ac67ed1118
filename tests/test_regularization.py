"""Soft-thresholding and max-norm: their closed forms, what they minimise, and Keras's own."""

import math

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from new_process import in_a_new_process

from trainwell.regularization import (
    SoftThreshold,
    checked_max_norm,
    project_max_norm,
    soft_threshold,
)

NOT_ABOVE_0 = [-0.1, 0, math.nan, math.inf, "0.1"]
moderate = st.floats(-100, 100)
matrices = arrays(np.float64, array_shapes(min_dims=2, max_dims=2, max_side=5), elements=moderate)
limits = st.floats(0.01, 100)


def test_soft_threshold_by_hand():
    w = [[-3.0, -0.5, 0.0], [0.25, 0.5, 2.0]]
    np.testing.assert_array_equal(soft_threshold(w, 0.5), [[-2.5, 0, 0], [0, 0, 1.5]])


@given(w=moderate, threshold=limits)
def test_soft_threshold_minimises_squared_distance_plus_l1(w, threshold):
    candidates = np.append(np.linspace(-100, 100, 2001), soft_threshold(w, threshold))
    costs = (candidates - w) ** 2 / 2 + threshold * np.abs(candidates)
    assert costs[-1] <= costs.min() + 1e-9 * (1 + costs.min())


@given(w=matrices, threshold=limits)
def test_soft_threshold_moves_by_the_threshold_or_to_0(w, threshold):
    moved = soft_threshold(w, threshold)
    assert (moved * w >= 0).all(), "a sign changed"
    assert ((moved == 0) == (np.abs(w) <= threshold)).all()
    np.testing.assert_allclose(np.abs(w - moved), np.minimum(np.abs(w), threshold), atol=1e-12)
    np.testing.assert_array_equal(soft_threshold(-w, threshold), -moved)


def test_soft_threshold_solves_l1_with_orthogonal_features():
    rng = np.random.default_rng(0)
    x = np.linalg.qr(rng.normal(size=(40, 6)))[0]
    y = rng.normal(size=40)
    strength = 0.6
    # SSE + strength |w| with x^T x = 1: each weight is the least-squares one, soft-thresholded.
    w = soft_threshold(x.T @ y, strength / 2)
    pull = 2 * x.T @ (y - x @ w)
    assert 0 < np.sum(w == 0) < 6
    np.testing.assert_allclose(pull[w != 0], strength * np.sign(w[w != 0]))
    assert (np.abs(pull[w == 0]) <= strength).all()


@given(w=matrices, max_value=limits, axis=st.sampled_from([0, 1, (0, 1)]))
def test_max_norm_is_the_projection(w, max_value, axis):
    projected = project_max_norm(w, max_value, axis)
    before, after = (np.sqrt(np.sum(x**2, axis=axis, keepdims=True)) for x in (w, projected))
    np.testing.assert_allclose(after, np.minimum(before, max_value), rtol=1e-12)
    np.testing.assert_allclose(projected * before, w * after, atol=1e-9)
    short = np.broadcast_to(before <= max_value, w.shape)
    np.testing.assert_array_equal(projected[short], w[short])
    np.testing.assert_allclose(project_max_norm(projected, max_value, axis), projected, atol=1e-12)


@pytest.mark.parametrize(("shape", "axis"), [((7, 5), 0), ((7, 5), 1), ((3, 3, 4, 6), (0, 1, 2))])
@pytest.mark.parametrize("max_value", [0.5, 2.0])
def test_max_norm_is_that_of_keras(shape, axis, max_value):
    w = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    w[..., 0] = 0
    expected = np.asarray(keras.constraints.MaxNorm(max_value, axis=axis)(w))
    np.testing.assert_allclose(project_max_norm(w, max_value, axis), expected, atol=1e-6)
    np.testing.assert_array_equal(checked_max_norm(max_value, axis)(w), expected)


def test_the_constraint_is_the_function():
    w = np.random.default_rng(0).normal(size=(20, 10)).astype(np.float32)
    found = np.asarray(SoftThreshold(0.3)(keras.Variable(w)))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, soft_threshold(w, 0.3), atol=1e-6)
    np.testing.assert_array_equal(found == 0, np.abs(w) <= np.float32(0.3))


def linear_model(learning_rate, **kwargs):
    dense = keras.layers.Dense(1, use_bias=False, kernel_initializer="ones", **kwargs)
    model = keras.Sequential([keras.Input((6,)), dense])
    model.compile(keras.optimizers.SGD(learning_rate), "mse")
    return model


def test_training_with_it_takes_proximal_steps():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(50, 6)), rng.normal(size=(50, 1))
    strength, learning_rate = 0.3, 0.1
    model = linear_model(learning_rate, kernel_constraint=SoftThreshold(learning_rate * strength))
    w = np.ones((6, 1))
    for _ in range(100):
        model.train_on_batch(x, y)
        w = w - learning_rate * 2 * x.T @ (x @ w - y) / 50
        w = soft_threshold(w, learning_rate * strength)
    found = model.get_weights()[0]
    np.testing.assert_allclose(found, w, atol=1e-6)
    np.testing.assert_array_equal(found == 0, w == 0)
    assert 0 < np.sum(w == 0) < 6


KERAS_WARNS = "ignore:__array__ implementation doesn't:DeprecationWarning:keras"


@pytest.mark.filterwarnings(KERAS_WARNS)
def test_a_saved_model_loads(tmp_path):
    path = tmp_path / "model.keras"
    linear_model(0.1, kernel_constraint=SoftThreshold(0.25)).save(path)
    loaded = keras.models.load_model(path)
    assert loaded.layers[-1].kernel_constraint.get_config() == {"threshold": 0.25}
    loaded.train_on_batch(np.zeros((4, 6)), np.zeros((4, 1)))
    np.testing.assert_allclose(loaded.get_weights()[0], np.full((6, 1), 0.75))


@pytest.mark.filterwarnings(KERAS_WARNS)
def test_a_new_process_on_jax_loads_it(tmp_path):
    pytest.importorskip("jax")
    path = tmp_path / "model.keras"
    linear_model(0.1, kernel_constraint=SoftThreshold(0.25)).save(path)
    code = f"""
import keras, trainwell.regularization
constraint = keras.models.load_model({str(path)!r}).layers[-1].kernel_constraint
print(keras.backend.backend(), constraint([0.5, -0.5, 0.125]))
"""
    printed = in_a_new_process(code, KERAS_BACKEND="jax", JAX_PLATFORMS="cpu")
    assert printed == "jax [ 0.25 -0.25  0.  ]"


@pytest.mark.parametrize("value", NOT_ABOVE_0)
def test_a_bad_threshold(value):
    message = f"threshold must be a finite number above 0, got {value!r}"
    for function in (SoftThreshold, lambda threshold: soft_threshold([1.0], threshold)):
        with pytest.raises(ValueError, match=message):
            function(value)


@pytest.mark.parametrize("value", NOT_ABOVE_0)
def test_a_bad_max_value(value):
    message = f"max_value must be a finite number above 0, got {value!r}"
    for function in (checked_max_norm, lambda max_value: project_max_norm([[1.0]], max_value)):
        with pytest.raises(ValueError, match=message):
            function(value)
