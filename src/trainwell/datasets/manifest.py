"""The one list of data sets: names, files, what their content must be, and where to get them."""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Entry:
    """One data set of `datasets/manifest.json`.

    Attributes:
        name: The set's name and the name of its folder.
        title: Its name in words.
        contents: How much there is, in words.
        licence: Under what terms.
        files: For each file, the SHA-256 that its content must have. For images it is that of
            the decompressed bytes, for tables that of the parsed columns (`content.py`).
        numbers: The columns of a table that hold numbers.
        texts: The columns of a table that hold text.
        rows: How many complete rows a table has.
        mirrors: Addresses that the files' names are appended to; empty if nothing is downloaded.
        download: The size of the download, in words.
        debian_package: Debian's package of the set.
        system_folder: Where that package puts the files.
    """

    name: str
    title: str
    contents: str
    licence: str
    files: dict[str, str]
    numbers: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    rows: int = 0
    mirrors: tuple[str, ...] = ()
    download: str = ""
    debian_package: str = ""
    system_folder: str = ""


def embedded_folder() -> Path:
    """Return the folder of the embedded files: in the installed package, or in the checkout."""
    here = Path(__file__).parent
    installed = here / "files"
    return installed if installed.is_dir() else here.parents[2] / "datasets"


@cache
def manifest() -> dict[str, Entry]:
    """Return the entries of `datasets/manifest.json` by name."""
    text = (embedded_folder() / "manifest.json").read_text(encoding="utf-8")
    return {name: _entry(name, fields) for name, fields in json.loads(text).items()}


def _entry(name: str, fields: dict[str, Any]) -> Entry:
    lists = {key: tuple(value) for key, value in fields.items() if isinstance(value, list)}
    return Entry(name, **{**fields, **lists})
