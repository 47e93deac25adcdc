"""What calibration sends through the network: in both streams, what either network has there."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edgeqwen.quant import plan
from edgeqwen.quant.calibrate import calibrated, walk
from edgeqwen.quant.calibrate.statistics import Inputs, Part, parts
from edgeqwen.quant.calibrate.workers import Workers
from edgeqwen.quant.decode import rows_as_floats, to_floats
from edgeqwen.quant.encode import encode
from edgeqwen.quant.plan import opened
from tests.oracles.qwen2 import Qwen2
from tests.quant.calibration_cases import trained_layers

Floats = npt.NDArray[np.float32]

N_LAYERS = 2
# What the inputs of each product are called in the record of the twin.
INPUTS = [
    f"blk.{i}.{name}"
    for i in range(N_LAYERS)
    for name in ("attn_norm", "attention", "ffn_norm", "swiglu")
]


def recorded(config: Any, weights: dict[str, Floats], windows: np.ndarray) -> dict[str, Floats]:
    """Returns the inputs of all products by the twin, float32 [n_tokens][columns]."""
    found: dict[str, list[Floats]] = {}
    for window in windows:
        record: dict[str, np.ndarray] = {}
        Qwen2(config, weights).logits(window, record)
        for name in INPUTS:
            found.setdefault(name, []).append(record[name])
    return {name: np.concatenate(arrays) for name, arrays in found.items()}


@pytest.mark.parametrize("type", ["q4_0", "q4_k_m"])
def test_streams_are_those_of_both_networks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, type: str
) -> None:
    folder = trained_layers(tmp_path / "a", N_LAYERS)
    windows = np.random.default_rng(0).integers(0, 3000, (2, 96))
    seen: list[tuple[Floats, Floats]] = []

    def watched(columns: int, inputs: Inputs, workers: Workers) -> Iterator[Part]:
        batches = [[x.copy() for x in pair] for pair in inputs(slice(0, columns))]
        source, quantized = zip(*batches, strict=True)
        seen.append((np.concatenate(source), np.concatenate(quantized)))
        return parts(columns, inputs, workers)

    monkeypatch.setattr(walk, "parts", watched)
    # Several batches of a few tokens.
    monkeypatch.setattr(walk, "_MOST_TOKENS", 80)
    types = {tensor.name: tensor.type for tensor in plan(folder, type).tensors}
    exact, rounded = {}, {}
    with opened(folder, pad_ffn=False, imatrix=None) as (checkpoint, _):
        for tensor in checkpoint.tensors:
            weights = rows_as_floats(checkpoint, tensor, 0, tensor.n_rows)
            exact[tensor.name] = weights.reshape(tensor.shape).copy()
        with calibrated(checkpoint, types, windows, tmp_path, 2, lambda done: None) as result:
            for tensor in result.tensors:
                weights = rows_as_floats(result, tensor, 0, tensor.n_rows)
                if not tensor.name.startswith("blk."):
                    # What calibration leaves to plain conversion.
                    kind = types[tensor.name]
                    out = np.empty(kind.n_bytes(tensor.shape), np.uint8)
                    assert encode(kind, weights, out)
                    weights = to_floats(kind, out, np.empty(weights.size, np.float32))
                rounded[tensor.name] = weights.reshape(tensor.shape).copy()
            config = result.config
    of_source, of_rounded = (recorded(config, weights, windows) for weights in (exact, rounded))
    assert len(seen) == len(INPUTS)
    for name, (source, quantized) in zip(INPUTS, seen, strict=True):
        scale = np.abs(of_source[name]).max()
        np.testing.assert_allclose(source, of_source[name], atol=2e-4 * scale, err_msg=name)
        np.testing.assert_allclose(quantized, of_rounded[name], atol=2e-4 * scale, err_msg=name)
        # They could be told apart.
        assert np.abs(of_source[name] - of_rounded[name]).max() > 0.01 * scale
