import io
import json
import os
import re
from html import unescape
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from sphinx.application import Sphinx
from sphinx.util.docutils import docutils_namespace

from trainwell.claims import difference, fact, make_record

EXTENSIONS = str(Path(__file__).parents[1] / "_ext")


@pytest.fixture
def book(tmp_path, monkeypatch):
    """A book of two pages in its source folder; the second lists the claims."""
    monkeypatch.syspath_prepend(EXTENSIONS)
    monkeypatch.delenv("TRAINWELL_PROFILE", raising=False)
    (tmp_path / "chapters").mkdir()
    (tmp_path / "index.rst").write_text("Book\n====\n\n.. toctree::\n\n   chapters/one\n   end\n")
    (tmp_path / "chapters/one.rst").write_text("One\n===\n\nA chapter.\n")
    (tmp_path / "end.rst").write_text("Claims\n======\n\n.. claims::\n")
    return tmp_path


def build(book):
    """Build the book; return its claims page, the warnings, and which pages were read."""
    warnings, read = io.StringIO(), []
    with docutils_namespace():
        app = Sphinx(
            srcdir=book,
            confdir=None,
            outdir=book / "_build/html",
            doctreedir=book / "_build/doctrees",
            buildername="html",
            confoverrides={"extensions": ["course"], "html_theme": "basic"},
            status=None,
            warning=warnings,
        )
        app.connect("source-read", lambda app, page, source: read.append(page))
        app.build()
    page = (book / "_build/html/end.html").read_text(encoding="utf-8")
    return page, warnings.getvalue(), sorted(read)


def collect(book, records):
    path = book / "_build/claims.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(records), encoding="utf-8")


def record(sentence, evidence, page="chapters/one", **data):
    data = SimpleNamespace(**data) if data else None
    return {"page": page, "title": "One & only", **make_record(sentence, evidence, data)}


def cells(page, name="tw-claims"):
    """Return the text of a table, row by row."""
    table = re.search(rf'<table class="{name}.*?</table>', page, re.DOTALL)[0]
    rows = re.findall(r"<tr.*?</tr>", table, re.DOTALL)
    texts = [re.findall(r"<t[hd].*?</t[hd]>", row, re.DOTALL) for row in rows]
    return [[unescape(re.sub("<.*?>", "", text)).strip() for text in row] for row in texts]


def test_table_of_claims(book):
    a = pd.Series([1.0, 2.0, 3.0])
    b = pd.Series([0.5, 1.5, 2.0])
    records = [
        record("a > b & so on.", difference(higher=a, lower=b)),
        record("One is two.", fact(1, 2), source="a simulation", stand_in=True),
    ]
    collect(book, records)
    page, warnings, _ = build(book)
    assert warnings == ""
    assert cells(page) == [
        ["Page", "Sentence", "Evidence", "Kind", "State"],
        ["One & only", "a > b & so on.", records[0]["summary"], "difference", "held"],
        [
            "One & only",
            "One is two.",
            "Found 1, expected 2. Data: a simulation.",
            "fact",
            "not judged: stand-in data",
        ],
    ]
    links = re.findall(r'href="(chapters/one\.html#[^"]+)"', page)
    assert links == [f"chapters/one.html#{record['id']}" for record in records]
    # For filters and colours: a row says its kind and state.
    classes = re.findall(r'<tr class="([^"]*)"', page)
    assert [set(found.split()) & {"tw-difference", "tw-fact"} for found in classes[1:]] == [
        {"tw-difference"},
        {"tw-fact"},
    ]
    assert "tw-held" in classes[1]
    assert "tw-not-judged" in classes[2]


def test_a_claim_links_to_its_figure(book):
    with_figure = {**record("One.", fact(1, 1)), "figure": "figure-one-falls-123abc"}
    collect(book, [with_figure, {**record("Two.", fact(2, 2)), "figure": None}])
    page, warnings, _ = build(book)
    assert warnings == ""
    assert [row[2] for row in cells(page)[1:]] == [
        f"{with_figure['summary']} Figure",
        "Found 2, expected 2.",
    ]
    link = '<a class="reference internal" href="chapters/one.html#figure-one-falls-123abc">Figure'
    assert page.count(link) == 1


def test_link_to_a_claim(book):
    one = record("More data help.", fact(1, 1))
    name = one["id"].removeprefix("claim-")
    text = f"Claims\n======\n\n:claim:`more data <{name}>`, :claim:`less <less-abc123>`\n"
    (book / "end.rst").write_text(text)
    page, warnings, _ = build(book)  # before anything was executed
    assert "<p>more data, less</p>" in page
    assert warnings == ""
    collect(book, [one])
    page, warnings, _ = build(book)
    link = f'<a class="reference internal" href="chapters/one.html#{one["id"]}">more data</a>'
    assert f"<p>{link}, less</p>" in page
    assert "end.rst" in warnings
    assert "has the id 'claim-less-abc123'" in warnings


def test_no_claims_yet(book):
    page, warnings, _ = build(book)
    assert "No claims collected yet" in page
    assert warnings == ""
    collect(book, [])
    assert "No claims collected yet" in build(book)[0]


def test_page_is_read_again_when_the_claims_change(book):
    collect(book, [record("Before.", fact(1, 1))])
    build(book)
    page, _, read = build(book)
    assert read == []
    collect(book, [record("After.", fact(1, 1))])
    later = np.ceil((book / "_build/claims.json").stat().st_mtime) + 10
    os.utime(book / "_build/claims.json", (later, later))
    page, warnings, read = build(book)
    assert read == ["end"]
    assert "After." in page
    assert "Before." not in page
    assert warnings == ""


def test_first_claims_are_found_by_the_next_build(book):
    build(book)
    collect(book, [record("At last.", fact(1, 1))])
    assert "At last." in build(book)[0]


def test_claim_of_a_page_that_is_gone(book):
    collect(book, [record("It was so.", fact(1, 1), page="chapters/gone")])
    page, warnings, _ = build(book)
    assert "names the page 'chapters/gone', which the book does not have" in warnings
    assert "end.rst" in warnings
    assert cells(page)[1][:2] == ["One & only", "It was so."]
    assert "gone.html" not in page


def test_claims_file_is_a_setting(book):
    (book / "conf.py").write_text("course_claims_file = 'elsewhere.json'\n")
    (book / "elsewhere.json").write_text(json.dumps([record("Elsewhere.", fact(1, 1))]))
    with docutils_namespace():
        app = Sphinx(
            book,
            book,
            book / "out",
            book / "doctrees",
            "html",
            {"extensions": ["course"], "html_theme": "basic"},
            status=None,
            warning=None,
        )
        app.build()
    assert "Elsewhere." in (book / "out/end.html").read_text(encoding="utf-8")
    # A claim's record in a cell's output is no reason to warn.
    assert "mystnb.unknown_mime_type" in app.config.suppress_warnings


def test_the_runs_of_the_book_and_their_sum(book):
    (book / "end.rst").write_text("Runs\n====\n\n.. runs::\n")
    costs = {"execution_seconds": 59.6, "processor_seconds": 90.0, "memory_bytes": 1.5 * 2**30}
    run = {"page": "chapters/one", "title": "One & only", **costs}
    how = {"build": {"Machine": "2 cores"}, "pages": [run, {**run, "execution_seconds": 5.0}]}
    path = book / "_build/runs.json"
    path.parent.mkdir()
    path.write_text(json.dumps(how))
    page, warnings, _ = build(book)
    assert warnings == ""
    assert re.search(r"<dt>Machine.*2 cores", page, re.DOTALL)
    assert 'href="chapters/one.html"' in page
    assert cells(page, "tw-runs")[1:] == [
        ["One & only", "1:00", "1:30", "1.5 GiB"],
        ["One & only", "0:05", "1:30", "1.5 GiB"],
        ["Sum over the pages", "1:05", "3:00", ""],
    ]


def test_before_the_first_build_nothing_was_run(book):
    (book / "end.rst").write_text("Runs\n====\n\n.. runs::\n")
    page, warnings, _ = build(book)
    assert warnings == ""
    assert "Nothing was run yet" in page
