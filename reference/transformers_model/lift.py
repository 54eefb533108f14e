"""Lift the float32 islands that a float64 Gemma 4 keeps in transformers.

Under `.double()` five things are still computed in float32: RMSNorm, RoPE's frequencies and angles, the attention
softmax, the router softmax, and the embedding scales. The first four ask for float32 in so many words (`.float()`,
`dtype=torch.float32`), so it is enough to answer each such request with float64 while the model's own code runs; the
scales are buffers, which `build` fills.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch.overrides import TorchFunctionMode


def _widen(argument: Any) -> Any:
    """Replace the dtype float32 by float64, and leave every other argument alone."""
    return torch.float64 if argument is torch.float32 else argument


class _Float64InPlaceOfFloat32(TorchFunctionMode):
    """While active in this thread, each request for float32 made of torch is answered with float64."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call `func`, with `Tensor.float` turned into `Tensor.double` and float32 arguments into float64."""
        if func is torch.Tensor.float:
            func = torch.Tensor.double
        return func(*map(_widen, args), **{name: _widen(value) for name, value in (kwargs or {}).items()})


def lifting(lifted: bool) -> AbstractContextManager[object]:
    """Return a context that lifts the islands, or one that does nothing; torch is as before once it is left."""
    return _Float64InPlaceOfFloat32() if lifted else nullcontext()
