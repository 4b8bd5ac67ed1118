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
    """Return the lines of code under each heading of a page."""
    found: dict[str, list[str]] = {}
    heading = ""
    for cell in jupytext.read(ROOT / "chapters" / f"{page}.md").cells:
        lines = cell.source.splitlines()
        if cell.cell_type == "code":
            # An import or a comment teaches nothing.
            code = [n for n in lines if not n.lstrip().startswith(("import ", "from ", "#"))]
            found.setdefault(heading, []).extend(code)
        elif headings := [line for line in lines if line.startswith("#")]:
            heading = headings[-1].lstrip("# ")
    return found


def test_every_item_is_on_the_map() -> None:
    items = {f"{source}.{n}" for source, count in ITEMS.items() for n in range(1, count + 1)}
    assert set(PLACES) == items
    bare = [n for n, places in PLACES.items() if not places or not all(places.values())]
    assert not bare, f"without a line of code: {bare}"


@pytest.mark.parametrize("item", PLACES)
def test_the_book_teaches_it_where_the_map_says(item: str) -> None:
    """Each place of an item is a section of a page, with its lines of code."""
    for place, code in PLACES[item].items():
        page, heading = place.split(" > ")
        assert f"chapters/{page}" in pages(), f"{item}: the book has no page {page}"
        taught = sections(page).get(heading)
        assert taught is not None, f"{item}: {page} has no section '{heading}' with code"
        for piece in code:
            assert any(piece in line for line in taught), f"{item}: not in {place}: {piece}"
