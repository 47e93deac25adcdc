"""What calibration gains on the built-in model: the goals that the project has set itself."""

from contextlib import ExitStack
from pathlib import Path

import pytest

from edgeqwen import load
from edgeqwen.comparison import compare
from edgeqwen.quant import quantize
from tests.guide.test_built_in_model import CHECKPOINT
from tests.quant.calibration_cases import texts

N_TOKENS = 3000


@pytest.mark.parametrize(("type", "goal"), [("q4_0", 0.6), ("q4_k_m", 0.7)])
def test_predictions_are_nearer_to_the_source_s(tmp_path: Path, type: str, goal: float) -> None:
    text, other = texts()
    quantize(CHECKPOINT, tmp_path / "source", "f16")
    quantize(CHECKPOINT, tmp_path / "plain", type)
    quantize(CHECKPOINT, tmp_path / "calibrated", type, calibrate=text, calibrate_tokens=8192)
    with ExitStack() as stack:
        source, plain, calibrated = (
            stack.enter_context(load(tmp_path / name)) for name in ("source", "plain", "calibrated")
        )
        tokens = source.tokenizer.encode(other, allow_special=True)[:N_TOKENS]
        distances = [
            compare(source, model, tokens, context=512, stride=256).kl.mean
            for model in (plain, calibrated)
        ]
    assert distances[1] < goal * distances[0]
