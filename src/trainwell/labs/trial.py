"""Try a lab: every check must fail on its blank and pass on its solution.

A check that passes whatever students write, or that the right answer does not pass, would cost
somebody points. One kernel runs the lab with its solutions, and each check on the blank first; a
second one runs what students get.
"""

import copy
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nbclient import NotebookClient
from nbclient.exceptions import CellTimeoutError
from traitlets.config import Config

from trainwell.labs.source import Cell, Lab, LabError

SECONDS_PER_CELL = 60
# With these the solution must pass the held-back checks, beside the seed of the build.
SEEDS = range(1, 6)


def solution_outputs(
    lab: Lab, solved: Any, blanks: dict[str, str], seeded: Callable[[Cell, int], str]
) -> None:
    """Execute a solved notebook in place, and try each check on the blank on the way.

    Args:
        lab: The lab.
        solved: Its notebook with solutions and all checks.
        blanks: The text of each blanked answer, by cell id.
        seeded: Gives the text of a held-back check for a seed.

    Raises:
        LabError: If a check passes on the blank or fails on the solution, or another cell raises.
    """
    cells = {cell.id: cell for cell in lab.cells}
    checks = {
        exercise.number: [
            node
            for node in solved.cells
            if node.id in cells
            and cells[node.id].exercise == exercise.number
            and cells[node.id].kind in ("check", "held-back")
        ]
        for exercise in lab.exercises
    }
    nodes: list[Any] = []
    must_fail: list[Any] = []
    for node in solved.cells:
        cell = cells.get(node.id)
        if cell and cell.id in blanks:
            nodes.append(_copy(node, "blank", blanks[cell.id]))
            for check in checks[cell.exercise]:
                must_fail.append(_copy(check, "on-blank", check.source))
                nodes.append(must_fail[-1])
        nodes.append(node)
        if cell and cell.kind == "held-back":
            nodes += [_copy(node, f"seed-{seed}", seeded(cell, seed)) for seed in SEEDS]
    _execute(lab, solved, nodes)
    for node in nodes:
        error, where = _error(node), _where(lab, node.id)
        fails = any(node is other for other in must_fail)
        if fails and error is None:
            raise LabError(f"{where}: its check passes on the blank:\n\n{node.source}")
        if not fails and error and not node.id.endswith("-blank"):
            raise LabError(f"{where}: the solution raises {error} in\n\n{node.source}")
        if node.id in cells and cells[node.id].kind == "figure" and not _has_picture(node):
            raise LabError(f"{where}: its solution shows no figure.")
    for count, node in enumerate((n for n in solved.cells if n.cell_type == "code"), start=1):
        node.execution_count = count
        for output in node.outputs:
            if "execution_count" in output:
                output["execution_count"] = count


def try_blank(lab: Lab, student: Any) -> None:
    """Execute what students get, in place: a blank raises its own message, nothing else does.

    Raises:
        LabError: If a cell raises anything else.
    """
    _execute(lab, student, student.cells)
    for node in student.cells:
        error = _error(node)
        if error and not re.match(r"NotImplementedError: Exercise \d+: write ", error):
            raise LabError(
                f"{_where(lab, node.id)}: with the answers blank, a cell raises {error}, and not "
                f"the message of the blank:\n\n{node.source}"
            )


def _copy(node: Any, suffix: str, text: str) -> Any:
    other = copy.deepcopy(node)
    other.update(id=f"{node.id}-{suffix}", source=text)
    return other


def _execute(lab: Lab, notebook: Any, nodes: list[Any]) -> None:
    """Run cells in a new kernel, those that raise too; their outputs go into them."""
    whole = copy.copy(notebook)
    whole.cells = nodes
    config = Config()
    with tempfile.TemporaryDirectory() as folder:
        # The kernel talks through private files, not ports: no other program can collide.
        config.KernelManager.transport = "ipc"
        config.KernelManager.ip = str(Path(folder, "kernel"))
        client = NotebookClient(
            whole,
            config=config,
            timeout=SECONDS_PER_CELL,
            allow_errors=True,
            record_timing=False,
            kernel_name="python3",
            resources={"metadata": {"path": str(lab.path.parent.resolve())}},
        )
        try:
            client.execute()
        except CellTimeoutError as error:
            raise LabError(f"{lab.name}: a cell takes over {SECONDS_PER_CELL} s. {error}") from None


def _error(node: Any) -> str | None:
    """Return what a cell raised, or None."""
    for output in node.get("outputs", []):
        if output.output_type == "error":
            return f"{output.ename}: {output.evalue}"
    return None


def _has_picture(node: Any) -> bool:
    return any("image/png" in output.get("data", {}) for output in node.outputs)


def _where(lab: Lab, cell_id: str) -> str:
    number = re.match(rf"{lab.name}-ex(\d+)", cell_id)
    return f"{lab.name}, exercise {number[1]}" if number else f"{lab.name}, cell {cell_id}"
