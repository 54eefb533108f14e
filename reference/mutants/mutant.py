"""A known mistake: what it is, what it replaces, and where it is first seen."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import FunctionType

from reference.config import TextConfig
from reference.loading import Loader
from reference.oracle.decoder import Decoder
from reference.oracle.ops import Ops
from reference.oracle.oracle import Oracle

Wrong = type[Ops] | type[Decoder] | type[TextConfig] | type[Loader]
"""A subclass of one of the oracle's classes, with a function wrong."""

STOPS = "(stops)"
"""First tap of a mistake with which the port does not run at all."""

WITHOUT_16_BITS = ("f64", "f32")
LOW_PRECISION = ("bf16", "f16")
"""Profiles in which a mistake of precision cannot, and can, be seen."""

LAYERS: Mapping[str, Callable[[TextConfig, int], bool]] = {
    "every layer": lambda config, i: True,
    "layers past the first": lambda config, i: i > 0,
    "sliding layers": lambda config, i: config.is_sliding(i),
    "full layers": lambda config, i: not config.is_sliding(i),
    "own-KV layers": lambda config, i: not config.is_kv_shared(i),
    "own-KV sliding layers": lambda config, i: not config.is_kv_shared(i) and config.is_sliding(i),
    "own-KV full layers": lambda config, i: not config.is_kv_shared(i) and not config.is_sliding(i),
    "K = V layers": lambda config, i: config.k_eq_v(i),
    "KV-shared layers": lambda config, i: config.is_kv_shared(i),
    "KV-shared sliding layers": lambda config, i: config.is_kv_shared(i) and config.is_sliding(i),
    "KV-shared full layers": lambda config, i: config.is_kv_shared(i) and not config.is_sliding(i),
    "donor layers": lambda config, i: any(
        config.kv_donor(j) == i for j in range(config.num_hidden_layers) if config.is_kv_shared(j)
    ),
    "the last layer": lambda config, i: i == config.num_hidden_layers - 1,
    "module cases": lambda config, i: False,
}
"""Which layers a mistake touches; the first of them is where it is first seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One known mistake.

    `first_tap` is the name below its layer (`self_attn.q_rope`), a full name (`logits`), the tap of a module case where
    no whole model shows the mistake, or STOPS; "a or b" where it depends on the model which of them comes first.
    `equivalent_in` maps a profile to the proof that the mistake changes nothing there that rounding does not,
    `survives_in` one to the reason why it is not caught there although it changes something. `caught_by` are the cases
    that were made for it, the smallest first: each of them catches it alone.
    """

    id: str
    area: str
    does: str
    symptom: str
    cure: str
    wrong: Wrong
    first_tap: str
    layers: str = "every layer"
    links: tuple[str, ...] = ()
    equivalent_in: Mapping[str, str] = field(default_factory=dict)
    survives_in: Mapping[str, str] = field(default_factory=dict)
    caught_by: tuple[str, ...] = ()

    @property
    def oracle(self) -> Oracle:
        """The whole oracle with this mistake in it."""
        if issubclass(self.wrong, Ops):
            return Oracle(ops=self.wrong)
        if issubclass(self.wrong, Decoder):
            return Oracle(decoder=self.wrong)
        if issubclass(self.wrong, TextConfig):
            return Oracle(config=self.wrong)
        return Oracle(loader=self.wrong)

    @property
    def replaces(self) -> tuple[str, ...]:
        """The functions of the oracle that it replaces, `Ops.rope`, sorted."""
        right = next(cls for cls in (Ops, Decoder, TextConfig, Loader) if issubclass(self.wrong, cls))
        wrong = [cls for cls in self.wrong.__mro__ if not issubclass(right, cls)]
        names = {name for cls in wrong for name, member in vars(cls).items() if is_function(member)}
        return tuple(f"{right.__name__}.{name}" for name in sorted(names) if hasattr(right, name))

    def first_taps(self, config: TextConfig) -> set[str]:
        """Full names of the taps that the mistake touches in a model: it is first seen at the first of them."""
        touched = [i for i in range(config.num_hidden_layers) if LAYERS[self.layers](config, i)]
        names: set[str] = set()
        for tap in self.first_tap.split(" or "):
            whole = tap.startswith(("model.", "logits"))
            names |= {tap} if whole else {f"model.layers.{i}.{tap}" for i in touched}
        return names

    @property
    def urls(self) -> list[str]:
        """Addresses of the public reports and cures: `owner/repo#number` or `owner/repo@commit` in full."""
        return [_url(link) for link in self.links]


def is_function(member: object) -> bool:
    """Whether a member of a class is a function of it, in any of its forms."""
    return isinstance(member, FunctionType | classmethod | staticmethod)


def with_ops(decoder: Decoder, ops: type[Ops]) -> Decoder:
    """A decoder that computes with other functions, on the same weights."""
    other = copy.copy(decoder)
    other.ops = ops(decoder.ar)
    return other


def _url(link: str) -> str:
    repository, commit, sha = link.partition("@")
    if commit:
        return f"https://github.com/{repository}/commit/{sha}"
    repository, _, number = link.partition("#")
    return f"https://github.com/{repository}/issues/{number}"
