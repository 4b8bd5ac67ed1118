"""A Jupyter kernel in a box: what students send runs here, and nothing that it does gets out.

    with Kernel(Limits()) as kernel:
        run = kernel.run("print(6 * 7)")
    run.outputs, run.seconds, run.error

The box is bubblewrap: no network, no file but Python's own (read-only) and a small private
`/tmp`, its own process numbers, no rights, another user. Only the kernel is in the box. Whoever
talks to it, nbgrader and the gradebook are outside, and nothing of theirs can be reached.
"""

import json
import os
import resource
import shutil
import site
import stat
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from queue import Empty
from types import TracebackType
from typing import Any, NoReturn, Self

import nbformat
import psutil
import zmq
from jupyter_client import BlockingKernelClient
from jupyter_client.connect import write_connection_file
from nbformat import ValidationError

import trainwell
from trainwell.datasets.manifest import embedded_folder

MEBIBYTE = 2**20
NOBODY = "65534"  # the user without rights, on every Linux
START_SECONDS = 120  # a busy machine is slow; one that can't start a kernel at all ends sooner
INTERRUPT_SECONDS = 3  # how long a cell may take to end once it is interrupted
WATCH_SECONDS = 0.05
MOST_SILENT = 60  # times that long: only then has output been lost, and is not just late
CONNECT_SECONDS = 15  # until a busy machine sends output again
LARGEST_MESSAGE = 8 * MEBIBYTE  # a figure is a tenth of it
WAITING_MESSAGES = 50

# The first code in the box. A process without rights can't raise its limits again, and yields to
# the watch over it.
LAUNCH = """
import os, resource, sys
for limit in sys.argv[2:]:
    name, value = limit.split("=")
    resource.setrlimit(getattr(resource, "RLIMIT_" + name), (int(value), int(value)))
os.nice(5)
sys.argv = ["kernel", "-f", sys.argv[1], "--HistoryManager.hist_file=:memory:"]
from ipykernel.kernelapp import launch_new_instance
launch_new_instance()
"""

HOW_TO_GET_ONE = (
    "Students' code needs a sandbox. Install bubblewrap 0.8 or later on Linux, or in WSL 2 "
    "(Debian, Ubuntu: apt install bubblewrap). Ubuntu 24.04 and later need an AppArmor profile "
    "that lets /usr/bin/bwrap make user namespaces; a Docker container needs --privileged, or a "
    "seccomp profile that allows them. Or say --unsafe, on a machine with nothing to lose: then "
    "a student's code can read, change and send away all that you can."
)


class SandboxError(RuntimeError):
    """There is no sandbox here; the message says how to get one."""


class KernelDiedError(RuntimeError):
    """The kernel is gone; the message says why, in words for the student."""


@dataclass(frozen=True)
class Limits:
    """What one submission may use."""

    cell_seconds: float = 30
    total_seconds: float = 300
    memory: int = 4096 * MEBIBYTE  # address space too: Keras takes most of it without using it
    disk: int = 64 * MEBIBYTE  # of the private /tmp, and of every file
    output: int = MEBIBYTE  # characters kept of each cell's output
    processes: int = 100  # threads count


@dataclass
class Run:
    """What running one cell gave: its outputs, its time, and its error, if it had one."""

    outputs: list[Any] = field(default_factory=list)
    seconds: float = 0.0
    error: str = ""
    timed_out: bool = False
    cut: bool = False  # it printed more than is kept


@cache
def check_sandbox() -> None:
    """Try the sandbox once.

    Raises:
        SandboxError: If it doesn't work here.
    """
    if not sys.platform.startswith("linux"):
        raise SandboxError(f"There is no bubblewrap on {sys.platform}. {HOW_TO_GET_ONE}")
    if not shutil.which("bwrap"):
        raise SandboxError(f"There is no bwrap on the PATH. {HOW_TO_GET_ONE}")
    with tempfile.TemporaryDirectory() as folder:
        command = [*_box(Path(folder), Limits()), sys.executable, "-c", "import ipykernel"]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SandboxError(f"bubblewrap fails: {done.stderr.strip()[-500:]}. {HOW_TO_GET_ONE}")


class Kernel:
    """A fresh kernel, in the box unless `unsafe`; leave the `with` block, and nothing is left.

    Raises:
        SandboxError: If there is no sandbox, and `unsafe` isn't said.
        KernelDiedError: If the kernel can't start, or dies in a cell.
    """

    def __init__(self, limits: Limits, *, unsafe: bool = False) -> None:
        """Prepare; `with` starts it."""
        if not unsafe:
            check_sandbox()
        self.limits = limits
        self.unsafe = unsafe
        self._why = ""  # why the watch killed it

    def __enter__(self) -> Self:
        """Start the kernel and the watch over it."""
        # Sockets have short names: not the TMPDIR, which may be long.
        self._folder = Path(tempfile.mkdtemp(prefix="tw-", dir="/tmp" if self._short() else None))
        try:
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End every process of the box."""
        self._stop()

    def run(self, code: str, seconds: float | None = None, store_history: bool = True) -> Run:
        """Run a cell; what it takes too long for is interrupted, and is an error of the cell.

        Raises:
            KernelDiedError: If the kernel ended, or couldn't be interrupted.
        """
        try:
            return self._run(code, seconds or self.limits.cell_seconds, store_history)
        except (AttributeError, KeyError, TypeError, ValueError, ValidationError) as error:
            self._end(f"it sent what is no message: {error!r}")

    def _run(self, code: str, limit: float, store_history: bool) -> Run:
        run = Run()
        started = time.monotonic()
        deadline = started + limit
        size, silent, idle = 0, 0, False
        reply: Any = None
        message_id = self._client.execute(
            code, allow_stdin=False, stop_on_error=False, store_history=store_history
        )
        # A cell is done when its output ends (`idle`) and the kernel replies. A cell that prints
        # without end can lose the first; nothing counts as right without the second.
        for message in self._messages():
            silent = 0 if message else silent + 1
            if message and message["parent_header"].get("msg_id") == message_id:
                idle = idle or message["content"].get("execution_state") == "idle"
                size = self._take(message, run, size)
            if idle or message is None:
                reply = reply or self._reply(message_id)
            if reply and (idle or silent > MOST_SILENT):
                break
            if message is None and time.monotonic() > deadline:
                if run.timed_out:
                    self._end(f"it ran longer than {limit:g} s and ignored the interrupt")
                run.timed_out = True
                deadline = time.monotonic() + INTERRUPT_SECONDS
                self._interrupt()
        run.seconds = time.monotonic() - started
        if not idle:
            run.cut = True
            self._wait_for_output()
        if run.timed_out:
            run.error = f"TimeoutError: it ran longer than {limit:g} s"
        elif reply["status"] != "ok":
            name, value = reply.get("ename", "Error"), reply.get("evalue", reply["status"])
            run.error = f"{name}: {value}"[:2000]
        if run.error and not any(output.output_type == "error" for output in run.outputs):
            run.outputs.append(_error(run.error))
        if run.cut:
            note = f"[more than {self.limits.output:,} characters: the rest is cut]\n"
            run.outputs.append(nbformat.v4.new_output("stream", name="stdout", text=note))
        return run

    def _take(self, message: Any, run: Run, size: int) -> int:
        """Add a message's output, unless it is too much, and return the size of all."""
        if message["msg_type"] not in ("stream", "display_data", "execute_result", "error"):
            return size
        length = len(json.dumps(message["content"]))
        if size + length > self.limits.output:  # an error of the cell comes with the reply, too
            run.cut = True
            return size
        _append(run.outputs, message)
        return size + length

    def _messages(self) -> Iterator[Any]:
        """Yield what the kernel sends, and None now and then while it is silent."""
        last = time.monotonic()
        while True:
            message = None
            with suppress(Empty):
                message = self._client.get_iopub_msg(timeout=WATCH_SECONDS)
            if message is None and self._process.poll() is not None:
                self._end("the kernel ended")
            # A cell that never stops printing must not hide that time is up.
            if message is not None:
                yield message
            if message is None or time.monotonic() - last > WATCH_SECONDS:
                last = time.monotonic()
                yield None

    def _wait_for_output(self) -> None:
        """Connect again, for ZeroMQ gives up a connection for good after a message too large."""
        socket = self._client.iopub_channel.socket
        url = socket.getsockopt(zmq.LAST_ENDPOINT).rstrip(b"\0")
        with suppress(zmq.ZMQError):  # it is gone already
            socket.disconnect(url)
        socket.connect(url)
        sent: set[str] = set()
        deadline = time.monotonic() + CONNECT_SECONDS
        for message in self._messages():
            if message and message["parent_header"].get("msg_id") in sent:
                return
            if message is None:
                sent.add(self._client.execute("", silent=True))
            if time.monotonic() > deadline:
                self._end("its output can't be read any more: it printed too much")

    def _reply(self, message_id: str) -> Any:
        """Return the kernel's reply to a cell, if it is there."""
        with suppress(Empty, ValueError, KeyError, TypeError):
            while True:
                message = self._client.get_shell_msg(timeout=0)
                if message["parent_header"].get("msg_id") == message_id:
                    return message["content"]
        return None

    def _start(self) -> None:
        file = str(self._folder / "kernel.json")
        key = os.urandom(16).hex().encode()
        write_connection_file(file, transport="ipc", ip=str(self._folder / "s"), key=key)
        launch = [sys.executable, "-c", LAUNCH, file, *_process_limits(self.limits, self.unsafe)]
        command = launch if self.unsafe else [*_box(self._folder, self.limits), *launch]
        with open(self._folder.with_suffix(".log"), "wb") as log:
            self._process = subprocess.Popen(
                command,
                cwd=self._folder,
                env=_environment(self._folder),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        # Messages wait in this process's memory, so their number and their size are limited.
        self._context = zmq.Context()
        self._context.setsockopt(zmq.MAXMSGSIZE, LARGEST_MESSAGE)
        self._context.setsockopt(zmq.RCVHWM, WAITING_MESSAGES)
        self._context.setsockopt(zmq.LINGER, 0)
        self._client = BlockingKernelClient(context=self._context)
        self._client.load_connection_file(file)
        self._client.start_channels(hb=False, stdin=False)
        threading.Thread(target=self._watch, daemon=True).start()
        for _ in range(START_SECONDS):
            with suppress(RuntimeError):  # not ready after a second
                self._client.wait_for_ready(timeout=1)
                return
            if self._process.poll() is not None:
                break
        log_text = self._folder.with_suffix(".log").read_text(errors="replace").strip()
        self._end(f"the kernel didn't start: {log_text[-500:]}")

    def _interrupt(self) -> None:
        message = self._client.session.msg("interrupt_request", content={})
        self._client.control_channel.send(message)

    def _watch(self) -> None:
        """Kill the box when it takes too much, and when that can't be told."""
        try:
            self._watch_all()
        except Exception as error:
            self._kill(f"the watch failed: {error!r}")

    def _watch_all(self) -> None:
        """Kill the box when all its processes together take too much: limits are per process."""
        end = time.monotonic() + START_SECONDS + self.limits.total_seconds
        while self._process.poll() is None and not self._why:
            count, memory, disk, folder = 0, 0, 0, False
            for pid in _family(self._process.pid):
                with suppress(OSError, ValueError, IndexError):  # it ended meanwhile
                    count += len(os.listdir(f"/proc/{pid}/task"))
                    pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
                    memory += int(pages) * resource.getpagesize()
            for name in os.listdir(self._folder):
                with suppress(FileNotFoundError):  # it writes and deletes while we look
                    found = (self._folder / name).lstat()
                    disk += found.st_size + 4096  # an empty file takes room too, and our time
                    folder = folder or stat.S_ISDIR(found.st_mode)
            if folder and not self.unsafe:  # its home is /tmp; a folder here would hide files
                self._kill("it made a folder beside its sockets")
            elif count > self.limits.processes:
                self._kill(f"it started more than {self.limits.processes} processes")
            elif memory > self.limits.memory:
                self._kill(f"it took more than {self.limits.memory // MEBIBYTE:,} MB of memory")
            elif disk > self.limits.disk:
                self._kill(f"it wrote more than {self.limits.disk // MEBIBYTE:,} MB")
            elif time.monotonic() > end:
                self._kill(f"the whole notebook took more than {self.limits.total_seconds:g} s")
            time.sleep(WATCH_SECONDS)

    def _kill(self, why: str) -> None:
        self._why = self._why or why
        family: list[psutil.Process] = []
        if self.unsafe:
            with suppress(psutil.Error):
                family = psutil.Process(self._process.pid).children(recursive=True)
        self._process.kill()  # the box ends with it, and every process in the box
        for process in family:
            with suppress(psutil.Error):
                process.kill()

    def _end(self, why: str) -> NoReturn:
        self._kill(why)
        raise KernelDiedError(self._why)

    def _stop(self) -> None:
        if hasattr(self, "_process"):
            self._kill("the end")
            self._process.wait()
        if hasattr(self, "_client"):
            self._client.stop_channels()
            self._context.destroy(linger=0)
        # Folders may be thousands deep, or closed to their owner: that stops shutil.rmtree.
        for command in (["chmod", "-R", "u+rwx"], ["rm", "-rf"]):
            subprocess.run([*command, self._folder], stderr=subprocess.DEVNULL)
        self._folder.with_suffix(".log").unlink(missing_ok=True)

    @staticmethod
    def _short() -> bool:
        return len(tempfile.gettempdir()) > 60 and os.access("/tmp", os.W_OK)


def _family(pid: int) -> Iterator[int]:
    """Yield the processes below one; on Linux, for psutil looks at every process there is."""
    with suppress(OSError, ValueError):
        for file in Path(f"/proc/{pid}/task").glob("*/children"):
            for child in map(int, file.read_text().split()):
                yield child
                yield from _family(child)


def _append(outputs: list[Any], message: Any) -> None:
    """Add an output; pieces of one stream become one."""
    output = nbformat.v4.output_from_msg(message)
    same = outputs and output.output_type == "stream" == outputs[-1].output_type
    if same and outputs[-1].name == output.name:
        outputs[-1].text += output.text
    else:
        outputs.append(output)


def _error(text: str) -> Any:
    return nbformat.v4.new_output("error", ename="Error", evalue=text, traceback=[text])


def _process_limits(limits: Limits, unsafe: bool) -> list[str]:
    """Return the limits that the system sets on each process, for `LAUNCH`."""
    each = [f"FSIZE={limits.disk}", "NOFILE=256", "CORE=0"]
    if sys.platform != "darwin":  # macOS knows no such limit
        each.append(f"AS={limits.memory}")
    each.append(f"CPU={int(max(limits.total_seconds, 0)) + 60}")
    # Since Linux 5.14 a box counts its own processes. For root nothing counts: only the watch does.
    system = tuple(int(part) for part in os.uname().release.split("-")[0].split(".")[:2])
    if not unsafe and os.geteuid() != 0 and system >= (5, 14):
        each.append(f"NPROC={limits.processes}")
    return each


def _environment(home: Path) -> dict[str, str]:
    """Return the kernel's environment: nothing of the instructor's."""
    return {
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "PYTHONPATH": str(Path(trainwell.__file__).parents[1]),
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "OMP_NUM_THREADS": "1",  # submissions run side by side, one on a core
        "OPENBLAS_NUM_THREADS": "1",
        "TF_NUM_INTRAOP_THREADS": "1",
        "TF_NUM_INTEROP_THREADS": "1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "TRAINWELL_OFFLINE": "1",
        "TRAINWELL_PROGRESS": "0",
        "IPYTHONDIR": "/tmp/.ipython",
    }


def _box(sockets: Path, limits: Limits) -> list[str]:
    """Return the command that runs what follows it in the box."""
    package = Path(trainwell.__file__).parent
    python = [sys.prefix, sys.base_prefix, sysconfig.get_path("purelib"), *site.getsitepackages()]
    readable = ["/usr", "/lib", "/lib64", "/bin", "/sbin", "/etc/ld.so.cache", "/etc/fonts"]
    readable += ["/etc/localtime", *python, *(os.path.realpath(path) for path in python)]
    readable += [str(package), str(embedded_folder())]
    size = str(limits.disk)
    command = ["bwrap", "--unshare-all", "--unshare-user", "--disable-userns", "--new-session"]
    command += ["--die-with-parent", "--cap-drop", "ALL", "--uid", NOBODY, "--gid", NOBODY]
    command += ["--hostname", "box", "--clearenv"]
    for name, value in _environment(Path("/tmp")).items():
        command += ["--setenv", name, value]
    command += ["--proc", "/proc", "--dev", "/dev", "--remount-ro", "/dev"]
    command += ["--size", size, "--tmpfs", "/dev/shm", "--size", size, "--tmpfs", "/tmp"]
    for path in dict.fromkeys(readable):
        command += ["--ro-bind-try", path, path]
    for path in _font_lists():
        command += ["--ro-bind", path, f"/tmp/.cache/matplotlib/{Path(path).name}"]
    command += ["--bind", str(sockets), str(sockets), "--remount-ro", "/", "--chdir", "/tmp"]
    return command


@cache
def _font_lists() -> list[str]:
    """Return Matplotlib's lists of fonts: without one, every kernel looks for fonts for seconds."""
    with suppress(Exception):  # a lab may do without Matplotlib
        import matplotlib.font_manager

        folder = Path(matplotlib.get_cachedir())
        return [str(path) for path in folder.glob("fontlist-*.json")]
    return []
