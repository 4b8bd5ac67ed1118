"""The shared networks: their sizes, their dropout, and weights that do not depend on it."""

import itertools

import keras
import numpy as np
import pytest

from trainwell.models import mlp


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
        ({"dropout": -0.1}, "dropout must be at least 0 and less than 1, got -0.1"),
        ({"units": (300, 0)}, r"units must be 1 or more in every layer, got \(300, 0\)"),
        ({"outputs": 0}, "outputs must be at least 1, got 0"),
    ],
)
def test_bad_arguments(wrong, message):
    with pytest.raises(ValueError, match=message):
        mlp(**wrong)
