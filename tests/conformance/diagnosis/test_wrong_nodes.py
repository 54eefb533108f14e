"""Nodes that are wrong by themselves, gathered over the cases of a run."""

from __future__ import annotations

import math

from conformance.diagnosis.wrong_nodes import in_words, wrong_nodes
from conformance.judging.compare import Error, TapVerdict
from conformance.judging.examine import CaseVerdict
from conformance.judging.tolerance import Tolerance
from tests.support.installed import FIXTURES

FIRST, SECOND = "forward/e2b-mini/uniform-l19/no-cache", "forward/e2b-mini/uniform-l19/tokens"


def failing(name: str, error: float = 4.0) -> TapVerdict:
    wrong = Error(rms=error, max=error, worst=())
    return TapVerdict(name=name, status="fail", error=wrong, tolerance=Tolerance(rms=2.0, max=2.0))


def verdict(case: str, *local: TapVerdict) -> CaseVerdict:
    return CaseVerdict(case=FIXTURES.case(case), outcome="fail", local=local)


def test_without_a_local_judgement_nothing_is_said() -> None:
    assert in_words(wrong_nodes([verdict(FIRST)])) == []


def test_nodes_stand_in_execution_order_with_layers_and_cases() -> None:
    nodes = wrong_nodes(
        [
            verdict(FIRST, failing("logits.raw"), failing("model.layers.3.mlp.act")),
            verdict(SECOND, failing("model.layers.1.mlp.act"), failing("model.layers.2.mlp.act", 8.0)),
            verdict(SECOND, TapVerdict(name="model.layers.7.output", status="pass")),
        ]
    )
    assert in_words(nodes) == [
        "wrong by themselves, given the port's own taps before them; what else fails follows:",
        "  mlp.act in layers 1-3: 2 cases, up to 4 tolerances",
        "  logits.raw: 1 case, up to 2 tolerances",
    ]


def test_of_many_the_first_are_told() -> None:
    names = ("input_layernorm", "residual_1", "pre_feedforward_layernorm", "mlp.act", "mlp.down_proj")
    names += ("post_feedforward_layernorm", "residual_2", "ple_gated", "per_layer_projection", "output")
    lines = in_words(wrong_nodes([verdict(FIRST, *(failing(f"model.layers.5.{name}") for name in names))]))
    assert len(lines) == 1 + 8 + 1
    assert lines[-1] == "  ... and 2 more"


def test_an_error_without_a_measure_counts_as_infinite() -> None:
    (node,) = wrong_nodes([verdict(FIRST, TapVerdict(name="logits.raw", status="fail", fault="dtype"))])
    assert math.isinf(node.ratio)
