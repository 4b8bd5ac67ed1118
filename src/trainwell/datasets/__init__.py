"""Load, check and split the course's data sets.

Four loaders return the same small object, `Dataset`. `places` tells where data is looked for.
Nothing here imports Keras; pandas and scikit-learn are imported when a loader runs.
"""

from trainwell.datasets.dataset import DataError, Dataset, StandInWarning
from trainwell.datasets.fashion_mnist import load_fashion_mnist
from trainwell.datasets.places import fingerprint
from trainwell.datasets.tables import load_concrete, load_red_wine, load_spotify

__all__ = [
    "DataError",
    "Dataset",
    "StandInWarning",
    "fingerprint",
    "load_concrete",
    "load_fashion_mnist",
    "load_red_wine",
    "load_spotify",
]
