"""The competition of lab 8: what it draws, who has beaten what, and where the labels are."""

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("nbgrader", reason="grading needs the extra `instructor`")

from nbformat.v4 import new_code_cell
from small_lab import sent

from trainwell.labs import competition, grade, report
from trainwell.labs.build import grading_notebook, student_notebook
from trainwell.labs.competition import draw, hold, interval, judge, linear, places, tables
from trainwell.labs.sandbox import Run, SandboxError, check_sandbox
from trainwell.labs.source import read_lab

try:
    check_sandbox()
    NO_SANDBOX = ""
except SandboxError as error:
    NO_SANDBOX = str(error)
boxed = pytest.mark.skipif(bool(NO_SANDBOX), reason=NO_SANDBOX)

LAB = """\
---
jupytext:
  text_representation:
    format_name: myst
kernelspec:
  name: python3
  display_name: Python 3
---

# A small competition

**10 points, about 10 minutes.**

## Exercise 1: Compete (10 points)

```{code-cell} ipython3
:tags: [answer]

def compete(x_train, y_train, x_new):
    # BEGIN SOLUTION: your predictions
    from trainwell.labs.competition import linear
    return linear(x_train, y_train, x_new)
    # END SOLUTION
```

```{code-cell} ipython3
:tags: [check]

compete
```

```{code-cell} ipython3
:tags: [held-back]

from trainwell.labs.competition import hold
seed = 0
hold(compete, seed)
```
"""
LINEAR = "from trainwell.labs.competition import linear as compete"
# Answers, what they get, and what the report says of them.
ANSWERS = {
    "linear": (LINEAR, 2, ""),
    "noisy": (f"print('hello')\n{LINEAR}", 2, ""),
    "talks": (
        "import trainwell.labs.competition as c\n"
        "def compete(x, y, new):\n    print('so far')\n    return list(c.linear(x, y, new))",
        2,
        "",
    ),
    "mean": ("def compete(x, y, new):\n    return [y.mean()] * len(new)", 0, "No baseline"),
    "column": (
        "from trainwell.labs.competition import linear\n"
        "def compete(*a):\n    return linear(*a)[:, None]",
        0,
        "the shape (1000,)",
    ),
    "nan": ("def compete(x, y, new):\n    return new[:, 0] * float('nan')", 0, "nan or infinite"),
    "words": ("def compete(x, y, new):\n    return 'very good'", 0, "very good"),
    "ends": ("import os\ndef compete(x, y, new):\n    os._exit(0)", 0, "the kernel ended"),
    # What a student who has read all this would try.
    "cheats": (
        "import gc\nfrom trainwell.labs import competition as c\n"
        "def compete(x, y, new):\n"
        "    found = [t for t in gc.get_objects() if isinstance(t, c.Task)]\n"
        "    c.judge = c.hold = c.rmse = lambda *a: (10, '')\n"
        "    if found: return found[0].y_new\n"
        "    text = repr(globals().get('In')) + repr(globals().get('seed'))\n"
        "    assert 'ho' + 'ld(' not in text and 'No' + 'ne' in text\n"
        "    return c.linear(x, y, new)",
        2,
        "",
    ),
}


def test_a_table_is_drawn_by_its_seed_and_no_two_have_the_same_function() -> None:
    one, again, other = draw(1), draw(1), draw(2)
    assert np.array_equal(one.y_new, again.y_new)
    assert one.x_train.shape == (300, 8)
    assert one.x_new.shape == (1_000, 8)
    # What a linear model learns on one table says nothing of another.
    learned = linear(one.x_train, one.y_train, other.x_new)
    assert competition.rmse(learned, other.y_new) > 1.5 * other.y_new.std()


@pytest.mark.parametrize("seed", range(3))
def test_the_spread_and_the_noise_are_what_the_docstring_says(seed: int) -> None:
    task = draw(seed)
    labels = np.concatenate([task.y_train, task.y_new])
    assert 5.1 < labels.std() < 5.7
    assert competition.NOISE * competition.UNIT == 2.0


def test_the_recipe_trains_as_keras_does() -> None:
    import keras

    task, rng = draw(seed=0), np.random.default_rng(5)
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(16, "silu")])
    model.add(keras.layers.Dense(1))
    for layer in model.layers:
        columns, units = layer.kernel.shape
        layer.kernel.assign(rng.normal(scale=(2 / columns) ** 0.5, size=(columns, units)))
    optimizer = keras.optimizers.AdamW(weight_decay=0.1)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    model.compile(optimizer, "mse")
    mean, std = task.x_train.mean(axis=0), task.x_train.std(axis=0)
    x, y = (task.x_train - mean) / std, task.y_train
    y = (y - y.mean()) / y.std()
    rates = [0.005, 0.01]  # a tenth of 20 steps is 2, then the cosine
    rates += [0.005 * (1 + np.cos(np.pi * step / 18)) for step in range(1, 19)]
    for step, rate in enumerate(rates):
        if step % 5 == 0:  # 300 rows are 5 batches of 64
            order = rng.permutation(300)
        rows = order[64 * (step % 5) :][:64]
        optimizer.learning_rate = rate
        model.train_on_batch(x[rows], y[rows, None])
    by_keras = model.predict((task.x_new - mean) / std, verbose=0)[:, 0]
    found = competition.network(
        *(task.x_train, task.y_train, task.x_new),
        **{"units": [16], "decay": 0.1, "epochs": 4, "size": 64, "seed": 5},
    )
    found = (found - task.y_train.mean()) / task.y_train.std()
    np.testing.assert_allclose(found, by_keras, atol=2e-4)  # rounding comes to 3e-5


def test_the_baselines_stand_in_their_order_on_average() -> None:
    found = [competition.baselines(secret) for secret in range(3)]
    means = [np.mean([list(errors[name]) for errors in found]) for name in competition.BASELINES]
    assert means[0] > means[1] > means[2] > 2.0


@pytest.mark.parametrize(
    ("predicted", "problem"),
    [
        ([1e200, 0.0], "a prediction is nan or infinite, or as large as 1e[+]100."),
        ([10**400, 0], "the predictions are no array of numbers."),
    ],
)
def test_enormous_predictions_get_no_error_but_a_reason(predicted: Any, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        competition.rmse(predicted, np.zeros(2))


def test_a_baseline_is_beaten_when_the_interval_lies_above_zero() -> None:
    against = {
        "the mean": [5.0, 5.1, 5.2, 5.3, 5.4],
        "linear": [3.0, 3.5, 3.2, 3.4, 3.3],
        "the recipe": [3.0, 2.0, 3.0, 2.0, 3.0],
    }
    points, text = judge([2.7, 3.0, 2.9, 2.9, 3.0], against)
    assert points == 2 + 3
    assert text.count("beaten") == 2
    assert "not told apart" in text
    points, text = judge([6.0, 6.0, 6.0, 6.0, 6.0], against)
    assert points == 0
    assert text.count("ahead of you") == 3


def test_the_interval_is_students() -> None:
    low, high = interval([1.0, 2.0, 3.0, 4.0, 5.0] * 2, [0.0] * 10)
    assert (low + high) / 2 == pytest.approx(3.0)
    assert high - low == pytest.approx(2 * 2.262 * np.sqrt(20 / 9 / 10))


def test_who_cannot_be_told_apart_shares_a_place() -> None:
    errors = {
        "kim": [2.0, 2.1, 2.2, 2.3, 2.4],
        "lee": [2.1, 2.0, 2.3, 2.2, 2.45],
        "ho": [3.0, 3.1, 3.2, 3.3, 3.4],
        "jo": [3.1, 3.0, 3.3, 3.2, 3.5],
    }
    assert places(errors) == [(1, "kim"), (1, "lee"), (3, "ho"), (3, "jo")]


def test_held_here_the_mean_alone_earns_nothing() -> None:
    with pytest.raises(AssertionError, match="No baseline is beaten"):
        hold(competition.always_the_mean, 3)
    assert hold(linear, 3) == 2


def test_a_competitor_gets_copies() -> None:
    kept = [task.x_train.copy() for task in tables(4)]

    def spoils(x: Any, y: Any, new: Any) -> Any:
        predicted = linear(x, y, new)
        x[:], y[:] = 0, 0
        return predicted

    assert competition.compete(spoils, 4) == competition.compete(linear, 4)
    assert all(np.array_equal(a, t.x_train) for a, t in zip(kept, tables(4), strict=True))


@functools.cache
def _graded(folder: Path) -> dict[str, Any]:
    source = folder / "labs" / "lab_0_race.md"
    source.parent.mkdir()
    source.write_text(LAB)
    (folder / "in").mkdir()
    for name, (answer, _, _) in ANSWERS.items():
        notebook = student_notebook(read_lab(source))
        next(c for c in notebook.cells if c.id.endswith("-ex1")).source = answer
        (folder / "in" / f"{name}.ipynb").write_bytes(sent(notebook))
    grades = grade.grade(folder / "in", source, folder / "out", jobs=2)
    return {name: result for name, (_, result) in grades.items()}


@boxed
def test_the_grader_holds_it_outside_the_box(tmp_path: Path) -> None:
    results = _graded(tmp_path)
    for name, (_, points, words) in ANSWERS.items():
        (mark,) = results[name].marks
        assert (name, mark.points) == (name, points)
        if not points:
            assert words in mark.error
    secret = int((tmp_path / "out" / "competition.txt").read_text())
    errors = competition.compete(linear, secret)
    (cell,) = [c for c in results["talks"].notebook.cells if "competition" in c.metadata]
    assert list(cell.metadata["competition"]) == pytest.approx(errors)
    assert "linear" in json.dumps(cell.outputs)
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<h2>Competition</h2>" in page
    pages = [path.read_text() for path in (tmp_path / "out" / "feedback").iterdir()]
    assert len(pages) == len(ANSWERS)
    assert not any(str(secret) in text for text in pages)  # what students get back
    assert "shared" in page
    assert "<em>the recipe</em>" in page
    # Run again, it is the same competition, and nothing is graded twice.
    again = grade.grade(tmp_path / "in", tmp_path / "labs" / "lab_0_race.md", tmp_path / "out")
    assert report.total(again["linear"][1]) == 2
    assert int((tmp_path / "out" / "competition.txt").read_text()) == secret


def test_predictions_that_were_cut_off_are_told() -> None:
    class Shouts:
        def run(self, *_: Any, **__: Any) -> Run:
            return Run(cut=True)

    result = grade._hold(Shouts(), new_code_cell(), "compete", 0, 1.0)
    assert result.error == (
        "AssertionError: compete: it printed too much for its predictions to be read."
    )


def test_the_secret_is_in_no_cell(tmp_path: Path) -> None:
    source = tmp_path / "lab_0_race.md"
    source.write_text(LAB)
    pristine = grading_notebook(source, 7)
    pristine.metadata[grade.COMPETITION] = 123_456_789
    assert not any("123456789" in cell.source for cell in pristine.cells)
