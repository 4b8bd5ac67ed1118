"""Downloads from a server on this machine: checked, never half-made, safe to interrupt."""

import gzip
import hashlib
import io
import json
import os
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from trainwell.__main__ import main
from trainwell.datasets import (
    DataError,
    StandInWarning,
    content,
    download,
    load_fashion_mnist,
    places,
)
from trainwell.datasets.content import read_file, table_fingerprint
from trainwell.datasets.download import DownloadError, fetch
from trainwell.datasets.manifest import embedded_folder, manifest
from trainwell.datasets.simulate import simulate_spotify

NOBODY = "http://127.0.0.1:9/"  # the port 'discard': refused at once
SONGS = 300


class Server(ThreadingHTTPServer):
    """Serves `files` by name; a function in place of bytes writes to the response itself."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes | Callable[[BaseHTTPRequestHandler], None]] = {}
        self.requests: list[str] = []
        self.url = f"http://127.0.0.1:{self.server_port}/"

    def handle_error(self, request, client_address):
        """A client that leaves in mid-download is part of these tests."""


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.requests.append(self.path)
        content = self.server.files.get(self.path.rpartition("/")[2])
        if content is None:
            self.send_error(404)
        elif callable(content):
            content(self)
        else:
            send(self, content, len(content))

    def log_message(self, *arguments):
        pass


def send(handler, content, length):
    handler.send_response(200)
    handler.send_header("Content-Length", str(length))
    handler.end_headers()
    handler.wfile.write(content)


@pytest.fixture
def server():
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


@pytest.fixture(autouse=True)
def _my_cache_and_no_proxy(cache, monkeypatch):
    for name in ("TRAINWELL_DATA", "TRAINWELL_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TRAINWELL_CACHE", str(cache))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(places, "_failed", {})


def idx(array):
    data = struct.pack(f">HBB{array.ndim}i", 0, 8, array.ndim, *array.shape) + array.tobytes()
    return gzip.compress(data, mtime=0)


@pytest.fixture
def images(server, monkeypatch):
    """A small set in place of Fashion-MNIST, on the server."""
    rng = np.random.default_rng(0)
    for part, count in [("train", 120), ("t10k", 20)]:
        pixels = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        server.files[f"{part}-images.gz"] = idx(pixels)
        server.files[f"{part}-labels.gz"] = idx(rng.integers(0, 10, count, dtype=np.uint8))
    hashes = {
        name: hashlib.sha256(gzip.decompress(data)).hexdigest()
        for name, data in server.files.items()
    }
    entry = replace(
        manifest()["fashion-mnist"],
        files=hashes,
        mirrors=(server.url,),
        system_folder="",
        debian_package="",
    )
    monkeypatch.setitem(manifest(), "fashion-mnist", entry)
    return entry


@pytest.fixture
def songs(server, monkeypatch):
    """Some simulated songs in place of Spotify's, on the server."""
    table = simulate_spotify(embedded_folder() / places.SPOTIFY_MOMENTS, seed=1).head(SONGS)
    server.files["spotify_songs.csv"] = table.to_csv(index=False).encode()
    entry = replace(
        manifest()["spotify"],
        files={"spotify_songs.csv": table_fingerprint(table)},
        rows=SONGS,
        mirrors=(server.url,),
    )
    monkeypatch.setitem(manifest(), "spotify", entry)
    return entry


def left_in(folder):
    return sorted(path.name for path in folder.rglob("*") if not path.is_dir())


# A loader downloads ----------------------------------------------------------------------------


def test_a_loader_downloads_once_and_checks(images, server, cache, capsys):
    data = load_fashion_mnist()
    assert data.source == "Fashion-MNIST, 60,000 + 10,000 images (cache)"
    assert not data.stand_in
    assert len(data.x_train) + len(data.x_valid) == 120
    assert f"Downloading Fashion-MNIST (31 MB) to {cache}" in capsys.readouterr().err
    assert left_in(cache) == sorted(images.files)
    load_fashion_mnist()
    kept = [path.name for path, *_ in content._read if path.is_relative_to(cache)]
    assert sorted(kept) == sorted(images.files), "a file is in memory once"
    assert len(server.requests) == 4
    assert capsys.readouterr().err == ""


def test_without_network_the_stand_in_says_why_and_is_not_asked_for_again(images, monkeypatch):
    monkeypatch.setitem(manifest(), "fashion-mnist", replace(images, mirrors=(NOBODY,)))
    calls = []
    real_fetch = places.fetch
    monkeypatch.setattr(places, "fetch", lambda *a: (calls.append(a), real_fetch(*a)))
    for _ in range(3):
        with pytest.warns(StandInWarning, match=r"(?s)127\.0\.0\.1:9.*refused.*data --fetch"):
            assert load_fashion_mnist().stand_in
    assert len(calls) == 1


@pytest.mark.usefixtures("images")
def test_offline_nothing_is_asked_for(server, monkeypatch):
    monkeypatch.setenv("TRAINWELL_OFFLINE", "1")
    with pytest.warns(StandInWarning, match=r"Downloads are off \(TRAINWELL_OFFLINE\)"):
        assert load_fashion_mnist().stand_in
    assert server.requests == []


def test_the_next_mirror_is_tried(images, server, cache):
    fetch(replace(images, mirrors=(NOBODY, f"{server.url}gone/missing-", server.url)), cache)
    assert left_in(cache) == sorted(images.files)


def test_a_server_that_stalls_is_left(images, server, cache, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT", 0.2)
    released = threading.Event()

    def stall(handler):
        send(handler, b"\x1f\x8b", 1000)
        released.wait(10)

    server.files["train-images.gz"] = stall
    start = time.perf_counter()
    with pytest.raises(DownloadError, match="timed out"):
        fetch(images, cache)
    released.set()
    assert time.perf_counter() - start < 5
    assert left_in(cache) == []


# What a server may send ------------------------------------------------------------------------


def truncated(data):
    return lambda handler: send(handler, data[: len(data) // 2], len(data))


def corrupted(data):
    return data[:50] + bytes([data[50] ^ 0xFF]) + data[51:]


BAD_ANSWERS = {
    "truncated": (truncated, "is cut off"),
    "corrupted": (corrupted, "not a sound gzip file|other data"),
    "another file": (lambda data: gzip.compress(b"other"), "holds other data"),
    "empty": (lambda data: b"", "is empty"),
    "a login page": (lambda data: b"<html>Log in</html>", "not a sound gzip file"),
}


@pytest.mark.parametrize("case", BAD_ANSWERS)
def test_a_bad_answer_never_reaches_the_cache(case, images, server, cache):
    spoil, message = BAD_ANSWERS[case]
    name = list(images.files)[1]
    server.files[name] = spoil(server.files[name])
    with pytest.raises(DownloadError, match=message) as caught:
        fetch(images, cache)
    assert server.url + name in str(caught.value)
    # The one before it was good and stays; of this one nothing is left.
    assert left_in(cache) == [next(iter(images.files))]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda text: text.replace(b"tempo", b"speed"), r"lacks the columns \['tempo'\]"),
        (lambda text: text[: len(text) // 2], "complete rows, expected 300"),
        (lambda text: b"", "is empty"),
    ],
)
def test_a_bad_table_never_reaches_the_cache(spoil, message, songs, server, cache):
    server.files["spotify_songs.csv"] = spoil(server.files["spotify_songs.csv"])
    with pytest.raises(DownloadError, match=message):
        fetch(songs, cache)
    assert left_in(cache) == []


def test_a_wrong_file_in_the_cache_is_told_and_fetched_anew(images, server, cache):
    fetch(images, cache / "fashion-mnist")
    spoiled = cache / "fashion-mnist" / "t10k-images.gz"
    spoiled.write_bytes(spoiled.read_bytes()[:100])
    with pytest.warns(UserWarning, match=r"t10k-images.gz is cut off.*cache is passed over"):
        assert not load_fashion_mnist().stand_in
    assert server.requests.count("/t10k-images.gz") == 2
    assert len(server.requests) == 5  # the good ones are not fetched again
    assert left_in(cache) == sorted(images.files)


# A cache that can't be written -----------------------------------------------------------------


def test_a_file_in_place_of_the_cache_folder_is_a_clear_error(images, server, cache, capsys):
    cache.write_text("I was here first.")
    with pytest.raises(DataError, match=r"can't be written.*TRAINWELL_CACHE.*TRAINWELL_OFFLINE"):
        load_fashion_mnist()
    assert main(["data", "--fetch"]) == 1
    assert "Error: The cache folder" in capsys.readouterr().err
    assert server.requests == []
    assert cache.read_text() == "I was here first."


@pytest.mark.usefixtures("images")
def test_a_read_only_cache_folder_is_a_clear_error(server, monkeypatch):
    def denied(dir):  # as from a read-only folder, which root may write to all the same
        raise PermissionError(13, "Permission denied", str(dir))

    monkeypatch.setattr(tempfile, "TemporaryFile", denied)
    with pytest.raises(DataError, match=r"can't be written.*TRAINWELL_CACHE"):
        load_fashion_mnist()
    assert server.requests == []


def test_a_full_disk_leaves_nothing(images, cache, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(DownloadError, match="No space left on device"):
        fetch(images, cache)
    assert left_in(cache) == []


# Other processes -------------------------------------------------------------------------------

# Runs `python -m trainwell data --fetch` with the songs of this test's server, and patience:
# on a busy machine the other process may take seconds to start.
FETCH = """
import json, signal, sys
from dataclasses import replace
from trainwell.__main__ import main
from trainwell.datasets import download
from trainwell.datasets.manifest import manifest
download.TIMEOUT = 60
# Started in the background of a shell, a process would ignore interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)
spotify = replace(manifest()["spotify"], **json.loads(sys.argv[1]))
manifest().clear()
manifest()["spotify"] = spotify
sys.exit(main(["data", "--fetch"]))
"""


def start_fetch(entry):
    fields = {"files": entry.files, "rows": entry.rows, "mirrors": entry.mirrors}
    return subprocess.Popen(
        [sys.executable, "-c", FETCH, json.dumps(fields)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_an_interrupt_in_mid_download_leaves_nothing_and_the_next_one_works(songs, server, cache):
    content = server.files["spotify_songs.csv"]
    asked, released = threading.Event(), threading.Event()

    def drip(handler):
        send(handler, content[: len(content) // 2], len(content))
        asked.set()
        released.wait(60)

    server.files["spotify_songs.csv"] = drip
    process = start_fetch(songs)
    assert asked.wait(60)
    deadline = time.monotonic() + 60
    while not left_in(cache) and time.monotonic() < deadline:
        time.sleep(0.01)
    (part,) = left_in(cache)
    assert part.endswith(".part")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    released.set()
    assert process.returncode == 130
    assert "Interrupted. Nothing is half-made" in errors
    assert "Traceback" not in errors
    assert left_in(cache) == []

    server.files["spotify_songs.csv"] = content
    again = start_fetch(songs)
    again.communicate(timeout=60)
    assert again.returncode == 0
    assert left_in(cache) == ["spotify_songs.csv"]


def test_two_processes_may_fetch_at_once(songs, server, cache):
    content = server.files["spotify_songs.csv"]
    both = threading.Barrier(2)

    def together(handler):
        send(handler, content[: len(content) // 2], len(content))
        both.wait(60)  # neither is done before the other is half-way
        handler.wfile.write(content[len(content) // 2 :])

    server.files["spotify_songs.csv"] = together
    processes = [start_fetch(songs) for _ in range(2)]
    for process in processes:
        output, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
        assert "cache" in output
    assert len(server.requests) == 2
    assert left_in(cache) == ["spotify_songs.csv"]
    read_file(songs, "spotify_songs.csv", cache / "spotify" / "spotify_songs.csv")


# Debian's package ------------------------------------------------------------------------------


def write_command(folder, name, script):
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.fixture
def debian(tmp_path, images, server, monkeypatch):
    """A machine whose apt-get has the package, and no mirror that answers."""
    packaged = tmp_path / "packaged"
    packaged.mkdir()
    for name in images.files:
        (packaged / name).write_bytes(server.files[name])
    commands = tmp_path / "commands"
    commands.mkdir()
    log = tmp_path / "log"
    write_command(
        commands,
        "apt-get",
        f'echo "$@" >>{log}\ncase "$*" in *update) exit 100;; esac\ntouch pictures_1_all.deb',
    )
    write_command(
        commands,
        "dpkg-deb",
        f'[ "$1 $2" = "-x $PWD/pictures_1_all.deb" ] || exit 2\n'
        f"mkdir -p $3/usr/share/pictures && cp {packaged}/* $3/usr/share/pictures",
    )
    monkeypatch.setenv("PATH", f"{commands}{os.pathsep}{os.environ['PATH']}")
    entry = replace(
        images,
        mirrors=(NOBODY,),
        debian_package="pictures",
        system_folder="/usr/share/pictures",
    )
    monkeypatch.setitem(manifest(), "fashion-mnist", entry)
    return replace(entry), commands, log


def test_debians_package_serves_without_root(debian, cache):
    entry, _, log = debian
    fetch(entry, cache, from_debian=True)
    assert left_in(cache) == sorted(entry.files)
    update, downloaded = log.read_text().splitlines()
    assert update.endswith(" update")
    assert downloaded.endswith(" download pictures")
    assert f"Dir::State::lists={cache}" in downloaded  # the system's lists are left alone


@pytest.mark.usefixtures("debian", "songs")
def test_the_command_asks_for_debians_package(capsys):
    assert main(["data", "--fetch"]) == 0
    assert "stands in" not in capsys.readouterr().out


def test_a_loader_leaves_the_package_manager_alone(debian):
    _, _, log = debian
    with pytest.warns(StandInWarning):
        assert load_fashion_mnist().stand_in
    assert not log.exists()


def test_a_package_that_cannot_be_had_is_told(debian, cache):
    entry, commands, _ = debian
    write_command(commands, "apt-get", "echo 'E: Unable to locate package pictures' >&2; exit 100")
    with pytest.raises(DownloadError, match="apt-get failed: E: Unable to locate package"):
        fetch(entry, cache, from_debian=True)
    assert left_in(cache) == []


def test_wrong_files_in_the_package_are_not_taken(debian, cache):
    entry, commands, _ = debian
    write_command(commands, "dpkg-deb", "mkdir -p $3/usr/share/pictures")
    with pytest.raises(DownloadError, match="can't be read"):
        fetch(entry, cache, from_debian=True)
    assert left_in(cache) == []


# The command -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("images", "songs")
def test_the_command_lists_every_set_aligned(server, capsys):
    assert main(["data"]) == 0
    output, errors = capsys.readouterr()
    heading, *rows = output.splitlines()[:6]
    starts = [heading.index(name) for name in ("contents", "found in", "size", "checked")]
    assert all(row[start - 2 : start] == "  " for row in rows for start in starts)
    assert "the subset stands in" in rows[0]
    assert rows[1][starts[1] :].split() == [
        *("embedded", "3.1", "MB", "yes", "MIT"),
        str(embedded_folder() / "fashion-mnist-subset"),
    ]
    assert "a simulation stands in" in rows[2]
    assert "python -m trainwell data --fetch" in output
    assert errors == ""
    assert server.requests == []  # to list is not to download


@pytest.mark.usefixtures("images", "songs")
def test_fetch_gets_what_is_missing_and_shows_no_bar_where_nobody_watches(server, capsys):
    assert main(["data", "--fetch"]) == 0
    output, errors = capsys.readouterr()
    assert len(server.requests) == 5
    assert "stands in" not in output
    assert output.count(" cache ") == 2
    lines = errors.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("Downloading ") for line in lines)
    assert main(["data", "--fetch"]) == 0
    assert len(server.requests) == 5


@pytest.mark.usefixtures("songs")
def test_a_bar_is_shown_in_a_terminal(monkeypatch, cache):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    fetch(manifest()["spotify"], cache)
    assert "spotify_songs.csv: 100%" in terminal.getvalue()


def test_a_failed_fetch_is_a_warning(images, songs, capsys, monkeypatch):
    monkeypatch.setitem(manifest(), "fashion-mnist", replace(images, mirrors=(NOBODY,)))
    assert main(["data", "--fetch"]) == 0
    output, errors = capsys.readouterr()
    assert "the subset stands in" in output
    assert "Warning: Fashion-MNIST could not be downloaded." in errors
    assert "refused" in errors
    assert "a simulation" not in output  # the other one is fetched all the same
    assert songs.name == "spotify"


@pytest.mark.usefixtures("images", "songs")
def test_a_build_does_not_ask_again_at_once_for_what_was_not_found(server, cache, capsys):
    content = server.files.pop("train-images.gz")
    build = ["data", "--fetch", "--retry-after", "6"]
    assert main(build) == 0
    asked = len(server.requests)
    note = cache / "fashion-mnist.not-found"
    two_hours_ago = time.time() - 2 * 3600
    os.utime(note, (two_hours_ago, two_hours_ago))
    capsys.readouterr()
    assert main(build) == 0
    assert capsys.readouterr().err == (
        "Warning: Fashion-MNIST: not found at the last try, 2.0 h ago; "
        "python -m trainwell data --fetch tries again.\n"
    )
    assert len(server.requests) == asked
    # The reader's own word, and the next day, ask again.
    assert main(["data", "--fetch"]) == 0
    assert len(server.requests) == asked + 1
    os.utime(note, (0, 0))
    server.files["train-images.gz"] = content
    assert main(build) == 0
    assert len(server.requests) == asked + 1 + 4
    assert not note.exists()


@pytest.mark.usefixtures("images", "songs")
def test_fetch_offline_says_so(server, capsys, monkeypatch):
    monkeypatch.setenv("TRAINWELL_OFFLINE", "1")
    assert main(["data", "--fetch"]) == 0
    assert "TRAINWELL_OFFLINE is set, so Fashion-MNIST is not" in capsys.readouterr().err
    assert server.requests == []


@pytest.mark.usefixtures("images", "songs")
def test_a_wrong_file_that_you_chose_is_an_error(tmp_path, capsys, monkeypatch):
    (tmp_path / "concrete.csv").write_text("")
    monkeypatch.setenv("TRAINWELL_DATA", str(tmp_path))
    assert main(["data"]) == 1
    output, errors = capsys.readouterr()
    assert "see below" in output
    assert f"Error: {tmp_path / 'concrete.csv'} is empty." in errors


@pytest.mark.usefixtures("images", "songs")
def test_a_file_of_trainwell_that_is_gone_is_an_error(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(places, "embedded_folder", lambda: tmp_path)
    assert main(["data"]) == 1
    output, errors = capsys.readouterr()
    assert output.count("see below") == 4
    assert errors.count(f"Error: {tmp_path} lacks files of ") == 4
    assert "concrete.csv. Install trainwell" in errors
    assert "spotify-moments.json. Install trainwell" in errors


def test_the_module_runs_as_a_command():
    command = [sys.executable, "-m", "trainwell"]
    help_text = subprocess.run([*command, "data", "--help"], capture_output=True, text=True)
    assert help_text.returncode == 0
    assert "--fetch" in help_text.stdout
    assert subprocess.run(command, capture_output=True).returncode == 2
