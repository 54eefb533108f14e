"""Mistakes in reading a checkpoint's tensors.

D hidden, F feed-forward width, X experts.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import ml_dtypes
import numpy as np

from gemma4_contract import checkpoint
from gemma4_contract.tensors import Array
from reference.config import TextConfig
from reference.loading import Loader
from reference.mutants.mutant import STOPS
from reference.mutants.registry import Area
from reference.weights import tensor_shapes

AREA = Area("weight loading", place=190)

Weights = dict[str, Array]


@AREA.mutant(
    "shared-kv-weights-expected",
    does="Asks for k/v weights of KV-shared layers.",
    symptom="Files saved by transformers or quantised with QAT miss tensors that nothing reads.",
    cure="KV-shared layers have no key or value projection: ask for none.",
    first_tap=STOPS,
    links=("ml-explore/mlx-lm#1158", "ml-explore/mlx-swift-lm#342", "vllm-project/vllm#54917"),
    caught_by=(
        "attention/e2b-mini/full-own",
        "forward/e2b-mini/uniform-l1/no-cache",
    ),
)
class _Expected(Loader):
    def checked(self, weights: Weights, config: TextConfig) -> Weights:
        for name in tensor_shapes(config, redundant_shared_kv=True):
            if name not in weights and name not in tensor_shapes(config):
                raise ValueError(f"{name}: no such tensor")
        return super().checked(weights, config)


@AREA.mutant(
    "shared-kv-weights-refused",
    does="Refuses the k/v weights that Google's files carry for KV-shared layers.",
    symptom="A strict loader stops at unexpected tensors of layers 15 to 34 of E2B.",
    cure="Drop them by the layer's number; never by a pattern that other towers' tensors match as well.",
    first_tap=STOPS,
    links=("ml-explore/mlx-lm#1240", "ml-explore/mlx-swift-lm#330", "Blaizzy/mlx-vlm#1416"),
    caught_by=(
        "layer/e4b-mini/full-own",
        "forward/e4b-mini/uniform-l1/no-cache",
    ),
)
class _Refused(Loader):
    def checked(self, weights: Weights, config: TextConfig) -> Weights:
        if weights.keys() - tensor_shapes(config).keys():
            raise ValueError("unexpected tensors")
        return super().checked(weights, config)


@AREA.mutant(
    "prefix-language-model-unknown",
    does="Knows the prefix `model.language_model.` and not `language_model.model.`.",
    symptom="Checkpoints of mlx-community do not load.",
    cure="Three prefixes circulate: `model.language_model.`, `language_model.model.` and `model.`.",
    first_tap=STOPS,
    links=("ml-explore/mlx-lm@84de09b3", "huggingface/candle@62fca482e"),
    caught_by=("forward/layout-language-model/uniform-l19/no-cache",),
)
class _PrefixUnknown(Loader):
    def text_name(self, name: str) -> str | None:
        return name if name.startswith("language_model.") else super().text_name(name)


@AREA.mutant(
    "towers-not-left-out",
    does="Does not leave out the tensors of vision and audio.",
    symptom="A strict loader stops at `vision_embedder` or `embed_audio`.",
    cure="Leave the other modalities' tensors out by a list of their first names.",
    first_tap=STOPS,
    links=("ml-explore/mlx-lm#1349", "ml-explore/mlx-swift-lm#363"),
    caught_by=("forward/layout-towers/uniform-l19/no-cache",),
)
class _TowersKept(Loader):
    def text_name(self, name: str) -> str | None:
        return super().text_name(name) or name


@AREA.mutant(
    "tower-tensors-taken-for-text",
    does="Finds a layer's tensors by the end of their names, which a vision tower's share.",
    symptom="One projection of an early layer holds weights of the vision tower.",
    cure="Match the whole name after a known prefix.",
    first_tap="self_attn.k_norm",
    caught_by=("forward/layout-towers/uniform-l19/no-cache",),
)
class _TowersTaken(Loader):
    def text_weights(self, directory: Path) -> Weights:
        weights = super().text_weights(directory)
        for file in self.files(directory):
            for name, value in self.read(file).items():
                _, found, end = name.partition("vision_tower.encoder.layers.")
                if found:
                    weights[f"model.layers.{end}"] = value
        return weights


@AREA.mutant(
    "experts-not-loaded",
    does="Does not know the names `experts.switch_glu.*`, and leaves the experts as they were initialised.",
    symptom="Half-fluent text: the shared MLP works, every expert answers zero.",
    cure="Load strictly: every parameter comes from the file, and every tensor of the file goes somewhere.",
    first_tap="experts",
    links=("vllm-project/vllm#39045", "vllm-project/vllm#41206", "sgl-project/sglang#22929"),
    caught_by=("forward/layout-split-experts/uniform-l19/no-cache",),
)
class _NotLoaded(Loader):
    def fuse_experts(self, weights: Mapping[str, Array]) -> Weights:
        split = any(checkpoint.SPLIT_EXPERTS in name for name in weights)
        fused = super().fuse_experts(weights)
        return {name: x * 0 if split and ".experts." in name else x for name, x in fused.items()}


@AREA.mutant(
    "experts-up-before-gate",
    does="Fuses the split experts with up first and the gate second.",
    symptom="Only a file with split experts is wrong.",
    cure="The gate is the first half of `gate_up_proj`.",
    first_tap="experts",
    caught_by=("forward/layout-split-experts/uniform-l19/no-cache",),
)
class _UpBeforeGate(Loader):
    def fuse_experts(self, weights: Mapping[str, Array]) -> Weights:
        fused = super().fuse_experts(weights)
        for name in fused.keys() - weights.keys():
            if name.endswith("gate_up_proj"):
                gate, up = np.split(fused[name], 2, axis=1)  # two of [X, F, D]
                fused[name] = np.concatenate([up, gate], axis=1)
        return fused


@AREA.mutant(
    "experts-layout-guessed",
    does="Takes fused experts whose last axis is the longer for transposed ones.",
    symptom="Narrow experts, 2F < D as in the 26B-A4B, are turned round.",
    cure="The layout is [X, 2F, D] and [X, D, F], whatever the sizes.",
    first_tap=STOPS,
    links=("unslothai/unsloth-zoo#779",),
    caught_by=(
        "layer/26b-a4b-mini/full-own-hot",
        "forward/26b-a4b-mini/uniform-l1/no-cache",
    ),
)
class _LayoutGuessed(Loader):
    def fuse_experts(self, weights: Mapping[str, Array]) -> Weights:
        fused = super().fuse_experts(weights)
        turned = {
            name: x.swapaxes(1, 2)
            for name, x in fused.items()
            if name.endswith("experts.gate_up_proj") and x.shape[2] > x.shape[1]
        }
        return fused | turned


@AREA.mutant(
    "first-shard-only",
    does="Reads the first of several shards.",
    symptom="Tensors of the later layers are missing, or stay as they were initialised.",
    cure="Read every file that the index names.",
    first_tap=STOPS,
    caught_by=("forward/layout-sharded/uniform-l19/no-cache",),
)
class _FirstShard(Loader):
    def files(self, directory: Path) -> list[Path]:
        return super().files(directory)[:1]


@AREA.mutant(
    "bf16-read-as-f16",
    does="Reads the bits of bfloat16 tensors as float16.",
    symptom="Noise from the first tensor on.",
    cure="bfloat16 is the upper half of a float32: shift by 16 bits.",
    first_tap="model.embed_tokens",
    caught_by=(
        "attention/e2b-mini/full-own",
        "forward/e2b-mini/uniform-l1/no-cache",
    ),
)
class _BF16AsF16(Loader):
    def read(self, file: Path) -> Weights:
        read = super().read(file)
        return {name: x.view(np.float16) if x.dtype == ml_dtypes.bfloat16 else x for name, x in read.items()}


@AREA.mutant(
    "norm-weights-shifted",
    does="Adds 1 to every norm's weight on loading, as checkpoints of Gemma 1 to 3 want it.",
    symptom="Every normalised tensor is off; a norm asked alone is right.",
    cure="Gemma 4's norms multiply by the stored weight as it is.",
    first_tap="model.per_layer_projection_norm or input_layernorm or self_attn.q_norm",
    links=("AI-Hypercomputer/maxtext#3904",),
    caught_by=(
        "attention/e2b-mini/full-own",
        "forward/e2b-mini/uniform-l1/no-cache",
    ),
)
class _NormsShifted(Loader):
    def checked(self, weights: Weights, config: TextConfig) -> Weights:
        whole = super().checked(weights, config)
        return {name: x + x.dtype.type(1) if "norm" in name.split(".")[-2] else x for name, x in whole.items()}
