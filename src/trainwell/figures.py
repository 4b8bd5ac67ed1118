"""The course's plots: one look, an alt text and a caption each, light and dark.

Importing this module sets Matplotlib's defaults to `STYLE`. Draw with Matplotlib as usual,
then call `show`. Black is the ink: text, axes and whatever else is drawn in black takes the
colour of the page's text, so it is legible on a light and on a dark page. Everything else
keeps its colour; `COLOURS` stand out on both, and with colour-blind eyes. What is rasterised
(`rasterized=True` for clouds of thousands of points, `imshow`) keeps its colours, black too.
"""

import hashlib
import html
import io
import re
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
import pandas as pd
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.isotonic import isotonic_regression

from trainwell._display import Data, display

# Chosen for a contrast of 3:1 or more with white and with #14181e, the least that WCAG 2.2
# (1.4.11) asks of graphics, and to stay apart under three kinds of colour blindness.
COLOURS = ["#2b8af0", "#d9720d", "#4d7f5e", "#c060a8", "#3a58fa", "#856226"]
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


def show(fig: Figure, *, alt: str, caption: str, data: Data | None = None) -> None:
    """Show a figure as one inline SVG with its caption, and close it.

    Args:
        fig: The figure, at most 6.4 inches wide.
        alt: What a reader who can't see the figure needs to know.
        caption: What to see in it. The source of `data` is added.
        data: The data set that the figure shows.

    Raises:
        ValueError: If `alt` or `caption` is empty, or the figure is too wide for a phone.
    """
    for name, text in [("alt", alt), ("caption", caption)]:
        if not text.strip():
            raise ValueError(f"{name} is empty. Say in words what the figure shows.")
    if fig.get_figwidth() > MAX_WIDTH:
        raise ValueError(
            f"fig is {fig.get_figwidth():g} inches wide; on a phone its text would be too small. "
            f"Use at most {MAX_WIDTH} and stack the panels."
        )
    if data is not None:
        caption = f"{caption} Data: {data.source}."
    figure = (
        f'<figure class="tw-figure" style="margin: 1em 0">{_svg(fig, alt)}'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
    )
    plt.close(fig)
    display({"text/plain": f"Figure: {alt}\n{caption}", "text/html": figure})


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
    """Write each line's label at its right end, moved apart where they would overlap.

    Call it last: it places the labels for the axes as they are now.

    Raises:
        ValueError: If no line has a label.
    """
    lines = [line for line in ax.get_lines() if not str(line.get_label()).startswith("_")]
    if not lines:
        raise ValueError("ax has no line with a label. Give each line a label=.")
    fig = ax.figure
    assert isinstance(fig, Figure)
    fig.draw_without_rendering()
    to_axes = ax.transData + ax.transAxes.inverted()
    ends = np.array([np.asarray(line.get_xydata())[-1] for line in lines])
    line_height = 1.2 * mpl.rcParams["font.size"] * fig.dpi / 72
    gap = line_height / ax.get_window_extent().height
    heights = _spread(to_axes.transform(ends)[:, 1], gap)
    for line, (x, _), height in zip(lines, ends, heights, strict=True):
        ax.annotate(
            str(line.get_label()),
            xy=(x, height),
            xycoords=ax.get_xaxis_transform(),
            xytext=(6, 0),
            textcoords="offset points",
            verticalalignment="center",
            color=line.get_color(),
            fontweight="bold",
        )


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
