"""Error over tolerance by tap and layer: one map for each model, from the lines of a report."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from conformance.reporting.jsonl import CaseLine, TapLine
from gemma4_contract.graph import text_graph

_WORST = 1e12
"""The ratio of a failing tap that has none, because its shape is wrong, it is not finite, or its golden is zero."""
_CELL, _LABELS = 0.17, 3.0  # inches
SCALE, COLOURS = Normalize(-3, 3, clip=True), colormaps["RdYlGn_r"]
"""Scale and colours for the logarithm of error over tolerance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeatMap:
    """The worst ratio of every tap and layer over the cases of a model; a tap that no case offered has none."""

    model: str
    taps: tuple[str, ...]
    layers: int
    ratios: Mapping[tuple[str, int], float]


def cell_of(tap: str) -> tuple[str, int] | None:
    """The cell of a tap: its name below its layer, and the layer; None for a tap outside the layers."""
    place = text_graph().place_of(tap)
    return None if place is None or place.layer is None else (place.node.short, place.layer)


def heat_maps(lines: Iterable[CaseLine]) -> list[HeatMap]:
    """The maps of all models with cases of whole forward passes, in the order of the report."""
    by_model: dict[str, dict[tuple[str, int], float]] = {}
    for line in lines:
        if line.kind == "forward" and line.model:
            ratios = by_model.setdefault(line.model, {})
            for tap in line.taps:
                if cell := cell_of(tap.name):
                    ratios[cell] = max(ratios.get(cell, 0.0), _ratio(tap))
    return [
        HeatMap(
            model=model,
            taps=tuple(sorted({tap for tap, _ in ratios}, key=_order)),
            layers=1 + max(layer for _, layer in ratios),
            ratios=ratios,
        )
        for model, ratios in by_model.items()
        if ratios
    ]


def _order(tap: str) -> int:
    """Place of a tap in execution order, by the graph, because a case may not ask for all taps."""
    templates = list(text_graph().by_template)
    name = f"model.layers.{{i}}.{tap}"
    return templates.index(name) if name in templates else len(templates)


def draw(heat_map: HeatMap) -> str:
    """The map as SVG: layers across, taps down in execution order, grey where nothing was offered.

    A cell is green if its error is below the tolerance, and red if it is above: the colour is the
    logarithm of error over tolerance, from a thousandth to a thousand.
    """
    width, height = _LABELS + _CELL * heat_map.layers, 0.5 + _CELL * len(heat_map.taps)
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((_LABELS / width, 0.45 / height, 1 - (_LABELS + 0.05) / width, 1 - 0.5 / height))
    fill(axes, heat_map)
    return svg(figure)


def fill(axes: Axes, heat_map: HeatMap) -> None:
    """Draw the cells of a map into axes, and label its layers and taps."""
    for row, tap in enumerate(heat_map.taps):
        for layer in range(heat_map.layers):
            ratio = heat_map.ratios.get((tap, layer))
            colour = "#8884" if ratio is None else COLOURS(SCALE(math.log10(max(ratio, 1e-9))))
            cell = Rectangle((layer - 0.5, row - 0.5), 1, 1, facecolor=colour, edgecolor="white", linewidth=0.5)
            cell.set_gid(f"cell {heat_map.model} {tap} {layer}")
            axes.add_patch(cell)
    axes.set_xlim(-0.5, heat_map.layers - 0.5)
    axes.set_ylim(len(heat_map.taps) - 0.5, -0.5)
    axes.set_xticks(range(heat_map.layers), [str(layer) for layer in range(heat_map.layers)], fontsize=7)
    axes.set_yticks(range(len(heat_map.taps)), heat_map.taps, fontsize=7)
    axes.set_xlabel("layer", fontsize=7)


def svg(figure: Figure) -> str:
    """A figure as an SVG element, the same for the same figure."""
    out = io.StringIO()
    with rc_context({"svg.hashsalt": "gemma4-conformance", "svg.fonttype": "none"}):
        FigureCanvasSVG(figure).print_svg(out, metadata={"Date": None})  # type: ignore[no-untyped-call]
    text = out.getvalue()
    return text[text.index("<svg") :]


def _ratio(tap: TapLine) -> float:
    if tap.ratio is not None:
        return tap.ratio
    return _WORST if tap.status == "fail" else 0.0
