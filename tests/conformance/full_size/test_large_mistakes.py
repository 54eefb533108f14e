"""Mistakes that only size shows, put into the oracle: E2B's embedding and first layers take seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conformance.judging.examine import Examiner
from conformance.judging.question import Question
from gemma4_contract import Fixtures
from gemma4_contract.full_size import at_full_size
from reference import full_size
from reference.config import TextConfig
from reference.oracle.arithmetic import F32
from reference.oracle.ops import Ops
from reference.oracle.oracle import ORACLE, Oracle
from reference.streaming import forward
from reference.streaming.arithmetic import streamed
from reference.streaming.matrix import RuleMatrix
from reference.streaming.stored_taps import StoredTapRecorder
from reference.streaming.weights import by_rule


def wrapped_index(patch: pytest.MonkeyPatch) -> None:
    """The offset into the table of per-layer embeddings in 32 bits."""

    def elements(self: RuleMatrix, start: int, stop: int) -> Any:
        wrapped = (start + 2**31) % 2**32 - 2**31
        return right(self, wrapped % 2**31, wrapped % 2**31 + stop - start)

    right = RuleMatrix._elements
    patch.setattr(RuleMatrix, "_elements", elements)


class WideWindow(TextConfig):
    """A window of 1,024, as the larger members have."""

    def window_of(self, layer: int) -> int | None:
        return 1024 if self.is_sliding(layer) else None


class HalfAHead(Ops):
    """Kernels for heads of up to 256 channels: of 512 only the first half meets."""

    def attention_scores(self, q: Any, k: Any) -> Any:
        return super().attention_scores(first_half(q), first_half(k))


def first_half(x: Any) -> Any:
    return np.where(np.arange(x.shape[-1]) < 256, x, 0)


@pytest.mark.parametrize(
    ("oracle", "patches", "layers", "first"),
    [
        pytest.param(ORACLE, [], 5, None, marks=pytest.mark.slow),  # the control
        (ORACLE, [wrapped_index], 1, "model.ple"),
        (Oracle(config=WideWindow), [], 1, "model.layers.0.self_attn.context"),
        pytest.param(Oracle(ops=HalfAHead), [], 5, "model.layers.4.self_attn.context", marks=pytest.mark.slow),
    ],
)
def test_mistakes_that_miniatures_cannot_show(
    oracle: Oracle, patches: list[Any], layers: int, first: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = at_full_size(Fixtures(), Path())
    question = Question.of(full, "forward/e2b-full/text-l593/no-cache")
    model = full_size.FULL_SIZE["e2b-full"]
    for patch in patches:
        patch(monkeypatch)

    def stop(*told: Any) -> None:
        if told[-1] == f"layer {layers}":
            raise KeyboardInterrupt

    config = oracle.config.from_dict(model.text_config)
    decoder = oracle.decoder(config, by_rule(model, F32.dtype), streamed(F32), oracle.ops)
    recorder = StoredTapRecorder(config=model.config, length=593, rows=full_size.stored_rows(model))
    with pytest.raises(KeyboardInterrupt):
        forward.run(decoder, question.inputs["ids"], recorder, stop)
    verdict = Examiner(full, "f32").examine(question, {name: one.values for name, one in recorder.taps.items()})
    divergence = verdict.first_divergence
    assert (divergence.name if divergence else None) == first
    assert sum(tap.status == "pass" for tap in verdict.taps) >= (1 if first else 2 + 5 * layers)
