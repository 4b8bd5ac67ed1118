"""Fit the moments from which `trainwell.datasets.simulate` draws its songs.

    TRAINWELL_DATA=FOLDER python tools/fit_spotify_simulation.py

reads the real songs and writes `datasets/spotify-moments.json`: counts, quantiles,
correlations, shares of variance and regression coefficients. No row is kept.
`tools/compare_spotify_simulation.py` trains on both and compares.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import ndtri

from trainwell.datasets.manifest import manifest
from trainwell.datasets.places import SPOTIFY_MOMENTS, find

OUTPUT = Path(__file__).parents[1] / "datasets" / SPOTIFY_MOMENTS
TARGET = "track_popularity"
FEATURES = [name for name in manifest()["spotify"].numbers if name != TARGET]
# No minimum and maximum: those are values of single songs.
TAIL = [0.001, 0.005, 0.01, 0.025]
LEVELS = [*TAIL, *(n / 20 for n in range(1, 20)), *(1 - level for level in reversed(TAIL))]
RIDGE = 30.0  # keeps the coefficients of rare products small
# A network finds more than slopes and products. Their nonlinear part is made larger by this, the
# one number that is tuned by hand: so that a network gains over a linear model what it really does.
NONLINEAR = 1.25

Floats = NDArray[np.float64]


def real_songs() -> pd.DataFrame:
    found = find(manifest()["spotify"])
    if found is None:
        raise SystemExit("The real songs are needed: set TRAINWELL_DATA to their folder.")
    files, _ = found
    (songs,) = files.values()
    assert isinstance(songs, pd.DataFrame)
    return songs


def normal_scores(songs: pd.DataFrame, columns: list[str]) -> Floats:
    """Return the normal quantiles of each value's rank within its genre."""
    by_genre = songs.groupby("playlist_genre")
    sizes = by_genre[TARGET].transform("size").to_numpy()[:, None]
    return np.asarray(ndtri((by_genre[columns].rank().to_numpy() - 0.5) / sizes))


def artist_variance(values: Floats, artist: Floats) -> tuple[float, float]:
    """Split a variance into between and within artists (one-way random effects, by moments)."""
    groups = pd.Series(values).groupby(artist)
    sizes = groups.size().to_numpy()
    rows, artists = len(values), len(sizes)
    residuals = values - groups.transform("mean").to_numpy()
    within = float((residuals**2).sum()) / (rows - artists)
    between = float(((values - values.mean()) ** 2).sum() - (residuals**2).sum()) / (artists - 1)
    typical_size = (rows - (sizes**2).sum() / rows) / (artists - 1)
    return max(between - within, 0.0) / typical_size, within


def popularity_moments(
    scores: Floats, target: Floats, genre: Any, artist: Any, once: Any
) -> dict[str, Any]:
    """Regress popularity on slopes by genre and products of pairs; split what is left.

    All arguments have a value per row; `once` marks each song's first row, since repeats
    would pass for an effect of the artist.
    """
    i, j = np.triu_indices(len(FEATURES))
    by_genre = np.zeros((len(scores), genre.max() + 1, len(FEATURES)))
    by_genre[np.arange(len(scores)), genre] = scores
    design = np.hstack([scores[:, i] * scores[:, j], by_genre.reshape(len(scores), -1)])
    design -= design.mean(axis=0)
    penalty = RIDGE * np.eye(design.shape[1])
    slopes = np.linalg.solve(design.T @ design + penalty, design.T @ target)
    known = design @ slopes

    # The artist's own part is what the known part leaves of popularity's artist variance.
    of_artist = artist_variance(target[once], artist[once])[0]
    of_artist -= artist_variance(known[once], artist[once])[0]
    noise = target.var() - known.var() - of_artist

    products = np.zeros((len(FEATURES), len(FEATURES)))
    products[i, j] = NONLINEAR * slopes[: len(i)]
    linear = slopes[len(i) :].reshape(-1, len(FEATURES))
    linear = linear.mean(axis=0) + NONLINEAR * (linear - linear.mean(axis=0))
    return {
        "linear": linear.round(4).tolist(),
        "products": products.round(4).tolist(),
        "artist_variance": round(of_artist, 3),
        "noise_variance": round(float(noise), 3),
    }


def fit(songs: pd.DataFrame) -> dict[str, Any]:
    genres = sorted(songs["playlist_genre"].unique())
    genre = songs["playlist_genre"].map({name: n for n, name in enumerate(genres)}).to_numpy()
    artist = songs["track_artist"].to_numpy()
    shares = np.bincount(genre) / len(genre)
    scores, target = normal_scores(songs, FEATURES), normal_scores(songs, [TARGET])[:, 0]

    # A song in several playlists is several rows with the same values.
    once = ~songs.duplicated(["track_artist", TARGET, *FEATURES]).to_numpy()
    per_artist = songs["track_artist"].value_counts()
    parts = [artist_variance(column, artist[once]) for column in scores[once].T]
    return {
        "features": FEATURES,
        "genres": genres,
        "genre_shares": shares.tolist(),
        "main_genre_weight": round(main_genre_weight(songs, shares), 3),
        "rows_per_artist": np.column_stack(np.unique(per_artist, return_counts=True)).tolist(),
        "repeat_share": round(float((~once).sum() / (len(songs) - len(per_artist))), 3),
        "artist_share": [round(between / (between + within), 3) for between, within in parts],
        "correlations": [
            np.corrcoef(scores[genre == n].T).round(3).tolist() for n in range(len(genres))
        ],
        "levels": [round(level, 3) for level in LEVELS],
        "quantiles": {
            name: [
                [float(f"{value:.4g}") for value in songs[name][genre == n].quantile(LEVELS)]
                for n in range(len(genres))
            ]
            for name in [*FEATURES, TARGET]
        },
        "popularity": popularity_moments(scores, target, genre, artist, once),
    }


def main_genre_weight(songs: pd.DataFrame, shares: Floats) -> float:
    """Return the weight with which two songs of an artist share a genre as often as really."""
    counts = pd.crosstab(songs["track_artist"], songs["playlist_genre"]).to_numpy()
    sizes = counts.sum(axis=1)
    same = ((counts**2).sum() - sizes.sum()) / (sizes * (sizes - 1)).sum()
    chance = (shares**2).sum()
    return float(np.sqrt((same - chance) / (1 - chance)))


def main() -> None:
    moments = fit(real_songs())
    lines = (f" {json.dumps(name)}: {json.dumps(value)}" for name, value in moments.items())
    OUTPUT.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    print(f"{OUTPUT}: {OUTPUT.stat().st_size / 1e3:.1f} kB")


if __name__ == "__main__":
    main()
