"""The networks that the chapters share."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers


def mlp(
    units: Sequence[int] = (300, 100),
    *,
    inputs: Sequence[int] = (28, 28),
    outputs: int = 10,
    activation: str = "relu",
    output_activation: str | None = "softmax",
    kernel_initializer: str = "he_normal",
    dropout: float = 0.0,
    dropout_on_inputs: bool = True,
    alpha: bool = False,
) -> Any:
    """Build a multilayer perceptron; by default the course's classifier of Fashion-MNIST images.

    Args:
        units: The number of units of each hidden layer, first to last.
        inputs: The shape of one example. Images are flattened.
        outputs: The number of units of the output layer: one a class, or 1.
        activation: The hidden layers' activation.
        output_activation: `softmax` for classes, `sigmoid` for two, None for a number.
        kernel_initializer: The hidden layers' initializer. The output layer has Keras's own
            default, `glorot_uniform`.
        dropout: The rate of the dropout before every dense layer; 0 for none.
        dropout_on_inputs: Whether there is dropout before the first layer too (Srivastava et al.,
            JMLR 15, 2014, appendix A.4), or only between layers.
        alpha: Whether that is alpha dropout, for `activation="selu"` and `"lecun_normal"`
            (Klambauer et al., arXiv:1706.02515).

    Returns:
        A `keras.Sequential`, not compiled: `(n, *inputs)` in, `(n, outputs)` out. After
        `keras.utils.set_random_seed`, the initial weights are the same whatever the dropout.

    Raises:
        ValueError: If `dropout` is not in [0, 1), or a layer has less than one unit.
    """
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout must be at least 0 and less than 1, got {dropout}.")
    if any(count < 1 for count in units):
        raise ValueError(f"units must be 1 or more in every layer, got {tuple(units)}.")
    if outputs < 1:
        raise ValueError(f"outputs must be at least 1, got {outputs}.")
    # A layer draws its seed when it is made: make the dense layers first, so that their initial
    # weights do not depend on how many dropout layers stand between them.
    dense = [
        layers.Dense(count, activation=activation, kernel_initializer=kernel_initializer)
        for count in units
    ]
    dense.append(layers.Dense(outputs, activation=output_activation))
    kind = layers.AlphaDropout if alpha else layers.Dropout
    stack: list[Any] = [keras.Input(shape=tuple(inputs))]
    if len(inputs) > 1:
        stack.append(layers.Flatten())
    for number, layer in enumerate(dense):
        if dropout and (number or dropout_on_inputs):
            stack.append(kind(dropout))
        stack.append(layer)
    # All at once: a Sequential to which layers are added builds itself anew for each.
    return keras.Sequential(stack)
