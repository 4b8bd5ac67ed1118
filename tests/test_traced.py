"""One traced step serves many models: each must train as plain Keras would train it."""

import copy
from functools import partial

import keras
import numpy as np
import pytest
from keras import layers

from trainwell import _traced
from trainwell.layers import MCDropout
from trainwell.schedules import PowerDecay
from trainwell.training import fit

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="only TensorFlow traces in `fit`"
)

sgd = keras.optimizers.SGD
rng = np.random.default_rng(0)
X, Y = rng.normal(size=(200, 6)).astype("float32"), rng.integers(3, size=200)
VALID = X[:50], Y[:50]


def network(
    *,
    units=8,
    activation="relu",
    dropout=0.2,
    kind=layers.Dropout,
    frozen=False,
    skip=False,
    **dense,
):
    start = keras.Input((6,))
    hidden = layers.Dense(6, activation=activation, **dense)(start)
    x = layers.Dense(units, activation="tanh", trainable=not frozen)(hidden)
    if skip:
        x = layers.Concatenate()([x, hidden])
    x = kind(dropout)(x)
    return keras.Model(start, layers.Dense(3, activation="softmax")(x))


def compiled(seed=0, *, optimizer=None, change=None, compile=None, **options):
    keras.utils.set_random_seed(seed)
    model = network(**options)
    model.compile(
        optimizer() if optimizer else keras.optimizers.AdamW(0.01, weight_decay=0.1),
        # Else Keras compiles with XLA on a GPU, where `fit` traces nothing.
        jit_compile=False,
        **{"loss": "sparse_categorical_crossentropy", "metrics": ["accuracy"], **(compile or {})},
    )
    if change:
        change(model)
    return model


def built(model):
    """As `fit` leaves a model to be traced: all of its variables are there."""
    model._symbolic_build(data_batch=(X[:1], Y[:1]))
    return model


def make_of(model):
    return _traced.make_of(model, trains=True)


def assert_trained_as_by_keras(**options):
    """Fit one model plainly and one by `fit`, and compare the weights and the losses."""
    plain, fast = compiled(**options), compiled(**options)
    keras.utils.set_random_seed(1)
    expected = plain.fit(
        X, Y, epochs=2, batch_size=32, validation_data=VALID, validation_batch_size=50, verbose=0
    ).history
    keras.utils.set_random_seed(1)
    history = fit(fast, X, Y, epochs=2, batch_size=32, validation_data=VALID)
    assert history.last("loss", "train") == pytest.approx(expected["loss"][-1], rel=1e-5)
    assert history.last("loss") == pytest.approx(expected["val_loss"][-1], rel=1e-5)
    for a, b in zip(plain.get_weights(), fast.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.fixture(autouse=True)
def nothing_is_kept(monkeypatch):
    monkeypatch.setattr(_traced, "_kept", copy.copy(_traced._kept))
    _traced._kept.clear()


def test_models_that_differ_in_seed_and_rate_share_a_step():
    for seed, rate in [(0, 0.01), (1, 0.1)]:
        assert_trained_as_by_keras(seed=seed, optimizer=lambda r=rate: sgd(r, momentum=0.9))
    assert len(_traced._kept) == 2, "one for training and one for evaluation"


def test_optimizers_share_an_evaluation():
    for optimizer in (sgd, keras.optimizers.Adam):
        assert_trained_as_by_keras(optimizer=lambda kind=optimizer: kind(0.01))
    assert len(_traced._kept) == 3


def relu(x):
    """A reader's own function with the name of Keras's."""
    return keras.ops.minimum(x, 0.0)


class Dropout(layers.Dropout):
    """A reader's own layer with the name of Keras's."""

    def call(self, x, training=None):
        return 2.0 * super().call(x, training=training)


def set_beta(model):
    model.optimizer.beta_1 = 0.5


def exclude(model):
    model.optimizer.exclude_from_weight_decay(var_names=["bias"])


def patch(model):
    call = model.layers[2].call
    model.layers[2].call = lambda x, **options: 2.0 * call(x, **options)


class Doubled:
    """What a layer does, twice as large: its method is bound to another object."""

    def __init__(self, layer):
        self.original = layer.call

    def call(self, x, **options):
        return 2.0 * self.original(x, **options)


def patch_with_method(model):
    model.layers[2].call = Doubled(model.layers[2]).call


def patch_optimizer(model):
    model.optimizer.update_step = partial(lambda *arguments: None)


def own_loss(y, prediction):
    return keras.ops.mean((prediction - 1.0) ** 2, axis=-1)


DIFFERENT = {
    "units": {"units": 9},
    "activation": {"activation": "tanh"},
    "own function": {"activation": relu},
    "dropout's rate": {"dropout": 0.5},
    "dropout's kind": {"kind": layers.GaussianDropout},
    "ours": {"kind": MCDropout},
    "frozen": {"frozen": True},
    "skip": {"skip": True},
    "l2": {"kernel_regularizer": keras.regularizers.L2(0.1)},
    "max-norm": {"kernel_constraint": keras.constraints.MaxNorm(0.5)},
    "optimizer": {"optimizer": lambda: sgd(0.01)},
    "momentum": {"optimizer": lambda: sgd(0.01, momentum=0.9)},
    "Nesterov": {"optimizer": lambda: sgd(0.01, momentum=0.9, nesterov=True)},
    "clipping": {"optimizer": lambda: sgd(0.01, clipnorm=0.01)},
    "schedule": {"optimizer": lambda: sgd(PowerDecay(0.1, 5))},
    "faster schedule": {"optimizer": lambda: sgd(PowerDecay(0.1, 1))},
    "decay": {"optimizer": lambda: keras.optimizers.AdamW(0.01, weight_decay=0.5)},
    "no decay of biases": {"change": exclude},
    "a setting changed later": {"change": set_beta},
    "a method changed later": {"change": patch},
    "a method of another object": {"change": patch_with_method},
    "an optimizer's method": {"change": patch_optimizer},
    "loss": {"compile": {"loss": keras.losses.SparseCategoricalCrossentropy(ignore_class=0)}},
    "own loss": {"compile": {"loss": own_loss}},
    "own metric": {"compile": {"metrics": [own_loss]}},
}


@pytest.fixture(scope="module")
def make():
    return make_of(built(compiled()))


def test_a_model_that_differs_in_its_seed_only_is_of_the_same_make(make):
    assert make_of(built(compiled(seed=1))) == make is not None


@pytest.mark.parametrize("name", DIFFERENT)
def test_a_model_that_differs_is_of_another_make(name, make):
    assert make_of(built(compiled(**DIFFERENT[name]))) != make


OWN = ["own function", "own loss", "own metric", "a method changed later"]
OWN += ["a method of another object", "an optimizer's method"]


@pytest.mark.parametrize("name", OWN)
def test_what_a_reader_wrote_is_not_shared(name):
    assert make_of(compiled(**DIFFERENT[name])) is None


@pytest.mark.parametrize("name", ["own function", "ours", "no decay of biases", "frozen"])
def test_after_another_model_it_trains_as_by_keras(name):
    fit(compiled(), X, Y, epochs=1, batch_size=32, validation_data=VALID)
    assert_trained_as_by_keras(**DIFFERENT[name])


def test_a_readers_own_layer_is_not_shared():
    assert make_of(compiled(kind=Dropout)) is None


def test_other_batches_and_other_data_have_their_own_step():
    for batch_size, kind in [(32, "int64"), (64, "int64"), (32, "int32")]:
        fit(compiled(), X, Y.astype(kind), epochs=1, batch_size=batch_size)
    assert len(_traced._kept) == 3


def test_a_callback_may_train_another_model_of_the_make():
    others = [compiled(seed) for seed in range(2)]

    def train_another(epoch, logs):
        fit(others[epoch], X, Y, epochs=1, batch_size=32)

    alone, disturbed = compiled(), compiled()
    callback = keras.callbacks.LambdaCallback(on_epoch_end=train_another)
    for model, callbacks in [(alone, []), (disturbed, [callback])]:
        keras.utils.set_random_seed(1)
        fit(model, X, Y, epochs=2, batch_size=32, callbacks=callbacks)
    for a, b in zip(alone.get_weights(), disturbed.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert len(_traced._kept) == 1


def test_as_many_steps_stay_as_said(monkeypatch):
    monkeypatch.setattr(_traced, "KEPT", 2)
    for units in (2, 3, 2, 4):
        fit(compiled(units=units), X, Y, epochs=1, batch_size=32)
    before = list(_traced._kept)
    assert len(before) == 2
    fit(compiled(units=2), X, Y, epochs=1, batch_size=32)
    assert set(_traced._kept) == set(before), "the last used stay"
