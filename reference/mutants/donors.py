"""Mistakes in the choice of a KV-shared layer's donor."""

from __future__ import annotations

from collections.abc import Callable

from reference.config import TextConfig
from reference.mutants.mutant import STOPS, Function
from reference.mutants.registry import Area

AREA = Area("KV sharing")

_DONOR = "config.TextConfig.kv_donor"
_PROBS = "self_attn.probs"
_SHARED = "KV-shared layers"


@AREA.mutant(
    "donor-first-of-type",
    replaces=_DONOR,
    does="Takes the first layer of the type for the donor.",
    symptom="Fluent but degraded text from the first shared layer on.",
    cure="The donor is the last own-KV layer of the shared layer's type.",
    first_tap=_PROBS,
    layers=_SHARED,
)
def _first_of_type(right: Function) -> Function:
    return _other_donor(right, lambda same_type: same_type[0])


@AREA.mutant(
    "donor-one-too-early",
    replaces=_DONOR,
    does="Takes the last but one own-KV layer of the type for the donor, where there are two.",
    symptom="Fluent but degraded text from the first shared layer on.",
    cure="Layers below N - num_kv_shared_layers have keys and values of their own, the last of them included.",
    first_tap=_PROBS,
    layers=_SHARED,
)
def _one_too_early(right: Function) -> Function:
    return _other_donor(right, lambda same_type: same_type[-2:][0])


def _other_donor(right: Function, choose: Callable[[list[int]], int]) -> Function:
    def kv_donor(self: TextConfig, layer: int) -> int:
        if not self.is_kv_shared(layer):
            return right(self, layer)
        own = self.layer_types[: self.first_kv_shared_layer]
        return choose([index for index, kind in enumerate(own) if kind == self.layer_types[layer]])

    return kv_donor


@AREA.mutant(
    "donor-last-of-any-type",
    replaces=_DONOR,
    does="Takes the last own-KV layer for the donor of every shared layer, whatever its type.",
    symptom="Shapes clash at the first shared sliding layer: keys of 512 channels meet queries of 256.",
    cure="The donor is the last own-KV layer of the shared layer's own type.",
    first_tap=STOPS,
    links=("EricLBuehler/mistral.rs@fb867e5c4",),
)
def _any_type(right: Function) -> Function:
    def kv_donor(self: TextConfig, layer: int) -> int:
        return self.first_kv_shared_layer - 1 if self.is_kv_shared(layer) else right(self, layer)

    return kv_donor


@AREA.mutant(
    "kv-share-slice-minus-zero",
    replaces="config.TextConfig.is_kv_shared",
    does="Counts own-KV layers as layer_types[:-num_kv_shared_layers], which is none of them where the number is 0.",
    symptom="12B, 26B-A4B and 31B stop at the first layer: it has no donor.",
    cure="layer_types[: N - num_kv_shared_layers].",
    first_tap=STOPS,
    links=("unslothai/unsloth-zoo#580",),
)
def _minus_zero(right: Function) -> Function:
    del right

    def is_kv_shared(self: TextConfig, layer: int) -> bool:
        return layer >= len(self.layer_types[: -self.num_kv_shared_layers])

    return is_kv_shared
