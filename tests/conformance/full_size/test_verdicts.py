"""L5 from end to end on a small model: an honest port reaches it, and a mistake is located."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest

from conformance.adapters.base import Request
from conformance.adapters.mlx_impl import adapter as mlx_impl_adapter
from conformance.adapters.mlx_impl.adapter import MlxImplAdapter
from conformance.cli import app
from conformance.cli.full_size import shipped_goldens
from conformance.judging.judge import Judge
from conformance.run.session import Session
from gemma4_contract import FixtureError, Fixtures
from gemma4_contract.full_size import at_full_size
from gemma4_contract.graph import text_graph
from mlx_impl.checkpoint.load import held_bytes
from mlx_impl.checkpoint.streamed import StreamedLayer
from tests.support.small_full_size import TINY, run


def test_an_honest_port_reaches_l5(places: tuple[Path, Path]) -> None:
    ended = run(app, ["run", "--levels", "L5", "--fixtures-dir", str(places[0]), "--json"])
    assert ended.exit_code == 0, ended.output
    told = json.loads(ended.stdout)
    assert (told["level"], told["levels"]) == ("L5", {"L5": {"pass": 8}})
    assert told["models"] == ["experts-full", "tiny-full"]
    ended = run(app, ["verify", "--fixtures-dir", str(places[0])])
    assert ended.exit_code == 0, ended.output


class Mistaken(MlxImplAdapter):
    """Gives one row of one tap wrongly."""

    def __init__(self, tap: str, row: int, factor: float = 1.01) -> None:
        super().__init__()
        self._tap, self._row, self._factor = tap, row, factor

    def run(self, request: Request) -> dict[str, Any]:
        answer = super().run(request)
        value = answer[self._tap].copy()
        rows = np.moveaxis(value, text_graph().length_axis(self._tap), 0)
        if self._row < len(rows):
            rows[self._row] *= self._factor
        return answer | {self._tap: value}


@pytest.mark.parametrize("row", [0, 9, 88])
@pytest.mark.parametrize("tap", ["model.ple", "model.layers.3.output", "logits"])
def test_a_mistake_is_located(tap: str, row: int, places: tuple[Path, Path]) -> None:
    root, cache = places
    judge = Judge(at_full_size(Fixtures(root), cache / "full"), Mistaken(tap, row), "f32")
    verdict = judge.judge("forward/tiny-full/text-l89/no-cache")
    assert verdict.outcome == "fail"
    assert verdict.first_divergence is not None
    assert verdict.first_divergence.name == tap


def test_the_command_that_asks_again(places: tuple[Path, Path]) -> None:
    session = Session("mlx_impl", "f32", root=places[0], full_size=shipped_goldens)
    command = session.reproduce("forward/tiny-full/text-l1/no-cache")
    assert command.startswith("gemma4-conformance run --levels L5 --impl mlx_impl --profile f32 --cases 'forward/tiny-")
    ended = run(app, shlex.split(command)[1:])
    assert ended.exit_code == 0, ended.output


@pytest.mark.parametrize("tap", ["model.embed_tokens", "model.layers.3.self_attn.q_rope", "model.layers.3.output"])
@pytest.mark.parametrize("factor", [1.01, np.nan, np.inf])
def test_a_row_that_is_not_stored_is_seen_in_the_whole(tap: str, factor: float, places: tuple[Path, Path]) -> None:
    root, cache = places
    judge = Judge(at_full_size(Fixtures(root), cache / "full"), Mistaken(tap, 40, factor), "f32")
    verdict = judge.judge("forward/tiny-full/text-l89/no-cache")
    assert verdict.outcome == "fail"
    assert verdict.first_divergence is not None
    assert verdict.first_divergence.name == tap
    assert verdict.first_divergence.fault.startswith("what is stored is right, but the root mean square of all rows is")
    assert judge.judge("forward/tiny-full/text-l64/no-cache").outcome == "pass"  # of its first rows nothing is known


@pytest.mark.parametrize("tap", ["model.norm", "logits"])
def test_of_the_last_taps_the_stored_rows_alone_are_known(tap: str, places: tuple[Path, Path]) -> None:
    root, cache = places
    judge = Judge(at_full_size(Fixtures(root), cache / "full"), Mistaken(tap, 40), "f32")
    assert judge.judge("forward/tiny-full/text-l89/no-cache").outcome == "pass"


def test_another_shape_is_told_with_the_whole_s(places: tuple[Path, Path]) -> None:
    class Cut(MlxImplAdapter):
        def run(self, request: Request) -> dict[str, Any]:
            return {name: value[:, :5] for name, value in super().run(request).items()}

    root, cache = places
    verdict = Judge(at_full_size(Fixtures(root), cache / "full"), Cut(), "f32").judge(
        "forward/tiny-full/text-l64/no-cache"
    )
    assert verdict.first_divergence is not None
    assert verdict.first_divergence.fault == "shape [1, 5, 48], expected [1, 64, 48] (B L D)"


def test_without_weights_the_cure_is_told(tree: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GEMMA4_CACHE", str(tmp_path))
    small, large = r"tiny-full \(0\.0 GB\)", r"experts-full \(0\.0 GB\)"
    with pytest.raises(FixtureError, match=f"gemma4-conformance materialize {small}; the others: {large}$"):
        Session("mlx_impl", "f32", root=tree[0], full_size=shipped_goldens)
    with pytest.raises(FixtureError, match=f"gemma4-conformance materialize {large}$"):
        Session("mlx_impl", "f32", patterns=["forward/experts-full/*"], root=tree[0], full_size=shipped_goldens)


def test_what_memory_does_not_hold_is_read_layer_by_layer(
    places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Just enough memory, and a byte too little."""
    root, cache = places
    full = at_full_size(Fixtures(root), cache / "full")
    for name in TINY:
        needed = held_bytes(full.model_dir(name)) / mlx_impl_adapter.SHARE
        for free, expected in ((needed + 1, False), (needed - 1, True)):
            monkeypatch.setattr(psutil, "virtual_memory", lambda free=free: SimpleNamespace(available=free))
            adapter = MlxImplAdapter()
            verdict = Judge(full, adapter, "f32").judge(f"forward/{name}/text-l89/decode")
            assert verdict.outcome == "pass"
            layers = adapter._decoder(full.model_dir(name), "float32").model.layers
            assert {isinstance(layer, StreamedLayer) for layer in layers} == {expected}
