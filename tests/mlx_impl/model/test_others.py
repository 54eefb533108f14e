"""mlx_impl against two independent implementations, on a small model of each kind, past the window."""

from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from gemma4_contract.recording import Recording
from tests.support import gemma4_small as g

LENGTH = 21  # more than two windows of 8
# Measured: 4e-7 at worst. Far below what any wrong formula does, as test_mlx_patchable shows.
TOLERANCE = 3e-6


@pytest.mark.parametrize("kind", g.SMALL)
def test_logits_equal_mlx_lm(kind: str) -> None:
    theirs = pytest.importorskip("mlx_lm.models.gemma4_text")
    decoder = g.small(kind)
    model = theirs.Model(theirs.ModelArgs.from_dict(g.SMALL[kind]))
    model.load_weights(list(model.sanitize(decoder.tensors()).items()), strict=True)
    ids = mx.array(g.ids(2, LENGTH))
    got, want = decoder(ids), model(ids)
    assert g.rel_rms(got, want) < TOLERANCE
    assert np.abs(np.array(want)).max() > 20.0  # the softcap of 30 had something to bend


@pytest.mark.parametrize("kind", g.SMALL)
def test_taps_equal_transformers(kind: str) -> None:
    torch = pytest.importorskip("torch")
    theirs = pytest.importorskip("transformers.models.gemma4")
    decoder = g.small(kind)
    config = theirs.Gemma4TextConfig(**g.SMALL[kind], attn_implementation="eager", experts_implementation="eager")
    model = theirs.Gemma4ForCausalLM(config).eval()
    state = {name: torch.from_numpy(value) for name, value in g.weights(decoder).items()}
    model.load_state_dict(state | {"lm_head.weight": state["model.embed_tokens.weight"]}, strict=True)

    want: dict[str, Any] = {}

    def watch(name: str) -> Any:
        def hook(_module: Any, _inputs: Any, output: Any) -> None:
            first = output[0] if isinstance(output, tuple) else output
            if torch.is_tensor(first):
                want[name] = first.detach().clone().numpy()  # cloned: the layer scales its output in place

        return hook

    for name, module in model.named_modules():
        module.register_forward_hook(watch(name))
    ids = g.ids(2, LENGTH)
    with torch.no_grad():
        logits = model(torch.from_numpy(ids).long(), use_cache=False).logits.numpy()

    got: dict[str, mx.array] = {}
    decoder(mx.array(ids), tap=Recording(taps=got))
    assert g.rel_rms(got["logits"], logits) < TOLERANCE
    assert g.rel_rms(got["logits.raw"], want["lm_head"]) < TOLERANCE

    compared = set()
    for name, value in got.items():
        if name not in want:  # not the output of a module
            continue
        expected = want[name]
        if name.endswith(("q_norm", "k_norm", "v_norm")):
            expected = expected.transpose(0, 2, 1, 3)  # B L H E -> B H L E
        assert g.rel_rms(np.array(value).reshape(expected.shape), expected) < TOLERANCE, name
        compared.add(name.rsplit(".", 1)[-1])
    assert {"embed_tokens", "input_layernorm", "q_norm", "k_norm", "v_norm", "o_proj", "down_proj", "norm"} <= compared
    if kind == "e2b":
        assert {"per_layer_projection_norm", "per_layer_projection", "post_per_layer_input_norm"} <= compared
    if kind == "26b-a4b":
        assert {"proj", "experts", "post_feedforward_layernorm_1", "post_feedforward_layernorm_2"} <= compared
    for i in range(len(decoder.model.layers)):
        assert g.rel_rms(got[f"model.layers.{i}.output"], want[f"model.layers.{i}"]) < TOLERANCE
