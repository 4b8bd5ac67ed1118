"""Time `trainwell.training.fit` beside plain Keras: `make bench`.

Every round trains the same network twice, in a fresh process each time: with plain `model.fit`
in Keras's default settings, and with `fit`. The images are noise of Fashion-MNIST's shape: the
speed is the same. With a thread for each, the weights must come out the same too. Beside the times
stands that of the arithmetic alone, at the rate of a large matrix product on the same machine.
"""

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

SIZES = (784, 300, 100, 10)
IMAGES = 55_000
AIM = 2.5  # times as fast as plain Keras


def train(arm: str, epochs: int, batch_size: int, weights: Path) -> None:
    """Train in this process with one arm; save the weights, print each epoch's seconds."""
    if arm == "fit":
        # Before Keras: it chooses TensorFlow's threads. Plain Keras must not profit from that.
        from trainwell.training import fit
    import keras

    rng = np.random.default_rng(0)
    x = rng.random((IMAGES, 28, 28), dtype=np.float32)
    y = rng.integers(SIZES[-1], size=IMAGES)
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input(shape=(28, 28)), keras.layers.Flatten()])
    for units in SIZES[1:-1]:
        model.add(keras.layers.Dense(units, activation="relu", kernel_initializer="he_normal"))
    model.add(keras.layers.Dense(SIZES[-1], activation="softmax"))
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])

    ends = [time.perf_counter()]
    clock = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: ends.append(time.perf_counter())
    )
    if arm == "fit":
        fit(model, x, y, epochs=epochs, batch_size=batch_size, callbacks=[clock])
    else:
        model.fit(x, y, epochs=epochs, batch_size=batch_size, callbacks=[clock], verbose=0)
    np.savez(weights, *model.get_weights())
    print(json.dumps(np.diff(ends).tolist()))


def in_fresh_process(
    arm: str, epochs: int, batch_size: int, weights: Path, **environment: str
) -> list[float]:
    """Return the seconds of each epoch, trained in a process of its own."""
    command = [sys.executable, __file__, "--epochs", str(epochs), "--batch-size", str(batch_size)]
    child = subprocess.run(
        [*command, "--arm", arm, "--weights", str(weights)],
        env={**os.environ, "TRAINWELL_PROGRESS": "0", **environment},
        capture_output=True,
        text=True,
    )
    if child.returncode:
        sys.exit(f"The {arm} run failed:\n{child.stderr}")
    seconds: list[float] = json.loads(child.stdout.splitlines()[-1])
    return seconds


def gemm_rate(size: int = 2_048, repeats: int = 5) -> float:
    """Return the most floating-point operations a second that a large matrix product reached."""
    a = np.ones((size, size), dtype=np.float32)
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        a @ a
        seconds.append(time.perf_counter() - start)
    return float(2 * size**3 / min(seconds))


def operations_per_epoch() -> int:
    """Return the operations of the matrix products of an epoch, forward and backward."""
    layers = [inputs * outputs for inputs, outputs in itertools.pairwise(SIZES)]
    # A product each for the outputs, the gradient of the weights and that of the inputs, which
    # the first layer does not need.
    return IMAGES * 2 * (3 * sum(layers) - layers[0])


def largest_difference(one: Path, other: Path) -> float:
    """Return how far the saved weights are apart; stop if they are not close."""
    with np.load(one) as a, np.load(other) as b:
        pairs = [(a[name], b[name]) for name in a.files]
    for x, y in pairs:
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6)
    return max(float(np.abs(x - y).max()) for x, y in pairs)


def compare(rounds: int, epochs: int, batch_size: int) -> None:
    """Run all rounds, both arms in turn, and print what came out."""
    print(
        f"{'-'.join(map(str, SIZES))}, batch {batch_size}, {IMAGES:,} images, {epochs} epochs, "
        f"{os.cpu_count()} cores. Times are seconds an epoch, the first left out: it compiles."
    )
    times: dict[str, list[float]] = {"plain": [], "fit": []}
    first: dict[str, list[float]] = {"plain": [], "fit": []}
    rates = []
    with tempfile.TemporaryDirectory() as folder:
        files = {arm: Path(folder) / f"{arm}.npz" for arm in times}
        for number in range(rounds):
            rates.append(gemm_rate())
            # Each arm goes first in every other round.
            for arm in sorted(times, reverse=number % 2 == 0):
                seconds = in_fresh_process(arm, epochs, batch_size, files[arm])
                first[arm].append(seconds[0])
                times[arm].append(statistics.median(seconds[1:]))
            plain, fast = times["plain"][-1], times["fit"][-1]
            print(
                f"round {number + 1} of {rounds}: plain {plain:.2f}, fit {fast:.2f}, "
                f"ratio {plain / fast:.2f}",
                flush=True,
            )
        # On some processors two threads add up in another order than one, and `fit` takes one.
        for arm, file in files.items():
            in_fresh_process(arm, 2, batch_size, file, TF_NUM_INTRAOP_THREADS="1")
        apart = largest_difference(files["plain"], files["fit"])
    ratios = [p / f for p, f in zip(times["plain"], times["fit"], strict=True)]
    starts = [p / f for p, f in zip(first["plain"], first["fit"], strict=True)]
    limit = operations_per_epoch() / max(rates)
    print(f"plain Keras    {spread(times['plain'])}; first epoch {spread(first['plain'])}")
    print(f"fit            {spread(times['fit'])}; first epoch {spread(first['fit'])}")
    print(f"ratio          {spread(ratios)}; first epoch {spread(starts)}")
    print(
        f"arithmetic     {limit:.2f}: {operations_per_epoch() / 1e9:.0f} GFLOP at "
        f"{max(rates) / 1e9:.0f} GFLOP/s, measured in the same run"
    )
    print(f"aim            a ratio of {AIM} or more; measured {statistics.median(ratios):.2f}")
    print(f"weights        the same on one thread each, largest difference {apart:g}")


def spread(values: list[float]) -> str:
    """Return the median, with the lowest and the highest value."""
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5, help="at least 1; default %(default)s")
    parser.add_argument("--epochs", type=int, default=4, help="at least 2; default %(default)s")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--arm", choices=["plain", "fit"], help=argparse.SUPPRESS)
    parser.add_argument("--weights", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.rounds < 1 or given.epochs < 2 or given.batch_size < 1:
        parser.error("needs at least 1 round, 2 epochs (the first is left out) and batch size 1")
    if given.arm:
        train(given.arm, given.epochs, given.batch_size, given.weights)
    else:
        compare(given.rounds, given.epochs, given.batch_size)


if __name__ == "__main__":
    main()
