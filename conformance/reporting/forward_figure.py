"""Draws the forward pass: boxes and lines, all from the graph.

The residual stream runs down on the left; every part of a layer branches off to the right and returns.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape

from gemma4_contract.graph import Graph
from gemma4_contract.node import Node

_WIDTH, _COLUMN, _ROW, _BOX, _HEIGHT = 472, 115, 54, 108, 42
_LEFT, _TOP, _RAIL = 62, 48, 466
_STYLE = """
text { font: 10px ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; fill: #1f2328; text-anchor: middle }
.axes { font-size: 9px; fill: #57606a }
.title { font: 600 11px system-ui, sans-serif; text-anchor: start }
.note { font: 10.5px system-ui, sans-serif; text-anchor: start; fill: #57606a }
rect { fill: #f6f8fa; stroke: #57606a; stroke-width: 1 }
.when { stroke-dasharray: 4 3 }
.frame { fill: none; stroke: #8c959f; stroke-dasharray: 1 4; stroke-linecap: round }
.embedding rect, .logits rect { fill: #eaeef2 }
.attention rect { fill: #ddf4ff; stroke: #0969da }
.mlp rect { fill: #dafbe1; stroke: #1a7f37 }
.experts rect { fill: #fff1e5; stroke: #bc4c00 }
.ple rect { fill: #fbefff; stroke: #8250df }
path { fill: none; stroke: #8c959f; stroke-width: 1.2; marker-end: url(#to) }
.head { fill: #8c959f; stroke: none; marker-end: none }
.stream { stroke: #1f2328; stroke-width: 2.4 }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 } .axes, .note { fill: #9198a1 }
rect { fill: #21262d; stroke: #9198a1 }
.embedding rect, .logits rect { fill: #30363d }
.attention rect { fill: #0c2d6b; stroke: #58a6ff }
.mlp rect { fill: #033a16; stroke: #3fb950 }
.experts rect { fill: #5a1e02; stroke: #f0883e }
.ple rect { fill: #3c1e70; stroke: #bc8cff }
.frame { fill: none }
.stream { stroke: #e6edf3 }
}
""".strip()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Box:
    """A node's box: the middle of its upper edge."""

    column: int
    row: int

    @property
    def x(self) -> int:
        return _LEFT + self.column * _COLUMN

    @property
    def y(self) -> int:
        return _TOP + self.row * _ROW

    @property
    def middle(self) -> int:
        return self.y + _HEIGHT // 2

    @property
    def bottom(self) -> int:
        return self.y + _HEIGHT


def draw(graph: Graph) -> str:
    """The figure as an SVG document, the same for the same graph."""
    boxes = _placed(graph)
    notes = list(_notes(graph))
    foot = max(box.bottom for box in boxes.values()) + 30
    height = foot + 16 * len(notes) + 6
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" '
        'role="img" aria-label="The forward pass of the text decoder">',
        f"<style>{_STYLE}</style>",
        '<marker id="to" viewBox="0 0 6 6" refX="6" refY="3" markerWidth="6" markerHeight="6" orient="auto" '
        'markerUnits="userSpaceOnUse"><path class="head" d="M0 0L6 3L0 6z"/></marker>',
        *_frame(graph, boxes),
        *(f'<path{css} d="{path}"/>' for css, path in _edges(graph, boxes)),
        *(line for node in graph.nodes for line in _node(node, boxes[node.tap])),
        *_titles(graph, boxes),
        *(f'<text class="note" x="8" y="{foot + 16 * line}">{escape(note)}</text>' for line, note in enumerate(notes)),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _placed(graph: Graph) -> dict[str, _Box]:
    """A box for every node: below all that it is computed from, in the column of the first of these, or right of it.

    Nodes that add to the residual stream are in column 0. A free row is before the layer, and one after it.
    """
    boxes: dict[str, _Box] = {}
    in_layers, top = False, 0
    stream = graph.by_template[graph.entry.first_layer].axes
    for node in graph.nodes:
        if node.in_layers != in_layers:
            in_layers, top = node.in_layers, 2 + max(box.row for box in boxes.values())
        parents = [boxes[tap] for tap in _drawn_parents(graph, node) if tap in boxes]
        row = max([top, *(1 + box.row for box in parents)])
        adds = len(parents) > 1 and parents[0].column == 0 and node.axes == stream
        column = 0 if adds or node.tap == graph.entry.first_layer else max(1, parents[0].column if parents else 1)
        while _Box(column=column, row=row) in boxes.values():
            column += 1
        boxes[node.tap] = _Box(column=column, row=row)
    return boxes


def _drawn_parents(graph: Graph, node: Node) -> Iterator[str]:
    """The taps that a line leads from, by the names of one layer."""
    for source in node.sources:
        if source.through is None:
            tap = {graph.entry.tap: graph.entry.first_layer}.get(source.tap, source.tap)
            yield tap.replace("{donor}", "{i}").replace("{last}", "{i}")


def _node(node: Node, box: _Box) -> Iterator[str]:
    words = _broken(node.short.removeprefix("self_attn."))
    css = ' class="when"' if node.when else ""
    yield f'<g class="{node.part}"><title>{escape(f"{node.tap}: {node.does}")}</title>'
    yield f'<rect{css} x="{box.x - _BOX // 2}" y="{box.y}" width="{_BOX}" height="{_HEIGHT}" rx="4"/>'
    first = box.y + (18 if len(words) == 1 else 12)
    for number, word in enumerate(words):
        yield f'<text x="{box.x}" y="{first + 11 * number}">{escape(word)}</text>'
    yield f'<text class="axes" x="{box.x}" y="{box.bottom - 6}">{escape(node.axes)}</text></g>'


def _broken(name: str) -> list[str]:
    """A name in one line or two, cut after an underscore."""
    if len(name) <= 16:
        return [name]
    cuts = [place + 1 for place, letter in enumerate(name) if letter == "_"]
    cut = min(cuts, key=lambda place: max(place, len(name) - place))
    return [name[:cut], name[cut:]]


def _edges(graph: Graph, boxes: dict[str, _Box]) -> Iterator[tuple[str, str]]:
    """Style and path of every line: from each tap that a node is computed from, and of the residual stream."""
    for node in graph.nodes:
        for tap in _drawn_parents(graph, node):
            if tap in boxes:
                start, end = boxes[tap], boxes[node.tap]
                yield (' class="stream"' if start.column == end.column == 0 else ""), _path(start, end, boxes)
    last, first = boxes[graph.entry.tap.replace("{i-1}", "{i}")], _layer_ends(graph, boxes)[0].y - 22
    yield "", f"M{last.x - _BOX // 2} {last.middle}H3V{first}H{last.x}"  # the next layer


def _path(start: _Box, end: _Box, boxes: dict[str, _Box]) -> str:
    if end.row - start.row > 8 and start.column:  # around all boxes, on the right
        return f"M{start.x + _BOX // 2} {start.middle}H{_RAIL}V{end.middle}H{end.x + _BOX // 2}"
    if start.row == end.row:
        return f"M{start.x + _BOX // 2} {start.middle}H{end.x - _BOX // 2}"
    if end.column == 0 and start.column:  # back to the stream
        return f"M{start.x} {start.bottom}V{end.middle}H{end.x + _BOX // 2}"
    if start.column == end.column:
        between = {box.row for box in boxes.values() if box.column == start.column} & {*range(start.row + 1, end.row)}
        if not between or not start.column:
            return f"M{start.x} {start.bottom}V{end.y}"
        side = start.x - _BOX // 2 - 5
        return f"M{start.x - _BOX // 2} {start.middle}H{side}V{end.middle}H{end.x - _BOX // 2}"
    return f"M{start.x} {start.bottom}V{end.y - 6}H{end.x}V{end.y}"


def _layer_ends(graph: Graph, boxes: dict[str, _Box]) -> tuple[_Box, _Box]:
    """The first and the last box of what every layer repeats."""
    of_layer = [boxes[node.tap] for node in graph.nodes if node.in_layers]
    return of_layer[0], of_layer[-1]


def _frame(graph: Graph, boxes: dict[str, _Box]) -> Iterator[str]:
    first, last = _layer_ends(graph, boxes)
    top, bottom = first.y - _ROW + 8, last.bottom + 8
    yield f'<rect class="frame" x="1" y="{top}" width="{_WIDTH - 2}" height="{bottom - top}" rx="6"/>'
    title = _Box(column=3, row=first.row - 1)
    yield f'<text class="title" x="{title.x - _BOX // 2}" y="{title.bottom - 4}">Layer, N times</text>'


def _titles(graph: Graph, boxes: dict[str, _Box]) -> Iterator[str]:
    """The title of every part that leaves the residual stream where there is room above its first box."""
    for part in graph.parts:
        beside = (boxes[node.tap] for node in graph.nodes if node.part == part.part)
        first = next((box for box in beside if box.column), None)
        if first is not None and (above := _Box(column=first.column, row=first.row - 1)) not in boxes.values():
            yield f'<text class="title" x="{above.x - _BOX // 2}" y="{above.bottom - 4}">{escape(part.title)}</text>'


def _notes(graph: Graph) -> Iterator[str]:
    """Notes on what the lines of the figure do not show."""
    for one in graph.inputs:
        yield f"{one.name}: read by {', '.join(_readers(graph, one.name))}"
    yield f"{' and '.join(_readers(graph, '{donor}'))} read keys and values of the layer itself or of its donor"
    yield "dashed: of some models or layers alone"


def _readers(graph: Graph, name: str) -> list[str]:
    direct = {node.short: [one.tap for one in node.sources if one.through is None] for node in graph.nodes}
    return [short.rpartition(".")[2] for short, taps in direct.items() if any(name in tap for tap in taps)]
