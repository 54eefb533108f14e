"""One case put to one implementation: the request, the answer, the verdict."""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from conformance.adapters.base import Adapter, Array, Request, Skip
from conformance.compare import TapVerdict, compare
from conformance.tolerance import Tolerance, tolerance
from reference.format import Case, FixtureError, Fixtures, TapSpec, tensors
from reference.format.files import sha256
from reference.format.layout import spread_mask
from reference.format.store import SUMS

Outcome = Literal["pass", "fail", "skip", "error"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseVerdict:
    """What became of one case: the taps in execution order, and a note where there is no answer to judge."""

    case: Case
    outcome: Outcome
    taps: tuple[TapVerdict, ...] = ()
    note: str = ""

    @property
    def first_divergence(self) -> TapVerdict | None:
        """The first failing tap in execution order: everything that it is computed from passes or was not offered."""
        return next((tap for tap in self.taps if tap.status == "fail"), None)


class Judge:
    """Judges an implementation in one profile against one set of fixtures."""

    def __init__(self, fixtures: Fixtures, adapter: Adapter, profile: str) -> None:
        self.fixtures = fixtures
        self.adapter = adapter
        self.profile = profile
        self._sound_models: set[str] = set()

    def asks(self, case_id: str) -> bool:
        """Whether the case is asked in this profile."""
        profiles = self.fixtures.case(case_id).profiles
        return not profiles or self.profile in profiles

    def judge(self, case_id: str) -> CaseVerdict:
        """Put a case to the implementation; FixtureError when the fixtures are at fault."""
        case = self.fixtures.case(case_id)
        if not self.asks(case_id):
            return CaseVerdict(case=case, outcome="skip", note=f"asked in {', '.join(case.profiles)} only")
        if case.model:
            self._check_model(case.model)
        inputs, golden = self.fixtures.inputs(case), self.fixtures.golden(case)
        try:
            answer = self.adapter.run(self._request(case, inputs, tuple(golden)))
        except Skip as skip:
            return CaseVerdict(case=case, outcome="skip", note=str(skip))
        except Exception as error:  # the port's fault, whatever it is
            return CaseVerdict(case=case, outcome="error", note=_crash(error))
        mask = inputs[case.mask] if case.mask else None
        taps = tuple(
            self._tap(case, spec, answer.get(spec.name), golden[spec.name], mask) for spec in self.fixtures.taps(case)
        )
        if taps[-1].status == "absent":
            return CaseVerdict(case=case, outcome="fail", taps=taps, note=f"{taps[-1].name} is required and absent")
        failed = any(tap.status == "fail" for tap in taps)
        return CaseVerdict(case=case, outcome="fail" if failed else "pass", taps=taps)

    def _check_model(self, model_id: str) -> None:
        """FixtureError unless the checkpoint is the published one: no port is to be blamed for a damaged file."""
        if model_id in self._sound_models:
            return
        root = self.fixtures.root
        lines = tensors.read_bytes(root / SUMS).decode(errors="replace").splitlines()
        sums = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
        for file in ("config.json", "model.safetensors"):
            path = self.fixtures.model_dir(model_id) / file
            digest, expected = sha256(tensors.read_bytes(path)), sums.get(path.relative_to(root).as_posix())
            if digest != expected:
                raise FixtureError(
                    path,
                    got=f"SHA-256 {digest}",
                    expected=f"{expected} as {SUMS} says" if expected else f"a file that {SUMS} lists",
                    cure="restore the fixtures (git checkout fixtures/)",
                )
        self._sound_models.add(model_id)

    def _request(self, case: Case, inputs: dict[str, Array], want: tuple[str, ...]) -> Request:
        return Request(
            case=case.id,
            kind=case.kind,
            profile=self.profile,
            model_dir=self.fixtures.model_dir(case.model) if case.model else None,
            plan=case.plan,
            params=case.params,
            inputs=inputs,
            want=want,
        )

    def _tap(self, case: Case, spec: TapSpec, answer: Array | None, golden: Array, mask: Array | None) -> TapVerdict:
        valid = spread_mask(mask, spec.axes, golden.shape)
        allowed = Tolerance(rms=0.0, max=0.0)
        if spec.cls == "floor":
            counted = golden if valid is None else golden[valid]
            allowed = tolerance(self._floor(case, spec), counted, self.profile, self.fixtures.policy)
        return compare(spec, answer, golden, valid=valid, allowed=allowed)

    def _floor(self, case: Case, spec: TapSpec) -> list[float]:
        owner = self.fixtures.owner(case).id
        try:
            return self.fixtures.floors(self.profile).floors[owner][spec.name]
        except KeyError:
            raise FixtureError(
                self.fixtures.root / "floors" / f"{self.profile}.json",
                got=f"no floor of {spec.name} in {owner}",
                expected="one for every tap that is judged by floor",
                cure=f"measure it with `gemma4-conformance floors --profile {self.profile}`",
            ) from None


def _crash(error: Exception) -> str:
    """An implementation's exception in one line, with the line of code that raised it."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{Path(frame.filename).name}:{frame.lineno}"
    return " ".join(f"the implementation raised {type(error).__name__}: {error} ({where})".split())
