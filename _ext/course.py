"""The course's Sphinx extension: the directives `{claims}` and `{runs}`, the role `{claim}`.

`{claims}` is a table of every claim of the book. It reads the file `course_claims_file`, relative
to the source folder: a list of the records that `trainwell.claims` writes, each with the `page` it
stands on, that page's `title` and the id of the `figure` above it, or None. `claims.js` adds a
filter.

`{claim}` links words to a claim's box: "{claim}`more data <id>`". The claims page's links end in
"#claim-" and the id. An id that no claim has is a warning, for then the sentence has changed.

`{runs}` tells how the book was run. It reads `course_runs_file`: what the book was built with
(`build`, texts by name), and what the execution of each page took (`pages`).

A page with one of them is read again when its file changes.

The button that opens a page in Colab leads to a notebook of the repository `course_repository`, if
that is on GitHub: a lab's on the branch `main`, a chapter's on the branch `notebooks`, which
`tools/notebooks.py` fills. The theme's own button leads to the Markdown, which Colab can't open.
"""

import json
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.util import logging
from sphinx.util.docutils import ReferenceRole, SphinxDirective, SphinxRole

CLAIM_COLUMNS = {"Page": 14, "Sentence": 34, "Evidence": 26, "Kind": 16, "State": 10}
EVIDENCE = list(CLAIM_COLUMNS).index("Evidence")
RUN_COLUMNS = {"Page": 55, "Time": 15, "Processor time": 15, "Memory": 15}
TIMES = ("execution_seconds", "processor_seconds")  # in minutes and seconds

logger = logging.getLogger(__name__)


class Claims(SphinxDirective):
    """Render the collected claims as a table, or say that there are none yet."""

    def run(self) -> list[nodes.Node]:
        records = _read(self, self.config.course_claims_file)
        if not records:
            return [nodes.paragraph(text="No claims collected yet: build the whole book first.")]
        rows = [self.claim_row(record) for record in records]
        return [_table(CLAIM_COLUMNS, rows, "tw-claims")]

    def claim_row(self, record: dict[str, Any]) -> nodes.row:
        source = f" Data: {record['source']}." if record["source"] else ""
        reason = f": {record['reason']}" if record["reason"] else ""
        texts = [
            record["sentence"],
            record["summary"] + source,
            record["kind"],
            record["status"] + reason,
        ]
        link = _link_to(self, record, record["id"], record["title"])
        row = _row([link, *(nodes.Text(text) for text in texts)])
        if record.get("figure"):
            figure = _link_to(self, record, record["figure"], "Figure")
            row[EVIDENCE][0] += [nodes.Text(" "), figure]
        row["classes"] = [f"tw-{record['kind']}", f"tw-{record['status'].replace(' ', '-')}"]
        return row


class ClaimLink(ReferenceRole):
    """Link words to the claim that backs them."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        records = _read(self, self.config.course_claims_file)
        if records is None:  # nothing was executed yet
            return [nodes.Text(self.title)], []
        for record in records:
            if record["id"] == f"claim-{self.target}":
                return [_link_to(self, record, record["id"], self.title)], []
        message = "no claim of %s has the id 'claim-%s': its sentence may have changed."
        name = self.config.course_claims_file
        logger.warning(message, name, self.target, location=self.get_location())
        return [nodes.Text(self.title)], []


class Runs(SphinxDirective):
    """Render what the book was built with, and what each page took."""

    def run(self) -> list[nodes.Node]:
        how = _read(self, self.config.course_runs_file)
        if not how:
            return [nodes.paragraph(text="Nothing was run yet: build the whole book first.")]
        facts = nodes.definition_list()
        for name, text in how["build"].items():
            facts += nodes.definition_list_item(
                "", nodes.term(text=name), nodes.definition("", nodes.paragraph(text=text))
            )
        rows = [self.page_row(run) for run in how["pages"]]
        total = [
            "Sum over the pages",
            *_times(*(sum(run[c] for run in how["pages"]) for c in TIMES)),
            "",
        ]
        rows.append(_row([nodes.Text(text) for text in total]))
        return [facts, _table(RUN_COLUMNS, rows, "tw-runs")]

    def page_row(self, run: dict[str, Any]) -> nodes.row:
        uri = self.env.app.builder.get_relative_uri(self.env.docname, run["page"])
        link = nodes.reference("", run["title"], refuri=uri, internal=True)
        texts = [*_times(*(run[c] for c in TIMES)), f"{run['memory_bytes'] / 2**30:.1f} GiB"]
        return _row([link, *(nodes.Text(text) for text in texts)])


def _times(*seconds: float) -> list[str]:
    return [f"{int(s + 0.5) // 60}:{int(s + 0.5) % 60:02d}" for s in seconds]


def _read(reader: SphinxDirective | SphinxRole, name: str) -> Any:
    """Return what the build wrote into a file, or None if it has not yet."""
    reader.env.note_dependency(name)
    path = Path(reader.env.srcdir, name)
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def _link_to(
    reader: SphinxDirective | SphinxRole, record: dict[str, Any], place: str, title: str
) -> nodes.Node:
    """Return a link to a claim's box or figure, whose id Sphinx does not know: a cell wrote it."""
    page = record["page"]
    if page not in reader.env.found_docs:
        logger.warning(
            "%s names the page %r, which the book does not have. Build the whole book again.",
            reader.config.course_claims_file,
            page,
            location=reader.get_location(),
        )
        return nodes.Text(title)
    uri = reader.env.app.builder.get_relative_uri(reader.env.docname, page)
    return nodes.reference("", title, refuri=f"{uri}#{place}", internal=True)


def _table(columns: dict[str, int], rows: list[nodes.row], name: str) -> nodes.table:
    """Return a table: `columns` has the title and the width of each."""
    group = nodes.tgroup(cols=len(columns))
    group += [nodes.colspec(colwidth=width) for width in columns.values()]
    group += nodes.thead("", _row([nodes.Text(title) for title in columns]))
    group += nodes.tbody("", *rows)
    return nodes.table("", group, classes=[name, "colwidths-given"])


def _row(cells: list[nodes.Node]) -> nodes.row:
    return nodes.row("", *(nodes.entry("", nodes.paragraph("", "", cell)) for cell in cells))


def _accept_records(app: Sphinx, config: Config) -> None:
    # A claim's record rides in the cell's output, beside the HTML that the page shows.
    config.suppress_warnings = [*config.suppress_warnings, "mystnb.unknown_mime_type"]


def _mend_page(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Mend what the browser's checks find in the pages that Sphinx and Jupyter Book make."""
    # Jupyter Book loads Thebe twice, which is an error, and this book does not use it.
    context["script_files"] = [
        script for script in context["script_files"] if "thebe" not in str(script).lower()
    ]
    # A bibliography's entries are no list items, so a screen reader must not be told of a list.
    context["body"] = context.get("body", "").replace(
        '<div role="list" class="citation-list">', '<div class="citation-list">'
    )


def _add_colab_button(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Put a button for Colab on a lab's and a chapter's page."""
    notebook = colab_notebook(page, "kernelspec" in app.env.metadata.get(page, {}))
    on_github = "://github.com/" in app.config.course_repository
    if notebook is None or not on_github or "header_buttons" not in context:
        return
    colab = app.config.course_repository.replace(
        "://github.com/", "://colab.research.google.com/github/"
    )
    button = {
        "type": "link",
        "url": f"{colab}/blob/{notebook}",
        "text": "Colab",
        "tooltip": "Open this page as a notebook in Colab",
        "icon": "fas fa-rocket",
        "label": "colab-button",
    }
    context["header_buttons"].insert(0, button)


def colab_notebook(page: str, is_notebook: bool) -> str | None:
    """Return the branch and the path of the notebook that Colab opens for a page, if any."""
    if page.startswith("labs/pages/"):
        return f"main/labs/notebooks/{Path(page).name}.ipynb"
    if page.startswith("chapters/") and is_notebook:
        return f"notebooks/{page}.ipynb"
    return None


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("config-inited", _accept_records)
    app.add_config_value("course_claims_file", "_build/claims.json", "env", str)
    app.add_config_value("course_runs_file", "_build/runs.json", "env", str)
    app.add_config_value("course_repository", "", "html", str)
    # Sphinx does not see that an extension or a style changed: a new value makes it write all anew.
    app.add_config_value("course_extension_key", "", "html", str)
    app.add_directive("claims", Claims)
    app.add_directive("runs", Runs)
    app.add_role("claim", ClaimLink())
    app.connect("html-page-context", _mend_page, priority=900)
    app.connect("html-page-context", _add_colab_button, priority=900)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
