"""The grader: each submission ends with a fair grade or a clear line; none stops the others."""

import csv
import io
import json
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
import zipfile
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("nbgrader", reason="grading needs the extra `instructor`")

import nbformat
import psutil
from nbformat.v4 import new_code_cell, new_markdown_cell, new_output
from small_lab import (
    ANSWERS,
    LAB,
    find,
    grading_notebook,
    sent,
    student_notebook,
    write_grading_notebook,
)

from trainwell.__main__ import main
from trainwell.labs import build, report, sandbox
from trainwell.labs.grade import Mark, Result, grade, grade_one, write
from trainwell.labs.grade import grading_notebook as pristine_notebook
from trainwell.labs.gradebook import identity
from trainwell.labs.rebuild import RebuildError, rebuild
from trainwell.labs.report import total
from trainwell.labs.sandbox import (
    MEBIBYTE,
    Kernel,
    KernelDiedError,
    Limits,
    SandboxError,
    check_sandbox,
)
from trainwell.labs.source import ANSWERS as ANSWER_KINDS
from trainwell.labs.source import read_lab
from trainwell.labs.submissions import SubmissionError, collect

try:
    check_sandbox()
    NO_SANDBOX = ""
except SandboxError as error:
    NO_SANDBOX = str(error)
boxed = pytest.mark.skipif(bool(NO_SANDBOX), reason=NO_SANDBOX)

WRONG = {number: answer.replace("-", "+") for number, answer in ANSWERS.items()}
LIMITS = Limits(
    cell_seconds=5,
    total_seconds=60,
    memory=1024 * MEBIBYTE,
    disk=16 * MEBIBYTE,
    output=20_000,
    processes=40,
)
SLEEP = "31.4159"  # nobody else's `sleep` has this time
HTML = "from IPython.display import HTML, display\ndisplay(HTML('<script>steal()</script>'))\n"


def first(code: str, second: str = ANSWERS[2]) -> Any:
    """Return a notebook with this code before the answer to the first exercise."""
    return student_notebook({1: f"{code}\n{ANSWERS[1]}", 2: second})


def deleted() -> Any:
    notebook = student_notebook()
    notebook.cells = [cell for cell in notebook.cells if not cell.id.endswith("-check")]
    return notebook


def edited() -> Any:
    notebook = student_notebook(WRONG)
    for number in ANSWERS:
        find(notebook, f"{LAB}-ex{number}-check").source = "assert True"
    return notebook


def duplicated() -> Any:
    notebook = student_notebook()
    copy = nbformat.from_dict(find(notebook, f"{LAB}-ex1-check"))
    copy.id = "a-copy"  # JupyterLab gives a new id, and copies nbgrader's
    answer = nbformat.from_dict(find(notebook, f"{LAB}-ex1"))
    answer.id, answer.source = "another", WRONG[1]
    notebook.cells = [*notebook.cells[:5], answer, *notebook.cells[5:], copy, copy]
    return notebook


def reordered() -> Any:
    notebook = student_notebook()
    notebook.cells.reverse()
    return notebook


def bare() -> Any:
    """Return a notebook that lost its ids and its metadata."""
    notebook = student_notebook(words="Because of the momentum.")
    for cell in notebook.cells:
        cell.metadata = {}
        del cell["id"]
    notebook.metadata, notebook.nbformat_minor = {}, 4
    return notebook


def helped() -> Any:
    """Return a notebook whose answer needs a cell that the student added."""
    notebook = student_notebook({1: ANSWERS[1].replace("rate *", "scale(rate) *"), 2: ANSWERS[2]})
    notebook.cells.insert(3, new_code_cell("def scale(rate):\n    return rate", id="mine"))
    return notebook


def in_another_cell() -> Any:
    notebook = student_notebook({2: ANSWERS[2]}, words="*Your answer here.*")
    notebook.cells.append(new_markdown_cell("Because it remembers.", id="words"))
    notebook.cells.append(new_code_cell(ANSWERS[1], id="at-the-end"))
    return notebook


def heavy() -> Any:
    notebook = student_notebook()
    output = new_output("stream", name="stdout", text="x" * 50 * MEBIBYTE)
    find(notebook, f"{LAB}-ex1").outputs = [output]
    return notebook


def in_r() -> Any:
    notebook = student_notebook()
    notebook.metadata["kernelspec"] = {"name": "ir", "language": "R", "display_name": "R"}
    return notebook


def empty() -> Any:
    notebook = student_notebook()
    notebook.cells = []
    return notebook


# For each file: what is sent, the points of the two exercises, and a word of the report.
CASES: dict[str, tuple[Any, tuple[float, float] | None, str]] = {
    "right": (student_notebook(words="Because."), (3, 4), ""),
    "wrong": (student_notebook(WRONG), (0, 0), ""),
    "blank": (student_notebook({}), (0, 0), "nothing is answered"),
    "loop": (first("while True: pass"), (0, 4), ""),
    "stubborn": (
        first("import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass"),
        (0, 4),
        "ignored the interrupt",
    ),
    "recursion": (student_notebook({1: "def step(*a):\n    return step(*a)"}), (0, 0), ""),
    "memory": (first("a = []\nwhile True: a.append(bytearray(10**8))"), (0, 4), "MemoryError"),
    "memory of many": (
        first(
            # Five are too many together. They fill their memory within the limit of time: with half
            # as much again, a busy machine was too slow.
            "import os, time\nfor _ in range(5):\n    if os.fork() == 0:\n"
            "        b = b'x' * 200_000_000; time.sleep(60)\ntime.sleep(60)"
        ),
        (0, 4),
        "MB of memory",
    ),
    "files": (
        first(
            "import os, time\nfor d in (os.path.dirname(__import__('sys').argv[2]), '/tmp'):\n"
            "  for i in range(20):\n    open(f'{d}/{i}', 'wb').write(b'x' * 4_000_000)\n"
            "time.sleep(3)"
        ),
        (0, 4),
        "it wrote more than",
    ),
    "output": (first("for _ in range(1000): print('x' * 1000)"), (3, 4), "printed more than"),
    "one large output": (first("print('x' * 2 * 2**23)"), (3, 4), ""),  # twice a message's limit
    "endless output": (first("while True: print('x' * 1000)"), (0, 4), ""),
    "fork bomb": (first("import os\nwhile True: os.fork()"), (0, 4), "ended the kernel: it"),
    "exit": (first("import os\nos._exit(0)"), (0, 4), "the kernel ended"),
    "exit in the check": (
        student_notebook({1: "import os\ndef step(*a):\n    os._exit(0)", 2: ANSWERS[2]}),
        (0, 4),
        "the kernel ended",
    ),
    "delete": (first("!rm -rf /* 2>/dev/null"), (3, 4), ""),
    "input": (first("input()"), (0, 4), ""),
    "syntax": (student_notebook({1: "def step(:", 2: ANSWERS[2]}), (0, 4), ""),
    "warning": (first("import sys\nprint('careful', file=sys.stderr)"), (3, 4), ""),
    "html": (first(HTML), (3, 4), ""),
    "deleted": (deleted(), (3, 4), "was deleted"),
    "edited": (edited(), (0, 0), "was edited"),
    "duplicated": (duplicated(), (0, 4), "the last was graded"),
    "reordered": (reordered(), (3, 4), "reordered"),
    "bare": (bare(), (3, 4), "by its function"),
    "helped": (helped(), (3, 4), ""),
    "in another cell": (in_another_cell(), (3, 4), "by its place"),
    "allclose": (
        student_notebook({1: f"{WRONG[1]}\nnp.allclose = lambda *a, **k: True", 2: ANSWERS[2]}),
        (0, 4),
        "it replaced numpy.allclose",
    ),
    "helper": (
        student_notebook({1: f"{WRONG[1]}\ndef expect_close(*a): pass", 2: ANSWERS[2]}),
        (0, 4),
        "it replaced expect_close",
    ),
    "code of the helper": (
        student_notebook(
            {1: f"{WRONG[1]}\nexpect_close.__code__ = (lambda a, b: 0).__code__", 2: ANSWERS[2]}
        ),
        (0, 4),
        "it replaced expect_close",
    ),
    "built-in": (first("all = lambda *a: True"), (3, 4), "it replaced all"),
    "kernel": (in_r(), (3, 4), "it was set to run in R"),
    "heavy": (heavy(), (3, 4), ""),
    "empty": (empty(), (0, 0), "nothing in it is of this lab"),
    "corrupt": (sent(student_notebook())[:-40], None, "it is not a notebook"),
    "nothing": (b"", None, "the file is empty"),
    "list": (b"[1, 2]", None, "it has no list of cells"),
    "deep": (b"[" * 100_000, None, "it is not a notebook"),
    "picture": (b"\x89PNG\r\n\x1a\n\x00", None, "it is not a notebook"),
    "김하늘": (student_notebook(), (3, 4), ""),
    "🙂 (final)": (student_notebook({1: ANSWERS[1]}), (3, 0), ""),
    "=cmd|' '!A1": (student_notebook({2: ANSWERS[2]}), (0, 4), ""),
}


@pytest.fixture(scope="module")
def graded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Grade one class of all of them, with two versions of one student and a report in Word."""
    if NO_SANDBOX:
        pytest.skip(NO_SANDBOX)
    folder = tmp_path_factory.mktemp("class")
    write_grading_notebook(folder / f"{LAB}.ipynb")
    sent_folder = folder / "submissions"
    sent_folder.mkdir()
    for name, (content, _, _) in CASES.items():
        data = content if isinstance(content, bytes) else sent(content)
        (sent_folder / f"{name}.ipynb").write_bytes(data)
    (sent_folder / "word.docx").write_bytes(b"PK")
    (sent_folder / "twice.ipynb").write_bytes(sent(student_notebook(WRONG)))
    (sent_folder / "twice (1).ipynb").write_bytes(sent(student_notebook()))
    (sent_folder / "spy.ipynb").write_bytes(sent(first(_spying(folder))))
    out = folder / "out"
    (out / "graded").mkdir(parents=True)
    (out / "gradebook-of-last-year.db").write_text("SECRET")
    with _listening() as (port, accepted):
        (sent_folder / "caller.ipynb").write_bytes(sent(first(_calling(port))))
        grades = grade(sent_folder, folder / f"{LAB}.ipynb", out, jobs=2, limits=LIMITS)
    assert not accepted
    return out, grades


def _spying(folder: Path) -> str:
    """Return code that looks for others' files, and tries to write and to stay."""
    return f"""\
import os, subprocess
for path in [{str(folder / "out" / "gradebook-of-last-year.db")!r},
             {str(folder / "submissions" / "right.ipynb")!r}, {__file__!r}, "/etc/passwd",
             "/proc/1/root/etc/passwd", os.path.expanduser("~root/.bashrc")]:
    try:
        print("READ", path, open(path).read()[:20])
    except OSError as error:
        print("refused", error)
for path in [{str(folder / "out" / "graded" / "x.json")!r}, {str(folder / "x")!r}, "/usr/x",
             os.__file__, np.__file__, "/x", "/dev/x"]:
    try:
        open(path, "a").write("x")
        print("WROTE", path)
    except OSError as error:
        print("refused", error)
subprocess.Popen(["sleep", {SLEEP!r}], start_new_session=True)
"""


def _calling(port: int) -> str:
    return f"""\
import socket
for address in [("127.0.0.1", {port}), ("1.1.1.1", 53)]:
    try:
        socket.create_connection(address, timeout=1)
        print("CONNECTED", address)
    except OSError as error:
        print("refused", error)
"""


class _listening:
    """A server on this machine that counts who gets through."""

    def __enter__(self) -> tuple[int, list[Any]]:
        self.server = socket.create_server(("127.0.0.1", 0))
        self.server.settimeout(0.2)
        self.accepted: list[Any] = []
        self.open = True
        self.thread = threading.Thread(target=self._accept)
        self.thread.start()
        return self.server.getsockname()[1], self.accepted

    def _accept(self) -> None:
        while self.open:
            try:
                connection, address = self.server.accept()
            except TimeoutError:
                continue
            connection.close()
            self.accepted.append(address)

    def __exit__(self, *_: object) -> None:
        self.open = False
        self.thread.join()
        self.server.close()


def _points(result: Result) -> tuple[float | None, float | None]:
    return result.marks[0].points, result.marks[1].points


def _printed(result: Result) -> str:
    outputs = (o for cell in result.notebook.cells for o in cell.get("outputs", []))
    return "".join(output.get("text", "") for output in outputs)


@pytest.mark.parametrize("name", CASES)
def test_every_submission_gets_a_fair_grade_or_a_clear_line(
    graded: tuple[Path, dict[str, Any]], name: str
) -> None:
    out, grades = graded
    student = "🙂 (final)" if name.startswith("🙂") else name
    _, points, line = CASES[name]
    submission, result = grades[student]
    row = _rows(out)[student]
    assert line in row["look"]
    if points is None:
        assert line in (submission.problem or result.problem)
        assert row["points"] == ""
    else:
        assert not result.problem
        assert _points(result) == points, (result.marks, result.notes)


def _rows(out: Path) -> dict[str, dict[str, str]]:
    text = (out / "grades.csv").read_text(encoding="utf-8-sig")
    return {row["student"].lstrip("'"): row for row in csv.DictReader(io.StringIO(text))}


def test_nothing_of_others_is_read_and_nothing_written(
    graded: tuple[Path, dict[str, Any]],
) -> None:
    out, grades = graded
    _, result = grades["spy"]
    printed = _printed(result)
    assert printed.count("refused [Errno") == 13
    assert not re.search("READ|WROTE|SECRET", printed)
    assert _points(result) == (3, 4)
    assert not list(out.parent.rglob("x")) + list(out.rglob("x.json"))


def test_no_socket_is_opened(graded: tuple[Path, dict[str, Any]]) -> None:
    printed = _printed(graded[1]["caller"][1])
    assert printed.count("refused [Errno") == 2
    assert "CONNECTED" not in printed


def test_no_process_is_left(graded: tuple[Path, dict[str, Any]]) -> None:
    del graded
    lines = [process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"])]
    assert not [line for line in lines if SLEEP in line]


def test_the_latest_version_counts_and_the_other_is_named(
    graded: tuple[Path, dict[str, Any]],
) -> None:
    submission, result = graded[1]["twice"]
    assert submission.file == "twice (1).ipynb"
    assert "twice.ipynb" in submission.notes[0]
    assert _points(result) == (3, 4)


def test_a_formula_in_a_name_is_text_for_a_spreadsheet(
    graded: tuple[Path, dict[str, Any]],
) -> None:
    assert "\n'=cmd" in (graded[0] / "grades.csv").read_text(encoding="utf-8-sig")


def test_the_report_says_how_the_class_did(graded: tuple[Path, dict[str, Any]]) -> None:
    page = (graded[0] / "report.html").read_text()
    for words in (
        "Who needs a look",
        "AssertionError",
        "김하늘",
        "it is not a notebook",
        "word.docx",
    ):
        assert words in page
    assert "the same file as" in page  # two files with the right answers


def test_a_feedback_page_has_the_score_and_no_script_of_a_student(
    graded: tuple[Path, dict[str, Any]],
) -> None:
    out, _ = graded
    assert "Score: 7.0 / 10.0" in (out / "feedback" / "right.html").read_text()
    assert (out / "feedback" / f"{identity('김하늘')}.html").exists()
    assert "<script>steal()" not in (out / "feedback" / "html.html").read_text()


def test_a_feedback_page_runs_nothing_of_a_text_or_of_a_pictures_metadata(tmp_path: Path) -> None:
    # Markdown makes tags of what was none: an attribute of two paragraphs, and a link.
    words = "# Why\n\n[*me*](javascript:alert(4))\n\n"
    words += '<a title="\n\n<img src=x onerror=alert(5)>\n\n">'
    notebook = student_notebook(words=words)
    picture = {"width": "1 onerror=alert(6)"}
    find(notebook, f"{LAB}-ex1").outputs = [
        new_output("display_data", {"image/png": "iVBO"}, metadata={"image/png": picture})
    ]
    result = Result([Mark("ex3", f"{LAB}-ex3", 1.0, 3.0)], notebook=notebook)
    report._write_feedback("kim", result, {}, LAB, tmp_path)
    page = (tmp_path / "feedback" / "kim.html").read_text()
    assert "alert(" not in page
    assert "base64,iVBO" in page
    assert '<h1 id="Why">' in page
    assert "<em>me</em>" in page


def test_a_second_run_grades_nothing(
    graded: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, grades = graded
    before = {path: path.stat().st_mtime_ns for path in (out / "graded").iterdir()}
    monkeypatch.setattr("trainwell.labs.grade.grade_one", None)
    again = grade(out.parent / "submissions", out.parent / f"{LAB}.ipynb", out, limits=LIMITS)
    assert {path: path.stat().st_mtime_ns for path in (out / "graded").iterdir()} == before
    assert {s: total(r) for s, (_, r) in again.items()} == {
        s: total(r) for s, (_, r) in grades.items()
    }


def test_points_that_a_person_gives_count_at_the_next_run(
    graded: tuple[Path, dict[str, Any]],
) -> None:
    from nbgrader.api import Gradebook

    out, _ = graded
    assert _rows(out)["right"]["waiting for a person"] == "1"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Gradebook(f"sqlite:///{out / 'gradebook.db'}") as book:
            book.find_grade(f"{LAB}-ex3", LAB, LAB, "right").manual_score = 2.5
            book.find_comment(f"{LAB}-ex3", LAB, LAB, "right").manual_comment = "Say why."
            book.db.commit()
    grade(out.parent / "submissions", out.parent / f"{LAB}.ipynb", out, limits=LIMITS)
    row = _rows(out)["right"]
    assert (row["points"], row["waiting for a person"]) == ("9.5", "0")
    assert "Say why." in (out / "feedback" / "right.html").read_text()


@boxed
def test_a_class_sent_through_a_platform(tmp_path: Path) -> None:
    chance = random.Random(0)
    expected = {}
    with zipfile.ZipFile(tmp_path / "export.zip", "w") as archive:
        for number in range(12):
            right = {n: chance.random() < 0.7 for n in ANSWERS}
            answers = {n: (ANSWERS if right[n] else WRONG)[n] for n in ANSWERS}
            notebook = student_notebook(answers, words=f"My reason number {number}.")
            name = f"Student {number}_{1000 + number}_assignsubmission_file_"
            archive.writestr(f"{name}/{LAB}.ipynb", sent(notebook))
            expected[f"Student {number}_{1000 + number}"] = 3 * right[1] + 4 * right[2]
    write_grading_notebook(tmp_path / f"{LAB}.ipynb")
    grades = grade(tmp_path / "export.zip", tmp_path / f"{LAB}.ipynb", tmp_path / "out", jobs=2)
    assert {student: total(result) for student, (_, result) in grades.items()} == expected


@boxed
def test_killed_and_run_again_nothing_is_lost_or_graded_twice(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number in range(6):
        answer = f"# {number}\nimport time; time.sleep(1)"
        (tmp_path / "in" / f"s{number}.ipynb").write_bytes(sent(first(answer)))
    write_grading_notebook(tmp_path / f"{LAB}.ipynb")
    arguments = ["labs", "grade", str(tmp_path / "in"), "--lab", str(tmp_path / f"{LAB}.ipynb")]
    arguments += ["--out", str(tmp_path / "out"), "--jobs", "2"]
    process = subprocess.Popen([sys.executable, "-m", "trainwell", *arguments])
    kept = tmp_path / "out" / "graded"
    deadline = time.monotonic() + 120
    while len(list(kept.glob("*.json"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = {path: path.stat().st_mtime_ns for path in kept.glob("*.json")}
    assert 2 <= len(before) < 6
    assert main(arguments) == 0
    assert len(list(kept.glob("*.json"))) == 6
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert {row["points"] for row in _rows(tmp_path / "out").values()} == {"7"}


@boxed
def test_a_seed_draws_other_inputs_and_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The lab is found by its cells' ids, and built with the folder's seed."""
    seeds = []

    def built(source: Path, seed: int) -> Any:
        seeds.append(seed)
        return grading_notebook(seed)

    monkeypatch.setattr("trainwell.labs.build.grading_notebook", built)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "labs").mkdir()
    (tmp_path / "labs" / f"{LAB}.md").write_text("its source")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "kim.ipynb").write_bytes(sent(student_notebook()))
    assert main(["labs", "grade", "in"]) == 0
    assert main(["labs", "grade", "in"]) == 0
    assert main(["labs", "grade", "in", "--seed", "5"]) == 0
    assert seeds[0] == seeds[1]
    assert seeds[2] == 5
    assert len(list((tmp_path / "grades" / LAB / "graded").iterdir())) == 2
    assert "1 of 1 submissions are graded" in capsys.readouterr().out


def test_a_grading_notebook_gets_the_seed_too(tmp_path: Path) -> None:
    write_grading_notebook(tmp_path / f"{LAB}.ipynb", seed=7)
    drawn = pristine_notebook(tmp_path / f"{LAB}.ipynb", seed=71)
    assert find(drawn, f"{LAB}-ex1-held-back").source.startswith("seed = 71\n")
    assert "seed = 7\n" not in "".join(cell.source for cell in drawn.cells)


@pytest.mark.parametrize(
    ("option", "value", "wanted"),
    [
        ("--jobs", "0", "a whole number, at least 1, got 0"),
        ("--seconds", "0", "a finite number above 0, got 0.0"),
        ("--seconds", "inf", "a finite number above 0, got inf"),
        ("--memory", "-1", "a whole number, at least 1, got -1"),
    ],
)
def test_a_limit_that_grades_nobody_is_refused(
    option: str, value: str, wanted: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["labs", "grade", "in", "--lab", "lab.ipynb", option, value]) == 1
    assert capsys.readouterr().err == f"{option} must be {wanted}.\n"


def test_a_negative_seed_is_refused_and_not_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """NumPy draws nothing from one: every check would fail."""
    out = str(tmp_path / "out")
    arguments = ["labs", "grade", "in", "--lab", "lab.ipynb", "--out", out, "--unsafe"]
    assert main([*arguments, "--seed", "-5"]) == 1
    assert "seed must be a whole number, at least 0, got -5.\n" in capsys.readouterr().err
    assert list(tmp_path.rglob("seed.txt")) == []


@boxed
def test_a_lab_of_the_course(tmp_path: Path) -> None:
    """Its answers get all points of the checks, its blanks none, and neither needs a look."""
    source = Path(__file__).parents[1] / "labs" / "lab_3_optimizers.md"
    lab = read_lab(source)
    blank, solved = build.student_notebook(lab), build.student_notebook(lab)
    answers = {cell.id: cell.solved() for cell in lab.cells if cell.kind in ANSWER_KINDS}
    for cell in solved.cells:
        cell.source = answers.get(cell.id, cell.source)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "blank.ipynb").write_bytes(sent(blank))
    (tmp_path / "in" / "solved.ipynb").write_bytes(sent(solved))
    grades = grade(tmp_path / "in", source, tmp_path / "out", jobs=2)
    assert grades["blank"][1].notes == ["nothing is answered"]
    assert total(grades["blank"][1]) == 0
    result = grades["solved"][1]
    assert result.notes == []
    assert {mark.outcome for mark in result.marks} == {"right", "by hand"}


@boxed
def test_a_department_grades_on_a_cluster(tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed")
    (tmp_path / "in").mkdir()
    for number in range(4):
        notebook = student_notebook(words=f"{number}")
        (tmp_path / "in" / f"s{number}.ipynb").write_bytes(sent(notebook))
    write_grading_notebook(tmp_path / f"{LAB}.ipynb")
    with (
        warnings.catch_warnings(),
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as own,
    ):
        warnings.simplefilter("ignore")
        grades = grade(
            tmp_path / "in",
            tmp_path / f"{LAB}.ipynb",
            tmp_path / "out",
            scheduler=own.scheduler_address,
        )
    assert [total(result) for _, result in grades.values()] == [7, 7, 7, 7]


def test_without_a_sandbox_it_refuses_and_says_how_to_get_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    check_sandbox.cache_clear()
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "kim.ipynb").write_bytes(sent(student_notebook()))
    write_grading_notebook(tmp_path / f"{LAB}.ipynb")
    lab = str(tmp_path / f"{LAB}.ipynb")
    assert main(["labs", "grade", str(tmp_path / "in"), "--lab", lab]) == 1
    assert "Install bubblewrap" in capsys.readouterr().err
    assert not list(tmp_path.rglob("grades.csv"))


def test_unsafe_runs_without_one() -> None:
    result = grade_one(sent(student_notebook()), grading_notebook(), Limits(), unsafe=True)
    assert _points(result) == (3, 4)


def test_a_failure_of_the_machine_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(sandbox.tempfile, "mkdtemp", full)
    result = grade_one(sent(student_notebook()), grading_notebook(), Limits(), unsafe=True)
    assert result.passing
    assert "No space left" in result.problem


@pytest.mark.parametrize(
    ("made", "why"),
    [
        ("mkdir -m 300 d", "it made a folder"),
        ("mkdir -p $(printf 'd/%.0s' $(seq 1500))", "it made a folder"),
        ("touch $(seq 100)", "it wrote more than"),
        ("rmdir $PWD", "the watch failed: FileNotFoundError"),
    ],
    ids=["closed folder", "deep folders", "empty files", "nothing to watch"],
)
def test_the_watch_can_not_be_blinded(tmp_path: Path, made: str, why: str) -> None:
    kernel = Kernel(Limits(disk=300_000), unsafe=True)
    kernel.unsafe = False  # as if it were in the box
    kernel._folder = tmp_path / "sockets"
    kernel._folder.mkdir()
    subprocess.run(made, shell=True, cwd=kernel._folder, check=True)
    kernel._process = subprocess.Popen(["sleep", "5"])
    kernel._watch()
    kernel._stop()
    assert why in kernel._why
    assert list(tmp_path.iterdir()) == []


def test_errors_that_a_cell_sends_are_limited_and_its_own_is_kept() -> None:
    send = "k = get_ipython().kernel\nfor _ in range(3): k.session.send(k.iopub_socket, 'error', "
    send += "{{'ename': 'E', 'evalue': '', 'traceback': {}}}, parent=k.get_parent())\n"
    with Kernel(LIMITS, unsafe=True) as kernel:
        run = kernel.run(send.format("['x' * 10**6]") + "1 / 0")
        (output,) = (output for output in run.outputs if output.output_type == "error")
        assert output.traceback[-1].endswith("ZeroDivisionError\x1b[39m: division by zero")
        assert run.error == "ZeroDivisionError: division by zero"
        assert run.cut
        with pytest.raises(KernelDiedError, match="it sent what is no message"):
            kernel.run(send.format("7"))


@pytest.mark.parametrize(
    ("files", "students"),
    [
        (
            [
                f"김하늘_12_assignsubmission_file_/{LAB}.ipynb",
                "Lee_13_assignsubmission_file_/🙂.ipynb",
            ],
            ["Lee_13", "김하늘_12"],
        ),
        ([f"kimha_12_99_{LAB}.ipynb", f"kimha_12_98_{LAB}-1.ipynb"], ["kimha_12"]),
        ([f"leeann_LATE_1_2_{LAB}.ipynb"], ["leeann_1"]),
        (["student-1.ipynb", "student-2.ipynb"], ["student-1", "student-2"]),
        (["kim.ipynb", "kim (1).ipynb"], ["kim"]),
        ([f"{LAB}.ipynb", f"{LAB} (1).ipynb"], [LAB, f"{LAB} (1)"]),
        ([f"sub/kim/{LAB}/{LAB}.ipynb", f"sub/lee/{LAB}/{LAB}.ipynb"], ["kim", "lee"]),
        (
            ["a/kim.ipynb", "a/lee.ipynb", "b/kim.ipynb", "b/ho.ipynb"],
            ["a/kim", "a/lee", "b/ho", "b/kim"],
        ),
        ([f"kim/{LAB}.ipynb", "kim/data.csv", "lee/other name.ipynb"], ["kim", "lee"]),
        ([f"{LAB}_kim.ipynb", ".DS_Store", "__MACOSX/x.ipynb"], ["kim"]),
    ],
)
def test_names_of_students(tmp_path: Path, files: list[str], students: list[str]) -> None:
    for number, name in enumerate(files):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{number}")
    found = collect(tmp_path, LAB)
    assert [submission.student for submission in found] == students
    assert all(submission.file.endswith(".ipynb") for submission in found)


def test_a_second_version_of_canvas_counts(tmp_path: Path) -> None:
    (tmp_path / f"kimha_12_98_{LAB}-1.ipynb").write_text("new")
    (tmp_path / f"kimha_12_99_{LAB}.ipynb").write_text("old")
    (chosen,) = collect(tmp_path, LAB)
    assert chosen.content == b"new"


def test_names_in_a_zip_of_korean_windows_and_links_in_it(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("plain.ipynb", "{}")
        archive.writestr("x" * 7 + ".ipynb", "{}")
        link = zipfile.ZipInfo("link.ipynb")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    data = (tmp_path / "a.zip").read_bytes()
    (tmp_path / "a.zip").write_bytes(data.replace(b"x" * 7, "김하늘".encode("cp949") + b"1"))
    found = {submission.student: submission for submission in collect(tmp_path / "a.zip", LAB)}
    assert set(found) == {"plain", "link", "김하늘1"}
    assert "link" in found["link"].problem


def test_on_a_busy_machine_the_end_of_a_cell_may_come_late() -> None:
    late = "import time\nk = get_ipython().kernel\npublish = k._publish_status_and_flush\n"
    late += "def later(*a, **b):\n    time.sleep(0.7)\n    publish(*a, **b)\n"
    late += "k._publish_status_and_flush = later"
    with Kernel(LIMITS, unsafe=True) as kernel:
        kernel.run(late)
        run = kernel.run("print('here')")
    assert not run.cut
    assert [output.text for output in run.outputs] == ["here\n"]


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA])
def test_a_damaged_file_in_a_zip_stops_nobody_else(tmp_path: Path, method: int) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", method) as archive:
        archive.writestr("kim.ipynb", sent(student_notebook()))
        archive.writestr("lee.ipynb", "{}")
    data = bytearray((tmp_path / "a.zip").read_bytes())
    data[60:200] = b"\xff" * 140  # of the first file
    (tmp_path / "a.zip").write_bytes(data)
    kim, lee = collect(tmp_path / "a.zip", LAB)
    assert kim.problem.startswith("it can't be read: ")
    assert (lee.content, lee.problem) == (b"{}", "")
    # Without its list of files, it looks like a zip, and is none.
    (tmp_path / "a.zip").write_bytes(data.replace(b"PK\x01\x02", b"PKPK"))
    with pytest.raises(SubmissionError, match=r"a.zip is damaged: BadZipFile.*Download it again"):
        collect(tmp_path / "a.zip", LAB)


def test_a_place_without_submissions_is_an_error(tmp_path: Path) -> None:
    for place in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(SubmissionError, match="Give the folder"):
            collect(place, LAB)


@pytest.mark.parametrize(
    "data",
    [
        {"cells": [1, None, {"source": 5}, {"cell_type": "code", "source": ["a", 3]}]},
        {"cells": [{"metadata": {"nbgrader": [1]}, "id": 7, "source": "\ud800"}]},
        {"cells": [], "metadata": {"kernelspec": "python"}},
    ],
)
def test_a_notebook_with_odd_fields_is_read(data: Any) -> None:
    rebuilt = rebuild(json.dumps(data).encode(), grading_notebook())
    assert len(rebuilt.notebook.cells) >= len(grading_notebook().cells)


def test_what_is_no_notebook_is_an_error() -> None:
    for content in (b"{}", b'{"cells": 3}', b'{"worksheets": 3}'):
        with pytest.raises(RebuildError):
            rebuild(content, grading_notebook())


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    write(tmp_path / "a", "first")
    with pytest.raises(TypeError):
        write(tmp_path / "a", 3)  # type: ignore[arg-type]
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text() == "first"
