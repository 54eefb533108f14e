"""Every case of the fixtures is put by exactly one module of the suite: the one on its topic."""

from __future__ import annotations

import importlib

import pytest

from conformance.judging import prompts
from gemma4_contract import Fixtures
from tests.support import ROOT

MODULES = sorted(path.stem for path in (ROOT / "conformance").glob("test_*.py"))
TOPICS = {case.id: case.topic for case in Fixtures().cases()} | dict.fromkeys(Fixtures().prompts.ids, prompts.TOPIC)


def topic(module: str) -> str:
    found: str = importlib.import_module(f"conformance.{module}").TOPIC
    return found


def test_every_case_is_put_by_exactly_one_module() -> None:
    assert len(TOPICS) > 300
    assert {case: on for case, on in TOPICS.items() if [topic(m) for m in MODULES].count(on) != 1} == {}


@pytest.mark.parametrize("module", MODULES)
def test_every_topic_has_a_case(module: str) -> None:
    assert topic(module) in TOPICS.values()


@pytest.mark.parametrize("module", MODULES)
def test_every_module_has_one_test_of_its_name(module: str) -> None:
    tests = [name for name in vars(importlib.import_module(f"conformance.{module}")) if name.startswith("test_")]
    assert tests == [module]
