"""The course's Sphinx extension: the directive `{claims}`, a table of every claim of the book.

It reads the file `course_claims_file`, relative to the source folder: a list of the records
that `trainwell.claims` writes, each with the `page` it stands on and that page's `title`. A
page with the directive is read again when the file changes.
"""

import json
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

COLUMNS = ["Page", "Sentence", "Evidence", "Kind", "State"]

logger = logging.getLogger(__name__)


class Claims(SphinxDirective):
    """Render the collected claims as a table, or say that there are none yet."""

    def run(self) -> list[nodes.Node]:
        self.env.note_dependency(self.config.course_claims_file)
        path = Path(self.env.srcdir, self.config.course_claims_file)
        records = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
        if not records:
            return [nodes.paragraph(text="No claims collected yet: build the whole book first.")]
        group = nodes.tgroup(cols=len(COLUMNS))
        group += [nodes.colspec(colwidth=width) for width in (15, 35, 35, 5, 10)]
        group += nodes.thead("", _row([nodes.Text(name) for name in COLUMNS]))
        group += nodes.tbody("", *(self.claim_row(record) for record in records))
        return [nodes.table("", group, classes=["tw-claims"])]

    def claim_row(self, record: dict[str, Any]) -> nodes.row:
        source = f" Data: {record['source']}." if record["source"] else ""
        reason = f": {record['reason']}" if record["reason"] else ""
        texts = [
            record["sentence"],
            record["summary"] + source,
            record["kind"],
            record["status"] + reason,
        ]
        row = _row([self.link(record), *(nodes.Text(text) for text in texts)])
        row["classes"] = [f"tw-{record['kind']}", f"tw-{record['status'].replace(' ', '-')}"]
        return row

    def link(self, record: dict[str, Any]) -> nodes.Node:
        """Return a link to the claim's box, whose id Sphinx does not know: a cell wrote it."""
        page = record["page"]
        if page not in self.env.found_docs:
            logger.warning(
                "%s names the page %r, which the book does not have. Build the whole book again.",
                self.config.course_claims_file,
                page,
                location=self.get_location(),
            )
            return nodes.Text(record["title"])
        uri = self.env.app.builder.get_relative_uri(self.env.docname, page)
        return nodes.reference("", record["title"], refuri=f"{uri}#{record['id']}", internal=True)


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


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("config-inited", _accept_records)
    app.add_config_value("course_claims_file", "_build/claims.json", "env", str)
    # Sphinx does not see that an extension changed: a new value makes it write every page anew.
    app.add_config_value("course_extension_key", "", "html", str)
    app.add_directive("claims", Claims)
    app.connect("html-page-context", _mend_page, priority=900)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
