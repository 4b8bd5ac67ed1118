"""Train on the real and on the simulated songs, and print both side by side.

    TRAINWELL_DATA=FOLDER python tools/compare_spotify_simulation.py

trains the network of the dropout lesson (128-64-1, adam, MAE, batch 512, 50 epochs) with and
without dropout and a linear model, for five split seeds on each data set, about two minutes
in all. The table goes into `datasets/cards/spotify.md`.
"""

import os
import warnings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np

from trainwell.datasets import Dataset, StandInWarning, load_spotify

SEEDS = range(5)
EPOCHS = 50
BATCH_SIZE = 512
MODELS = {
    "128-64-1": ((128, 64), 0.0),
    "128-64-1, dropout 0.3": ((128, 64), 0.3),
    "linear": ((), 0.0),
}


def lowest_validation_mae(data: Dataset, units: tuple[int, ...], rate: float, seed: int) -> float:
    keras.utils.set_random_seed(seed)
    # Made first, they draw the same weights with dropout as without: as in the chapter.
    hidden = [keras.layers.Dense(count, activation="relu") for count in units]
    output = keras.layers.Dense(1)
    model = keras.Sequential([keras.Input((data.x_train.shape[1],))])
    for layer in hidden:
        model.add(layer)
        model.add(keras.layers.Dropout(rate))
    model.add(output)
    steps = -(-len(data.x_train) // BATCH_SIZE)
    model.compile("adam", "mae", steps_per_execution=steps)
    history = model.fit(
        data.x_train,
        data.y_train,
        validation_data=(data.x_valid, data.y_valid),
        batch_size=BATCH_SIZE,
        epochs=EPOCHS,
        verbose=0,
    )
    return float(min(history.history["val_loss"]))


def main() -> None:
    real = [load_spotify(seed=seed) for seed in SEEDS]
    if real[0].stand_in:
        raise SystemExit("The real songs are needed: set TRAINWELL_DATA to their folder.")
    del os.environ["TRAINWELL_DATA"]
    os.environ["TRAINWELL_CACHE"] = os.devnull
    os.environ["TRAINWELL_OFFLINE"] = "1"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StandInWarning)
        simulated = [load_spotify(seed=seed) for seed in SEEDS]

    results = np.empty((2, len(MODELS), len(SEEDS)))
    for row, sets in enumerate((real, simulated)):
        for seed, data in zip(SEEDS, sets, strict=True):
            for column, (units, rate) in enumerate(MODELS.values()):
                results[row, column, seed] = lowest_validation_mae(data, units, rate, seed)
        print(("real", "simulated")[row])
        for name, maes in zip(MODELS, results[row], strict=True):
            print(f"  {name:24} {maes.mean():.4f} +- {maes.std(ddof=1):.4f}  {maes.round(4)}")
        gain = results[row, 0] - results[row, 1]
        print(
            f"  {'gain of dropout':24} {gain.mean():.4f} +- {gain.std(ddof=1):.4f}  {gain.round(4)}"
        )


if __name__ == "__main__":
    main()
