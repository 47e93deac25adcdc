"""A kernel that unpacks whole tiles."""

from edgeqwen.kernels.embed import dequantize_tile
from edgeqwen.simd.compile import kernel


@kernel
def tiles_to_float(tiling, tiles, tile_bytes, out, n):  # type: ignore[no-untyped-def]
    """out: float32 [n][32 columns][16 rows]."""
    for i in range(n):
        dequantize_tile(tiling, tiles + i * tile_bytes, out + i * 2048)
