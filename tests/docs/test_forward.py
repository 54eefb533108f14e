"""docs/FORWARD.md and its figure are what the command writes from the graph, and name every tap of every model."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest
from typer.testing import CliRunner

from conformance.cli.app import app
from gemma4_contract import Fixtures
from gemma4_contract.graph import text_graph
from tests.support import ROOT

DOCS = ROOT / "docs"
TEXT = (DOCS / "FORWARD.md").read_text(encoding="utf-8")
FIGURE = (DOCS / "forward.svg").read_text(encoding="utf-8")
GRAPH = text_graph()
SVG = "{http://www.w3.org/2000/svg}"


def test_every_tap_is_named() -> None:
    fixtures = Fixtures()
    taps = {tap.name for case in fixtures.cases() if case.kind == "forward" for tap in fixtures.taps(case)}
    named = set(re.findall(r"^### `([\w.]+)` \[", TEXT, re.MULTILINE))
    assert len(taps) > 100
    assert named == {re.sub(r"^model\.layers\.\d+\.", "", tap) for tap in taps}


@pytest.mark.parametrize(("option", "stored"), [("--markdown", TEXT), ("--svg", FIGURE)], ids=["page", "figure"])
def test_the_stored_file_is_what_the_command_writes(option: str, stored: str) -> None:
    done = CliRunner().invoke(app, ["graph", option])
    assert done.exit_code == 0
    assert done.stdout == stored, f"write it again: gemma4-conformance graph {option}"


def test_the_page_says_what_a_porter_must_know() -> None:
    """What no formula alone would say."""
    for words in (
        "w and not 1 + w",
        "eps is rms_norm_eps and stands inside the root",
        "No linear map has a bias",
        "rounded to the dtype of the table before it multiplies",
        "(id * N + layer) * P + channel",
        "Nothing scales the scores",
        "query head h reads key head h // (H/K)",
        "A pad is never seen",
        "so is a row that sees nothing",
        "before k_norm and RoPE",
        "never rotated",
        "as the donor's own queries saw them",
        "of equals the lower index",
        "the router reads the residual stream itself",
        "rows 0 to M-1 of gate_up_proj_e are gate_e",
        "twice that on KV-shared layers with use_double_wide_mlp",
        "the exponent still over the whole E",
        "the head is the embedding table itself, not scaled",
        "logits.raw where that is null",
    ):
        assert words in TEXT, words


def test_links_to_functions_lead_somewhere() -> None:
    links = set(re.findall(r"\]\(#function-(\w+)\)", TEXT))
    assert links == {node.function for node in GRAPH.nodes}
    assert links <= set(re.findall(r"^### Function `(\w+)`", TEXT, re.MULTILINE))


def test_every_node_stands_in_the_figure_once_and_over_no_other() -> None:
    boxes = list(ET.fromstring(FIGURE).iter(f"{SVG}g"))
    assert [box.findtext(f"{SVG}title", "").partition(":")[0] for box in boxes] == [node.tap for node in GRAPH.nodes]
    rectangles = [box.find(f"{SVG}rect") for box in boxes]
    assert len({(one.attrib["x"], one.attrib["y"]) for one in rectangles if one is not None}) == len(boxes)
    for box, node in zip(boxes, GRAPH.nodes, strict=True):
        *name, axes = (text.text or "" for text in box.iter(f"{SVG}text"))
        assert ("".join(name), axes) == (node.short.removeprefix("self_attn."), node.axes)
        assert all(len(line) <= 18 for line in name), node.short  # wider ones leave the box
        assert ("when" in (box.find(f"{SVG}rect").attrib.get("class", ""))) == (node.when is not None)  # type: ignore[union-attr]  # every box has one


def test_the_figure_has_a_line_for_everything_that_a_node_is_made_of() -> None:
    tree = ET.fromstring(FIGURE)
    drawn = [path for path in tree.iter(f"{SVG}path") if path.attrib.get("class") != "head"]
    inputs = {one.name for one in GRAPH.inputs}
    sources = [one for node in GRAPH.nodes for one in node.sources if one.tap not in inputs and not one.through]
    assert len(drawn) == len(sources) + 1  # and the way to the next layer
    width, height = (float(tree.attrib[name]) for name in ("width", "height"))
    for path in drawn:
        for letter, number, other in re.findall(r"([MHV])(-?\d+)(?: (-?\d+))?", path.attrib["d"]):
            assert 0 <= float(number) <= (height if letter == "V" else width)
            assert not other or 0 <= float(other) <= height
