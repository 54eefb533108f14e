"""Every plan gives transformers' taps of one call; a plan that does not fit is refused."""

from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from reference.transformers_model import TransformersModel
from tests.support.transformers_models import IDS, POSITIONS, config_of, each_kind, model_of, truth, weights_of, worst

PLANS: dict[str, list[int]] = {"one-shot": [19], "chunks": [5, 5, 5, 4], "two": [11, 8], "tokens": [1] * 19}


@each_kind
@pytest.mark.parametrize("plan", PLANS)
def test_every_plan_gives_the_taps_of_a_forward_without_cache(kind: str, plan: str) -> None:
    got = model_of(kind, lifted=True).run(IDS, positions=POSITIONS, steps=PLANS[plan], left_pad=None)
    assert worst(got, truth(kind)) < 1e-12


@each_kind
@pytest.mark.parametrize("steps", [None, [22], [11, 11], [1] * 22], ids=str)
def test_a_left_padded_row_gives_the_taps_of_the_row_alone(kind: str, steps: list[int] | None) -> None:
    ids, positions = np.zeros((2, 22), np.int64), np.zeros((2, 22), np.int64)
    ids[0], positions[0] = np.random.default_rng(2).integers(3, 128, 22), np.arange(22)
    ids[1, 3:], positions[1, 3:] = IDS[1], POSITIONS[1]
    got = model_of(kind, lifted=True).run(ids, positions=positions, steps=steps, left_pad=[0, 3])
    real = {  # rows 3 onwards of the padded row, with L where the tap has it
        name: tap[1:, :, 3:] if tap.shape[2] == 22 and tap.ndim == 4 else tap[1:, 3:] for name, tap in got.items()
    }
    assert worst(real, {name: tap[1:] for name, tap in truth(kind).items()}) < 1e-12


def test_the_window_matters_at_this_length() -> None:
    """The control of the plans: were the window not reached, they could not go wrong."""
    wide = TransformersModel(
        config_of("dense") | {"sliding_window": 32},
        weights_of("dense"),
        dtype="float64",
        attention="eager",
        lifted=True,
    ).run(IDS, positions=POSITIONS, steps=None, left_pad=None)
    assert np.abs(wide["logits"] - truth("dense")["logits"])[:, :8].max() < 1e-12
    assert np.abs(wide["logits"] - truth("dense")["logits"])[:, 8:].max(axis=(0, 2)).min() > 1e-3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": [5, 5]}, "steps"),
        ({"steps": [19, 0]}, "steps"),
        ({"left_pad": [0]}, "left_pad"),
        ({"left_pad": [0, 19]}, "left_pad"),
        ({"left_pad": [0, 2]}, "not 0"),
        ({"positions": POSITIONS[:1]}, "positions"),
    ],
    ids=str,
)
def test_a_plan_that_does_not_fit_is_refused(arguments: dict[str, Any], message: str) -> None:
    fitting: dict[str, Any] = {"positions": POSITIONS, "steps": None, "left_pad": None}
    with pytest.raises(ValueError, match=message):
        model_of("dense", lifted=True).run(IDS, **fitting | arguments)


def test_pads_are_refused_where_transformers_would_make_them_nan() -> None:
    ids, positions = IDS.copy(), np.maximum(POSITIONS - 1, 0)
    ids[:, 0] = 0
    with pytest.raises(ValueError, match="NaN"):
        model_of("dense").run(ids, positions=positions, steps=None, left_pad=[1, 1])
