"""The failing run that the README shows: its picture and its text are what the commands of docs/JUDGING.md give."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support import ROOT
from tests.support.markdown import block, read
from tests.support.runs import run

PICTURE = "docs/failing-run.svg"
Colour = tuple[int, ...]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """What the first command prints, and the picture that the second draws."""
    folder = tmp_path_factory.mktemp("failing")
    judge, draw = block(read("docs/JUDGING.md"), "picture").splitlines()
    assert draw.endswith(f" --picture {PICTURE}")
    judged = run(judge.replace(" report/", f" {folder}/report"))
    assert judged.returncode == 1, judged.stdout + judged.stderr
    drawn = run(draw.replace(" report/", f" {folder}/report").replace(PICTURE, f"{folder}/picture.svg"))
    assert drawn.returncode == 0, drawn.stdout + drawn.stderr
    return judged.stdout, (folder / "picture.svg").read_text(encoding="utf-8")


def cells(svg: str) -> dict[tuple[str, str], Colour]:
    """The colour of every cell of a map, by tap and layer."""
    found = re.findall(r'<g id="cell 12b-mini (\S+) (\d+)">.*?fill: #(\w{6})', svg, re.DOTALL)
    return {(tap, layer): tuple(bytes.fromhex(colour)) for tap, layer, colour in found}


@pytest.mark.slow
def test_the_picture_is_the_one_that_the_commands_make(made: tuple[str, str]) -> None:
    """Shades below the tolerance hang on the order of sums of the machine's products, and on nothing else."""
    committed, drawn = read(PICTURE), made[1]
    ours, theirs = cells(committed), cells(drawn)
    assert len(ours) == 12 * 19
    assert list(ours) == list(theirs)
    for cell, colour in ours.items():
        assert max(abs(a - b) for a, b in zip(colour, theirs[cell], strict=True)) <= 40, cell
    for what in (r"<text[^>]*>[^<]*</text>", r'id="first divergence [^"]*"'):
        assert re.findall(what, committed) == re.findall(what, drawn)


def test_the_picture_shows_where_the_mistake_is() -> None:
    svg = read(PICTURE)
    assert re.findall(r'id="first divergence ([^"]*)"', svg) == ["self_attn.q_rope 5"]
    wrong = {cell for cell, (red, green, _) in cells(svg).items() if red > green + 100}
    before = {(tap, layer) for tap, layer in cells(svg) if int(layer) < 5}
    after = {(tap, layer) for tap, layer in cells(svg) if int(layer) > 5}
    assert before & wrong == set()
    assert after <= wrong
    right = {tap for tap, layer in cells(svg).keys() - wrong if layer == "5"}
    assert right == {"input_layernorm", "self_attn.q_norm", "self_attn.k_norm", "self_attn.v_norm", "self_attn.v_read"}


def test_the_picture_is_small_and_stands_alone() -> None:
    svg = read(PICTURE)
    assert (ROOT / PICTURE).stat().st_size < 150_000
    assert "<script" not in svg
    assert re.findall(r'href="(?!#|data:)[^"]*"', svg) == []
    assert Path(PICTURE).as_posix() in read("README.md")


@pytest.mark.slow
def test_the_text_is_what_the_run_prints(made: tuple[str, str]) -> None:
    """Line by line, in order, numbers aside: they hang on the machine's products."""
    shown = without_numbers(block(read("README.md"), "failure"))
    assert len(shown) > 8
    printed = without_numbers(made[0])
    place = -1
    for line in shown:
        place = printed.index(line, place + 1)
    assert place < printed.index(shown[0]) + 30  # all of one case


def without_numbers(text: str) -> list[str]:
    return [re.sub(r"(?<![\w.-])-?\d[\d.]*(e[+-]\d+)?(?![\w/])", "#", line) for line in text.splitlines()]
