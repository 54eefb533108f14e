"""The JSON files of `fixtures/` as pydantic models, strict for our own writer and linter.

JSON Schema files made from these models lie in `fixtures/schema/`. Readers in ports ignore keys they do not know.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from gemma4_contract.documents import Document, Strict
from gemma4_contract.profiles import ProfileId

CaseId = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*(/[a-z0-9][a-z0-9-]*)+$")]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Level = Literal["L0", "L1", "L2", "L3", "L4", "L5"]
TapClass = Literal["exact", "floor", "routing", "advice"]
Kind = Literal[
    "forward",
    "layer",
    "attention",
    "subgraph",
    "attention_core",
    "shared_kv_donors",
    "linear",
    "rms_norm",
    "rope",
    "inv_freq",
    "embedding",
    "ple",
    "ple_index",
    "mlp",
    "gelu_tanh",
    "router",
    "experts",
    "softcap",
    "long_sum",
    "exp_tanh",
    "echo",
    "weights",
]


class Plan(Strict):
    """How a chained case feeds its L tokens; the cache is always fresh and logits are wanted for every row."""

    steps: list[Annotated[int, Field(ge=1)]] | None = Field(
        default=None, description="Tokens per call, in order, with a cache; null is one call without a cache."
    )
    left_pad: list[Annotated[int, Field(ge=0)]] | None = Field(
        default=None, description="Pads at the front of each row of the batch; null when no row is padded."
    )


class TensorFile(Strict):
    """A safetensors file of the case's directory."""

    file: str
    sha256: Digest


class Stride(Strict):
    """The indices start, start + step, ..., `count` of them."""

    start: int
    step: int
    count: int

    @property
    def indices(self) -> list[int]:
        return [self.start + i * self.step for i in range(self.count)]


class Picks(Strict):
    """What of a tap's tensor is stored: of the whole the entries with these indices on these axes, all on others."""

    whole: list[int] = Field(description="Shape of the tap's tensor in the port.")
    taken: dict[str, list[int] | Stride] = Field(description="Axis -> ascending indices of the entries stored.")
    rms: float | None = Field(
        default=None, description="Root mean square of the whole tensor; of model.norm and logits, of the stored rows."
    )

    def indices(self, axes: Sequence[str]) -> list[list[int]]:
        """The indices on every axis of the tap."""
        found = (
            self.taken.get(axis, Stride(start=0, step=1, count=n)) for axis, n in zip(axes, self.whole, strict=True)
        )
        return [taken.indices if isinstance(taken, Stride) else taken for taken in found]


class TapSpec(Strict):
    """One expected tensor of a case; the list of taps stands in execution order."""

    name: str
    parents: list[str] = Field(description="Taps that this one is computed from, for naming the first divergence.")
    axes: list[str] = Field(description="Shape letters: B L S D H K E P N F V X.")
    dtype: Literal["F64", "F32", "I32", "U8"]
    shape: list[int]
    sha256: Digest = Field(description="Of the little-endian row-major bytes of the tensor in the golden file.")
    cls: TapClass = Field(alias="class", description="How the tap is judged.")
    picks: Picks | None = Field(default=None, description="Of models at full size: `shape` is that of what is stored.")

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    @model_validator(mode="after")
    def _every_axis_has_a_size(self) -> TapSpec:
        if len(self.axes) != len(self.shape):
            raise ValueError(f"{len(self.axes)} axes for a shape of {len(self.shape)}")
        return self

    def numbers(self, axis: str) -> list[int]:
        """The port's indices of the entries along an axis, all of them where nothing was picked."""
        at = self.axes.index(axis)
        return self.picks.indices(self.axes)[at] if self.picks else list(range(self.shape[at]))

    def place(self, index: Sequence[int]) -> list[int]:
        """Where an entry of what is stored stands in the port's tensor."""
        numbers = self.picks.indices(self.axes) if self.picks else None
        return [int(i) if numbers is None else numbers[axis][i] for axis, i in enumerate(index)]

    def whole_shape(self, stored: Sequence[int]) -> list[int]:
        """The shape of the port's tensor, of which a tensor of this shape is stored."""
        return self.picks.whole if self.picks else list(stored)


class Lookalike(Strict):
    """What a port that makes a known slip answers instead of a tap."""

    tap: str
    tensor: str = Field(description="Its name in the file of lookalikes.")
    advice: str = Field(description="The sentence to tell such a port.")


class Lookalikes(TensorFile):
    """Wrong answers that are known, to be told from others: no port is asked for them."""

    known: list[Lookalike]


class GoldenPointer(Strict):
    """A golden stored with another case: rows [start, stop) of its L axis.

    Row b of a left-padded batch holds the first L - left_pad[b] of these rows, after its pads.
    """

    case: CaseId
    rows: Annotated[list[int], Field(min_length=2, max_length=2)]


class Provenance(Strict):
    """Where a golden comes from and how well its two derivations agree."""

    generator: str
    versions: dict[str, str]
    command: str
    derivations: list[str]
    agreement: float | None = Field(
        default=None, description="Largest relative RMS difference of the two derivations over all taps; null for one."
    )
    agreement_unlifted: float | None = Field(
        default=None, description="The same with transformers' float32 islands left in place."
    )


class Case(Document):
    """One question put to an implementation: inputs, and goldens for some taps (`case.json`)."""

    id: CaseId
    kind: Kind
    level: Level = Field(description="How far a port conforms that passes it, with all levels below.")
    topic: str = Field(
        pattern=r"^[a-z0-9-]+$", description="What it is about: `conformance/test_<topic>.py` asks it, dashes as `_`."
    )
    model: str | None = None
    purpose: str
    hunts: list[str] = Field(default=[], description="Ids of the known mistakes that the case exists to catch.")
    links: list[str] = Field(default=[], description="Public reports and cures of these mistakes.")
    profiles: list[ProfileId] = Field(default=[], description="Profiles in which the case is asked; all when empty.")
    advice: str | None = Field(
        default=None,
        description="What to tell a port whose taps of class advice are not finite; it does not fail.",
    )
    inputs: TensorFile | None = None
    params: dict[str, Any] = Field(default={})
    plan: Plan | None = None
    plan_name: str | None = Field(default=None, description="The plan in a word, such as no-cache, tokens or chunks-5.")
    golden: TensorFile | GoldenPointer
    golden_f32: TensorFile | None = Field(
        default=None, description="Module goldens rounded to F32, for porters who judge themselves."
    )
    choices: TensorFile | None = Field(
        default=None,
        description="Of models at full size with experts: <routing tap> U8 B L k, the experts chosen at every row, in "
        "ascending order, and <routing tap>.margin F32 B L.",
    )
    lookalikes: Lookalikes | None = None
    mask: str | None = Field(
        default=None, description="U8 input B L: rows with 0 (pads) are masked out of every tap that has axes B and L."
    )
    taps: list[TapSpec] = Field(default=[], description="Empty where the golden points into another case.")
    provenance: Provenance

    @model_validator(mode="after")
    def _golden_is_owned_or_pointed_to(self) -> Case:
        owned = isinstance(self.golden, TensorFile)
        if owned and not self.taps:
            raise ValueError("a case with its own golden lists its taps")
        if not owned and self.taps:
            raise ValueError("a case that points into another golden inherits that case's taps and lists none")
        if (self.kind == "forward") != (self.plan is not None):
            raise ValueError("forward cases have a plan and no other case has one")
        if (self.plan is None) != (self.plan_name is None):
            raise ValueError("a plan has a name, and a name without a plan means nothing")
        return self


class ModelCard(Document):
    """One configuration with its weights (`models/<id>/model.json`)."""

    id: Annotated[str, Field(pattern=r"^[a-z0-9-]+$")]
    member: str = Field(description="The published model whose configuration this is, sizes aside.")
    purpose: str
    overrides: dict[str, Any] = Field(description="Configuration fields that differ from the published file.")
    weights_of: str | None = Field(
        default=None, description="The model whose weights, all of them, this one holds in another layout."
    )
    weights_rule: Literal["int8-splitmix64-v1"] | None = Field(
        default="int8-splitmix64-v1", description="null: the weights are those of a checkpoint of the user's own."
    )
    tensors: int
    parameters: int
    redundant_shared_kv: bool = Field(description="The file carries k/v weights for KV-shared layers, to be ignored.")
    acceptance: dict[str, float] = Field(
        description="Relative RMS error at the last layer in f32 and in round-every-op bf16; share of echoed arg-maxes."
    )


class Variant(Strict):
    """An honest implementation whose error was measured."""

    name: str
    family: str
    version: str


class Measured(Document):
    """How a table of floors was measured, and what it would be without each family."""

    profile: ProfileId
    variants: list[Variant]
    seeds: int = Field(description="Input seeds per case; seed 0 is the stored input itself.")
    command: str
    leave_one_family_out: dict[str, float] = Field(
        description="Family, such as torch (at full size model and family: e2b-full/torch) -> largest error of its "
        "variants over the floor that the other families alone would set."
    )


class Floors(Measured):
    """The error that honest variants were measured to make (`floors/<profile>.json`)."""

    floors: dict[str, dict[str, Annotated[list[float], Field(min_length=2, max_length=2)]]] = Field(
        description="Case id of the golden -> tap -> [relative RMS, relative maximum]."
    )


class LocalFloors(Measured):
    """The error that honest variants were measured to make at a node, given their own parents of it.

    One table a profile (`floors/local/<profile>.json`): it holds at every depth of every model.
    """

    floors: dict[str, Annotated[list[float], Field(min_length=2, max_length=2)]] = Field(
        description="Tap, a template of the graph -> [relative RMS, relative maximum]."
    )


class Policy(Document):
    """The constants of the judgement that are not floors (`floors/policy.json`)."""

    floor_factor: float = Field(description="Tolerance is this times the floor ...")
    ulps: float = Field(description="... but at least this many ulps of the profile's dtype at max|ref|.")
    agreement: float = Field(description="Largest accepted relative difference of a golden's two derivations.")
    agreement_per_position: float = Field(
        description="The same for each unit of the largest position: an ulp of a RoPE frequency turns that far."
    )
    routing_margin: float = Field(
        description="A router's choice is wide where its margin exceeds this times the floor of the router's logits."
    )
    figures_noise: float = Field(
        description="Smallest tolerance of KL and likelihood: what float64 itself moves them by."
    )
    agreement_f32: float = Field(
        description="Largest relative difference of an F32 golden made again elsewhere: an ulp, if rounding was close."
    )
    acceptance_f32: float
    acceptance_bf16: float
    acceptance_echo: float
    mistaken_products: float = Field(
        description="From this relative error of products on the port is wrong, not imprecise: the case itself says so."
    )
    diagnosis_misfit: float = Field(
        description="A known mistake is named only if it leaves less than this part of the error unexplained ..."
    )
    diagnosis_lead: float = Field(
        description="... and no other is named with it: the next best must leave this many times as much."
    )
    low_precision_products: float = Field(
        description="Relative error of f32 products from which a run is answered ENVIRONMENT (TF32: near 3e-4)."
    )
