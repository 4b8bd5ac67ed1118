"""A seeded stand-in for the Spotify songs, for machines that can't have the real file.

The songs are not ours to share, so the repository holds only moments of them: quantiles,
correlations, counts and regression coefficients (`datasets/spotify-moments.json`, written by
`tools/fit_spotify_simulation.py`). From these the simulation draws a table with the same
columns, the same number of rows and the same sizes of artists. No row of it is a real song.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

WHOLE_NUMBERS = ("key", "mode", "duration_ms", "track_popularity")


def simulate_spotify(moments_file: Path, *, seed: int = 0) -> pd.DataFrame:
    """Draw a table of songs that behaves like the real one.

    Each artist has a main genre and an effect on every feature and on popularity, so songs of
    one artist are alike. Features within a genre are a Gaussian copula: correlated normal
    scores, mapped to the genre's own quantiles. Popularity is a function of the normal scores
    (linear by genre, plus products of pairs), the artist's effect and noise, mapped to
    the genre's quantiles as well. Some rows repeat a song of the same artist, as a song that
    stands in several playlists does.

    Args:
        moments_file: The JSON file of moments.
        seed: Seed of the draw; the same seed gives the same table.

    Returns:
        One row a song, in random order, with the columns `track_artist`, `track_popularity`
        (0 to 100), `playlist_genre` and the twelve audio features in Spotify's units.
    """
    import pandas as pd

    moments = json.loads(moments_file.read_text(encoding="utf-8"))
    features = moments["features"]
    rng = np.random.default_rng(seed)

    artist = _artists(moments["rows_per_artist"])
    genre = _genres(rng, artist, np.array(moments["genre_shares"]), moments["main_genre_weight"])
    song = _songs(rng, artist, moments["repeat_share"])
    scores = _normal_scores(rng, artist, genre, moments)
    popularity = _popularity_scores(rng, artist, genre, scores, moments)

    columns: dict[str, Floats | list[str]] = {
        "track_artist": [f"artist {number:05d}" for number in artist],
        "playlist_genre": [moments["genres"][number] for number in genre],
    }
    latent = dict(zip([*features, "track_popularity"], [*scores.T, popularity], strict=True))
    for name, of_name in latent.items():
        values = _to_quantiles(of_name, genre, moments["levels"], moments["quantiles"][name])
        # Every row has values of its own genre first; then a repeat takes those of its song.
        columns[name] = (np.rint(values) if name in WHOLE_NUMBERS else values)[song]
    return pd.DataFrame(columns).sample(frac=1, random_state=seed, ignore_index=True)


def _artists(rows_per_artist: list[tuple[int, int]]) -> Integers:
    """Return the artist's number of every row, from pairs (rows, artists with so many rows)."""
    sizes = np.concatenate([np.full(count, rows) for rows, count in rows_per_artist])
    return np.repeat(np.arange(len(sizes)), sizes)


def _genres(
    rng: np.random.Generator, artist: Integers, shares: Floats, main_weight: float
) -> Integers:
    """Give every row its artist's main genre with probability `main_weight`, else any genre."""
    main = rng.choice(len(shares), size=artist.max() + 1, p=shares)[artist]
    other = rng.choice(len(shares), size=len(artist), p=shares)
    return np.where(rng.random(len(artist)) < main_weight, main, other)


def _songs(rng: np.random.Generator, artist: Integers, repeat_share: float) -> Integers:
    """Return for every row the row whose song it is: its own, or an earlier one of the artist.

    `repeat_share` is the probability that a row which is not its artist's first repeats a song.
    """
    rows = np.arange(len(artist))
    first = np.searchsorted(artist, artist)
    earlier = first + np.floor(rng.random(len(rows)) * (rows - first)).astype(np.int64)
    song = np.where((rows > first) & (rng.random(len(rows)) < repeat_share), earlier, rows)
    while np.any(song[song] != song):  # a repeat of a repeat is the same song
        song = song[song]
    return song


def _normal_scores(
    rng: np.random.Generator, artist: Integers, genre: Integers, moments: dict[str, Any]
) -> Floats:
    """Draw correlated normal scores (rows, features): an artist's part and the song's own."""
    share = np.array(moments["artist_share"])  # of each feature's variance
    scores = np.empty((len(artist), len(share)))
    of_artist = rng.standard_normal((artist.max() + 1, len(share)))[artist]
    of_song = rng.standard_normal(scores.shape)
    for number, correlation in enumerate(moments["correlations"]):
        rows = genre == number
        factor = np.linalg.cholesky(np.array(correlation)).T
        scores[rows] = np.sqrt(share) * (of_artist[rows] @ factor)
        scores[rows] += np.sqrt(1 - share) * (of_song[rows] @ factor)
    return scores


def _popularity_scores(
    rng: np.random.Generator,
    artist: Integers,
    genre: Integers,
    scores: Floats,
    moments: dict[str, Any],
) -> Floats:
    """Return the score that orders songs by popularity: known part, artist's part, noise."""
    popularity = moments["popularity"]
    linear = np.array(popularity["linear"])[genre]  # (rows, features): slopes of the row's genre
    products = np.array(popularity["products"])  # (features, features), upper triangle
    known: Floats = np.sum(scores * linear, axis=1) + np.sum((scores @ products) * scores, axis=1)
    of_artist = rng.standard_normal(artist.max() + 1)[artist]
    noise = rng.standard_normal(len(artist))
    known += np.sqrt(popularity["artist_variance"]) * of_artist
    known += np.sqrt(popularity["noise_variance"]) * noise
    return known


def _to_quantiles(
    scores: Floats, genre: Integers, levels: list[float], quantiles: list[list[float]]
) -> Floats:
    """Map the ranks of the scores within each genre to that genre's quantiles."""
    values = np.empty(len(scores))
    for number, of_genre in enumerate(quantiles):
        rows = np.flatnonzero(genre == number)
        ranks = np.argsort(np.argsort(scores[rows], kind="stable"), kind="stable")
        values[rows] = np.interp((ranks + 0.5) / len(rows), levels, of_genre)
    return values
