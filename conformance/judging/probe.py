"""Measures, before anything is judged, the arithmetic that an implementation really computes in."""

from __future__ import annotations

from conformance.adapters.base import Adapter, Request
from conformance.adapters.registry import AdapterUnavailable
from conformance.judging.compare import measure
from gemma4_contract import Fixtures

CASE = "module/linear/full-precision"

CURE = (
    "products are computed in TF32 or lower, not in float32: switch it off (MLX: MLX_ENABLE_TF32=0; "
    "PyTorch: torch.backends.cuda.matmul.allow_tf32 = False) and run again"
)


def require_exact_products(fixtures: Fixtures, adapter: Adapter, name: str, profile: str) -> float | None:
    """The error of products; AdapterUnavailable with the cure if they have the precision of TF32 or less."""
    error = products_error(fixtures, adapter, profile)
    if error is not None and not error <= fixtures.policy.low_precision_products:
        raise AdapterUnavailable(f"ENVIRONMENT: {name}: products err by {error:.1e} (relative RMS); {CURE}")
    return error


def products_error(fixtures: Fixtures, adapter: Adapter, profile: str) -> float | None:
    """Relative RMS error of products over 512 terms of full float32 precision.

    None if this cannot be asked, or if the answer is not a product at all: the verdict on the case reports that.
    """
    if CASE not in fixtures.case_ids or profile not in (case := fixtures.case(CASE)).profiles:
        return None
    if not adapter.hello().offers_kind(case.kind):
        return None
    request = Request(case=case.id, kind=case.kind, profile=profile, inputs=fixtures.inputs(case), want=("y",))
    try:
        answer = adapter.run(request)["y"]
    except Exception:  # a Skip, or a fault of the port, which is reported when the case is judged
        return None
    golden = fixtures.golden(case)["y"]
    if answer.shape != golden.shape:
        return None
    error = measure(answer, golden).rms
    return error if error < fixtures.policy.mistaken_products else None
