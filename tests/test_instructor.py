"""The page for instructors says what the pages and the labs say."""

import re
from pathlib import Path

from book import pages

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "instructor.md").read_text()
PLAN = re.findall(r"^\| \d \| (.+) \| (\d+) \| (.+) \|$", TEXT, re.MULTILINE)


def linked(text: str) -> list[str]:
    return re.findall(r"\]\((chapters/\w+)\.md\)", text)


def test_the_plan_has_every_chapter_once_and_adds_up() -> None:
    assert len(PLAN) == 4
    planned = [page for week, _, _ in PLAN for page in linked(week)]
    assert sorted(planned) == sorted(page for page in pages() if page.startswith("chapters/"))
    for week, minutes, _ in PLAN:
        texts = [(ROOT / f"{page}.md").read_text() for page in linked(week)]
        stated = [re.search(r"Reading takes about (\d+) minutes", text) for text in texts]
        assert sum(int(found[1]) for found in stated if found) == int(minutes)


def test_the_plan_gives_each_lab_the_minutes_that_it_states() -> None:
    planned = dict(re.findall(r"lab (\d) \((\d+)\)", " ".join(labs for _, _, labs in PLAN)))
    assert len(planned) == 8
    for source in (ROOT / "labs").glob("lab_*.md"):
        stated = re.search(r"about (\d+) minutes", source.read_text())
        assert stated is not None
        assert planned[source.name[4]] == stated[1], source.name


def test_there_is_a_misconception_for_each_chapter() -> None:
    table = TEXT[TEXT.index("## What students get wrong") : TEXT.index("## Points")]
    rows = [line for line in table.splitlines() if line.startswith("| [")]
    chapters = {page for page in pages() if page.startswith("chapters/")} - {"chapters/errata"}
    assert {page for row in rows for page in linked(row)} == chapters
