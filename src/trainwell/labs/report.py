"""What comes out of grading: `grades.csv`, a feedback page a student, the instructor's report."""

import csv
import hashlib
import io
import re
import statistics
from collections import Counter, defaultdict
from functools import cache
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import nbformat
import nbgrader
from nbconvert import HTMLExporter
from nbconvert.filters import markdown2html
from nbconvert.preprocessors.sanitize import SanitizeHTML

from trainwell.labs import gradebook
from trainwell.labs.competition import baselines, interval, places
from trainwell.labs.grade import COMPETITION, Mark, Result, write
from trainwell.labs.submissions import Submission

Grades = dict[str, tuple[Submission, Result]]

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem;
       color: #1b1b1b; background: #fff; }
table { border-collapse: collapse; margin: 1rem 0 2rem; }
th, td { text-align: left; vertical-align: top; padding: .3rem .8rem; }
tr { border-bottom: 1px solid #ccc; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
code { white-space: pre-wrap; overflow-wrap: anywhere; }
"""
# What Markdown makes; nothing of it runs.
MARKDOWN_TAGS = ["a", "abbr", "b", "blockquote", "br", "code", "del", "div", "em", "hr", "i"]
MARKDOWN_TAGS += ["h1", "h2", "h3", "h4", "h5", "h6", "img", "li", "ol", "p", "pre", "span"]
MARKDOWN_TAGS += ["strong", "table", "tbody", "td", "th", "thead", "tr", "ul"]
MARKDOWN_ATTRIBUTES = {"*": ["class", "id", "title"], "a": ["href"], "img": ["src", "alt"]}


def write_all(grades: Grades, pristine: Any, lab: str, out: Path) -> None:
    """Write everything that grading gives into `out`; what is there already stays as it is."""
    results = {student: result for student, (_, result) in grades.items()}
    comments = gradebook.record(results, pristine, lab, out)
    for student, (_, result) in grades.items():
        _write_feedback(student, result, comments, lab, out)
    write(out / "grades.csv", "\ufeff" + grades_csv(grades, pristine))  # Excel needs the mark
    write(out / "report.html", report(grades, pristine, lab))


def total(result: Result) -> float:
    """Return the points so far: what waits for a person counts nothing yet."""
    return sum(mark.points or 0.0 for mark in result.marks)


def reasons(student: str, grades: Grades) -> list[str]:
    """Return why someone should look at a submission; empty if nobody must."""
    submission, result = grades[student]
    found = [f"{submission.file} is not graded: {result.problem}"] if result.problem else []
    found += result.notes + list(submission.notes)
    same = [
        other
        for other, (its, _) in grades.items()
        if other != student and its.content and its.digest == submission.digest
    ]
    if same:
        found.append(f"the same file as {', '.join(same)}")
    return found


def grades_csv(grades: Grades, pristine: Any) -> str:
    """Return one row a student; no points at all where a file could not be graded."""
    exercises = _maxima(pristine)
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(
        ["student", "points", "maximum", "waiting for a person", *exercises, "look", "file"]
    )
    for student, (submission, result) in grades.items():
        points = {mark.exercise: mark.points for mark in result.marks}
        waiting = sum(mark.points is None for mark in result.marks)
        row = [_cell(student), "" if result.problem else _number(total(result))]
        row += [_number(sum(exercises.values())), "" if result.problem else str(waiting)]
        row += [_number(points.get(exercise)) for exercise in exercises]
        row += [_cell("; ".join(reasons(student, grades))), _cell(submission.file)]
        table.writerow(row)
    return text.getvalue()


def report(grades: Grades, pristine: Any, lab: str) -> str:
    """Return the instructor's page: how the class did, and who needs a look."""
    results = [result for _, result in grades.values() if not result.problem]
    totals = [total(result) for result in results]
    maxima = _maxima(pristine)
    title = f"{lab}: {len(grades)} submissions"
    middle = f"; median {_number(statistics.median(totals))}" if totals else ""
    parts = [
        f"<h1>{escape(title)}</h1>",
        f"<p>{len(results)} graded{middle} of {_number(sum(maxima.values()))} points. "
        "Points that wait for a person are not in it.</p>",
        "<h2>Who needs a look, and why</h2>",
        _look_table(grades),
        "<h2>Exercises</h2>",
        _exercise_table(results, maxima),
        "<h2>Common errors</h2>",
        _error_table(results),
        *_competition(grades, pristine),
        "<h2>Everyone</h2>",
        _student_table(grades),
    ]
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}'
        f"</title><style>{STYLE}</style></head>\n<body>\n" + "\n".join(parts) + "\n</body></html>\n"
    )


def _look_table(grades: Grades) -> str:
    rows = []
    for student in grades:
        if found := reasons(student, grades):
            whys = "<br>".join(escape(reason) for reason in found)
            rows.append([_link(student, grades), whys])
    return _table(["student", "why"], rows) if rows else "<p>Nobody.</p>"


def _exercise_table(results: list[Result], maxima: dict[str, float]) -> str:
    marks = _by_exercise(results)
    rows = []
    for exercise, maximum in maxima.items():
        own = marks[exercise]
        outcomes = Counter(mark.outcome for mark in own)
        judged = [mark.points for mark in own if mark.points is not None]
        right = sum(points == maximum for points in judged)
        rows.append(
            [
                escape(exercise),
                f"{right} of {len(own)}",
                f"{statistics.mean(judged):.1f} of {_number(maximum)}" if judged else "",
                str(outcomes["not answered"]),
                str(outcomes["by hand"]),
                f"{statistics.median(mark.seconds for mark in own):.1f} s" if own else "",
            ]
        )
    head = ["exercise", "full points", "mean", "not answered", "wait for a person", "median time"]
    return _table(head, rows, numbers=True)


def _competition(grades: Grades, pristine: Any) -> list[str]:
    """Return the leaderboard, with the baselines among the students, if there is a competition."""
    errors = {}
    for student, (_, result) in grades.items():
        cells = [] if result.problem else result.notebook.cells
        for cell in cells:
            if COMPETITION in cell.metadata:
                errors[_link(student, grades)] = list(cell.metadata[COMPETITION])
    if not errors:
        return []
    theirs = baselines(pristine.metadata[COMPETITION])
    errors |= {f"<em>{escape(name)}</em>": values for name, values in theirs.items()}
    ranked = places(errors)
    shared = Counter(place for place, _ in ranked)
    best = ranked[0][1]
    rows = []
    for place, name in ranked:
        low, high = interval(errors[name], errors[best])
        behind = "" if name == best else f"[{low:.2f}, {high:.2f}]"
        tie = f"{place}, shared" if shared[place] > 1 else f"{place}"
        rows.append([tie, name, f"{statistics.mean(errors[name]):.2f}", behind])
    head = ["place", "student or <em>baseline</em>", "error", "behind the best, 95 %"]
    note = (
        f"Root of the mean squared error, mean of {len(errors[best])} tables. Who can't be told "
        "apart from the first of a place, table by table, shares it. The intervals are of these "
        "tables and of one comparison each: among many students, some differ by luck."
    )
    return ["<h2>Competition</h2>", f"<p>{note}</p>", _table(head, rows)]


def _error_table(results: list[Result]) -> str:
    rows = []
    for exercise, marks in _by_exercise(results).items():
        errors = Counter(_kind(mark.error) for mark in marks if mark.error)
        for error, count in errors.most_common(3):
            rows.append([escape(exercise), str(count), f"<code>{escape(error)}</code>"])
    return _table(["exercise", "students", "error"], rows) if rows else "<p>None.</p>"


def _student_table(grades: Grades) -> str:
    rows = []
    for student, (_, result) in grades.items():
        points = "" if result.problem else _number(total(result))
        outcomes = "".join(_sign(mark) for mark in result.marks)
        rows.append([_link(student, grades), points, outcomes, f"{result.seconds:.1f} s"])
    head = ["student", "points", "exercises (● full, ◐ part, ○ none, ? a person)", "time"]
    return _table(head, rows)


def _sign(mark: Mark) -> str:
    if mark.points is None:
        return "?"
    return "●" if mark.points >= mark.maximum else "◐" if mark.points > 0 else "○"


def _link(student: str, grades: Grades) -> str:
    if grades[student][1].problem:
        return escape(student)
    return f'<a href="feedback/{quote(gradebook.identity(student))}.html">{escape(student)}</a>'


def _table(head: list[str], rows: list[list[str]], numbers: bool = False) -> str:
    def row(tag: str, cells: list[str]) -> str:
        last = ' class="number"' if numbers else ""
        texts = (
            f"<{tag}{last if place else ''}>{text}</{tag}>" for place, text in enumerate(cells)
        )
        return f"<tr>{''.join(texts)}</tr>"

    body = "\n".join(row("td", cells) for cells in rows)
    return f"<table><thead>{row('th', head)}</thead>\n<tbody>{body}</tbody></table>"


def _by_exercise(results: list[Result]) -> dict[str, list[Mark]]:
    marks: dict[str, list[Mark]] = defaultdict(list)
    for result in results:
        for mark in result.marks:
            marks[mark.exercise].append(mark)
    return marks


def _kind(error: str) -> str:
    """Return the first line of an error, with any numbers: each student's differ."""
    return re.sub(r"-?\d+(\.\d+)?(e[-+]?\d+)?", "#", error.strip().partition("\n")[0])[:200]


def _maxima(pristine: Any) -> dict[str, float]:
    from trainwell.labs.grade import HELD_BACK

    return {
        cell.metadata.nbgrader["grade_id"].removesuffix(HELD_BACK): float(
            cell.metadata.nbgrader["points"]
        )
        for cell in pristine.cells
        if nbgrader.utils.is_grade(cell)
    }


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}".rstrip("0").rstrip(".")


def _cell(text: str) -> str:
    """Return a text for a spreadsheet, which would run one that begins like a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def _write_feedback(
    student: str, result: Result, comments: dict[str, str], lab: str, out: Path
) -> None:
    """Write a student's page with nbgrader's template, unless it is there for this result."""
    path = out / "feedback" / f"{gradebook.identity(student)}.html"
    if result.problem:
        return
    notebook = nbformat.from_dict(result.notebook)
    for mark in result.marks:
        cell = next(
            c for c in notebook.cells if c.metadata.get("nbgrader", {}).get("grade_id") == mark.cell
        )
        cell.metadata.nbgrader["score"] = mark.points or 0.0
        cell.metadata.nbgrader["comment"] = comments.get(f"{student}/{mark.cell}")
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if "metadata" in output:
                output.metadata.clear()  # the template writes a picture's width as it comes
    stamp = f"<!-- {hashlib.sha256(nbformat.writes(notebook).encode()).hexdigest()} -->\n"
    if path.exists() and path.read_text(encoding="utf-8").startswith(stamp):
        return
    scores = {
        "notebook": lab,
        "score": total(result),
        "max_score": sum(mark.maximum for mark in result.marks),
        "late_penalty": 0,
    }
    page, _ = _exporter().from_notebook_node(notebook, resources={"nbgrader": scores})
    write(path, stamp + page)


@cache
def _exporter() -> Any:
    """Return the one exporter: it reads its templates slowly, and keeps them."""
    clean = SanitizeHTML(tags=MARKDOWN_TAGS, attributes=MARKDOWN_ATTRIBUTES).sanitize_html_tags
    formgrader = Path(nbgrader.__file__).parent / "server_extensions" / "formgrader"
    return HTMLExporter(
        template_name="feedback",
        extra_template_basedirs=[str(formgrader / "templates")],
        extra_template_paths=[
            str(formgrader / "static" / "node_modules" / "bootstrap" / "dist" / "css")
        ],
        sanitize_html=True,  # a student's output must not run in another's browser
        # That cleans a text before Markdown makes tags of it; this one does after.
        filters={"markdown2html": lambda text: clean(markdown2html(text))},
    )
