"""Grids of runs: the table that comes out, whatever the number of processes."""

import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from trainwell import experiments
from trainwell.experiments import run


def test_a_row_for_every_combination_in_the_order_of_the_grid():
    table = run(lambda a, b: {"sum": a + b}, {"b": [10, 20], "a": range(3)}, jobs=1)
    expected = pd.DataFrame(
        {"b": [10, 10, 10, 20, 20, 20], "a": [0, 1, 2] * 2, "sum": [10, 11, 12, 20, 21, 22]}
    )
    pd.testing.assert_frame_equal(table, expected)


def test_a_run_may_return_several_rows():
    def curve(seed):
        return pd.DataFrame({"epoch": [1, 2], "value": [seed, seed + 0.5]})

    expected = pd.DataFrame(
        {"seed": [3, 3, 7, 7], "epoch": [1, 2, 1, 2], "value": [3.0, 3.5, 7.0, 7.5]}
    )
    pd.testing.assert_frame_equal(run(curve, {"seed": [3, 7]}, jobs=1), expected)


@pytest.mark.parametrize("rows", [1, 2])
def test_a_value_may_be_a_tuple(rows):
    table = run(
        lambda units: pd.DataFrame({"width": [units[0]] * rows}),
        {"units": [(300, 100), (600, 200)]},
        jobs=1,
    )
    assert table["units"].to_list() == [(300, 100)] * rows + [(600, 200)] * rows
    assert table["width"].to_list() == [300] * rows + [600] * rows


def train(rate, seed):
    """A short training on noise: dropout, shuffling and weights from the seed."""
    import keras

    from trainwell.models import mlp
    from trainwell.training import fit

    keras.utils.set_random_seed(seed)
    x, y = np.random.random((70, 5, 4)).astype("float32"), np.arange(70) % 3  # noqa: NPY002
    model = mlp((8,), inputs=(5, 4), outputs=3, dropout=rate)
    model.compile("adam", "sparse_categorical_crossentropy")
    return fit(model, x, y, epochs=2, validation_data=(x, y)).frame


def test_the_table_does_not_depend_on_the_number_of_processes():
    grid = {"rate": [0.5], "seed": [0, 1]}
    one, two = run(train, grid, jobs=1), run(train, grid, jobs=2)
    pd.testing.assert_frame_equal(one, two, rtol=1e-6)
    assert one["value"].nunique() == len(one) == 8, "each seed has losses of its own"


def test_a_worker_has_one_thread_and_no_bar_and_this_process_keeps_its_settings(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    names = [*experiments.WORKER_ENVIRONMENT]
    before = dict(os.environ)
    table = run(lambda name: {"value": os.environ.get(name)}, {"name": names}, jobs=2)
    assert dict(zip(table["name"], table["value"], strict=True)) == experiments.WORKER_ENVIRONMENT
    assert table["value"].to_list() == ["1"] * 4 + ["0"]
    assert dict(os.environ) == before


def test_workers_are_other_processes_and_stay_for_the_next_call():
    def process(i):
        return {"id": os.getpid()}

    ids = [set(run(process, {"i": range(4)}, jobs=2)["id"]) for _ in range(3)]
    assert os.getpid() not in set.union(*ids)
    assert len(set.union(*ids)) <= 2
    assert set(run(process, {"i": range(4)}, jobs=1)["id"]) == {os.getpid()}


def fails_at_two(i):
    if i == 2:
        raise ZeroDivisionError("two is one too many")
    return {"value": i}


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_run_that_raises_is_named(jobs):
    message = r"the run with i=2, name='x' raised ZeroDivisionError\('two is one too many'\)"
    with pytest.raises(RuntimeError, match=message) as caught:
        run(lambda i, name: fails_at_two(i), {"i": range(9), "name": ["x"]}, jobs=jobs)
    assert caught.value.__cause__ is not None
    assert len(run(fails_at_two, {"i": [0, 1]}, jobs=jobs)) == 2


@pytest.mark.parametrize("jobs", [1, 2])
def test_runs_after_one_that_raised_are_not_started(jobs, tmp_path):
    def note(i):
        (tmp_path / str(i)).touch()
        return fails_at_two(i)

    with pytest.raises(RuntimeError, match="i=2"):
        run(note, {"i": range(200)}, jobs=jobs)
    assert len(list(tmp_path.iterdir())) < 100


def test_a_worker_that_dies_is_told_and_replaced():
    with pytest.raises(RuntimeError, match=r"a worker process died.* try fewer jobs than 2"):
        run(lambda i: os._exit(1), {"i": [0, 1]}, jobs=2)
    assert len(run(fails_at_two, {"i": [0, 1]}, jobs=2)) == 2


def test_after_an_interrupt_the_workers_are_replaced():
    def interrupted(i):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(interrupted, {"i": [0, 1]}, jobs=2)
    assert len(run(fails_at_two, {"i": [0, 1]}, jobs=2)) == 2


@pytest.mark.parametrize(("device", "jobs"), [("CPU", 5), ("NVIDIA H100", 1)])
def test_by_default_a_process_for_each_core_but_one_on_a_gpu(device, jobs, monkeypatch):
    def asked(function, points, jobs):
        return iter([pd.DataFrame({"jobs": [jobs]})])

    monkeypatch.setattr(experiments, "device", lambda: device)
    monkeypatch.setattr(experiments, "cores", lambda: 5)
    monkeypatch.setattr(experiments, "_in_turn", asked)
    monkeypatch.setattr(experiments, "_in_parallel", asked)
    assert run(fails_at_two, {"i": [0]})["jobs"].item() == jobs


@pytest.mark.parametrize(
    ("grid", "jobs", "message"),
    [
        ({}, 1, r"grid must have a value for each name, got \{\}"),
        ({"i": []}, 1, r"grid must have a value for each name, got \{'i': \[\]\}"),
        ({"i": 3}, 1, r"grid\['i'\] must be a list of values, got 3"),
        ({"i": "abc"}, 1, r"grid\['i'\] must be a list of values, got 'abc'"),
        ({"i": [0]}, 0, "jobs must be at least 1, got 0"),
    ],
)
def test_bad_arguments(grid, jobs, message):
    with pytest.raises(ValueError, match=message):
        run(fails_at_two, grid, jobs=jobs)


def test_a_function_that_returns_no_table():
    with pytest.raises(RuntimeError, match=r"i=0 must return a mapping or a data frame, got int"):
        run(lambda i: i, {"i": [0]}, jobs=1)


@pytest.mark.parametrize("shown", ["0", "1"])
def test_progress_with_an_estimate_of_what_is_left(shown, monkeypatch, capfd):
    monkeypatch.setenv("TRAINWELL_PROGRESS", shown)
    run(fails_at_two, {"i": [0, 1]}, jobs=1)
    out, err = capfd.readouterr()
    assert out == ""
    assert ("2/2 [00:00<00:00" in err) == (shown == "1")


SCRIPT = """
from trainwell.experiments import run

OFFSET = 100

def shifted(i):
    return {"value": i + OFFSET}

if __name__ == "__main__":
    print(run(shifted, {"i": [1, 2]}, jobs=2)["value"].to_list())
"""


def test_in_a_script(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    result = subprocess.run([sys.executable, script], capture_output=True, text=True)
    assert result.stdout == "[101, 102]\n", result.stderr
