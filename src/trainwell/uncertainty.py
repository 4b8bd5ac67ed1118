"""How sure a network is, and how far to believe it.

`mc_predict` is Monte Carlo dropout: it predicts many times with dropout on, and returns how the
predictions are spread. The other functions ask whether predicted probabilities are honest: of the
images that a network is 80 % sure of, does it get 80 % right? They take `probabilities` of shape
(n, classes), a softmax's outputs say, and `labels` of shape (n,), whole numbers from 0.
"""

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pandas as pd
from keras import layers, ops
from scipy.optimize import minimize_scalar
from tqdm import tqdm

from trainwell._checks import check_finite, check_whole
from trainwell.runtime import compiled, cores, show_progress

# `SpatialDropout1D` to `3D` and the course's `MCDropout` are kinds of these.
DROPOUT = (layers.Dropout, layers.AlphaDropout, layers.GaussianDropout)
# The logarithm of a probability that is 0 in float32 is taken of this instead.
TINY = float(np.finfo(np.float32).tiny)
# Where `temperature_scaling` looks.
TEMPERATURES = (0.05, 20.0)

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class MCPrediction:
    """What many passes with dropout predict for n examples.

    Attributes:
        mean: The mean over the passes, shape `(n, *outputs)`.
        std: Their standard deviation, as `np.std` has it; 0 where there is one pass.
        entropy: The entropy of the mean, in nats, shape (n,): all the uncertainty. Or None.
        mutual_information: The entropy of the mean less the mean entropy of the passes, in nats,
            shape (n,): how far the passes disagree. Or None.
    """

    mean: Array
    std: Array
    entropy: Array | None = None
    mutual_information: Array | None = None


def mc_predict(
    model: Any,
    x: npt.ArrayLike,
    passes: int = 100,
    seed: int = 0,
    *,
    batch_size: int = 128,
    information: bool = False,
) -> MCPrediction:
    """Predict many times with dropout on; return the predictions' mean and standard deviation.

    What `np.stack([model(x, training=True) for _ in range(passes)])` gives, without the stack:
    a batch at a time, all its passes, in running sums. Only dropout layers are switched on: batch
    normalization uses its moving averages, and noise and augmentation are off. Gal and Ghahramani,
    arXiv:1506.02142; the mutual information is BALD, Houlsby et al., arXiv:1112.5745.

    Masks are drawn from `seed` for each batch, pass and layer. So the same call gives the same
    numbers, but another `batch_size`, or other examples beside it, give an example other masks:
    its mean then moves by about `std / sqrt(passes)`.

    Args:
        model: A built Keras model with one input, one output, and a dropout layer at any depth.
            It is left as it was found, and so are its own random numbers and Keras's.
        x: Inputs, an array with one example a row.
        passes: How often to predict.
        seed: Decides the masks.
        batch_size: Examples at a time on each core; memory grows with it.
        information: Whether to return `entropy` and `mutual_information` too. The model's outputs
            must be class probabilities.

    Returns:
        The mean and the standard deviation over the passes, in float32 or better.

    Raises:
        ValueError: If `passes`, `batch_size` or `seed` is no whole number, or one too small, `x`
            empty, not finite or not of the model's shape, an output nan or infinite, or the outputs
            no probabilities where `information` needs them; if the model is not built, is a
            subclass that tells no inputs, has several inputs or outputs, or no dropout layer with a
            rate of more than 0. A recurrent layer's own `dropout` is no layer.
    """
    x = np.asarray(x)
    check_whole("passes", passes, 1)
    check_whole("batch_size", batch_size, 1)
    check_whole("seed", seed, 0)
    _check_model(model, x)
    dropout = _dropout_layers(model)
    weights = [variable.value for variable in model.variables]
    size = min(batch_size, len(x))
    over_a_batch = _passes_over_a_batch(model, dropout, passes, information)
    predict = compiled(over_a_batch, x[:size], _seeds(seed, 0, dropout), weights)
    starts = range(0, len(x), size)

    def predict_batch(number: int) -> list[Array]:
        start = starts[number]
        # The last batch is filled up with examples of the one before: one shape compiles once.
        first = min(start, len(x) - size)
        parts = predict(x[first : first + size], _seeds(seed, number, dropout), weights)
        return [ops.convert_to_numpy(part)[start - first :] for part in parts]

    results = []
    # A pass over a batch is too small for two threads: each core takes a batch of its own. Where
    # the backend compiles nothing, each call switches the dropout on and off: one at a time.
    at_once = 1 if predict is over_a_batch else cores()
    with ThreadPoolExecutor(at_once) as threads:
        batches = threads.map(predict_batch, range(len(starts)))
        for result in tqdm(batches, total=len(starts), unit="batch", disable=not show_progress()):
            results.append(result)
            _check_finite(result[0])
            if information:
                _check_rows("information=True needs class probabilities", result[0])
    return MCPrediction(*(np.concatenate(part) for part in zip(*results, strict=True)))


def seed_dropout(model: Any, seed: int = 0) -> None:
    """Let a model's dropout draw next the masks that `mc_predict` draws for its first batch.

    Then a plain loop of `model(x, training=True)` over at most `batch_size` examples makes the
    same passes as `mc_predict(model, x, seed=seed)`, to compare the two or to keep every pass.

    Args:
        model: A built Keras model. Its dropout layers' seed generators are changed.
        seed: As in `mc_predict`.

    Raises:
        ValueError: If it has no dropout layer with a rate of more than 0, or `seed` is no whole
            number of at least 0.
    """
    check_whole("seed", seed, 0)
    dropout = _dropout_layers(model)
    for layer, state in zip(dropout, _seeds(seed, 0, dropout), strict=True):
        layer.seed_generator.state.assign(state)


def _passes_over_a_batch(
    model: Any, dropout: list[Any], passes: int, information: bool
) -> Callable[..., list[Any]]:
    """Return the function that makes all passes over one batch, for the backend to compile."""
    before, after = _split(model, dropout)
    states = [layer.seed_generator.state for layer in dropout]

    def predict(batch: Any, seeds: Any, weights: list[Any]) -> list[Any]:
        def run(parts: list[Any], x: Any, seeds: Any) -> tuple[Any, Any]:
            """Run parts of the model, and leave its variables alone; return the next seeds too."""
            values = [*zip(model.variables, weights, strict=True)]
            values += zip(states, ops.unstack(seeds), strict=True)
            with keras.StatelessScope(values) as scope, _switched_on(dropout):
                for part in parts:
                    x = part(x, training=False) if _takes_training(part) else part(x)
            return x, ops.stack([scope.get_current_value(state) for state in states])

        def one_pass(seeds: Any) -> tuple[Any, Any, Any]:
            y, seeds = run(after, fixed, seeds)
            y = ops.cast(y, keras.backend.result_type(y.dtype, "float32"))
            return y, _entropy(y) if information else ops.zeros_like(y[0]), seeds

        def add_pass(number: Any, sums: tuple[Any, ...]) -> tuple[Any, ...]:
            mean, squares, mean_entropy, seeds = sums
            y, entropy, seeds = one_pass(seeds)
            count = ops.cast(number + 1, y.dtype)
            # Welford's sums: the mean of squares less the square of the mean would lose small
            # deviations to rounding.
            new_mean = mean + (y - mean) / count
            squares = squares + (y - mean) * (y - new_mean)
            return new_mean, squares, mean_entropy + (entropy - mean_entropy) / count, seeds

        fixed, seeds = run(before, ops.convert_to_tensor(batch, model.inputs[0].dtype), seeds)
        y, entropy, seeds = one_pass(seeds)
        sums = ops.fori_loop(1, passes, add_pass, (y, ops.zeros_like(y), entropy, seeds))
        mean, squares, mean_entropy, _ = sums
        results = [mean, ops.sqrt(squares / passes)]
        if information:
            entropy = _entropy(mean)
            results += [entropy, ops.maximum(entropy - mean_entropy, 0.0)]  # 0 but for rounding
        return results

    return predict


def _split(model: Any, dropout: list[Any]) -> tuple[list[Any], list[Any]]:
    """Return what is the same in every pass, the layers before the first dropout, and the rest."""
    parts = model.layers if type(model) is keras.Sequential else [model]
    first = next(
        number
        for number, part in enumerate(parts)
        if any(layer is one for layer in part._flatten_layers() for one in dropout)
    )
    return parts[:first], parts[first:]


def _dropout_layers(model: Any) -> list[Any]:
    """Return the layers that drop something, one at least, or raise."""
    dropout = [
        layer for layer in model._flatten_layers() if isinstance(layer, DROPOUT) and layer.rate > 0
    ]
    if not dropout:
        raise ValueError(
            f"model {model.name!r} has no dropout layer with a rate of more than 0, so that all "
            "passes would be the same. Add keras.layers.Dropout."
        )
    return dropout


@contextlib.contextmanager
def _switched_on(dropout: list[Any]) -> Iterator[None]:
    """Let dropout layers drop units although the model is called to predict."""
    # A layer whose call takes no `training`, `MCDropout` say, is always on.
    switched = [layer for layer in dropout if _takes_training(layer)]
    for layer in switched:
        layer.call = functools.partial(_call_in_training, layer)
    try:
        yield
    finally:
        for layer in switched:
            del layer.call  # now it is the class's again


def _call_in_training(layer: Any, inputs: Any, training: bool) -> Any:
    return type(layer).call(layer, inputs, training=True)


def _takes_training(layer: Any) -> bool:
    return "training" in inspect.signature(type(layer).call).parameters


def _seeds(seed: int, batch: int, dropout: list[Any]) -> Array:
    """Return the states from which the layers' seed generators start a batch, a row a layer.

    A state is a seed and a count: a layer draws its masks from both, then raises the count by 1.
    """
    generator = np.random.default_rng([seed, batch])
    seeds = generator.integers(2**31 - 1, size=len(dropout))
    return np.stack([seeds, 0 * seeds], axis=1).astype(dropout[0].seed_generator.state.dtype)


def _entropy(probabilities: Any) -> Any:
    """Return the entropy over the last axis, in nats."""
    return -ops.sum(probabilities * ops.log(ops.maximum(probabilities, TINY)), axis=-1)


def _check_model(model: Any, x: Array) -> None:
    if not model.built:
        raise ValueError(f"model {model.name!r} has no weights yet: give it a keras.Input.")
    if not hasattr(model, "inputs"):  # a subclass of keras.Model
        raise ValueError(
            f"model {model.name!r} doesn't tell its inputs: build it with the functional API or "
            "Sequential."
        )
    inputs, outputs = len(model.inputs), len(model.outputs)
    if (inputs, outputs) != (1, 1):
        raise ValueError(
            f"model {model.name!r} must have one input and one output, got {inputs} and {outputs}."
        )
    if len(x.shape) == 0 or len(x) == 0:
        raise ValueError(f"x must have at least one row, got the shape {x.shape}.")
    _, *wanted = model.inputs[0].shape
    if len(x.shape) != len(wanted) + 1 or any(
        size not in (None, given) for size, given in zip(wanted, x.shape[1:], strict=True)
    ):
        shape = ", ".join(["n", *("any" if size is None else str(size) for size in wanted)])
        raise ValueError(f"x must have the model's shape ({shape}), got {x.shape}.")
    check_finite("x", x)


def negative_log_likelihood(probabilities: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Return the mean of -log(probability of the right class), in nats: the cross-entropy.

    Raises:
        ValueError: If the shapes don't fit, a row is no distribution, or a label no class.
    """
    p, labels = _checked(probabilities, labels)
    return float(-np.log(np.maximum(p[np.arange(len(p)), labels], TINY)).mean())


def brier_score(probabilities: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Return the mean squared distance to the right answer, from 0 to 2 (Brier, 1950).

    The distance is that of a row of probabilities to the row with 1 for the right class; its
    square is summed over the classes. With two classes, scikit-learn's is half of it by default.

    Raises:
        ValueError: As for `negative_log_likelihood`.
    """
    p, labels = _checked(probabilities, labels)
    return float(np.square(p - np.eye(p.shape[1])[labels]).sum(axis=1).mean())


def reliability(
    probabilities: npt.ArrayLike, labels: npt.ArrayLike, bins: int = 15
) -> pd.DataFrame:
    """Sort examples by their highest probability, the confidence, into bins of equal width.

    Returns:
        A row for each bin that has examples, with the columns `confidence` and `accuracy`, their
        means in the bin, and `count`. In an honest network the two are equal.

    Raises:
        ValueError: If `bins` is no whole number of at least 1, and as for
            `negative_log_likelihood`.
    """
    check_whole("bins", bins, 1)
    p, labels = _checked(probabilities, labels)
    confidence, right = p.max(axis=1), p.argmax(axis=1) == labels
    frame = pd.DataFrame({"confidence": confidence, "accuracy": right, "count": 1})
    aggregate = {"confidence": "mean", "accuracy": "mean", "count": "sum"}
    return frame.groupby(np.ceil(confidence * bins)).agg(aggregate).reset_index(drop=True)


def expected_calibration_error(
    probabilities: npt.ArrayLike, labels: npt.ArrayLike, bins: int = 15
) -> float:
    """Return how far confidence is from accuracy: the mean over the bins of `reliability`.

    Each bin counts by its examples. From 0 to 1. Guo et al., arXiv:1706.04599.

    Raises:
        ValueError: As for `reliability`.
    """
    table = reliability(probabilities, labels, bins)
    return float(
        np.average((table["accuracy"] - table["confidence"]).abs(), weights=table["count"])
    )


def temperature_scaling(probabilities: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Return the temperature that makes probabilities most honest: that of the lowest loss.

    Choose it on validation data. More than 1 tells that the network is too sure of itself. It is
    sought from .05 to 20. Guo et al., arXiv:1706.04599.

    Raises:
        ValueError: As for `negative_log_likelihood`.
    """
    p, labels = _checked(probabilities, labels)

    def loss(log_temperature: float) -> float:
        return negative_log_likelihood(at_temperature(p, np.exp(log_temperature)), labels)

    low, high = np.log(TEMPERATURES)
    return float(np.exp(minimize_scalar(loss, bounds=(low, high), method="bounded").x))


def at_temperature(probabilities: npt.ArrayLike, temperature: float) -> Array:
    """Return softmax(logits / temperature), shape (n, classes), for a softmax's outputs.

    The logarithms of the outputs are the logits, but for a constant a row, which softmax ignores.

    Raises:
        ValueError: If `temperature` is not positive or not finite, or a row is no distribution.
    """
    if not 0 < temperature < np.inf:
        raise ValueError(f"temperature must be more than 0 and finite, got {temperature}.")
    p = np.asarray(probabilities, dtype=np.float64)
    _check_rows("probabilities must be a softmax's outputs", p)
    # By the highest, for the sum not to underflow.
    scaled = (np.maximum(p, TINY) / p.max(axis=-1, keepdims=True)) ** (1 / temperature)
    return np.asarray(scaled / scaled.sum(axis=-1, keepdims=True))


def _checked(probabilities: npt.ArrayLike, labels: npt.ArrayLike) -> tuple[Array, Array]:
    """Return probabilities in float64 and labels, or raise."""
    p, labels = np.asarray(probabilities, dtype=np.float64), np.asarray(labels)
    if p.ndim != 2 or len(p) == 0 or labels.shape != p.shape[:1]:
        raise ValueError(
            "probabilities must have the shape (n, classes) and labels (n,), n at least 1, got "
            f"{p.shape} and {labels.shape}."
        )
    _check_rows("probabilities must be a softmax's outputs", p)
    if labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= p.shape[1]:
        raise ValueError(
            f"labels must be whole numbers from 0 to {p.shape[1] - 1}, got {labels.dtype} from "
            f"{labels.min()} to {labels.max()}."
        )
    return p, labels


def _check_finite(outputs: Array) -> None:
    odd = outputs[~np.isfinite(outputs)]
    if odd.size:
        raise ValueError(
            f"the model's outputs must be finite, got {odd[0]}: look for nan and infinite numbers "
            "in the model's weights, and for very large ones in x."
        )


def _check_rows(demand: str, rows: Array) -> None:
    """Raise unless the numbers on the last axis are a distribution, but for rounding."""
    sums = rows.sum(axis=-1)
    if rows.size and not (rows.min() >= 0 and np.allclose(sums, 1, atol=1e-3)):
        raise ValueError(
            f"{demand}, which are not negative and sum to 1, got {rows.min():g} at least and sums "
            f"from {sums.min():g} to {sums.max():g}. End the model in softmax."
        )
