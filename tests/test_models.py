"""The shared networks: their sizes, their dropout, and weights that do not depend on it.

And the recipes: their tables are those of the sources, and `build` does what the tables say.
"""

import itertools
from dataclasses import replace

import keras
import numpy as np
import pytest

from trainwell.models import (
    DEFAULT_DNN,
    RECIPE_2026,
    SELF_NORMALIZING_DNN,
    THIRD_EDITION_DNN,
    THIRD_EDITION_SELF_NORMALIZING_DNN,
    Recipe,
    build,
    mlp,
)
from trainwell.schedules import OneCycle


def kinds(model):
    return [type(layer).__name__ for layer in model.layers]


def dense_parameters(*sizes):
    """Weights and biases of dense layers between these sizes, counted by hand."""
    return sum((before + 1) * after for before, after in itertools.pairwise(sizes))


def test_the_default_is_the_books_classifier():
    model = mlp(dropout=0.2)
    assert kinds(model) == ["Flatten", *["Dropout", "Dense"] * 3]
    assert model.count_params() == 266_610 == dense_parameters(784, 300, 100, 10)
    assert [layer.rate for layer in model.layers if hasattr(layer, "rate")] == [0.2] * 3
    assert [layer.get_config()["activation"] for layer in model.layers[2::2]] == [
        "relu",
        "relu",
        "softmax",
    ]


@pytest.mark.parametrize(
    ("units", "inputs", "parameters"), [((16, 16), (10_000,), 160_305), ((128, 64), (18,), 10_753)]
)
def test_dropout_between_layers_only(units, inputs, parameters):
    model = mlp(
        units,
        inputs=inputs,
        outputs=1,
        output_activation=None,
        dropout=0.5,
        dropout_on_inputs=False,
    )
    assert kinds(model) == ["Dense", "Dropout", "Dense", "Dropout", "Dense"]
    assert model.count_params() == parameters == dense_parameters(*inputs, *units, 1)
    assert model.output_shape == (None, 1)


def test_alpha_dropout_for_selu():
    model = mlp(activation="selu", kernel_initializer="lecun_normal", dropout=0.2, alpha=True)
    assert kinds(model) == ["Flatten", *["AlphaDropout", "Dense"] * 3]
    hidden = model.layers[2].get_config()
    assert hidden["activation"] == "selu"
    assert hidden["kernel_initializer"]["class_name"] == "LecunNormal"


def test_without_dropout_there_is_no_layer_for_it():
    assert kinds(mlp()) == ["Flatten", "Dense", "Dense", "Dense"]


def test_probabilities_out_of_images():
    probabilities = keras.ops.convert_to_numpy(mlp()(np.ones((3, 28, 28), "float32")))
    np.testing.assert_allclose(probabilities.sum(axis=1), np.ones(3), rtol=1e-5)


@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("on_inputs", [False, True])
def test_the_arms_of_a_comparison_start_from_the_same_weights(alpha, on_inputs):
    def initial_weights(dropout):
        keras.utils.set_random_seed(3)
        return mlp(dropout=dropout, dropout_on_inputs=on_inputs, alpha=alpha).get_weights()

    plain, dropped = initial_weights(0.0), initial_weights(0.5)
    assert len(plain) == len(dropped) == 6
    for a, b in zip(plain, dropped, strict=True):
        np.testing.assert_array_equal(a, b)


def test_another_seed_gives_other_weights_and_every_layer_its_own():
    def first_weights(seed):
        keras.utils.set_random_seed(seed)
        return mlp((300, 300), inputs=(300,)).get_weights()

    one, other = first_weights(0), first_weights(1)
    assert not np.allclose(one[0], other[0])
    assert not np.allclose(one[0], one[2])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"dropout": 1.0}, "dropout must be at least 0 and less than 1, got 1.0"),
        ({"dropout": "0.2"}, "dropout must be a number, got '0.2'"),
        ({"units": 100}, r"units must be a sequence, such as \(100,\), got 100"),
        ({"inputs": 784}, r"inputs must be a sequence, such as \(784,\), got 784"),
        ({"dropout": -0.1}, "dropout must be at least 0 and less than 1, got -0.1"),
        ({"units": (300, 0)}, r"units must be 1 or more in every layer, got \(300, 0\)"),
        ({"outputs": 0}, "outputs must be a whole number, at least 1, got 0"),
    ],
)
def test_bad_arguments(wrong, message):
    with pytest.raises(ValueError, match=message):
        mlp(**wrong)


DEEP_UNITS = (20,) * 5
EVERY_RECIPE = [
    DEFAULT_DNN,
    SELF_NORMALIZING_DNN,
    THIRD_EDITION_DNN,
    THIRD_EDITION_SELF_NORMALIZING_DNN,
    RECIPE_2026,
]


def test_the_tables_of_the_sources():
    assert DEFAULT_DNN.table() == {
        "kernel initializer": "He",
        "activation": "ELU",
        "normalization": "batch norm if deep",
        "regularization": "early stopping, l2 if needed",
        "optimizer": "momentum (or RMSProp or Nadam)",
        "learning rate": "1cycle",
    }
    assert SELF_NORMALIZING_DNN.table() == {
        "kernel initializer": "LeCun",
        "activation": "SELU",
        "normalization": "none",
        "regularization": "alpha dropout if needed",
        "optimizer": "momentum (or RMSProp or Nadam)",
        "learning rate": "1cycle",
    }


def test_the_tables_of_what_came_after():
    assert THIRD_EDITION_DNN.table() == {
        "kernel initializer": "He",
        "activation": "ReLU if shallow, Swish if deep",
        "normalization": "batch norm if deep",
        "regularization": "early stopping, weight decay if needed",
        "optimizer": "Nesterov (or AdamW)",
        "learning rate": "1cycle (or performance scheduling)",
    }
    changed = {
        "optimizer": "Nesterov",
        "learning rate": "1cycle (or performance scheduling)",
    }
    assert THIRD_EDITION_SELF_NORMALIZING_DNN.table() == SELF_NORMALIZING_DNN.table() | changed
    assert RECIPE_2026.table()["regularization"] == "weight decay of 0.1"
    nothing = replace(SELF_NORMALIZING_DNN, if_needed="nothing")
    assert nothing.table()["regularization"] == "none"


def activations(model):
    return {layer.activation.__name__ for layer in model.layers if "activation" in layer.name}


def test_a_shallow_network_has_no_normalization():
    model = build(DEFAULT_DNN, learning_rate=0.1, steps=100)
    assert kinds(model) == ["InputLayer", "Flatten", *["Dense", "Activation"] * 3, "Dense"]
    assert model.count_params() == dense_parameters(784, 100, 100, 100, 10)
    assert activations(model) == {"elu"}
    assert model.layers[2].get_config()["kernel_initializer"]["class_name"] == "HeNormal"


def test_a_deep_network_has_batch_norm_in_place_of_biases():
    model = build(DEFAULT_DNN, DEEP_UNITS, inputs=(8,), learning_rate=0.1, steps=100)
    block = ["Dense", "BatchNormalization", "Activation"]
    assert kinds(model) == ["InputLayer", *block * 5, "Dense"]
    assert not model.layers[1].use_bias


def test_the_self_normalizing_network_has_none_at_any_depth():
    model = build(SELF_NORMALIZING_DNN, DEEP_UNITS, inputs=(8,), learning_rate=0.1, steps=100)
    assert kinds(model) == ["InputLayer", *["Dense", "Activation"] * 5, "Dense"]
    assert activations(model) == {"selu"}
    assert model.layers[1].get_config()["kernel_initializer"]["class_name"] == "LecunNormal"


def test_the_third_edition_takes_another_activation_when_deep():
    for units, activation in [((20,) * 4, "relu"), (DEEP_UNITS, "silu")]:
        model = THIRD_EDITION_DNN.network(units, inputs=(8,))
        assert activations(model) == {activation}


def test_skips_add_where_widths_agree():
    model = RECIPE_2026.network((20, 20, 20, 30, 30), inputs=(8,))
    assert kinds(model).count("Add") == 3
    assert "Add" not in kinds(RECIPE_2026.network((20,) * 4, inputs=(8,)))


@pytest.mark.parametrize("recipe", EVERY_RECIPE, ids=lambda recipe: recipe.name)
def test_the_optimizer_and_its_learning_rate(recipe):
    model = build(
        recipe, (4,), inputs=(3,), outputs=1, output_activation=None, loss="mae",
        learning_rate=0.2, steps=1_000,
    )  # fmt: skip
    rate = model.optimizer._learning_rate
    rates = np.array([float(rate(step)) for step in range(1_000)])
    assert rates.max() == pytest.approx(0.2, rel=0.01)
    assert rates[0] < 0.021
    assert rates[-1] < 1e-3
    name = {"momentum": "SGD", "nesterov": "SGD", "adamw": "AdamW"}[recipe.optimizer]
    assert type(model.optimizer).__name__ == name
    if name == "SGD":
        assert isinstance(rate, OneCycle)
        assert model.optimizer.momentum == 0.9
        assert model.optimizer.nesterov == (recipe.optimizer == "nesterov")
    else:
        assert model.optimizer.weight_decay == recipe.strength


def test_a_row_taken_away():
    plain = replace(DEFAULT_DNN, optimizer="sgd", schedule="constant", normalization="batch norm")
    model = build(plain, (4,), inputs=(3,), learning_rate=0.2, steps=10)
    assert model.optimizer.momentum == 0
    assert float(model.optimizer.learning_rate) == pytest.approx(0.2)
    assert "BatchNormalization" in kinds(model)
    assert type(replace(plain, optimizer="adam").make_optimizer(0.1)).__name__ == "Adam"


def test_regularization_if_needed():
    def network(recipe, **changes):
        return replace(recipe, **changes).network((4, 4), inputs=(3,))

    assert not network(DEFAULT_DNN).losses
    penalised = network(DEFAULT_DNN, strength=0.01)
    kernels = [layer.kernel for layer in penalised.layers if hasattr(layer, "kernel")]
    squares = sum(float(keras.ops.sum(keras.ops.square(kernel))) for kernel in kernels)
    assert float(sum(penalised.losses)) == pytest.approx(0.01 * squares, rel=1e-5)
    dropped = network(SELF_NORMALIZING_DNN, strength=0.1)
    assert kinds(dropped).count("AlphaDropout") == 2
    decayed = replace(THIRD_EDITION_DNN, strength=0.01).make_optimizer(0.1)
    assert decayed.weight_decay == 0.01
    assert not THIRD_EDITION_DNN.make_optimizer(0.1).weight_decay


@pytest.mark.parametrize("optimizer", ["momentum", "adam", "adamw"])
def test_weight_decay_is_for_kernels(optimizer):
    """With gradients of zero, what moves is what decays."""
    recipe = replace(RECIPE_2026, optimizer=optimizer, schedule="constant")
    model = build(recipe, (4,) * 5, inputs=(3,), learning_rate=0.1, steps=10)
    assert {v.name for v in model.trainable_variables} == {"kernel", "gamma", "beta", "bias"}
    for variable in model.trainable_variables:
        variable.assign(np.ones(variable.shape))
    model.optimizer.build(model.trainable_variables)
    model.optimizer.apply([np.zeros(v.shape) for v in model.trainable_variables])
    for variable in model.trainable_variables:
        left = 0.99 if variable.name == "kernel" else 1.0  # a rate of 0.1 times a decay of 0.1
        np.testing.assert_allclose(np.asarray(variable), left, rtol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: DEFAULT_DNN.network((0,)), r"units must be 1 or more in every layer, got \(0,\)"),
        (lambda: DEFAULT_DNN.network((4,), outputs=0), "outputs must be a whole .*, got 0"),
        (lambda: DEFAULT_DNN.learning_rate(0.0, 100), "peak must be more than 0, got 0.0"),
        (lambda: RECIPE_2026.learning_rate(0.1, 1), "steps must be at least 2, got 1"),
        (
            lambda: replace(SELF_NORMALIZING_DNN, strength=1.0).network((4,)),
            "alpha dropout takes a strength from 0 to less than 1, got 1.0",
        ),
        (
            lambda: replace(DEFAULT_DNN, optimizer="rmsprop"),
            r"optimizer must be one of \('sgd', .*'adamw'\), got 'rmsprop'",
        ),
        (lambda: replace(DEFAULT_DNN, schedule="cosine"), "schedule must be one of .*1cycle"),
        (
            lambda: replace(DEFAULT_DNN, normalization="layer norm"),
            "normalization must be one of .* got 'layer norm'",
        ),
        (lambda: replace(DEFAULT_DNN, if_needed="l1"), "if_needed must be one of .* got 'l1'"),
        (
            lambda: replace(DEFAULT_DNN, strength=-0.1),
            "strength must be at least 0 and finite, got -0.1",
        ),
        (lambda: replace(DEFAULT_DNN, strength=np.nan), "strength must be .* got nan"),
        (lambda: replace(DEFAULT_DNN, strength=np.inf), "strength must be .* got inf"),
    ],
)
def test_bad_recipes(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_recipe_trains_and_can_be_changed():
    recipe = replace(RECIPE_2026, name="mine", strength=0.01)
    assert isinstance(recipe, Recipe)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 3)).astype("float32")
    keras.utils.set_random_seed(0)
    model = build(
        recipe, (8,) * 5, inputs=(3,), outputs=1, output_activation=None, loss="mse",
        learning_rate=0.03, steps=40,
    )  # fmt: skip
    losses = model.fit(x, x[:, 0], batch_size=16, epochs=10, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
