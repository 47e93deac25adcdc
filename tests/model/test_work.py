"""What a token costs, against a count tensor by tensor."""

from pathlib import Path

import pytest

from edgeqwen.gguf_file import GgufFile
from edgeqwen.model.work import Work
from tests.engines import SHAPE, open_engine, write_model


def in_matrices(path: Path, *, head: bool) -> tuple[int, int]:
    """Returns the weights and the bytes of all matrices of the layers, and of the head if asked."""
    names = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    with GgufFile.open(path) as file:
        wanted = [f"blk.{i}.{n}.weight" for i in range(SHAPE["n_layers"]) for n in names]
        tensors = [file.tensor(name) for name in wanted + ["token_embd.weight"] * head]
    return sum(t.shape[0] * t.shape[1] for t in tensors), sum(t.n_bytes for t in tensors)


@pytest.mark.parametrize(("cache_type", "bytes_of_32"), [("f16", 64), ("q8_0", 34), ("f32", 128)])
def test_work_is_what_the_tensors_say(tmp_path: Path, cache_type: str, bytes_of_32: int) -> None:
    # Whole tiles of 16 rows, so that bytes in memory are those of the file.
    path = write_model(tmp_path / "m.gguf", types="Q4_0", vocab_size=336)
    with open_engine(path, max_context=64, cache_type=cache_type) as engine:
        found = engine.work
    n_weights, n_bytes = in_matrices(path, head=False)
    assert found == Work(
        weight_bytes=in_matrices(path, head=True)[1],
        integer_macs=n_weights,
        float_macs=0,
        cache_bytes=2 * 2 * 2 * bytes_of_32,  # K and V, two layers, one head of 64
        attention_macs=2 * 2 * 7 * 64,
    )
    assert found.weight_bytes > n_bytes


def test_weights_of_floats_are_multiplied_as_floats(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.gguf", types="F16")
    with open_engine(path, max_context=64) as engine:
        found = engine.work
    assert (found.integer_macs, found.float_macs) == (0, in_matrices(path, head=False)[0])
