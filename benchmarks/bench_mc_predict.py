"""Time `trainwell.uncertainty.mc_predict` beside the plain loop: `make bench`.

Every round makes the same passes with dropout twice, in a fresh process each time: with
`np.stack([model(x, training=True) for _ in range(passes)])` in Keras's default settings, and with
`mc_predict`. The images are noise of Fashion-MNIST's shape: the speed is the same, and so must be
the means, but for the chance of the masks. Beside them stands the time that the arithmetic alone
would take at the rate of a large matrix product on the same machine. Needs Linux, for the memory.
"""

import argparse
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from bench_fit import gemm_rate, spread

SIZES = (784, 300, 100, 10)
IMAGES = 10_000
# Two means of that many passes each are hardly ever so many standard errors apart.
STANDARD_ERRORS = 8


class Run(NamedTuple):
    """What a process measured: its times, its extra memory, its random numbers a second."""

    seconds: float
    processor_seconds: float
    megabytes: float
    numbers_rate: float


def predict(arm: str, passes: int, results: Path) -> None:
    """Predict in this process with one arm; save mean and std, print what `Run` has."""
    if arm == "mc_predict":
        # Before Keras: it chooses TensorFlow's threads. Plain Keras must not profit from that.
        from trainwell.uncertainty import mc_predict
    import keras

    x = np.random.default_rng(0).random((IMAGES, 28, 28), dtype=np.float32)
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((28, 28)), keras.layers.Flatten()])
    for units in SIZES[1:]:
        model.add(keras.layers.Dropout(0.2))
        last = units == SIZES[-1]
        model.add(keras.layers.Dense(units, activation="softmax" if last else "relu"))

    def call(x: np.ndarray, passes: int) -> tuple[np.ndarray, np.ndarray]:
        if arm == "mc_predict":
            result = mc_predict(model, x, passes)
            return result.mean, result.std
        y_probas = np.stack([model(x, training=True) for _ in range(passes)])
        return y_probas.mean(axis=0), y_probas.std(axis=0)

    call(x[: IMAGES // 10], 2)  # what the first call of a process loads and makes, once and for all
    before = megabytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    start, processor_start = time.perf_counter(), time.process_time()
    mean, std = call(x, passes)
    seconds, processor = time.perf_counter() - start, time.process_time() - processor_start
    extra = megabytes("VmHWM") - before
    np.savez(results, mean=mean, std=std)

    start = time.process_time()
    for seed in range(20):
        keras.random.uniform((1_000, SIZES[0]), seed=seed)
    numbers_rate = 20 * 1_000 * SIZES[0] / (time.process_time() - start)
    print(json.dumps(Run(seconds, processor, extra, numbers_rate)))


def megabytes(name: str) -> float:
    """Return this process's memory now (`VmRSS`) or at its peak (`VmHWM`)."""
    status = Path("/proc/self/status").read_text()
    return int(re.findall(rf"{name}:\s+(\d+) kB", status)[0]) / 1024


def in_fresh_process(arm: str, passes: int, results: Path) -> Run:
    """Return what an arm measures in a process of its own."""
    command = [sys.executable, __file__, "--passes", str(passes), "--arm", arm]
    child = subprocess.run(
        [*command, "--results", str(results)],
        env={**os.environ, "TRAINWELL_PROGRESS": "0"},
        capture_output=True,
        text=True,
    )
    if child.returncode:
        sys.exit(f"The {arm} run failed:\n{child.stderr}")
    return Run(*json.loads(child.stdout.splitlines()[-1]))


def standard_errors_apart(one: Path, other: Path, passes: int) -> float:
    """Return how far the means are apart at most, in standard errors; stop if that is no chance."""
    with np.load(one) as a, np.load(other) as b:
        errors = np.sqrt((a["std"] ** 2 + b["std"] ** 2) / passes)
        apart = float((np.abs(a["mean"] - b["mean"]) / errors).max())
    if apart > STANDARD_ERRORS:
        sys.exit(f"The means are {apart:.1f} standard errors apart: not the same prediction.")
    return apart


def compare(rounds: int, passes: int) -> None:
    """Run all rounds, both arms in turn, and print what came out."""
    print(
        f"{'-'.join(map(str, SIZES))}, dropout .2 before every layer, {passes} passes of "
        f"{IMAGES:,} images, {os.cpu_count()} cores."
    )
    runs: dict[str, list[Run]] = {"loop": [], "mc_predict": []}
    rates, apart = [], []
    with tempfile.TemporaryDirectory() as folder:
        files = {arm: Path(folder) / f"{arm}.npz" for arm in runs}
        for number in range(rounds):
            rates.append(gemm_rate())
            # Each arm goes first in every other round.
            for arm in sorted(runs, reverse=number % 2 == 1):
                runs[arm].append(in_fresh_process(arm, passes, files[arm]))
            apart.append(standard_errors_apart(files["loop"], files["mc_predict"], passes))
            loop, fast = (made[-1].seconds for made in runs.values())
            print(
                f"round {number + 1} of {rounds}: loop {loop:.2f} s, mc_predict {fast:.2f} s, "
                f"ratio {loop / fast:.2f}",
                flush=True,
            )
    for field in ("seconds", "processor_seconds", "megabytes"):
        loop, fast = ([getattr(run, field) for run in made] for made in runs.values())
        ratio = spread([a / b for a, b in zip(loop, fast, strict=True)])
        name = field.replace("_", " ")
        print(f"{name:18} loop {spread(loop)}, mc_predict {spread(fast)}, ratio {ratio}")
    print("aim                a ratio of 2 or more of the seconds, 20 or more of the megabytes")
    operations = 2 * passes * IMAGES * sum(a * b for a, b in itertools.pairwise(SIZES))
    print(
        f"arithmetic         {operations / max(rates):.2f} seconds: {operations / 1e9:.0f} GFLOP "
        f"at {max(rates) / 1e9:.0f} GFLOP/s, measured in the same run"
    )
    numbers = passes * IMAGES * sum(SIZES[:-1])
    numbers_rate = max(run.numbers_rate for run in runs["mc_predict"])
    print(
        f"masks              {numbers / numbers_rate:.2f} processor seconds: {numbers / 1e6:,.0f} "
        f"million random numbers at {numbers_rate / 1e6:.0f} million a second, by Keras"
    )
    print(f"means              the same, at most {max(apart):.1f} standard errors apart")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5, help="at least 1; default %(default)s")
    parser.add_argument("--passes", type=int, default=100, help="at least 2; default %(default)s")
    parser.add_argument("--arm", choices=["loop", "mc_predict"], help=argparse.SUPPRESS)
    parser.add_argument("--results", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.rounds < 1 or given.passes < 2:
        parser.error("needs at least 1 round and 2 passes")
    if given.arm:
        predict(given.arm, given.passes, given.results)
    else:
        compare(given.rounds, given.passes)


if __name__ == "__main__":
    main()
