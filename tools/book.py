"""Build the book: get the data, execute the pages that changed, collect claims, make the site.

A page is executed when its code, the package, the data, the lock or the profile has changed;
otherwise its outputs come from the cache in `_build/cache`. An error in a cell stops the build
with the page, the cell and the error.
"""

import contextlib
import hashlib
import json
import math
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from importlib import metadata
from pathlib import Path
from typing import Any

import kernels
import psutil
import yaml
from jupyter_book.sphinx import build_sphinx
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn, JupyterCacheAbstract
from myst_nb.core.read import is_myst_markdown_notebook, myst_nb_reader_plugin
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from pybtex.backends import plaintext
from pybtex.plugin import register_plugin
from traitlets.config import Config

from trainwell import datasets, runtime
from trainwell.labs.build import address
from trainwell.labs.build import page as lab_page
from trainwell.labs.source import read_lab

ROOT = Path(__file__).resolve().parent.parent
FULL = runtime.profile() == "full"
# A preview goes to a folder of its own, so that it never replaces the published book.
BUILD = ROOT / "_build" if FULL else ROOT / "_build" / "quick"
SITE = BUILD / "html"
CLAIM = "application/vnd.trainwell.claim+json"
FIGURE = re.compile(r'<figure class="tw-figure[^>]* id="([^"]+)"')
# A heading, or an entry of the errata: another topic begins.
HEADING = re.compile(r"^(#+ |\(erratum-\d+\)=)", re.MULTILINE)
CACHES_KEPT = 3
# Without the internet, to ask for a data set takes minutes: not at every build.
HOURS_BETWEEN_TRIES = 6
CELL_TIMEOUT_SECONDS = 20 * 60
# While one page draws, the runs of the other use the cores. Most pages take up to 3 GiB, with their
# workers; the two longest, which come first, take 4 each. More workers would only be in each
# other's way: on two cores, four a page take a tenth longer than two.
PAGES_AT_ONCE = 2 if psutil.virtual_memory().total > 12 * 2**30 else 1
FULL_JOBS = runtime.cores() // PAGES_AT_ONCE + 1
# The runs of a preview are so short that processes to make them take longer to start.
QUICK_JOBS = 1
# What a page tells its readers: "The page runs in about two minutes on two cores."
WORDS = {"half a": 0.5, "a": 1, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6}
WORDS |= {"ten": 10, "fifteen": 15, "twenty": 20, "thirty": 30, "forty": 40}
RUNS_IN = re.compile(rf"The page runs in about ({'|'.join(WORDS)}|\d+) (second|minute)")
VERSIONS_TOLD = ("keras", "tensorflow", "numpy", "pandas", "scikit-learn", "jupyter-book")
# What the execution of a page is measured by. The memory is the most that it was seen to hold.
LAST_EXECUTED = "Last executed"
COSTS = ("execution_seconds", "processor_seconds", "memory_bytes")
KERNELS: set[int] = set()  # the process groups of the kernels that run now
STOP = threading.Event()  # set when the build stops: no kernel starts any more


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
    where = os.environ.get("GPU", "")  # `make book GPU=1` exports it
    # Not `runtime.versions()`: it imports Keras, which takes long. The lock has the packages'.
    python, backend = platform.python_version(), os.environ.get("KERAS_BACKEND", "")
    parts = [runtime.profile(), where, python, backend, datasets.fingerprint()]
    digest = hashlib.sha256("\n".join(parts).encode())
    for path in [ROOT / "requirements.lock", *sorted((ROOT / "src").rglob("*"))]:
        # No page runs the labs' builder and grader.
        if path.is_file() and not {"__pycache__", "labs"} & set(path.relative_to(ROOT).parts):
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


def stated_seconds(page: str) -> float | None:
    """Return how long a page says that it runs, or None if it does not say, or not so."""
    stated = RUNS_IN.search((ROOT / f"{page}.md").read_text())
    if stated is None:
        return None
    number, unit = stated.groups()
    count = int(number) if number.isdecimal() else WORDS[number]
    return count * (60 if unit == "minute" else 1)


class Progress:
    """A line for each page when it is done; in a terminal, a last line that tells what is left."""

    def __init__(self, cells: dict[str, int], last_runs: dict[str, float], at_once: int) -> None:
        self.cells, self.last_runs, self.at_once = cells, last_runs, at_once
        self.running: dict[str, int] = {}
        self.finished: list[str] = []
        self.start = time.perf_counter()
        self.live = sys.stdout.isatty()
        self.lock = threading.Lock()

    def begin(self, page: str) -> None:
        last = self.last_runs.get(page)
        about = f" (about {duration(last)})" if last else ""
        if not self.live:
            print(f"        {page}  executing {self.cells[page]} cells{about}", flush=True)
        self.cell_done(page, 0)

    def cell_done(self, page: str, done: int) -> None:
        with self.lock:
            self.running[page] = done
            self._show_status()

    def finish(self, page: str, note: str) -> None:
        with self.lock:
            self.running.pop(page, None)
            self.finished.append(page)
            clear = "\r\033[K" if self.live else ""
            print(f"{clear}[{len(self.finished)}/{len(self.cells)}] {page}  {note}", flush=True)
            if self.running:
                self._show_status()

    def _show_status(self) -> None:
        if self.live:
            pages = [f"{page} {done}/{self.cells[page]}" for page, done in self.running.items()]
            status = ", ".join(pages)[:70]
            print(f"\r\033[K{status}, about {duration(self._left())} left", end="", flush=True)

    def _left(self) -> float:
        """Estimate the seconds that are left, from the last build's times or from the cells."""
        elapsed = time.perf_counter() - self.start
        weights = {p: self.last_runs.get(p, float(count)) for p, count in self.cells.items()}
        if all(page in self.last_runs for page in self.cells):
            return max(0.0, sum(weights.values()) / self.at_once - elapsed)
        done = sum(weights[page] for page in self.finished)
        done += sum(weights[p] * cells / self.cells[p] for p, cells in self.running.items())
        return elapsed * (sum(weights.values()) / done - 1) if done else 0.0


class PageError(Exception):
    """A cell raised; the message says which, and what."""


def error_in(page: str, notebook: Any, cell: int, error: Exception) -> PageError:
    """Say which cell of which page raised what."""
    lines = [
        f"{page}.md: cell {cell}, line {notebook.metadata['source_map'][cell - 1] + 1}:",
        notebook.cells[cell - 1].source,
        error.traceback if isinstance(error, CellExecutionError) else str(error),
        f"The build stopped: a cell of {page}.md raised the error above.",
    ]
    return PageError("\n\n".join(lines))


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
        group = os.getpgid(client.km.provisioner.pid)
        KERNELS.add(group)
        try:
            yield client
        finally:
            KERNELS.discard(group)


def memory_of(process: psutil.Process) -> float:
    """Return the memory that a process holds, in bytes; of what it shares, its part.

    Linux alone knows that part. Windows tells what the process has for itself; macOS does so of
    this process alone, and of another tells all that it holds.
    """
    try:
        held = process.memory_full_info()
    except psutil.AccessDenied:
        return float(process.memory_info().rss)
    return float(getattr(held, "pss", held.uss))


def used_by(kernel: int) -> tuple[float, float]:
    """Return the processor time, in seconds, and the memory, in bytes, of a kernel and its workers.

    Of memory that several processes share, each counts its part.
    """
    process, seconds, memory = psutil.Process(kernel), 0.0, 0.0
    for one in [process, *process.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):  # it ended just now
            times, held = one.cpu_times(), memory_of(one)
            seconds += times.user + times.system
            memory += held
    return seconds, memory


def execute(page: str, notebook: Any, progress: Progress) -> dict[str, float]:
    """Run a page's cells in a kernel of its own; return what it took (`COSTS`)."""
    code_cells = [i for i, cell in enumerate(notebook.cells) if cell.cell_type == "code"]
    start, index, processor, memory = time.perf_counter(), 0, 0.0, 0.0
    measured = start
    progress.begin(page)
    try:
        with tempfile.TemporaryDirectory() as folder, client_for(page, notebook, folder) as client:
            for done, index in enumerate(code_cells, start=1):
                if STOP.is_set():  # another page failed while this kernel started
                    raise PageError("the build has stopped")
                client.execute_cell(notebook.cells[index], index)
                # To count shared memory takes longer than most cells: not after each of them.
                if time.perf_counter() > measured + 2 or done == len(code_cells):
                    processor, held = used_by(client.km.provisioner.pid)
                    memory = max(memory, held)
                    measured = time.perf_counter()
                progress.cell_done(page, done)
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        STOP.set()
        progress.finish(page, "failed")
        raise error_in(page, notebook, index + 1, error) from error
    seconds = time.perf_counter() - start
    return dict(zip(COSTS, (seconds, processor, memory), strict=True))


def keep(page: str, notebook: Any, costs: dict[str, float], cache: JupyterCacheAbstract) -> None:
    """Put an executed page into the cache, where the next build finds it."""
    bundle = CacheBundleIn(notebook, str(ROOT / f"{page}.md"), data=costs)
    cache.cache_notebook_bundle(bundle, check_validity=False, overwrite=True)


def claims_of(page: Any, executed: Any) -> list[dict[str, Any]]:
    """Return a page's claims, each with the id of the figure above it in its section, if any.

    Args:
        page: The notebook with its text; what the cache keeps has none.
        executed: The notebook with the outputs of the same code cells.
    """
    code_cells = (cell for cell in executed.cells if cell.cell_type == "code")
    claims: list[dict[str, Any]] = []
    figure = None
    for cell in page.cells:
        if cell.cell_type == "code":
            for output in next(code_cells).get("outputs", []):
                data = output.get("data", {})
                if shown := FIGURE.search(data.get("text/html", "")):
                    figure = shown[1]
                if CLAIM in data:
                    claims.append({**data[CLAIM], "figure": figure})
        elif HEADING.search(cell.source):  # of another section, another topic
            figure = None
    return claims


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep from the terminal what TensorFlow logs when it starts, whatever one sets."""
    terminal = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)


def device() -> str:
    """Return the device that Keras computes on."""
    with quiet():
        return runtime.device()


def processor_model(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Return the processor's model and whether it has AVX-512, if one can tell.

    With AVX-512 sums are added up in another order, so that numbers differ.
    """
    text = cpuinfo.read_text() if cpuinfo.exists() else ""  # on Linux alone
    fields = dict(re.findall(r"^(model name|flags)\s*: (.+)$", text, re.MULTILINE))
    model: str = fields.get("model name", platform.processor() or "unknown")
    if "flags" not in fields:
        return model
    return f"{model} {'with' if 'avx512f' in fields['flags'].split() else 'without'} AVX-512"


def circumstances(claims: list[dict[str, Any]], device: str) -> dict[str, str]:
    """Return what the book was built with, in words: profile, machine, versions and data."""
    memory = psutil.virtual_memory().total / 2**30
    versions = [f"{name} {metadata.version(name)}" for name in VERSIONS_TOLD]
    return {
        "Profile": runtime.profile(),
        "Machine": f"{platform.system()} on {platform.machine()}, {runtime.cores()} cores, "
        f"{memory:.0f} GiB of memory",
        "Processor": processor_model(),
        "Computed on": device,
        "Pages at once": str(PAGES_AT_ONCE),
        "Versions": ", ".join([f"Python {platform.python_version()}", *versions]),
        "Data": "; ".join(sorted({claim["source"] for claim in claims if claim["source"]})),
    }


def write_if_changed(path: Path, text: str) -> None:
    """Leave an unchanged file alone, so that no page that depends on it is built again."""
    if not path.exists() or path.read_text() != text:
        # An interrupt must not leave half a file: the next build reads it.
        part = path.with_suffix(path.suffix + ".part")
        part.write_text(text)
        part.replace(path)


def write_lab_pages() -> None:
    """Write the labs' pages from their sources: exercises open, solutions absent."""
    folder = ROOT / "labs" / "pages"
    folder.mkdir(parents=True, exist_ok=True)
    for source in sorted((ROOT / "labs").glob("lab_*.md")):
        write_if_changed(folder / source.name, lab_page(read_lab(source)))


def execute_pages(cache: JupyterCacheAbstract) -> None:
    """Execute what the cache lacks, the longest page first; write `claims.json`, `runs.json`."""
    runs_file = BUILD / "runs.json"
    last = json.loads(runs_file.read_text()) if runs_file.exists() else {}
    last_runs = {run["page"]: run["execution_seconds"] for run in last.get("pages", [])}
    names = [p for p in pages() if is_myst_markdown_notebook((ROOT / f"{p}.md").read_text())]
    for page in names:  # on the first build, what the pages say of themselves alone
        if page not in last_runs and (stated := stated_seconds(page)):
            last_runs[page] = stated * PAGES_AT_ONCE
    sources = {page: myst_nb_reader_plugin(str(ROOT / f"{page}.md")) for page in names}
    notebooks = dict(sources)
    cells = {
        page: sum(cell.cell_type == "code" for cell in notebook.cells)
        for page, notebook in notebooks.items()
    }
    progress = Progress(cells, last_runs, PAGES_AT_ONCE)
    runs = look_up(notebooks, cache, progress)
    # A page of which nothing is known may be long: it goes first. Its cells tell a little.
    todo = [page for page in names if page not in runs]
    todo.sort(key=lambda page: (last_runs.get(page, math.inf), cells[page]), reverse=True)
    start = time.perf_counter()
    runs |= execute_at_once(todo, notebooks, cache, progress)
    took = time.perf_counter() - start
    titles = {p: next(x for x in (ROOT / f"{p}.md").open() if x.startswith("# ")) for p in names}
    claims = [
        {"page": page, "title": titles[page][2:].strip(), **claim}
        for page in names
        for claim in claims_of(sources[page], notebooks[page])
    ]
    pages_run = [{"page": page, "title": titles[page][2:].strip(), **runs[page]} for page in names]
    if todo or not last:
        # This imports Keras quietly; the API page imports it again.
        build = circumstances(claims, device())
    else:  # what the pages were computed on has not changed, and Keras takes long to import
        build = circumstances(claims, last["build"]["Computed on"])
    if todo:
        build[LAST_EXECUTED] = f"{len(todo)} of {len(names)} pages, in {duration(took)}"
    elif LAST_EXECUTED in last.get("build", {}):
        build[LAST_EXECUTED] = last["build"][LAST_EXECUTED]
    how = {"build": build, "pages": pages_run}
    write_if_changed(runs_file, json.dumps(how, indent=1))
    write_if_changed(BUILD / "claims.json", json.dumps(claims, indent=1))
    verdicts = [claim["status"] for claim in claims]
    print(f"{len(claims)} claims: {verdicts.count('held')} held, the others not judged")


def look_up(
    notebooks: dict[str, Any], cache: JupyterCacheAbstract, progress: Progress
) -> dict[str, dict[str, float]]:
    """Replace the pages that the cache has by theirs, with outputs; return their costs."""
    runs = {}
    for page, notebook in notebooks.items():
        with contextlib.suppress(KeyError):
            record = cache.match_cache_notebook(notebook)
            runs[page] = {cost: record.data[cost] for cost in COSTS}
            notebooks[page] = cache.get_cache_bundle(record.pk).nb
            took = duration(runs[page]["execution_seconds"])
            progress.finish(page, f"from the cache (it took {took})")
    return runs


def execute_at_once(
    todo: list[str], notebooks: dict[str, Any], cache: JupyterCacheAbstract, progress: Progress
) -> dict[str, dict[str, float]]:
    """Execute pages, in this order and several at a time; keep each; return their costs."""
    runs = {}
    if len(todo) > 1:
        kernels.preload()
    with ThreadPoolExecutor(PAGES_AT_ONCE) as threads:
        done = {threads.submit(execute, page, notebooks[page], progress): page for page in todo}
        try:
            for future in as_completed(done):
                page = done[future]
                runs[page] = future.result()
                # At once: an error on the next page must not lose this one.
                keep(page, notebooks[page], runs[page], cache)
                wall, processor, _ = map(duration, runs[page].values())
                progress.finish(page, f"executed in {wall}, {processor} of processor time")
        except BaseException:
            STOP.set()
            threads.shutdown(wait=False, cancel_futures=True)
            for group in list(KERNELS):  # the pages beside the one that failed
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(group, signal.SIGKILL)
            raise
    return runs


def build_site(cache_path: str) -> None:
    """Let Jupyter Book make the site from the cached outputs; a warning is an error."""
    looks = hashlib.sha256()  # of what pages are written with, beside their own text
    for pattern in ["_ext/*.py", "_static/*", "glossary.md"]:
        for path in sorted(ROOT.glob(pattern)):
            looks.update(path.read_bytes())
    # Else sphinxcontrib-bibtex looks for it among all installed packages, at each citation.
    register_plugin("pybtex.backends", "plaintext", plaintext.Backend, force=True)
    overrides: dict[str, Any] = {
        # No other file is a page; to look for them, every folder would be searched.
        "include_patterns": [f"{page}.md" for page in pages()],
        "nb_execution_cache_path": cache_path,
        "course_repository": address()[0],
        "course_extension_key": looks.hexdigest(),
        "course_claims_file": str(BUILD / "claims.json"),
        "course_runs_file": str(BUILD / "runs.json"),
        "external_toc_path": "_toc.yml",
        "latex_individualpages": False,
        "nitpicky": True,
    }
    if not FULL:
        overrides["html_theme_options.announcement"] = (
            "A preview: less data, fewer epochs and fewer seeds. Of the claims, "
            "only facts that need no data are judged."
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
        os.environ["TRAINWELL_JOBS"] = str(FULL_JOBS if FULL else QUICK_JOBS)
        os.environ["TF_FORCE_GPU_ALLOW_GROWTH"] = "true"  # two pages share a GPU
        fetch = [sys.executable, "-m", "trainwell", "data", "--fetch"]
        if subprocess.run([*fetch, "--retry-after", str(HOURS_BETWEEN_TRIES)]).returncode:
            sys.exit("The build stopped: a data set can't be used as it is, as said above.")
        os.environ["TRAINWELL_OFFLINE"] = "1"  # what is not here now is not asked for again
        write_lab_pages()
        cache = open_cache()
        os.environ.setdefault("TRAINWELL_RUNS", str(Path(cache.path) / "runs"))
        try:
            execute_pages(cache)
        except PageError as error:
            print(f"\n{error}", flush=True)
            sys.exit(1)
        build_site(str(cache.path))
        page = (SITE / "index.html").relative_to(ROOT)
        took = duration(time.perf_counter() - start)
        print(f"{page} is ready after {took} (profile: {runtime.profile()})")


if __name__ == "__main__":
    main()
