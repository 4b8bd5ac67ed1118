"""The three tables: songs, concrete and wine."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trainwell._checks import check_whole
from trainwell.datasets.dataset import Dataset, StandInWarning
from trainwell.datasets.manifest import manifest
from trainwell.datasets.places import embedded, find, spotify_moments, why_not
from trainwell.datasets.simulate import simulate_spotify

if TYPE_CHECKING:
    import pandas as pd

TRAIN_SHARE_SPOTIFY = 0.75  # of the artists
TRAIN_SHARE = 0.7  # of the rows, for concrete and wine


def load_spotify(*, seed: int = 0) -> Dataset:
    """Load the Spotify songs, split by artist: no artist is on both sides.

    Inputs are the 12 audio features, standardised, then 6 columns with a one for the genre of
    the playlist: 18 in all. The target is the song's popularity divided by 100. The scaler
    and the encoder are fitted on the training part only.

    Args:
        seed: Seed of the split: three quarters of the artists train.

    Returns:
        `x_train` and `x_valid` as float32 (songs, 18), targets as float32 (songs,) in [0, 1],
        the artist of every song in `groups_train` and `groups_valid`; no test part. Where the
        real songs can't be had, simulated ones stand in, with a `StandInWarning`.

    Raises:
        ValueError: If `seed` is no whole number, 0 or more.
        DataError: If the file in `TRAINWELL_DATA` is wrong, the cache can't be written, or a file
            that comes with trainwell is gone.
    """
    from sklearn.compose import make_column_transformer
    from sklearn.model_selection import GroupShuffleSplit
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    check_whole("seed", seed, 0)
    songs, source, stand_in = _songs()
    features = list(manifest()["spotify"].numbers)
    features.remove("track_popularity")
    artists = songs["track_artist"].to_numpy(dtype=object)
    splitter = GroupShuffleSplit(n_splits=1, train_size=TRAIN_SHARE_SPOTIFY, random_state=seed)
    train, valid = next(splitter.split(songs, groups=artists))

    inputs = make_column_transformer(
        (StandardScaler(), features),
        (OneHotEncoder(sparse_output=False), ["playlist_genre"]),
        verbose_feature_names_out=False,
    )
    popularity = songs["track_popularity"].to_numpy(np.float32) / np.float32(100)
    return Dataset(
        name="spotify",
        source=source,
        stand_in=stand_in,
        x_train=inputs.fit_transform(songs.iloc[train]).astype(np.float32),
        y_train=popularity[train],
        x_valid=inputs.transform(songs.iloc[valid]).astype(np.float32),
        y_valid=popularity[valid],
        feature_names=tuple(inputs.get_feature_names_out()),
        groups_train=artists[train],
        groups_valid=artists[valid],
    )


def _songs() -> tuple[pd.DataFrame, str, bool]:
    """Return the songs, their source in words, and whether they are simulated."""
    entry = manifest()["spotify"]
    found = find(entry)
    if found:
        files, place = found
        (songs,) = files.values()
        return songs, f"{entry.title}, {entry.contents} ({place.kind})", False
    warnings.warn(
        f"{entry.title} are not here, so simulated songs stand in. {why_not(entry)}",
        StandInWarning,
        stacklevel=3,
    )
    songs = simulate_spotify(spotify_moments())
    return songs, f"Simulated Spotify songs, {len(songs):,} rows (not the real ones)", True


def load_concrete(*, seed: int = 0, standardize: bool = True) -> Dataset:
    """Load Concrete Compressive Strength (Yeh, 1998; UCI): strength from a mixture and its age.

    Args:
        seed: Seed of the split; 70 % of the rows train.
        standardize: Whether to give every feature mean 0 and standard deviation 1 on the
            training part; False returns kg per cubic metre, and days for `Age`.

    Returns:
        `x_train` (721, 8) and `x_valid` (309, 8) as float32; targets as float32 in MPa, never
        scaled; no test part.

    Raises:
        ValueError: If `seed` is no whole number, 0 or more.
        DataError: If the file in `TRAINWELL_DATA` is wrong.
    """
    return _load_table("concrete", "CompressiveStrength", seed, standardize)


def load_red_wine(*, seed: int = 0, standardize: bool = True, copies: bool = True) -> Dataset:
    """Load red Vinho Verde wines (Cortez et al., 2009; UCI): quality from 11 measurements.

    Args:
        seed: Seed of the split; 70 % of the rows train.
        standardize: Whether to give every feature mean 0 and standard deviation 1 on the
            training part; False returns the units of the data card.
        copies: Whether to keep the 240 rows that are exact copies of others. If they stay, about
            a fifth of the validation wines are among the training wines too.

    Returns:
        `x_train` (1119, 11) and `x_valid` (480, 11) as float32, without copies (951, 11) and
        (408, 11); targets as float32, the median grade of at least three tasters, 0 (bad) to 10
        (excellent); no test part.

    Raises:
        ValueError: If `seed` is no whole number, 0 or more.
        DataError: If the file in `TRAINWELL_DATA` is wrong.
    """
    return _load_table("red-wine", "quality", seed, standardize, copies)


def _load_table(
    name: str, target: str, seed: int, standardize: bool, copies: bool = True
) -> Dataset:
    check_whole("seed", seed, 0)
    entry = manifest()[name]
    files, place = embedded(entry)
    (table,) = files.values()
    if not copies:
        table = table.drop_duplicates()
    train = table.sample(frac=TRAIN_SHARE, random_state=seed)
    valid = table.drop(train.index)
    features = [column for column in entry.numbers if column != target]
    x_train, x_valid = train[features].to_numpy(), valid[features].to_numpy()
    if standardize:
        x_train, x_valid = _standardized(x_train, x_valid)
    return Dataset(
        name=name,
        source=f"{entry.title}, {len(table):,} rows ({place.kind})",
        stand_in=False,
        x_train=x_train.astype(np.float32),
        y_train=train[target].to_numpy(np.float32),
        x_valid=x_valid.astype(np.float32),
        y_valid=valid[target].to_numpy(np.float32),
        feature_names=tuple(features),
    )


def _standardized(
    x_train: NDArray[Any], x_valid: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Scale both parts with the means and standard deviations of the training part."""
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(x_train)
    return scaler.transform(x_train), scaler.transform(x_valid)
