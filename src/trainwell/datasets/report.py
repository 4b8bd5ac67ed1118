"""The table of `python -m trainwell data`: what is here, where, and whether it was checked."""

import sys
import warnings

from trainwell.datasets.dataset import DataError
from trainwell.datasets.download import DownloadError, fetch
from trainwell.datasets.manifest import Entry, manifest
from trainwell.datasets.places import cache_folder, first_good, offline

HEADINGS = ["data set", "contents", "found in", "size", "checked", "licence", "folder"]

# What the loaders use where a set is not here.
STAND_INS = {"fashion-mnist": "the subset stands in", "spotify": "a simulation stands in"}


def show(*, fetch_missing: bool = False) -> int:
    """Print the table of all sets; first download what is missing, if asked to.

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
                    _fetch(entry)
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


def _fetch(entry: Entry) -> None:
    """Download a set that is nowhere to be found; say so if that fails."""
    if not entry.mirrors or first_good(entry):
        return
    if offline():
        warnings.warn(
            f"TRAINWELL_OFFLINE is set, so {entry.title} is not downloaded.", stacklevel=2
        )
        return
    try:
        fetch(entry, cache_folder() / entry.name, from_debian=True)
    except DownloadError as error:
        warnings.warn(str(error), stacklevel=2)


def _row(entry: Entry) -> list[str]:
    found = first_good(entry)
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
