"""The strings in a GGUF file's metadata; without its tensors, and in a second where the general reader takes twenty."""

from __future__ import annotations

import struct

_WIDTHS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}  # bytes of a number by its type
_STRING, _ARRAY = 8, 9
_FIRST_KEY = 24  # after the magic, the version and two counts


def read_strings(data: bytes) -> dict[str, list[str]]:
    """Every key whose value is a string or an array of strings; a string is a list of one.

    https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, version 2 and later, little-endian.
    """
    magic, version, _, keys = struct.unpack_from("<4sIQQ", data)
    if magic != b"GGUF" or version < 2:
        raise ValueError(f"got {magic!r} version {version}, expected GGUF version 2 or later")
    found: dict[str, list[str]] = {}
    at = _FIRST_KEY
    for _ in range(keys):
        key, at = _string(data, at)
        kind, count = *struct.unpack_from("<I", data, at), 1
        at += 4
        if kind == _ARRAY:
            kind, count = struct.unpack_from("<IQ", data, at)
            at += 12
        if kind != _STRING:
            at += count * _WIDTHS[kind]
            continue
        found[key] = []
        for _ in range(count):
            value, at = _string(data, at)
            found[key].append(value)
    return found


def _string(data: bytes, at: int) -> tuple[str, int]:
    """The string at an offset, and the offset after it."""
    (length,) = struct.unpack_from("<Q", data, at)
    return data[at + 8 : at + 8 + length].decode(), at + 8 + length
