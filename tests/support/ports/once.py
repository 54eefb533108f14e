"""A port that is a command for one question, for RMSNorm alone; it misbehaves as its first argument says."""

from __future__ import annotations

import json
import os
import sys
import time

import numpy as np
from gluttony import devour
from safetensors.numpy import load_file, save_file

how, request, out = sys.argv[1:]
with open(request, encoding="utf-8") as file:
    asked = json.load(file)
if asked["kind"] != "rms_norm":
    sys.stderr.write("not\nyet")
    sys.exit(77)
devour(how)
if how == "says on standard output":
    print("the wrong place")
    sys.exit(1)
if how == "fails":
    sys.exit("no luck")
if how == "killed":
    os.kill(os.getpid(), 9)
if how == "hangs":
    time.sleep(600)
if how != "writes nothing":
    tensors = load_file(asked["inputs"])
    x = tensors["x"].astype(np.float64)
    y = x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + asked["params"]["eps"])
    y = (y * tensors.get("weight", np.float64(1))).astype(np.float32)
    save_file({"y": np.zeros_like(y) if how == "zero" else y}, out)
