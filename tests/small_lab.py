"""A small lab for the tests of the grader: its grading notebook, and submissions of it."""

import json
from typing import Any

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

LAB = "lab_9_small"

SETUP = "import numpy as np\n"
HELPER = """\
def expect_close(mine, right):
    assert np.allclose(mine, right), f"expected {right}, got {mine}"
"""
BLANKS = {
    1: "def step(theta, gradient, rate):\n    raise NotImplementedError('Exercise 1')",
    2: "def momentum(velocity, gradient, beta):\n    raise NotImplementedError('Exercise 2')",
}
ANSWERS = {
    1: "def step(theta, gradient, rate):\n    return theta - rate * gradient",
    2: "def momentum(velocity, gradient, beta):\n    return beta * velocity - gradient",
}
CHECKS = {
    1: "expect_close(step(1.0, 2.0, 0.1), 0.8)",
    2: "expect_close(momentum(1.0, 2.0, 0.5), -1.5)",
}
HELD_BACK = {
    1: """\
rng = np.random.default_rng(seed)
theta, gradient = rng.normal(size=(2, 5))
expect_close(step(theta, gradient, 0.3), theta - 0.3 * gradient)
""",
    2: """\
rng = np.random.default_rng(seed + 1)
velocity, gradient = rng.normal(size=(2, 5))
expect_close(momentum(velocity, gradient, 0.9), 0.9 * velocity - gradient)
""",
}
WRITTEN = "*Your answer here.*"
TOTAL = 10.0  # 3 and 4 by checks, 3 by a person


def grading_notebook(seed: int = 7) -> Any:
    cells = [
        new_markdown_cell("# A small lab", id="title"),
        new_code_cell(SETUP, id="setup"),
        new_code_cell(HELPER, id="helper"),
    ]
    for number, points in ((1, 3), (2, 4)):
        name = f"{LAB}-ex{number}"
        cells += [
            new_markdown_cell(f"## Exercise {number}", id=f"text-{number}"),
            _cell(name, BLANKS[number], solution=True),
            _cell(f"{name}-check", CHECKS[number], locked=True),
            _cell(
                f"{name}-held-back",
                f"seed = {seed}\n{HELD_BACK[number]}",
                locked=True,
                grade=True,
                points=points,
            ),
        ]
    cells.append(new_markdown_cell("## Exercise 3: why?", id="text-3"))
    cells.append(_cell(f"{LAB}-ex3", WRITTEN, kind="markdown", solution=True, grade=True, points=3))
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return new_notebook(cells=cells, metadata={"kernelspec": kernel})


def student_notebook(answers: dict[int, str] | None = None, words: str | None = None) -> Any:
    """Return what a student sends: without held-back checks, with `answers` filled in."""
    notebook = grading_notebook()
    notebook.cells = [cell for cell in notebook.cells if not cell.id.endswith("-held-back")]
    for number, source in (ANSWERS if answers is None else answers).items():
        find(notebook, f"{LAB}-ex{number}").source = source
    find(notebook, f"{LAB}-ex3").source = WRITTEN if words is None else words
    return notebook


def find(notebook: Any, name: str) -> Any:
    return next(cell for cell in notebook.cells if cell.id == name)


def sent(notebook: Any) -> bytes:
    return json.dumps(notebook).encode()


def _cell(
    name: str,
    source: str,
    *,
    kind: str = "code",
    solution: bool = False,
    grade: bool = False,
    locked: bool = False,
    points: float = 0,
) -> Any:
    flags: dict[str, Any] = {"solution": solution, "grade": grade, "locked": locked}
    meta = {**flags, "task": False, "schema_version": 3, "grade_id": name}
    if grade:
        meta["points"] = points
    new = new_code_cell if kind == "code" else new_markdown_cell
    return new(source, id=name, metadata={"nbgrader": meta})


def write_grading_notebook(path: Any, seed: int = 7) -> None:
    nbformat.write(grading_notebook(seed), path)
