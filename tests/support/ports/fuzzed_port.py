"""An adapter that does something else for every question, by a seed; it never answers well."""

from __future__ import annotations

import json
import os
import random
import struct
import sys
import time
from pathlib import Path
from typing import Any

SEED, COUNT = int(sys.argv[1]), Path(sys.argv[2])
HELLO = {
    "protocol": 1,
    "implementation": {"name": "fuzz", "version": "1", "language": "Python"},
    "profiles": ["f32"],
    "kinds": ["rms_norm", "rope", "softcap", "gelu_tanh"],
}


def some(rng: random.Random) -> Any:
    """Some JSON."""
    words = ("", "seq", "ok", "\u0000", "é", "../../x", "NaN", "x" * 300)
    return rng.choice(
        [None, True, False, rng.randrange(-3, 99), rng.random() * 1e300, rng.choice(words), [], {}, [[1]], {"a": {}}]
    )


DTYPES = {"F32": 4, "F64": 8, "F16": 2, "BF16": 2, "I32": 4, "U8": 1, "F8": 1, "BOOL": 1}


def tensor_file(rng: random.Random) -> bytes:
    """A safetensors file that may be well-formed, and never holds the answer."""
    dtype = rng.choice([*sorted(DTYPES), *["F32"] * len(DTYPES)])
    count = rng.randrange(1, 512)
    size = DTYPES[dtype] * count
    shape = rng.choice([[count], [count], [1, count], [], [2**40], [0, count]])
    data = rng.choice([bytes(size), rng.randbytes(size), (b"\x00\x00\xc0\x7f" * size)[:size]])
    entry = {"dtype": dtype, "shape": shape, "data_offsets": [0, size]}
    header = {rng.choice([*["y"] * 6, "out", "__metadata__"]): entry}
    text = json.dumps(rng.choice([header, header, some(rng), {"y": some(rng)}])).encode()
    whole = struct.pack("<Q", len(text)) + text + data
    cut = whole[: rng.randrange(len(whole))]
    return rng.choice([*[whole] * 6, cut, rng.randbytes(60), b"", struct.pack("<Q", 2**62) + text])


def misbehave(rng: random.Random, line: dict[str, Any]) -> None:
    seq, out = line.get("seq", 0), Path(line.get("out", "nowhere"))
    what = rng.randrange(12)
    if what <= 4:  # answers, with a file that is not the answer
        if rng.random() < 0.9:
            out.write_bytes(tensor_file(rng))
        said: Any = {"seq": seq, "ok": True}
        if rng.random() < 0.3:
            said[rng.choice(["seq", "ok", "error", "skipped", "x"])] = some(rng)
        text = json.dumps(said)
    elif what == 5:
        text = json.dumps(some(rng))
    elif what == 6:
        text = rng.randbytes(rng.randrange(1, 200)).decode("latin-1")
    elif what == 7:
        text = json.dumps({"seq": seq, "ok": True})[: rng.randrange(1, 12)]
    elif what == 8:
        text = "\n" * rng.randrange(1, 4) + json.dumps({"seq": seq, rng.choice(["error", "skipped"]): some(rng)})
    elif what == 9:
        os._exit(rng.randrange(256))
    elif what == 10 and rng.random() < 0.2:
        time.sleep(600)
        return
    else:
        sys.stderr.write("x" * rng.randrange(5000))
        text = json.dumps({"seq": seq, "error": "\x1b[31m\u2028 no"})
    sys.stdout.buffer.write(text.encode("latin-1", "replace") + b"\n" * rng.choice([1, 1, 1, 2]))
    sys.stdout.buffer.flush()


def main() -> None:
    for text in sys.stdin:
        line = json.loads(text)
        if line["cmd"] == "stop":
            return
        if line["cmd"] == "hello":
            sys.stdout.write(json.dumps(HELLO) + "\n")
            sys.stdout.flush()
            continue
        count = int(COUNT.read_text()) + 1
        COUNT.write_text(str(count))
        misbehave(random.Random(SEED + count), line)


main()
