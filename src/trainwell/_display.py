"""What claims and figures share: naming their data, and showing themselves."""

import sys
from typing import Any, Protocol


class Data(Protocol):
    """What a claim or a caption needs to know of a data set."""

    @property
    def source(self) -> str:
        """Where the data came from, in words."""

    @property
    def stand_in(self) -> bool:
        """Whether they stand in for data that could not be had."""


def display(bundle: dict[str, Any]) -> None:
    """Show `bundle` (MIME type to content) in a notebook; elsewhere print its `text/plain`."""
    # A notebook has imported IPython already; a plain script need not have it at all.
    ipython = sys.modules.get("IPython")
    if ipython is None or ipython.get_ipython() is None:
        print(bundle["text/plain"])
    else:
        ipython.display.display(bundle, raw=True)
