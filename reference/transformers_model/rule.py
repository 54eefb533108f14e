"""Matrices of `int8-splitmix64-v1` made by torch, on the GPU that the model runs on."""

from __future__ import annotations

import torch

from reference.streaming.matrix import RuleMatrix
from reference.weights import GAMMA, MIX, fnv1a64

_TOP = 56
"""Bits below the byte that is q."""


def rows(matrix: RuleMatrix, block: slice, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """A block of rows, [rows, width]."""
    width = matrix.shape[-1]
    return elements(matrix, block.start * width, block.stop * width, dtype, device).reshape(-1, width)


def elements(matrix: RuleMatrix, start: int, stop: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """q * 2^-k of the row-major order: the words are 64-bit integers, whose products wrap."""
    word = torch.arange(stop - start, dtype=torch.int64, device=device)
    word += _signed(fnv1a64(matrix.name) + start + GAMMA)
    for shift, multiplier in MIX:
        word = (word ^ (word >> shift & (1 << 64 - shift) - 1)) * _signed(multiplier)
    return (word >> _TOP).to(dtype) * 2.0**-matrix.exponent


def _signed(number: int) -> int:
    """A number modulo 2^64 as torch's int64 has it."""
    number %= 1 << 64
    return number - (1 << 64) if number >> 63 else number
