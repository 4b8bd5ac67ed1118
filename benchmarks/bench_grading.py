"""Time the grading of a class: `python benchmarks/bench_grading.py --submissions 300`.

Each simulated student answers each exercise of lab 3 with chance 0.7 and leaves it blank
otherwise; no two send the same. Seconds are those of the whole command, reports included. Memory is
the most that the command and all that it starts held together, pages that they share counted for
each. A row goes into `benchmarks/grading.csv`, which the book shows.
"""

import argparse
import csv
import os
import platform
import random
import tempfile
import threading
import time
from pathlib import Path

import nbformat
import psutil

from trainwell.labs.build import student_notebook
from trainwell.labs.grade import grade
from trainwell.labs.source import ANSWERS, read_lab
from trainwell.runtime import cores

ROOT = Path(__file__).resolve().parent.parent
LAB = ROOT / "labs" / "lab_3_optimizers.md"
RESULTS = ROOT / "benchmarks" / "grading.csv"
COLUMNS = ["Submissions", "Seconds", "Seconds each", "Memory, GiB", "Cores", "Machine"]


def write_class(folder: Path, submissions: int) -> None:
    """Write what a class of simulated students sends."""
    chance = random.Random(0)
    lab = read_lab(LAB)
    solved = {cell.id: cell.solved() for cell in lab.cells if cell.kind in ANSWERS}
    for number in range(submissions):
        notebook = student_notebook(lab)
        for cell in notebook.cells:
            if cell.id in solved and chance.random() < 0.7:
                mark = f"\n# student {number}" if cell.cell_type == "code" else f"\n\n{number}"
                cell.source = solved[cell.id] + mark
        nbformat.write(notebook, folder / f"student {number}.ipynb")


class Memory(threading.Thread):
    """Watch what this process and all that it started hold together."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most = 0

    def run(self) -> None:
        me = psutil.Process()
        while True:
            held = 0
            for process in [me, *me.children(recursive=True)]:
                try:
                    held += process.memory_info().rss
                except psutil.NoSuchProcess:
                    continue
            self.most = max(self.most, held)
            time.sleep(0.1)


def keep(row: list[str]) -> None:
    """Write a row into the results, in place of the one for as many submissions."""
    rows = {row[0]: row}
    if RESULTS.exists():
        with RESULTS.open(newline="") as file:
            rows = {old[0]: old for old in list(csv.reader(file))[1:]} | rows
    with RESULTS.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([COLUMNS, *sorted(rows.values(), key=lambda row: int(row[0]))])


def main() -> None:
    parser = argparse.ArgumentParser(description="Time the grading of a simulated class.")
    parser.add_argument("--submissions", type=int, default=30)
    parser.add_argument("--no-keep", action="store_true", help="don't write grading.csv")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sent = Path(folder, "sent")
        sent.mkdir()
        write_class(sent, options.submissions)
        memory = Memory()
        memory.start()
        start = time.perf_counter()
        grades = grade(sent, LAB, Path(folder, "grades"), seed=0)
        seconds = time.perf_counter() - start
    problems = [result.problem for _, result in grades.values() if result.problem]
    assert problems == [], problems
    assert len(grades) == options.submissions
    each, held = seconds / options.submissions, memory.most / 2**30
    print(
        f"{options.submissions} submissions of {LAB.stem} on {cores()} cores: {seconds:.0f} s, "
        f"{each:.2f} s each, {held:.1f} GiB at most; load {os.getloadavg()[0]:.1f}"
    )
    if not options.no_keep:
        machine = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
        values = [options.submissions, f"{seconds:.0f}", f"{each:.2f}", f"{held:.1f}", cores()]
        keep([*map(str, values), machine])


if __name__ == "__main__":
    main()
