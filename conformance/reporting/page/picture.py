"""One picture of a failed report: the map of the first failing model, with the first divergence marked."""

from __future__ import annotations

from collections.abc import Iterable

from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from conformance.reporting.jsonl import CaseLine, RunLine
from conformance.reporting.page.heat_map import COLOURS, SCALE, HeatMap, cell_of, fill, heat_maps, svg
from gemma4_contract import FixtureError

_LABELS, _LEGEND, _ABOVE, _BELOW = 1.75, 1.35, 0.35, 0.45  # inches
_ROW, _GRID, _WIDEST = 0.19, 3.6, 0.32  # inches: height of a row, width of all layers, of one layer at most
_MARK = "#1f3b8f"


def draw_picture(run: RunLine, lines: Iterable[CaseLine]) -> str:
    """The picture as SVG, on a white ground so that it can be read on a dark page too.

    It shows the first model whose whole forward pass fails at a tap of a layer; FixtureError if there is none.
    """
    forward = [line for line in lines if line.kind == "forward"]
    for heat_map in heat_maps(forward):
        for line in forward:
            first = cell_of(line.first_divergence or "")
            if line.model == heat_map.model and first is not None:
                return svg(_figure(run, heat_map, first))
    raise FixtureError(
        "--picture",
        got="a report in which no whole forward pass fails at a tap of a layer",
        expected="a report with a first divergence to mark",
        cure="judge again with --report and --cases 'forward/*'",
    )


def _figure(run: RunLine, heat_map: HeatMap, first: tuple[str, int]) -> Figure:
    cell = min(_WIDEST, _GRID / heat_map.layers)
    grid, rows = cell * heat_map.layers, _ROW * len(heat_map.taps)
    width, height = _LABELS + grid + _LEGEND, _ABOVE + rows + _BELOW
    figure = Figure(figsize=(width, height), facecolor="white")
    axes = figure.add_axes((_LABELS / width, _BELOW / height, grid / width, rows / height))
    fill(axes, heat_map)
    axes.set_title(f"{heat_map.model} in {run.profile}: {run.implementation}", fontsize=8, loc="left")
    _mark(axes, heat_map, first)
    bar = figure.add_axes(((width - _LEGEND + 0.2) / width, _BELOW / height, 0.14 / width, rows / height))
    figure.colorbar(ScalarMappable(SCALE, COLOURS), cax=bar)
    bar.set_yticks([-3, 0, 3], ["tolerance / 1000", "tolerance", "tolerance \u00d7 1000"], fontsize=7)
    bar.set_title("error", fontsize=8, loc="left")
    return figure


def _mark(axes: Axes, heat_map: HeatMap, first: tuple[str, int]) -> None:
    """A frame around the first divergence, and an arrow to it from the layers that agree."""
    tap, layer = first
    row = heat_map.taps.index(tap)
    frame = Rectangle((layer - 0.5, row - 0.5), 1, 1, fill=False, edgecolor=_MARK, linewidth=2, zorder=3)
    frame.set_gid(f"first divergence {tap} {layer}")
    axes.add_patch(frame)
    axes.annotate(
        "first\ndivergence",
        xy=(layer - 0.5, row),
        xytext=(max(layer - 4, 0), row + 3 if row + 4 < len(heat_map.taps) else row - 3),
        fontsize=8,
        color=_MARK,
        bbox={"facecolor": "white", "alpha": 0.8, "linewidth": 0},
        arrowprops={"arrowstyle": "->", "color": _MARK},
    )
