"""The layers that stay on: what they drop, and that a saved model has them again."""

import math

import keras
import numpy as np
import pytest

from trainwell.layers import MCAlphaDropout, MCDropout

X = np.ones((400, 50), dtype=np.float32)
KINDS = [(MCDropout, keras.layers.Dropout), (MCAlphaDropout, keras.layers.AlphaDropout)]
kinds = pytest.mark.parametrize(("kind", "plain"), KINDS)


def model_of(layer):
    return keras.Sequential([keras.Input(X.shape[1:]), layer])


@kinds
def test_on_in_every_mode_with_the_masks_of_keras(kind, plain):
    expected = [np.asarray(drop(X, training=True)) for drop in [plain(0.2, seed=3)] for _ in "123"]
    layer = kind(0.2, seed=3)
    found = [np.asarray(layer(X)), np.asarray(model_of(layer)(X, training=False))]
    found.append(model_of(layer).predict(X, batch_size=len(X), verbose=0))
    np.testing.assert_array_equal(found, expected)
    assert not np.array_equal(found[0], found[1])


def test_a_fifth_is_dropped_and_the_rest_scaled():
    dropped = np.asarray(MCDropout(0.2, seed=0)(X))
    np.testing.assert_allclose(np.unique(dropped), [0, 1.25])
    assert np.mean(dropped == 0) == pytest.approx(0.2, abs=0.01)


def test_alpha_dropout_keeps_mean_and_deviation():
    x = np.random.default_rng(0).normal(size=(400, 250)).astype(np.float32)
    dropped = np.asarray(MCAlphaDropout(0.2, seed=0)(x))
    assert not np.allclose(dropped, x, atol=0.1)
    assert dropped.mean() == pytest.approx(0, abs=0.02)
    assert dropped.std() == pytest.approx(1, abs=0.02)


@kinds
def test_a_saved_model_loads_and_is_on(kind, plain, tmp_path):
    model_of(kind(0.5, noise_shape=(None, 1), seed=4, name="mc")).save(tmp_path / "model.keras")
    layer = keras.models.load_model(tmp_path / "model.keras").get_layer("mc")
    assert type(layer) is kind
    assert (layer.rate, tuple(layer.noise_shape), layer.seed) == (0.5, (None, 1), 4)
    dropped = np.asarray(layer(X))
    assert (dropped == dropped[:, :1]).all(), "rows are dropped whole"
    assert len(np.unique(dropped)) == 2


@kinds
@pytest.mark.parametrize("rate", [-0.1, 1.0, 1.5, math.nan])
def test_a_bad_rate(kind, plain, rate):
    with pytest.raises(ValueError, match=f"rate must be at least 0 and less than 1, got {rate}"):
        kind(rate)


@kinds
@pytest.mark.parametrize("rate", ["0.2", None])
def test_a_rate_that_is_no_number(kind, plain, rate):
    with pytest.raises(ValueError, match=f"rate must be a number, got {rate!r}"):
        kind(rate)
