"""Dropout that stays on: Keras's layers switch it off when a model predicts.

A model that has them instead of `Dropout` or `AlphaDropout` gives another prediction at each call,
in `model.predict` too. `trainwell.uncertainty.mc_predict` needs no such layers.
"""

from typing import Any

import keras

from trainwell._checks import check_number


@keras.saving.register_keras_serializable(package="trainwell")
class MCDropout(keras.layers.Dropout):  # type: ignore[misc]
    """Dropout that is always on, for Monte Carlo dropout (Gal and Ghahramani, arXiv:1506.02142).

    It takes the arguments of `keras.layers.Dropout`, and has no weights: a trained model's weights
    fit the same model with `MCDropout` in place of `Dropout`.

    Raises:
        ValueError: If the rate is not in [0, 1).
    """

    def __init__(self, rate: float, *args: Any, **kwargs: Any) -> None:
        """Check the rate: Keras takes a rate of 1, which drops everything."""
        _check_rate(rate)
        super().__init__(rate, *args, **kwargs)

    def call(self, inputs: Any) -> Any:
        """Drop units of a tensor of any shape, whatever mode the model is called in."""
        return super().call(inputs, training=True)


@keras.saving.register_keras_serializable(package="trainwell")
class MCAlphaDropout(keras.layers.AlphaDropout):  # type: ignore[misc]
    """Alpha dropout that is always on: `MCDropout` for self-normalizing networks.

    It takes the arguments of `keras.layers.AlphaDropout` (Klambauer et al., arXiv:1706.02515).

    Raises:
        ValueError: If the rate is not in [0, 1).
    """

    def __init__(self, rate: float, *args: Any, **kwargs: Any) -> None:
        """Check the rate: Keras takes a rate of 1, which drops everything."""
        _check_rate(rate)
        super().__init__(rate, *args, **kwargs)

    def call(self, inputs: Any) -> Any:
        """Drop units of a tensor of any shape, whatever mode the model is called in."""
        return super().call(inputs, training=True)


def _check_rate(rate: float) -> None:
    check_number("rate", rate)
    if not 0 <= rate < 1:
        raise ValueError(f"rate must be at least 0 and less than 1, got {rate}.")
