"""Projections of weights: soft-thresholding, which is l1's own step, and max-norm.

A penalty in the loss acts through the gradient. These act on the weights themselves, after each
step. `SoftThreshold` does it in a Keras layer: `Dense(100, kernel_constraint=SoftThreshold(t))`.
"""

from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from trainwell._checks import check_positive

Array = npt.NDArray[np.float64]


def soft_threshold(weights: npt.ArrayLike, threshold: float) -> Array:
    """Move every weight towards 0 by `threshold`, and those that would pass it to 0.

    `sign(w) max(|w| - threshold, 0)` is the `v` that minimises `(v - w)^2 / 2 + threshold |v|`
    (Donoho, IEEE Transactions on Information Theory 41(3), 1995).

    Args:
        weights: An array of any shape.
        threshold: How far to move, a finite number above 0.

    Returns:
        The moved weights, of the same shape.

    Raises:
        ValueError: If `threshold` is not a finite number above 0.
    """
    check_positive("threshold", threshold)
    w = np.asarray(weights, dtype=np.float64)
    moved: Array = np.sign(w) * np.maximum(np.abs(w) - threshold, 0)
    return moved


def project_max_norm(
    weights: npt.ArrayLike, max_value: float, axis: int | tuple[int, ...] = 0
) -> Array:
    """Shorten every weight vector that is longer than `max_value` to that length.

    `w min(1, max_value / |w|)`, where `|w|` is the l2 norm (Srivastava et al., JMLR 15, 2014,
    section 5.1): the closest vector that is not longer. A vector that is short enough stays as it
    is, so that `w max_value / |w|` would be wrong. Keras's `MaxNorm` adds 1e-7 to the norm.

    Args:
        weights: An array of any shape.
        max_value: The largest norm allowed, a finite number above 0.
        axis: The axes along which a vector lies: 0 for a unit's incoming weights in a dense
            kernel (inputs, units), (0, 1, 2) for a filter in a kernel of `Conv2D`.

    Returns:
        The shortened weights, of the same shape.

    Raises:
        ValueError: If `max_value` is not a finite number above 0.
    """
    check_positive("max_value", max_value)
    w = np.asarray(weights, dtype=np.float64)
    norms = np.sqrt(np.sum(w**2, axis=axis, keepdims=True))
    projected: Array = w * (max_value / np.maximum(norms, max_value))
    return projected


def checked_max_norm(
    max_value: float, axis: int | tuple[int, ...] = 0
) -> keras.constraints.Constraint:
    """Return Keras's `MaxNorm`, which takes a limit of 0, below 0 or nan without a word.

    `Dense(100, kernel_constraint=checked_max_norm(1.0))` limits the layer's units after each step.

    Args:
        max_value: The largest norm allowed, a finite number above 0.
        axis: The axes along which a vector lies, as in `project_max_norm`.

    Raises:
        ValueError: If `max_value` is not a finite number above 0.
    """
    check_positive("max_value", max_value)
    return keras.constraints.MaxNorm(max_value, axis=axis)


@keras.saving.register_keras_serializable(package="trainwell")
class SoftThreshold(keras.constraints.Constraint):  # type: ignore[misc]
    """Soft-threshold a layer's weights after each step: an l1 penalty that reaches 0.

    With plain SGD and `threshold` = learning rate x strength, a step of the loss alone and then
    this is the proximal gradient step of `loss + strength |w|` (Duchi and Singer, JMLR 10, 2009).
    So it stands in place of the layer's `kernel_regularizer=L1(strength)`, not beside it. Where
    the learning rate changes, the strength does too.

    Args:
        threshold: How far every weight moves towards 0 after a step, a finite number above 0.

    Raises:
        ValueError: If `threshold` is not a finite number above 0.
    """

    def __init__(self, threshold: float) -> None:
        """Check and keep the threshold."""
        check_positive("threshold", threshold)
        self.threshold = float(threshold)

    def __call__(self, w: Any) -> Any:
        """Return the moved weights, a tensor of the shape of `w`."""
        w = keras.ops.convert_to_tensor(w)
        return keras.ops.sign(w) * keras.ops.maximum(keras.ops.abs(w) - self.threshold, 0)

    def get_config(self) -> dict[str, float]:
        """Return the argument, for a saved model."""
        return {"threshold": self.threshold}
