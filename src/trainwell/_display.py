"""What claims and figures share: a place on the page, naming their data, showing themselves."""

import hashlib
import re
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


def identifier(kind: str, text: str) -> str:
    """Return a name for a place on a page: the text's first words, and a hash of them all."""
    words = re.findall(r"[a-z0-9]+", text.lower())[:6]
    digest = hashlib.sha256(text.strip().encode()).hexdigest()[:6]
    return "-".join([kind, *words, digest])


def display(bundle: dict[str, Any]) -> None:
    """Show `bundle` (MIME type to content) in a notebook; elsewhere print its `text/plain`."""
    # A notebook has imported IPython already; a plain script need not have it at all.
    ipython = sys.modules.get("IPython")
    if ipython is None or ipython.get_ipython() is None:
        print(bundle["text/plain"])
    else:
        ipython.display.display(bundle, raw=True)
