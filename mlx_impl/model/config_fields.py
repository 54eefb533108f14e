"""Typed reads from a JSON object: each returns a value of its type or raises a one-line MlxImplError."""

import difflib
from collections.abc import Collection, Iterable, Mapping

from mlx_impl.errors import MlxImplError, problem, shown

_REQUIRED = object()
_LARGEST = 2**31 - 1  # no axis of an MLX array is longer
_HUGE = 1e300  # JSON integers may be longer than a float can hold


def refuse_unknown(d: Mapping[str, object], known: Collection[str], where: str) -> None:
    """Refuse the first key that is not known, with the nearest known one as a hint."""
    for key in d:
        if key not in known:
            raise problem(where, got=f"unknown key {shown(key)}", expected="a known key", cure=hint(key, known))


def hint(got: object, known: Iterable[str]) -> str:
    """`did you mean 'x'?`, or what to do when no known key is similar."""
    near = difflib.get_close_matches(str(got), sorted(known), n=1)
    return f"did you mean {near[0]!r}?" if near else "remove it, or add support for it to mlx_impl"


def mapping(d: Mapping[str, object], key: str) -> Mapping[str, object]:
    """A required JSON object."""
    value = d.get(key)
    if not isinstance(value, Mapping):
        raise problem(key, got=shown(value), expected="a JSON object", cure="add it")
    return value


def integer(d: Mapping[str, object], key: str, *, least: int = 1, default: object = _REQUIRED) -> int:
    """An integer from `least` to 2^31 - 1; a bool is not accepted."""
    value = _present(d, key, default)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= _LARGEST:
        raise _wrong(key, value, f"an integer from {least} to {_LARGEST}")
    return value


def optional_integer(d: Mapping[str, object], key: str) -> int | None:
    """A positive integer; None if the key is null or absent."""
    return None if d.get(key) is None else integer(d, key)


def number(d: Mapping[str, object], key: str, *, default: object = _REQUIRED, least: float | None = None) -> float:
    """A finite number: positive, or at least `least` where that is given."""
    value = _present(d, key, default)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if isinstance(value, int | float) and is_number and abs(value) < _HUGE:  # false for NaN too
        large_enough = value > 0 if least is None else value >= least
        if large_enough:
            return float(value)
    raise _wrong(key, value, "a positive finite number" if least is None else f"a finite number of at least {least}")


def flag(d: Mapping[str, object], key: str, *, default: object = _REQUIRED) -> bool:
    """true or false."""
    value = _present(d, key, default)
    if not isinstance(value, bool):
        raise _wrong(key, value, "true or false")
    return value


def text(d: Mapping[str, object], key: str, *, default: object = _REQUIRED) -> str:
    """A string."""
    value = _present(d, key, default)
    if not isinstance(value, str):
        raise _wrong(key, value, "a string")
    return value


def texts(d: Mapping[str, object], key: str) -> tuple[str, ...]:
    """A required list of strings."""
    value = _present(d, key, _REQUIRED)
    if not isinstance(value, list | tuple):
        raise _wrong(key, value, "a list of strings")
    for item in value:
        if not isinstance(item, str):
            raise _wrong(key, item, "strings in the list")
    return tuple(value)


def one_of(d: Mapping[str, object], key: str, supported: tuple[object, ...]) -> None:
    """Refuse a value outside `supported`; an absent key is fine, because its default is supported[0]."""
    value = d.get(key, supported[0])
    # The type counts as well: in Python 0 == False, in a configuration it is not.
    if not any(type(value) is type(item) and value == item for item in supported):
        raise problem(key, got=shown(value), expected=" or ".join(map(repr, supported)), cure="not supported")


def _present(d: Mapping[str, object], key: str, default: object) -> object:
    if key in d:
        return d[key]
    if default is _REQUIRED:
        cure = "it cannot be guessed: copy it from the published config.json"
        raise problem(key, got="no such key", expected="the key", cure=cure)
    return default


def _wrong(key: str, value: object, expected: str) -> MlxImplError:
    return problem(key, got=shown(value), expected=expected, cure="correct config.json")
