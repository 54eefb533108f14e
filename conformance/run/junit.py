"""A run as JUnit XML, for continuous integration."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path

from conformance.run.session import Judged
from gemma4_contract.files import write_atomic

_NO_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def write_junit(path: Path, name: str, judged: Sequence[Judged]) -> None:
    """Write the cases of a run as one suite, with the level as the class of a case."""
    suite = ET.Element("testsuite", name=_plain(name))
    for one in judged:
        case = ET.SubElement(suite, "testcase", classname=one.level, name=one.case)
        if (tag := _tag(one)) is not None:
            text = _plain(one.text)
            ET.SubElement(case, tag, message=text.partition("\n")[0]).text = text
    suite.set("tests", str(len(judged)))
    for tag, heading in (("failure", "failures"), ("error", "errors"), ("skipped", "skipped")):
        suite.set(heading, str(len(suite.findall(f"testcase/{tag}"))))
    root = ET.Element("testsuites")
    root.append(suite)
    ET.indent(root, " ")
    write_atomic(path, ET.tostring(root, encoding="utf-8", xml_declaration=True))


def _tag(one: Judged) -> str | None:
    if one.counts_as == "fail":
        return "error" if one.outcome == "error" else "failure"
    return None if one.counts_as == "pass" else "skipped"


def _plain(text: str) -> str:
    """A text in which characters that XML cannot hold are escaped: a port may say anything."""
    return _NO_XML.sub(lambda found: ascii(found[0])[1:-1], text)
