"""Grade what students sent: `trainwell labs grade submissions.zip --lab labs/lab_3.md`.

Each submission is rebuilt from the pristine grading notebook (`rebuild.py`), run in a sandboxed
kernel (`sandbox.py`) and scored by nbgrader's rules. Results are kept by the content of the
submission, the grading notebook and the limits: kill the command at any point and run it again,
and nothing graded is lost or graded twice.

nbgrader's own `autograde` isn't used: it grades one student after the other, stops the whole
class at a copied check, gives an odd file name 0 points, and starts its kernel unboxed. What it
defines is used: its metadata, `determine_grade`, its gradebook and its feedback pages.
"""

import ast
import contextlib
import hashlib
import json
import math
import os
import re
import secrets
import sys
import tempfile
import time
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import joblib
import nbformat
from nbformat.v4 import new_output
from nbgrader.utils import determine_grade, is_grade, is_solution
from tqdm import tqdm

from trainwell._checks import check_whole
from trainwell.labs.competition import baselines, compete, judge
from trainwell.labs.rebuild import RebuildError, rebuild
from trainwell.labs.sandbox import Kernel, KernelDiedError, Limits, Run, SandboxError, check_sandbox
from trainwell.labs.source import SEED
from trainwell.labs.submissions import Submission, collect
from trainwell.runtime import cores, show_progress

RESULTS_VERSION = 1  # raise it when the same submission would be graded otherwise
HELD_BACK = "-held-back"
CHECK = "-check"
COMPETITION = "competition"  # in metadata: of a notebook its secret number, of a cell its errors


@dataclass
class Mark:
    """What one exercise got.

    Attributes:
        exercise: The id of its answer: `lab_3-ex2`.
        cell: The id of the cell that carries its points.
        points: None if it waits for a person.
        maximum: The most that it can get.
        seconds: What its answer and its checks took.
        outcome: `right`, `partly`, `wrong`, `not answered`, `by hand` or `not run`.
        error: The first error in its answer, else in its held-back check.
    """

    exercise: str
    cell: str
    points: float | None
    maximum: float
    seconds: float = 0.0
    outcome: str = ""
    error: str = ""


@dataclass
class Result:
    """What grading one submission gave.

    Attributes:
        marks: One an exercise; empty if the file is no notebook.
        notes: Why someone should look at it.
        seconds: How long it took.
        notebook: The rebuilt notebook with its outputs.
        problem: Why it could not be graded, if so.
        passing: Whether the problem is the machine's: then the next call tries again.
    """

    marks: list[Mark] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0
    notebook: Any = None
    problem: str = ""
    passing: bool = False


def grade(
    place: Path,
    lab: Path,
    out: Path,
    *,
    seed: int | None = None,
    jobs: int | None = None,
    limits: Limits | None = None,
    unsafe: bool = False,
    scheduler: str | None = None,
) -> dict[str, tuple[Submission, Result]]:
    """Grade a class, and write `grades.csv`, `report.html` and `feedback/` into `out`.

    Args:
        place: The folder or the zip of submissions.
        lab: The lab's source (`.md`) or a grading notebook (`.ipynb`).
        out: Where everything goes; run again with the same folder to go on.
        seed: Draws the inputs of the held-back checks. None means the folder's own: drawn at
            the first call, kept in `out/seed.txt`.
        jobs: How many submissions at a time; None means one for each core.
        limits: What a submission may use.
        unsafe: Run students' code without a sandbox.
        scheduler: The address of a Dask scheduler whose workers grade, for a department.

    Returns:
        For each student the submission and its result.

    Raises:
        SandboxError: If there is no sandbox, and `unsafe` isn't said.
        SubmissionError: If there is nothing to grade.
        ValueError: If the seed is negative.
    """
    from trainwell.labs.report import write_all

    limits = limits or Limits()
    if not unsafe and scheduler is None:
        check_sandbox()
    out.mkdir(parents=True, exist_ok=True)
    pristine = grading_notebook(lab, _seed(out, seed))
    if any(_competitor(cell) for cell in pristine.cells):
        pristine.metadata[COMPETITION] = _secret(out)
    submissions = collect(place, lab.stem)
    settings = [RESULTS_VERSION, pristine, asdict(limits), unsafe]
    keys = {s.student: _key(s, settings) for s in submissions if not s.problem}
    kept = out / "graded"
    to_grade = {
        keys[s.student]: s.content
        for s in submissions
        if s.student in keys and _load(kept / f"{keys[s.student]}.json") is None
    }
    results: dict[str, Result] = {}
    graded = _in_parallel(to_grade, pristine, limits, unsafe, jobs or cores(), scheduler)
    progress = tqdm(graded, total=len(to_grade), unit="notebook", disable=not show_progress())
    with contextlib.closing(progress):
        for key, result in progress:
            results[key] = result
            if not result.passing:
                write(kept / f"{key}.json", json.dumps(asdict(result)))
    grades = {}
    for submission in submissions:
        if submission.problem:
            result = Result(problem=submission.problem)
        else:
            key = keys[submission.student]
            result = results.get(key) or _load(kept / f"{key}.json") or Result()
        grades[submission.student] = (submission, deepcopy(result))  # files may be the same
    write_all(grades, pristine, lab.stem, out)
    return grades


def grading_notebook(lab: Path, seed: int) -> Any:
    """Return the lab's grading notebook: built from its source, or read.

    Args:
        lab: The source (`.md`) or a grading notebook (`.ipynb`).
        seed: Draws the inputs of the held-back checks in both.

    Raises:
        ValueError: If it holds nothing to grade, or two cells with one id.
        FileNotFoundError: If there is no such file.
    """
    if lab.suffix == ".ipynb":
        notebook = nbformat.read(lab, as_version=4)
        for cell in notebook.cells:
            if cell.metadata.get("nbgrader", {}).get("grade_id", "").endswith(HELD_BACK):
                cell.source = SEED.sub(f"seed = {seed}", cell.source)
    else:
        from trainwell.labs.build import grading_notebook as build

        notebook = build(lab, seed)
    ids = [c.metadata.nbgrader["grade_id"] for c in notebook.cells if "nbgrader" in c.metadata]
    if len(ids) != len(set(ids)):
        raise ValueError(f"{lab} has two cells with one nbgrader id: build it again.")
    if not any(is_grade(cell) for cell in notebook.cells):
        raise ValueError(
            f"{lab} has no cell with points: give the grading notebook, or the source."
        )
    return notebook


def grade_one(content: bytes, pristine: Any, limits: Limits, unsafe: bool = False) -> Result:
    """Grade one submission. Whatever is wrong with it ends as a result, not as an exception."""
    started = time.monotonic()
    try:
        rebuilt = rebuild(content, pristine)
        result = Result(notes=rebuilt.notes, notebook=rebuilt.notebook)
        runs = _run(rebuilt.notebook, pristine, limits, unsafe, result.notes)
        result.marks = _marks(rebuilt.notebook, runs, rebuilt.unanswered, result.notes)
    except RebuildError as error:
        result = Result(problem=str(error))
    except Exception as error:  # ours or the machine's, and never a reason to stop the others
        result = Result(problem=f"the grader failed: {error!r}"[:1000], passing=True)
    result.seconds = time.monotonic() - started
    return result


def write(path: Path, text: str) -> None:
    """Write a file whole or not at all: it may be read, or this process killed, meanwhile."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".part")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", errors="replace", newline="") as file:
            file.write(text)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def _seed(out: Path, seed: int | None) -> int:
    file = out / "seed.txt"
    if seed is None:
        seed = int(file.read_text()) if file.exists() else secrets.randbelow(2**31)
    check_whole("seed", seed, 0)  # with another, every check fails, and nobody gets a point
    write(file, f"{seed}\n")
    return seed


def _secret(out: Path) -> int:
    """Return the number that draws a competition's tables: unlike the seed, it is in no cell."""
    file = out / "competition.txt"
    if not file.exists():
        write(file, f"{secrets.randbits(60)}\n")
    return int(file.read_text())


def _key(submission: Submission, settings: list[Any]) -> str:
    text = json.dumps([submission.digest, *settings], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _load(path: Path) -> Result | None:
    """Return a kept result, or None if there is none, or none that can be read."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        notebook = nbformat.from_dict(data["notebook"]) if data["notebook"] else None
        marks = [Mark(**mark) for mark in data["marks"]]
        return Result(**{**data, "marks": marks, "notebook": notebook})
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _in_parallel(
    to_grade: dict[str, bytes],
    pristine: Any,
    limits: Limits,
    unsafe: bool,
    jobs: int,
    scheduler: str | None,
) -> Iterator[tuple[str, Result]]:
    """Yield results as they come. Worker processes stay; every submission has a new kernel."""
    if not to_grade:
        return
    with contextlib.ExitStack() as stack:
        if scheduler:
            from dask.distributed import Client

            stack.enter_context(Client(scheduler))
            stack.enter_context(joblib.parallel_config(backend="dask"))
            jobs = -1
        calls = (
            joblib.delayed(_grade_key)(key, content, dict(pristine), limits, unsafe)
            for key, content in to_grade.items()
        )
        # One worker process needs no process: it only waits for its kernel.
        parallel = joblib.Parallel(jobs, return_as="generator_unordered", batch_size=1)
        yield from parallel(calls)


def _grade_key(
    key: str, content: bytes, pristine: dict[str, Any], limits: Limits, unsafe: bool
) -> tuple[str, Result]:
    return key, grade_one(content, nbformat.from_dict(pristine), limits, unsafe)


def _run(
    notebook: Any, pristine: Any, limits: Limits, unsafe: bool, notes: list[str]
) -> dict[int, Run]:
    """Run the notebook; when a cell kills the kernel, run it again without that cell.

    So one hostile answer costs its exercise, not those before and after it.
    """
    end = time.monotonic() + limits.total_seconds
    deadly: dict[int, str] = {}
    while True:
        left = replace(limits, total_seconds=end - time.monotonic())
        runs: dict[int, Run] = {}
        position = -1
        try:
            with Kernel(left, unsafe=unsafe) as kernel:
                _guard(kernel, f"start({_modules(pristine)!r}, globals())")
                for position, cell in enumerate(notebook.cells):
                    if cell.cell_type != "code":
                        continue
                    if position in deadly:
                        runs[position] = _died(deadly[position])
                    else:
                        runs[position] = _run_cell(kernel, cell, pristine, left, end, notes)
            break
        except KernelDiedError as error:
            if position < 0:
                raise
            slow = [p for p, run in runs.items() if run.timed_out]
            if slow and str(error).startswith("MemoryError"):
                position = slow[0]  # interrupted on its way to fill the memory
            name = notebook.cells[position].metadata.get("nbgrader", {}).get("grade_id", "a cell")
            notes.append(f"{name} ended the kernel: {error}")
            deadly[position] = str(error)
        if time.monotonic() > end:
            notes.append(f"more than {limits.total_seconds:g} s: the rest was not run")
            runs |= {p: _died(why) for p, why in deadly.items()}
            break
    for position, run in runs.items():
        notebook.cells[position].outputs = run.outputs
    return runs


def _run_cell(
    kernel: Kernel, cell: Any, pristine: Any, limits: Limits, end: float, notes: list[str]
) -> Run:
    name = cell.metadata.get("nbgrader", {}).get("grade_id", "")
    own = not cell.id.startswith("added-") and not is_solution(cell)
    if name.endswith((CHECK, HELD_BACK)):
        printed = _guard(kernel, "restore(globals())")
        with contextlib.suppress(ValueError, TypeError):
            for changed in json.loads(printed):
                note = f"it replaced {changed}"
                if note not in notes:
                    notes.append(note)
    seconds = max(0.1, min(limits.cell_seconds, end - time.monotonic()))
    if function := _competitor(cell):
        return _hold(kernel, cell, function, pristine.metadata[COMPETITION], seconds)
    run = kernel.run(cell.source, seconds)
    if run.error.startswith("MemoryError"):
        raise KernelDiedError(run.error)  # what it took is still taken: others must not suffer
    if run.cut:
        notes.append(f"{name or 'a cell'} printed more than {limits.output:,} characters")
    if own and (names := sorted(_bound(cell.source) - _answered(pristine))):
        _guard(kernel, f"remember({names!r}, globals())")
    return run


def _competitor(cell: Any) -> str:
    """Return the name of the function that a held-back check lets compete, or nothing."""
    name = cell.metadata.get("nbgrader", {}).get("grade_id", "")
    found = HOLD.search(cell.source) if name.endswith(HELD_BACK) else None
    return found[1] if found else ""


def _hold(kernel: Kernel, cell: Any, function: str, secret: int, seconds: float) -> Run:
    """Hold a competition on this side of the wall.

    Into the kernel go training rows and new rows without their labels, and out come predictions.
    The points come from here: nothing that the kernel says of itself counts.
    """
    result = Run()

    def ask(*arrays: Any) -> Any:
        rows = json.dumps([array.tolist() for array in arrays])
        run = kernel.run(ASK.format(function=function, rows=rows), seconds, store_history=False)
        result.seconds += run.seconds
        if run.error.startswith("MemoryError"):
            raise KernelDiedError(run.error)
        if run.error or run.cut:
            raise ValueError(run.error or "it printed too much for its predictions to be read.")
        text = "".join(o.text for o in run.outputs if o.get("name") == "stdout")
        return json.loads(text.strip().rpartition("\n")[2])

    try:
        errors = compete(ask, secret)
    except (ValueError, RecursionError) as error:
        result.error = f"AssertionError: {function}: {error}"[:2000]
    else:
        cell.metadata[COMPETITION] = errors
        points, text = judge(errors, _baselines(secret))
        result.outputs.append(new_output("stream", name="stdout", text=f"{text}\n"))
        # nbgrader takes a number that a cell returns for partial credit.
        result.outputs.append(new_output("execute_result", {"text/plain": str(points)}))
        if not points:
            result.error = "AssertionError: No baseline is beaten."
    if result.error:
        name, _, value = result.error.partition(": ")
        result.outputs.append(new_output("error", ename=name, evalue=value, traceback=[value]))
    return result


@cache
def _baselines(secret: int) -> dict[str, list[float]]:
    return baselines(secret)


def _guard(kernel: Kernel, call: str) -> str:
    """Call a function of `guard.py` in the kernel, and return what it prints."""
    code = f"__import__('trainwell.labs.guard', fromlist=['guard']).{call}"
    run = kernel.run(code, START_SECONDS, store_history=False)
    return "".join(output.get("text", "") for output in run.outputs)


# The last line of a held-back check that is a competition: `hold(compete, seed)`.
HOLD = re.compile(r"^hold\((\w+), seed\)$", re.MULTILINE)
# What is sent into the kernel; the last line that it prints holds the predictions.
ASK = """\
import json as _json, numpy as _numpy
_found = {function}(*map(_numpy.array, _json.loads("{rows}")))
print("\\n" + _json.dumps(_numpy.asarray(_found, dtype=float).tolist()))
"""

START_SECONDS = 120.0  # the lab's modules are imported: Keras takes 12 s on a quiet machine


def _modules(pristine: Any) -> list[str]:
    """Return the modules that the lab's own cells import."""
    names: set[str] = set()
    for cell in pristine.cells:
        for node in ast.walk(_tree(cell)):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.add(node.module)
    return sorted(names)


def _answered(pristine: Any) -> set[str]:
    """Return the names that answers define: they are the student's to change."""
    return set().union(*(_bound(c.source) for c in pristine.cells if is_solution(c)))


def _bound(source: str) -> set[str]:
    """Return the names that code defines or imports."""
    names = set()
    for node in _tree(nbformat.v4.new_code_cell(source)).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
    return names


def _tree(cell: Any) -> ast.Module:
    if cell.cell_type == "code":
        lines = cell.source.splitlines()
        python = [line for line in lines if not line.lstrip().startswith(("%", "!"))]
        with contextlib.suppress(SyntaxError, ValueError, RecursionError):
            return ast.parse("\n".join(python))
    return ast.Module([], [])


def _died(why: str) -> Run:
    output = nbformat.v4.new_output("error", ename="Stopped", evalue=why, traceback=[why])
    return Run([output], error=f"Stopped: {why}")


def _marks(
    notebook: Any, runs: dict[int, Run], unanswered: set[str], notes: list[str]
) -> list[Mark]:
    """Score every exercise by nbgrader's rules, with one change: a warning is no error.

    nbgrader takes whatever a check prints on stderr for a failure. A student whose right answer
    divides by a zero that NumPy warns of would get nothing.
    """
    by_id = {
        cell.metadata.nbgrader["grade_id"]: (cell, runs.get(position))
        for position, cell in enumerate(notebook.cells)
        if "nbgrader" in cell.metadata
    }
    marks = []
    for name, (cell, run) in by_id.items():
        if not is_grade(cell):
            continue
        exercise = name.removesuffix(HELD_BACK)
        parts = {exercise, exercise + CHECK, name}
        own = [r for part in parts if part in by_id and (r := by_id[part][1])]
        mark = Mark(exercise, name, None, float(cell.metadata.nbgrader["points"]))
        mark.seconds = sum(r.seconds for r in own)
        answer = by_id[exercise][1] if exercise in by_id else None
        mark.error = (answer.error if answer else "") or (run.error if run else "")
        if cell.cell_type == "code" and run is None:
            mark.points, mark.outcome = 0.0, "not run"
        else:
            mark.points = _points(cell, mark.maximum, name, notes)
            mark.outcome = _outcome(mark, exercise in unanswered)
        if mark.outcome in ("right", "by hand"):
            mark.error = ""
        cell.metadata.nbgrader["score"] = mark.points or 0.0
        marks.append(mark)
    return marks


def _points(cell: Any, maximum: float, name: str, notes: list[str]) -> float | None:
    scored = nbformat.from_dict(cell)
    if cell.cell_type == "code":
        scored.outputs = [o for o in cell.outputs if o.get("name") != "stderr"]
    try:
        points, _ = determine_grade(scored)
    except (ValueError, KeyError) as error:  # partial credit that is none
        notes.append(f"{name} gave odd points ({error}): 0")
        return 0.0
    if points is None:
        return None
    return float(points) if math.isfinite(points) and 0 <= points <= maximum else 0.0


def _outcome(mark: Mark, unanswered: bool) -> str:
    if unanswered:
        return "not answered"
    if mark.points is None:
        return "by hand"
    if mark.points == mark.maximum:
        return "right"
    return "partly" if mark.points > 0 else "wrong"


def main(
    place: Path,
    lab: Path | None,
    out: Path | None,
    *,
    seed: int | None = None,
    jobs: int | None = None,
    limits: Limits | None = None,
    unsafe: bool = False,
    scheduler: str | None = None,
) -> int:
    """Run `trainwell labs grade`: grade, say in a few lines what came out, return the status."""
    if unsafe:
        print("Without a sandbox: the students' code can do all that you can.", file=sys.stderr)
    try:
        lab = lab or _guess_lab(place)
        out = out or Path("grades") / lab.stem
        grades = grade(
            place, lab, out, seed=seed, jobs=jobs, limits=limits, unsafe=unsafe, scheduler=scheduler
        )
    except (SandboxError, ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted. What is graded is kept: run the command again.", file=sys.stderr)
        return 130
    results = [result for _, result in grades.values()]
    failed = sum(bool(result.problem) for result in results)
    waiting = sum(any(mark.points is None for mark in result.marks) for result in results)
    print(f"{len(results) - failed} of {len(results)} submissions are graded; {failed} can't be.")
    if waiting:
        print(f"{waiting} wait for a person: jupyter lab {out}, then Nbgrader, Formgrader.")
    print(f"Report: {out / 'report.html'}  Grades: {out / 'grades.csv'}")
    if any(result.passing for result in results):
        print("Some failed for this machine's sake: run the command again.", file=sys.stderr)
        return 1
    return 0


def _guess_lab(place: Path) -> Path:
    """Return the source in `labs/` whose cells most submissions have."""
    labs = sorted(Path("labs").glob("*.md"))
    contents = [submission.content for submission in collect(place, "")]
    counts = {lab: sum(f'"{lab.stem}-ex'.encode() in c for c in contents) for lab in labs}
    best = max(labs, key=lambda lab: counts[lab], default=None)
    if best is None or not counts[best]:
        raise ValueError("Which lab is it? Give its source: --lab labs/lab_3_optimizers.md")
    return best
