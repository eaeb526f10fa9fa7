"""The picture of an outage: one small diagram for each strategy, all to the same scale."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.herd.simulator import Seconds

_COLUMNS = 3
_BIN = 2
"""Seconds that one point stands for: the fuller of them, so that no peak is lost."""
_LOAD = (0.02, 200.0)
_STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 9,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "insider-otel",  # the same picture has the same bytes
}
_METADATA = {"Date": None, "Creator": None, "Title": "Load on a server during and after an outage, by retry strategy"}
_EVEN, _AT_ONCE, _LIMIT = "#0b6e99", "#d9730d", "#c0392b"


def draw(
    path: Path,
    even: Mapping[str, Seconds],
    at_once: Mapping[str, Seconds],
    *,
    outage: float,
    until: float,
) -> None:
    """Write the picture as SVG.

    Args:
        path: Where.
        even: Load by strategy in each second, as multiples of the capacity, of calls that come evenly.
        at_once: The same of calls that all come in the first second.
        outage: Length of the outage in seconds, from second 0.
        until: The last second that is shown.
    """
    rows = -(-len(even) // _COLUMNS)
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(10, 2.1 * rows + 0.8), layout="constrained")
        panels = figure.subplots(rows, _COLUMNS, sharex=True, sharey=True, squeeze=False)
        for panel, name in zip(panels.flat, even, strict=False):
            _panel(panel, name, even[name], at_once[name], outage, until)
        for unused in panels.flat[len(even) :]:
            unused.set_visible(False)
        for panel in panels[:, 0]:
            panel.set_ylabel("attempts / room")
        for panel in panels[-1]:
            panel.set_xlabel("seconds since the outage began")
        handles, labels = panels[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False)
        figure.savefig(path, format="svg", metadata=_METADATA)


def _panel(panel: Axes, name: str, even: Seconds, at_once: Seconds, outage: float, until: float) -> None:
    panel.axvspan(0, outage, color="0.9", label="outage")
    panel.axhline(1, color=_LIMIT, linewidth=0.8, linestyle="--", label="all there is room for")
    panel.plot(*_points(even, until), color=_EVEN, linewidth=1.4, label="calls come evenly")
    panel.plot(*_points(at_once, until), color=_AT_ONCE, linewidth=0.9, label="all in the first second")
    panel.set_title(name, loc="left", fontsize=9)
    panel.set_yscale("log")
    panel.minorticks_off()
    panel.set_ylim(*_LOAD)
    panel.set_xlim(0, until)


def _points(load: Seconds, until: float) -> tuple[Seconds, Seconds]:
    """Moments and loads; none is drawn below the diagram, because a logarithm has no place for it."""
    shown: Seconds = np.zeros(-(-int(until) // _BIN) * _BIN)
    shown[: min(len(load), len(shown))] = load[: len(shown)]
    fullest: Seconds = shown.reshape(-1, _BIN).max(axis=1)
    return np.arange(0, len(shown), _BIN, dtype=np.float64), np.maximum(fullest, _LOAD[0] / 10)
