"""An adapter in another process, for RMSNorm alone, that misbehaves in the way that is named on its command line."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

HOW = sys.argv[1]
HELLO = {
    "protocol": 1,
    "implementation": {"name": "saboteur", "version": "1", "language": "Python"},
    "profiles": ["f32"],
    "kinds": ["rms_norm"],
}


def say(value: Any) -> None:
    sys.stdout.write(value if isinstance(value, str) else json.dumps(value) + "\n")
    sys.stdout.flush()


def norm(tensors: dict[str, Any], eps: float) -> Any:
    x = tensors["x"].astype(np.float64)
    y = x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps)
    return (y * tensors["weight"] if "weight" in tensors else y).astype(np.float32)


def written(line: dict[str, Any]) -> None:
    """Write the file that was asked for, or another."""
    tensors, out = load_file(line["inputs"]), Path(line["out"])
    y = norm(tensors, line["params"]["eps"])
    wrong = {
        "zero": lambda: np.zeros_like(y),
        "input": lambda: tensors["x"],
        "nan": lambda: np.where(np.arange(y.size).reshape(y.shape) == 3, np.float32("nan"), y),
        "transposed": lambda: np.ascontiguousarray(y.swapaxes(-1, -2)),
        "dtype": lambda: y.astype(np.int32),
        "half": lambda: y.astype(np.float16).astype(np.float32),
    }
    if HOW == "no file":
        return
    if HOW == "link":
        (out.parent / "elsewhere").write_bytes(b"")
        out.symlink_to(out.parent / "elsewhere")
        return
    save_file({"z" if HOW == "name" else "y": wrong.get(HOW, lambda: y)()}, str(out))
    if HOW == "truncated":
        out.write_bytes(out.read_bytes()[:-8])
    if HOW == "garbage file":
        out.write_bytes(b"\xff" * 100)


def answer(line: dict[str, Any]) -> None:
    seq = line["seq"]
    if HOW == "crash":
        sys.exit("out of luck\nand words")
    if HOW == "killed":
        os.kill(os.getpid(), 9)
    if HOW == "hang":
        time.sleep(600)
    if HOW == "deaf":
        os.close(0)
        time.sleep(600)
    lines = {
        "skips": {"seq": seq, "skipped": "not today"},
        "error": {"seq": seq, "error": "no\nidea"},
        "out of turn": {"seq": seq + 1, "ok": True},
        "no seq": {"ok": True},
        "nothing": {"seq": seq},
        "both": {"seq": seq, "ok": True, "error": "x"},
        "list": [seq],
        "garbage": "ok!\n",
        "bytes": "",
        "empty": "\n",
    }
    if HOW == "huge":
        say("x" * (17 * 1024 * 1024) + "\n")
    if HOW == "bytes":
        sys.stdout.buffer.write(b"\xff\xfe\n")
        sys.stdout.buffer.flush()
    if HOW in lines:
        say(lines[HOW])
        return
    written(line)
    text = json.dumps({"seq": seq, "ok": True, "ms": 0.1, "from a later version": 1})
    if HOW == "split":  # within a line: honest
        say(text[:7])
        time.sleep(0.1)
        say(text[7:] + "\n")
    elif HOW == "twice":
        say(f"{text}\n{text}\n")
    else:
        say(text + "\n")


def main() -> None:
    if HOW == "stillborn":
        sys.exit(3)
    if HOW == "chatty":
        say("loading ...\n")
    for text in sys.stdin:
        line = json.loads(text)
        if line["cmd"] == "hello":
            said = {"old": HELLO | {"protocol": 0}, "no profile": HELLO | {"profiles": ["f128"]}, "mute": {}}
            say(said.get(HOW, HELLO))
        elif line["cmd"] == "stop":
            if HOW == "stays":
                time.sleep(600)
            return
        else:
            answer(line)


main()
