"""nbgrader's gradebook: where people put points for figures and written answers.

The folder of grades is also a course of nbgrader: start JupyterLab in it, and its formgrader
shows every answer that waits for a person. Points and comments given there count at the next
`trainwell labs grade`, and no later grading overwrites them.
"""

import contextlib
import hashlib
import os
import re
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
from nbgrader.api import Gradebook
from nbgrader.utils import is_grade, is_solution

from trainwell.labs.grade import Result, write

CONFIG = "c = get_config()\nc.CourseDirectory.root = {root!r}\n"


def identity(student: str) -> str:
    """Return a name for the student's files: short, and safe in every file system."""
    safe = re.sub(r"[^\w.@-]+", "_", student)[:50].strip("._-")
    if safe == student:
        return safe
    return f"{safe}-{hashlib.sha256(student.encode()).hexdigest()[:6]}"


def record(results: dict[str, Result], pristine: Any, lab: str, out: Path) -> dict[str, str]:
    """Write new results into the gradebook, and put the points that people gave into them.

    Returns:
        People's comments, by student and cell: `"kim/lab_3-ex7"`.

    Raises:
        ValueError: If the gradebook is of a lab with other exercises.
    """
    comments = {}
    write(out / "nbgrader_config.py", CONFIG.format(root=str(out.resolve())))
    with warnings.catch_warnings(), _open(out / "gradebook.db") as book:
        warnings.simplefilter("ignore")  # nbgrader's own, of SQLAlchemy
        _record_lab(book, pristine, lab, out)
        for student, result in results.items():
            if result.problem:
                continue
            name = identity(student)
            graded = out / "autograded" / name / lab / f"{lab}.ipynb"
            text = nbformat.writes(result.notebook)
            if not graded.exists() or graded.read_text(encoding="utf-8") != text:
                _record_result(book, name, lab, result)
                write(graded, text)  # last: it says that the gradebook has them
            for mark in result.marks:
                points, comment = _by_people(book, mark.cell, lab, name)
                if points is not None:
                    mark.points, mark.outcome = points, mark.outcome.replace("by hand", "graded")
                if comment:
                    comments[f"{student}/{mark.cell}"] = comment
    return comments


@contextlib.contextmanager
def _open(path: Path) -> Iterator[Any]:
    if not path.exists():
        # nbgrader calls `alembic` for a new one. It is made beside its place, and then is whole.
        part = path.with_suffix(".part")
        part.unlink(missing_ok=True)
        before = os.environ.get("PATH", "")
        os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{before}"
        try:
            Gradebook(f"sqlite:///{part}").close()
        finally:
            os.environ["PATH"] = before
        part.replace(path)
    book = Gradebook(f"sqlite:///{path}")
    try:
        yield book
    finally:
        book.close()


def _record_lab(book: Any, pristine: Any, lab: str, out: Path) -> None:
    source = out / "source" / lab / f"{lab}.ipynb"
    text = nbformat.writes(pristine)
    if source.exists() and source.read_text(encoding="utf-8") == text:
        return
    book.update_or_create_assignment(lab)
    book.update_or_create_notebook(lab, lab)
    for cell in pristine.cells:
        if is_grade(cell):
            meta = cell.metadata.nbgrader
            kind, points = cell.cell_type, float(meta["points"])
            book.update_or_create_grade_cell(
                meta["grade_id"], lab, lab, max_score=points, cell_type=kind
            )
        if is_solution(cell):
            book.update_or_create_solution_cell(cell.metadata.nbgrader["grade_id"], lab, lab)
    write(source, text)


def _record_result(book: Any, name: str, lab: str, result: Result) -> None:
    book.update_or_create_student(name)
    book.update_or_create_submission(lab, name)
    for mark in result.marks:
        try:
            grade = book.find_grade(mark.cell, lab, lab, name)
        except ValueError as error:
            raise ValueError(
                f"the gradebook is of another {lab}, without {mark.cell}: give a new --out."
            ) from error
        grade.auto_score = mark.points
        grade.needs_manual_grade = mark.points is None or grade.manual_score is not None
    book.db.commit()


def _by_people(book: Any, cell: str, lab: str, name: str) -> tuple[float | None, str]:
    grade = book.find_grade(cell, lab, lab, name)
    points = None if grade.manual_score is None else float(grade.score)
    with contextlib.suppress(ValueError):  # a held-back check has no comment
        return points, book.find_comment(cell, lab, lab, name).comment or ""
    return points, ""
