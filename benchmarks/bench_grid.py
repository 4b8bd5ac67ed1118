"""Time a grid of runs beside plain Keras, one run after the other: part of `make bench`.

Ten runs of 784-300-100-10 at batch 32, each from a seed of its own: once as a plain loop over
`model.fit` in one process, with Keras's and TensorFlow's default settings, and once through
`trainwell.experiments`. Each side starts a fresh process each round and pays for its imports and
its workers' start; the time is that of the whole process. The losses must come out the same.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from typing import Any

import numpy as np

RUNS, IMAGES, EPOCHS, BATCH_SIZE = 10, 20_000, 6, 32
AIM = 3.5  # times as fast as plain Keras


def compiled(seed: int) -> tuple[Any, Any, Any]:
    """Return a compiled network and noise of Fashion-MNIST's shape, decided by the seed."""
    import keras

    rng = np.random.default_rng(seed)
    x = rng.random((IMAGES, 28, 28), dtype=np.float32)
    y = rng.integers(10, size=IMAGES)
    keras.utils.set_random_seed(seed)
    model = keras.Sequential([keras.Input(shape=(28, 28)), keras.layers.Flatten()])
    for units in (300, 100):
        model.add(keras.layers.Dense(units, activation="relu", kernel_initializer="he_normal"))
    model.add(keras.layers.Dense(10, activation="softmax"))
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model, x, y


def fast_run(seed: int) -> dict[str, float]:
    from trainwell.training import fit

    history = fit(*compiled(seed), epochs=EPOCHS, batch_size=BATCH_SIZE)
    return {"loss": history.last("loss", "train")}


def plain_runs() -> list[float]:
    losses = []
    for seed in range(RUNS):
        model, x, y = compiled(seed)
        history = model.fit(x, y, epochs=EPOCHS, batch_size=BATCH_SIZE, verbose=0)
        losses.append(history.history["loss"][-1])
    return losses


def grid_runs() -> list[float]:
    from trainwell.experiments import run

    return list(run(fast_run, {"seed": range(RUNS)}, keep=False)["loss"])


def in_fresh_process(side: str) -> tuple[float, list[float]]:
    """Return the seconds of one side from start to end, and the losses it reached."""
    start = time.perf_counter()
    child = subprocess.run(
        [sys.executable, __file__, "--side", side],
        env={**os.environ, "TRAINWELL_PROGRESS": "0"},
        capture_output=True,
        text=True,
    )
    seconds = time.perf_counter() - start
    if child.returncode:
        sys.exit(f"The {side} side failed:\n{child.stderr}")
    losses: list[float] = json.loads(child.stdout.splitlines()[-1])
    return seconds, losses


def compare(rounds: int) -> None:
    print(
        f"\nA grid of {RUNS} runs: 784-300-100-10, batch {BATCH_SIZE}, {IMAGES:,} images, "
        f"{EPOCHS} epochs, {os.cpu_count()} cores. Times are seconds for all, start included."
    )
    ratios = []
    for number in range(rounds):
        sides = ["plain", "grid"] if number % 2 == 0 else ["grid", "plain"]
        result = {side: in_fresh_process(side) for side in sides}
        # Plain Keras has a thread for each core. On some processors they add up in another order
        # than the one thread of a worker, and 3,750 steps make that grow.
        np.testing.assert_allclose(result["plain"][1], result["grid"][1], rtol=1e-2)
        plain, grid = result["plain"][0], result["grid"][0]
        ratios.append(plain / grid)
        print(
            f"round {number + 1} of {rounds}: plain Keras {plain:.1f}, experiments {grid:.1f}, "
            f"ratio {ratios[-1]:.2f}",
            flush=True,
        )
    print(
        f"ratio          {statistics.median(ratios):.2f} "
        f"({min(ratios):.2f} to {max(ratios):.2f}); the same losses"
    )
    print(f"aim            a ratio of {AIM} or more; measured {statistics.median(ratios):.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=2, help="at least 1; default %(default)s")
    parser.add_argument("--side", choices=["plain", "grid"], help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.rounds < 1:
        parser.error("needs at least 1 round")
    if given.side:
        losses = plain_runs() if given.side == "plain" else grid_runs()
        print(json.dumps([float(loss) for loss in losses]))
    else:
        compare(given.rounds)


if __name__ == "__main__":
    main()
