"""The only error that mlx_impl raises for mistakes that a user can make."""

_LONGEST_VALUE = 120


class MlxImplError(Exception):
    """An error of one line: where it is, what was got, what was expected, and the cure."""


def shown(value: object) -> str:
    """`repr(value)`, cut to a length that fits one line; the type of a value that cannot be printed."""
    try:
        text = repr(value)  # repr escapes line breaks, so that a hostile value cannot make a second line
    except Exception:  # an int of thousands of digits, lists without end, somebody's class
        text = f"a {type(value).__name__} that cannot be printed"
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 3] + "..."


def problem(where: str, *, got: str, expected: str, cure: str) -> MlxImplError:
    """The error `where: got ...; expected ...; cure`, always on one line."""
    return MlxImplError(" ".join(f"{where}: got {got}; expected {expected}; {cure}".split()))
