"""The prose lint finds what it is for, and passes what is right."""

from pathlib import Path

import prose
import pytest

CELL = "```{code-cell} python3\n:tags: [hide-input]\nglue('gap', 0.31)\n```\n"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("It reaches 0.89 in ten epochs.", "0.89 is neither glued nor cited"),
        ("It reaches .89 in ten epochs.", ".89 is neither"),
        ("- an item with 3.5 in it", "3.5 is neither"),
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
