"""Many runs over seeds, in parallel: the course's comparisons.

    runs = run(train, {"rate": [0.0, 0.2], "seed": seeds(5)})

calls `train(rate=..., seed=...)` for every combination and returns one tidy table. A run that
is done is kept on disk, by all that made it: interrupt a grid, call it again, and it goes on.

The workers are the standard library's, not joblib's: joblib's replaces a worker whose memory grows,
which TensorFlow's does, and each new one spends seconds on importing TensorFlow again.
"""

import contextlib
import itertools
import multiprocessing
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import cache
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pandas as pd
from tqdm import tqdm

from trainwell._checks import check_whole
from trainwell._runs import load, places_of, save
from trainwell.runtime import cores, device, keep_kernels, show_progress

# A run gets one thread: two runs side by side finish sooner than two threads on one small run.
# TensorFlow and NumPy read these when they start. One bar shows the progress.
WORKER_ENVIRONMENT = {
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "TRAINWELL_PROGRESS": "0",
}
# A worker takes up to so many neighbours of a grid at once: they mostly differ in their seed or
# their learning rate only, and `fit` then traces one step for all. It takes fewer where some
# workers would be left without work.
AT_ONCE = 5
# What decides the data of a run and their sizes: a worker gets them as they are when it starts.
PASSED_ON = ("TRAINWELL_PROFILE", "TRAINWELL_DATA", "TRAINWELL_CACHE", "TRAINWELL_OFFLINE")
# The column in which a run that raised brings its traceback.
TRACEBACK = "_traceback"


def run(
    function: Callable[..., Mapping[str, Any] | pd.DataFrame],
    grid: Mapping[str, Iterable[Any]],
    *,
    jobs: int | None = None,
    keep: bool = True,
) -> pd.DataFrame:
    """Call `function` for every combination of the values in `grid`, several at a time.

    In a script, call it under `if __name__ == "__main__":`, for the workers import the script.

    Args:
        function: Takes the grid's names as keyword arguments; returns a mapping of numbers, or a
            data frame of several rows. A column that has the name of an argument must have its
            value. It may be defined in a notebook. What it refers to is sent to the workers: load
            large data in it, not before.
        grid: For each argument, the values to try: `{"rate": [0.0, 0.2], "seed": [0, 1, 2]}`.
        jobs: How many runs at a time, each in a process of its own with one thread; 1 means one
            after the other in this process. None means 1 on a GPU; on a CPU, what the variable
            `TRAINWELL_JOBS` says, else as many as there are cores.
        keep: Whether to keep finished runs in the folder `TRAINWELL_RUNS` (else the user's
            cache), and take them from there. A run is made anew when its arguments, the code of
            `function` and of what it calls in the same file, the package, the data, the profile
            or the versions change. Pass False where a run must be made, to measure its time say.

    Returns:
        The rows of all runs, in the order of the grid, with a column for each of its names.
        If a run raises, the others go on: it has one row, with the error in a column `error`,
        and a warning tells. It is not kept. A run with a nan is kept as it is, and a warning
        tells.

    Raises:
        ValueError: If the grid has no values, or `jobs` is less than 1.
        RuntimeError: If every run raises; the message has the first one's error.
            Or if a worker process dies.
    """
    points = _points(grid)
    if jobs is None:
        wanted = os.environ.get("TRAINWELL_JOBS", str(cores()))
        check_whole("TRAINWELL_JOBS", int(wanted) if wanted.isdecimal() else wanted, 1)
        jobs = int(wanted) if device() == "CPU" else 1
    check_whole("jobs", jobs, 1)
    places = places_of(function, points)
    if not keep:
        places = [None] * len(points)
    results = (_in_turn if jobs == 1 else _in_parallel)(function, points, places, jobs)
    progress = tqdm(results, total=len(points), unit="run", disable=not show_progress())
    tables = list(progress)
    _tell_errors(points, tables)
    _tell_nans(points, tables)
    tables = [
        # A value may be a tuple, the units of a network say: as a list it is not spread over rows.
        table.assign(**{name: [value] * len(table) for name, value in point.items()})
        for point, table in zip(points, tables, strict=True)
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
    function: Callable[..., Any],
    points: list[dict[str, Any]],
    places: list[Path | None],
    jobs: int,
) -> Iterator[pd.DataFrame]:
    for point, place in zip(points, places, strict=True):
        kept = load(place)
        yield _call(function, point, place) if kept is None else kept


def _in_parallel(
    function: Callable[..., Any],
    points: list[dict[str, Any]],
    places: list[Path | None],
    jobs: int,
) -> Iterator[pd.DataFrame]:
    results: list[pd.DataFrame | None] = [load(place) for place in places]
    if all(result is not None for result in results):
        yield from (result for result in results if result is not None)
        return
    pickled = cloudpickle.dumps(function)  # plain pickle can't send a notebook's functions
    pool = _workers(jobs, tuple(os.environ.get(name, "") for name in PASSED_ON))
    missing = [number for number, result in enumerate(results) if result is None]
    at_once = max(1, min(AT_ONCE, len(missing) // (2 * jobs)))
    chunks = [missing[start : start + at_once] for start in range(0, len(missing), at_once)]
    futures: list[Future[list[pd.DataFrame]]] = []
    try:
        with _environment(WORKER_ENVIRONMENT):  # a worker starts when there is work for it
            for chunk in chunks:
                work = [(points[number], places[number]) for number in chunk]
                futures.append(pool.submit(_call_pickled, pickled, cloudpickle.dumps(work)))
        made = itertools.chain.from_iterable(future.result() for future in futures)
        for result in results:
            yield next(made) if result is None else result
    except (BrokenProcessPool, KeyboardInterrupt) as error:
        _workers.cache_clear()  # the next call starts new ones
        pool.shutdown(wait=False, cancel_futures=True)
        if isinstance(error, KeyboardInterrupt):
            raise
        raise RuntimeError(
            f"a worker process died; if memory ran out, try fewer jobs than {jobs}. "
            "Finished runs are kept: call it again to go on."
        ) from error
    finally:
        for future in futures:
            future.cancel()


@cache
def _workers(jobs: int, settings: tuple[str, ...]) -> ProcessPoolExecutor:
    """Return the worker processes. They stay for later calls: TensorFlow starts slowly."""
    if sys.platform == "linux":
        # One process imports Keras, and the workers are copies of it. It has not computed yet, so
        # TensorFlow's threads, which a copy would lack, are not there yet.
        context: Any = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["trainwell.training"])
    else:
        context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(jobs, context, initializer=_start_worker, initargs=(settings,))


def _start_worker(settings: tuple[str, ...]) -> None:
    # The process that workers are copies of has them as they were when the first one started.
    os.environ.update(zip(PASSED_ON, settings, strict=True))
    # Ctrl+C reaches the workers too: they end at once and in silence, for the parent tells.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    keep_kernels()


def _end_with_parent() -> None:
    """Wait for the end of the process that gives the work; one that is killed can't say so.

    A worker would wait for work for ever, and hold a gigabyte.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


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


def _call_pickled(function: bytes, work: bytes) -> list[pd.DataFrame]:
    called = cloudpickle.loads(function)
    return [_call(called, point, place) for point, place in cloudpickle.loads(work)]


def _call(function: Callable[..., Any], point: dict[str, Any], place: Path | None) -> pd.DataFrame:
    """Make a run, and keep it at once: what comes after may be interrupted."""
    try:
        result = function(**point)
        if isinstance(result, Mapping):
            result = pd.DataFrame([result])
        elif not isinstance(result, pd.DataFrame):
            raise TypeError(
                f"it must return a mapping or a data frame, got {type(result).__name__}"
            )
        # The grid's own columns would take their place.
        lost = [
            name
            for name, value in point.items()
            if name in result and not all(np.array_equal(value, each) for each in result[name])
        ]
        if lost:
            raise ValueError(
                f"it returns other values than it got for {lost}: give these columns other names"
            )
    except Exception as error:
        return pd.DataFrame([{"error": repr(error), TRACEBACK: traceback.format_exc()}])
    if place is not None:
        save(result, place)
    return result


def _tell_errors(points: list[dict[str, Any]], tables: list[pd.DataFrame]) -> None:
    """Warn of the runs that raised; stop if all did. Take their tracebacks out of the tables."""
    raised = [number for number, table in enumerate(tables) if TRACEBACK in table]
    if not raised:
        return
    first = tables[raised[0]]
    message = (
        f"{len(raised)} of {len(points)} runs raised; the first, with {_words(points[raised[0]])}: "
        f"{first['error'].item()}\n\n{first[TRACEBACK].item()}"
    )
    if len(raised) == len(points):
        raise RuntimeError(message)
    warnings.warn(message, stacklevel=3)
    for number in raised:
        tables[number] = tables[number].drop(columns=TRACEBACK)


def _tell_nans(points: list[dict[str, Any]], tables: list[pd.DataFrame]) -> None:
    """Warn of the runs with a number that is nan: a training that diverges ends so."""
    empty = [list(t.columns[t.isna().any()]) for t in (t.select_dtypes("number") for t in tables)]
    with_nan = [number for number, columns in enumerate(empty) if columns]
    if with_nan:
        first = with_nan[0]
        warnings.warn(
            f"{len(with_nan)} of {len(points)} runs have a nan; the first, with "
            f"{_words(points[first])}, in {empty[first]}. If its loss diverged, lower its "
            "learning rate, or leave it out of means.",
            stacklevel=3,
        )


def _words(point: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in point.items())
