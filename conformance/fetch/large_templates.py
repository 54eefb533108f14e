"""Makes the later large templates, which no package holds: small ones with the lines that only large ones have."""

from __future__ import annotations

from difflib import SequenceMatcher

LAST = "large@2026-07-09"
_DROPPED = b" | default(false)"
_EMPTY_LINE_AT = 10_518


def large_from_small(small: bytes, *, revision: str, large_then: bytes, small_then: bytes) -> bytes:
    """The large template of a revision, made from the small one of that revision and both of an earlier revision.

    The result is a guess until its digest is checked.
    """
    before, added = _added(small_then.splitlines(), large_then.splitlines())
    if revision == LAST:  # this revision writes the condition differently
        added = [line.replace(_DROPPED, b"") for line in added]
    before = b"\n" + before + b"\n"
    at = small.rindex(before) + len(before)
    large = small[:at] + b"".join(line + b"\n" for line in added) + small[at:]
    if revision == LAST:
        large = large[:_EMPTY_LINE_AT] + b"\n" + large[_EMPTY_LINE_AT:]
    return large


def _added(old: list[bytes], new: list[bytes]) -> tuple[bytes, list[bytes]]:
    """The lines that only `new` has, which are in one place, and the line before them."""
    matcher = SequenceMatcher(None, old, new, autojunk=False)
    ((start, end),) = ((start, end) for what, _, _, start, end in matcher.get_opcodes() if what != "equal")
    return new[start - 1], new[start:end]
