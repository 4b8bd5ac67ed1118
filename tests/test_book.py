"""`make book`: what it executes, what it leaves alone, and how it stops."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import book
import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

ROOT = Path(__file__).resolve().parent.parent
HEADER = (
    "---\nfile_format: mystnb\nkernelspec:\n  name: python3\n  display_name: Python 3\n"
    "  language: python\n---\n\n"
)
# The page keeps count of its executions in a file, so that none goes unnoticed.
PAGE = (
    HEADER
    + "# A page\n\nText.\n\n```{code-cell} python3\nprint(6 * 7)\n```\n"
    + "\n```{code-cell} python3\nopen('count.txt', 'a').write('.')\n```\n"
)
CLAIM = """
```{code-cell} python3
import pandas as pd
from trainwell.claims import claim, difference
a, b = pd.Series([2.0, 2.2, 2.1]), pd.Series([1.0, 1.1, 1.2])
claim("Twos are more than ones.", difference(higher=a, lower=b))
```
"""


@pytest.fixture
def course(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A book of one page, built as this one is. No page needs data, so that none are read."""
    monkeypatch.delenv("TRAINWELL_DATA", raising=False)
    monkeypatch.setenv("TRAINWELL_CACHE", str(tmp_path / "empty"))
    for name in ["tools", "_ext", "_static", "_extra", "src"]:
        shutil.copytree(ROOT / name, tmp_path / name)
    for name in ["_config.yml", "references.bib", "requirements.lock", "pyproject.toml"]:
        shutil.copy(ROOT / name, tmp_path)
    toc = "format: jb-book\nroot: intro\nparts:\n- caption: A\n  chapters:\n  - file: page\n"
    (tmp_path / "_toc.yml").write_text(toc)
    (tmp_path / "intro.md").write_text("# Intro\n\nHello.\n")
    (tmp_path / "page.md").write_text(PAGE)
    return tmp_path


def build(course: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "TRAINWELL_PROFILE": "full", "TRAINWELL_OFFLINE": "1"}
    environment["KERAS_BACKEND"] = "numpy"  # no page here computes, and TensorFlow starts slowly
    command = [sys.executable, "tools/book.py"]
    return subprocess.run(command, cwd=course, env=environment, capture_output=True, text=True)


def test_a_page_is_executed_once_and_then_comes_from_the_cache(course: Path) -> None:
    (course / "page.md").write_text(PAGE + CLAIM)
    first = build(course)
    assert first.returncode == 0, first.stdout + first.stderr
    assert "[1/1] page  executed in" in first.stdout
    html = (course / "_build/html/page.html").read_text()
    assert "42" in html
    (record,) = json.loads((course / "_build/claims.json").read_text())
    assert (record["page"], record["title"], record["status"]) == ("page", "A page", "held")
    circumstances = json.loads((course / "_build/runs.json").read_text())["build"]
    assert circumstances["Computed on"] == "CPU"
    assert circumstances["Processor"] == book.processor_model()

    assert (course / "count.txt").read_text() == "."
    before = (course / "_build/html/page.html").stat().st_mtime_ns
    second = build(course)
    assert "[1/1] page  from the cache" in second.stdout
    assert (course / "_build/html/page.html").stat().st_mtime_ns == before
    assert (course / "count.txt").read_text() == "."

    (course / "page.md").write_text(PAGE.replace("6 * 7", "6 * 8") + CLAIM)
    assert "[1/1] page  executed in" in build(course).stdout
    assert "48" in (course / "_build/html/page.html").read_text()


@pytest.mark.parametrize(
    ("cpuinfo", "told"),
    [
        ("model name\t: Ours 9\nflags\t\t: fpu avx512f avx2\n", "Ours 9 with AVX-512"),
        ("model name\t: Ours 9\nflags\t\t: fpu avx2\n", "Ours 9 without AVX-512"),
        ("model name\t: An ARM\nFeatures\t: fp\n", "An ARM"),
        ("", book.platform.processor() or "unknown"),
    ],
)
def test_the_processor_is_told(tmp_path: Path, cpuinfo: str, told: str) -> None:
    (tmp_path / "cpuinfo").write_text(cpuinfo)
    assert book.processor_model(tmp_path / "cpuinfo") == told


def test_a_cell_that_raises_stops_the_build(course: Path) -> None:
    (course / "page.md").write_text(PAGE.replace("print(6 * 7)", "rate = 1.5\n1 / 0"))
    result = build(course)
    assert result.returncode != 0
    assert "page.md: cell 2, line 14" in result.stdout
    assert "ZeroDivisionError" in result.stdout
    assert not (course / "_build/html/page.html").exists()


def test_a_kernel_that_dies_stops_the_build(course: Path) -> None:
    """As when memory runs out."""
    dies = "import os\nos.kill(os.getpid(), 9)"
    (course / "page.md").write_text(PAGE.replace("print(6 * 7)", dies))
    result = build(course)
    assert result.returncode != 0
    assert "page.md: cell 2, line 14" in result.stdout
    assert "Kernel died" in result.stdout
    assert "Traceback" not in result.stderr


def test_data_that_can_not_be_used_stop_the_build(
    course: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (course / "data").mkdir()
    (course / "data" / "concrete.csv").write_text("not,what,it,says\n")
    monkeypatch.setenv("TRAINWELL_DATA", str(course / "data"))
    result = build(course)
    assert result.returncode != 0
    assert "concrete.csv" in result.stdout + result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.skipif(book.PAGES_AT_ONCE < 2, reason="too little memory for two pages at once")
def test_a_page_that_raises_does_not_wait_for_the_others(course: Path) -> None:
    (course / "_toc.yml").write_text((course / "_toc.yml").read_text() + "  - file: slow\n")
    sleeps = "import pathlib, time; pathlib.Path('began').touch(); time.sleep(300)"
    (course / "slow.md").write_text(PAGE.replace("print(6 * 7)", sleeps))
    # It fails when the other page is in the middle of a cell.
    waits = "import pathlib\nwhile not pathlib.Path('began').exists():\n    pass\n1 / 0"
    (course / "page.md").write_text(PAGE.replace("print(6 * 7)", waits))
    start = time.perf_counter()
    result = build(course)
    assert result.returncode != 0
    assert "page.md: cell 2" in result.stdout
    assert "ZeroDivisionError" in result.stdout
    assert time.perf_counter() - start < 120


def test_memory_is_counted_where_a_process_may_not_look_into_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As on macOS, where psutil then raises AccessDenied."""
    seconds, memory = book.used_by(os.getpid())
    assert seconds > 0
    assert memory > 1e6

    def denied(process: psutil.Process) -> None:
        raise psutil.AccessDenied(process.pid)

    monkeypatch.setattr(psutil.Process, "memory_full_info", denied)
    assert book.memory_of(psutil.Process()) == pytest.approx(
        psutil.Process().memory_info().rss, 0.1
    )
    assert book.used_by(os.getpid())[1] > 1e6


def commands_of(tmp_path: Path, *arguments: str, user: int = 1000) -> str:
    """Return what `make` would run, called by the user of this number."""
    (tmp_path / "id").write_text(f"#!/bin/sh\necho {user}\n")
    (tmp_path / "id").chmod(0o755)
    path = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    command = ["make", "-n", "-C", str(ROOT), *arguments]
    return subprocess.run(command, env=path, capture_output=True, text=True, check=True).stdout


def test_make_serves_the_book_of_the_profile(tmp_path: Path) -> None:
    for profile, folder in [("full", "_build/html"), ("quick", "_build/quick/html")]:
        commands = commands_of(tmp_path, "serve", f"PROFILE={profile}", "PORT=8123")
        server = ".venv/bin/python -m http.server 8123 --bind 127.0.0.1"
        assert f"{server} --directory {folder}\n" in commands
        assert f"test -f {folder}/index.html" in commands


def test_make_lab_lets_root_in_and_gives_no_one_else_that_option(tmp_path: Path) -> None:
    assert "jupyter lab --notebook-dir=. --allow-root" in commands_of(tmp_path, "lab", user=0)
    assert "--allow-root" not in commands_of(tmp_path, "lab", user=1000)


@pytest.mark.parametrize(("given", "passed_on"), [("here", "here"), ("not here", None)])
def test_a_relative_folder_of_data_means_the_same_everywhere(
    tmp_path: Path, given: str, passed_on: str | None
) -> None:
    (tmp_path / "here").mkdir()
    show = ["--eval", "show: ; @echo $$TRAINWELL_DATA", "show", f"TRAINWELL_DATA={given}"]
    command = ["make", "--silent", "--file", str(ROOT / "Makefile"), *show]
    told = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    # A folder that is not there goes on as it is, to the error that names it.
    assert told.strip() == (str(tmp_path / passed_on) if passed_on else given)


def test_setup_refuses_a_disk_on_which_it_would_run_out_of_room(tmp_path: Path) -> None:
    (tmp_path / "tools").mkdir()
    shutil.copy(ROOT / "tools" / "setup.sh", tmp_path / "tools")
    (tmp_path / "df").write_text("#!/bin/sh\necho disk 252000000 251750000 250000 100% /\n")
    (tmp_path / "df").chmod(0o755)
    path = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    command = ["bash", str(tmp_path / "tools" / "setup.sh")]
    result = subprocess.run(command, env=path, capture_output=True, text=True)
    assert result.returncode == 1
    assert "needs 4 GB of disk" in result.stderr
    assert "free here: 250 MB" in result.stderr
    assert not (tmp_path / ".venv").exists()


def test_a_page_says_how_long_it_runs() -> None:
    """For its readers, and for the order in which a first build executes the pages."""
    for page in book.pages():
        if page.startswith("chapters/"):
            assert book.stated_seconds(page), page


def test_an_interrupt_leaves_the_last_file_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "runs.json"
    book.write_if_changed(path, "{}")
    written = Path.write_text

    def half(path: Path, text: str) -> None:
        written(path, text[:4])
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_text", half)
    with pytest.raises(KeyboardInterrupt):
        book.write_if_changed(path, '{"pages": []}')
    assert path.read_text() == "{}"


def test_a_claim_names_the_figure_above_it_in_its_section() -> None:
    def shows(**outputs: Any) -> Any:
        return new_code_cell(outputs=[new_output("display_data", data=outputs)])

    def claim(sentence: str) -> Any:
        return shows(**{book.CLAIM: {"sentence": sentence}})

    figure = shows(**{"text/html": '<figure class="tw-figure" id="figure-a" style="">'})
    plot = shows(**{"text/html": '<figure class="tw-figure tw-interactive" id="figure-b">'})
    text = new_markdown_cell("Text. # No heading\n")
    code = [claim("before"), figure, claim("below a"), claim("still"), claim("elsewhere"), plot]
    code.append(claim("below b"))
    executed = new_notebook(cells=code)
    page = new_notebook(cells=[*code[:3], text, code[3], new_markdown_cell("## A section")])
    page.cells += code[4:]
    # The cache keeps the code cells alone, so both must give the same.
    for found in [book.claims_of(page, executed), book.claims_of(page, page)]:
        assert [(one["sentence"], one["figure"]) for one in found] == [
            ("before", None),
            ("below a", "figure-a"),
            ("still", "figure-a"),
            ("elsewhere", None),
            ("below b", "figure-b"),
        ]


def test_a_claim_that_fails_stops_the_build(course: Path) -> None:
    swapped = CLAIM.replace("higher=a, lower=b", "higher=b, lower=a")
    (course / "page.md").write_text(PAGE + swapped)
    result = build(course)
    assert result.returncode != 0
    assert "This does not hold: Twos are more than ones." in result.stdout


def test_a_sphinx_warning_is_an_error(course: Path) -> None:
    (course / "page.md").write_text(PAGE + "\nSee {ref}`nowhere`.\n")
    result = build(course)
    assert result.returncode != 0
    assert "nowhere" in result.stdout + result.stderr


def test_the_key_covers_source_lock_data_and_profile(
    course: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(book, "ROOT", course)
    keys = [book.environment_key()]
    assert book.environment_key() == keys[0]
    for changed in ["src/trainwell/runtime.py", "requirements.lock"]:
        with (course / changed).open("a") as stream:
            stream.write("# changed\n")
        keys.append(book.environment_key())
    monkeypatch.setattr(book.datasets, "fingerprint", lambda: "other data")
    keys.append(book.environment_key())
    for variable in ["GPU", "KERAS_BACKEND"]:
        monkeypatch.setenv(variable, "other")
        keys.append(book.environment_key())
    monkeypatch.setattr(book.platform, "python_version", lambda: "2.7.18")
    keys.append(book.environment_key())
    monkeypatch.setattr(book.runtime, "profile", lambda: "another")
    keys.append(book.environment_key())
    assert len(set(keys)) == len(keys)


def test_a_colab_button_leads_to_a_notebook_that_exists(
    course: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(course / "src"))  # its setting of the address counts
    (course / "datasets").symlink_to(ROOT / "datasets")
    settings = (course / "pyproject.toml").read_text()
    address = re.search(r'^Repository = "(.+)"$', settings, re.MULTILINE)
    assert address is not None
    colab = "https://colab.research.google.com/github/a/b/blob"
    (course / "pyproject.toml").write_text(settings.replace(address[1], "https://github.com/a/b"))
    for folder in ("chapters", "labs"):
        (course / folder).mkdir()
    (course / "chapters" / "one.md").write_text(PAGE)
    (course / "chapters" / "words.md").write_text("# Words\n\nNo code.\n")
    lab = "lab_3_optimizers"
    shutil.copy(ROOT / "labs" / f"{lab}.md", course / "labs")
    shutil.copytree(ROOT / "labs" / "notebooks", course / "labs" / "notebooks")
    with (course / "_toc.yml").open("a") as toc:
        for file in ("chapters/one", "chapters/words", f"labs/pages/{lab}"):
            toc.write(f"  - file: {file}\n")
    built = build(course)
    assert built.returncode == 0, built.stdout + built.stderr
    subprocess.run([sys.executable, "tools/notebooks.py"], cwd=course, check=True)
    site = course / "_build" / "html"
    buttons = {
        path.relative_to(site).with_suffix("").as_posix(): link
        for path in site.rglob("*.html")
        for link in re.findall(rf'href="{colab}/([^"]+)"', path.read_text())
    }
    assert buttons == {
        "chapters/one": "notebooks/chapters/one.ipynb",
        f"labs/pages/{lab}": f"main/labs/notebooks/{lab}.ipynb",
    }
    branches = {"main": course, "notebooks": course / "_build" / "notebooks"}
    for link in buttons.values():
        branch, _, path = link.partition("/")
        assert nbformat.read(branches[branch] / path, as_version=4).cells
