"""The prose lint finds what it is for, and passes what is right."""

import re
from pathlib import Path

import prose
import pytest

# What reading takes, beside 200 words a minute: shown code, a look at a figure, a formula.
WORDS_A_MINUTE = 200
CODE_LINES_A_MINUTE = 50
MINUTES_A_FIGURE = 1.0
MINUTES_A_FORMULA = 0.5
# A page says it to five minutes; a minute more, and a new paragraph does not change it.
TOLERANCE_MINUTES = 6
SHOWS = re.compile(r"^\s*show(?:_interactive)?\(", re.MULTILINE)

CELL = "```{code-cell} python3\n:tags: [hide-input]\nglue('gap', 0.31)\n```\n"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("It reaches 0.89 in ten epochs.", "0.89 is neither glued nor cited"),
        ("It reaches .89 in ten epochs.", ".89 is neither"),
        ("- an item with 3.5 in it", "3.5 is neither"),
        ("A step takes 0.5s, twice as long.", "0.5 is neither"),
        ("It is 2.5x as fast.", "2.5 is neither"),
        ("The rate is 1.5e-3.", "1.5 is neither"),
        ("It has 3.5M weights.", "3.5 is neither"),
        ("It takes .25s.", ".25 is neither"),
        ("| a |\n|---|\n| 1.5 |\n", "1.5 is neither"),
        ("## A heading with 0.2", "0.2 is neither"),
        ("```{note}\nHidden 0.7 in a note.\n```", "0.7 is neither"),
        (":::{note}\nHidden 0.7 in a note.\n:::", "0.7 is neither"),
        ("::::{tip}\n:::{note}\nTwice 0.7 deep.\n:::\n::::", "0.7 is neither"),
        ("Cited {cite}`li2019`.\n\nThe next paragraph says 0.62.", "0.62 is neither"),
        ("First it says 0.62. Then 0.7 {cite}`li2019`.", "0.62 is neither"),
        ("First it says\n0.62! Then 0.7 {cite}`li2019`.", "0.62 is neither"),
        ("The error falls by 11.4 %.", "11.4 is neither"),
        ("Of 11.4 errors, 11.3 points are left.", "11.3 is neither"),
        ("The strength is 11.5 MPa.", "11.5 is neither"),
        ("On 11.3 and 11.4 points", "11.4 is neither"),
        ("<p>It is 0.35.</p>", "0.35 is neither"),
        ("<div>\n<b>Gains</b> of 0.35\n</div>", "0.35 is neither"),
        ("It gains <b>0.35</b> in all.", "0.35 is neither"),
        (":::{admonition} Gains 0.35\nText.\n:::", "1: 0.35 is neither"),
        ("It gains {sub}`0.35` and more.", "0.35 is neither"),
        ("So {claim}`it gains 0.35 <it-gains>`.", "0.35 is neither"),
        ("The rate is 0,5.", "0,5 is neither"),
        ("It falls by 12,75 points.", "12,75 is neither"),
        ("![](picture.png)", "without alt text"),
        ("```{figure} picture.png\nA caption\n```", "without alt text"),
        ("The gap is {glue:text}`gap:.2f`.", "'gap' is not glued"),
    ],
)
def test_finds(text: str, problem: str) -> None:
    assert any(problem in found for found in prose.check(text)), prose.check(text)


@pytest.mark.parametrize(
    "text",
    [
        "Section 11.4.2 is in section 11.4.",
        "The pages 11.4.2, 11.4.3 and 11.5.",
        "# 11.4 Regularization",
        "The slides on 11.3 to 11.5, also on 11.3, and *optimizers* (11.4) in [11.5](page.md).",
        "The ratio is 0.62. {cite}`li2019` Next.",
        "The ratio is 0.62, the\nother {cite:t}`li2019`'s.",
        "The rate is $p = 0.2$ and `rate=0.2`.",
        "$$ 0.5 + 0.5 = 1.0 $$",
        "The ratio is 0.62 {cite}`li2019`.",
        "```python\nx = 0.5\n```",
        "```{figure} picture.png\n:alt: Two curves that part\nA caption\n```",
        "![Two curves](picture.png)",
        CELL + "\nThe gap is {glue:text}`gap:.2f`.",
        "Five of 5 seeds, 20,000 images, 95 %.",
        "Of 1,000,000 in [0,1] and (0,5), the seeds 1,2,3 and 10,11,12.",
        '<p style="width: 0.5em"><!-- 0.5 --> Text <svg><text>0.5</text></svg></p>',
        ":::{admonition} The ratio is 0.62 {cite}`li2019`\nText.\n:::",
        "```{figure} picture-0.5.png\n:alt: Two curves that part\nA caption\n```",
        "In v0.5 and Python3.11, as in 2.16.1, 11.10.2 and 2.0.0rc1.",
    ],
)
def test_passes(text: str) -> None:
    assert prose.check(text) == []


def test_a_method_must_be_cited_where_it_is_named(tmp_path: Path) -> None:
    bib = tmp_path / "references.bib"
    bib.write_text("@misc{smith2020,\n title = {X},\n keywords = {Zoneout, zone-out},\n}\n")
    introduced = prose.methods(bib)
    assert introduced == {"Zoneout": {"smith2020"}, "zone-out": {"smith2020"}}
    assert prose.check("We use zoneout here.", introduced) == [
        "0: names 'Zoneout' and does not cite smith2020"
    ]
    assert prose.check("We use zoneout {cite:p}`other, smith2020` here.", introduced) == []
    assert prose.check("Nothing of the kind, nor zoneouts.", introduced) == []


def test_the_line_of_a_problem_is_right() -> None:
    found = prose.check("# Title\n\nText.\n\n:::{note}\nFirst.\n\nThen 0.5.\n:::\n")
    assert found == ["8: 0.5 is neither glued nor cited: Then 0.5."]


def reading_minutes(text: str) -> float:
    """Return what a page takes to read; code that is folded away is not read."""
    minutes = 0.0
    for _, token in prose.blocks(text):
        for child in token.children or [] if token.type == "inline" else []:
            if child.type in ("text", "code_inline"):
                minutes += len(child.content.split()) / WORDS_A_MINUTE
        if prose.directive(token) == "code-cell":
            minutes += MINUTES_A_FIGURE * len(SHOWS.findall(token.content))
            if "hide-input" not in token.content:
                lines = [x for x in token.content.splitlines() if x and not x.startswith(":")]
                minutes += len(lines) / CODE_LINES_A_MINUTE
        elif token.type == "math_block" or prose.directive(token) == "math":
            minutes += MINUTES_A_FORMULA
    return minutes


CHAPTERS = sorted((prose.ROOT / "chapters").glob("*.md"))


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda chapter: chapter.stem)
def test_a_page_says_how_long_it_takes_to_read(chapter: Path) -> None:
    text = chapter.read_text()
    (stated,) = re.findall(r"^Reading takes about (\d+) minutes[,.]", text, re.MULTILINE)
    assert int(stated) == pytest.approx(reading_minutes(text), abs=TOLERANCE_MINUTES)


def test_reading_takes_longer_with_code_figures_and_formulas() -> None:
    words = "word " * 400
    assert reading_minutes(words) == 2
    code = "x = 1\n" * 100
    assert reading_minutes(f"```{{code-cell}} ipython3\n{code}```\n") == 2
    hidden = f"```{{code-cell}} ipython3\n:tags: [hide-input]\n{code}show(fig)\n```\n"
    assert reading_minutes(hidden) == 1
    assert reading_minutes("$$x = 1$$\n") == 0.5
