"""Mistakes in reading a checkpoint's tensors.

D hidden, F feed-forward width, X experts.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import ml_dtypes
import numpy as np

from gemma4_contract import checkpoint, tensors
from gemma4_contract.tensors import Array
from reference.config import TextConfig
from reference.mutants.mutant import STOPS, Function
from reference.mutants.registry import Area
from reference.weights import tensor_shapes

AREA = Area("weight loading")

Weights = Mapping[str, Array]


@AREA.mutant(
    "shared-kv-weights-expected",
    replaces="loading.checked",
    does="Asks for k/v weights of KV-shared layers.",
    symptom="Files saved by transformers or quantised with QAT miss tensors that nothing reads.",
    cure="KV-shared layers have no key or value projection: ask for none.",
    first_tap=STOPS,
    links=("ml-explore/mlx-lm#1158", "ml-explore/mlx-swift-lm#342", "vllm-project/vllm#54917"),
)
def _expected(right: Function) -> Function:
    def checked(weights: Weights, config: TextConfig) -> Weights:
        for name in tensor_shapes(config, redundant_shared_kv=True):
            if name not in weights and name not in tensor_shapes(config):
                raise ValueError(f"{name}: no such tensor")
        return right(weights, config)

    return checked


@AREA.mutant(
    "shared-kv-weights-refused",
    replaces="loading.checked",
    does="Refuses the k/v weights that Google's files carry for KV-shared layers.",
    symptom="A strict loader stops at unexpected tensors of layers 15 to 34 of E2B.",
    cure="Drop them by the layer's number; never by a pattern that other towers' tensors match as well.",
    first_tap=STOPS,
    links=("ml-explore/mlx-lm#1240", "ml-explore/mlx-swift-lm#330", "Blaizzy/mlx-vlm#1416"),
)
def _refused(right: Function) -> Function:
    def checked(weights: Weights, config: TextConfig) -> Weights:
        if weights.keys() - tensor_shapes(config).keys():
            raise ValueError("unexpected tensors")
        return right(weights, config)

    return checked


@AREA.mutant(
    "prefix-language-model-unknown",
    replaces="gemma4_contract.checkpoint.text_name",
    does="Knows the prefix `model.language_model.` and not `language_model.model.`.",
    symptom="Checkpoints of mlx-community do not load.",
    cure="Three prefixes circulate: `model.language_model.`, `language_model.model.` and `model.`.",
    first_tap=STOPS,
    links=("ml-explore/mlx-lm@84de09b3", "huggingface/candle@62fca482e"),
)
def _prefix_unknown(right: Function) -> Function:
    return lambda name: name if name.startswith("language_model.") else right(name)


@AREA.mutant(
    "towers-not-left-out",
    replaces="gemma4_contract.checkpoint.text_name",
    does="Does not leave out the tensors of vision and audio.",
    symptom="A strict loader stops at `vision_embedder` or `embed_audio`.",
    cure="Leave the other modalities' tensors out by a list of their first names.",
    first_tap=STOPS,
    links=("ml-explore/mlx-lm#1349", "ml-explore/mlx-swift-lm#363"),
)
def _towers_kept(right: Function) -> Function:
    return lambda name: right(name) or name


@AREA.mutant(
    "tower-tensors-taken-for-text",
    replaces="gemma4_contract.checkpoint.text_weights",
    does="Finds a layer's tensors by the end of their names, which a vision tower's share.",
    symptom="One projection of an early layer holds weights of the vision tower.",
    cure="Match the whole name behind a known prefix.",
    first_tap="self_attn.k_norm",
)
def _towers_taken(right: Function) -> Function:
    def text_weights(directory: Path) -> Weights:
        weights = right(directory)
        for file in checkpoint.files(directory):
            for name, value in tensors.read(file).items():
                _, found, end = name.partition("vision_tower.encoder.layers.")
                if found:
                    weights[f"model.layers.{end}"] = value
        return weights

    return text_weights


@AREA.mutant(
    "experts-not-loaded",
    replaces="gemma4_contract.checkpoint.fuse_experts",
    does="Does not know the names `experts.switch_glu.*`, and leaves the experts as they were initialised.",
    symptom="Half-fluent text: the shared MLP works, every expert answers zero.",
    cure="Load strictly: every parameter comes from the file, and every tensor of the file goes somewhere.",
    first_tap="experts",
    links=("vllm-project/vllm#39045", "vllm-project/vllm#41206", "sgl-project/sglang#22929"),
)
def _not_loaded(right: Function) -> Function:
    def fuse_experts(weights: Weights) -> Weights:
        split = any(checkpoint.SPLIT_EXPERTS in name for name in weights)
        return {name: x * 0 if split and ".experts." in name else x for name, x in right(weights).items()}

    return fuse_experts


@AREA.mutant(
    "experts-up-before-gate",
    replaces="gemma4_contract.checkpoint.fuse_experts",
    does="Fuses the split experts with up first and the gate second.",
    symptom="Only a file with split experts is wrong.",
    cure="The gate is the first half of `gate_up_proj`.",
    first_tap="experts",
)
def _up_before_gate(right: Function) -> Function:
    def fuse_experts(weights: Weights) -> Weights:
        fused = right(weights)
        for name in fused.keys() - weights.keys():
            if name.endswith("gate_up_proj"):
                gate, up = np.split(fused[name], 2, axis=1)  # two of [X, F, D]
                fused[name] = np.concatenate([up, gate], axis=1)
        return fused

    return fuse_experts


@AREA.mutant(
    "experts-layout-guessed",
    replaces="gemma4_contract.checkpoint.fuse_experts",
    does="Takes fused experts whose last axis is the longer for transposed ones.",
    symptom="Narrow experts, 2F < D as in the 26B-A4B, are turned round.",
    cure="The layout is [X, 2F, D] and [X, D, F], whatever the sizes.",
    first_tap=STOPS,
    links=("unslothai/unsloth-zoo#779",),
)
def _layout_guessed(right: Function) -> Function:
    def fuse_experts(weights: Weights) -> Weights:
        fused = right(weights)
        turned = {
            name: x.swapaxes(1, 2)
            for name, x in fused.items()
            if name.endswith("experts.gate_up_proj") and x.shape[2] > x.shape[1]
        }
        return fused | turned

    return fuse_experts


@AREA.mutant(
    "first-shard-only",
    replaces="gemma4_contract.checkpoint.files",
    does="Reads the first of several shards.",
    symptom="Tensors of the later layers are missing, or stay as they were initialised.",
    cure="Read every file that the index names.",
    first_tap=STOPS,
)
def _first_shard(right: Function) -> Function:
    return lambda directory: right(directory)[:1]


@AREA.mutant(
    "bf16-read-as-f16",
    replaces="gemma4_contract.tensors.decode",
    does="Reads the bits of bfloat16 tensors as float16.",
    symptom="Noise from the first tensor on.",
    cure="bfloat16 is the upper half of a float32: shift by 16 bits.",
    first_tap="model.embed_tokens",
)
def _bf16_as_f16(right: Function) -> Function:
    def decode(data: bytes, path: Path | str) -> Weights:
        read = right(data, path)
        return {name: x.view(np.float16) if x.dtype == ml_dtypes.bfloat16 else x for name, x in read.items()}

    return decode


@AREA.mutant(
    "norm-weights-shifted",
    replaces="loading.checked",
    does="Adds 1 to every norm's weight on loading, as checkpoints of Gemma 1 to 3 want it.",
    symptom="Every normalised tensor is off; a norm asked alone is right.",
    cure="Gemma 4's norms multiply by the stored weight as it is.",
    first_tap="model.per_layer_projection_norm or input_layernorm or self_attn.q_norm",
    links=("AI-Hypercomputer/maxtext#3904",),
)
def _norms_shifted(right: Function) -> Function:
    def checked(weights: Weights, config: TextConfig) -> Weights:
        whole = right(weights, config)
        return {name: x + x.dtype.type(1) if "norm" in name.split(".")[-2] else x for name, x in whole.items()}

    return checked
