"""Where data is looked for, and in which order.

1. the folder in `TRAINWELL_DATA`, if you set it;
2. the user's cache (`TRAINWELL_CACHE`, else the platform's usual place);
3. the files of a system package;
4. a download into the cache, unless `TRAINWELL_OFFLINE=1`;
5. the files that come with trainwell.

A folder holds a set if it has all of its files, directly or in a subfolder with the set's name.
"""

from __future__ import annotations

import hashlib
import os
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainwell.datasets.content import read_files
from trainwell.datasets.dataset import DataError
from trainwell.datasets.download import DownloadError, fetch
from trainwell.datasets.manifest import Entry, embedded_folder, manifest


@dataclass(frozen=True)
class Place:
    """A folder that has all files of a set, and what to call it."""

    kind: str
    folder: Path


DATA, CACHE, SYSTEM, EMBEDDED = "TRAINWELL_DATA", "cache", "system package", "embedded"

# A page's kernel and a test work in folders of their own: from there too, a relative folder that
# you name is the one that you mean where you start.
for _name in (DATA, "TRAINWELL_CACHE", "TRAINWELL_RUNS"):
    if _chosen := os.environ.get(_name):
        os.environ[_name] = str(Path(_chosen).expanduser().absolute())

FETCH = "With a network, python -m trainwell data --fetch gets it."

# From this embedded file the stand-in for the songs is drawn (`simulate.py`).
SPOTIFY_MOMENTS = "spotify-moments.json"

# Why a download failed in this process, by set: it is not tried again for every load.
_failed: dict[str, str] = {}


def cache_folder() -> Path:
    """Return the folder for downloaded data: `TRAINWELL_CACHE`, else the platform's place."""
    if chosen := os.environ.get("TRAINWELL_CACHE"):
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or "~/AppData/Local"
    elif sys.platform == "darwin":
        base = "~/Library/Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "trainwell"


def offline() -> bool:
    """Return whether `TRAINWELL_OFFLINE` forbids downloads."""
    return os.environ.get("TRAINWELL_OFFLINE", "0") not in ("", "0")


def places(entry: Entry) -> list[Place]:
    """Return the places that have all files of the set, in order; content is not checked.

    Raises:
        DataError: If `TRAINWELL_DATA` names no folder.
    """
    folders = {
        DATA: _data_folder(),
        CACHE: cache_folder(),
        SYSTEM: Path(entry.system_folder) if entry.system_folder else None,
        EMBEDDED: embedded_folder(),
    }
    found = []
    for kind, folder in folders.items():
        for candidate in (folder / entry.name, folder) if folder else ():
            missing = [name for name in entry.files if not os.path.isfile(candidate / name)]
            if not missing:
                found.append(Place(kind, candidate))
                break
            if kind == DATA and len(missing) < len(entry.files):
                warnings.warn(
                    f"{candidate} has {entry.title}, but for {', '.join(missing)}: it is passed "
                    "over. Put what is missing beside the others.",
                    stacklevel=2,
                )
    return found


def _data_folder() -> Path | None:
    chosen = os.environ.get("TRAINWELL_DATA")
    if not chosen:
        return None
    folder = Path(chosen).expanduser()
    if not folder.is_dir():
        raise DataError(
            f"TRAINWELL_DATA must be a folder, got {chosen!r}. Correct it, or unset it to use "
            "the cache, a download or the embedded data."
        )
    return folder


def first_good(entry: Entry) -> tuple[dict[str, Any], Place] | None:
    """Return the set's checked files by name, and their place; None where no place has them.

    Raises:
        DataError: If the files in `TRAINWELL_DATA` are wrong (you chose them), or the embedded
            ones are.
    """
    for place in places(entry):
        try:
            return read_files(entry, place.folder), place
        except DataError as error:
            if place.kind == DATA:
                raise DataError(
                    f"{error}\nReplace the file, or take it out of the folder TRAINWELL_DATA: "
                    "then the next place is tried (see python -m trainwell data)."
                ) from error
            if place.kind == EMBEDDED:
                raise DataError(f"{error}\nInstall trainwell, or check it out, again.") from error
            warnings.warn(f"{error} The {place.kind} is passed over.", stacklevel=2)
    return None


def embedded(entry: Entry) -> tuple[dict[str, Any], Place]:
    """Return what `first_good` does, of a set that comes with trainwell.

    Raises:
        DataError: As `first_good`; also if the set's files are not even in trainwell's own folder.
    """
    good = first_good(entry)
    if good is None:
        raise _gone(entry.title, *entry.files)
    return good


def spotify_moments() -> Path:
    """Return the file from which the stand-in for the songs is drawn.

    Raises:
        DataError: If it is not in trainwell's own folder.
    """
    file = embedded_folder() / SPOTIFY_MOMENTS
    if not file.is_file():
        raise _gone("the simulated songs", SPOTIFY_MOMENTS)
    return file


def _gone(title: str, *files: str) -> DataError:
    return DataError(
        f"{embedded_folder()} lacks files of {title}, which come with trainwell: "
        f"{', '.join(files)}. Install trainwell, or check it out, again."
    )


def find(entry: Entry) -> tuple[dict[str, Any], Place] | None:
    """Return the set's files and place as `first_good` does; download them if need be.

    A download that fails is a reason (`why_not`), not an error, and is not tried again in this
    process.

    Raises:
        DataError: As `first_good`; also if the cache folder can't be written.
    """
    good = first_good(entry)
    if good or not entry.mirrors or offline() or entry.name in _failed:
        return good
    try:
        fetch(entry, cache_folder() / entry.name)
    except DownloadError as error:
        _failed[entry.name] = str(error)
    return first_good(entry)


def why_not(entry: Entry) -> str:
    """Return in words why a set is not here, and what to do."""
    if offline():
        return "Downloads are off (TRAINWELL_OFFLINE). " + FETCH
    reason = _failed.get(entry.name, "")
    return f"{reason}\n{FETCH}"


def fingerprint() -> str:
    """Return a short hash of exactly the data that the loaders would use now.

    It covers the bytes of every file and where it was found, takes well under a second and
    downloads nothing: a set that is not here counts as its stand-in. Anything computed from
    the data, such as an executed page, is out of date when this changes.

    Raises:
        DataError: As `places`, and as `spotify_moments`.
    """
    digest = hashlib.sha256()
    for entry in manifest().values():
        place = next(iter(places(entry)), None)
        digest.update(f"{entry.name}: {place.kind if place else 'stand-in'}\n".encode())
        files = [place.folder / name for name in entry.files] if place else []
        digest.update(b"".join(_hash(file) for file in files))
    digest.update(_hash(spotify_moments()))
    return digest.hexdigest()[:16]


def _hash(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
