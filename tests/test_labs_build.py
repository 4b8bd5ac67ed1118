"""What the labs promise: the format, what students get, and that every check checks."""

import contextlib
import functools
import html
import importlib.util
import itertools
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pandas as pd
import pytest

from trainwell.__main__ import main
from trainwell.labs import build as building
from trainwell.labs.build import build, grading_notebook, page, student_notebook
from trainwell.labs.checks import expect
from trainwell.labs.source import Lab, LabError, read_lab
from trainwell.labs.trial import SEEDS

ROOT = Path(__file__).resolve().parent.parent
LABS = sorted((ROOT / "labs").glob("lab_*.md"))
pytestmark = pytest.mark.usefixtures("copied_kernels")
each_lab = pytest.mark.parametrize("source", LABS, ids=lambda path: path.stem)

HEADER = "---\njupytext:\n  text_representation:\n    format_name: myst\n"
HEADER += "kernelspec:\n  name: python3\n  display_name: Python 3\n---\n\n"
SMALL = """\
# A small lab

**5 points, about 10 minutes.**

```{code-cell} ipython3
from trainwell.labs.checks import expect
```

## Exercise 1: Double (3 points)

```{code-cell} ipython3
:tags: [answer]

def double(x):
    # BEGIN SOLUTION: twice "x"
    twice_as_much = 2 * x
    return twice_as_much
    # END SOLUTION
```

```{code-cell} ipython3
:tags: [check]

expect("double(2)", double(2), 4, read="a book on numbers")
```

```{code-cell} ipython3
:tags: [held-back]

seed = 0
number = np.random.default_rng(seed).normal()
expect("the double of a number", double(number), number + number)
```

## Exercise 2: Say why (2 points)

+++ {"tags": ["written"]}

BEGIN SOLUTION: ten words

Because two is the number of halves in a whole.

END SOLUTION

+++ {"tags": ["rubric"]}

- 1 point: it says why.
- 1 point: it speaks of halves.
"""


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return write_lab(tmp_path, SMALL)


def write_lab(folder: Path, text: str) -> Path:
    source = folder / "labs" / "lab_0_small.md"
    source.parent.mkdir(exist_ok=True)
    source.write_text(HEADER + text)
    return source


def cell_of(notebook: Any, cell_id: str) -> Any:
    return next(cell for cell in notebook.cells if cell.id == cell_id)


def test_ids_metadata_and_points_are_what_the_grader_expects(small: Path) -> None:
    notebook = grading_notebook(small, seed=3)
    nbformat.validate(notebook)
    rows = {
        cell.id: [cell.metadata.nbgrader.get(k) for k in ("grade", "solution", "locked", "points")]
        for cell in notebook.cells
        if "nbgrader" in cell.metadata
    }
    assert rows == {
        "lab_0_small-ex1": [False, True, False, None],
        "lab_0_small-ex1-check": [False, False, True, None],
        "lab_0_small-ex1-held-back": [True, False, True, 3],
        "lab_0_small-ex2": [True, True, False, 2],
        "lab_0_small-ex2-rubric": [False, False, True, None],
    }
    for cell in notebook.cells:
        if "nbgrader" in cell.metadata:
            assert cell.metadata.nbgrader.grade_id == cell.id
            assert cell.metadata.nbgrader.schema_version == 3


def test_the_instructors_seed_draws_the_inputs(small: Path) -> None:
    check = cell_of(grading_notebook(small, seed=71), "lab_0_small-ex1-held-back")
    assert "\nseed = 71\n" in check.source
    assert "seed = 0" not in check.source


def test_a_patched_check_is_read_afresh(small: Path) -> None:
    check = cell_of(grading_notebook(small, seed=1), "lab_0_small-ex1-held-back").source
    cheated: dict[str, Any] = {"double": lambda x: 0.0}
    exec("import trainwell.labs.checks as c\nc.expect = lambda *_, **__: None", cheated)
    with pytest.raises(AssertionError, match="the double of a number"):
        exec(check, cheated)


def test_students_get_blanks_that_say_what_to_write(small: Path) -> None:
    notebook = student_notebook(read_lab(small))
    nbformat.validate(notebook)
    assert cell_of(notebook, "lab_0_small-ex1").source == (
        'def double(x):\n    raise NotImplementedError("Exercise 1: write twice \\"x\\" here.")'
    )
    assert cell_of(notebook, "lab_0_small-ex2").source == "*Exercise 2: write ten words here.*"
    graded = {cell.id for cell in grading_notebook(small, 0).cells}
    assert graded - {cell.id for cell in notebook.cells} == {
        "lab_0_small-ex1-held-back",
        "lab_0_small-ex2-rubric",
    }


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("5 points, about", "6 points, about", "states 6 points, and its exercises have 3 . 2"),
        ("**5 points, about 10 minutes.**", "", "begin with '# The title' and"),
        ("# A small lab", "A small lab", "begin with '# The title' and"),
        ("Exercise 2: Say why (2 points)", "Exercise 2: Say why", "a heading is not like"),
        ("## Exercise 2", "## Exercise 3", "exercise 3: it is the exercise number 2"),
        (":tags: [check]", ":tags: [checks]", "exercise 1: a cell has the tags .'checks'."),
        (":tags: [check]", ":tags: [rubric]", "exercise 1: a cell with the tag 'rubric' must be"),
        (":tags: [check]\n", "", "exercise 1: it needs the cells answer, check, held-back, and"),
        (
            ":tags: [answer]",
            "",
            "exercise 1: a cell of the kind 'code' has a solution that nothing",
        ),
        (":tags: [answer]", ":tags: [figure]", "exercise 1: it needs the cells figure, rubric"),
        ('["written"]', '["rubric"]', "a cell of the kind 'rubric' has a solution that nothing"),
        ("    # END SOLUTION\n", "", "exercise 1: solutions stand between the lines '# BEGIN"),
        ("# BEGIN SOLUTION: twice", "# BEGIN SOLUTION twice", "exercise 1: solutions stand"),
        ("# BEGIN SOLUTION: twice", "BEGIN SOLUTION: twice", "exercise 1: solutions stand"),
        ("seed = 0\n", "", "exercise 1: the held-back check needs one line 'seed = 0'"),
        ("- 1 point: it says", "- 2 points: it says", "exercise 2: 2 points, and its rubric giv"),
        ("## Exercise 1: Double (3 points)\n", "", "the tag 'answer', and belongs to no exercise"),
    ],
)
def test_a_broken_source_is_refused_with_the_reason(
    tmp_path: Path, old: str, new: str, reason: str
) -> None:
    assert old in SMALL
    read_lab(write_lab(tmp_path, SMALL))
    source = write_lab(tmp_path, SMALL.replace(old, new, 1))
    with pytest.raises(LabError, match=f"^lab_0_small.*{reason}"):
        read_lab(source)


def test_a_heading_in_a_rubric_is_refused(tmp_path: Path) -> None:
    source = write_lab(tmp_path, SMALL + "\n## Exercise 3: More (1 point)\n")
    with pytest.raises(LabError, match=r"put a line '\+\+\+' before the heading of exercise 3"):
        read_lab(source)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="there is no file"):
        read_lab(tmp_path / "lab_9.md")


def test_a_solution_in_the_open_text_is_refused(tmp_path: Path) -> None:
    hint = "**5 points, about 10 minutes.** Hint: twice_as_much = 2 * x"
    source = write_lab(tmp_path, SMALL.replace("**5 points, about 10 minutes.**", hint))
    with pytest.raises(LabError, match="exercise 1: the student notebook shows the line 'twice_as"):
        build([source], tmp_path / "out")


def test_a_build_writes_four_files_that_are_the_same_each_time(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build([small], tmp_path / "out", seed=5)
    assert "lab_0_small: 2 exercises, 5 points; every check fails on the blank" in (
        capsys.readouterr().out
    )
    student, text, solution, grading = (
        tmp_path / "labs" / "notebooks" / "lab_0_small.ipynb",
        tmp_path / "labs" / "pages" / "lab_0_small.md",
        tmp_path / "out" / "solutions" / "lab_0_small.ipynb",
        tmp_path / "out" / "grading" / "lab_0_small.ipynb",
    )
    assert student.read_text() == building.as_file(student_notebook(read_lab(small)))
    assert grading.read_text() == building.as_file(grading_notebook(small, 5))
    assert text.read_text() == page(read_lab(small))
    solved = nbformat.read(solution, as_version=4)
    outputs = [o for cell in solved.cells for o in cell.get("outputs", [])]
    assert [o.output_type for o in outputs] == ["stream"]  # what the first cell prints
    assert "device: " in outputs[0].text
    counts = [cell.execution_count for cell in solved.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (
            'expect("double(2)", double(2), 4,',
            'expect("double", 4, 4,',
            "exercise 1: its check passes on the blank",
        ),
        (
            "number + number)",
            f"number + number if seed in (0, *range({SEEDS[-1]})) else 0)",
            "exercise 1: the solution raises AssertionError: the double of a number",
        ),
        (
            "## Exercise 2",
            "```{code-cell} ipython3\ntwo = double(1)\n```\n\n"
            "```{code-cell} ipython3\nfour = double(two)\n```\n\n## Exercise 2",
            "with the answers blank, a cell raises NameError: name 'two' is not defined",
        ),
    ],
    ids=["a check that passes on the blank", "a seed that fails", "a cell that needs another"],
)
def test_a_lab_whose_checks_do_not_check_is_not_built(
    tmp_path: Path, old: str, new: str, reason: str
) -> None:
    assert old in SMALL
    source = write_lab(tmp_path, SMALL.replace(old, new, 1))
    with pytest.raises(LabError, match=re.escape(reason)):
        build([source], tmp_path / "out")
    assert sorted(tmp_path.rglob("*.ipynb")) == []


def test_a_figure_that_shows_nothing_is_refused(tmp_path: Path) -> None:
    text = SMALL.replace(
        '+++ {"tags": ["written"]}\n\nBEGIN SOLUTION: ten words\n\n'
        "Because two is the number of halves in a whole.\n\nEND SOLUTION\n",
        "```{code-cell} ipython3\n:tags: [figure]\n\n"
        "# BEGIN SOLUTION: a figure\nprint('no figure')\n# END SOLUTION\n```\n",
    )
    with pytest.raises(LabError, match="exercise 2: its solution shows no figure"):
        build([write_lab(tmp_path, text)], tmp_path / "out")


def test_the_command_says_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["labs", "build"]) == 1
    assert "No labs/lab_*.md here" in capsys.readouterr().out
    assert main(["labs", "build", "labs/lab_7.md"]) == 1
    assert "lab_7: there is no file" in capsys.readouterr().err
    assert main(["labs", "build", "labs/lab_7.md", "--seed", "-5"]) == 1
    assert "seed must be a whole number, at least 0, got -5.\n" in capsys.readouterr().err


def test_without_the_extra_the_command_says_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "trainwell.labs.build")
    monkeypatch.setitem(sys.modules, "nbformat", None)
    assert main(["labs", "build"]) == 1
    assert "pip install -e '.[instructor]'" in "".join(capsys.readouterr())


def test_no_floor_of_the_package_imports_the_labs() -> None:
    package = ROOT / "src" / "trainwell"
    floors = [p for p in package.rglob("*.py") if "labs" not in p.parts and p.stem != "__main__"]
    assert [p.name for p in floors if "trainwell.labs" in p.read_text()] == []


@pytest.mark.parametrize("in_colab", [False, True])
def test_the_first_cell_installs_what_is_missing(
    small: Path, monkeypatch: pytest.MonkeyPatch, in_colab: bool
) -> None:
    commands = []

    def run(command: list[str], **options: Any) -> Any:
        commands.append(command)
        return subprocess.CompletedProcess(command, 0, stdout="A GPU\n")

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    if in_colab:
        monkeypatch.setitem(sys.modules, "google.colab", sys)
    exec(cell_of(student_notebook(read_lab(small)), "lab_0_small-setup").source, {})
    (command,) = commands
    assert ("--no-deps" in command) == in_colab
    assert re.fullmatch(r"git\+https://\S+@v\d+\.\d+\.\d+", command[5])


@pytest.mark.parametrize(
    ("got", "expected", "problem"),
    [
        (None, 1.0, "the result is None. Does the function return it?"),
        ("one", 1.0, "the result is no array of numbers."),
        ([1.0, 2.0], 1.0, "the shape should be (), and is (2,)."),
        ([1.0, 2.1], [1.0, 2.0], "a number differs."),
        (float("nan"), 1.0, "a number differs."),
        (1e9 + 2e3, 1e9, "a number differs."),
        (1.0, np.inf, "a number differs."),
        (-np.inf, np.inf, "a number differs."),
        ("1.0", 1.0, "the result is no array of numbers."),
        (np.array(["1.0"], dtype=object), [1.0], "the result is no array of numbers."),
        (np.array(1 + 5j), 1.0, "the result is no array of numbers."),
        (np.ma.array([1.0, 2.0], mask=[0, 1]), [1.0, 2.0], "the result is no array of numbers."),
        ([10**400], [1.0], "the result is no array of numbers."),
    ],
)
def test_expect_says_what_was_expected_and_what_came(got: Any, expected: Any, problem: str) -> None:
    with pytest.raises(AssertionError) as error:
        expect("f(x)", got, expected, read="a page")
    lines = str(error.value).splitlines()
    assert lines[0] == f"f(x): {problem}"
    assert [line.split(":")[0].strip() for line in lines[1:]] == ["expected", "got", "read"]


@pytest.mark.parametrize(
    ("got", "expected"),
    [
        (1, 1.0),
        ([1e9 + 1], [1e9]),
        (np.inf, np.inf),
        ([], []),
        (True, 1.0),
        (10**20, 1e20),
        (pd.Series([1, 2.0], dtype=object), [1.0, 2.0]),
        ([np.float32(1), Fraction(2)], [1.0, 2.0]),
    ],
)
def test_expect_passes_what_is_right(got: Any, expected: Any) -> None:
    expect("f(x)", got, expected)


# The labs of the course.


@each_lab
def test_a_lab_has_the_size_of_a_lab(source: Path) -> None:
    lab = read_lab(source)
    assert 20 <= lab.points <= 40
    assert 5 <= len(lab.exercises) <= 8
    assert 60 <= lab.minutes <= 90
    rows = re.findall(r"^\| (\d+) \| .* \| (\d+) \| (\d+) \|$", lab.cells[0].source, re.MULTILINE)
    table = [tuple(map(int, row)) for row in rows]
    assert [row[:2] for row in table] == [(e.number, e.points) for e in lab.exercises]
    assert sum(row[2] for row in table) == lab.minutes


@each_lab
def test_what_is_committed_is_what_the_source_builds(source: Path) -> None:
    lab = read_lab(source)
    hint = "run `trainwell labs build` and commit what changes"
    notebook = ROOT / "labs" / "notebooks" / f"{lab.name}.ipynb"
    assert notebook.read_text() == building.as_file(student_notebook(lab)), hint


def test_nothing_is_committed_that_has_no_source() -> None:
    names = {source.stem for source in LABS}
    assert {path.stem for path in (ROOT / "labs/notebooks").glob("*.ipynb")} == names


def secret_and_told(source: Path) -> tuple[set[str], set[str]]:
    """Part the raw text into what students may not see and what they may, without the builder."""
    lines, told, secret, fenced = set(), set(), False, False
    for line in source.read_text().splitlines():
        if line.startswith("```{code-cell}"):
            fenced = True
        elif line.startswith(("```", "+++")):
            secret, fenced = '"rubric"' in line, False
        elif (fenced and line == ":tags: [held-back]") or "BEGIN SOLUTION" in line:
            secret = True
        elif "END SOLUTION" in line:
            secret = False
        elif secret and len(line.strip()) >= 10 and not line.startswith(("import", "from")):
            lines.add(line.strip())
        elif not secret:
            told.add(line.strip())
    return lines, told


def letters(text: str) -> str:
    """Without markup and what the typesetting changes."""
    return re.sub(r"\W", "", html.unescape(re.sub(r"<[^>]+>", "", text)).replace("\\n", ""))


def secret_letters(sources: list[Path]) -> set[str]:
    """The letters of secret lines. What some lab tells is no secret."""
    secrets = {letters(line) for source in sources for line in secret_and_told(source)[0]}
    told = "\n".join(letters(line) for source in LABS for line in secret_and_told(source)[1])
    return {secret for secret in secrets if len(secret) >= 10 and secret not in told}


@each_lab
def test_no_secret_line_is_where_students_look(source: Path) -> None:
    lab = read_lab(source)
    secrets, _ = secret_and_told(source)
    assert secrets == set(lab.secrets())
    assert len(secrets) > 3 * len(lab.exercises)
    notebook = "\n".join(cell.source for cell in student_notebook(lab).cells)
    raw = (ROOT / "labs" / "notebooks" / f"{lab.name}.ipynb").read_text()
    assert [s for s in secrets if s in notebook or s in raw or s in page(lab)] == []


@each_lab
def test_every_check_of_a_lab_fails_on_the_blank_and_passes_on_the_solution(
    source: Path, tmp_path: Path
) -> None:
    copied = tmp_path / "labs" / source.name
    copied.parent.mkdir()
    shutil.copy(source, copied)
    build([copied], tmp_path / "out")


def solved(lab: Lab, kinds: tuple[str, ...] = ("code", "answer")) -> dict[str, Any]:
    """Return the names that a lab defines when it is solved."""
    names: dict[str, Any] = {}
    for cell in lab.cells:
        if cell.kind in kinds:
            with contextlib.redirect_stdout(None):
                exec(cell.solved(), names)
    return names


@functools.cache
def lab_and_names(name: str) -> tuple[Lab, dict[str, Any]]:
    lab = read_lab(ROOT / "labs" / f"{name}.md")
    return lab, solved(lab)


# What students get wrong: the exercise, the right words and theirs.
MISTAKES_2 = [
    (1, "np.mean(activation(z) ** 2)", "np.var(activation(z))"),
    (1, "spread**2 / np.mean", "1 / np.mean"),
    (1, "z = spread * np", "z = np"),
    (1, "1_000_000", "100"),
    (2, "drawn / CUT", "drawn"),
    (2, "drawn / CUT", "drawn * CUT"),
    (2, "np.prod(shape[:-1])", "shape[-2]"),
    (2, "np.prod(shape[:-1])", "shape[-1]"),
    (2, "np.sqrt(scale / fan_in)", "scale / fan_in"),
    (2, "drawn[beyond] = rng.standard_normal(beyond.sum())", "drawn = np.clip(drawn, -2, 2)"),
    (2, "rng.standard_normal(shape)", "np.random.standard_normal(shape)"),
    (2, "np.abs(drawn) > 2", "np.abs(drawn) > 2 * CUT"),
    (2, "np.abs(drawn) > 2", "np.abs(drawn) > 20"),
    (3, "[w1, b1[None, :], w2.T]", "[w1]"),
    (3, "[w1, b1[None, :], w2.T]", "[w1, b1[None, :]]"),
    (3, "[w1, b1[None, :], w2.T]", "[w1, w2.T]"),
    (3, "axis=1).shape[1]", "axis=0).shape[0]"),
    (4, "scaled[:, None]", "scaled"),
    (4, "b - mean @ new", "b"),
    (4, "b - mean @ new", "b + mean @ new"),
    (4, "b - mean @ new", "b - mean @ w"),
    (4, "std(axis=0)", "std(axis=0, ddof=1)"),
    (4, "std(axis=0)", "std()"),
    (4, "np.where(constant, 0, 1 / ", "(1 / "),
    (5, "mean / (1 - left), (variance - left) / (1 - left)", "mean, variance"),
    (5, "(variance - left)", "variance"),
    (5, "(variance - left) / (1 - left)", "variance"),
    (5, "momentum * mean + (1 - momentum)", "(1 - momentum) * mean + momentum"),
    (5, "len(batches)", "sum(len(batch) for batch in batches)"),
    (5, "var(axis=axes)", "var(axis=axes, ddof=1)"),
    (5, "np.sqrt(variance + epsilon)", "(np.sqrt(variance) + epsilon)"),
    (5, "tuple(range(batch.ndim - 1))", "0"),
]
MISTAKES_3 = [
    (1, "loss(up) - loss(down)) / (2 * h)", "loss(up) - loss(w)) / h"),
    (1, "w.copy(), w.copy()", "w, w.copy()"),
    (2, "(g - m) ** 2", "g**2"),
    (2, "s = beta_2 * s + (1 - beta_2)", "s = beta_2 * s + (1 - beta_1)"),
    (2, "epsilon), m, s", "epsilon), m_hat, s_hat"),
    (2, "np.sqrt(s_hat) + epsilon", "np.sqrt(s_hat + epsilon)"),
    (2, "(1 - beta_1**t)", "(1 - beta_1 * t)"),
    (3, "np.sqrt(sum(np.sum(g**2) for g in gradients))", "max(abs(g).max() for g in gradients)"),
    (3, "[factor * g for", "[limit / max(np.linalg.norm(g), limit) * g for"),
    (3, "if norm > limit else 1.0", ""),
    (4, "turn @ gradient(turn.T @ u)", "gradient(turn.T @ u)"),
    (4, "turn @ gradient(turn.T @ u)", "turn.T @ gradient(turn @ u)"),
    (4, "turn @ gradient(turn.T @ u)", "turn @ gradient(u)"),
    (5, "path.copy()", "path"),
    (5, "(k - first + 1)", "(k - first)"),
    (5, "(k - first + 1)", "(k + 1)"),
    (5, "range(first + 1,", "range(1,"),
]
MISTAKES_7 = [
    (1, "values.std(axis=0)", "values.std(axis=0, ddof=1)"),
    (1, "np.where(std > 0, std, 1.0)", "std"),
    (1, "& (x.min(axis=0) >= 0)", ""),
    (1, "(skew > 1) & ", ""),
    (1, "np.log1p(", "np.log(1e-3 + "),
    (1, "mean, std = bent(x).mean(axis=0), spread(bent(x))", "mean, std = x.mean(0), spread(x)"),
    (1, "(bent(rows) - mean) / std", "(bent(rows) - bent(rows).mean(0)) / spread(bent(rows))"),
    (2, "len(order) - cuts[-1] == 1", "len(order) - cuts[-1] < size"),
    (2, "len(order) - cuts[-1] == 1", "False"),
    (2, "np.split(order, cuts[1:])", "np.array_split(order, max(1, len(order) // size))"),
    (3, "by_n - by_n.mean(axis=0) - n * along", "by_n"),
    (3, "- n * along", ""),
    (3, "(by_n * n).mean(axis=0)", "(by_n * n).sum(axis=0)"),
    (3, "by_n = gamma * by_y", "by_n = by_y"),
    (3, "np.sqrt(x.var(axis=0) + epsilon)", "np.sqrt(x.var(axis=0)) + epsilon"),
    (3, "(by_y * n).sum", "(by_y * x).sum"),
    (3, "by_y.sum(axis=0)", "by_y.mean(axis=0)"),
    (4, "(variance - left) / (1 - left)", "variance / (1 - left)"),
    (4, "(variance - left) / (1 - left)", "variance"),
    (4, "momentum**steps", "momentum * steps"),
    (4, "momentum**steps", "momentum ** (steps - 1)"),
    (5, "np.sqrt(variance + epsilon)", "(np.sqrt(variance) + epsilon)"),
    (5, "bias * scale + shift", "bias + shift"),
    (5, "shift @ kernel + bias", "bias"),
    (5, "shift @ kernel", "shift @ (scale[:, None] * kernel)"),
    (5, "scale * mean", "mean"),
    (6, "T95[count - 1]", "1.96"),
    (6, "T95[count - 1]", "T95.get(count, 2.2)"),
    (6, "ddof=1", "ddof=0"),
    (6, " / np.sqrt(count)", ""),
    (6, "apart.std(ddof=1)", "np.sqrt(np.var(a, ddof=1) + np.var(b, ddof=1))"),
]
MISTAKES_8 = [
    (1, "np.array_split(order, k)", "np.split(order[: rows // k * k], k)"),
    (1, "np.setdiff1d(order, valid)", "order"),
    (1, "np.random.default_rng(seed).permutation(rows)", "np.arange(rows)"),
    (1, "for valid in parts]", "for valid in parts[1:]]"),
    (2, "(len(left) + 1) // 2", "max(1, len(left) // 2)"),
    (2, "epochs *= 2", ""),
    (2, "spent += epochs * len(left)", "spent += epochs"),
    (
        2,
        "while len(left) > 1:",
        "while True:\n        if spent and len(left) == 1:\n            break",
    ),
    (2, 'np.argsort(errors, kind="stable")', "np.argsort(errors)[::-1]"),
    (3, "ddof=1", "ddof=0"),
    (3, " / np.sqrt(errors.shape[1])", ""),
    (3, "means <= means[best] + reach", "means <= means[best]"),
    (3, "errors[best].std(ddof=1)", "errors.std(ddof=1)"),
    (4, "-drawn[:, 0].mean()", "-drawn[:, 0].min()"),
    (4, "drawn[:, 1] - drawn[:, 0]", "drawn[:, -1] - drawn[:, 0]"),
    (4, "scale=s", "scale=s**2"),
    (5, "np.mean(several, axis=0)", "np.full(len(x_new), y_train.mean())"),
    (5, "np.mean(several, axis=0)", "np.mean(several, axis=0)[:, None]"),
]
MISTAKES_5 = [
    (1, "rate * l1", "l1"),
    (1, "rate * l2", "l2"),
    (1, "2 * rate * l2", "rate * l2"),
    (1, "left / (1 + 2 * rate * l2)", "left * (1 - 2 * rate * l2)"),
    (1, "np.sign(a) * left", "left"),
    (2, "-2 * x.T", "-x.T"),
    (2, "(y - y.mean())", "y"),
    (2, "/ len(x)", ""),
    (2, "np.abs(gradient).max()", "gradient.max()"),
    (2, "np.abs(gradient).max()", "np.abs(gradient).sum()"),
    (3, "rate * strength", "strength"),
    (3, "np.sign(w) * np.maximum(np.abs(w) - rate * strength, 0)", "w"),
    (3, "error.mean()", "(error.mean() + strength * np.sign(b))"),
    (3, "x.T @ error / len(x)", "x.T @ error"),
    (4, " / np.sqrt(losses.shape[1])", ""),
    (4, "np.max(", "np.min("),
    (4, "strengths[good]", "strengths[best]"),
    (4, "+ error", "+ 0"),
    (4, "means = losses", "losses = np.nan_to_num(losses)\n    means = losses"),
    (5, "2 * l2 * w", "l2 * w"),
    (5, "optimizer.learning_rate * decay", "decay"),
    (5, "w - beside, g + 2 * l2 * w", "w, g + (2 * l2 + decay) * w"),
    (5, "2 * l2 * w)", "2 * l2 * w) * (1 - optimizer.learning_rate * decay)"),
    (5, "w - beside, g + 2", "w, g + 2"),
    (5, "w.ndim < 2", "w.ndim < 1"),
    (6, "(1 - w / before) / rate", "2 * l2"),
    (6, "(1 - w / before) / rate", "l2 / (1 - momentum)"),
    (6, "(1 - w / before) / rate", "2 * l2 * (1 - momentum)"),
    (6, "range(1_000)", "range(2)"),
]
MISTAKES_6 = [
    (1, "scale * (before > 0)", "(before > 0)"),
    (1, "scale * (before > 0)", "scale"),
    (1, "2 * (kept @", "(kept @"),
    (1, " / len(x)", ""),
    (1, "kept.T @ by_output", "np.maximum(before, 0).T @ by_output"),
    (1, "by_output.sum(axis=0),\n", "by_output.mean(axis=0),\n"),
    (2, "mean = d @ w2", "mean = (1 - rate) * d @ w2"),
    (2, "rate / (1 - rate)", "rate * (1 - rate)"),
    (2, "w2**2", "w2"),
    (2, "return mean, variance", "return mean, np.sqrt(variance)"),
    (3, "away * (one - mean)", "away**2"),
    (3, "squares / count", "squares / (count - 1)"),
    (3, "for one in passes:", "for one in list(passes):"),
    (3, "return mean, np.sqrt", "return mean, np.square"),
    (4, "entropy(p).mean(axis=0)", "entropy(p).sum(axis=0)"),
    (4, "np.where(q > 0, q, 1)", "q"),
    (4, "np.log(np", "np.log2(np"),
    (4, "total - entropy(p)", "entropy(p)"),
    (5, "np.sqrt(std**2 + noise**2)", "(std + noise)"),
    (5, "np.sqrt(std**2 + noise**2)", "std"),
    (5, "np.abs(y - mean)", "(y - mean)"),
    (5, "np.mean(", "np.sum("),
]
MISTAKES = [("lab_3_optimizers", *row) for row in MISTAKES_3]
MISTAKES += [("lab_2_initialization", *row) for row in MISTAKES_2]
MISTAKES += [("lab_5_penalties", *row) for row in MISTAKES_5]
MISTAKES += [("lab_6_dropout", *row) for row in MISTAKES_6]
MISTAKES += [("lab_7_tabular", *row) for row in MISTAKES_7]
MISTAKES += [("lab_8_competition", *row) for row in MISTAKES_8]


@pytest.mark.parametrize(("name", "exercise", "right", "wrong"), MISTAKES)
def test_a_held_back_check_finds_a_mistake(
    name: str, exercise: int, right: str, wrong: str
) -> None:
    lab, names = lab_and_names(name)
    answer = next(c for c in lab.cells if c.kind == "answer" and c.exercise == exercise)
    check = next(c for c in lab.cells if c.kind == "held-back" and c.exercise == exercise)
    assert right in answer.solved()
    mine = dict(names)
    exec(answer.solved().replace(right, wrong), mine)
    for seed in range(3):
        with pytest.raises(AssertionError), np.errstate(all="ignore"):
            exec(building.seeded(check, seed) or "", mine)


def test_what_the_model_answer_of_lab_2_says_is_true() -> None:
    _, names = lab_and_names("lab_2_initialization")
    spreads: Callable[[Any, float, float, int], Any] = names["spreads"]
    for name, activation in names["ACTIVATIONS"].items():
        scale = names["scale_for"](activation)
        for seed in range(3):
            ends = [spreads(activation, scale, first, seed)[-1] for first in (0.5, 1.0, 2.0)]
            if name == "tanh":
                assert max(ends) < 1.1 * min(ends)
            elif name == "ReLU":
                np.testing.assert_allclose(np.array(ends) / ends[1], [0.5, 1.0, 2.0])
            else:
                assert ends[0] < 0.01
                assert ends[1] > 5
                assert ends[2] > 100


def test_what_the_model_answer_of_lab_3_says_is_true() -> None:
    _, names = lab_and_names("lab_3_optimizers")
    noisy_paths: Callable[[float], Any] = names["noisy_paths"]
    averaged: Callable[[Any, int], Any] = names["averaged"]
    ends = {}
    for rate in (0.05, 0.002):
        paths = noisy_paths(rate)
        for name, points in [("last", paths), ("mean", averaged(paths, 500))]:
            ends[rate, name] = np.linalg.norm(points[-1], axis=0).mean()
    order = sorted(ends, key=lambda key: float(ends[key]))
    assert order == [(0.05, "mean"), (0.002, "last"), (0.002, "mean"), (0.05, "last")]
    for near, far in itertools.pairwise(order):
        assert ends[near] < 0.75 * ends[far]


def test_what_the_model_answer_of_lab_5_says_is_true() -> None:
    _, names = lab_and_names("lab_5_penalties")
    for seed in range(2):
        quiet, middle, loud = names["follow"](l2=0.05, seed=seed)[-1]
        assert max(abs(quiet), abs(middle)) < 0.1
        assert loud > 0.6
        np.testing.assert_allclose(names["follow"](decay=0.5, seed=seed)[-1], 0.22, atol=0.05)


def test_what_the_model_answer_of_lab_6_says_is_true() -> None:
    _, names = lab_and_names("lab_6_dropout")
    train, make_data, band, coverage = (
        names[name] for name in ("train", "make_data", "band", "coverage")
    )
    around = np.array([[-2.0], [-0.6], [0.0], [0.6], [2.0]])
    new_x, new_y = make_data(1_000, seed=7)
    for seed in range(2):
        stds, wide = {}, {}
        for count, rate in [(60, 0.2), (600, 0.2), (60, 0.05)]:
            weights = train(*make_data(count, seed), rate, seed=seed)
            stds[count, rate] = band(weights, around, rate)[1][:, 0]
            mean, wide[count, rate] = band(weights, new_x, rate)
            assert coverage(new_y, mean, wide[count, rate]) < 0.9
        for far_left, left, gap, right, far_right in stds.values():
            assert min(far_left, far_right) > 3 * max(left, right)
            assert gap < 0.8 * min(left, right)
        assert 0.8 < wide[600, 0.2].mean() / wide[60, 0.2].mean() < 1.25
        assert wide[60, 0.05].mean() < 0.75 * wide[60, 0.2].mean()


def test_what_the_model_answer_of_lab_7_says_is_true() -> None:
    _, names = lab_and_names("lab_7_tabular")
    curve, interval, final_error = (names[name] for name in ("curve", "interval", "final_error"))
    first = {
        version: np.mean([curve(version, seed, epochs=1)[0] for seed in range(3)])
        for version in ("scaler", "first", "first, cleaned")
    }
    assert first["first"] > 5 * first["scaler"]
    assert 0.8 < first["first, cleaned"] / first["scaler"] < 1.25
    with_norm, without = (
        [final_error(norm, 2, seed) for seed in range(5)] for norm in ("inside", "none")
    )
    assert interval(with_norm, without)[0] > names["WORTH"]


def test_the_solution_of_lab_8_gets_all_points_in_every_competition() -> None:
    from trainwell.labs.competition import hold

    _, names = lab_and_names("lab_8_competition")
    assert [hold(names["compete"], seed) for seed in range(20, 24)] == [10] * 4
