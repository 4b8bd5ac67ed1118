"""What a file must hold: every bad one gets a clear error, every honest one is taken."""

import gzip
import io
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainwell.datasets import DataError, load_concrete, load_fashion_mnist, load_red_wine
from trainwell.datasets.content import read_file, table_fingerprint
from trainwell.datasets.manifest import embedded_folder, manifest

CONCRETE = (embedded_folder() / "concrete.csv").read_text()
SUBSET = embedded_folder() / "fashion-mnist-subset"


@pytest.fixture(autouse=True)
def _only_my_folders(monkeypatch, tmp_path):
    monkeypatch.setenv("TRAINWELL_DATA", str(tmp_path))
    monkeypatch.setenv("TRAINWELL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TRAINWELL_OFFLINE", "1")


def without_column(text):
    return pd.read_csv(io.StringIO(text)).drop(columns="Age").to_csv(index=False)


BAD_TABLES = {
    "missing column": (without_column, r"lacks the columns \['Age'\]; it has \['Cement', "),
    "renamed column": (lambda t: t.replace("Age", "AgeInDays"), r"lacks .*'Age'.*'AgeInDays'"),
    "text in a number column": (
        lambda t: t.replace("540.0,0.0,0.0,162.0,2.5,1055.0", "540.0,0.0,0.0,162.0,2.5,much"),
        r"'CoarseAggregate' must hold numbers, got 'much' in row 2\.",
    ),
    "text below a missing value": (
        lambda t: t.replace("540.0", "", 1).replace("2.5,1055.0", "2.5,much", 1),
        r"must hold numbers, got 'much' in row 2\.",
    ),
    "infinity": (
        lambda t: t.replace("540.0", "inf", 1),
        r"must hold numbers, got 'inf' in row 1\.",
    ),
    "empty file": (lambda t: "", "concrete.csv is empty"),
    "blank file": (lambda t: "\n\n", "not a sound CSV file"),
    "header only": (lambda t: t.splitlines()[0], "has 0 complete rows, expected 1,030"),
    "cut off": (lambda t: t[: len(t) // 2], r"has \d+ complete rows, expected 1,030"),
    "missing value": (lambda t: t.replace("540.0", "", 1), "has 1,029 complete rows"),
    "another value": (lambda t: t.replace("79.99", "79.98", 1), "holds other data: the SHA-256"),
    "rows in another order": (
        lambda t: "\n".join([t.splitlines()[0], *reversed(t.splitlines()[1:])]),
        "holds other data",
    ),
    "ragged first row": (lambda t: t.replace("79.99", "79.99,1", 1), "more cells than the header"),
    "ragged row": (lambda t: t.replace("61.89", "61.89,1", 1), "not a sound CSV file"),
    "a web page": (lambda t: "<html><body>Log in</body></html>", "lacks the columns"),
}


@pytest.mark.parametrize("case", BAD_TABLES)
def test_a_bad_table_in_your_folder_is_a_clear_error(case, tmp_path):
    spoil, message = BAD_TABLES[case]
    (tmp_path / "concrete.csv").write_text(spoil(CONCRETE))
    with pytest.raises(DataError, match=message) as caught:
        load_concrete()
    assert str(tmp_path / "concrete.csv") in str(caught.value)
    assert "take it out of the folder TRAINWELL_DATA" in str(caught.value)


def test_bytes_that_are_no_text_are_a_clear_error(tmp_path):
    (tmp_path / "concrete.csv").write_bytes(b"\xff\xfe\x00\x80" * 100)
    with pytest.raises(DataError, match="not a sound CSV file"):
        load_concrete()


def cut(data):
    return data[: len(data) // 2]


def flip_a_byte(data):
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 0xFF]) + data[middle + 1 :]


def other_images(data):
    content = bytearray(gzip.decompress(data))
    content[-1] ^= 1
    return gzip.compress(bytes(content))


BAD_IMAGES = {
    "truncated": (cut, "is cut off"),
    "corrupted": (flip_a_byte, "is not a sound gzip file|holds other data"),
    "no gzip": (lambda data: b"<html>Not found</html>", "is not a sound gzip file"),
    "empty": (lambda data: b"", "is empty"),
    "empty inside": (lambda data: gzip.compress(b""), "holds other data"),
    "other images": (other_images, "is sound but holds other data: the SHA-256"),
}


@pytest.mark.parametrize("case", BAD_IMAGES)
def test_bad_images_in_your_folder_are_a_clear_error(case, tmp_path, monkeypatch):
    spoil, message = BAD_IMAGES[case]
    subset = manifest()["fashion-mnist-subset"]
    monkeypatch.setitem(manifest(), "fashion-mnist", replace(subset, name="fashion-mnist"))
    shutil.copytree(SUBSET, tmp_path, dirs_exist_ok=True)
    spoiled = tmp_path / "test-images-subset.gz"
    spoiled.write_bytes(spoil(spoiled.read_bytes()))
    with pytest.raises(DataError, match=message) as caught:
        load_fashion_mnist()
    assert str(spoiled) in str(caught.value)
    assert "take it out of the folder TRAINWELL_DATA" in str(caught.value)


def test_a_file_that_cannot_be_opened_is_a_data_error(tmp_path):
    with pytest.raises(DataError, match="can't be read"):
        read_file(manifest()["concrete"], "concrete.csv", tmp_path / "nothing.csv")


def test_a_folder_that_is_none_is_a_clear_error(tmp_path, monkeypatch):
    monkeypatch.setenv("TRAINWELL_DATA", str(tmp_path / "typo"))
    with pytest.raises(DataError, match=r"TRAINWELL_DATA must be a folder, got .*typo"):
        load_concrete()


def test_a_damaged_checkout_is_a_clear_error(monkeypatch):
    wrong = {"concrete.csv": "0" * 64}
    monkeypatch.setitem(manifest(), "concrete", replace(manifest()["concrete"], files=wrong))
    with pytest.raises(DataError, match="Install trainwell, or check it out, again"):
        load_concrete()


@settings(max_examples=25, deadline=None)
@given(
    order=st.permutations(list(manifest()["concrete"].numbers)),
    ending=st.sampled_from(["\n", "\r\n"]),
    separator=st.sampled_from([",", ";"]),
    number=st.sampled_from([None, "%.4f", "%.10g", "%.17e"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig"]),
    extra=st.booleans(),
)
def test_an_honest_copy_is_taken(order, ending, separator, number, encoding, extra):
    table = pd.read_csv(io.StringIO(CONCRETE)).astype("float64")[order]
    if extra:
        table["comment"] = "a text"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "concrete.csv"
        table.to_csv(
            path,
            index=False,
            lineterminator=ending,
            sep=separator,
            float_format=number,
            encoding=encoding,
        )
        read = read_file(manifest()["concrete"], "concrete.csv", path)
    columns = list(manifest()["concrete"].numbers)
    np.testing.assert_allclose(read[columns], table[columns], rtol=1e-12)


@settings(max_examples=50, deadline=None)
@given(row=st.integers(0, 2), column=st.sampled_from(["number", "text"]))
def test_the_fingerprint_sees_every_cell(row, column):
    table = pd.DataFrame({"number": [1.0, 0.0, 3.0], "text": ["a", "b", "c"]})
    other = table.copy()
    other.loc[row, column] = 7.0 if column == "number" else "z"
    assert table_fingerprint(table) != table_fingerprint(other)
    assert table_fingerprint(table) == table_fingerprint(table.replace(0.0, -0.0))
    assert table_fingerprint(table) == table_fingerprint(table[["text", "number"]])


def test_the_embedded_files_are_whole_and_small():
    assert len(load_red_wine().x_train) + len(load_red_wine().x_valid) == 1599
    assert sum(path.stat().st_size for path in SUBSET.iterdir()) < 4e6
    assert (embedded_folder() / "spotify-moments.json").stat().st_size < 60e3
