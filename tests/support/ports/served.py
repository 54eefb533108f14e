"""An adapter of this process, served over the protocol: `python served.py NAME` is the port NAME in another process."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from conformance.adapters.base import PromptAdapter, PromptRequest, Refused, Request, Skip
from conformance.adapters.registry import create
from gemma4_contract import Plan, protocol, tensors


class Served:
    """Answers the lines of the protocol through an adapter."""

    def __init__(self, name: str) -> None:
        self._adapter = create(name)
        self._model_dir: Path | None = None

    def answer(self, line: dict[str, Any]) -> dict[str, Any]:
        command = line["cmd"]
        if command == "hello":
            said = self._adapter.hello()
            who = {"name": said.name, "version": said.version, "language": said.language}
            rest = {"family": said.family, "device": said.device, "profiles": said.profiles, "kinds": said.kinds}
            return {"protocol": protocol.VERSION, "implementation": who, **rest}
        if command == "load":
            self._model_dir = Path(line["model_dir"])
            return {"ok": True}
        try:
            return {"seq": line["seq"], **getattr(self, f"_{command}")(line)}
        except Skip as skipped:
            return {"seq": line["seq"], "skipped": str(skipped)}
        except Refused as refused:
            return {"seq": line["seq"], "refused": str(refused)}

    def _run(self, line: dict[str, Any]) -> dict[str, Any]:
        whole = line["kind"] in ("forward", "layer", "attention")
        request = Request(
            case=line["case"],
            kind=line["kind"],
            profile=line["profile"],
            model_dir=self._model_dir if whole else None,
            plan=Plan(**line["plan"]) if line["plan"] else None,
            params=line["params"],
            inputs=tensors.read(Path(line["inputs"])) if line["inputs"] else {},
            want=tuple(line["want"]),
        )
        start = time.perf_counter()
        taps = self._adapter.run(request)
        ms = (time.perf_counter() - start) * 1000
        tensors.write(Path(line["out"]), taps)
        return {"ok": True, "ms": ms}

    def _prompt(self, line: dict[str, Any]) -> dict[str, Any]:
        if not isinstance(self._adapter, PromptAdapter):
            raise Skip("builds no prompts")
        keys = ("messages", "tools", "template", "enable_thinking", "add_generation_prompt", "preserve_thinking")
        return {"text": self._adapter.prompt(PromptRequest(**{key: line[key] for key in keys}))}

    def _tokenize(self, line: dict[str, Any]) -> dict[str, Any]:
        if not isinstance(self._adapter, PromptAdapter):
            raise Skip("has no tokenizer")
        return {"ids": self._adapter.encode(line["text"], Path(line["tokenizer"]))}


def main() -> None:
    served = Served(sys.argv[1])
    for text in sys.stdin:
        line = json.loads(text)
        if line["cmd"] == "stop":
            return
        sys.stdout.write(json.dumps(served.answer(line)) + "\n")
        sys.stdout.flush()


main()
