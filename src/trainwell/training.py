"""`fit`: Keras's fit made fast for small models, with a tidy history.

Between two small training steps, Keras on TensorFlow spends more time in Python and in fetching
the next batch than the step itself takes. `fit` takes blocks of many batches, cut once for all
epochs, and goes through a block inside TensorFlow. The batches are the same, in the same order, so
the weights and the history are the same too. What TensorFlow traces for one model serves
all models of its make: those that differ in weights, seeds or learning rate only.

Elsewhere `fit` is Keras's own: on JAX, where a step does not wait for Python, and on a GPU, where
XLA compiles a step for batches of one size.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import pandas as pd
from tqdm import tqdm

from trainwell._checks import check_finite, check_whole
from trainwell._traced import Step
from trainwell.runtime import graphs_as_written, show_progress, shuffled_blocks

# Small beside any data set; larger blocks are no faster, and Ctrl+C waits for the end of one.
BLOCK_BYTES = 2**23
# Data of up to so many blocks, 800 MB, are copied once into the order of the epochs.
COPY_BLOCKS = 100
# Evaluation needs no gradients: large batches give the same numbers sooner.
EVALUATION_BATCH = 2_048
# Inputs of so many numbers, 5,000 images of 28 x 28 say, are evaluated as one batch: 16 MB.
EVALUATE_AT_ONCE = 4_000_000
# What is in the names of Keras's losses and errors. Of other metrics, more is better.
LOWER_IS_BETTER = ["loss", "error", "entropy", "divergence", "hinge", "poisson", "log_cosh"]
LOWER_IS_BETTER += ["mae", "mse", "mape", "msle", "huber", "false_"]
# These losses only by their whole names: of a dice coefficient, say, more is better.
LOWER_IS_BETTER_IF_WHOLE = ["bce", "circle", "ctc", "dice", "kld", "tversky"]

Split = tuple[Any, Any]


@dataclass(frozen=True)
class History:
    """What a training run measured.

    Attributes:
        frame: One number a row, with the columns `epoch` (from 1), `split` (`train`, `valid`, or
            the name given to `fit`), `metric` (`loss` and the compiled metrics) and `value`.
        seconds: Wall time of the run, in seconds.
    """

    frame: pd.DataFrame
    seconds: float

    def last(self, metric: str, split: str = "valid") -> float:
        """Return a metric's value after the last epoch."""
        return float(self._values(metric, split).iloc[-1])

    def best(self, metric: str, split: str = "valid") -> float:
        """Return a metric's best value: the lowest of a loss or an error, else the highest."""
        values = self._values(metric, split)
        lower_is_better = metric in LOWER_IS_BETTER_IF_WHOLE or any(
            word in metric for word in LOWER_IS_BETTER
        )
        return float(values.min() if lower_is_better else values.max())

    def _values(self, metric: str, split: str) -> "pd.Series[float]":
        rows = (self.frame["metric"] == metric) & (self.frame["split"] == split)
        if not rows.any():
            known = self.frame[["split", "metric"]].drop_duplicates().to_numpy().tolist()
            raise KeyError(f"no metric {metric!r} of the split {split!r}; there are {known}.")
        return self.frame.loc[rows, "value"]


class DivergedError(FloatingPointError):
    """The training loss became nan or infinite.

    Attributes:
        history: What was measured, up to the epoch with that loss.
    """

    history: History


def fit(
    model: Any,
    x: Any,
    y: Any,
    *,
    epochs: int,
    batch_size: int = 32,
    validation_data: Split | Mapping[str, Split] | None = None,
    callbacks: Sequence[keras.callbacks.Callback] | keras.callbacks.Callback | None = (),
) -> History:
    """Train a compiled model as `model.fit` does, only faster.

    After `keras.utils.set_random_seed`, the weights are those that plain `model.fit` reaches. On
    TensorFlow, Keras then shuffles the data once: every epoch goes through it in the same order,
    of which `fit` keeps a copy while it runs.

    Args:
        model: A compiled Keras model. It is left as it was found, but for the training.
        x: Inputs, an array with one example a row.
        y: Targets, as many as inputs.
        epochs: How often to go through the data.
        batch_size: Examples a step. The last batch of an epoch may be smaller.
        validation_data: `(x, y)`, evaluated after each epoch as the split `valid`; or a mapping
            of names to such pairs. Callbacks see the metrics of the first as `val_...`.
        callbacks: Keras callbacks, or one alone. One that acts on batches is called for each of
            them, at the price of the speed: `TerminateOnNaN`, `ModelCheckpoint` and `TensorBoard`
            do.

    Returns:
        The history.

    Raises:
        DivergedError: If the training loss is nan or infinite after an epoch. The training ends
            there, for no later epoch would bring it back; the error's `history` has it up to there.
        ValueError: If the model is not compiled, data are no arrays, empty, of different lengths or
            not finite, `validation_data` is no pair or names a split `train`, or `epochs` or
            `batch_size` is less than 1.
    """
    splits = _named_splits(validation_data)
    _check(model, {"x and y": (x, y), **splits}, epochs, batch_size)
    if isinstance(callbacks, keras.callbacks.Callback):
        callbacks = [callbacks]
    callbacks = callbacks or []
    evaluate = _Evaluate(splits)
    bar = tqdm(total=epochs, unit="epoch", leave=None, disable=not show_progress())
    callbacks = [evaluate, _Progress(bar), *callbacks, _StopIfNotFinite()]
    start = time.perf_counter()
    with bar:
        if _can_train_in_blocks(model) and not any(map(_acts_on_batches, callbacks)):
            logs = _fit_in_blocks(model, x, y, epochs, batch_size, callbacks)
        else:
            logs = model.fit(
                x, y, epochs=epochs, batch_size=batch_size, callbacks=callbacks, verbose=0
            ).history
    seconds = time.perf_counter() - start
    rows = [
        (epoch, "train", name, value)
        for name, values in logs.items()
        if not name.startswith("val_")
        for epoch, value in enumerate(values, start=1)
    ]
    frame = pd.DataFrame(rows + evaluate.rows, columns=["epoch", "split", "metric", "value"])
    history = History(frame, seconds)
    if not math.isfinite(logs.get("loss", [0.0])[-1]):
        raise _diverged(model, history, epochs)
    return history


class _StopIfNotFinite(keras.callbacks.Callback):  # type: ignore[misc]
    """End the training after an epoch whose loss is nan or infinite."""

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float]) -> None:
        # A model with a `train_step` of its own may log no loss.
        if not math.isfinite(logs.get("loss", 0.0)):
            self.model.stop_training = True


def _diverged(model: Any, history: History, epochs: int) -> DivergedError:
    rate = float(keras.ops.convert_to_tensor(model.optimizer.learning_rate))
    error = DivergedError(
        f"the training loss became {history.last('loss', 'train')} in epoch "
        f"{history.frame['epoch'].max()} of {epochs}. Lower the learning rate, which is {rate:g}, "
        "or look for very large numbers in the data."
    )
    error.history = history
    return error


class _Evaluate(keras.callbacks.Callback):  # type: ignore[misc]
    """Evaluate the splits after each epoch; tell other callbacks of the first, as Keras does."""

    def __init__(self, splits: Mapping[str, Split]) -> None:
        super().__init__()
        # A small split is one batch, which needs no input pipeline: that takes longer than the
        # arithmetic. It is brought to the device once, not in every epoch.
        self.splits = {
            name: tuple(map(keras.ops.convert_to_tensor, split)) if self._is_small(split) else split
            for name, split in splits.items()
        }
        self.step: Step | None = None
        self.rows: list[tuple[int, str, str, float]] = []

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        for number, (split, (x, y)) in enumerate(self.splits.items()):
            values = self.evaluate(x, y)
            self.rows += [(epoch + 1, split, name, value) for name, value in values.items()]
            if number == 0:
                logs.update({f"val_{name}": value for name, value in values.items()})

    def evaluate(self, x: Any, y: Any) -> dict[str, float]:
        if self._is_small((x, y)):
            values = self._as_one_batch(x, y)
        else:
            values = self.model.evaluate(
                x, y, batch_size=EVALUATION_BATCH, verbose=0, return_dict=True
            )
        return {name: float(value) for name, value in values.items()}

    def _as_one_batch(self, x: Any, y: Any) -> dict[str, Any]:
        self.model.reset_metrics()  # Keras 3.13 leaves the training's in them
        if not _can_train_in_blocks(self.model):
            return self.model.test_on_batch(x, y, return_dict=True)  # type: ignore[no-any-return]
        if self.step is None:
            self.step = Step(
                self.model, "evaluate", lambda x, y: self.model.test_step((x, y)), trains=False
            )
        return self.step(x, y)  # type: ignore[no-any-return]

    @staticmethod
    def _is_small(split: Split) -> bool:
        return math.prod(np.shape(split[0])) <= EVALUATE_AT_ONCE


class _Progress(keras.callbacks.Callback):  # type: ignore[misc]
    """Move a progress bar on after each epoch, with the losses beside it."""

    def __init__(self, bar: Any) -> None:
        super().__init__()
        self.bar = bar

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        losses = {name: f"{value:.4f}" for name, value in (logs or {}).items() if "loss" in name}
        self.bar.set_postfix(losses, refresh=False)
        self.bar.update()


def _can_train_in_blocks(model: Any) -> bool:
    return (
        keras.backend.backend() == "tensorflow"
        and not model.jit_compile
        and not model.run_eagerly
        and type(model).train_step is keras.Model.train_step
        # Limits for trying things out: Keras's own loop knows what they mean.
        and not (keras.config.max_epochs() or keras.config.max_steps_per_epoch())
    )


def _make_variables(model: Any, x: Any, y: Any) -> None:
    """Give the optimizer and the metrics their variables: a step is traced with what is there."""
    shape = model.output_shape if isinstance(model, keras.Sequential) and model.built else None
    if isinstance(shape, tuple) and all(isinstance(length, int) for length in shape[1:]):
        # Keras would call the model and its loss symbolically, only to learn the outputs' shape.
        outputs = np.zeros((1, *shape[1:]), keras.config.floatx())
        for part in (model._compile_metrics, model._compile_loss):
            if part is not None and not part.built:
                part.build(y, outputs)
    model._symbolic_build(data_batch=(x, y))


def _fit_in_blocks(
    model: Any,
    x: Any,
    y: Any,
    epochs: int,
    batch_size: int,
    callbacks: Sequence[keras.callbacks.Callback],
) -> dict[str, list[float]]:
    """Do what `model.fit` does, with blocks of whole batches as steps; return its history."""
    _make_variables(model, x[:1], y[:1])
    size = batch_size * max(1, BLOCK_BYTES // (batch_size * np.asarray(x[:1]).nbytes))
    blocks = shuffled_blocks(x, y, size, copy=len(x) <= COPY_BLOCKS * size)
    train = Step(model, f"train {batch_size}", _in_batches(model, batch_size), trains=True)
    callback = keras.callbacks.CallbackList(
        callbacks, add_history=True, model=model, epochs=epochs, steps=-(-len(x) // batch_size)
    )
    model.stop_training = False
    with graphs_as_written():
        callback.on_train_begin()
        for epoch in range(epochs):
            model.reset_metrics()
            callback.on_epoch_begin(epoch)
            for block in blocks:
                logs = train(*block)
            callback.on_epoch_end(epoch, logs)
            if model.stop_training:
                break
        model.optimizer.finalize_variable_values(model.trainable_weights)
        callback.on_train_end(logs)
    return model.history.history  # type: ignore[no-any-return]


def _in_batches(model: Any, batch_size: int) -> Callable[[Any, Any], Any]:
    """Return a function that goes through a block batch by batch, training the model."""

    def train_on_block(x: Any, y: Any) -> Any:
        size = keras.ops.shape(x)[0]

        def step(start: Any) -> tuple[Any]:
            stop = keras.ops.minimum(start + batch_size, size)
            model.train_step((x[start:stop], y[start:stop]))
            return (stop,)

        keras.ops.while_loop(lambda start: start < size, step, (0,))
        return model.get_metrics_result()

    return train_on_block


def _acts_on_batches(callback: keras.callbacks.Callback) -> bool:
    hooks = ("on_batch_begin", "on_batch_end", "on_train_batch_begin", "on_train_batch_end")
    # Keras's LambdaCallback has its hooks as attributes: look at the callback, not at its class.
    bound = {hook: getattr(callback, hook) for hook in hooks}
    return any(
        getattr(method, "__func__", None) is not getattr(keras.callbacks.Callback, hook)
        for hook, method in bound.items()
    )


def _named_splits(validation_data: Split | Mapping[str, Split] | None) -> dict[str, Split]:
    if validation_data is None:
        return {}
    if isinstance(validation_data, Mapping):
        splits = dict(validation_data)
    else:
        splits = {"valid": validation_data}
    for name, pair in splits.items():
        if name == "train":
            raise ValueError(
                "validation_data has a split 'train', which is the name of the loss as logged in "
                "training. Call what is evaluated after each epoch otherwise: 'training images'."
            )
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise ValueError(
                "validation_data must be a pair (x, y), or a mapping of names to such pairs, got "
                f"{_described(pair)} for {name!r}."
            )
    return splits


def _described(value: Any) -> str:
    kind = type(value).__name__
    return f"{kind} of length {len(value)}" if hasattr(value, "__len__") else kind


def _check(model: Any, data: Mapping[str, Split], epochs: int, batch_size: int) -> None:
    if not model.compiled:
        raise ValueError(f"model {model.name!r} is not compiled: call model.compile(...) first.")
    for name, (x, y) in data.items():
        for part in (x, y):
            if not hasattr(part, "shape"):
                raise ValueError(
                    f"{name} must be arrays with one example a row, got {_described(part)}. "
                    "Make an array of it; of several inputs or outputs, model.fit takes a list."
                )
        if len(x) != len(y):
            raise ValueError(f"{name} must have equally many rows, got {len(x)} and {len(y)}.")
        if len(x) == 0:
            raise ValueError(f"{name} must have at least one row, got none.")
        # Else nothing would tell: TensorFlow's ReLU makes a 0 of nan where it is fused with Dense.
        for part in (x, y):
            check_finite(name, part)
    for name, value in [("epochs", epochs), ("batch_size", batch_size)]:
        check_whole(name, value, 1)
