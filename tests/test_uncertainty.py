"""`mc_predict` against its oracle, the stacked loop; scores against numbers worked out by hand."""

import math
import threading

import keras
import numpy as np
import pytest
from keras import layers

from trainwell import uncertainty
from trainwell.layers import MCAlphaDropout, MCDropout
from trainwell.models import mlp
from trainwell.uncertainty import (
    at_temperature,
    brier_score,
    expected_calibration_error,
    mc_predict,
    negative_log_likelihood,
    reliability,
    seed_dropout,
    temperature_scaling,
)

PASSES = 12
X = np.random.default_rng(0).random((50, 8, 3), dtype=np.float32)


def seed_all(model, seed, batch):
    """Set the model's generators to the seeds from which `mc_predict` starts a batch."""
    dropout = uncertainty._dropout_layers(model)
    for layer, state in zip(dropout, uncertainty._seeds(seed, batch, dropout), strict=True):
        layer.seed_generator.state.assign(state)


def stacked(model, x, seed=0, batch=0, training=True):
    """The loop of the sources, on the masks of one batch: shape (passes, n, classes)."""
    seed_all(model, seed, batch)
    passes = [model(x, training=training) for _ in range(PASSES)]
    return np.stack([keras.ops.convert_to_numpy(y) for y in passes])


def assert_same(result, stack):
    np.testing.assert_allclose(result.mean, stack.mean(axis=0), rtol=0, atol=1e-6)
    np.testing.assert_allclose(result.std, stack.std(axis=0), rtol=0, atol=1e-6)
    assert np.median(result.std) > 1e-3, "nothing was dropped"


def entropy(p):
    return -np.sum(p * np.log(p), axis=-1)


def dense(dropout_on_inputs=True, alpha=False):
    keras.utils.set_random_seed(1)
    shape = X.shape[1:]
    return mlp(
        (16, 8),
        inputs=shape,
        outputs=3,
        dropout=0.3,
        dropout_on_inputs=dropout_on_inputs,
        alpha=alpha,
    )


def model_of(*parts):
    return keras.Sequential([keras.Input(X.shape[1:]), *parts])


def functional():
    """Two branches that share a dropout layer: it drops twice a pass."""
    inputs = keras.Input(X.shape[1:])
    shared = layers.Dropout(0.3)
    a = shared(layers.Dense(6, activation="relu")(inputs))
    b = shared(layers.Dense(6, activation="tanh")(inputs))
    flat = layers.Flatten()(layers.Concatenate()([a, b]))
    return keras.Model(inputs, layers.Dense(3, activation="softmax")(flat))


def attention():
    inputs = keras.Input(X.shape[1:])
    attended = layers.MultiHeadAttention(2, 4, dropout=0.3)(inputs, inputs)
    return keras.Model(inputs, layers.Flatten()(attended))


MODELS = {
    "sequential": dense,
    "first layers without dropout": lambda: dense(dropout_on_inputs=False),
    "alpha": lambda: dense(alpha=True),
    "functional, shared": functional,
    "nested": lambda: model_of(functional(), layers.Dropout(0.2), layers.Softmax()),
    "wrapped": lambda: model_of(layers.TimeDistributed(layers.Dropout(0.3)), layers.Flatten()),
    "spatial": lambda: model_of(layers.SpatialDropout1D(0.3), layers.Flatten(), layers.Dense(3)),
    "gaussian": lambda: model_of(layers.GaussianDropout(0.3), layers.Flatten(), layers.Dense(3)),
    "attention": attention,
    "always on": lambda: model_of(MCDropout(0.3), MCAlphaDropout(0.2), layers.Flatten()),
}


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_the_stacked_loop_on_the_same_masks(make):
    keras.utils.set_random_seed(0)
    model = make()
    assert_same(mc_predict(model, X, PASSES, seed=3), stacked(model, X, seed=3))


def test_the_plain_loop_after_seeding_draws_the_same_masks():
    model = functional()
    seed_dropout(model, seed=3)
    stack = np.stack([model(X, training=True) for _ in range(PASSES)])
    assert_same(mc_predict(model, X, PASSES, seed=3), stack)
    with pytest.raises(ValueError, match="has no dropout layer"):
        seed_dropout(model_of(layers.Dense(2)))
    with pytest.raises(ValueError, match="seed must be a whole number, at least 0, got -1"):
        seed_dropout(model, -1)


def test_one_batch_at_a_time_where_the_backend_compiles_nothing(monkeypatch):
    """Each call switches the layers on and off in Python."""
    threads = set()

    class Noted(layers.Dropout):
        def call(self, inputs, training=False):
            threads.add(threading.get_ident())
            return super().call(inputs, training)

    monkeypatch.setattr(uncertainty, "compiled", lambda function, *_: function)
    monkeypatch.setattr(uncertainty, "cores", lambda: 4)
    model = model_of(Noted(0.3), layers.Flatten(), layers.Dense(3))
    threads.clear()  # the model was called to build it
    result = mc_predict(model, X, PASSES, batch_size=10)
    assert len(threads) == 1
    np.testing.assert_allclose(result.mean[:10], stacked(model, X[:10]).mean(axis=0), atol=1e-6)


def test_batch_by_batch():
    model = dense()
    result = mc_predict(model, X, PASSES, batch_size=20)
    # The third batch has ten examples; it is made up to twenty with the ten before.
    batches = [X[:20], X[20:40], X[30:50]]
    stacks = [stacked(model, x, batch=number) for number, x in enumerate(batches)]
    assert_same(result, np.concatenate([*stacks[:2], stacks[2][:, 10:]], axis=1))


def test_small_deviations_are_not_lost_to_rounding():
    x = np.full((20, 4), 1e-3, dtype=np.float32)
    model = keras.Sequential([keras.Input((4,)), layers.Dropout(0.5), layers.Rescaling(1, 100)])
    found = mc_predict(model, x, PASSES)
    expected = stacked(model, x).astype(np.float64).std(axis=0)
    np.testing.assert_allclose(found.std, expected, rtol=0, atol=1e-5)
    assert np.mean(expected) > 5e-4


def noisy():
    """A model in which more than dropout acts differently in training."""
    keras.utils.set_random_seed(2)
    model = model_of(
        layers.Flatten(),
        layers.GaussianNoise(0.9),
        layers.BatchNormalization(),
        layers.Dropout(0.3),
        layers.Dense(3, activation="softmax"),
    )
    model.layers[2].set_weights([np.full(24, value) for value in (1.5, 0.1, 0.4, 0.2)])
    return model


def test_only_dropout_is_switched_on():
    model = noisy()
    by_hand = keras.Sequential([keras.Input(X.shape[1:])])
    for part in model.layers:
        by_hand.add(MCDropout(0.3) if isinstance(part, layers.Dropout) else part)
    expected = stacked(by_hand, X, training=False)
    assert_same(mc_predict(model, X, PASSES), expected)
    assert not np.allclose(stacked(model, X).mean(axis=0), expected.mean(axis=0), atol=0.05)


@pytest.mark.parametrize("make", [dense, noisy, functional])
def test_the_model_is_left_as_it_was_found(make):
    def after(call):
        keras.utils.set_random_seed(7)
        model = make()
        model(X, training=True)  # the generators have been used
        call(model)
        numbers = [np.array(variable.numpy()) for variable in model.variables]
        random = [keras.random.uniform((2,)), model(X, training=True)]
        return [*numbers, *map(np.asarray, random), model.predict(X, verbose=0)]

    for one, other in zip(
        after(lambda model: None), after(lambda model: mc_predict(model, X, 3)), strict=True
    ):
        np.testing.assert_array_equal(one, other)


class Failing(layers.Layer):
    failing = False

    def call(self, inputs):
        if self.failing:
            raise KeyboardInterrupt
        return inputs


def test_an_interrupted_model_is_usable():
    model = model_of(layers.Dropout(0.3), Failing(), layers.Flatten())
    model.layers[1].failing = True
    with pytest.raises(KeyboardInterrupt):
        mc_predict(model, X, 2)
    model.layers[1].failing = False
    np.testing.assert_array_equal(model(X), X.reshape(50, 24))
    assert_same(mc_predict(model, X, PASSES), stacked(model, X))


def test_the_seed_decides():
    model = dense()
    one, same, other = (mc_predict(model, X, PASSES, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.mean, same.mean)
    np.testing.assert_array_equal(one.std, same.std)
    assert not np.allclose(one.mean, other.mean, atol=1e-3)


def test_every_example_layer_pass_and_batch_has_masks_of_its_own():
    ones = np.ones((40, 30), dtype=np.float32)
    one = keras.Sequential([keras.Input((30,)), layers.Dropout(0.5)])
    masks = mc_predict(one, ones, passes=1, batch_size=20).mean
    assert len(np.unique(masks, axis=0)) == 40, "examples and batches"
    assert (mc_predict(one, ones, passes=8).std > 0).mean() > 0.9, "passes"
    # Two layers with the same masks would leave half of the units, not a quarter.
    two = keras.Sequential([keras.Input((30,)), layers.Dropout(0.5), layers.Dropout(0.5)])
    assert np.mean(mc_predict(two, ones, passes=1).mean > 0) == pytest.approx(0.25, abs=0.06)


def test_another_batch_size_is_another_draw_of_the_same_thing():
    model, passes = dense(), 400
    one, other = (mc_predict(model, X, passes, batch_size=size) for size in (50, 7))
    assert not np.array_equal(one.mean, other.mean)
    errors = np.sqrt((one.std**2 + other.std**2) / passes)
    apart = (one.mean - other.mean) / errors
    assert np.abs(apart).max() < 5
    assert apart.std() == pytest.approx(1, abs=0.25)
    np.testing.assert_allclose(one.std, other.std, rtol=0.25)


def test_the_mean_of_a_linear_model_is_its_prediction_and_the_variance_is_known():
    keras.utils.set_random_seed(0)
    model = model_of(layers.Flatten(), layers.Dropout(0.2), layers.Dense(1))
    x, (weights, _) = X.reshape(len(X), -1), model.get_weights()
    result = mc_predict(model, X, passes=2000)
    # A unit x that is kept with probability .8 and divided by it has the variance x² (.2 / .8).
    std = np.sqrt((x * weights[:, 0]) ** 2 @ np.full(24, 0.25))[:, None]
    np.testing.assert_allclose(result.std, std, rtol=0.1)
    np.testing.assert_allclose(result.mean, model(X), atol=5 * std.max() / np.sqrt(2000))


def test_one_pass_has_no_spread():
    model = dense()
    result = mc_predict(model, X, passes=1)
    np.testing.assert_array_equal(result.std, 0)
    np.testing.assert_allclose(result.mean, stacked(model, X)[0], atol=1e-6)


def test_information():
    model = dense()
    result, stack = mc_predict(model, X, PASSES, information=True), stacked(model, X)
    assert_same(result, stack)
    total = entropy(stack.mean(axis=0))
    np.testing.assert_allclose(result.entropy, total, atol=1e-5)
    disagreement = total - entropy(stack).mean(axis=0)
    np.testing.assert_allclose(result.mutual_information, disagreement, atol=1e-5)
    assert result.entropy.shape == result.mutual_information.shape == (50,)
    assert disagreement.min() > 1e-3
    assert mc_predict(model, X, 2).entropy is mc_predict(model, X, 2).mutual_information is None


def test_information_where_a_probability_is_0():
    sure = model_of(layers.Dropout(0.5), layers.Flatten(), layers.Rescaling(1e6), layers.Softmax())
    result = mc_predict(sure, X[:1], 50, information=True)
    # Every pass is sure of a class, and the passes disagree: all the uncertainty is disagreement.
    assert result.entropy.item() > 0.5
    assert result.mutual_information == pytest.approx(result.entropy, abs=1e-5)


@pytest.mark.parametrize("dtype", ["uint8", "float64"])
def test_inputs_of_other_types(dtype):
    model, x = dense(), np.random.default_rng(0).integers(3, size=X.shape)
    result = mc_predict(model, x.astype(dtype), PASSES)
    assert result.mean.dtype == result.std.dtype == np.float32
    assert_same(result, stacked(model, x.astype("float32")))


def test_half_precision_is_summed_in_single():
    keras.utils.set_random_seed(0)
    model = model_of(layers.Flatten(), layers.Dropout(0.3), layers.Dense(3, dtype="float16"))
    result = mc_predict(model, X, PASSES)
    assert result.mean.dtype == np.float32
    assert_same(result, stacked(model, X).astype(np.float32))


def broken(number):
    model = model_of(layers.Flatten(), layers.Dropout(0.1), layers.Dense(2))
    model.layers[-1].bias.assign([0.0, number])
    return model


@pytest.mark.parametrize("shown", ["0", "1"])
def test_a_bar_only_where_progress_is_shown(shown, monkeypatch, capsys):
    monkeypatch.setenv("TRAINWELL_PROGRESS", shown)
    mc_predict(dense(), X, 2, batch_size=20)
    assert ("3/3" in capsys.readouterr().err) == (shown == "1")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"passes": 0}, "passes must be a whole number, at least 1, got 0"),
        ({"passes": 2.5}, "passes must be a whole number, at least 1, got 2.5"),
        ({"passes": float("nan")}, "passes must be a whole number, .* got nan"),
        ({"batch_size": 0}, "batch_size must be a whole number, at least 1, got 0"),
        ({"batch_size": 1.5}, "batch_size must be a whole number, at least 1, got 1.5"),
        ({"seed": -1}, "seed must be a whole number, at least 0, got -1"),
        ({"x": X[:0]}, r"x must have at least one row, got the shape \(0, 8, 3\)"),
        ({"x": 1.0}, r"x must have at least one row, got the shape \(\)"),
        ({"model": broken(math.nan)}, "outputs must be finite, got nan: look for nan and inf"),
        ({"x": np.where(np.arange(24).reshape(8, 3) == 5, np.inf, X)}, "x must be finite, got inf"),
        ({"x": X[0]}, r"x must have the model's shape \(n, 8, 3\), got \(8, 3\)"),
        ({"x": X[:, :4]}, r"x must have the model's shape \(n, 8, 3\), got \(50, 4, 3\)"),
        ({"model": model_of(layers.Dense(2))}, "model 'sequential.*' has no dropout layer"),
        ({"model": model_of(layers.Dropout(0))}, "no dropout layer with a rate of more than 0"),
        ({"model": keras.Sequential([layers.Dropout(0.1)])}, "no weights yet: give it a keras.In"),
        (
            {"model": model_of(layers.Flatten(), layers.Dropout(0.1)), "information": True},
            "information=True needs class probabilities, .* sum to 1, got .* End the model in soft",
        ),
    ],
)
def test_bad_arguments(wrong, message):
    with pytest.raises(ValueError, match=message):
        mc_predict(**{"model": dense(), "x": X, **wrong})


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.dropout = layers.Dropout(0.1)

    def call(self, x):
        return self.dropout(x)


def test_a_subclassed_model_tells_no_inputs():
    model = Subclassed()
    model(X)
    with pytest.raises(ValueError, match="build it with the functional API or Sequential"):
        mc_predict(model, X)


def test_a_model_with_two_outputs():
    inputs = keras.Input((3,))
    model = keras.Model(inputs, [inputs, layers.Dropout(0.1)(inputs)])
    with pytest.raises(ValueError, match="must have one input and one output, got 1 and 2"):
        mc_predict(model, X)


# Scores. Four examples, two classes: confidences .9, .6, .8 and .7; right, wrong, right, right.
P = np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.7, 0.3]])
LABELS = np.array([0, 0, 1, 0])


def test_scores_by_hand():
    expected = -(np.log(0.9) + np.log(0.4) + np.log(0.8) + np.log(0.7)) / 4
    assert negative_log_likelihood(P, LABELS) == pytest.approx(expected)
    assert brier_score(P, LABELS) == pytest.approx(2 * (0.01 + 0.36 + 0.04 + 0.09) / 4)
    # Two bins: all four are in the upper one, (.5, 1]: accuracy .75, mean confidence .75.
    assert expected_calibration_error(P, LABELS, bins=2) == pytest.approx(0)
    # Four bins: .6 and .7 in (.5, .75], accuracy .5; .8 and .9 in (.75, 1], accuracy 1.
    assert expected_calibration_error(P, LABELS, bins=4) == pytest.approx((0.15 + 0.15) / 2)
    table = reliability(P, LABELS, bins=4)
    assert table.to_dict("list") == {
        "confidence": pytest.approx([0.65, 0.85]),
        "accuracy": [0.5, 1],
        "count": [2, 2],
    }


def test_the_loss_is_that_of_scikit_learn_and_keras():
    from sklearn.metrics import log_loss

    rng = np.random.default_rng(0)
    p, labels = rng.dirichlet(np.ones(5), size=40), rng.integers(5, size=40)
    found = negative_log_likelihood(p, labels)
    assert found == pytest.approx(log_loss(labels, p, labels=range(5)))
    by_keras = keras.losses.sparse_categorical_crossentropy(labels, p)
    assert found == pytest.approx(np.mean(by_keras), rel=1e-5)


def test_the_worst_scores_are_finite():
    wrong = np.array([[1.0, 0.0]])
    assert 80 < negative_log_likelihood(wrong, [1]) < 90
    assert brier_score(wrong, [1]) == 2
    assert expected_calibration_error(wrong, [1]) == 1


def test_temperature():
    logits = np.array([[1.0, -2.0, 0.5], [300.0, 0.0, -300.0]])
    p = np.asarray(keras.ops.softmax(logits[:1]))
    np.testing.assert_allclose(
        at_temperature(p, 2.5), np.asarray(keras.ops.softmax(logits[:1] / 2.5)), rtol=1e-5
    )
    np.testing.assert_allclose(at_temperature([[1.0, 0.0]], 0.01), [[1, 0]])


@pytest.mark.parametrize("temperature", [0.5, 3.0])
def test_temperature_scaling_finds_how_far_logits_were_blown_up(temperature):
    rng = np.random.default_rng(0)
    honest = rng.dirichlet(np.ones(4), size=20_000)
    labels = (honest.cumsum(axis=1) < rng.random((20_000, 1))).sum(axis=1)
    shown = at_temperature(honest, 1 / temperature)
    found = temperature_scaling(shown, labels)
    assert found == pytest.approx(temperature, rel=0.05)
    scaled = at_temperature(shown, found)
    assert expected_calibration_error(scaled, labels) < 0.02
    assert expected_calibration_error(shown, labels) > 0.05
    nearby = [negative_log_likelihood(at_temperature(shown, found * c), labels) for c in (0.9, 1.1)]
    assert negative_log_likelihood(scaled, labels) < min(nearby)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: brier_score(P, LABELS[:3]), r"labels \(n,\), .* got \(4, 2\) and \(3,\)"),
        (lambda: brier_score(P[:, 0], LABELS), r"shape \(n, classes\) .* got \(4,\) and \(4,\)"),
        (lambda: brier_score(P[:0], LABELS[:0]), r"n at least 1, got \(0, 2\) and \(0,\)"),
        (lambda: brier_score(2 * P, LABELS), "probabilities must be .* sums from 2 to 2"),
        (lambda: brier_score(P - [[1, -1]], LABELS), "not negative .* got -0.8 at least"),
        (lambda: brier_score(P * np.nan, LABELS), "probabilities must be .* got nan"),
        (lambda: brier_score(P, LABELS + 1), "whole numbers from 0 to 1, got int64 from 1 to 2"),
        (lambda: brier_score(P, LABELS - 1), "labels must be whole numbers .* from -1 to 0"),
        (lambda: brier_score(P, LABELS / 1), "labels must be whole numbers .* got float64"),
        (lambda: reliability(P, LABELS, bins=0), "bins must be a whole number, .* got 0"),
        (lambda: reliability(P, LABELS, bins=2.5), "bins must be a whole number, .* got 2.5"),
        (lambda: reliability(P, LABELS, bins=float("nan")), "bins must be .* got nan"),
        (lambda: at_temperature(P, 0), "temperature must be more than 0 and finite, got 0"),
        (lambda: at_temperature(P, np.inf), "temperature must be more than 0 .* got inf"),
        (lambda: at_temperature(0 * P, 2.0), "probabilities must be .* sums from 0 to 0"),
        (lambda: at_temperature(-P, 2.0), "probabilities must be .* got -0.9 at least"),
        (lambda: at_temperature(np.nan * P, 2.0), "probabilities must be .* got nan"),
    ],
)
def test_bad_arguments_of_the_scores(call, message):
    with pytest.raises(ValueError, match=message):
        call()
