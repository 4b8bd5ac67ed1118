"""Many runs over seeds, in parallel: the course's comparisons.

    runs = run(train, {"rate": [0.0, 0.2], "seed": seeds(5)})

calls `train(rate=..., seed=...)` for every combination and returns one tidy table.
"""

import contextlib
import itertools
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import cache
from typing import Any

import cloudpickle
import pandas as pd
from tqdm import tqdm

from trainwell.runtime import cores, device, show_progress

# A run gets one core and one thread: two runs side by side finish sooner than two threads
# on one small run. TensorFlow and NumPy read these when they start. One bar shows the progress.
WORKER_ENVIRONMENT = {
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "TRAINWELL_PROGRESS": "0",
}


def run(
    function: Callable[..., Mapping[str, Any] | pd.DataFrame],
    grid: Mapping[str, Iterable[Any]],
    *,
    jobs: int | None = None,
) -> pd.DataFrame:
    """Call `function` for every combination of the values in `grid`, several at a time.

    In a script, call it under `if __name__ == "__main__":`, for the workers import the script.

    Args:
        function: Takes the grid's names as keyword arguments; returns a mapping of numbers, or a
            data frame of several rows. It may be defined in a notebook. What it refers to is sent
            to the workers: load large data in it, not before.
        grid: For each argument, the values to try: `{"rate": [0.0, 0.2], "seed": [0, 1, 2]}`.
        jobs: How many runs at a time, each in a process of its own with one thread; 1 means one
            after the other in this process. None means one for each core, and 1 on a GPU.

    Returns:
        The rows of all runs, in the order of the grid, with a column for each of its names.

    Raises:
        ValueError: If the grid has no values, or `jobs` is less than 1.
        RuntimeError: If a run raises; the message names the run, the cause is its error.
            Or if a worker process dies.
    """
    points = _points(grid)
    if jobs is None:
        jobs = cores() if device() == "CPU" else 1
    if jobs < 1:
        raise ValueError(f"jobs must be at least 1, got {jobs}.")
    results = (_in_turn if jobs == 1 else _in_parallel)(function, points, jobs)
    progress = tqdm(results, total=len(points), unit="run", disable=not show_progress())
    tables = [
        # A value may be a tuple, the units of a network say: as a list it is not spread over rows.
        table.assign(**{name: [value] * len(table) for name, value in point.items()})
        for point, table in zip(points, progress, strict=True)
    ]
    table = pd.concat(tables, ignore_index=True)
    return table[[*grid, *(name for name in table.columns if name not in grid)]]


def _points(grid: Mapping[str, Iterable[Any]]) -> list[dict[str, Any]]:
    for name, values in grid.items():
        if isinstance(values, str) or not isinstance(values, Iterable):
            raise ValueError(f"grid[{name!r}] must be a list of values, got {values!r}.")
    points = [dict(zip(grid, point, strict=True)) for point in itertools.product(*grid.values())]
    if not grid or not points:
        raise ValueError(f"grid must have a value for each name, got {dict(grid)}.")
    return points


def _in_turn(
    function: Callable[..., Any], points: list[dict[str, Any]], jobs: int
) -> Iterator[pd.DataFrame]:
    for point in points:
        yield _call(function, point)


def _in_parallel(
    function: Callable[..., Any], points: list[dict[str, Any]], jobs: int
) -> Iterator[pd.DataFrame]:
    pickled = cloudpickle.dumps(function)  # plain pickle can't send a notebook's functions
    pool = _workers(jobs)
    futures: list[Future[pd.DataFrame]] = []
    try:
        with _environment(WORKER_ENVIRONMENT):  # a worker starts when there is work for it
            futures += [pool.submit(_call_pickled, pickled, point) for point in points]
        for future in futures:
            yield future.result()
    except (BrokenProcessPool, KeyboardInterrupt) as error:
        _workers.cache_clear()  # the next call starts new ones
        pool.shutdown(wait=False, cancel_futures=True)
        if isinstance(error, KeyboardInterrupt):
            raise
        raise RuntimeError(
            f"a worker process died; if memory ran out, try fewer jobs than {jobs}."
        ) from error
    finally:
        for future in futures:
            future.cancel()


@cache
def _workers(jobs: int) -> ProcessPoolExecutor:
    """Return the worker processes. They stay for later calls: TensorFlow starts slowly."""
    return ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn"))


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _call_pickled(pickled: bytes, point: dict[str, Any]) -> pd.DataFrame:
    return _call(cloudpickle.loads(pickled), point)


def _call(function: Callable[..., Any], point: dict[str, Any]) -> pd.DataFrame:
    words = ", ".join(f"{name}={value!r}" for name, value in point.items())
    try:
        result = function(**point)
    except Exception as error:
        raise RuntimeError(f"the run with {words} raised {error!r}") from error
    if isinstance(result, pd.DataFrame):
        return result
    if isinstance(result, Mapping):
        return pd.DataFrame([result])
    raise RuntimeError(
        f"the run with {words} must return a mapping or a data frame, got {type(result).__name__}."
    )
