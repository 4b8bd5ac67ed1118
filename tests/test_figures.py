import itertools
import json
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from xml.etree import ElementTree

import matplotlib as mpl
import matplotlib.pyplot as plt
import nbclient
import nbformat
import numpy as np
import pandas as pd
import plotly.graph_objects as go
import plotly.offline
import pytest

from trainwell import figures
from trainwell.claims import MIME_TYPE

ROOT = Path(__file__).resolve().parent.parent
SPOTIFY = SimpleNamespace(source="Spotify", stand_in=False)


@pytest.fixture(autouse=True)
def _no_figure_left():
    mpl.use("agg")
    yield
    left = plt.get_fignums()
    plt.close("all")
    assert left == []


@pytest.fixture
def fig():
    """A figure with every way of drawing that the course uses."""
    return draw()


def draw():
    rng = np.random.default_rng(0)
    fig, axes = plt.subplots(2, 2)
    axes[0, 0].plot([1, 2, 4], label="line")
    axes[0, 0].fill_between([0, 1, 2], [0, 1, 2], alpha=0.3)
    axes[0, 0].set(xlabel="$x^2$ -- epoch", ylabel="error & loss")
    figures.label_ends(axes[0, 0])
    axes[0, 1].scatter(rng.random(50), rng.random(50), rasterized=True)
    axes[1, 0].hist(rng.random(50), hatch="//")
    axes[1, 1].imshow(rng.random((4, 4)), cmap="gray")
    axes[1, 1].text(1, 1, "black", color="black", bbox={"facecolor": "black"})
    return fig


def drop(fig):
    plt.close(fig)
    return fig


@pytest.fixture
def bundles(monkeypatch):
    shown = []
    monkeypatch.setattr(figures, "display", shown.append)
    return shown


def page_of(bundles):
    return [bundle["text/html"] for bundle in bundles]


# show


def test_show_makes_one_captioned_image(bundles, fig):
    figures.show(fig, alt='A "curve" < 1', caption="It <falls> & rises.", data=SPOTIFY)
    html = bundles[0]["text/html"].replace("xlink:href", "href")
    figure = ElementTree.fromstring(html)
    assert (figure.tag, figure.get("class")) == ("figure", "tw-figure")
    svg, caption = figure
    assert (svg.tag, svg.get("role"), svg.get("aria-label")) == ("svg", "img", 'A "curve" < 1')
    assert caption.tag == "figcaption"
    assert caption.text == "It <falls> & rises. Data: Spotify."
    assert bundles[0]["text/plain"] == ('Figure: A "curve" < 1\nIt <falls> & rises. Data: Spotify.')


def test_show_prints_where_there_is_no_notebook(capsys, fig):
    figures.show(fig, alt="A curve.", caption="It falls.")
    assert capsys.readouterr().out == "Figure: A curve.\nIt falls.\n"


def test_svg_fits_any_page(bundles, fig):
    figures.show(fig, alt="A.", caption="B.")
    svg = re.search(r"<svg[^>]*>", bundles[0]["text/html"])[0]
    width, height = (72 * inches for inches in mpl.rcParams["figure.figsize"])
    assert f'viewBox="0 0 {width:g} {height:g}"' in svg
    assert f"width: 100%; max-width: {width:g}pt; height: auto" in svg
    # A width in numbers would win over the style in a page without the course's.
    assert " width=" not in svg


def test_ink_is_the_colour_of_the_page(bundles, fig):
    figures.show(fig, alt="A.", caption="B.")
    html = bundles[0]["text/html"]
    svg = re.search(r"<svg[^>]*>", html)[0]
    # What Matplotlib leaves without a fill, it means to be black.
    assert 'fill="currentColor"' in svg
    assert "stroke: currentColor" in html
    colours = set(re.findall(r"#[0-9a-f]{6}\b", html))
    assert colours
    assert colours <= set(figures.COLOURS)


def test_background_is_transparent(bundles, fig):
    figures.show(fig, alt="A.", caption="B.")
    first, *_ = re.findall(r"<path[^>]*>", bundles[0]["text/html"].split('-figure_1"')[1])
    assert "fill: none" in first


def test_same_figure_same_bytes(bundles):
    for _ in range(2):
        figures.show(draw(), alt="A.", caption="B.")
    first, second = page_of(bundles)
    assert first == second
    assert "date" not in first.lower()


def test_figures_on_one_page_share_no_id(bundles, fig):
    figures.show(fig, alt="A.", caption="B.")
    other = draw()
    other.axes[0].plot([3, 2, 1])
    figures.show(other, alt="A.", caption="C.")
    ids = [re.findall(r'\sid="([^"]+)"', html) for html in page_of(bundles)]
    assert all(len(own) == len(set(own)) > 10 for own in ids)
    assert not set(ids[0]) & set(ids[1])
    for own, html in zip(ids, page_of(bundles), strict=True):
        references = re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', html)
        assert references
        assert {a or b for a, b in references} <= set(own)
        # A style sheet inside one figure would apply to the whole page.
        assert "<style" not in html


def test_a_link_to_a_figure_outlives_a_change_of_its_curve(bundles, fig):
    """The claims page leads to the figures: their places are named by their captions."""
    other = draw()
    other.axes[0].plot([3, 2, 1])
    for one, data in [(fig, None), (other, SPOTIFY)]:
        figures.show(one, alt="A.", caption="It falls & rises.", data=data)
    figures.show_interactive(plot(), alt="A.", caption="It falls.")
    places = [re.search(r'<figure [^>]*id="([^"]+)"', html)[1] for html in page_of(bundles)[:3]]
    assert places[0] == places[1]
    assert places[0].startswith("figure-it-falls-rises-")
    assert places[2].startswith("figure-it-falls-")
    assert places[2] != places[0]


def test_show_needs_words(fig):
    for words in [{"alt": "", "caption": "B."}, {"alt": "A.", "caption": " "}]:
        with pytest.raises(ValueError, match="is empty"):
            figures.show(fig, **words)
    drop(fig)


def test_show_refuses_what_a_phone_cannot_show():
    fig = drop(plt.figure(figsize=(9, 4)))
    with pytest.raises(ValueError, match="fig is 9 inches wide"):
        figures.show(fig, alt="A.", caption="B.")


def test_text_is_legible_on_a_phone(fig):
    # 380 px less 16 px on each side, for the widest figure there may be.
    shrink = (380 - 32) / (96 * figures.MAX_WIDTH)
    fig.draw_without_rendering()  # the numbers at the ticks are not there before
    texts = [text for text in drop(fig).findobj(mpl.text.Text) if text.get_text()]
    assert len(texts) > 20
    assert min(text.get_fontsize() for text in texts) * 96 / 72 * shrink >= 9


def test_notebook_shows_each_once():
    source = """
import pandas as pd
from trainwell import figures
from trainwell.claims import claim, fact
fig, ax = figures.plt.subplots()
figures.show(fig, alt="A.", caption="B.")
claim("One is one.", fact(1, 1))
"""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    nbclient.execute(notebook, timeout=120, kernel_name="python3")
    nbformat.validate(notebook)
    figure, claim = notebook.cells[0].outputs
    assert sorted(figure.data) == ["text/html", "text/plain"]
    assert sorted(claim.data) == [MIME_TYPE, "text/html", "text/plain"]
    assert claim.data[MIME_TYPE]["sentence"] == "One is one."


# show_interactive


def plot():
    """A Plotly figure with what the course uses: arrays, lists, a group, two sliders."""
    fig = go.Figure(
        [
            go.Scatter(x=np.arange(3), y=[1, None, 4], name="a </script> & b", legendgroup="a"),
            go.Scatter(x=[1, 2], y=[3, 4], name="c", visible="legendonly"),
        ]
    )
    steps = [{"label": "1", "method": "restyle", "args": [{"mode": ["none"]}, [1]]}]
    return fig.update_layout(sliders=[{"steps": steps}, {"steps": steps}])


def spec_of(bundle):
    return json.loads(re.search(r'json">(.*)</script>', bundle["text/html"], re.DOTALL)[1])


def test_an_interactive_figure_has_frame_caption_and_alt_text(bundles):
    figures.show_interactive(plot(), alt='A "curve" < 1', caption="It <falls>.", data=SPOTIFY)
    first, for_notebooks = bundles
    figure = ElementTree.fromstring(first["text/html"])
    assert (figure.tag, figure.get("class")) == ("figure", "tw-figure tw-interactive")
    picture, without_script, data, caption = figure
    assert (picture.get("role"), picture.get("aria-label")) == ("img", 'A "curve" < 1')
    assert without_script.tag == "noscript"
    assert 'A "curve" < 1' in "".join(without_script.itertext())
    assert (data.tag, data.get("type")) == ("script", "application/json")
    assert (caption.tag, caption.text) == ("figcaption", "It <falls>. Data: Spotify.")
    texts = [bundle["text/plain"] for bundle in bundles]
    assert texts == ['Figure: A "curve" < 1', "It <falls>. Data: Spotify."]
    # Plotly shows no caption in a notebook: it comes as an output of its own.
    assert "It &lt;falls&gt;. Data: Spotify." in for_notebooks["text/html"]


def test_an_interactive_figure_is_all_there(bundles):
    fig = plot()
    before = fig.to_json()
    figures.show_interactive(fig, alt="A.", caption="B.")
    assert fig.to_json() == before
    assert spec_of(bundles[0])["data"] == json.loads(before)["data"]
    shown = go.Figure(spec_of(bundles[0]))
    assert shown.layout.sliders == fig.layout.sliders
    layout = shown.layout.template.layout
    assert layout.paper_bgcolor == layout.plot_bgcolor == "rgba(0, 0, 0, 0)"
    assert list(layout.colorway) == figures.COLOURS
    # Plotly's own template would be ten times as long.
    assert len(shown.layout.template.to_plotly_json()) == len(figures.PLOTLY_STYLE)


def test_a_notebook_gets_plotlys_own_type(bundles):
    figures.show_interactive(plot(), alt="A.", caption="B.")
    shown = go.Figure(bundles[0][figures.PLOTLY_MIME_TYPE])
    assert shown.to_plotly_json()["data"] == json.loads(plot().to_json())["data"]
    # JupyterLab may be dark, and black on transparent would vanish there.
    assert shown.layout.paper_bgcolor == "white"
    first, second = (slider.pad.t for slider in shown.layout.sliders)
    assert second - first >= 60
    assert shown.layout.height > figures.PLOTLY_STYLE["layout"]["height"]


def test_colab_gets_plotlys_own_page(bundles, monkeypatch):
    monkeypatch.setitem(sys.modules, "google.colab", ModuleType("google.colab"))
    figures.show_interactive(plot(), alt="A.", caption="It falls.")
    page, caption = bundles
    assert "Plotly.newPlot" in page["text/html"]
    assert "It falls." in caption["text/html"]


def test_same_interactive_figure_same_bytes(bundles):
    for _ in range(2):
        figures.show_interactive(plot(), alt="A.", caption="B.")
    assert bundles[:2] == bundles[2:]
    # Two figures on a page must not share an id, so there is none but the figure's own.
    assert re.findall(r'\sid="(\w+)', bundles[0]["text/html"]) == ["figure"]


def test_an_interactive_figure_asks_for_nothing_outside(bundles):
    figures.show_interactive(plot(), alt="A.", caption="B.")
    assert not re.search(r"https?:|//|src=|href=", str(bundles))


def test_an_interactive_figure_needs_words():
    for words in [{"alt": "", "caption": "B."}, {"alt": "A.", "caption": " "}]:
        with pytest.raises(ValueError, match="is empty"):
            figures.show_interactive(plot(), **words)


def test_show_interactive_prints_where_there_is_no_notebook(capsys):
    figures.show_interactive(plot(), alt="A curve.", caption="It falls.")
    assert capsys.readouterr().out == "Figure: A curve.\nIt falls.\n"


def test_the_vendored_bundle_is_the_one_that_plotly_writes_for():
    with (ROOT / "_extra/plotly/plotly-basic.min.js").open() as bundle:
        version = re.search(r"plotly.js \(basic - minified\) v(\S+)", bundle.read(200))[1]
    assert version == plotly.offline.get_plotlyjs_version()
    assert version in (ROOT / "_extra/plotly/README.md").read_text()


# Colours


def linear(colour):
    """Return linear light, shape (3,), as the sRGB standard defines it."""
    rgb = np.array(mpl.colors.to_rgb(colour))
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def luminance(colour):
    return float(linear(colour) @ [0.2126, 0.7152, 0.0722])


def contrast(a, b):
    light, dark = sorted([luminance(a), luminance(b)], reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("background", ["#ffffff", "#121212", "#14181e"])
@pytest.mark.parametrize("colour", figures.COLOURS)
def test_colours_stand_out_on_both_pages(colour, background):
    assert contrast("#ffffff", "#000000") == pytest.approx(21)
    assert contrast(colour, background) >= 3


@pytest.mark.parametrize(("text", "background"), [("#222832", "#ffffff"), ("#ced6dd", "#14181e")])
@pytest.mark.parametrize("colour", figures.COLOURS)
def test_text_in_a_colour_stands_out_as_text_must(colour, text, background):
    share = figures.TEXT_SHARE / 100
    mixed = share * np.array(mpl.colors.to_rgb(colour))
    mixed += (1 - share) * np.array(mpl.colors.to_rgb(text))
    assert contrast(mixed, background) >= 4.5


def test_labels_are_mixed_with_the_colour_of_text_and_lines_are_not():
    fig, ax = plt.subplots()
    ax.plot([0, 1], [0, 1], label="loss")
    figures.label_ends(ax)
    svg = figures._svg(fig, "A line")
    assert svg.count(f"fill: color-mix(in srgb, {figures.COLOURS[0]} 70%, currentColor)") == 1
    assert f"stroke: {figures.COLOURS[0]}" in svg
    plt.close(fig)


# Machado, Oliveira, Fernandes: A physiologically-based model for simulation of color vision
# deficiency (IEEE TVCG 15(6), 2009), severity 1.
VISION = {
    "usual": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


def lab(light):
    """Return CIE L*a*b* of linear light under D65."""
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    x, y, z = np.cbrt(np.clip(to_xyz @ light, 0, 1) / [0.9505, 1, 1.089])
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("vision", VISION)
def test_colours_stay_apart_for_colour_blind_eyes(vision):
    seen = [lab(np.array(VISION[vision]) @ linear(colour)) for colour in figures.COLOURS]
    distances = [np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)]
    # A difference of 2.3 is just noticeable; thin lines need several times that.
    assert min(distances) >= 15


def test_lines_differ_in_print(fig):
    drop(fig)
    fig, ax = plt.subplots()
    lines = [ax.plot([0, 1])[0] for _ in figures.COLOURS]
    drop(fig)
    patterns = {str(line._dash_pattern) for line in lines}
    assert len(patterns) == len({line.get_color() for line in lines}) == 6


# Helpers


def runs():
    rows = [(seed, epoch, 10 * seed + epoch) for seed in (0, 1, 5) for epoch in (3, 1, 2)]
    return pd.DataFrame(rows, columns=["seed", "epoch", "loss"])


def test_band_is_mean_and_range_over_seeds():
    fig, ax = plt.subplots()
    figures.band(ax, runs(), "epoch", "loss", label="plain")
    drop(fig)
    (line,) = ax.get_lines()
    assert line.get_label() == "plain"
    np.testing.assert_allclose(line.get_xydata(), [[1, 21], [2, 22], [3, 23]])
    (area,) = ax.collections
    corners = {tuple(corner) for corner in area.get_paths()[0].vertices}
    assert corners == {(1, 1), (2, 2), (3, 3), (1, 51), (2, 52), (3, 53)}
    assert mpl.colors.to_hex(area.get_facecolor()[0]) == line.get_color()


def test_band_refuses_two_arms_and_missing_columns():
    fig, ax = plt.subplots()
    drop(fig)
    with pytest.raises(ValueError, match="several rows for one seed and epoch"):
        figures.band(ax, pd.concat([runs(), runs()]), "epoch", "loss", label="both")
    with pytest.raises(ValueError, match=r"no column \['mae'\], only \['seed'"):
        figures.band(ax, runs(), "epoch", "mae", label="plain")
    with pytest.raises(ValueError, match=r"no column \['seed'\]"):
        figures.band(ax, runs()[["epoch", "loss"]], "epoch", "loss", label="plain")


@pytest.mark.parametrize("scale", ["linear", "log"])
def test_labels_stand_at_the_ends_and_do_not_overlap(scale, bundles):
    fig, ax = plt.subplots()
    for level in (1.0, 1.01, 1.02, 5.0):
        ax.plot([0, 2, 10], [3, 2, level], label=f"ends at {level}")
    ax.plot([0, 1], [4, 4])
    ax.set_yscale(scale)
    figures.label_ends(ax)
    figures.show(fig, alt="Lines", caption="Where lines end.")
    fig.draw_without_rendering()
    texts = sorted(ax.texts, key=lambda text: text.get_text())
    assert [text.get_text() for text in texts] == [
        "ends at 1.0",
        "ends at 1.01",
        "ends at 1.02",
        "ends at 5.0",
    ]
    boxes = [text.get_window_extent() for text in texts]
    for lower, upper in itertools.pairwise(boxes):
        assert lower.y1 <= upper.y0 + 1
    ends = ax.transData.transform([(10, 1.01), (10, 5.0)])
    for (x, y), box in zip(ends, [boxes[1], boxes[3]], strict=True):
        assert 0 < box.x0 - x < 15
        assert (box.y0 + box.y1) / 2 == pytest.approx(y, abs=3)
    assert texts[3].get_color() == ax.get_lines()[3].get_color()


def test_labels_stay_at_their_lines_when_a_shared_axis_changes(bundles):
    fig, axes = plt.subplots(2, 1, sharey=True)
    axes[0].plot([0, 1], [0, 1.0], label="one")
    figures.label_ends(axes[0])
    axes[1].plot([0, 1], [0, 50.0])
    figures.show(fig, alt="A line", caption="Where it ends.")
    fig.draw_without_rendering()
    (label,) = axes[0].texts
    x, y = axes[0].transData.transform((1.0, 1.0))
    box = label.get_window_extent()
    assert box.y0 < y < box.y1
    assert x < box.x0 < x + 20


def test_show_keeps_labels_inside_and_apart_when_the_limits_have_changed(bundles):
    fig, axes = plt.subplots(2, 1, sharex=True, sharey=True)
    for ax in axes:
        for level in (0.5, 5.0, 5.1, 60.0, 70.0):
            ax.plot([0, 1], [5, level], label=f"ends at {level}")
        figures.label_ends(ax)
    axes[0].set_ylim(4, 6)
    figures.show(fig, alt="Lines", caption="Where lines end.")
    fig.draw_without_rendering()
    for ax in axes:
        boxes = [text.get_window_extent() for text in ax.texts]
        low, high = ax.get_window_extent().intervaly
        assert low - boxes[0].height < boxes[0].y0
        assert boxes[-1].y1 < high + 1.5 * boxes[-1].height
        for lower, upper in itertools.pairwise(boxes):
            assert lower.y1 <= upper.y0 + 1


def test_a_label_stands_at_the_last_finite_point_and_an_empty_line_has_none():
    fig, ax = plt.subplots()
    ax.plot([0, 1, 2], [3, 5, np.nan], label="diverges")
    ax.plot([], [], label="empty")
    ax.plot([0, 1], [np.nan, np.inf], label="never finite")
    figures.label_ends(ax)
    drop(fig)
    (label,) = ax.texts
    assert label.get_text() == "diverges"
    assert label.xy == pytest.approx((1, 5))


@pytest.mark.parametrize("options", [{}, {"ydata": [np.nan, np.nan], "label": "nan"}])
def test_label_ends_needs_a_label_and_a_point(options):
    fig, ax = plt.subplots()
    ax.plot([1, 2])[0].set(**options)
    drop(fig)
    with pytest.raises(ValueError, match="no line with a label and a finite point"):
        figures.label_ends(ax)


def test_spread_moves_no_more_than_it_must():
    spread = figures._spread(np.array([0.5, 0.1, 0.52]), gap=0.1)
    np.testing.assert_allclose(spread, [0.46, 0.1, 0.56])
    apart = np.array([0.9, 0.2, 0.5])
    np.testing.assert_allclose(figures._spread(apart, gap=0.1), apart)


def test_pairs_joins_the_dots_of_a_seed():
    fig, ax = plt.subplots()
    a = pd.Series([1.0, 2.0, 6.0], index=[0, 1, 2])
    b = pd.Series([7.0, 5.0, 3.0], index=[2, 1, 0])
    figures.pairs(ax, a, b, labels=("without", "with"))
    drop(fig)
    joins = [line for line in ax.get_lines() if line.get_color() == "black"]
    assert [list(line.get_ydata()) for line in joins] == [[1, 3], [2, 5], [6, 7]]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["without", "with"]
    dots = [line for line in ax.get_lines() if line.get_marker() in "os"]
    assert [sorted(line.get_ydata()) for line in dots] == [[1, 2, 6], [3, 5, 7]]
    assert [set(line.get_xdata()) for line in dots] == [{0}, {1}]
    bars = [line for line in ax.get_lines() if line.get_color() != "black" and line not in dots]
    assert [list(line.get_ydata()) for line in bars] == [[3, 3], [5, 5]]


def test_pairs_needs_the_same_seeds():
    fig, ax = plt.subplots()
    drop(fig)
    a = pd.Series([1.0, 2.0, 3.0])
    twice = a.set_axis([0, 1, 1])
    for left, right in [(a, a[:2]), (a, a.set_axis([0, 1, 3])), (a, twice), (twice, twice)]:
        with pytest.raises(ValueError, match="same seeds"):
            figures.pairs(ax, left, right, labels=("a", "b"))
