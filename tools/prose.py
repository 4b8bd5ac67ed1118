"""Check the text of the pages: numbers, figures, glue keys and citations.

A decimal in the text must come from a run (`{glue:}`) or from a paper (a `{cite}` in the same
sentence). A figure has alt text. A glue key that the text uses is glued on the page. A method
that a chapter names is cited there: `references.bib` lists, in its field `keywords`, the method
names that an entry introduces.
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from myst_parser.config.main import MdParserConfig
from myst_parser.parsers.mdit import create_md_parser
from pybtex.database import parse_file

ROOT = Path(__file__).resolve().parent.parent
# A decimal (0.5, .5), with a unit or not (0.5s), but no part of a longer number (11.4.2) or of a
# word that letters begin (v0.5). With a comma (0,5) it must not look like 10,000 or a list (1,2,3).
DECIMAL = re.compile(
    r"(?<![\w.])\d*\.\d+(?![\w.]*\.\d)|(?<![\w.,(\[])\d+,\d{1,2}(?![\w)\]]|[.,]\d)"
)
# What stands for a citation in a sentence, and for anything else that is no text: code, a link.
CITED, OTHER = "\N{REFERENCE MARK}", "\N{OBJECT REPLACEMENT CHARACTER}"
# A sentence may end before its citation.
SENTENCE_END = re.compile(rf"(?<=[.!?])\s+(?!{CITED})")
# 11.4 is a section where nothing that it could count follows, and what is before it says so.
NUMBER = r"11\.[3-5](?:\.\d)?"
SECTION = re.compile(
    rf"\b11\.[3-5]\.\d\b|(?:^|[({OTHER}]|\b(?:on|[Ss]ections?|[Pp]ages?|[Cc]hapters?) )"
    rf"{NUMBER}(?:(?: to| and|,) {NUMBER})*(?=$|[).,:;?{OTHER}](?!\d)| [A-Z][a-z])"
)
NO_TITLE = {"figure", "image"}  # their argument is a file
SHOWN_ROLES = {"sub", "sup", "abbr", "claim"}  # their text is the reader's
NO_HTML_TEXT = re.compile(r"<(script|style|svg)\b.*?</\1>|<!--.*?-->|<[^>]*>", re.DOTALL)
NO_PROSE = {"code-cell", "math", "code-block", "bibliography", "toctree"}
PARSER = create_md_parser(
    MdParserConfig(
        enable_extensions={"amsmath", "attrs_inline", "colon_fence", "deflist", "dollarmath"}
    ),
    RendererHTML,
)


def directive(token: Token) -> str | None:
    """Return the directive's name when the token is a fenced directive: `{note} ...` -> note."""
    match = re.match(r"\{([\w:-]+)\}", token.info)
    return match[1] if token.type in ("fence", "colon_fence") and match else None


def blocks(text: str, first_line: int = 1) -> Iterator[tuple[int, Token]]:
    """Yield (line, token) for every block, also for those inside directives."""
    for token in PARSER.parse(text):
        line = first_line + (token.map[0] if token.map else 0)
        yield line, token
        name = directive(token)
        if name and name not in NO_PROSE:
            if name not in NO_TITLE:
                yield from blocks(token.info.split("}", 1)[1], line)
            yield from blocks(token.content, line + 1)


def as_text(child: Token) -> str:
    """Return a piece of a paragraph as it counts in a sentence."""
    if child.type in ("softbreak", "hardbreak"):
        return " "
    if child.type == "myst_role" and "cite" in child.meta["name"]:
        return CITED
    if child.type == "myst_role" and child.meta["name"] in SHOWN_ROLES:
        return child.content.split(" <")[0]
    return child.content if child.type == "text" else OTHER


def check_numbers(line: int, token: Token) -> Iterator[str]:
    text = "".join(map(as_text, token.children or []))
    if token.type == "html_block":
        text = NO_HTML_TEXT.sub(" ", token.content)
    for sentence in SENTENCE_END.split(text):
        if CITED not in sentence:
            for match in DECIMAL.finditer(SECTION.sub("", sentence)):
                yield f"{line}: {match[0]} is neither glued nor cited: {sentence.strip()[:60]}"


def check_alt_text(line: int, token: Token) -> Iterator[str]:
    if directive(token) in ("figure", "image") and not re.search(
        r"^:alt:\s*\S", token.content, re.MULTILINE
    ):
        yield f"{line}: a figure without alt text (add ':alt: what the picture shows')"
    for child in token.children or []:
        if child.type == "image" and not child.content.strip():
            yield f"{line}: an image without alt text: {child.attrs.get('src')}"


def glue_keys_used(token: Token) -> Iterator[str]:
    for child in token.children or []:
        if child.type == "myst_role" and child.meta["name"].startswith("glue"):
            yield child.content.split(":")[0]
    if (directive(token) or "").startswith("glue"):
        yield token.info.split("}", 1)[1].strip()


def glue_keys_defined(token: Token) -> Iterator[str]:
    if directive(token) != "code-cell":
        return
    code = re.sub(r"^(---\n.*?\n---\n|(:[\w-]+:[^\n]*\n)+)", "", token.content, flags=re.DOTALL)
    for node in ast.walk(ast.parse(re.sub(r"^\s*[%!].*", "", code, flags=re.MULTILINE))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args:
            key = node.args[0]
            if node.func.id == "glue" and isinstance(key, ast.Constant):
                yield str(key.value)


def cited_keys(text: str) -> set[str]:
    found = re.findall(r"\{cite[\w:]*\}`([^`]+)`", text)
    return {key.strip() for group in found for key in group.split(",")}


def methods(bib: Path) -> dict[str, set[str]]:
    """Return {method name: the keys of the entries that introduce it}."""
    introduced: dict[str, set[str]] = {}
    for key, entry in parse_file(str(bib)).entries.items():
        for name in entry.fields.get("keywords", "").split(","):
            if name.strip():
                introduced.setdefault(name.strip(), set()).add(key)
    return introduced


def check_citations(text: str, prose: str, introduced: dict[str, set[str]]) -> Iterator[str]:
    for name, keys in introduced.items():
        found = re.search(rf"(?<!\w){re.escape(name)}(?!\w)", prose, re.IGNORECASE)
        if found and not keys & cited_keys(text):
            yield f"0: names '{name}' and does not cite {' or '.join(sorted(keys))}"


def check(text: str, introduced: dict[str, set[str]] | None = None) -> list[str]:
    """Return what is wrong with a page's text, each as 'line: problem'.

    Args:
        text: The page's Markdown.
        introduced: The methods that must be cited, as `methods` returns them.
    """
    problems: list[str] = []
    used: list[tuple[int, str]] = []
    defined: set[str] = set()
    prose: list[str] = []
    for line, token in blocks(text):
        problems += [*check_numbers(line, token), *check_alt_text(line, token)]
        used += [(line, key) for key in glue_keys_used(token)]
        defined |= set(glue_keys_defined(token))
        prose += [c.content for c in token.children or [] if c.type == "text"]
    problems += [f"{n}: the key '{k}' is not glued here" for n, k in used if k not in defined]
    return problems + list(check_citations(text, " ".join(prose), introduced or {}))


def main() -> int:
    introduced = methods(ROOT / "references.bib")
    count = 0
    folders = [
        "intro.md",
        "instructor.md",
        "claims.md",
        "chapters/*.md",
        "datasets/**/*.md",
        "labs/lab_*.md",
    ]
    for page in sorted(path for folder in folders for path in ROOT.glob(folder)):
        is_chapter = page.parent.name == "chapters"
        for problem in check(page.read_text(), introduced if is_chapter else None):
            print(f"{page.relative_to(ROOT)}:{problem}")
            count += 1
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main())
