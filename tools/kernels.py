"""Kernels that start at once: copies of a process that has imported Keras and read the data.

A kernel of its own for each page spends six seconds of processor time on importing TensorFlow, and
the process that `trainwell.experiments` copies its workers from as much again. Here one process
imports it, and forks into all of them. It has not computed yet, so TensorFlow's threads, which a
copy would lack, are not there yet. Pages and workers find the data sets that most of them load in
its memory too, read and checked.
"""

import atexit
import contextlib
import functools
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import warnings
from multiprocessing import forkserver
from multiprocessing.connection import arbitrary_address  # type: ignore[attr-defined]
from typing import IO, Any

import psutil
from ipykernel.kernelapp import IPKernelApp
from jupyter_client.provisioning import local_provisioner

from trainwell.datasets.dataset import DataError
from trainwell.datasets.manifest import manifest
from trainwell.datasets.places import first_good
from trainwell.experiments import WORKER_ENVIRONMENT
from trainwell.runtime import keep_kernels

# What nearly every page imports.
MODULES = ["matplotlib.pyplot", "trainwell.claims", "trainwell.experiments", "trainwell.figures"]
MODULES += ["trainwell.datasets", "trainwell.models", "trainwell.training"]

# What takes a second to read, and many pages load.
READ_ONCE = ["fashion-mnist", "spotify"]

# NumPy reads this when it is imported, and a worker gets one thread.
ONE_THREAD = {
    name: WORKER_ENVIRONMENT[name] for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
}

# Arrays of some megabytes come and go at every step. glibc would give their memory back each time,
# and Linux clear it again page by page. Elsewhere than with glibc, this says nothing.
KEPT_MEMORY = {
    "GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=1073741824:"
    "glibc.malloc.trim_threshold=2147483648:glibc.malloc.hugetlb=1"
}


class Kernel(psutil.Process):  # type: ignore[misc]
    """What jupyter_client asks of a `subprocess.Popen`. A kernel is no child of this process."""

    stdin = stdout = stderr = None

    def poll(self) -> int | None:
        return None if self.is_running() else 0

    def send_signal(self, sig: int) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):  # it ended just now
            super().send_signal(sig)


@functools.cache
def original() -> subprocess.Popen[str]:
    """Start the process that the kernels are copies of."""
    return subprocess.Popen(
        [sys.executable, __file__],
        env={**os.environ, **ONE_THREAD, **KEPT_MEMORY},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def preload() -> None:
    """Let all kernels that this process starts be copies of one that has imported Keras.

    Elsewhere than on Linux, where a fork is not safe with every library, nothing changes.
    """
    if sys.platform != "linux":
        return
    one_at_a_time = threading.Lock()

    def launch(cmd: list[str], cwd: Any = None, env: Any = None, **_: Any) -> Kernel:
        arguments = cmd[cmd.index("ipykernel_launcher") + 1 :]
        request = {"arguments": arguments, "cwd": str(cwd or os.getcwd()), "env": dict(env or {})}
        with one_at_a_time:
            with contextlib.suppress(BrokenPipeError):  # the empty reply tells
                print(json.dumps(request), file=original().stdin, flush=True)
            number = original().stdout.readline()  # type: ignore[union-attr]
        if not number:
            raise RuntimeError(
                "the process that kernels are copied from has ended; "
                f"to see why: {sys.executable} {__file__} </dev/null"
            )
        return Kernel(int(number))

    local_provisioner.launch_kernel = launch


def provide_workers() -> None:
    """Give this process a fork server that is a copy of it, where it would start one anew.

    The standard library has no public way to say so; these names are the same in all versions of
    Python that the course runs on.
    """
    server: Any = forkserver._forkserver
    server._forkserver_address = arbitrary_address("AF_UNIX")
    until_closed, server._forkserver_alive_fd = os.pipe()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(server._forkserver_address)
        listener.listen()
        server._forkserver_pid = os.fork()
        if server._forkserver_pid == 0:
            os.close(server._forkserver_alive_fd)
            os.environ.update(WORKER_ENVIRONMENT)
            try:
                forkserver.main(listener.detach(), until_closed, [])
            finally:
                os._exit(0)
    os.close(until_closed)

    def forget_when_ended(*_: Any) -> None:
        with contextlib.suppress(ChildProcessError):  # somebody else was quicker
            pid = server._forkserver_pid
            if pid and os.waitpid(pid, os.WNOHANG)[0]:
                server._forkserver_pid = None

    # A kernel that is to end waits until it has no child left, also for one that has ended and
    # that nobody took note of.
    signal.signal(signal.SIGCHLD, forget_when_ended)


def become_kernel(request: dict[str, Any], replies: IO[str]) -> None:
    """Turn this copy into the kernel that was asked for; tell its number."""
    os.setsid()  # to be killed with its workers
    print(os.getpid(), file=replies)
    replies.close()  # or who waits for a reply would not notice that the original has died
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(nowhere, stream)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    del sys.path[0]  # this file's folder
    provide_workers()
    ends_with = f"--IPKernelApp.parent_handle={os.getppid()}"
    IPKernelApp.launch_instance(argv=[*request["arguments"], ends_with])
    atexit._run_exitfuncs()
    os._exit(0)  # to take all of Keras apart, object by object, would take two seconds


def main() -> None:
    """Import; then fork into a kernel for each line of the standard input."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_RDWR), 1)  # for what imports print
    # Matplotlib asks when it is imported; a kernel would set it before.
    os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    for module in MODULES:
        importlib.import_module(module)
    keep_kernels()  # pages set a seed before nearly every training
    for data_set in READ_ONCE:
        # A page that loads it says what is wrong.
        with contextlib.suppress(DataError), warnings.catch_warnings(action="ignore"):
            first_good(manifest()[data_set])
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for a kernel that has ended
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who reads our replies will close the pipe
    for line in sys.stdin:
        if os.fork() == 0:
            become_kernel(json.loads(line), replies)
            return


if __name__ == "__main__":
    main()
