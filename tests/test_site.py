"""What a browser shows: the built site, in a real Chromium, with no way out to the internet.

The site is the preview that `make book PROFILE=quick` built last; `make test` builds it first.
"""

import functools
import http.server
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from book import pages
from playwright.sync_api import Browser, ConsoleMessage, Page, Request
from test_labs_build import LABS, letters, secret_letters

ROOT = Path(__file__).resolve().parent.parent
SITE = ROOT / "_build" / "quick" / "html"
WIDE, PHONE, HEIGHT = 1280, 380, 900

Opened = tuple[str, Page, list[str]]  # a page's name, the page, and what went wrong


@pytest.fixture(scope="module")
def address(browser: Browser) -> Iterator[str]:
    """Serve the site on a free port of this machine."""
    del browser  # without one, nothing needs a site
    assert (SITE / "index.html").exists(), "run 'make book PROFILE=quick' first"
    handler = functools.partial(QuietHandler, directory=str(SITE))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


class Visit:
    """A page opened at one width and in one theme, and what went wrong while it loaded."""

    def __init__(self, browser: Browser, address: str, width: int = WIDE, theme: str = "light"):
        self.address = address
        self.complaints: list[str] = []
        context = browser.new_context(viewport={"width": width, "height": HEIGHT})
        context.add_init_script(
            f"localStorage.setItem('mode', '{theme}'); localStorage.setItem('theme', '{theme}')"
        )
        self.page: Page = context.new_page()
        self.page.on("console", self.on_console)
        self.page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        self.page.on("request", self.on_request)
        self.page.on("requestfailed", lambda r: self.complaints.append(f"failed: {r.url}"))
        self.page.on(
            "response",
            lambda r: self.complaints.append(f"{r.status}: {r.url}") if r.status >= 400 else None,
        )

    def on_console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(f"console {message.type}: {message.text}")

    def on_request(self, request: Request) -> None:
        if not request.url.startswith((self.address, "data:", "blob:")):
            self.complaints.append(f"left the site: {request.url}")

    def open(self, name: str) -> Page:
        """Open a page, and wait until its formulas and its interactive figures are drawn."""
        self.page.goto(f"{self.address}/{name}.html", wait_until="load")
        self.page.evaluate("async () => { await window.MathJax?.startup?.promise }")
        for figure in self.page.locator("figure.tw-interactive").all():
            figure.locator(".main-svg").first.wait_for()
        return self.page

    def close(self) -> None:
        """Give back what the browser holds of it: a hundred megabytes."""
        self.page.context.close()


@pytest.fixture
def visit(browser: Browser, address: str) -> Iterator[Visit]:
    with closing(Visit(browser, address)) as visit:
        yield visit


# Where axe looks at the colours of text, which takes it long. All pages share their style sheets,
# and a test finds text with a colour of its own: the beginning of a page of each kind will do.
KINDS = ["intro", "claims", "glossary", "api", "how_it_was_run", "cheat_sheet"]
KINDS += ["chapters/11_4_2_dropout", "chapters/11_3_0_surfaces", "labs/pages/lab_1_fit"]
EACH_PAGE = {page: pytest.param(page, marks=pytest.mark.xdist_group(page)) for page in pages()}


@pytest.fixture(scope="module", params=EACH_PAGE.values())
def opened(
    request: pytest.FixtureRequest,
    browser: Browser,
    address: str,
    tmp_path_factory: pytest.TempPathFactory,
    testrun_uid: str,
) -> Iterator[Opened]:
    """Each page, opened once, wide and light: the tests share it, and leave it so."""
    # Processes that open the same page take twice as long, and nothing else would tell.
    once = tmp_path_factory.getbasetemp().parent / f"{testrun_uid} {letters(request.param)}"
    once.touch(exist_ok=False)
    with closing(Visit(browser, address)) as visit:
        page = visit.open(request.param)
        page.add_style_tag(content="* { transition: none !important }")  # a colour is what it is
        yield request.param, page, visit.complaints


def test_a_page_loads_with_no_error_and_no_request_leaves_the_site(opened: Opened) -> None:
    _, page, complaints = opened
    # Some requests come late. (Chromium does not always tell that the network is idle.)
    page.wait_for_timeout(500)
    assert page.locator("article h1").count() == 1
    assert complaints == []


def test_a_request_that_leaves_the_site_is_noticed(visit: Visit) -> None:
    page = visit.open("intro")
    page.evaluate("fetch('http://127.0.0.1:9/elsewhere').catch(() => 0)")
    page.wait_for_timeout(200)
    assert any("left the site" in complaint for complaint in visit.complaints)


def test_formulas_are_typeset_by_the_vendored_mathjax(visit: Visit) -> None:
    page = visit.open("chapters/11_4_2_dropout")
    page.wait_for_selector("mjx-container svg")
    assert page.locator("mjx-merror").count() == 0


def test_search_finds_dropout(visit: Visit) -> None:
    page = visit.page
    page.goto(f"{visit.address}/search.html?q=dropout")
    results = page.locator("ul.search li a")
    results.first.wait_for()
    assert any("11_4_2_dropout" in (a.get_attribute("href") or "") for a in results.all())


@pytest.mark.parametrize("width", [WIDE, PHONE])
def test_one_search_field_or_button_is_in_sight(browser: Browser, address: str, width: int) -> None:
    with closing(Visit(browser, address, width=width)) as visit:
        # The last page: the list of pages beside it is scrolled to its end.
        page = visit.open("references")
        (search,) = [b for b in page.locator(".search-button__button").all() if b.is_visible()]
        search.click(trial=True)
        assert search.evaluate("button => button.getBoundingClientRect().top") >= 0
        search.click()
        page.keyboard.type("dropout")
        page.keyboard.press("Enter")
        page.locator("ul.search li a").first.wait_for()


def test_a_citation_is_found_by_its_label_among_the_references(visit: Visit) -> None:
    page = visit.open("chapters/11_4_2_dropout")
    cited = page.locator("a[href*='references.html#id']", has_text=re.compile(r", \d{4}$")).first
    label, place = cited.inner_text(), (cited.get_attribute("href") or "").split("#")[1]
    entry = visit.open("references").locator(f"[id='{place}'] > .label")
    assert entry.inner_text() == f"[{label}]"


def test_every_figure_has_an_alt_text(opened: Opened) -> None:
    name, page, _ = opened
    assert page.evaluate(WORDLESS) == []
    bare = page.locator("figure svg:not([role=img], [role=img] svg)")
    assert bare.count() == 0
    places = page.locator("figure.tw-figure").evaluate_all("figures => figures.map(f => f.id)")
    assert all(places)
    assert len(set(places)) == len(places)  # two figures of a page share no caption
    if name.startswith("chapters/"):
        assert page.locator("figure.tw-figure svg[role=img]").count() >= 3


def test_nothing_overflows_on_a_phone(opened: Opened) -> None:
    _, page, _ = opened
    page.set_viewport_size({"width": PHONE, "height": HEIGHT})
    page.wait_for_timeout(300)
    too_wide = page.evaluate(TOO_WIDE)
    width = page.evaluate("document.documentElement.scrollWidth")
    page.set_viewport_size({"width": WIDE, "height": HEIGHT})
    assert too_wide == []
    assert width <= PHONE


@pytest.mark.parametrize(
    ("name", "tables"),
    [
        ("cheat_sheet", ".tw-sheet table"),
        ("chapters/11_5_guidelines", "#what-do-i-do-when table"),
        ("chapters/errata", "#erratum-75"),
        ("how_it_was_run", ".tw-runs"),
    ],
)
def test_a_wide_table_fits_on_a_phone(
    browser: Browser, address: str, name: str, tables: str
) -> None:
    """A wide table scrolls, and who is in a hurry does not see that there is a third column."""
    with closing(Visit(browser, address, width=PHONE)) as visit:
        found = visit.open(name).locator(tables)
        assert found.count() > 0
        room = "all => all.map(one => one.parentElement.clientWidth - one.offsetWidth)"
        assert min(found.evaluate_all(room)) >= 0


# Two of axe's rules: text stands out from the page, and links from the text about them.
OF_COLOURS = ["color-contrast", "link-in-text-block"]


def test_axe_finds_no_serious_violation(opened: Opened) -> None:
    rules = {rule: {"enabled": False} for rule in OF_COLOURS}
    assert serious_violations(opened, rules=rules) == []


@pytest.mark.parametrize("opened", [EACH_PAGE[page] for page in KINDS], indirect=True)
def test_axe_can_tell_the_colours_apart(opened: Opened) -> None:
    assert opened[1].evaluate("document.documentElement.dataset.theme") == "light"
    assert serious_violations(opened, [PAST_THE_BEGINNING], runOnly=OF_COLOURS) == []


@pytest.fixture
def opened_dark(opened: Opened) -> Iterator[Opened]:
    """Each page with the lights turned off, as the button in its head does it."""
    page = opened[1]
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    yield opened
    page.evaluate("document.documentElement.dataset.theme = 'light'")


def test_a_page_opens_in_the_dark_on_a_phone(browser: Browser, address: str) -> None:
    with closing(Visit(browser, address, width=PHONE, theme="dark")) as visit:
        page = visit.open("chapters/11_3_0_surfaces")
        assert page.evaluate("document.documentElement.dataset.theme") == "dark"
        assert page.evaluate(TOO_WIDE) == []
        assert_ink_stands_out(("chapters/11_3_0_surfaces", page, []))


@pytest.mark.parametrize("opened", [EACH_PAGE[page] for page in KINDS], indirect=True)
def test_axe_can_tell_the_colours_apart_in_the_dark(opened_dark: Opened) -> None:
    assert opened_dark[1].evaluate("document.documentElement.dataset.theme") == "dark"
    assert serious_violations(opened_dark, [PAST_THE_BEGINNING], runOnly=OF_COLOURS) == []


def test_text_has_its_colours_from_the_style_sheets(opened: Opened) -> None:
    _, page, _ = opened
    assert page.evaluate(COLOURED) == []


# The sections of a page after the fourth.
PAST_THE_BEGINNING = "section > section ~ section ~ section ~ section ~ section"


def serious_violations(opened: Opened, left_out: Sequence[str] = (), **rules: Any) -> list[Any]:
    """Let axe look at a page, by all its rules or by those that its options name."""
    name, page, _ = opened
    options = {"resultTypes": ["violations"], "preload": False, **rules}
    # The marks of a figure have a test of their own. Blocks of code look the same everywhere, and
    # have thousands of words: one page's will do. So do thirty of the claims, and three of a
    # module's functions. What axe may leave out, it walks through all the same: it is quicker to
    # take it out of the page for a while.
    left_out = [*left_out, "figure svg > *", "mjx-container svg > *"]
    left_out += ["table.tw-claims tbody tr:nth-child(n + 30)", "dl.py ~ dl.py ~ dl.py ~ dl.py"]
    if name != "chapters/11_4_2_dropout":
        left_out.append(".highlight pre > *")
    page.evaluate(TAKE_OUT, ", ".join(left_out))
    violations = Axe().run(page, options=options).response["violations"]
    page.evaluate("putBack()")
    serious = [v for v in violations if v["impact"] in ("serious", "critical")]
    return [(v["id"], v["help"], [n["html"][:200] for n in v["nodes"][:3]]) for v in serious]


TAKE_OUT = """selector => {
  const taken = [...document.querySelectorAll(selector)].map(element => {
    const place = document.createComment("");
    element.replaceWith(place);
    return [place, element];
  });
  window.putBack = () => taken.forEach(([place, element]) => place.replaceWith(element));
}"""


def test_the_ink_of_figures_stands_out_in_the_light(opened: Opened) -> None:
    assert_ink_stands_out(opened)


def test_the_ink_of_figures_stands_out_in_the_dark(opened_dark: Opened) -> None:
    assert_ink_stands_out(opened_dark)


def assert_ink_stands_out(opened: Opened) -> None:
    """A figure's marks have a contrast of 3:1 or more with the page behind, its text 4.5:1."""
    name, page, _ = opened
    contrasts = page.evaluate(CONTRASTS)
    assert len(contrasts) > 20 or not name.startswith("chapters/")
    # White lines part the cells of a map of colours: they lie on the cells, not on the page.
    low = [mark for mark in contrasts if mark["contrast"] < (4.5 if mark["text"] else 3)]
    assert [mark for mark in low if mark["colour"] != "rgb(255, 255, 255)"] == []


def test_chapters_link_their_terms_to_the_glossary(opened: Opened) -> None:
    name, page, _ = opened
    terms = page.locator("article a.tw-term")
    if not name.startswith("chapters/"):
        assert terms.count() == 0
        return
    assert terms.count() >= 5
    glossary = (SITE / "glossary.html").read_text()
    targets = terms.evaluate_all("links => links.map(link => link.getAttribute('href'))")
    assert len(set(targets)) == len(targets)  # the first use alone
    for target in targets:
        assert target.startswith("../glossary.html#term-")
        assert f'id="{target.partition("#")[2]}"' in glossary


def test_korean_is_marked_for_screen_readers(opened: Opened) -> None:
    """No Korean letter of the text is left to an English voice."""
    name, page, _ = opened
    assert page.evaluate(UNMARKED_KOREAN) == []
    if name in ("glossary", "chapters/errata"):
        assert page.locator("article [lang=ko]").count() >= 10


def test_no_line_of_a_solution_is_in_the_site(address: str) -> None:
    """Nor of a held-back check or a rubric: in the labs' pages, notebooks and the search index."""
    places = ["labs/**/*.html", "_downloads/**/*.ipynb", "_sources/**/*", "searchindex.js"]
    files = [path for place in places for path in SITE.glob(place) if path.is_file()]
    assert len(files) >= 2 * len(LABS) + 1

    secrets = secret_letters(LABS)
    for path in files:
        text = letters(path.read_text())
        assert [line for line in secrets if line in text] == [], path


# The claims page


def test_claims_are_filtered_by_chapter_and_kind(visit: Visit) -> None:
    page = visit.open("claims")
    rows = page.locator("table.tw-claims tbody tr")
    seen = page.locator("table.tw-claims tbody tr:visible")
    everything = rows.count()
    count = page.get_by_role("status")
    assert count.inner_text() == f"{everything} of {everything} claims"

    chapter = page.get_by_label("Chapter")
    chapter.focus()
    page.keyboard.type("11.4.2")  # as in any list of the browser's
    assert chapter.input_value() == "11.4.2 Dropout"
    of_chapter = seen.count()
    assert 10 < of_chapter < everything
    assert count.inner_text() == f"{of_chapter} of {everything} claims"
    assert set(page.locator("tbody tr:visible td:first-child").all_inner_texts()) == {
        "11.4.2 Dropout"
    }
    page.get_by_label("Kind").select_option("difference")
    assert 0 < seen.count() < of_chapter
    assert seen.count() == page.locator("tbody tr.tw-difference:visible").count()
    chapter.select_option("")
    page.get_by_label("Kind").select_option("")
    assert seen.count() == everything
    assert visit.complaints == []


def test_claims_are_all_there_without_javascript(browser: Browser, address: str) -> None:
    with closing(browser.new_context(java_script_enabled=False)) as context:
        page = context.new_page()
        page.goto(f"{address}/claims.html")
        rows = page.locator("table.tw-claims tbody tr")
        assert page.locator("table.tw-claims tbody tr:visible").count() == rows.count() > 500
        assert page.locator("select").count() == 0


def test_a_claim_leads_to_its_figure(visit: Visit) -> None:
    page = visit.open("claims")
    links = page.locator("table.tw-claims td a", has_text=re.compile("^Figure$"))
    assert links.count() > 200
    links.first.click()
    target = page.locator(":target")
    target.wait_for()
    assert "tw-figure" in (target.get_attribute("class") or "")
    assert page.url.partition("#")[2].startswith("figure-")


# Interactive figures


@pytest.fixture
def surfaces(visit: Visit) -> Page:
    """The page with interactive figures."""
    page = visit.open("chapters/11_3_0_surfaces")
    assert page.locator("figure.tw-interactive .tw-controls").count() == 5
    return page


# The lines of the first figure that can be seen. What a slider has hidden is faint.
SEEN = """() => [...document.querySelector('figure.tw-interactive').querySelectorAll('.js-line')]
    .filter(line => line.closest('.trace').style.opacity === '1')
    .map(line => line.getAttribute('d')).join()"""


def seen_after(page: Page, act: Callable[[], object]) -> str:
    """What the first figure shows when `act` has changed it."""
    before = page.evaluate(SEEN)
    act()
    page.wait_for_function(f"before => ({SEEN})() !== before", arg=before, timeout=5_000)
    return str(page.evaluate(SEEN))


def test_keys_and_fingers_move_the_sliders(visit: Visit, surfaces: Page) -> None:
    rate, beta = surfaces.locator("figure.tw-interactive input[type=range]").all()[:2]
    start = surfaces.evaluate(SEEN)
    assert rate.get_attribute("aria-valuetext") == "0.05"
    up = seen_after(surfaces, lambda: rate.press("ArrowRight"))
    assert rate.get_attribute("aria-valuetext") == "0.1"
    assert seen_after(surfaces, lambda: rate.press("ArrowLeft")) == start
    less = seen_after(surfaces, lambda: beta.press("ArrowLeft"))
    assert beta.get_attribute("aria-valuetext") == "0.5"
    assert len({start, up, less}) == 3
    # A thumb drags to the left end.
    box = rate.bounding_box()
    assert box is not None
    assert box["height"] >= 44
    middle = box["y"] + box["height"] / 2

    def drag() -> None:
        surfaces.mouse.move(box["x"] + box["width"] * 0.56, middle)
        surfaces.mouse.down()
        surfaces.mouse.move(box["x"] + 2, middle, steps=5)
        surfaces.mouse.up()

    seen_after(surfaces, drag)
    assert rate.get_attribute("aria-valuetext") == "0.001"
    assert visit.complaints == []


def test_a_box_shows_and_hides_an_optimizer(visit: Visit, surfaces: Page) -> None:
    adam = surfaces.locator("figure.tw-interactive").first.get_by_label("Adam")
    start = surfaces.evaluate(SEEN)
    assert len(seen_after(surfaces, lambda: adam.press("Space"))) > len(start)
    assert seen_after(surfaces, adam.click) == start
    assert visit.complaints == []


def test_plotly_comes_once_and_only_where_it_is_needed(visit: Visit) -> None:
    fetched: list[str] = []
    visit.page.on("request", lambda r: fetched.append(r.url) if "/plotly/" in r.url else None)
    visit.open("chapters/11_4_2_dropout")
    assert fetched == []
    visit.open("chapters/11_3_0_surfaces")
    assert fetched == [f"{visit.address}/plotly/plotly-basic.min.js"]


def test_a_reader_without_javascript_gets_words(browser: Browser, address: str) -> None:
    with closing(browser.new_context(java_script_enabled=False)) as context:
        page = context.new_page()
        page.goto(f"{address}/chapters/11_3_0_surfaces.html")
        words = page.locator("figure.tw-interactive noscript").first
        assert "needs JavaScript" in words.inner_text()


def test_an_interactive_page_is_not_heavy() -> None:
    assert (SITE / "chapters" / "11_3_0_surfaces.html").stat().st_size < 1_500_000


# Text with a colour of its own. Figures have their own test; a printed summary's colours are
# overruled, and axe sees one on the page of dropout.
COLOURED = """() => [...document.querySelectorAll('article [style]:not(figure *, pre *)')]
    .filter(e => e.style.color || e.style.background || e.style.backgroundColor)
    .map(e => e.outerHTML.slice(0, 200))"""

# Pictures that a screen reader has next to no words for.
WORDLESS = """() => [...document.querySelectorAll('article img, figure [role=img]')]
    .filter(e => (e.getAttribute('alt') || e.getAttribute('aria-label') || '').length <= 20)
    .map(e => e.outerHTML.slice(0, 300))"""

# What reaches beyond a screen and can't be scrolled.
TOO_WIDE = """() => {
    const scrolls = e => e && e !== document.body &&
        (['auto', 'scroll', 'hidden'].includes(getComputedStyle(e).overflowX)
         || scrolls(e.parentElement));
    return [...document.querySelectorAll('main *:not(svg *)')]
        .filter(e => e.getBoundingClientRect().right > innerWidth + 1
                     && e.getBoundingClientRect().width > 0 && !scrolls(e))
        .map(e => e.outerHTML.slice(0, 200));
}"""

UNMARKED_KOREAN = """() => {
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    const found = [];
    while (texts.nextNode()) {
        const {data, parentElement} = texts.currentNode;
        if (/\\p{Script=Hangul}/u.test(data) && !parentElement.closest('[lang=ko], script, code'))
            found.push(data);
    }
    return found;
}"""

# The text and the lines of all figures against the page's background (WCAG 2.2, 1.4.11). Faint
# marks are skipped: the grid and the bands behind the lines are there to be faint.
CONTRASTS = """() => {
    const channel = c => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
    // Of a mixed colour, 'color(srgb 0.1 0.2 0.3)', the numbers end at 1 instead of 255.
    const light = rgb => rgb.match(/[\\d.]+/g).slice(0, 3)
        .map(c => rgb.startsWith('color(') ? c * 255 : Number(c)).map(channel)
        .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
    const background = e => {
        for (; e; e = e.parentElement) {
            const colour = getComputedStyle(e).backgroundColor;
            if (!/rgba\\(.*, 0\\)|transparent/.test(colour)) return colour;
        }
        return 'rgb(255, 255, 255)';
    };
    const faint = e => {
        for (; e && e.tagName !== 'FIGURE'; e = e.parentElement) {
            const style = getComputedStyle(e);
            if (style.opacity < 0.5 || style.fillOpacity < 0.5 || style.strokeOpacity < 0.5)
                return true;
        }
        return false;
    };
    const marks = ['path', 'use', 'text'].map(mark => `figure.tw-figure svg ${mark}`).join();
    return [...document.querySelectorAll(marks)]
        .filter(e => e.tagName !== 'path' || e.hasAttribute('d'))  // Plotly keeps empty ones
        .filter(e => !e.closest('defs') && !faint(e)).map(e => {
            const style = getComputedStyle(e);
            const colour = style.stroke !== 'none' ? style.stroke : style.fill;
            const text = Boolean(e.closest('text, g[id*="-text_"]'));
            if (!/^(rgb|color)/.test(colour)) return {colour: 'none', text, contrast: 99};
            const pair = [light(colour), light(background(e))].sort((a, b) => b - a);
            return {colour, text, contrast: (pair[0] + 0.05) / (pair[1] + 0.05)};
        });
}"""
