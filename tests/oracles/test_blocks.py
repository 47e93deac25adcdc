"""The oracles that are no network: int8 activations by hand, dequantization, distributions."""

from pathlib import Path

import gguf
import numpy as np
import pytest

from tests.oracles import blocks
from tests.oracles.distributions import deviation, entropy, kl_divergence


def test_int8_of_a_known_block() -> None:
    x = np.zeros(64, np.float32)
    x[:4] = [127.0, -127.0, 2.5, -3.5]
    values, scale = blocks.quantize_int8(x)
    assert values[0, :4].tolist() == [127, -127, 2, -4]  # halves go to even
    assert scale[:, 0].tolist() == [1.0, 0.0]
    assert not blocks.round_int8(x)[32:].any()


def test_int8_keeps_each_block_within_half_a_step() -> None:
    x = np.random.default_rng(3).normal(size=(5, 256)).astype(np.float32) * 10.0 ** np.arange(
        -2, 3, dtype=np.float32
    ).reshape(5, 1)
    values, scale = blocks.quantize_int8(x)
    assert np.abs(values).max() == 127
    error = np.abs(blocks.round_int8(x) - x).reshape(values.shape)
    assert (error <= scale * 0.5001).all()


def test_half_precision() -> None:
    x = np.array([1.0, 1 + 2.0**-12, 1 + 3 * 2.0**-11, 65504.0])
    assert blocks.round_f16(x).tolist() == [1.0, 1.0, 1 + 2 * 2.0**-10, 65504.0]
    assert blocks.round_f16(x).dtype == x.dtype


def test_weights_of_a_file(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(3, 64)).astype(np.float32)
    writer = gguf.GGUFWriter(tmp_path / "x.gguf", "qwen2")
    q8_0 = gguf.GGMLQuantizationType.Q8_0
    writer.add_tensor("a", gguf.quantize(x, q8_0), raw_dtype=q8_0)
    writer.add_tensor("b", x)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    weights = blocks.read_weights(tmp_path / "x.gguf")
    assert np.array_equal(weights["b"], x)
    assert weights["a"].shape == x.shape
    assert 0 < np.abs(weights["a"] - x).max() < np.abs(x).max() / 127
    assert blocks.tensor_types(tmp_path / "x.gguf") == {"a": "Q8_0", "b": "F32"}


def test_entropy_and_divergence_of_known_distributions() -> None:
    p = np.log(np.array([[0.5, 0.25, 0.25], [1, 1, 1]])) + 7  # logits are known up to a constant
    q = np.log(np.array([[0.25, 0.5, 0.25], [1, 1, 1]]))
    assert entropy(p) == pytest.approx([1.5 * np.log(2), np.log(3)])
    assert kl_divergence(p, q) == pytest.approx([0.25 * np.log(2), 0])
    assert deviation(np.array([1.0, -3.0]), np.array([1.0, -4.0])) == 0.25
