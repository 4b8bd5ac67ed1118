"""Every chapter runs as a notebook, cell by cell, in the quick profile; its solutions too.

What the cells show is kept for the quick site, which test_site.py looks at: `make test` runs this
file first.
"""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import book
import jupytext
import nbformat
import pytest
from myst_nb.core.read import myst_nb_reader_plugin
from nbformat.v4 import new_code_cell

from trainwell.claims import MIME_TYPE

# What a library says that will change. A page that warns of something else means it.
OUTDATED = re.compile(r".*(Deprecation|Future|Pandas\d+)Warning.*")
# The code of a folded solution. A page shows it, and does not run it.
SOLUTION = re.compile(r"^:::\{dropdown\} Solution\n```python\n(.*?)^```", re.DOTALL | re.MULTILINE)

# A failed cell in pytest's report: its name and what is said of it.
FAILED_CELL = re.compile(
    r"^_+ (\S+::Cell \d+) _+\n(.*?)(?=^_+ \S+::Cell \d+ _+$|^=+ )", re.DOTALL | re.MULTILINE
)

ROOT = Path(__file__).resolve().parent.parent
CHAPTERS = sorted((ROOT / "chapters").glob("*.md"))


def run_nbval(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the notebooks of `folder` under nbval, two at a time; write their outputs into them."""
    environment = {
        **os.environ,
        "TRAINWELL_PROFILE": "quick",
        "TRAINWELL_JOBS": str(book.QUICK_JOBS),
        "TRAINWELL_PROGRESS": "0",
        "TRAINWELL_RUNS": str(folder / "runs"),
        "SERIAL_KERNELS_LOCK": str(folder / "kernels.lock"),
        "PYTHONPATH": f"{ROOT / 'tests'}{os.pathsep}{ROOT / 'tools'}",
    }
    # Not this project's pytest settings: nbval and the kernels warn in their own ways.
    command = [sys.executable, "-m", "pytest", "-c", os.devnull, "--rootdir", str(folder)]
    command += ["--nbval-lax", "--nbval-cell-timeout", "300", "-p", "nbval_plugin"]
    command += ["-p", "no:cacheprovider", "-n", "2", "--dist", "loadfile", str(folder)]
    return subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True)


def failures(report: str) -> str:
    """Return a line for each cell that failed: its name, and the last line of its error."""
    report = re.sub(r"\x1b\[[\d;]*m", "", report)  # colours
    found = FAILED_CELL.findall(report)
    return "\n".join(f"FAILED {name}: {error.strip().splitlines()[-1]}" for name, error in found)


def keep_for_the_site(chapter: Path, outputs: list[Any]) -> None:
    """Put a chapter and the outputs of its code cells where the build of the quick site looks."""
    notebook = myst_nb_reader_plugin(str(chapter))
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for cell, shown in zip(cells, outputs, strict=True):
        cell.outputs = shown
    page = f"chapters/{chapter.stem}"
    book.keep(page, notebook, dict.fromkeys(book.COSTS, 0.0), book.open_cache())


def test_every_chapter_runs_under_nbval(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = 0
    for chapter in CHAPTERS:
        notebook = jupytext.read(chapter)
        solutions = SOLUTION.findall(chapter.read_text())
        notebook.cells += [new_code_cell(solution) for solution in solutions]
        cells += sum(cell.cell_type == "code" for cell in notebook.cells)
        jupytext.write(notebook, tmp_path / f"{chapter.stem}.ipynb")
    result = run_nbval(tmp_path)
    told = f"{failures(result.stdout)}\n\n{result.stdout[-5000:]}{result.stderr[-2000:]}"
    assert result.returncode == 0, told
    passed = re.search(r"(\d+) passed", result.stdout)
    assert passed is not None, result.stdout
    assert int(passed[1]) == cells
    monkeypatch.setenv("TRAINWELL_PROFILE", "quick")
    for chapter in CHAPTERS:
        notebook = nbformat.read(tmp_path / f"{chapter.stem}.ipynb", as_version=4)
        outputs = [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]
        told = "".join(o.get("text", "") for shown in outputs for o in shown if "name" in o)
        assert OUTDATED.findall(told) == [], f"{chapter.name}: {OUTDATED.search(told)}"
        claims = [o.get("data", {}).get(MIME_TYPE) for shown in outputs for o in shown]
        assert any(claim and claim["status"] == "held" for claim in claims), chapter.name
        solutions = SOLUTION.findall(chapter.read_text())
        keep_for_the_site(chapter, outputs[: len(outputs) - len(solutions)])


def test_a_cell_that_raises_is_found(tmp_path: Path) -> None:
    cells = ["assert 1 + 1 == 3, 'wrong sum'", "1 + 1", "unknown"]
    text = "# A page\n" + "".join(f"\n```{{code-cell}} ipython3\n{c}\n```\n" for c in cells)
    header = "---\njupytext:\n  text_representation:\n    format_name: myst\n"
    header += "kernelspec:\n  name: python3\n  display_name: Python 3\n---\n\n"
    jupytext.write(jupytext.reads(header + text, fmt="md:myst"), tmp_path / "page.ipynb")
    result = run_nbval(tmp_path)
    assert result.returncode == 1
    assert failures(result.stdout).splitlines() == [
        "FAILED page.ipynb::Cell 0: AssertionError: wrong sum",
        "FAILED page.ipynb::Cell 2: NameError: name 'unknown' is not defined",
    ]


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_a_chapter_checks_something(chapter: Path) -> None:
    """Running a notebook proves something only where its cells assert something.

    In the quick profile, facts that name no data are judged: a third of all claims or more.
    """
    assert chapter.read_text().count("claim(") >= 6


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_an_exercise_has_a_solution_that_runs(chapter: Path) -> None:
    text = chapter.read_text()
    assert text.count("\n## Exercise") <= len(SOLUTION.findall(text))
