"""Draws the error of a tap by position: where in the text it begins, and whether it grows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from conformance.judging.question import Question
from conformance.reporting.jsonl import CaseLine
from conformance.reporting.page.heat_map import svg
from gemma4_contract import FixtureError, Fixtures, tensors
from gemma4_contract.layout import row_axis


def draw_positions(fixtures: Fixtures, directory: Path, line: CaseLine) -> str:
    """The relative error of the first divergence at each position, as SVG; "" if it has no positions or no answer.

    error[l] = RMS over all other axes of (got - expected), relative to the RMS of the whole expected tensor.
    """
    if line.first_divergence is None or line.answer is None:
        return ""
    question = Question.of(fixtures, line.case)
    spec = next((spec for spec in question.taps if spec.name == line.first_divergence), None)
    try:
        got = tensors.read(directory / line.answer).get(line.first_divergence)
    except FixtureError:
        return ""
    if spec is None or got is None or list(got.shape) != list(question.golden[spec.name].shape):
        return ""
    rows = row_axis(spec.axes)
    if rows is None:
        return ""
    golden = question.golden[spec.name].astype(np.float64)
    rest = tuple(axis for axis in range(golden.ndim) if axis != rows)
    scale = float(np.sqrt(np.mean(golden**2))) or 1.0
    error = np.sqrt(np.mean((got.astype(np.float64) - golden) ** 2, axis=rest)) / scale  # [rows]
    if not np.isfinite(error).all() or len(error) < 2:
        return ""
    figure = Figure(figsize=(5.5, 1.8), layout="constrained")
    axes = figure.add_subplot()
    numbers = spec.numbers(spec.axes[rows])[: len(error)]
    axes.plot(numbers, np.maximum(error, 1e-12), marker="o", markersize=3, color="#d7301f")
    axes.set_yscale("log")
    axes.set_xlabel("position", fontsize=8)
    axes.set_ylabel("relative error", fontsize=8)
    axes.tick_params(labelsize=7)
    return svg(figure)
