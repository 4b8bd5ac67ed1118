"""Build the book: get the data, execute the pages that changed, collect claims, make the site.

A page is executed when its code, the package, the data, the lock or the profile has changed;
otherwise its outputs come from the cache in `_build/cache`. An error in a cell stops the build
with the page, the cell and the error.
"""

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from jupyter_book.sphinx import build_sphinx
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn, JupyterCacheAbstract
from myst_nb.core.read import is_myst_markdown_notebook, myst_nb_reader_plugin
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError
from traitlets.config import Config

from trainwell import datasets, runtime

ROOT = Path(__file__).resolve().parent.parent
FULL = runtime.profile() == "full"
# A preview goes to a folder of its own, so that it never replaces the published book.
BUILD = ROOT / "_build" if FULL else ROOT / "_build" / "quick"
SITE = BUILD / "html"
CLAIM = "application/vnd.trainwell.claim+json"
CACHES_KEPT = 3
CELL_TIMEOUT_SECONDS = 20 * 60


def pages() -> list[str]:
    """Return the names of the pages in the table of contents, in reading order."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    names = [toc["root"]]
    for part in toc["parts"]:
        for chapter in part["chapters"]:
            names += [chapter["file"], *(s["file"] for s in chapter.get("sections", []))]
    return names


def environment_key() -> str:
    """Return a hash of all that decides a page's outputs beside its own cells."""
    digest = hashlib.sha256(f"{runtime.profile()} {datasets.fingerprint()}".encode())
    for path in [ROOT / "requirements.lock", *sorted((ROOT / "src").rglob("*"))]:
        if path.is_file() and "__pycache__" not in path.parts:
            digest.update(path.relative_to(ROOT).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def open_cache() -> JupyterCacheAbstract:
    """Open the cache of the present environment; forget the oldest of the others."""
    folder = ROOT / "_build" / "cache"
    mine = folder / environment_key()
    mine.mkdir(parents=True, exist_ok=True)
    os.utime(mine)
    newest_first = sorted(folder.iterdir(), key=lambda p: p.stat().st_mtime, reverse=True)
    for old in newest_first[CACHES_KEPT:]:
        shutil.rmtree(old)
    return get_cache(mine)


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


class Progress:
    """One line a page: which, how far, how long, and about how much is left."""

    def __init__(self, line: str, cells: int, last_time: float | None) -> None:
        self.line, self.cells, self.last_time = line, cells, last_time
        self.start = time.perf_counter()
        self.live = sys.stdout.isatty()
        if not self.live:
            about = f" (about {duration(last_time)})" if last_time else ""
            print(f"{line}  executing {cells} cells{about}", flush=True)

    def cell_done(self, done: int) -> None:
        if not self.live:
            return
        elapsed = time.perf_counter() - self.start
        total = self.last_time or elapsed * self.cells / done
        left = duration(max(0.0, total - elapsed))
        text = f"{self.line}  cell {done} of {self.cells}, {duration(elapsed)}, about {left} left"
        print(f"\r\033[K{text}", end="", flush=True)

    def finish(self, note: str) -> None:
        print(f"{chr(13) + chr(27) + '[K' if self.live else ''}{self.line}  {note}", flush=True)


def stop_at_error(page: str, notebook: Any, cell: int, error: Exception) -> None:
    """Say which cell of which page raised what, and stop."""
    print(f"\n{page}.md: cell {cell}, line {notebook.metadata['source_map'][cell - 1] + 1}:\n")
    print(notebook.cells[cell - 1].source, "\n")
    print(error if isinstance(error, CellTimeoutError) else error.traceback)  # type: ignore[attr-defined]
    sys.exit(f"The build stopped: a cell of {page}.md raised the error above.")


@contextlib.contextmanager
def client_for(page: str, notebook: Any, sockets: str) -> Iterator[NotebookClient]:
    """Start a kernel for a page, in the page's folder; stop it in the end."""
    # The kernel talks through private files, not ports: no other program can listen or collide.
    config = Config()
    config.KernelManager.transport = "ipc"
    config.KernelManager.ip = f"{sockets}/kernel"
    client = NotebookClient(
        notebook,
        config=config,
        timeout=CELL_TIMEOUT_SECONDS,
        record_timing=False,  # times in a cell's metadata would change its key in the cache
        kernel_name="python3",
        resources={"metadata": {"path": str((ROOT / page).parent)}},
    )
    # TensorFlow logs its start to the terminal, whatever one sets. It is of no use to a reader.
    with open(os.devnull, "w") as nowhere, client.setup_kernel(stdout=nowhere, stderr=nowhere):
        yield client


def execute(page: str, notebook: Any, progress: Progress) -> float:
    """Run a page's cells in a kernel of its own; return the seconds that it took."""
    code_cells = [i for i, cell in enumerate(notebook.cells) if cell.cell_type == "code"]
    start, index = time.perf_counter(), 0
    try:
        with tempfile.TemporaryDirectory() as folder, client_for(page, notebook, folder) as client:
            for done, index in enumerate(code_cells, start=1):
                client.execute_cell(notebook.cells[index], index)
                progress.cell_done(done)
    except (CellExecutionError, CellTimeoutError) as error:
        progress.finish("failed")
        stop_at_error(page, notebook, index + 1, error)
    return time.perf_counter() - start


def claims_of(notebook: Any) -> list[dict[str, Any]]:
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return [output["data"][CLAIM] for output in outputs if CLAIM in output.get("data", {})]


def write_if_changed(path: Path, text: str) -> None:
    """Leave an unchanged file alone, so that no page that depends on it is built again."""
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


def execute_pages(cache: JupyterCacheAbstract) -> None:
    """Execute what the cache lacks; write `claims.json` and `runs.json`."""
    runs_file = BUILD / "runs.json"
    last_runs = json.loads(runs_file.read_text()) if runs_file.exists() else {}
    runs, claims = {}, []
    todo = [p for p in pages() if is_myst_markdown_notebook((ROOT / f"{p}.md").read_text())]
    for number, page in enumerate(todo, start=1):
        notebook = myst_nb_reader_plugin(str(ROOT / f"{page}.md"))
        line = f"[{number}/{len(todo)}] {page}"
        try:
            record = cache.match_cache_notebook(notebook)
            seconds = record.data["execution_seconds"]
            notebook = cache.get_cache_bundle(record.pk).nb
            print(f"{line}  from the cache (it took {duration(seconds)})")
        except KeyError:
            count = sum(cell.cell_type == "code" for cell in notebook.cells)
            progress = Progress(line, count, last_runs.get(page))
            seconds = execute(page, notebook, progress)
            data = {"execution_seconds": seconds}
            bundle = CacheBundleIn(notebook, str(ROOT / f"{page}.md"), data=data)
            cache.cache_notebook_bundle(bundle, check_validity=False, overwrite=True)
            progress.finish(f"executed in {duration(seconds)}")
        runs[page] = seconds
        title = next(line for line in (ROOT / f"{page}.md").open() if line.startswith("# "))
        claims += [{"page": page, "title": title[2:].strip(), **c} for c in claims_of(notebook)]
    write_if_changed(runs_file, json.dumps(runs, indent=1))
    write_if_changed(BUILD / "claims.json", json.dumps(claims, indent=1))
    verdicts = [claim["status"] for claim in claims]
    print(f"{len(claims)} claims: {verdicts.count('held')} held, the others not judged")


def build_site(cache_path: str) -> None:
    """Let Jupyter Book make the site from the cached outputs; a warning is an error."""
    overrides: dict[str, Any] = {
        "nb_execution_cache_path": cache_path,
        "course_extension_key": hashlib.sha256((ROOT / "_ext/course.py").read_bytes()).hexdigest(),
        "course_claims_file": str(BUILD / "claims.json"),
        "external_toc_path": "_toc.yml",
        "latex_individualpages": False,
        "nitpicky": True,
    }
    if not FULL:
        overrides["html_theme_options.announcement"] = (
            "A preview: less data, fewer epochs and fewer seeds. No claim is judged."
        )
    result = build_sphinx(
        str(ROOT),
        str(SITE),
        doctreedir=str(BUILD / "doctrees"),
        path_config=str(ROOT / "_config.yml"),
        noconfig=True,
        confoverrides=overrides,
        warningiserror=True,
        keep_going=True,
        quiet=True,
    )
    if result != 0:
        sys.exit("The build stopped: Sphinx reported the warnings or errors above.")


def main() -> None:
    start = time.perf_counter()
    with contextlib.suppress(BrokenPipeError):
        BUILD.mkdir(parents=True, exist_ok=True)
        # What a page prints is published: no progress bars, nothing of TensorFlow's log.
        os.environ.update(TRAINWELL_PROGRESS="0", TF_CPP_MIN_LOG_LEVEL="3")
        subprocess.run([sys.executable, "-m", "trainwell", "data", "--fetch"], check=True)
        cache = open_cache()
        os.environ["TRAINWELL_RUNS"] = str(Path(cache.path) / "runs")  # what pages share
        execute_pages(cache)
        build_site(str(cache.path))
        page = (SITE / "index.html").relative_to(ROOT)
        took = duration(time.perf_counter() - start)
        print(f"{page} is ready after {took} (profile: {runtime.profile()})")


if __name__ == "__main__":
    main()
