"""Many runs over seeds, in parallel: the course's comparisons.

    runs = run(train, {"rate": [0.0, 0.2], "seed": seeds(5)})

calls `train(rate=..., seed=...)` for every combination and returns one tidy table.
"""

import itertools
import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from typing import Any

import cloudpickle
import pandas as pd
from tqdm import tqdm

from trainwell.runtime import cores, device, show_progress

# A run gets one core and one thread: two runs side by side finish sooner than two threads
# on one small run. TensorFlow and NumPy read these when they start.
ONE_THREAD = {
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}


def run(
    function: Callable[..., Mapping[str, Any] | pd.DataFrame],
    grid: Mapping[str, Sequence[Any]],
    *,
    jobs: int | None = None,
) -> pd.DataFrame:
    """Call `function` for every combination of the values in `grid`, several at a time.

    Args:
        function: Takes the grid's names as keyword arguments; returns a mapping of numbers, or a
            data frame of several rows. It may be defined in a notebook.
        grid: For each argument, the values to try: `{"rate": [0.0, 0.2], "seed": [0, 1, 2]}`.
        jobs: How many runs at a time, each in a process of its own with one thread; 1 means one
            after the other in this process. None means one for each core, and 1 on a GPU.

    Returns:
        The rows of all runs, in the order of the grid, with a column for each of its names.

    Raises:
        ValueError: If the grid is empty, or `jobs` is less than 1.
        RuntimeError: If a run raises; the message names the run, the cause is its error.
    """
    points = [dict(zip(grid, p, strict=True)) for p in itertools.product(*grid.values())]
    if not grid or not points:
        raise ValueError(f"grid must have a value for each name, got {dict(grid)}.")
    if jobs is None:
        jobs = cores() if device() == "CPU" else 1
    if jobs < 1:
        raise ValueError(f"jobs must be at least 1, got {jobs}.")
    results = (_in_turn if jobs == 1 else _in_parallel)(function, points, jobs)
    progress = tqdm(results, total=len(points), unit="run", disable=not show_progress())
    tables = [
        (result if isinstance(result, pd.DataFrame) else pd.DataFrame([result])).assign(**point)
        for point, result in zip(points, progress, strict=True)
    ]
    table = pd.concat(tables, ignore_index=True)
    return table[[*grid, *(name for name in table.columns if name not in grid)]]


def _in_turn(
    function: Callable[..., Any], points: list[dict[str, Any]], jobs: int
) -> Iterator[Any]:
    for point in points:
        yield _call(function, point)


def _in_parallel(
    function: Callable[..., Any], points: list[dict[str, Any]], jobs: int
) -> Iterator[Any]:
    pickled = cloudpickle.dumps(function)  # plain pickle can't send a notebook's functions
    futures = [_workers(jobs).submit(_call_pickled, pickled, point) for point in points]
    try:
        for future in futures:
            yield future.result()
    finally:
        for future in futures:
            future.cancel()


@cache
def _workers(jobs: int) -> ProcessPoolExecutor:
    """Start the worker processes. They stay for later calls: TensorFlow starts slowly."""
    before = dict(os.environ)
    os.environ.update(ONE_THREAD)
    try:
        pool = ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn"))
        for _ in range(jobs):  # each submission starts a process, with the environment of now
            pool.submit(os.getpid)
    finally:
        os.environ.clear()
        os.environ.update(before)
    return pool


def _call_pickled(pickled: bytes, point: dict[str, Any]) -> Any:
    return _call(cloudpickle.loads(pickled), point)


def _call(function: Callable[..., Any], point: dict[str, Any]) -> Any:
    try:
        return function(**point)
    except Exception as error:
        words = ", ".join(f"{name}={value!r}" for name, value in point.items())
        raise RuntimeError(f"the run with {words} raised {error!r}") from error
