"""What the graph says of taps, axes, parents, row rules and layers no module says a second time."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator

import pytest

from gemma4_contract.graph import text_graph
from tests.support import ROOT

GRAPH = text_graph()
TAPS = {node.short for node in GRAPH.nodes if "." in node.short} | {
    *("q_norm", "q_rope", "k_norm", "k_rope", "v_norm", "probs", "context", "o_proj"),
    *("residual_1", "residual_2", "ple_gated", "input_layernorm"),
}
"""Names that nothing but a tap or its module has; `proj` and `experts` are also names of other things."""
AXES = {node.axes for node in GRAPH.nodes} | {" ".join(node.axes.split()[:2]) for node in GRAPH.nodes}
LISTS = {
    "reference/weights.py": "bases of norm weights, by the names of weights",
    "reference/transformers_model/capture.py": "RoPE's calls, which no module shows",
    "conformance/adapters/mlx_lm/taps.py": "likewise",
    "conformance/adapters/mlx_lm/modules.py": "the answers to a question of kind ple",
    "reference/transformers_model/modules.py": "likewise",
    "reference/cases/layer.py": "the donor's keys and values, which a case gives a layer",
    "reference/export/derive.py": "what transformers cannot be given",
}
"""Modules that list names of taps, and why."""
LAYERS = {
    "reference/weights.py": "names of weights, which are no taps",
    "reference/transformers_model/build.py": "likewise",
}
"""Modules that cut a layer's number out of a name, and why."""


def sources() -> Iterator[tuple[str, ast.Module]]:
    """The modules, but those of mutants, which are wrong on purpose."""
    for package in ("conformance", "gemma4_contract", "reference"):
        for path in sorted((ROOT / package).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            if not name.startswith("reference/mutants/"):
                yield name, ast.parse(path.read_text(encoding="utf-8"))


def texts(node: ast.AST) -> list[str]:
    """The strings of an expression; of f-strings what stands last in them."""
    if isinstance(node, ast.Constant):
        return [node.value] if isinstance(node.value, str) else []
    if isinstance(node, ast.JoinedStr):
        return texts(node.values[-1])
    if isinstance(node, ast.Tuple | ast.List | ast.Set):
        return [text for item in node.elts for text in texts(item)]
    return []


def is_tap(text: str) -> bool:
    return re.sub(r"^.*model\.layers\.[^.]*\.|^\.+", "", text) in TAPS


def lists_of_taps(tree: ast.AST) -> list[str]:
    """Tuples, lists, sets and keys of dicts with several names of taps, and endings that a name is asked for."""
    found = []
    for node in ast.walk(tree):
        keys = [key for key in node.keys if key] if isinstance(node, ast.Dict) else []
        listed = texts(ast.Tuple(elts=keys)) if keys else texts(node) if not isinstance(node, ast.Constant) else []
        asked = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "endswith"
        if asked:
            listed = [text for argument in node.args for text in texts(argument)]  # type: ignore[attr-defined]
        taps = [text for text in listed if is_tap(text)]
        if len(set(taps)) > 1 or (asked and taps):
            found.append(f"line {node.lineno}: {', '.join(taps)}")  # type: ignore[attr-defined]
    return found


def axes_of_taps(tree: ast.AST) -> list[str]:
    return [
        f"line {node.lineno}"  # type: ignore[attr-defined]
        for node in ast.walk(tree)
        if " ".join(texts(node)) in AXES and (isinstance(node, ast.Constant | ast.Tuple | ast.List))
    ]


def layer_numbers(tree: ast.AST) -> list[str]:
    calls = ("startswith", "split", "partition", "compile", "match", "fullmatch", "search", "removeprefix")
    return [
        f"line {node.lineno}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and getattr(node.func, "attr", "") in calls
        and any("layers" in text for argument in node.args for text in texts(argument))
    ]


def test_no_module_lists_taps_asks_for_their_endings_or_spells_their_axes() -> None:
    lists = {name: found for name, tree in sources() if (found := lists_of_taps(tree))}
    assert lists.keys() == LISTS.keys(), lists
    axes = {name: found for name, tree in sources() if (found := axes_of_taps(tree))}
    assert {name for name in axes if not name.startswith("reference/cases/")} == set(), (
        axes
    )  # module cases have tensors of their own
    layers = {name: found for name, tree in sources() if (found := layer_numbers(tree))}
    assert layers.keys() == LAYERS.keys(), layers


@pytest.mark.parametrize(
    ("find", "code"),
    [
        (lists_of_taps, 'x = ("q_norm", "probs")'),
        (lists_of_taps, 'x = {"self_attn.q_rope": {"H": 2}, "self_attn.context": {}}'),
        (lists_of_taps, 'x = [f"{prefix}self_attn.q_rope", f"model.layers.{i}.residual_1"]'),
        (lists_of_taps, 'name.endswith("self_attn.probs")'),
        (lists_of_taps, 'name.endswith((".probs",))'),
        (axes_of_taps, 'x = ("B", "L", "D")'),
        (axes_of_taps, 'tap("y", "B H L E")'),
        (layer_numbers, 'int(name.split("layers.")[1])'),
        (layer_numbers, 're.compile(r"model\\\\.layers\\\\.(\\\\d+)")'),
    ],
)
def test_what_is_looked_for_is_found(find: Callable[[ast.AST], list[str]], code: str) -> None:
    assert find(ast.parse(code))
