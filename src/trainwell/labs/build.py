"""Build labs from their sources: `trainwell labs build`.

From `labs/lab_3_optimizers.md` come

- `labs/notebooks/lab_3_optimizers.ipynb`, what students get, and `labs/pages/lab_3_optimizers.md`,
  the book's page: both hold nothing of a solution or a held-back check, and the first is committed,
  so that Colab opens it;
- `solutions/lab_3_optimizers.ipynb`, with its outputs, and `grading/lab_3_optimizers.ipynb`, for
  instructors: both go to a folder that git ignores.

The notebooks carry nbgrader's metadata. In all of them a cell has the same id:

| cell                               | id                    | nbgrader                        |
|------------------------------------|-----------------------|---------------------------------|
| an answer that checks grade        | `{lab}-ex2`           | solution                        |
| the check that students run        | `{lab}-ex2-check`     | locked                          |
| the held-back check                | `{lab}-ex2-held-back` | locked, graded, has the points  |
| a figure, or a written answer      | `{lab}-ex2`           | solution, graded, has the points|
| the rubric, for the grader         | `{lab}-ex2-rubric`    | locked                          |
"""

import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from trainwell._checks import check_whole
from trainwell.labs.source import ANSWERS, SEED, Cell, Lab, LabError, read_lab
from trainwell.labs.trial import solution_outputs, try_blank

# The one setting of the repository's address: [project.urls] Repository.
PYPROJECT = Path(__file__).resolve().parents[3] / "pyproject.toml"
SETUP = """\
# Run this cell first. It installs the course's package where it is missing.
import contextlib
import importlib.metadata
import importlib.util
import platform
import shutil
import subprocess
import sys

if importlib.util.find_spec("trainwell") is None:
    address = "git+{repository}@v{version}"
    command = [sys.executable, "-m", "pip", "install", "--quiet", address]
    if "google.colab" in sys.modules:
        command.append("--no-deps")  # Colab has the rest, and keeps it
    if subprocess.run(command).returncode != 0:
        raise RuntimeError(f"No package at {{address}}: is there a network?")
    importlib.invalidate_caches()

print("Python", platform.python_version())
for package in ("trainwell", "numpy", "matplotlib", "keras"):
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        print(package, importlib.metadata.version(package))
gpu = ""
if shutil.which("nvidia-smi"):
    query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    gpu = subprocess.run(query, capture_output=True, text=True).stdout.strip()
print("device:", gpu or "CPU")
"""
# A held-back check begins with this: if a notebook has changed the checks, they are read afresh.
FRESH_CHECKS = """\
import importlib

import numpy as np
import trainwell.labs.checks

expect = importlib.reload(trainwell.labs.checks).expect
seed = {seed}"""


def student_notebook(lab: Lab) -> Any:
    """Return what students get: answers blanked, no held-back check, no rubric, no outputs."""
    shown = [cell for cell in lab.cells if cell.kind not in ("held-back", "rubric")]
    return _notebook(lab, [_node(lab, cell, cell.blank()) for cell in shown])


def grading_notebook(source: Path, seed: int) -> Any:
    """Return the notebook that submissions are graded in: answers blanked, all checks.

    Args:
        source: The lab's source.
        seed: Draws the inputs of the held-back checks.

    Raises:
        LabError: If the source breaks a rule of the format.
    """
    lab = read_lab(source)
    nodes = [_node(lab, cell, seeded(cell, seed) or cell.blank()) for cell in lab.cells]
    return _notebook(lab, nodes)


def solution_notebook(lab: Lab, seed: int) -> Any:
    """Return the notebook with solutions, all checks and rubrics, executed.

    Raises:
        LabError: If the solution does not pass a check, or a blank does not fail it.
    """
    notebook = solved_notebook(lab, seed)
    blanks = {c.id: c.blank() for c in lab.cells if c.kind == "answer"}
    solution_outputs(lab, notebook, blanks, lambda cell, other: seeded(cell, other) or "")
    return notebook


def solved_notebook(lab: Lab, seed: int) -> Any:
    """Return the notebook with solutions, all checks and rubrics, as it is before it runs."""
    nodes = [_node(lab, cell, seeded(cell, seed) or cell.solved()) for cell in lab.cells]
    return _notebook(lab, nodes)


def page(lab: Lab) -> str:
    """Return the book's page of a lab, in MyST Markdown: exercises open, solutions absent."""
    link = f"Get the notebook: {{download}}`{lab.name}.ipynb <../notebooks/{lab.name}.ipynb>`."
    parts = [f"% Made from labs/{lab.path.name} by `trainwell labs build`: edit that file."]
    for cell in lab.cells:
        code = f"```python\n{cell.blank()}\n```"
        if cell.kind == "check":
            parts.append(f":::{{dropdown}} The check of exercise {cell.exercise}\n{code}\n:::")
        elif cell.is_code and cell.kind != "held-back":
            parts.append(code)
        elif cell.kind in ("text", "written"):
            parts.append(cell.blank())
    title, _, rest = parts[1].partition("\n")
    parts[1] = f"{title}\n\n{link}\n{rest}"
    return "\n\n".join(parts) + "\n"


def build(sources: Iterable[Path], out: Path, seed: int = 0) -> None:
    """Build labs; write nothing of a lab that does not pass every check.

    Args:
        sources: The labs' sources, each in a folder `labs`.
        out: The folder for the solution and the grading notebooks.
        seed: Draws the inputs of the held-back checks.

    Raises:
        LabError: If a lab breaks a rule; the message names the lab, the exercise and the reason.
        ValueError: If the seed is negative.
    """
    check_whole("seed", seed, 0)
    for source in sources:
        lab = read_lab(source)
        student, grading = student_notebook(lab), grading_notebook(source, seed)
        text = page(lab)
        _look_for_leaks(lab, {"student notebook": _text(student), "page": text})
        solution = solution_notebook(lab, seed)
        try_blank(lab, student_notebook(lab))
        files = {
            source.parent / "notebooks" / f"{lab.name}.ipynb": as_file(student),
            source.parent / "pages" / f"{lab.name}.md": text,
            out / "solutions" / f"{lab.name}.ipynb": as_file(solution),
            out / "grading" / f"{lab.name}.ipynb": as_file(grading),
        }
        for path, content in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            unfinished = path.with_name(f"{path.name}.part")
            unfinished.write_text(content, encoding="utf-8")
            unfinished.replace(path)  # all of a file, or nothing, if this is interrupted
        print(
            f"{lab.name}: {len(lab.exercises)} exercises, {lab.points} points; "
            "every check fails on the blank and passes on the solution",
            flush=True,
        )


def main_build(sources: list[Path], out: Path, seed: int) -> int:
    """Run `trainwell labs build` and return its exit status."""
    found = sources or sorted(Path("labs").glob("lab_*.md"))
    if not found:
        print("No labs/lab_*.md here: run this in the repository's folder, or name the sources.")
        return 1
    try:
        build(found, out, seed)
    except (LabError, ValueError) as error:
        print(f"{error}\n\nThis lab is not built.", file=sys.stderr)
        return 1
    return 0


def seeded(cell: Cell, seed: int) -> str | None:
    """Return a held-back check that draws its inputs from `seed`; None for another cell."""
    if cell.kind != "held-back":
        return None
    return SEED.sub(lambda _: FRESH_CHECKS.format(seed=seed), cell.source)


def address() -> tuple[str, str]:
    """Return the repository's address and the package's version.

    Raises:
        LabError: Outside a checkout of the repository.
    """
    if not PYPROJECT.exists():
        raise LabError(
            "Labs are built in a checkout of the repository. There, run "
            "`pip install --editable '.[instructor]'`."
        )
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    return project["urls"]["Repository"], project["version"]


def setup_cell(name: str) -> Any:
    """Return the first code cell of the notebook `name`: it installs the package where needed."""
    repository, version = address()
    source = SETUP.format(repository=repository, version=version).rstrip()
    return new_code_cell(source, id=f"{name}-setup")


def as_file(notebook: Any) -> str:
    """Return what a file holds for a notebook: the same text for the same notebook."""
    return f"{nbformat.writes(notebook)}\n"


def _notebook(lab: Lab, nodes: list[Any]) -> Any:
    """Return a notebook of these cells, with the cell that sets it up after the title."""
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook = new_notebook(
        cells=[nodes[0], setup_cell(lab.name), *nodes[1:]],
        metadata={"kernelspec": kernel, "language_info": {"name": "python"}},
    )
    nbformat.validate(notebook)
    return notebook


def _node(lab: Lab, cell: Cell, text: str) -> Any:
    """Return a cell of a notebook, with nbgrader's metadata."""
    new_cell = new_code_cell if cell.is_code else new_markdown_cell
    node = new_cell(text, id=cell.id)
    if cell.kind in ("text", "code"):
        return node
    by_hand = cell.kind in ("figure", "written")
    node.metadata["deletable"] = False
    node.metadata["nbgrader"] = {
        "cell_type": node.cell_type,
        "grade": by_hand or cell.kind == "held-back",
        "grade_id": cell.id,
        "locked": cell.kind not in ANSWERS,
        "schema_version": 3,
        "solution": cell.kind in ANSWERS,
        "task": False,
    }
    if node.metadata["nbgrader"]["grade"]:
        node.metadata["nbgrader"]["points"] = lab.exercises[cell.exercise - 1].points
    if node.metadata["nbgrader"]["locked"]:
        node.metadata["editable"] = False
    return node


def _text(notebook: Any) -> str:
    return "\n".join(cell.source for cell in notebook.cells)


def _look_for_leaks(lab: Lab, texts: dict[str, str]) -> None:
    """Raise if a line of a solution, a held-back check or a rubric stands where students look."""
    for cell in lab.cells:
        for line in cell.secrets():
            for place, text in texts.items():
                if line in text:
                    raise LabError(
                        f"{lab.name}, exercise {cell.exercise}: the {place} shows the line "
                        f"{line!r} of a cell of the kind '{cell.kind}'."
                    )
