"""A panel: activations laid out for a matrix product, for all formats that read them alike.

It holds ``n_tokens`` activation vectors block by block, each block of 32 columns as

- float32 [n_tokens][32], for float formats; or
- int8 [n_tokens][32], float32 scale [n_tokens], and then sums [groups][n_tokens] of the int8 over
  each group of columns: float32, times the scale, where ``scaled_sums``, else int32, times
  ``offset`` and with ``SUM_START`` (``formats/sums.py``) added, unless the offset is 0.
"""

from dataclasses import dataclass

from edgeqwen.simd.isa import Isa
from edgeqwen.simd.token import Token


@dataclass(frozen=True, slots=True)
class Panel(Token):
    """The token that kernels which write panels are specialised by."""

    isa: Isa
    n_tokens: int
    integers: bool
    groups: int = 1
    scaled_sums: bool = False
    offset: int = 0

    @property
    def token_name(self) -> str:
        kind = "f32"
        if self.integers:
            sums = "scaled" if self.scaled_sums else f"{self.offset} x"
            kind = f"i8 with {self.groups} {sums} sums"
        return f"Panel({self.n_tokens} {kind}, {self.isa.name}/{self.isa.lanes})"

    @property
    def token_bytes(self) -> int:
        """Bytes that one token takes in one block."""
        return 32 + 4 + 4 * self.groups if self.integers else 128

    @property
    def block_bytes(self) -> int:
        return self.n_tokens * self.token_bytes
