"""An adapter in another process, for RMSNorm alone, that misbehaves in the way that is named on its command line.

`HOW at CASES` misbehaves where the case's id ends so. Who is asked what goes into the file that `SABOTEUR_ASKED` names.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from gluttony import devour
from safetensors.numpy import load_file, save_file

HOW, _, AT = sys.argv[1].partition(" at ")
ASKED = os.environ.get("SABOTEUR_ASKED", os.devnull)
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


def written(line: dict[str, Any], how: str) -> None:
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
    if how == "no file":
        return
    if how == "link":
        (out.parent / "elsewhere").write_bytes(b"")
        out.symlink_to(out.parent / "elsewhere")
        return
    save_file({"z" if how == "name" else "y": wrong.get(how, lambda: y)()}, str(out))
    if how == "truncated":
        out.write_bytes(out.read_bytes()[:-8])
    if how == "garbage file":
        out.write_bytes(b"\xff" * 100)


def answer(line: dict[str, Any], how: str) -> None:
    seq = line["seq"]
    devour(how)
    if how == "slow":
        time.sleep(1)
    if how == "crash":
        sys.exit("out of luck\nand words")
    if how == "closes":
        os.close(1)
        time.sleep(600)
    if how == "verbose":
        sys.exit("word " * 100 + "the end")
    if how == "killed":
        os.kill(os.getpid(), 9)
    if how == "hang":
        time.sleep(600)
    if how == "deaf":
        os.close(0)
        time.sleep(600)
    lines = {
        "skips": {"seq": seq, "skipped": "not today"},
        "error": {"seq": seq, "error": "no\nidea"},
        "unprintable": {"seq": seq, "error": "\x1b[31m\x00 \ufffe ]]> <&"},
        "out of turn": {"seq": seq + 1, "ok": True},
        "no seq": {"ok": True},
        "nothing": {"seq": seq},
        "both": {"seq": seq, "ok": True, "error": "x"},
        "list": [seq],
        "garbage": "ok!\n",
        "bytes": "",
        "empty": "\n",
    }
    if how == "huge":
        say("x" * (17 * 1024 * 1024) + "\n")
    if how == "bytes":
        sys.stdout.buffer.write(b"\xff\xfe\n")
        sys.stdout.buffer.flush()
    if how in lines:
        say(lines[how])
        return
    written(line, how)
    text = json.dumps({"seq": seq, "ok": True, "ms": 0.1, "from a later version": 1})
    if how == "split":  # within a line: honest
        say(text[:7])
        time.sleep(0.1)
        say(text[7:] + "\n")
    elif how == "twice":
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
        with open(ASKED, "a", encoding="utf-8") as file:
            file.write(f"{os.getpid()} {line.get('case', line['cmd'])}\n")
        if line["cmd"] == "hello":
            said = {"old": HELLO | {"protocol": 0}, "no profile": HELLO | {"profiles": ["f128"]}, "mute": {}}
            say(said.get(HOW, HELLO))
        elif line["cmd"] == "stop":
            if HOW == "stays":
                time.sleep(600)
            if HOW != "reads on":
                return
        else:
            answer(line, HOW if line["case"].endswith(AT) else "honest")


main()
