"""What the pages get for their readers: links to the glossary, measured times, Korean marked."""

import io
import json
import re
from pathlib import Path

import book as book_tool
import prose
import pytest
from sphinx.application import Sphinx
from sphinx.util.docutils import docutils_namespace

EXTENSIONS = str(Path(__file__).parents[1] / "_ext")
GLOSSARY = """
Glossary
========

.. glossary::

   learning rate
   학습률
      The size of a step.

   learning rate schedule
      A rule that changes it.

   batch
      Some examples.

   batch normalization
      A layer.

   feature
      A column.

   norm
      A length.

   patience
      A number of epochs.

   step
      One update.
"""


@pytest.fixture
def book(tmp_path, monkeypatch):
    """A book of a chapter, which the tests write, and a glossary."""
    monkeypatch.syspath_prepend(EXTENSIONS)
    (tmp_path / "chapters").mkdir()
    toc = "Book\n====\n\nA batch.\n\n.. toctree::\n\n   chapters/one\n   glossary\n"
    (tmp_path / "index.rst").write_text(toc)
    (tmp_path / "glossary.rst").write_text(GLOSSARY)
    return tmp_path


def build(book, text):
    """Build the book with a chapter of this text; return the chapter's page."""
    (book / "chapters/one.rst").write_text(f"One batch\n=========\n\n{text}\n")
    warnings = io.StringIO()
    with docutils_namespace():
        app = Sphinx(
            srcdir=book,
            confdir=None,
            outdir=book / "_build/html",
            doctreedir=book / "_build/doctrees",
            buildername="html",
            confoverrides={"extensions": ["reading"], "html_theme": "basic"},
            status=None,
            warning=warnings,
        )
        app.build()
    assert warnings.getvalue() == ""
    return (book / "_build/html/chapters/one.html").read_text(encoding="utf-8")


def links(page):
    """Return the glossary links of a page: the place in the glossary, and the words."""
    return re.findall(r'<a class="tw-term[^"]*" href="\.\./glossary\.html#([^"]+)">([^<]+)<', page)


def test_the_first_use_of_a_term_links_to_the_glossary(book):
    page = build(book, "It moves a learning rate. The learning rate counts, a batch too.")
    assert links(page) == [("term-learning-rate", "learning rate"), ("term-batch", "batch")]
    assert page.count("tw-term") == 2
    ids = re.findall(r' id="(term-[^"]+)"', (book / "_build/html/glossary.html").read_text())
    assert {place for place, _ in links(page)} <= set(ids)
    assert "tw-term" not in (book / "_build/html/index.html").read_text()


def test_plurals_and_capitals_are_terms_and_parts_of_words_are_none(book):
    page = build(book, "Batch-wise, minibatches and batched are no term.\n\n*Batches* are.")
    assert links(page) == [("term-batch", "Batches")]
    assert links(build(book, "Learning\nrates differ.")) == [
        ("term-learning-rate", "Learning\nrates")
    ]


def test_the_longest_term_is_meant(book):
    page = build(book, "A learning rate schedule, a learning rate schedule, a learning rate.")
    assert links(page) == [
        ("term-learning-rate-schedule", "learning rate schedule"),
        ("term-learning-rate", "learning rate"),
    ]
    assert "schedule</a>, a learning rate schedule, a <a" in page


def test_a_term_inside_other_words_gets_no_link_of_its_own(book):
    page = build(book, "Step by step, batch norm scales a feature map in eight steps.")
    assert links(page) == [("term-batch-normalization", "batch norm")]
    page = build(book, "Tell a step that bought something. Every step is compared. A step fails.")
    assert links(page) == [("term-step", "step")]
    assert "A <a" in page
    page = build(book, "Layer norm, a promise about patience, and a log of a line a step.")
    assert links(page) == []


@pytest.fixture
def reading(monkeypatch):
    monkeypatch.syspath_prepend(EXTENSIONS)
    import reading

    return reading


def running_texts(path):
    """Yield the texts of a page's source in which terms are linked: no headings, no links."""
    block = ""  # what the text stands in
    for _, token in prose.blocks(path.read_text()):
        links = 0
        for child in token.children or []:
            links += {"link_open": 1, "link_close": -1}.get(child.type, 0)
            if child.type == "text" and not links and block != "heading_open":
                yield child.content
        block = token.type


def test_every_term_is_linked_from_a_chapter(reading):
    entries = (book_tool.ROOT / "glossary.md").read_text().split(":::")[1].splitlines()
    terms = {line.lower() for line in entries if line.isascii() and line[:1].isalnum()}
    assert len(terms) > 90
    assert terms >= set(reading.OTHER_NAMES.values())
    pattern = reading.pattern_of(terms)
    linked = {
        reading.term_of(match)
        for path in (book_tool.ROOT / "chapters").glob("*.md")
        for text in running_texts(path)
        for match in pattern.finditer(text)
    }
    assert terms - linked == set()


def test_headings_links_code_and_captions_get_no_link(book):
    text = """
A batch here
------------

``batch``, `batch <https://example.org>`__, :doc:`a batch <../index>` and :math:`batch`::

    batch

.. figure:: batch.png
   :alt: A batch

   A batch in a caption

.. raw:: html

   <p>batch</p>

.. container:: cell

   A batch that a cell prints.
"""
    (book / "chapters/batch.png").write_bytes(b"")
    page = build(book, text)
    assert links(page) == []
    assert len(links(build(book, text + "\nAt last a batch.\n"))) == 1


def runs(book, seconds, at_once="2"):
    run = {"page": "chapters/one", "title": "One", "execution_seconds": seconds}
    path = book / "_build/runs.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"build": {"Pages at once": at_once}, "pages": [run]}))


TYPED = "Reading takes about 20 minutes. The page runs in about a minute and a half on two cores."


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(112.6, "1 min 55 s"), (119.0, "2 min"), (58.1, "1 min"), (31.0, "30 s"), (0.4, "5 s")],
)
def test_a_page_tells_its_measured_time(book, seconds, told):
    runs(book, seconds)
    page = build(book, TYPED).replace("\u00a0", " ")
    sentence = f"The page ran in about {told} in this build, which ran 2 pages at once."
    assert f"<p>Reading takes about 20 minutes. {sentence}</p>" in page


def test_what_was_not_measured_is_told_as_it_is_typed(book):
    assert TYPED in build(book, TYPED)
    runs(book, 0.0)
    assert TYPED in build(book, TYPED + " ")
    runs(book, 100.0, at_once="1")
    assert "one page at a time." in build(book, TYPED)


def test_every_chapter_says_it_so_that_the_measured_time_is_told(reading):
    for path in (book_tool.ROOT / "chapters").glob("*.md"):
        assert len(reading.RUNS_IN.findall(path.read_text())) == 1, path


def test_korean_is_marked_in_text_alone(book):
    page = build(
        book,
        "Not 편차, but 완전 연결 층.\n\n``수용성``\n\n.. raw:: html\n\n"
        '   <p title="규제">l₁ 규제</p><script>"정규화"</script><!-- 배치 -->\n',
    )
    found = re.findall(r'<span lang="ko">(.*?)</span>', page)
    assert found == ["편차", "완전 연결 층", "규제"]
    assert 'title="규제"' in page
    assert '<script>"정규화"</script><!-- 배치 -->' in page
    glossary = (book / "_build/html/glossary.html").read_text()
    assert '<span lang="ko">학습률</span>' in glossary
