"""Make the chapters' notebooks: `make notebooks`.

They go to `_build/notebooks`. The workflow that publishes the site pushes that folder to the
branch `notebooks`, from where Colab opens them. They have no outputs: whoever opens one runs it,
and its first cell installs the course's package where it is missing.
"""

import re
import shutil
from pathlib import Path
from typing import Any

import jupytext
import nbformat
import yaml
from myst_nb.core.read import is_myst_markdown_notebook

from trainwell.labs.build import as_file, setup_cell

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "_build" / "notebooks"
# What only the book can show, and what a notebook shows in its place.
LINK = re.compile(r"\[(?P<text>[^\]]*)\]\((?:(?P<file>[^)#\s]+\.md)(#[^)]*)?|#[^)]*)\)")
IN_TEXT = [
    (re.compile(r"\{glue:text\}`([^`:]+)[^`]*`"), r"`\1`"),
    (re.compile(r"\{cite(?::t)?\}`([^`]+)`"), r"[\1]"),
    (re.compile(r"\{(?:ref|claim)\}`([^`<]+?) *<[^`]*`"), r"*\1*"),
    (re.compile(r"^\([\w-]+\)=\n", re.MULTILINE), ""),
    (
        re.compile(r"^:::\{dropdown\} (.+)\n((?:.*\n)*?):::$", re.MULTILINE),
        r"<details><summary>\1</summary>\n\n\2\n</details>",
    ),
]
# Colab has no myst_nb. The text names what a cell glues.
GLUE = "from myst_nb import glue\n"
PRINT = """


def glue(name, value, display=True):
    print(f"{name}: {value}")"""


def chapters() -> list[str]:
    """Return the chapters with code, in reading order: `chapters/11_4_2_dropout`, say."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    names = [chapter["file"] for part in toc["parts"] for chapter in part["chapters"]]
    return [
        name
        for name in names
        if name.startswith("chapters/")
        and is_myst_markdown_notebook((ROOT / f"{name}.md").read_text(encoding="utf-8"))
    ]


def notebook(chapter: str) -> Any:
    """Return a chapter as a notebook that runs where only the package is installed."""
    source = ROOT / f"{chapter}.md"
    made = jupytext.read(source, fmt="md:myst")
    for number, cell in enumerate(made.cells, start=1):
        cell.id = f"cell-{number}"
        if cell.cell_type == "markdown":
            cell.source = in_a_notebook(cell.source, source.parent)
        elif GLUE in cell.source:
            cell.source = cell.source.replace(GLUE, "") + PRINT
    made.cells.insert(0, setup_cell(source.stem))
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    made.metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    made.nbformat_minor = 5  # the first whose cells have ids
    nbformat.validate(made)
    return made


def in_a_notebook(text: str, folder: Path) -> str:
    """Return a text without the book's markup; a link into the book becomes its words."""

    def name(link: re.Match[str]) -> str:
        if link["text"]:
            return f"*{link['text']}*"
        # A lab's page may not be made yet; its source has the same title.
        page = folder / link["file"].replace("labs/pages/", "labs/")
        lines = page.read_text(encoding="utf-8").splitlines()
        return f"*{next(line[2:] for line in lines if line.startswith('# '))}*"

    for pattern, instead in IN_TEXT:
        text = pattern.sub(instead, text)
    return LINK.sub(name, text)


def main() -> None:
    shutil.rmtree(OUT, ignore_errors=True)
    made = chapters()
    for chapter in made:
        path = OUT / f"{chapter}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(as_file(nbformat.from_dict(notebook(chapter))), encoding="utf-8")
    print(f"{len(made)} chapters are notebooks in {OUT.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
