"""The simulated songs: the moments that they are drawn from come out again."""

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import ndtri

from trainwell.datasets.manifest import embedded_folder, manifest
from trainwell.datasets.places import SPOTIFY_MOMENTS
from trainwell.datasets.simulate import simulate_spotify

FILE = embedded_folder() / SPOTIFY_MOMENTS
MOMENTS = json.loads(FILE.read_text())
REAL_SONGS = Path(os.environ.get("TRAINWELL_DATA") or "nowhere").expanduser() / "spotify_songs.csv"


@pytest.fixture(scope="module")
def songs():
    return simulate_spotify(FILE)


@pytest.fixture(scope="module")
def scores(songs):
    """Normal scores within each genre, of every feature and of popularity."""
    by_genre = songs.groupby("playlist_genre")
    ranks = by_genre[[*MOMENTS["features"], "track_popularity"]].rank()
    sizes = by_genre["tempo"].transform("size")
    return ranks.sub(0.5).div(sizes, axis=0).apply(ndtri)


def test_columns_size_and_groups_are_the_real_ones(songs):
    entry = manifest()["spotify"]
    assert set(songs.columns) == {*entry.texts, *entry.numbers}
    assert len(songs) == entry.rows == 32_828
    rows_per_artist = songs["track_artist"].value_counts().value_counts().sort_index()
    assert len(songs["track_artist"].unique()) == 10_692
    np.testing.assert_array_equal(
        np.column_stack([rows_per_artist.index, rows_per_artist]), MOMENTS["rows_per_artist"]
    )


def test_the_seed_decides(songs):
    pd.testing.assert_frame_equal(songs, simulate_spotify(FILE, seed=0))
    other = simulate_spotify(FILE, seed=1)
    assert set(songs["loudness"]) != set(other["loudness"])


def test_values_are_in_spotifys_units(songs):
    shares = ["danceability", "energy", "speechiness", "acousticness", "valence", "liveness"]
    assert songs[shares].min().min() >= 0
    assert songs[shares].max().max() <= 1
    assert set(songs["key"]) == set(range(12))
    assert set(songs["mode"]) == {0, 1}
    assert songs["track_popularity"].between(0, 100).all()
    for name in ("track_popularity", "duration_ms"):
        np.testing.assert_array_equal(songs[name], songs[name].round())


def test_genres_come_in_their_shares(songs):
    shares = songs["playlist_genre"].value_counts(normalize=True)[MOMENTS["genres"]]
    np.testing.assert_allclose(shares, MOMENTS["genre_shares"], atol=0.02)


@pytest.mark.parametrize("name", ["danceability", "loudness", "duration_ms", "track_popularity"])
def test_quantiles_within_a_genre_are_the_real_ones(songs, name):
    levels = np.array(MOMENTS["levels"])
    inner = (levels >= 0.1) & (levels <= 0.9)
    real = np.array(MOMENTS["quantiles"][name])[:, inner]
    simulated = [
        songs.loc[songs["playlist_genre"] == genre, name].quantile(levels[inner])
        for genre in MOMENTS["genres"]
    ]
    spread = real[:, -1] - real[:, 0]
    # Repeats go to other genres, so a genre's quantiles are not exactly those that it drew.
    np.testing.assert_array_less(abs(np.array(simulated) - real).max(axis=1) / spread, 0.06)


def test_correlations_within_genres_are_the_real_ones(songs, scores):
    for genre, expected in zip(MOMENTS["genres"], MOMENTS["correlations"], strict=True):
        rows = songs["playlist_genre"] == genre
        found = np.corrcoef(scores.loc[rows, MOMENTS["features"]].T)
        assert abs(found - expected).max() < 0.15
        assert abs(found - expected).mean() < 0.025


def test_songs_of_an_artist_are_alike(songs, scores):
    once = ~songs.duplicated(["track_artist", *MOMENTS["features"]])
    by_artist = songs[once].groupby("track_artist").cumcount()
    first, second = (
        scores[once][by_artist == n].set_index(songs.loc[once, "track_artist"][by_artist == n])
        for n in (0, 1)
    )
    # The correlation between an artist's first two songs is the share of variance that they share.
    found = first.loc[second.index].corrwith(second)
    np.testing.assert_allclose(found[MOMENTS["features"]], MOMENTS["artist_share"], atol=0.08)
    assert 0.1 < found["track_popularity"] < 0.35


def test_some_rows_repeat_a_song_of_the_same_artist(songs):
    repeats = songs.duplicated(["track_artist", "track_popularity", *MOMENTS["features"]])
    expected = MOMENTS["repeat_share"] * (len(songs) - 10_692)
    assert repeats.sum() == pytest.approx(expected, rel=0.05)
    # And no song is by two artists.
    assert (songs[["tempo", "loudness", "duration_ms"]].duplicated() <= repeats).all()


def test_popularity_depends_on_the_features_not_only_linearly(songs, scores):
    x = scores[MOMENTS["features"]].to_numpy()
    y = scores["track_popularity"].to_numpy()
    i, j = np.triu_indices(x.shape[1])
    linear = np.column_stack([np.ones(len(x)), x])
    products = np.column_stack([linear, x[:, i] * x[:, j]])
    explained = []
    for design in (linear, products):
        residual = y - design @ np.linalg.lstsq(design, y, rcond=None)[0]
        explained.append(1 - residual.var() / y.var())
    assert 0.04 < explained[0] < 0.12
    assert explained[1] > explained[0] + 0.005


def test_the_file_of_moments_names_no_song():
    def texts(value):
        if isinstance(value, dict):
            yield from (text for item in value.values() for text in texts(item))
        elif isinstance(value, list):
            yield from (text for item in value for text in texts(item))
        elif isinstance(value, str):
            yield value

    assert set(texts(MOMENTS)) == {*MOMENTS["features"], *MOMENTS["genres"]}


@pytest.mark.skipif(not REAL_SONGS.is_file(), reason="TRAINWELL_DATA has no spotify_songs.csv")
def test_no_simulated_row_is_a_real_song(songs):
    real = pd.read_csv(REAL_SONGS)
    columns = ["danceability", "energy", "loudness", "tempo"]
    both = songs[columns].round(3).merge(real[columns].round(3), how="inner")
    assert both.empty
