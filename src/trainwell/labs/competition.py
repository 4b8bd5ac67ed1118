"""A competition on rows that nobody who competes gets: lab 8.

    task = draw(seed=3)                            # one table to practise on, labels and all
    predicted = network(task.x_train, task.y_train, task.x_new)   # the course's recipe
    hold(compete, seed=3)                          # the competition, on tables of your own

What competes is a function of `x_train`, `y_train` and `x_new` that returns predictions for
`x_new`. It gets tables that it has never seen, so it must learn each from its training rows; and
nothing learned by heart helps, since every table has another function, columns and noise. The
grader draws the tables from a number that no notebook contains, and asks for the predictions
across the wall of the sandbox: neither the number nor the labels of the new rows ever enter the
process that the student's code runs in (`grade.py`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from trainwell.from_scratch import AdamW

Array = npt.NDArray[Any]
Predict = Callable[[Array, Array, Array], Any]

TRAIN_ROWS, NEW_ROWS, COLUMNS = 300, 1_000, 8
HIDDEN = 6  # units of the network that makes the labels
CURVED = 1.3  # its part in the labels, where the linear part is 1
NOISE = 0.4  # its standard deviation, where what can be known has 1
UNIT = 5.0  # what that 1 is, in the unit of the labels

TAIL = 1.2  # the standard deviation of the logarithm, in the columns with a tail

ROUNDS = 10  # tables in a competition
LARGEST = 1e100  # of the predictions; the square of one much larger is infinite
T95 = 2.262  # Student's t with ROUNDS - 1 degrees of freedom: 95 % lie within


@dataclass(frozen=True)
class Task:
    """A table: x (rows, 8), y (rows,), to train on and new ones."""

    x_train: Array
    y_train: Array
    x_new: Array
    y_new: Array


def draw(seed: int) -> Task:
    """Draw a table: eight measurements of a process, and its yield in percent.

    The measurements hang together and have scales of their own, three of them long tails. The
    yield depends on them by a random function, a part of it linear, and has noise: no prediction
    has an expected squared error below 4 (a root of 2); the spread of the yield is about 5.4.
    """
    rng = np.random.default_rng(seed)
    rows = TRAIN_ROWS + NEW_ROWS
    mix = np.eye(COLUMNS) + 0.3 * rng.normal(size=(COLUMNS, COLUMNS))
    z = rng.normal(size=(rows, COLUMNS)) @ (mix / np.linalg.norm(mix, axis=0))
    linear = z @ rng.normal(size=COLUMNS)
    bends = np.tanh(z @ rng.normal(size=(COLUMNS, HIDDEN)) + rng.normal(size=HIDDEN))
    curved = bends @ rng.choice([-1.0, 1.0], size=HIDDEN)
    known = _standardised(linear) + CURVED * _standardised(curved)
    y = 70 + UNIT * (_standardised(known) + rng.normal(scale=NOISE, size=rows))
    tailed = np.arange(COLUMNS) < 3
    x = np.where(tailed, np.exp(TAIL * z), 3 + z) * 10 ** rng.uniform(-1, 3, size=COLUMNS)
    x = x[:, rng.permutation(COLUMNS)]
    parts = np.split(x, [TRAIN_ROWS]), np.split(y, [TRAIN_ROWS])
    return Task(parts[0][0], parts[1][0], parts[0][1], parts[1][1])


def always_the_mean(x_train: Array, y_train: Array, x_new: Array) -> Array:
    """Predict the mean of the training labels for every row."""
    return np.full(len(x_new), y_train.mean())


def linear(x_train: Array, y_train: Array, x_new: Array) -> Array:
    """Predict by a linear model, fitted by least squares."""
    mean, std = x_train.mean(axis=0), x_train.std(axis=0)
    x, new = ((np.column_stack([(a - mean) / std, np.ones(len(a))])) for a in (x_train, x_new))
    return np.asarray(new @ np.linalg.lstsq(x, y_train, rcond=None)[0])


def network(
    x_train: Array,
    y_train: Array,
    x_new: Array,
    *,
    units: Sequence[int] = (32, 32),
    rate: float = 0.01,
    decay: float = 0.0,
    epochs: int = 40,
    size: int = 32,
    seed: int = 0,
) -> Array:
    """Train the course's recipe on standardised inputs, and predict.

    He's initialization, SiLU, AdamW, a warm-up in the first tenth of the steps and then a cosine;
    a small network in NumPy, so that it starts at once. Other settings than these may be better.

    Args:
        x_train: The training rows, (rows, columns), in any units.
        y_train: Their labels, (rows,).
        x_new: The rows to predict, (rows, columns).
        units: The units of each hidden layer.
        rate: The highest learning rate.
        decay: AdamW's weight decay.
        epochs: How often it goes through the training rows.
        size: The rows in a batch.
        seed: Draws the initial weights and the order of the rows.

    Returns:
        The predictions for `x_new`, (rows,).
    """
    rng = np.random.default_rng(seed)
    mean, std = x_train.mean(axis=0), x_train.std(axis=0)
    x, new = (((rows - mean) / std).astype(np.float32) for rows in (x_train, x_new))
    middle, unit = y_train.mean(), y_train.std()
    y = ((y_train - middle) / unit).astype(np.float32)[:, None]
    kernel_shapes = list(pairwise([x.shape[1], *units, 1]))
    bias_shapes = [(1, width) for _, width in kernel_shapes]
    # AdamW takes one step for all kernels and one for all biases: each is a part of a vector.
    every_kernel, kernels = _parts_of_one(kernel_shapes)
    every_bias, biases = _parts_of_one(bias_shapes)
    kernel_gradient, by_kernel = _parts_of_one(kernel_shapes)
    bias_gradient, by_bias = _parts_of_one(bias_shapes)
    for kernel in kernels:
        kernel[:] = rng.normal(scale=(2 / len(kernel)) ** 0.5, size=kernel.shape)
    for_kernels, for_biases = AdamW(rate, weight_decay=decay), AdamW(rate, weight_decay=0.0)
    steps, step = epochs * -(-len(x) // size), 0
    for _ in range(epochs):
        order = rng.permutation(len(x))
        for start in range(0, len(x), size):
            step += 1
            for_kernels.learning_rate = for_biases.learning_rate = rate * _warm_cosine(step / steps)
            rows = order[start : start + size]
            values, slopes = [x[rows]], []
            for kernel, bias in zip(kernels[:-1], biases[:-1], strict=True):
                value, slope = _silu(values[-1] @ kernel + bias)
                values.append(value)
                slopes.append(slope)
            back = 2 * (values[-1] @ kernels[-1] + biases[-1] - y[rows]) / len(rows)
            for k in reversed(range(len(kernels))):
                by_kernel[k][:], by_bias[k][:] = values[k].T @ back, back.sum(axis=0)
                if k > 0:
                    back = back @ kernels[k].T * slopes[k - 1]
            every_kernel[:] = for_kernels.step(every_kernel, kernel_gradient)
            every_bias[:] = for_biases.step(every_bias, bias_gradient)
    for kernel, bias in zip(kernels[:-1], biases[:-1], strict=True):
        new, _ = _silu(new @ kernel + bias)
    return np.asarray((new @ kernels[-1] + biases[-1])[:, 0] * unit + middle)


# What there is to beat, and the points for it.
BASELINES: dict[str, tuple[Predict, int]] = {
    "the mean": (always_the_mean, 2),
    "linear": (linear, 3),
    "the recipe": (network, 5),
}


def rmse(predicted: Any, y: Array) -> float:
    """Return the root of the mean squared error.

    Raises:
        ValueError: If there is not one finite number below `LARGEST` for each row; the message
            says what came.
    """
    try:
        values = np.asarray(predicted, dtype=float)
    except (TypeError, ValueError, OverflowError):
        raise ValueError("the predictions are no array of numbers.") from None
    if values.shape != y.shape:
        raise ValueError(f"the predictions should have the shape {y.shape}, not {values.shape}.")
    if not (np.abs(values) < LARGEST).all():
        raise ValueError(f"a prediction is nan or infinite, or as large as {LARGEST:g}.")
    return float(np.sqrt(np.mean((values - y) ** 2)))


def compete(predict: Predict, secret: int) -> list[float]:
    """Return a competitor's error on each of the tables that this number draws."""
    errors = []
    for task in tables(secret):
        copies = task.x_train.copy(), task.y_train.copy(), task.x_new.copy()
        errors.append(rmse(predict(*copies), task.y_new))
    return errors


def tables(secret: int) -> list[Task]:
    """Return the tables of a competition."""
    seeds = np.random.SeedSequence(secret).generate_state(ROUNDS, np.uint64)
    return [draw(int(seed)) for seed in seeds]


def baselines(secret: int) -> dict[str, list[float]]:
    """Return the errors of the baselines on the same tables."""
    return {name: compete(predict, secret) for name, (predict, _) in BASELINES.items()}


def interval(worse: Sequence[float], better: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % interval of the mean of worse - better, paired by table (Student's t)."""
    apart = np.subtract(worse, better)
    reach = T95 * apart.std(ddof=1) / np.sqrt(len(apart))
    return float(apart.mean() - reach), float(apart.mean() + reach)


def judge(errors: Sequence[float], against: dict[str, list[float]]) -> tuple[int, str]:
    """Return the points for errors, and why: a baseline is beaten if the interval is above 0."""
    points, lines = 0, [f"your error, mean of {len(errors)} tables: {np.mean(errors):.2f}"]
    for name, (_, worth) in BASELINES.items():
        low, high = interval(against[name], errors)
        beaten = low > 0
        points += worth * beaten
        verdict = "beaten" if beaten else "ahead of you" if high < 0 else "not told apart"
        lines.append(
            f"{name}: {np.mean(against[name]):.2f}, less yours [{low:.2f}, {high:.2f}]: {verdict}, "
            f"{worth * beaten} of {worth} points"
        )
    return points, "\n".join(lines)


def hold(predict: Predict, seed: int) -> int:
    """Hold the competition here, print how it went, and return the points.

    Where a student's notebook is graded, the grader doesn't run this: it holds it outside.

    Raises:
        AssertionError: If not even the mean is beaten, or the predictions are none.
    """
    try:
        errors = compete(predict, seed)
    except ValueError as error:
        raise AssertionError(f"compete: {error}") from None
    points, text = judge(errors, baselines(seed))
    print(text)
    if not points:
        raise AssertionError(f"No baseline is beaten.\n{text}")
    return points


def places(errors: dict[str, list[float]]) -> list[tuple[int, str]]:
    """Return each name with its place, best mean first.

    Who can't be told apart from the first of a place, by the interval, shares it.
    """
    ranked = sorted(errors, key=lambda name: float(np.mean(errors[name])))
    found: list[tuple[int, str]] = []
    first, place = "", 0
    for number, name in enumerate(ranked, start=1):
        if not first or interval(errors[name], errors[first])[0] > 0:
            first, place = name, number
        found.append((place, name))
    return found


def _standardised(values: Array) -> Array:
    return np.asarray((values - values.mean()) / values.std())


def _parts_of_one(shapes: list[tuple[int, int]]) -> tuple[Array, list[Array]]:
    """Return a vector of zeros, and the views that cut it into arrays of these shapes."""
    sizes = [rows * columns for rows, columns in shapes]
    whole = np.zeros(sum(sizes), dtype=np.float32)
    parts = np.split(whole, np.cumsum(sizes)[:-1])
    return whole, [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]


def _silu(values: Array) -> tuple[Array, Array]:
    """Return values * sigmoid(values), and its derivative."""
    gate = 0.5 * (1 + np.tanh(values / 2))  # the sigmoid, without overflow
    return values * gate, gate * (1 + values * (1 - gate))


def _warm_cosine(share: float) -> float:
    """Return the factor of the rate after a share of the steps: up in a tenth, then a cosine."""
    if share < 0.1:
        return share / 0.1
    return float(0.5 * (1 + np.cos(np.pi * (share - 0.1) / 0.9)))
