"""A known mistake: what it is, what it replaces, and where it is first seen."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from reference.config import TextConfig

Function = Callable[..., Any]
Wrong = Callable[[Function], Function]
"""Given the right function, the wrong one of the same signature."""

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
    `survives_in` one to the reason why it is not caught there although it changes something.
    """

    id: str
    area: str
    does: str
    symptom: str
    cure: str
    replaces: str
    wrong: Wrong
    first_tap: str
    layers: str = "every layer"
    links: tuple[str, ...] = ()
    equivalent_in: Mapping[str, str] = field(default_factory=dict)
    survives_in: Mapping[str, str] = field(default_factory=dict)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The oracle with this mistake, for as long as the context lasts."""
        with replaced(self.replaces, self.wrong):
            yield

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


@contextmanager
def replaced(name: str, wrong: Wrong) -> Iterator[None]:
    """The function of this name replaced by `wrong` of itself for as long as the context lasts."""
    path, _, attribute = name.rpartition(".")
    owner = pkgutil.resolve_name(path if path.startswith("gemma4_contract.") else f"reference.{path}")
    stored = owner.__dict__[attribute]  # with its decorator: a property or classmethod is put back as it was
    setattr(owner, attribute, wrong(getattr(owner, attribute)))
    try:
        yield
    finally:
        setattr(owner, attribute, stored)


def _url(link: str) -> str:
    repository, commit, sha = link.partition("@")
    if commit:
        return f"https://github.com/{repository}/commit/{sha}"
    repository, _, number = link.partition("#")
    return f"https://github.com/{repository}/issues/{number}"
