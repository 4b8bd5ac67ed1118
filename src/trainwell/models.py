"""The networks that the chapters share."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers


def mlp(
    units: Sequence[int] = (300, 100),
    *,
    activation: str = "relu",
    kernel_initializer: str = "he_normal",
    dropout: float = 0.0,
    alpha: bool = False,
) -> Any:
    """Build the course's classifier of Fashion-MNIST images: dense layers and a softmax over 10.

    Args:
        units: The number of units of each hidden layer, first to last.
        activation: The hidden layers' activation.
        kernel_initializer: The hidden layers' initializer. The output layer has Keras's own
            default, `glorot_uniform`.
        dropout: The rate of the dropout before every dense layer, the first included; 0 for none.
        alpha: Whether that is alpha dropout, for `activation="selu"` and `"lecun_normal"`.

    Returns:
        A `keras.Sequential`, not compiled: images (n, 28, 28) in, probabilities (n, 10) out. After
        `keras.utils.set_random_seed`, the initial weights are the same whatever the dropout.

    Raises:
        ValueError: If `dropout` is not in [0, 1) or a layer has less than one unit.
    """
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout must be at least 0 and less than 1, got {dropout}.")
    if any(count < 1 for count in units):
        raise ValueError(f"units must be 1 or more in every layer, got {tuple(units)}.")
    # A layer draws its seed when it is made: make the dense layers first, so that their initial
    # weights do not depend on how many dropout layers stand between them.
    dense = [
        layers.Dense(count, activation=activation, kernel_initializer=kernel_initializer)
        for count in units
    ]
    dense.append(layers.Dense(10, activation="softmax"))
    kind = layers.AlphaDropout if alpha else layers.Dropout
    model = keras.Sequential([keras.Input(shape=(28, 28)), layers.Flatten()])
    for layer in dense:
        if dropout:
            model.add(kind(dropout))
        model.add(layer)
    return model
