"""Sizes in both profiles; what stands in `runtime.py` alone."""

import re
from pathlib import Path

import pytest
from new_process import in_a_new_process

from trainwell.runtime import epochs, examples, profile, seeds, settings


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setenv("TRAINWELL_PROFILE", "quick")


@pytest.fixture
def full(monkeypatch):
    monkeypatch.delenv("TRAINWELL_PROFILE", raising=False)


def test_full_is_the_default_and_changes_nothing(full):
    assert profile() == "full"
    assert (seeds(5), epochs(20), examples(55_000)) == ([0, 1, 2, 3, 4], 20, 55_000)
    assert settings(rate for rate in (0.1, 0.3, 1.0)) == [0.1, 0.3, 1.0]
    assert settings([0.1, 0.3, 1.0], preview=1) == [0.1, 0.3, 1.0]


def test_quick_grants_less(quick):
    assert profile() == "quick"
    assert (seeds(5), epochs(20), examples(55_000)) == ([0], 2, 1_000)
    assert settings([0.1, 0.3, 1.0]) == [0.1, 1.0]
    assert settings([0.1, 0.3, 1.0], preview=1) == [0.1]
    assert settings([], preview=1) == []


def test_quick_never_grants_more(quick):
    assert (seeds(1), epochs(1), examples(10)) == ([0], 1, 10)
    assert settings(["only"]) == ["only"]
    assert settings([]) == []


@pytest.mark.parametrize("size", [seeds, epochs, examples])
def test_a_size_below_one_is_an_error(full, size):
    with pytest.raises(ValueError, match="at least 1, got 0"):
        size(0)


def test_an_unknown_profile_is_an_error(monkeypatch):
    monkeypatch.setenv("TRAINWELL_PROFILE", "fast")
    with pytest.raises(ValueError, match="'full' or 'quick', got 'fast'"):
        profile()


def test_the_backend_is_imported_here_alone():
    package = Path(__file__).parent.parent / "src" / "trainwell"
    backend = re.compile(r"^\s*(import|from) (tensorflow|jax|keras\.src)\b", re.MULTILINE)
    found = {p.name for p in package.rglob("*.py") if backend.search(p.read_text("utf-8"))}
    assert found == {"runtime.py"}


KERNELS = """
import keras
import numpy as np
import tensorflow as tf
from tensorflow.python import pywrap_tfe
from trainwell import runtime
from trainwell.models import mlp
from trainwell.training import fit

thrown_away = []
throw_away = pywrap_tfe.TFE_ContextClearCaches
pywrap_tfe.TFE_ContextClearCaches = lambda context: thrown_away.append(throw_away(context))


def eager():
    keras.utils.set_random_seed(3)
    return [tf.random.normal([2]), tf.random.uniform([2], seed=1), tf.random.uniform([2], seed=1)]


def in_a_data_set():
    keras.utils.set_random_seed(3)
    numbers = tf.data.Dataset.range(9).shuffle(9).map(lambda i: tf.random.uniform([]))
    return list(numbers)


def trained():
    keras.utils.set_random_seed(3)
    model = mlp((4,), inputs=(2,), dropout=0.5)
    model.compile("sgd", "sparse_categorical_crossentropy")
    fit(model, np.ones((8, 2), "float32"), np.arange(8), epochs=2)
    return model.get_weights()


def thrown_away_by(function, expected):
    before = len(thrown_away)
    for one, other in zip(function(), expected, strict=True):
        np.testing.assert_array_equal(one, other)
    return len(thrown_away) - before


functions = [eager, in_a_data_set, trained]
expected = [function() for function in functions]
runtime.keep_kernels()
for _ in range(2):
    assert thrown_away_by(eager, expected[0]) == 1
    assert thrown_away_by(in_a_data_set, expected[1]) == 1
for _ in range(runtime.SEEDS_WITH_SAME_KERNELS - 1):
    assert thrown_away_by(trained, expected[2]) == 0
assert thrown_away_by(trained, expected[2]) == 1, "those of models that are gone would stay"

traced = tf.function(lambda: tf.random.uniform([2]))


def in_a_function():
    keras.utils.set_random_seed(3)
    return traced()


expected.append(in_a_function())
for _ in range(2):
    assert thrown_away_by(in_a_function, expected[3]) == 1
    assert thrown_away_by(trained, expected[2]) == 1
"""


def test_kernels_are_kept_and_no_number_depends_on_it():
    in_a_new_process(KERNELS)
