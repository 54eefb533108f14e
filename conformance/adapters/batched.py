"""Runs an implementation on every case with the batch doubled."""

from __future__ import annotations

import dataclasses

import numpy as np

from conformance.adapters.base import Adapter, Array, Hello, Request


class BatchedAdapter:
    """Doubles the rows of the batch and answers with the second half: other shapes, so other kernels, same values."""

    def __init__(self, adapter: Adapter) -> None:
        self._adapter = adapter

    def hello(self) -> Hello:
        """The implementation's own hello under another name."""
        hello = self._adapter.hello()
        return dataclasses.replace(hello, name=f"{hello.name}, batched")

    def run(self, request: Request) -> dict[str, Array]:
        """The taps of the second half of a doubled batch; cases without a model are passed on unchanged."""
        if request.model_dir is None:
            return self._adapter.run(request)
        batch = next(iter(request.inputs.values())).shape[0]
        inputs = {name: np.concatenate([x, x]) for name, x in request.inputs.items()}
        plan = request.plan
        if plan is not None and plan.left_pad is not None:
            plan = plan.model_copy(update={"left_pad": plan.left_pad * 2})
        answer = self._adapter.run(dataclasses.replace(request, inputs=inputs, plan=plan))
        return {name: value[batch:] for name, value in answer.items()}
