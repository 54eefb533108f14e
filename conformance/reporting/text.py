"""A failed case as text for people: the first divergence, then the taps around it in execution order."""

from __future__ import annotations

from collections.abc import Sequence

from conformance.judging.compare import TapVerdict
from conformance.judging.examine import CaseVerdict
from conformance.judging.prompts import PromptVerdict

_BEFORE, _AFTER, _LISTED = 4, 8, 8


def describe(verdict: CaseVerdict | PromptVerdict, reproduce: str) -> str:
    """Several lines on a failed case or prompt; `reproduce` is the command that runs it again."""
    if isinstance(verdict, PromptVerdict):
        return f"{verdict.question}: {verdict.note}\nreproduce: {reproduce}"
    case = verdict.case
    lines = [f"{case.id}: {case.purpose}"]
    first = verdict.first_divergence
    if first is not None:
        lines.append(f"first divergence: {first.name}")
        lines.append(f"  {first.fault}")
        if first.error is not None and first.tolerance is not None:
            lines.append(
                f"  relative RMS error {first.error.rms:.2e} (tolerance {first.tolerance.rms:.2e}),"
                f" maximum {first.error.max:.2e} (tolerance {first.tolerance.max:.2e})"
            )
        lines += _around(verdict.taps, [tap.name for tap in verdict.taps].index(first.name))
        lines += wrong_by_themselves(verdict)
    if verdict.note:
        lines.append(verdict.note)
    if case.hunts and case.model is None:  # a failed forward case has many failing taps
        lines.append(f"known mistakes that this case hunts: {', '.join(case.hunts)}")
    lines.append(f"reproduce: {reproduce}")
    return "\n".join(lines)


def wrong_by_themselves(verdict: CaseVerdict) -> list[str]:
    """The taps of a case that are wrong given the port's own taps before them; whatever else fails follows."""
    wrong = verdict.wrong_by_themselves
    if not wrong:
        return []
    listed = [f"  FAIL {tap.name} {tap.ratio:.3g}{_bridged(tap)}" for tap in wrong]
    return ["wrong by themselves, given the port's own taps before them:", *first_few(listed)]


def first_few(lines: Sequence[str]) -> list[str]:
    """The first lines of a list, and how many there are more."""
    more = len(lines) - _LISTED
    return [*lines[:_LISTED], *([f"  ... and {more} more"] if more > 0 else [])]


def _bridged(tap: TapVerdict) -> str:
    return f" (through {tap.through} taps that are not offered)" if tap.through else ""


def _around(taps: tuple[TapVerdict, ...], index: int) -> list[str]:
    start, stop = max(0, index - _BEFORE), index + 1 + _AFTER
    lines = ["taps in execution order, error/tolerance:"]
    if start:
        lines.append(f"  ... {start} earlier taps, none of which fails")
    lines += [f"  {_line(tap)}" for tap in taps[start:stop]]
    rest = taps[stop:]
    if rest:
        failed = sum(tap.status == "fail" for tap in rest)
        lines.append(f"  ... {len(rest)} later taps, {'all' if failed == len(rest) else failed} of which fail")
    return lines


def _line(tap: TapVerdict) -> str:
    if tap.status == "absent":
        return f"     - {tap.name} (not offered)"
    if tap.status == "undecidable":
        return f"     ? {tap.name} (undecidable)"
    if tap.status == "advice":
        return f"     ! {tap.name} {tap.fault}"
    mark = "ok  " if tap.status == "pass" else "FAIL"
    detail = tap.fault if tap.error is None else f"{tap.ratio:.3g}"
    return f"{mark} {tap.name} {detail}"
