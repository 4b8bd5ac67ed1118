"""The table of `python -m trainwell data`: what is here, where, and whether it was checked."""

import math
import sys
import time
import warnings

from trainwell.datasets.dataset import DataError
from trainwell.datasets.download import DownloadError, fetch
from trainwell.datasets.manifest import Entry, manifest
from trainwell.datasets.places import (
    cache_folder,
    embedded,
    first_good,
    offline,
    spotify_moments,
)

HEADINGS = ["data set", "contents", "found in", "size", "checked", "licence", "folder"]

# What the loaders use where a set is not here.
STAND_INS = {"fashion-mnist": "the subset stands in", "spotify": "a simulation stands in"}


def show(*, fetch_missing: bool = False, retry_after: float = 0) -> int:
    """Print the table of all sets; first download what is missing, if asked to.

    Args:
        fetch_missing: Whether to download what is missing.
        retry_after: For so many hours after a download that failed, it is not tried again.

    Returns:
        The exit status: 1 if a file that you chose, or one that comes with trainwell, is wrong,
        or if the cache can't be written; else 0, since a stand-in is no error.
    """
    rows, errors = [], []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for entry in manifest().values():
            try:
                if fetch_missing:
                    _fetch(entry, retry_after)
                rows.append(_row(entry))
            except DataError as error:
                rows.append([entry.title, entry.contents, "see below", "", "no", entry.licence, ""])
                errors.append(f"Error: {error}")
    _print_aligned([HEADINGS, *rows])
    if any(row[2] in STAND_INS.values() for row in rows):
        print("\nTo download what is missing: python -m trainwell data --fetch")
    # A set is read more than once, and may say the same each time.
    for line in dict.fromkeys([*(f"Warning: {w.message}" for w in caught), *errors]):
        print(line, file=sys.stderr)
    return 1 if errors else 0


def _fetch(entry: Entry, retry_after: float) -> None:
    """Download a set that is nowhere to be found; say so if that fails, or failed lately."""
    if not entry.mirrors or first_good(entry):
        return
    if offline():
        warnings.warn(
            f"TRAINWELL_OFFLINE is set, so {entry.title} is not downloaded.", stacklevel=2
        )
        return
    failed = cache_folder() / f"{entry.name}.not-found"  # empty: its time is what it tells
    hours = (time.time() - failed.stat().st_mtime) / 3600 if failed.exists() else math.inf
    if hours < retry_after:
        warnings.warn(
            f"{entry.title}: not found at the last try, {hours:.1f} h ago; "
            "python -m trainwell data --fetch tries again.",
            stacklevel=2,
        )
        return
    try:
        fetch(entry, cache_folder() / entry.name, from_debian=True)
    except DownloadError as error:
        failed.touch()
        warnings.warn(str(error), stacklevel=2)
    else:
        failed.unlink(missing_ok=True)


def _row(entry: Entry) -> list[str]:
    if entry.name == "spotify":
        spotify_moments()  # the fingerprint has this file, whether the real songs are here or not
    found = first_good(entry) if entry.name in STAND_INS else embedded(entry)
    if found is None:
        return [entry.title, entry.contents, STAND_INS[entry.name], "", "", entry.licence, ""]
    _, place = found
    size = sum((place.folder / name).stat().st_size for name in entry.files)
    return [
        entry.title,
        entry.contents,
        place.kind,
        f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.1f} kB",
        "yes",
        entry.licence,
        str(place.folder),
    ]


def _print_aligned(rows: list[list[str]]) -> None:
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())
