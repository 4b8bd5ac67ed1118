"""Bring files into the cache: checked before they get their name, and never half of one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path

from trainwell.datasets.content import read_file
from trainwell.datasets.dataset import DataError
from trainwell.datasets.manifest import Entry

TIMEOUT = 5  # seconds without an answer after which the next mirror is tried
CHUNK = 1 << 16  # bytes
DEBIAN_TIMEOUT = 300  # seconds


class DownloadError(DataError):
    """No source had the files; the message lists what each one said."""


def fetch(entry: Entry, folder: Path, *, from_debian: bool = False) -> None:
    """Bring the files of a set into `folder`, from the first source that works.

    Each file is written under another name, checked, and then renamed. So an interrupt leaves
    nothing half-made, and two processes can do this at once.

    Args:
        entry: The set.
        folder: Where the files go; made if needed.
        from_debian: Whether to try Debian's package too, after the mirrors.

    Raises:
        DataError: If `folder` can't be written.
        DownloadError: If every source failed.
    """
    _check_writable(folder)
    print(f"Downloading {entry.title} ({entry.download}) to {folder} ...", file=sys.stderr)
    reasons = []
    for mirror in entry.mirrors:
        try:
            for name in entry.files:
                if not _is_good(entry, name, folder / name):
                    _download(entry, name, mirror + name, folder / name)
            return
        except (OSError, HTTPException, DataError) as error:
            reasons.append(f"{mirror}: {error}")
    if (
        from_debian
        and entry.debian_package
        and shutil.which("apt-get")
        and shutil.which("dpkg-deb")
    ):
        try:
            _unpack_debian_package(entry, folder)
            return
        except (OSError, subprocess.SubprocessError, DataError) as error:
            reasons.append(f"Debian's package {entry.debian_package}: {error}")
    raise DownloadError(f"{entry.title} could not be downloaded.\n  " + "\n  ".join(reasons))


def _check_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise DataError(
            f"The cache folder {folder} can't be written: {error}. "
            "Set TRAINWELL_CACHE to a folder that can, or TRAINWELL_OFFLINE=1 to do without."
        ) from error


def _is_good(entry: Entry, name: str, path: Path) -> bool:
    try:
        read_file(entry, name, path)
    except DataError:
        return False
    return True


@contextmanager
def _part_file(path: Path) -> Iterator[Path]:
    """Yield a name beside `path` that no other process uses; what is left there is removed."""
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        yield part
    finally:
        part.unlink(missing_ok=True)


def _download(entry: Entry, name: str, address: str, path: Path) -> None:
    """Download one file, check its content and put it at `path`."""
    from tqdm import tqdm

    with _part_file(path) as part:
        with urllib.request.urlopen(address, timeout=TIMEOUT) as response, part.open("wb") as file:
            size = int(response.headers.get("Content-Length") or 0) or None
            # disable=None: no bar where nobody watches a terminal.
            with tqdm(total=size, desc=name, unit="B", unit_scale=True, disable=None) as bar:
                while chunk := response.read(CHUNK):
                    file.write(chunk)
                    bar.update(len(chunk))
        try:
            read_file(entry, name, part)
        except DataError as error:
            raise DownloadError(str(error).replace(str(part), address)) from error
        os.replace(part, path)


def _unpack_debian_package(entry: Entry, folder: Path) -> None:
    """Get the set from Debian's package, without root: nothing of the system is touched.

    apt gets package lists of its own in a temporary folder, since the system's may be missing
    (in containers they are) and only root may bring them.
    """
    with tempfile.TemporaryDirectory(dir=folder) as name:
        work = Path(name)
        (work / "lists" / "partial").mkdir(parents=True)
        (work / "cache" / "archives" / "partial").mkdir(parents=True)
        options = [
            f"Dir::State::lists={work / 'lists'}",
            f"Dir::Cache={work / 'cache'}",
            "Acquire::http::Timeout=10",
            "APT::Sandbox::User=",
        ]
        apt = ["apt-get", "-q", *(part for option in options for part in ("-o", option))]
        # One broken third-party source fails the update; the download tells whether it matters.
        _call([*apt, "update"], work, check=False)
        _call([*apt, "download", entry.debian_package], work)
        packages = [str(path) for path in work.glob("*.deb")]
        _call(["dpkg-deb", "-x", *packages, "root"], work)
        unpacked = work / "root" / entry.system_folder.lstrip("/")
        for file in entry.files:
            read_file(entry, file, unpacked / file)
            os.replace(unpacked / file, folder / file)


def _call(command: list[str], folder: Path, *, check: bool = True) -> None:
    """Run a command in `folder`; its last words are the error if it fails."""
    result = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=DEBIAN_TIMEOUT
    )
    if check and result.returncode:
        words = (result.stderr or result.stdout).strip().splitlines() or ["no message"]
        raise DownloadError(f"{command[0]} failed: {words[-1]}")
