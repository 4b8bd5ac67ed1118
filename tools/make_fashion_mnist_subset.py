"""Make the embedded subset of Fashion-MNIST from the full set.

    python tools/make_fashion_mnist_subset.py

finds the full set as the loaders do and writes `datasets/fashion-mnist-subset/`: 600 training
and 100 test images of each class, drawn by seed, in the order of the full set. The output is
the same bytes every time; it prints what belongs in `datasets/manifest.json`.
"""

import gzip
import hashlib
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainwell.datasets.manifest import manifest
from trainwell.datasets.places import find

FOLDER = Path(__file__).parents[1] / "datasets" / "fashion-mnist-subset"
PER_CLASS = {"train": 600, "test": 100}
CLASSES = 10
SEED = 0


def balanced_rows(labels: NDArray[np.uint8], per_class: int) -> NDArray[np.int64]:
    rng = np.random.default_rng(SEED)
    rows = [rng.choice(np.flatnonzero(labels == c), per_class, False) for c in range(CLASSES)]
    return np.sort(np.concatenate(rows))


def write_idx(path: Path, array: NDArray[Any]) -> None:
    header = struct.pack(f">HBB{array.ndim}i", 0, 8, array.ndim, *array.shape)
    data = header + array.tobytes()
    # Neither a name nor a time goes into the file, so the bytes depend on the data only.
    path.write_bytes(gzip.compress(data, compresslevel=9, mtime=0))
    print(f'"{path.name}": "{hashlib.sha256(data).hexdigest()}",')


def main() -> None:
    found = find(manifest()["fashion-mnist"])
    if found is None:
        raise SystemExit("The full set is needed: python -m trainwell data --fetch")
    files, _ = found
    images, labels, test_images, test_labels = files.values()
    FOLDER.mkdir(parents=True, exist_ok=True)
    for part, x, y in [("train", images, labels), ("test", test_images, test_labels)]:
        rows = balanced_rows(y, PER_CLASS[part])
        write_idx(FOLDER / f"{part}-images-subset.gz", x[rows])
        write_idx(FOLDER / f"{part}-labels-subset.gz", y[rows])


if __name__ == "__main__":
    main()
