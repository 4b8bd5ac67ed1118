"""A pytest plugin for nbval: start kernels one at a time, and keep what the cells showed.

Kernels that start at the same moment sometimes pick the same port, and one of them dies.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kernels
import nbformat
import nbval.kernel
import pytest
from filelock import FileLock
from nbval.plugin import IPyNbCell

kernels.preload()
LOCK = FileLock(Path(os.environ["SERIAL_KERNELS_LOCK"]))
start_at_once: Callable[..., Any] = nbval.kernel.RunningKernel.__init__


def start_in_turn(self: Any, *args: Any, **kwargs: Any) -> None:
    with LOCK:
        start_at_once(self, *args, **kwargs)


nbval.kernel.RunningKernel.__init__ = start_in_turn


def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Put the outputs of a cell into its notebook; after its last cell, write the notebook."""
    if isinstance(item, IPyNbCell):
        item.cell.outputs = item.test_outputs or []
        if nextitem is None or nextitem.parent is not item.parent:
            nbformat.write(item.parent.nb, item.path)
