"""A plot beside a result."""

import io
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure


def write_plot(path: Path, draw: Callable[[Axes], None], width: float, height: float) -> None:
    """Keep what `draw` draws as PATH.svg, the same bytes for the same figures; width and height in inches."""
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "tricot"}):
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure.subplots())
        stream = io.StringIO()
        figure.savefig(stream, format="svg", metadata={"Date": None})
    path.with_suffix(".svg").write_text(stream.getvalue())
