"""The activations' memory: apart from each other, and large enough for every model and CPU."""

import dataclasses

import numpy as np
import pytest

from edgeqwen.formats import FORMATS
from edgeqwen.kernels.attention import UNIT
from edgeqwen.kernels.attention import scratch_bytes as attention_bytes
from edgeqwen.kernels.attention_types import attention_shape
from edgeqwen.kernels.gemm import scratch_bytes
from edgeqwen.model.buffers import PADDING, PANEL_BYTES, Buffers
from edgeqwen.model.chunks import tiles_per_chunk
from edgeqwen.model.steps import LOGITS_TOKENS, PREFILL_TOKENS
from edgeqwen.model.weights import Matrix
from edgeqwen.simd.isa import ISAS
from tests.config_samples import FAMILY, from_hf, hf_config
from tests.isas import GENERIC_8, GENERIC_16

ALL = (*ISAS.values(), GENERIC_8, GENERIC_16)


def buffers(size: str = "0.5B", n_threads: int = 3, max_context: int = 5000) -> Buffers:
    config = from_hf(hf_config(size))
    return Buffers(
        config,
        max_tokens=PREFILL_TOKENS,
        max_context=max_context,
        n_threads=n_threads,
        attention_rows=30,
        n_logits=LOGITS_TOKENS,
    )


def test_buffers_lie_apart() -> None:
    made = buffers()
    config = from_hf(hf_config("0.5B"))
    tokens = PREFILL_TOKENS + PADDING
    needed = {
        "x": tokens * 896,
        "normed": tokens * 896,
        "qkv": tokens * (14 + 2 + 2) * 64,
        "attention": tokens * 896,
        "gate_up": tokens * 2 * 4864,
        "panels": tokens * (4864 // 32) * PANEL_BYTES // 4,
        "angles": tokens * 64,
        "partials": -(-5000 // UNIT) * 2 * 30 * (64 + 2),
        "scratch": 3 * made.scratch_bytes // 4,
        "logits": LOGITS_TOKENS * config.vocab_size,
    }
    places = sorted((made[name], 4 * n) for name, n in needed.items())
    for (start, size), (following, _) in zip(places, [*places[1:], (2**63, 0)], strict=True):
        assert start % 4096 == 0
        assert start + size <= following
    assert made.qkv_stride == 4 * (14 + 2 + 2) * 64
    assert made.gate_up_stride == 4 * 2 * 4864
    made.close()


def test_logits_are_a_view_of_whole_tiles() -> None:
    config = dataclasses.replace(from_hf(hf_config("0.5B")), vocab_size=331)
    made = Buffers(config, max_tokens=1, max_context=64, n_threads=1, attention_rows=7, n_logits=3)
    assert made.logits_stride == 4 * 336
    logits = made.logits(2, 331)
    assert (logits.shape, logits.strides) == ((2, 331), (4 * 336, 4))
    assert logits.dtype == np.float32
    assert logits.ctypes.data == made["logits"]
    made.close()


@pytest.mark.parametrize("isa", ALL, ids=lambda isa: isa.name)
def test_panels_and_rows_are_padded_within_the_reserve(isa: object) -> None:
    for format_ in FORMATS.values():
        tiling = format_.gemm_tiling(isa)  # type: ignore[arg-type]
        assert tiling.n_tokens <= PADDING
        assert tiling.panel.token_bytes <= PANEL_BYTES


@pytest.mark.parametrize("size", FAMILY)
@pytest.mark.parametrize("n_threads", [1, 2, 16, 256])
def test_scratch_memory_is_enough(size: str, n_threads: int) -> None:
    """For every product of every model, in every format, on every CPU."""
    made, config = buffers(size, n_threads), from_hf(hf_config(size))
    for isa in ALL:
        for format_ in FORMATS.values():
            tiling = format_.gemm_tiling(isa)
            shapes = {s for s in config.expected_tensors().values() if len(s) == 2}
            for n_rows, n_columns in shapes:
                matrix = Matrix(("",), format_, n_rows, n_columns, 0, 0)
                per_chunk = tiles_per_chunk(matrix, tiling, n_threads)
                assert 1 <= per_chunk <= matrix.n_tiles
                # Of gate and up, a chunk takes an even number each.
                of_each = tiles_per_chunk(matrix, tiling, n_threads, ranges=2)
                for n_tiles in (per_chunk, 2 * (-(-of_each // 2) * 2)):
                    needed = scratch_bytes(tiling, matrix.n_blocks, n_tiles, PREFILL_TOKENS)
                    assert needed <= made.scratch_bytes
        group = config.n_heads // config.n_kv_heads
        for one_token in (True, False):
            shape = attention_shape(isa, config.head_dim, group, one_token, "f32")
            assert attention_bytes(shape.padded_rows, config.head_dim) <= made.scratch_bytes
    made.close()


@pytest.mark.parametrize("isa", ALL, ids=lambda isa: isa.name)
@pytest.mark.parametrize("group", [1, 2, 3, 4, 5, 6, 7, 8, 12, 28, 31, 64])
def test_attention_takes_whole_micro_kernels(isa: object, group: int) -> None:
    for one_token in (True, False):
        shape = attention_shape(isa, 128, group, one_token, "f16")  # type: ignore[arg-type]
        rows = shape.tokens * group
        assert rows <= shape.padded_rows < rows + shape.rows
        assert shape.padded_rows % shape.rows == 0
        # Accumulators, a vector of the stream each, and one factor.
        needed = shape.rows * shape.vectors + shape.vectors + 1
        assert needed <= shape.isa.registers
        assert 32 % (shape.vectors * shape.isa.lanes) == 0
        assert shape.tokens == 1 or not one_token
