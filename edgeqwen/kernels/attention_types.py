"""The shape of an attention micro-kernel, and the token that specialises the attention kernels.

Both products of attention, q times K and p times V, are one micro-kernel: some rows times some
vectors, rows x vectors += broadcast * stream. Rows are the query heads that share a KV head (of
one token or of several), so K and V are read once for all of them.

The KV cache lies in segments of 256 positions (see ``edgeqwen.cache.layout``). A segment holds of
each layer and KV head

- K [positions / 32][head_dim / 32] of blocks [32 dimensions][32 positions]
- V [positions / 64][head_dim / 32] of blocks [64 positions][32 dimensions]

so that both stream 32 columns a step, in memory's order, without a transposition. A block of a
quantized type begins with the float16 scales of its positions. Codes of 4 bits go in pairs, so that
a block of K has 16 rows of 32 bytes, and one of V 64 rows of 16 bytes (``cache_types``).
"""

from dataclasses import dataclass

from edgeqwen.kernels.cache_types import CACHE_TYPES, CacheType
from edgeqwen.simd.isa import Isa
from edgeqwen.simd.token import Token

STREAM = 32
"""Columns of K (positions) or V (dimensions) that lie side by side in the cache."""

SEGMENT = 256
"""Positions of a segment of the KV cache."""

# More rows of queries, scores and outputs would not stay in the first-level cache.
MOST_ROWS = 30


@dataclass(frozen=True, slots=True)
class AttentionShape(Token):
    """How attention is computed for one model on one instruction set.

    ``group`` query heads share a KV head; a chunk of work takes ``tokens`` tokens of one KV head,
    so its rows are tokens * group, rounded up to a multiple of ``rows``, the rows of the
    micro-kernel.
    """

    isa: Isa
    head_dim: int
    group: int
    tokens: int
    rows: int
    cache_type: str

    @property
    def token_name(self) -> str:
        shape = f"{self.tokens} tokens x {self.group} heads by {self.rows}"
        isa = f"{self.isa.name}/{self.isa.lanes}"
        return f"Attention({isa}, head_dim {self.head_dim}, {shape}, {self.cache_type})"

    @property
    def cache(self) -> CacheType:
        return CACHE_TYPES[self.cache_type]

    @property
    def vectors(self) -> int:
        """Vectors of the stream that a micro-kernel takes at once."""
        return max(1, min(2, STREAM // self.isa.lanes)) if self.isa.registers == 16 else 2

    @property
    def padded_rows(self) -> int:
        return -(-self.tokens * self.group // self.rows) * self.rows


def attention_shape(
    isa: Isa, head_dim: int, group: int, one_token: bool, cache_type: str
) -> AttentionShape:
    """Chooses the rows of the micro-kernel, and how many tokens a chunk takes.

    Accumulators (rows * vectors), stream vectors and one factor must fit the registers: rows
    <= 6 of 16 registers, 14 of 32. A pass of the micro-kernel costs its rows plus about three
    more for loading and widening the stream, so few passes and little padding are best.
    """
    rows = range(1, {16: 6, 32: 14}[isa.registers] + 1)
    tokens = [1] if one_token else range(1, max(1, MOST_ROWS // group) + 1)
    best = min(
        ((t, r) for t in tokens for r in rows),
        key=lambda s: (-(-s[0] * group // s[1]) * (s[1] + 3) / s[0], -s[0]),
    )
    return AttentionShape(isa, head_dim, group, *best, cache_type)
