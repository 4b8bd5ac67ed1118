"""What the loaders return: shapes, splits, scaling; and what stands in for what is missing."""

import gzip
import hashlib
import os
import struct
import subprocess
import sys
import time
import warnings
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.compose import make_column_transformer
from sklearn.model_selection import GroupShuffleSplit
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from trainwell.datasets import (
    DataError,
    StandInWarning,
    fingerprint,
    load_concrete,
    load_fashion_mnist,
    load_red_wine,
    load_spotify,
    places,
)
from trainwell.datasets.manifest import embedded_folder, manifest
from trainwell.datasets.simulate import simulate_spotify

# As it was when the tests started: the real songs, if this machine has them.
REAL_DATA = os.environ.get("TRAINWELL_DATA", "")
HAS_SONGS = bool(REAL_DATA) and (Path(REAL_DATA).expanduser() / "spotify_songs.csv").is_file()
REAL_IMAGES = places.places(manifest()["fashion-mnist"])  # where a loader looks
needs_songs = pytest.mark.skipif(not HAS_SONGS, reason="TRAINWELL_DATA has no spotify_songs.csv")
needs_images = pytest.mark.skipif(
    not REAL_IMAGES, reason="the images of Fashion-MNIST are nowhere on this machine"
)


@pytest.fixture(autouse=True)
def _only_what_is_embedded(monkeypatch, tmp_path):
    monkeypatch.delenv("TRAINWELL_DATA", raising=False)
    monkeypatch.setenv("TRAINWELL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TRAINWELL_OFFLINE", "1")


@pytest.fixture
def _no_system_images(monkeypatch):
    entry = replace(manifest()["fashion-mnist"], system_folder="")
    monkeypatch.setitem(manifest(), "fashion-mnist", entry)


def idx(array):
    return gzip.compress(
        struct.pack(f">HBB{array.ndim}i", 0, 8, array.ndim, *array.shape) + array.tobytes(), 1
    )


@pytest.fixture(scope="module")
def numbered(tmp_path_factory):
    """A set as large as Fashion-MNIST, whose images are two pixels that spell their number."""
    folder = tmp_path_factory.mktemp("numbered")
    files = {}
    for part, count in [("train", 60_000), ("test", 10_000)]:
        numbers = np.arange(count)
        images = np.stack([numbers // 256, numbers % 256], axis=1).astype(np.uint8)
        for kind, array in [("x", images[:, None, :]), ("y", (numbers % 10).astype(np.uint8))]:
            data = idx(array)
            (folder / f"{part}-{kind}.gz").write_bytes(data)
            files[f"{part}-{kind}.gz"] = hashlib.sha256(gzip.decompress(data)).hexdigest()
    return replace(manifest()["fashion-mnist"], files=files, system_folder=str(folder))


def numbers_of(x):
    pixels = np.rint(x * 255).astype(int)
    return pixels[:, 0, 0] * 256 + pixels[:, 0, 1]


@pytest.fixture
def _numbered(numbered, monkeypatch):
    monkeypatch.setitem(manifest(), "fashion-mnist", numbered)


# Fashion-MNIST ---------------------------------------------------------------------------------


@pytest.mark.usefixtures("_numbered")
def test_fashion_mnist_by_default_has_the_usual_sizes_and_splits_by_seed():
    data = load_fashion_mnist()
    train, valid = numbers_of(data.x_train), numbers_of(data.x_valid)
    assert (len(train), len(valid), len(data.x_test)) == (55_000, 5_000, 10_000)
    assert sorted([*train, *valid]) == list(range(60_000))
    np.testing.assert_array_equal(data.y_train, train % 10)
    np.testing.assert_array_equal(data.y_valid, valid % 10)
    np.testing.assert_array_equal(numbers_of(data.x_test), np.arange(10_000))
    assert not data.stand_in
    assert (data.x_train.dtype, data.y_train.dtype) == (np.float32, np.int32)

    same, other = load_fashion_mnist(seed=0), load_fashion_mnist(seed=1)
    np.testing.assert_array_equal(numbers_of(same.x_train), train)
    assert set(numbers_of(other.x_valid)) != set(valid)
    # A shuffled part is no run of neighbours.
    assert len(set(valid // 1000)) == 60


@pytest.mark.usefixtures("_numbered")
def test_fashion_mnist_without_a_seed_is_the_published_split():
    data = load_fashion_mnist(seed=None)
    np.testing.assert_array_equal(numbers_of(data.x_train), np.arange(55_000))
    np.testing.assert_array_equal(numbers_of(data.x_valid), np.arange(55_000, 60_000))


@pytest.mark.usefixtures("_numbered")
def test_a_smaller_training_part_begins_a_larger_one_beside_the_same_validation():
    small, large = load_fashion_mnist(train_size=1_000), load_fashion_mnist(train_size=20_000)
    assert (len(small.x_train), len(large.x_train)) == (1_000, 20_000)
    np.testing.assert_array_equal(small.x_train, large.x_train[:1_000])
    np.testing.assert_array_equal(small.x_valid, large.x_valid)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"train_size": 55_001}, r"train_size must be between 1 and 55,000 .*got 55001"),
        ({"train_size": 0}, "train_size must be a whole number, at least 1, got 0"),
        ({"train_size": 1e3}, "train_size must be a whole number, at least 1, got 1000.0"),
        ({"validation_size": 1000.5}, "validation_size must be a whole number, .*got 1000.5"),
        ({"train_size": 50_001, "validation_size": 10_000}, "between 1 and 50,000"),
        ({"validation_size": 0}, "validation_size must be a whole number, at least 1, got 0"),
        ({"validation_size": 60_000}, "validation_size must be between 1 and 59,999"),
    ],
)
@pytest.mark.usefixtures("_no_system_images")
def test_sizes_that_cannot_be_had_are_errors_even_on_the_subset(sizes, message):
    with pytest.raises(ValueError, match=message):
        load_fashion_mnist(**sizes)


@pytest.mark.parametrize("load", [load_concrete, load_fashion_mnist, load_red_wine, load_spotify])
@pytest.mark.parametrize("seed", [-1, 0.5, "0"])
def test_a_seed_is_a_whole_number(load, seed):
    with pytest.raises(ValueError, match=f"seed must be a whole number, at least 0, got {seed!r}"):
        load(seed=seed)


@pytest.mark.parametrize("load", [load_concrete, load_red_wine, load_spotify])
def test_a_table_is_never_split_without_a_seed(load):
    with pytest.raises(ValueError, match="seed must be a whole number, at least 0, got None"):
        load(seed=None)


@pytest.mark.usefixtures("_no_system_images")
def test_the_embedded_subset_stands_in_with_a_warning():
    with pytest.warns(StandInWarning, match=r"subset of 6,000 \+ 1,000 .*TRAINWELL_OFFLINE"):
        data = load_fashion_mnist(train_size=20_000)
    assert data.stand_in
    assert data.source == "Subset of Fashion-MNIST, 6,000 + 1,000 images (embedded)"
    shapes = data.x_train.shape, data.x_valid.shape, data.x_test.shape
    assert shapes == ((5_500, 28, 28), (500, 28, 28), (1_000, 28, 28))
    assert data.x_train.min() == 0
    assert data.x_train.max() == 1
    np.testing.assert_array_equal(
        np.bincount(np.concatenate([data.y_train, data.y_valid])), [600] * 10
    )
    np.testing.assert_array_equal(np.bincount(data.y_test), [100] * 10)
    assert len(data.class_names) == 10
    with pytest.warns(StandInWarning):
        assert len(load_fashion_mnist(train_size=100).x_train) == 100


@needs_images
def test_the_real_images_have_the_published_moments_and_hold_the_subset(monkeypatch):
    monkeypatch.setenv("TRAINWELL_DATA", str(REAL_IMAGES[0].folder))
    data = load_fashion_mnist(seed=None)
    assert data.source == "Fashion-MNIST, 60,000 + 10,000 images (TRAINWELL_DATA)"
    everything = np.concatenate([data.x_train, data.x_valid])
    assert everything.mean() == pytest.approx(0.2860, abs=1e-4)  # as published with the set
    assert everything.std() == pytest.approx(0.3530, abs=1e-4)
    # The first training images, as the set's README shows them: an ankle boot, two T-shirts.
    assert [data.class_names[label] for label in data.y_train[:3]] == [
        "Ankle boot",
        "T-shirt/top",
        "T-shirt/top",
    ]
    monkeypatch.delenv("TRAINWELL_DATA")
    entry = replace(manifest()["fashion-mnist"], system_folder="")
    monkeypatch.setitem(manifest(), "fashion-mnist", entry)
    with pytest.warns(StandInWarning):
        subset = load_fashion_mnist(seed=None)
    real = {x.tobytes(): y for x, y in zip(data.x_test, data.y_test, strict=True)}
    found = [real.get(x.tobytes()) for x in subset.x_test]
    np.testing.assert_array_equal(found, subset.y_test)


# The songs -------------------------------------------------------------------------------------


@pytest.fixture
def _simulated():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StandInWarning)
        yield


def as_in_the_lesson(songs, seed):
    """The preparation of the published exercise, with a seed (Kaggle, Holbrook)."""
    y = songs["track_popularity"] / 100
    artists = songs["track_artist"]
    features = [
        "danceability",
        "energy",
        "key",
        "loudness",
        "mode",
        "speechiness",
        "acousticness",
        "instrumentalness",
        "liveness",
        "valence",
        "tempo",
        "duration_ms",
    ]
    prepare = make_column_transformer(
        (StandardScaler(), features), (OneHotEncoder(), ["playlist_genre"])
    )
    splitter = GroupShuffleSplit(train_size=0.75, random_state=seed)
    train, valid = next(splitter.split(songs, y, groups=artists))
    x_train = prepare.fit_transform(songs.iloc[train])
    return x_train, y.iloc[train], prepare.transform(songs.iloc[valid]), y.iloc[valid]


@pytest.mark.usefixtures("_simulated")
@pytest.mark.parametrize("seed", [0, 1])
def test_no_artist_is_on_both_sides_and_the_parts_are_the_lessons(seed):
    data = load_spotify(seed=seed)
    train, valid = set(data.groups_train), set(data.groups_valid)
    assert not train & valid
    assert len(train) == int(0.75 * 10_692)
    assert len(train | valid) == 10_692
    assert len(data.groups_train) == len(data.x_train) == len(data.y_train)
    assert len(data.groups_valid) == len(data.x_valid) == len(data.y_valid)

    songs = simulate_spotify(embedded_folder() / places.SPOTIFY_MOMENTS)
    expected = as_in_the_lesson(songs, seed)
    parts = data.x_train, data.y_train, data.x_valid, data.y_valid
    for ours, lesson in zip(parts, expected, strict=True):
        assert ours.dtype == np.float32
        np.testing.assert_allclose(ours, np.asarray(lesson), rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("_simulated")
def test_the_songs_scaler_knows_the_training_part_only():
    data = load_spotify()
    audio = data.x_train[:, :12].astype(np.float64)
    np.testing.assert_allclose(audio.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(audio.std(axis=0), 1, atol=1e-5)
    assert abs(data.x_valid[:, :12].mean(axis=0)).max() > 1e-3
    np.testing.assert_array_equal(data.x_train[:, 12:].sum(axis=1), 1)
    assert data.feature_names[:2] == ("danceability", "energy")
    assert data.feature_names[12:14] == ("playlist_genre_edm", "playlist_genre_latin")
    assert data.y_train.min() >= 0
    assert 0.9 < data.y_train.max() <= 1


def test_simulated_songs_stand_in_with_a_warning():
    with pytest.warns(StandInWarning, match=r"simulated songs stand in.*data --fetch"):
        data = load_spotify()
    assert data.stand_in
    assert data.source == "Simulated Spotify songs, 32,828 rows (not the real ones)"
    assert repr(data).startswith("Dataset(Simulated Spotify songs, 32,828 rows")


@needs_songs
def test_the_real_songs_are_prepared_as_in_the_lesson(monkeypatch):
    monkeypatch.setenv("TRAINWELL_DATA", REAL_DATA)
    data = load_spotify(seed=3)
    assert data.source == "Spotify songs of TidyTuesday, 32,828 rows (TRAINWELL_DATA)"
    assert not data.stand_in
    songs = pd.read_csv(Path(REAL_DATA).expanduser() / "spotify_songs.csv").dropna()
    parts = data.x_train, data.y_train, data.x_valid, data.y_valid
    for ours, lesson in zip(parts, as_in_the_lesson(songs, 3), strict=True):
        np.testing.assert_allclose(ours, np.asarray(lesson), rtol=1e-5, atol=1e-5)
    assert not set(data.groups_train) & set(data.groups_valid)


# Concrete and wine -----------------------------------------------------------------------------

TABLES = {
    "concrete": (load_concrete, "concrete.csv", "CompressiveStrength", (721, 309)),
    "red-wine": (load_red_wine, "winequality-red.csv", "quality", (1119, 480)),
}


@pytest.mark.parametrize("name", TABLES)
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_tables_are_split_as_in_the_lesson_and_scaled_on_the_training_part(name, seed):
    load, file, target, sizes = TABLES[name]
    table = pd.read_csv(embedded_folder() / file)
    train = table.sample(frac=0.7, random_state=seed)
    valid = table.drop(train.index)
    assert (len(train), len(valid)) == sizes

    raw = load(seed=seed, standardize=False)
    for part, x, y in [(train, raw.x_train, raw.y_train), (valid, raw.x_valid, raw.y_valid)]:
        np.testing.assert_array_equal(x, part.drop(columns=target).to_numpy(np.float32))
        np.testing.assert_array_equal(y, part[target].to_numpy(np.float32))
        assert (x.dtype, y.dtype) == (np.float32, np.float32)

    scaled = load(seed=seed)
    mean = train.drop(columns=target).mean()
    std = train.drop(columns=target).std(ddof=0)
    for part, x in [(train, scaled.x_train), (valid, scaled.x_valid)]:
        expected = (part.drop(columns=target) - mean) / std
        np.testing.assert_allclose(x, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(scaled.y_train, raw.y_train)
    assert scaled.feature_names == tuple(table.columns.drop(target))
    assert scaled.x_test is None
    assert not scaled.stand_in


def test_without_copies_no_wine_is_there_twice():
    table = pd.read_csv(embedded_folder() / "winequality-red.csv")
    wines = load_red_wine(copies=False, standardize=False)
    assert (wines.x_train.shape, wines.x_valid.shape) == ((951, 11), (408, 11))
    x = np.concatenate([wines.x_train, wines.x_valid])
    y = np.concatenate([wines.y_train, wines.y_valid])
    rows = set(map(tuple, np.column_stack([x, y])))
    assert len(rows) == 1_359
    assert rows == set(map(tuple, table.to_numpy(np.float32)))
    scaled = load_red_wine(copies=False).x_train
    np.testing.assert_allclose(scaled.mean(axis=0), 0, atol=1e-5)


def test_a_data_set_is_frozen():
    with pytest.raises(FrozenInstanceError):
        load_concrete().name = "other"


# Where data is looked for ----------------------------------------------------------------------


def test_places_are_tried_in_order(tmp_path, monkeypatch):
    entry = replace(manifest()["concrete"], system_folder=str(tmp_path / "system"))
    monkeypatch.setitem(manifest(), "concrete", entry)
    monkeypatch.setenv("TRAINWELL_DATA", str(tmp_path / "mine"))
    good = (embedded_folder() / "concrete.csv").read_bytes()
    folders = [tmp_path / "mine", tmp_path / "cache" / "concrete", tmp_path / "system"]
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / "concrete.csv").write_bytes(good)
    for kind, folder in zip(["TRAINWELL_DATA", "cache", "system package"], folders, strict=True):
        assert f"({kind})" in load_concrete().source
        (folder / "concrete.csv").unlink()
    # An empty folder is no error: the next place is tried.
    assert "(embedded)" in load_concrete().source


def test_a_relative_folder_is_the_same_one_from_everywhere(tmp_path, monkeypatch):
    """A page's kernel and nbval work in other folders than the one where `make` was called."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "concrete.csv").write_bytes(
        (embedded_folder() / "concrete.csv").read_bytes()
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRAINWELL_DATA", "mine")
    monkeypatch.setenv("TRAINWELL_CACHE", "cached")
    monkeypatch.setenv("TRAINWELL_RUNS", "~/runs")
    in_the_kernel = (
        "import os; from trainwell.datasets import load_concrete, places;"
        "print(load_concrete().source, places.cache_folder(), os.environ['TRAINWELL_RUNS'])"
    )
    as_the_build_does = (
        "import subprocess, sys; import trainwell.datasets;"
        f"subprocess.run([sys.executable, '-c', {in_the_kernel!r}], cwd='/', check=True)"
    )
    command = [sys.executable, "-c", as_the_build_does]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "(TRAINWELL_DATA)" in shown
    assert shown.split()[-2:] == [str(tmp_path / "cached"), str(Path.home() / "runs")]


def test_a_set_may_lie_in_a_subfolder_of_its_name(tmp_path, monkeypatch):
    (tmp_path / "concrete").mkdir()
    text = (embedded_folder() / "concrete.csv").read_text()
    (tmp_path / "concrete" / "concrete.csv").write_text(text)
    monkeypatch.setenv("TRAINWELL_DATA", str(tmp_path))
    assert "(TRAINWELL_DATA)" in load_concrete().source


def test_a_wrong_file_of_the_system_is_passed_over(tmp_path, monkeypatch):
    entry = replace(manifest()["concrete"], system_folder=str(tmp_path))
    monkeypatch.setitem(manifest(), "concrete", entry)
    (tmp_path / "concrete.csv").write_text("a,b\n1,2\n")
    with pytest.warns(UserWarning, match=r"lacks the columns.*system package is passed over"):
        assert "(embedded)" in load_concrete().source


def test_a_set_in_part_is_passed_over_and_said_so(tmp_path, monkeypatch):
    subset = manifest()["fashion-mnist-subset"]
    for name in list(subset.files)[:3]:
        (tmp_path / name).symlink_to(places.embedded_folder() / subset.name / name)
    monkeypatch.setenv("TRAINWELL_DATA", str(tmp_path))
    with pytest.warns(UserWarning, match=f"but for {list(subset.files)[3]}: it is passed over"):
        assert [place.kind for place in places.places(subset)] == ["embedded"]


def test_a_file_of_trainwell_that_is_gone_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(places, "embedded_folder", lambda: tmp_path)
    with pytest.raises(DataError, match=r"lacks files of Concrete.*: concrete.csv\. Install"):
        load_concrete()
    for call in (load_spotify, fingerprint):
        with (
            warnings.catch_warnings(action="ignore"),
            pytest.raises(DataError, match=r"simulated songs.*: spotify-moments.json\. Install"),
        ):
            call()


@pytest.mark.parametrize(
    ("platform", "variables", "folder"),
    [
        ("linux", {}, "HOME/.cache/trainwell"),
        ("linux", {"XDG_CACHE_HOME": "/xdg"}, "/xdg/trainwell"),
        ("darwin", {}, "HOME/Library/Caches/trainwell"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local/trainwell"),
        ("linux", {"TRAINWELL_CACHE": "~/elsewhere"}, "HOME/elsewhere"),
    ],
)
def test_the_cache_is_where_the_platform_keeps_it(platform, variables, folder, monkeypatch):
    monkeypatch.setenv("HOME", "/home/reader")
    for name in ("TRAINWELL_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", platform)
    assert str(places.cache_folder()) == folder.replace("HOME", "/home/reader")


# The fingerprint -------------------------------------------------------------------------------


def test_the_fingerprint_names_exactly_the_data_in_use(tmp_path, monkeypatch):
    embedded = fingerprint()
    assert embedded == fingerprint()
    monkeypatch.setenv("TRAINWELL_DATA", str(tmp_path))
    assert fingerprint() == embedded  # an empty folder changes nothing
    copy = tmp_path / "concrete.csv"
    copy.write_bytes((embedded_folder() / "concrete.csv").read_bytes())
    mine = fingerprint()
    assert mine != embedded
    copy.write_text(copy.read_text() + "1,2,3,4,5,6,7,8,9\n")
    assert fingerprint() not in (mine, embedded)


@pytest.mark.usefixtures("_no_system_images")
def test_the_fingerprint_tells_a_stand_in_from_the_real_set(tmp_path, monkeypatch):
    stand_in = fingerprint()
    folder = tmp_path / "cache" / "fashion-mnist"
    folder.mkdir(parents=True)
    for name in manifest()["fashion-mnist"].files:
        (folder / name).write_bytes(b"anything")
    assert fingerprint() != stand_in


def test_the_fingerprint_is_quick_and_needs_no_heavy_import():
    code = (
        "import sys; from trainwell.datasets import fingerprint; fingerprint();"
        "print([m for m in ('keras', 'tensorflow', 'pandas', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    start = time.perf_counter()
    fingerprint()
    assert time.perf_counter() - start < 1
