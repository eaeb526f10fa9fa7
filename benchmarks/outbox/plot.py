"""The picture of the two load curves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.outbox.shop import Curve

_STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 9,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "insider-otel",  # the same picture has the same bytes
}
_METADATA = {"Date": None, "Creator": None, "Title": "Load on Insider while an outbox is worked off"}
_LOAD, _LIMIT = "#0b6e99", "#c0392b"


def draw(path: Path, outage: Curve, outage_limit: float, length: float, backlog: Curve, backlog_limit: float) -> None:
    """Write the picture as SVG.

    Args:
        path: Where.
        outage: The load of the simulated outage.
        outage_limit: Requests a second that Insider allows there.
        length: Seconds that the outage lasts.
        backlog: The load of the backlog in real time.
        backlog_limit: Requests a second that Insider allows there.
    """
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(10, 3), layout="constrained")
        left, right = figure.subplots(1, 2)
        left.axvspan(0, length, color="0.9", label="outage")
        _panel(left, outage, outage_limit, f"{outage.delivered:,} calls of a minute's outage (fake clock)")
        _panel(right, backlog, backlog_limit, f"a backlog of {backlog.delivered:,} calls (real time)")
        left.set_ylabel("requests a second")
        left.legend(loc="upper right", frameon=False)
        figure.savefig(path, format="svg", metadata=_METADATA)


def _panel(panel: Axes, curve: Curve, limit: float, title: str) -> None:
    panel.axhline(limit, color=_LIMIT, linewidth=0.8, linestyle="--", label="the limit")
    panel.step(range(len(curve.seconds)), curve.seconds, where="post", color=_LOAD, linewidth=0.9, label="requests")
    panel.set_title(title, loc="left", fontsize=9)
    panel.set_xlabel("seconds")
    panel.set_ylim(0, 2 * limit)
    panel.set_xlim(0, len(curve.seconds))
