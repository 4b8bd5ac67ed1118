"""A pytest plugin: start Jupyter kernels one at a time, over all processes.

Kernels that start at the same moment sometimes pick the same port, and one of them dies.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbval.kernel
from filelock import FileLock

LOCK = FileLock(Path(os.environ["SERIAL_KERNELS_LOCK"]))
start_at_once: Callable[..., Any] = nbval.kernel.RunningKernel.__init__


def start_in_turn(self: Any, *args: Any, **kwargs: Any) -> None:
    with LOCK:
        start_at_once(self, *args, **kwargs)


nbval.kernel.RunningKernel.__init__ = start_in_turn
