"""Grids of runs: the table that comes out, whatever the number of processes."""

import os
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import psutil
import pytest
from new_process import in_a_new_process

from trainwell import _runs, experiments
from trainwell.experiments import run


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    """Keep the runs of a test where no other test finds them."""
    monkeypatch.setenv("TRAINWELL_RUNS", str(tmp_path / "runs"))


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


def test_a_worker_keeps_tensorflows_kernels():
    def who_answers(i):
        from tensorflow.python.framework import random_seed

        return {"module": random_seed.get_seed.__module__}

    grid = {"i": [0, 1]}
    assert set(run(who_answers, grid, jobs=2, keep=False)["module"]) == {"trainwell.runtime"}
    here = run(who_answers, grid, jobs=1, keep=False)["module"]
    assert set(here) == {"tensorflow.python.framework.random_seed"}, "that is the reader's process"


def test_workers_are_other_processes_and_stay_for_the_next_call():
    def process(i):
        return {"id": os.getpid()}

    ids = [set(run(process, {"i": range(4)}, jobs=2, keep=False)["id"]) for _ in range(3)]
    assert os.getpid() not in set.union(*ids)
    assert len(set.union(*ids)) <= 2
    assert set(run(process, {"i": range(4)}, jobs=1, keep=False)["id"]) == {os.getpid()}


def fails_at_two(i):
    if i == 2:
        raise ZeroDivisionError("two is one too many")
    return {"value": i}


def test_a_run_has_the_profile_and_the_cache_of_its_call(monkeypatch):
    """The workers' own may be older: numbers of a preview must not pass for the book's."""

    def sizes(i):
        from trainwell.runtime import epochs

        return {"epochs": epochs(10), "cache": os.environ["TRAINWELL_CACHE"]}

    for profile, epochs in [("quick", 2), ("full", 10)]:
        monkeypatch.setenv("TRAINWELL_PROFILE", profile)
        monkeypatch.setenv("TRAINWELL_CACHE", profile)
        table = run(sizes, {"i": [0, 1]}, jobs=2)
        assert table["epochs"].to_list() == [epochs] * 2
        assert table["cache"].to_list() == [profile] * 2


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_value_may_be_a_function(jobs):
    grid = {"change": [lambda x: x + 1, lambda x: 2 * x], "i": [5]}
    table = run(lambda change, i: {"value": change(i)}, grid, jobs=jobs)
    assert table["value"].to_list() == [6, 10]


def test_a_result_that_the_grid_would_hide_is_an_error():
    def train(epochs, seed):
        return {"epochs": 7, "loss": 0.5, "seed": seed}

    with pytest.raises(RuntimeError, match=r"other values than it got for \['epochs'\]: give"):
        run(train, {"epochs": [50], "seed": [0]}, jobs=1)
    table = run(train, {"epochs": [7], "seed": [0, 1]}, jobs=1)
    assert table.columns.to_list() == ["epochs", "seed", "loss"]


def test_neighbours_are_one_workers_so_that_it_traces_them_once():
    pids = run(lambda i: {"pid": os.getpid()}, {"i": range(20)}, jobs=2)["pid"].to_numpy()
    assert (pids.reshape(4, 5) == pids[::5, None]).all()


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_run_that_raises_has_its_error_in_its_row(jobs):
    message = r"1 of 4 runs raised; the first, with i=2, name='x': ZeroDivisionError.*fails_at_two"
    with pytest.warns(UserWarning, match=f"(?s){message}"):
        table = run(lambda i, name: fails_at_two(i), {"i": range(4), "name": ["x"]}, jobs=jobs)
    assert list(table.columns) == ["i", "name", "value", "error"]
    assert table["value"].fillna(-1).to_list() == [0, 1, -1, 3]
    assert table["error"][2] == "ZeroDivisionError('two is one too many')"
    assert table["error"].isna().to_list() == [True, True, False, True]
    assert "error" not in run(fails_at_two, {"i": [0, 1]}, jobs=jobs)


@pytest.mark.parametrize("jobs", [1, 2])
def test_if_all_runs_raise_so_does_the_grid(jobs):
    with pytest.raises(RuntimeError, match=r"(?s)2 of 2 runs raised; .* i=2.*in fails_at_two"):
        run(fails_at_two, {"i": [2, 2]}, jobs=jobs)


@pytest.mark.parametrize("kept", [False, True])
def test_a_nan_is_a_value_like_any_other_and_a_warning_tells(kept):
    def diverges(i):
        return {"loss": float("nan") if i else 0.5, "step": i}

    grid = {"i": [0, 1, 2]}
    message = r"2 of 3 runs have a nan; the first, with i=1, in \['loss'\]"
    for _ in range(1 + kept):
        with pytest.warns(UserWarning, match=message) as told:
            table = run(diverges, grid, jobs=1, keep=kept)
    assert told[0].filename == __file__
    assert table["loss"].isna().to_list() == [False, True, True]
    assert "error" not in table


def times(tmp_path):
    """How often each run was made; `counted` notes it."""
    return {path.name: len(path.read_text()) for path in sorted(tmp_path.glob("?"))}


@pytest.mark.filterwarnings("ignore:.* have a nan")  # which comes back from disk as it was
@pytest.mark.parametrize("jobs", [1, 2])
def test_a_finished_run_is_not_made_again(jobs, tmp_path):
    def counted(i):
        with (tmp_path / str(i)).open("a") as file:
            file.write("x")
        return pd.DataFrame({"j": [0, 1], "value": [i, float("nan")]})

    first = run(counted, {"i": [1, 2]}, jobs=jobs)
    again = run(counted, {"i": [2, 3, 1]}, jobs=jobs)
    assert times(tmp_path) == {"1": 1, "2": 1, "3": 1}
    pd.testing.assert_frame_equal(
        first[first["i"] == 1], again[again["i"] == 1].set_index(first.index[:2])
    )
    run(counted, {"i": [1]}, jobs=jobs, keep=False)
    assert times(tmp_path)["1"] == 2


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_interrupted_grid_goes_on_where_it_was(jobs, tmp_path):
    def interrupted(i):
        with (tmp_path / str(i)).open("a") as file:
            file.write("x")
        if i == 2 and not (tmp_path / "go on").exists():
            raise KeyboardInterrupt
        return {"value": i}

    with pytest.raises(KeyboardInterrupt):
        run(interrupted, {"i": [0, 1, 2]}, jobs=jobs)
    (tmp_path / "go on").touch()
    assert run(interrupted, {"i": [0, 1, 2]}, jobs=jobs)["value"].to_list() == [0, 1, 2]
    assert times(tmp_path)["0"] == 1
    assert times(tmp_path)["2"] == 2


def test_a_run_that_raised_is_made_again(tmp_path):
    def fails_once(i):
        if i and not (tmp_path / "seen").exists():
            (tmp_path / "seen").touch()
            raise OSError("the disk is full")
        return {"value": i}

    with pytest.warns(UserWarning, match="the disk is full"):
        run(fails_once, {"i": [0, 1]}, jobs=1)
    assert run(fails_once, {"i": [0, 1]}, jobs=1)["value"].to_list() == [0, 1]


@pytest.mark.parametrize("rubbish", [b"", b"no pickle", "cut short"])
def test_a_damaged_file_is_made_again(rubbish, tmp_path):
    run(fails_at_two, {"i": [5]}, jobs=1)
    (kept,) = (tmp_path / "runs").iterdir()
    kept.write_bytes(kept.read_bytes()[:-9] if rubbish == "cut short" else rubbish)
    assert run(fails_at_two, {"i": [5]}, jobs=1)["value"].item() == 5
    assert pd.read_pickle(kept)["value"].item() == 5


def test_a_folder_that_can_not_be_written_is_no_error(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("TRAINWELL_RUNS", str(tmp_path / "file" / "runs"))
    assert run(fails_at_two, {"i": [5]}, jobs=1)["value"].item() == 5


def test_a_full_disk_leaves_nothing_half_written(tmp_path, monkeypatch):
    def full(table, file):
        file.write(b"half of it")
        raise OSError("No space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_pickle", full)
    assert run(fails_at_two, {"i": [5]}, jobs=1)["value"].item() == 5
    assert list((tmp_path / "runs").iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the workers are no copies")
def test_the_process_that_the_workers_copy_has_one_thread():
    code = "import os, trainwell.training; print(len(os.listdir('/proc/self/task')))"
    environment = {**os.environ, **experiments.WORKER_ENVIRONMENT}
    assert in_a_new_process(code, **environment) == "1", "a copy would lack the others"


PAGE = """
import functools
import numpy as np

FACTOR = 2
TABLE = np.arange(3.0)

class Model:
    slope = 1.0
    def predict(self, x):
        return self.slope * x

def helper(x):
    return FACTOR * x + TABLE.sum()

def less(a, b):
    return a - b

def experiment(i, offset=0):
    square = lambda x: x**2
    return {"value": [helper(square(v)) + Model().predict(v) for v in [i]][0] + less(a=offset, b=0)}
"""


def place(source, function="experiment", **point):
    """Where a run of a page's function is kept, in a page with the given code."""
    page = {"__name__": "__main__"}
    exec(source, page)
    (found,) = _runs.places_of(eval(function, page), [point or {"i": 1}])
    return found


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("FACTOR = 2", "FACTOR = 3"),
        ("np.arange(3.0)", "np.arange(4.0)"),
        ("slope = 1.0", "slope = 2.0"),
        ("self.slope * x", "self.slope + x"),
        ("FACTOR * x", "FACTOR - x"),
        ("x**2", "x**3"),
        ("offset=0", "offset=1"),
        ("(a, b):\n    return a - b", "(b, a):\n    return b - a"),
        ("TABLE.sum()", "TABLE.max()"),
    ],
)
def test_another_code_is_another_run(old, new):
    assert old in PAGE
    assert place(PAGE) == place(PAGE) != place(PAGE.replace(old, new))


def test_a_function_that_is_referred_to_twice_counts_both_times():
    def page(chosen):
        return f"""
def a(x):
    return x
def b(x):
    return -x
chosen = {chosen}
def experiment(i):
    return {{"value": a(i) + 2 * b(i) + chosen(i)}}
"""

    assert place(page("a")) == place(page("a")) != place(page("b"))


def test_what_does_not_decide_a_run_does_not_make_it_another():
    with_comments = PAGE.replace("def helper", "# A comment.\n\n\ndef helper")
    # `sum` is a method that the page calls, not this function.
    unrelated = PAGE + "\ndef sum():\n    return 1\n"
    assert place(PAGE) == place(with_comments) == place(unrelated)


@pytest.mark.parametrize("point", [{"i": 2}, {"i": 1.0}, {"i": "1"}, {"i": (1,)}, {"offset": 1}])
def test_other_arguments_are_another_run(point):
    assert place(PAGE, **point) != place(PAGE, i=1)


def test_the_code_behind_a_partial_counts():
    partial = "functools.partial(experiment, offset=3)"
    found = [place(PAGE), place(PAGE, partial), place(PAGE.replace("FACTOR *", "3 *"), partial)]
    assert len(set(found)) == 3
    assert place(PAGE, "Model().predict") is None, "what is in an object of a page is not known"


def test_the_profile_and_the_package_count(monkeypatch):
    before = place(PAGE)
    monkeypatch.setenv("TRAINWELL_PROFILE", "quick")
    assert place(PAGE) != before
    monkeypatch.delenv("TRAINWELL_PROFILE")
    monkeypatch.setattr(_runs, "versions", lambda: {"keras": "3.99"})
    assert place(PAGE) != before


def test_the_packages_code_counts_but_not_that_of_the_labs(monkeypatch, tmp_path):
    (tmp_path / "labs").mkdir()
    monkeypatch.setattr(_runs.trainwell, "__file__", str(tmp_path / "__init__.py"))
    before = place(PAGE)
    (tmp_path / "labs" / "grade.py").write_text("changed = True")
    assert place(PAGE) == before
    (tmp_path / "training.py").write_text("changed = True")
    assert place(PAGE) != before


def test_a_run_is_found_from_another_process():
    code = f"import test_experiments as t; print(hash('a word'), t.place({PAGE!r}))"
    other_hash, found = in_a_new_process(code, PYTHONHASHSEED="1").split(maxsplit=1)
    assert int(other_hash) != hash("a word")  # so sets and keys have another order there
    assert found == str(place(PAGE))


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


def test_no_worker_outlives_a_process_that_is_killed(tmp_path):
    """As when memory runs out, or somebody ends a notebook for good."""
    script = tmp_path / "script.py"
    script.write_text(
        "import os, time\n"
        "from pathlib import Path\n"
        "from trainwell.experiments import run\n\n\n"
        "def work(i):\n"
        f"    Path({str(tmp_path)!r}, f'worker {{os.getpid()}}').touch()\n"
        "    time.sleep(600)\n\n\n"
        "if __name__ == '__main__':\n"
        "    run(work, {'i': [0, 1]}, jobs=2, keep=False)\n"
    )
    with subprocess.Popen([sys.executable, script]) as process:
        while len(workers := list(tmp_path.glob("worker *"))) < 2:
            assert process.poll() is None
            time.sleep(0.1)
        process.kill()
    numbers = [int(worker.name.split()[1]) for worker in workers]
    deadline = time.monotonic() + 60
    while any(map(psutil.pid_exists, numbers)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(psutil.pid_exists, numbers))


@pytest.mark.parametrize(("device", "jobs"), [("CPU", 5), ("NVIDIA H100", 1)])
def test_by_default_a_process_a_core_but_one_on_a_gpu(device, jobs, monkeypatch):
    def asked(function, points, places, jobs):
        return iter([pd.DataFrame({"jobs": [jobs]})])

    monkeypatch.setattr(experiments, "device", lambda: device)
    monkeypatch.setattr(experiments, "cores", lambda: 5)
    monkeypatch.delenv("TRAINWELL_JOBS", raising=False)
    monkeypatch.setattr(experiments, "_in_turn", asked)
    monkeypatch.setattr(experiments, "_in_parallel", asked)
    assert run(fails_at_two, {"i": [0]})["jobs"].item() == jobs
    monkeypatch.setenv("TRAINWELL_JOBS", "3")  # as the build of the book sets it, for a CPU
    assert run(fails_at_two, {"i": [0]})["jobs"].item() == min(jobs, 3)
    for wrong, shown in [("two", "'two'"), ("0", "0")]:
        monkeypatch.setenv("TRAINWELL_JOBS", wrong)
        with pytest.raises(ValueError, match=f"TRAINWELL_JOBS must be a whole .* got {shown}"):
            run(fails_at_two, {"i": [0]})


@pytest.mark.parametrize(
    ("grid", "jobs", "message"),
    [
        ({}, 1, r"grid must have a value for each name, got \{\}"),
        ({"i": []}, 1, r"grid must have a value for each name, got \{'i': \[\]\}"),
        ({"i": 3}, 1, r"grid\['i'\] must be a list of values, got 3"),
        ({"i": "abc"}, 1, r"grid\['i'\] must be a list of values, got 'abc'"),
        ({"i": [0]}, 0, "jobs must be a whole number, at least 1, got 0"),
    ],
)
def test_bad_arguments(grid, jobs, message):
    with pytest.raises(ValueError, match=message):
        run(fails_at_two, grid, jobs=jobs)


def test_a_function_that_returns_no_table():
    with pytest.raises(
        RuntimeError, match=r"i=0: .*must return a mapping or a data frame, got int"
    ):
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
