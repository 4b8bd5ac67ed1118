"""The course's plots: one look, an alt text and a caption each, light and dark.

Importing this module sets Matplotlib's defaults to `STYLE`. Draw with Matplotlib as usual,
then call `show`. Black is the ink: text, axes and whatever else is drawn in black takes the
colour of the page's text, so it is legible on a light and on a dark page. Everything else
keeps its colour; `COLOURS` stand out on both, and with colour-blind eyes. What is rasterised
(`rasterized=True` for clouds of thousands of points, `imshow`) keeps its colours, black too.

`show_interactive` does the same for a Plotly figure, where moving a slider teaches something.
"""

import hashlib
import html
import io
import json
import re
import sys
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
import pandas as pd
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from sklearn.isotonic import isotonic_regression

from trainwell._display import Data, display, identifier

if TYPE_CHECKING:
    from plotly.graph_objects import Figure as PlotlyFigure

# Chosen for a contrast of 3:1 or more with white and with #14181e, the least that WCAG 2.2
# (1.4.11) asks of graphics, and to stay apart under three kinds of colour blindness.
COLOURS = ["#2b8af0", "#d9720d", "#4d7f5e", "#c060a8", "#3a58fa", "#856226"]
# Text takes 4.5:1 (1.4.3): it has its colour mixed with that of the page's text, so it is darker
# than the lines on a light page, lighter on a dark one.
TEXT_SHARE = 70  # percent
# Such colours are equally light, so in grey print only the dashes tell lines apart.
DASHES: list[Any] = ["-", "--", "-.", ":", (0, (6, 1.5, 1, 1.5, 1, 1.5)), (0, (9, 3))]

# At this width, 12 pt text is still 9 px high on a screen 380 px wide.
MAX_WIDTH = 6.0

STYLE: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.labelsize": 12,
    "axes.prop_cycle": cycler(color=COLOURS) + cycler(linestyle=DASHES),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 12,
    "figure.constrained_layout.use": True,
    "figure.facecolor": "none",
    "figure.figsize": (5.6, 3.5),
    "font.size": 12,
    "grid.alpha": 0.15,
    "grid.color": "black",
    "legend.frameon": False,
    "lines.linewidth": 2,
    "savefig.dpi": 144,
    "svg.fonttype": "path",
    "svg.hashsalt": "trainwell",
}
mpl.rcParams.update(STYLE)

# The same look for Plotly. Fingers that scroll a page must not zoom what they pass over.
_PLOTLY_AXIS: dict[str, Any] = {
    "fixedrange": True,
    "gridcolor": "rgba(0, 0, 0, 0.15)",
    "linecolor": "rgb(0, 0, 0)",
    "showline": True,
    "tickcolor": "rgb(0, 0, 0)",
    "ticks": "outside",
    "zeroline": False,
}
PLOTLY_STYLE: dict[str, Any] = {
    "data": {"scatter": [{"line": {"width": 2}, "marker": {"size": 6}}]},
    "layout": {
        "colorway": COLOURS,
        "dragmode": False,
        "font": {"color": "rgb(0, 0, 0)", "size": 13},
        "height": 400,
        "hovermode": "closest",
        "margin": {"b": 50, "l": 55, "r": 15, "t": 15},
        "paper_bgcolor": "rgba(0, 0, 0, 0)",
        "plot_bgcolor": "rgba(0, 0, 0, 0)",
        "xaxis": _PLOTLY_AXIS,
        "yaxis": _PLOTLY_AXIS,
    },
}
PLOTLY_MIME_TYPE = "application/vnd.plotly.v1+json"
# What Plotly's own sliders take below the plot, each, and what its axis takes, in pixels.
PLOTLY_SLIDER_HEIGHT = 90
PLOTLY_AXIS_HEIGHT = 60


def show(fig: Figure, *, alt: str, caption: str, data: Data | None = None) -> None:
    """Show a figure as one inline SVG with its caption, and close it.

    Args:
        fig: The figure, at most `MAX_WIDTH`, 6 inches, wide.
        alt: What a reader who can't see the figure needs to know.
        caption: What to see in it. The source of `data` is added. No two figures of a page share
            one: it names the figure's place, for links.
        data: The data set that the figure shows.

    Raises:
        ValueError: If `alt` or `caption` is empty, or the figure is too wide for a phone.
    """
    place = identifier("figure", caption)
    caption = _caption(alt, caption, data)
    if fig.get_figwidth() > MAX_WIDTH:
        raise ValueError(
            f"fig is {fig.get_figwidth():g} inches wide; on a phone its text would be too small. "
            f"Use at most {MAX_WIDTH} and stack the panels."
        )
    _place_labels(fig)
    figure = (
        f'<figure class="tw-figure" id="{place}" style="margin: 1em 0">{_svg(fig, alt)}'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
    )
    plt.close(fig)
    display({"text/plain": f"Figure: {alt}\n{caption}", "text/html": figure})


def show_interactive(
    fig: "PlotlyFigure", *, alt: str, caption: str, data: Data | None = None
) -> None:
    """Show a Plotly figure that readers can move, with its caption.

    In the book, the plot is drawn by the site's own copy of Plotly's basic bundle (the traces
    `bar`, `pie` and `scatter`), its sliders are the browser's, for fingers and keys, and its
    legend is a row of boxes to tick. In a notebook, Plotly draws all of it.

    Sliders that should work together must each set a property of their own: one `mode`, another
    `opacity`. `visible` is the legend's.

    Args:
        fig: The figure. It is left as it is; what it does not set, it takes from `PLOTLY_STYLE`.
        alt: What a reader who can't see the figure needs to know.
        caption: What to see in it. The source of `data` is added. No two figures of a page share
            one: it names the figure's place, for links.
        data: The data set that the figure shows.

    Raises:
        ValueError: If `alt` or `caption` is empty.
    """
    place = identifier("figure", caption)
    caption = _caption(alt, caption, data)
    styled = type(fig)(fig)
    styled.layout.template = PLOTLY_STYLE  # in place of Plotly's own, not merged with it
    below = f"<figcaption>{html.escape(caption)}</figcaption>"
    bundle: dict[str, Any] = {"text/plain": f"Figure: {alt}"}
    if "google.colab" in sys.modules:  # Colab shows an output in a frame: Plotly has its own way.
        from plotly.io import renderers

        bundle |= renderers["colab"].to_mimebundle(_with_own_controls(styled).to_dict())
    else:
        page = styled.to_json().replace("&", r"\u0026").replace("<", r"\u003c")
        bundle["text/html"] = (
            f'<figure class="tw-figure tw-interactive" id="{place}" style="margin: 1em 0">'
            f'<div class="tw-plot" role="img" aria-label="{html.escape(alt)}" '
            f'style="height: {_plotly_height(styled)}px"></div>'
            f"<noscript><p>This figure needs JavaScript. {html.escape(alt)}</p></noscript>"
            f'<script type="application/json">{page}</script>{below}</figure>'
        )
        bundle[PLOTLY_MIME_TYPE] = json.loads(_with_own_controls(styled).to_json())
    display(bundle)
    # Plotly draws no caption. The book's style sheet hides this one, which the figure has.
    display({"text/plain": caption, "text/html": f'<div class="tw-notebook-caption">{below}</div>'})


def band(ax: Axes, frame: pd.DataFrame, x: str, y: str, *, label: str) -> None:
    """Draw the mean over seeds as a line, in a band from the lowest seed to the highest.

    Args:
        ax: Where to draw.
        frame: One row for each seed and value of `x`, with a column `seed`.
        x: The column along the horizontal axis.
        y: The column to average over seeds.
        label: The line's name, for `label_ends` or a legend.

    Raises:
        ValueError: If a column is missing, or a seed has several rows at one `x`, as when the
            frame still holds two arms.
    """
    missing = {x, y, "seed"} - set(frame.columns)
    if missing:
        raise ValueError(f"frame has no column {sorted(missing)}, only {list(frame.columns)}.")
    if frame.duplicated(["seed", x]).any():
        raise ValueError(
            f"frame has several rows for one seed and {x}. Draw one arm at a time: select its rows."
        )
    seeds = frame.groupby(x)[y].agg(["min", "mean", "max"])
    (line,) = ax.plot(seeds.index, seeds["mean"], label=label)
    ax.fill_between(
        seeds.index, seeds["min"], seeds["max"], color=line.get_color(), alpha=0.2, linewidth=0
    )


def label_ends(ax: Axes) -> None:
    """Write each line's label at its right end.

    `show` moves labels apart that would overlap, for the axes as they are then. Where a line ends
    above or below the axes, its label is then at their edge. A line ends at its last finite point;
    one without any has no label.

    Raises:
        ValueError: If no line has a label and a finite point.
    """
    lines = [
        line
        for line in ax.get_lines()
        if not str(line.get_label()).startswith("_") and len(_finite_points(line))
    ]
    if not lines:
        raise ValueError(
            "ax has no line with a label and a finite point. Give each line a label= and numbers."
        )
    labels = [
        ax.annotate(
            str(line.get_label()),
            xy=_finite_points(line)[-1],
            xytext=(6, 0),
            textcoords="offset points",
            annotation_clip=False,
            verticalalignment="center",
            color=line.get_color(),
            fontweight="bold",
        )
        for line in lines
    ]
    ax.trainwell_ends = (lines, labels)  # type: ignore[attr-defined]


def _place_labels(fig: Figure) -> None:
    """Place the labels of `label_ends` for the axes as they are now."""
    labelled = {ax: ax.trainwell_ends for ax in fig.axes if hasattr(ax, "trainwell_ends")}
    if not labelled:
        return
    every = [label for _, labels in labelled.values() for label in labels]
    for label in every:  # in a wrong place, it would change the size of the axes
        label.set_visible(False)
    fig.draw_without_rendering()
    for ax, (lines, labels) in labelled.items():
        to_axes = ax.transData + ax.transAxes.inverted()
        ends = np.array([_finite_points(line)[-1] for line in lines])
        line_height = 1.2 * mpl.rcParams["font.size"] * fig.dpi / 72
        gap = line_height / ax.get_window_extent().height
        heights = _spread(np.clip(to_axes.transform(ends)[:, 1], 0, 1), gap)
        # In data coordinates: with shared axes, a later panel may still change the limits.
        places = to_axes.inverted().transform(np.column_stack([np.zeros(len(heights)), heights]))
        for label, (x, _), (_, y) in zip(labels, ends, places, strict=True):
            label.xy = (x, y)
    for label in every:
        label.set_visible(True)


def _finite_points(line: Line2D) -> npt.NDArray[np.float64]:
    points = np.asarray(line.get_xydata())
    finite: npt.NDArray[np.float64] = points[np.isfinite(points).all(axis=1)]
    return finite


def pairs(
    ax: Axes, a: "pd.Series[float]", b: "pd.Series[float]", *, labels: tuple[str, str]
) -> None:
    """Draw both sides of a comparison, a dot a seed, the dots of a seed joined, the means barred.

    Args:
        ax: Where to draw.
        a: One number a seed, indexed by seed: the left side.
        b: The same seeds in any order: the right side.
        labels: The names of the two sides.

    Raises:
        ValueError: If the two sides do not have the same seeds, each once.
    """
    if sorted(a.index) != sorted(b.index) or a.index.has_duplicates:
        raise ValueError(
            f"a has the seeds {list(a.index)}, b has {list(b.index)}. Give both the same seeds, "
            "each once."
        )
    sides = [a, b.loc[a.index]]
    ax.plot([0, 1], sides, color="black", alpha=0.4, linewidth=1, linestyle="-")
    for place, (side, colour, marker) in enumerate(zip(sides, COLOURS, "os", strict=False)):
        ax.plot([place] * len(side), side, linestyle="none", marker=marker, color=colour)
        ax.plot([place - 0.12, place + 0.12], [side.mean()] * 2, linestyle="-", color=colour)
    ax.set_xticks([0, 1], labels)
    ax.set_xlim(-0.5, 1.5)
    ax.grid(visible=False, axis="x")


def _caption(alt: str, caption: str, data: Data | None) -> str:
    """Check a figure's words; return its caption with the source of its data."""
    for name, text in [("alt", alt), ("caption", caption)]:
        if not text.strip():
            raise ValueError(f"{name} is empty. Say in words what the figure shows.")
    return caption if data is None else f"{caption} Data: {data.source}."


def _plotly_height(fig: "PlotlyFigure") -> float:
    return float(fig.layout.height or PLOTLY_STYLE["layout"]["height"])


def _with_own_controls(fig: "PlotlyFigure") -> "PlotlyFigure":
    """Return `fig` as a notebook shows it: on white, the legend above, the sliders below."""
    sliders = [
        {"pad": {"t": PLOTLY_AXIS_HEIGHT + place * PLOTLY_SLIDER_HEIGHT}, "y": 0}
        for place, _ in enumerate(fig.layout.sliders)
    ]
    return type(fig)(fig).update_layout(
        height=_plotly_height(fig) + PLOTLY_AXIS_HEIGHT + PLOTLY_SLIDER_HEIGHT * len(sliders),
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom"},
        paper_bgcolor="white",
        sliders=sliders,
    )


def _spread(positions: npt.NDArray[np.float64], gap: float) -> npt.NDArray[np.float64]:
    """Move positions as little as possible, in order, until neighbours are `gap` apart."""
    order = np.argsort(positions, kind="stable")
    steps = gap * np.arange(len(positions))
    spread = np.empty_like(positions)
    spread[order] = isotonic_regression(positions[order] - steps) + steps
    return spread


def _svg(fig: Figure, alt: str) -> str:
    """Return `fig` as an SVG element for an HTML page; the same figure gives the same text."""
    buffer = io.StringIO()
    with mpl.rc_context(STYLE):
        fig.savefig(buffer, format="svg")
    body = buffer.getvalue()
    body = body[body.index("<defs>") :].replace("#000000", "currentColor")
    body = re.sub(r"<style.*?</style>|<!--.*?-->", "", body, flags=re.DOTALL)
    # Matplotlib draws the letters of a text upside down, and nothing else.
    colours = "|".join(COLOURS)
    body = re.sub(
        rf'fill: ({colours})("[^>]* scale\([\d.]+ -)',
        rf"fill: color-mix(in srgb, \g<1> {TEXT_SHARE}%, currentColor)\g<2>",
        body,
    )
    # Ids are shared by a whole page: make them this figure's own.
    own = "tw" + hashlib.sha256(body.encode()).hexdigest()[:8]
    body = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{own}-", body)
    width, height = fig.get_size_inches() * 72
    # Matplotlib writes no fill for black, so that one is set here. The two strokes stand in for
    # its style sheet, which would apply to the whole page.
    return (
        f'<svg role="img" aria-label="{html.escape(alt)}" viewBox="0 0 {width:g} {height:g}" '
        f'style="width: 100%; max-width: {width:g}pt; height: auto" fill="currentColor" '
        f'stroke-linejoin="round" stroke-linecap="butt">{body}'
    )
