"""The models for which attention is tested: every group, head size, cache type and vector width."""

from dataclasses import dataclass

import pytest

from edgeqwen.kernels.attention_types import AttentionShape, attention_shape
from edgeqwen.simd.isa import GENERIC, Isa
from tests.isas import GENERIC_8, GENERIC_16, NATIVE


@dataclass(frozen=True)
class Heads:
    """An instruction set and the heads of a model."""

    isa: Isa
    head_dim: int
    group: int
    cache_type: str
    n_kv_heads: int = 2

    def shape(self, one_token: bool) -> AttentionShape:
        return attention_shape(self.isa, self.head_dim, self.group, one_token, self.cache_type)

    @property
    def keeps_biases_apart(self) -> bool:
        return self.shape(one_token=True).cache.keeps_biases_apart

    def __str__(self) -> str:
        return f"{self.isa.name}-{self.head_dim}-{self.group}-{self.cache_type}"


# The full product would take minutes to compile: each value of each kind stands beside several of
# the others. The heads of the 0.5B, the 1.5B and the 7B are among them (64 by 7, 128 by 6 and 7).
HEADS = [
    Heads(NATIVE, 64, 7, "f16"),
    Heads(NATIVE, 32, 2, "f32"),
    Heads(NATIVE, 128, 6, "f16", n_kv_heads=1),
    Heads(GENERIC, 32, 5, "f16"),
    Heads(GENERIC_8, 64, 8, "f32", n_kv_heads=1),
    Heads(GENERIC_16, 128, 7, "f16", n_kv_heads=1),
    Heads(GENERIC_16, 32, 1, "f32", n_kv_heads=3),
    Heads(NATIVE, 64, 7, "q8_0"),
    Heads(GENERIC, 32, 2, "q8_0"),
    Heads(NATIVE, 128, 7, "q4_0", n_kv_heads=1),
    Heads(GENERIC_8, 64, 2, "q4_0"),
    Heads(GENERIC, 32, 8, "q4_0"),
    Heads(NATIVE, 64, 7, "bf16"),
]

# Where code is emulated, which takes minutes for each of them, the CPU's own instructions are
# tested for one model of each way to convert elements: float16, bytes and halves of bytes.
REPEATS = [h for h in HEADS if h.isa is NATIVE and h.cache_type in ("f32", "bf16")]
REPEATS += [Heads(NATIVE, 128, 6, "f16", n_kv_heads=1)]

each_heads = pytest.mark.parametrize(
    "heads",
    [pytest.param(h, marks=pytest.mark.thorough if h in REPEATS else ()) for h in HEADS],
    ids=str,
)
