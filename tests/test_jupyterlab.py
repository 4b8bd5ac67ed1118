"""What readers and students click: in a real JupyterLab a chapter opens and runs, so do labs."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import nbformat
import pytest
from playwright.sync_api import Browser, Locator, Page
from playwright.sync_api import TimeoutError as PlaywrightTimeoutError
from test_labs_build import LABS

from trainwell.labs.build import solution_notebook
from trainwell.labs.source import read_lab

ROOT = Path(__file__).resolve().parent.parent
LAB = LABS[0]
IDLE = ".jp-Notebook-ExecutionIndicator[data-status=idle]"
SECONDS = 120  # a run of a lab takes ten; the rest is for a busy machine


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a chapter, a lab as students get it, and the same lab solved."""
    folder = tmp_path_factory.mktemp("course")
    shutil.copy(ROOT / "chapters" / "11_4_2_dropout.md", folder)
    shutil.copy(ROOT / "labs" / "notebooks" / f"{LAB.stem}.ipynb", folder / "student.ipynb")
    solved = solution_notebook(read_lab(LAB), seed=0)
    for cell in code_cells(solved):
        cell.outputs, cell.execution_count = [], None
    nbformat.write(solved, folder / "solved.ipynb")
    return folder


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    """Start JupyterLab, with the settings of `make lab`, on a free port of this machine."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"]
    command += [f"--port={port}", "--ServerApp.port_retries=0", f"--notebook-dir={folder}"]
    command += ["--IdentityProvider.token=", "--expose-app-in-browser"]
    own = {f"JUPYTER_{kind}_DIR": str(folder / ".jupyter" / kind) for kind in ("CONFIG", "RUNTIME")}
    own["TRAINWELL_PROFILE"] = "quick"
    log = (folder / "jupyterlab.log").open("w")
    server = subprocess.Popen(command, env={**os.environ, **own}, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + SECONDS
        while not answers(f"{address}/lab"):
            assert server.poll() is None, (folder / "jupyterlab.log").read_text()
            assert time.monotonic() < deadline, "JupyterLab does not start"
            time.sleep(0.5)
        yield address
    finally:
        server.terminate()
        server.wait()
        log.close()


def answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url).close()
    except urllib.error.URLError:
        return False
    return True


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    with closing(browser.new_page()) as page:
        page.set_default_timeout(1_000 * SECONDS)
        # On a slow machine JupyterLab asks which kernel to start, and proposes the right one.
        select = page.get_by_role("button", name="Select Kernel", exact=True)
        # It may ask again at once: `no_wait_after` lets each question be answered.
        page.add_locator_handler(select, answer, no_wait_after=True)
        yield page


def answer(button: Locator) -> None:
    with suppress(PlaywrightTimeoutError):  # the question went away by itself
        button.click(timeout=5_000)


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def errors(notebook: Any) -> list[str]:
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    return [f"{o.ename}: {o.evalue}" for o in outputs if o.output_type == "error"]


def has_run(cells: list[Any]) -> bool:
    """Whether all cells have run, or all up to one that raised.

    A click on a slow machine may start them twice. The second time, the first cell has no count and
    no output while the error of the first time is still there.
    """
    for cell in cells:
        if not cell.execution_count:
            return False
        if any(output.output_type == "error" for output in cell.outputs):
            return True
    return True


def test_cells_that_run_again_have_not_run() -> None:
    first, raised, last = (nbformat.v4.new_code_cell(execution_count=n) for n in (1, 2, 3))
    raised.outputs = [nbformat.v4.new_output("error", ename="E", evalue="", traceback=[])]
    waiting = nbformat.v4.new_code_cell()
    assert has_run([first, last])
    assert has_run([first, raised, waiting])
    assert not has_run([waiting, raised, waiting])
    assert not has_run([first, waiting])


def run_all(page: Page, address: str, file: Path) -> Any:
    """Open a notebook, run all its cells, save it, and read what was saved."""
    page.goto(f"{address}/lab/tree/{file.name}?reset")
    page.locator(IDLE).wait_for()
    deadline = time.monotonic() + SECONDS
    notebook = None
    while time.monotonic() < deadline:
        # On a slow machine, a click that comes while the kernel connects is lost.
        if notebook is None or not any(cell.execution_count for cell in code_cells(notebook)):
            page.get_by_role("menuitem", name="Run", exact=True).click()
            page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        page.wait_for_timeout(2_000)
        page.locator(IDLE).wait_for()
        # By the menu: before a click, and not before a key, the page sees to what is in the way.
        page.get_by_role("menuitem", name="File", exact=True).click()
        page.locator(".lm-Menu-item[data-command='docmanager:save']").click()
        page.get_by_text("Saving completed").wait_for()
        notebook = nbformat.read(file, as_version=4)
        if has_run(code_cells(notebook)):
            return notebook
    raise AssertionError(f"{file.name} does not come to an end")


def test_a_question_that_comes_again_is_answered_again(page: Page) -> None:
    page.set_content("""
        <button onclick="document.title = 'run'">Run</button>
        <div style="position: fixed; inset: 0">
          <button onclick="if (this.dataset.asked) this.parentNode.remove();
                           this.dataset.asked = 'once'">Select Kernel</button>
        </div>
    """)
    page.get_by_role("button", name="Run", exact=True).click()
    assert page.title() == "run"


# JupyterLab draws the cells in sight alone, and a page of Markdown is saved without outputs.
CODE_CELLS = """() => jupyterapp.shell.currentWidget.content.model.sharedModel.cells
    .map(cell => cell.toJSON()).filter(cell => cell.cell_type === 'code')"""
SELECT_CODE_CELL = """number => {
    const notebook = jupyterapp.shell.currentWidget.content;
    const code = notebook.widgets.filter(cell => cell.model.type === 'code');
    notebook.activeCellIndex = notebook.widgets.indexOf(code[number]);
}"""


def run_first_cells(page: Page, count: int) -> Any:
    """Run the first code cells of the open notebook, and return a notebook of them."""
    page.locator(IDLE).wait_for()
    page.evaluate(SELECT_CODE_CELL, count)
    deadline = time.monotonic() + SECONDS
    notebook = None
    while time.monotonic() < deadline:
        # As in `run_all`, a click may be lost.
        if notebook is None or not any(cell.execution_count for cell in notebook.cells):
            page.get_by_role("menuitem", name="Run", exact=True).click()
            page.get_by_role("menuitem", name="Run All Above Selected Cell").click()
        page.wait_for_timeout(2_000)
        page.locator(IDLE).wait_for()
        notebook = nbformat.from_dict({"cells": page.evaluate(CODE_CELLS)[:count]})
        if has_run(notebook.cells):
            return notebook
    raise AssertionError(f"the first {count} cells do not come to an end")


def test_a_click_opens_a_chapter_as_a_notebook_that_runs(page: Page, address: str) -> None:
    page.goto(f"{address}/lab?reset")
    page.locator(".jp-DirListing-item", has_text="11_4_2_dropout.md").dblclick()
    page.locator(".jp-Notebook h1", has_text="Dropout").wait_for()
    page.locator(".jp-Notebook .jp-CodeCell").first.wait_for()
    notebook = run_first_cells(page, 3)
    assert errors(notebook) == []
    assert "display_data" in [output.output_type for output in notebook.cells[-1].outputs]


def test_a_students_lab_stops_at_the_first_blank_with_its_message(
    page: Page, address: str, folder: Path
) -> None:
    notebook = run_all(page, address, folder / "student.ipynb")
    setup, *_ = code_cells(notebook)
    assert "device:" in "".join(output.text for output in setup.outputs)
    (error,) = errors(notebook)
    assert error.startswith("NotImplementedError: Exercise 1: ")


def test_a_solved_lab_runs_to_its_end(page: Page, address: str, folder: Path) -> None:
    notebook = run_all(page, address, folder / "solved.ipynb")
    assert errors(notebook) == []
