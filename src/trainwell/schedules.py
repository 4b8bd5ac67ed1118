"""Learning rate schedules that Keras does not have, and the test that finds a learning rate.

Keras has `InverseTimeDecay`, `ExponentialDecay`, `PiecewiseConstantDecay`, `CosineDecay` (with a
warm-up) and, as a callback, `ReduceLROnPlateau`. Here are power decay with any exponent and 1cycle.
Either goes wherever Keras takes a learning rate:

    keras.optimizers.Adam(PowerDecay(0.01, decay_steps=10_000, power=0.5))
    keras.optimizers.SGD(OneCycle(0.5, total_steps), momentum=0.9)

For 1cycle as its author has it, with a momentum that falls while the rate rises:

    OneCycleSGD(OneCycle(0.5, total_steps))
"""

import math
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pandas as pd
from keras import ops
from tqdm import tqdm

from trainwell._checks import check_finite, check_number, check_positive, check_whole
from trainwell.runtime import show_progress

# 1cycle rises for 45 % of the steps, falls back for as many, and has the rest for its last phase.
RISING = 0.45
# A range test stops when the loss is so many times what it was at first. One batch's loss says
# little: medians of so many losses are compared.
EXPLODED = 4
LOSSES = 5


@keras.saving.register_keras_serializable(package="trainwell")
class PowerDecay(keras.optimizers.schedules.LearningRateSchedule):  # type: ignore[misc]
    """Power scheduling: initial_learning_rate / (1 + step / decay_steps)^power.

    With `power=1` it is Keras's `InverseTimeDecay` with a decay rate of 1: after `decay_steps`
    steps the rate is a half, after twice as many a third, and so on ever more slowly.

    Args:
        initial_learning_rate: The rate at step 0.
        decay_steps: The scale s of the decay, in steps (batches).
        power: The exponent c.

    Raises:
        ValueError: If an argument is not positive and finite.
    """

    def __init__(
        self, initial_learning_rate: float, decay_steps: float, power: float = 1.0
    ) -> None:
        """Check the arguments."""
        self.initial_learning_rate = initial_learning_rate
        self.decay_steps = decay_steps
        self.power = power
        for name, value in self.get_config().items():
            check_positive(name, value)

    def __call__(self, step: Any) -> Any:
        """Return the rate at a step, or at each of an array of steps."""
        step = ops.cast(step, keras.config.floatx())
        return self.initial_learning_rate / (1 + step / self.decay_steps) ** self.power

    def get_config(self) -> dict[str, float]:
        """Return the arguments, for Keras to save."""
        return {
            "initial_learning_rate": self.initial_learning_rate,
            "decay_steps": self.decay_steps,
            "power": self.power,
        }


@keras.saving.register_keras_serializable(package="trainwell")
class OneCycle(keras.optimizers.schedules.LearningRateSchedule):  # type: ignore[misc]
    """1cycle: the learning rate rises, falls back, and at last falls by orders of magnitude.

    It is linear from `initial_learning_rate` up to the peak in 45 % of the steps, down again in as
    many, and down to `final_learning_rate` in the rest. The last of `total_steps` has exactly that
    rate, and so has every later step. Smith, arXiv:1803.09820; Smith and Topin, arXiv:1708.07120.

    This is the learning rate alone, for any optimizer. `OneCycleSGD` lets the momentum cycle too.

    Args:
        peak_learning_rate: The highest rate; `lr_range_test` helps to find it.
        total_steps: How many steps (batches) the training takes: epochs times batches an epoch.
        initial_learning_rate: The rate at step 0; None for a tenth of the peak.
        final_learning_rate: The last rate; None for a thousandth of the initial one.

    Raises:
        ValueError: If not 0 <= final < initial < peak, or `total_steps` is less than 4.
    """

    def __init__(
        self,
        peak_learning_rate: float,
        total_steps: int,
        initial_learning_rate: float | None = None,
        final_learning_rate: float | None = None,
    ) -> None:
        """Check the arguments, and place the phases."""
        check_positive("peak_learning_rate", peak_learning_rate)
        if initial_learning_rate is None:
            initial_learning_rate = peak_learning_rate / 10
        check_number("initial_learning_rate", initial_learning_rate)
        if final_learning_rate is None:
            final_learning_rate = initial_learning_rate / 1000
        check_number("final_learning_rate", final_learning_rate)
        if not 0 <= final_learning_rate < initial_learning_rate < peak_learning_rate:
            raise ValueError(
                "1cycle takes 0 <= final_learning_rate < initial_learning_rate < "
                f"peak_learning_rate, got {final_learning_rate}, {initial_learning_rate} and "
                f"{peak_learning_rate}."
            )
        if not isinstance(total_steps, int | np.integer) or total_steps < 4:
            raise ValueError(
                f"total_steps must be a whole number, at least 4, got {total_steps!r}. It is the "
                "number of epochs times the number of batches an epoch."
            )
        self.peak_learning_rate = peak_learning_rate
        self.total_steps = total_steps
        self.initial_learning_rate = initial_learning_rate
        self.final_learning_rate = final_learning_rate
        self.last_step = total_steps - 1  # steps count from 0
        self.peak_step = int(RISING * self.last_step)

    def height(self, step: Any) -> Any:
        """Return where in the cycle a step is: 1 at the peak, 0 at its two feet and after it."""
        step = ops.cast(step, keras.config.floatx())
        return 1 - ops.abs(ops.minimum(step, 2 * self.peak_step) - self.peak_step) / self.peak_step

    def __call__(self, step: Any) -> Any:
        """Return the rate at a step, or at each of an array of steps."""
        height = self.height(step)
        step = ops.cast(step, keras.config.floatx())
        foot = 2 * self.peak_step
        fallen = ops.clip((step - foot) / (self.last_step - foot), 0, 1)
        base = (1 - fallen) * self.initial_learning_rate + fallen * self.final_learning_rate
        return base + height * (self.peak_learning_rate - self.initial_learning_rate)

    def get_config(self) -> dict[str, float]:
        """Return the arguments, for Keras to save."""
        return {
            "peak_learning_rate": self.peak_learning_rate,
            "total_steps": self.total_steps,
            "initial_learning_rate": self.initial_learning_rate,
            "final_learning_rate": self.final_learning_rate,
        }


@keras.saving.register_keras_serializable(package="trainwell")
class OneCycleSGD(keras.optimizers.SGD):  # type: ignore[misc]
    """SGD whose momentum is low when the learning rate of its `OneCycle` is high.

    v <- beta v - rate g; w <- w + v, where the rate rises and falls as `OneCycle` says, and beta
    falls linearly from `momentum` to `momentum_at_peak` and rises back, in the same steps. It stays
    at `momentum` in the last phase. Smith, arXiv:1803.09820, section 4.3.

    Args:
        learning_rate: A `OneCycle`.
        momentum: The momentum at the start, and in the last phase.
        momentum_at_peak: The momentum at the peak of the learning rate.
        nesterov: Whether the momentum is Nesterov's, in Keras's form.
        **kwargs: What `keras.optimizers.SGD` takes besides: `weight_decay`, `clipnorm`, ...

    Raises:
        ValueError: If `learning_rate` is no `OneCycle`, or not 0 <= momentum_at_peak <= momentum,
            0 < momentum < 1.
    """

    def __init__(
        self,
        learning_rate: OneCycle,
        momentum: float = 0.95,
        momentum_at_peak: float = 0.85,
        nesterov: bool = False,
        **kwargs: Any,
    ) -> None:
        """Check the arguments."""
        if not isinstance(learning_rate, OneCycle):
            raise ValueError(
                f"learning_rate must be a OneCycle, got {learning_rate!r}. For any other take "
                "keras.optimizers.SGD."
            )
        check_number("momentum", momentum)
        check_number("momentum_at_peak", momentum_at_peak)
        if not 0 < momentum < 1:
            raise ValueError(f"momentum must be more than 0 and less than 1, got {momentum}.")
        if not 0 <= momentum_at_peak <= momentum:
            raise ValueError(
                f"momentum_at_peak must be at least 0 and at most momentum, {momentum}, got "
                f"{momentum_at_peak}."
            )
        super().__init__(learning_rate, momentum=momentum, nesterov=nesterov, **kwargs)
        self.cycle = learning_rate
        self.momentum_at_peak = momentum_at_peak

    def momentum_at(self, step: Any) -> Any:
        """Return the momentum at a step, or at each of an array of steps."""
        return self.momentum - (self.momentum - self.momentum_at_peak) * self.cycle.height(step)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Update one variable; Keras calls this."""
        # Keras's SGD reads its momentum once, when the step is compiled. This one is computed in
        # the compiled step, from the same counter of steps from which Keras computes the rate.
        beta = ops.cast(self.momentum_at(self._iterations), variable.dtype)
        learning_rate = ops.cast(learning_rate, variable.dtype)
        downhill = ops.multiply(ops.cast(gradient, variable.dtype), learning_rate)
        velocity = self.momentums[self._get_variable_index(variable)]
        self.assign(velocity, ops.subtract(ops.multiply(velocity, beta), downhill))
        if self.nesterov:
            self.assign_add(variable, ops.subtract(ops.multiply(velocity, beta), downhill))
        else:
            self.assign_add(variable, velocity)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments, for Keras to save."""
        return {**super().get_config(), "momentum_at_peak": self.momentum_at_peak}


def lr_range_test(
    model: Any,
    x: npt.ArrayLike,
    y: npt.ArrayLike,
    *,
    min_learning_rate: float = 1e-5,
    max_learning_rate: float = 10.0,
    steps: int = 200,
    batch_size: int = 32,
    seed: int = 0,
) -> pd.DataFrame:
    """Train a few steps with an ever larger learning rate; return the loss at each.

    The rate grows by the same factor every step. The loss first falls, and explodes where the rate
    is too large: take a rate some ten times below that. Look at the lowest point too, for a network
    that has died may stay at the loss of guessing for a while before its loss explodes.
    Smith, arXiv:1506.01186, grows the rate linearly.
    The model's weights and its optimizer's state are left as they were found.

    Args:
        model: A compiled Keras model whose optimizer has a number for a learning rate.
        x: Inputs, an array with one example a row.
        y: Targets, as many as inputs.
        min_learning_rate: The rate of the first step.
        max_learning_rate: The rate of the last step.
        steps: The number of steps at most.
        batch_size: Examples a step, drawn at random.
        seed: Decides which examples are drawn.

    Returns:
        One row a step, with the columns `step` (from 1), `learning_rate` and `loss`, the loss of
        the step's batch before the step. It ends early when a loss is not finite, or the median of
        the last five is more than four times that of the first five. Where that is negative, the
        rise from it counts: three times its size.

    Raises:
        ValueError: If the model is not compiled or not built, its optimizer has a schedule, the
            data are empty, of different lengths or not finite, not
            0 < min_learning_rate < max_learning_rate, `steps` is less than 2, or `batch_size` less
            than 1.
    """
    x, y = np.asarray(x), np.asarray(y)
    _check_range_test(model, x, y, min_learning_rate, max_learning_rate, steps, batch_size)
    draw = np.random.default_rng(seed)
    model.optimizer.build(model.trainable_variables)
    # With the weights come the states of batch norm and of dropout's random numbers.
    variables = [*model.variables, *model.optimizer.variables]
    found = [np.array(variable.numpy()) for variable in variables]
    rows: list[tuple[int, float, float]] = []
    rates = np.geomspace(min_learning_rate, max_learning_rate, steps)
    try:
        for step, rate in enumerate(tqdm(rates, unit="step", disable=not show_progress()), start=1):
            batch = draw.choice(len(x), min(batch_size, len(x)), replace=False)
            model.optimizer.learning_rate = rate
            model.reset_metrics()  # else Keras returns the mean loss of all steps so far
            loss = float(model.train_on_batch(x[batch], y[batch], return_dict=True)["loss"])
            rows.append((step, float(rate), loss))
            if not math.isfinite(loss):
                break
            losses = [row[2] for row in rows]
            first, last = np.median(losses[:LOSSES]), np.median(losses[-LOSSES:])
            # The rise counts, not the ratio: a loss may be negative.
            if last - first > (EXPLODED - 1) * abs(first):
                break
    finally:
        for variable, value in zip(variables, found, strict=True):
            variable.assign(value)
        model.reset_metrics()
    return pd.DataFrame(rows, columns=["step", "learning_rate", "loss"])


def _check_range_test(
    model: Any,
    x: npt.NDArray[Any],
    y: npt.NDArray[Any],
    min_learning_rate: float,
    max_learning_rate: float,
    steps: int,
    batch_size: int,
) -> None:
    if not model.compiled:
        raise ValueError(f"model {model.name!r} is not compiled: call model.compile(...) first.")
    if not model.built:
        raise ValueError(f"model {model.name!r} has no weights yet: give it a keras.Input.")
    if not isinstance(model.optimizer.learning_rate, keras.Variable):
        raise ValueError(
            "model's optimizer has a learning rate schedule: compile it with a number for its "
            "learning rate. The test sets the rate itself."
        )
    if len(x) != len(y) or len(x) == 0:
        raise ValueError(
            f"x and y must have equally many rows, one or more, got {len(x)} and {len(y)}."
        )
    check_finite("x", x)
    check_finite("y", y)
    check_positive("max_learning_rate", max_learning_rate)
    check_positive("min_learning_rate", min_learning_rate)
    if not min_learning_rate < max_learning_rate:
        raise ValueError(
            "min_learning_rate must be less than max_learning_rate, got "
            f"{min_learning_rate} and {max_learning_rate}."
        )
    for name, value, least in [("steps", steps, 2), ("batch_size", batch_size, 1)]:
        check_whole(name, value, least)
