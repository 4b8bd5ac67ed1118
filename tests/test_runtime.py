"""Sizes in both profiles; what stands in `runtime.py` alone."""

import re
from pathlib import Path

import pytest

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
