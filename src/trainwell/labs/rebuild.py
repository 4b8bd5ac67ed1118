"""Put a student's answers into a pristine grading notebook, whatever was done to the rest.

Only answers, and cells that the student added, come from the submission. Checks, setup, points
and the kernel come from the grading notebook, so that a check that was edited, deleted, moved or
copied counts as it was written. An answer is found by its cell's id, else by the function that
it defines, else by its place.
"""

import json
import re
from collections import defaultdict
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import nbformat
from nbgrader.utils import compute_checksum, is_solution

MOST_ADDED_CELLS = 200
LONGEST_CELL = 200_000  # characters; what is longer is no one's own writing
DEFINED = re.compile(r"^(?:async\s+)?(?:def|class)\s+(\w+)", re.MULTILINE)


class RebuildError(ValueError):
    """The file holds no notebook; the message says what it holds."""


@dataclass
class Rebuilt:
    """A notebook to run, and what the instructor should know about the submission."""

    notebook: Any
    notes: list[str]
    unanswered: set[str]  # the ids of the answers that were left as they came


@dataclass(eq=False)
class _Cell:
    """A cell of a submission; `known` is the position of the pristine cell that it is."""

    kind: str
    source: str
    ids: list[str]
    known: int | None = None
    defines: set[str] = field(default_factory=set)


def rebuild(content: bytes, pristine: Any) -> Rebuilt:
    """Return a copy of the grading notebook with the submission's answers in it.

    Raises:
        RebuildError: If the content is not a notebook.
    """
    data = _parse(content)
    cells = _cells(data)
    notes: list[str] = []
    language = _language(data)
    if language not in ("", "python"):
        notes.append(f"it was set to run in {language}: graded with Python")
    _recognise(cells, pristine)
    _note_changes(cells, pristine, notes)
    answers = _find_answers(cells, pristine, notes)
    added = _added(cells, answers, pristine, notes)

    notebook = nbformat.from_dict({**pristine, "cells": []})
    notebook.cells.extend(added[-1])
    unanswered = set()
    for index, original in enumerate(pristine.cells):
        cell = nbformat.from_dict(original)
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        if is_solution(original):
            # With the checksum of the blank, nbgrader tells whether anything was answered.
            cell.metadata.nbgrader["checksum"] = compute_checksum(original)
            cell.source = answers[index].source if index in answers else original.source
            if _same(cell.source, original.source):
                cell.source = original.source
                unanswered.add(cell.metadata.nbgrader["grade_id"])
        notebook.cells.append(cell)
        notebook.cells.extend(added[index])
    if not answers:
        notes.append("nothing in it is of this lab")
    elif len(unanswered) == sum(map(is_solution, pristine.cells)):
        notes.append("nothing is answered")
    return Rebuilt(notebook, notes, unanswered)


def _parse(content: bytes) -> dict[str, Any]:
    try:
        text = content.decode("utf-8-sig")
        data = json.loads(text)
        if isinstance(data, dict) and "worksheets" in data:  # a notebook of ten years ago
            data = nbformat.reads(text, as_version=4)
    except (ValueError, RecursionError) as error:
        raise RebuildError(f"it is not a notebook: {type(error).__name__}, {error}") from None
    except Exception as error:  # an old notebook can be broken in any way
        raise RebuildError(f"it is an old notebook that can't be read: {error}") from None
    if not isinstance(data, dict) or not isinstance(data.get("cells"), list):
        raise RebuildError("it is not a notebook: it has no list of cells")
    return data


def _cells(data: dict[str, Any]) -> list[_Cell]:
    """Read the cells, and believe nothing of them: fields may be lost or of any type."""
    cells = []
    for raw in data["cells"]:
        if not isinstance(raw, dict):
            continue
        source = raw.get("source", "")
        if isinstance(source, list):
            source = "".join(part for part in source if isinstance(part, str))
        if not isinstance(source, str) or len(source) > LONGEST_CELL:
            source = ""
        source = source.encode("utf-8", "replace").decode("utf-8")  # half an emoji, say
        kind = "code" if raw.get("cell_type") == "code" else "markdown"
        metadata = _mapping(raw.get("metadata"))
        names = [_mapping(metadata.get("nbgrader")).get("grade_id"), raw.get("id")]
        names.append(metadata.get("id"))  # Colab keeps it there
        ids = [name for name in names if isinstance(name, str)]
        defines = set(DEFINED.findall(source)) if kind == "code" else set()
        cells.append(_Cell(kind, source, ids, defines=defines))
    return cells


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _language(data: dict[str, Any]) -> str:
    spec = _mapping(_mapping(data.get("metadata")).get("kernelspec"))
    language = spec.get("language") or spec.get("name") or ""
    return "python" if "python" in str(language).lower() else str(language)[:40]


def _recognise(cells: list[_Cell], pristine: Any) -> None:
    by_id: dict[str, int] = {}
    by_source: dict[tuple[str, str], int] = {}
    for index, cell in enumerate(pristine.cells):
        for name in (cell.get("id"), cell.metadata.get("nbgrader", {}).get("grade_id")):
            if name:
                by_id[name] = index
        by_source.setdefault((cell.cell_type, cell.source.strip()), index)
    for cell in cells:
        found = [by_id[name] for name in cell.ids if name in by_id]
        same = by_source.get((cell.kind, cell.source.strip())) if cell.source.strip() else None
        cell.known = found[0] if found else same


def _note_changes(cells: list[_Cell], pristine: Any, notes: list[str]) -> None:
    """Say what was done to the checks, which are taken from the grading notebook anyway."""
    by_index: dict[int, list[_Cell]] = defaultdict(list)
    for cell in cells:
        if cell.known is not None:
            by_index[cell.known].append(cell)
    for index, original in enumerate(pristine.cells):
        name = original.metadata.get("nbgrader", {}).get("grade_id", "")
        if not name.endswith("-check"):
            continue
        there = by_index[index]
        if not there:
            notes.append(f"{name} was deleted: the original was used")
        elif any(not _same(cell.source, original.source) for cell in there):
            notes.append(f"{name} was edited: the original was used")
        elif len(there) > 1:
            notes.append(f"{name} is there {len(there)} times: it counts once")
    order = [cell.known for cell in cells if cell.known is not None]
    if order != sorted(order):
        notes.append("its cells were reordered: they ran in the lab's order")


def _find_answers(cells: list[_Cell], pristine: Any, notes: list[str]) -> dict[int, _Cell]:
    """Return the answer to each exercise, by the position of its blank."""
    answers: dict[int, _Cell] = {}
    for index, blank in enumerate(pristine.cells):
        if not is_solution(blank):
            continue
        name = blank.metadata.nbgrader["grade_id"]
        wanted = set(DEFINED.findall(blank.source)) if blank.cell_type == "code" else set()
        own = [c for c in cells if c.known == index and c.kind == blank.cell_type]
        changed = [c for c in own if not _same(c.source, blank.source)]
        if len(changed) > 1:
            notes.append(f"{name} is there {len(changed)} times: the last was graded")
        free = [c for c in cells if _free(c, pristine) and not _same(c.source, blank.source)]
        elsewhere = [c for c in free if c.defines & wanted and c.known != index]
        if good := [c for c in changed if wanted <= c.defines]:
            answers[index] = good[-1]
        elif elsewhere:
            answers[index] = elsewhere[-1]
            notes.append(f"{name} was found by its function, not in its cell")
        elif changed:
            answers[index] = changed[-1]
        elif not wanted and (after := _after(index, blank, cells)):
            answers[index] = after
            notes.append(f"{name} was found by its place, not in its cell")
        elif own:
            answers[index] = own[-1]
    return answers


def _free(cell: _Cell, pristine: Any) -> bool:
    """Whether a cell may hold an answer: it is none of the lab's own cells."""
    return cell.known is None or is_solution(pristine.cells[cell.known])


def _after(index: int, blank: Any, cells: list[_Cell]) -> _Cell | None:
    """Return the new cell right after the blank, or after the lab's cell that comes before it."""
    for cell, following in pairwise(cells):
        here = cell.known is not None and index - 1 <= cell.known <= index
        if here and following.known is None and following.kind == blank.cell_type:
            return following
    return None


def _added(
    cells: list[_Cell], answers: dict[int, _Cell], pristine: Any, notes: list[str]
) -> dict[int, list[Any]]:
    """Return the cells that the student added, by the position that they come after."""
    places = {id(cell): index for index, cell in answers.items()}
    added: dict[int, list[Any]] = defaultdict(list)
    count, place = 0, -1
    for cell in cells:
        if id(cell) in places:
            place = places[id(cell)]
        elif cell.known is not None:
            place = cell.known
        ours = id(cell) in places or (cell.known is not None and not _free(cell, pristine))
        if ours or not cell.source.strip():
            continue
        # An earlier version of an answer, or its blank, must not run after the answer.
        if cell.known is not None:
            answer = answers.get(cell.known)
            superseded = answer is not None and bool(cell.defines & answer.defines)
            if superseded or _same(cell.source, pristine.cells[cell.known].source):
                continue
        count += 1
        if count > MOST_ADDED_CELLS:
            continue
        new = nbformat.v4.new_code_cell if cell.kind == "code" else nbformat.v4.new_markdown_cell
        added[place].append(new(cell.source, id=f"added-{count}"))
    if count > MOST_ADDED_CELLS:
        notes.append(f"it has {count} added cells: {MOST_ADDED_CELLS} were kept")
    return added


def _same(source: str, other: str) -> bool:
    return source.split() == other.split()
