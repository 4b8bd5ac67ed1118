"""The source of a lab: one Markdown notebook in `labs/`, read and checked.

A source is a page that reads from top to bottom, with its answers in place. It states its points
and its time in its first cell, `**30 points, about 75 minutes.**`, and the points of each exercise
in its heading, `## Exercise 2: Repair an Adam (5 points)`. The tag of a cell says what it is:

| tag         | cell     | what it is                                                        |
|-------------|----------|-------------------------------------------------------------------|
| `answer`    | code     | the student's function; its solution stands between markers       |
| `check`     | code     | a check that the student runs                                     |
| `held-back` | code     | a check that only the grader runs, on inputs drawn from `seed`    |
| `figure`    | code     | a figure, graded by hand; its solution stands between markers     |
| `written`   | Markdown | words, graded by hand; a model answer stands between markers      |
| `rubric`    | Markdown | what the words or the figure earn: `- 2 points: ...` a line       |

A held-back check whose last line is `hold(compete, seed)` is a competition (`competition.py`): the
grader doesn't run it, but scores the function `compete` outside the student's process.

An exercise is an answer with a check and a held-back check, or a figure or written answer with a
rubric. The lines `# BEGIN SOLUTION: the two lines of the rule` and `# END SOLUTION` (in Markdown
without `# `) enclose what students write; the words after the colon tell them what.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jupytext

ANSWERS = ("answer", "figure", "written")
KINDS = (*ANSWERS, "check", "held-back", "rubric")
# What a kind of answer needs after it, in this order.
FOLLOWED_BY = {"answer": ["check", "held-back"], "figure": ["rubric"], "written": ["rubric"]}
IN_MARKDOWN = ("written", "rubric")

NAME = re.compile(r"[A-Za-z0-9_-]{1,48}")  # the ids of the cells begin with it
TOTAL = re.compile(r"\*\*(\d+) points, about (\d+) minutes\.\*\*")
HEADING = re.compile(r"^## Exercise (\d+): (.+) \((\d+) points?\)$", re.MULTILINE)
ANY_HEADING = re.compile(r"^#+ Exercise\b", re.MULTILINE)
RUBRIC_LINE = re.compile(r"^- (\d+) points?: ", re.MULTILINE)
SEED = re.compile(r"^seed = \d+$", re.MULTILINE)
MARKER = re.compile(r"^\s*(?:# )?(?:BEGIN|END) SOLUTION.*$", re.MULTILINE)
SOLUTION = re.compile(
    r"^(?P<indent> *)(?P<hash># )?BEGIN SOLUTION: (?P<what>.+?)\.?\n"
    r"(?P<body>(?:(?! *(?:# )?BEGIN SOLUTION).*\n)*?)"
    r" *(?:# )?END SOLUTION$",
    re.MULTILINE,
)


class LabError(Exception):
    """A lab can't be built; the message names the lab, the exercise and the reason."""


@dataclass(frozen=True)
class Cell:
    """A cell of a source.

    Attributes:
        id: The same in every notebook that is built: `lab_3_optimizers-ex2-check`.
        kind: One of `KINDS`, or `text` or `code` for what all notebooks show as it is.
        exercise: The exercise that it belongs to; 0 before the first.
        source: Its text, solutions and markers included.
    """

    id: str
    kind: str
    exercise: int
    source: str

    @property
    def is_code(self) -> bool:
        """Whether it is a code cell; else it is Markdown."""
        return self.kind not in ("text", *IN_MARKDOWN)

    def blank(self) -> str:
        """Return its text as students get it: in place of a solution, what is to be written."""

        def words(match: re.Match[str]) -> str:
            message = f"Exercise {self.exercise}: write {match['what']} here."
            if not self.is_code:
                return f"*{message}*"
            return f"{match['indent']}raise NotImplementedError({json.dumps(message)})"

        return SOLUTION.sub(words, self.source)

    def solved(self) -> str:
        """Return its text with the solution, without the markers."""
        return SOLUTION.sub(lambda match: match["body"].strip("\n"), self.source)

    def secrets(self) -> list[str]:
        """Return every line that no student may see: of solutions, held-back checks, rubrics.

        Lines too short to tell anything, and imports, are left out.
        """
        texts = [match["body"] for match in SOLUTION.finditer(self.source)]
        if self.kind in ("held-back", "rubric"):
            texts = [self.source]
        lines = [line.strip() for text in texts for line in text.splitlines()]
        return [x for x in lines if len(x) >= 10 and not x.startswith(("import ", "from "))]


@dataclass(frozen=True)
class Exercise:
    """What the heading of an exercise says, and how it is answered (one of `ANSWERS`)."""

    number: int
    title: str
    points: int
    answered_by: str


@dataclass(frozen=True)
class Lab:
    """A lab's source, read and checked.

    Attributes:
        name: The file's name without `.md`.
        path: The file.
        points: What all exercises earn together.
        minutes: How long it takes a student, as its first cell says.
        exercises: In the order of the source.
        cells: In the order of the source.
    """

    name: str
    path: Path
    points: int
    minutes: int
    exercises: tuple[Exercise, ...]
    cells: tuple[Cell, ...]

    def secrets(self) -> list[str]:
        """Return the `Cell.secrets` of all cells."""
        return [line for cell in self.cells for line in cell.secrets()]


def read_lab(path: Path) -> Lab:
    """Read a lab's source.

    Raises:
        LabError: If it breaks a rule of the format; the message says which, and where.
    """
    name = path.stem
    if not path.exists():
        raise LabError(f"{name}: there is no file {path}.")
    if not NAME.fullmatch(name):
        raise LabError(f"{name}: name the file with at most 48 of A-Z, a-z, 0-9, _ and -.")
    notebook = jupytext.read(path, fmt="md:myst")
    cells: list[Cell] = []
    headings: list[tuple[str, str, str]] = []
    for node in notebook.cells:
        found = HEADING.findall(node.source) if node.cell_type == "markdown" else []
        if node.cell_type == "markdown" and len(ANY_HEADING.findall(node.source)) > len(found):
            raise LabError(f"{name}: a heading is not like '## Exercise 2: Its title (5 points)'.")
        if found and node.metadata.get("tags"):
            raise LabError(
                f"{name}: put a line '+++' before the heading of exercise {found[0][0]}."
            )
        headings += found
        cells.append(_cell(name, node, len(headings), cells))
    total = TOTAL.search(cells[0].source) if cells else None
    if total is None or not cells[0].source.startswith("# "):
        raise LabError(
            f"{name}: begin with '# The title' and '**30 points, about 75 minutes.**' below it."
        )
    exercises = tuple(
        _exercise(name, place, heading, [c for c in cells if c.exercise == place])
        for place, heading in enumerate(headings, start=1)
    )
    points, minutes = map(int, total.groups())
    if points != sum(exercise.points for exercise in exercises):
        added = " + ".join(str(exercise.points) for exercise in exercises)
        raise LabError(f"{name}: it states {points} points, and its exercises have {added}.")
    return Lab(name, path, points, minutes, exercises, tuple(cells))


def _cell(lab: str, node: Any, exercise: int, before: list[Cell]) -> Cell:
    """Return a cell with its id; raise if its tag or its markers are not right."""
    where = f"{lab}, exercise {exercise}" if exercise else f"{lab}, before exercise 1"
    tags = node.metadata.get("tags", [])
    if len(tags) > 1 or not set(tags) <= set(KINDS):
        raise LabError(f"{where}: a cell has the tags {tags}. Give it one of {', '.join(KINDS)}.")
    is_markdown = node.cell_type == "markdown"
    kind = tags[0] if tags else "text" if is_markdown else "code"
    if tags and not exercise:
        raise LabError(f"{where}: a cell has the tag '{kind}', and belongs to no exercise.")
    if tags and is_markdown != (kind in IN_MARKDOWN):
        wanted = "Markdown" if kind in IN_MARKDOWN else "code"
        raise LabError(f"{where}: a cell with the tag '{kind}' must be {wanted}.")
    solutions = list(SOLUTION.finditer(node.source))
    if 2 * len(solutions) != len(MARKER.findall(node.source)) or any(
        is_markdown == bool(match["hash"]) for match in solutions
    ):
        mark = "" if is_markdown else "# "
        raise LabError(
            f"{where}: solutions stand between the lines '{mark}BEGIN SOLUTION: what to write' "
            f"and '{mark}END SOLUTION'."
        )
    if bool(solutions) != (kind in ANSWERS):
        reason = "has no solution" if kind in ANSWERS else "has a solution that nothing blanks"
        raise LabError(f"{where}: a cell of the kind '{kind}' {reason}.")
    if kind == "held-back" and len(SEED.findall(node.source)) != 1:
        raise LabError(f"{where}: the held-back check needs one line 'seed = 0', which is set.")
    if kind in KINDS:
        suffix = "" if kind in ANSWERS else f"-{kind}"
        return Cell(f"{lab}-ex{exercise}{suffix}", kind, exercise, node.source)
    untagged = sum(cell.kind not in KINDS for cell in before)
    return Cell(f"{lab}-{untagged + 1}", kind, exercise, node.source)


def _exercise(lab: str, place: int, heading: tuple[str, str, str], cells: list[Cell]) -> Exercise:
    """Return an exercise; raise if a cell that it needs is missing, or its points don't add up."""
    number, title, points = int(heading[0]), heading[1], int(heading[2])
    where = f"{lab}, exercise {number}"
    if number != place:
        raise LabError(f"{where}: it is the exercise number {place}.")
    kinds = [cell.kind for cell in cells if cell.kind in KINDS]
    answered_by = next((kind for kind in kinds if kind in ANSWERS), None)
    if answered_by is None:
        raise LabError(f"{where}: no cell has the tag {' or '.join(ANSWERS)}.")
    if kinds != [answered_by, *FOLLOWED_BY[answered_by]]:
        wanted = ", ".join([answered_by, *FOLLOWED_BY[answered_by]])
        raise LabError(f"{where}: it needs the cells {wanted}, and has {', '.join(kinds)}.")
    if kinds[-1] == "rubric":
        earned = [int(line) for line in RUBRIC_LINE.findall(cells_of(cells, "rubric")[0].source)]
        if sum(earned) != points:
            raise LabError(f"{where}: {points} points, and its rubric gives {sum(earned)}.")
    return Exercise(number, title, points, answered_by)


def cells_of(cells: list[Cell] | tuple[Cell, ...], *kinds: str) -> list[Cell]:
    """Return the cells of these kinds."""
    return [cell for cell in cells if cell.kind in kinds]
