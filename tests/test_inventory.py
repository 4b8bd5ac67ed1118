"""Whatever the five sources teach has its place in the book."""

from functools import cache
from pathlib import Path

import jupytext
import pytest
import yaml
from book import pages

ROOT = Path(__file__).resolve().parent.parent
PLACES = yaml.safe_load((ROOT / "tests" / "inventory.yml").read_text())
ITEMS = {"S0": 13, "S1": 26, "S2": 19, "S3": 8, "S4": 20}  # how many each source has


@cache
def sections(page: str) -> dict[str, list[str]]:
    """Return the lines of the code cells below each heading of a page, imports left out."""
    found: dict[str, list[str]] = {}
    heading = ""
    for cell in jupytext.read(ROOT / "chapters" / f"{page}.md").cells:
        lines = cell.source.splitlines()
        if cell.cell_type == "code":
            code = [line for line in lines if not line.startswith(("import ", "from "))]
            found.setdefault(heading, []).extend(code)
        elif headings := [line for line in lines if line.startswith("#")]:
            heading = headings[-1]
    return found


def test_every_item_is_on_the_map() -> None:
    items = {f"{source}.{n}" for source, count in ITEMS.items() for n in range(1, count + 1)}
    assert set(PLACES) == items


@pytest.mark.parametrize("item", PLACES)
def test_the_book_teaches_it_where_the_map_says(item: str) -> None:
    """Below a heading that has a cell, or in a line of a cell."""
    page, text = PLACES[item]
    assert f"chapters/{page}" in pages()
    places = sections(page)
    assert text in places or any(text in line for lines in places.values() for line in lines)
