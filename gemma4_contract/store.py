"""`Fixtures`: the folder as objects, every read checked against its digest."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from gemma4_contract import checkpoint, graph, tensors
from gemma4_contract.documents import RESTORE, default_root, read_model
from gemma4_contract.errors import FixtureError
from gemma4_contract.files import sha256
from gemma4_contract.graph import text_graph
from gemma4_contract.layout import cut_spec, cut_stored, row_axis, select_rows
from gemma4_contract.mistakes import Mistake
from gemma4_contract.models import (
    Case,
    Floors,
    GoldenPointer,
    LocalFloors,
    ModelCard,
    Policy,
    TapSpec,
    TensorFile,
)
from gemma4_contract.profiles import FOLDER, Profile, profile_faults, read_profiles
from gemma4_contract.prompts import Prompts
from gemma4_contract.sums import SUMS, first_difference, read_sums, sum_faults, write_sums
from gemma4_contract.tensors import Array
from gemma4_contract.weights import Weights

LOCAL = "local"
"""The folder of local floors, in that of the floors."""


class Fixtures:
    """The fixtures under one root folder.

    `within` are the fixtures that these belong to and whose policy they use; `weights` finds the checkpoints that do
    not ship with their cards; `model` restricts the cases to those of one model.
    """

    def __init__(
        self,
        root: Path | None = None,
        *,
        within: Fixtures | None = None,
        weights: Weights | None = None,
        model: str | None = None,
    ) -> None:
        self.root = root or default_root()
        self.within, self.weights, self._model = within, weights, model
        if not (self.root / "cases").is_dir():
            raise FixtureError(
                self.root,
                got="no folder cases/ in it",
                expected="the fixtures folder",
                cure="name the folder that holds cases/, models/ and floors/",
            )
        self._golden_cache: dict[str, dict[str, Array]] = {}

    # Cases

    def case_dir(self, case_id: str) -> Path:
        """The directory of a case; its id is its path under cases/."""
        return self.root / "cases" / case_id

    @functools.cached_property
    def case_ids(self) -> tuple[str, ...]:
        """Ids of all cases, sorted."""
        base = self.root / "cases"
        found = sorted(path.parent.relative_to(base).as_posix() for path in base.rglob("case.json"))
        return tuple(name for name in found if self._model is None or self.case(name).model == self._model)

    @functools.cache  # noqa: B019 (a store lives as long as the run)
    def case(self, case_id: str) -> Case:
        """The case with this id; FixtureError when it is missing, invalid or names another id."""
        path = self.case_dir(case_id) / "case.json"
        case = read_model(path, Case)
        if case.id != case_id:
            raise FixtureError(path, got=f"id {case.id!r}", expected=f"its path {case_id!r}", cure=RESTORE)
        self._check_profiles(path, case.profiles)
        return case

    def cases(self) -> Iterator[Case]:
        """All cases in the order of their ids."""
        return (self.case(case_id) for case_id in self.case_ids)

    def inputs(self, case: Case) -> dict[str, Array]:
        """The input tensors of a case."""
        return {} if case.inputs is None else self._tensor_file(case, case.inputs)

    def lookalikes(self, case: Case) -> dict[str, Array]:
        """The known wrong answers to a case, by the names in `case.lookalikes`."""
        return {} if case.lookalikes is None else self._tensor_file(case, case.lookalikes)

    def choices(self, case: Case) -> dict[str, Array]:
        """The experts chosen at every row of a case and the margins, as in `case.choices` of the golden's owner."""
        owner = self.owner(case)
        if owner.choices is None:
            return {}
        stop = case.golden.rows[1] if isinstance(case.golden, GoldenPointer) else None
        return {name: value[:, :stop] for name, value in self._tensor_file(owner, owner.choices).items()}

    def owner(self, case: Case) -> Case:
        """The case that stores this case's golden: itself, or the one pointed to; FixtureError when that has none."""
        if not isinstance(case.golden, GoldenPointer):
            return case
        owner = self.case(case.golden.case)
        if isinstance(owner.golden, GoldenPointer):
            raise FixtureError(
                self.case_dir(case.id) / "case.json",
                got=f"a golden in {owner.id}, which stores none",
                expected="a case with a golden of its own",
                cure=RESTORE,
            )
        return owner

    def taps(self, case: Case) -> list[TapSpec]:
        """The taps to ask of a port, in execution order.

        Taps with an axis S are asked in one call without a cache and without pads, where S counts absolute positions.
        """
        taps = self.owner(case).taps
        if isinstance(case.golden, GoldenPointer):
            taps = [cut_spec(tap, case.golden.rows[1]) for tap in taps]
        plain = case.plan is None or (case.plan.steps is None and case.plan.left_pad is None)
        return [tap for tap in taps if text_graph().is_asked(tap.name, plain=plain)]

    def golden(self, case: Case) -> dict[str, Array]:
        """Expected tensor of every tap, cut to the case's rows and placed after the pads of each row of its batch."""
        owner = self.owner(case)
        stored = self._owned_golden(owner)
        if not isinstance(case.golden, GoldenPointer):
            return {tap.name: stored[tap.name] for tap in self.taps(case)}
        start, stop = case.golden.rows
        if any(tap.picks for tap in owner.taps):
            return {tap.name: cut_stored(stored[tap.name], tap, stop) for tap in owner.taps}
        pads = (case.plan.left_pad if case.plan else None) or [0]
        length = min(0 if (axis := row_axis(tap.axes)) is None else tap.shape[axis] for tap in owner.taps)
        if not 0 <= start < stop <= length or max(pads) >= stop - start:
            raise FixtureError(
                self.case_dir(case.id) / "case.json",
                got=f"rows {case.golden.rows} after pads {pads}",
                expected=f"rows of the {length} of {owner.id}, at least one after every pad",
                cure=RESTORE,
            )
        return {tap.name: select_rows(stored[tap.name], tap.axes, slice(start, stop), pads) for tap in self.taps(case)}

    def _owned_golden(self, owner: Case) -> dict[str, Array]:
        if owner.id not in self._golden_cache:
            assert isinstance(owner.golden, TensorFile)
            arrays = self._tensor_file(owner, owner.golden)
            path = self.case_dir(owner.id) / owner.golden.file
            for tap in owner.taps:
                array = arrays.get(tap.name)
                if array is None:
                    got = f"no tensor {tap.name}"
                elif list(array.shape) != tap.shape:
                    got = f"shape {list(array.shape)} of {tap.name}"
                elif tensors.dtype_name(array) != tap.dtype:
                    got = f"dtype {tensors.dtype_name(array)} of {tap.name}"
                else:
                    continue
                raise FixtureError(path, got=got, expected=f"{tap.dtype} {tap.shape} as case.json says", cure=RESTORE)
            self._golden_cache[owner.id] = arrays
        return self._golden_cache[owner.id]

    def _tensor_file(self, case: Case, entry: TensorFile) -> dict[str, Array]:
        path = self.case_dir(case.id) / entry.file
        data = tensors.read_bytes(path)
        if sha256(data) != entry.sha256:
            raise FixtureError(
                path, got=f"SHA-256 {sha256(data)}", expected=f"{entry.sha256} as case.json says", cure=RESTORE
            )
        return tensors.decode(data, path)

    # Prompts, models, profiles, floors, policy

    @functools.cached_property
    def prompts(self) -> Prompts:
        """The conversations and raw texts."""
        return Prompts(self.root)

    def card_dir(self, model_id: str) -> Path:
        """The directory of a model's card and config.json."""
        return self.root / "models" / model_id

    def model_dir(self, model_id: str) -> Path:
        """The directory of a model's checkpoint, an ordinary one (config.json, safetensors); its card's if it ships."""
        return self.card_dir(model_id) if self.weights is None else self.weights.folder(model_id)

    @property
    def model_ids(self) -> tuple[str, ...]:
        """Ids of the models in the folder, sorted."""
        return tuple(sorted(path.parent.name for path in (self.root / "models").glob("*/model.json")))

    @functools.cached_property
    def known_profiles(self) -> Mapping[str, Profile]:
        """Every profile by its id, exact ones first."""
        return read_profiles(self.root) if self.within is None else self.within.known_profiles

    def profile(self, name: str) -> Profile:
        """The profile with this id; FixtureError where there is none."""
        if name not in self.known_profiles:
            known = ", ".join(self.known_profiles) or "a file for each profile"
            cure = "name one of these" if self.known_profiles else RESTORE
            raise FixtureError(self.root / FOLDER, got=f"no profile {name}", expected=known, cure=cure)
        return self.known_profiles[name]

    def _check_profiles(self, path: Path, names: Iterable[str]) -> None:
        """FixtureError unless these profiles, which a file names, exist."""
        for name in names:
            if name not in self.known_profiles:
                expected = f"one of {', '.join(self.known_profiles)}"
                raise FixtureError(path, got=f"the profile {name!r}", expected=expected, cure=RESTORE)

    def floors_path(self, profile: str) -> Path:
        """The file of the floors that judge a profile."""
        return self.root / "floors" / f"{self.profile(profile).floors}.json"

    @functools.cache  # noqa: B019 (as above)
    def floors(self, profile: str) -> Floors:
        """The floors that judge a profile."""
        return read_model(self.floors_path(profile), Floors)

    def local_floors_path(self, profile: str) -> Path:
        """The file of the floors that judge a profile locally, for goldens of the user's own the installed ones."""
        root = self.root if self.within is None else self.within.root
        return root / "floors" / LOCAL / f"{self.profile(profile).floors}.json"

    @functools.cache  # noqa: B019 (as above)
    def local_floors(self, profile: str) -> LocalFloors:
        """The floors that judge a profile locally."""
        return read_model(self.local_floors_path(profile), LocalFloors)

    @property
    def profiles(self) -> list[str]:
        """The profiles that floors were measured for, exact ones first."""
        tables = self.root / "floors"
        return [name for name in self.known_profiles if (tables / f"{name}.json").exists()]

    @functools.cached_property
    def policy(self) -> Policy:
        """The constants of the judgement."""
        if self.within is not None:
            return self.within.policy
        return read_model(self.root / "floors" / "policy.json", Policy)

    # The whole folder

    @property
    def sums_root(self) -> Path:
        """The folder whose SHA256SUMS these fixtures are in."""
        whole = self.root if self.within is None else self.within.root
        return whole if self.root.is_relative_to(whole) else self.root

    def files(self) -> list[Path]:
        """Every file that SHA256SUMS covers, sorted."""
        found = (path for path in self.sums_root.rglob("*") if path.is_file() and path.name != SUMS)
        return sorted(path for path in found if not path.name.startswith("."))

    def write_sums(self) -> None:
        """Write SHA256SUMS over all files."""
        write_sums(self.sums_root, self.files())

    def verify(self) -> list[FixtureError]:
        """Every fault of the folder: sums, files too few or too many, JSON against its model, tensors against cases."""
        return [*sum_faults(self.root, self.files()), *self.faults()]

    def faults(self) -> list[FixtureError]:
        """What is wrong with cases, prompts, cards and floors, the sums aside."""
        return [*self._case_faults(), *self.prompts.faults(), *self._document_faults()]

    def _case_faults(self) -> Iterator[FixtureError]:
        for case_id in self.case_ids:
            try:
                case = self.case(case_id)
                self.inputs(case)
                self.lookalikes(case)
                self.choices(case)
                self._digest_check(case)
                if isinstance(case.golden, GoldenPointer):
                    self.golden(case)
            except FixtureError as error:
                yield error

    def _document_faults(self) -> Iterator[FixtureError]:
        """Faults of the profiles, the models' cards, the tables of floors, the graphs and the known mistakes."""
        yield from () if self.within else profile_faults(self.root)
        cards = ((self.card_dir(model_id) / "model.json", ModelCard) for model_id in self.model_ids)
        tables = sorted((self.root / "floors").glob("*.json"))
        floors = ((path, Policy if path.stem == "policy" else Floors) for path in tables)
        graphs = ((path, graph.Graph) for path in sorted((self.root / graph.FOLDER).glob("*.json")))
        mistakes = ((path, Mistake) for path in sorted((self.root / "mistakes").glob("*.json")))
        local = ((path, LocalFloors) for path in sorted((self.root / "floors" / LOCAL).glob("*.json")))
        for path, model in (*cards, *floors, *local, *graphs, *mistakes):
            try:
                document = read_model(path, model)
                if isinstance(document, Floors | LocalFloors):
                    self._check_profiles(path, [document.profile])
            except FixtureError as error:
                yield error

    def differs_from(self, other: Fixtures) -> FixtureError | None:
        """The first file that another folder of fixtures lists in another way, as `sums.first_difference`."""
        return first_difference(self.root, other.root)

    def _digest_check(self, case: Case) -> None:
        if not isinstance(case.golden, TensorFile):
            return
        arrays = self._owned_golden(case)
        for tap in case.taps:
            digest = tensors.tensor_digest(arrays[tap.name])
            if digest != tap.sha256:
                path = self.case_dir(case.id) / case.golden.file
                raise FixtureError(
                    path,
                    got=f"SHA-256 {digest} of {tap.name}",
                    expected=f"{tap.sha256} as case.json says",
                    cure=RESTORE,
                )
        if case.golden_f32 is None:
            return
        rounded = self._tensor_file(case, case.golden_f32)
        for name, array in arrays.items():
            expected = array if array.dtype.kind in "iu" else array.astype(np.float32)
            got = rounded.get(name)
            if got is None or got.dtype != expected.dtype or not np.array_equal(got, expected):
                raise FixtureError(
                    self.case_dir(case.id) / case.golden_f32.file,
                    got=f"another {name}" if name in rounded else f"no tensor {name}",
                    expected="the golden, rounded to F32",
                    cure=RESTORE,
                )

    def check_model(self, model_id: str) -> None:
        """FixtureError unless a model's checkpoint is there, and is the one that SHA256SUMS lists if it ships."""
        if self.weights is not None:
            self.weights.check(model_id)
            return
        sums = read_sums(self.root)
        for path in checkpoint.parts(self.model_dir(model_id)):
            digest, expected = sha256(tensors.read_bytes(path)), sums.get(path.relative_to(self.root).as_posix())
            if digest != expected:
                wanted = f"{expected} as {SUMS} says" if expected else f"a file that {SUMS} lists"
                raise FixtureError(path, got=f"SHA-256 {digest}", expected=wanted, cure=RESTORE)
