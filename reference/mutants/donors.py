"""Mistakes in the choice of a KV-shared layer's donor."""

from __future__ import annotations

from collections.abc import Sequence

from reference.config import TextConfig
from reference.mutants.mutant import STOPS
from reference.mutants.registry import Area

AREA = Area("KV sharing", place=60)

_K_READ = "self_attn.k_read"
_SHARED = "KV-shared layers"


class _OtherDonor(TextConfig):
    """Chooses another donor among the own-KV layers of a shared layer's type."""

    def kv_donor(self, layer: int) -> int:
        if not self.is_kv_shared(layer):
            return super().kv_donor(layer)
        own = self.layer_types[: self.first_kv_shared_layer]
        return self.choose([index for index, kind in enumerate(own) if kind == self.layer_types[layer]])

    def choose(self, same_type: Sequence[int]) -> int:
        """One of these layers."""
        raise NotImplementedError


@AREA.mutant(
    "donor-first-of-type",
    does="Takes the first layer of the type for the donor.",
    symptom="Fluent but degraded text from the first shared layer on.",
    cure="The donor is the last own-KV layer of the shared layer's type.",
    first_tap=_K_READ,
    layers=_SHARED,
    caught_by=(
        "module/shared-kv-donors/e2b",
        "forward/e2b-mini/uniform-l1/no-cache",
    ),
)
class _FirstOfType(_OtherDonor):
    def choose(self, same_type: Sequence[int]) -> int:
        return same_type[0]


@AREA.mutant(
    "donor-one-too-early",
    does="Takes the last but one own-KV layer of the type for the donor, where there are two.",
    symptom="Fluent but degraded text from the first shared layer on.",
    cure="Layers below N - num_kv_shared_layers have keys and values of their own, the last of them included.",
    first_tap=_K_READ,
    layers=_SHARED,
    caught_by=(
        "module/shared-kv-donors/e2b",
        "forward/e2b-mini/uniform-l1/no-cache",
    ),
)
class _OneTooEarly(_OtherDonor):
    def choose(self, same_type: Sequence[int]) -> int:
        return same_type[-2:][0]


@AREA.mutant(
    "donor-last-of-any-type",
    does="Takes the last own-KV layer for the donor of every shared layer, whatever its type.",
    symptom="Shapes clash at the first shared sliding layer: keys of 512 channels meet queries of 256.",
    cure="The donor is the last own-KV layer of the shared layer's own type.",
    first_tap=STOPS,
    links=("EricLBuehler/mistral.rs@fb867e5c4",),
    caught_by=(
        "module/shared-kv-donors/e2b",
        "forward/e2b-mini/uniform-l1/no-cache",
    ),
)
class _AnyType(TextConfig):
    def kv_donor(self, layer: int) -> int:
        return self.first_kv_shared_layer - 1 if self.is_kv_shared(layer) else super().kv_donor(layer)


@AREA.mutant(
    "kv-share-slice-minus-zero",
    does="Counts own-KV layers as layer_types[:-num_kv_shared_layers], which is none of them where the number is 0.",
    symptom="12B, 26B-A4B and 31B stop at the first layer: it has no donor.",
    cure="layer_types[: N - num_kv_shared_layers].",
    first_tap=STOPS,
    links=("unslothai/unsloth-zoo#580",),
    caught_by=(
        "module/shared-kv-donors/31b",
        "forward/12b-mini/uniform-l1/no-cache",
    ),
)
class _MinusZero(TextConfig):
    def is_kv_shared(self, layer: int) -> bool:
        return layer >= len(self.layer_types[: -self.num_kv_shared_layers])
