"""Plots of the report as SVG text that stands inline in HTML and follows the page's light or dark colours.

Text and axes are drawn in one sentinel colour that becomes CSS `currentColor`; text stays text, so the browser's fonts
draw every script.
"""

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import matplotlib.patches
import matplotlib.ticker
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK = "#010203"  # replaced by currentColor
PALETTE = ("#3f7fd1", "#e0823d", "#3f9f7f", "#b45fb0", "#c9a227", "#7d8794", "#d0545c", "#58a6c4")
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.frameon": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}
Measure = Mapping[str, Any]  # value, low, high


def per_class_recall(recalls: Mapping[str, Mapping[str, float | None]], name: str) -> str:
    """Grouped bars: one group a class, one bar a perspective. `recalls`: perspective -> class -> recall."""
    classes = list(next(iter(recalls.values())))
    with mpl.rc_context(STYLE):
        figure, axes = _figure(7.6, 3.1)
        width = 0.8 / len(recalls)
        for i, (perspective, by_class) in enumerate(recalls.items()):
            heights = [100 * (by_class[label] or 0.0) for label in classes]
            positions = np.arange(len(classes)) + (i - (len(recalls) - 1) / 2) * width
            axes.bar(
                positions, heights, width * 0.9, color=PALETTE[i % len(PALETTE)], label=perspective.replace("_", " ")
            )
        axes.set_xticks(range(len(classes)), [label.replace(" ", "\n") for label in classes])
        _percent(axes, "recall, %")
        _legend(axes, len(recalls))
        return _svg(figure, name)


def grouped_measures(groups: Mapping[str, Mapping[str, Measure]], ylabel: str, name: str) -> str:
    """Bars with intervals: one group a key of `groups`, one bar a series; a series may be missing in a group."""
    series = list(dict.fromkeys(label for by_series in groups.values() for label in by_series))
    with mpl.rc_context(STYLE):
        figure, axes = _figure(max(4.4, 1.2 + 1.9 * len(groups)), 3.1)
        width = min(0.8 / len(series), 0.34)
        for i, label in enumerate(series):
            for group, by_series in enumerate(groups.values()):
                if label in by_series:
                    position = group + (i - (len(series) - 1) / 2) * width
                    _bar(axes, position, width * 0.88, by_series[label], PALETTE[i % len(PALETTE)])
            axes.bar([0], [0], color=PALETTE[i % len(PALETTE)], label=label)
        axes.set_xticks(range(len(groups)), list(groups))
        axes.set_xlim(-0.6, len(groups) - 0.4)
        _percent(axes, ylabel)
        _legend(axes, len(series))
        return _svg(figure, name)


def confusion_matrix(counts: Sequence[Sequence[int]], classes: Sequence[str], name: str) -> str:
    """Rows gold, columns predicted; a cell's colour is its share of the row, its text the share in % and the count."""
    matrix = np.asarray(counts, dtype=np.float64)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    size, cell = len(classes), 0.58
    with mpl.rc_context({**STYLE, "font.size": 9}):
        figure, axes = _figure(1.3 + cell * size, 0.8 + cell * size)
        for row in range(size):
            for column in range(size):
                color = PALETTE[0] if row == column else PALETTE[1]
                axes.add_patch(
                    mpl.patches.Rectangle(
                        (column, row), 0.96, 0.96, color=color, lw=0, alpha=0.08 + 0.72 * shares[row, column]
                    )
                )
                axes.text(column + 0.48, row + 0.42, f"{100 * shares[row, column]:.0f}", ha="center", va="center")
                count = f"{matrix[row, column]:.0f}"
                axes.text(column + 0.48, row + 0.74, count, ha="center", va="center", fontsize=6.5, alpha=0.65)
        labels = [label.replace(" ", "\n") for label in classes]
        axes.set(xlim=(0, size), ylim=(size, 0), xlabel="predicted", ylabel="gold")
        axes.set_xticks(np.arange(size) + 0.48, labels, fontsize=7)
        axes.set_yticks(np.arange(size) + 0.48, labels, fontsize=7)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        return _svg(figure, name)


def reliability(bins: Mapping[str, Sequence[Sequence[float]]], name: str) -> str:
    """Accuracy against confidence, one line a model; the size of a point is its bin's share of the rows."""
    with mpl.rc_context(STYLE):
        figure, axes = _figure(4.6, 3.6)
        axes.plot([0, 100], [0, 100], color=INK, lw=0.7, ls=(0, (4, 4)), alpha=0.5)
        for i, (model, rows) in enumerate(bins.items()):
            filled = np.asarray([row for row in rows if row[0] > 0])
            color = PALETTE[i % len(PALETTE)]
            axes.plot(100 * filled[:, 1], 100 * filled[:, 2], color=color, lw=1.3, label=model)
            axes.scatter(
                100 * filled[:, 1], 100 * filled[:, 2], 6 + 90 * filled[:, 0] / filled[:, 0].sum(), color=color
            )
        axes.set(xlim=(0, 101), xlabel="confidence, %")
        _percent(axes, "accuracy, %")
        _legend(axes, min(2, len(bins)))
        return _svg(figure, name)


def rejects(stages: Mapping[str, Mapping[str, int]], name: str) -> str:
    """Stacked horizontal bars: one bar a stage, one colour a reason; stages without rejects keep their place."""
    totals: dict[str, int] = {}
    for counts in stages.values():
        for reason, count in counts.items():
            totals[reason] = totals.get(reason, 0) + count
    reasons = sorted(totals, key=lambda reason: -totals[reason])
    with mpl.rc_context(STYLE):
        figure, axes = _figure(7.6, 0.9 + 0.34 * len(stages) + 0.2 * ((len(reasons) + 2) // 3))
        left = np.zeros(len(stages))
        for i, reason in enumerate(reasons):
            widths = np.array([counts.get(reason, 0) for counts in stages.values()], dtype=np.float64)
            axes.barh(range(len(stages)), widths, 0.62, left=left, color=PALETTE[i % len(PALETTE)],
                      alpha=1.0 if i < len(PALETTE) else 0.5, label=reason.replace("_", " "))  # fmt: skip
            left += widths
        for i, total in enumerate(left):
            axes.text(total + left.max() * 0.01, i, f"{total:,.0f}", va="center", fontsize=9)
        axes.set_yticks(range(len(stages)), list(stages))
        axes.invert_yaxis()
        axes.set(xlabel="rejected rows", xlim=(0, max(1.0, left.max() * 1.12)))
        axes.tick_params(axis="y", length=0)
        axes.xaxis.set_major_locator(mpl.ticker.MaxNLocator(6, integer=True))
        axes.xaxis.set_major_formatter(mpl.ticker.StrMethodFormatter("{x:,.0f}"))
        if reasons:
            _legend(axes, 3)
        return _svg(figure, name)


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def _bar(axes: Axes, position: float, width: float, measure: Measure, color: str) -> None:
    value, low, high = (100 * measure[key] for key in ("value", "low", "high"))
    axes.bar([position], [value], width, color=color)
    axes.plot([position, position], [low, high], color=INK, lw=1, alpha=0.8)
    axes.text(position, max(high, value) + 1.2, f"{value:.1f}", ha="center", va="bottom", fontsize=8.5)


def _percent(axes: Axes, label: str) -> None:
    axes.set(ylim=(0, 104), ylabel=label)
    axes.set_yticks(range(0, 101, 20))
    axes.grid(axis="y", color=INK, lw=0.5, alpha=0.12)
    axes.set_axisbelow(True)


def _legend(axes: Axes, columns: int) -> None:
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=columns, borderaxespad=0.2, handlelength=1.0,
                handleheight=1.0, columnspacing=1.4, fontsize=9)  # fmt: skip


def _svg(figure: Figure, name: str) -> str:
    """The figure as an <svg> element whose ids start with `name`, so that several fit in one page."""
    stream = io.StringIO()
    with mpl.rc_context({**STYLE, "svg.hashsalt": name}):
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = text.replace("url(#", f"url(#{name}-").replace('href="#', f'href="#{name}-')
    return text.replace(INK, "currentColor")
