"""What the course's pages get for their readers, when Sphinx makes them.

- The first use of a glossary's term in the text of a chapter links to its entry. So do plurals.
- A page that says "The page runs in about two minutes on two cores." tells the time that it took
  in this build instead, from `course_runs_file`. Before the first build, the sentence stays.
- Korean in a page's text has `lang="ko"`, so that a screen reader speaks it as Korean.
"""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.domains.std import StandardDomain
from sphinx.transforms import SphinxTransform
from sphinx.transforms.post_transforms import SphinxPostTransform

CHAPTERS = "chapters/"
# Where a link would be in the way, or can't be.
NO_TEXT = (
    nodes.title,
    nodes.rubric,
    nodes.term,
    nodes.caption,
    nodes.reference,
    pending_xref,  # a link to another page, which Sphinx has not resolved yet
    nodes.literal,
    nodes.FixedTextElement,
    nodes.math,
    nodes.math_block,
    nodes.raw,
)
# What the chapters call a term as well; each name always means the term.
OTHER_NAMES = {
    "1cycle": "1cycle scheduling",
    "adaptive method": "adaptive learning rate",
    "adaptive optimizer": "adaptive learning rate",
    "adaptive step": "adaptive learning rate",
    "batch norm": "batch normalization",
    "choose a strength": "regularization strength",
    "functional": "functional api",
    "generalisation gap": "generalization gap",
    "glorot": "glorot initialization",
    "initial weight": "weight initialization",
    "initializer": "weight initialization",
    "l1": "l1 regularization",
    "l1 norm": "norm",
    "l2": "l2 regularization",
    "l2 norm": "norm",
    "lecun": "lecun initialization",
    "loss": "loss function",
    "max-norm": "max-norm regularization",
    "min-max": "min-max scaling",
    "nesterov": "nesterov accelerated gradient",
    "piecewise": "piecewise constant scheduling",
    "saddle": "saddle point",
    "self-normalizing": "self-normalization",
    "sequential": "sequential api",
    "sgd": "stochastic gradient descent",
    "sparse network": "sparse model",
    "standardise": "standardization",
    "standardised": "standardization",
    "standardising": "standardization",
    "strength of the decay": "regularization strength",
}
# Words that hold a term, and are none.
NO_TERMS = ["feature map", "layer norm", "promise about patience", "step by step", "eight steps"]
# Steps of a walk, not of training.
NO_TERMS += ["line a step", "step that bought", "every step is compared"]
RUNS_IN = re.compile(r"The page runs in about [^.]+ on two cores\.")
HANGUL = "[\u1100-\u11ff\u3130-\u318f\uac00-\ud7a3]"
# A run of words: "완전 연결 층".
KOREAN = rf"{HANGUL}(?:[ -]?{HANGUL})*"
NO_WORDS = r"<(script|style|svg|pre|code)\b.*?</\2>|<!--.*?-->|<[^>]*>"
MARKUP_OR_KOREAN = re.compile(rf"({NO_WORDS})|({KOREAN})", re.DOTALL)


class GlossaryLinks(SphinxPostTransform):
    """Link the first use of each term in a chapter to the glossary."""

    default_priority = 8  # before Sphinx resolves the links that the author wrote

    def run(self) -> None:
        page = self.env.docname
        if not page.startswith(CHAPTERS):
            return
        objects = cast(StandardDomain, self.env.get_domain("std")).objects.items()
        # The Korean terms are read in the glossary, where they stand beside the English ones.
        terms = {
            name: place for (kind, name), place in objects if kind == "term" and name.isascii()
        }
        places = {name.lower(): place for name, place in terms.items()}
        if not places:
            return
        pattern = pattern_of(places)
        for text in list(self.document.findall(nodes.Text)):
            if is_running_text(text):
                text.parent.replace(text, self.linked(page, text, pattern, places))

    def linked(
        self,
        page: str,
        text: nodes.Text,
        pattern: re.Pattern[str],
        places: dict[str, tuple[str, str]],
    ) -> list[nodes.Node]:
        """Return the parts of a text; a term that becomes a link leaves `places`."""
        parts: list[nodes.Node] = []
        end = 0
        for match in pattern.finditer(text):
            place = places.pop(term_of(match), None)
            if place is None:  # linked already, or no term
                continue
            uri = f"{self.app.builder.get_relative_uri(page, place[0])}#{place[1]}"
            parts.append(nodes.Text(text[end : match.start()]))
            parts.append(nodes.reference("", match[0], refuri=uri, classes=["tw-term"]))
            end = match.end()
        return [*parts, nodes.Text(text[end:])]


def pattern_of(terms: Iterable[str]) -> re.Pattern[str]:
    """Return what finds these terms in a text, their other names, and what is no term."""
    # The longest first: "learning rate schedule" is no "learning rate".
    names = [*terms, *OTHER_NAMES, *NO_TERMS]
    longest = "|".join(sorted(map(re.escape, names), key=len, reverse=True))
    words = longest.replace(r"\ ", r"\s+")  # a line may break between them
    return re.compile(rf"(?<![\w-])({words})(?:e?s)?(?![\w-])", re.IGNORECASE)


def term_of(match: re.Match[str]) -> str:
    """Return the term that a match of `pattern_of` means."""
    name = " ".join(match[1].lower().split())
    return OTHER_NAMES.get(name, name)


def is_running_text(node: nodes.Node) -> bool:
    """Tell whether a text is read as such: it stands in a paragraph, and is no link or code."""
    in_paragraph = False
    while node.parent is not None:
        node = node.parent
        if isinstance(node, NO_TEXT) or "cell" in node.get("classes", []):
            return False
        in_paragraph = in_paragraph or isinstance(node, nodes.paragraph)
    return in_paragraph


class MeasuredTime(SphinxTransform):
    """Tell the time that a page took in this build, where its author typed an estimate."""

    default_priority = 500

    def apply(self, **kwargs: Any) -> None:
        for text in list(self.document.findall(nodes.Text)):
            if RUNS_IN.search(text):
                self.env.note_dependency(self.config.course_runs_file)
                path = Path(self.env.srcdir, self.config.course_runs_file)
                how = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
                for run in how.get("pages", []):
                    # The tests of the chapters keep outputs without their times.
                    if run["page"] == self.env.docname and run["execution_seconds"] > 0:
                        told = measured(run["execution_seconds"], how["build"]["Pages at once"])
                        text.parent.replace(text, nodes.Text(RUNS_IN.sub(told, text)))


def measured(seconds: float, pages_at_once: str) -> str:
    """Return the sentence that tells a time, to five seconds."""
    minutes, rest = divmod(max(5, 5 * round(seconds / 5)), 60)
    parts = [f"{minutes}\u00a0min"] * (minutes > 0) + [f"{rest}\u00a0s"] * (rest > 0)
    pages = f"{pages_at_once} pages at once" if pages_at_once != "1" else "one page at a time"
    return f"The page ran in about {' '.join(parts)} in this build, which ran {pages}."


def mark_korean(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Tell a page's readers aloud which of its words are Korean."""
    context["body"] = MARKUP_OR_KOREAN.sub(
        lambda m: m[1] or f'<span lang="ko">{m[3]}</span>', context.get("body", "")
    )


def setup(app: Sphinx) -> dict[str, Any]:
    app.setup_extension("course")  # course_runs_file
    app.add_post_transform(GlossaryLinks)
    app.add_transform(MeasuredTime)
    app.connect("html-page-context", mark_korean)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
