"""Whatever the five sources teach has its place in the book."""

from pathlib import Path

import pytest
import yaml
from book import pages

ROOT = Path(__file__).resolve().parent.parent
PLACES = yaml.safe_load((ROOT / "tests" / "inventory.yml").read_text())
ITEMS = {"S0": 13, "S1": 26, "S2": 19, "S3": 8, "S4": 20}  # how many each source has


def test_every_item_is_on_the_map() -> None:
    items = {f"{source}.{n}" for source, count in ITEMS.items() for n in range(1, count + 1)}
    assert set(PLACES) == items


@pytest.mark.parametrize("item", PLACES)
def test_the_book_teaches_it_where_the_map_says(item: str) -> None:
    page, text = PLACES[item]
    assert f"chapters/{page}" in pages()
    assert text in (ROOT / "chapters" / f"{page}.md").read_text()
