"""transformers' Gemma 4 as a port under test: a thin adapter over `reference.transformers_model`.

In profile f64 the operations that transformers keeps in float32 are lifted to float64, so that every tap is f64; in the
other profiles transformers runs as released.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Final

from conformance.adapters.base import Array, Hello, Request, Skip
from conformance.adapters.transformers.prompts import TransformersPrompts
from gemma4_contract import Plan, checkpoint
from gemma4_contract.profiles import installed_profiles
from gemma4_contract.subgraph import SUBGRAPH_KINDS, subgraph
from reference.transformers_model import TransformersModel, modules
from reference.transformers_model.arrays import DType
from reference.transformers_model.build import Attention

OFFERED = ("f64", "f32", "bf16", "f16")
"""The profiles that transformers offers; f64 only with eager attention, which can be lifted."""


class TransformersAdapter(TransformersPrompts):
    """transformers' Gemma4ForCausalLM and its modules, on the CPU."""

    def __init__(self, attention: Attention = "eager") -> None:
        """Choose transformers' attention implementation and keep the two models loaded last."""
        self._attention = attention
        self._load = lru_cache(maxsize=2)(self._build)

    def hello(self) -> Hello:
        """The name and version of transformers, and what it offers; only eager attention can be lifted to f64."""
        return Hello(
            name=f"transformers-{self._attention}",
            version=version("transformers"),
            language="Python",
            family="torch",
            profiles=tuple(profile for profile in OFFERED if profile != "f64" or self._attention == "eager"),
            kinds=("forward", *SUBGRAPH_KINDS, *modules.MODULES),
            device="cpu",
        )

    def run(self, request: Request) -> dict[str, Array]:
        """The wanted taps that transformers offers, in the profile's dtype; inv_freq and donors in their own.

        Skip for a profile or kind that transformers does not support.
        """
        if not self.hello().offers(request.profile):
            raise Skip(f"profile {request.profile} is not offered with {self._attention} attention")
        dtype = installed_profiles()[request.profile].dtype
        if request.kind in modules.MODULES:
            answers: Mapping[str, Array] = modules.answer(
                request.kind,
                request.params,
                request.inputs,
                dtype=dtype,
                attention=self._attention,
                lifted=request.profile == "f64",
            )
        elif request.kind in _WITH_MODEL:
            if request.model_dir is None:
                raise ValueError(f"{request.case}: got no model directory, expected one for kind {request.kind}")
            answers = _WITH_MODEL[request.kind](self._load(Path(request.model_dir), dtype), request)
        else:
            raise Skip(f"transformers has no {request.kind} to ask alone")
        return {name: answers[name] for name in request.want if name in answers}

    def _build(self, directory: Path, dtype: DType) -> TransformersModel:
        """The checkpoint in `directory`, its tensors under the names of Gemma4ForCausalLM's state dict."""
        weights = checkpoint.text_weights(directory)
        if any(checkpoint.SPLIT_EXPERTS in name for name in weights):
            raise Skip("transformers has no switch_glu layout")
        return TransformersModel(
            checkpoint.text_part(checkpoint.read_config(directory)),
            weights,
            dtype=dtype,
            attention=self._attention,
            lifted=dtype == "float64",
        )


class TransformersSdpaAdapter(TransformersAdapter):
    """transformers with torch's fused attention: another honest order of summation."""

    def __init__(self) -> None:
        """Choose sdpa."""
        super().__init__("sdpa")


def _forward(model: TransformersModel, request: Request) -> Mapping[str, Array]:
    plan = request.plan or Plan()
    inputs = request.inputs
    return model.run(inputs["ids"], positions=inputs["positions"], steps=plan.steps, left_pad=plan.left_pad)


def _layer(model: TransformersModel, request: Request) -> Mapping[str, Array]:
    return model.run_subgraph(subgraph(request.kind, request.params, request.inputs))


_WITH_MODEL: Final[dict[str, Callable[[TransformersModel, Request], Mapping[str, Array]]]] = {
    "forward": _forward,
    **dict.fromkeys(SUBGRAPH_KINDS, _layer),
}
