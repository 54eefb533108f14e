"""A run leaves transformers and torch as they were, and its taps are copies."""

import inspect
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from transformers.models.gemma4 import modeling_gemma4  # noqa: E402 (after importorskip)

from reference.transformers_model import TransformersModel  # noqa: E402 (after importorskip)
from tests.support.transformers_models import IDS, POSITIONS, config_of, truth, weights_of  # noqa: E402 (after importorskip)


def traces(model: TransformersModel) -> list[str]:
    """What a run could forget to undo: hooks, wrapped functions, a lifted torch."""
    inner = model._model
    hooked = [name for name, module in inner.named_modules() if module._forward_hooks or module._forward_pre_hooks]
    wrapped = [name for name in ("project_per_layer_inputs",) if name in vars(inner.model)]
    functions = ("apply_rotary_pos_emb", "eager_attention_forward")
    wrapped += [name for name in functions if not inspect.isfunction(getattr(modeling_gemma4, name))]
    one = torch.ones(1, dtype=torch.float64)
    softmax = torch.nn.functional.softmax(one, dim=0, dtype=torch.float32)
    lifted = [str(t.dtype) for t in (one.float(), one.to(torch.float32), softmax) if t.dtype != torch.float32]
    return [*hooked, *wrapped, *lifted]


def test_nothing_stays_patched_after_a_run_or_an_exception(monkeypatch: pytest.MonkeyPatch) -> None:
    verbosity = transformers.utils.logging.get_verbosity()
    model = TransformersModel(config_of("ple"), weights_of("ple"), dtype="float64", attention="eager", lifted=True)
    assert traces(model) == []
    assert transformers.utils.logging.get_verbosity() == verbosity
    during: list[str] = []

    def fail(_hidden: Any) -> None:
        during.extend(traces(model))
        raise RuntimeError("deep inside")

    with monkeypatch.context() as patch:
        patch.setattr(model._model.model.norm, "forward", fail)
        with pytest.raises(RuntimeError, match="deep inside"):
            model.run(IDS, positions=POSITIONS, steps=None, left_pad=None)
    undone = {"lm_head", "project_per_layer_inputs", "apply_rotary_pos_emb", "eager_attention_forward", "torch.float64"}
    assert undone <= set(during)  # it can tell
    assert traces(model) == []
    again = model.run(IDS, positions=POSITIONS, steps=None, left_pad=None)
    assert traces(model) == []
    assert all(np.array_equal(again[name], tap) for name, tap in truth("ple").items())


def test_taps_and_weights_are_copies() -> None:
    weights = {name: array.copy() for name, array in weights_of("dense").items()}
    model = TransformersModel(config_of("dense"), weights, dtype="float64", attention="eager", lifted=True)
    for array in weights.values():
        array[...] = np.nan
    for _ in range(2):
        taps = model.run(IDS, positions=POSITIONS, steps=None, left_pad=None)
        assert all(np.array_equal(taps[name], tap) for name, tap in truth("dense").items())
        for tap in taps.values():
            tap[...] = np.nan


def test_no_two_taps_share_memory() -> None:
    taps = list(truth("dense").values())  # without a softcap `logits.raw` and `logits` are one tensor in transformers
    assert not any(np.may_share_memory(one, other) for i, one in enumerate(taps) for other in taps[:i])
