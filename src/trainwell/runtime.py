"""Where and how a page runs: profile, sizes, seeds, device and versions.

Two profiles run the same code. `full` (the default) is what the book publishes; `quick`
uses less data, fewer epochs and fewer seeds, for previews and tests. Set it with the
environment variable `TRAINWELL_PROFILE`. No page asks which profile it is in: it asks
for its sizes here.
"""

import contextlib
import functools
import os
import platform
import sys
from collections.abc import Callable, Iterable, Iterator
from importlib import metadata
from typing import Any, Literal, TypeVar

from trainwell._checks import check_whole

Profile = Literal["full", "quick"]
T = TypeVar("T")

# What the quick profile grants at most.
QUICK_SEEDS = 1
QUICK_EPOCHS = 2
QUICK_EXAMPLES = 1_000

# With so many seeds set, kernels go all the same: those of models that are gone would stay.
SEEDS_WITH_SAME_KERNELS = 20


def profile() -> Profile:
    """Return the profile in force, from `TRAINWELL_PROFILE`.

    Raises:
        ValueError: If the variable holds anything but `full` or `quick`.
    """
    name = os.environ.get("TRAINWELL_PROFILE") or "full"
    if name == "full":
        return "full"
    if name == "quick":
        return "quick"
    raise ValueError(f"TRAINWELL_PROFILE must be 'full' or 'quick', got {name!r}.")


def seeds(count: int) -> list[int]:
    """Return the seeds 0 to `count` - 1; in the quick profile, only 0."""
    return list(range(_at_most(count, QUICK_SEEDS, "count")))


def settings(values: Iterable[T], preview: Literal[1, 2] = 2) -> list[T]:
    """Return the settings to try, in a list; in the quick profile, the first and the last.

    Args:
        values: The settings.
        preview: 1 for the first alone in the quick profile, where one is enough to go on with:
            while tuning, say.
    """
    every = list(values)
    if profile() == "full" or len(every) <= preview:
        return every
    return [every[0], every[-1]][:preview]


def epochs(count: int) -> int:
    """Return how many epochs to train: `count`; in the quick profile, at most two."""
    return _at_most(count, QUICK_EPOCHS, "count")


def examples(count: int) -> int:
    """Return how many examples to use: `count`; in the quick profile, at most 1,000."""
    return _at_most(count, QUICK_EXAMPLES, "count")


def show_progress() -> bool:
    """Return whether long work shows a progress bar.

    It does in a notebook and in a terminal, unless `TRAINWELL_PROGRESS=0`, as in the build of
    the book; it does not where the output goes to a file.
    """
    chosen = os.environ.get("TRAINWELL_PROGRESS")
    if chosen is not None:
        return chosen != "0"
    ipython = sys.modules.get("IPython")
    in_notebook = ipython is not None and ipython.get_ipython() is not None
    return in_notebook or sys.stderr.isatty()


def cores() -> int:
    """Return how many processor cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def device() -> str:
    """Return the device that Keras computes on, in words: `CPU`, or the GPU's name."""
    import keras

    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        for gpu in tf.config.list_physical_devices("GPU"):
            return str(tf.config.experimental.get_device_details(gpu).get("device_name", "GPU"))
    elif backend == "jax":
        import jax

        first = jax.devices()[0]
        if first.platform != "cpu":
            return str(first.device_kind)
    return "CPU"


def compiled(function: Callable[..., Any], *arguments: Any) -> Callable[..., Any]:
    """Return `function` compiled by the backend, for tensors of the shapes of `arguments`."""
    import keras

    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        traced = tf.function(function, autograph=False)
        return traced.get_concrete_function(*arguments)  # type: ignore[no-any-return]
    if backend == "jax":
        import jax

        return jax.jit(function).lower(*arguments).compile()  # type: ignore[no-any-return]
    return function


def traced(function: Callable[..., Any], *tensors: Any) -> Any:
    """Return `function` traced by TensorFlow, for any number of rows of tensors like these."""
    import tensorflow as tf

    rows = [tf.TensorSpec([None, *tensor.shape[1:]], tensor.dtype) for tensor in tensors]
    return tf.function(function, autograph=False).get_concrete_function(*rows)


@contextlib.contextmanager
def graphs_as_written() -> Iterator[None]:
    """Keep TensorFlow from rewriting the graphs that it runs for the first time meanwhile.

    The rewriting takes a tenth of a second for each, and makes the steps of a small network no
    faster. Other backends have nothing like it.
    """
    import keras

    if keras.backend.backend() != "tensorflow":
        yield
        return
    import tensorflow as tf

    option = "disable_meta_optimizer"
    before = tf.config.optimizer.get_experimental_options().get(option, False)
    tf.config.optimizer.set_experimental_options({option: True})
    try:
        yield
    finally:
        tf.config.optimizer.set_experimental_options({option: before})


@functools.cache  # a second time, or in a copy of the process, there is nothing left to do
def keep_kernels() -> None:
    """Let TensorFlow keep its kernels, in this process and from now on, when a seed is set.

    A kernel is an operation, or a traced function, that is ready to run. TensorFlow throws all of
    them away whenever a seed is set, because a few draw random numbers and go on from where they
    are. To make them again takes as long as a small network trains in an epoch, and Keras needs
    none of those: what it draws comes from variables. So here they are thrown away when the first
    of those few is made after a seed was set. The numbers are the same; but `tf.raw_ops`, which
    nothing can watch, then draw on from where they are.

    Call it before the process traces a function.
    """
    import keras

    if keras.backend.backend() != "tensorflow":
        return
    import tensorflow as tf
    from tensorflow.python import pywrap_tfe
    from tensorflow.python.framework import random_seed

    throw_away, get_seed = pywrap_tfe.TFE_ContextClearCaches, random_seed.get_seed
    overdue: list[Any] = []  # TensorFlow's context, once for each seed that was set since
    drawn_in_functions = False

    def throw_away_now() -> None:
        if overdue:
            throw_away(overdue[0])
            overdue.clear()

    def throw_away_later(context: Any) -> None:
        overdue.append(context)
        if drawn_in_functions or len(overdue) == SEEDS_WITH_SAME_KERNELS:
            throw_away_now()

    def get_seed_of_new_operation(seed: int | None) -> Any:
        """Return what an operation that draws from its kernel asks for when it is made."""
        nonlocal drawn_in_functions
        throw_away_now()
        # A traced function asks once, and draws each time. That of a data set is made with it.
        if not tf.executing_eagerly():
            name = tf.compat.v1.get_default_graph().name
            drawn_in_functions |= not name.startswith("Dataset_")
        return get_seed(seed)

    pywrap_tfe.TFE_ContextClearCaches = throw_away_later
    random_seed.get_seed = get_seed_of_new_operation


def shuffled_blocks(x: Any, y: Any, size: int, *, copy: bool) -> Iterable[tuple[Any, Any]]:
    """Return blocks of `size` examples as TensorFlow tensors, shuffled as Keras would do it.

    Args:
        x: Inputs, an array.
        y: Targets, an array.
        size: Examples a block. The last may have fewer.
        copy: Whether the data may be copied into their order once. With a seed, Keras has the same
            order in every epoch, and would still shuffle and cut in each: that takes as long as
            training on a thousand examples.
    """
    import tensorflow as tf
    from keras.src.trainers.data_adapters.array_data_adapter import ArrayDataAdapter
    from keras.src.trainers.data_adapters.array_slicing import convert_to_sliceable
    from tensorflow.python.eager import context

    seed = context.global_seed()
    if seed is None or not copy:
        adapter = ArrayDataAdapter(x, y, batch_size=size, shuffle=True)
        return adapter.get_tf_dataset()  # type: ignore[no-any-return]
    order = _order(seed, len(x))
    # As Keras does: 64-bit floats become 32-bit ones, for example.
    x, y = map(tf.convert_to_tensor, convert_to_sliceable((x, y), target_backend="tensorflow"))
    parts = [order[start : start + size] for start in range(0, len(order), size)]
    return [(tf.gather(x, part), tf.gather(y, part)) for part in parts]


@functools.lru_cache(maxsize=32)
def _order(seed: int, rows: int) -> Any:
    """Return the order in which Keras takes so many examples, with this seed of TensorFlow's.

    A grid asks for few orders again and again, and Keras's input pipeline is slow to make.
    """
    import numpy as np
    from keras.src.trainers.data_adapters.array_data_adapter import ArrayDataAdapter

    numbers = ArrayDataAdapter(np.arange(rows), batch_size=rows, shuffle=True)
    (order,) = numbers.get_tf_dataset()
    return order.numpy()


def versions() -> dict[str, str]:
    """Return the versions that decide a run's numbers, by name."""
    import keras

    backend = keras.backend.backend()
    names = ["keras", backend, "numpy", "pandas", "scikit-learn"]
    return {"python": platform.python_version(), **{n: metadata.version(n) for n in names}}


def _at_most(count: int, quick: int, name: str) -> int:
    check_whole(name, count, 1)
    return count if profile() == "full" else min(count, quick)


# Steps as small as this course's keep one thread busy, not two: on two cores, 784-300-100-10 at
# batch 32 trains faster with one and takes a third less processor time, and a small convolutional
# network is no slower. TensorFlow reads this when it first computes, so import the package first.
# More cores are left to TensorFlow, and so is whoever sets the variable.
if cores() <= 2:
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
