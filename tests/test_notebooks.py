"""The chapters' notebooks, which the book's Colab buttons lead to."""

import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from book import pages
from notebooks import chapters, in_a_notebook, notebook

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "_ext"))

from course import colab_notebook  # noqa: E402

MARKUP = re.compile(r"\{[a-z:]+\}`|^:::|^```\{|\]\([^h)][^)]*\)|^\([\w-]+\)=$", re.MULTILINE)


def test_every_button_of_the_book_leads_to_a_notebook() -> None:
    made = {f"notebooks/{chapter}.ipynb" for chapter in chapters()}
    labs = {f"main/{path.relative_to(ROOT)}" for path in (ROOT / "labs/notebooks").glob("*.ipynb")}
    buttons = [colab_notebook(page, page in chapters()) for page in pages()]
    assert {button for button in buttons if button} == made | labs


@pytest.mark.parametrize("chapter", chapters())
def test_a_chapter_sets_itself_up_and_needs_only_the_package(chapter: str) -> None:
    made = notebook(chapter)
    nbformat.validate(made)
    setup, *cells = made.cells
    assert setup.source.startswith("# Run this cell first.")
    assert '"--no-deps"' in setup.source
    for cell in cells:
        if cell.cell_type == "markdown":
            assert MARKUP.findall(cell.source) == []
        else:
            compile(cell.source, chapter, "exec")
            assert "myst_nb" not in cell.source
            assert cell.outputs == []


def test_what_only_the_book_can_show_becomes_words() -> None:
    text = """\
(a-label)=
Adam {cite}`kingma2015` needs {glue:text}`epochs:.1f` epochs: {ref}`see <guide-risk>`,
{claim}`why <x-1>`, [](11_4_2_dropout.md), [a page](../grading.md#the-seed), [below](#here).

:::{dropdown} Answers
1. Yes.
:::
"""
    assert (
        in_a_notebook(text, ROOT / "chapters")
        == """\
Adam [kingma2015] needs `epochs` epochs: *see*,
*why*, *11.4.2 Dropout*, *a page*, *below*.

<details><summary>Answers</summary>

1. Yes.

</details>
"""
    )


def test_what_is_glued_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    first = next(c for c in notebook("chapters/11_4_2_dropout").cells if "def glue" in c.source)
    names: dict[str, object] = {}
    exec(first.source[first.source.index("def glue") :], names)
    names["glue"]("epochs", 3, display=False)  # type: ignore[operator]
    assert capsys.readouterr().out == "epochs: 3\n"


def test_the_branch_holds_what_was_made_last(tmp_path: Path) -> None:
    (tmp_path / "tools").mkdir()
    script = tmp_path / "tools" / "push_notebooks.sh"
    script.write_text((ROOT / "tools" / script.name).read_text())
    made = tmp_path / "_build" / "notebooks" / "chapters"
    made.mkdir(parents=True)
    origin = tmp_path / "origin.git"
    subprocess.run(["git", "init", "--quiet", "--bare", origin], check=True)
    for name in ("old", "new"):
        for path in made.iterdir():
            path.unlink()
        (made / f"{name}.ipynb").write_text("{}")
        subprocess.run(["bash", script, origin], check=True)
    tree = ["git", "-C", str(origin), "ls-tree", "-r", "--name-only", "notebooks"]
    assert subprocess.run(tree, check=True, capture_output=True, text=True).stdout.split() == [
        "chapters/new.ipynb"
    ]
